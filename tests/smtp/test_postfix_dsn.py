"""A real Postfix takes what we ask of it beside the message."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from bulkmail.model.delivery import Envelope
from bulkmail.model.outcome import Reply
from bulkmail.model.relay import Relay
from bulkmail.smtp.peer_policy import PeerPolicy
from bulkmail.smtp.transaction import Transfer
from tests.connections import Single
from tests.servers.kept import MailServer

PEOPLE = ("ann+x@example.com", "Ольга@example.com", "佐=+\\藤@example.com", "bob@example.com")


@pytest.mark.timeout(40)
@pytest.mark.parametrize("depth", [1, 8])
async def test_postfix_takes_reports_for_every_address(postfix: MailServer, make_message, depth: int) -> None:
    notices: list[str] = []
    relay = Relay.parse(f"{postfix.url}&dsn=failure,delay&dsn_return=full")
    session = await Single.to(relay, None, tls_context=None, policy=PeerPolicy(depth=depth, notify=notices.append))
    assert session.capabilities.dsn
    events = []
    messages = [
        replace(make_message(), envelope=Envelope("shop@example.org", PEOPLE[0], PEOPLE[1:])),
        replace(make_message(), envelope=Envelope("shop@example.org", "unknown@example.com", ("cy@example.com",))),
    ]
    transfers = [Transfer(message, lambda done: done(None), events.append) for message in messages]
    waiting = iter(transfers)
    await session.carry(lambda: next(waiting, None))
    await session.quit()
    assert [event.code for event in events if isinstance(event, Reply)] == [250, 250], events
    assert transfers[0].own == {}
    assert {number: str(event)[:9] for number, event in transfers[1].own.items()} == {0: "550 5.1.1"}
    assert notices == []
    await asyncio.to_thread(postfix.wait_for, 5)
    kept = [*PEOPLE, "cy@example.com"]
    assert len(postfix.kept()) == len(kept)
