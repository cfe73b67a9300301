"""Which deliveries of a mailing this run sends, and how many these are."""

from __future__ import annotations

from collections.abc import Iterable

from bulkmail.mailing.mailing import Mailing
from bulkmail.model.address import Address
from bulkmail.model.errors import ConfigError


def choose(mailing: Mailing, addresses: Iterable[Address]) -> None:
    """Only the rows with these addresses are sent, with their copies; the others stay as they are.

    Raises `ConfigError` for an address that is not in the list.
    """
    named = {address.key: address for address in addresses}
    found = mailing.outbox.deliveries_to(named)
    if missing := [address.readable for key, address in named.items() if key not in found]:
        raise ConfigError(
            f"--only: {', '.join(missing[:5])} {'is' if len(missing) == 1 else 'are'} not in the list",
            hint="give the address as it is in the list",
        )
    mailing.wants = {number for numbers in found.values() for number in numbers}


def count_next(mailing: Mailing) -> tuple[int, int]:
    """How many rows, and how many deliveries, this run may write to: those chosen, and no more than its limit."""
    tally = mailing.tally
    found = (tally.open_rows, tally.open) if mailing.wants is None else mailing.outbox.count_wanted(mailing.wants)
    rows, deliveries = (min(number, mailing.pace.limit or number) for number in found)
    return rows, deliveries
