"""`--metrics PORT`: a run as numbers that Prometheus collects, on this machine only."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from bulkmail.cli.progress import Progress
from bulkmail.engine.contracts import Event, ResultBatch
from bulkmail.mailing.pulse import OUTCOMES, Pulse
from bulkmail.model.errors import ConfigError
from bulkmail.model.schedule import Planned

BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # seconds that a try may take


class Metrics:
    """What was counted so far.  Collected in a thread of the metrics server, while the run goes on."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pulse = Pulse()
        self._tries: Counter[tuple[str, str, str]] = Counter()  # relay, outcome, reply code
        self._durations = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def begin(self, total: int) -> None:
        """Sending begins."""
        with self._lock:
            self._pulse.begin(total, time.monotonic())

    def observe(self, event: Event) -> None:
        """An event from the engine."""
        with self._lock:
            self._pulse.note(event, time.monotonic())
            for result in event.results if isinstance(event, ResultBatch) else ():
                attempt = result.attempt
                code = str(getattr(attempt.event, "code", "none"))
                self._tries[attempt.relay, attempt.verdict.outcome.value, code] += 1
                self._durations[sum(attempt.took > bound for bound in BOUNDS)] += 1
                self._seconds += attempt.took

    def collect(self) -> Iterator[Any]:
        """The families of Prometheus' client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        with self._lock:
            states = GaugeMetricFamily("bulkmail_deliveries", "Deliveries of this run by state", labels=["status"])
            for status in OUTCOMES:
                states.add_metric([status.value], self._pulse[status])
            settled = self._pulse.done + self._pulse[OUTCOMES[1]]
            states.add_metric(["pending"], max(0, self._pulse.total - settled))
            tries = CounterMetricFamily(
                "bulkmail_tries", "Tries by relay, outcome and reply code", labels=["relay", "outcome", "code"]
            )
            for labels, number in self._tries.items():
                tries.add_metric(labels, number)
            sessions = GaugeMetricFamily("bulkmail_connections", "Open connections by relay", labels=["relay"])
            for relay, number in self._pulse.connections.items():
                sessions.add_metric([relay], number)
            durations = HistogramMetricFamily("bulkmail_try_seconds", "How long tries took")
            durations.add_metric([], buckets=self._buckets(), sum_value=self._seconds)
            providers = ["relay", "mailbox_provider"]  # no provider: the relay itself
            complaints = CounterMetricFamily("bulkmail_throttles", "Throttling replies", labels=providers)
            rests = GaugeMetricFamily("bulkmail_backoff_seconds", "Seconds until sending continues", labels=providers)
            rates = GaugeMetricFamily("bulkmail_reduced_rate", "Reduced rate in messages a second", labels=providers)
            now = time.time()
            for each in self._pulse.slowdowns:
                complaints.add_metric(each.key, each.times)
                rests.add_metric(each.key, max(0.0, each.until - now))
                if (rate := each.per_second(now)) is not None:
                    rates.add_metric(each.key, rate)
        yield from (states, tries, sessions, durations, complaints, rests, rates)

    def _buckets(self) -> list[tuple[str, float]]:
        total, found = 0, []
        for bound, number in zip((*map(str, BOUNDS), "+Inf"), self._durations, strict=True):
            total += number
            found.append((bound, float(total)))
        return found


class Counted:
    """A progress whose events are counted, too."""

    def __init__(self, progress: Progress, metrics: Metrics) -> None:
        self._progress = progress
        self._metrics = metrics

    def __enter__(self) -> Counted:
        self._progress.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.__exit__(*exc_info)

    def step(self, what: str, *, done: int, total: int | None = None) -> None:
        self._progress.step(what, done=done, total=total)

    def begin(self, total: int) -> None:
        self._metrics.begin(total)
        self._progress.begin(total)

    def planned(self, planned: Planned) -> None:
        self._progress.planned(planned)

    def observe(self, event: Event) -> None:
        self._metrics.observe(event)
        self._progress.observe(event)

    def note(self, text: str) -> None:
        self._progress.note(text)


@contextmanager
def counted(progress: Progress, port: int | None) -> Iterator[Progress]:
    """`progress`, with numbers at `http://127.0.0.1:PORT/metrics` as long as the context lasts; no port, no numbers.

    Raises `ConfigError` when the extra is not installed or the port is taken.
    """
    if port is None:
        yield progress
        return
    metrics = Metrics()
    with collected(metrics, port):
        yield Counted(progress, metrics)


@contextmanager
def collected(collector: Any, port: int) -> Iterator[None]:
    """Numbers of `collector` at `http://127.0.0.1:PORT/metrics` as long as the context lasts.

    Raises `ConfigError` when the extra is not installed or the port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        raise ConfigError(
            "--metrics needs prometheus-client, which is not installed", hint="type: pip install 'bulkmail[metrics]'"
        ) from None
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ConfigError(
            f"--metrics cannot listen at port {port}: {error.strerror}", hint="name a port that is free"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
