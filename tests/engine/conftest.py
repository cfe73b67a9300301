"""An outbox with people in it, and a run over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from bulkmail.engine.contracts import Connection, Ending, Event, Outlet, Plan
from bulkmail.engine.engine import Engine
from bulkmail.model.delivery import Envelope, Job, Message
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.model.relay import Relay, Tls
from bulkmail.model.route import Route
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.sending import OutboxStore
from bulkmail.testing import ScriptedRelay
from tests.connections import Single


def compose(job: Job, first_at: float) -> Message:
    """The shortest message there is."""
    path = job.delivery.forward_path
    content = f"Subject: hello\r\nMessage-ID: <{job.delivery.row}@example.com>\r\n\r\nDear {path}\r\n".encode()
    return Message(Envelope("sender@example.com", path), f"<{job.delivery.row}@example.com>", (content,))


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    """Empty, in memory; loaded by `people`."""
    with Outbox.create(None, campaign=None) as box:
        yield box


@pytest.fixture
def people(outbox: Outbox) -> Callable[[int], list[str]]:
    """Puts this many people into the outbox and says their addresses."""

    def add(number: int) -> list[str]:
        addresses = [f"p{n}@example.com" for n in range(1, number + 1)]
        outbox.record(
            Entry(Recipient(Address.parse(address), "", {"email": address}, Place("people.csv", line)))
            for line, address in enumerate(addresses, 2)
        )
        outbox.finish_loading()
        return addresses

    return add


@pytest.fixture
def events() -> list[Event]:
    """What the run under test told."""
    return []


@pytest.fixture
def make_engine(outbox: Outbox, events: list[Event]) -> Callable[..., Engine]:
    """An engine over the outbox; `to` is a scripted relay or a function that opens lines."""

    def make(
        to: Any, *, connections: int = 3, pace: Pace | None = None, wants: set[int] | None = None, **more: Any
    ) -> Engine:
        async def open_session() -> Connection:
            relay = Relay.parse(f"smtp://{to.host}:{to.port}?tls=off")
            assert relay.tls is Tls.OFF
            return await Single.to(relay, None, tls_context=None)

        url = f"smtp://{to.host}:{to.port}?tls=off" if isinstance(to, ScriptedRelay) else "smtp://me@relay.example"
        route = Route(replace(Relay.parse(url), connections=connections), name="the relay")
        plan = Plan(
            OutboxStore(outbox, wants=wants),
            compose=compose,
            outlets=[Outlet(route, open_session if isinstance(to, ScriptedRelay) else to)],
            pace=pace or Pace(),
            **{"observe": events.append, **more},
        )
        return Engine(plan)

    return make


Run = Callable[..., Ending]
