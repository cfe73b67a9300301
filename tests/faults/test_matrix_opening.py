"""The fault matrix, F01 to F13: what goes wrong before the first message."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from bulkmail.model.errors import RelayError
from bulkmail.model.outcome import Breakage, Fault, Stage
from bulkmail.model.relay import Relay, Secret
from bulkmail.model.tally import Status
from bulkmail.smtp.credentials import Credentials
from bulkmail.smtp.opening import Timeouts
from bulkmail.smtp.replies import SessionRefused
from bulkmail.testing import Drop, Hang, ScriptedRelay
from tests.connections import Single
from tests.faults.quick import FastClock, sessions

KINDS = [Breakage.REFUSED, Breakage.UNREACHABLE, Breakage.NO_SUCH_HOST, Breakage.TIMEOUT]


def reached(relay):
    return sorted(path for message in relay.messages for path in message.forward_paths)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())
async def test_f01_f02_relay_that_is_not_there_for_half_a_minute_gets_everything(people, make_engine, outbox, kind):
    """The connection ends in the middle, and no other is to be had: neither host nor name answers."""
    addresses, clock, opened = people(40), FastClock(100), []
    async with ScriptedRelay(data=[None, None, Drop()]) as relay:
        connect = sessions(relay)

        async def sometimes():
            opened.append(clock.monotonic())
            if len(opened) > 1 and clock.monotonic() < opened[0] + 30:
                raise SessionRefused(Fault(Stage.CONNECT, kind, "no one there"))
            return await connect()

        ending = await make_engine(sometimes, clock=clock).run()
    assert ending.error is None
    assert reached(relay) == sorted(addresses)
    assert outbox.tally().by_status == {Status.ACCEPTED: 40}
    assert len(opened) < 30, "it was pestered"


async def test_f04_server_that_does_not_greet_is_left_and_tried_again(people, make_engine, outbox):
    people(10)
    async with ScriptedRelay(greeting=[Hang(), Drop()]) as relay:
        await make_engine(sessions(relay, greeting=0.1), clock=FastClock(20)).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 10}


@pytest.mark.parametrize("greeting", ["554 5.7.1 go away", "521 no mail here"])
async def test_f05_greeting_that_refuses_stops_the_run_and_rejects_no_recipient(people, make_engine, outbox, greeting):
    people(50)
    async with ScriptedRelay(greeting=greeting) as relay:
        ending = await make_engine(relay).run()
    assert isinstance(ending.error, RelayError)
    assert outbox.tally().by_status == {Status.PENDING: 50}
    assert relay.sessions <= 2


async def test_f05_greeting_421_is_waited_out(people, make_engine, outbox):
    people(10)
    async with ScriptedRelay(greeting=["421 4.3.2 shutting down", "421 4.3.2 shutting down"]) as relay:
        await make_engine(relay, clock=FastClock(50)).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 10}


@pytest.mark.parametrize("does", ["stalls", "resets"])
async def test_f10_handshake_that_does_not_come_off_is_the_servers_fault(does):
    async def serve(reader, writer):
        if does == "resets":
            await reader.read(10)
            writer.transport.abort()
            return
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with anyio.fail_after(5), pytest.raises(SessionRefused) as refused:
        relay = Relay.parse(f"smtps://127.0.0.1:{port}")
        await Single.to(relay, None, tls_context=None, timeouts=Timeouts(connect=0.3, greeting=0.3))
    server.close()
    await asyncio.sleep(0.01)  # until the server has seen that we are gone
    assert isinstance(refused.value.event, Fault)
    assert refused.value.event.kind in (Breakage.TIMEOUT, Breakage.LOST), refused.value.event


def logins(relay):
    parsed = Relay.parse(f"smtp://me@{relay.host}:{relay.port}?tls=off&auth=plaintext")

    async def connect():
        return await Single.to(parsed, Credentials("me", Secret("right")), tls_context=None)

    return connect


async def test_f12_login_that_is_deferred_is_tried_again(people, make_engine, outbox):
    people(10)
    async with ScriptedRelay(auth={"me": "right"}, login=["454 4.7.0 directory is down"]) as relay:
        await make_engine(logins(relay), clock=FastClock(50)).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 10}
    assert relay.auth_attempts >= 2


async def test_f13_second_login_that_is_refused_stops_the_run_and_rejects_no_recipient(people, make_engine, outbox):
    people(200)
    async with ScriptedRelay(auth={"me": "right"}, login=[None, *["535 5.7.8 no more"] * 20]) as relay:
        ending = await make_engine(logins(relay), connections=4).run()
    assert isinstance(ending.error, RelayError)
    tally = outbox.tally()
    assert tally[Status.ACCEPTED] == len(relay.messages)
    assert tally[Status.ACCEPTED] + tally[Status.PENDING] == 200
    assert relay.auth_attempts == 2
