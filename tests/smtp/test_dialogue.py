"""Single questions to a relay, and servers that do not answer them."""

from __future__ import annotations

import asyncio

import pytest

from bulkmail.model.outcome import Breakage, Fault, Stage
from bulkmail.model.relay import Relay
from bulkmail.smtp.opening import Access, open_dialogue
from bulkmail.smtp.replies import Dialogue, SessionRefused
from bulkmail.testing import Drop, Hang, ScriptedRelay
from bulkmail.testing.answers import Script


async def asking(relay: ScriptedRelay) -> Dialogue:
    where = Relay.parse(f"smtp://127.0.0.1:{relay.port}?tls=off")
    dialogue, _ = await open_dialogue(Access(where), [])
    return dialogue


async def test_questions_are_answered_in_order() -> None:
    async with ScriptedRelay(mail="550 no", rset="250 reset") as relay:
        questions = await asking(relay)
        (first,) = await questions.ask(b"MAIL FROM:<a@b>\r\n", stage=Stage.MAIL, patience=5)
        (second,) = await questions.ask(b"RSET\r\n", stage=Stage.MAIL, patience=5)
        await questions.leave(patience=5)
        assert (first.code, second.code) == (550, 250)
    assert relay.commands[-1] == "QUIT"
    assert relay.violations == []


@pytest.mark.parametrize(
    ("answer", "kind", "what"),
    [
        pytest.param(Drop(), Breakage.LOST, "127.0.0.1 port {port} closed the connection", id="drop"),
        pytest.param(Hang(), Breakage.TIMEOUT, "127.0.0.1 port {port} did not answer within 0.1 s", id="hang"),
        pytest.param(
            b"hello\r\n",
            Breakage.DESYNC,
            '127.0.0.1 port {port} sent "hello" where a reply begins with a code from 200 to 599',
            id="no reply",
        ),
    ],
)
async def test_question_without_an_answer(answer: Script, kind: Breakage, what: str) -> None:
    async with ScriptedRelay(mail=answer) as relay:
        questions = await asking(relay)
        with pytest.raises(SessionRefused) as caught:
            await questions.ask(b"MAIL FROM:<a@b>\r\n", stage=Stage.MAIL, patience=0.1)
        await questions.leave(patience=0.1)
        await asyncio.sleep(0.01)
    assert caught.value.event == Fault(Stage.MAIL, kind, what.format(port=relay.port))
