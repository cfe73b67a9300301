"""Where the relay's password comes from: environment, file, keyring, command or a prompt; never from arguments."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence

from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Relay, Secret
from bulkmail.model.route import Route
from bulkmail.settings.places import LONGEST_SECRET, Wanted, secret_at

VARIABLE = "BULKMAIL_PASSWORD"

_WANTED = Wanted("password", whose="the relay's password")


def find_passwords(
    routes: Sequence[Route], *, ask: Callable[[str], str] | None, environ: Mapping[str, str] = os.environ
) -> list[Secret | None]:
    """The password for each of `routes`; see `find_password()`.

    `BULKMAIL_PASSWORD` counts where one relay alone could mean it: no server is shown the password of another.
    """
    lonely = [route for route in routes if route.relay.username and not route.relay.password_from]
    if len(lonely) > 1:
        if ask is None and environ.get(VARIABLE):
            raise ConfigError(
                f"{VARIABLE} cannot be for {' and '.join(route.label for route in lonely)} at the same time",
                hint="write password_env, password_file, password_command or keyring = true into each [[relay]]",
            )
        environ = {name: value for name, value in environ.items() if name != VARIABLE}
    return [find_password(route.relay, ask=ask, environ=environ) for route in routes]


def find_password(
    relay: Relay, *, ask: Callable[[str], str] | None, environ: Mapping[str, str] = os.environ
) -> Secret | None:
    """The password for `relay`, or None when it wants no login or an access token instead.

    The place that the relay names counts; then `BULKMAIL_PASSWORD`; then `ask`, which is given the question and is None
    when no user is present.  A keyring without an entry passes the question on; any other named place must answer.
    Raises `ConfigError` that says what to do, and never what the password is.
    """
    if not relay.username or relay.wants_token:
        return None
    kind = relay.password_from.partition(":")[0]
    if kind in _NAMES:
        return _checked(secret_at(relay.password_from, _WANTED, environ=environ), _NAMES[kind])
    if kind == "keyring" and (kept := _from_keyring(relay)):
        return _checked(kept, "the keyring's password")
    if environ.get(VARIABLE):
        return _checked(environ[VARIABLE], VARIABLE)
    if ask is None:
        raise ConfigError(f"{relay} needs a password, and none was found", hint=_where_to_put_it(relay, kind))
    return _checked(ask(f"Password for {relay}: "), "the password")


def _checked(password: str, what: str) -> Secret:
    if not password:
        raise ConfigError(f"{what} is empty")
    if len(password) > LONGEST_SECRET or any(character in password for character in "\0\r\n"):
        raise ConfigError(f"{what} is not one line of at most {LONGEST_SECRET:,} characters")
    return Secret(password)


_NAMES = {
    "env": "the variable that password_env names",
    "file": "the password file",
    "command": "what the password command printed",
}


def _from_keyring(relay: Relay) -> str:
    """What the system's keyring has for this host and user; empty when it has nothing."""
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise ConfigError(
            "keyring = true needs the keyring package, which is not installed",
            hint="type: pip install 'bulkmail[keyring]'",
        ) from None
    try:
        return keyring.get_password(relay.host, relay.username) or ""
    except keyring.errors.KeyringError:
        raise ConfigError(
            "the system has no keyring that can be opened here",
            hint=f"use password_file or password_command instead, or set {VARIABLE}",
        ) from None


def _where_to_put_it(relay: Relay, kind: str) -> str:
    if kind == "keyring":
        return f"type: keyring set {shlex.quote(relay.host)} {shlex.quote(relay.username)}"
    return f"set {VARIABLE}, or write password_file or password_command into [relay]"
