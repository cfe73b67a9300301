"""Remembers in the outbox why nothing is sent just now, so that others who look at the run can say so."""

from __future__ import annotations

from collections.abc import Callable

from bulkmail.engine.ports import Ending, Event, Settled
from bulkmail.model.errors import SendingRests
from bulkmail.model.hold import Hold
from bulkmail.outbox.outbox import Outbox
from bulkmail.report.rest import SETTING, recorded


class RestNote:
    """Stands between the engine and whoever watches it."""

    def __init__(self, outbox: Outbox, observe: Callable[[Event], None]) -> None:
        self._outbox = outbox
        self._observe = observe
        self._is_noted = bool(outbox.settings.get(SETTING))

    def observe(self, event: Event) -> None:
        """The engine tells."""
        if isinstance(event, Hold):
            self._note(event)
        elif self._is_noted and isinstance(event, Settled):
            self._clear()
        self._observe(event)

    def ended(self, ending: Ending) -> None:
        """The run is over; what it was waiting for no longer matters, unless that is why it ended."""
        error = ending.error
        if isinstance(error, SendingRests):
            self._note(error.hold)
        elif self._is_noted:
            self._clear()

    def _note(self, hold: Hold) -> None:
        self._is_noted = True
        self._outbox.set_setting(SETTING, recorded(hold))

    def _clear(self) -> None:
        self._is_noted = False
        self._outbox.set_setting(SETTING, "")
