"""What relays and providers complained of is in the outbox, and the next part of the campaign keeps to it."""

from __future__ import annotations

import time

import pytest

import bulkmail
from bulkmail.mailing.library import Mailer
from bulkmail.mailing.program import SendingStopped
from bulkmail.mailing.run_record import lift_rests
from bulkmail.model.breaker import BreakerLimits
from bulkmail.model.errors import OutboxError
from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox import Outbox
from bulkmail.report.slowdowns import slowdowns_of
from bulkmail.testing import ScriptedRelay

MESSAGE = bulkmail.compose(from_="shop@example.com", subject="Hello", text="Dear {{ email }},\n")
PEOPLE = [{"email": f"p{number}@{domain}"} for number in range(40) for domain in ("gmail.com", "gmx.de")]
BUSY = "451 4.7.28 our system has detected an unusual rate of mail"


@pytest.fixture
def send(tmp_path):
    async def run(relay, *, path=tmp_path / "spring.outbox", connections=3, **pace):
        url = f"smtp://127.0.0.1:{relay.port}?tls=off&connections={connections}&name=main"
        mailer = Mailer(url, pace=Pace(**{"wait": 0, **pace}))
        return await mailer.send(MESSAGE, PEOPLE, outbox=path)

    return run


def asked_of(relay) -> list[str]:
    return [line[9:].partition(">")[0] for line in relay.commands if line.startswith("RCPT TO:<")]


def busy(path: str) -> str | None:
    return BUSY if path.endswith("@gmail.com") else None


@pytest.mark.slow
async def test_report_says_who_slowed_the_run_down(send):
    async with ScriptedRelay(rcpt=busy) as relay:
        report = await send(relay)
    (google,) = report.run.slowdowns
    assert (google.provider, google.why, google.words) == ("google", "Gmail: unusual rate of mail", BUSY)
    assert google.times == sum(path.endswith("@gmail.com") for path in asked_of(relay)) >= 1
    assert google.until == pytest.approx(time.time() + 600, abs=30)
    assert report.tally[Status.ACCEPTED] == 40


@pytest.mark.slow
async def test_next_run_leaves_alone_those_who_still_wants_it(send, tmp_path):
    async with ScriptedRelay(rcpt=busy) as relay:
        await send(relay)
    async with ScriptedRelay() as relay:
        report = await send(relay)
        assert asked_of(relay) == [] and report.tally[Status.ACCEPTED] == 40
        with Outbox.open(tmp_path / "spring.outbox") as outbox:
            lift_rests(outbox)
        report = await send(relay, limit=2)  # at the rate that is left to google
    assert len(asked_of(relay)) == 2 and report.tally[Status.ACCEPTED] == 42
    assert report.run.slowdowns[0].times >= 1  # what it did is still told


@pytest.mark.slow
async def test_next_run_ends_at_once_while_its_only_relay_wants_to_be_left_alone(send):
    refusal = "421 4.7.0 too many messages, try again in 20 minutes"
    async with ScriptedRelay(mail=[None, refusal, refusal, refusal]) as relay:
        with pytest.raises(SendingStopped, match="try again in 20 minutes"):
            await send(relay, connections=1)
        sessions = relay.sessions
        with pytest.raises(SendingStopped, match=r"Sending is paused until .* try again in 20 minutes") as stopped:
            await send(relay)
        assert relay.sessions == sessions
    assert stopped.value.report.tally.by_status == {Status.ACCEPTED: 1, Status.PENDING: len(PEOPLE) - 1}


@pytest.mark.slow
async def test_rest_of_a_campaign_knows_what_its_canary_learnt(send):
    async with ScriptedRelay(rcpt=busy) as relay:
        report = await send(relay, breakers=BreakerLimits(canary=6, canary_share=1.0))
    asked = [path for path in asked_of(relay) if path.endswith("@gmail.com")]
    assert len(asked) <= 3  # a session each, when it complained; none by the rest
    assert report.tally[Status.ACCEPTED] == 40


@pytest.mark.slow
async def test_rate_is_kept_from_the_canary_to_the_rest(send):
    times = []

    def end(path):
        times.append(time.monotonic())

    begun = time.monotonic()
    async with ScriptedRelay(end=end) as relay:
        await send(relay, breakers=BreakerLimits(canary=1), rate=Rate(2.0), limit=3)
    # A slow machine makes a message late, never early: counted from the beginning, it cannot fail for that.
    assert len(times) == 3
    assert all(at - begun >= number / 2.0 for number, at in enumerate(times))


@pytest.mark.slow
async def test_outbox_that_cannot_be_written_to_for_it_costs_no_message(send, monkeypatch):
    kept = Outbox.note

    def note(self, **changes):
        if "slowdowns" in changes:
            raise OutboxError("the disk is full")
        kept(self, **changes)

    monkeypatch.setattr(Outbox, "note", note)
    async with ScriptedRelay(rcpt=busy) as relay:
        report = await send(relay, path=None)
    assert report.tally[Status.ACCEPTED] == 40 and report.run.slowdowns == ()


@pytest.mark.slow
async def test_complaints_of_many_domains_stay_few_in_the_outbox(send, tmp_path):
    people = [{"email": f"p@d{number}.example"} for number in range(300)]
    async with ScriptedRelay(rcpt=lambda path: BUSY) as relay:
        mailer = Mailer(f"smtp://127.0.0.1:{relay.port}?tls=off", pace=Pace(wait=0))
        await mailer.send(MESSAGE, people, outbox=tmp_path / "many.outbox")
    with Outbox.open(tmp_path / "many.outbox") as outbox:
        assert len(slowdowns_of(outbox.info)) == 200
