"""A program's own rows as a list."""

from __future__ import annotations

import datetime
import decimal

import pytest

from bulkmail.model.errors import ListError
from bulkmail.model.recipient import BadRow, Place, Recipient
from bulkmail.recipients.source import ListOptions, from_rows


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


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param(["x"], "the row is an array, expected an object", id="list"),
        pytest.param(None, "the row is null, expected an object", id="none"),
        pytest.param(
            {"email": "b@x.org", "x": float("nan")},
            "the field 'x' is nan, which is not a number that can be written",
            id="nan",
        ),
        pytest.param({"email": "b@x.org", "x": b"x"}, "the field 'x' is a bytes, which JSON does not have", id="bytes"),
        pytest.param({"email": "b@x.org", "x": "\0"}, "the field 'x' has a NUL character (U+0000)", id="nul"),
        pytest.param(
            {"email": "b@x.org", "x": object()},
            "the row cannot be stored: Encoding objects of type object is unsupported",
            id="object",
        ),
        pytest.param({"email": 7}, "the field 'email' holds a number, expected one address as text", id="number"),
        pytest.param({}, "there is no address: it has no field 'email'", id="empty"),
    ],
)
def test_bad_row_does_not_stop_the_others(row: object, reason: str) -> None:
    rows = [{"email": "a@x.org"}, row, {"email": "c@x.org"}]
    first, bad, last = from_rows(rows)  # type: ignore[arg-type]
    assert isinstance(bad, BadRow)
    assert (bad.reason, bad.place) == (reason, Place("<rows>", 2))
    assert isinstance(first, Recipient)
    assert isinstance(last, Recipient)


def test_row_without_end_is_a_bad_row() -> None:
    loop: dict[str, object] = {"email": "b@x.org"}
    loop["self"] = loop
    _, bad = from_rows([{"email": "a@x.org"}, loop])
    assert isinstance(bad, BadRow)
    assert bad.reason.startswith("the row cannot be stored: maximum recursion depth")


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
