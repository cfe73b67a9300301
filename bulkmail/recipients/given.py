"""A program's own rows and values as what JSON has."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import ipaddress
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import msgspec

from bulkmail.model.recipient import Recipient
from bulkmail.recipients.fields import DEEPEST, Unstorable, kind, shown
from bulkmail.recipients.rows_from_objects import Unreadable

_AS_THEY_ARE = frozenset({str, int, bool, type(None)})
_TOO_FINE = ("[ns]", "[ps]", "[fs]", "[as]")  # numpy makes bare numbers of times so fine
_PLAIN_TIMES = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)


def plain_row(row: object) -> object:
    """The row as a `dict` of JSON values, as a `Recipient`, or as `Unreadable`; what is no row stays as it is.

    Nothing in the result belongs to the caller any more, and nothing in it is loaded later.
    """
    if isinstance(row, Recipient | Unreadable):
        return row
    fields: Mapping[Any, object] | None = row if type(row) is dict else _fields_of(row)
    if fields is None:
        return row
    plain: dict[str, object] = {}
    for key, value in fields.items():
        if key is None:  # so csv.DictReader keeps cells beyond the header
            return Unreadable(f"the row has values without a field name: {shown(str(value))}")
        plain[key if type(key) is str else _key(key)] = value if type(value) in _AS_THEY_ARE else _plain(value)
    return plain


def reader_of(source: object) -> Callable[[object], object]:
    """`plain_row` for the rows of `source`: a database's cursor names the columns of its tuples (PEP 249)."""
    description = getattr(source, "description", None)
    if not isinstance(description, Sequence) or isinstance(description, str):
        return plain_row
    names = [column[0] for column in description]
    return lambda row: plain_row(dict(zip(names, row, strict=True)) if type(row) is tuple else row)


def _plain(value: object, depth: int = 0) -> object:
    """The value as JSON has it: a date as ISO text, a decimal as text, a tuple as a list, NaN and NaT as None."""
    if type(value) in _AS_THEY_ARE:
        return value
    if depth >= DEEPEST:
        return Unstorable(kind(value), f"is nested deeper than {DEEPEST} levels")
    match value:
        case enum.Enum():
            return _plain(value.value, depth + 1)
        case str():
            return str.__str__(value)
        case int():
            return int(value)
        case float() | decimal.Decimal():
            return _number(value)
        case datetime.date() | datetime.time() | datetime.timedelta():
            return _time(value)
        case type() | bytes() | bytearray() | memoryview():
            return _unknown(value)
        case Unstorable():
            return value
        case os.PathLike():
            return os.fspath(value)
        case ipaddress.IPv4Address() | ipaddress.IPv6Address() | ipaddress.IPv4Network() | ipaddress.IPv6Network():
            return str(value)
    if _is_missing(value):
        return None
    if callable(getattr(value, "tolist", None)):
        return _of_numpy(value, depth)
    fields = _fields_of(value)
    if fields is not None:
        return {_key(key): _plain(each, depth + 1) for key, each in fields.items()}
    if isinstance(value, Sequence | Set):
        return [_plain(each, depth + 1) for each in value]
    try:
        return msgspec.to_builtins(value)  # UUID and the like
    except (TypeError, ValueError, RecursionError):
        return _unknown(value)


def _fields_of(row: object) -> Mapping[Any, object] | None:
    """What `row` has by name, if it is a mapping or an object that is one in all but type; else None."""
    if isinstance(row, Mapping):
        return row
    if isinstance(row, type | str | bytes):
        return None
    for method in ("_asdict", "model_dump"):  # NamedTuple and SQLAlchemy's Row; pydantic
        as_mapping = getattr(row, method, None)
        if callable(as_mapping):
            return _mapping(as_mapping())
    if dataclasses.is_dataclass(row):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    if isinstance(row, msgspec.Struct):
        return msgspec.structs.asdict(row)
    names = getattr(type(row), "__attrs_attrs__", None)  # attrs
    if names is not None:
        return {each.name: getattr(row, each.name) for each in names}
    mapper = getattr(type(row), "__mapper__", None)  # SQLAlchemy's entities
    if mapper is not None:
        return {each.key: getattr(row, each.key) for each in mapper.column_attrs}
    keys = getattr(row, "keys", None)  # sqlite3.Row and rows of other drivers
    if callable(keys) and hasattr(row, "__getitem__"):
        return {key: row[key] for key in keys()}
    return None


def _mapping(value: object) -> Mapping[Any, object] | None:
    return value if isinstance(value, Mapping) else None


def _key(key: object) -> str:
    return str(key.value if isinstance(key, enum.Enum) else key)


def _number(value: float | decimal.Decimal) -> object:
    if value.is_nan() if isinstance(value, decimal.Decimal) else value != value:
        return None
    if not math.isfinite(value):
        return Unstorable("a number", f"is {value}, which is not a number that can be written")
    return str(value) if isinstance(value, decimal.Decimal) else float(value)


def _time(value: object) -> object:
    """ISO text, whatever class of whatever library it is; None for pandas' NaT, which is unequal to itself."""
    if value != value:
        return None
    if type(value) not in _PLAIN_TIMES:
        match value:
            case datetime.datetime():
                value = datetime.datetime(
                    value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond,
                    tzinfo=value.tzinfo, fold=value.fold,
                )  # fmt: skip
            case datetime.date():
                value = datetime.date(value.year, value.month, value.day)
            case datetime.time():
                value = datetime.time(
                    value.hour, value.minute, value.second, value.microsecond, tzinfo=value.tzinfo, fold=value.fold
                )
            case datetime.timedelta():
                value = datetime.timedelta(value.days, value.seconds, value.microseconds)
    return msgspec.to_builtins(value)


def _is_missing(value: object) -> bool:
    """Whether it is pandas' NA, which refuses every comparison."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and value is getattr(pandas, "NA", None)


def _of_numpy(value: Any, depth: int) -> object:
    """A scalar or an array of numpy, or a column of pandas."""
    dtype: Any = getattr(value, "dtype", None)
    match getattr(dtype, "kind", ""), getattr(value, "ndim", None):
        case "f", 0:
            return _number(float(str(value)))  # the 0.1 that people see, where the type has fewer digits than a float
        case ("M" | "m") as char, _ if dtype.str.endswith(_TOO_FINE):
            value = value.astype("datetime64[us]" if char == "M" else "timedelta64[us]")
    return _plain(value.tolist(), depth + 1)


def _unknown(value: object) -> Unstorable:
    what = f"of type {type(value).__name__}"
    return Unstorable(what, f"is {what}, expected text, a number, true, false, None, a date, a list or a mapping")


def not_rows(given: object) -> str:
    """What is wrong with something that was given for rows and is none, as a sentence's end; "" if nothing is."""
    if hasattr(given, "to_dict") and hasattr(given, "columns"):
        return 'is a table, expected its rows; write frame.to_dict("records")'
    if isinstance(given, Mapping):
        return "is one row, expected a list of rows; put it in brackets"
    if isinstance(given, bytes | bytearray | memoryview):
        return "is bytes, expected the name of a file, or rows"
    if not isinstance(given, Iterable) and not hasattr(given, "__aiter__"):
        return f"is {kind(given)}, expected the name of a file, or rows"
    return ""
