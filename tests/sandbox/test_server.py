"""The embedded server, as clients that are not ours see it."""

from __future__ import annotations

import asyncio
import gc
import logging
import smtplib
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from aiosmtpd.smtp import SMTP

from bulkmail.model.errors import RelayError
from bulkmail.sandbox.inbox import Inbox
from bulkmail.sandbox.maildir import Maildir
from bulkmail.sandbox.server import LARGEST_MESSAGE, Sandbox

MESSAGE = b"From: shop@example.com\r\nTo: ann@example.org\r\nSubject: Hello\r\n\r\nDear Ann\r\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mail"


def client(sandbox: Sandbox) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(
        hostname=sandbox.host, port=sandbox.port, local_hostname="client.example", use_tls=False, start_tls=False
    )


async def with_smtplib(sandbox: Sandbox, act: Callable[[smtplib.SMTP], Any]) -> Any:
    """Lets Python's own client talk to the sandbox, from a thread because it blocks."""

    def talk() -> Any:
        with smtplib.SMTP(sandbox.host, sandbox.port, local_hostname="client.example", timeout=10) as smtp:
            return act(smtp)

    return await asyncio.to_thread(talk)


def kept_for(folder: Path) -> Counter[str]:
    return Counter(kept.forward_path for kept in Inbox(folder))


@pytest.mark.slow
async def test_sandbox_keeps_each_of_200_concurrent_messages_once(folder: Path) -> None:
    async def send(session: int) -> None:
        async with client(sandbox) as smtp:
            for number in range(10):
                await smtp.sendmail("shop@example.com", [f"p{session}-{number}@example.org"], MESSAGE)

    async with Sandbox(folder) as sandbox:
        await asyncio.gather(*(send(session) for session in range(20)))
        assert sandbox.kept == 200
    expected = {f"p{session}-{number}@example.org" for session in range(20) for number in range(10)}
    assert kept_for(folder) == Counter(expected)
    assert not list((folder / "tmp").iterdir())


async def test_sandbox_keeps_mail_of_a_blocking_client(folder: Path) -> None:
    async with Sandbox(folder) as sandbox:
        await with_smtplib(sandbox, lambda smtp: smtp.sendmail("shop@example.com", ["ann@example.org"], MESSAGE))
    message = Inbox(folder).get(1)
    assert message["Return-Path"] == "<shop@example.com>"
    assert message["Delivered-To"] == "ann@example.org"
    assert message.get_content() == "Dear Ann\n"


async def test_sandbox_keeps_one_file_for_each_recipient_of_a_transaction(folder: Path) -> None:
    async with Sandbox(folder) as sandbox, client(sandbox) as smtp:
        await smtp.sendmail("shop@example.com", ["ann@example.org", "bob@example.org"], MESSAGE)
    assert kept_for(folder) == Counter(["ann@example.org", "bob@example.org"])


async def test_sandbox_announces_what_a_relay_would(folder: Path) -> None:
    def greet(smtp: smtplib.SMTP) -> tuple[bytes, dict[str, str]]:
        return smtp.ehlo()[1], smtp.esmtp_features

    async with Sandbox(folder) as sandbox:
        hello, features = await with_smtplib(sandbox, greet)
    assert hello.splitlines()[0] == b"sandbox.localhost"
    assert features["size"] == str(LARGEST_MESSAGE)
    assert {"smtputf8", "8bitmime"} <= features.keys()
    assert not {"auth", "starttls"} & features.keys()


async def test_sandbox_keeps_an_international_envelope(folder: Path) -> None:
    async with Sandbox(folder) as sandbox, client(sandbox) as smtp:
        await smtp.ehlo()
        await smtp.mail("shop@example.com", options=["SMTPUTF8"])
        await smtp.rcpt("жанна@example.org", encoding="utf-8")
        await smtp.data(MESSAGE)
    assert [kept.forward_path for kept in Inbox(folder)] == ["жанна@example.org"]


async def test_sandbox_shows_the_null_reverse_path(folder: Path) -> None:
    async with Sandbox(folder) as sandbox:
        await with_smtplib(sandbox, lambda smtp: smtp.sendmail("", ["ann@example.org"], MESSAGE))
    assert Inbox(folder).read(1).startswith(b"Return-Path: <>\nDelivered-To: ann@example.org\n")


