from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from bulkmail.model.delivery import Message
from bulkmail.model.outcome import Breakage, Fault, Outcome, Reply, Stage
from bulkmail.model.verdict import judge
from bulkmail.testing import Drop, Hang, Reset, ScriptedRelay, Slow, Split
from bulkmail.testing.answers import Answer, Script
from tests.connections import Single

MakeMessage = Callable[..., Message]
SessionTo = Callable[..., AbstractAsyncContextManager[Single]]
Done = Callable[[BaseException | None], None]

BIG = (b"x" * 76 + b"\r\n") * 120_000  # 9 MB: more than the buffers of kernel and transport together


def scripted(step: str, script: Script) -> dict[str, Any]:
    return {step: script}


def at_once(done: Done) -> None:
    done(None)


async def test_session_delivers_what_it_is_given(make_message: MakeMessage, session_to: SessionTo) -> None:
    content = (b"Subject: dots\r\n\r\n", b".\r\n..\r\n", b".a\r\n", b"end\r\n")
    async with ScriptedRelay() as relay, session_to(relay) as session:
        event = await session.transact(make_message(*content), at_once)
        assert event == Reply(Stage.END, 250, "2.0.0", "queued as 1")
        assert session.reached_end
        await session.quit()
        assert not session.usable
    [taken] = relay.messages
    assert taken.content == b"".join(content)
    assert (taken.reverse_path, taken.forward_paths) == ("news@example.org", ("ann@example.com",))
    assert relay.commands[1:] == [
        f"MAIL FROM:<news@example.org> SIZE={len(taken.content)}",
        "RCPT TO:<ann@example.com>",
        "DATA",
        ".",
        "QUIT",
    ]
    assert relay.violations == []


async def test_session_carries_many_messages(make_message: MakeMessage, session_to: SessionTo) -> None:
    async with ScriptedRelay() as relay, session_to(relay) as session:
        for number in range(50):
            event = await session.transact(make_message(to=f"p{number}@example.com"), at_once)
            assert isinstance(event, Reply)
            assert event.is_positive
        assert session.transactions == 50
    assert [taken.envelope.forward_path for taken in relay.messages] == [f"p{n}@example.com" for n in range(50)]
    assert relay.sessions == 1
    assert relay.violations == []


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "end"])
@pytest.mark.parametrize("refusal", ["451 4.7.1 later", "550 5.7.1 never"])
async def test_session_goes_on_after_a_refusal(
    make_message: MakeMessage, session_to: SessionTo, step: str, refusal: str
) -> None:
    async with ScriptedRelay(**scripted(step, [refusal])) as relay, session_to(relay) as session:
        refused = await session.transact(make_message(), at_once)
        assert isinstance(refused, Reply)
        assert str(refused) == refusal
        assert refused.stage is Stage[step.upper()]
        assert session.usable
        accepted = await session.transact(make_message(), at_once)
        assert isinstance(accepted, Reply)
        assert accepted.is_positive
    assert len(relay.messages) == 1
    assert relay.violations == []
    assert ("RSET" in relay.commands) == (step in ("rcpt", "data"))


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "body", "end"])
@pytest.mark.parametrize("behaviour", [Drop(), Reset()], ids=["drop", "reset"])
async def test_session_lost_at_each_stage(
    make_message: MakeMessage, session_to: SessionTo, step: str, behaviour: Answer
) -> None:
    content = BIG if step == "body" else b"a: b\r\n\r\n"
    async with ScriptedRelay(**scripted(step, [behaviour])) as relay, session_to(relay) as session:
        event = await session.transact(make_message(content), at_once)
        assert isinstance(event, Fault)
        assert (event.stage, event.kind) == (Stage[step.upper()], Breakage.LOST)
        assert not session.usable
        assert session.reached_end == (step == "end")
        assert judge(event).outcome is (Outcome.IN_DOUBT if step == "end" else Outcome.DEFERRED)
        again = await session.transact(make_message(), at_once)
        assert isinstance(again, Fault)
        assert (again.stage, again.kind) == (Stage.MAIL, Breakage.LOST)
    assert relay.messages == []


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "body", "end"])
async def test_session_times_out_at_each_stage(make_message: MakeMessage, session_to: SessionTo, step: str) -> None:
    limit = {"body": "block"}.get(step, step)
    content = BIG if step == "body" else b"a: b\r\n\r\n"
    async with ScriptedRelay(**scripted(step, [Hang()])) as relay, session_to(relay, **{limit: 0.1}) as session:
        event = await session.transact(make_message(content), at_once)
        assert isinstance(event, Fault)
        assert (event.stage, event.kind) == (Stage[step.upper()], Breakage.TIMEOUT)
        assert "127.0.0.1" in event.what
        assert not session.usable
    assert relay.messages == []


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "body", "end"])
async def test_cancellation_aborts_at_each_stage(make_message: MakeMessage, session_to: SessionTo, step: str) -> None:
    content = BIG if step == "body" else b"a: b\r\n\r\n"
    async with ScriptedRelay(**scripted(step, [Hang()])) as relay, session_to(relay) as session:
        task = asyncio.create_task(session.transact(make_message(content), at_once))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not session.usable
        assert session.reached_end == (step == "end")
        event = await session.transact(make_message(), at_once)
        assert isinstance(event, Fault)
        assert event.stage is Stage.MAIL
    assert relay.messages == []


