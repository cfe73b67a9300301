"""Doubles for tests, yours too: a relay that answers as your script says, and a clock that moves when told."""

from bulkmail.testing.answers import Drop, Hang, Late, Reset, Slow, Split
from bulkmail.testing.clock import ManualClock
from bulkmail.testing.conversation import TakenMessage
from bulkmail.testing.relay import ScriptedRelay

__all__ = ["Drop", "Hang", "Late", "ManualClock", "Reset", "ScriptedRelay", "Slow", "Split", "TakenMessage"]
