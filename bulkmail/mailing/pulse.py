"""How a run goes, in numbers: what became of the messages so far, how fast, and how long it will still take."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from bulkmail.engine.contracts import Event, ResultBatch, Sessions, Slowed
from bulkmail.model.shaper import Slowdowns
from bulkmail.model.tally import Status
from bulkmail.model.timing import Hold

WINDOW = 10.0  # seconds that "now" looks back

OUTCOMES = (Status.ACCEPTED, Status.DEFERRED, Status.REJECTED, Status.EXPIRED, Status.IN_DOUBT)


class Pulse:
    """Fed with the engine's events.  `now` is always seconds of a clock that never goes back.

    `total` is how many messages were open at the beginning, `done` how many of them are settled for good, `connections`
    are those open now by relay, `through` is what each relay accepted, `waiting` says for what nothing is done, if so,
    `slowdowns` are the relays and providers that throttled.
    """

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.connections: dict[str, int] = {}
        self.through: Counter[str] = Counter()
        self.waiting: Hold | None = None
        self.slowdowns = Slowdowns()
        self._ended: Counter[Status] = Counter()
        self._deferred: set[int] = set()
        self._began = 0.0
        self._recent: deque[list[float]] = deque()  # from when, how many tries: a tenth of a second each
        self._tried = 0

    def begin(self, total: int, now: float) -> None:
        """Sending begins."""
        self.total = total
        self._began = now

    def note(self, event: Event, now: float) -> None:
        """An event from the engine."""
        match event:
            case ResultBatch(results=results):
                self.waiting = None
                self._tries(len(results), now)
                for result in results:
                    self._settled(result.delivery.id, result.delivery.status)
                    if result.delivery.status is Status.ACCEPTED:
                        self.through[result.attempt.relay] += 1
            case Sessions():
                self.connections[event.relay] = event.open
            case Hold():
                self.waiting = event
            case Slowed():
                self.slowdowns.note(event.slowdown)

    def _tries(self, number: int, now: float) -> None:
        self._tried += number
        if not self._recent or now - self._recent[-1][0] >= 0.1:
            self._recent.append([now, 0])
        self._recent[-1][1] += number
        self._forget(now)

    def _settled(self, number: int, status: Status) -> None:
        if status.is_open:
            self._deferred.add(number)
        else:
            self._deferred.discard(number)
            self._ended[status] += 1
            self.done += 1

    def __getitem__(self, status: Status) -> int:
        """How many messages are in `status` now; those deferred and then accepted count as accepted only."""
        return len(self._deferred) if status is Status.DEFERRED else self._ended[status]

    def mean_rate(self, now: float) -> float:
        """Tries a second since the beginning."""
        return self._tried / max(0.5, now - self._began)

    def rate(self, now: float) -> float:
        """Tries a second over the last ten."""
        self._forget(now)
        return sum(tries for _, tries in self._recent) / max(0.5, min(WINDOW, now - self._began))

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] > WINDOW:
            self._recent.popleft()

    def remaining(self, now: float) -> float | None:
        """Seconds until all are done, at the present speed; None while that is unknown."""
        took = now - self._began
        left = self.total - self.done
        if left <= 0:
            return 0.0
        if self.done < 2 or took < 1.0:
            return None
        rate = self.rate(now)
        return left / rate if rate > 0 and not self._deferred else left * took / self.done

    @property
    def troubles(self) -> list[tuple[Status, int]]:
        """What is not accepted, where there is any."""
        return [(status, self[status]) for status in OUTCOMES[1:] if self[status]]


@dataclass(frozen=True, slots=True)
class SendingProgress:
    """How far a run is, for a program.

    `total` is how many messages were open when sending began, `done` how many of them have their final outcome;
    `deferred` ones are tried again, and are not done.  `rate` is tries a second over the last ten seconds, `remaining`
    the seconds that are left at this rate, None while that is unknown.  `waiting` says in half a sentence why nothing
    is sent just now, and is empty otherwise.
    """

    total: int
    done: int
    accepted: int = 0
    deferred: int = 0
    rejected: int = 0
    expired: int = 0
    in_doubt: int = 0
    rate: float = 0.0
    remaining: float | None = None
    waiting: str = ""


class ProgressTeller:
    """An observer that hands `tell` the progress after outcomes, which may come together, and every reason to wait.

    What `tell` raises is kept in `error`, `stop` is called, and nothing more is told.
    """

    def __init__(self, total: int, tell: Callable[[SendingProgress], None], *, stop: Callable[[], None]) -> None:
        self.error: Exception | None = None
        self._total = total
        self._tell = tell
        self._stop = stop
        self._pulse = Pulse()
        self._pulse.begin(total, time.monotonic())

    def observe(self, event: Event) -> None:
        """An event from the engine."""
        now, pulse = time.monotonic(), self._pulse
        pulse.note(event, now)
        if self.error is not None or not isinstance(event, ResultBatch | Hold):
            return
        progress = SendingProgress(
            self._total,
            pulse.done,
            **{status.value: pulse[status] for status in OUTCOMES},
            rate=pulse.rate(now),
            remaining=pulse.remaining(now),
            waiting=pulse.waiting.why if pulse.waiting is not None else "",
        )
        try:
            self._tell(progress)
        except Exception as error:  # the program's own: an outcome must be recorded all the same
            self.error = error
            self._stop()
