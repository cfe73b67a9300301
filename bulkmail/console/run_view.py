"""One run as a page shows it: where it stands, what it waits for, who slowed it down."""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Lock

from bulkmail.model.lazy import dataclass
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.sqlite_file import noticing_damage
from bulkmail.report.planned import planned_in
from bulkmail.report.planned import sentence as planned_sentence
from bulkmail.report.rest import next_try, rest_of, say_rest
from bulkmail.report.slowdowns import sentence, slowdowns_of
from bulkmail.text import printable

MOST_SLOWED = 8
_MOST_KEPT = 500  # views

WORDS = {
    Status.ACCEPTED: "accepted by the server",
    Status.REJECTED: "rejected",
    Status.EXPIRED: "given up after retries",
    Status.DEFERRED: "to be retried",
    Status.IN_DOUBT: "in doubt",
    Status.PENDING: "to go",
    Status.INVALID: "invalid",
    Status.SUPPRESSED: "on the suppression list",
    Status.FILTERED: "filtered out",
    Status.DUPLICATE: "duplicate",
    Status.CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at one moment.  Times are wall-clock seconds.  `process` is the pid and host of who sends just now."""

    name: str
    run_id: str
    is_rehearsal: bool
    is_loaded: bool
    tally: Tally
    process: tuple[int, str] | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    relay: str
    list_name: str
    waiting: tuple[str, ...]
    slowed: tuple[str, ...]

    @property
    def is_running(self) -> bool:
        """Whether some process sends it now."""
        return self.process is not None

    @property
    def doubtful(self) -> int:
        """Messages whose fate is not known."""
        return self.tally.with_copies(Status.IN_DOUBT)

    @property
    def done(self) -> int:
        """Messages that sending is through with."""
        return self.tally.eligible - self.tally.open_rows

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was sent yet, so that a new start may replace it."""
        return not self.is_running and self.started_at is None and self.tally.is_untouched

    @property
    def accepted(self) -> int:
        """Messages that a server took."""
        return self.tally[Status.ACCEPTED]

    @property
    def percent(self) -> float:
        """How much of the run is done."""
        return 100.0 * self.done / self.tally.eligible if self.tally.eligible else 100.0

    @property
    def state(self) -> str:
        """One word or three for a list."""
        if self.is_running:
            return "sending" if self.is_loaded else "reading the list"
        if self.tally.open:
            return "stopped" if self.started_at is not None else "not started"
        if self.doubtful:
            return "finished, some in doubt"
        return "cancelled" if self.tally.with_copies(Status.CANCELLED) else "finished"

    def counts(self) -> list[tuple[Status, str, int]]:
        """The statuses that some row has."""
        return [(status, word, self.tally[status]) for status, word in WORDS.items() if self.tally[status]]


def read_view(path: Path) -> RunView:
    """The run now.  Raises `OutboxError`."""
    now = time.time()
    with OutboxReader.open(path) as reader, noticing_damage(reader.name):
        tally = reader.tally()
        running = reader.is_running
        campaign = reader.campaign.name if reader.campaign is not None else ""
        waiting: list[str] = []
        if tally.open:
            rest = rest_of(reader.info, now)
            waiting.append((say_rest(rest, now) if rest else next_try(reader.next_try_at(), now)) or "")
            plan = planned_in(reader)
            waiting.append(planned_sentence(plan, now, is_running=running is not None) if plan is not None else "")
        slowed = [
            sentence(slowdown, now, is_running=running is not None, has_several=False)
            for slowdown in slowdowns_of(reader.info)[:MOST_SLOWED]
        ]
        return RunView(
            name=printable(reader.info.name or campaign or path.stem, 120),
            run_id=reader.run_id,
            is_rehearsal=reader.is_rehearsal,
            is_loaded=reader.is_loaded,
            tally=tally,
            process=running,
            created_at=reader.created_at,
            started_at=reader.started_at,
            ended_at=reader.ended_at,
            relay=printable(reader.info.relay, 200),
            list_name=printable(reader.info.list_name, 200),
            waiting=tuple(each for each in waiting if each),
            slowed=tuple(slowed),
        )


_Signature = tuple[tuple[int, int], ...]


class Views:
    """The runs as they were last read: read again when a file of theirs has changed, or while they are sent."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[_Signature, RunView]] = {}
        self._lock = Lock()

    def view(self, path: Path) -> RunView:
        """The run now.  Raises `OutboxError`."""
        signature = _signature(path)
        with self._lock:
            kept = self._kept.get(path)
        if kept is not None and kept[0] == signature and not kept[1].is_running and not kept[1].waiting:
            return kept[1]
        view = read_view(path)
        with self._lock:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[path] = signature, view
        return view


def _signature(path: Path) -> _Signature:
    """Changes with every change of the outbox and when a process starts or stops sending it."""
    return tuple(_stat(path.with_name(path.name + suffix)) for suffix in ("", "-wal", ".lock"))


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
