"""Where the relay's password comes from: environment, file, keyring, command or a prompt; never from arguments."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Relay, Secret

VARIABLE = "BULKMAIL_PASSWORD"
LONGEST_PASSWORD = 10_000  # characters; a token may be long, a wrong file is longer
COMMAND_TIMEOUT = 120.0  # seconds; it may ask a person to unlock something


def find_password(
    relay: Relay, *, ask: Callable[[str], str] | None, environ: Mapping[str, str] = os.environ
) -> Secret | None:
    """The password for `relay`, or None when it wants no login.

    The place that the relay names counts; then `BULKMAIL_PASSWORD`; then `ask`, which is given the question and is None
    when nobody is there.  A keyring without an entry passes the question on; any other named place must answer.
    Raises `ConfigError` that says what to do, and never what the password is.
    """
    if not relay.username:
        return None
    kind, _, where = relay.password_from.partition(":")
    if kind in _PLACES:
        return _checked(_PLACES[kind](where, environ), _NAMES[kind])
    if kind == "keyring" and (kept := _from_keyring(relay)):
        return _checked(kept, "the keyring's password")
    if environ.get(VARIABLE):
        return _checked(environ[VARIABLE], VARIABLE)
    if ask is None:
        raise ConfigError(f"{relay} wants a password, and none was found", hint=_where_to_put_it(relay, kind))
    return _checked(ask(f"Password for {relay}: "), "the password")


def _checked(password: str, what: str) -> Secret:
    if not password:
        raise ConfigError(f"{what} is empty")
    if len(password) > LONGEST_PASSWORD or any(character in password for character in "\0\r\n"):
        raise ConfigError(f"{what} is not one line of at most {LONGEST_PASSWORD:,} characters")
    return Secret(password)


def _from_variable(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "")
    if not value:
        # A name in lower case may well be the password itself, put there by mistake.
        shown = f"the environment variable {name}" if name.isupper() else "the variable that password_env names"
        raise ConfigError(
            f"{shown} is not set, and the relay's password is to come from it", hint="set it, in this shell or service"
        )
    return value


def _from_file(name: str, environ: Mapping[str, str]) -> str:
    path = Path(name)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{path}: the password file is not an ordinary file")
            if os.name == "posix" and mode & 0o077:
                raise ConfigError(
                    f"{path}: others on this machine may read the password file (mode {stat.S_IMODE(mode):04o})",
                    hint=f"type: chmod 600 {shlex.quote(str(path))}",
                )
            data = file.read(LONGEST_PASSWORD * 4 + 3)
    except OSError as error:
        raise ConfigError(f"{path}: the password file cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the name
        raise ConfigError("the name of the password file cannot be read") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the password file is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


def _from_command(command: str, environ: Mapping[str, str]) -> str:
    """The first line that `command` prints.  No shell reads it: quotes group words, nothing else is special."""
    import subprocess

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"password_command cannot be read: {str(error).lower()}") from None
    if not words:
        raise ConfigError("password_command is empty")
    program = f"the password command {words[0]}"
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command is what it is for
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{program} did not end within {COMMAND_TIMEOUT:.0f} s") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it has a NUL character"
        raise ConfigError(f"{program} cannot be run: {reason}", hint="no shell is used; name a program") from None
    if done.returncode:
        raise ConfigError(f"{program} ended with exit code {done.returncode}", hint="type it yourself to see why")
    try:
        return done.stdout.decode().partition("\n")[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"{program} printed something that is not UTF-8") from None


_PLACES: dict[str, Callable[[str, Mapping[str, str]], str]] = {
    "env": _from_variable,
    "file": _from_file,
    "command": _from_command,
}
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
