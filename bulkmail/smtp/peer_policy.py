"""How far a relay is spoken to ahead of its replies, and what its sessions have taught us of that."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Relay
from bulkmail.smtp.replies import Capabilities
from bulkmail.smtp.transaction import NO_WISHES, Wishes

DEPTH = 8  # messages under way on a connection, where a relay allows several


class Mode(Enum):
    """How much is said before the server has answered.

    PLAIN: a command when the one before it is answered.  PIPELINING (RFC 2920): an envelope at once, and with it the
    terminator of the message before.  CHUNKING (RFC 3030): the same, the content sent by BDAT as soon as the recipient
    is accepted.  DEEP: several whole messages ahead of any answer.
    """

    PLAIN = ("plain", False)
    PIPELINING = ("pipelining", False)
    CHUNKING = ("chunking", True)
    DEEP = ("deep", True)

    def __init__(self, _: str, is_chunked: bool) -> None:
        self.is_chunked = is_chunked  # whether content goes by BDAT


@dataclass(frozen=True, slots=True)
class Terms:
    """What a server offers, and what a session with it makes of that.

    `is_lmtp`: the end of a message gets a reply for each recipient (RFC 2033).  By LMTP, `mode` is not chunked: how
    many replies a refused chunk gets there, no RFC says.
    """

    capabilities: Capabilities
    mode: Mode = Mode.PLAIN
    wishes: Wishes = NO_WISHES
    is_lmtp: bool = False


class Probing(Enum):
    """What is known of a relay that offers CHUNKING: whether it swallows a chunk that it refuses."""

    UNTRIED = "untried"
    UNDER_WAY = "under way"  # one session has sent the probe
    PASSED = "passed"
    FAILED = "failed"


class SessionState(Enum):
    """How far the session has come."""

    OPEN = "open"
    PROBING = "probing"  # whether the server swallows a chunk that it refuses
    ENDING = "ending"  # the server has said its last words: nothing is written, replies may still come
    RESET_REFUSED = "reset refused"  # the same, as it would not forget a transaction
    GOING_ON = "going on"  # the same, and it answers all the same
    CLOSED = "closed"


class CloseReason(Enum):
    """Why a session is over."""

    GOODBYE = "both sides said goodbye"
    STOPPED = "we gave it up"
    TIMED_OUT = "the server was silent"
    LOST = "the connection ended"
    DISMISSED = "the server ended it while it was refusing recipients"
    UNANSWERED = "the server hung up on what was written ahead, without a single answer"
    PROBED = "the probe ended it"
    BROKE_PROTOCOL = "the server did not keep to the protocol"

    @property
    def breakage(self) -> Breakage:
        """What it is to a message that was under way."""
        return _BREAKAGES.get(self, Breakage.LOST)


_BREAKAGES = {
    CloseReason.STOPPED: Breakage.STOPPED,
    CloseReason.TIMED_OUT: Breakage.TIMEOUT,
    CloseReason.BROKE_PROTOCOL: Breakage.DESYNC,
}


_BEARS_NOTHING_AHEAD = (CloseReason.BROKE_PROTOCOL, CloseReason.UNANSWERED)


@dataclass(frozen=True, slots=True)
class Closed:
    """How a session ended; `words` are a sentence.  `refusals` of recipients, one after the other, came last."""

    why: CloseReason
    words: str
    mode: Mode
    refusals: int = 0


class DeepWindow:
    """How many whole messages may be under way in DEEP mode: more while all goes well, fewer after refusals.

    Exim ends a session, with 554, at the eleventh command that brings no mail forward (smtp_accept_max_nonmail); only
    the first RSET after an accepted message is free.  Whatever is then under way would have no answer.
    """

    __slots__ = ("_clean", "_idle_resets", "_most", "is_used_up", "size", "was_reset")

    MOST_IDLE_RESETS = 10

    def __init__(self, most: int) -> None:
        self.size = 1
        self.was_reset = True  # since the last message was accepted
        self.is_used_up = False  # the session has seen as many refusals as any server tolerates
        self._most = most
        self._clean = 0  # decided without a fault since it was enlarged
        self._idle_resets = 0  # answered, with no message accepted since the one before

    def decided(self) -> None:
        """A message was, and the session goes on."""
        self._clean += 1
        if self._clean >= self.size and self.size < self._most:
            self._clean, self.size = 0, min(self._most, self.size * 2)

    def reset(self) -> None:
        """RSET was answered."""
        self._idle_resets += self.was_reset
        self.was_reset = True
        self.is_used_up = self._idle_resets >= self.MOST_IDLE_RESETS

    @property
    def limit(self) -> int:
        """How many messages may be under way."""
        if not self._idle_resets:
            return self.size
        return max(1, min(self.size, self.MOST_IDLE_RESETS - self._idle_resets))  # each of them may be refused


def _unheard(notice: str) -> None:
    """The default: the notice is dropped."""


class PeerPolicy:
    """What is known of one relay.  All sessions with it read this before a message, and correct it.

    A relay that breaks the protocol, or hangs up without an answer, while commands are written ahead of its replies is
    spoken to plainly from then on (`is_plain`).  `crosses_ends`: the next envelope may be written together with the end
    of a message.  `trial`: whether several whole messages may be under way; one session asks for all, so that the
    answer costs the relay one error and us one session at the most.  One that does not report what `Relay.dsn` asks for
    is no longer asked.  One that ended a session after a number of refused recipients is left before that
    (`bearable_refusals`).  `notify` gets each in a sentence, once.
    """

    def __init__(self, *, depth: int = DEPTH, is_plain: bool = False, notify: Callable[[str], None] = _unheard) -> None:
        self.depth = depth
        self.is_plain = is_plain
        self.crosses_ends = depth > 1
        self.trial = Probing.UNTRIED
        self.bearable_refusals = math.inf  # in a row, before a session ends
        self._notify = notify
        self._takes_dsn = True
        self._lost_behind_end = 0  # sessions that were cut off with an envelope unanswered behind the end of a message
        self._passed_with: Capabilities | None = None  # behind one name may be servers of different kinds

    def terms(self, relay: Relay, capabilities: Capabilities) -> Terms:
        """How to speak to `relay` in a session that offers these extensions."""
        if relay.dsn is not None and not capabilities.dsn:
            self._give_up_dsn(f"{relay.peer} does not offer DSN")
        dsn = relay.dsn if self._takes_dsn else None
        wishes = Wishes(dsn, relay.requires_tls) if dsn is not None or relay.requires_tls else NO_WISHES
        return Terms(capabilities, self.mode(capabilities, is_lmtp=relay.is_lmtp), wishes, relay.is_lmtp)

    def mode(self, capabilities: Capabilities, *, is_lmtp: bool = False) -> Mode:
        """How to begin with a session that offers these extensions."""
        if self.is_plain or not capabilities.pipelining:
            return Mode.PLAIN
        if not capabilities.chunking or is_lmtp or self.trial is Probing.FAILED:
            return Mode.PIPELINING
        return Mode.DEEP if self.depth > 1 else Mode.CHUNKING

    def may_go_deep(self, capabilities: Capabilities) -> bool:
        """Whether a server that offers these is known to swallow what it refuses."""
        return self.trial is Probing.PASSED and self._passed_with == capabilities

    # What the sessions teach.

    def passed(self, capabilities: Capabilities) -> None:
        """A server that offers these swallows what it refuses."""
        self.trial, self._passed_with = Probing.PASSED, capabilities

    def refused_dsn(self, peer: str, words: str) -> None:
        """It refused a parameter of DSN in these words, although it had offered DSN."""
        self._give_up_dsn(f"{peer} refused a parameter of DSN, {words}")

    def refused_ahead(self, peer: str, words: str) -> None:
        """What was written behind the end of a message was refused in these words."""
        if self.crosses_ends:
            self.crosses_ends = False
            self._notify(
                f"{peer} refuses what is written together with the end of a message, {words};"
                " from now on each message waits for the answer to the one before"
            )

    def lost_behind_end(self, peer: str) -> None:
        """A session was cut off with an envelope unanswered behind the end of a message.  Once may be chance."""
        self._lost_behind_end += 1
        if self._lost_behind_end > 1:
            self.refused_ahead(peer, "closed the connection")

    def learn(self, closed: Closed) -> None:
        """From how a session ended while it carried messages."""
        if closed.why is CloseReason.DISMISSED:
            self.bearable_refusals = max(1, min(self.bearable_refusals, closed.refusals - 1))
        elif closed.why is CloseReason.PROBED:
            self._notify(f"{closed.words}; from now on messages go there by DATA instead of BDAT")
        elif closed.mode is not Mode.PLAIN and not self.is_plain and closed.why in _BEARS_NOTHING_AHEAD:
            self.is_plain = True
            self._notify(f"{closed.words}; from now on it gets one command at a time, which is slower")

    def _give_up_dsn(self, why: str) -> None:
        if self._takes_dsn:
            self._takes_dsn = False
            self._notify(f"{why}, so the reports that dsn asks for will not come; messages are sent without asking")
