"""The conversation of a run as a program reads it."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

import bulkmail
from bulkmail.smtp import trace as module
from bulkmail.smtp.trace import Conversation, ConversationLine
from bulkmail.testing import ScriptedRelay

PASSWORD = "Canary-7-correct-horse"
PEOPLE = [{"email": f"p{n}@example.com"} for n in range(3)]


@pytest.fixture
def campaign() -> bulkmail.Campaign:
    return bulkmail.compose(from_="shop@example.com", subject="Hello", text="Hello.\n")


def mailer_for(relay: ScriptedRelay) -> bulkmail.Mailer:
    return bulkmail.Mailer(f"smtp://{relay.host}:{relay.port}?tls=off", suppressions=None)


async def read(conversation: Conversation) -> list[ConversationLine]:
    return [line async for line in conversation]


async def test_conversation_has_every_line_and_ends_with_the_run(campaign: bulkmail.Campaign) -> None:
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path.startswith("p1@") else None) as relay:
        mailer = mailer_for(relay)
        reading = asyncio.create_task(read(mailer.conversation()))
        report = await mailer.send(campaign, PEOPLE)
        async with asyncio.timeout(10):
            lines = await reading
    assert report.accepted == 2
    said = [(line.sign, line.text) for line in lines]
    assert (">", "RCPT TO:<p0@example.com>") in said
    assert ("<", "550 5.1.1 who?") in said
    assert {line.connection for line in lines} == set(range(1, relay.sessions + 1))
    assert str(lines[0]).split()[1:3] == ["1", "*"]


@pytest.mark.slow
async def test_conversation_hides_the_password(campaign: bulkmail.Campaign, tmp_path: Path) -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    async with ScriptedRelay(auth={"ann": PASSWORD}, tls=server) as relay:
        mailer = bulkmail.Mailer(
            f"smtp://ann@localhost:{relay.port}", password=PASSWORD, tls_context=client, suppressions=None
        )
        reading = asyncio.create_task(read(mailer.conversation()))
        await mailer.send(campaign, PEOPLE)
        lines = await reading
    text = "\n".join(map(str, lines))
    assert "login by PLAIN" in text
    assert PASSWORD not in text


@pytest.mark.slow
async def test_conversation_is_of_the_next_run_only_and_of_each_reader(campaign: bulkmail.Campaign) -> None:
    async with ScriptedRelay() as relay:
        mailer = mailer_for(relay)
        first, second = mailer.conversation(), mailer.conversation()
        await mailer.send(campaign, PEOPLE[:1])
        await mailer.send(campaign, PEOPLE[1:2])
        lines = await read(first)
        assert lines == await read(second)
    assert any("p0@" in line.text for line in lines)
    assert not any("p1@" in line.text for line in lines)


async def test_reader_that_leaves_early_harms_nothing(campaign: bulkmail.Campaign) -> None:
    async with ScriptedRelay() as relay:
        mailer = mailer_for(relay)
        conversation = mailer.conversation()

        async def read_one() -> None:
            async for _ in conversation:
                break
            await conversation.aclose()

        reading = asyncio.create_task(read_one())
        report = await mailer.send(campaign, PEOPLE)
        await reading
    assert report.accepted == 3
    assert await read(conversation) == []


async def test_reader_that_no_one_reads_keeps_a_bounded_number_of_lines(
    campaign: bulkmail.Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAG", 5)
    async with ScriptedRelay() as relay:
        mailer = mailer_for(relay)
        conversation = mailer.conversation()
        await mailer.send(campaign, PEOPLE)
        lines = await read(conversation)
    assert len(lines) == 6
    assert lines[-1].text.endswith("lines are missing here: the reader was too slow for them")


async def test_conversation_ends_when_the_run_cannot_begin(campaign: bulkmail.Campaign) -> None:
    mailer = bulkmail.Mailer("smtp://127.0.0.1:1?tls=off", suppressions=None)
    conversation = mailer.conversation()
    with pytest.raises(bulkmail.NothingToSend):
        await mailer.send(campaign, [])
    assert await read(conversation) == []


@pytest.mark.slow
async def test_conversation_goes_on_beside_the_outcomes(campaign: bulkmail.Campaign) -> None:
    async with ScriptedRelay() as relay:
        mailer = mailer_for(relay)
        conversation = mailer.conversation()
        async with mailer.deliver(campaign, PEOPLE) as deliveries:
            outcomes = [settled async for settled in deliveries]
            async with asyncio.timeout(10):  # it ends with the run, not with this block
                lines = await read(conversation)
    assert len(outcomes) == 3
    assert any(line.text.startswith("RCPT TO") for line in lines)
