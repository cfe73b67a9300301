"""The report as a table: what was read comes back, what is dangerous does not run, and no row is missing."""

from __future__ import annotations

import csv
import io
import json
import re
import string
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import BulkmailError
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.entries import RowRecord
from bulkmail.recipients.columns import DELIVERY_COLUMNS
from bulkmail.recipients.list_source import open_list
from bulkmail.report.csv_report import write_csv
from bulkmail.report.run_source import Source
from tests.report.making import STARTED, make_record, make_rejected, make_run, make_source

cells = st.text(st.characters(codec="utf-8") | st.sampled_from("=+-@\t\r\n\",;'\0 0123"), max_size=20)


def table(source: Source) -> list[list[str]]:
    """What Python's own reader makes of the report."""
    return list(csv.reader(io.StringIO(written(source).decode("utf-8", "strict"), newline=""), strict=True))


def written(source: Source) -> bytes:
    stream = io.BytesIO()
    write_csv(source, stream)
    return stream.getvalue()


def cell_of(value: object) -> str:
    """The one input cell of a table with a row for it."""
    source = make_source([make_record(fields={"x": value})], columns=("x",))
    return table(source)[1][0]


def test_csv_is_the_input_plus_what_became_of_it() -> None:
    accepted = make_record(
        relay="smtp://mail.example.com:587", message_id="<1@example.com>", first_at=STARTED, last_at=STARTED + 61.25
    )
    assert written(make_source([accepted, make_rejected(2)])).decode() == (
        "email,town,delivery_status,delivery_code,delivery_enhanced_code,delivery_reply,delivery_attempts,"
        "delivery_relay,delivery_message_id,delivery_first_at,delivery_last_at,delivery_error,delivery_copies,"
        "delivery_rehearsal,delivery_feedback,delivery_feedback_at,delivery_feedback_reason,delivery_pass\r\n"
        "user1@example.org,Graz,accepted,250,2.0.0,Ok: queued as 4WxYz1,1,smtp://mail.example.com:587,"
        "<1@example.com>,2023-11-14T22:13:20.500Z,2023-11-14T22:14:21.750Z,,,no,,,,1\r\n"
        "user2@example.org,Graz,rejected,550,5.1.1,no such user,1,,,,,,,no,,,,1\r\n"
    )


def test_csv_of_a_rehearsal_says_so_in_every_row() -> None:
    (header, *rows) = table(make_source([make_record(1), make_rejected(2)], is_rehearsal=True))
    assert [row[header.index("delivery_rehearsal")] for row in rows] == ["yes", "yes"]


def test_csv_holds_the_copies_of_a_row_as_json_and_comes_back_without() -> None:
    copy = make_rejected(7, address="boss@example.org", last_at=STARTED)
    header, first, second = table(make_source([make_record(copies=(copy,)), make_record(2)]))
    at = header.index("delivery_copies")
    assert second[at] == ""
    assert dict(zip(header, first, strict=True))["delivery_status"] == "accepted"
    assert json.loads(first[at]) == [
        {
            "address": "boss@example.org",
            "status": "rejected",
            "code": 550,
            "enhanced_code": "5.1.1",
            "reply": "no such user",
            "reason": "unknown user",
            "attempts": 1,
            "relay": "",
            "last_at": "2023-11-14T22:13:20.500Z",
            "error": "",
        }
    ]


def test_csv_of_an_empty_list_is_its_header() -> None:
    assert table(make_source([])) == [["email", "town", *DELIVERY_COLUMNS]]


@pytest.mark.slow
@given(columns=st.lists(cells, min_size=1, max_size=4, unique=True), data=st.data())
def test_csv_comes_back_cell_by_cell(columns: list[str], data: st.DataObject) -> None:
    columns = [column for column in columns if column not in DELIVERY_COLUMNS] or ["x"]
    rows = data.draw(st.lists(st.lists(cells, min_size=len(columns), max_size=len(columns)), max_size=4))
    records = [make_record(n, fields=dict(zip(columns, row, strict=True))) for n, row in enumerate(rows, 1)]
    header, *found = table(make_source(records, columns=tuple(columns)))
    assert header == [*map(expected, columns), *DELIVERY_COLUMNS]
    assert [row[: len(columns)] for row in found] == [list(map(expected, row)) for row in rows]


