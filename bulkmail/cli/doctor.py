"""`bulkmail doctor`: what this computer has of all that bulkmail needs, and the command for what is missing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import click

from bulkmail.checks.relay_trouble import trouble_with
from bulkmail.cli.relay import password_of, relay_of
from bulkmail.cli.running import run_async
from bulkmail.cli.words import wrapped
from bulkmail.mailing.doctor import (
    Diagnosis,
    State,
    look_at_clock,
    look_at_dns,
    look_at_environment,
    look_at_extras,
    look_at_installation,
    look_at_keyring,
    look_at_state,
)
from bulkmail.mailing.relays import look_at_relay
from bulkmail.model.errors import BulkmailError
from bulkmail.model.tally import EXIT_OK, EXIT_SOME_FAILED
from bulkmail.settings.layers import FILE_NAME
from bulkmail.text import count, printable

EPILOG = """\b
Examples:
  bulkmail doctor
  bulkmail doctor spring
  bulkmail doctor smtp://news@mail.example.com:587 --json
"""
_LABEL = 18  # columns


@click.command(epilog=EPILOG)
@click.argument("where", metavar="[URL|CAMPAIGN]", required=False)
@click.option("--relay", "name", default="", metavar="NAME", help="Which relay of the campaign.")
@click.option("--offline", is_flag=True, help="Ask neither a name server nor a relay.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(where: str | None, name: str, offline: bool, as_json: bool) -> int:
    """Look at the installation and say what is missing.

    Looks at Python, packages and extras, keyring, state folder, clock, DNS and the relay of a campaign (by default the
    one here). No message is sent and no password is shown, so the output is safe to share for support. Exit code:
    0 nothing is wrong, 1 something is, 2 wrong usage.
    """
    found = [
        *look_at_installation(),
        *look_at_extras(),
        look_at_keyring(),
        *look_at_state(),
        look_at_clock(),
        look_at_environment(),
    ]
    if not offline:
        found.append(run_async(look_at_dns))
        found += _relay(where, name)
    if as_json:
        click.echo(json.dumps({"bulkmail": 1, "checks": [_object(each) for each in found]}, indent=2))
    else:
        for each in found:
            _say(each)
        problems = [each for each in found if each.state is State.PROBLEM]
        click.echo(f"{count(len(problems), 'problem')} found." if problems else "Nothing is wrong.")
    return EXIT_SOME_FAILED if any(each.state is State.PROBLEM for each in found) else EXIT_OK


def _relay(where: str | None, name: str) -> Iterator[Diagnosis]:
    """The relay that is named, or that of the campaign in the current folder, if there is one."""
    if where is None and not os.path.isfile(FILE_NAME):
        yield Diagnosis("relay", State.OPTIONAL, "no campaign or relay was named", "bulkmail doctor CAMPAIGN")
        return
    where = where or "."
    try:
        relay = relay_of(where, name)
        password = password_of(relay, can_ask=False)
        facts = run_async(lambda: look_at_relay(relay, password))
    except BulkmailError as error:
        yield Diagnosis("relay", State.PROBLEM, str(error), error.hint)
        return
    if (trouble := trouble_with(facts)) is not None:
        found = " ".join(filter(None, [trouble.what, trouble.words]))
        yield Diagnosis("relay", State.PROBLEM, f"{relay}: {found}", trouble.fix)
        return
    secured = f" over {facts.tls_version}" if facts.tls_version else " without TLS"
    yield Diagnosis("relay", State.OK, f"{relay} answers{secured}; login: {facts.login.value}")


def _object(each: Diagnosis) -> dict[str, str | None]:
    return {"subject": each.subject, "state": each.state.value, "found": each.found, "fix": each.fix or None}


_COLORS = {State.OK: "green", State.OPTIONAL: "yellow", State.PROBLEM: "red"}


def _say(each: Diagnosis) -> None:
    mark = click.style(f"{each.state.value:<9}", fg=_COLORS[each.state])
    found = printable(each.found, 2_000)
    click.echo(mark + wrapped(f"{each.subject:<{_LABEL}}{found}", indent=9 + _LABEL, on=sys.stdout))
    if each.fix:
        click.echo(wrapped(f"{'':9}fix: {printable(each.fix, 2_000)}", indent=14, on=sys.stdout))
