"""Objects with named fields, as recipients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import field

import msgspec

from bulkmail.model.errors import AddressError, ListError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address, BadRow, Place, Recipient, parse_mailbox
from bulkmail.recipients.columns import DELIVERY_COLUMNS, MOST_COLUMNS, address_column, has_address_column, name_column
from bulkmail.recipients.fields import (
    DEEPEST,
    LONGEST_CELL,
    display_name,
    kind,
    shown,
    storable,
    text_fault,
    value_fault,
    without_constants,
)
from bulkmail.recipients.hints import address_columns, check_addresses, flat, is_mailbox, say_column
from bulkmail.recipients.list_reading import Reading

EXAMPLE = '{"email": "ann@example.org"}'
_MOST_LOOKED_AT = 100  # objects in which the address column is looked for
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a record that is none, or that cannot be trusted; `reason` says why, `fields` are what it has."""

    reason: str
    fields: Mapping[str, object] = field(default_factory=dict)


class ObjectRows:
    """What to make of an object.  `columns` are the fields seen so far, in order of appearance."""

    def __init__(self, reading: Reading, *, trims: bool = False) -> None:
        """`trims` takes the space off texts, as files have it by accident."""
        self.columns: list[str] = []
        self._known: set[str] = set()
        self._reading = reading
        self._address = ""
        self._name = ""
        self._drops = not reading.keeps_delivery
        self._has_dropped = False
        self._has_found_name = False
        self._trims = trims and not reading.options.keep_space
        self._encode = msgspec.json.Encoder(enc_hook=float).encode

    def rows(self, items: Iterator[tuple[int, object]]) -> Iterator[Recipient | BadRow]:
        """Each record with the line it begins at, as a recipient.  Raises `ListError` if no field holds addresses."""
        first = list(self._until_address(items))
        if first and all(is_mailbox(record) for _, record in first):
            self._reading.notices.append(f"{self._reading.name}: a list of addresses alone, read as the field 'email'")
            first = list(_with_field(iter(first)))
            items = _with_field(items)
        self._settle_columns(first)
        row = self._row
        for line, record in itertools.chain(first, items):
            yield row(line, record)
        self._reading.notice_padded()
        self._reading.notice_constants()
        wanted = self._reading.options.name_column
        if wanted and wanted not in self._known and not self._has_found_name:
            self._reading.notices.append(f"{self._reading.name}: no object has the field {shown(wanted)} for the name")

    def _until_address(self, items: Iterator[tuple[int, object]]) -> Iterator[tuple[int, object]]:
        wanted = self._reading.options.address_column
        for line, record in itertools.islice(items, _MOST_LOOKED_AT):
            yield line, record
            if isinstance(record, dict) and (
                has_address_column(list(record), wanted) or (wanted and _dig(record, wanted) is not _MISSING)
            ):
                return

    def _settle_columns(self, first: list[tuple[int, object]]) -> None:
        records = [(line, record) for line, record in first if isinstance(record, dict)]
        if records:
            options = self._reading.options
            columns = list(dict.fromkeys(str(key) for _, record in records for key in record))
            place = self._reading.place(records[0][0])
            self._name = options.name_column or ""
            wanted = options.address_column
            if wanted and any(_dig(record, wanted) is not _MISSING for _, record in records):
                self._address = wanted
            elif wanted or options.row_address is None:
                samples = [flat(record) for _, record in records]
                paths = list(dict.fromkeys(path for sample in samples for path in sample))
                holding = say_column(address_columns(paths, samples), self._reading)
                self._address = address_column(columns, wanted, place=place, hint=holding)
                if not wanted:
                    check_addresses(self._address, paths, samples, self._reading)
            return
        strange = [(line, record) for line, record in first if not isinstance(record, Unreadable)]
        if strange:
            line, record = strange[0]
            raise ListError(
                f"{self._reading.place(line)}: the list holds {kind(record)}, expected objects such as {EXAMPLE}"
            )
        if len(first) == _MOST_LOOKED_AT:
            line, record = first[0]
            raise ListError(
                f"{self._reading.place(line)}: the first {_MOST_LOOKED_AT} lines are not JSON",
                hint="name the file by what it is: .csv, .tsv, .json, .jsonl or .xlsx",
            )

    def _row(self, line: int, record: object) -> Recipient | BadRow:
        place = Place(self._reading.name, line)
        if not isinstance(record, dict):
            if isinstance(record, Unreadable):
                return _bad(record.reason, record.fields, place)
            return BadRow(f"the row is {kind(record)}, expected an object", {}, place)
        is_new = not record.keys() <= self._known
        if is_new and self._drops and not record.keys().isdisjoint(DELIVERY_COLUMNS):
            record = self._without_delivery(record)
        fault = self._fault(record)
        if fault and not self._fault(numbers := without_constants(record)):
            fault, record = "", self._noted(record, numbers, line)
        fault = fault or (self._learn(record) if is_new else "")
        if fault:
            return _bad(fault, record, place)
        if self._trims:
            record = self._trimmed(record, line)
        try:
            name, address = self._mailbox(record)
        except AddressError as error:
            return _bad(str(error), record, place)
        try:
            name = self._display_name(record) or name
        except AddressError as error:
            return _bad(f"the name {error}", record, place)
        return Recipient(address, name, record, place)

    def _trimmed(self, record: dict[str, object], line: int) -> dict[str, object]:
        keys = [key for key, value in record.items() if isinstance(value, str)]
        texts = [str(record[key]) for key in keys]
        bare = self._reading.trim(texts, keys, line=line)
        return record if bare == texts else {**record, **dict(zip(keys, bare, strict=True))}

    def _noted(self, record: dict[str, object], numbers: dict[str, object], line: int) -> dict[str, object]:
        """The second of these, after the fields are noted in which it has null for NaN or Infinity."""
        for key, value in record.items():
            if numbers[key] is not value:
                self._reading.constants.note(key, line)
        return numbers

    def _fault(self, record: dict[str, object]) -> str:
        """Why the record can be neither stored nor sent, naming the field."""
        try:
            encoded = self._encode(record)
            parts = encoded.count(b"[") + encoded.count(b"{")
            if len(encoded) <= LONGEST_CELL and parts <= DEEPEST and b"\\u0000" not in encoded:
                return ""
        except (TypeError, ValueError, RecursionError):
            pass  # something is wrong in it; finding out where is slower
        for key, value in record.items():
            if fault := text_fault(key):
                return f"a field's name {fault}: {shown(key)}"
            if fault := value_fault(value):
                return f"the field {shown(key)} {fault}"
        return ""

    def _learn(self, record: dict[str, object]) -> str:
        new = [key for key in record if key not in self._known]
        if len(self._known) + len(new) > MOST_COLUMNS:
            return f"the row has the field {shown(new[0])}, but the list has {MOST_COLUMNS:,} different ones already"
        self._known.update(new)
        self.columns += new
        if not self._name and self._reading.options.name_column is not None:
            self._name = name_column(self.columns, "", place=self._reading.place(0))
        return ""

    def _without_delivery(self, record: dict[str, object]) -> dict[str, object]:
        if not self._has_dropped:
            self._has_dropped = True
            self._reading.notice_delivery_columns([each for each in record if each in DELIVERY_COLUMNS])
        return {key: value for key, value in record.items() if key not in DELIVERY_COLUMNS}

    def _mailbox(self, record: dict[str, object]) -> tuple[str, Address]:
        """Raises `AddressError`, a whole sentence."""
        make = self._reading.options.row_address
        if make is not None and not self._address:
            return make(record)
        cell = _dig(record, self._address)
        if not isinstance(cell, str) or not cell.strip():
            raise AddressError(self._no_address(cell))
        try:
            return parse_mailbox(cell)
        except AddressError as error:
            with suppress(AddressError):
                if make is not None:
                    return make(record)
            raise AddressError(f"the address {shown(cell)} {error}") from None

    def _no_address(self, cell: object) -> str:
        if cell is _MISSING:
            return f"there is no address: it has no field {shown(self._address)}"
        if cell is None or isinstance(cell, str):
            return f"there is no address: the field {shown(self._address)} is {'null' if cell is None else 'empty'}"
        return f"the field {shown(self._address)} holds {kind(cell)}, expected one address as text"

    def _display_name(self, record: dict[str, object]) -> str:
        """A field that is found by its name may be anything; one that was named must be text."""
        given = _dig(record, self._name)
        self._has_found_name = self._has_found_name or given is not _MISSING
        if isinstance(given, str):
            return display_name(given)
        if given in (None, _MISSING) or not self._reading.options.name_column:
            return ""
        raise AddressError(f"in the field {shown(self._name)} is {kind(given)}, expected text")


def _with_field(items: Iterator[tuple[int, object]]) -> Iterator[tuple[int, object]]:
    """The same with each text as an object whose `email` it is."""
    return ((line, {"email": record} if isinstance(record, str) else record) for line, record in items)


def _dig(record: Mapping[str, object], path: str) -> object:
    """The field of that name, or at that path within objects and lists: `contact.email`, `emails.0.address`."""
    value = record.get(path, _MISSING)
    if value is not _MISSING or "." not in path:
        return value
    value = record
    for key in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(key, _MISSING)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return _MISSING
    return value


def _bad(reason: str, record: Mapping[str, object], place: Place) -> BadRow:
    kept = {str(storable(key)): storable(value) for key, value in itertools.islice(record.items(), MOST_COLUMNS)}
    return BadRow(reason, kept, place)
