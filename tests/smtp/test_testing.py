"""The doubles that users test with, tried with nothing but a socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib

import pytest

from bulkmail.testing import Drop, Hang, Late, ManualClock, Reset, ScriptedRelay, Slow, Split
from bulkmail.testing.answers import Answer

ENVELOPE = b"EHLO me\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n"


async def talk(relay: ScriptedRelay, *lines: bytes) -> list[str]:
    """Writes each of `lines` when the answer to the one before has come; all last lines of answers."""
    reader, writer = await asyncio.open_connection(relay.host, relay.port)
    answers = []
    try:
        for line in (b"", *lines):
            writer.write(line)
            while (answer := (await reader.readline()).decode().rstrip())[3:4] == "-":
                pass
            answers.append(answer)
    except ConnectionError:
        answers.append("reset")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answers


async def test_relay_takes_a_message() -> None:
    async with ScriptedRelay() as relay:
        answers = await talk(relay, *ENVELOPE.splitlines(keepends=True), b"a: b\r\n\r\n..c\r\n.\r\n", b"QUIT\r\n")
    assert [answer[:3] for answer in answers] == ["220", "250", "250", "250", "354", "250", "221"]
    [taken] = relay.messages
    assert taken.content == b"a: b\r\n\r\n.c\r\n"
    assert (taken.reverse_path, taken.forward_paths, taken.session) == ("a@b.c", ("d@e.f",), 1)
    assert relay.commands == ["EHLO me", "MAIL FROM:<a@b.c>", "RCPT TO:<d@e.f>", "DATA", ".", "QUIT"]
    assert relay.violations == []
    assert (relay.sessions, relay.peak_sessions, relay.open_sessions) == (1, 1, 0)


async def test_script_is_used_up_in_order_by_all_sessions() -> None:
    async with ScriptedRelay(mail=["451 a", None, "550 b"]) as relay:
        said = [(await talk(relay, b"MAIL FROM:<a@b.c>\r\n"))[-1][:3] for _ in range(4)]
    assert said == ["451", "250", "550", "250"]


async def test_script_may_be_one_answer_or_a_function() -> None:
    def by_path(path: str) -> str | None:
        return "550 5.1.1 no such user" if path.startswith("ghost@") else None

    async with ScriptedRelay(mail="250 always", rcpt=by_path) as relay:
        answers = await talk(
            relay, b"MAIL FROM:<a@b.c>\r\n", b"RCPT TO:<ghost@e.f>\r\n", b"RCPT TO:<d@e.f>\r\n", b"RSET\r\n"
        )
    assert answers[1:] == ["250 always", "550 5.1.1 no such user", "250 2.1.5 recipient ok", "250 2.0.0 reset"]


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        pytest.param(Drop(), "", id="drop"),
        pytest.param(Reset(), "reset", id="reset"),
        pytest.param(Split("250-a\n250 split"), "250 split", id="split"),
        pytest.param(Late(0.05, "250 late"), "250 late", id="late"),
        pytest.param(b"2_5 raw\r\n", "2_5 raw", id="raw"),
        pytest.param("250-a\n250 b", "250 b", id="two lines"),
    ],
)
async def test_answers(answer: Answer, seen: str) -> None:
    async with ScriptedRelay(mail=answer) as relay:
        assert (await talk(relay, b"MAIL FROM:<a@b.c>\r\n"))[-1] == seen


async def test_hang_says_nothing_until_the_client_leaves() -> None:
    async with ScriptedRelay(mail=Hang()) as relay:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(talk(relay, b"MAIL FROM:<a@b.c>\r\n"), 0.1)
        await asyncio.sleep(0.05)
        assert relay.open_sessions == 0


@pytest.mark.parametrize("behaviour", [Drop, Reset])
@pytest.mark.parametrize("keeps", [True, False])
async def test_message_may_be_kept_without_an_answer(behaviour: type[Drop], keeps: bool) -> None:
    async with ScriptedRelay(end=behaviour(keeps=keeps)) as relay:
        await talk(relay, *ENVELOPE.splitlines(keepends=True), b"x\r\n.\r\n")
    assert len(relay.messages) == keeps


async def test_421_closes_the_session() -> None:
    async with ScriptedRelay(mail="421 4.3.2 closing") as relay:
        assert await talk(relay, b"MAIL FROM:<a@b.c>\r\n", b"NOOP\r\n") in (
            ["220 relay.test ESMTP", "421 4.3.2 closing", ""],
            ["220 relay.test ESMTP", "421 4.3.2 closing", "reset"],
        )


async def test_refused_transaction_stays_open_until_reset() -> None:
    async with ScriptedRelay(rcpt=["550 no"]) as relay:
        answers = await talk(
            relay,
            b"MAIL FROM:<a@b.c>\r\n",
            b"RCPT TO:<d@e.f>\r\n",
            b"DATA\r\n",
            b"MAIL FROM:<a@b.c>\r\n",
            b"RSET\r\n",
            b"MAIL FROM:<a@b.c>\r\n",
        )
    assert [answer[:3] for answer in answers[1:]] == ["250", "550", "503", "503", "250", "250"]


@pytest.mark.parametrize(
    ("lines", "violation"),
    [
        pytest.param([b"NOOP\n"], "a bare CR, a bare LF or a NUL", id="bare LF in a command"),
        pytest.param([b"NO\rOP\r\n"], "a bare CR, a bare LF or a NUL", id="bare CR in a command"),
        pytest.param([b"NOOP \0\r\n"], "a bare CR, a bare LF or a NUL", id="NUL in a command"),
        pytest.param([b"NOOP\r\nNOOP\r\n"], "did not wait for the answer", id="two commands at once"),
        pytest.param([b"NOOP " + b"x" * 1000 + b"\r\n"], "a line of 1007 bytes", id="long line"),
        pytest.param([*ENVELOPE.splitlines(True), b"x\n.\r\n"], "a bare CR", id="bare LF in content"),
        pytest.param([*ENVELOPE.splitlines(True), b"\xff\r\n.\r\n"], "8-bit content", id="8-bit content"),
        pytest.param([*ENVELOPE.splitlines(True), b"x\r\n.\r\nQUIT\r\n"], "the end of the message", id="after the end"),
    ],
)
async def test_violations_are_noted(lines: list[bytes], violation: str) -> None:
    async with ScriptedRelay() as relay:
        await talk(relay, *lines)
    assert len(relay.violations) == 1
    assert violation in relay.violations[0]


async def test_group_of_commands_is_no_violation_when_pipelining_is_offered() -> None:
    async with ScriptedRelay(extensions=["PIPELINING"]) as relay:
        answers = await talk(relay, b"EHLO me\r\n", b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n", b"", b"")
    assert [answer[:3] for answer in answers] == ["220", "250", "250", "250", "354"]
    assert relay.violations == []


async def test_talking_before_the_greeting_is_noted() -> None:
    async with ScriptedRelay(greeting=Late(0.05, "220 at last")) as relay:
        reader, writer = await asyncio.open_connection(relay.host, relay.port)
        writer.write(b"NOOP\r\n")
        assert await reader.readline() == b"220 at last\r\n"
        writer.close()
        await writer.wait_closed()
    assert relay.violations == ["the client spoke before it was greeted"]


async def test_broken_script_is_reported() -> None:
    def broken(path: str) -> str:
        raise RuntimeError("typo in the test")

    async with ScriptedRelay(mail=broken) as relay:
        await talk(relay, b"MAIL FROM:<a@b.c>\r\n")
        await asyncio.sleep(0.01)
    assert "typo in the test" in relay.violations[0]


async def test_slow_is_no_answer() -> None:
    async with ScriptedRelay(mail=Slow(1)) as relay:
        await talk(relay, b"MAIL FROM:<a@b.c>\r\n")
        await asyncio.sleep(0.01)
    assert "Slow()" in relay.violations[0]


async def test_mail_needs_the_login_that_is_offered() -> None:
    async with ScriptedRelay(auth={"ann": "pw"}) as relay:
        plain = base64.b64encode(b"\0ann\0pw")
        answers = await talk(
            relay,
            b"MAIL FROM:<a@b.c>\r\n",
            b"AUTH PLAIN !!!\r\n",
            b"AUTH SCRAM-SHA-256\r\n",
            b"AUTH PLAIN\r\n",
            plain + b"\r\n",
            b"MAIL FROM:<a@b.c>\r\n",
        )
    assert [answer[:3] for answer in answers[1:]] == ["530", "535", "504", "334", "235", "250"]
    assert relay.auth_attempts == 3
    assert not any(plain.decode() in command for command in relay.commands)


async def test_peak_of_sessions() -> None:
    async with ScriptedRelay(mail=Late(0.1, "250 ok")) as relay:
        await asyncio.gather(*(talk(relay, b"MAIL FROM:<a@b.c>\r\n") for _ in range(5)))
        await talk(relay)
    assert (relay.sessions, relay.peak_sessions) == (6, 5)


async def test_unknown_and_misplaced_commands() -> None:
    async with ScriptedRelay() as relay:
        answers = await talk(
            relay, b"FROB\r\n", b"RCPT TO:<d@e.f>\r\n", b"DATA\r\n", b"STARTTLS\r\n", b"HELO me\r\n", b"MAIL <>\r\n"
        )
    assert [answer[:3] for answer in answers[1:]] == ["500", "503", "503", "502", "250", "250"]


# The clock


async def test_clock_wakes_sleepers_in_order() -> None:
    clock = ManualClock(start=100.0)
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(f"{name} at {clock.now():g}")

    tasks = [asyncio.create_task(sleeper(*each)) for each in (("late", 20), ("early", 5), ("never", 50), ("now", 0))]
    await asyncio.sleep(0.01)
    assert woken == ["now at 100"]
    assert clock.sleeping == 3
    clock.advance(5)
    await asyncio.sleep(0)
    assert woken[1:] == ["early at 105"]
    clock.advance(15)
    await asyncio.sleep(0)
    assert woken[2:] == ["late at 120"]
    tasks[2].cancel()
    await asyncio.sleep(0)
    assert clock.sleeping == 0
    clock.advance(100)


def test_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        ManualClock().advance(-1)


async def test_clock_on_the_wall_can_be_set_without_waking_anyone():
    clock = ManualClock(start=100.0)
    sleeper = asyncio.create_task(clock.sleep(50.0))
    await asyncio.sleep(0)
    clock.set_wall(1000.0)
    assert (clock.now(), clock.monotonic(), clock.next_wake) == (1000.0, 100.0, 50.0)
    clock.advance(50.0)
    await sleeper
    assert (clock.now(), clock.monotonic(), clock.next_wake) == (1050.0, 150.0, None)
