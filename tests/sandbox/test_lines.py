"""The lines that need no server keep the promises of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.errors import OutboxError
from bulkmail.model.outcome import Outcome, Reply, Scope, Stage
from bulkmail.model.verdict import judge
from bulkmail.sandbox.inbox import Inbox
from bulkmail.sandbox.lines import Done, MaildirLine, NullLine
from bulkmail.sandbox.maildir import Maildir

MESSAGE = Message(
    Envelope("shop@example.com", "ann@example.org"), "<1@example.com>", [b"Subject: Hello\r\n", b"\r\nDear Ann\r\n"]
)


@pytest.fixture
def maildir(tmp_path: Path) -> Maildir:
    return Maildir(tmp_path / "mail")


@pytest.fixture(params=["maildir", "null"])
def make_line(request: pytest.FixtureRequest, maildir: Maildir) -> Callable[[], NullLine]:
    """Lines want a running loop, and there is none yet while fixtures are made."""
    return (lambda: MaildirLine(maildir.folder)) if request.param == "maildir" else NullLine


def commit(done: Done) -> None:
    """A journal whose commit comes on the next turn of the loop."""
    asyncio.get_running_loop().call_soon(done, None)


async def test_line_accepts_a_message(make_line: Callable[[], NullLine]) -> None:
    before = asyncio.get_running_loop().time()
    line = make_line()
    after = asyncio.get_running_loop().time()
    reply = await line.transact(MESSAGE, commit)
    assert isinstance(reply, Reply)
    assert (reply.stage, reply.code, reply.enhanced) == (Stage.END, 250, "2.0.0")
    assert judge(reply).outcome is Outcome.ACCEPTED
    assert (line.usable, line.transactions, line.reached_end) == (True, 1, True)
    assert before <= line.opened_at <= after


async def test_line_lets_nothing_out_before_the_mark_is_durable(
    make_line: Callable[[], NullLine], maildir: Maildir
) -> None:
    marks: list[Done] = []
    line = make_line()
    await line.transact(MESSAGE, commit)
    maildir.clear()
    sending = asyncio.create_task(line.transact(MESSAGE, marks.append))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not sending.done()
    assert not line.reached_end
    assert maildir.paths() == []
    marks[0](None)
    await sending
    assert line.transactions == 2
    assert len(maildir.paths()) == (1 if isinstance(line, MaildirLine) else 0)


async def test_line_raises_the_error_of_a_mark_and_is_done_with(
    make_line: Callable[[], NullLine], maildir: Maildir
) -> None:
    line = make_line()
    with pytest.raises(OutboxError, match="disk full"):
        await line.transact(MESSAGE, lambda done: done(OutboxError("disk full")))
    assert (line.usable, line.reached_end) == (False, False)
    assert maildir.paths() == []
    assert list((maildir.folder / "tmp").iterdir()) == []


async def test_line_raises_what_a_mark_raises_at_once(make_line: Callable[[], NullLine], maildir: Maildir) -> None:
    def refuse(done: Done) -> None:
        raise OutboxError("the journal is closed")

    line = make_line()
    with pytest.raises(OutboxError, match="is closed"):
        await line.transact(MESSAGE, refuse)
    assert (line.usable, line.reached_end) == (False, False)
    assert list((maildir.folder / "tmp").iterdir()) == []


@pytest.mark.parametrize("outcome", [None, OutboxError("disk full")], ids=["committed", "failed"])
async def test_line_cancelled_before_the_mark_delivers_nothing(
    make_line: Callable[[], NullLine], maildir: Maildir, outcome: OutboxError | None
) -> None:
    marks: list[Done] = []
    line = make_line()
    sending = asyncio.create_task(line.transact(MESSAGE, marks.append))
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    marks[0](outcome)  # the commit was under way and comes all the same
    await asyncio.sleep(0)
    assert (line.usable, line.reached_end) == (False, False)
    assert maildir.paths() == []
    assert list((maildir.folder / "tmp").iterdir()) == []


async def test_line_is_not_usable_after_it_quit(make_line: Callable[[], NullLine]) -> None:
    line = make_line()
    assert line.usable
    await line.quit()
    assert not line.usable


async def test_maildir_line_keeps_what_it_was_given(maildir: Maildir) -> None:
    reply = await MaildirLine(maildir.folder).transact(MESSAGE, commit)
    message = Inbox(maildir.folder).get(1)
    assert message["Return-Path"] == "<shop@example.com>"
    assert message["Delivered-To"] == "ann@example.org"
    assert message.get_content() == "Dear Ann\n"
    assert isinstance(reply, Reply)
    assert reply.text == f"kept as {maildir.paths()[0].name}"


async def test_maildir_line_keeps_a_file_for_each_copy(maildir: Maildir) -> None:
    copies = replace(MESSAGE, envelope=Envelope("shop@example.com", "ann@example.org", ("bob@example.org",)))
    reply = await MaildirLine(maildir.folder).transact(copies, commit)
    assert isinstance(reply, Reply) and reply.is_positive
    kept = list(Inbox(maildir.folder))
    assert sorted(message.forward_path for message in kept) == ["ann@example.org", "bob@example.org"]


async def test_maildir_line_cancelled_keeps_no_copy(maildir: Maildir) -> None:
    copies = replace(MESSAGE, envelope=Envelope("shop@example.com", "ann@example.org", ("bob@example.org",)))
    sending = asyncio.create_task(MaildirLine(maildir.folder).transact(copies, lambda done: None))
    await asyncio.sleep(0)
    assert len(list((maildir.folder / "tmp").iterdir())) == 2
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert [path for path in maildir.folder.rglob("*") if path.is_file()] == []


async def test_maildir_lines_share_a_folder(maildir: Maildir) -> None:
    lines = [MaildirLine(maildir.folder) for _ in range(10)]
    await asyncio.gather(*(line.transact(MESSAGE, commit) for line in lines for _ in range(20)))
    assert len(maildir.paths()) == 200


@pytest.mark.parametrize(("step", "stage"), [("write", Stage.DATA), ("publish", Stage.END)])
async def test_maildir_line_out_of_room_is_the_relays_fault_and_no_doubt(
    maildir: Maildir, monkeypatch: pytest.MonkeyPatch, step: str, stage: Stage
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on \x1bdevice")

    monkeypatch.setattr(Maildir, step, fail)
    line = MaildirLine(maildir.folder)
    reply = await line.transact(MESSAGE, commit)
    assert isinstance(reply, Reply)
    assert (reply.stage, reply.code, reply.enhanced) == (stage, 452, "4.3.1")
    assert reply.text == "cannot keep mail in the folder: No space left on device"
    verdict = judge(reply)
    assert (verdict.outcome, verdict.scope) == (Outcome.DEFERRED, Scope.RELAY)
    assert line.usable
    assert list((maildir.folder / "tmp").iterdir()) == []
