"""When a run may write to whom: the hours, the start, and what the ledgers of its accounts still allow."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import reduce

import anyio
from anyio import to_thread

from bulkmail.engine.contracts import Limits
from bulkmail.model.errors import OutboxError
from bulkmail.model.pace import Pace
from bulkmail.model.quota import NO_QUOTA, Quota
from bulkmail.model.relay import Kind
from bulkmail.model.route import Route
from bulkmail.model.schedule import ALWAYS, Windows
from bulkmail.model.timing import Hold
from bulkmail.outbox.ledger import (
    LONGEST_PAUSE,
    VARIABLE,
    Allowance,
    Ledger,
    account_of,
    ledger_path,
    open_ledger,
    state_folder,
)

log = logging.getLogger("bulkmail.quota")

ASKED_AGAIN = 600.0  # seconds after which a ledger that refused is asked again: another run may have given back
MUCH_LONGER = 60.0  # seconds by which a second complaint about a quota must outlast the first to count

WINDOW = "the hours of the campaign (window) are over for now"
START = "that is when the campaign starts (start)"


class AccountPermit:
    """The permit of one account, which several relays of a run may share.

    Without an allowance only hours and start hold, until the provider complains of a quota.
    """

    def __init__(
        self,
        account: str,
        *,
        allowance: Allowance | None = None,
        windows: Windows = ALWAYS,
        start: float | None = None,
    ) -> None:
        self.account = account
        self._allowance = allowance
        self._windows = windows
        self._start = Hold(start, START) if start is not None else None
        self._refusal: Hold | None = None  # the ledger's
        self._refused_at = 0.0
        self._pause: tuple[float, Hold] | None = None  # the provider's, with when it began
        self._asking = anyio.Lock()

    @property
    def is_free(self) -> bool:
        """Whether nothing limits the account at any time, unless its provider complains."""
        return self._allowance is None and self._start is None and self._pause is None and self._windows == ALWAYS

    def rest(self, now: float) -> Hold | None:
        """Why nothing may be begun at `now`.  Until when, is when all that holds it back has ended."""
        until, why = now, WINDOW
        for held in (self._start, self._pause and self._pause[1], self._refusal):
            if held is not None and held.until > until:
                until, why = held.until, held.why
        until = self._windows.next_open(until)
        return Hold(until, why) if until > now else None

    def take(self, count: int, now: float) -> bool:
        """Spends `count` recipients, if the reservation has enough left."""
        return self._allowance is None or self._allowance.take(count, now)

    def give_back(self, count: int) -> None:
        """`count` recipients were not written to after all."""
        if self._allowance is not None:
            self._allowance.give_back(count)

    def is_running_low(self, now: float) -> bool:
        """Whether the ledger is to be asked: never while it is too early or too late for messages anyway."""
        if self._allowance is None or not self._windows.is_open(now) or (self._start and now < self._start.until):
            return False
        if self._refusal is not None and now < self._refusal.until:
            return not 0 <= now - self._refused_at < ASKED_AGAIN
        return self._allowance.is_running_low(now)

    async def refill(self, now: float) -> None:
        """Asks the ledger.  Raises `OutboxError`."""
        async with self._asking:
            if self._allowance is None or not self.is_running_low(now):
                return  # for another relay of the account it was asked just now
            got = await self._allowance.refill(now)
            self._refusal = Hold(got.until, got.why) if isinstance(got, Hold) else None
            self._refused_at = now

    def pause(self, seconds: float, why: str, now: float) -> None:
        """The provider's own quota is used up.  That several sessions hear it at once makes it no longer."""
        until = now + min(seconds, LONGEST_PAUSE)
        if self._pause is None or until > self._pause[1].until + MUCH_LONGER:
            self._pause = (now, Hold(until, why))

    async def remember_pause(self) -> None:
        """Writes it into the ledger; one that cannot be written holds for this run alone."""
        if self._pause is None:
            return
        began_at, rest = self._pause
        try:
            async with self._asking:
                await to_thread.run_sync(self._write_pause, rest.until - began_at, rest.why, began_at)
        except OutboxError as error:
            log.warning("the next run will not know that the quota is used up", extra={"why": str(error)})

    def _write_pause(self, seconds: float, why: str, now: float) -> None:
        with open_ledger(self.account) as ledger:
            ledger.pause(seconds, why, now)

    async def settle(self, now: float) -> None:
        """Tells the ledger what was spent.  Raises `OutboxError`."""
        async with self._asking:
            if self._allowance is not None:
                await self._allowance.settle(now)


