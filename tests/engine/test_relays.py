"""Several relays: who takes what, who stands in for whom, and that no one is forgotten or written to twice."""

from __future__ import annotations

import asyncio
from collections import Counter

import anyio
import pytest

from bulkmail.engine.contracts import Notice, Outlet, Plan
from bulkmail.engine.engine import Engine
from bulkmail.model.errors import RelayError
from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.model.relay import Relay
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.route import Route
from bulkmail.model.tally import Status
from bulkmail.outbox.sending import OutboxStore
from bulkmail.testing import Drop, Hang, Late, ManualClock, ScriptedRelay
from tests.connections import Single, results_of
from tests.engine.conftest import compose

SOON = Pace(retry=RetryPolicy(schedule=(0.05, 0.05, 0.05)))


def outlet(server, name, **more):
    """A way to `server`, which may be down or not there at all."""
    relay = Relay.parse(f"smtp://{server.host}:{server.port}?tls=off&connections={more.pop('connections', 2)}")

    async def connect():
        return await Single.to(relay, None, tls_context=None)

    return Outlet(Route(relay, name, **more), connect)


@pytest.fixture
def make_run(outbox, events):
    def make(*outlets, **more):
        plan = Plan(OutboxStore(outbox), compose, list(outlets), observe=events.append, **{"pace": SOON, **more})
        return Engine(plan)

    return make


def paths_of(*relays):
    return sorted(path for relay in relays for message in relay.messages for path in message.forward_paths)


def relay_of(events):
    """Address → the relay of its last try."""
    return {e.delivery.forward_path: e.attempt.relay for e in results_of(events)}


def notices(events):
    return [event.text for event in events if isinstance(event, Notice)]


@pytest.mark.slow
async def test_equal_relays_take_shares_of_their_weight(people, make_run, outbox, events):
    addresses = people(800)
    async with ScriptedRelay() as one, ScriptedRelay() as other:
        ending = await make_run(outlet(one, "one", weight=3), outlet(other, "other")).run()
    assert ending.error is None
    assert paths_of(one, other) == sorted(addresses)
    assert len(one.messages) == pytest.approx(600, abs=30)
    got = {path: name for relay, name in ((one, "one"), (other, "other")) for path in paths_of(relay)}
    assert relay_of(events) == got
    assert outbox.tally().by_status == {Status.ACCEPTED: 800}


@pytest.mark.slow
async def test_slow_relay_does_not_hold_up_the_other_for_long(people, make_run, outbox):
    """The share of one that gets nowhere is not waited for for ever."""
    people(300)
    async with ScriptedRelay() as quick, ScriptedRelay(mail=Hang()) as stuck:
        clock = ManualClock()
        async with anyio.create_task_group() as group:
            engine = make_run(outlet(quick, "quick", weight=1), outlet(stuck, "stuck"), clock=clock, pace=Pace(wait=0))
            group.start_soon(engine.run)
            await until(lambda: len(quick.messages) >= 10)
            for _ in range(15):
                clock.advance(1)
                await anyio.sleep(0.01)
            with anyio.fail_after(30):
                await until(lambda: len(quick.messages) == 299)
            group.cancel_scope.cancel()
    assert outbox.tally()[Status.ACCEPTED] == 299


async def until(condition):
    while not condition():
        await anyio.sleep(0.002)


@pytest.mark.slow
async def test_relay_of_lower_priority_gets_nothing_while_the_better_one_takes_all(people, make_run):
    people(300)
    async with ScriptedRelay(end=lambda path: Late(0.001, "250 ok")) as best, ScriptedRelay() as spare:
        await make_run(outlet(spare, "spare", priority=2), outlet(best, "best", priority=1)).run()
    assert len(best.messages) == 300
    assert spare.sessions == 0


@pytest.mark.slow
async def test_relay_that_dies_in_the_middle_drains_to_the_spare(people, make_run, outbox, events):
    addresses = people(400)
    async with ScriptedRelay() as best, ScriptedRelay() as spare:
        engine = make_run(outlet(best, "best"), outlet(spare, "spare", priority=2))
        async with anyio.create_task_group() as group:
            group.start_soon(stop_after, best, 100)
            with anyio.fail_after(15):
                ending = await engine.run()
            group.cancel_scope.cancel()
    assert ending.error is None
    tally = outbox.tally()
    assert tally[Status.ACCEPTED] + tally[Status.IN_DOUBT] == 400
    assert max(Counter(paths_of(best, spare)).values()) == 1
    assert set(paths_of(best, spare)) <= set(addresses)
    assert len(spare.messages) >= 200
    assert any(text.startswith("best fails") for text in notices(events))


async def stop_after(relay, number):
    await until(lambda: len(relay.messages) >= number)
    await relay.stop()


