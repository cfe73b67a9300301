"""Who of a list gets the message: bad rows, a condition, and the addresses and domains that are suppressed."""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from bulkmail.model.errors import AddressError, ListError, TemplateError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import Address, BadRow, Place, Recipient, parse_mailbox, split_list
from bulkmail.model.tally import Status
from bulkmail.recipients.columns import DELIVERY_COLUMNS, has_address_column, is_report, listed
from bulkmail.recipients.delimiter import guess_delimiter
from bulkmail.recipients.fields import LONGEST_CELL, shown
from bulkmail.recipients.hints import is_mailbox
from bulkmail.recipients.list_reading import ListOptions, Reading
from bulkmail.recipients.list_source import read_list
from bulkmail.recipients.sheets import SUFFIXES
from bulkmail.recipients.streams import OpenedList, choose, list_errors, open_bytes, open_text

_SAMPLE = 1 << 16
_MOST_FAULTS = 20
_QUOTED = lazy_pattern("""["'\u201c\u201d\u201e\u201f](.*)["'\u201c\u201d]""")
_MAILTO = lazy_pattern(r"<?mailto:([^?<>]*)(?:\?[^<>]*)?>?", re.IGNORECASE)
_SUBDOMAINS = lazy_pattern(r"(?:\*?@)?(?:\*?\.)+([^*@\s]+)")  # *.example.org, @*.example.org, .example.org
_WILDCARD = lazy_pattern(r"[*?]|^%$")
_NUMBERED = lazy_pattern(r"(?:e-?)?mail(?:[ _-]?address)?[ _-]?\d{1,3}", re.IGNORECASE)  # email2, E-Mail 3
REACHED_NO_RECIPIENT = "is of a rehearsal, which reached no recipient: no address is suppressed by it"
_REACHED = (Status.ACCEPTED.value, Status.IN_DOUBT.value)


class Screened(NamedTuple):
    """A row and what it begins as: PENDING, INVALID, FILTERED or SUPPRESSED.  `reason` is empty for PENDING.

    `due_at`, in wall-clock seconds, is when a pending row may be tried first; 0 is at once.
    """

    row: Recipient | BadRow
    status: Status
    reason: str
    due_at: float = 0.0


def screen(
    row: Recipient | BadRow,
    *,
    suppression: Suppression | None,
    where: Callable[[Mapping[str, object]], bool] | None,
) -> Screened:
    """What the row begins as.  Duplicates are not known here: the outbox finds them.

    A row that `where` raises `TemplateError` for is a bad one: whether it is selected is unknown.  Raises `ListError`
    for a row of a rehearsal's report whose outcome `where` asks for: it is that of no message to this recipient.
    """
    if isinstance(row, BadRow):
        return Screened(row, Status.INVALID, row.reason)
    if where is not None and row.fields.get("delivery_rehearsal") == "yes":  # a list has it only where it is asked for
        raise ListError(
            f"{row.place}: this is the report of a rehearsal, which reached no recipient: its delivery_… columns say"
            " nothing about who got the message",
            hint="use the report of the real run as the list, or leave these columns out of the condition",
        )
    try:
        is_meant = where is None or where(row.fields)
    except TemplateError as error:
        reason = f"{error}; {error.hint}" if error.hint else str(error)
        return Screened(BadRow(reason, row.fields, row.place), Status.INVALID, reason)
    if not is_meant:
        return Screened(row, Status.FILTERED, "excluded by --where")
    if suppression is not None and (reason := suppression.matches(row.address)):
        return Screened(row, Status.SUPPRESSED, reason)
    return Screened(row, Status.PENDING, "")


