"""What came back, in words."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.feedback_event import CameBack, ReturnedCounts
from bulkmail.model.feedback_event import FeedbackKind as Kind
from bulkmail.model.tally import Status
from bulkmail.outbox.entries import PathRecord
from bulkmail.report.came_back import came_back, of_passes, of_variants
from bulkmail.report.html import write_html
from bulkmail.report.json_report import write_json
from bulkmail.report.row_words import Variants
from bulkmail.report.run_source import Pass
from tests.report.making import STARTED, make_record, make_run, make_source

HARD = CameBack(Kind.HARD, STARTED + 60, "unknown-user")


def test_each_kind_is_reported_with_its_share() -> None:
    counts = ReturnedCounts({Kind.HARD: 12, Kind.SPAM_COMPLAINT: 1, Kind.UNSUBSCRIBE: 41}, {Kind.HARD: 2}, 2)
    assert came_back(counts, 3_000) == [
        "After sending: 12 came back as unknown (0.40%), 1 spam complaint (0.03%), 41 unsubscribed.",
        "Of copies: 2 came back as unknown.",
        "2 mails could not be matched: bulkmail bounces --unmatched",
    ]
    assert came_back(ReturnedCounts(), 3_000) == []


def test_limits_of_the_providers_are_named_when_complaints_come_near_them() -> None:
    assert len(came_back(ReturnedCounts({Kind.SPAM_COMPLAINT: 2}), 3_000)) == 1
    (_, limit) = came_back(ReturnedCounts({Kind.SPAM_COMPLAINT: 3}), 3_000)
    assert "below 0.1%" in limit and "never 0.3%" in limit


def test_variants_are_reported_apart() -> None:
    assert of_variants({"a": Counter({Kind.HARD: 2}), "b": Counter()}) == "By variant: a 2 came back as unknown."
    assert of_variants({}) == ""
    parts = Template("from", "shop@example.com"), Template("subject", "Hello")
    variants = Variants(Campaign("spring", *parts, text=Template("text", "Hi"), variants=(("a", 1), ("b", 1))))
    variants.add(make_record(fields={"variant": "a"}, came_back=HARD))
    variants.add(make_record(fields={"variant": "b"}))
    counted: dict[str, Any] = variants.as_object()
    assert [counted[name]["feedback"]["hard"] for name in "ab"] == [1, 0]


def test_of_many_passes_the_last_are_shown() -> None:
    passes = [
        Pass(make_run(number=number), make_source([make_record()]).tally, ReturnedCounts()) for number in range(1, 10)
    ]
    lines = of_passes(passes)
    assert (lines[0], lines[1], len(lines)) == ("Sent in 9 passes:", "  3 earlier passes", 8)
    assert lines[-1].startswith("  9, ") and lines[-1].endswith("1 accepted")


def test_copy_that_came_back_is_reported_in_its_row() -> None:
    copy = PathRecord(
        address="boss@example.org",
        status=Status.ACCEPTED,
        code=250,
        enhanced="",
        reply="Ok",
        reason="",
        attempts=1,
        relay="",
        message_id="",
        first_at=None,
        last_at=None,
        error="",
        came_back=HARD,
    )
    source = make_source([make_record(copies=(copy,)), make_record(2, came_back=HARD, run_number=3)])
    stream = io.BytesIO()
    write_json(source, stream)
    first, second = json.loads(stream.getvalue())["rows"]
    said = {"kind": "hard", "at": "2023-11-14T22:14:20.500Z", "reason": "unknown-user"}
    assert (first["feedback"], first["copies"][0]["feedback"]) == (None, said)
    assert (second["feedback"], second["pass"]) == (said, 3)
    stream = io.BytesIO()
    write_html(source, stream)
    page = stream.getvalue().decode()
    assert page.count("came back as unknown (unknown-user)") == 2
