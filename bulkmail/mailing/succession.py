"""How a run takes the place of an earlier one: its outbox's name, its inbox."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bulkmail.model.pace import Durability
from bulkmail.model.relay import Kind
from bulkmail.model.route import Route
from bulkmail.outbox.outbox import Outbox


def take_over(outbox: Outbox, old: Path, *, durability: Durability) -> Outbox:
    """The new outbox takes the old one's name, the old one a number: at no instant is there none."""
    new = outbox.path
    if new is None:
        return outbox
    outbox.close()
    with Outbox.open(old):  # nobody sends from it, and closing it leaves a single file
        pass
    os.link(old, _free_name(old))
    os.replace(new, old)
    return Outbox.open(old, durability=durability)


def empty_inbox(outbox: Outbox, routes: Sequence[Route]) -> None:
    """A rehearsal always begins anew: what an earlier one kept beside this outbox goes."""
    kept_here = [route for route in routes if route.relay.kind is Kind.SANDBOX and not route.relay.directory]
    if not kept_here or outbox.path is None:
        return
    from bulkmail.sandbox.maildir import Maildir

    name = outbox.path.name.removesuffix(".outbox").removesuffix(".rehearsal") + ".inbox"
    inbox = outbox.path.with_name(name)
    if inbox.exists():
        Maildir(inbox).clear()
    outbox.set_setting("maildir", str(inbox))


def _free_name(path: Path) -> Path:
    """`NAME.1.outbox`, or the next number that no older run has."""
    number = 1
    while (name := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return name
