"""Lists in JSON: an array of objects, or one object a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import IO, Any, AnyStr, TextIO

import msgspec

from bulkmail.model.errors import EmptyList, ListError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.quantities import read_number
from bulkmail.model.recipient import BadRow, Recipient
from bulkmail.recipients.columns import has_address_column, listed
from bulkmail.recipients.fields import LONGEST_CELL, LONGEST_ROW, NotJson, kind, shown
from bulkmail.recipients.hints import LOOKED_AT, any_address, is_mailbox
from bulkmail.recipients.list_reading import Reading
from bulkmail.recipients.rows_from_objects import EXAMPLE, ObjectRows, Unreadable
from bulkmail.recipients.streams import choose, mark, open_text
from bulkmail.text import count

KEY = "recipients"
EXPECTED = f'an array of objects such as [{EXAMPLE}], or {{"{KEY}": […]}}'
_CHUNK = 1 << 16
_DEEPEST_LIST = 4  # keys that lead to a list
_SPACE = lazy_pattern(r"[ \t\n\r]*")
_COMMA = lazy_pattern(r"[ \t\n\r]*,[ \t\n\r]*")


class JsonReader:
    """A list in JSON: `columns` grows while it is read."""

    def __init__(self, stream: IO[bytes], reading: Reading) -> None:
        """Raises `ListError` for a list of another shape, without rows, or in which no field holds addresses."""
        encoding = choose(stream, name=reading.name, wanted=reading.options.encoding, notices=reading.notices)
        records = ObjectRows(reading, trims=True)
        self.columns = records.columns
        self._text = open_text(stream, encoding, newline=None)  # it closes the stream when it is forgotten
        rows = records.rows(_Document(self._text, reading).items())
        self._recipients = reading.begun(rows, empty="the list has no recipients", hint=f"expected {EXPECTED}")

    def rows(self) -> Iterator[Recipient | BadRow]:
        """All recipients, once.  Raises `ListError` where the JSON breaks; the rows before that were given already."""
        return self._recipients


class _Document:
    """The elements of the list in a JSON text of any size."""

    def __init__(self, text: TextIO, reading: Reading) -> None:
        self._text = text
        self._window = _Window(text, reading.name)
        self._reading = reading
        self._name = reading.name
        self._read = 0  # elements

    def items(self) -> Iterator[tuple[int, object]]:
        """Each element with the line it begins at."""
        window = self._window
        first = window.peek()
        if not first:
            raise EmptyList(f"{self._name}: the list is empty", hint=f"expected {EXPECTED}")
        if first == "[":
            yield from self._elements()
        elif first == "{":
            yield from self._elements_of_object()
        else:
            raise self._shape(kind(window.value()))
        if self._window.peek():
            raise self._window.broken("something follows the end of the list", after=self._read)

    def _elements(self) -> Iterator[tuple[int, object]]:
        window = self._window
        window.take()
        if window.peek() == "]":
            window.take()
            return
        while True:
            line = window.line
            value = window.value(after=self._read)
            self._read += 1
            yield line, value
            if window.take_comma():
                continue
            following = window.peek()
            if following not in (",", "]"):
                raise window.broken("expected a comma or ]" if following else "the list has no end", after=self._read)
            window.take()
            if following == "]":
                return
            window.peek()

    def _members(self) -> Iterator[str]:
        """The keys of the object here, each when its value is next; the caller reads that before the next key."""
        window = self._window
        window.take()
        while (following := window.peek()) != "}":
            if following != '"':
                raise window.broken("expected a key in double quotes", after=self._read)
            key = str(window.value())
            if window.peek() != ":":
                raise window.broken("expected a colon after the key", after=self._read)
            window.take()
            window.peek()
            yield key
            if window.peek() == ",":
                window.take()
            elif window.peek() != "}":
                raise window.broken("expected a comma or }", after=self._read)
        window.take()

    def _elements_of_object(self) -> Iterator[tuple[int, object]]:
        """The elements of its `recipients`, or else of the only list in it, however deep, that has addresses."""
        window, keys, lists = self._window, list[str](), _Lists()
        has_list = False
        for key in self._members():
            keys.append(key)
            if key == KEY and has_list:
                raise window.broken(f"the key {KEY!r} is there twice", after=self._read)
            if key == KEY:
                has_list = True
                if window.peek() != "[":
                    raise self._shape(f"an object whose {KEY} is {kind(window.value())}")
                yield from self._elements()
                continue
            try:
                self._survey((key,), lists)
            except _TooLong:
                raise self._shape(f"an object that begins with {_keys(keys)}") from None
        if has_list:
            return
        path = lists.only
        if path is None:
            raise self._shape(f"an object with {_keys(keys)}" if keys else "an empty object", hint=lists.hint)
        self._reading.notices.append(f"{self._name}: the list was read from {shown('.'.join(path))}")
        self._text.seek(0)
        self._window, self._read = _Window(self._text, self._name), 0
        self._window.peek()
        yield from self._elements_at(path)

    def _survey(self, path: tuple[str, ...], lists: _Lists) -> None:
        """Reads a value, and notes in `lists` what lists are in it."""
        window, read = self._window, self._read
        following = window.peek()
        if following == "[":
            lists.add(path, (value for _, value in self._elements()))
            self._read = read
        elif following == "{" and len(path) < _DEEPEST_LIST:
            keys = set()
            for key in self._members():
                keys.add(key)
                self._survey((*path, key), lists)
            lists.add_object(keys)
        else:
            window.value(after=read)

    def _elements_at(self, path: tuple[str, ...]) -> Iterator[tuple[int, object]]:
        is_found = False
        for key in self._members():
            if key != path[0] or is_found:
                self._survey((key,), _Lists())
                continue
            is_found = True
            yield from self._elements_at(path[1:]) if len(path) > 1 else self._elements()

    def _shape(self, found: str, hint: str = "") -> ListError:
        return ListError(f"{self._name}: found {found}, expected {EXPECTED}", hint=hint)


class _Lists:
    """The lists in an object, by the keys that lead to each, and how many of their elements have an address."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], int] = {}
        self._people = 0  # objects with an address that are no element of a list

    @property
    def only(self) -> tuple[str, ...] | None:
        """The one that has addresses; None where there is none, or several."""
        found = [path for path, addresses in self._found.items() if addresses]
        return found[0] if len(found) == 1 else None

    @property
    def hint(self) -> str:
        """What to type to get a list out of it."""
        if self._people:
            return "make a list of what the keys hold: jq '[.[]]' FILE > people.json"
        found = [path for path, addresses in self._found.items() if addresses] or list(self._found)
        if not found:
            return ""
        names = listed([".".join(path) for path in found])
        queries = "".join(f"[{json.dumps(key)}]" for key in found[0])
        return f"there are lists in {names}; save one by itself: jq '.{queries}' FILE > people.json"

    def add(self, path: tuple[str, ...], elements: Iterable[object]) -> None:
        """Takes a look at the first elements, and reads all."""
        addresses = 0
        for number, element in enumerate(elements):
            if number < LOOKED_AT:
                addresses += is_mailbox(element) or (isinstance(element, dict) and any_address(element))
        self._found.setdefault(path, addresses)

    def add_object(self, keys: Iterable[str]) -> None:
        """Notes an object that is no element of a list."""
        self._people += has_address_column(list(keys), "")


