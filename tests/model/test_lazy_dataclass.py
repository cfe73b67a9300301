"""A class made by ours is, to anyone who uses it, what the standard library makes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, field
from typing import Any

import pytest

from bulkmail.model.lazy import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """Has one of everything that our classes use."""

    x: int
    y: int = 2
    names: list[str] = field(default_factory=list)
    secret: str = field(default="", repr=False)
    note: str = field(default="", compare=False)
    seen: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is below 0")

    @property
    def sum(self) -> int:
        return self.x + self.y


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """The same by the standard library."""

    x: int
    y: int = 2
    names: list[str] = field(default_factory=list)
    secret: str = field(default="", repr=False)
    note: str = field(default="", compare=False)
    seen: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)


@dataclass(slots=True)
class Counter:
    """May be changed."""

    count: int = 0
    last: Counter | None = None


@dataclass(frozen=True, slots=True)
class One:
    """Has one field."""

    value: float


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """Is equal to nothing else."""

    value: int


class Described(Point):
    """Inherits all of it."""


def test_it_is_what_the_standard_library_makes() -> None:
    for arguments, named in [((1,), {}), ((1, 5), {"secret": "s"}), ((1,), {"names": ["a"], "note": "n"})]:
        ours: Any = Point(*arguments, **named)
        theirs: Any = Standard(*arguments, **named)
        assert repr(ours) == repr(theirs).replace("Standard", "Point")
        assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert [(each.name, each.init) for each in dataclasses.fields(Point)] == [
        (each.name, each.init) for each in dataclasses.fields(Standard)
    ]
    assert Point.__match_args__ == Standard.__match_args__
    assert Point.__slots__ == Standard.__slots__


def test_defaults_are_made_again() -> None:
    first, second = Point(1), Point(1)
    first.names.append("a")
    first.seen["a"] = 1
    assert (second.names, second.seen) == ([], {})


def test_equal_ones_are_equal_but_for_what_is_not_compared() -> None:
    assert Point(1, note="a") == Point(1, note="b") != Point(2)
    assert Point(1) != Standard(1)
    assert One(1.0) == One(1.0)
    assert hash(One(1.0)) == hash(One(1.0))
    assert len({One(1.0), One(1.0), One(2.0)}) == 2
    assert One(float("nan")) != One(float("nan"))
    assert Alone(1) != Alone(1)
    assert len({Alone(1), Alone(1)}) == 2
    assert Counter(1) == Counter(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Counter(1))


def test_frozen_one_is_not_changed() -> None:
    point: Any = Point(1)
    with pytest.raises(FrozenInstanceError, match="'x'"):
        point.x = 2
    with pytest.raises(FrozenInstanceError, match="'x'"):
        del point.x
    with pytest.raises(FrozenInstanceError):
        point.other = 2
    counter = Counter()
    counter.count += 1
    assert counter.count == 1


def test_wrong_arguments_are_refused_each_time() -> None:
    make: Any = One
    for _ in range(2):
        with pytest.raises(TypeError, match=r"One\.__init__\(\) missing 1 required positional argument: 'value'"):
            make()
        with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
            make(1.0, other=2)
        with pytest.raises(ValueError, match="below 0"):
            Point(-1)
        with pytest.raises(TypeError, match="seen"):
            Point(1, seen={})  # type: ignore[call-arg]


def test_it_is_copied_replaced_pickled_and_inherited_from() -> None:
    point = Point(1, names=["a"])
    assert dataclasses.replace(Standard(1), y=3) == Standard(1, 3)
    assert dataclasses.replace(point, y=3).y == 3
    for twin in (copy.copy(point), copy.deepcopy(point), pickle.loads(pickle.dumps(point))):  # noqa: S301
        assert twin == point
        assert twin is not point
    assert Described(1).sum == 3
    assert Described(1) != Point(1)
    assert isinstance(Described(1), Point)
    match point:
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_one_that_holds_itself_can_be_shown() -> None:
    counter = Counter()
    counter.last = counter
    assert repr(counter) == "Counter(count=0, last=...)"
