"""The numbers of a run while it goes, and how they are shown."""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Any

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from bulkmail.cli import bar as bars
from bulkmail.cli import main
from bulkmail.cli import progress as progresses
from bulkmail.cli.metrics import Metrics, counted
from bulkmail.cli.progress import Plain, make_progress
from bulkmail.cli.words import step
from bulkmail.engine.contracts import DeliveryResult, Notice, ResultBatch, Sessions, Slowed
from bulkmail.mailing.pulse import Pulse
from bulkmail.model.delivery import AttemptResult, Delivery
from bulkmail.model.errors import ConfigError
from bulkmail.model.outcome import Outcome, Reply, Scope, Stage, Verdict
from bulkmail.model.quantities import say_rate
from bulkmail.model.rate import AdaptiveRate
from bulkmail.model.shaper import Slowdown
from bulkmail.model.tally import Status
from bulkmail.model.timing import Hold
from bulkmail.report.slowdowns import clock_time

OUTCOME = {Status.ACCEPTED: Outcome.ACCEPTED, Status.DEFERRED: Outcome.DEFERRED, Status.REJECTED: Outcome.REJECTED}


def settled(number: int, status: Status = Status.ACCEPTED, relay: str = "main") -> ResultBatch:
    code = {Status.ACCEPTED: 250, Status.DEFERRED: 451, Status.REJECTED: 550}[status]
    attempt = AttemptResult(
        0.0, 0.02, relay, Reply(Stage.END, code, "", "ok"), Verdict(OUTCOME[status], Scope.RECIPIENT, "")
    )
    return ResultBatch([DeliveryResult(Delivery(number, number, f"p{number}@example.com", status), attempt, None)])


def pulse_of(*statuses: Status, total: int = 100, each: float = 0.1) -> tuple[Pulse, float]:
    pulse, now = Pulse(), 1_000.0
    pulse.begin(total, now)
    for number, status in enumerate(statuses, 1):
        now += each
        pulse.note(settled(number, status), now)
    return pulse, now


def test_pulse_counts_a_message_that_comes_through_later_once() -> None:
    pulse, now = pulse_of(Status.DEFERRED, Status.ACCEPTED)
    assert (pulse[Status.DEFERRED], pulse.done) == (1, 1)
    pulse.note(settled(1), now + 1)
    assert (pulse[Status.DEFERRED], pulse[Status.ACCEPTED], pulse.done) == (0, 2, 2)


def test_pulse_reports_the_rate_of_now_from_the_mean() -> None:
    pulse, now = pulse_of(*[Status.ACCEPTED] * 200, total=1_000)  # 20 s of 10/s
    for number in range(201, 401):
        now += 0.05  # then 10 s of 20/s
        pulse.note(settled(number), now)
    assert pulse.rate(now) == pytest.approx(20, rel=0.05)
    assert pulse.mean_rate(now) == pytest.approx(400 / 30, rel=0.01)
    assert pulse.remaining(now) == pytest.approx(600 / 20, rel=0.05)
    assert pulse.rate(now + 60) == 0.0


def test_pulse_does_not_guess_before_it_knows() -> None:
    pulse, now = pulse_of()
    assert pulse.remaining(now) is None
    assert pulse.rate(now) == 0.0
    done, now = pulse_of(Status.ACCEPTED, total=1)
    assert done.remaining(now) == 0.0


@pytest.mark.parametrize(
    ("rate", "said"), [(0.0, "0/s"), (1234.4, "1,234/s"), (2.54, "2.5/s"), (0.5, "30/min"), (0.01, "0.6/min")]
)
def test_rate_is_said_with_figures_that_matter(rate: float, said: str) -> None:
    assert say_rate(rate) == said


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_bar_never_wraps(width: int) -> None:
    pulse, now = pulse_of(*[Status.ACCEPTED, Status.DEFERRED, Status.REJECTED] * 20, total=1_234_567)
    for number in range(5):
        pulse.note(Sessions(12, f"smtp://mail{number}.shop.example:587"), now)
        pulse.note(slowed("l" * 20 * number, until=time.time() + 600), now)
    pulse.note(Hold(2_000_000_000.0, "the relay, which asked for patience"), now)
    lines = bars.fitted(bars.sending(pulse, now=now + 1, width=width), width)
    assert max(cell_len(line.plain) for line in lines) <= width
    assert "60 of 1,234,567" in "".join(line.plain for line in lines) or width == 20 or "40 of" in lines[0].plain
    assert ("━" in lines[0].plain) == (width >= 60)


