"""When a run may write to whom: the hours, the ledgers of its accounts, planned times, and the canary."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from contextlib import ExitStack, asynccontextmanager
from datetime import datetime, tzinfo
from functools import reduce

import anyio
from anyio import to_thread

from bulkmail.engine.contracts import Ending, Event, Limits, ResultBatch
from bulkmail.model.breaker import Ahead, BreakerLimits, CanaryBreaker, ahead_key, judge_canary, policy_key
from bulkmail.model.errors import ConfigError, OutboxError, SendingPaused
from bulkmail.model.outcome import Outcome
from bulkmail.model.pace import Pace
from bulkmail.model.quota import NO_QUOTA, Quota
from bulkmail.model.relay import Kind
from bulkmail.model.route import Route
from bulkmail.model.schedule import ALWAYS, LATEST, Planned, Schedule, Windows, say_until, written
from bulkmail.model.timing import Hold
from bulkmail.outbox.ledger import (
    LONGEST_PAUSE,
    VARIABLE,
    Allowance,
    Ledger,
    QuotaLedger,
    account_of,
    ledger_path,
    open_ledger,
    state_folder,
)
from bulkmail.outbox.outbox import Outbox
from bulkmail.settings.parsers import find_zone
from bulkmail.text import printable

# -- When a run may write to whom: the hours, the start, and what the ledgers of its accounts still allow.


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
        open_ledger: Callable[[str], QuotaLedger] = open_ledger,
    ) -> None:
        self.account = account
        self._open_ledger = open_ledger
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
        with self._open_ledger(self.account) as ledger:
            ledger.pause(seconds, why, now)

    async def settle(self, now: float) -> None:
        """Tells the ledger what was spent.  Raises `OutboxError`."""
        async with self._asking:
            if self._allowance is not None:
                await self._allowance.settle(now)


@asynccontextmanager
async def open_permits(
    routes: Sequence[Route],
    pace: Pace,
    *,
    run_id: str,
    is_rehearsal: bool,
    shared: Callable[[str], QuotaLedger] | None = None,
) -> AsyncIterator[list[Limits | None]]:
    """The permits of `routes`, in their order; None for those that deliver nothing.

    `shared` makes the ledger of an account that other machines use, too, in place of the one of this machine.

    A rehearsal with real relays keeps to their quotas, since their mail counts there, but at any hour.  Raises
    `OutboxError` when a quota or a ramp cannot be kept because the ledger cannot be used.
    """
    windows, start = (ALWAYS, None) if is_rehearsal else (pace.windows, pace.start)
    ramp = None if is_rehearsal else pace.ramp
    by_account: dict[str, AccountPermit] = {}
    with ExitStack() as stack:

        def permit_of(account: str, quota: Quota) -> AccountPermit:
            is_needed = quota != NO_QUOTA or ramp is not None
            ledger: QuotaLedger | None = None
            if shared is None:
                ledger = find_ledger(account, is_needed=is_needed)
            elif is_needed:
                ledger = shared(account)
            allowance = None
            if ledger is not None:
                stack.enter_context(ledger)
                allowance = Allowance(ledger, quota=quota, ramp=ramp, campaign=run_id)
            return AccountPermit(
                account, allowance=allowance, windows=windows, start=start, open_ledger=shared or open_ledger
            )

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


# -- The first messages of a campaign are sent ahead, and the rest only if those succeed.


Wants = Set[int]
"""The ids of the only deliveries to send."""

Send = Callable[[int | None, Wants | None], Awaitable[Ending]]
"""Sends at most that number of messages (None: all) of those that are wanted."""


class Canary:
    """Which messages went ahead, and what the last try of each came to.  Kept in the outbox from one run to the next.

    A copy (To, Cc, Bcc) counts by its address: once, however many rows it belongs to.
    `limit` is the most messages begun in this run, None for all.  `stop` ends what is being sent.
    """

    def __init__(self, outbox: Outbox, limits: BreakerLimits, *, limit: int | None, stop: Callable[[], None]) -> None:
        self._outbox = outbox
        self._limits = limits
        self._left = limit
        self._stop = stop
        self._tries = 0
        self._is_second_try = False
        self._has_passed = outbox.info.canary_passed
        self._messages = dict(outbox.info.canary)  # by id, or a copy's address

    def note(self, event: Event) -> None:
        """An event from the engine."""
        for result in event.results if isinstance(event, ResultBatch) else ():
            self._tries += 1
            verdict, delivery = result.attempt.verdict, result.delivery
            copy_to = delivery.forward_path if delivery.is_copy else ""
            key = policy_key(result.attempt.event, verdict)
            self._messages[ahead_key(delivery.id, copy_to)] = Ahead(verdict.outcome, verdict.scope, delivery.id, key)
            if self._is_second_try and verdict.outcome is Outcome.ACCEPTED:
                self._stop()

    def breaker(self, *, total: int) -> CanaryBreaker:
        """For the engine: the outcome that fails the canary gives back who was refused for no fault of theirs."""
        return CanaryBreaker(self._limits, total=total, messages=self._messages)

    @property
    def left(self) -> int | None:
        """How many messages may still be begun in this run."""
        return None if self._left is None else max(0, self._left - self._tries)

    async def go(self, send: Send) -> Ending | None:
        """Sends the first messages and judges them; None when the rest may go, else how the run ends."""
        if self._has_passed or not self._limits.canary:
            return None
        ending = await self._send_ahead(send)
        if ending is not None:
            return ending
        if not self._outcomes[Outcome.ACCEPTED] and self._outcomes[Outcome.DEFERRED]:
            ending = await self._try_again(send)
            if ending is not None:
                return ending
        return self._judged()

    async def _send_ahead(self, send: Send) -> Ending | None:
        """None when enough messages were sent, or all there are."""
        while (wanted := self._limits.canary - len(self._messages)) > 0:
            before, open_before = self._tries, self._outbox.tally().open
            ending = await send(wanted if self.left is None else min(wanted, self.left), None)
            self._remember()
            open_now = self._outbox.tally().open
            if ending.error or ending.was_stopped or not open_now or self.left == 0:
                return ending
            if self._tries == before and open_now == open_before:
                return ending  # the others are not due yet
        return None

    async def _try_again(self, send: Send) -> Ending | None:
        """Greylisting looks like a refusal of all: retries until the first is accepted, or nothing more is due soon."""
        self._is_second_try = True
        ending = await send(self.left, {a.delivery for a in self._messages.values() if a.outcome is Outcome.DEFERRED})
        self._is_second_try = False
        self._remember()
        if ending.error or (ending.was_stopped and not self._outcomes[Outcome.ACCEPTED]):
            return ending
        return None

    def _judged(self) -> Ending | None:
        scopes = Counter(ahead.scope for ahead in self._messages.values() if ahead.outcome is Outcome.REJECTED)
        trip = judge_canary(self._outcomes, scopes, self._limits)
        if trip is None:
            self._outbox.note(canary={}, canary_passed=True)
            return None
        self._outbox.note(canary={})  # a resumed run has probably fixed something: it sends other messages first
        hint = f"{trip.hint} (with --canary 0 to send the rest anyway)"
        return Ending(
            SendingPaused(
                f"Sending stopped; no recipients were lost: {trip.sentence}",
                hint=hint,
                hold=Hold(math.inf, trip.sentence),
            )
        )

    @property
    def _outcomes(self) -> Counter[Outcome]:
        return Counter(ahead.outcome for ahead in self._messages.values())

    def _remember(self) -> None:
        self._outbox.note(canary=dict(self._messages))


def both(one: Wants | None, other: Wants | None) -> Wants | None:
    """What both of them want; None wants all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