def expected(cell: str) -> str:
    """As it should come back, by a rule that is written in another way than the one under test."""
    guarded = cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠"))
    digits = cell[1:] if cell[:1] in ("+", "-") else cell
    # A lone dash, which people write for "nothing", calculates nothing either.
    is_number = (bool(digits) and set(digits) <= set(string.digits + " ().-")) or cell == "-"
    return ("'" if guarded and not is_number else "") + inside(cell).replace("\0", "�")


def inside(cell: str) -> str:
    """With guards behind separators, found by walking through the cell."""
    found, at = "", 0
    while at < len(cell):
        found += cell[at]
        at += 1
        if found[-1] == ";":
            rest = cell[at:]
            blanks = len(rest) - len(rest.lstrip(" ").lstrip('"').lstrip(" "))
            found, at = found + rest[:blanks], at + blanks
            bare = rest[blanks:].lstrip("'")
            part = bare.partition(";")[0]
            is_number = bool(re.fullmatch("[+-]?[0-9 ().-]*", part.partition(",")[0]))
            calls = part[:1] in ("+", "-", "＋", "－") and any(sign in part[1:] for sign in "|(!") and not is_number
            if bare and (bare[0] in "=@＝＠" or calls):
                found += "'"
    return found


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("x;=cmd|' /C calc'!A0", "x;'=cmd|' /C calc'!A0"),
        ('x; "=1+1"', 'x; "\'=1+1"'),
        ("x; -cmd|'/C calc'!A0;y", "x; '-cmd|'/C calc'!A0;y"),
        ("x;'=1", "x;''=1"),
        ("list;-3;+43 (1) 234-56; - one", "list;-3;+43 (1) 234-56; - one"),
        ("ann@example.org;bob@example.org", "ann@example.org;bob@example.org"),
        ("a = b; c == d", "a = b; c == d"),
    ],
)
def test_cell_is_no_formula_where_a_spreadsheet_splits_it_and_comes_back(cell: str, shown: str, tmp_path: Path) -> None:
    source = make_source([make_record(fields={"email": "a@b.org", "x": cell})], columns=("email", "x"))
    assert table(source)[1][1] == shown
    write_csv(source, tmp_path / "report.csv")
    with open_list(tmp_path / "report.csv") as rows:
        assert [row.fields["x"] for row in rows] == [cell]


def test_address_that_begins_like_a_formula_is_guarded_and_comes_back(tmp_path: Path) -> None:
    source = make_source([make_record(fields={"email": "=ann@example.org"})], columns=("email",))
    assert table(source)[1][0] == "'=ann@example.org"
    write_csv(source, tmp_path / "report.csv")
    with open_list(tmp_path / "report.csv") as rows:
        assert [row.fields["email"] for row in rows] == ["=ann@example.org"]


def test_csv_is_a_list_again(tmp_path: Path) -> None:
    rows = [
        {"email": "ann@example.org", "=note": "=1+1", "tel": "+43 (1) 234-56"},
        {"email": "+bob@example.org", "=note": 'say "hi",\r\nthen go', "tel": "-3.5"},
        {"email": "no address", "=note": "@home", "tel": "'t Harde"},
    ]
    records = [make_record(n, fields=fields) for n, fields in enumerate(rows, 1)]
    write_csv(make_source(records, columns=("email", "=note", "tel")), tmp_path / "report.csv")
    with open_list(tmp_path / "report.csv") as people:
        assert [row.fields for row in people] == rows
        assert people.columns == ["email", "=note", "tel"]


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param("=1+1", id="formula"),
        pytest.param("=cmd|'/C calc'!A0", id="dde"),
        pytest.param("+cmd|'/C calc'!A0", id="plus"),
        pytest.param("-2+3+cmd|'/C calc'!A0", id="minus"),
        pytest.param("@SUM(A1:A9)", id="at"),
        pytest.param('=HYPERLINK("https://example.com?"&A1)', id="hyperlink"),
        pytest.param("\t=1+1", id="tab"),
        pytest.param("\r=1+1", id="carriage-return"),
        pytest.param("\n=1+1", id="line-feed"),
        pytest.param("＝1+1", id="full-width"),
        pytest.param("=a|b!c@example.com", id="dde-as-an-address"),
        pytest.param("+43 1 234\n=1+1", id="second-line"),
        pytest.param("+43 1 ٣", id="digits-of-another-script"),
    ],
)
def test_csv_disarms_a_formula(cell: str) -> None:
    assert cell_of(cell) == "'" + cell


