"""`bulkmail check`: what is wrong with list, message or settings."""

from __future__ import annotations

import sys
import textwrap
import time
from typing import Any

import anyio
import click

from bulkmail.checks.catalog import INTAKE_STALE, check_code, gravest_first, softened, without
from bulkmail.checks.check_finding import is_refused
from bulkmail.cli.choices import campaign_options, follow_up_of, follow_up_options, gate_options, overrides_from
from bulkmail.cli.findings import LONGEST_FINDING, WIDTH, reported, to_json
from bulkmail.cli.groups import GroupedCommand
from bulkmail.cli.progress import Progress, make_progress
from bulkmail.cli.running import password_prompt
from bulkmail.mailing.checking import Online
from bulkmail.mailing.following import FollowUp
from bulkmail.mailing.ordering import Checked, check
from bulkmail.mailing.permits import say_plan
from bulkmail.model.campaign import Keys
from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Secret
from bulkmail.model.tally import EXIT_NOTHING_SENT, EXIT_OK, Status
from bulkmail.settings.allowed_commands import commands_in, home_of, refuse_unallowed
from bulkmail.settings.secrets import find_keys, find_passwords
from bulkmail.settings.settings import Settings, load
from bulkmail.text import count, printable

EPILOG = """\b
Examples:
  bulkmail check spring
  bulkmail check spring --where "country == 'AT'"
  bulkmail check spring --strict --ignore role-address --json
"""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@click.argument("campaign", required=False)
@campaign_options
@follow_up_options
@gate_options
@click.option("--online", is_flag=True, help="Also check the relay and DNS; still sends nothing.")
@click.option("--all-domains", is_flag=True, help="With --online: look up every domain of the list.")
@click.option("--allow-stale-intake", is_flag=True, help="Only warn if returned mail has not been read for days.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    campaign: str | None,
    *,
    strict: bool,
    ignored: tuple[str, ...],
    as_json: bool,
    online: bool,
    all_domains: bool,
    allow_stale_intake: bool,
    **options: Any,
) -> int:
    """Check list, message and settings, and send nothing.

    Reads every row and renders every message.  Exit code: 0 ready to send, 2 a
    check failed.
    """
    if all_domains and not online:
        raise ConfigError("--all-domains is about asking the DNS", hint="add --online")
    for code in ignored:
        check_code(code)
    follow_up = follow_up_of(options)
    settings = load(campaign, overrides_from(options), needs_list=follow_up is None)
    if online:  # only then are commands run
        refuse_unallowed(home_of(campaign), commands_in(settings.campaign, settings.routes))
    outside = Online(_passwords(settings), all_domains) if online else None
    progress = make_progress("auto" if sys.stderr.isatty() else "none")
    checked = anyio.run(
        _check, settings, find_keys(settings.campaign, runs_commands=online), progress, outside, follow_up
    )
    findings = without(checked.findings, ignored)
    if allow_stale_intake:
        findings = gravest_first(softened(findings, INTAKE_STALE))
    is_ready = (checked.tally.open_rows > 0 or settings.allow_empty) and not is_refused(findings, strict=strict)
    if as_json:
        click.echo(to_json(settings.name, findings, checked.notices, checked.tally, checked.planned, is_ready=is_ready))
    else:
        for notice in checked.notices:
            click.echo(f"note: {printable(notice, LONGEST_FINDING)}")
        for line in reported(findings):
            click.echo(line)
        _conclude(settings, checked, is_ready=is_ready)
    return EXIT_OK if is_ready else EXIT_NOTHING_SENT


async def _check(
    settings: Settings, keys: Keys, progress: Progress, outside: Online | None, follow_up: FollowUp | None
) -> Checked:
    with progress:
        return await check(
            settings,
            keys=keys,
            reading=lambda rows: progress.step("reading", done=rows),
            checking=lambda rows: progress.step("checking", done=rows),
            online=outside,
            follow_up=follow_up,
        )


class _NoPasswordHere(Exception):
    """There is none, and no terminal to ask on."""


def _passwords(settings: Settings) -> list[Secret | None]:
    """A password for each relay, None where none is wanted or found."""

    def no_one(prompt: str) -> str:
        raise _NoPasswordHere

    try:
        return find_passwords(settings.routes, ask=password_prompt() or no_one)
    except _NoPasswordHere:
        return [None] * len(settings.routes)


def _conclude(settings: Settings, checked: Checked, *, is_ready: bool) -> None:
    """Says whether it would be sent, and to how many."""
    tally = checked.tally
    left_out = ", ".join(
        f"{tally[status]:,} {status.value}" for status in Status if tally[status] and not status.is_eligible
    )
    people = f"{count(tally.open_rows, 'recipient')} of {count(tally.rows, 'row')}" + (
        f" ({left_out})" if left_out else ""
    )
    if not is_ready:
        _say(f"Not ready: {printable(settings.name)} would be sent to {people}.")
        return
    relays = " and ".join(route.label for route in settings.routes)
    through = f"through {printable(relays)}" if relays else "when a relay is named"
    practice = " (a rehearsal)" if any(route.relay.kind.is_rehearsal for route in settings.routes) else ""
    _say(f"Ready: {printable(settings.name)} goes to {people}, {through}{practice}.")
    if checked.planned is not None:
        _say(f"Planned: {say_plan(checked.planned, settings.pace, time.time())}.")


def _say(sentence: str) -> None:
    click.echo("\n".join(textwrap.wrap(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)))
