"""Stopping: what is under way is finished, nothing else begun; aborting names those it leaves in doubt."""

from __future__ import annotations

import ssl
from dataclasses import replace

import anyio
import pytest

from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.model.relay import Relay, Secret
from bulkmail.model.tally import Status
from bulkmail.smtp.credentials import Credentials
from bulkmail.testing import Hang, Late, ScriptedRelay
from tests.connections import Single


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


async def test_stop_before_the_first_session_leaves_all_pending(people, make_engine, outbox):
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


SILENCES = {
    "greeting": {"greeting": Hang()},
    "ehlo": {"ehlo": Hang()},
    "starttls": {"starttls": Hang(), "tls": ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)},
    "login": {"auth": {"ann": "secret"}, "login": Hang()},
}


@pytest.mark.parametrize("scripts", SILENCES.values(), ids=SILENCES)
async def test_stop_gives_up_an_opening_in_which_the_server_is_silent(people, make_engine, outbox, scripts):
    people(5)
    ann = Credentials("ann", Secret("secret")) if "auth" in scripts else None
    async with ScriptedRelay(**scripts) as relay:
        where = Relay.parse(f"smtp://localhost:{relay.port}?tls={'required' if 'tls' in scripts else 'off'}")
        engine = make_engine(lambda: Single.to(replace(where, plaintext_login=True), ann, tls_context=None))
        async with anyio.create_task_group() as group:
            group.start_soon(stop_when, engine, lambda: relay.sessions == 1)
            ending = await engine.run()
        with anyio.fail_after(5):
            while relay.open_sessions:
                await anyio.sleep(0.005)
    assert ending.was_stopped and ending.error is None
    assert outbox.tally().by_status == {Status.PENDING: 5}


async def test_stop_finishes_the_message_under_way_while_it_gives_up_an_opening(people, make_engine, outbox):
    people(40)
    async with ScriptedRelay(greeting=["220 hello", Hang()], end=lambda path: Late(0.2, "250 2.0.0 ok")) as relay:
        engine = make_engine(relay, connections=2)
        async with anyio.create_task_group() as group:
            group.start_soon(stop_when, engine, lambda: relay.sessions == 2 and "." in relay.commands)
            ending = await engine.run()
        tally = outbox.tally()
    assert ending.was_stopped
    assert tally[Status.ACCEPTED] == len(relay.messages) > 0
    assert tally[Status.IN_DOUBT] == 0


async def test_stop_lets_an_idle_session_say_goodbye(people, make_engine, outbox):
    people(5)
    pace = Pace(rate=Rate.parse("1 per 30s"))
    async with ScriptedRelay() as relay:
        engine = make_engine(relay, pace=pace)
        async with anyio.create_task_group() as group:
            group.start_soon(stop_when, engine, lambda: len(relay.messages) == 1)
            await engine.run()
    assert relay.commands.count("QUIT") == relay.sessions


async def test_quota_is_settled_although_the_last_results_cannot_be_told(people, make_engine, monkeypatch):
    """A program that raises when it is told must not cost the account what was granted and not spent."""
    people(2)
    settled = []

    def tell_no_one() -> None:
        raise LookupError("the program's own")

    async def settle() -> None:
        settled.append("account")

    async with ScriptedRelay() as relay:
        engine = make_engine(relay)
        monkeypatch.setattr(engine._run.telling, "flush", tell_no_one)
        monkeypatch.setattr(type(engine._run.relays[0].account), "settle", lambda account: settle())
        with pytest.raises(LookupError):
            await engine.run()
    assert settled == ["account"]
