"""What a server's replies ask of us: the verdict on each, with the times that its words name."""

from __future__ import annotations

from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.outcome import Effect, Outcome, Scope, Verdict
from bulkmail.model.reply import Fault, Reply
from bulkmail.model.retry import asked_until, asked_wait
from bulkmail.model.timing import LONGEST_ACCOUNT_PAUSE
from bulkmail.model.verdict import Rule, judge


@dataclass(frozen=True, slots=True)
class ThrottleDecision:
    """What is to be done about one reply: its verdict, and for how long.

    `asked` is how many seconds the server asks us to back off, 0 when it did not say; `until` the wall-clock second
    that it names, None when it names none.
    """

    verdict: Verdict
    asked: float = 0.0
    until: float | None = None

    @property
    def suspend(self) -> float:
        """Seconds for which provider or relay is paused: the rule's own or the server's, whichever is longer."""
        return max(self.verdict.suspend, self.asked) if self.is_complaint else 0.0

    @property
    def is_complaint(self) -> bool:
        """Whether it asks a provider or relay to be treated otherwise."""
        if self.verdict.outcome is not Outcome.DEFERRED:
            return False
        return self.verdict.scope is Scope.PROVIDER or (
            self.verdict.scope is Scope.RELAY and bool(self.verdict.effects)
        )

    @property
    def is_suspending(self) -> bool:
        """Whether the verdict's scope is to be paused for a while."""
        return self.is_complaint and (not self.verdict.effects or self.suspend > 0)

    @property
    def is_slower(self) -> bool:
        """Whether the rate of the verdict's scope is to be lowered."""
        return Effect.SLOWER in self.verdict.effects

    @property
    def is_fewer(self) -> bool:
        """Whether the connections of the verdict's scope are to be lowered."""
        return Effect.FEWER in self.verdict.effects

    @property
    def pause(self) -> float:
        """Seconds that the account is to rest because a quota is used up; 0 when none is."""
        return self.verdict.pause and (self.asked or self.verdict.pause)

    def pause_at(self, now: float) -> float:
        """As `pause`, until the day that the server named if that is still to come; `now` is wall-clock seconds."""
        if not self.verdict.pause or self.until is None or self.until <= now:
            return self.pause
        return min(self.until - now, LONGEST_ACCOUNT_PAUSE)


@dataclass(frozen=True, slots=True)
class Feedback:
    """The judge with rules of its own before the built-in ones; the first that fits decides."""

    rules: tuple[Rule, ...] = ()

    def decide(self, event: Reply | Fault) -> ThrottleDecision:
        """The verdict on how an attempt ended, and what it asks of us."""
        verdict = judge(event, self.rules)
        if isinstance(event, Fault) or verdict.scope in (Scope.RECIPIENT, Scope.MESSAGE, Scope.SESSION):
            return ThrottleDecision(verdict)
        if verdict.pause:
            asked = asked_wait(event.text, longest=LONGEST_ACCOUNT_PAUSE)
            return ThrottleDecision(verdict, asked, asked_until(event.text))
        return ThrottleDecision(verdict, asked_wait(event.text))
