"""What a server's complaints ask of us: a table of replies, and the verdict on a reply in its light."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from bulkmail.model.reply import Fault, Reply, Stage
from bulkmail.model.retry import asked_wait
from bulkmail.model.verdict import Outcome, Scope, Verdict, judge


class Effect(Enum):
    """What a complaint lowers."""

    SLOWER = "slower"  # the rate
    FEWER = "fewer"  # the connections


@dataclass(frozen=True, slots=True)
class Complaint:
    """One entry of the table: which replies it is, and what is to be done about them.

    `codes` are beginnings of reply codes, `enhanced` patterns of enhanced status codes.  `scope` is LANE, RELAY, SENDER
    (the account), SESSION or RECIPIENT (no complaint about us at all).  `suspend` and `pause` are seconds: how long the
    lane or relay is left alone, and how long the account is because its quota is used up.
    """

    name: str
    codes: tuple[str, ...]
    scope: Scope
    enhanced: tuple[re.Pattern[str], ...] = ()
    text: re.Pattern[str] | None = None
    stages: frozenset[Stage] = frozenset()
    effects: frozenset[Effect] = frozenset()
    suspend: float = 0.0
    pause: float = 0.0

    def fits(self, reply: Reply) -> bool:
        """Whether `reply` is such a one."""
        return (
            str(reply.code).startswith(self.codes)
            and (not self.stages or reply.stage in self.stages)
            and (not self.enhanced or any(pattern.fullmatch(reply.enhanced) for pattern in self.enhanced))
            and (self.text is None or self.text.search(reply.text) is not None)
        )


@dataclass(frozen=True, slots=True)
class Heeding:
    """What is to be done about one reply: its verdict, the complaint that it is (if any), and for how long.

    `suspend` is the table's span or the one that the server named in its text, whichever is longer, `asked` the latter;
    seconds.
    """

    verdict: Verdict
    complaint: Complaint | None = None
    suspend: float = 0.0
    asked: float = 0.0

    @property
    def is_complaint(self) -> bool:
        """Whether it asks a lane or relay to be treated otherwise, be it known to the table or not."""
        complaint = self.complaint
        if complaint is None:
            return self.verdict.scope is Scope.LANE
        return self.verdict.scope in (Scope.LANE, Scope.RELAY) and bool(complaint.effects or self.suspend)

    @property
    def is_suspending(self) -> bool:
        """Whether the verdict's scope is to be left alone for a while."""
        return self.is_complaint and (self.complaint is None or self.suspend > 0)

    @property
    def is_slower(self) -> bool:
        """Whether the rate of the verdict's scope is to be lowered."""
        return self.complaint is not None and Effect.SLOWER in self.complaint.effects

    @property
    def is_fewer(self) -> bool:
        """Whether the connections of the verdict's scope are to be lowered."""
        return self.complaint is not None and Effect.FEWER in self.complaint.effects

    @property
    def pause(self) -> float:
        """Seconds that the account is to rest because a quota is used up; 0 when none is."""
        return self.complaint.pause if self.complaint else 0.0


@dataclass(frozen=True, slots=True)
class Feedback:
    """The table of complaints; the first that fits decides."""

    complaints: tuple[Complaint, ...] = ()

    def find(self, reply: Reply) -> Complaint | None:
        """The complaint that `reply` is.  Success is none, and neither is what a login was answered."""
        if reply.code < 400 or reply.stage is Stage.AUTH:
            return None
        return next((complaint for complaint in self.complaints if complaint.fits(reply)), None)

    def heed(self, event: Reply | Fault) -> Heeding:
        """The verdict on how an attempt ended, and what it asks of us.

        A complaint never makes success of a refusal nor the other way round: it only makes "not now, and not this
        person's fault" of what `judge()` would have taken for a person's.
        """
        verdict = judge(event)
        if isinstance(event, Fault):
            return Heeding(verdict)
        complaint = self.find(event)
        if complaint is None or verdict.outcome not in (Outcome.DEFERRED, Outcome.REJECTED):
            asked = asked_wait(event.text) if verdict.scope in (Scope.LANE, Scope.RELAY) else 0.0
            return Heeding(verdict, asked=asked)
        asked = asked_wait(event.text) if complaint.scope in (Scope.LANE, Scope.RELAY) else 0.0
        suspend = max(complaint.suspend, asked)
        return Heeding(_softened(verdict, complaint, event.stage), complaint, suspend, asked)


_AFTER_RECIPIENT = frozenset({Stage.RCPT, Stage.DATA, Stage.BODY, Stage.END})


def _softened(verdict: Verdict, complaint: Complaint, stage: Stage) -> Verdict:
    if complaint.pause:
        return Verdict(Outcome.DEFERRED, Scope.SENDER, complaint.name, counts=False, stops=True, drops=True)
    if complaint.scope is Scope.RECIPIENT:
        return verdict
    if complaint.scope is Scope.SESSION:
        return Verdict(Outcome.DEFERRED, Scope.SESSION, complaint.name, counts=False, drops=True)
    # Whoever complains before a recipient was named cannot mean that recipient's provider.
    scope = Scope.RELAY if stage not in _AFTER_RECIPIENT else complaint.scope
    return replace(verdict, outcome=Outcome.DEFERRED, scope=scope, reason=complaint.name, counts=False, stops=False)


def enhanced_pattern(text: str) -> re.Pattern[str]:
    """`"4.7.5??"` as a pattern: `?` is any digit."""
    return re.compile(re.escape(text).replace(r"\?", "[0-9]"))
