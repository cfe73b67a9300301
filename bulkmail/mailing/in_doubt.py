"""Rows in doubt: what a person decides about them, and which of their messages were found after all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from bulkmail.model.delivery import Status
from bulkmail.model.lazy import dataclass
from bulkmail.outbox.entries import Doubtful
from bulkmail.outbox.outbox import Outbox
from bulkmail.reconcile.sighting import Sighting


class Doubt(Enum):
    """What a person decides about rows in doubt."""

    HOLD = "hold"
    RETRY = "retry"
    ACCEPTED = "accepted"
    REJECTED = "rejected"

    @property
    def status(self) -> Status:
        """What those rows become."""
        return _DECISIONS[self]


_DECISIONS = {
    Doubt.HOLD: Status.IN_DOUBT,
    Doubt.RETRY: Status.PENDING,
    Doubt.ACCEPTED: Status.ACCEPTED,
    Doubt.REJECTED: Status.REJECTED,
}


SERVER_TIMEOUT = 600.0  # seconds a server may take over the end of a message, RFC 5321 §4.5.3.2.6
REWRITERS = {"amazonaws.com": "Amazon SES"}
"""Relays, by their domain, that put a Message-ID of their own in the place of ours."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A delivery in doubt and where its message was seen."""

    doubtful: Doubtful
    place: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What a search came to.

    `unclear` were seen, but their message went to several people and nothing says whose copy that was.  `missing` were
    not seen, which proves nothing.  `looked_at` counts everything that had a Message-ID.
    """

    seen: tuple[Finding, ...]
    unclear: tuple[Finding, ...]
    missing: tuple[Doubtful, ...]
    looked_at: int


def weigh(doubts: Iterable[Doubtful], sightings: Iterable[Sighting]) -> Findings:
    """Holds the one against the other.  `sightings` is read to its end and not kept."""
    doubts = tuple(doubts)
    by_id: dict[str, list[Doubtful]] = {}
    for doubtful in doubts:
        if doubtful.message_id:
            by_id.setdefault(doubtful.message_id, []).append(doubtful)
    seen: dict[int, Finding] = {}
    unclear: dict[int, Finding] = {}
    looked_at = 0
    for looked_at, sighting in enumerate(sightings, 1):  # noqa: B007 - the last number is wanted
        for doubtful in by_id.get(sighting.message_id, ()):
            is_his = doubtful.is_alone or doubtful.forward_path.casefold() in sighting.forward_paths
            (seen if is_his else unclear).setdefault(doubtful.delivery, Finding(doubtful, sighting.place))
    return Findings(
        tuple(seen[key] for key in sorted(seen)),
        tuple(unclear[key] for key in sorted(unclear) if key not in seen),
        tuple(doubtful for doubtful in doubts if doubtful.delivery not in seen and doubtful.delivery not in unclear),
        looked_at,
    )


def settle(outbox: Outbox, findings: Findings) -> int:
    """What was seen becomes accepted, with the place as the reason; says how many deliveries that were."""
    found = {finding.doubtful.delivery: f"found in {finding.place}" for finding in findings.seen}
    return outbox.settle_found(found) if found else 0


def decide(outbox: Outbox, decision: Doubt, rows: Sequence[range] | None = None) -> int:
    """What becomes of what is in doubt, of `rows` or of all; says how many deliveries there were.

    To try one again waits until the server must have given up on the first copy (RFC 5321 §4.5.3.2.6).
    """
    if decision is Doubt.HOLD:
        return 0
    return outbox.settle_in_doubt(decision.status, wait=SERVER_TIMEOUT if decision is Doubt.RETRY else 0.0, rows=rows)


def rewriter_of(relay: str) -> str:
    """The service named in `relay` that replaces our Message-IDs; empty if none is known to."""
    host = relay.casefold()
    return next((who for name, who in REWRITERS.items() if name in host), "")
