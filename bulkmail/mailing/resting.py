"""Remembers in the outbox why nothing is sent just now, so that others who look at the run can say so."""

from __future__ import annotations

from collections.abc import Callable

from bulkmail.engine.ports import DeliveryResult, Ending, Event, Waiting
from bulkmail.model.errors import SendingPaused
from bulkmail.outbox.outbox import Outbox
from bulkmail.report.rest import SETTING, Resting


class RestNote:
    """Stands between the engine and whoever watches it."""

    def __init__(self, outbox: Outbox, observe: Callable[[Event], None]) -> None:
        self._outbox = outbox
        self._observe = observe
        self._is_noted = bool(outbox.settings.get(SETTING))

    def observe(self, event: Event) -> None:
        """The engine tells."""
        if isinstance(event, Waiting):
            self._note(Resting(event.until, event.why))
        elif self._is_noted and isinstance(event, DeliveryResult):
            self._clear()
        self._observe(event)

    def ended(self, ending: Ending) -> None:
        """The run is over; what it was waiting for no longer matters, unless that is why it ended."""
        error = ending.error
        if isinstance(error, SendingPaused):
            self._note(Resting(error.until, error.why))
        elif self._is_noted:
            self._clear()

    def _note(self, resting: Resting) -> None:
        self._is_noted = True
        self._outbox.set_setting(SETTING, resting.recorded())

    def _clear(self) -> None:
        self._is_noted = False
        self._outbox.set_setting(SETTING, "")