# -- Planned times of a run: given to its rows when they are loaded, frozen in its outbox, shown before it starts.


_MOST_ZONES = 1_000  # names that are kept, known or not
_MOST_HOURS = 500
_MOST_KNOWN = 50_000  # of what rows say


class Planner:
    """When each row of a list is due, counted from one instant: that at which the run is loaded.

    With `is_rehearsal` the times are read, and none is waited for.  `moment` is what the templates call `now`: the
    planned time where it is the same for all, else that of loading.  Reads time zones from files.  Raises `ConfigError`
    for a time that holds for all rows and cannot be kept.
    """

    def __init__(self, schedule: Schedule, *, now: float, is_rehearsal: bool) -> None:
        self._schedule = schedule
        self._now = now
        self._is_rehearsal = is_rehearsal
        self._zones: dict[str, tzinfo | ConfigError] = {}
        self._known: dict[tuple[object, ...], float] = {}  # most rows say what others say, too
        if not schedule.columns:
            schedule.due_at({}, self._zone, now=now)
        elif not schedule.time_column:  # a fault of the time itself is not one of each row
            # No zone is more than a day from UTC: later than that, it is over wherever the recipients are.
            Schedule(schedule.send_at, fallback="UTC").due_at({}, self._zone, now=now, latest=2 * LATEST)

        self.moment = self._find_moment()

    def _find_moment(self) -> float:
        schedule = self._schedule
        if schedule.time_column:
            return self._now
        fixed = Schedule(schedule.send_at, "" if schedule.zone_column else schedule.timezone, schedule.fallback)
        return max(self._now, fixed.moment({}, self._zone, now=self._now))

    def due_at(self, fields: Mapping[str, object]) -> float:
        """Wall-clock seconds, 0 for at once.  Raises `ConfigError` for a row whose time cannot be kept."""
        said = tuple(map(fields.get, self._schedule.columns))
        due_at = self._known.get(said) if all(isinstance(value, str) for value in said) else None
        if due_at is None:
            due_at = self._schedule.due_at(fields, self._zone, now=self._now)
            if len(self._known) < _MOST_KNOWN and all(isinstance(value, str) for value in said):
                self._known[said] = due_at
        return 0.0 if self._is_rehearsal else due_at

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raises `ConfigError` when the list, unless it is empty, has no column of that name."""
        for column in self._schedule.columns:
            if columns and column not in columns:
                known = ", ".join(printable(name, 40) for name in columns[:20]) or "none"
                setting = "send_at" if column == self._schedule.time_column else "timezone"
                raise ConfigError(
                    f"{setting}: the list has no column {printable(column, 60)!r}", hint=f"its columns are {known}"
                )

    def _zone(self, name: str) -> tzinfo:
        """A list names few zones, and a million rows."""
        found = self._zones.get(name)
        if found is None:
            try:
                found = find_zone(name)
            except ConfigError as error:
                found = error
            if len(self._zones) < _MOST_ZONES:
                self._zones[name] = found
        if isinstance(found, ConfigError):
            raise ConfigError(str(found), hint=found.hint)
        return found


def make_schedule(send_at: str | datetime, timezone: str, *, fallback: str) -> Schedule | None:
    """The schedule that a program asks for; None for at once.  Raises `ConfigError`."""
    text = written(send_at)
    if not text:
        if timezone:
            raise ConfigError("timezone has no effect without send_at", hint='say send_at="09:00" as well')
        return None
    return Schedule(text, timezone.strip(), fallback)


def planned_now(outbox: Outbox, now: float) -> Planned | None:
    """What is planned in `outbox`; None for a run without planned times and for a rehearsal, which waits for none."""
    schedule = outbox.info.schedule
    if schedule is None or outbox.is_rehearsal:
        return None
    return outbox.planned(now, zone_column=schedule.zone_column, fallback=schedule.fallback)


def demand_of(outbox: Outbox, now: float) -> list[tuple[float, int]]:
    """From when on how many deliveries of `outbox` may go, where that is planned: the first 500 hours at most."""
    if outbox.is_rehearsal or outbox.info.schedule is None:
        return []
    return outbox.demand(now, most=_MOST_HOURS)


def planned_until(outbox: Outbox, pace: Pace) -> float:
    """The last instant, wall-clock seconds, that a run waits for because a message is planned for then; 0 for none.

    A time outside the hours of sending is kept when they begin.  With `wait = 0` nothing is waited for.
    """
    if pace.wait <= 0 or outbox.is_rehearsal or outbox.info.schedule is None:
        return 0.0
    last = outbox.last_planned()
    return pace.windows.next_open(max(last, pace.start or 0.0)) if last else 0.0


def notices_of(schedule: Schedule | None, *, is_rehearsal: bool, asks_for_now: bool) -> list[str]:
    """What may surprise the user of a run with planned times."""
    if schedule is None:
        return []
    found = []
    if is_rehearsal:
        found.append("a rehearsal does not wait for planned times (send_at): all of its messages go at once")
    if schedule.time_column and asks_for_now:
        found.append(
            f"the message uses now or today, which is the time of loading for all rows, whatever"
            f" {printable(schedule.time_column, 40)!r} says"
        )
    return found


def say_plan(planned: Planned, pace: Pace, now: float) -> str:
    """The plan in words, with what has to be done for it."""
    said = planned.sentence(now)
    if not planned.later:
        return said
    if pace.wait <= 0:
        return f"{said}; with --wait 0 only what is due goes now: run bulkmail resume again, by cron, for the rest"
    until = say_until(planned.last_at or now, now)
    return f"{said}; keep this program running until {until}, or add --wait 0 and run bulkmail resume by cron"
