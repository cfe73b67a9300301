"""What hours and quotas still let one relay do: asked before every message, answered without waiting."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from bulkmail.engine.clock import Clock
from bulkmail.engine.contracts import Limits
from bulkmail.model.errors import BulkmailError
from bulkmail.model.timing import Hold

log = logging.getLogger("bulkmail.engine")

Start = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]
"""Starts a task that the run waits for."""


class Account:
    """The account behind a relay, as the scheduler uses it: plain calls on the loop, and a task that asks for more.

    `changed` is called when an answer has come, `failed` when none will.  Without limits everything may go.
    """

    def __init__(
        self,
        limits: Limits | None,
        *,
        clock: Clock,
        changed: Callable[[], None],
        failed: Callable[[BulkmailError], None],
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._changed = changed
        self._failed = failed
        self._start: Start | None = None
        self._is_asking = False
        self._answered = anyio.Event()
        self.is_free = limits is None or limits.is_free  # nothing needs to be taken, until the account is paused

    # -- for the workers

    @property
    def is_asking(self) -> bool:
        """Whether an answer is awaited; `changed` is called when it is here."""
        return self._is_asking

    def hold(self) -> Hold | None:
        """Why nothing may be begun now; None when something may, or might once it is asked for."""
        return None if self._limits is None else self._limits.rest(self._clock.now())

    @property
    def is_held(self) -> bool:
        """Whether nothing may be begun now, or an answer is awaited that says whether it may."""
        return self._is_asking or self.hold() is not None

    def may_begin(self) -> bool:
        """Whether one message may begin now.  If that is not known, it is asked for."""
        if self._limits is None:
            return True
        if not self.take():
            return False
        self.give_back()
        return True

    async def granted(self) -> bool:
        """As `may_begin()`, but waits for the answer if one is awaited."""
        while not self.may_begin():
            if not self._is_asking:
                return False
            await self._answered.wait()
        return True

    def take(self) -> bool:
        """Takes one message out of what is left; `give_back()` follows if nothing of it is attempted."""
        limits = self._limits
        if limits is None:
            return True
        now = self._clock.now()
        is_taken = limits.rest(now) is None and limits.take(1, now)
        if limits.is_running_low(now):
            self._ask()
        return is_taken

    def give_back(self) -> None:
        """Nothing was attempted of a message that was taken."""
        if self._limits is not None:
            self._limits.give_back(1)

    # -- for the run

    def use(self, start: Start) -> None:
        """From now on tasks are started by `start`."""
        self._start = start

    def pause(self, seconds: float, why: str) -> bool:
        """Pauses the account from this instant on, also for later runs; False when there is no ledger for it."""
        limits = self._limits
        if limits is None or self._start is None:
            return False
        self.is_free = False
        limits.pause(seconds, why, self._clock.now())
        self._start(self._remember)
        return True

    async def settle(self) -> None:
        """Tells what was spent, at the end of a run, also of one that is being aborted."""
        if self._limits is not None:
            try:
                with anyio.CancelScope(shield=True):  # a write to the disk
                    await self._limits.settle(self._clock.now())
            except BulkmailError as error:  # what is not given back counts as spent, and that is no harm
                log.warning("the quota ledger was not settled", extra={"why": str(error)})

    async def _remember(self) -> None:
        if self._limits is not None:
            try:
                await self._limits.remember_pause()
            except BulkmailError as error:
                self._give_up(error)

    def _give_up(self, error: BulkmailError) -> None:
        self._start = None  # who has failed once is not asked again
        self._failed(error)

    def _ask(self) -> None:
        if self._is_asking or self._start is None:
            return
        self._is_asking = True
        self._start(self._fetch)

    async def _fetch(self) -> None:
        try:
            if self._limits is not None:
                await self._limits.refill(self._clock.now())
        except BulkmailError as error:
            self._give_up(error)
        finally:
            self._is_asking = False
            self._answered.set()
            self._answered = anyio.Event()
            self._changed()