def slowed(provider: str = "google", **changes: Any) -> Slowed:
    return Slowed(
        Slowdown(**{"relay": "main", "provider": provider, "times": 1, "at": time.time(), "why": "busy", **changes})
    )


def test_progress_names_those_who_is_given_less() -> None:
    until = time.time() + 600
    clock = clock_time(until, time.time())
    pulse, now = pulse_of(Status.ACCEPTED)
    for event in (
        slowed(until=until),
        slowed("", connections=2),
        slowed("yahoo", speed=AdaptiveRate().lowered(time.time(), seen=40.0)),
        slowed("gmx"),  # as before
    ):
        pulse.note(event, now)
    said = [f"the relay main 2 connections; google paused until {clock}", "yahoo 36/s"]
    assert progresses.sentence(pulse, now).endswith("; ".join(["", *said]))
    lines = [line.plain for line in bars.sending(pulse, now=now, width=120)]
    assert lines[-1] == "slowed    " + " · ".join(said).replace("; ", " · ")
    for number in range(20):
        pulse.note(slowed(f"d{number}.example", until=until), now)
    assert bars.sending(pulse, now=now, width=400)[-1].plain.endswith(" · 19 more")


def test_progress_for_machines_reports_each_complaint_and_who_is_slowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progresses, "EVERY", 0.0)
    stream = io.StringIO()
    with make_progress("json", stream) as progress:
        progress.begin(2)
        progress.observe(slowed(until=time.time() + 600, words="421 not so \x1b[31mfast"))
        progress.observe(slowed("yahoo"))
        progress.observe(settled(1))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    first = next(line for line in lines if line["event"] == "slowed")
    assert (first["mailbox_provider"], first["times"], first["reply"]) == ("google", 1, "421 not so [31mfast")
    assert first["until"]
    (figures,) = [line for line in lines if line["event"] == "progress"]
    assert [each["mailbox_provider"] for each in figures["slowed"]] == ["google"]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("mode", ["auto", "plain", "json", "none"])
def test_progress_in_a_pipe_has_no_escape_codes(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progresses, "EVERY", 0.0)
    stream = io.StringIO()
    with make_progress(mode, stream) as progress:
        progress.step("reading", done=10)
        progress.begin(100)
        progress.observe(Sessions(3, "main"))
        progress.observe(settled(1, Status.REJECTED))
        progress.observe(Hold(2_000_000_000.0, "the rate"))
        progress.observe(Notice("the spare relay is down", "spare"))
    said = stream.getvalue()
    assert "\x1b" not in said and "\r" not in said
    assert "the spare relay is down" in said
    if mode in ("auto", "plain"):
        assert said.startswith("sent 0 of 100 (0 %), 1 rejected, ")
        assert "3 connections" in said
    if mode == "json":
        lines = [json.loads(line) for line in said.splitlines()]
        figures = next(line for line in lines if line["event"] == "progress")
        assert (figures["total"], figures["done"], figures["rejected"]) == (100, 1, 1)
        assert figures["connections"] == {"main": 3}


def test_progress_is_plain_on_a_terminal_that_cannot_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_progress("auto", Screen())) is Plain
    monkeypatch.setenv("TERM", "xterm")
    assert type(make_progress("auto", Screen())) is bars.ProgressBar


def test_bar_without_colours_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Screen()
    with make_progress("bar", stream) as progress:
        progress.begin(2)
        progress.observe(settled(1))
        progress.observe(settled(2))
        progress.note("\x1b[31mred")
    said = stream.getvalue()
    assert "2 of 2" in said
    assert "\x1b[3" not in said and "\x1b[9" not in said


# --- metrics ----------------------------------------------------------------------------------------------------------


def samples(metrics: Metrics) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in metrics.collect()
        for sample in family.samples
    }


