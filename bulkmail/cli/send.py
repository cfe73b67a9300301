"""`bulkmail send`: a campaign to all recipients on its list."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from anyio import to_thread

from bulkmail.checks.catalog import check_code
from bulkmail.cli.choices import (
    DatedFile,
    campaign_options,
    follow_up_of,
    follow_up_options,
    gate_options,
    metrics_option,
    overrides_from,
    report_option,
)
from bulkmail.cli.groups import GroupedCommand
from bulkmail.cli.in_store import StorePlace, load_option, refuse_flags_of_files
from bulkmail.cli.in_store import send as send_from_store
from bulkmail.cli.metrics import counted
from bulkmail.cli.notifying import notify_option, say_fault
from bulkmail.cli.pace_flags import lift_option
from bulkmail.cli.param_types import ADDRESS
from bulkmail.cli.passwords import password_stdin_option, passwords_for
from bulkmail.cli.program import json_option
from bulkmail.cli.progress import Progress, make_progress
from bulkmail.cli.question import ask, look_ahead_of, refuse_other, tell_plan
from bulkmail.cli.running import (
    abandoned_on_error,
    conclude_finished,
    deliver_and_conclude,
    run_async,
    tell,
    tell_stale_intake,
)
from bulkmail.cli.tracing import progress_mode, progress_option, trace_option, tracing
from bulkmail.cli.trial import check_test_flags, send_test
from bulkmail.mailing.confirm import choose
from bulkmail.mailing.operator import Doubt
from bulkmail.mailing.ordering import Order, is_rehearsal, order_mailing, routes_of
from bulkmail.mailing.permits import lift_pauses, planned_now
from bulkmail.mailing.previous_run import Past
from bulkmail.mailing.run_record import lift_rests
from bulkmail.mailing.run_watch import notify_if_killed, record_notify
from bulkmail.mailing.suppression_list import intake_overdue, list_in_use
from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Kind, Relay
from bulkmail.model.route import Route
from bulkmail.settings.allowed_commands import allow, commands_in, home_of, refuse_unallowed
from bulkmail.settings.secrets import find_keys
from bulkmail.settings.settings import Settings, load
from bulkmail.smtp.trace import Trace

EPILOG = """\b
Examples:
  bulkmail send samples/newsletter
  bulkmail send newsletter --relay smtp://ann@mail.example.com --rate 50/s
  bulkmail send --to ann@example.com --from me@example.com \\
      --subject Hello --text - --relay smtp://me@mail.example.com
  bulkmail send newsletter --quota 2000/day --canary 25 \\
      --window "Mon-Fri 09:00-17:00 Europe/Vienna" --wait forever
  bulkmail send newsletter --redirect-to me@example.com --sample 5
  bulkmail send newsletter --test me@example.com --row 3
  bulkmail send newsletter --yes --expect 1204
  bulkmail send reminder --follow-up newsletter --unless bounced,unsubscribed
  bulkmail send newsletter --store postgresql://mailer@db.example.com/mail
