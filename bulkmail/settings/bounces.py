"""Which mailboxes `bulkmail bounces` reads when none is named: `[[bounces]]` of the user's own settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bulkmail.mailbox.imap_connection import Mailbox
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.settings.problems import Problems


@dataclass(frozen=True, slots=True)
class BounceMailbox:
    """One mailbox: exactly one of `imap`, `maildir` and `mbox` is given.

    `password_from` is where the password of `imap` is, `"env:NAME"`, `"file:PATH"` or `"command:…"`; empty where
    nothing says it.  `then` is what becomes of mail that was matched, as `--then` takes it.
    """

    imap: Mailbox | None = None
    maildir: Path | None = None
    mbox: Path | None = None
    folder: str = "INBOX"
    then: str = "keep"
    password_from: str = ""


def load_mailboxes(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> tuple[BounceMailbox, ...]:
    """The mailboxes of the settings at `path`, by default the user's `config.toml`.

    Raises `ConfigError` with every fault there is.
    """
    from bulkmail.settings.suppressions import open_user_file

    problems = Problems()
    file, sources = open_user_file(path, environ, problems)
    found: list[BounceMailbox] = []
    for number, table in enumerate(file.bounces):
        place = sources.place(("bounces", number))
        named = [name for name in ("imap", "maildir", "mbox") if getattr(table, name)]
        if len(named) != 1:
            what = "names no mailbox" if not named else f"names several mailboxes, {' and '.join(named)}"
            problems.add(
                f"{place}: {what}", 'write imap = "imaps://USER@HOST", maildir or mbox; a [[bounces]] for each'
            )
            continue
        passwords = [
            f"{kind}:{(sources.home / said).absolute() if kind == 'file' else said}"
            for kind in ("env", "file", "command")
            if (said := getattr(table, f"password_{kind}"))
        ]
        if len(passwords) > 1 or (passwords and not table.imap):
            what = "a password is for imap" if not table.imap else "says twice where the password is"
            problems.add(
                f"{place}: {what}", "keep one of password_env, password_file and password_command, beside imap"
            )
            continue
        try:
            imap = Mailbox.parse(table.imap) if table.imap else None
        except ConfigError as error:
            problems.add(f"{sources.place(('bounces', number, 'imap'))}: {error}", error.hint)
            continue
        found.append(
            BounceMailbox(
                imap=imap,
                maildir=sources.home / table.maildir if table.maildir else None,
                mbox=sources.home / table.mbox if table.mbox else None,
                folder=table.folder or "INBOX",
                then=table.then or "keep",
                password_from=passwords[0] if passwords else "",
            )
        )
    problems.raise_if_any(next_command="bulkmail bounces")
    return tuple(found)
