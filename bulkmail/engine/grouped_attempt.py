"""Copies of one message on their way in one transaction, each with an outcome of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bulkmail.engine.attempt import Attempt
from bulkmail.model.message import Message
from bulkmail.model.reply import Breakage, Fault, Reply, Stage
from bulkmail.smtp.connection import Done, Transfer

MOST_COPIES = 50  # forward paths of a transaction: RFC 5321 §4.5.3.1.8 asks servers for 100, some providers take 50


class GroupedAttempt(Transfer):
    """Several attempts of one row as one transfer.

    The marks of all are put in the journal in one turn, so that one commit makes them durable; who was refused before
    that needs none.  `too_many` receives how many forward paths the server takes at a time, when it says so.
    """

    __slots__ = ("_attempts", "_too_many")

    def __init__(self, message: Message, attempts: Sequence[Attempt], *, too_many: Callable[[int], None]) -> None:
        """`message` is that of the attempts, to the forward paths of all in their order."""
        super().__init__(message, self._mark, self._decided)
        self._attempts = attempts
        self._too_many = too_many

    def _mark(self, done: Done) -> None:
        going = [attempt for number, attempt in enumerate(self._attempts) if number not in self.own]
        waiting = len(going)

        def one_done(error: BaseException | None) -> None:
            nonlocal waiting
            waiting -= 1
            if error is not None or waiting == 0:
                done(error)

        for attempt in going:
            attempt.mark(one_done)

    def _decided(self, event: Reply | Fault) -> None:
        # From the back: what goes once more goes to the head of the queue, and there the order shall be the same.
        for number, attempt in reversed(list(enumerate(self._attempts))):
            own = self.own.get(number, event)
            if number and _is_too_many(own):
                self._too_many(number)
                own = Fault(Stage.RCPT, Breakage.STOPPED, f"it goes in a transaction of its own: {own}")
            attempt.decided(own)


def _is_too_many(event: Reply | Fault) -> bool:
    """RFC 5321 §4.5.3.1.10: the rest may be sent at once, in another transaction."""
    return isinstance(event, Reply) and event.stage is Stage.RCPT and event.enhanced in ("4.5.3", "5.5.3")
