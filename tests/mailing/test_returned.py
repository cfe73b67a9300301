"""What came back about a run, as reports show it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import bulkmail
from bulkmail.mailing.intake import opened_campaign, returned_of
from bulkmail.mailing.suppression_list import open_settings
from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, Proof
from bulkmail.model.suppression import campaign_scope
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.report import Report
from bulkmail.settings.suppressions import load_suppressions
from bulkmail.testing import ScriptedRelay

ROWS = [{"email": f"p{number}@example.com"} for number in range(4)]


@pytest.fixture
async def outbox(tmp_path: Path) -> Path:
    campaign = bulkmail.compose(
        from_="Shop <shop@example.com>", subject="Hello", text="Dear {{ email }},\n", name="Spring"
    )
    async with ScriptedRelay() as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off"
        await bulkmail.send(campaign, ROWS, relay=url, outbox=tmp_path / "run.outbox")
    return tmp_path / "run.outbox"


def click(address: str, list_id: str = campaign_scope("Spring"), *, after: float = 0.0) -> FeedbackEvent:
    return FeedbackEvent(
        f"click {address} {after}",
        FeedbackKind.UNSUBSCRIBE,
        time.time() + after,
        Proof.TOKEN,
        forward_path=address,
        list_id=list_id,
        reason="one-click",
    )


@pytest.mark.slow
def test_click_counts_for_the_run_of_its_list_that_reached_the_address(outbox: Path) -> None:
    clicks = [
        click("p0@example.com"),
        click("p1@example.com", ""),  # from all lists
        click("p2@example.com", "another"),
        click("stranger@example.com"),
        click("p3@example.com", after=-3_600),  # before it
    ]
    with open_settings(load_suppressions()) as store, OutboxReader.open(outbox) as reader:
        store.record(clicks)
        returned = returned_of(reader, store)
        assert {row: came.reason for row, came in returned.rows.items()} == {1: "one-click", 2: "one-click"}
        assert returned_of(reader, store, until=reader.started_at or 0.0).rows == {}


@pytest.mark.slow
def test_list_that_cannot_be_read_is_named_and_the_report_is_whole(outbox: Path) -> None:
    path = load_suppressions().path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no database, but long enough to be taken for one" * 40)
    with opened_campaign(outbox, alone=False) as (source, notices):
        assert Report.of(source).accepted == 4
    assert len(notices) == 1 and "what came back cannot be read" in notices[0]
