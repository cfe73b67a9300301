"""What the question before sending tells: which deliveries this run sends, how many, and the first message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from bulkmail.mailing.mailing import Mailing
from bulkmail.message.compose.composer import Composer
from bulkmail.model.errors import BulkmailError, ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address, Recipient
from bulkmail.model.route import MailboxProviders
from bulkmail.text import printable

_BATCH = 10_000  # rows


@dataclass(frozen=True, slots=True)
class Audience:
    """`sender` and `subject` as in the message of the first row that is to be written to, safe to print; empty if none.

    `providers` are those of the recipients not yet tried, the one with most first: a provider's name or a domain.
    """

    sender: str
    subject: str
    providers: tuple[tuple[str, int], ...]


def audience_of(mailing: Mailing, known: MailboxProviders) -> Audience:
    """Reads all rows that are pending: about a second for 100,000."""
    sender = subject = ""
    providers: Counter[str] = Counter()
    domains: Counter[str] = Counter()
    for recipient in _pending(mailing):
        if not domains:
            sender, subject = _first_message(mailing, recipient)
        domains[recipient.address.domain] += 1
    for domain, number in domains.items():
        providers[known.of(domain)] += number
    return Audience(sender, subject, tuple(providers.most_common()))


def _pending(mailing: Mailing) -> Iterator[Recipient]:
    after = 0
    while rows := mailing.outbox.pending_rows(after, _BATCH):
        for _, recipient in rows:
            yield recipient
        after = rows[-1][0]


def _first_message(mailing: Mailing, recipient: Recipient) -> tuple[str, str]:
    campaign = mailing.outbox.campaign
    if campaign is None:
        return "", ""
    try:
        message = Composer(campaign, run_id=mailing.outbox.run_id, keys=mailing.keys).render(recipient)
    except BulkmailError:  # from an on_message hook, for example; the checks have reported it
        return "", ""
    return printable(message.sender), printable(message.subject)


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
