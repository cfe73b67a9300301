"""Whole campaigns over stores that answer late, refuse marks and lose claims: nobody twice, nobody forgotten."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from bulkmail.engine.contracts import Connection, DeliveryResult, Outlet, Plan, ResultBatch, Store
from bulkmail.engine.engine import Engine
from bulkmail.model.pace import Pace
from bulkmail.model.relay import Relay
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.route import Route
from bulkmail.model.tally import Status
from bulkmail.testing import ScriptedRelay
from tests.connections import Single
from tests.engine.conftest import compose
from tests.outbox.making import make_recipient
from tests.store.conftest import Open, answered
from tests.store.memory import MemoryStore

SOON = Pace(retry=RetryPolicy(schedule=(0.02,) * 20))


async def send(store: Store, relay: ScriptedRelay, *, connections: int = 3) -> list[DeliveryResult]:
    """One engine's run over the store; what it told."""
    told: list[DeliveryResult] = []
    where = Relay.parse(f"smtp://{relay.host}:{relay.port}?tls=off&connections={connections}")

    async def connect() -> Connection:
        return await Single.to(where)

    plan = Plan(
        store,
        compose,
        [Outlet(Route(where, "the relay"), connect)],
        pace=SOON,
        observe=lambda event: told.extend(event.results) if isinstance(event, ResultBatch) else None,
    )
    ending = await Engine(plan).run()
    assert ending.error is None, ending.error
    return told


def taken(relay: ScriptedRelay) -> Counter[str]:
    """How often the relay took a message for each path."""
    return Counter(path for message in relay.messages for path in message.forward_paths)


@pytest.mark.slow
async def test_campaign_reaches_everybody_once(make_store: Open, rng: random.Random) -> None:
    store = await make_store(150)
    async with ScriptedRelay(rcpt=lambda path: None if rng.random() < 0.9 else "451 4.2.1 busy") as relay:
        await send(store, relay)
    assert set(taken(relay).values()) == {1} and len(taken(relay)) == 150
    assert (await answered(store.tally()))[Status.ACCEPTED] == 150


@pytest.mark.slow
@pytest.mark.parametrize(("refuses", "loses"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.2), (0.05, 0.1), (0.05, 0.3)])
async def test_campaign_over_a_store_that_refuses_and_loses(refuses: float, loses: float) -> None:
    rng = random.Random(int(100 * refuses + 1000 * loses))
    recipients = [make_recipient(number) for number in range(1, 41)]
    store = MemoryStore(recipients, rng=rng, refuses=refuses, loses=loses)
    async with ScriptedRelay(rcpt=lambda path: None if rng.random() < 0.9 else "451 4.2.1 busy") as relay:
        told = await send(store, relay)
    times = taken(relay)
    assert set(times.values()) <= {1}
    by_path = {row.delivery.forward_path: number for number, row in store.rows.items()}
    here = {by_path[path] for path in times}
    assert not here & store.elsewhere, "what another process had taken over was sent here, too"
    assert store.statuses() == {Status.ACCEPTED: 40}
    assert here | store.elsewhere == store.rows.keys()
    assert Counter(e.delivery.id for e in told if e.delivery.status is Status.ACCEPTED) == Counter(here)
