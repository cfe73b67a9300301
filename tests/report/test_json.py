"""The report as one JSON object."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import BulkmailError
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.entries import RowRecord
from bulkmail.report.json_report import write_json
from bulkmail.report.run_source import Source
from tests.report.making import STARTED, make_record, make_rejected, make_run, make_source


def read(source: Source) -> Any:
    stream = io.BytesIO()
    write_json(source, stream)
    return json.loads(stream.getvalue().decode("utf-8", "strict"))


def test_json_holds_the_run_and_every_row() -> None:
    accepted = make_record(
        relay="smtp://mail.example.com:587", message_id="<1@example.com>", first_at=STARTED, last_at=STARTED + 0.25
    )
    invalid = make_record(3, Status.INVALID, address="", reason="the address 'x' has no @")
    assert read(make_source([accepted, make_rejected(2), invalid])) == {
        "bulkmail": 1,
        "name": "Spring",
        "run_id": "0123456789abcdef",
        "relay": "smtp://mail.example.com:587",
        "list": "people.csv",
        "is_rehearsal": False,
        "exit_code": 1,
        "rest": None,
        "stopped": None,
        "follows": None,
        "planned": None,
        "slowdowns": [],
        "totals": {
            "rows": 3,
            "pending": 0,
            "deferred": 0,
            "accepted": 1,
            "rejected": 1,
            "expired": 0,
            "in_doubt": 0,
            "invalid": 1,
            "duplicate": 0,
            "suppressed": 0,
            "filtered": 0,
            "cancelled": 0,
        },
        "messages": {
            "messages": 3,
            "pending": 0,
            "deferred": 0,
            "accepted": 1,
            "rejected": 1,
            "expired": 0,
            "in_doubt": 0,
            "invalid": 1,
            "duplicate": 0,
            "suppressed": 0,
            "filtered": 0,
            "cancelled": 0,
        },
        "copies": {
            "pending": 0,
            "deferred": 0,
            "accepted": 0,
            "rejected": 0,
            "expired": 0,
            "in_doubt": 0,
            "cancelled": 0,
        },
        "feedback": {
            "hard": 0,
            "soft": 0,
            "blocked": 0,
            "delayed": 0,
            "spam_complaint": 0,
            "unsubscribe": 0,
            "auto_reply": 0,
            "delivered": 0,
            "unclear": 0,
            "unmatched": 0,
        },
        "passes": [],
        "times": {
            "created": "2023-11-14T22:13:19.500Z",
            "started": "2023-11-14T22:13:20.500Z",
            "ended": "2023-11-14T22:13:30.500Z",
        },
        "rows": [
            {
                "row": 1,
                "shares": None,
                "file": "people.csv",
                "line": 2,
                "address": "user1@example.org",
                "name": "User 1",
                "status": "accepted",
                "code": 250,
                "enhanced_code": "2.0.0",
                "reply": "Ok: queued as 4WxYz1",
                "reason": "",
                "attempts": 1,
                "relay": "smtp://mail.example.com:587",
                "message_id": "<1@example.com>",
                "first_at": "2023-11-14T22:13:20.500Z",
                "last_at": "2023-11-14T22:13:20.750Z",
                "error": "",
                "copies": [],
                "feedback": None,
                "pass": 1,
                "fields": {"email": "user1@example.org", "town": "Graz"},
            },
            {
                "row": 2,
                "shares": None,
                "file": "people.csv",
                "line": 3,
                "address": "user2@example.org",
                "name": "User 2",
                "status": "rejected",
                "code": 550,
                "enhanced_code": "5.1.1",
                "reply": "no such user",
                "reason": "unknown user",
                "attempts": 1,
                "relay": "",
                "message_id": "",
                "first_at": None,
                "last_at": None,
                "error": "",
                "copies": [],
                "feedback": None,
                "pass": 1,
                "fields": {"email": "user2@example.org", "town": "Graz"},
            },
            {
                "row": 3,
                "shares": None,
                "file": "people.csv",
                "line": 4,
                "address": "",
                "name": "User 3",
                "status": "invalid",
                "code": None,
                "enhanced_code": "",
                "reply": "",
                "reason": "the address 'x' has no @",
                "attempts": 0,
                "relay": "",
                "message_id": "",
                "first_at": None,
                "last_at": None,
                "error": "",
                "copies": [],
                "feedback": None,
                "pass": 1,
                "fields": {"email": "user3@example.org", "town": "Graz"},
            },
        ],
        "reasons": {"rejected": {"unknown user": 1}, "invalid": {"the address has no @": 1}},
        "variants": {},
    }


def test_json_of_an_empty_list_is_whole() -> None:
    found = read(make_source([], started_at=None, ended_at=None))
    assert found["rows"] == []
    assert found["reasons"] == {}
    assert found["times"]["started"] is found["times"]["ended"] is None


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


columns = st.text().filter(lambda name: not name.startswith("delivery_"))  # those are of an earlier report


@pytest.mark.slow
@given(st.lists(st.dictionaries(columns, values, max_size=3), max_size=3))
def test_json_comes_back_as_it_was(rows: list[dict[str, object]]) -> None:
    found = read(make_source([make_record(n, fields=fields) for n, fields in enumerate(rows, 1)]))
    assert [row["fields"] for row in found["rows"]] == rows


@pytest.mark.parametrize("size", [1, 2, 700], ids=str)
def test_json_has_each_row_on_a_line(tmp_path: Path, size: int) -> None:
    write_json(make_source([make_record(n) for n in range(1, size + 1)]), tmp_path / "report.json")
    lines = (tmp_path / "report.json").read_text().splitlines()
    numbers = [json.loads(line.removesuffix(","))["row"] for line in lines if line.startswith('{"row":')]
    assert numbers == list(range(1, size + 1))
    json.loads("".join(lines))


def test_json_accepts_half_a_surrogate_pair() -> None:
    (row,) = read(make_source([make_rejected(reply="\ud800\x1b[2J<script>", fields={"a": ["\udfff"]})]))["rows"]
    assert row["reply"] == "\ud800\x1b[2J<script>"
    assert row["fields"] == {"a": ["\udfff"]}


def test_json_is_not_written_when_it_does_not_add_up(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    with pytest.raises(BulkmailError, match="does not add up"):
        write_json(make_source([make_record(1)], tally=Tally(2, {Status.ACCEPTED: 2})), target)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert target.read_text() == "old"


@pytest.mark.slow
def test_json_keeps_memory_flat_whatever_the_reasons(tmp_path: Path) -> None:
    def rows() -> Iterator[RowRecord]:
        return (make_rejected(n, reason=f"{n} " + "x" * 500, fields={"x": "y" * 10_000}) for n in range(1_000))

    source = Source(make_run(), Tally(1_000, {Status.REJECTED: 1_000}), rows)
    tracemalloc.start()
    try:
        write_json(source, tmp_path / "report.json")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    reasons = json.loads((tmp_path / "report.json").read_bytes())["reasons"]["rejected"]
    assert len(reasons) == 101
    assert reasons["other reasons"] == 900
