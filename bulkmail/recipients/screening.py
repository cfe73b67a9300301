"""Who of a list gets the letter: bad rows, a condition, and the addresses and domains that are suppressed."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from bulkmail.model.address import Address, parse_mailbox
from bulkmail.model.delivery import Status
from bulkmail.model.errors import AddressError
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.model.units import count
from bulkmail.recipients.columns import has_address_column
from bulkmail.recipients.dialect import guess_delimiter
from bulkmail.recipients.encoding import choose, open_text
from bulkmail.recipients.fields import LONGEST_CELL, shown
from bulkmail.recipients.opening import Opened, list_errors, open_bytes
from bulkmail.recipients.reading import ListOptions, Reading
from bulkmail.recipients.source import read_list
from bulkmail.recipients.xlsx import SUFFIXES

_SAMPLE = 1 << 16
_MOST_NOTICES = 20
REACHED_NOBODY = "is of a rehearsal, which reached no recipient: no address is suppressed by it"
_REACHED = (Status.ACCEPTED.value, Status.IN_DOUBT.value)


class Screened(NamedTuple):
    """A row and what it begins as: PENDING, INVALID, FILTERED or SUPPRESSED.  `reason` is empty for PENDING."""

    row: Recipient | BadRow
    status: Status
    reason: str


def screen(
    row: Recipient | BadRow,
    *,
    suppression: Suppression | None,
    where: Callable[[Mapping[str, object]], bool] | None,
) -> Screened:
    """What the row begins as.  Duplicates are not known here: the outbox finds them."""
    if isinstance(row, BadRow):
        return Screened(row, Status.INVALID, row.reason)
    if where is not None and not where(row.fields):
        return Screened(row, Status.FILTERED, "left out by --where")
    if suppression is not None and (reason := suppression.matches(row.address)):
        return Screened(row, Status.SUPPRESSED, reason)
    return Screened(row, Status.PENDING, "")


class Suppression:
    """Addresses and domains that are not written to.  A million take about 35 MB.

    A domain means exactly that domain: `@example.org` does not match `ann@mail.example.org`.  Case and the script of an
    international domain do not matter.  `notices` name every line that could not be understood.
    """

    def __init__(self) -> None:
        self.notices: list[str] = []
        self._names: list[str] = []
        self._places = _Places()

    def __len__(self) -> int:
        return len(self._places)

    def add_file(self, path: str | os.PathLike[str]) -> None:
        """Adds a file: an address or `@domain` a line with `#` comments, or any list with an address column.

        Of a bulkmail report, whose column `delivery_status` tells it, only those who were or may have been reached
        (accepted, in_doubt) are added, and none of a rehearsal's.  Raises `ListError` for a file that cannot be read.
        """
        opened = open_bytes(path)
        notices = _Notices(self.notices, opened.name)
        try:
            with list_errors(opened.name):
                if _is_plain(opened):
                    self._add_lines(opened, notices)
                else:
                    self._add_list(opened, notices)
        finally:
            opened.close()
        notices.close()

    def add_keys(self, keys: Iterable[str], *, name: str) -> None:
        """Adds addresses by their `Address.key`, for example of those whom another run reached."""
        file = self._file(name)
        for key in keys:
            self._places.add(key, file, line=0)

    def matches(self, address: Address) -> str:
        """The reason not to write there, `"in stop.txt:3"`; "" if there is none."""
        if not self._places:
            return ""
        found = self._places.find(address.key) or self._places.find(f"@{address.domain}")
        if not found:
            return ""
        file, line = found
        return f"in {self._names[file]}:{line}" if line else f"in {self._names[file]}"

    def _file(self, name: str) -> int:
        self._names.append(name)
        return len(self._names) - 1

    def _add_lines(self, opened: Opened, notices: _Notices) -> None:
        encoding = choose(opened.stream, name=opened.name, wanted="", notices=self.notices)
        file = self._file(opened.name)
        number = 0
        with open_text(opened.stream, encoding, newline=None) as text:
            while line := text.readline(LONGEST_CELL):
                number += 1
                if entry := _entry(line):
                    try:
                        self._places.add(_key(entry), file, line=number)
                    except AddressError as error:
                        notices.add(number, f"{shown(entry)} {error}")

    def _add_list(self, opened: Opened, notices: _Notices) -> None:
        file = self._file(opened.name)
        rehearsed = 0
        reading = Reading(opened.name, ListOptions(), self.notices, is_suppression=True)
        with read_list(opened, reading) as people:
            for row in people:
                if row.fields.get("delivery_rehearsal") == "yes":
                    rehearsed += 1
                    continue
                if row.fields.get("delivery_status", Status.ACCEPTED.value) not in _REACHED:
                    continue
                if isinstance(row, BadRow):
                    notices.add(row.place.line, row.reason)
                else:
                    self._places.add(row.address.key, file, line=row.place.line)
        if rehearsed:
            self.notices.append(f"{opened.name}: {REACHED_NOBODY}")


class _Notices:
    """Complaints about one file: the first few in full, the rest as a number."""

    def __init__(self, notices: list[str], name: str) -> None:
        self._notices = notices
        self._name = name
        self._number = 0

    def add(self, line: int, reason: str) -> None:
        self._number += 1
        if self._number <= _MOST_NOTICES:
            self._notices.append(f"{self._name}:{line}: {reason}; nobody is suppressed by this line")

    def close(self) -> None:
        if self._number > _MOST_NOTICES:
            more = count(self._number - _MOST_NOTICES, "more line")
            self._notices.append(f"{self._name}: {more} could not be understood and suppress nobody")


class _Places:
    """Where each key stands, by a 64-bit hash in a table with open addressing: 16 octets a slot, half of them used.

    Two different keys share a hash with a chance of one in 10^7 for a million against a million.
    """

    def __init__(self) -> None:
        self._used = 0
        self._hashes = array("Q", bytes(8 << 10))
        self._where = array("Q", bytes(8 << 10))

    def __len__(self) -> int:
        return self._used

    def add(self, key: str, file: int, *, line: int) -> None:
        """The first place of a key stays."""
        if self._used * 2 >= len(self._hashes):
            self._resize(len(self._hashes) * 2)
        hashed = _hash(key)
        slot = self._slot(hashed)
        if not self._hashes[slot]:
            self._hashes[slot] = hashed
            self._where[slot] = file << 40 | line
            self._used += 1

    def find(self, key: str) -> tuple[int, int] | None:
        slot = self._slot(_hash(key))
        if not self._hashes[slot]:
            return None
        return self._where[slot] >> 40, self._where[slot] & (1 << 40) - 1

    def _slot(self, hashed: int) -> int:
        """The slot that has the hash, or the free one where it would be."""
        hashes, mask = self._hashes, len(self._hashes) - 1
        slot = hashed & mask
        while hashes[slot] not in (0, hashed):
            slot = slot + 1 & mask
        return slot

    def _resize(self, size: int) -> None:
        hashes, places = self._hashes, self._where
        self._hashes, self._where = array("Q", bytes(8 * size)), array("Q", bytes(8 * size))
        for hashed, where in zip(hashes, places, strict=True):
            if hashed:
                slot = self._slot(hashed)
                self._hashes[slot], self._where[slot] = hashed, where


def _hash(key: str) -> int:
    """Python's own, which nobody outside this process can foresee; never 0, which marks a free slot."""
    return hash(key) & (1 << 64) - 1 or 1


