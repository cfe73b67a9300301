"""Running a mailing from the command line: progress, Ctrl-C, reports, summary and exit code."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import click

from bulkmail.checks.check_finding import Severity
from bulkmail.cli.mishaps import judge
from bulkmail.cli.mishaps import tell as tell_mishap
from bulkmail.cli.program import note_outbox, note_result
from bulkmail.cli.progress import Progress
from bulkmail.cli.words import screen_width, wrapped
from bulkmail.engine.contracts import Ending
from bulkmail.mailing.confirm import count_next
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.previous_run import Past, close_finished, reached, reports_beside, retries, when
from bulkmail.mailing.relays import open_routes
from bulkmail.mailing.run_watch import RunWatch
from bulkmail.model.feedback_event import say_overdue
from bulkmail.model.relay import Secret
from bulkmail.model.schedule import Planned
from bulkmail.model.tally import EXIT_STOPPED
from bulkmail.report.json_report import head
from bulkmail.report.recognising import is_report
from bulkmail.report.report import Report
from bulkmail.report.report_files import ReportUnwritten
from bulkmail.report.saving import save_report
from bulkmail.report.text_report import rows_and_copies, summary
from bulkmail.smtp.trace import Trace
from bulkmail.text import count, printable

T = TypeVar("T")

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

MOST_IN_ALL_FORMATS = 50_000  # rows; of a longer list the JSON and the page are made when they are asked for


def run_async(main: Callable[[], Awaitable[T]]) -> T:
    """Runs `main` on the fastest loop there is here."""
    return anyio.run(main, backend="asyncio", backend_options={"use_uvloop": sys.platform != "win32"})


async def deliver(
    mailing: Mailing,
    *,
    passwords: Sequence[Secret | None],
    progress: Progress,
    watch: RunWatch,
    trace: Trace | None = None,
) -> Ending:
    """Sends; the first Ctrl-C (or SIGTERM, SIGHUP) finishes what is under way, the second aborts it."""
    ending = Ending(was_stopped=True)
    await watch.begin()
    async with anyio.create_task_group() as group:
        await group.start(watch_signals, mailing, group.cancel_scope)
        async with open_routes(
            mailing.routes, passwords, inbox=mailing.inbox, notify=progress.note, trace=trace
        ) as connects:
            progress.begin(count_next(mailing)[1])
            group.start_soon(watch.watch)
            ending = await mailing.send(connects, observe=watch.observing(progress.observe))
        group.cancel_scope.cancel()
    return ending


class Stoppable(Protocol):
    """What ends at the first Ctrl-C."""

    def stop(self) -> None:
        """Finishes the messages under way and begins no others."""


async def watch_signals(
    mailing: Stoppable,
    scope: anyio.CancelScope,
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    with anyio.open_signal_receiver(*_SIGNALS) as signals:
        task_status.started()
        number = 0
        async for _ in signals:
            number += 1
            if number == 1:
                click.echo("finishing messages under way; press Ctrl-C again to abort them", err=True)
                mailing.stop()
            else:
                scope.cancel()
                return


@contextmanager
def abandoned_on_error(mailing: Mailing) -> Iterator[None]:
    """Closes the outbox when something goes wrong; running the command again continues from it."""
    if mailing.outbox.path is not None:
        note_outbox(mailing.outbox.path)
    try:
        yield
    except BaseException:
        mailing.abandon()
        raise


def tell(mailing: Mailing) -> None:
    """What was noticed about list and message, and what an earlier crash left."""
    for notice in mailing.notices:
        click.echo(wrapped(f"note: {printable(notice)}", indent=2), err=True)
    grave = [finding for finding in mailing.findings if finding.severity is not Severity.NOTE]
    for finding in grave:
        where = f"{finding.where}: " if finding.where else ""
        click.echo(wrapped(f"{finding.severity.value}: {printable(where + finding.message)}", indent=2), err=True)
    if grave:
        click.echo("note: bulkmail check shows details and fixes", err=True)
    if mailing.newly_suppressed or mailing.newly_suppressed_copies:
        number = rows_and_copies(mailing.newly_suppressed, mailing.newly_suppressed_copies)
        click.echo(
            f"note: skipped {number} of this run, now in the suppression files or on the suppression list", err=True
        )
    if mailing.outbox.newly_in_doubt:
        number = count(mailing.outbox.newly_in_doubt, "message")
        click.echo(
            f"note: the last run was cut off with {number} at the server, perhaps delivered; "
            "held as in doubt (see --in-doubt)",
            err=True,
        )


def tell_stale_intake(overdue: float) -> None:
    """Warns when mail that came back is not read: `overdue` in seconds."""
    if said := say_overdue(overdue):
        click.echo(wrapped(f"warning: {said}", indent=2), err=True)
        click.echo("hint: bulkmail bounces reads it", err=True)


def password_prompt() -> Callable[[str], str] | None:
    """Asks without echo, where there is a terminal."""
    if not sys.stdin.isatty():
        return None

    def ask(prompt: str) -> str:
        return str(click.prompt(prompt, prompt_suffix="", hide_input=True, err=True))

    return ask


async def deliver_and_conclude(
    mailing: Mailing,
    *,
    passwords: Sequence[Secret | None],
    progress: Progress,
    targets: Sequence[Path],
    notify: bool | None,
    trace: Trace | None = None,
    planned: Planned | None = None,
) -> int:
    """Sends, concludes and notifies of the end; returns the exit code or raises what stopped it.

    `planned` is what waits for a time of its own, to be shown first.
    """
    watch = await RunWatch.open(mailing, passwords=passwords, wanted=notify, say=progress.note)

    def finish() -> int:
        if failed is not None:
            raise failed
        return conclude(mailing, ending, targets=targets)

    ending, failed = Ending(was_stopped=True), None
    with progress:
        if planned:
            progress.planned(planned)
        try:
            ending = await deliver(mailing, passwords=passwords, progress=progress, watch=watch, trace=trace)
        except Exception as error:
            failed = error
    return await watch.ended(finish, lambda error: judge(error).exit_code)


def conclude(mailing: Mailing, ending: Ending, *, targets: Sequence[Path]) -> int:
    """Closes the mailing, writes its reports, says how it went; returns the exit code or raises what stopped it.

    The exit code gives the result of the rows: a report that cannot be written is announced, and can be made later.
    One that does not add up is raised.
    """
    report = mailing.close()
    wanted = targets or default_targets(report)
    unwritten = save_reports(report, wanted)
    missing = {failure.target for failure in unwritten}
    show(report, [target for target in wanted if target not in missing])
    if not targets:
        _remove_stale(report)
        _tell_unwritten(report)
    for failure in unwritten:
        tell_mishap(failure)
    if ending.error is not None:
        raise ending.error
    return EXIT_STOPPED if ending.was_stopped and report.tally.open else report.tally.exit_code


def show(report: Report, written: Sequence[Path]) -> None:
    """The result of a run on standard output: as a summary, unless JSON is asked for, which is printed at the end."""
    with report.source() as source:
        result = {**head(source), "outbox": str(report.outbox or ""), "reports": [str(target) for target in written]}
    if not note_result(result):
        click.echo(summary(report, width=screen_width(), reports=written), nl=False)


def conclude_finished(past: Past, *, targets: Sequence[Path]) -> int:
    """Says what became of a run that has ended before, writes the reports that are missing, returns its exit code."""
    close_finished(past)
    report = Report.read(past.path)
    wanted = targets or default_targets(report)
    unwritten = save_reports(report, [target for target in wanted if not target.exists()])
    said = f"note: this mailing ended {when(past)}: {reached(past)}; nothing was sent now"
    for line in (said, *(f"hint: {way}" for way in retries(past))):
        click.echo(wrapped(line, indent=2), err=True)
    show(report, [each for each in wanted if each.exists()])
    for failure in unwritten:
        tell_mishap(failure)
    return report.tally.exit_code


def save_reports(report: Report, targets: Iterable[Path]) -> list[ReportUnwritten]:
    """Writes the reports; returns what became of those that cannot be written."""
    unwritten: list[ReportUnwritten] = []
    for target in targets:
        try:
            save_report(report, target)
        except ReportUnwritten as error:
            unwritten.append(error)
    return unwritten


def default_targets(report: Report) -> list[Path]:
    """Beside the outbox: `NAME-report.csv`, and unless the list is very long, `.json` and `.html`."""
    if report.outbox is None:
        return []
    beside = reports_beside(report.outbox, report.run.number)
    return [path for path in beside if path.suffix == ".csv" or report.tally.rows <= MOST_IN_ALL_FORMATS]


def _remove_stale(report: Report) -> None:
    """Takes away reports of an earlier state beside the outbox that are not written again."""
    if report.outbox is None:
        return
    for path in set(reports_beside(report.outbox, report.run.number)) - set(default_targets(report)):
        if path.is_file() and not path.is_symlink() and is_report(path):
            with suppress(OSError):
                path.unlink()


def _tell_unwritten(report: Report) -> None:
    """Says which of the reports beside the outbox are not written unless asked for, and how to get them."""
    if report.outbox is not None and report.tally.rows > MOST_IN_ALL_FORMATS:
        path = shlex.quote(printable(str(report.outbox), 4_000))
        said = (
            f"note: of more than {MOST_IN_ALL_FORMATS:,} rows only the CSV report is written by itself; for the others:"
            f" bulkmail report {path} -o report.json (or report.html)"
        )
        click.echo(wrapped(said, indent=2), err=True)