class Suppression:
    """Addresses and domains that are not written to.  A million take about 35 MB.

    A domain means exactly that domain: `@example.org` does not match `ann@mail.example.org`.  Case and the script of an
    international domain do not matter.  `faults` are the first entries that could not be read, `fault_count` is
    how many there are: nothing should be sent before they are corrected.
    """

    def __init__(self, places: _Places | _Keys | None = None) -> None:
        self.notices: list[str] = []
        self.faults: list[tuple[Place, str]] = []
        self.fault_count = 0
        self._has_other_cells = False
        self._names: list[str] = []
        self._places = places if places is not None else _Places()
        self._passed = _Places()  # what earlier passes reached, some of it by `_pair()`
        self._lists: list[Callable[[str], str]] = []

    def __len__(self) -> int:
        """How many addresses and domains were added; at least 1 if a list is kept elsewhere."""
        return len(self._places) + len(self._passed) + len(self._lists)

    def add_file(self, path: str | os.PathLike[str]) -> None:
        """Adds a file: addresses or `@domain` a line with `#` comments, or any list with an address column.

        `email2` beside `email` is read, too; other columns with addresses are named in `notices`.  Of a bulkmail
        report, whose columns `delivery_status` and `delivery_copies` show it, only those who were or may have been
        reached (accepted, in_doubt) are added, and none of a rehearsal's.  Raises `ListError` for a file that cannot be
        read.
        """
        opened = open_bytes(path)
        try:
            with list_errors(opened.name):
                if _is_plain(opened):
                    self._add_lines(opened)
                else:
                    self._add_list(opened)
        finally:
            opened.close()

    def add_keys(self, keys: Iterable[str], *, name: str) -> None:
        """Adds addresses by their `Address.key`, for example of those whom another run reached."""
        file = self._file(name)
        for key in keys:
            self._places.add(key, file, line=0)

    def add_pass(self, reached: Iterable[tuple[str, str]], *, name: str) -> None:
        """Adds what an earlier pass of the same campaign reached: the keys of a row's own address and of where it went.

        Such an address gets no row again, and no copy of the same row; copies of other rows it still gets.
        """
        file = self._file(name)
        for own, path in reached:
            self._passed.add(path, file, line=0)
            if own != path:
                self._passed.add(_pair(own, path), file, line=0)

    def add_list(self, reason_of: Callable[[str], str]) -> None:
        """Adds a list that is kept elsewhere: `reason_of` says why an `Address.key` gets no mail, "" if it may."""
        self._lists.append(reason_of)

    def matches(self, address: Address) -> str:
        """The reason not to write there, `"in stop.txt:3"`; "" if there is none."""
        return self.matches_key(address.key)

    def matches_key(self, key: str) -> str:
        """The same for the address with this `Address.key`."""
        return self._reason(self._listed(key) or self._passed.find(key)) or self._of_lists(key)

    def matches_copy(self, address: Address, *, of: Address) -> str:
        """The reason not to send a copy of the row of another address there; "" if there is none."""
        found = self._listed(address.key) or self._passed.find(_pair(of.key, address.key))
        return self._reason(found) or self._of_lists(address.key)

    def _of_lists(self, key: str) -> str:
        for reason_of in self._lists:
            if reason := reason_of(key):
                return reason
        return ""

    def _listed(self, key: str) -> tuple[int, int] | None:
        if not self._places:
            return None
        return self._places.find(key) or self._places.find(key[key.rindex("@") :])

    def _reason(self, found: tuple[int, int] | None) -> str:
        if not found:
            return ""
        file, line = found
        return f"in {self._names[file]}:{line}" if line else f"in {self._names[file]}"

    def _file(self, name: str) -> int:
        self._names.append(name)
        return len(self._names) - 1

    def _add_lines(self, opened: OpenedList) -> None:
        encoding = choose(opened.stream, name=opened.name, wanted="", notices=self.notices)
        file = self._file(opened.name)
        number = 0
        with open_text(opened.stream, encoding, newline=None) as text:
            while line := text.readline(LONGEST_CELL):
                number += 1
                if entry := _entry(line):
                    self._add_entry(entry, file, Place(opened.name, number))

    def _add_list(self, opened: OpenedList) -> None:
        file = self._file(opened.name)
        rehearsed = 0
        others = dict[str, None]()
        reading = Reading(opened.name, ListOptions(), self.notices, is_suppression=True)
        with read_list(opened, reading) as people:
            for row in people:
                if row.fields.get("delivery_rehearsal") == "yes":
                    rehearsed += 1
                    continue
                self._add_copies(row, file)
                if row.fields.get("delivery_status", Status.ACCEPTED.value) not in _REACHED:
                    continue
                if isinstance(row, Recipient):
                    self._places.add(row.address.key, file, line=row.place.line)
                    others.update(dict.fromkeys(self._add_others(row, file)))
                elif not self._add_cells(row, file):
                    self._add_fault(row.place, row.reason)
            others = {name: None for name in others if name not in DELIVERY_COLUMNS}
            if others and not is_report(people.columns):
                said = (
                    f"addresses in {listed(list(others), 5)} are not suppressed; name a column email2 if they should be"
                )
                self.notices.append(f"{opened.name}: {said}")
        if rehearsed:
            self.notices.append(f"{opened.name}: {REACHED_NO_RECIPIENT}")

    def _add_others(self, row: Recipient, file: int) -> list[str]:
        """Adds the addresses in numbered columns; says which others have some."""
        unread = []
        for name, cell in row.fields.items():
            if not isinstance(cell, str) or "@" not in cell:
                continue
            if _NUMBERED.fullmatch(name):
                self._add_entry(cell.strip(), file, row.place)
            elif is_mailbox(cell) and parse_mailbox(cell)[1] != row.address:
                unread.append(name)
        return unread

    def _add_cells(self, row: BadRow, file: int) -> bool:
        """Adds every address in the cells of a row that is wrong in other ways, or holds several; says if one has."""
        cells = [cell for cell in row.fields.values() if isinstance(cell, str) and "@" in cell]
        for cell in cells:
            self._add_entry(cell.strip(), file, row.place)
        return bool(cells)

    def _add_copies(self, row: Recipient | BadRow, file: int) -> None:
        """Those of a report's `delivery_copies` who were or may have been reached, whatever became of their row."""
        if not (cell := row.fields.get("delivery_copies")):
            return
        try:
            copies = cell if isinstance(cell, list) else json.loads(str(cell))
            reached = [Address.parse(copy["address"]) for copy in copies if copy["status"] in _REACHED]
        except (ValueError, TypeError, KeyError, RecursionError):
            self._add_fault(row.place, f"delivery_copies is not as a report of bulkmail has it: {shown(str(cell))}")
            return
        for address in reached:
            self._places.add(address.key, file, line=row.place.line)

    def _add_entry(self, entry: str, file: int, place: Place) -> None:
        """Adds all addresses and domains in a line, and remembers each piece that is neither."""
        pieces, others = _pieces(entry)
        if others and not self._has_other_cells:
            self._has_other_cells = True
            self.notices.append(f"{place}: {shown(others[0])} beside an address is not read as an entry")
        for piece in pieces:
            try:
                self._places.add(entry_key(piece), file, line=place.line)
            except AddressError as error:
                self._add_fault(place, f"{shown(piece)} {error}")

    def _add_fault(self, place: Place, reason: str) -> None:
        self.fault_count += 1
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append((place, reason))


