"""What a store of the suppression list promises, whatever it keeps the list in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from bulkmail.model.feedback_event import (
    EventSink,
    FeedbackEvent,
    FeedbackKind,
    IntakeState,
    ReadingPlaces,
    ReturnedEvent,
    RunRegister,
)
from bulkmail.model.lazy import dataclass
from bulkmail.model.suppression import ALL_LISTS, SuppressionEntry, SuppressionPolicy, SuppressionReason

DIGEST_BYTES = 16
"""Of the keyed digest of an address or a domain."""

PREFIX_BYTES = 8
"""Of a digest, by which a run looks recipients up in memory."""


@dataclass(frozen=True, slots=True)
class Addition:
    """An address (`Address.key`) or a domain (`@domain`) to put on the list, in lower case.

    `digest` stands in for a key that is not known: of an entry that was erased, from a file of this store's own.
    """

    key: str
    reason: SuppressionReason = SuppressionReason.MANUAL
    scope: str = ALL_LISTS
    until: float | None = None
    note: str = ""
    since: float | None = None
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class EntryQuery:
    """Which entries are meant; what is None or empty limits nothing.

    `since` and `to` bound when an entry was made (wall clock, `to` is not included).  `campaign`, `run_id` and
    `provider` are those of the event that caused it.
    """

    reason: SuppressionReason | None = None
    since: float | None = None
    to: float | None = None
    campaign: str = ""
    run_id: str = ""
    provider: str = ""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as the store kept it; of `source_id` a digest is left.

    `key` is whom it acts on, empty once erased, or where no address is named.  `is_held`: a hard bounce that looks like
    its provider's mistake, and so is kept as unclear.
    """

    number: int
    event: FeedbackEvent
    key: str
    provider: str
    is_held: bool
    read_at: float


@dataclass(frozen=True, slots=True)
class ListChange:
    """One change of the list: `what` is added, removed, held, imported or erased.  `at` is wall-clock seconds."""

    seq: int
    at: float
    what: str
    reason: str
    scope: str
    why: str
    who: str


@dataclass(frozen=True, slots=True)
class AddressHistory:
    """All that is known of one address or domain, oldest first."""

    entries: tuple[SuppressionEntry, ...]
    events: tuple[StoredEvent, ...]
    changes: tuple[ListChange, ...]


@dataclass(frozen=True, slots=True)
class ProviderMistake:
    """A provider whose hard bounces of one run are not believed: `held` of them, since `since` (wall clock)."""

    run_id: str
    campaign: str
    provider: str
    since: float
    held: int


@dataclass(frozen=True, slots=True)
class ChangedKeys:
    """What was added after a `seq`: `latest` is the newest change; `keys` are addresses and domains.

    `has_more`: others were added that are too many to name, or of which no address is known any more.
    """

    latest: int
    keys: frozenset[str]
    has_more: bool


class SuppressionStore(EventSink, RunRegister, ReadingPlaces, Protocol):
    """The list, with what came back and how it was changed.

    Any number of processes and threads may use one at once.  Every method blocks, may raise `SuppressionError`, and
    what it wrote is durable when it returns.
    """

    def add(self, additions: Iterable[Addition], *, why: str = "", who: str = "") -> int:
        """Puts these on the list, each with a change of its own; returns how many were not there.

        One that is there stays as it is, unless it had run out or lasts longer now.
        """
        ...

    def import_(self, additions: Iterable[Addition], *, why: str, who: str = "") -> int:
        """The same for any number, as a single change.  Nothing is ever removed by it."""
        ...

    def remove(
        self,
        keys: Iterable[str],
        *,
        why: str,
        who: str = "",
        reason: SuppressionReason | None = None,
        scope: str | None = None,
    ) -> int:
        """Takes these addresses or domains off the list, or only their entries of `reason` or of one list.

        Returns how many entries that were.

        What counted towards it before does not count again; a later hard bounce or spam complaint brings it back.
        """
        ...

    def undo(self, query: EntryQuery, *, why: str, who: str = "") -> int:
        """Takes all entries that `query` means off the list; returns how many."""
        ...

    def count(self, query: EntryQuery) -> int:
        """How many entries `query` means."""
        ...

    def entries(self, query: EntryQuery) -> Iterator[SuppressionEntry]:
        """The entries that `query` means, in no order that means anything.  Holds no lock between two of them."""
        ...

    def newest(self, query: EntryQuery, limit: int) -> list[SuppressionEntry]:
        """The entries that `query` means, the newest first, at most `limit`."""
        ...

    def history(self, key: str) -> AddressHistory:
        """All that is known of an address or domain."""
        ...

    def unmatched(self, limit: int) -> list[StoredEvent]:
        """What came back and was matched to no message of ours, the newest first, at most `limit`."""
        ...

    def note_intake(self, source: str, *, is_pushed: bool) -> None:
        """All that was in `source` is durable; `is_pushed`: a mail server or a service hands it over."""
        ...

    def intake_state(self) -> IntakeState:
        """When intake last succeeded, and since when a bulk campaign waits for it."""
        ...

    def count_unmatched(self) -> int:
        """How much came back and was matched to no message of ours."""
        ...

    def returned(self, run_id: str) -> list[ReturnedEvent]:
        """What came back about a run, by mail and webhook, oldest first; refusals in our own sessions are left out.

        A report that only names an address is of the kind that it counts as.
        """
        ...

    def opted_out(self, list_id: str, *, since: float, to: float) -> list[ReturnedEvent]:
        """Who unsubscribed from a list, or from all, in `since <= at < to`, without a run being known; oldest first."""
        ...

    def count_returned(self) -> dict[tuple[str, FeedbackKind], int]:
        """How much came back, by campaign and kind; an opt-out without a run has no campaign."""
        ...

    def event(self, number: int) -> StoredEvent | None:
        """One event with its report, which is kept for 30 days; None if there is none with this number."""
        ...

    def mistakes(self) -> list[ProviderMistake]:
        """Providers whose hard bounces are not believed, the newest first."""
        ...

    def digest(self, key: str) -> bytes:
        """The keyed digest of an address or domain."""
        ...

    def applied(self, policy: SuppressionPolicy, now: float) -> tuple[int, bytes]:
        """The newest `seq`, and the first 8 bytes of each digest that `policy` applies at `now`, in ascending order."""
        ...

    def reason(self, digest: bytes, policy: SuppressionPolicy, now: float) -> str:
        """Why `policy` leaves this one out at `now`, for people; empty if it does not."""
        ...

    def version(self) -> int:
        """Another number whenever another connection wrote; cheap enough to ask every second."""
        ...

    def changes(self, after: int) -> ChangedKeys:
        """What was added after the change `after`."""
        ...

    def note_sent(self, run_id: str, counts: Mapping[str, int], *, at: float) -> None:
        """Counts the messages of a known run that each provider answered at about `at` (wall clock)."""
        ...

    def soft_bounced(self, within: float) -> frozenset[bytes]:
        """The digests of addresses that had a soft bounce in the last `within` seconds."""
        ...

    def note_reached(self, run_id: str, digests: Sequence[bytes], *, at: float) -> None:
        """Messages of a known run to these addresses, which had soft bounces, were accepted."""
        ...

    def erase(self, key: str) -> int:
        """Blanks every personal field about an address; digests stay.  Returns how many records were blanked."""
        ...

    def close(self) -> None:
        """Ends the connection.  May be called again."""
        ...
