"""What came back about messages: one event, what events of a recipient come to, how long mail waited unread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Reason, Reply, Scope
from bulkmail.model.quantities import say_duration
from bulkmail.model.quota import DAY
from bulkmail.model.recipient import Address
from bulkmail.model.tally import Status
from bulkmail.text import printable

if TYPE_CHECKING:
    from bulkmail.model.delivery import AttemptResult, Delivery

# -- What came back about one message of a campaign: the value that mail intake hands to the suppression list.


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
    It has more attributes than a class should: it is a row of a table, read and written as a whole.
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


# -- What the replies of our own sessions say of mailboxes, as events for the suppression list.


_NO_SUCH_MAILBOX = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.4.4"})  # RFC 3463, RFC 7505
_DISABLED = "5.2.1"  # RFC 3463 §3.3: the mailbox exists, and takes no mail for now
_GONE = frozenset({Reason.UNKNOWN_USER, Reason.MOVED})
_FULL = frozenset({Reason.MAILBOX_FULL, Reason.NOT_NOW})


def kind_of_reply(delivery: Delivery, attempt: AttemptResult) -> FeedbackKind | None:
    """HARD or SOFT when the outcome of a delivery says something about its mailbox, else None.

    Hard only if the verdict's scope is the recipient: what is refused for the message, the session, the relay or the
    sender says nothing about it; nor does a policy.
    """
    verdict = attempt.verdict
    if verdict.scope is not Scope.RECIPIENT or not isinstance(attempt.event, Reply):
        return None
    if delivery.status is Status.REJECTED:
        enhanced = attempt.event.enhanced or ""
        if enhanced == _DISABLED or verdict.reason in _FULL:
            return FeedbackKind.SOFT
        if verdict.reason in _GONE or enhanced in _NO_SUCH_MAILBOX:
            return FeedbackKind.HARD
        return None
    if delivery.status is Status.EXPIRED and verdict.reason in _FULL:
        return FeedbackKind.SOFT
    return None


def event_of_reply(
    delivery: Delivery, attempt: AttemptResult, *, run_id: str, campaign: str, list_id: str
) -> FeedbackEvent | None:
    """What a server said of a mailbox in our own session, as an event; None when it said nothing of it.

    It is about the forward path that was spoken to, which may be a copy's.  The same outcome of the same delivery has
    the same `source_id`; when it is tried again later and refused again, that is another.
    """
    kind = kind_of_reply(delivery, attempt)
    reply = attempt.event
    if kind is None or not isinstance(reply, Reply):
        return None
    return FeedbackEvent(
        source_id=f"smtp {run_id} {delivery.id} {delivery.tries}",
        kind=kind,
        at=attempt.at + attempt.took,
        proof=Proof.SMTP,
        forward_path=delivery.forward_path,
        run_id=run_id,
        campaign=campaign,
        list_id=list_id,
        row=delivery.row,
        delivery=delivery.id,
        reason=attempt.verdict.reason.value.replace(" ", "-"),
        code=reply.code,
        enhanced=reply.enhanced or "",
        words=printable(reply.text, MOST_WORDS),
        source=f"smtp {attempt.relay}",
    )


# -- What came back about the recipients of a run, folded from events: one answer for each row and each copy.


GRAVEST_FIRST = (
    FeedbackKind.SPAM_COMPLAINT,
    FeedbackKind.UNSUBSCRIBE,
    FeedbackKind.HARD,
    FeedbackKind.SOFT,
    FeedbackKind.BLOCKED,
    FeedbackKind.UNCLEAR,
    FeedbackKind.DELAYED,
    FeedbackKind.AUTO_REPLY,
    FeedbackKind.DELIVERED,
)
"""Which of several answers of one recipient counts."""

_RANK = {kind: rank for rank, kind in enumerate(GRAVEST_FIRST)}

COMPLAINTS_GOOD, COMPLAINTS_BAD = 0.001, 0.003
"""Shares of spam complaints that Gmail and Yahoo ask senders to stay below, and never to reach."""


class CameBack(NamedTuple):
    """What came back about one recipient: `at` is wall-clock seconds, `reason` a short word such as `unknown-user`."""

    kind: FeedbackKind
    at: float
    reason: str


class ReturnedEvent(NamedTuple):
    """One event about a run, as far as reports need it.

    `row` and `delivery` are None where the event names only an address, by its `key` (`Address.key`).
    """

    kind: FeedbackKind
    at: float
    reason: str
    key: str
    row: int | None
    delivery: int | None


class SentPath(NamedTuple):
    """One delivery of a run: its number, its row, and its forward path.  `is_copy`: not the row's own recipient."""

    delivery: int
    row: int
    path: str
    is_copy: bool