def _entry(line: str) -> str:
    """The line without its comment: `#` begins one at the start or after a space; inside an address it is a letter."""
    text = line.strip()
    if text.startswith("#"):
        return ""
    for space in (" #", "\t#"):
        text = text.partition(space)[0]
    return text.strip()


def _key(entry: str) -> str:
    domain = entry.removeprefix("*")
    if domain.startswith("@"):
        if domain != entry:
            raise AddressError(f"is not an address; for everybody at the domain write {domain}")
        return "@" + Address.parse("x" + domain).domain
    try:
        return parse_mailbox(entry)[1].key
    except AddressError:
        if "@" not in entry and "." in entry and " " not in entry:
            raise AddressError(f"has no @; for everybody at the domain write @{entry}") from None
        raise


def _is_plain(opened: Opened) -> bool:
    """Whether the file is one address or domain a line, rather than a list with named columns."""
    if opened.suffix not in ("", ".txt", ".csv", ".tsv"):
        return opened.suffix not in (".json", ".jsonl", ".ndjson", *SUFFIXES)
    sample = opened.stream.read(_SAMPLE).decode("utf-8", "replace")
    opened.stream.seek(0)
    lines = [line for line in sample.lstrip("\ufeff").splitlines() if _entry(line)]
    if not lines or "@" in lines[0]:
        return True
    delimiter = guess_delimiter("\n".join(lines[:20]), wanted="", default=",")
    header = [cell.strip().strip('"') for cell in lines[0].split(delimiter)]
    return not has_address_column(header, "") and opened.suffix not in (".csv", ".tsv")
