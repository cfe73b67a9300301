"""What was found out about writing ahead of the replies of one relay, shared by its sessions."""

from __future__ import annotations

from enum import Enum

from bulkmail.smtp.capabilities import Capabilities


class Trial(Enum):
    """What is known of a relay that offers CHUNKING: whether it swallows a chunk that it refuses."""

    UNTRIED = "untried"
    UNDER_WAY = "under way"  # one session has sent the probe
    PASSED = "passed"
    FAILED = "failed"


class Ahead:
    """Each session reads it before a message and corrects it when the relay shows otherwise.

    `crosses_ends`: the next envelope may be written together with the end of a message.  `trial`: whether several whole
    messages may be under way; one session asks for all, so that the answer costs the relay one error and us one session
    at the most.
    """

    def __init__(self, *, crosses_ends: bool = True) -> None:
        self.crosses_ends = crosses_ends
        self.lost_behind_end = 0  # sessions that were cut off with an envelope unanswered behind the end of a message
        self.trial = Trial.UNTRIED
        self._passed_with: Capabilities | None = None  # behind one name may be servers of different kinds

    def passed(self, capabilities: Capabilities) -> None:
        """A server that offers these swallows what it refuses."""
        self.trial, self._passed_with = Trial.PASSED, capabilities

    def may_go_deep(self, capabilities: Capabilities) -> bool:
        """Whether that is known of servers that offer these."""
        return self.trial is Trial.PASSED and self._passed_with == capabilities