@pytest.mark.parametrize(
    "cell",
    ["", "-3.50", "+3", "+43 (1) 234-56", "+43 664 1234567", "-", "'=1", "a=b", "+ann@example.com"],
)
def test_csv_leaves_alone_what_does_no_harm(cell: str) -> None:
    assert cell_of(cell) == cell


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        pytest.param(None, "", id="null"),
        pytest.param(True, "true", id="true"),
        pytest.param(7, "7", id="number"),
        pytest.param(-2.5, "-2.5", id="negative"),
        pytest.param(["a", {"b": "ü"}], '["a",{"b":"ü"}]', id="nested"),
        pytest.param([], "[]", id="empty-list"),
        pytest.param({"a": None}, '{"a":null}', id="object"),
        pytest.param({"a": "\ud800"}, '{"a":"\\ud800"}', id="half-a-surrogate-pair-inside"),
        pytest.param("a\ud800b", "a?b", id="half-a-surrogate-pair"),
        pytest.param('a\r\n"b",\0', 'a\r\n"b",�', id="line-ends-quotes-nul"),
        pytest.param("\x1b[2J<script>", "\x1b[2J<script>", id="escape-codes-are-data-here"),
    ],
)
def test_csv_writes_any_value_as_a_cell(value: object, cell: str) -> None:
    assert cell_of(value) == cell


def test_csv_disarms_what_the_server_said() -> None:
    record = make_rejected(reply="=cmd|'/C calc'!A0", error="@boom")
    row = dict(zip(*table(make_source([record])), strict=True))
    assert row["delivery_reply"] == "'=cmd|'/C calc'!A0"
    assert row["delivery_error"] == "'@boom"


def test_csv_holds_a_long_reply() -> None:
    record = make_rejected(reply="x" * 10_000)
    assert dict(zip(*table(make_source([record])), strict=True))["delivery_reply"] == "x" * 10_000


@pytest.mark.parametrize(
    ("record", "error"),
    [
        pytest.param(make_record(status=Status.INVALID, reason="has no @"), "has no @", id="invalid"),
        pytest.param(make_record(status=Status.SUPPRESSED, reason="in stop.txt:3"), "in stop.txt:3", id="suppressed"),
        pytest.param(make_record(status=Status.IN_DOUBT, error="connection lost"), "connection lost", id="fault"),
        pytest.param(make_rejected(), "", id="the-reply-says-it"),
        pytest.param(make_record(reply="", reason="accepted"), "", id="accepted"),
        pytest.param(
            make_record(code=None, reply="", error="connection lost", overruled="found in mail.log"),
            "connection lost; found in mail.log",
            id="found",
        ),
        pytest.param(
            make_rejected(code=None, reply="", overruled="by the operator's word"),
            "by the operator's word",
            id="reported",
        ),
    ],
)
def test_csv_says_in_our_words_what_no_reply_says(record: RowRecord, error: str) -> None:
    assert dict(zip(*table(make_source([record])), strict=True))["delivery_error"] == error