"""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("campaign", required=False)
@campaign_options
@follow_up_options
@gate_options
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Start at most N messages now; the rest stays pending."
)
@click.option(
    "--only",
    type=ADDRESS,
    multiple=True,
    help="Send only to this address of the list; repeatable; the rest stays pending.",
)
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Rehearse with N rows chosen at random.")
@click.option("--redirect-to", type=ADDRESS, help="Rehearse: send every message to this address.")
@click.option("--test", "test_to", type=ADDRESS, help="Send one test message to this address, and nothing else.")
@click.option(
    "--row", type=click.IntRange(min=1), metavar="N", help="With --test: as row N gets it (default: the first)."
)
@click.option("--dry-run", is_flag=True, help="Rehearse: do everything except sending.")
@click.option("--paced", is_flag=True, help="Apply the rate in a rehearsal, too.")
@click.option("--yes", is_flag=True, help="Send without asking for confirmation.")
@click.option(
    "--expect", type=click.IntRange(min=0), metavar="N", help="Refuse to send unless there are exactly N recipients."
)
@click.option("--outbox", type=DatedFile(), metavar="FILE", help="Store the outbox of the run here; {date} is today.")
@report_option
@click.option(
    "--in-doubt",
    type=click.Choice(["hold", "retry", "accepted", "rejected"]),
    default="hold",
    show_default=True,
    help="What to do with rows that an earlier crash left in doubt.",
)
@progress_option
@json_option
@password_stdin_option
@lift_option
@metrics_option
@trace_option
@notify_option
@load_option
@click.option("--detach", is_flag=True, help="With --store: load the campaign and leave the sending to workers.")
@click.option("--new", "start_over", is_flag=True, help="Start over: send to all, also those sent to before.")
@click.option(
    "--changed", "only_unreached", is_flag=True, help="Send the changed message or list to those not reached yet."
)
def command(campaign: str | None, **options: Any) -> int:
    """Send a campaign: a folder with campaign.toml, or a message given by flags.

    Continues an unfinished run where it stopped; no recipient gets two messages.
    Exit code: 0 all accepted, 1 some failed, 2 nothing sent, 3 stopped before
    the end (run it again), 4 rows in doubt.
    """
    only = options.pop("only")
    redirect_to, trace_to = options.pop("redirect_to"), options.pop("trace_to")
    order = Order(
        outbox=options.pop("outbox"),
        reports=options.pop("reports"),
        trace=Path(trace_to) if trace_to not in (None, "-") else None,
        paced=options.pop("paced"),
        only=frozenset(address.key for address in only),
        sample=options.pop("sample"),
        redirect_to=redirect_to,
        dry_run=options.pop("dry_run"),
        start_over=options.pop("start_over"),
        only_unreached=options.pop("only_unreached"),
        strict=options.pop("strict"),
        ignored=tuple(check_code(code) for code in options.pop("ignored")),
        follow_up=follow_up_of(options),
        command=f"bulkmail send {campaign}" if campaign else "bulkmail send …",
    )
    if order.start_over and order.only_unreached:
        raise ConfigError("--new and --changed contradict each other", hint="give one of them")
    yes, expected = options.pop("yes"), options.pop("expect")
    store = options.pop("store")
    place = StorePlace(store) if store is not None else None
    is_detached = options.pop("detach")
    if is_detached and place is None:
        raise ConfigError("--detach leaves the sending to workers of a store", hint="add --store URL")
    if place is not None:
        refuse_flags_of_files(click.get_current_context())
    test_to, row, from_stdin = options.pop("test_to"), options.pop("row"), options.pop("password_stdin")
    check_test_flags(click.get_current_context(), test_to, row)
    in_doubt, mode = options.pop("in_doubt"), options.pop("mode")
    is_lifting = options.pop("lift_pause")
    port, notify = options.pop("metrics_port"), options.pop("notify")
    mode = progress_mode(mode, trace_to)
    settings = load(campaign, overrides_from(options), needs_list=order.follow_up is None)
    if test_to is not None:
        return send_test(
            settings,
            to=test_to,
            row=row,
            follow_up=order.follow_up,
            home=home_of(campaign),
            from_stdin=from_stdin,
            mode=mode,
            trace_to=trace_to,
        )
    if not settings.routes and sys.stdin.isatty():
        settings = _offer_sandbox(settings)
    is_asking = not (is_rehearsal(settings, order) or yes)
    if is_asking and not sys.stdin.isatty():
        raise ConfigError(
            "this would send to recipients, and there is no terminal to ask for confirmation",
            hint="add --yes to send it",
        )
    commands = commands_in(settings.campaign, routes_of(settings, order), settings.notify)
    refuse_unallowed(home_of(campaign), commands)
    if order.outbox is not None:
        allow(order.outbox, commands)  # so that `resume` may, as it may for an outbox in runs/
    passwords = passwords_for(routes_of(settings, order), from_stdin=from_stdin, list_source=settings.list_source)
    keys = find_keys(settings.campaign)

    async def main(trace: Trace | None, progress: Progress) -> int:
        if place is not None:
            return await send_from_store(
                place,
                settings,
                order,
                keys=keys,
                passwords=passwords,
                progress=progress,
                trace=trace,
                is_asking=is_asking,
                expected=expected,
                is_detached=is_detached,
            )
        with progress:
            mailing = await order_mailing(
                settings,
                order,
                keys=keys,
                reading=lambda rows: progress.step("reading", done=rows),
                checking=lambda rows: progress.step("checking", done=rows),
            )
        if isinstance(mailing, Past):
            code = conclude_finished(mailing, targets=order.reports)
            for fault in await notify_if_killed(mailing.path):
                say_fault(f"could not notify {fault}")
            return code
        with abandoned_on_error(mailing):
            record_notify(mailing.outbox, settings.notify)
            tell(mailing)
            if not is_rehearsal(settings, order):
                used = list_in_use(settings.suppressions, settings.campaign)
                tell_stale_intake(await to_thread.run_sync(intake_overdue, used))
            mailing.decide_doubts(Doubt(in_doubt))
            if only:
                await to_thread.run_sync(choose, mailing, only)
            if expected is not None:
                refuse_other(expected, mailing)
            if is_lifting:
                await to_thread.run_sync(lift_pauses, mailing.routes)
                lift_rests(mailing.outbox)
            outlook = await to_thread.run_sync(look_ahead_of, mailing)
            if is_asking:
                ask(mailing, outlook)
            else:
                tell_plan(mailing, outlook)
            return await deliver_and_conclude(
                mailing,
                passwords=passwords,
                progress=progress,
                trace=trace,
                targets=order.reports,
                notify=notify,
                planned=planned_now(mailing.outbox, outlook.now),
            )

    with (
        tracing(trace_to, routes_of(settings, order)[0].relay) as trace,
        counted(make_progress(mode), port) as progress,
    ):
        return run_async(lambda: main(trace, progress))


def _offer_sandbox(settings: Settings) -> Settings:
    """On a terminal, a user without a relay most likely wants to try things."""
    click.echo("No relay is given.  The sandbox keeps the mail on this machine and sends nothing.", err=True)
    if not click.confirm("Rehearse with the sandbox?", default=True, err=True):
        raise ConfigError("no relay is given", hint="add --relay smtp://user@host:587")
    return replace(settings, routes=(Route(Relay(Kind.SANDBOX)),))
