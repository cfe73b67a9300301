"""The suppression list as files: what other programs read and write, and a copy that another machine goes on with."""

from __future__ import annotations

import csv
import os
import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TextIO

from bulkmail.model.errors import AddressError, ListError, SuppressionError
from bulkmail.model.lazy import dataclass
from bulkmail.model.suppression import ALL_LISTS, SuppressionEntry, SuppressionReason, list_scope
from bulkmail.outbox.outbox_reader import is_outbox
from bulkmail.recipients.screening import entry_key, read_entries
from bulkmail.suppression.file import APPLICATION_ID, explained
from bulkmail.suppression.ports import DIGEST_BYTES, Addition
from bulkmail.text import printable

COLUMNS = ("address", "reason", "list", "since", "until", "note", "digest", "digest_key")
MOST_FAULTS = 20
_MAGIC = b"SQLite format 3\0"
_REASONS = {reason.value: reason for reason in SuppressionReason}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(slots=True)
class ReadFile:
    """What a file to import has: `additions`, what was noticed, and the first of `fault_count` lines not understood."""

    additions: Sequence[Addition] = ()
    notices: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    fault_count: int = 0

    def add_fault(self, text: str) -> None:
        """Remembers one."""
        self.fault_count += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(text)


def digest_key_of(secret: bytes) -> str:
    """8 hex digits that tell whether digests were made with the same secret."""
    return blake2b(secret, digest_size=4, person=b"name").hexdigest()


def is_archive(path: Path) -> bool:
    """Whether the file is a suppression list itself."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError:
        return False
    return head.startswith(_MAGIC) and head[68:72] == APPLICATION_ID.to_bytes(4, "big")


def read_file(
    path: Path, *, secret: bytes, reason: SuppressionReason, scope: str, until: float | None, note: str
) -> ReadFile:
    """The entries of a file: an export or an archive of ours, lines of addresses and `@domain`s, or a list.

    Only an export and an archive say themselves why and for how long; for the others `reason`, `scope`, `until` and
    `note` hold.  Raises `ListError`, and `SuppressionError` for an archive that cannot be read.
    """
    if is_archive(path):
        return _read_archive(path, secret)
    if is_outbox(path):
        raise ListError(
            f"{path}: is the outbox of a run, and what its servers rejected permanently is on the list already",
            hint=f"to leave out those whom the run reached: bulkmail send --suppress {path}",
        )
    header = _header(path)
    if header == list(COLUMNS):
        return _read_export(path, secret)
    if "delivery_status" in header:
        raise ListError(
            f"{path}: is a delivery report, and what its servers rejected permanently is on the list already",
            hint=f"to leave out those whom the run reached: bulkmail send --suppress {path}",
        )
    keys, found = read_entries(path)
    read = ReadFile(notices=found.notices, fault_count=found.fault_count)
    read.faults = [f"{place}: {why}" for place, why in found.faults]
    read.additions = [Addition(key, reason, scope, until, note) for key in keys]
    return read


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            return [cell.strip().strip('"') for cell in file.readline(10_000).split(",")]
    except OSError as error:
        raise ListError(f"{path}: cannot be read: {error.strerror}") from None


def _read_export(path: Path, secret: bytes) -> ReadFile:
    read, additions = ReadFile(), list[Addition]()
    known = digest_key_of(secret)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        for row in rows:
            try:
                additions.append(_addition(row, known))
            except (ValueError, AddressError, KeyError) as error:
                read.add_fault(f"{path}:{rows.line_num}: {error}")
    read.additions = additions
    return read


def _addition(row: dict[str, str], known: str) -> Addition:
    cells = {name: (row.get(name) or "").strip() for name in COLUMNS}
    if cells["reason"] not in _REASONS:
        raise ValueError(f"reason = {printable(cells['reason'], 60)!r}, expected {', '.join(_REASONS)}")
    key = entry_key(cells["address"].removeprefix("'")) if cells["address"] else ""
    digest = b""
    if not key:
        if cells["digest_key"] != known:
            raise ValueError(
                "has no address, and its digest was made by another list: bulkmail suppress export --archive"
            )
        digest = bytes.fromhex(cells["digest"])
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"digest has {len(digest)} bytes, expected {DIGEST_BYTES}")
    return Addition(
        key,
        _REASONS[cells["reason"]],
        list_scope(cells["list"]),
        _instant(cells["until"]),
        cells["note"].removeprefix("'"),
        _instant(cells["since"]),
        digest,
    )


def _instant(text: str) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None


def _read_archive(path: Path, secret: bytes) -> ReadFile:
    read, additions = ReadFile(), list[Addition]()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            (other,) = connection.execute("SELECT key FROM secret").fetchone()
            for key, digest, reason, scope, until, note, since in connection.execute(
                "SELECT key, digest, reason, scope, until, note, since FROM entry"
            ):
                if key:
                    additions.append(Addition(key, _REASONS[reason], scope, until, note, since))
                elif other == secret:
                    additions.append(Addition("", _REASONS[reason], scope, until, note, since, digest))
                else:
                    read.add_fault(f"{path}: an entry whose address was erased is known to its own list alone")
    except sqlite3.Error as error:
        raise explained(error, path) from error
    except (KeyError, TypeError) as error:
        raise SuppressionError(f"{path} is not a suppression list of this version ({error})") from None
    read.additions = additions
    return read


def adopt(archive: Path, target: Path) -> None:
    """Makes a list at `target`, where there is none, of an archive, with its secret.  Raises `SuppressionError`."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.new")
        with (
            open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file,
            archive.open("rb") as old,
        ):
            shutil.copyfileobj(old, file)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, target)  # fails if there is one by now
        draft.unlink()
    except OSError as error:
        raise SuppressionError(f"{target} cannot be written: {error.strerror}") from error


def export(entries: Iterable[SuppressionEntry], file: TextIO, *, secret: bytes, is_hashed: bool) -> int:
    """Writes all entries as CSV, `COLUMNS`, and says how many; hashed, without a single address or note."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    number, known = 0, digest_key_of(secret)
    for entry in entries:
        # A domain begins with @, which a spreadsheet shows as an error; nothing can come of it.
        key = entry.key if entry.key.startswith("@") else _plain(entry.key)
        address, note = ("", "") if is_hashed else (key, _plain(entry.note))
        writer.writerow(
            [
                address,
                entry.reason.value,
                entry.scope or ALL_LISTS,
                iso(entry.since),
                "" if entry.until is None else iso(entry.until),
                note,
                entry.digest.hex(),
                known,
            ]
        )
        number += 1
    return number


def _plain(text: str) -> str:
    """`text` so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def iso(at: float) -> str:
    """UTC, to the second: `2026-11-02T13:03:00Z`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
