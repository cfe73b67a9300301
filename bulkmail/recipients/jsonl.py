"""JSON lines: one object a line; a line that is none spoils nothing but itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any, AnyStr

import msgspec

from bulkmail.model.literal import read_number
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.recipients.encoding import choose, mark, open_text
from bulkmail.recipients.fields import LONGEST_CELL, LONGEST_ROW, NotJson, shown
from bulkmail.recipients.reading import Reading
from bulkmail.recipients.records import Records, Unreadable


class JsonLinesReader:
    """A list in JSON lines: `columns` grows while it is read."""

    def __init__(self, stream: IO[bytes], reading: Reading) -> None:
        """Raises `ListError` for a list without rows, or in which no field holds addresses."""
        records = Records(reading, trims=True)
        self.columns = records.columns
        self._text: IO[str] | None = None
        rows = records.rows(_items(self._lines(stream, reading)))
        hint = "each line is an object, with the address in it"
        self._recipients = reading.begun(rows, empty="the list is empty", hint=hint)

    def rows(self) -> Iterator[Recipient | BadRow]:
        """All recipients, once."""
        return self._recipients

    def _lines(self, stream: IO[bytes], reading: Reading) -> Iterator[bytes | str]:
        """Physical lines, of which no more than `LONGEST_ROW` + 1 bytes or characters are kept."""
        marked, wanted = mark(stream), reading.options.encoding
        if wanted or marked not in ("", "utf-8-sig"):
            encoding = choose(stream, name=reading.name, wanted=wanted, notices=reading.notices)
            text = open_text(stream, encoding, newline="\n")
            self._text = text  # it would close the stream when it is forgotten, with a warning
            return _kept(partial(text.readline, LONGEST_ROW + 1), partial(text.readline, LONGEST_CELL), "\n")
        # UTF-8 is what JSON is written in (RFC 8259 §8.1): no pass to find out, a line that is not so is a bad row.
        stream.seek(3 if marked else 0)
        return _kept(partial(stream.readline, LONGEST_ROW + 1), partial(stream.readline, LONGEST_CELL), b"\n")


def _kept(read: Callable[[], AnyStr], read_on: Callable[[], AnyStr], end: AnyStr) -> Iterator[AnyStr]:
    """The lines that `read` gives; of one that it breaks off, the rest is skipped with `read_on`."""
    while line := read():
        rest = line if len(line) > LONGEST_ROW else end
        while rest and not rest.endswith(end):
            rest = read_on()
        yield line


def _items(lines: Iterator[bytes | str]) -> Iterator[tuple[int, object]]:
    decode = msgspec.json.Decoder(float_hook=read_number).decode
    lenient = LenientDecoder()
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_ROW:
            yield number, Unreadable(f"the line is longer than {LONGEST_ROW:,} characters")
            continue
        try:
            record = decode(line)
        except (ValueError, RecursionError):
            if not line.isspace():
                yield number, _slowly(line, lenient)
        else:
            is_sure = isinstance(record, dict) and line.count(_COLON[type(line)]) == len(record)
            yield number, record if is_sure or _has_each_key_once(line, record) else _slowly(line, lenient)


_COLON: dict[type, Any] = {bytes: b":", str: ":"}


def _has_each_key_once(line: bytes | str, record: object) -> bool:
    """Whether that is certain without another look: a member has a colon, which mostly comes right behind a quote."""
    if not isinstance(record, dict):
        return True  # what is wrong with it is something else
    if isinstance(line, str):
        colons, is_spaced = line.count('":'), " :" in line or "\t:" in line
    else:
        colons, is_spaced = line.count(b'":'), b" :" in line or b"\t:" in line
    return not is_spaced and (colons == len(record) or colons == _members(record))


def _members(value: dict[str, Any] | list[Any]) -> int:
    """How many members all objects in `value` have together."""
    number, parts = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    for part in parts:
        if isinstance(part, dict | list):
            number += _members(part)
    return number


def _slowly(line: bytes | str, decoder: LenientDecoder) -> object:
    """What the fast decoder refused: the reason with the character it is at, or the value after all.

    The slow one takes half a surrogate pair and NaN; which field has it is found out later.
    """
    try:
        text = line if isinstance(line, str) else line.decode()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        return Unreadable(f"the line is not UTF-8: byte {error.start + 1} of the line is 0x{byte:02X}")
    try:
        return decoder.whole(text)
    except json.JSONDecodeError as error:
        if error.msg.startswith("Unterminated") or error.pos >= len(text.rstrip()):
            return Unreadable(f"the line ends in the middle of a JSON value, at character {len(text.rstrip())}")
        return Unreadable(f"the line is not JSON: {sentence(error.msg)} at character {error.pos + 1}")
    except RecursionError:
        return Unreadable("the line is nested too deeply")


def sentence(message: str) -> str:
    """The json module's words inside a sentence."""
    return message[:1].lower() + message[1:].removesuffix(" at").removesuffix(" starting")


class LenientDecoder:
    """A decoder that goes on over numbers that cannot be, and over keys that an object has twice.

    `NotJson` stands for the numbers, `Unreadable` for a value that has such an object in it.
    """

    def __init__(self) -> None:
        self._repeated = ""
        self._decoder = json.JSONDecoder(
            parse_constant=NotJson, parse_float=_number, parse_int=_integer, object_pairs_hook=self._object
        )

    def whole(self, text: str) -> object:
        """The only value in `text`.  Raises `JSONDecodeError` and `RecursionError`, as the next does."""
        self._repeated = ""
        return self._seen(self._decoder.decode(text))

    def part(self, text: str, at: int) -> tuple[object, int]:
        """The value that begins `at`, and where it ends."""
        self._repeated = ""
        value, end = self._decoder.raw_decode(text, at)
        return self._seen(value), end

    def _seen(self, value: object) -> object:
        if not self._repeated:
            return value
        return Unreadable(
            f"an object has the key {shown(self._repeated)} twice", value if isinstance(value, dict) else {}
        )

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        fields = dict(pairs)
        if len(fields) != len(pairs) and not self._repeated:
            counts = Counter(key for key, _ in pairs)
            self._repeated = next(key for key, number in counts.items() if number > 1)
        return fields


def _number(text: str) -> float | NotJson:
    try:
        return read_number(text)
    except ValueError:
        return NotJson(text)


def _integer(text: str) -> int | NotJson:
    try:
        return int(text)
    except ValueError:  # more digits than Python turns into a number
        return NotJson(text)
