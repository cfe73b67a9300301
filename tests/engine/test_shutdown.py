"""Stopping: what is under way is finished, nothing else begun; aborting names those it leaves in doubt."""

from __future__ import annotations

import anyio

from bulkmail.model.delivery import Status
from bulkmail.testing import Hang, Late, ScriptedRelay


async def test_stop_finishes_what_is_under_way_and_begins_nothing(people, make_engine, outbox):
    people(100)
    async with ScriptedRelay(end=lambda path: Late(0.1, "250 2.0.0 ok")) as relay:
        engine = make_engine(relay, connections=3)
        async with anyio.create_task_group() as group:
            group.start_soon(stop_when, engine, lambda: relay.open_sessions == 3 and len(relay.messages) >= 3)
            ending = await engine.run()
        tally = outbox.tally()
    assert ending.was_stopped
    assert tally[Status.ACCEPTED] == len(relay.messages) <= 9
    assert tally[Status.IN_DOUBT] == 0
    assert sum(command == "QUIT" for command in relay.commands) == 3


async def stop_when(engine, condition):
    while not condition():
        await anyio.sleep(0.005)
    engine.stop()


async def abort_when(engine, condition):
    async with anyio.create_task_group() as group:
        group.start_soon(engine.run)
        while not condition():
            await anyio.sleep(0.005)
        group.cancel_scope.cancel()


async def test_stop_before_the_first_session_leaves_everybody_pending(people, make_engine, outbox):
    people(5)
    async with ScriptedRelay() as relay:
        engine = make_engine(relay)
        engine.stop()
        ending = await engine.run()
    assert ending.was_stopped
    assert relay.sessions == 0
    assert outbox.tally().by_status == {Status.PENDING: 5}


async def test_abort_before_the_end_leaves_the_row_pending(people, make_engine, outbox):
    people(3)
    async with ScriptedRelay(data=Hang()) as relay:
        await abort_when(make_engine(relay, connections=1), lambda: "DATA" in relay.commands)
    assert outbox.tally().by_status == {Status.PENDING: 3}
    assert relay.messages == []


async def test_abort_after_the_end_puts_exactly_those_in_doubt(people, make_engine, outbox):
    people(10)
    async with ScriptedRelay(end=["250 ok"] * 4 + [Hang(keeps=True)] * 9) as relay:
        engine = make_engine(relay, connections=2)
        await abort_when(engine, lambda: len(relay.messages) == 6 and outbox.tally()[Status.ACCEPTED] == 4)
    tally = outbox.tally()
    assert tally[Status.ACCEPTED] == 4
    assert tally[Status.IN_DOUBT] == 2
    assert tally[Status.PENDING] == 4
