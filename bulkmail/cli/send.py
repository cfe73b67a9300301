"""`bulkmail send`: a campaign to everybody on its list."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from anyio import to_thread

from bulkmail.cli.choices import campaign_options, gate_options, overrides_from
from bulkmail.cli.pace_flags import lift_option
from bulkmail.cli.progress import MODES, make_progress
from bulkmail.cli.running import abandoned_on_error, conclude, deliver, password_prompt, run_async, tell
from bulkmail.cli.tracing import progress_mode, trace_option, tracing
from bulkmail.config.keys import find_keys
from bulkmail.config.secrets import find_passwords
from bulkmail.config.settings import Settings, load
from bulkmail.mailing.mailing import Doubt, Mailing
from bulkmail.mailing.ordering import Order, is_rehearsal, order_mailing, routes_of
from bulkmail.mailing.outlook import Outlook, look_ahead
from bulkmail.mailing.permits import lift_pauses
from bulkmail.model.address import Address
from bulkmail.model.delivery import Status
from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.relay import Kind, Relay
from bulkmail.model.reply import printable
from bulkmail.model.route import Route
from bulkmail.model.units import count, say_duration
from bulkmail.outbox.outbox import Job
from bulkmail.preflight.checks import check_code
from bulkmail.report.saving import check_target
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
"""


@click.command(epilog=EPILOG)
@click.argument("campaign", required=False)
@campaign_options
@gate_options
@click.option("--limit", type=click.IntRange(min=1), help="Begin at most this many now; the rest stays pending.")
@click.option("--only", metavar="ADDRESS", multiple=True, help="Only these of the list; the rest stays pending.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Rehearse with N rows drawn by lot.")
@click.option("--redirect-to", metavar="ADDRESS", help="Rehearse: this address gets every letter.")
@click.option("--dry-run", is_flag=True, help="Rehearse: do everything but send.")
@click.option("--yes", is_flag=True, help="Do not ask before sending.")
@click.option("--outbox", type=click.Path(path_type=Path), metavar="FILE", help="Keep the run's journal here.")
@click.option(
    "--report",
    "reports",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Write the delivery report here (.csv or .json; repeatable).",
)
@click.option(
    "--in-doubt",
    type=click.Choice(["hold", "retry", "accepted", "rejected"]),
    default="hold",
    show_default=True,
    help="What becomes of rows that an earlier crash left in doubt.",
)
@click.option("--progress", "mode", type=click.Choice(MODES), default="auto", show_default=True)
@lift_option
@trace_option
@click.option("--new", "begin_anew", is_flag=True, help="Send to everybody, whatever an earlier run did.")
@click.option(
    "--changed", "only_unreached", is_flag=True, help="Send the changed letter or list to those not yet reached."
)
def command(campaign: str | None, **options: Any) -> int:
    """Send a campaign: a folder with campaign.toml, or a letter given by flags.

    An unfinished run goes on where it stopped; nobody is written to twice.
    Exit code: 0 all accepted, 1 some failed, 2 nothing sent, 3 stopped before
    the end (run it again), 4 rows in doubt.
    """
    only = frozenset(_address(text).key for text in options.pop("only"))
    redirect_to = options.pop("redirect_to")
    order = Order(
        outbox=options.pop("outbox"),
        sample=options.pop("sample"),
        redirect_to=_address(redirect_to) if redirect_to else None,
        dry_run=options.pop("dry_run"),
        begin_anew=options.pop("begin_anew"),
        only_unreached=options.pop("only_unreached"),
        strict=options.pop("strict"),
        ignored=tuple(check_code(code) for code in options.pop("ignored")),
        command=f"bulkmail send {campaign}" if campaign else "bulkmail send …",
    )
    if order.begin_anew and order.only_unreached:
        raise ConfigError("--new and --changed contradict each other", hint="give one of them")
    yes, reports, in_doubt, mode = (options.pop(name) for name in ("yes", "reports", "in_doubt", "mode"))
    is_lifting = options.pop("lift_pause")
    trace_to = options.pop("trace_to")
    mode = progress_mode(mode, trace_to)
    for target in reports:
        check_target(target)  # better now than after five thousand letters
    settings = load(campaign, overrides_from(options))
    if not settings.routes and sys.stdin.isatty():
        settings = _offer_sandbox(settings)
    is_asking = not (is_rehearsal(settings, order) or yes)
    if is_asking and not sys.stdin.isatty():
        raise ConfigError("this would write to people, and there is nobody to ask", hint="add --yes to send it")
    passwords = find_passwords(routes_of(settings, order), ask=password_prompt())
    keys = find_keys(settings.campaign)

    async def main(trace: Trace | None) -> int:
        progress = make_progress(mode)
        with progress:
            mailing = await order_mailing(
                settings,
                order,
                keys=keys,
                reading=lambda rows: progress.step("reading", done=rows),
                checking=lambda rows: progress.step("checking", done=rows),
            )
        with abandoned_on_error(mailing):
            tell(mailing)
            mailing.decide_doubts(Doubt(in_doubt))
            if is_lifting:
                await to_thread.run_sync(lift_pauses, mailing.routes)
            outlook = await to_thread.run_sync(look_ahead_of, mailing)
            if is_asking:
                _ask(mailing, settings, outlook)
            elif not outlook.is_at_once:
                click.echo(f"plan: {_plan(mailing, outlook)}", err=True)
            with progress:
                ending = await deliver(
                    mailing, passwords=passwords, progress=progress, wants=_wanting(only), trace=trace
                )
            return conclude(mailing, ending, targets=reports)

    with tracing(trace_to, routes_of(settings, order)[0].relay) as trace:
        return run_async(lambda: main(trace))


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except AddressError as error:
        raise ConfigError(f"the address {text!r} {error}", hint="write it as name@example.com") from None


