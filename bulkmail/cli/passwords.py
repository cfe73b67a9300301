"""The passwords of relays for one command: from where each relay says, from a prompt, or from standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from bulkmail.cli.running import password_prompt
from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Secret
from bulkmail.model.route import Route
from bulkmail.settings.secrets import LONGEST_SECRET, as_password, find_passwords

F = TypeVar("F", bound=Callable[..., Any])


def password_stdin_option(function: F) -> F:
    """Adds `--password-stdin`."""
    return click.option(
        "--password-stdin",
        is_flag=True,
        help="Read the relay's password from standard input, one line; it is stored nowhere.",
    )(function)


def passwords_for(routes: Sequence[Route], *, from_stdin: bool, list_source: str = "") -> list[Secret | None]:
    """The password for each of `routes`; with `from_stdin` that of the one that it can be for is read there."""
    if not from_stdin:
        return find_passwords(routes, ask=password_prompt())
    if list_source == "-":
        raise ConfigError("--password-stdin and a list from standard input", hint="put the list into a file")
    number = _meant(routes)
    given = read_password()
    others = iter(find_passwords([route for at, route in enumerate(routes) if at != number], ask=None))
    return [given if at == number else next(others) for at in range(len(routes))]


def read_password() -> Secret:
    """The first line of standard input.  Raises `ConfigError`."""
    if sys.stdin.isatty():
        raise ConfigError("--password-stdin reads a pipe, and standard input is a terminal", hint="leave it out")
    line = sys.stdin.buffer.readline(LONGEST_SECRET * 4 + 2)
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise ConfigError("the password from standard input is not UTF-8") from None
    return as_password(text.removesuffix("\n").removesuffix("\r"), "the password from standard input")


def _meant(routes: Sequence[Route]) -> int:
    """Which of them logs in with a password; of several, the only one that names no place for it."""
    able = [at for at, route in enumerate(routes) if route.relay.username and not route.relay.wants_token]
    if not able:
        raise ConfigError("--password-stdin: no relay asks for a password", hint="write the user into the relay URL")
    lonely = [at for at in able if not routes[at].relay.password_from] if len(able) > 1 else able
    if len(lonely) != 1:
        names = " and ".join(routes[at].label for at in lonely or able)
        raise ConfigError(
            f"--password-stdin cannot be for {names} at the same time",
            hint="write password_env, password_file, password_command or keyring = true into the other [[relay]]s",
        )
    return lonely[0]
