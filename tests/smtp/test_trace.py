"""The trace: all that is said, nothing that is secret, and nothing that could steer a terminal."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import ssl
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.delivery import Message
from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Relay, Secret
from bulkmail.smtp.credentials import Credentials
from bulkmail.smtp.login import PASSWORD_MECHANISMS
from bulkmail.smtp.peer_policy import PeerPolicy
from bulkmail.smtp.replies import SessionRefused
from bulkmail.smtp.tap import LONGEST_LINE, Tap
from bulkmail.smtp.trace import HEADING, Trace
from bulkmail.testing import Drop, ScriptedRelay
from tests.connections import Single

PASSWORD = "Canary-7-correct-horse"
ANN = Credentials("ann", Secret(PASSWORD))


class Shown:
    """What a tap shows, as `"> EHLO there"`."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tap = Tap(lambda sign, text: self.lines.append(f"{sign} {text}"))

    def by(self, sign: str) -> list[str]:
        return [line for line in self.lines if line.startswith(sign)]


async def traced(
    relay: ScriptedRelay,
    *messages: Message,
    credentials: Credentials | None = None,
    url: str = "smtp://localhost:{port}?tls=off&auth=plaintext&ehlo=us.example",
    policy: PeerPolicy | None = None,
) -> str:
    """A session that sends `messages`, as its trace."""
    stream = io.StringIO()
    trace = Trace(stream)
    trace.__enter__()
    try:
        with suppress(SessionRefused):
            where = Relay.parse(url.format(port=relay.port))
            session = await Single.to(where, credentials, tls_context=None, policy=policy, trace=trace)
            for message in messages:
                await session.transact(message, lambda done: done(None))
            await session.quit()
        await asyncio.sleep(0.01)
    finally:
        await asyncio.to_thread(trace.__exit__, None, None, None)
    return stream.getvalue()


def said(trace: str) -> list[str]:
    """The lines without heading, time and number."""
    return [line[17:] for line in trace.splitlines() if not line.startswith(HEADING)]


# What is shown


async def test_trace_is_the_whole_conversation(make_message: Callable[..., Message]) -> None:
    message = make_message(b"Subject: hello\r\n", b"To: ann\r\n\r\nDear Ann\r\n.dots\r\n" + b"more\r\n" * 500)
    async with ScriptedRelay(greeting="220-relay.test\n220 hello", extensions=["SIZE 99999"]) as relay:
        trace = await traced(relay, message)
    lines = said(trace)
    assert lines[0].startswith("* connected to localhost: ")
    assert lines[1:] == [
        "< 220-relay.test",
        "< 220 hello",
        "> EHLO us.example",
        "< 250-relay.test",
        "< 250 SIZE 99999",
        "> MAIL FROM:<news@example.org> SIZE=3044",
        "< 250 2.1.0 sender ok",
        "> RCPT TO:<ann@example.com>",
        "< 250 2.1.5 recipient ok",
        "> DATA",
        "< 354 end with a dot",
        "| Subject: hello",
        "| To: ann",
        "| ",
        "| Dear Ann",
        "| (3,045 bytes)",
        "> .",
        "< 250 2.0.0 queued as 1",
        "> QUIT",
        "< 221 2.0.0 bye",
        "* closed",
    ]
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}   1 [<>|*] .*", trace.splitlines()[1])


