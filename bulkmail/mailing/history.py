"""What an earlier run with the same outbox means for a new `send`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from bulkmail.model.campaign import Campaign
from bulkmail.model.delivery import Status
from bulkmail.model.errors import ConfigError
from bulkmail.model.tally import Tally
from bulkmail.model.units import count
from bulkmail.outbox.reader import OutboxReader


class Standing(Enum):
    """How far an earlier run came."""

    NONE = "none"  # there is no outbox
    UNTOUCHED = "untouched"  # nothing came of it for anybody: it can be replaced
    UNFINISHED = "unfinished"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier run.  `list_digest` is that of the list it was loaded from."""

    path: Path
    standing: Standing
    fingerprint: str = ""
    list_digest: str = ""
    tally: Tally = field(default_factory=lambda: Tally(0))
    ended_at: float | None = None
    exit_code: int = 0

    @property
    def has_begun(self) -> bool:
        """Whether somebody may have been written to."""
        return self.standing in (Standing.UNFINISHED, Standing.FINISHED)

    def changes(self, campaign: Campaign, list_digest: str) -> list[str]:
        """What is not as it was: "the letter", "the list"."""
        changed = []
        if self.fingerprint != campaign.fingerprint:
            changed.append("the letter")
        if self.list_digest != list_digest:
            changed.append("the list")
        return changed


def look(path: Path) -> Past:
    """What `path` holds.  Raises `OutboxError` when it is there but not to be read."""
    if not path.exists():
        return Past(path, Standing.NONE)
    with OutboxReader.open(path) as reader:
        tally = reader.tally()
        if not reader.is_loaded or (tally.is_untouched and not reader.has_marks):
            return Past(path, Standing.UNTOUCHED)
        return Past(
            path,
            Standing.UNFINISHED if tally.open else Standing.FINISHED,
            fingerprint=reader.campaign.fingerprint if reader.campaign else "",
            list_digest=reader.settings.get("list_digest", ""),
            tally=tally,
            ended_at=reader.ended_at,
            exit_code=tally.exit_code,
        )


def refuse_changed(past: Past, changed: list[str], *, command: str) -> None:
    """Raises `ConfigError` that names what changed since and the three ways to go on."""
    raise ConfigError(
        f"{' and '.join(changed)} changed since this run began ({_reached(past)}; {past.path})",
        hint=f"`bulkmail resume {past.path}` goes on with the old letter and list; "
        f"`{command} --changed` sends the new ones to those not yet reached; "
        f"`{command} --new` sends to everybody again",
    )


def refuse_finished(past: Past, *, command: str) -> None:
    """Raises `ConfigError` that says when and how the run ended."""
    when = (
        datetime.datetime.fromtimestamp(past.ended_at).strftime("on %-d %B %Y at %H:%M") if past.ended_at else "already"
    )
    raise ConfigError(
        f"this mailing ended {when}: {_reached(past)}; nothing was sent now",
        hint=f"`bulkmail report {past.path}` shows it; `{command} --new` sends it to everybody again",
    )


def _reached(past: Past) -> str:
    return f"{past.tally[Status.ACCEPTED]:,} of {count(past.tally.eligible, 'recipient')} accepted"
