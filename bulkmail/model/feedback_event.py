"""What came back about one message of a campaign: the value that mail intake hands to the suppression list."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from bulkmail.model.address import Address
from bulkmail.model.lazy_dataclass import dataclass

MOST_WORDS = 200
"""Characters of a server's words that an event quotes."""

MOST_REPORT_BYTES = 65_536
"""Of a report as it came, that an event carries."""


class FeedbackKind(Enum):
    """What a report says.  The values are the words in files, reports and on the command line."""

    HARD = "hard"
    SOFT = "soft"
    BLOCKED = "blocked"
    DELAYED = "delayed"
    SPAM_COMPLAINT = "spam_complaint"
    UNSUBSCRIBE = "unsubscribe"
    AUTO_REPLY = "auto_reply"
    DELIVERED = "delivered"
    UNCLEAR = "unclear"

    @property
    def is_bounce(self) -> bool:
        """Whether the message did not reach the mailbox."""
        return self in (FeedbackKind.HARD, FeedbackKind.SOFT, FeedbackKind.BLOCKED)

    @property
    def may_suppress(self) -> bool:
        """Whether an event of this kind, alone or with others, may put its address on the suppression list."""
        return self in _SUPPRESSING


_SUPPRESSING = frozenset({FeedbackKind.HARD, FeedbackKind.SOFT, FeedbackKind.SPAM_COMPLAINT, FeedbackKind.UNSUBSCRIBE})


class Proof(Enum):
    """How an event is known to be about a message of ours, from the best to none."""

    SMTP = "smtp"  # a reply in our own session
    TOKEN = "token"  # noqa: S105 - our keyed token: in a reverse path, X-Bulkmail-Id or an unsubscribe link
    MESSAGE_ID = "message_id"  # quoted: only the recipient and the servers on the way know it
    ENVELOPE_ID = "envelope_id"  # Original-Envelope-Id, RFC 3464 §2.2.1
    WEBHOOK = "webhook"  # signed by a service, and it names a message of ours
    ADDRESS = "address"  # only the address is known: anyone may have written it
    NONE = "none"

    @property
    def is_proved(self) -> bool:
        """Whether the event may be believed.  One that is not counts as one soft bounce of its run at most."""
        return self not in (Proof.ADDRESS, Proof.NONE)


@dataclass(frozen=True, slots=True)
class FeedbackEvent:
    """One thing that came back about one address.

    `source_id` is the same each time the same report is read, so that reading twice changes nothing; a report about
    two recipients makes two events with two ids.  `at` is wall-clock seconds: when the report was written, or read
    where it does not say.

    `address` is the mailbox that the event is about, None where the report does not tell (then nothing may act on it);
    `forward_path` the one that was really spoken to (RFC 5321 §2.3.5), empty where the event is matched to no delivery.
    The two differ for a mailbox that forwards: what acts on an event acts on the forward path's mailbox, see `mailbox`.

    `run_id` is empty and `row` and `delivery` are None where no run of ours is known; `campaign` and `list_id` are
    empty where the run has none.  `row` is the input row's number, from 1; `delivery` the outbox' number of the
    forward path.  An unsubscribe event with an empty `list_id` is about all lists.

    `reason` is a short word of `data/bounces.toml` (`unknown-user`), `code` and `enhanced` the server's digits,
    `words` at most `MOST_WORDS` printable characters of its text.  `source` names where it was read, for people:
    `maildir /var/mail/bounces`.  `report` is the report as it came, cut at `MOST_REPORT_BYTES`; empty where there is
    none.

    `replaces` are the source ids that the same report has while no message of ours is known for it: an event that is
    kept under one of them without proof goes when this one comes.
    """

    source_id: str
    kind: FeedbackKind
    at: float
    proof: Proof
    address: Address | None = None
    forward_path: str = ""
    run_id: str = ""
    campaign: str = ""
    list_id: str = ""
    row: int | None = None
    delivery: int | None = None
    reason: str = ""
    code: int | None = None
    enhanced: str = ""
    words: str = ""
    source: str = ""
    report: bytes = b""
    replaces: tuple[str, ...] = ()

    @property
    def mailbox(self) -> Address | None:
        """Whom the event acts on: the forward path's mailbox, else `address`."""
        local, at, domain = self.forward_path.rpartition("@")
        return Address(local, domain) if at else self.address


class EventSink(Protocol):
    """Where events go: the store of the suppression list."""

    def record(self, events: Sequence[FeedbackEvent]) -> int:
        """Keeps those whose `source_id` is not known yet, in one transaction, and says how many those were.

        They are durable when it returns: only then is mail moved or a webhook answered.  Blocks.
        """
        ...


@dataclass(frozen=True, slots=True)
class KnownRun:
    """One run as tokens and matching need it.

    `number` is small and unique in one store, from 1; `outbox` the path of its outbox, absolute; `began_at` wall-clock
    seconds.  `is_bulk`: its message says itself that it goes to a list.
    """

    number: int
    run_id: str
    campaign: str = ""
    list_id: str = ""
    outbox: str = ""
    began_at: float = 0.0
    is_bulk: bool = False


class RunRegister(Protocol):
    """The runs that reports may be about, and the key that their tokens are signed with."""

    def register(self, run: KnownRun) -> KnownRun:
        """Makes the run known, and gives it its number; a `run_id` that is known keeps the number it has.

        The number of `run` is ignored.  Durable when it returns.
        """
        ...

    def runs(self) -> Sequence[KnownRun]:
        """All of them, in the order of their numbers."""
        ...

    def token_key(self) -> bytes:
        """32 random bytes, made once for the store, that sign `{bounce}` tokens and X-Bulkmail-Id."""
        ...


class ReadingPlaces(Protocol):
    """How far each mailbox was read, so that mail that is kept is not fetched again.  Losing it costs only time."""

    def place(self, source: str) -> tuple[int, int]:
        """UIDVALIDITY and the highest UID of which the events are durable (RFC 9051 §2.3.1.1); (0, 0) at first."""
        ...

    def set_place(self, source: str, place: tuple[int, int]) -> None:
        """Called after `EventSink.record` has returned."""
        ...
