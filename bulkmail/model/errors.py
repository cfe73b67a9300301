"""What can go wrong as a whole, as exceptions that carry the next command to type.

A refused mail is a value (`Reply`, `Verdict`); only what stops a campaign, a list or a program is an exception.
"""

from __future__ import annotations

import math

from bulkmail.model.timing import Hold


class BulkmailError(Exception):
    """Something stops the work.  `str(error)` is one sentence for people; `hint`, if not empty, says what to try."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(BulkmailError):
    """The campaign, its settings or the command line cannot be used.  Nothing was sent."""


class TemplateError(ConfigError):
    """A template cannot be read or, for one row, not be rendered: `"message.txt:3: 'nmae' is undefined"`."""


class ListError(BulkmailError):
    """The list as a whole cannot be read; single bad rows are `BadRow` values, never this.  Nothing was sent."""


class EmptyList(ListError):
    """The list can be read and has not one row."""


class AddressError(BulkmailError, ValueError):
    """A text is not one usable mail address; `str(error)` says why, without repeating the address."""


class ChecksFailed(BulkmailError):
    """The checks found a fault that would spoil the whole mailing.  Nothing was sent."""


class OutboxError(BulkmailError):
    """The outbox cannot be read or written: damaged, on a network file system, disk full."""


class OutboxBusy(OutboxError):
    """Another process is sending from this outbox; the message names its pid and host."""


class SuppressionError(BulkmailError):
    """The suppression list cannot be read or written: damaged, in use, no room.  Nothing is sent without it."""


class RelayError(BulkmailError):
    """The relay cannot be used: not reachable, not trusted, login refused, sender refused.  The list stays whole."""


class BreakerTripped(RelayError):
    """A breaker opened: what is wrong is about the campaign, whichever machine sends it.

    `sentence` says what, without that sending stopped.
    """

    def __init__(self, message: str, *, sentence: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.sentence = sentence or message


class SendingPaused(BulkmailError):
    """Sending has to wait for sending hours, a quota or a user's decision.  No row is lost; a later run continues.

    `hold` says until when, by the clock on the wall, and why; without one, time alone does not help.
    """

    def __init__(self, message: str, *, hold: Hold | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.hold = hold or Hold(math.inf, message)

    @property
    def until(self) -> float | None:
        """Wall-clock seconds; None when time alone does not help."""
        return None if math.isinf(self.hold.until) else self.hold.until

    @property
    def why(self) -> str:
        """Half a sentence."""
        return self.hold.why


class IllegalMove(BulkmailError):
    """A delivery was asked to change to a status that its present one does not lead to: a bug of ours."""
