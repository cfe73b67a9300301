"""The places that keep secrets: an environment variable, a file only the user can read, the output of a command."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy_dataclass import dataclass

LONGEST_SECRET = 10_000  # characters; a token may be long, a wrong file is longer
COMMAND_TIMEOUT = 120.0  # seconds; it may ask a person to unlock something


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: `noun` as settings begin with it, `whose` in full, and whether it has several lines."""

    noun: str
    whose: str
    has_lines: bool = False


def secret_at(place: str, wanted: Wanted, *, environ: Mapping[str, str]) -> str:
    """What is at `"env:NAME"`, `"file:PATH"` or `"command:…"`.  Raises `ConfigError` that never says what it found."""
    kind, _, where = place.partition(":")
    return _PLACES[kind](where, wanted, environ)


def _from_variable(name: str, wanted: Wanted, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "")
    if not value:
        # A name in lower case may well be the secret itself, put there by mistake.
        shown = f"the environment variable {name}" if name.isupper() else f"the variable that {wanted.noun}_env names"
        raise ConfigError(
            f"{shown} is not set, and {wanted.whose} is to come from it", hint="set it, in this shell or service"
        )
    return value


def _from_file(name: str, wanted: Wanted, environ: Mapping[str, str]) -> str:
    noun = wanted.noun
    path = Path(name)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{path}: the {noun} file is not an ordinary file")
            if os.name == "posix" and mode & 0o077:
                raise ConfigError(
                    f"{path}: others on this machine may read the {noun} file (mode {stat.S_IMODE(mode):04o})",
                    hint=f"type: chmod 600 {shlex.quote(str(path))}",
                )
            data = file.read(LONGEST_SECRET * 4 + 3)
    except OSError as error:
        raise ConfigError(f"{path}: the {noun} file cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the name
        raise ConfigError(f"the name of the {noun} file cannot be read") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the {noun} file is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


def _from_command(command: str, wanted: Wanted, environ: Mapping[str, str]) -> str:
    """What `command` prints, or its first line.  No shell reads it: quotes group words, nothing else is special."""
    import subprocess

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"{wanted.noun}_command cannot be read: {str(error).lower()}") from None
    if not words:
        raise ConfigError(f"{wanted.noun}_command is empty")
    program = f"the {wanted.noun} command {words[0]}"
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
        text = done.stdout.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{program} printed something that is not UTF-8") from None
    return text.rstrip("\r\n") if wanted.has_lines else text.partition("\n")[0].removesuffix("\r")


_PLACES: dict[str, Callable[[str, Wanted, Mapping[str, str]], str]] = {
    "env": _from_variable,
    "file": _from_file,
    "command": _from_command,
}