def _wanting(only: frozenset[str]) -> Callable[[Job], bool] | None:
    """Chooses the jobs of `--only`; None for all."""
    if not only:
        return None

    def wants(job: Job) -> bool:
        return job.recipient is not None and job.recipient.address.key in only

    return wants


def _offer_sandbox(settings: Settings) -> Settings:
    """On a terminal somebody without a relay most likely wants to try things."""
    click.echo("No relay is given.  The sandbox takes the mail on this machine, and nobody is written to.", err=True)
    if not click.confirm("Rehearse with the sandbox?", default=True, err=True):
        raise ConfigError("no relay is given", hint="add --relay smtp://user@host:587")
    return replace(settings, routes=(Route(Relay(Kind.SANDBOX)),))


def _described(route: Route, *, is_alone: bool) -> str:
    """A relay in a line; among others with its share."""
    said = [f"{route.name}: {route.relay}" if route.name else str(route.relay)]
    said.append(f"{count(route.relay.connections, 'connection')} at most")
    if route.rate:
        said.append(str(route.rate))
    if not is_alone:
        said.append(f"priority {route.priority}")
        said += [f"weight {route.weight}"] if route.weight is not None else []
    said += [f"from {domain}" for domain in route.senders] + [f"to {domain}" for domain in route.recipients]
    return ", ".join(said)


def look_ahead_of(mailing: Mailing) -> Outlook:
    """When how many of those go that this run may write to."""
    total = min(mailing.tally.open, mailing.pace.limit or mailing.tally.open)
    is_practice = mailing.outbox.settings.get("rehearsal") == "yes"
    return look_ahead(mailing.routes, mailing.pace, total, run_id=mailing.outbox.run_id, is_rehearsal=is_practice)


def _plan(mailing: Mailing, outlook: Outlook) -> str:
    """When how many go, and what whoever starts it has to do for that."""
    said, wait = printable(outlook.sentence()), mailing.pace.wait
    if mailing.pace.waits_for_all:
        return f"{said}; it waits in between"
    return f"{said}; run it again for each, or add --wait forever (it waits {say_duration(wait)} at most)"


def _ask(mailing: Mailing, settings: Settings, outlook: Outlook) -> None:
    """Says what is about to happen and asks; raises `ConfigError` when declined."""
    tally = mailing.tally
    pace = settings.pace
    number = min(tally.open, pace.limit or tally.open)
    if not number:
        return
    click.echo(f"From      {settings.campaign.sender.text.strip()}", err=True)
    click.echo(f"Subject   {settings.campaign.subject.text.strip()}", err=True)
    click.echo(f"To        {count(number, 'recipient')} of {settings.list_source or 'the command line'}", err=True)
    skipped = [f"{tally[status]:,} {status.value}" for status in Status if tally[status] and not status.is_eligible]
    if skipped:
        click.echo(f"Left out  {', '.join(skipped)}", err=True)
    if tally[Status.ACCEPTED]:
        click.echo(f"Done      {tally[Status.ACCEPTED]:,} accepted before", err=True)
    for route in mailing.routes:
        click.echo(f"Relay     {_described(route, is_alone=len(mailing.routes) == 1)}", err=True)
    if pace.rate:
        click.echo(f"Rate      {pace.rate}: about {say_duration(number / pace.rate.per_second)}", err=True)
    if not outlook.is_at_once:
        click.echo(f"Plan      {_plan(mailing, outlook)}", err=True)
    if pace.breakers.canary:
        click.echo(f"Canary    the first {pace.breakers.canary:,}; the rest only if they fare well", err=True)
    if not click.confirm("Send it?", err=True):
        raise ConfigError("not sent, as you said", hint="run the same command again when you are ready")
