"""A run in figures: how fast it went, whose servers took how much, what they said, and how long they took to say it."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from bulkmail.model.lazy import dataclass
from bulkmail.model.tally import Status
from bulkmail.outbox.entries import AttemptRecord, PathRecord, RowRecord
from bulkmail.report.row_words import words_with_feedback
from bulkmail.text import printable

MOST_BUCKETS = 120
MOST_PROVIDERS = 12
MOST_REPLIES = 12
MOST_SLOW = 15
MOST_ROWS = 1_000
_MOST_DOMAINS = 20_000  # kinds; a list may have another domain in every row

LATENCIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Upper ends, in seconds, of the classes that tries are counted in; what takes longer is in one more."""

OTHERS = "others"

# A first look should fall on what needs one; the rest is in the order of the list.
_LAST = frozenset({Status.ACCEPTED, Status.DUPLICATE, Status.FILTERED, Status.SUPPRESSED, Status.PENDING})


class Timeline:
    """Tries by outcome and time, in buckets of equal length that grow as the run does."""

    def __init__(self) -> None:
        self.start = 0.0
        self.seconds = 1.0
        self.buckets: list[Counter[str]] = []

    def add(self, at: float, outcome: str) -> None:
        """Counts a try that ended `at` that wall-clock second; what the clock puts before the first counts with it."""
        if not self.buckets:
            self.start = at
        while (number := max(0, int((at - self.start) / self.seconds))) >= MOST_BUCKETS:
            self.seconds *= 2
            pairs = zip(self.buckets[::2], [*self.buckets[1::2], Counter()], strict=False)
            self.buckets = [one + other for one, other in pairs]
        self.buckets += [Counter() for _ in range(number + 1 - len(self.buckets))]
        self.buckets[number][outcome] += 1


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the list, or a copy of it, as the page shows it: everything that it says is cut and safe to show."""

    row: int
    place: str
    address: str
    status: Status
    words: str
    attempts: int
    last_at: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What the page draws.

    `providers` are the domains written to most, each with its rows by status; `replies` count what servers said in all
    tries; `latencies` go with `LATENCIES`; `attempts` are rows by number of tries; `slowest` are `(address, seconds)`;
    `lines` the rows to look at, and `left_out` how many more there are.
    """

    timeline: Timeline
    providers: list[tuple[str, Counter[Status]]]
    replies: list[tuple[str, int]]
    latencies: list[int]
    attempts: list[tuple[int, int]]
    slowest: list[tuple[str, float]]
    lines: list[Line]
    left_out: int

    @property
    def median_latency(self) -> float | None:
        """The upper end, in seconds, of the class in which the median try is; None without tries, or beyond."""
        half, seen = sum(self.latencies) / 2, 0
        for count, end in zip(self.latencies, LATENCIES, strict=False):
            seen += count
            if count and seen >= half:
                return end
        return None


def figures_of(people: People, attempts: Iterable[AttemptRecord]) -> Figures:
    """The figures of a run whose rows `people` has seen; memory stays bounded whatever they hold."""
    tries = _Tries()
    for attempt in attempts:
        tries.add(attempt)
    lines = [*people.first, *people.others][:MOST_ROWS]
    copies = list(people.copies.values())[: max(0, MOST_ROWS - len(people.first))]
    shown = [_line(record, record) for record in lines]
    shown[len(people.first) : len(people.first)] = [_line(record, copy) for record, copy in copies]
    return Figures(
        timeline=tries.timeline,
        providers=_most(people.domains),
        replies=[(printable(said, 60) or "no reply", times) for said, times in tries.replies.most_common(MOST_REPLIES)],
        latencies=tries.latencies,
        attempts=sorted(people.tries.items()),
        slowest=[(printable(address, 120), seconds) for seconds, _, address in sorted(tries.slowest, reverse=True)],
        lines=shown,
        left_out=people.total - len(lines),
    )


class People:
    """What the rows say, as far as a page shows it."""

    def __init__(self) -> None:
        self.total = 0
        self.tries: Counter[int] = Counter()
        self.domains: dict[str, Counter[Status]] = {}
        self.first: list[RowRecord] = []
        self.copies: dict[tuple[str, Status], tuple[RowRecord, PathRecord]] = {}  # those to look at, each once
        self.others: list[RowRecord] = []

    def add(self, record: RowRecord) -> None:
        """Counts one row."""
        self.total += 1
        if record.attempts:
            self.tries[record.attempts] += 1
            domain = record.address.rpartition("@")[2].lower()
            if domain not in self.domains and len(self.domains) >= _MOST_DOMAINS:
                domain = OTHERS
            self.domains.setdefault(domain, Counter())[record.status] += 1
        is_fine = record.status in _LAST and (record.came_back is None or not record.came_back.kind.is_bounce)
        kept = self.others if is_fine else self.first
        if len(kept) < MOST_ROWS:
            kept.append(record)
        for copy in record.copies:
            came = copy.came_back
            if (copy.status not in _LAST or (came and came.kind.is_bounce)) and len(self.copies) < MOST_ROWS:
                self.copies.setdefault((copy.address.casefold(), copy.status), (record, copy))


def timeline_of(attempts: Iterable[AttemptRecord]) -> Timeline:
    """When tries ended, and how."""
    timeline = Timeline()
    for attempt in attempts:
        timeline.add(attempt.at + attempt.took, attempt.outcome)
    return timeline


class _Tries:
    """What the tries say."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.replies: Counter[str] = Counter()
        self.latencies = [0] * (len(LATENCIES) + 1)
        self.slowest: list[tuple[float, int, str]] = []
        self._number = 0

    def add(self, attempt: AttemptRecord) -> None:
        self._number += 1
        self.timeline.add(attempt.at + attempt.took, attempt.outcome)
        said = " ".join(str(part) for part in (attempt.code, attempt.enhanced, attempt.reason) if part)
        if said in self.replies or len(self.replies) < _MOST_DOMAINS:
            self.replies[said] += 1
        self.latencies[bisect_left(LATENCIES, attempt.took)] += 1
        if len(self.slowest) < MOST_SLOW:
            heapq.heappush(self.slowest, (attempt.took, -self._number, attempt.address))
        elif attempt.took > self.slowest[0][0]:
            heapq.heapreplace(self.slowest, (attempt.took, -self._number, attempt.address))


def _most(domains: dict[str, Counter[Status]]) -> list[tuple[str, Counter[Status]]]:
    """The domains with most rows, all others together at the end."""
    ranked = sorted(domains.items(), key=lambda item: (item[0] == OTHERS, -item[1].total(), item[0]))
    ranked = [(printable(domain, 60), counts) for domain, counts in ranked]
    if len(ranked) <= MOST_PROVIDERS:
        return ranked
    rest: Counter[Status] = sum((counts for _, counts in ranked[MOST_PROVIDERS:]), Counter())
    return [*ranked[:MOST_PROVIDERS], (OTHERS, rest)]


def _line(record: RowRecord, path: PathRecord) -> Line:
    """The line of a row, or of a copy of it."""
    of = "" if path is record else f"copy of the message to {record.address}: "
    return Line(
        row=record.row,
        place=printable(str(record.place), 60),
        address=printable(path.address, 120),
        status=path.status,
        words=printable(of + words_with_feedback(path), 300),
        attempts=path.attempts,
        last_at=path.last_at,
    )
