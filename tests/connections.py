"""Connections for tests that send one message at a time and look at what it came to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from bulkmail.engine.contracts import DeliveryResult, ResultBatch
from bulkmail.model.delivery import Message
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.relay import Relay
from bulkmail.smtp.connection import SmtpConnection
from bulkmail.smtp.credentials import Credentials
from bulkmail.smtp.opening import Access
from bulkmail.smtp.peer_policy import PeerPolicy
from bulkmail.smtp.replies import Capabilities
from bulkmail.smtp.transaction import Done, Mark, Transfer


class Single(SmtpConnection):
    """A connection over which a test sends messages one by one."""

    _latest: Transfer | None = None

    @classmethod
    async def to(
        cls, relay: Relay, credentials: Credentials | None = None, *, policy: PeerPolicy | None = None, **access: Any
    ) -> Self:
        """As `open()`; `access` are fields of `Access`."""
        return await cls.open(Access(relay, credentials, **access), policy)

    @property
    def capabilities(self) -> Capabilities:
        """What the server offers."""
        return self.protocol.terms.capabilities

    @property
    def reached_end(self) -> bool:
        """Whether a byte of the terminator of the message begun last was handed to the transport."""
        return self._latest is not None and self._latest.stage is Stage.END

    async def transact(self, message: Message, mark: Mark) -> Reply | Fault:
        """Sends one message; the reply that decides it, or the fault.  Raises what the mark came to."""
        results: list[Reply | Fault] = []
        errors: list[BaseException] = []

        def watched(done: Done) -> None:
            def keep(error: BaseException | None) -> None:
                if error is not None:
                    errors.append(error)
                done(error)

            try:
                mark(keep)
            except Exception as error:
                errors.append(error)
                raise

        self._latest = transfer = Transfer(message, watched, results.append)
        waiting = iter((transfer,))
        await self.carry(lambda: next(waiting, None))
        if not results:  # it was over before it began
            return Fault(Stage.MAIL, Breakage.LOST, self.closed_because)
        if errors and isinstance(results[0], Fault):
            raise errors[0]
        return results[0]


def results_of(events: Iterable[object]) -> list[DeliveryResult]:
    """The outcomes that an observer was told of."""
    return [result for event in events if isinstance(event, ResultBatch) for result in event.results]
