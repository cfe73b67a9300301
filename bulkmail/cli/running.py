"""Running a mailing from the command line: progress, Ctrl-C, reports, summary and exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
import click

from bulkmail.cli.progress import Progress
from bulkmail.engine.ports import Ending
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.relays import open_relay
from bulkmail.model.errors import BulkmailError
from bulkmail.model.relay import Secret
from bulkmail.model.tally import EXIT_STOPPED
from bulkmail.outbox.outbox import Job
from bulkmail.report.report import Report
from bulkmail.report.saving import save_report
from bulkmail.report.text import summary

T = TypeVar("T")

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def run_async(main: Callable[[], Awaitable[T]]) -> T:
    """Runs `main` on the fastest loop there is here."""
    return anyio.run(main, backend="asyncio", backend_options={"use_uvloop": sys.platform != "win32"})


async def deliver(
    mailing: Mailing,
    *,
    password: Secret | None,
    progress: Progress,
    wants: Callable[[Job], bool] | None = None,
) -> Ending:
    """Sends; the first Ctrl-C (or SIGTERM, SIGHUP) finishes what is under way, the second aborts it."""
    ending = Ending(was_stopped=True)
    async with anyio.create_task_group() as group:
        await group.start(_heed_signals, mailing, group.cancel_scope)
        async with open_relay(mailing.relay, password, inbox=mailing.inbox) as connect:
            progress.begin(mailing.tally.open)
            ending = await mailing.send(connect, observe=progress.observe, wants=wants)
        group.cancel_scope.cancel()
    return ending


async def _heed_signals(
    mailing: Mailing,
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
                click.echo("finishing what is under way; Ctrl-C again aborts it", err=True)
                mailing.stop()
            else:
                scope.cancel()
                return


def conclude(mailing: Mailing, ending: Ending | None, *, targets: Sequence[Path]) -> int:
    """Closes the mailing, writes its reports, says how it went; returns the exit code."""
    report = mailing.close()
    written = [save_report(report, target) for target in targets or default_targets(mailing)]
    click.echo(summary(report, reports=written))
    if ending is not None and ending.error is not None:
        raise ending.error
    if ending is not None and ending.was_stopped and report.tally.open:
        return EXIT_STOPPED
    return report.tally.exit_code


def default_targets(mailing: Mailing) -> list[Path]:
    """Beside the outbox: `NAME-report.csv` and `NAME-report.json`."""
    path = mailing.outbox.path
    if path is None:
        return []
    return [path.with_name(f"{path.stem}-report{suffix}") for suffix in (".csv", ".json")]
