"""A run writes to no one outside its hours and over its quota, whatever the clocks do."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bulkmail.engine.contracts import Connection, Ending, Event, Notice, Outlet, Plan
from bulkmail.engine.engine import Engine
from bulkmail.mailing.permits import open_permits
from bulkmail.model.delivery import Envelope, Job, Message
from bulkmail.model.errors import OutboxError, SendingPaused
from bulkmail.model.outcome import Fault, Reply, Stage
from bulkmail.model.pace import Pace
from bulkmail.model.quota import DAY, HOUR, Quota, Ramp
from bulkmail.model.rate import Rate
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.model.relay import Relay
from bulkmail.model.route import Route
from bulkmail.model.schedule import parse_windows
from bulkmail.model.tally import Status
from bulkmail.model.timing import Hold
from bulkmail.outbox.ledger import open_ledger
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.sending import OutboxStore
from bulkmail.sandbox.lines import Mark, NullLine
from bulkmail.settings.parsers import find_zone
from bulkmail.testing import ManualClock
from tests.connections import results_of

VIENNA = ZoneInfo("Europe/Vienna")
OFFICE = parse_windows("Mon-Fri 09:00-17:00 Europe/Vienna", find_zone)
ROUTE = Route.parse("smtp://ann@relay.example?tls=off")
ACCOUNT = "ann@relay.example"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=VIENNA).timestamp()


MONDAY_NOON = at("2026-11-23 12:00")


def compose(job: Job, first_at: float) -> Message:
    path = job.delivery.forward_path
    return Message(
        Envelope("shop@example.com", path), f"<{job.delivery.row}@example.com>", (b"Subject: x\r\n\r\nx\r\n",)
    )


def make_outbox(number: int) -> Outbox:
    box = Outbox.create(None, campaign=None)
    box.record(
        Entry(Recipient(Address.parse(f"p{n}@example.com"), "", {}, Place("people.csv", n))) for n in range(number)
    )
    box.finish_loading()
    return box


class Server(NullLine):
    """Notes by the wall clock when each message came; `refuse` may answer instead."""

    def __init__(self, trial: Trial, relay: str) -> None:
        super().__init__()
        self.trial, self.relay = trial, relay

    async def transact(self, message: Message, mark: Mark) -> Reply | Fault:
        if reply := self.trial.refuse(self.relay, message.envelope.forward_path):
            return reply
        self.trial.sent.append((self.trial.clock.now(), self.trial.clock.monotonic(), self.relay))
        return await super().transact(message, mark)


class Trial:
    """A run by a clock that the test turns, with servers that note when messages came."""

    def __init__(self, outbox: Outbox, now: float) -> None:
        self.outbox = outbox
        self.clock = ManualClock(now)
        self.sent: list[tuple[float, float, str]] = []
        self.events: list[Event] = []
        self.refuse: Callable[[str, str], Reply | None] = lambda relay, path: None
        self.engine: Engine | None = None

    async def run(
        self, pace: Pace, *, routes: Sequence[Route] = (ROUTE,), run_id: str = "run", rehearsal: bool = False
    ) -> Ending:
        async with self.begun(pace, routes=routes, run_id=run_id, rehearsal=rehearsal) as running:
            while not running.done():
                await self.turn()
            return running.result()

    @asynccontextmanager
    async def begun(
        self, pace: Pace, *, routes: Sequence[Route] = (ROUTE,), run_id: str = "run", rehearsal: bool = False
    ) -> AsyncIterator[asyncio.Task[Ending]]:
        async with open_permits(routes, pace, run_id=run_id, is_rehearsal=rehearsal) as permits:

            def outlet(route: Route, permit: object) -> Outlet:
                async def connect() -> Connection:
                    return Server(self, route.label)

                return Outlet(route, connect, permit)  # type: ignore[arg-type]

            outlets = [outlet(route, permit) for route, permit in zip(routes, permits, strict=True)]
            self.engine = Engine(
                Plan(
                    OutboxStore(self.outbox), compose, outlets, pace=pace, observe=self.events.append, clock=self.clock
                )
            )
            running = asyncio.create_task(self.engine.run())
            try:
                yield running
            finally:
                running.cancel()

    async def turn(self) -> None:
        """Lets everyone do what can be done, then brings the time to the next who sleeps."""
        loop: Any = asyncio.get_running_loop()
        while True:
            for _ in range(12):  # some have to do at every turn until time goes on
                await asyncio.sleep(0)
                if not loop._ready:
                    break
            if not self.engine or not any(relay.account.is_asking for relay in self.engine._run.relays):
                break
            await asyncio.sleep(0.001)  # a thread is at the ledger; what it says has to be acted on before time goes on
        if (wake := self.clock.next_wake) is not None:
            self.clock.advance(wake)

    @property
    def waits(self) -> list[Hold]:
        return [event for event in self.events if isinstance(event, Hold)]

    @property
    def accepted(self) -> int:
        return self.outbox.tally()[Status.ACCEPTED]


@pytest.fixture
def make_trial() -> Iterator[Callable[..., Trial]]:
    boxes = []

    def make(people: int, now: float = MONDAY_NOON) -> Trial:
        boxes.append(make_outbox(people))
        return Trial(boxes[-1], now)

    yield make
    for box in boxes:
        box.close()


async def test_run_ends_outside_its_hours_and_says_when_they_begin(make_trial):
    trial = make_trial(3, at("2026-11-21 12:00"))  # a Saturday
    ending = await trial.run(Pace(windows=OFFICE))
    assert isinstance(ending.error, SendingPaused)
    assert "Mon 23 November" in str(ending.error) and "window" in str(ending.error)
    assert "run the same command again" in ending.error.hint
    assert trial.sent == [] and trial.outbox.tally()[Status.PENDING] == 3


@pytest.mark.slow
async def test_run_that_waits_sends_from_the_first_instant_of_its_hours_on(make_trial):
    trial = make_trial(3, at("2026-11-21 12:00"))
    ending = await trial.run(Pace(windows=OFFICE, wait=math.inf))
    assert ending.error is None and trial.accepted == 3
    opens = at("2026-11-23 09:00")
    assert all(opens <= wall < opens + 60 for wall, _, _ in trial.sent)
    assert [(wait.until, "window" in wait.why) for wait in trial.waits] == [(opens, True)]


@pytest.mark.slow
async def test_run_stops_at_the_end_of_its_hours_and_goes_on_the_next_day(make_trial):
    trial = make_trial(30, at("2026-11-23 16:50"))
    await trial.run(Pace(windows=OFFICE, rate=Rate(1 / 60), wait=math.inf))
    assert trial.accepted == 30
    assert all(OFFICE.is_open(wall) for wall, _, _ in trial.sent)
    assert sum(wall < at("2026-11-23 17:00") for wall, _, _ in trial.sent) == 10


@pytest.mark.slow
async def test_start_is_waited_for(make_trial):
    start = at("2026-11-24 09:00")
    trial = make_trial(2)
    early = await trial.run(Pace(start=start))
    assert isinstance(early.error, SendingPaused) and "24 November" in str(early.error)
    await trial.run(Pace(start=start, wait=math.inf))
    assert trial.accepted == 2 and min(wall for wall, _, _ in trial.sent) >= start


@pytest.mark.slow
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"], ids=["spring", "autumn"])
async def test_no_message_leaves_outside_its_hours_on_a_day_when_clocks_are_set(make_trial, day):
    night = parse_windows("02:00-03:00 Europe/Vienna", find_zone)
    trial = make_trial(36, at(f"{day} 00:00") - DAY)
    await trial.run(Pace(windows=night, rate=Rate(1 / 300), wait=math.inf))
    shown = [datetime.fromtimestamp(wall, VIENNA) for wall, _, _ in trial.sent]
    assert len(shown) == 36 and {moment.hour for moment in shown} == {2}
    on_the_day = sum(str(moment.date()) == day for moment in shown)
    assert on_the_day == (0 if day == "2026-03-29" else 24)  # the hour does not exist, or comes twice


@pytest.mark.slow
async def test_clock_set_back_sends_nothing_outside_the_hours_and_nothing_in_a_burst(make_trial):
    trial = make_trial(200, at("2026-11-23 09:30"))
    async with trial.begun(Pace(windows=OFFICE, rate=Rate(1 / 60), wait=math.inf)) as running:
        while len(trial.sent) < 20:
            await trial.turn()
        trial.clock.set_wall(trial.clock.now() - HOUR)  # 08:50 or so: closed
        before = len(trial.sent)
        while not running.done():
            await trial.turn()
    assert before <= 21
    assert all(OFFICE.is_open(wall) for wall, _, _ in trial.sent)
    assert_never_faster(trial, 60)


@pytest.mark.slow
async def test_sleep_of_three_hours_sends_nothing_after_hours_and_nothing_in_a_burst(make_trial):
    trial = make_trial(200, at("2026-11-23 15:00"))
    async with trial.begun(Pace(windows=OFFICE, rate=Rate(1 / 60), wait=math.inf)) as running:
        while len(trial.sent) < 20:
            await trial.turn()
        trial.clock.set_wall(trial.clock.now() + 3 * HOUR)  # monotonic time stood still: 18:20
        while not running.done():
            await trial.turn()
    assert trial.accepted == 200
    assert all(OFFICE.is_open(wall) for wall, _, _ in trial.sent)
    assert_never_faster(trial, 60)


def assert_never_faster(trial: Trial, seconds: float) -> None:
    times = [monotonic for _, monotonic, _ in trial.sent]
    assert all(b - a >= seconds - 1e-6 for a, b in pairwise(times))


@pytest.mark.slow
async def test_quota_ends_the_run_and_the_next_one_after_it_sends_the_rest(make_trial):
    trial, pace = make_trial(1000), Pace(quota=Quota(per_day=500))
    ending = await trial.run(pace)
    assert isinstance(ending.error, SendingPaused) and "the quota of 500/day is used up" in str(ending.error)
    assert trial.accepted == 500 and trial.outbox.tally()[Status.PENDING] == 500
    again = await trial.run(pace)
    assert isinstance(again.error, SendingPaused) and trial.accepted == 500
    trial.clock.advance(DAY + 10)
    assert (await trial.run(pace)).error is None
    assert trial.accepted == 1000


@pytest.mark.slow
async def test_quota_is_kept_in_every_window_by_a_run_that_waits(make_trial):
    trial = make_trial(450)
    await trial.run(Pace(quota=Quota(per_hour=100, per_day=300), wait=math.inf))
    assert trial.accepted == 450
    times = [wall for wall, _, _ in trial.sent]
    for span, most in ((HOUR, 100), (DAY, 300)):
        assert max(sum(begin <= t < begin + span for t in times) for begin in times) <= most
    assert times[-1] - times[0] < DAY + 2 * HOUR  # and not much slower than it must be


@pytest.mark.slow
async def test_asking_the_ledger_costs_no_slot_of_the_rate(make_trial):
    trial = make_trial(300)
    await trial.run(Pace(quota=Quota(per_day=1000), rate=Rate(10.0)))
    times = [monotonic for _, monotonic, _ in trial.sent]
    assert times[-1] - times[0] == pytest.approx(29.9, rel=0.02)


async def test_two_runs_share_the_quota_of_an_account(make_trial):
    one, other = make_trial(80), make_trial(80)
    pace = Pace(quota=Quota(per_day=100))
    endings = await asyncio.gather(one.run(pace), other.run(pace, run_id="other"))
    assert one.accepted + other.accepted == 100
    assert any(ending.error for ending in endings)


async def test_run_that_is_stopped_gives_back_what_it_did_not_use(make_trial):
    trial = make_trial(7)
    await trial.run(Pace(quota=Quota(per_day=100)))
    with open_ledger(ACCOUNT) as ledger:
        assert sum(booking.count for booking in ledger.bookings(trial.clock.now())) == 7


async def test_run_that_is_killed_keeps_what_it_reserved_counted(make_trial):
    trial = make_trial(50)
    async with open_permits((ROUTE,), Pace(quota=Quota(per_day=50)), run_id="run", is_rehearsal=False) as (permit,):
        assert permit is not None
        await permit.refill(trial.clock.now())  # and never settled
    ending = await trial.run(Pace(quota=Quota(per_day=50)))
    assert isinstance(ending.error, SendingPaused) and trial.accepted == 30


@pytest.mark.slow
async def test_other_relays_go_on_when_the_quota_of_one_is_used_up(make_trial):
    spare = Route.parse("smtp://ben@spare.example?tls=off&priority=2&name=spare")
    trial = make_trial(150)
    ending = await trial.run(Pace(quota=Quota(per_day=100)), routes=(ROUTE, spare))
    assert ending.error is None and trial.accepted == 150
    assert sum(relay == "spare" for _, _, relay in trial.sent) == 50
    assert sum(relay != "spare" for _, _, relay in trial.sent) == 100


async def test_relays_of_one_account_share_its_quota(make_trial):
    routes = [Route.parse(f"smtp://ann@relay.example?tls=off&name=r{number}") for number in range(2)]
    trial = make_trial(150)
    ending = await trial.run(Pace(quota=Quota(per_day=100)), routes=routes)
    assert isinstance(ending.error, SendingPaused) and trial.accepted == 100


def routes_with(*quotas: str, account: str = "a{}") -> list[Route]:
    """A relay for each quota, each of an account of its own unless `account` says otherwise; "" is the campaign's."""
    return [
        Route.parse(
            f"smtp://{account.format(number)}@relay.example?tls=off&name=r{number}" + (f"&quota={text}" if text else "")
        )
        for number, text in enumerate(quotas)
    ]