async def test_sandbox_undoes_dot_stuffing_and_takes_the_longest_legal_line(folder: Path) -> None:
    line = "." * 998
    async with Sandbox(folder) as sandbox, client(sandbox) as smtp:
        await smtp.sendmail("shop@example.com", ["ann@example.org"], MESSAGE + b".\r\n..\r\n" + line.encode() + b"\r\n")
    assert Inbox(folder).get(1).get_content() == f"Dear Ann\n.\n..\n{line}\n"


@pytest.mark.parametrize("length", [1_000, 70_000], ids=["within-the-read-ahead", "over-the-read-ahead"])
async def test_sandbox_refuses_a_line_that_is_too_long(folder: Path, length: int) -> None:
    async with Sandbox(folder) as sandbox, client(sandbox) as smtp:
        with pytest.raises(aiosmtplib.SMTPDataError) as caught:
            await smtp.sendmail("shop@example.com", ["ann@example.org"], MESSAGE + b"x" * length + b"\r\n")
        assert caught.value.code == 500
        await smtp.sendmail("shop@example.com", ["bob@example.org"], MESSAGE)
    assert kept_for(folder) == Counter(["bob@example.org"])


async def test_sandbox_refuses_a_message_that_declares_too_large_a_size(folder: Path) -> None:
    async with Sandbox(folder) as sandbox, client(sandbox) as smtp:
        with pytest.raises(aiosmtplib.SMTPSenderRefused) as caught:
            await smtp.sendmail(
                "shop@example.com", ["ann@example.org"], MESSAGE, mail_options=[f"SIZE={LARGEST_MESSAGE + 1}"]
            )
    assert caught.value.code == 552


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        pytest.param(OSError(28, "No space left on device"), "452 4.3.1", id="disk-full"),
        pytest.param(RuntimeError("boom\r\n250 2.0.0 forged"), "451 4.3.0", id="a-bug-of-ours"),
    ],
)
async def test_sandbox_answers_a_failure_to_keep_as_temporary(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, answer: str
) -> None:
    def fail(self: Maildir, name: str) -> None:
        raise error

    async with Sandbox(folder) as sandbox, client(sandbox) as smtp:
        with monkeypatch.context() as patch:
            patch.setattr(Maildir, "publish", fail)
            with pytest.raises(aiosmtplib.SMTPDataError) as caught:
                await smtp.sendmail("shop@example.com", ["ann@example.org", "bob@example.org"], MESSAGE)
        assert f"{caught.value.code} {caught.value.message}".startswith(answer)
        assert "forged" not in caught.value.message
        await smtp.sendmail("shop@example.com", ["cat@example.org"], MESSAGE)  # the transaction was closed
    assert kept_for(folder) == Counter(["cat@example.org"])
    assert not list((folder / "tmp").iterdir())


async def test_sandbox_takes_back_the_first_of_two_when_the_second_cannot_be_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, calls = Maildir.publish, []

    def fail_the_second_time(self: Maildir, name: str) -> None:
        calls.append(name)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        publish(self, name)

    monkeypatch.setattr(Maildir, "publish", fail_the_second_time)
    async with Sandbox(folder) as sandbox, client(sandbox) as smtp:
        with pytest.raises(aiosmtplib.SMTPDataError):
            await smtp.sendmail("shop@example.com", ["ann@example.org", "bob@example.org"], MESSAGE)
        assert sandbox.kept == 0
    assert len(calls) == 2
    assert len(Inbox(folder)) == 0


