"""Doubles for tests, yours too: a relay that answers as your script says, and a clock that moves only on request.

pytest finds three fixtures by itself: `recording_relay`, `scripted_relay` and `manual_clock`.
"""

from bulkmail.testing.answers import Drop, Hang, Late, Reset, Slow, Split
from bulkmail.testing.manual_clock import ManualClock
from bulkmail.testing.scripted_conversation import TakenMessage
from bulkmail.testing.scripted_relay import ScriptedRelay
from bulkmail.testing.threaded_relay import ThreadedRelay

__all__ = [
    "Drop",
    "Hang",
    "Late",
    "ManualClock",
    "Reset",
    "ScriptedRelay",
    "Slow",
    "Split",
    "TakenMessage",
    "ThreadedRelay",
]