@pytest.mark.slow
async def test_each_relay_keeps_its_own_quota_and_the_campaigns_is_for_those_without(make_trial):
    trial = make_trial(500)
    ending = await trial.run(Pace(quota=Quota(per_day=70)), routes=routes_with("100/day", "30/day", ""))
    assert isinstance(ending.error, SendingPaused) and "is used up" in str(ending.error)
    taken = Counter(relay for _, _, relay in trial.sent)
    assert taken == {"r0": 100, "r1": 30, "r2": 70} and trial.outbox.tally()[Status.PENDING] == 300
    trial.clock.advance(DAY + 10)
    await trial.run(Pace(quota=Quota(per_day=70)), routes=routes_with("100/day", "30/day", ""))
    assert trial.accepted == 400


async def test_relay_without_a_quota_goes_on_when_the_others_are_used_up(make_trial, state_folder):
    trial = make_trial(200)
    ending = await trial.run(Pace(), routes=routes_with("20/day", ""))
    assert ending.error is None and trial.accepted == 200
    assert Counter(relay for _, _, relay in trial.sent)["r0"] <= 20
    assert len(list(state_folder.glob("*.ledger"))) == 1


async def test_relays_of_one_account_keep_all_their_quotas(make_trial):
    trial = make_trial(100)
    routes = routes_with("60/day", "50/hour,50/day", "40/hour", account="ann")
    ending = await trial.run(Pace(quota=Quota(per_day=1)), routes=routes)
    assert isinstance(ending.error, SendingPaused) and trial.accepted == 40