def _keys(keys: Sequence[str]) -> str:
    return f"the key{'s' if len(keys) > 1 else ''} {listed(keys)}"


class _TooLong(ListError):
    """One value is longer than the window may become."""


class _Window:
    """The part of a JSON text that is in memory, and how far it is read.  `line` is that of the next character."""

    def __init__(self, text: TextIO, name: str) -> None:
        self.line = 1
        self._text = text
        self._name = name
        self._buffer = ""
        self._at = 0
        self._line_start = 0  # where in the buffer the line begins; negative if that is not in it any more
        self._decoder = LenientDecoder()

    def peek(self) -> str:
        """The next character that is no space, which is then the next one; "" at the end."""
        while True:
            found = _SPACE.match(self._buffer, self._at)
            if found:  # always: it matches no space at all too
                self._go_to(found.end())
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def take(self) -> None:
        """Goes on by the one character that was peeked."""
        self._at += 1

    def take_comma(self) -> bool:
        """Goes to the next element behind a comma if both are in the window: the short way of nearly every element."""
        found = _COMMA.match(self._buffer, self._at)
        if not found or found.end() == len(self._buffer):
            return False
        self._go_to(found.end())
        return True

    def value(self, *, after: int = 0) -> object:
        """The JSON value here; `after` is the number of rows before it, for the error."""
        while True:
            try:
                value, end = self._decoder.part(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if len(self._buffer) - self._at > LONGEST_ROW:
                    raise self._too_long(after) from None
                if self._more():
                    continue
                self._go_to(min(error.pos, len(self._buffer)))
                raise self.broken(sentence(error.msg), after=after) from None
            except RecursionError:
                raise self.broken("a value is nested too deeply", after=after) from None
            # A number that ends where the window does may go on behind it.
            if end < len(self._buffer) or not self._more():
                self._go_to(end)
                return value

    def broken(self, why: str, *, after: int = 0) -> ListError:
        """The error for what is wrong here."""
        column = self._at - self._line_start + 1
        read = f"; {count(after, 'row')} before it could be read" if after else ""
        return ListError(
            f"{self._name}:{self.line}: the JSON is broken at column {column}: {why}{read}",
            hint="fix the file there, or make it again",
        )

    def _too_long(self, after: int) -> _TooLong:
        error = self.broken(f"a value is longer than {LONGEST_ROW:,} characters, or has no end", after=after)
        return _TooLong(str(error), hint=error.hint)

    def _go_to(self, at: int) -> None:
        feeds = self._buffer.count("\n", self._at, at)
        if feeds:
            self.line += feeds
            self._line_start = self._buffer.rfind("\n", self._at, at) + 1
        self._at = at

    def _more(self) -> bool:
        """Whether there was more to read: as much again as is waiting, so that a long value is not tried too often."""
        chunk = self._text.read(max(_CHUNK, len(self._buffer) - self._at))
        if not chunk:
            return False
        self._buffer = self._buffer[self._at :] + chunk
        self._line_start -= self._at
        self._at = 0
        return True


class JsonLinesReader:
    """A list in JSON lines: `columns` grows while it is read."""

    def __init__(self, stream: IO[bytes], reading: Reading) -> None:
        """Raises `ListError` for a list without rows, or in which no field holds addresses."""
        records = ObjectRows(reading, trims=True)
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
