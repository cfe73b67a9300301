"""How a relay is spoken to: as far ahead of its answers as it was found to tolerate."""

from __future__ import annotations

import math
from collections.abc import Callable

from bulkmail.model.relay import Relay
from bulkmail.smtp.ahead import Ahead, Trial
from bulkmail.smtp.capabilities import Capabilities
from bulkmail.smtp.envelopes import NO_WISHES, Wishes
from bulkmail.smtp.protocol import Transactions
from bulkmail.smtp.transfer import Mode

DEPTH = 8  # messages under way on a connection, where a relay allows several


def _unheard(notice: str) -> None:
    """No one listens."""


class Manners:
    """What is known of one relay, shared by all sessions with it.

    A relay that breaks the protocol, or hangs up without an answer, while commands are written ahead of its replies is
    spoken to plainly from then on; what it does not tolerate of that is in `ahead`.  One that does not report what
    `Relay.dsn` asks for is no longer asked.  `notify` gets each in a sentence, once.  One that ended a session after
    a number of refused recipients is left before that.
    """

    def __init__(self, *, depth: int = DEPTH, is_plain: bool = False, notify: Callable[[str], None] = _unheard) -> None:
        self.depth = depth
        self.is_plain = is_plain
        self.ahead = Ahead(crosses_ends=depth > 1)
        self._notify = notify
        self._takes_dsn = True
        self._has_told_ends = False
        self._bearable_refusals = math.inf  # in a row, before a session ends

    def mode(self, capabilities: Capabilities, *, is_lmtp: bool = False) -> Mode:
        """How to begin with a session that offers these extensions."""
        if self.is_plain or not capabilities.pipelining:
            return Mode.PLAIN
        if not capabilities.chunking or is_lmtp:
            return Mode.PIPELINING
        if self.ahead.trial is Trial.FAILED:
            return Mode.PIPELINING
        return Mode.DEEP if self.depth > 1 else Mode.CHUNKING

    def wishes(self, relay: Relay, capabilities: Capabilities) -> Wishes:
        """What to ask of `relay` in a session that offers these extensions."""
        if relay.dsn is not None and not capabilities.dsn:
            self._give_up_dsn(f"{relay.peer} does not offer DSN")
        dsn = relay.dsn if self._takes_dsn else None
        return Wishes(dsn, relay.requires_tls) if dsn is not None or relay.requires_tls else NO_WISHES

    def _give_up_dsn(self, why: str) -> None:
        if self._takes_dsn:
            self._takes_dsn = False
            self._notify(f"{why}, so the reports that dsn asks for will not come; messages are sent without asking")

    def is_tired(self, transactions: Transactions) -> bool:
        """Whether it is about to end this session, because it has refused this many recipients.

        The words that end it would hit someone whom it would have taken.
        """
        return transactions.is_used_up or transactions.refusals >= self._bearable_refusals

    def learn(self, transactions: Transactions) -> None:
        """From a session that is over, or was asked for more than it tolerates."""
        if transactions.refused_dsn:
            self._give_up_dsn(f"{transactions.peer} refused a parameter of DSN, {transactions.refused_dsn}")
        if transactions.was_shown_out:
            self._bearable_refusals = max(1, min(self._bearable_refusals, transactions.refusals - 1))
        if transactions.refused_ahead and not self._has_told_ends:
            self._has_told_ends = True
            self._notify(
                f"{transactions.peer} refuses what is written together with the end of a message,"
                f" {transactions.refused_ahead}; from now on each message waits for the answer to the one before"
            )
        if transactions.ended_in_probe:
            transactions.ended_in_probe = False
            self._notify(f"{transactions.goodbye}; from now on messages go there by DATA instead of BDAT")
            return
        if self.is_plain or transactions.mode is Mode.PLAIN:
            return
        if transactions.broke_rules or transactions.was_struck_dumb:
            self.is_plain = True
            self._notify(f"{transactions.goodbye}; from now on it gets one command at a time, which is slower")
