"""A program's own rows as a list."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import sqlite3
import types
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy
import pandas
import pydantic
import pytest
import sqlalchemy
import sqlalchemy.orm

from bulkmail.model.errors import ListError
from bulkmail.model.recipient import BadRow, Place, Recipient
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import from_rows

EXPECTED = "expected text, a number, true, false, None, a date, a list or a mapping"


def test_rows_become_recipients_with_their_number_as_line() -> None:
    ann, bob = from_rows([{"email": "ann@example.org", "name": "Ann"}, {"email": "bob@example.org"}], name="crm")
    assert isinstance(ann, Recipient)
    assert isinstance(bob, Recipient)
    assert (ann.address.wire, ann.name, ann.place) == ("ann@example.org", "Ann", Place("crm", 1))
    assert (bob.address.wire, bob.name, bob.place) == ("bob@example.org", "", Place("crm", 2))


def test_values_become_what_json_has() -> None:
    row = {
        "email": "ann@example.org",
        "born": datetime.date(2001, 2, 3),
        "paid": decimal.Decimal("1.50"),
        "pair": (1, "x"),
        "none": None,
        "lines": [{"n": 1}],
    }
    (ann,) = from_rows([row])
    assert ann.fields == {**row, "born": "2001-02-03", "paid": "1.50", "pair": [1, "x"]}


def test_later_changes_of_a_row_do_not_show() -> None:
    row = {"email": "ann@example.org", "lines": [1]}
    (ann,) = from_rows([row])
    row["lines"].append(2)  # type: ignore[attr-defined]
    assert ann.fields["lines"] == [1]


class Color(enum.Enum):
    RED = "red"


class Person(NamedTuple):
    email: str
    name: str


@dataclasses.dataclass
class Customer:
    email: str
    name: str
    parents: tuple[Person, ...] = ()


class Member(pydantic.BaseModel):
    email: str
    name: str
    since: datetime.date = datetime.date(2020, 1, 2)


class Structure(msgspec.Struct):
    email: str
    name: str


def of_sqlite3() -> object:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT 'ann@example.org' AS email, 'Ann' AS name").fetchone()


def of_sqlalchemy() -> object:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        row = connection.execute(sqlalchemy.text("SELECT 'ann@example.org' AS email, 'Ann' AS name")).one()
    engine.dispose()
    return row


def of_sqlalchemy_entity() -> object:
    class Base(sqlalchemy.orm.DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "user"
        email: sqlalchemy.orm.Mapped[str] = sqlalchemy.orm.mapped_column(primary_key=True)
        name: sqlalchemy.orm.Mapped[str]

    return User(email="ann@example.org", name="Ann")


@pytest.mark.parametrize(
    "make",
    [
        lambda: types.MappingProxyType({"email": "ann@example.org", "name": "Ann"}),
        lambda: Person("ann@example.org", "Ann"),
        lambda: Customer("ann@example.org", "Ann"),
        lambda: Member(email="ann@example.org", name="Ann"),
        lambda: Structure("ann@example.org", "Ann"),
        lambda: pandas.Series({"email": "ann@example.org", "name": "Ann"}),
        of_sqlite3,
        of_sqlalchemy,
        of_sqlalchemy_entity,
    ],
    ids=[
        "mapping", "NamedTuple", "dataclass", "pydantic", "msgspec", "pandas", "sqlite3", "SQLAlchemy", "entity"
    ],
)  # fmt: skip
def test_row_is_whatever_has_fields_by_name(make: Callable[[], object]) -> None:
    (ann,) = from_rows([make()])
    assert isinstance(ann, Recipient)
    assert (ann.address.wire, ann.name) == ("ann@example.org", "Ann")
    assert {key: ann.fields[key] for key in ("email", "name")} == {"email": "ann@example.org", "name": "Ann"}


def test_values_with_fields_become_objects() -> None:
    (ann,) = from_rows([Customer("ann@example.org", "Ann", (Person("bob@example.org", "Bob"),))])
    assert ann.fields["parents"] == [{"email": "bob@example.org", "name": "Bob"}]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (float("nan"), None),
        (decimal.Decimal("NaN"), None),
        (pandas.NaT, None),
        (pandas.NA, None),
        (numpy.float64("nan"), None),
        (numpy.datetime64("NaT"), None),
        (numpy.int64(5), 5),
        (numpy.float64(2.5), 2.5),
        (numpy.float32(0.1), 0.1),
        (numpy.bool_(True), True),
        (numpy.str_("x"), "x"),
        (numpy.array([1.5, numpy.nan]), [1.5, None]),
        (numpy.datetime64("2026-12-24"), "2026-12-24"),
        (numpy.datetime64("2026-12-24T01:02:03", "ns"), "2026-12-24T01:02:03"),
        (pandas.Timestamp("2026-12-24 01:02:03.000000004"), "2026-12-24T01:02:03"),
        (pandas.Timestamp("2026-12-24", tz="Europe/Vienna"), "2026-12-24T00:00:00+01:00"),
        (pandas.Timedelta("1D"), "P1D"),
        (pandas.Series([1, 2]), [1, 2]),
        (datetime.datetime(2026, 12, 24, tzinfo=datetime.UTC), "2026-12-24T00:00:00Z"),
        (datetime.time(9, 30), "09:30:00"),
        (decimal.Decimal("12.50"), "12.50"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (ipaddress.ip_address("192.0.2.1"), "192.0.2.1"),
        (Path("a/b.pdf"), "a/b.pdf"),
        (Color.RED, "red"),
        ({7}, [7]),
        (collections.deque(["x"]), ["x"]),
        ({1: float("nan")}, {"1": None}),
    ],
    ids=repr,
)
def test_values_of_programs_are_taken(value: object, stored: object) -> None:
    (ann,) = from_rows([{"email": "ann@example.org", "x": value}])
    assert isinstance(ann, Recipient)
    assert ann.fields["x"] == stored
    assert type(ann.fields["x"]) is type(stored)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param(["x"], "the row is an array, expected an object", id="list"),
        pytest.param(None, "the row is null, expected an object", id="none"),
        pytest.param(
            {"email": "b@x.org", "x": float("inf")},
            "the field 'x' is inf, which is not a number that can be written",
            id="infinity",
        ),
        pytest.param({"email": "b@x.org", "x": b"x"}, f"the field 'x' is of type bytes, {EXPECTED}", id="bytes"),
        pytest.param({"email": "b@x.org", "x": [{"y": int}]}, f"the field 'x' is of type type, {EXPECTED}", id="deep"),
        pytest.param({"email": "b@x.org", "x": "\0"}, "the field 'x' has a NUL character (U+0000)", id="nul"),
        pytest.param({"email": "b@x.org", "x": object()}, f"the field 'x' is of type object, {EXPECTED}", id="object"),
        pytest.param(
            {"email": "b@x.org", None: ["x"]},
            "the row has values without a field name: '['x']'",
            id="beyond",
        ),
        pytest.param({"email": 7}, "the field 'email' holds a number, expected one address as text", id="number"),
        pytest.param({}, "there is no address: it has no field 'email'", id="empty"),
    ],
)
def test_bad_row_does_not_stop_the_others(row: object, reason: str) -> None:
    rows = [{"email": "a@x.org"}, row, {"email": "c@x.org"}]
    first, bad, last = from_rows(rows)
    assert isinstance(bad, BadRow)
    assert (bad.reason, bad.place) == (reason, Place("<rows>", 2))
    assert isinstance(first, Recipient)
    assert isinstance(last, Recipient)


def test_row_without_end_is_a_bad_row() -> None:
    loop: dict[str, object] = {"email": "b@x.org"}
    loop["self"] = loop
    _, bad = from_rows([{"email": "a@x.org"}, loop])
    assert isinstance(bad, BadRow)
    assert bad.reason == "the field 'self' is nested deeper than 64 levels"
    assert bad.fields["email"] == "b@x.org"


def test_rows_without_address_column_are_refused() -> None:
    with pytest.raises(ListError) as caught:
        list(from_rows([{"name": "Ann"}], name="crm"))
    assert str(caught.value) == "crm:1: no column is named email, mail or address; found 'name'"


def test_named_columns_are_taken() -> None:
    options = ListOptions(address_column="contact", name_column="who")
    (ann,) = from_rows([{"contact": "ann@example.org", "who": "Ann", "email": "x"}], options)
    assert isinstance(ann, Recipient)
    assert (ann.address.wire, ann.name) == ("ann@example.org", "Ann")


def test_no_rows_are_no_recipients() -> None:
    assert list(from_rows([])) == []
