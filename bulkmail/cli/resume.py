"""`bulkmail resume`: a run goes on as it was recorded."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from anyio import to_thread

from bulkmail.cli.choices import metrics_option, report_option
from bulkmail.cli.groups import GroupedCommand
from bulkmail.cli.in_store import StorePlace, refuse_flags_of_files, store_option
from bulkmail.cli.in_store import resume as resume_from_store
from bulkmail.cli.metrics import counted
from bulkmail.cli.notifying import notify_option
from bulkmail.cli.pace_flags import lift_option, pace_options, with_pace_flags
from bulkmail.cli.passwords import password_stdin_option, passwords_for
from bulkmail.cli.program import json_option
from bulkmail.cli.progress import Progress, make_progress
from bulkmail.cli.question import ask, look_ahead_of, tell_plan
from bulkmail.cli.running import (
    abandoned_on_error,
    deliver_and_conclude,
    run_async,
    tell,
)
from bulkmail.cli.tracing import progress_mode, progress_option, trace_option, tracing
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.operator import Doubt
from bulkmail.mailing.permits import lift_pauses, planned_now
from bulkmail.mailing.previous_run import look, refuse_relays_of_other_kind, reports_beside
from bulkmail.mailing.run_record import Targets, lift_rests
from bulkmail.mailing.suppression_list import check_there
from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Kind, Relay
from bulkmail.model.route import Route
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.settings.allowed_commands import commands_in, refuse_unallowed
from bulkmail.settings.presets import expanded
from bulkmail.settings.runs import find_run
from bulkmail.settings.secrets import find_keys
from bulkmail.smtp.trace import Trace
from bulkmail.text import count

EPILOG = """\b
Examples:
  bulkmail resume newsletter
  bulkmail resume newsletter/runs/newsletter.outbox --in-doubt retry
  bulkmail resume newsletter --retry-rejected
  bulkmail resume newsletter --quota 500/day --canary 0
  bulkmail resume newsletter --store
"""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("run")
@click.option(
    "--in-doubt",
    type=click.Choice(["hold", "retry", "accepted", "rejected"]),
    default="hold",
    show_default=True,
    help="What to do with rows in doubt.",
)
@click.option("--retry-rejected", is_flag=True, help="Retry the rows that were rejected.")
@click.option("--retry-expired", is_flag=True, help="Retry the rows that expired.")
@click.option("--relay", "urls", metavar="URL", multiple=True, help="Use another relay; repeatable.")
@password_stdin_option
@pace_options
@click.option(
    "--suppress",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    multiple=True,
    help="File of more addresses and @domains to skip; repeatable.",
)
@click.option("--yes", is_flag=True, help="Send without asking for confirmation.")
@report_option
@progress_option
@json_option
@lift_option
@metrics_option
@trace_option
@notify_option
@store_option
def command(
    run: str,
    in_doubt: str,
    retry_rejected: bool,
    retry_expired: bool,
    urls: tuple[str, ...],
    password_stdin: bool,
    suppress: tuple[str, ...],
    yes: bool,
    reports: tuple[Path, ...],
    mode: str,
    lift_pause: bool,
    metrics_port: int | None,
    trace_to: str | None,
    notify: bool | None,
    store: str | None,
    **pace_flags: Any,
) -> int:
    """Continue a run as it was recorded: its rows, its message.

    RUN is an outbox file, or a campaign (its latest run).  The suppression
    files of the run are read again, and open rows that they list are skipped.
    """
    again = [status for status, asked in ((Status.REJECTED, retry_rejected), (Status.EXPIRED, retry_expired)) if asked]
    if store is not None:
        return _resume_from_store(
            StorePlace(store),
            run,
            in_doubt=Doubt(in_doubt),
            again=again,
            suppress=suppress,
            pace_flags=pace_flags,
            from_stdin=password_stdin,
            yes=yes,
            reports=reports,
            mode=mode,
            metrics_port=metrics_port,
            trace_to=trace_to,
        )
    path = find_run(run, rehearsals=False)
    past = look(path)
    traced = Path(trace_to) if trace_to not in (None, "-") else None
    targets = Targets(path, reports or reports_beside(path, past.number), traced, past.inputs)
    targets.check()
    with OutboxReader.open(path) as reader:
        info, campaign = reader.info, reader.campaign
    routes, pace = info.read_sending(path)
    if urls:
        routes = tuple(Route.parse(expanded(url, needs_user=True)) for url in urls)
        refuse_relays_of_other_kind(path, info, routes)
    refuse_unallowed(path, commands_in(campaign, routes, info.notify))
    keys = find_keys(campaign)
    pace = with_pace_flags(pace, pace_flags)
    check_there(past.suppress)
    is_asking = not (past.is_rehearsal or yes)
    may_send = past.tally.open or retry_rejected or retry_expired or in_doubt == "retry"
    if is_asking and may_send and not sys.stdin.isatty():
        raise ConfigError(
            "this would send to recipients, and there is no terminal to ask for confirmation", hint="add --yes to send"
        )
    passwords = passwords_for(routes, from_stdin=password_stdin)

    async def main(trace: Trace | None, progress: Progress) -> int:
        mailing = Mailing.reopen(path, routes=routes, pace=pace, keys=keys, suppress=[*past.suppress, *suppress])
        with abandoned_on_error(mailing):
            mailing.decide_doubts(Doubt(in_doubt))
            if lift_pause:
                await to_thread.run_sync(lift_pauses, mailing.routes)
                lift_rests(mailing.outbox)
            for status in again:
                click.echo(f"{count(mailing.try_again(status), status.value + ' row')} go again", err=True)
            tell(mailing)
            if mailing.tally.open:
                outlook = await to_thread.run_sync(look_ahead_of, mailing)
                if is_asking:
                    ask(mailing, outlook)
                elif planned := planned_now(mailing.outbox, outlook.now):
                    tell_plan(mailing, outlook)
                    progress.planned(planned)
            return await deliver_and_conclude(
                mailing, passwords=passwords, progress=progress, trace=trace, targets=reports, notify=notify
            )

    shown = make_progress(progress_mode(mode, trace_to))
    with tracing(trace_to, routes[0].relay) as trace, counted(shown, metrics_port) as progress:
        return run_async(lambda: main(trace, progress))


def _resume_from_store(
    place: StorePlace,
    name: str,
    *,
    in_doubt: Doubt,
    again: Sequence[Status],
    suppress: Sequence[str],
    pace_flags: Mapping[str, Any],
    from_stdin: bool,
    yes: bool,
    reports: Sequence[Path],
    mode: str,
    metrics_port: int | None,
    trace_to: str | None,
) -> int:
    refuse_flags_of_files(click.get_current_context())

    def is_asking(is_rehearsal: bool) -> bool:
        if not (is_rehearsal or yes or sys.stdin.isatty()):
            raise ConfigError(
                "this would send to recipients, and there is no terminal to ask for confirmation",
                hint="add --yes to send it",
            )
        return not (is_rehearsal or yes)

    async def main(trace: Trace | None, progress: Progress) -> int:
        return await resume_from_store(
            place,
            name,
            in_doubt=in_doubt,
            again=again,
            suppress=suppress,
            changed_pace=lambda pace: with_pace_flags(pace, pace_flags),
            from_stdin=from_stdin,
            is_asking=is_asking,
            progress=progress,
            trace=trace,
            targets=reports,
        )

    shown = make_progress(progress_mode(mode, trace_to))
    with tracing(trace_to, Relay(Kind.SMTP)) as trace, counted(shown, metrics_port) as progress:
        return run_async(lambda: main(trace, progress))
