"""What a field may hold, and how a fault in one is reported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from bulkmail.model.errors import AddressError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import LONGEST_CELL as LONGEST_NAME
from bulkmail.model.recipient import has_control
from bulkmail.text import printable

LONGEST_CELL = 1_000_000  # characters
LONGEST_ROW = 16_000_000  # characters; what is longer is skipped, not kept
DEEPEST = 64
USUAL_NAME = 200  # characters
_SHOWN = 100  # characters that are kept of a cell that is too long

_SURROGATE = lazy_pattern("[\ud800-\udfff]")
_UNSTORABLE = lazy_pattern("[\x00\ud800-\udfff]")


_UNSEEN = " \t\r\n\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff\u200b\u2060\xad" + "".join(
    map(chr, range(0x2000, 0x200B))
)


_WITHOUT_WIDTH = lazy_pattern("[\u00a0\u00ad\u200b-\u200f\u202f\u2060-\u2064\ufeff]")


def trimmed(cell: str) -> str:
    """A cell without space, line ends and signs without width around it; inside, all of these stay."""
    return cell.strip(_UNSEEN)


class NotJson:
    """Stands for a number that some writers put into JSON although it has none such: NaN, Infinity."""

    def __init__(self, text: str) -> None:
        self.text = text


_CONSTANTS = ("NaN", "Infinity", "-Infinity")


def without_constants(record: dict[str, object]) -> dict[str, object]:
    """The record with null for NaN and Infinity, which is what such writers mean: there is no number."""
    return {key: _without_constants(value, 1) for key, value in record.items()}


def _without_constants(value: object, depth: int) -> object:
    match value:
        case NotJson():
            return None if value.text in _CONSTANTS else value
        case list() if depth <= DEEPEST:
            parts = [_without_constants(part, depth + 1) for part in value]
            return parts if any(part is not old for part, old in zip(parts, value, strict=True)) else value
        case dict() if depth <= DEEPEST:
            fields = {key: _without_constants(part, depth + 1) for key, part in value.items()}
            return fields if any(fields[key] is not value[key] for key in value) else value
    return value


class Unstorable:
    """Stands for a value of a program that JSON does not have; `fault` says why, as a predicate."""

    def __init__(self, what: str, fault: str) -> None:
        self.what = what
        self.fault = fault


def text_fault(text: str) -> str:
    """Why `text` can be neither stored nor sent, as a predicate; "" if it can."""
    if len(text) > LONGEST_CELL:
        return f"is longer than {LONGEST_CELL:,} characters"
    if "\0" in text:
        return "has a NUL character (U+0000)"
    found = _SURROGATE.search(text)
    if not found:
        return ""
    code = ord(found[0])
    if 0xDC00 <= code <= 0xDCFF:  # so `open_text` marks it
        return f"has a byte (0x{code - 0xDC00:02X}) that its encoding does not have"
    return f"has half a character (the lone surrogate U+{code:04X})"


def value_fault(value: object, depth: int = 0) -> str:
    """The same for a JSON value: text, number, true, false, null, or a list or an object of them."""
    match value:
        case None | bool() | int():
            return ""
        case str():
            return text_fault(value)
        case float():
            return "" if math.isfinite(value) else f"is {value}, which is not a number that can be written"
        case NotJson():
            return f"is {printable(value.text, 20)}, which is not a number that can be written"
        case Unstorable():
            return value.fault
        case list() | tuple() | dict():
            if depth >= DEEPEST:
                return f"is nested deeper than {DEEPEST} levels"
            parts: Iterable[object] = value
            if isinstance(value, dict):
                parts = [*value.keys(), *value.values()]
            return next((fault for part in parts if (fault := value_fault(part, depth + 1))), "")
    return f"is {kind(value)}, which JSON does not have"


def kind(value: object) -> str:
    """What sort of JSON value this is, for a message."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float() | NotJson():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "an array"
        case Mapping():
            return "an object"
        case Unstorable():
            return value.what
    return f"a {type(value).__name__}"


def display_name(text: str) -> str:
    """The name on one line.  Raises `AddressError` if it is none."""
    if len(text) <= USUAL_NAME and text.isprintable():
        return text.strip()
    if len(text) > LONGEST_NAME:
        raise AddressError(f"is longer than {LONGEST_NAME:,} characters")
    name = " ".join(text.split())  # a cell may hold a line break, a header may not
    if has_control(name):
        raise AddressError("has a control character")
    return name


def storable(value: object) -> object:
    """What can be kept of a bad row's field: what is not text only if nothing is wrong with it."""
    if not isinstance(value, str):
        return f"({kind(value)})" if value_fault(value) else value
    kept = value if len(value) <= LONGEST_CELL else value[:_SHOWN] + "…"
    return _UNSTORABLE.sub("\ufffd", kept)


def shown(text: str) -> str:
    """A value in quotes, safe and short enough for a message; signs without width are named."""
    if not text.isascii():
        text = _WITHOUT_WIDTH.sub(lambda found: f"<U+{ord(found[0]):04X}>", text[: 4 * _SHOWN])
    return f"'{printable(text, 80)}'"
