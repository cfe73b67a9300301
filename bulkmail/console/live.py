"""A run in progress: its attempts folded into figures once a second, while a page shows it."""

from __future__ import annotations

import time
from collections import Counter, deque
from pathlib import Path
from threading import Lock

import anyio
from anyio import to_thread

from bulkmail.console.run_view import RunView, Views
from bulkmail.model.lazy import dataclass
from bulkmail.model.tally import Status
from bulkmail.outbox.lookup import Try
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.figures import Timeline
from bulkmail.text import printable

EVERY = 1.0  # seconds between two looks
KEPT = 60.0  # seconds that the figures of a run are kept after the last page closed
LATEST = 12  # tries that are shown
MOST_SAID = 12  # replies that are shown
_MOST_REPLIES = 2_000  # kinds that are counted
CATCHING_UP = 0.2  # seconds between two looks as long as earlier tries are still being counted
SHARE = 30  # a look that takes a second is followed by a pause of this length: the run needs the computer more
_CHUNK = 2_000  # tries that are read at a time
_BUDGET = 0.05  # seconds of reading tries in one look
_WINDOW = 15  # looks that the rate is taken from


@dataclass(frozen=True, slots=True)
class LivePicture:
    """What a live page shows.  `rate` is messages a second now, `mean` over the run; None where there is none.

    `bars` are the tries by outcome over time, from `start`, each `seconds` long; `said` the replies with how often they
    came, those that are no acceptance first; `latest` the last tries.  `is_whole`: all tries are counted in.
    """

    view: RunView
    rate: float | None
    mean: float | None
    left: float | None
    start: float
    seconds: float
    bars: tuple[dict[str, int], ...]
    said: tuple[tuple[str, str, int], ...]
    latest: tuple[Try, ...]
    is_whole: bool


class LiveFigures:
    """The figures of one run, moved along by each look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._view: RunView | None = None
        self._viewed_at = 0.0
        self._view_took = 0.0
        self._begin("")

    def _begin(self, run_id: str) -> None:
        """A new run has taken the place of the one before: nothing of that counts."""
        self._run_id = run_id
        self._timeline = Timeline()
        self._replies: Counter[tuple[str, str]] = Counter()
        self._latest: deque[Try] = deque(maxlen=LATEST)
        self._last = 0
        self._seen: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def look(self, views: Views) -> LivePicture:
        """The run now, with as many more tries counted in as a twentieth of a second allows.  Blocks.

        Raises `OutboxError`.
        """
        with self._lock:
            began = time.monotonic()
            if self._view is None or began - self._viewed_at >= max(EVERY, SHARE * self._view_took):
                view = views.view(self._path)
                self._view_took = time.monotonic() - began
                if view.run_id != self._run_id:
                    self._begin(view.run_id)
                self._view, self._viewed_at = view, began
                self._seen.append((began, view.tally.open))
            is_whole = self._count_tries(time.monotonic() + _BUDGET)
            return self._picture(self._view, is_whole=is_whole)

    def _count_tries(self, until: float) -> bool:
        """Whether all tries are counted in."""
        with OutboxReader.open(self._path) as reader:
            while time.monotonic() < until:
                tries = reader.tries_after(self._last, _CHUNK)
                for each in tries:
                    self._add(each)
                if len(tries) < _CHUNK:
                    return True
        return False

    def _add(self, each: Try) -> None:
        self._last = each.id
        self._latest.append(each)
        self._timeline.add(each.at + each.took, each.outcome)
        if each.outcome != Status.ACCEPTED.value:
            said = " ".join(str(part) for part in (each.code, each.enhanced, each.text) if part) or each.reason
            key = each.outcome, printable(said, 160)
            if key in self._replies or len(self._replies) < _MOST_REPLIES:
                self._replies[key] += 1

    def _picture(self, view: RunView, *, is_whole: bool) -> LivePicture:
        rate = self._rate() if view.is_running else None
        mean = None
        tried = sum(view.tally[status] for status in (Status.ACCEPTED, Status.REJECTED, Status.EXPIRED))
        if view.started_at is not None and tried:
            end = time.time() if view.is_running else view.ended_at or self._latest_end()
            mean = tried / max(end - view.started_at, 1.0) if end else None
        buckets = tuple(
            {kind: number for kind, number in bucket.items() if number} for bucket in self._timeline.buckets
        )
        said = [(outcome, words, times) for (outcome, words), times in self._replies.most_common(MOST_SAID)]
        return LivePicture(
            view=view,
            rate=rate,
            mean=mean,
            left=view.tally.open / rate if rate and view.tally.open else None,
            start=self._timeline.start,
            seconds=self._timeline.seconds,
            bars=buckets,
            said=tuple(said),
            latest=tuple(reversed(self._latest)),
            is_whole=is_whole,
        )

    def _latest_end(self) -> float | None:
        return self._latest[-1].at + self._latest[-1].took if self._latest else None

    def _rate(self) -> float | None:
        """Messages a second over the last looks."""
        if len(self._seen) < 2:
            return None
        (began, before), (ended, after) = self._seen[0], self._seen[-1]
        return max(0.0, (before - after) / (ended - began)) if ended - began > 0.5 else None


class Live:
    """One look a second for each run that is shown, however many tabs show it."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._figures: dict[Path, tuple[float, LiveFigures]] = {}
        self._pictures: dict[Path, tuple[float, LivePicture]] = {}
        self._locks: dict[Path, anyio.Lock] = {}

    async def picture(self, path: Path, *, fresh: float = EVERY) -> LivePicture:
        """The run as of `fresh` seconds ago at most.  Raises `OutboxError`."""
        lock = self._locks.setdefault(path, anyio.Lock())
        async with lock:
            now = time.monotonic()
            kept = self._pictures.get(path)
            if kept is not None and now - kept[0] < fresh:
                return kept[1]
            self._forget_old(now)
            _, figures = self._figures.get(path, (0.0, None))
            figures = figures or LiveFigures(path)
            self._figures[path] = now, figures
            picture = await to_thread.run_sync(figures.look, self._views)
            self._pictures[path] = now, picture
            return picture

    def _forget_old(self, now: float) -> None:
        for path in [path for path, (seen, _) in self._figures.items() if now - seen > KEPT]:
            self._figures.pop(path, None)
            self._pictures.pop(path, None)
            self._locks.pop(path, None)
