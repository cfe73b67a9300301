"""What every form of the report says of a row, and how the reasons of many rows are counted together."""

from __future__ import annotations

import json
import time
from collections import Counter
from functools import lru_cache

import msgspec

from bulkmail.model.campaign import Campaign
from bulkmail.model.feedback_event import FeedbackKind
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import FIELD as VARIANT
from bulkmail.model.tally import Status
from bulkmail.outbox.entries import PathRecord, RowRecord, written
from bulkmail.text import printable

_MOST_REASONS = 100  # kinds a status; a reason that quotes its row is a kind of its own

_QUOTED_ADDRESS = lazy_pattern(r"^the address '.*?' (?=is |has |holds )")  # as AddressError goes on
_LINE = lazy_pattern(r":\d+$")

OTHER_REASONS = "other reasons"


FEEDBACK_WORDS = {
    FeedbackKind.HARD: "unknown",
    FeedbackKind.SOFT: "temporarily undeliverable",
    FeedbackKind.BLOCKED: "blocked",
    FeedbackKind.DELAYED: "delayed",
    FeedbackKind.SPAM_COMPLAINT: "a spam complaint",
    FeedbackKind.UNSUBSCRIBE: "an unsubscribe request",
    FeedbackKind.AUTO_REPLY: "an automatic reply",
    FeedbackKind.DELIVERED: "delivered",
    FeedbackKind.UNCLEAR: "unclear",
}
"""What came back, behind "came back as"."""


class Reasons:
    """Why rows are not accepted, as words with counts, by status.  Bounded, whatever the rows say."""

    def __init__(self) -> None:
        self.by_status: dict[Status, Counter[str]] = {}  # in no order

    def add(self, record: RowRecord) -> None:
        """Counts one row."""
        if record.status is Status.ACCEPTED or not (reason := grouped(record)):
            return
        counter = self.by_status.setdefault(record.status, Counter())
        if reason not in counter and len(counter) >= _MOST_REASONS:
            reason = OTHER_REASONS
        counter[reason] += 1


class Variants:
    """What became of the rows of each variant of the message; nothing for a campaign without variants."""

    def __init__(self, campaign: Campaign | None) -> None:
        names = [name for name, _ in campaign.variants] if campaign is not None else []
        self.by_name: dict[str, Counter[Status]] = {name: Counter() for name in names}
        self.returned: dict[str, Counter[FeedbackKind]] = {name: Counter() for name in names}

    def add(self, record: RowRecord) -> None:
        """Counts one row."""
        if self.by_name and (name := str(record.fields.get(VARIANT))) in self.by_name:
            self.by_name[name][record.status] += 1
            if record.came_back is not None:
                self.returned[name][record.came_back.kind] += 1

    def as_object(self) -> dict[str, dict[str, object]]:
        """For programs: by name, the rows by status, their sum as `rows`, and what came back of them as `feedback`."""
        return {
            name: {
                "rows": outcomes.total(),
                **{status.value: outcomes[status] for status in Status},
                "feedback": {kind.value: self.returned[name][kind] for kind in FeedbackKind},
            }
            for name, outcomes in self.by_name.items()
        }


def grouped(record: RowRecord) -> str:
    """The row's reason without what only this row has: its address, its line in a stop list; safe to print."""
    reason = printable(record.reason or record.error)
    match record.status:
        case Status.INVALID:
            return _QUOTED_ADDRESS.sub("the address ", reason)
        case Status.SUPPRESSED:
            return _LINE.sub("", reason)
        case Status.DUPLICATE:
            return "same address as an earlier row"
    return reason


def words(record: PathRecord) -> str:
    """The row's story in the server's own words, or in ours if no server was asked."""
    if not record.status.is_eligible:  # it may have been tried before
        return record.reason
    said = " ".join(str(part) for part in (record.code, record.enhanced, record.reply) if part)
    return record.overruled or said or record.error or record.reason


def words_with_feedback(record: PathRecord) -> str:
    """The same, and what came back afterwards."""
    came = record.came_back
    if came is None:
        return words(record)
    reason = f" ({came.reason})" if came.reason else ""
    return f"came back as {FEEDBACK_WORDS[came.kind]}{reason}; {words(record)}"


def trouble(record: PathRecord) -> str:
    """What stands in `delivery_error`: our own words, where the reply does not say it all."""
    if record.overruled:  # why it was in doubt, and who has decided
        return "; ".join(said for said in (record.error, record.overruled) if said)
    if not record.status.is_eligible:
        return record.reason
    return record.error or ("" if record.reply or record.status is Status.ACCEPTED else record.reason)


def copy_object(copy: PathRecord) -> dict[str, object]:
    """What has become of a copy, for programs: the same in the JSON and the CSV report."""
    return {
        "address": copy.address,
        "status": copy.status.value,
        "code": copy.code,
        "enhanced_code": copy.enhanced,
        "reply": copy.reply,
        "reason": copy.reason,
        "attempts": copy.attempts,
        "relay": copy.relay,
        "last_at": iso(copy.last_at) or None,
        "error": trouble(copy),
        **({"feedback": feedback_object(copy)} if copy.came_back is not None else {}),
    }


def feedback_object(record: PathRecord) -> dict[str, object] | None:
    """What came back about one address, for programs."""
    came = record.came_back
    return came and {"kind": came.kind.value, "at": iso(came.at) or None, "reason": came.reason}


_encode = msgspec.json.Encoder(enc_hook=written).encode


def as_json(value: object) -> bytes:
    """`value` as compact JSON.  Half a surrogate pair, which UTF-8 cannot say, is escaped."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def iso(moment: float | None) -> str:
    """Wall-clock seconds as ISO 8601 in UTC, cut to the millisecond; empty for none."""
    if moment is None:
        return ""
    seconds = int(moment)
    return f"{_iso_second(seconds)}.{int((moment - seconds) * 1000):03d}Z"


@lru_cache(maxsize=4096)
def _iso_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
