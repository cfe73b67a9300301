"""One job on its way over a session, from its mark to what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bulkmail.engine.contracts import Ending
from bulkmail.engine.outcomes import as_outbox_error, record, record_acceptance
from bulkmail.engine.relay_state import RelayState
from bulkmail.engine.run import Run
from bulkmail.engine.worker_session import WorkerSession
from bulkmail.model.feedback import ThrottleDecision
from bulkmail.model.job import Job, Mark, Release
from bulkmail.model.message import Message
from bulkmail.model.reply import Breakage, Fault, Reply, Stage
from bulkmail.smtp.connection import Done, Transfer

Conclude = Callable[[str, ThrottleDecision, Reply | Fault], None]
_END = Stage.END


class Attempt(Transfer):
    """A transfer that records itself: every outcome is durable before anyone is notified.

    `conclude` receives what an outcome other than acceptance means for the lane, the session and the relay.  `slot` is
    what its rate's slot was booked by, and is given back if nothing of it went.
    """

    __slots__ = (
        "_at",
        "_began",
        "_conclude",
        "_first_at",
        "_is_noted",
        "_job",
        "_relay",
        "_run",
        "_session",
        "lane",
        "slot",
    )

    def __init__(
        self,
        run: Run,
        relay: RelayState,
        session: WorkerSession,
        job: Job,
        message: Message,
        lane: str,
        first_at: float,
        *,
        conclude: Conclude,
    ) -> None:
        super().__init__(message, self._mark, self._decided)
        self._run = run
        self._relay = relay
        self._session = session
        self._job = job
        self.lane = lane
        self._first_at = first_at
        self._conclude = conclude
        self._is_noted = False  # the mark, in the journal
        self.slot: Mapping[str, float] = {}
        self._at, self._began = run.clock.now(), run.clock.monotonic()

    @property
    def job(self) -> Job:
        """What it delivers."""
        return self._job

    def begins(self) -> None:
        """From now on it counts how long it takes."""
        self._at, self._began = self._run.clock.now(), self._run.clock.monotonic()

    def _mark(self, done: Done) -> None:
        """Asks for the durable note that the end of this message is about to be written."""
        self._is_noted = True

        def noted(error: BaseException | None) -> None:
            if error is not None:  # nothing can be recorded any more
                self._run.end(Ending(as_outbox_error(error)))
            done(error)

        # Which of several it was is notified to anyone who looks for the message after a crash.
        relay = self._relay.name if self._run.has_several else ""
        mark = Mark(self._job.delivery.id, self.message.message_id, self._first_at, self.message.digest(), relay)
        self._run.journal.put(mark, noted)

    def _decided(self, event: Reply | Fault) -> None:
        run, job = self._run, self._job
        if event.__class__ is Reply and event.stage is _END and event.is_positive:
            took = run.clock.monotonic() - self._began
            record_acceptance(run, job, self._relay, event, at=self._at, took=took)
            self._session.carries()
            run.throttling.accepted(self._relay, self.lane)
            return
        if self._is_as_before(event):
            if self._is_noted:
                run.journal.put(Release(job.delivery.id), _ignore)
            self._relay.turnstile.give_back(self.slot)
            run.take_back(job, self._relay)
            run.nudge()
            return
        took = run.clock.monotonic() - self._began
        self._conclude(self.lane, record(run, job, self._relay, event, at=self._at, took=took), event)

    def _is_as_before(self, event: Reply | Fault) -> bool:
        """Whether nothing of the message left that could count as a try: it goes again as if nothing had been."""
        if not isinstance(event, Fault) or event.stage is Stage.END:
            return False
        if event.kind is Breakage.STOPPED:
            return True
        # The server had closed an old session, or one that has done its work: on a fresh one it may be quite willing.
        return event.stage is Stage.MAIL and event.kind is Breakage.LOST and self._session.carried > 0


def _ignore(error: BaseException | None) -> None:
    """A mark that could not be taken back makes its row doubtful for the next run, which is true enough."""
