"""aiosmtpd's opinion on what we say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult

from bulkmail.model.delivery import Message
from bulkmail.model.outcome import Reply, Stage
from bulkmail.model.relay import Relay, Secret
from bulkmail.smtp.credentials import Credentials
from bulkmail.smtp.replies import SessionRefused
from tests.connections import Single


class Keeper:
    """Keeps every envelope, and knows no `ghost@`."""

    def __init__(self) -> None:
        self.envelopes: list[Any] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address.startswith("ghost@"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.envelopes.append(envelope)
        return "250 2.0.0 kept"


@asynccontextmanager
async def serving(keeper: Keeper, **options: Any) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(keeper, enable_SMTPUTF8=True, hostname="aiosmtpd.test", loop=loop, **options), "127.0.0.1", 0
    )
    try:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}?tls=off"
    finally:
        server.close()


async def test_messages_arrive_as_they_were(make_message: Callable[..., Message]) -> None:
    contents = [
        b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n\r\n.\r\n",
        b"Subject: long\r\n\r\n" + b"".join(b"." * (n % 70) + b"x\r\n" for n in range(20_000)),
        "Subject: grüße\r\n\r\nGrüße\r\n".encode(),
    ]
    keeper = Keeper()
    async with serving(keeper) as where:
        session = await Single.to(Relay.parse(where), None, tls_context=None)
        for content in contents:
            eight_bit = not content.isascii()
            message = make_message(content[:20], content[20:], is_8bit=eight_bit, needs_smtputf8=eight_bit)
            event = await session.transact(message, lambda done: done(None))
            assert event == Reply(Stage.END, 250, "2.0.0", "kept")
        await session.quit()
    assert [envelope.original_content for envelope in keeper.envelopes] == contents
    assert [envelope.mail_from for envelope in keeper.envelopes] == ["news@example.org"] * 3
    assert "SMTPUTF8" in keeper.envelopes[2].mail_options


async def test_refused_recipients_spoil_no_neighbour(make_message: Callable[..., Message]) -> None:
    keeper = Keeper()
    async with serving(keeper) as where:
        session = await Single.to(Relay.parse(where), None, tls_context=None)
        codes = []
        for number in range(20):
            address = f"{'ghost' if number % 3 == 0 else 'ann'}@example.com"
            event = await session.transact(make_message(to=address), lambda done: done(None))
            assert isinstance(event, Reply)
            codes.append(event.code)
        await session.quit()
    assert codes == [550 if number % 3 == 0 else 250 for number in range(20)]
    assert [envelope.rcpt_tos for envelope in keeper.envelopes] == [["ann@example.com"]] * 13


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("password", ["right", "wrong"])
async def test_login(mechanism: str, password: str) -> None:
    attempts: list[str] = []

    def authenticator(server: Any, session: Any, envelope: Any, used: str, data: Any) -> AuthResult:
        attempts.append(used)
        return AuthResult(success=(data.login, data.password) == (b"ann", b"right"), handled=False)

    others = {"PLAIN", "LOGIN"} - {mechanism}
    options = {"authenticator": authenticator, "auth_require_tls": False, "auth_exclude_mechanism": others}
    async with serving(Keeper(), **options) as where:
        relay = Relay.parse(f"{where}&auth=plaintext")
        credentials = Credentials("ann", Secret(password))
        if password == "right":
            session = await Single.to(relay, credentials, tls_context=None)
            await session.quit()
        else:
            with pytest.raises(SessionRefused) as caught:
                await Single.to(relay, credentials, tls_context=None)
            assert isinstance(caught.value.event, Reply)
            assert (caught.value.event.stage, caught.value.event.code) == (Stage.AUTH, 535)
            await asyncio.sleep(0.01)
    assert attempts == [mechanism]
