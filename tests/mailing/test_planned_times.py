"""Planned times over the wire: nothing goes before its time, the run waits for it, and resuming keeps the plan."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

import bulkmail
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.schedule import parse_windows
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.planned import planned_in
from bulkmail.report.report import Report
from bulkmail.report.saving import save_report
from bulkmail.report.text_report import summary
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, write_campaign

NO_WAIT = bulkmail.Pace(wait=0.001)


@pytest.fixture
def campaign() -> bulkmail.Campaign:
    return bulkmail.compose(from_="Shop <shop@shop.example>", subject="Hello", text="Hello\n", name="spring")


def in_seconds(seconds: float) -> str:
    return (datetime.now().astimezone() + timedelta(seconds=seconds)).isoformat()


class Arrivals(list[tuple[str, float]]):
    """When which address was asked about."""

    def __call__(self, path: str) -> str:
        self.append((path, time.time()))
        return "250 ok"


def mailer(relay: ScriptedRelay, pace: bulkmail.Pace = NO_WAIT) -> bulkmail.Mailer:
    return bulkmail.Mailer(f"smtp://{relay.host}:{relay.port}?tls=off", pace=pace, suppressions=None)


@pytest.mark.slow
async def test_rows_go_at_their_times_however_short_the_wait(campaign: bulkmail.Campaign, tmp_path: Path) -> None:
    now = time.time()
    rows = [
        {"email": "later@example.com", "when": in_seconds(2.5)},
        {"email": "soon@example.com", "when": in_seconds(1.2)},
        {"email": "now@example.com", "when": "now"},
        {"email": "past@example.com", "when": in_seconds(-3600)},
    ]
    arrivals = Arrivals()
    async with ScriptedRelay(rcpt=arrivals) as relay:
        report = await mailer(relay).send(campaign, rows, outbox=tmp_path / "o.outbox", send_at="column:when")
    assert report.tally[Status.ACCEPTED] == 4
    when = {path: at - now for path, at in arrivals}
    assert [path.partition("@")[0] for path in when] == ["now", "past", "soon", "later"]
    assert when["soon@example.com"] >= 1.19
    assert when["later@example.com"] >= 2.49


@pytest.mark.slow
async def test_one_time_for_all_is_kept_with_copies_and_several_sessions(
    campaign: bulkmail.Campaign, tmp_path: Path
) -> None:
    campaign = replace(campaign, bcc=bulkmail.Template("bcc", "{{ boss }}"))
    rows = [{"email": f"p{n}@example.com", "boss": f"b{n}@example.com"} for n in range(20)]
    arrivals, begun = Arrivals(), time.time()
    async with ScriptedRelay(rcpt=arrivals) as relay:
        report = await mailer(relay).send(
            campaign, rows, outbox=tmp_path / "o.outbox", send_at=datetime.now().astimezone() + timedelta(seconds=1.5)
        )
    assert report.tally.copies == {Status.ACCEPTED: 20}
    assert len(arrivals) == 40
    assert min(at for _, at in arrivals) >= begun + 1.49


@pytest.mark.slow
async def test_without_wait_what_is_due_goes_and_the_rest_is_left_to_the_next_call(
    campaign: bulkmail.Campaign, tmp_path: Path
) -> None:
    rows = [{"email": "now@example.com", "when": "now"}, {"email": "later@example.com", "when": in_seconds(7200)}]
    outbox = tmp_path / "o.outbox"
    async with ScriptedRelay() as relay:
        none = mailer(relay, bulkmail.Pace(wait=0))
        first = await none.send(campaign, rows, outbox=outbox, send_at="column:when")
        assert first.tally.exit_code == 3
        assert first.tally.by_status == {Status.ACCEPTED: 1, Status.PENDING: 1}
        again = await none.send(campaign, rows, outbox=outbox, send_at="column:when")
        assert again.tally.by_status == first.tally.by_status
        assert len(relay.messages) == 1
        with pytest.raises(bulkmail.ConfigError, match=r"the planned times \(send_at\) changed"):
            await none.send(campaign, rows, outbox=outbox)


@pytest.mark.slow
async def test_plan_is_that_of_the_first_start_although_nothing_was_sent_yet(
    campaign: bulkmail.Campaign, tmp_path: Path
) -> None:
    outbox, rows = tmp_path / "o.outbox", [{"email": "ann@example.com"}]
    at = datetime.now() + timedelta(minutes=5)
    async with ScriptedRelay() as relay:
        none = mailer(relay, bulkmail.Pace(wait=0))
        await none.send(campaign, rows, outbox=outbox, send_at=f"{at:%H:%M}")
        first, run_id = plan_of(outbox)
        await none.send(campaign, rows, outbox=outbox, send_at=f"{at:%H:%M}")
        assert plan_of(outbox) == (first, run_id)
        assert not relay.messages
    assert first["later"] == 1


def plan_of(outbox: Path) -> tuple[dict[str, object], str]:
    with OutboxReader.open(outbox) as reader:
        planned = planned_in(reader)
        assert planned is not None
        return {"at": planned.first_at, "later": planned.later}, reader.run_id


@pytest.mark.slow
async def test_rows_due_outside_the_hours_wait_for_them(campaign: bulkmail.Campaign, tmp_path: Path) -> None:
    """The run does not end because the hours of sending begin long after its wait: the rows are planned for then."""
    opens = datetime.now().astimezone() + timedelta(minutes=3)
    windows = parse_windows(f"{opens:%H:%M}-{opens + timedelta(hours=2):%H:%M}", lambda name: opens.tzinfo or UTC)
    pace = replace(NO_WAIT, windows=windows)
    async with (
        ScriptedRelay() as relay,
        mailer(relay, pace).deliver(
            campaign, [{"email": "a@example.com"}], outbox=tmp_path / "o.outbox", send_at=in_seconds(1)
        ) as deliveries,
    ):
        reading = asyncio.ensure_future(anext(aiter(deliveries)))
        await asyncio.sleep(2.5)
        assert not reading.done()  # it waits for the hours
        assert not relay.messages
        reading.cancel()


@pytest.mark.slow
async def test_deferred_row_is_tried_again_while_the_run_waits_for_the_plan(
    campaign: bulkmail.Campaign, tmp_path: Path
) -> None:
    """Its wait alone would have ended the run before the second try."""
    asked: list[str] = []

    def rcpt(path: str) -> str:
        asked.append(path)
        return "450 4.2.1 come again" if asked == ["grey@example.com"] else "250 ok"

    rows = [{"email": "grey@example.com", "when": "now"}, {"email": "later@example.com", "when": in_seconds(3)}]
    pace = replace(NO_WAIT, retry=RetryPolicy(schedule=(0.8,) * 5))
    async with ScriptedRelay(rcpt=rcpt) as relay:
        report = await mailer(relay, pace).send(campaign, rows, outbox=tmp_path / "o.outbox", send_at="column:when")
    assert asked == ["grey@example.com", "grey@example.com", "later@example.com"]
    assert report.tally[Status.ACCEPTED] == 2


@pytest.mark.slow
async def test_report_and_status_say_what_is_planned(campaign: bulkmail.Campaign, tmp_path: Path) -> None:
    outbox = tmp_path / "o.outbox"
    rows = [{"email": f"p{n}@example.com", "tz": zone} for n, zone in enumerate(["Europe/Vienna", "Asia/Tokyo", ""])]
    tomorrow = f"{datetime.now() + timedelta(days=3):%Y-%m-%d} 09:00"
    campaign = replace(campaign, timezone="Europe/Vienna")
    async with ScriptedRelay() as relay:
        await mailer(relay, bulkmail.Pace(wait=0)).send(
            campaign, rows, outbox=outbox, send_at=tomorrow, timezone="column:tz"
        )
    said, planned = await to_thread.run_sync(reported, outbox, tmp_path / "r.json")
    assert "Planned: 3 from " in said
    assert (planned["at_once"], planned["later"]) == (0, 3)
    assert planned["zones"] == {"Europe/Vienna": 2, "Asia/Tokyo": 1}
    assert planned["first_at"] < planned["last_at"]


def reported(outbox: Path, target: Path) -> tuple[str, dict[str, Any]]:
    report = Report.read(outbox)
    save_report(report, target)
    return summary(report, width=200), json.loads(target.read_text())["planned"]


async def test_rehearsal_waits_for_no_time_and_still_reads_it(campaign: bulkmail.Campaign, tmp_path: Path) -> None:
    rows = [{"email": f"p{n}@example.com", "when": in_seconds(7200)} for n in range(5)]
    rows.append({"email": "bad@example.com", "when": "soon"})
    report = await bulkmail.Mailer("null:", pace=NO_WAIT, suppressions=None).send(
        campaign, rows, outbox=tmp_path / "o.outbox", send_at="column:when", max_invalid=1
    )
    assert report.tally.by_status == {Status.ACCEPTED: 5, Status.INVALID: 1}


async def test_time_that_has_passed_or_column_that_is_missing_is_reported_before_anything_is_sent(
    campaign: bulkmail.Campaign,
) -> None:
    async with ScriptedRelay() as relay:
        send: Callable[..., Awaitable[object]] = mailer(relay).send
        for more, fault in (
            ({"send_at": "2020-01-01 09:00"}, "send_at: '2020-01-01 09:00' was .* ago"),
            ({"send_at": "2020-01-01 09:00", "timezone": "column:tz"}, "ago"),
            ({"send_at": "column:nix"}, "send_at: the list has no column 'nix'"),
            ({"send_at": "09:00", "timezone": "column:nix"}, "timezone: the list has no column 'nix'"),
            ({"timezone": "Europe/Vienna"}, "timezone has no effect without send_at"),
            ({"send_at": "09:00", "timezone": "Europe/Wien"}, "is not a time zone"),
        ):
            with pytest.raises(bulkmail.ConfigError, match=fault):
                await send(campaign, [{"email": "a@example.com", "tz": "UTC"}], max_invalid=1, **more)
        assert not relay.messages


@pytest.fixture
def dated() -> bulkmail.Campaign:
    """Made by no loop: it reads a time zone."""
    return bulkmail.compose(from_="a@shop.example", subject="{{ today }}", text="Hello\n", timezone="Europe/Vienna")


@pytest.mark.slow
async def test_now_in_a_message_is_the_planned_time_where_it_is_the_same_for_all(
    dated: bulkmail.Campaign, tmp_path: Path
) -> None:
    day = f"{datetime.now() + timedelta(days=40):%Y-%m-%d}"
    rows = [{"email": "a@example.com", "when": f"{day} 12:00"}]
    found = []
    async with ScriptedRelay() as relay:
        for number, send_at in enumerate((f"{day} 12:00", "column:when")):
            outbox = tmp_path / f"{number}.outbox"
            await mailer(relay, bulkmail.Pace(wait=0)).send(dated, rows, outbox=outbox, send_at=send_at)
            with OutboxReader.open(outbox) as reader:
                assert reader.campaign is not None
                found.append(reader.campaign.moment[:10])
    assert found[0] == day
    assert found[1] < day


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_command_line_shows_the_plan_and_leaves_the_rest_to_the_next_call(tmp_path: Path) -> None:
    tomorrow = f"{datetime.now() + timedelta(days=1):%Y-%m-%d} 12:00"
    async with ScriptedRelay() as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off"
        spring = write_campaign(tmp_path / "spring", [], relay=url, settings='send_at = "column:when"\n')
        people = f"now@example.com,N,now\nlater@example.com,L,{tomorrow}\n"
        (spring / "people.csv").write_text(f"email,first_name,when\n{people}")
        flags = ("--yes", "--wait", "0")
        sent = await run("send", "spring", *flags, "--progress", "json", cwd=tmp_path)
        status = await run("status", "spring", cwd=tmp_path)
        resumed = await run("resume", "spring", *flags, cwd=tmp_path)
        other = await run("send", "spring", *flags, "--send-at", "09:00", cwd=tmp_path)
        rehearsed = await run("send", "spring", "--dry-run", cwd=tmp_path)
    assert sent.code == resumed.code == 3, sent.err + resumed.err
    events = [json.loads(line) for line in sent.err.splitlines() if line.startswith("{")]
    (plan,) = [event for event in events if event["event"] == "planned"]
    assert (plan["at_once"], plan["later"], plan["zones"]) == (1, 1, {})
    assert "with --wait 0 only what is due goes now" in " ".join(resumed.err.split())
    assert "Planned: 1 at " in status.out
    assert [taken.forward_paths for taken in relay.messages] == [("now@example.com",)]
    assert other.code == 2
    assert "the planned times (send_at) changed since this run began" in " ".join(other.err.split())
    assert rehearsed.code == 0, rehearsed.err
    assert "a rehearsal does not wait for planned times" in " ".join(rehearsed.err.split())