@dataclass(frozen=True, slots=True)
class ReturnedCounts:
    """How many rows, and how many of their copies, something of each kind came back about.

    `unmatched` counts what came back to the same suppression list and is matched to no message.
    """

    rows: Mapping[FeedbackKind, int] = field(default_factory=dict)
    copies: Mapping[FeedbackKind, int] = field(default_factory=dict)
    unmatched: int = 0

    def __getitem__(self, kind: FeedbackKind) -> int:
        return self.rows.get(kind, 0)

    def __add__(self, other: ReturnedCounts) -> ReturnedCounts:
        return ReturnedCounts(
            Counter(self.rows) + Counter(other.rows),
            Counter(self.copies) + Counter(other.copies),
            self.unmatched + other.unmatched,
        )


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back about a run: by row, and for its copies by row and forward path in lower case.

    Each recipient counts once, by the gravest of what came back about them.
    """

    rows: Mapping[int, CameBack] = field(default_factory=dict)
    copies: Mapping[tuple[int, str], CameBack] = field(default_factory=dict)

    def counts(self, rows: Container[int] | None = None) -> ReturnedCounts:
        """How much of each kind came back, or only about these rows and their copies."""
        return ReturnedCounts(
            Counter(came.kind for row, came in self.rows.items() if rows is None or row in rows),
            Counter(came.kind for (row, _), came in self.copies.items() if rows is None or row in rows),
        )


def fold_returned(events: Iterable[ReturnedEvent], paths: Collection[SentPath]) -> Returned:
    """What `events` come to.  `paths` are the deliveries of the rows that they name; events about others are dropped.

    An event without a delivery is about the own recipient of its row.
    """
    by_delivery = {path.delivery: path for path in paths}
    own = {path.row: path for path in paths if not path.is_copy}
    rows: dict[int, CameBack] = {}
    copies: dict[tuple[int, str], CameBack] = {}
    for event in events:
        path = own.get(event.row or 0) if event.delivery is None else by_delivery.get(event.delivery)
        if path is None:
            continue
        came = CameBack(event.kind, event.at, event.reason)
        if path.is_copy:
            key = (path.row, path.path.lower())
            copies[key] = graver(copies.get(key), came)
        else:
            rows[path.row] = graver(rows.get(path.row), came)
    return Returned(rows, copies)


def graver(one: CameBack | None, other: CameBack) -> CameBack:
    """The one that counts; of two of a kind, the first."""
    return other if one is None or (_RANK[other.kind], other.at) < (_RANK[one.kind], one.at) else one


# -- How long mail that came back was left unread while a bulk campaign is young.
#
# Gmail and Yahoo ask bulk senders to act on an opt-out within two days.


WARN_AFTER = DAY
"""Seconds without a successful intake after which people are warned."""

REFUSE_AFTER = 2 * DAY
"""Seconds after which it is an error."""

MANY = 5_000
"""Recipients from which the mailbox providers call a sender a bulk sender."""

YOUNG = 30 * DAY
"""Seconds after its beginning in which a campaign's mail is waited for."""


@dataclass(frozen=True, slots=True)
class IntakeState:
    """What a suppression list knows of intake.  Times are wall-clock seconds, None for never.

    `pulled_at` is when a mailbox was last read to its end, `pushed_at` when a mail server or a service last handed
    something over; `bulk_began` is when the oldest bulk campaign that is still young was begun.
    """

    pulled_at: float | None = None
    pushed_at: float | None = None
    bulk_began: float | None = None

    def overdue(self, now: float) -> float:
        """Seconds for which intake should have succeeded and has not; 0.0 while there is nothing to wait for.

        Where mail is handed over, silence says nothing.
        """
        pulled, pushed = self.pulled_at or 0.0, self.pushed_at or 0.0
        if self.bulk_began is None or self.bulk_began < now - YOUNG or (pushed > pulled and pushed > now - YOUNG):
            return 0.0
        return max(0.0, now - max(self.bulk_began, pulled))


def say_overdue(seconds: float) -> str:
    """A sentence for people, without a full stop; empty while there is nothing to warn of."""
    if seconds < WARN_AFTER:
        return ""
    return (
        f"mail that came back was not read for {say_duration(seconds)}, and a bulk campaign is younger than 30 days:"
        " Gmail and Yahoo want opt-outs to be acted on within 48 hours"
    )
