"""How a table of `campaign.toml` is declared and read: keys with types, and every fault of them at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from bulkmail.config.locator import KeyPath

TEXT = "a text in quotes"
_EXPECTED: dict[type, str] = {
    str: TEXT,
    int: "a whole number without quotes",
    bool: "true or false, without quotes",
    list: "a list in square brackets",
    dict: "a table",
}


@dataclass(frozen=True, slots=True)
class Before:
    """In an annotation: what is done to a value before its type is looked at."""

    prepare: Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Rest:
    """In an annotation: this holds what stands below keys that the table does not list."""


def _number_as_text(value: object) -> object:
    """`wait = 600` is as good as `wait = "600"`."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Amount = Annotated[str | None, Before(_number_as_text)]


class Table(msgspec.Struct, frozen=True):
    """Every key may be left out here: what must be there is judged where its absence can be explained.

    A key may be of type `str`, `int`, `bool`, another table, or lists and dictionaries of such; `| None` and `Before`
    go with each.  `msgspec.field(name=…)` says how it is written where that is no name in Python.
    """

    expected: ClassVar[str] = "a table"

    @classmethod
    def written_keys(cls) -> list[str]:
        """The keys as they are written, in the order of the manual."""
        return [written for written, _ in _keys(cls)[0]]


T = TypeVar("T", bound=Table)


@dataclass(frozen=True, slots=True)
class Fault:
    """A value that its key cannot have, with what was expected in its place; empty where there is no such key."""

    path: KeyPath
    value: object
    expected: str


def read_table(table: type[T], data: Mapping[str, Any]) -> tuple[T, list[Fault]]:
    """The table in `data`, without what has a fault, and all those faults."""
    faults: list[Fault] = []
    return _read(table, data, (), faults), faults


_Take = Callable[[Any, KeyPath, list[Fault]], object]
_FAULTY = object()


def _read(table: type[T], data: Mapping[str, Any], path: KeyPath, faults: list[Fault]) -> T:
    known, rest = _keys(table)
    values: dict[str, object] = {}
    for (written, name), take in known.items():
        if written in data:
            value = take(data[written], (*path, written), faults)
            if value is not _FAULTY:
                values[name] = value
    listed = {written for written, _ in known}
    others = {key: value for key, value in data.items() if key not in listed}
    if rest is not None:
        name, take = rest
        values[name] = take(others, path, faults)
    else:
        faults += [Fault((*path, key), value, "") for key, value in others.items()]
    return table(**values)


@cache
def _keys(table: type[Table]) -> tuple[dict[tuple[str, str], _Take], tuple[str, _Take] | None]:
    """How to take each key, by how it is written and its name in Python, and the one that holds the rest."""
    known: dict[tuple[str, str], _Take] = {}
    rest = None
    hints = get_type_hints(table, include_extras=True)
    for name, written in zip(table.__struct_fields__, table.__struct_encode_fields__, strict=True):
        if Rest() in getattr(hints[name], "__metadata__", ()):
            rest = name, _taker(hints[name])
        else:
            known[written, name] = _taker(hints[name])
    return known, rest


def _taker(kind: Any) -> _Take:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _prepared(_taker(arguments[0]), [each for each in arguments[1:] if isinstance(each, Before)])
    if origin in (Union, UnionType):
        (other,) = (each for each in arguments if each is not NoneType)
        take = _taker(other)
        return lambda value, path, faults: None if value is None else take(value, path, faults)
    if origin is list:
        return _list_of(_taker(arguments[0]))
    if origin is dict:
        return _dict_of(_taker(arguments[1]))
    return _table_of(kind) if issubclass(kind, Table) else _plain(kind)


def _prepared(take: _Take, before: list[Before]) -> _Take:
    def prepared(value: object, path: KeyPath, faults: list[Fault]) -> object:
        for each in before:
            value = each.prepare(value)
        return take(value, path, faults)

    return prepared if before else take


def _plain(kind: type, expected: str = "") -> _Take:
    def take(value: object, path: KeyPath, faults: list[Fault]) -> object:
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        faults.append(Fault(path, value, expected or _EXPECTED[kind]))
        return _FAULTY

    return take


def _list_of(take: _Take) -> _Take:
    checked = _plain(list)

    def take_all(value: Any, path: KeyPath, faults: list[Fault]) -> object:
        if checked(value, path, faults) is _FAULTY:
            return _FAULTY
        items = [take(item, (*path, number), faults) for number, item in enumerate(value)]
        return [item for item in items if item is not _FAULTY]

    return take_all


def _dict_of(take: _Take) -> _Take:
    checked = _plain(dict)

    def take_all(value: Any, path: KeyPath, faults: list[Fault]) -> object:
        if checked(value, path, faults) is _FAULTY:
            return _FAULTY
        items = {key: take(item, (*path, key), faults) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not _FAULTY}

    return take_all


def _table_of(table: type[Table]) -> _Take:
    checked = _plain(dict, table.expected)

    def take(value: Any, path: KeyPath, faults: list[Fault]) -> object:
        return _FAULTY if checked(value, path, faults) is _FAULTY else _read(table, value, path, faults)

    return take
