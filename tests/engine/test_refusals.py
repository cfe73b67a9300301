"""Refusals of us reject no one: they slow a run down, pause it or stop it, and the recipients' own stay theirs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import anyio
import pytest

from bulkmail.engine.contracts import Slowed
from bulkmail.model.errors import RelayError, SendingPaused
from bulkmail.model.pace import Pace
from bulkmail.model.retry import Backoff, RetryPolicy
from bulkmail.model.tally import Status
from bulkmail.settings.presets import known_feedback
from bulkmail.testing import Hang, ScriptedRelay

FEEDBACK = known_feedback()
QUICK = Pace(wait=30, relay_backoff=Backoff(schedule=(0.02,)), retry=RetryPolicy(schedule=(0.05, 0.05)))
RELAYING = "554 5.7.1 <x@example.com>: Relay access denied"


@pytest.fixture
def run(make_engine):
    def make(relay, *, pace=QUICK, **more):
        return make_engine(relay, pace=pace, feedback=FEEDBACK, **more)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3, 12])
@pytest.mark.parametrize("stage", ["rcpt", "data", "end"])
@pytest.mark.parametrize(
    ("reply", "fix"),
    [
        (RELAYING, "without a login most servers take mail for their own people only"),
        ("550 5.7.1 Authentication required", "user name"),
        ("553 5.7.1 <news@shop.test>: Sender address rejected: not owned by user me", "verified senders"),
        ("554 Message rejected: Email address is not verified. The following failed: news@shop.test", "verify"),
        (
            "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
            "removed from the list",
        ),
        ("554 smtpport check error.", "reverse DNS name"),  # known to the table of providers only
    ],
    ids=["relaying", "login", "sender", "verification", "block-list", "providers-own-words"],
)
async def test_refusal_of_us_stops_the_run_and_says_what_to_do(people, run, outbox, number, stage, reply, fix):
    people(number)
    seen = Counter()

    def answer(path):
        seen[path] += 1
        return reply

    async with ScriptedRelay(**{stage: answer}) as relay:
        ending = await run(relay, connections=1).run()
    assert isinstance(ending.error, RelayError)
    assert fix in ending.error.hint
    assert outbox.tally().by_status == {Status.PENDING: number}
    assert len(seen) == min(number, 3)  # those under way are more where several sessions are open


@pytest.mark.slow
async def test_refusals_of_us_in_between_end_with_these_rows_alone_pending(people, run, outbox):
    people(40)
    async with ScriptedRelay(rcpt=lambda path: RELAYING if path.startswith(("p7@", "p20@")) else None) as relay:
        ending = await run(relay).run()
    assert "does not relay" in str(ending.error)
    assert outbox.tally().by_status == {Status.ACCEPTED: 38, Status.PENDING: 2}


@pytest.mark.slow
async def test_rows_that_were_refused_because_of_us_get_the_message_once_the_server_is_repaired(people, run, outbox):
    people(12)
    async with ScriptedRelay(rcpt=RELAYING) as relay:
        assert (await run(relay).run()).error
    async with ScriptedRelay() as relay:
        assert (await run(relay).run()).error is None
        assert len(relay.messages) == 12
    assert outbox.tally().by_status == {Status.ACCEPTED: 12}


@pytest.mark.slow
async def test_temporary_refusal_of_us_is_tried_again_by_one_message_at_a_time(people, run, outbox):
    people(30)
    asked = []

    def rcpt(path):
        asked.append(path)
        if len(asked) <= 9:
            return "454 4.7.1 <x@example.com>: Relay access denied"
        return Hang() if len(asked) == 10 else None

    async with ScriptedRelay(rcpt=rcpt) as relay:
        engine = run(relay, connections=3)
        async with anyio.create_task_group() as group:
            group.start_soon(engine.run)
            while len(asked) < 10:
                await anyio.sleep(0.01)
            await anyio.sleep(0.3)  # long enough for the two other sessions, were they allowed
            assert len(asked) == 10
            group.cancel_scope.cancel()
    assert outbox.tally().by_status == {Status.PENDING: 30}


@pytest.mark.slow
async def test_run_goes_on_with_all_sessions_when_a_message_is_accepted_again(people, run, outbox):
    people(30)
    asked = []

    def rcpt(path):
        asked.append(path)
        return "454 4.7.1 <x@example.com>: Relay access denied" if len(asked) <= 8 else None

    async with ScriptedRelay(rcpt=rcpt) as relay:
        ending = await run(relay, connections=3).run()
    assert ending.error is None
    assert outbox.tally().by_status == {Status.ACCEPTED: 30}


async def test_temporary_refusal_of_us_stops_the_run_when_patience_ends(people, run, outbox):
    people(50)
    asked = []

    def rcpt(path):
        asked.append(path)
        return "454 4.7.1 <x@example.com>: Relay access denied"

    async with ScriptedRelay(rcpt=rcpt) as relay:
        ending = await run(relay, pace=replace(QUICK, patience=0.3)).run()
    assert "does not relay" in str(ending.error) and "this has lasted for" in str(ending.error)
    assert outbox.tally().by_status == {Status.PENDING: 50}
    assert len(asked) < 40


@pytest.mark.parametrize("stage", ["data", "end", "rcpt"])
async def test_throttle_coded_as_permanent_slows_down_and_rejects_no_recipient(people, run, outbox, events, stage):
    people(20)
    count = []

    def answer(path):
        count.append(path)
        return "550 5.7.0 Requested action not taken: too many emails per second" if len(count) == 10 else None

    async with ScriptedRelay(**{stage: answer}) as relay:
        ending = await run(relay).run()
    assert ending.error is None
    assert outbox.tally().by_status == {Status.ACCEPTED: 20}
    assert any(isinstance(event, Slowed) for event in events)


@pytest.mark.parametrize(
    ("reply", "stage", "wait"),
    [
        ("550 send spam mail rejected: exceeded hour limit", "end", 3600),
        (
            "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
            "end",
            86400,
        ),
        ("554 5.7.1 You have reached your daily relay quota - me@shop.test", "rcpt", 86400),
    ],
    ids=["hour", "day", "relay-quota"],
)
async def test_quota_pauses_until_its_window_opens(people, run, outbox, reply, stage, wait):
    people(12)
    count = []

    def answer(path):
        count.append(path)
        return reply if len(count) > 5 else None

    async with ScriptedRelay(**{stage: answer}) as relay:
        engine = run(relay, connections=1)
        ending = await engine.run()
    assert isinstance(ending.error, SendingPaused)
    assert abs(ending.error.until - engine._run.clock.now() - wait) < 60
    assert outbox.tally().by_status == {Status.ACCEPTED: 5, Status.PENDING: 7}


async def test_recipients_own_refusals_in_the_words_of_ours_stop_no_one_else(people, run, outbox):
    people(60)
    lines = [
        "550 5.7.1 <p@example.com>: Recipient address rejected: Access denied",
        "550 5.1.1 <p@example.com>: Recipient address rejected: unverified address: no such user",
        "550 5.7.1 Sender blocked by recipient",
        "550 5.7.1 The sender is on the recipient's block list",
        "550 5.7.133 Authentication required; the sender was not authenticated when sending to this group",
        "550 5.7.1 You are not allowed to post to this mailing list",
        "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages",
        "550 5.7.1 This user does not accept mail from your domain",
        "550 5.1.1 User unknown in relay recipient table",
        "550 5.7.124 Sender not in allowed-senders list of the group",
    ]

    def rcpt(path):
        number = int(path[1:].partition("@")[0])
        return lines[number % 10] if number <= 20 else None

    async with ScriptedRelay(rcpt=rcpt) as relay:
        ending = await run(relay).run()
    assert ending.error is None
    assert outbox.tally().by_status == {Status.ACCEPTED: 40, Status.REJECTED: 20}


@pytest.mark.parametrize(("number", "accepted"), [(12, 0), (60, 45)], ids=["short-list", "end-of-a-long-one"])
async def test_content_that_is_refused_to_the_end_trips_although_there_are_fewer_than_twenty(
    people, run, outbox, number, accepted
):
    people(number)
    count = []

    def end(path):
        count.append(path)
        return "550 5.7.1 This message looks like spam" if len(count) > accepted else None

    async with ScriptedRelay(end=end) as relay:
        ending = await run(relay, connections=1).run()
    assert "in a row were refused with the same words" in str(ending.error)
    assert outbox.tally().by_status == {
        Status.PENDING: number - accepted,
        **({Status.ACCEPTED: accepted} if accepted else {}),
    }


async def test_breaker_gives_back_in_the_transaction_of_the_outcome_that_trips(people, run, outbox):
    people(60)
    counts = []
    write = outbox.write

    def watch(entries):
        write(entries)
        counts.append(outbox.tally()[Status.REJECTED])

    outbox.write = watch
    async with ScriptedRelay(rcpt="550 5.7.1 Message looks like spam") as relay:
        ending = await run(relay).run()
    assert ending.error is not None
    peak = counts.index(max(counts))
    assert max(counts) < 20 and counts[peak + 1 :] and not any(counts[peak + 1 :])
