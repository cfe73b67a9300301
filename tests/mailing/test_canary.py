"""The first messages go ahead, and the rest only if they fared well."""

from __future__ import annotations

import pytest

import bulkmail
from bulkmail.mailing.library import Mailer
from bulkmail.mailing.program import SendingStopped
from bulkmail.model.breaker import BreakerLimits
from bulkmail.model.pace import Pace
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status
from bulkmail.testing import Drop, ScriptedRelay

MESSAGE = bulkmail.compose(from_="shop@example.com", subject="Hello", text="Dear {{ email }},\n")
PEOPLE = [{"email": f"p{number}@example.com"} for number in range(100)]
SOON = RetryPolicy(schedule=(0.2, 0.2, 0.2))


@pytest.fixture
def send(tmp_path):
    async def run(relay, *, canary=10, retry=SOON, **more):
        pace = Pace(breakers=BreakerLimits(canary=canary), retry=retry, **more)
        mailer = Mailer(f"smtp://127.0.0.1:{relay.port}?tls=off&connections=3", pace=pace)
        return await mailer.send(MESSAGE, PEOPLE, outbox=tmp_path / "spring.outbox")

    return run


@pytest.mark.slow
async def test_rest_follows_when_the_first_messages_succeed(send):
    async with ScriptedRelay() as relay:
        report = await send(relay)
    assert report.accepted == 100 and len(relay.messages) == 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ({"rcpt": lambda path: "550 5.1.1 who?"}, "none was accepted"),
        ({"rcpt": lambda path: "550 5.1.1 who?" if path[1] in "123" else None}, "3 were rejected"),
        ({"end": [None, None, Drop()]}, "may or may not have arrived"),
    ],
    ids=["all refused", "some refused", "in doubt"],
)
async def test_rest_stays_pending_when_the_first_messages_fail(send, script, why):
    async with ScriptedRelay(**script) as relay:
        with pytest.raises(SendingStopped, match=why) as stopped:
            await send(relay)
    assert "--canary 0" in stopped.value.hint
    report = stopped.value.report
    assert report.tally[Status.PENDING] == 90 and report.tally.exit_code == 3
    assert "the rest was not sent" in report.run.rest.why


@pytest.mark.slow
async def test_later_run_sends_others_ahead_and_one_that_has_passed_none(send):
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?") as relay:
        with pytest.raises(SendingStopped):
            await send(relay)
    async with ScriptedRelay() as relay:
        report = await send(relay, limit=30)
        assert report.accepted == 30
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?") as relay:  # no one is sent ahead any more
        report = await send(relay)
    assert report.tally[Status.REJECTED] == 10 + 60
    assert report.run.rest is None


@pytest.mark.slow
async def test_canary_that_was_interrupted_goes_on_where_it_was(send):
    async with ScriptedRelay() as relay:
        await send(relay, limit=7)
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?") as relay:
        with pytest.raises(SendingStopped, match="of the first 10 messages 3 were rejected"):
            await send(relay)


@pytest.mark.slow
async def test_greylisting_of_all_is_waited_for(send):
    seen = set()

    def rcpt(path):
        first, _ = path not in seen, seen.add(path)
        return "450 4.7.1 greylisted, come back later" if first else None

    async with ScriptedRelay(rcpt=rcpt) as relay:
        report = await send(relay)
    assert report.accepted == 100


@pytest.mark.slow
async def test_some_that_are_deferred_for_long_hold_no_one_up(send):
    late = RetryPolicy(schedule=(3600.0,))
    async with ScriptedRelay(rcpt=lambda path: "450 4.2.1 busy" if path.startswith("p3@") else None) as relay:
        report = await send(relay, retry=late)
    assert report.accepted == 99 and report.tally[Status.DEFERRED] == 1


@pytest.mark.slow
async def test_dead_copy_counts_once_and_holds_no_one_up(tmp_path):
    campaign = bulkmail.compose(
        from_="shop@example.com", subject="Hello", text="Dear {{ email }},\n", bcc="dead@example.com"
    )
    pace = Pace(breakers=BreakerLimits(canary=25), retry=SOON)
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path == "dead@example.com" else None) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?tls=off&connections=3"
        report = await Mailer(url, pace=pace).send(campaign, PEOPLE, outbox=tmp_path / "spring.outbox")
    assert report.tally.by_status == {Status.ACCEPTED: 100}
    assert report.tally.copies == {Status.REJECTED: 100}
    assert report.failed == [("dead@example.com", 550, "who?")]
    assert report.exit_code == 1


@pytest.mark.slow
async def test_copy_that_is_deferred_goes_with_the_second_try(tmp_path):
    campaign = bulkmail.compose(
        from_="shop@example.com", subject="Hello", text="Dear {{ email }},\n", cc="boss@example.com"
    )
    seen = set()

    def rcpt(path):
        first, _ = path not in seen, seen.add(path)
        return "450 4.7.1 greylisted, come back later" if first else None

    async with ScriptedRelay(rcpt=rcpt) as relay:
        pace = Pace(breakers=BreakerLimits(canary=10), retry=SOON)
        report = await Mailer(f"smtp://127.0.0.1:{relay.port}?tls=off", pace=pace).send(campaign, PEOPLE[:20])
    assert (report.accepted, report.accepted_copies) == (20, 20)
