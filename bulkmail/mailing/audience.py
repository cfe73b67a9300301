"""Who is about to get a message, and what the first of them will read: for the question before sending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bulkmail.mailing.mailing import Mailing
from bulkmail.message.composer import Composer
from bulkmail.model.errors import BulkmailError
from bulkmail.model.lane import MailboxProviders
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.printing import printable
from bulkmail.model.recipient import Recipient

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
    except BulkmailError:  # with an on_message hook, say; the gate has told what matters
        return "", ""
    return printable(message.sender), printable(message.subject)