class _Keys:
    """Keys in the order in which they stand, each with its line."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.found)

    def add(self, key: str, file: int, *, line: int) -> None:
        """The first place of a key stays."""
        self.found.setdefault(key, line)

    def find(self, key: str) -> tuple[int, int] | None:
        return (0, self.found[key]) if key in self.found else None


def read_entries(path: str | os.PathLike[str]) -> tuple[dict[str, int], Suppression]:
    """The addresses and domains of a suppression file, each with its line, and what was noticed and not understood.

    Raises `ListError` for a file that cannot be read.
    """
    keys = _Keys()
    suppression = Suppression(keys)
    suppression.add_file(path)
    return keys.found, suppression


class _Places:
    """Where each key stands, by a 64-bit hash in a table with open addressing: 16 bytes a slot, half of them used.

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


def _pair(own: str, path: str) -> str:
    return f"{own}\n{path}"  # no address has a line break


def _hash(key: str) -> int:
    """Python's own, which cannot be predicted outside this process; never 0, which marks a free slot."""
    return hash(key) & (1 << 64) - 1 or 1


def _entry(line: str) -> str:
    """The line without its comment: `#` begins one at the start or after a space; inside an address it is a message."""
    text = line.strip()
    if text.startswith("#"):
        return ""
    for space in (" #", "\t#"):
        text = text.partition(space)[0]
    return text.strip()


def _pieces(entry: str) -> tuple[list[str], list[str]]:
    """The addresses and domains of a line: between commas, semicolons, tabs or spaces, each perhaps with a name.

    And its other cells: what stands in quotes or between tabs beside an address is a table's, a name or a date.
    """
    cells = [cell for part in entry.split("\t") for cell in split_list(part)] if "\t" in entry else split_list(entry)
    cells = [cell for cell in map(str.strip, cells) if cell]
    others = []
    if any("@" in cell for cell in cells):
        others = [cell for cell in cells if ("\t" in entry or _QUOTED.fullmatch(cell)) and _is_other(cell)]
    pieces: list[str] = []
    for cell in cells:
        if cell in others:
            continue
        if cell.endswith((">", '"')) or cell.count("@") < 2:
            pieces.append(cell)
        else:
            pieces += cell.split()
    return pieces, others


def _is_other(cell: str) -> bool:
    """Whether a cell beside an address is surely no entry: neither an address nor a domain without its @."""
    return "@" not in cell and not _is_domain(_bare(cell))


def _is_domain(text: str) -> bool:
    try:
        return "." in text and Address.parse(f"x@{text}").domain.rpartition(".")[2].isalpha()
    except AddressError:
        return False


def _bare(piece: str) -> str:
    """The entry without quotes around it."""
    found = _QUOTED.fullmatch(piece)
    return found[1].strip() if found else piece


def entry_key(piece: str) -> str:
    """The `Address.key` or `@domain` that one entry of a suppression list means.  Raises `AddressError`."""
    text = _bare(piece)
    if link := _MAILTO.fullmatch(text):
        text = unquote(link[1])
    domain = text.removeprefix("*")
    if found := _SUBDOMAINS.fullmatch(text):
        raise AddressError(f"means subdomains, and only whole domains can be named; write each, as in @mail.{found[1]}")
    if domain.startswith("@"):
        return "@" + Address.parse("x" + domain).domain
    try:
        address = parse_mailbox(text)[1]
    except AddressError:
        if _is_domain(text):
            raise AddressError(f"has no @; for the whole domain write @{text}") from None
        raise
    if _WILDCARD.search(address.local):
        raise AddressError(f"has a wildcard; write each address, or @{address.domain} for the whole domain")
    return address.key


def _is_plain(opened: OpenedList) -> bool:
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
