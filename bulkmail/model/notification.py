"""Whom to notify of a run, when, and in which words.  The sending is done elsewhere."""

from __future__ import annotations

from enum import Enum

from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.quantities import say_duration
from bulkmail.model.relay import commands_of
from bulkmail.model.tally import Status, Tally
from bulkmail.text import count

_ADDRESS = lazy_pattern(r"<?[^\s<>@\"',;:()]+@[^\s<>@\"',;:()]+>?")
_NAMED = (
    Status.ACCEPTED,
    Status.REJECTED,
    Status.EXPIRED,
    Status.INVALID,
    Status.CANCELLED,
    Status.IN_DOUBT,
    Status.DEFERRED,
    Status.PENDING,
)


class NotifyEvent(Enum):
    """What a notification is about."""

    FINISHED = "finished"  # no recipient is left to send to
    STOPPED = "stopped"  # by a fault, by patience or by the user, before the end
    STALLED = "stalled"  # still running, and nothing has moved for the time that was set
    KILLED = "killed"  # the process is gone and has said nothing


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """`[notify]`.  `mail` is an address, `command` a program with its arguments; empty: not by this way.

    `webhook_from` is `"url:https://…"`, or the place of a secret (`"env:NAME"`, `"file:PATH"`, `"command:…"`), as
    `secret_from`, the key that signs the call, is.  `after` is how many seconds nothing moves before a run counts as
    stalled; None never notifies of that.
    """

    mail: str = ""
    webhook_from: str = ""
    secret_from: str = ""
    command: tuple[str, ...] = ()
    after: float | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is a way to notify."""
        return bool(self.mail or self.webhook_from or self.command)

    @property
    def secret_commands(self) -> tuple[str, ...]:
        """The commands that print secrets."""
        return commands_of(self.webhook_from, self.secret_from)

    def over(self, usual: NotifySettings) -> NotifySettings:
        """These settings, and those of `usual` for what they leave open.  A webhook keeps the secret beside it."""
        hook = self if self.webhook_from else usual
        return NotifySettings(
            mail=self.mail or usual.mail,
            webhook_from=hook.webhook_from,
            secret_from=hook.secret_from,
            command=self.command or usual.command,
            after=usual.after if self.after is None else self.after,
        )


class Stillness:
    """When a run counts as stalled: once for each time that it stands still, and each time later than before.

    Times are seconds of one clock.  `after` doubles with each notification, so that a run that moves once an hour for
    a week sends a few of them and not hundreds.
    """

    __slots__ = ("_after", "_is_notified", "_since")

    def __init__(self, after: float, *, now: float) -> None:
        self._after = after
        self._since = now
        self._is_notified = False

    def moved(self, now: float) -> None:
        """A recipient got an outcome."""
        self._since = max(self._since, now)
        self._is_notified = False

    def waits_until(self, until: float) -> None:
        """Nothing is meant to move before `until`: hours, a quota, the next try."""
        self._since = max(self._since, until)
        self._is_notified = False

    def due_in(self, now: float) -> float | None:
        """Seconds until the run counts as stalled, 0.0 if it does; None when that was notified already."""
        return None if self._is_notified else max(0.0, self._since + self._after - now)

    def notified(self) -> None:
        """The notification went out."""
        self._is_notified = True
        self._after *= 2


def event_of(tally: Tally, *, has_failed: bool) -> NotifyEvent:
    """What the end of a run is called."""
    return NotifyEvent.STOPPED if has_failed or tally.open else NotifyEvent.FINISHED


def sentence(event: NotifyEvent, *, name: str, tally: Tally, error: str = "", still: float | None = None) -> str:
    """The notification in a line: `bulkmail: spring finished: 1,204 accepted, 3 rejected`."""
    found = [f"{tally[status]:,} {status.value.replace('_', ' ')}" for status in _NAMED if tally[status]]
    what = {
        NotifyEvent.FINISHED: "finished",
        NotifyEvent.STOPPED: "stopped before the end",
        NotifyEvent.STALLED: f"has not moved for {say_duration(still or 0.0)}",
        NotifyEvent.KILLED: "was killed before the end",
    }[event]
    said = f"bulkmail: {name} {what}: {', '.join(found) or count(tally.rows, 'row')}"
    return f"{said} ({error})" if error else said


def without_addresses(text: str) -> str:
    """`text` with `<address>` for each mail address: a server's words may name recipients."""
    return _ADDRESS.sub("<address>", text)
