"""Which commands a campaign or an outbox may run: those its user has allowed, once, word for word.

A campaign folder or an outbox may come from another person, and key_command and its like run programs.  As direnv does,
nothing is run from a place before the user has seen the commands and allowed them for that place.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import ConfigError
from bulkmail.model.notification import NotifySettings
from bulkmail.model.relay import commands_of
from bulkmail.model.route import Route
from bulkmail.outbox.ledger import state_folder
from bulkmail.settings.runs import FOLDER
from bulkmail.text import printable

VARIABLE = "BULKMAIL_ALLOW_COMMANDS"
LONGEST_SHOWN = 2_000  # characters of a command
_LARGEST = 1 << 20  # bytes of a file of permissions


def commands_in(
    campaign: Campaign | None,
    routes: Iterable[Route],
    notify: NotifySettings = NotifySettings(),  # noqa: B008 - frozen
) -> tuple[str, ...]:
    """Every command that signing with the keys of `campaign`, logging in to `routes` and `notify` would run."""
    places = []
    if campaign is not None:
        if campaign.unsubscribe is not None:
            places.append(campaign.unsubscribe.key_from)
        places += [dkim.key_from for dkim in campaign.dkim]
    for relay in (route.relay for route in routes):
        places += [relay.password_from, relay.token_from, relay.key_password_from, relay.proxy_password_from]
        if relay.oauth is not None:
            places += [relay.oauth.client_secret_from, relay.oauth.refresh_token_from]
    found = [*commands_of(*places), *notify.secret_commands, *([shlex.join(notify.command)] if notify.command else [])]
    return tuple(dict.fromkeys(found))


def home_of(campaign: str | None) -> Path:
    """The folder that a campaign's commands are allowed for, by how it is named on the command line."""
    path = Path(campaign or ".")
    return path if path.is_dir() else path.parent


def refuse_unallowed(place: Path, commands: Sequence[str], *, environ: Mapping[str, str] = os.environ) -> None:
    """Raises `ConfigError` when the campaign folder or outbox at `place` names a command that was not allowed for it.

    What is allowed for a campaign folder holds for the outboxes in its runs folder, too.
    """
    if not commands:
        return
    places = _places(place)
    by_variable = {os.path.realpath(each) for each in environ.get(VARIABLE, "").split(os.pathsep) if each}
    if by_variable & set(places):
        return
    allowed = frozenset[str]().union(*(_allowed(each, environ) for each in places))
    if refused := [command for command in commands if command not in allowed]:
        raise ConfigError(
            f"{place} would run {_listed(refused)}, and you have not allowed that",
            hint=f"if you trust it, type: bulkmail allow {shlex.quote(str(place))}; "
            f"or, where there is no terminal, set {VARIABLE}={shlex.quote(places[0])}",
        )


def allow(place: Path, commands: Sequence[str], *, environ: Mapping[str, str] = os.environ) -> None:
    """Remembers for good that what is at `place` may run `commands`.  Raises `ConfigError` when that cannot be kept."""
    if not commands:
        return
    path = os.path.realpath(place)
    file = _file(path, environ)
    kept = {"path": path, "commands": sorted({*_allowed(path, environ), *commands})}
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A new file is its owner's alone, and takes the place of the old one as a whole.
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as new:
            json.dump(kept, new)
        Path(new.name).replace(file)
    except OSError as error:
        raise ConfigError(f"{file}: the permission cannot be kept there: {error.strerror}") from None


def forget(place: Path, *, environ: Mapping[str, str] = os.environ) -> bool:
    """Takes back what was allowed for `place`; says whether anything was."""
    try:
        _file(os.path.realpath(place), environ).unlink()
    except FileNotFoundError:
        return False
    return True


def _places(place: Path) -> list[str]:
    """The path itself and, for an outbox, the campaign's folder by how the outbox was named and by where it is."""
    real = os.path.realpath(place)
    homes = [Path(each).parent for each in (os.path.abspath(place), real) if not os.path.isdir(real)]
    return list(dict.fromkeys([real, *(os.path.realpath(home.parent) for home in homes if home.name == FOLDER)]))


def _file(path: str, environ: Mapping[str, str]) -> Path:
    name = blake2b(os.fsencode(path), digest_size=16).hexdigest()
    return state_folder(environ) / "allowed" / f"{name}.json"


def _allowed(path: str, environ: Mapping[str, str]) -> frozenset[str]:
    """The commands allowed for a canonical path; none where the file is not one that only this user may write."""
    try:
        descriptor = os.open(_file(path, environ), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            is_ours = os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)
            if not (is_ours and stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST):
                return frozenset()
            kept = json.load(file)
        if kept["path"] == path:
            return frozenset(command for command in kept["commands"] if isinstance(command, str))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # as if nothing was allowed
    return frozenset()


def _listed(commands: Sequence[str]) -> str:
    return " and ".join(f"`{printable(command, LONGEST_SHOWN)}`" for command in commands)
