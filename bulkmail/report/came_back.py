"""What came back about a run, and the passes of a campaign, as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from bulkmail.model.feedback_event import COMPLAINTS_BAD, COMPLAINTS_GOOD, FeedbackKind, ReturnedCounts
from bulkmail.model.tally import Status, Tally
from bulkmail.report.run_source import Pass
from bulkmail.text import count

MOST_PASSES = 6
_SHARED = frozenset({FeedbackKind.HARD, FeedbackKind.SPAM_COMPLAINT})  # whose share of the accepted is shown
_SENTENCES = {
    FeedbackKind.HARD: "came back as unknown",
    FeedbackKind.SOFT: "temporarily undeliverable",
    FeedbackKind.BLOCKED: "blocked",
    FeedbackKind.SPAM_COMPLAINT: "spam complaints",
    FeedbackKind.UNSUBSCRIBE: "unsubscribed",
    FeedbackKind.DELAYED: "delayed",
    FeedbackKind.AUTO_REPLY: "automatic replies",
    FeedbackKind.UNCLEAR: "unclear",
    FeedbackKind.DELIVERED: "confirmed as delivered",
}
_ONE = {FeedbackKind.SPAM_COMPLAINT: "spam complaint", FeedbackKind.AUTO_REPLY: "automatic reply"}


def came_back(returned: ReturnedCounts, accepted: int) -> list[str]:
    """What came back, as lines, with the shares of the rows that were accepted; none where nothing did."""
    said = []
    for kind in _SENTENCES:
        if number := returned[kind]:
            share = f" ({number / accepted:.2%})" if kind in _SHARED and accepted else ""
            said.append(_say(kind, number) + share)
    return [*([f"After sending: {', '.join(said)}."] if said else []), *remarks(returned, accepted)]


def remarks(returned: ReturnedCounts, accepted: int) -> list[str]:
    """What there is to say beside the numbers of each kind, as lines."""
    lines = []
    copies = {kind: number for kind, number in returned.copies.items() if number}
    if copies:
        reported = ", ".join(_say(kind, number) for kind, number in copies.items())
        lines.append(f"Of copies: {reported}.")
    complaints = returned[FeedbackKind.SPAM_COMPLAINT]
    if complaints > 1 and complaints >= COMPLAINTS_GOOD * accepted:  # one of a short list says nothing
        lines.append(
            f"Gmail and Yahoo want spam complaints below {COMPLAINTS_GOOD:.1%}, and never {COMPLAINTS_BAD:.1%}."
        )
    if returned.unmatched:
        lines.append(f"{count(returned.unmatched, 'mail')} could not be matched: bulkmail bounces --unmatched")
    return lines


def _say(kind: FeedbackKind, number: int) -> str:
    return f"{number:,} {_ONE.get(kind, _SENTENCES[kind]) if number == 1 else _SENTENCES[kind]}"


def of_passes(passes: Sequence[Pass]) -> list[str]:
    """A line for each run that a campaign was sent in, the last ones if there are many."""
    lines = [f"Sent in {len(passes)} passes:"] if passes else []
    for each in passes[-MOST_PASSES:]:
        began = each.run.started_at
        when = f", {datetime.fromtimestamp(began):%Y-%m-%d %H:%M}" if began is not None else ""
        lines.append(f"  {each.run.number}{when}: {', '.join(_outcomes(each.tally, each.returned))}")
    if len(passes) > MOST_PASSES:
        lines.insert(1, f"  {count(len(passes) - MOST_PASSES, 'earlier pass', 'earlier passes')}")
    return lines


def _outcomes(tally: Tally, returned: ReturnedCounts) -> list[str]:
    said = [f"{tally[status]:,} {status.value.replace('_', ' ')}" for status in Status if tally[status]]
    bounced = sum(returned[kind] for kind in FeedbackKind if kind.is_bounce)
    return said + ([f"{bounced:,} came back"] if bounced else [])


def of_variants(returned: Mapping[str, Mapping[FeedbackKind, int]]) -> str:
    """What came back by variant, as a sentence; empty where nothing did."""
    said = []
    for name, kinds in returned.items():
        reported = [_say(kind, kinds[kind]) for kind in _SENTENCES if kinds.get(kind)]
        said += [f"{name} {', '.join(reported)}"] if reported else []
    return f"By variant: {'; '.join(said)}." if said else ""
