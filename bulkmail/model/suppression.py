"""Which addresses get no mail, why, and for how long: the rules of the suppression list, as arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from bulkmail.model.errors import ConfigError
from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, Proof
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.quantities import parse_duration
from bulkmail.model.quota import DAY

ALL_LISTS = ""
"""The scope of an entry that holds for every list."""

QUIET = 5 * DAY
"""Seconds without a bounce after a message that was accepted, until the soft bounces before it no longer count."""


class SuppressionReason(Enum):
    """Why an address is on the list.  The values are the words in settings, files and on the command line."""

    HARD = "hard"
    SOFT = "soft"
    SPAM_COMPLAINT = "spam_complaint"
    UNSUBSCRIBE = "unsubscribe"
    MANUAL = "manual"

    @property
    def says(self) -> str:
        """For people: `"hard bounce"`."""
        return _SAYS[self]


_SAYS = {
    SuppressionReason.HARD: "hard bounce",
    SuppressionReason.SOFT: "soft bounces",
    SuppressionReason.SPAM_COMPLAINT: "spam complaint",
    SuppressionReason.UNSUBSCRIBE: "unsubscribed",
    SuppressionReason.MANUAL: "added by hand",
}
ALL_REASONS = frozenset(SuppressionReason)


@dataclass(frozen=True, slots=True)
class SoftRule:
    """Soft bounces on `days` different days within `within` seconds suppress an address for `lasts` seconds.

    `lasts` None is for good.
    """

    days: int = 3
    within: float = 60 * DAY
    lasts: float | None = 180 * DAY

    @classmethod
    def parse(cls, text: str) -> SoftRule | None:
        """`"3 in 60d, until 180d"`, `"3 in 60d"` (for good), `"never"` (None).  Raises `ConfigError`."""
        if text.strip().lower() == "never":
            return None
        found = _SOFT.fullmatch(text)
        if not found or not int(found["days"]):
            raise ConfigError(
                f"cannot read {text!r} as a rule for soft bounces", hint='write "3 in 60d, until 180d", or "never"'
            )
        lasts = parse_duration(found["lasts"]) if found["lasts"] else None
        return cls(int(found["days"]), parse_duration(found["within"]), lasts)

    def __str__(self) -> str:
        until = "" if self.lasts is None else f", until {self.lasts / DAY:g}d"
        return f"{self.days} in {self.within / DAY:g}d{until}"


_SOFT = lazy_pattern(
    r"\s*(?P<days>\d{1,3})\s+in\s+(?P<within>[\d.]+\s*\w?)\s*(?:,\s*until\s+(?P<lasts>[\d.]+\s*\w?)\s*)?"
)


@dataclass(frozen=True, slots=True)
class SuppressionRules:
    """What puts an address on the list.

    `hard` is how many proved hard bounces do, 0 for never; `soft` None for never.  Without `counts_unproved` a report
    that anyone may have written has no effect at all.
    """

    hard: int = 1
    soft: SoftRule | None = SoftRule()
    counts_unproved: bool = True


@dataclass(frozen=True, slots=True)
class SuppressionPolicy:
    """What of the list a campaign applies: entries with these `reasons`, for all lists or for `list_id`.

    `list_id` None is every list: of a campaign whose list differs from row to row.
    """

    reasons: frozenset[SuppressionReason] = ALL_REASONS
    list_id: str | None = ALL_LISTS


@dataclass(frozen=True, slots=True)
class ListInUse:
    """The list in `file`, of which a run applies `policy`, and to which it adds by `rules`.

    With `store`, the URL of a store in PostgreSQL without its password, it is the list of that store.
    """

    file: str
    policy: SuppressionPolicy
    rules: SuppressionRules
    store: str = ""

    @property
    def name(self) -> str:
        """Where it is, for people."""
        return self.store or self.file


@dataclass(frozen=True, slots=True)
class SuppressionEntry:
    """One address or domain on the list.

    `key` is an `Address.key` or `@domain`, empty once it was erased; `scope` a list's id or `ALL_LISTS`.  `since` and
    `until` are wall-clock seconds; `until` None is for good.  `event` is the number of what caused it, None where a
    person did.
    """

    digest: bytes
    key: str
    reason: SuppressionReason
    since: float
    scope: str = ALL_LISTS
    until: float | None = None
    event: int | None = None
    note: str = ""

    def holds(self, now: float) -> bool:
        """Whether it has not run out at `now` (wall clock)."""
        return self.until is None or self.until > now


def list_scope(list_id: str) -> str:
    """The scope that a rendered `List-ID` names: what is in its angle brackets (RFC 2919 §3), in lower case."""
    text = list_id.strip()
    if text.endswith(">") and "<" in text:
        text = text[:-1].rpartition("<")[2]
    return text.strip().lower()


def campaign_scope(name: str) -> str:
    """The scope of a campaign without a `List-ID`: its name without dates, so that each day's run is the same list."""
    return list_scope(_DATE.sub("", name).strip(" -_.") or name)


