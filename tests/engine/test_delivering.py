"""A run does for every row what its replies ask for."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from bulkmail.engine.contracts import ResultBatch
from bulkmail.model.errors import RelayError
from bulkmail.model.pace import Pace
from bulkmail.model.retry import OpeningBudget, RetryPolicy
from bulkmail.model.tally import Status
from bulkmail.testing import Drop, Hang, Late, Reset, ScriptedRelay
from tests.connections import results_of

SOON = Pace(retry=RetryPolicy(schedule=(0.05, 0.05, 0.05)))


def only_first(answer, matching):
    """A script that gives `answer` the first time each path that has `matching` in it comes."""
    seen = set()

    def script(path):
        if matching in path and path not in seen:
            seen.add(path)
            return answer
        return None

    return script


def paths_of(relay):
    return sorted(path for message in relay.messages for path in message.forward_paths)


@pytest.mark.slow
async def test_run_delivers_to_all_once(people, make_engine, outbox, events):
    addresses = people(200)
    async with ScriptedRelay() as relay:
        ending = await make_engine(relay).run()
    assert ending.error is None and not ending.was_stopped
    assert paths_of(relay) == sorted(addresses)
    assert outbox.tally().by_status == {Status.ACCEPTED: 200}
    assert len(results_of(events)) == 200
    assert relay.violations == []


@pytest.mark.slow
async def test_run_never_has_more_sessions_than_connections(people, make_engine):
    people(300)
    async with ScriptedRelay(end=lambda path: Late(0.005, "250 2.0.0 ok")) as relay:
        await make_engine(relay, connections=4).run()
    assert relay.peak_sessions == 4
    assert relay.sessions == 4


@pytest.mark.parametrize(("logs_in", "at_once"), [(True, [1, 1, 2, 4]), (False, [1, 3, 6])])
def test_sessions_open_gradually_and_faster_where_no_one_logs_in(logs_in, at_once):
    health = OpeningBudget(lambda: 10, patience=60, logs_in=logs_in)
    rounds = []
    while health.open < 8:
        while health.may_open(0.0):
            health.opening += 1
        rounds.append(health.opening)
        health.open, health.opening = health.open + health.opening, 0
    assert rounds == at_once


async def test_second_session_does_not_wait_for_the_first_message(people, make_engine):
    people(20)
    async with ScriptedRelay(mail=Hang()) as relay, anyio.create_task_group() as group:
        group.start_soon(make_engine(relay, connections=4).run)
        with anyio.fail_after(5):
            while relay.open_sessions < 4:
                await anyio.sleep(0.002)
        group.cancel_scope.cancel()


async def test_refused_recipients_are_rejected_and_keep_the_session(people, make_engine, outbox):
    people(30)
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if "7@" in path else None) as relay:
        await make_engine(relay, connections=1).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 27, Status.REJECTED: 3}
    assert relay.sessions == 1


async def test_greylisted_recipients_are_accepted_at_the_second_try(people, make_engine, outbox, events):
    people(10)
    async with ScriptedRelay(rcpt=only_first("450 4.7.1 greylisted", "@")) as relay:
        await make_engine(relay, pace=SOON).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 10}
    tries = {e.delivery.forward_path: e.delivery.tries for e in results_of(events)}
    assert set(tries.values()) == {2}


async def test_deferred_expires_when_the_schedule_is_used_up(people, make_engine, outbox):
    people(2)
    async with ScriptedRelay(rcpt=lambda path: "450 4.2.1 busy" if path.startswith("p1@") else None) as relay:
        await make_engine(relay, pace=SOON).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 1, Status.EXPIRED: 1}
    assert sum("RCPT TO:<p1@" in command for command in relay.commands) == 4


async def test_what_is_deferred_beyond_the_wait_is_left_to_the_next_run(people, make_engine, outbox):
    people(3)
    patient = Pace(retry=RetryPolicy(schedule=(3600.0,)), wait=1.0)
    async with ScriptedRelay(rcpt=only_first("450 4.2.1 busy", "p2@")) as relay:
        ending = await make_engine(relay, pace=patient).run()
    assert ending.error is None
    assert outbox.tally().by_status == {Status.ACCEPTED: 2, Status.DEFERRED: 1}


async def test_connection_lost_before_the_end_is_tried_again_and_sent_once(people, make_engine, outbox):
    addresses = people(20)
    async with ScriptedRelay(data=[None, Reset(), None, Drop()]) as relay:
        await make_engine(relay, pace=SOON).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 20}
    assert paths_of(relay) == sorted(addresses)


@pytest.mark.slow
async def test_no_answer_to_the_end_is_in_doubt_and_not_tried_again(people, make_engine, outbox):
    people(12)
    async with ScriptedRelay(end=[Drop(keeps=True), Drop()]) as relay:
        await make_engine(relay, pace=SOON).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 10, Status.IN_DOUBT: 2}
    assert len(relay.messages) == 11


async def test_session_that_the_server_closed_while_idle_costs_nothing(people, make_engine, outbox, events):
    """One message a session, closed without a word: the loss is found at MAIL, before anything left."""
    addresses = people(12)

    def closing(path):
        return "250 2.0.0 ok"

    async with ScriptedRelay(mail=only_second_of_session(), end=closing) as relay:
        await make_engine(relay, connections=1, pace=SOON).run()
    assert paths_of(relay) == sorted(addresses)
    assert all(event.delivery.tries == 1 for event in results_of(events))
    assert outbox.tally().by_status == {Status.ACCEPTED: 12}


def only_second_of_session():
    """Drops every second MAIL; with one connection that is the second of each session."""
    count = 0

    def script(path):
        nonlocal count
        count += 1
        return Drop() if count % 2 == 0 else None

    return script


async def test_421_in_the_middle_is_tried_again(people, make_engine, outbox):
    addresses = people(20)
    async with ScriptedRelay(mail=["250 ok", "421 4.3.2 back soon"]) as relay:
        await make_engine(relay, connections=1, pace=SOON).run()
    assert paths_of(relay) == sorted(addresses)
    assert outbox.tally().by_status == {Status.ACCEPTED: 20}


async def test_refused_sender_stops_the_run_and_leaves_all_pending(people, make_engine, outbox):
    people(100)
    async with ScriptedRelay(mail="550 5.7.1 not you") as relay:
        ending = await make_engine(relay).run()
    assert isinstance(ending.error, RelayError)
    assert "refused the sender: 550 5.7.1 not you" in str(ending.error)
    assert outbox.tally().by_status == {Status.PENDING: 100}
    assert sum(command.startswith("MAIL") for command in relay.commands) == 1


async def test_nothing_listening_stops_at_once(people, make_engine, outbox):
    people(5)
    async with ScriptedRelay() as relay:
        pass
    with anyio.fail_after(5):
        ending = await make_engine(relay).run()
    assert isinstance(ending.error, RelayError)
    assert f"127.0.0.1 port {relay.port}" in str(ending.error)
    assert outbox.tally().by_status == {Status.PENDING: 5}


async def test_relay_that_dies_for_good_stops_the_run_when_patience_ends(people, make_engine, outbox):
    people(10)
    async with ScriptedRelay(mail=["250 ok", "250 ok"]) as relay:

        async def die(event):
            pass

        engine = make_engine(relay, connections=1, pace=Pace(patience=0.5))
        async with anyio.create_task_group() as group:
            group.start_soon(stop_after, relay, 3)
            ending = await engine.run()
            group.cancel_scope.cancel()
    tally = outbox.tally()
    assert isinstance(ending.error, RelayError)
    assert tally.open and tally.adds_up
    assert tally[Status.REJECTED] == 0


async def stop_after(relay, number):
    while len(relay.messages) < number:
        await anyio.lowlevel.checkpoint()
    await relay.stop()


async def test_server_that_accepts_few_sessions_is_not_pressed(people, make_engine, outbox):
    people(60)

    async with ScriptedRelay() as relay:

        def greeting(path):
            return "421 4.3.2 too many connections" if relay.open_sessions > 2 else None

        relay_script(relay, "greeting", greeting)
        await make_engine(relay, connections=8, pace=SOON).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 60}


def relay_script(relay, step, script):
    """Sets a script that has to know the relay itself."""
    from bulkmail.testing.answers import Lines

    relay._part.scripts[step] = Lines(script)


async def test_limit_leaves_the_rest_pending(people, make_engine, outbox):
    people(30)
    async with ScriptedRelay() as relay:
        await make_engine(relay, pace=Pace(limit=7)).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 7, Status.PENDING: 23}
    assert len(relay.messages) == 7


async def test_wants_leaves_the_others_pending(people, make_engine, outbox):
    people(30)
    async with ScriptedRelay() as relay:
        await make_engine(relay, wants={17}).run()
    assert paths_of(relay) == ["p17@example.com"]
    assert outbox.tally().by_status == {Status.ACCEPTED: 1, Status.PENDING: 29}


async def test_sessions_are_renewed_after_that_many_messages(people, make_engine):
    people(50)
    async with ScriptedRelay() as relay:
        await make_engine(relay, connections=1, pace=Pace(messages_per_session=10)).run()
    assert relay.sessions == 5
    assert sum(command == "QUIT" for command in relay.commands) == 5


async def test_outcome_is_durable_before_it_is_reported(people, make_engine, outbox, events):
    people(40)
    reported = []

    def watch(event):
        for result in event.results if isinstance(event, ResultBatch) else ():
            reported.append(result.delivery.id)
            assert outbox.tally()[Status.ACCEPTED] >= len(reported)

    async with ScriptedRelay() as relay:
        engine = make_engine(relay)
        engine._run.telling._observe = watch
        await engine.run()
    assert len(reported) == 40


async def test_hanging_relay_does_not_keep_a_second_stop_waiting(people, make_engine, outbox):
    people(5)
    async with ScriptedRelay(end=Hang()) as relay, anyio.create_task_group() as group:
        group.start_soon(make_engine(relay, connections=2).run)
        while "." not in relay.commands:
            await anyio.sleep(0.005)
        group.cancel_scope.cancel()
    tally = outbox.tally()
    assert tally[Status.IN_DOUBT] in (1, 2)
    assert tally.adds_up
