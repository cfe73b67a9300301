"""`bulkmail compose`: from a question to a message, and out again with nothing sent."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from email import message_from_bytes

import pytest
import trustme

from bulkmail.settings.settings import load
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run
from tests.e2e.test_terminal import Terminal

pytestmark = pytest.mark.slow

PASSWORD = "Canary-7-correct-horse"


@pytest.fixture
def tls(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


class Dialogue:
    """Answers questions in their order."""

    def __init__(self, terminal):
        self.terminal = terminal

    async def says(self, *turns):
        for question, answer in turns:
            async with asyncio.timeout(20):
                await self.terminal.sees(question)
            self.terminal.screen = self.terminal.screen.partition(question)[2]  # so that a question is seen once
            self.terminal.types(answer)


async def compose(folder, *arguments, **env):
    return Dialogue(await Terminal.open("compose", *arguments, cwd=folder, **env))


def without_login(relay):
    return (("Relay:", f"smtp://127.0.0.1:{relay.port}?tls=off"), ("User name", ""))


async def test_compose_logs_in_sends_and_leaves_nothing(tmp_path, tls):
    home = tmp_path / "home"
    home.mkdir()
    async with ScriptedRelay(auth={"ann@example.com": PASSWORD}, tls=tls) as relay:
        url = f"smtp://ann%40example.com@localhost:{relay.port}?ca_file={tmp_path / 'ca.pem'}"
        dialogue = await compose(home)
        await dialogue.says(("Relay:", url), ("Password for", "wrong"))
        whole = dialogue.terminal
        await dialogue.says(
            ("refused the login", ""),
            ("Relay:", url),
            ("Password for", PASSWORD),
            ("From [ann@example.com]", ""),
            ("To (", "Bob <bob@example.com>, cid@example.com"),
            ("shows all addresses", "n"),
            ("Subject", "Dinner {{ tonight"),
            ("ends it:", "At eight.\nBring {% wine %}.\n."),
            ("Keep it as a campaign?", ""),
            ("Send it?", "y"),
        )
        assert await whole.ends() == 0
    assert [message.forward_paths for message in relay.messages] == [("bob@example.com",), ("cid@example.com",)]
    headers = message_from_bytes(relay.messages[0].content)
    assert (headers["From"], headers["Subject"]) == ("ann@example.com", "Dinner {{ tonight")
    assert "Bring {% wine %}." in headers.get_payload()
    assert list(home.iterdir()) == []
    assert PASSWORD not in whole.screen and "wrong" not in whole.screen


async def test_compose_shows_the_conversation_on_request(tmp_path):
    async with ScriptedRelay() as relay:
        dialogue = await compose(tmp_path, "--trace")
        await dialogue.says(
            *without_login(relay),
            ("From:", "me@example.com"),
            ("To (", "bob@example.com"),
            ("Subject", "Hi"),
            ("ends it:", "Hello\n."),
            ("Keep it", ""),
            ("Send it?", "y"),
        )
        assert await dialogue.terminal.ends() == 0
    assert "> RCPT TO:<bob@example.com>" in dialogue.terminal.screen


async def test_compose_keeps_a_campaign_without_the_password(tmp_path):
    async with ScriptedRelay() as relay:
        dialogue = await compose(tmp_path)
        await dialogue.says(
            *without_login(relay),
            ("From:", '"Shop, Ann" <me@example.com>'),
            ("To (", "bob@example.com, cid@example.com"),
            ("shows all addresses", "y"),
            ("Subject", 'Say "hi" {{'),
            ("ends it:", "Hello {{ you }}\n."),
            ("Keep it", "dinner"),
            ("Send it?", "y"),
        )
        assert await dialogue.terminal.ends() == 0
        again = await run("send", "dinner", "--yes", cwd=tmp_path)
    assert again.code == 0 and "nothing was sent now" in " ".join(again.err.split())
    [message] = relay.messages
    assert message.forward_paths == ("bob@example.com", "cid@example.com")
    assert b"Hello {{ you }}" in message.content and b'Subject: Say "hi" {{' in message.content
    settings = await asyncio.to_thread(load, str(tmp_path / "dinner"))
    assert settings.routes[0].relay.port == relay.port
    assert (tmp_path / "dinner" / "runs" / "dinner.outbox").exists()


async def test_compose_sends_to_a_list_with_templates_and_keeps_it(tmp_path):
    (tmp_path / "people.csv").write_text("email,name\nbob@example.com,Bob\ncid@example.com,Cid\n")
    async with ScriptedRelay() as relay:
        dialogue = await compose(tmp_path)
        await dialogue.says(
            *without_login(relay),
            ("From:", "me@example.com"),
            ("To (", "no one.csv"),
            ("neither an address nor a file", "people.csv"),
            ("Subject", "Hi {{ name }}"),
            ("ends it:", "Hello {{ name }}\n."),
            ("can be resumed; folder", "news"),
            ("Send it?", "y"),
        )
        assert await dialogue.terminal.ends() == 0
    assert [b"Hello Bob" in relay.messages[0].content, b"Hello Cid" in relay.messages[1].content] == [True, True]
    assert (tmp_path / "news" / "people.csv").exists()


async def test_compose_asks_again_for_what_cannot_be_used(tmp_path):
    dialogue = await compose(tmp_path)
    await dialogue.says(
        ("Relay:", "gmial"),
        ('did you mean "gmail"?', "outlook"),
        ("takes an access token", "smtp://me:secret@mail.example.com"),
        ("must not hold a password", "sandbox:"),
        ("From:", "me"),
        ("has no @", "me@example.com"),
        ("To (", "bob@"),
        ("nothing after the @", "bob@example.com"),
        ("Subject", " "),
        ("needs a subject", "Hi"),
        ("ends it:", "Hello\n."),
        ("Keep it", "."),
        ("already exists", ""),
    )
    assert await dialogue.terminal.ends() == 0
    assert "1 accepted" in dialogue.terminal.screen


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4], ids=["relay", "from", "to", "subject", "text"])
@pytest.mark.parametrize("how", ["ctrl-c", "ctrl-d"])
async def test_compose_ends_quietly_at_any_question(how, turns, tmp_path):
    dialogue = await compose(tmp_path)
    questions = [("Relay:", "sandbox:"), ("From", "me@example.com"), ("To (", "bob@example.com"), ("Subject", "Hi")]
    await dialogue.says(*questions[:turns])
    await dialogue.terminal.sees([*(question for question, _ in questions), "ends it:"][turns])
    if how == "ctrl-c":
        os.killpg(dialogue.terminal.process.pid, signal.SIGINT)
    else:
        dialogue.terminal.types("\x04"[:1])
    assert await dialogue.terminal.ends() == 2
    assert "Nothing was sent or stored." in dialogue.terminal.screen
    assert "Traceback" not in dialogue.terminal.screen
    assert list(tmp_path.iterdir()) == []


async def test_compose_without_a_terminal_names_the_command(tmp_path):
    result = await run("compose", cwd=tmp_path)
    assert result.code == 2
    assert "bulkmail send --to ann@example.com" in " ".join(result.err.split())