def test_trace_follows_chunks_and_pipelines() -> None:
    shown = Shown()
    tap = shown.tap
    tap.said(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 12 LAST\r\nDATA\r\nMAIL")
    tap.said(b"\r\nMAIL FROM:<e@f>\r\nRCPT TO:<g@h>\r\nDATA\r\n")
    tap.heard(b"250 1\r\n250 2\r\n250 3\r\n250 4\r\n250 5\r\n35")
    tap.heard(b"4 go on\r\n")
    tap.said(b"one\r\n.")
    tap.said(b".two\r")
    tap.said(b"\n.\r\nQUIT\r\n")
    assert shown.lines == [
        "> MAIL FROM:<a@b>", "> RCPT TO:<c@d>", "> BDAT 12 LAST", "| DATA", "| MAIL", "| (12 bytes)",
        "> MAIL FROM:<e@f>", "> RCPT TO:<g@h>", "> DATA",
        "< 250 1", "< 250 2", "< 250 3", "< 250 4", "< 250 5", "< 354 go on",
        "| one", "| ..two", "| (12 bytes)", "> .", "> QUIT",
    ]  # fmt: skip


async def test_trace_shows_how_the_connection_is_secured(make_message: Callable[..., Message], tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    url = f"smtp://localhost:{{port}}?ca_file={tmp_path / 'ca.pem'}"
    async with ScriptedRelay(tls=context) as relay:
        lines = said(await traced(relay, make_message(), url=url))
    at = lines.index("> STARTTLS")
    assert lines[at + 1].startswith("< 220 ")
    assert re.fullmatch(r"\* TLSv1\.[23], \w+, certificate of localhost", lines[at + 2])
    assert lines[at + 3].startswith("> EHLO ")
    assert lines[-1] == "* closed"


@pytest.mark.slow
async def test_trace_says_why_there_is_no_conversation() -> None:
    async with ScriptedRelay() as relay:
        pass
    lines = said(await traced(relay, url="smtp://127.0.0.1:{port}?tls=off"))
    assert lines == [f"* nothing is listening at 127.0.0.1 port {relay.port}"]


async def test_trace_shows_a_message_that_was_cut_off(make_message: Callable[..., Message]) -> None:
    async with ScriptedRelay(body=Drop(), extensions=[]) as relay:
        lines = said(await traced(relay, make_message(b"Subject: cut\r\n\r\n" + b"x\r\n" * 2_000_000)))
    assert "| Subject: cut" in lines
    assert any(re.fullmatch(r"\| \([\d,]+ bytes, cut off\)", line) for line in lines)
    assert lines[-1].startswith("* closed")


# What is not shown


def forms_of(secret: str) -> list[str]:
    """What the secret looks like wherever it stands in base64."""
    forms = [secret, secret.encode().hex()]
    for before in range(3):
        encoded = base64.b64encode(b"x" * before + secret.encode()).decode()
        forms.append(encoded[4 if before else 0 : len(encoded) // 4 * 4 - 4])
    return forms


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
@pytest.mark.parametrize("ending", [None, "535 5.7.8 no", "echo"])
async def test_secret_is_never_in_a_trace(
    mechanism: str, ending: str | None, make_message: Callable[..., Message]
) -> None:
    said_it = "\0ann\0" if mechanism == "PLAIN" else ""
    encoded = base64.b64encode(f"{said_it}{PASSWORD}".encode()).decode()
    echo = f"535-5.7.8 bad {encoded}\n535 5.7.8 that is {PASSWORD}"
    if mechanism not in ("PLAIN", "LOGIN"):
        echo = "535 5.7.8 no"  # the server was not told the secret
    async with ScriptedRelay(
        auth={"ann": PASSWORD}, mechanisms=[mechanism], login=echo if ending == "echo" else ending
    ) as relay:
        trace = await traced(relay, make_message(), credentials=ANN)
        assert relay.auth_attempts == 1
    assert f"> (login by {mechanism}: " in trace
    for form in forms_of(PASSWORD):
        assert form not in trace
    assert ("MAIL FROM" in trace) == (ending is None)
    if ending == "535 5.7.8 no":
        assert "< 535 5.7.8 no" in said(trace)


def echoes(secret: str) -> list[str]:
    """What a server may say that repeats `secret`, in any of its forms, or a part of it."""
    return [
        f"welcome {secret}",
        f"welcome {secret.upper()}",
        f"{'x' * (LONGEST_LINE - 9)}{secret}",
        f"and {secret[:-3]}\n250 the rest {secret[3:]}",
        base64.b64encode(f"you are {secret}!".encode()).decode(),
        secret.encode().hex(),
    ]


@pytest.mark.parametrize("echo", echoes(PASSWORD), ids=["plain", "case", "cut", "parts", "base64", "hex"])
async def test_secret_that_the_server_repeats_at_any_time_is_never_in_a_trace(
    echo: str, make_message: Callable[..., Message]
) -> None:
    async with ScriptedRelay(
        auth={"ann": PASSWORD},
        mechanisms=["SCRAM-SHA-256"],
        greeting=f"220 {echo}".replace("\n250 ", " "),
        mail=f"250-{echo}\n250 ok" if "\n" not in echo else f"250-{echo}",
        end=f"250 queued, {echo}".replace("\n250 ", "\\n"),
    ) as relay:
        trace = await traced(relay, make_message(), credentials=ANN)
    assert len(relay.messages) == 1
    for form in (*forms_of(PASSWORD), *(PASSWORD[at : at + 8] for at in range(len(PASSWORD) - 7))):
        assert form.lower() not in trace.lower()
    assert "< 220 (hidden: it repeats a login secret)" in said(trace)
    assert "< 250 (hidden: it repeats a login secret)" in said(trace)
    assert "< 250 2.1.5 recipient ok" in said(trace)


async def test_response_of_cram_md5_and_a_secret_in_its_challenge_are_never_in_a_trace(
    make_message: Callable[..., Message],
) -> None:
    responses: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        while line := (await reader.readline()).decode().rstrip():
            echo = f"{PASSWORD} {responses[-1]} {base64.b64decode(responses[-1]).decode()}" if responses else PASSWORD
            if line.startswith("EHLO"):
                answer = "250-here\r\n250 AUTH CRAM-MD5"
            elif line.startswith("AUTH"):
                answer = f"334 {base64.b64encode(f'<{PASSWORD}@here>'.encode()).decode()}"
            elif line == "QUIT":
                answer = f"221 bye {responses[-1]}"
            elif not responses:
                responses.append(line)
                answer = "235 you said " + base64.b64decode(line).decode().split()[1]
            else:
                answer = f"550 no, {echo}"
            writer.write(answer.encode() + b"\r\n")
            if line == "QUIT":
                break
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    stream = io.StringIO()
    trace = Trace(stream)
    trace.__enter__()
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"smtp://127.0.0.1:{port}?tls=off&auth=plaintext"
        session = await Single.to(Relay.parse(url), ANN, tls_context=None, trace=trace)
        await session.transact(make_message(), lambda done: done(None))
        await session.quit()
    await asyncio.to_thread(trace.__exit__, None, None, None)
    (response,) = responses
    digest = base64.b64decode(response).decode().split()[1]
    text = stream.getvalue()
    for form in (*forms_of(PASSWORD), response, digest):
        assert form not in text
    assert {"< 235 (hidden: it repeats a login secret)", "< 550 (hidden: it repeats a login secret)"} <= set(said(text))


async def test_user_name_is_shown_after_the_login(make_message: Callable[..., Message]) -> None:
    who = "news@shop.example"
    for mechanism in PASSWORD_MECHANISMS:
        async with ScriptedRelay(
            auth={who: PASSWORD}, mechanisms=[mechanism], mail=f"250 2.1.0 {who} sender ok"
        ) as relay:
            trace = await traced(relay, make_message(), credentials=Credentials(who, Secret(PASSWORD)))
        assert f"< 250 2.1.0 {who} sender ok" in said(trace)


@pytest.mark.parametrize(
    ("line", "is_hidden"), [("250 pw is x7", True), ("250 x7y", False), ("250-X7", True), ("250 ok", False)]
)
def test_very_short_secret_is_hidden_where_it_stands_alone(line: str, is_hidden: bool) -> None:
    lines: list[str] = []
    Tap(lambda sign, text: lines.append(text), secrets=["x7"]).heard(f"{line}\r\n".encode())
    assert lines == (["250 (hidden: it repeats a login secret)"] if is_hidden else [line])


def test_whatever_a_login_says_is_hidden() -> None:
    """Nothing is known here of mechanisms: the state alone hides."""
    shown = Shown()
    with shown.tap.hidden("login by NEW"):
        shown.tap.said(b"AUTH NEW\r\n")
        shown.tap.heard(b"334 challenge-canary\r\n")
        shown.tap.said(b"response-")
        shown.tap.said(b"canary")
        shown.tap.heard(b"535 you said response-\r\n")
    shown.tap.said(b"QUIT\r\n")
    assert shown.lines == [
        "> (login by NEW: 10 bytes hidden)",
        "< 334 (16 bytes hidden)",
        "> (login by NEW: 9 bytes hidden)",
        "> (login by NEW: 6 bytes hidden)",
        "< 535 (hidden: it repeats a login secret)",
        "> QUIT",
    ]


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.sampled_from(["said", "heard", "hidden", "note"]), st.binary(max_size=900))),
    st.sampled_from([b"", b"DATA\r\n", b"BDAT 300\r\n", b"AUTH PLAIN"]),
)
def test_trace_is_printable_and_bounded_whatever_is_said(pieces: list[tuple[str, bytes]], first: bytes) -> None:
    shown = Shown()
    tap = shown.tap
    tap.said(first)
    tap.heard(b"354 go on\r\n")
    for kind, piece in pieces:
        if kind == "hidden":
            with tap.hidden("login by X"):
                tap.said(piece)
                tap.heard(piece)
        elif kind == "note":
            tap.note(piece.decode("latin-1"))
        else:
            {"said": tap.said, "heard": tap.heard}[kind](piece)
    tap.closed("closed")
    assert all(line.isprintable() and len(line) <= LONGEST_LINE + 40 for line in shown.lines)


def test_escapes_of_either_side_are_shown_and_not_obeyed() -> None:
    shown = Shown()
    shown.tap.heard("250 \x1b]0;owned\x07\x1b[2J \\x1b \u202etxt ü \x85\n".encode() + b"\xff\xfe\n")
    shown.tap.said(b"RCPT TO:<\x1b[31m\r@x>\r\n")
    assert shown.lines == [
        "< 250 \\x1b]0;owned\\x07\\x1b[2J \\\\x1b \\u202etxt ü \\x85",
        "< \\xff\\xfe",
        "> RCPT TO:<\\x1b[31m\\r@x>",
    ]


def test_line_without_end_takes_no_memory() -> None:
    shown = Shown()
    for _ in range(1000):
        shown.tap.heard(b"x" * 10_000)
    shown.tap.closed("closed")
    assert shown.lines == [f"< {'x' * LONGEST_LINE}… (10,000,000 bytes)", "* closed"]


# Where it goes


def test_file_is_for_its_owner_and_each_run_is_added(tmp_path: Path) -> None:
    target = tmp_path / "trace.txt"
    for number in range(2):
        with Trace.open(str(target)) as trace:
            trace.tap().note(f"run {number}")
    text = target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert text.count(HEADING) == 2
    assert [line[-5:] for line in text.splitlines()[1::2]] == ["run 0", "run 1"]


@pytest.mark.parametrize("kind", ["list", "folder", "fifo", "nowhere", "link", "link-to-nothing", "link-to-empty"])
def test_trace_is_not_added_to_something_else(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "people.csv"
    if kind == "list":
        target.write_text("email\nann@example.com\n")
    elif kind == "folder":
        target.mkdir()
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind.startswith("link"):
        if kind != "link-to-nothing":
            (tmp_path / "other").write_text("keys\n" if kind == "link" else "")
        target.symlink_to(tmp_path / "other")
    else:
        target = target / "x"
    with pytest.raises(ConfigError, match=re.escape(f"--trace {target}: ")) as caught:
        Trace.open(str(target))
    assert caught.value.hint
    if kind == "list":
        assert target.read_text() == "email\nann@example.com\n"
    if kind.startswith("link"):
        assert target.exists() == (kind != "link-to-nothing")
        assert kind == "link-to-nothing" or target.read_text() == ("keys\n" if kind == "link" else "")


def test_trace_may_be_a_link_to_a_trace(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "other")
    for name in ("other", "link"):
        with Trace.open(str(tmp_path / name)) as trace:
            trace.tap().note(name)
    assert (tmp_path / "other").read_text().count(HEADING) == 2


def test_disk_that_is_full_ends_the_trace_and_says_so() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Trace.open("/dev/full") as trace:
        trace.tap().note("something")
    assert trace.fault == "No space left on device"


def test_connections_differ_by_colour_on_a_terminal_and_by_number() -> None:
    stream = io.StringIO()
    with Trace(stream, is_coloured=True) as trace:
        first, second = trace.tap(), trace.tap()
        first.note("one")
        second.note("two")
        first.note("three")
    lines = stream.getvalue().splitlines()[1:]
    colours = [line.partition("m")[0] for line in lines]
    assert colours[0] == colours[2] != colours[1]
    assert [line.partition("m")[2][17:].removesuffix("\x1b[0m") for line in lines] == ["* one", "* two", "* three"]


def test_file_too_slow_loses_lines_and_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkmail.smtp.trace._BACKLOG", 3)
    stream = io.StringIO()
    trace = Trace(stream)
    tap = trace.tap()
    for number in range(10):
        tap.note(str(number))
    with trace:
        while trace.is_behind:
            time.sleep(0.001)
        tap.note("last")
    text = stream.getvalue()
    assert "# 7 lines are missing here" in text
    assert text.endswith("* last\n")
