"""A run's share of the ledger: spent without waiting, settled to the recipient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkmail.model.quota import DAY, Quota, QuotaBooking
from bulkmail.model.timing import Hold
from bulkmail.outbox.ledger import BATCH, HOLD, Allowance, Ledger

NOW = 1_800_000_000.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "account.ledger") as opened:
        yield opened


async def test_allowance_of_500_sends_500_and_then_says_when(ledger: Ledger) -> None:
    allowance, sent, now = Allowance(ledger, quota=Quota(per_day=500)), 0, NOW
    refusal: Hold | None = None
    while refusal is None:
        while allowance.take(1, now):
            sent += 1
        refusal = await allowance.refill(now)
    assert sent == 500
    assert refusal == Hold(NOW + DAY, "the quota of 500/day is used up")
    assert ledger.bookings(now) == [QuotaBooking(NOW, 500)]
    assert await allowance.refill(NOW + DAY) is None


async def test_allowance_settles_what_was_spent_and_no_more(ledger: Ledger) -> None:
    allowance = Allowance(ledger)
    assert not allowance.take(1, NOW)
    assert await allowance.refill(NOW) is None
    assert sum(booking.count for booking in ledger.bookings(NOW)) == BATCH
    assert allowance.take(3, NOW)
    allowance.give_back(1)
    await allowance.settle(NOW)
    await allowance.settle(NOW)
    assert ledger.bookings(NOW) == [QuotaBooking(NOW, 2)]
    assert not allowance.take(1, NOW)


async def test_allowance_is_not_good_for_ever(ledger: Ledger) -> None:
    allowance = Allowance(ledger)
    assert await allowance.refill(NOW) is None
    assert not allowance.take(1, NOW + HOLD)
    assert await allowance.refill(NOW + HOLD) is None
    assert allowance.take(1, NOW + HOLD)


async def test_allowance_of_every_run_pauses_when_the_provider_says_so(ledger: Ledger) -> None:
    one, other = Allowance(ledger), Allowance(ledger)
    assert await one.pause(DAY, "550 5.4.5 daily limit", NOW) == NOW + DAY
    assert await other.refill(NOW + 1) == Hold(NOW + DAY, "550 5.4.5 daily limit")
    assert await other.refill(NOW + DAY) is None


async def test_allowance_is_refilled_before_it_is_empty_and_counts_to_the_recipient(ledger: Ledger) -> None:
    allowance, sent = Allowance(ledger, quota=Quota(per_day=1000)), 0
    assert allowance.is_running_low(NOW)
    await allowance.refill(NOW)
    while True:
        assert allowance.take(1, NOW)
        sent += 1
        if allowance.is_running_low(NOW):
            if sent > 300:
                break
            assert await allowance.refill(NOW) is None
            assert allowance.take(1, NOW)  # no one had to wait
            sent += 1
    await allowance.settle(NOW)
    assert sum(booking.count for booking in ledger.bookings(NOW)) == sent


async def test_allowance_that_got_all_there_was_is_spent_before_more_is_asked_for(ledger: Ledger) -> None:
    allowance = Allowance(ledger, quota=Quota(per_day=7))
    await allowance.refill(NOW)
    for left in range(7, 0, -1):
        assert not allowance.is_running_low(NOW), left
        assert allowance.take(1, NOW)
    assert allowance.is_running_low(NOW)
    assert isinstance(await allowance.refill(NOW), Hold)