@asynccontextmanager
async def open_permits(
    routes: Sequence[Route], pace: Pace, *, run_id: str, is_rehearsal: bool
) -> AsyncIterator[list[Limits | None]]:
    """The permits of `routes`, in their order; None for those that deliver nothing.

    A rehearsal with real relays keeps to their quotas, since their mail counts there, but at any hour.  Raises
    `OutboxError` when a quota or a ramp cannot be kept because the ledger cannot be used.
    """
    windows, start = (ALWAYS, None) if is_rehearsal else (pace.windows, pace.start)
    ramp = None if is_rehearsal else pace.ramp
    by_account: dict[str, AccountPermit] = {}
    with ExitStack() as stack:

        def permit_of(account: str, quota: Quota) -> AccountPermit:
            ledger = find_ledger(account, is_needed=quota != NO_QUOTA or ramp is not None)
            allowance = None
            if ledger is not None:
                stack.enter_context(ledger)
                allowance = Allowance(ledger, quota=quota, ramp=ramp, campaign=run_id)
            return AccountPermit(account, allowance=allowance, windows=windows, start=start)

        for account, quota in quotas_of(routes, pace.quota).items():
            by_account[account] = await to_thread.run_sync(permit_of, account, quota)
        yield [by_account.get(account_of(route.relay)) if is_counted(route) else None for route in routes]


def is_counted(route: Route) -> bool:
    """Whether a provider counts what goes through it: not where mail stays on this machine."""
    return route.relay.kind is Kind.SMTP


def accounts_of(routes: Sequence[Route]) -> list[str]:
    """The accounts that mail through `routes` counts for, each once."""
    return list(dict.fromkeys(account_of(route.relay) for route in routes if is_counted(route)))


def quotas_of(routes: Sequence[Route], usual: Quota) -> dict[str, Quota]:
    """The quota of each account that mail through `routes` counts for; `usual` where its relays have none of their own.

    Of several relays of one account each keeps all their quotas.
    """
    own: dict[str, list[Quota]] = {account: [] for account in accounts_of(routes)}
    for route in routes:
        if route.quota is not None and is_counted(route):
            own[account_of(route.relay)].append(route.quota)
    return {account: reduce(Quota.within, quotas) if quotas else usual for account, quotas in own.items()}


def find_ledger(account: str, *, is_needed: bool) -> Ledger | None:
    """The ledger of `account`; None when there is none yet and none `is_needed`.

    Sending without quotas writes no file and needs no folder.  From the first quota on, or when the provider has said
    that one is used up, all runs are counted.  Raises `OutboxError`.
    """
    try:
        if not is_needed and not ledger_path(state_folder(), account).exists():
            return None
        return open_ledger(account)
    except (OSError, RuntimeError) as error:  # the folder is not readable, or there is no home folder
        if is_needed:
            hint = f"set {VARIABLE} to a folder that you may write to"
            raise OutboxError(f"there is no place for a quota ledger: {error}", hint=hint) from error
        return None
    except OutboxError as error:
        if is_needed:
            raise
        log.warning("what is sent is not counted", extra={"why": str(error)})
        return None


def lift_pauses(routes: Sequence[Route]) -> None:
    """The accounts of `routes` rest no longer, by the user's word.  Raises `OutboxError`."""
    for account in accounts_of(routes):
        ledger = find_ledger(account, is_needed=False)
        if ledger is not None:
            with ledger:
                ledger.lift()
