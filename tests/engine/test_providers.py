"""Providers behind one relay: what one of them complains of is its own affair; and when to stop before it is worse."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest

from bulkmail.engine.contracts import Notice, Slowed
from bulkmail.model.breaker import BreakerLimits
from bulkmail.model.outcome import Scope, throttle
from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.model.route import MailboxProvider, MailboxProviders, ProviderLimits
from bulkmail.model.shaper import Feedback
from bulkmail.model.tally import Status
from bulkmail.model.verdict import Rule
from bulkmail.outbox.outbox import Entry
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.settings.presets import known_feedback, known_providers
from bulkmail.testing import Late, ScriptedRelay

PROVIDERS, FEEDBACK = known_providers(), known_feedback()
DOMAINS = ("gmail.com", "outlook.com", "yahoo.com", "gmx.de")
BUSY = "451 4.7.28 our system has detected an unusual rate of mail"


@pytest.fixture
def mixed(outbox):
    """This many people at each of the domains, taking turns; says which queue of the outbox is whose."""

    def add(number, *domains):
        addresses = [f"p{n}@{domain}" for n in range(number) for domain in domains]
        outbox.record(
            Entry(Recipient(Address.parse(address), "", {}, Place("people.csv", line)))
            for line, address in enumerate(addresses, 2)
        )
        outbox.finish_loading()
        names = ["", *dict.fromkeys(name for name in map(PROVIDERS.of, domains) if name in PROVIDERS.by_name)]

        def queue_of(path, recipient, reverse_path):
            name = PROVIDERS.of(path.rpartition("@")[2])
            return names.index(name) if name in names else 0

        outbox.sort_into_queues(queue_of, reads_rows=False)
        return {number: name for number, name in enumerate(names) if name}

    return add


@pytest.fixture
def run(make_engine):
    """An engine that knows providers and their replies."""

    def make(relay, providers, **more):
        serving = dict.fromkeys([0, *providers], (0,))
        more = {"mailbox_providers": PROVIDERS, "feedback": FEEDBACK, "pace": Pace(wait=0), **more}
        return make_engine(relay, serving=serving, providers=providers, **more)

    return make


def accepted(outbox, domain):
    rows = [row for row in OutboxReader.over(outbox).rows() if row.address.endswith(f"@{domain}")]
    return sum(row.status is Status.ACCEPTED for row in rows)


@pytest.mark.slow
async def test_provider_that_is_suspended_does_not_delay_the_others(mixed, run, outbox, events):
    providers = mixed(60, *DOMAINS)
    asked = Counter()

    def rcpt(path):
        asked[path.rpartition("@")[2]] += 1
        return BUSY if path.endswith("@gmail.com") else None

    begun = time.time()
    async with ScriptedRelay(rcpt=rcpt) as relay:
        ending = await run(relay, providers).run()  # which waits for nothing
    assert ending.error is None
    assert [accepted(outbox, domain) for domain in DOMAINS] == [0, 60, 60, 60]
    assert asked["gmail.com"] <= 6  # those under way on three sessions when it complained
    assert outbox.tally()[Status.REJECTED] == 0
    (notice,) = [event.text for event in events if isinstance(event, Notice)]
    assert re.match(r"google is paused for 10 min.*unusual rate of mail", notice)
    shown = [event.slowdown for event in events if isinstance(event, Slowed)]
    assert [each.times for each in shown] == list(range(1, asked["gmail.com"] + 1))
    assert shown[-1].provider == "google" and shown[-1].words == BUSY
    assert begun <= shown[-1].until - 600 <= time.time()


async def test_provider_that_complains_again_after_its_rest_pauses_longer(mixed, run, outbox, events):
    providers = mixed(3, "gmail.com")

    def rcpt(path):
        return "451 4.3.2 rest a while" if not slowdowns or slowdowns[-1].times < 3 else None

    slowdowns = []
    short = Feedback((Rule(("451",), throttle(Scope.PROVIDER, label="resting", suspend=0.1)),))

    def observe(event):
        if isinstance(event, Slowed):
            slowdowns.append(event.slowdown)

    async with ScriptedRelay(rcpt=rcpt) as relay:
        with anyio.fail_after(15):
            await run(relay, providers, feedback=short, pace=Pace(wait=60), connections=1, observe=observe).run()
    rests = [each.until - each.at for each in slowdowns]
    assert rests == pytest.approx([0.1, 0.25, 0.5], rel=0.3)
    assert outbox.tally().by_status == {Status.ACCEPTED: 3}


@pytest.mark.slow
async def test_sessions_that_come_back_are_shown(people, run, outbox, events):
    people(450)
    asked = []

    def end(path):
        asked.append(path)
        return "451 4.3.2 server busy" if len(asked) == 300 else None

    async with ScriptedRelay(end=end) as relay:
        await run(relay, {}, connections=2, pace=Pace(wait=60)).run()
    shown = [(event.slowdown.provider, event.slowdown.connections) for event in events if isinstance(event, Slowed)]
    assert shown == [("", 1), ("", None)]
    assert outbox.tally().by_status == {Status.ACCEPTED: 450}


@pytest.mark.slow
async def test_domain_that_is_no_ones_is_held_alone_too(mixed, run, outbox):
    providers = mixed(60, "one.example", "two.example")

    def rcpt(path):
        return BUSY if path.endswith("@one.example") else None

    async with ScriptedRelay(rcpt=rcpt) as relay:
        await run(relay, providers).run()
    assert accepted(outbox, "two.example") == 60
    assert accepted(outbox, "one.example") == 0


@pytest.mark.slow
async def test_provider_goes_on_when_its_rest_is_over(mixed, run, outbox):
    providers = mixed(5, "gmail.com", "gmx.de")
    asked = Counter()

    def rcpt(path):
        asked[path] += 1
        return "451 4.3.2 rest a while" if asked[path] < 2 else None

    short = Feedback((Rule(("451",), throttle(Scope.PROVIDER, label="resting", suspend=0.3)),))
    async with ScriptedRelay(rcpt=rcpt) as relay:
        with anyio.fail_after(15):
            await run(relay, providers, feedback=short, pace=Pace(wait=60)).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 10}


@pytest.mark.slow
async def test_rate_of_a_provider_is_kept_and_the_others_are_faster(mixed, run, outbox):
    providers = mixed(20, "gmail.com", "gmx.de", "small.example")
    known = PROVIDERS.with_provider(_limited("google", Rate(20.0)))
    times = {}

    def end(path):
        times[path] = time.monotonic()

    async with ScriptedRelay(rcpt=end) as relay:
        begun = time.monotonic()
        await run(relay, providers, mailbox_providers=known, pace=Pace(wait=60)).run()
    google = sorted(at for path, at in times.items() if path.endswith("@gmail.com"))
    assert all(later - earlier >= 0.9 for earlier, later in zip(google, google[19:], strict=False))
    assert max(at for path, at in times.items() if not path.endswith("@gmail.com")) - begun < google[-1] - begun
    assert outbox.tally().by_status == {Status.ACCEPTED: 60}


def _limited(name, rate=None, connections=None, messages=None):
    return MailboxProvider(name, limits=ProviderLimits(rate, connections, messages))


@pytest.mark.slow
async def test_rate_of_a_provider_is_waited_for_by_a_run_that_waits_for_nothing_else(mixed, run, outbox):
    providers = mixed(3, "gmail.com", "small.example")
    known = replace(PROVIDERS.with_provider(_limited("google", Rate(0.7))), other=ProviderLimits(Rate(0.8)))
    async with ScriptedRelay() as relay:
        ending = await run(relay, providers, mailbox_providers=known, pace=Pace(wait=0)).run()
    assert ending.error is None
    assert outbox.tally().by_status == {Status.ACCEPTED: 6}


async def test_provider_gets_no_more_sessions_than_it_may_have(mixed, run, outbox):
    providers = mixed(12, "gmail.com", "gmx.de")
    known = PROVIDERS.with_provider(_limited("google", connections=1))
    busy, most = 0, 0

    async def watch(relay):
        nonlocal most
        while True:
            most = max(most, busy)
            await anyio.sleep(0.001)

    def end(path):
        return Late(0.02, "250 ok") if path.endswith("@gmail.com") else None

    def rcpt(path):
        nonlocal busy
        busy += path.endswith("@gmail.com")

    async with ScriptedRelay(rcpt=rcpt, end=end) as relay, anyio.create_task_group() as group:
        group.start_soon(watch, relay)
        begun = time.monotonic()
        await run(relay, providers, mailbox_providers=known, pace=Pace(wait=60)).run()
        group.cancel_scope.cancel()
    assert time.monotonic() - begun >= 12 * 0.02  # one after the other
    assert outbox.tally().by_status == {Status.ACCEPTED: 24}


async def test_session_carries_no_more_messages_of_a_provider_than_it_may(mixed, run, outbox):
    providers = mixed(10, "gmail.com")
    known = PROVIDERS.with_provider(_limited("google", messages=2))
    async with ScriptedRelay() as relay:
        await run(relay, providers, mailbox_providers=known, pace=Pace(wait=60)).run()
    assert relay.sessions >= 5
    assert outbox.tally().by_status == {Status.ACCEPTED: 10}


@pytest.mark.slow
async def test_server_that_throttles_is_met_at_its_own_speed(people, run, outbox):
    """Forty a second, and not one more: no one is lost, and few are asked in vain."""
    people(200)
    taken, refused = [], []

    def end(path):
        now = time.monotonic()
        if len([at for at in taken if at > now - 1]) >= 40:
            refused.append(now)
            return "454 4.7.0 Throttling failure: Maximum sending rate exceeded."
        taken.append(now)
        return None

    async with ScriptedRelay(end=end) as relay:
        with anyio.fail_after(18):
            ending = await run(relay, {}, pace=Pace(wait=60)).run()
    assert ending.error is None
    assert outbox.tally().by_status == {Status.ACCEPTED: 200}
    assert len([at for at in refused if at > taken[0] + 2]) <= 8  # the limit is found twice, by four each
    assert taken[-1] - taken[0] < 200 / 40 * 1.6


@pytest.mark.slow
async def test_server_that_throttles_is_waited_for_by_a_run_that_waits_for_nothing_else(people, run, outbox):
    people(60)
    asked = []

    def end(path):
        asked.append(path)
        return "454 4.7.0 Throttling failure: Maximum sending rate exceeded." if len(asked) == 30 else None

    async with ScriptedRelay(end=end) as relay:
        ending = await run(relay, {}, connections=1, pace=Pace(wait=0)).run()
    assert ending.error is None
    assert outbox.tally().by_status == {Status.ACCEPTED: 60}


@pytest.mark.slow
async def test_server_with_few_sessions_gets_few(people, run, outbox):
    people(100)
    open_now = Counter()

    def greeting(path):
        return "421 4.7.0 Too many connections" if open_now["sessions"] >= 2 else None

    async with ScriptedRelay(greeting=greeting, end=lambda path: Late(0.005, "250 ok")) as relay:

        async def count():
            while True:
                open_now["sessions"] = relay.open_sessions
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(count)
            ending = await run(relay, {}, connections=8, pace=Pace(wait=60)).run()
            group.cancel_scope.cancel()
    assert ending.error is None
    assert outbox.tally().by_status == {Status.ACCEPTED: 100}


async def test_policy_that_refuses_all_stops_the_run_and_rejects_no_recipient(people, run, outbox):
    people(300)
    asked = []

    def end(path):
        asked.append(path)
        return "550 5.7.1 Message looks like spam"

    async with ScriptedRelay(end=end) as relay:
        ending = await run(relay, {}).run()
    assert "refused with the same words" in str(ending.error)
    assert len(asked) <= 20 + 3  # and those under way
    assert outbox.tally().by_status == {Status.PENDING: 300}


@pytest.mark.slow
async def test_list_of_unknown_users_stops_the_run(people, run, outbox):
    people(400)

    def rcpt(path):
        return "550 5.1.1 no such user" if int(path[1:].partition("@")[0]) % 4 == 0 else None

    async with ScriptedRelay(rcpt=rcpt) as relay:
        ending = await run(relay, {}, pace=Pace(wait=0, breakers=BreakerLimits(unknown_after=100))).run()
    assert "do not exist" in str(ending.error)
    tally = outbox.tally()
    assert 90 <= tally[Status.ACCEPTED] + tally[Status.REJECTED] <= 110
    assert tally[Status.PENDING] >= 290


def test_presets_hold_only_before_the_provider_itself():
    known = MailboxProviders(PROVIDERS.by_name)
    assert known.for_relay(host="smtp.gmail.com", port=587).limits("google") == ProviderLimits()
    assert known.for_relay(host="gmail-smtp-in.l.google.com", port=25).limits("google").rate is not None
