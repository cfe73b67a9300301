"""How a run takes the place of an earlier one: its outbox's name, its inbox."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bulkmail.mailing.previous_run import NUMBER, PASSES, Past, Standing
from bulkmail.model.errors import ConfigError
from bulkmail.model.pace import Durability
from bulkmail.model.relay import Kind
from bulkmail.model.route import Route
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.reader import OutboxReader, is_outbox
from bulkmail.outbox.shape import noticing_damage

REPORT_SUFFIXES = (".csv", ".json", ".html")  # of the reports beside an outbox


def take_over(outbox: Outbox, old: Path, *, durability: Durability) -> Outbox:
    """The new outbox takes the old one's name, the old one a number: at no instant is there none."""
    new = outbox.path
    if new is None:
        return outbox
    number = _free_number(old)
    outbox.set_setting(NUMBER, str(number + 1))
    outbox.close()
    with Outbox.open(old):  # nobody sends from it, and closing it leaves a single file
        pass
    os.link(old, _numbered(old, number))
    os.replace(new, old)
    return Outbox.open(old, durability=durability)


def earlier_passes(past: Past) -> list[Path]:
    """The outboxes of the passes that `past` went on from.  Raises `ConfigError` when one is gone."""
    found = _replaced_runs(past.path) if past.passes else {}
    if any(run_id not in found for run_id in past.passes):
        raise ConfigError(
            f"the outbox of an earlier pass of {past.path} is gone, and only that says whom it reached",
            hint=f"put {past.path.stem}.1{past.path.suffix} and those after it back into {past.path.parent}",
        )
    return [found[run_id] for run_id in past.passes]


def passes_of(outbox: Path) -> tuple[list[Path], int]:
    """The passes that the run in `outbox` goes on from, oldest first, with its own last; and how many are gone.

    A rehearsal, which reaches no recipient, has no passes but itself.
    """
    with OutboxReader.open(outbox) as reader, noticing_damage(reader.name):
        wanted = msgspec.json.decode(reader.settings.get(PASSES) or "[]", type=tuple[str, ...])
        if reader.is_rehearsal or not wanted:
            return [outbox], 0
    found = _replaced_runs(outbox)
    earlier = [found[run_id] for run_id in wanted if run_id in found]
    return [*earlier, outbox], len(wanted) - len(earlier)


def _replaced_runs(outbox: Path) -> dict[str, Path]:
    """The runs that others took the place of under this name, by run id."""
    found: dict[str, Path] = {}
    for path in outbox.parent.glob(f"{glob.escape(outbox.stem)}.*{outbox.suffix}"):
        if path.name[len(outbox.stem) + 1 : -len(outbox.suffix) or None].isdecimal() and is_outbox(path):
            with OutboxReader.open(path) as reader:
                found[reader.run_id] = path
    return found


def number_of(past: Past) -> int:
    """The number of a new run in the place of `past`, which begins at once.

    Where there is no outbox, reports that are there nevertheless are of a run whose outbox was taken away.
    """
    if past.standing is not Standing.NONE:
        return past.number
    number = 1
    while any(report.exists() for report in reports_beside(past.path, number)):
        number += 1
    return number


def reports_beside(outbox: Path, number: int) -> tuple[Path, ...]:
    """The reports of run `number` under this name: a later pass does not overwrite those of the first."""
    stem = f"{outbox.stem}-report" if number == 1 else f"{outbox.stem}-report-{number}"
    return tuple(outbox.with_name(f"{stem}{suffix}") for suffix in REPORT_SUFFIXES)


def empty_inbox(outbox: Outbox, routes: Sequence[Route]) -> None:
    """A rehearsal always begins anew: what an earlier one kept beside this outbox goes.

    Raises `ConfigError` for a mail folder that no rehearsal made.
    """
    kept_here = [route for route in routes if route.relay.kind is Kind.SANDBOX and not route.relay.directory]
    if not kept_here or outbox.path is None:
        return
    from bulkmail.sandbox.maildir import Maildir

    inbox = inbox_of(outbox.path)
    check_inbox(inbox)
    maildir = Maildir(inbox)
    (inbox / INBOX_MARK).touch(mode=0o600)
    maildir.clear()
    outbox.set_setting("maildir", str(inbox))


INBOX_MARK = ".bulkmail-rehearsal"  # in a mail folder that a rehearsal made, and may empty


def inbox_of(outbox: Path) -> Path:
    """Where a rehearsal in the sandbox keeps its mail."""
    return outbox.with_name(outbox.name.removesuffix(".outbox").removesuffix(".rehearsal") + ".inbox")


def check_inbox(inbox: Path) -> None:
    """Raises `ConfigError` unless a rehearsal may empty this mail folder: it made it, or there is no mail in it."""
    for path in (inbox, *(inbox / name for name in ("tmp", "new", "cur")), inbox / INBOX_MARK):
        is_as_made = path.is_file() if path.name == INBOX_MARK else path.is_dir()
        if path.is_symlink() or (path.exists() and not is_as_made):
            raise ConfigError(
                f"{path}: a rehearsal would keep its mail there, and that is a link or a file", hint="move it away"
            )
    is_empty = not any(next(folder.iterdir(), None) for name in ("new", "cur") if (folder := inbox / name).is_dir())
    if not is_empty and not (inbox / INBOX_MARK).is_file():
        raise ConfigError(
            f"{inbox}: a rehearsal would empty this mail folder, and no rehearsal made it",
            hint="move it away, or remove it if you do not need its mail",
        )


def _free_number(path: Path) -> int:
    """The first number that no older run has, and the next of which no report has."""
    number = 1
    while _numbered(path, number).exists() or any(report.exists() for report in reports_beside(path, number + 1)):
        number += 1
    return number


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")