def test_csv_replaces_the_columns_of_an_earlier_report() -> None:
    fields = {"email": "a@b.c", "delivery_status": "rejected", "delivery_code": "550"}
    source = make_source([make_record(fields=fields)], columns=("delivery_status", "email", "delivery_code"))
    header, row = table(source)
    assert header == ["email", *DELIVERY_COLUMNS]
    assert row[:3] == ["a@b.c", "accepted", "250"]


def test_csv_of_several_lists_has_every_field() -> None:
    records = [make_record(1, fields={"b": "1"}), make_record(2, fields={"a": "2", "name": "Ann"})]
    header, *rows = table(make_source(records, columns=()))
    assert header == ["address", "name", "b", "a", *DELIVERY_COLUMNS]
    assert [row[:4] for row in rows] == [
        ["user1@example.org", "User 1", "1", ""],
        ["user2@example.org", "Ann", "", "2"],
    ]


def test_csv_of_ready_made_messages_has_address_and_name() -> None:
    header, row = table(make_source([make_record(fields={})], columns=()))
    assert header == ["address", "name", *DELIVERY_COLUMNS]
    assert row[:2] == ["user1@example.org", "User 1"]


def test_csv_loses_no_field_that_the_columns_do_not_name() -> None:
    records = [make_record(1), make_record(2, fields={"email": "a@b.c", "late": "x"})]
    header, *rows = table(make_source(records))
    assert header == ["email", "town", "late", *DELIVERY_COLUMNS]
    assert [row[:3] for row in rows] == [["user1@example.org", "Graz", ""], ["a@b.c", "", "x"]]


def test_csv_refuses_a_list_with_another_field_in_every_row(tmp_path: Path) -> None:
    target = tmp_path / "report.csv"
    target.write_text("old")
    records = [make_record(n, fields={f"field{n}": "x"}) for n in range(2_100)]
    with pytest.raises(BulkmailError, match="over 2,000 different fields") as caught:
        write_csv(make_source(records), target)
    assert "--format json" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["report.csv"]
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    ("tally", "found"),
    [
        pytest.param(Tally(3, {Status.ACCEPTED: 3}), "3 rows and holds 2 (accepted 2 of 3)", id="row-missing"),
        pytest.param(Tally(1, {Status.ACCEPTED: 1}), "1 rows and holds 2 (accepted 2 of 1)", id="row-too-many"),
        pytest.param(
            Tally(2, {Status.ACCEPTED: 1, Status.REJECTED: 1}),
            "2 rows and holds 2 (accepted 2 of 1, rejected 0 of 1)",
            id="another-status",
        ),
        pytest.param(Tally(3, {Status.ACCEPTED: 2}), "3 rows and holds 2", id="tally-that-does-not-add-up"),
    ],
)
def test_csv_is_not_written_when_it_does_not_add_up(tmp_path: Path, tally: Tally, found: str) -> None:
    target = tmp_path / "report.csv"
    target.write_text("old")
    source = make_source([make_record(1), make_record(2)], tally=tally)
    with pytest.raises(BulkmailError) as caught:
        write_csv(source, target)
    assert str(caught.value) == f"the report does not add up: the outbox counts {found}"
    assert "please report" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["report.csv"]
    assert target.read_text() == "old"


def test_csv_sends_nothing_to_a_stream_when_it_does_not_add_up() -> None:
    stream = io.BytesIO()
    with pytest.raises(BulkmailError, match="does not add up"):
        write_csv(make_source([make_record(1)], tally=Tally(2, {Status.ACCEPTED: 2})), stream)
    assert stream.getvalue() == b""


@pytest.mark.slow
def test_csv_keeps_memory_flat(tmp_path: Path) -> None:
    def rows() -> Iterator[RowRecord]:
        return (make_record(n, fields={"email": "x" * 100_000, "town": ""}) for n in range(100))

    source = Source(make_run(), Tally(100, {Status.ACCEPTED: 100}), rows)
    tracemalloc.start()
    try:
        write_csv(source, tmp_path / "report.csv")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "report.csv").stat().st_size > 10_000_000
    assert peak < 2_000_000
