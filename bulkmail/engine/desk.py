"""Where one sender's messages are made: at once, or, where signing them takes long, one ahead of the line."""

from __future__ import annotations

from bulkmail.engine.occupancy import Use
from bulkmail.engine.outcomes import record_unmade
from bulkmail.engine.relay_state import RelayState
from bulkmail.engine.run import Run
from bulkmail.engine.signing import Signing
from bulkmail.model.errors import TemplateError
from bulkmail.model.job import Job
from bulkmail.model.message import Message


class Desk:
    """`ahead` is what goes next and may still be being signed; None where nothing is."""

    def __init__(self, run: Run, relay: RelayState, use: Use) -> None:
        self._run = run
        self._relay = relay
        self._use = use
        self.ahead: Signing | None = None

    def make(self, job: Job) -> Signing | None:
        """The job with its message, which may still be being signed; None when there is none: that is its outcome."""
        message, first_at = self._composed(job)
        return None if message is None else Signing(job, message, first_at, self._run.signer)

    def make_now(self, job: Job) -> Signing | None:
        """As `make()`, and it is ready: for copies, with which the line would have to wait."""
        message, first_at = self._composed(job)
        if message is None:
            return None
        sign = self._run.plan.sign
        return Signing(job, sign(message, first_at) if sign is not None else message, first_at, None)

    def next(self) -> Signing | None:
        """What may be begun this instant; one more is being signed meanwhile, where that takes long."""
        ahead = self.ahead
        if ahead is not None and not ahead.is_ready:
            return None
        self.ahead = None
        if ahead is not None and self._run.signer is None:
            return ahead
        found = self._next_made()
        if ahead is None and found is not None and found.is_ready:
            return found
        self.ahead = found
        return ahead

    def take(self) -> Signing | None:
        """What is ahead, ready or not, for anyone who has asked for its job."""
        ahead, self.ahead = self.ahead, None
        return ahead

    def clear(self) -> None:
        """Gives back what is ahead: the sender leaves."""
        if (ahead := self.take()) is not None:
            self._run.take_back(ahead.job, self._relay)

    def _next_made(self) -> Signing | None:
        while (job := self._run.next_job(self._relay, self._use)) is not None:
            if (found := self.make(job)) is not None:
                return found
        return None

    def _composed(self, job: Job) -> tuple[Message | None, float]:
        run = self._run
        first_at = job.delivery.first_at or run.clock.now()
        try:
            return run.plan.compose(job, first_at), first_at
        except TemplateError as error:
            record_unmade(run, job, self._relay, error)
            return None, first_at