@pytest.mark.slow
async def test_relay_that_comes_back_is_used_again(people, make_run, outbox, events):
    people(600)
    refused = []

    def greeting(path):
        refused.append(1)
        return "421 4.3.2 not now" if len(refused) <= 2 else None

    def slowly(path):
        return None if best.messages else Late(0.1, "250 ok")  # until then there is enough left to do

    async with ScriptedRelay(greeting=greeting) as best, ScriptedRelay(end=slowly) as spare:
        await make_run(outlet(best, "best"), outlet(spare, "spare", priority=2)).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 600}
    assert best.messages
    assert spare.messages
    assert notices(events)[-1] == "best takes mail again"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param({"mail": "550 5.7.1 not you"}, id="sender-refused"),
        pytest.param({"mail": "530 5.7.0 authentication required"}, id="login-wanted"),
        pytest.param({"greeting": "554 5.7.1 go away"}, id="connection-refused-for-good"),
    ],
)
async def test_relay_with_a_fault_of_its_own_is_left_out_and_the_other_goes_on(
    people, make_run, outbox, events, script
):
    addresses = people(50)
    async with ScriptedRelay(**script) as bad, ScriptedRelay() as good:
        with anyio.fail_after(10):
            ending = await make_run(outlet(bad, "bad"), outlet(good, "good")).run()
    assert ending.error is None
    assert paths_of(good) == sorted(addresses)
    assert outbox.tally().by_status == {Status.ACCEPTED: 50}
    (text,) = notices(events)
    assert text.startswith("bad is not used any more in this run, the other relays continue: ")


async def test_run_ends_when_no_relay_is_left(people, make_run, outbox):
    people(50)
    async with ScriptedRelay(mail="550 5.7.1 not you") as one, ScriptedRelay(mail="550 5.7.1 nor you") as other:
        with anyio.fail_after(10):
            ending = await make_run(outlet(one, "one"), outlet(other, "other", priority=2)).run()
    assert isinstance(ending.error, RelayError)
    assert str(ending.error).startswith(
        "Sending stopped; no recipients were lost: other refused the sender: 550 5.7.1 nor you"
    )
    assert outbox.tally().by_status == {Status.PENDING: 50}


async def test_run_ends_at_once_when_no_one_answers_anywhere(people, make_run, outbox):
    people(5)
    async with ScriptedRelay() as one, ScriptedRelay() as other:
        pass
    with anyio.fail_after(5):
        ending = await make_run(outlet(one, "one"), outlet(other, "other")).run()
    assert isinstance(ending.error, RelayError)
    assert outbox.tally().by_status == {Status.PENDING: 5}


async def test_row_in_doubt_at_one_relay_never_goes_to_the_other(people, make_run, outbox):
    people(40)
    async with ScriptedRelay(end=[Drop(keeps=True), Drop(keeps=True)]) as one, ScriptedRelay() as other:
        await make_run(outlet(one, "one"), outlet(other, "other")).run()
    tally = outbox.tally()
    assert tally[Status.IN_DOUBT] >= 1
    assert tally[Status.ACCEPTED] == 40 - tally[Status.IN_DOUBT]
    assert Counter(Counter(paths_of(one, other)).values()) == {1: 40}


async def test_recipient_that_is_deferred_keeps_its_schedule_whatever_relay_comes_next(people, make_run, outbox):
    people(20)
    patient = Pace(retry=RetryPolicy(schedule=(3600.0,)), wait=1.0)
    busy = "450 4.2.1 busy"
    async with ScriptedRelay(rcpt=busy) as one, ScriptedRelay(rcpt=busy) as other:
        await make_run(outlet(one, "one"), outlet(other, "other"), pace=patient).run()
    tries = sum(command.startswith("RCPT") for relay in (one, other) for command in relay.commands)
    assert tries == 20
    assert outbox.tally().by_status == {Status.DEFERRED: 20}


async def test_providers_go_only_through_the_relays_that_serve_them(people, make_run, outbox):
    people(90)
    outbox.sort_into_queues(lambda path, recipient, reverse: int(path[1:].partition("@")[0]) % 3, reads_rows=False)
    async with ScriptedRelay() as one, ScriptedRelay() as other:
        serving = {0: (0,), 1: (1,), 2: (0, 1)}
        await make_run(outlet(one, "one"), outlet(other, "other"), serving=serving).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 90}
    assert {int(path[1:].partition("@")[0]) % 3 for path in paths_of(one)} <= {0, 2}
    assert {int(path[1:].partition("@")[0]) % 3 for path in paths_of(other)} <= {1, 2}


async def test_rows_of_a_relay_that_is_left_out_stay_as_they_are_and_stop_the_run_at_its_end(people, make_run, outbox):
    people(90)
    outbox.sort_into_queues(lambda path, recipient, reverse: int(path[1:].partition("@")[0]) % 2, reads_rows=False)
    async with ScriptedRelay(mail="550 5.7.1 not you") as bad, ScriptedRelay() as good:
        with anyio.fail_after(10):
            ending = await make_run(outlet(bad, "bad"), outlet(good, "good"), serving={0: (0,), 1: (1,)}).run()
    assert isinstance(ending.error, RelayError)
    assert "bad refused the sender" in str(ending.error)
    assert outbox.tally().by_status == {Status.ACCEPTED: 45, Status.PENDING: 45}