def test_metrics_count_what_the_engine_tells() -> None:
    pytest.importorskip("prometheus_client")
    metrics = Metrics()
    metrics.begin(10)
    for event in (
        Sessions(4, "main"),
        settled(1),
        settled(2),
        settled(3, Status.REJECTED),
        settled(4, Status.DEFERRED),
    ):
        metrics.observe(event)
    found = samples(metrics)
    assert found["bulkmail_deliveries['accepted']"] == 2
    assert found["bulkmail_deliveries['pending']"] == 6
    assert found["bulkmail_connections['main']"] == 4
    assert found["bulkmail_tries_total['550', 'main', 'rejected']"] == 1
    assert found["bulkmail_try_seconds_bucket['0.01']"] == 0
    assert found["bulkmail_try_seconds_bucket['0.03']"] == found["bulkmail_try_seconds_count[]"] == 4


def test_metrics_say_who_is_given_less() -> None:
    pytest.importorskip("prometheus_client")
    metrics, now = Metrics(), time.time()
    metrics.observe(slowed(times=3, speed=AdaptiveRate(limit=50.0, low=5.0, since=now + 5), until=now + 600))
    metrics.observe(slowed("", connections=2))
    found = samples(metrics)
    assert found["bulkmail_throttles_total['google', 'main']"] == 3
    assert found["bulkmail_backoff_seconds['google', 'main']"] == pytest.approx(600, abs=5)
    assert found["bulkmail_reduced_rate['google', 'main']"] == 5
    assert found["bulkmail_backoff_seconds['', 'main']"] == 0
    assert "bulkmail_reduced_rate['', 'main']" not in found


def test_metrics_are_served_on_this_machine_until_the_end() -> None:
    pytest.importorskip("prometheus_client")
    import socket
    from urllib.error import URLError
    from urllib.request import urlopen

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/metrics"
    with counted(make_progress("none", io.StringIO()), port) as progress:
        progress.begin(5)
        progress.observe(settled(1))
        with urlopen(url, timeout=5) as answer:
            assert 'bulkmail_deliveries{status="accepted"} 1.0' in answer.read().decode()
        with (
            pytest.raises(ConfigError, match=f"cannot listen at port {port}"),
            counted(make_progress("none", io.StringIO()), port),
        ):
            pass
    with pytest.raises(URLError):
        urlopen(url, timeout=5)


def test_metrics_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError) as caught, counted(make_progress("none", io.StringIO()), 9_100):
        pass
    assert caught.value.hint == "type: pip install 'bulkmail[metrics]'"


# --- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_what_a_shell_reads(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell], prog_name="bulkmail")
    assert result.exit_code == 0
    assert f"_BULKMAIL_COMPLETE={shell}_complete" in result.output


def test_completion_knows_commands_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import get_completion_class

    kind: Any = get_completion_class("bash")
    completion = kind(main, {}, "bulkmail", "_BULKMAIL_COMPLETE")
    assert "preview" in [item.value for item in completion.get_completions([], "pre")]
    assert [item.value for item in completion.get_completions(["preview"], "--sam")] == ["--sample"]


def test_plain_lines_say_once_what_a_run_waits_for() -> None:
    stream = io.StringIO()
    with make_progress("plain", stream) as progress:
        for number in range(10):
            progress.observe(Hold(2_000_000_000.0 + number / 10, "deferred deliveries"))
        progress.observe(Hold(2_000_000_060.0, "deferred deliveries"))
        progress.observe(Hold(2_000_000_060.0, "the quota"))
    assert [line.partition(": ")[2] for line in stream.getvalue().splitlines()] == [
        "deferred deliveries", "deferred deliveries", "the quota",
    ]  # fmt: skip


def test_what_to_type_next_is_never_broken_by_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ("To go on with the 2 rows left", "bulkmail resume spring.outbox")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert step(*steps) == ["To go on with the 2 rows left: bulkmail resume spring.outbox"]
    monkeypatch.setattr(sys, "stdout", Screen())
    assert step(*steps) == ["To go on with the 2 rows left:", "  bulkmail resume spring.outbox"]
    monkeypatch.setenv("COLUMNS", "80")
    assert len(step(*steps)) == 1