async def test_abort_reports_those_who_waits(make_message: MakeMessage, session_to: SessionTo) -> None:
    async with ScriptedRelay(rcpt=Hang()) as relay, session_to(relay) as session:
        task = asyncio.create_task(session.transact(make_message(), at_once))
        await asyncio.sleep(0.05)
        session.abort()
        event = await task
        assert isinstance(event, Fault)
        assert (event.stage, event.kind) == (Stage.RCPT, Breakage.STOPPED)


async def test_end_is_withheld_until_the_mark_is_done(make_message: MakeMessage, session_to: SessionTo) -> None:
    asked: list[Done] = []
    async with ScriptedRelay() as relay, session_to(relay) as session:
        task = asyncio.create_task(session.transact(make_message(), asked.append))
        await asyncio.sleep(0.1)
        assert len(asked) == 1
        assert relay.commands[-1] == "DATA"
        assert not session.reached_end
        assert not task.done()
        asked[0](None)
        asked[0](None)  # a second time changes nothing
        event = await task
        assert isinstance(event, Reply)
        assert event.is_positive
    assert len(relay.messages) == 1
    assert relay.violations == []


@pytest.mark.slow
async def test_end_is_withheld_while_writing_is_paused(make_message: MakeMessage, session_to: SessionTo) -> None:
    async with ScriptedRelay(body=Hang()) as relay, session_to(relay) as session:
        task = asyncio.create_task(session.transact(make_message(BIG), at_once))
        await asyncio.sleep(0.2)
        assert not session.reached_end
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not session.reached_end
    assert relay.messages == []


@pytest.mark.slow
async def test_slow_reader_gets_everything(make_message: MakeMessage, session_to: SessionTo) -> None:
    lines = b"".join(b".%d\r\n" % number for number in range(300_000))
    async with ScriptedRelay(body=Slow(300_000), receive_buffer=65_536) as relay, session_to(relay) as session:
        event = await session.transact(make_message(lines[:100_001], lines[100_001:]), at_once)
        assert isinstance(event, Reply)
        assert event.is_positive
    assert relay.messages[0].content == lines
    assert relay.violations == []


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "later"])
async def test_failed_mark_aborts_before_the_end(
    make_message: MakeMessage, session_to: SessionTo, is_late: bool
) -> None:
    error = OSError("disk full")

    def mark(done: Done) -> None:
        if is_late:
            asyncio.get_running_loop().call_later(0.05, done, error)
        else:
            done(error)

    async with ScriptedRelay() as relay, session_to(relay) as session:
        with pytest.raises(OSError, match="disk full"):
            await session.transact(make_message(), mark)
        assert not session.usable
        assert not session.reached_end
    assert relay.messages == []


async def test_mark_that_raises_aborts_before_the_end(make_message: MakeMessage, session_to: SessionTo) -> None:
    def mark(done: Done) -> None:
        raise OSError("disk full")

    async with ScriptedRelay() as relay, session_to(relay) as session:
        with pytest.raises(OSError, match="disk full"):
            await session.transact(make_message(), mark)
        assert not session.usable
    assert relay.messages == []


async def test_mark_cannot_fail_once_it_is_done(make_message: MakeMessage, session_to: SessionTo) -> None:
    asked: list[Done] = []
    async with ScriptedRelay() as relay, session_to(relay) as session:
        task = asyncio.create_task(session.transact(make_message(), asked.append))
        await asyncio.sleep(0.05)
        asked[0](None)
        asked[0](OSError("disk full"))
        event = await task
        assert isinstance(event, Reply)
        assert event.is_positive
        assert session.usable


async def test_mark_done_after_the_refusal_is_ignored(make_message: MakeMessage, session_to: SessionTo) -> None:
    asked: list[Done] = []
    async with ScriptedRelay(data=["450 4.3.0 no"]) as relay, session_to(relay) as session:
        event = await session.transact(make_message(), asked.append)
        assert isinstance(event, Reply)
        assert event.stage is Stage.DATA
        asked[0](OSError("disk full"))
        assert session.usable
        accepted = await session.transact(make_message(), at_once)
        assert isinstance(accepted, Reply)
        assert accepted.is_positive