@pytest.mark.slow
async def test_rates_of_campaign_and_relay_both_hold(people, make_run, outbox):
    people(120)
    clock = ManualClock()
    times = {"slow": [], "quick": []}

    def note(name):
        return lambda path: times[name].append(clock.now())

    async with ScriptedRelay(mail=note("slow")) as slow, ScriptedRelay(mail=note("quick")) as quick:
        engine = make_run(
            outlet(slow, "slow", rate=Rate(2.0)),
            outlet(quick, "quick"),
            pace=Pace(rate=Rate(10.0)),
            clock=clock,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(engine.run)
            while outbox.tally()[Status.ACCEPTED] < 120:
                clock.advance(0.05)
                await anyio.sleep(0.002)
            group.cancel_scope.cancel()
    assert most_in(times["slow"], 1.0) <= 3
    assert most_in(times["slow"] + times["quick"], 1.0) <= 11 + 1  # the server reads a step later than we write
    assert len(times["slow"]) >= 10
    assert clock.now() < 14


def most_in(times, seconds):
    return max((sum(begin <= t < begin + seconds for t in times) for begin in times), default=0)


async def test_better_relay_that_is_full_for_long_is_helped_out(people, make_run, outbox):
    people(60)
    clock = ManualClock()
    async with ScriptedRelay() as best, ScriptedRelay() as spare:
        engine = make_run(outlet(best, "best", rate=Rate(1 / 60)), outlet(spare, "spare", priority=2), clock=clock)
        async with anyio.create_task_group() as group:
            group.start_soon(engine.run)
            while outbox.tally()[Status.ACCEPTED] < 60:
                clock.advance(0.5)
                await anyio.sleep(0.002)
            group.cancel_scope.cancel()
    assert 1 <= len(best.messages) <= 3
    assert len(spare.messages) + len(best.messages) == 60
    assert clock.now() < 120


@pytest.mark.slow
async def test_session_limits_of_a_relay_are_its_own(people, make_run):
    people(100)
    async with ScriptedRelay() as short, ScriptedRelay() as long:
        await make_run(
            outlet(short, "short", connections=1, messages_per_session=5), outlet(long, "long", connections=1)
        ).run()
    assert short.sessions >= len(short.messages) / 5
    assert long.sessions == 1


async def test_stop_ends_all_relays(people, make_run, outbox):
    people(500)
    async with (
        ScriptedRelay(end=lambda path: Late(0.05, "250 ok")) as one,
        ScriptedRelay(end=lambda path: Late(0.05, "250 ok")) as other,
    ):
        engine = make_run(outlet(one, "one"), outlet(other, "other"))
        task = asyncio.ensure_future(engine.run())
        await until(lambda: one.messages and other.messages)
        engine.stop()
        ending = await task
    assert ending.was_stopped
    tally = outbox.tally()
    assert tally[Status.ACCEPTED] == len(one.messages) + len(other.messages)
    assert tally[Status.IN_DOUBT] == 0


async def test_relay_that_alone_takes_some_mail_is_given_up_when_patience_ends(people, make_run, outbox, events):
    people(60)
    outbox.sort_into_queues(lambda path, recipient, reverse: int(path[1:].partition("@")[0]) % 2, reads_rows=False)
    async with ScriptedRelay() as dying, ScriptedRelay() as good:
        engine = make_run(
            outlet(dying, "dying", connections=1), outlet(good, "good"), serving={0: (0,), 1: (1,)},
            pace=Pace(patience=0.4, retry=SOON.retry),
        )  # fmt: skip
        async with anyio.create_task_group() as group:
            group.start_soon(stop_after, dying, 3)
            with anyio.fail_after(15):
                ending = await engine.run()
            group.cancel_scope.cancel()
    tally = outbox.tally()
    assert isinstance(ending.error, RelayError)
    assert "this has lasted for 0.4 s" in str(ending.error)
    assert len(good.messages) == 30
    assert tally.open == 60 - tally[Status.ACCEPTED] - tally[Status.IN_DOUBT] > 0
    assert any(text.startswith("dying is not used any more in this run") for text in notices(events))


@pytest.mark.slow
async def test_slow_provider_does_not_delay_the_others(people, make_run, outbox):
    """What is due in a queue whose only relay hardly moves stays where it is, and the rest goes past it."""
    people(300)
    outbox.sort_into_queues(lambda path, recipient, reverse: int(path[1:].partition("@")[0]) % 2, reads_rows=False)
    async with ScriptedRelay() as slow, ScriptedRelay() as quick:
        engine = make_run(
            outlet(slow, "slow", rate=Rate(1 / 3600)), outlet(quick, "quick"), serving={0: (0,), 1: (1, 0)}
        )
        task = asyncio.ensure_future(engine.run())
        with anyio.fail_after(10):
            await until(lambda: len(quick.messages) >= 149)
        engine.stop()
        await task
    assert len(slow.messages) == 1