@pytest.mark.slow
async def test_ramp_grows_day_by_day(make_trial):
    trial = make_trial(50)
    await trial.run(Pace(ramp=Ramp(10, percent=50.0), wait=math.inf))
    days = [int((wall - MONDAY_NOON) // DAY) for wall, _, _ in trial.sent]
    assert [days.count(day) for day in range(4)] == [10, 15, 22, 3]


@pytest.mark.slow
async def test_provider_that_says_its_quota_is_used_up_pauses_the_account_for_all_runs(make_trial):
    full = Reply(Stage.RCPT, 550, "5.4.5", "Daily user sending quota exceeded.")
    trial = make_trial(1000)
    trial.refuse = lambda relay, path: full if len(trial.sent) >= 500 else None
    ending = await trial.run(Pace())
    assert isinstance(ending.error, SendingPaused) and "Daily user sending quota exceeded" in str(ending.error)
    assert trial.outbox.tally().by_status == {Status.ACCEPTED: 500, Status.PENDING: 500}
    trial.refuse = lambda relay, path: None
    other = make_trial(5, trial.clock.now() + HOUR)
    assert isinstance((await other.run(Pace(), run_id="other")).error, SendingPaused) and other.sent == []
    trial.clock.advance(DAY + 1)
    assert (await trial.run(Pace())).error is None
    assert trial.outbox.tally().by_status == {Status.ACCEPTED: 1000}
    assert len({event.delivery.row for event in results_of(trial.events)}) == 1000


async def test_other_relays_go_on_when_a_provider_says_that_its_quota_is_used_up(make_trial):
    full = Reply(Stage.RCPT, 550, "5.4.5", "Daily user sending quota exceeded.")
    spare = Route.parse("smtp://ben@spare.example?tls=off&priority=2&name=spare")
    trial = make_trial(150)
    trial.refuse = lambda relay, path: full if relay != "spare" and len(trial.sent) >= 50 else None
    ending = await trial.run(Pace(), routes=(ROUTE, spare))
    assert ending.error is None and trial.outbox.tally().by_status == {Status.ACCEPTED: 150}
    assert sum(relay == "spare" for _, _, relay in trial.sent) == 100
    reported = [event.text for event in trial.events if isinstance(event, Notice)]
    assert any("is paused for" in text and "5.4.5" in text for text in reported)


@pytest.mark.slow
async def test_run_that_waits_goes_on_when_the_provider_lets_it(make_trial):
    full = Reply(Stage.RCPT, 550, "5.4.5", "Daily user sending quota exceeded.")
    trial = make_trial(100)
    refused_at: list[float] = []

    def refuse(relay: str, path: str) -> Reply | None:
        if len(trial.sent) != 60 or (refused_at and trial.clock.now() >= refused_at[0] + DAY):
            return None
        refused_at.append(trial.clock.now())
        return full

    trial.refuse = refuse
    ending = await trial.run(Pace(wait=math.inf))
    assert ending.error is None and trial.outbox.tally().by_status == {Status.ACCEPTED: 100}
    assert [wait.until for wait in trial.waits] == [refused_at[0] + DAY]


async def test_run_without_quota_needs_no_folder_and_one_with_it_says_where_to(make_trial, monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    monkeypatch.setenv("BULKMAIL_STATE_DIR", str(file / "state"))
    assert (await make_trial(5).run(Pace())).error is None
    with pytest.raises(OutboxError) as refused:
        await make_trial(5).run(Pace(quota=Quota(per_day=10)))
    assert "BULKMAIL_STATE_DIR" in refused.value.hint


async def test_run_without_quota_leaves_no_ledger(make_trial, state_folder):
    trial = make_trial(5)
    assert (await trial.run(Pace())).error is None
    assert not state_folder.exists()


@pytest.mark.parametrize("url", ["sandbox:", "null:", "maildir:here"])
async def test_rehearsal_touches_no_ledger_and_is_held_at_no_hour(make_trial, state_folder, url):
    trial = make_trial(5, at("2026-11-21 12:00"))
    pace = Pace(windows=OFFICE, quota=Quota(per_day=1), ramp=Ramp(1, percent=1.0))
    assert (await trial.run(pace, routes=(Route(Relay.parse(url)),), rehearsal=True)).error is None
    assert trial.accepted == 5 and not state_folder.exists()