async def test_sandbox_survives_a_command_that_breaks_its_parser(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As aiosmtpd's address parser does up to Python 3.12."""

    def fail(self: SMTP, argument: str) -> None:
        raise IndexError("string index out of range")

    monkeypatch.setattr(SMTP, "_getaddr", fail)
    async with Sandbox(folder) as sandbox:
        reply = await with_smtplib(sandbox, lambda smtp: (smtp.ehlo(), smtp.docmd("MAIL", "FROM:<"))[1])
    assert reply == (451, b"4.3.0 the sandbox failed: IndexError")


async def test_sandbox_writes_no_header_that_an_envelope_forged(folder: Path) -> None:
    def act(smtp: smtplib.SMTP) -> None:
        smtp.ehlo()
        smtp.docmd("MAIL", "FROM:<shop@example.com>")
        smtp.send('RCPT TO:<"ann\rX-Forged: yes"@example.org>\r\n')  # docmd() would refuse it
        assert smtp.getreply()[0] == 250
        smtp.data(MESSAGE)

    async with Sandbox(folder) as sandbox:
        await with_smtplib(sandbox, act)
    message = Inbox(folder).get(1)
    assert message["X-Forged"] is None
    assert message["Subject"] == "Hello"


async def test_sandbox_says_nothing_in_the_log_of_what_clients_do_wrong(
    folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def misbehave(smtp: smtplib.SMTP) -> None:
        smtp.ehlo()
        for _ in range(3):
            smtp.docmd("NONSENSE")
        smtp.sendmail("shop@example.com", ["ann@example.org"], MESSAGE)

    caplog.set_level(logging.INFO)
    async with Sandbox(folder) as sandbox:
        await with_smtplib(sandbox, misbehave)
    assert [record for record in caplog.records if record.name == "mail.log"] == []
    assert capfd.readouterr() == ("", "")


async def test_sandbox_leaves_a_log_level_that_someone_chose(folder: Path) -> None:
    logger = logging.getLogger("mail.log")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        async with Sandbox(folder):
            assert logger.level == logging.ERROR
    finally:
        logger.setLevel(before)


async def test_sandbox_ends_with_sessions_open_and_leaves_no_task(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Sandbox(folder) as sandbox:
        idle = await asyncio.open_connection(sandbox.host, sandbox.port)
        halfway = await asyncio.open_connection(sandbox.host, sandbox.port)
        for reader, _ in (idle, halfway):
            assert (await reader.readline()).startswith(b"220 ")
        for command in (b"EHLO x\r\n", b"MAIL FROM:<a@b.c>\r\n", b"RCPT TO:<d@e.f>\r\n", b"DATA\r\n"):
            halfway[1].write(command)
        while not (await halfway[0].readline()).startswith(b"354"):
            pass
        halfway[1].write(MESSAGE)
    for reader, writer in (idle, halfway):
        with pytest.raises(ConnectionResetError):
            while await reader.readline():
                pass
            raise ConnectionResetError  # an orderly end is as good
        writer.close()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(Inbox(folder)) == 0
    assert caplog.records == []


async def test_sandbox_accepts_clients_that_vanish(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Sandbox(folder) as sandbox:
        for _ in range(20):
            _, writer = await asyncio.open_connection(sandbox.host, sandbox.port)
            writer.write(b"EHLO x\r\n" * 50)
            writer.transport.abort()
        async with client(sandbox) as smtp:
            await smtp.sendmail("shop@example.com", ["ann@example.org"], MESSAGE)
    assert caplog.records == []
    assert len(Inbox(folder)) == 1


@pytest.mark.slow
async def test_sandbox_says_nothing_of_a_session_that_was_reset(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reset(self: SMTP, status: str) -> None:
        raise ConnectionResetError("Connection lost")

    async with Sandbox(folder) as sandbox:
        reader, writer = await asyncio.open_connection(sandbox.host, sandbox.port)
        assert (await reader.readline()).startswith(b"220 ")
        monkeypatch.setattr(SMTP, "push", reset)
        writer.write(b"NOOP\r\n")
        assert await reader.read() == b""
        writer.close()
    await asyncio.sleep(0)
    gc.collect()  # when asyncio would complain
    assert caplog.records == []


async def test_sandbox_says_which_port_is_taken(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RelayError, match=rf"cannot listen at 127\.0\.0\.1 port {port}: .") as caught:
            async with Sandbox(folder, port=port):
                pass
    assert "port" in caught.value.hint


async def test_sandbox_refuses_a_port_that_is_none(folder: Path) -> None:
    with pytest.raises(RelayError, match="port 99999"):
        async with Sandbox(folder, port=99999):
            pass
