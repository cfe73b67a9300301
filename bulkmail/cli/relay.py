"""`bulkmail relay`: what a server is like and whether it can be used."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

import click

from bulkmail.cli.param_types import ADDRESS
from bulkmail.cli.running import password_prompt, run_async
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.tally import EXIT_OK, EXIT_STOPPED

if TYPE_CHECKING:
    from bulkmail.model.recipient import Address
    from bulkmail.model.relay import Relay, Secret

EPILOG = """\b
Examples:
  bulkmail relay smtp://news@mail.example.com:587
  bulkmail relay gmail:ann@gmail.com
  bulkmail relay spring
  bulkmail relay smtps://mail.example.com --from news@example.com --json
"""

_SCHEME = lazy_pattern(r"(?:sandbox|maildir|null|smtps?|lmtp|[sl]mtp\+unix):", re.IGNORECASE)


@click.command(epilog=EPILOG)
@click.argument("where", metavar="URL|CAMPAIGN")
@click.option("--from", "from_address", type=ADDRESS, help="Ask whether mail from this address is accepted.")
@click.option("--to", "to_address", type=ADDRESS, help="With --from: also ask about this recipient.")
@click.option("--relay", "name", default="", metavar="NAME", help="Which relay of the campaign.")
@click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, one line; it is stored nowhere."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    where: str, from_address: Address | None, to_address: Address | None, name: str, password_stdin: bool, as_json: bool
) -> int:
    """Test a mail server and show what it supports.

    Connects, logs in once and sends nothing.  Exit code: 0 it can be used, 3
    it cannot, 2 wrong usage.
    """
    from bulkmail.cli.relay_table import as_table, to_json
    from bulkmail.probe.relay_probe import look_at
    from bulkmail.settings.presets import known_feedback, preset_at, say_preset
    from bulkmail.settings.secrets import find_key_password, find_proxy_password, find_tokens
    from bulkmail.smtp.credentials import Credentials, Tokens

    if to_address and not from_address:
        raise ConfigError("--to needs a sender", hint="add --from ADDRESS")
    relay = relay_of(where, name)
    credentials: Credentials | None = None
    if (fetch := find_tokens(relay)) is not None:
        credentials = Credentials(relay.username, tokens=Tokens(fetch))
    elif (password := password_of(relay, from_stdin=password_stdin)) is not None:
        credentials = Credentials(relay.username, password)
    key_password, proxy_password = find_key_password(relay), find_proxy_password(relay)
    feedback = known_feedback()
    if sys.stderr.isatty():
        click.echo(f"Talking to {relay.peer} …", err=True)
    facts = run_async(
        lambda: look_at(
            relay,
            credentials,
            feedback=feedback,
            sender=from_address,
            recipient=to_address,
            key_password=key_password,
            proxy_password=proxy_password,
        )
    )
    if as_json:
        click.echo(to_json(facts))
    else:
        click.echo(as_table(facts), nl=False)
        if (preset := preset_at(relay.host)) is not None:
            click.echo(f"\n{say_preset(preset)}")
    return EXIT_OK if facts.is_usable else EXIT_STOPPED


def relay_of(where: str, name: str) -> Relay:
    """The server that a URL names, or a campaign; of several the one called `name`."""
    from bulkmail.model.relay import Kind
    from bulkmail.model.route import Route
    from bulkmail.settings.presets import expanded, named_preset

    if not os.path.exists(where) and named_preset(where):
        where = expanded(where)
    if _SCHEME.match(where):
        if "@" in where.partition("?")[2]:  # a password with a ? in it makes options of its rest
            raise ConfigError("the relay URL cannot be read; is there a password in it?", hint="leave the password out")
        relay: Relay | None = Route.parse(where).relay
    else:
        from bulkmail.settings.allowed_commands import commands_in, home_of, refuse_unallowed
        from bulkmail.settings.settings import load_relay

        relay = load_relay(where, name=name)
        if relay is not None:
            refuse_unallowed(home_of(where), commands_in(None, [Route(relay)]))
    if relay is None:
        raise ConfigError(f"{where} names no relay", hint='write relay = "smtp://user@host:587" into it, or give a URL')
    if relay.kind is not Kind.SMTP:
        raise ConfigError(
            f"{relay.kind.value}: is for rehearsals on this machine and has no server to test",
            hint="give the URL of one: bulkmail relay smtp://user@host:587",
        )
    return relay


class _NoPassword(Exception):
    """There is none, and no terminal to ask on."""


def password_of(relay: Relay, *, from_stdin: bool = False, can_ask: bool = True) -> Secret | None:
    """The password, or None where none is wanted or found."""
    if from_stdin:
        from bulkmail.cli.passwords import passwords_for
        from bulkmail.model.route import Route

        return passwords_for([Route(relay)], from_stdin=True)[0]
    from bulkmail.settings.secrets import find_password

    def no_one(prompt: str) -> str:
        raise _NoPassword

    try:
        return find_password(relay, ask=(password_prompt() if can_ask else None) or no_one)
    except _NoPassword:
        return None