async def test_replies_may_come_byte_by_byte(make_message: MakeMessage, session_to: SessionTo) -> None:
    answers: dict[str, Any] = {
        "mail": Split("250-2.1.0 sender\n250 2.1.0 ok"),
        "rcpt": Split("250 2.1.5 ok"),
        "data": Split("354 go on"),
        "end": Split("250 2.0.0 queued"),
    }
    async with ScriptedRelay(**answers) as relay, session_to(relay) as session:
        assert await session.transact(make_message(), at_once) == Reply(Stage.END, 250, "2.0.0", "queued")
    assert len(relay.messages) == 1


async def test_reply_that_arrived_before_the_line_broke_is_read(
    make_message: MakeMessage, session_to: SessionTo
) -> None:
    """The server answers in the middle of the body and resets; our write fails before its words are looked at."""
    async with ScriptedRelay(body=["552 5.3.4 too big"], end=Hang()) as relay, session_to(relay) as session:
        event = await session.transact(make_message(BIG), at_once)
        assert event == Reply(Stage.BODY, 552, "5.3.4", "too big")
        assert not session.usable
    assert relay.messages == []


async def test_server_that_leaves_while_idle_is_noticed(make_message: MakeMessage, session_to: SessionTo) -> None:
    async with ScriptedRelay(end=["250 2.0.0 ok\n"]) as relay, session_to(relay) as session:
        await session.transact(make_message(), at_once)
        await relay.stop()
        await asyncio.sleep(0.05)
        assert not session.usable
        event = await session.transact(make_message(), at_once)
        assert isinstance(event, Fault)
        assert (event.stage, event.kind) == (Stage.MAIL, Breakage.LOST)
        assert judge(event).outcome is Outcome.DEFERRED
        await session.quit()


async def test_unsolicited_421_while_idle_ends_the_session(make_message: MakeMessage, session_to: SessionTo) -> None:
    async with (
        ScriptedRelay(end=b"250 2.0.0 queued\r\n421 4.4.2 idle too long\r\n") as relay,
        session_to(relay) as session,
    ):
        event = await session.transact(make_message(), at_once)
        assert event == Reply(Stage.END, 250, "2.0.0", "queued")
        assert not session.usable
        again = await session.transact(make_message(), at_once)
        assert isinstance(again, Fault)
        assert "421 4.4.2 idle too long" in again.what
    assert len(relay.messages) == 1


async def test_unsendable_message_leaves_the_session_alone(make_message: MakeMessage, session_to: SessionTo) -> None:
    async with ScriptedRelay(extensions=["SIZE 100"]) as relay, session_to(relay) as session:
        event = await session.transact(make_message(b"x" * 98 + b"\r\n" * 2), at_once)
        assert isinstance(event, Fault)
        assert event.kind is Breakage.UNSENDABLE
        assert session.usable
        assert not session.reached_end
        accepted = await session.transact(make_message(b"x" * 98 + b"\r\n"), at_once)
        assert isinstance(accepted, Reply)
        assert accepted.is_positive
    assert len(relay.messages) == 1


async def test_quit_is_short_when_the_server_does_not_answer(session_to: SessionTo) -> None:
    async with ScriptedRelay(quit=Hang()) as relay, session_to(relay, quit=0.1) as session:
        await session.quit()
        assert not session.usable
        assert relay.commands[-1] == "QUIT"


async def test_quit_twice_and_after_abort_is_quiet(session_to: SessionTo) -> None:
    async with ScriptedRelay() as relay, session_to(relay) as session:
        await session.quit()
        await session.quit()
        session.abort()
    assert relay.commands.count("QUIT") == 1


async def test_cancelled_quit_drops_the_connection(session_to: SessionTo) -> None:
    async with ScriptedRelay(quit=Hang()) as relay, session_to(relay) as session:
        task = asyncio.create_task(session.quit())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not session.usable
    assert relay.open_sessions == 0


async def test_messages_at_the_same_time_wait_for_one_another(make_message: MakeMessage, session_to: SessionTo) -> None:
    async with ScriptedRelay() as relay, session_to(relay) as session:
        events = await asyncio.gather(
            *(session.transact(make_message(to=f"p{n}@example.com"), at_once) for n in range(5))
        )
        assert [str(event) for event in events] == [f"250 2.0.0 queued as {n}" for n in range(1, 6)]
    assert relay.violations == []
