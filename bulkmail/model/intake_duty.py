"""How long mail that came back was left unread while a bulk campaign is young.

Gmail and Yahoo ask bulk senders to act on an opt-out within two days.
"""

from __future__ import annotations

from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.quota import DAY
from bulkmail.model.units import say_duration

WARN_AFTER = DAY
"""Seconds without a successful intake after which people are warned."""

REFUSE_AFTER = 2 * DAY
"""Seconds after which it is an error."""

MANY = 5_000
"""Recipients from which the mailbox providers call a sender a bulk sender."""

YOUNG = 30 * DAY
"""Seconds after its beginning in which a campaign's mail is waited for."""


@dataclass(frozen=True, slots=True)
class IntakeState:
    """What a suppression list knows of intake.  Times are wall-clock seconds, None for never.

    `pulled_at` is when a mailbox was last read to its end, `pushed_at` when a mail server or a service last handed
    something over; `bulk_began` is when the oldest bulk campaign that is still young was begun.
    """

    pulled_at: float | None = None
    pushed_at: float | None = None
    bulk_began: float | None = None

    def overdue(self, now: float) -> float:
        """Seconds for which intake should have succeeded and has not; 0.0 while there is nothing to wait for.

        Where mail is handed over, silence says nothing.
        """
        pulled, pushed = self.pulled_at or 0.0, self.pushed_at or 0.0
        if self.bulk_began is None or self.bulk_began < now - YOUNG or (pushed > pulled and pushed > now - YOUNG):
            return 0.0
        return max(0.0, now - max(self.bulk_began, pulled))


def say_overdue(seconds: float) -> str:
    """A sentence for people, without a full stop; empty while there is nothing to warn of."""
    if seconds < WARN_AFTER:
        return ""
    return (
        f"mail that came back was not read for {say_duration(seconds)}, and a bulk campaign is younger than 30 days:"
        " Gmail and Yahoo want opt-outs to be acted on within 48 hours"
    )