_DATE = lazy_pattern(r"\d{4}-\d{2}-\d{2}")


def effective_kind(event: FeedbackEvent) -> FeedbackKind | None:
    """What `event` counts as; None when nothing may act on it.

    A report that is not proved counts as a soft bounce, whatever it says, and only where it is about a known run: a
    forger needs as many campaigns as the rule for soft bounces asks for.
    """
    if event.mailbox is None or not event.kind.may_suppress:
        return None
    if event.proof.is_proved:
        return event.kind
    return FeedbackKind.SOFT if event.run_id and event.proof is not Proof.NONE else None


@dataclass(frozen=True, slots=True)
class SoftBounce:
    """A soft bounce that counts: when (wall clock), of which run, and whether it is proved."""

    at: float
    run: int | None
    is_proved: bool = True


def soft_until(
    bounces: Iterable[SoftBounce], reached: Sequence[float], rule: SoftRule, *, now: float
) -> tuple[bool, float | None]:
    """Whether these soft bounces of one address suppress it at `now`, and until when (None: for good).

    `reached` are the times at which a message to it was accepted.  One that nothing came back from for `QUIET` seconds
    clears what was before.  Of the unproved bounces of one run the first counts; those of one day count once.
    """
    found = sorted((each for each in bounces if now - each.at <= rule.within), key=lambda bounce: bounce.at)
    cleared = max((at for at in reached if _is_quiet(at, found, now)), default=float("-inf"))
    days, runs = set[int](), set[int | None]()
    for bounce in found:
        if bounce.at <= cleared:
            continue
        if not bounce.is_proved:
            if bounce.run in runs:
                continue
            runs.add(bounce.run)
        days.add(int(bounce.at // DAY))
    if len(days) < rule.days:
        return False, None
    return True, None if rule.lasts is None else now + rule.lasts


def _is_quiet(at: float, bounces: Sequence[SoftBounce], now: float) -> bool:
    return now - at >= QUIET and not any(at <= bounce.at < at + QUIET for bounce in bounces)


# A provider's mistake ------------------------------------------------------------------------------------------------

MISTAKE_WINDOW = 3600.0  # seconds
MISTAKE_LEAST = 20  # hard bounces of one provider; up to this number they are believed
MISTAKE_SHARE = 0.05
USUAL_FACTOR = 5
USUAL_LEAST_SENT = 1_000  # messages from which on the usual share of a provider is known
USUAL_FLOOR = 0.001
CONFIRMED_AFTER = DAY  # seconds between two runs that both look like a mistake, until the second is believed


def is_provider_mistake(hard: int, sent: int, *, usual_hard: int = 0, usual_sent: int = 0) -> bool:
    """Whether `hard` hard bounces of one provider among the `sent` messages of one run look like its own mistake.

    In December 2020 Gmail answered 550 5.1.1 for live accounts.  So more than `MISTAKE_LEAST` within `MISTAKE_WINDOW`
    are not believed if they are more than 5 % of the messages, or five times the share that is usual there:
    `usual_hard` of `usual_sent` in earlier runs.  Without a number of messages (0) all of them bounced.
    """
    if hard <= MISTAKE_LEAST:
        return False
    share = hard / max(sent, hard)
    if share > MISTAKE_SHARE:
        return True
    if usual_sent < USUAL_LEAST_SENT:
        return False
    return share > USUAL_FACTOR * max(usual_hard / usual_sent, USUAL_FLOOR)
