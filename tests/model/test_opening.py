"""When a session may be opened: the arithmetic alone, on a clock of numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.retry import Backoff, OpeningBudget
from bulkmail.model.shaper import Feedback
from bulkmail.model.timing import (
    FIRST_OPENINGS,
    LAST_WAIT_AT_LEAST,
    LATER_OPENINGS,
    LOGIN_RETRIED_AFTER,
    OPENINGS_WINDOW,
)

EXACT = Backoff(schedule=(1.0, 2.0, 4.0))
NO_WAIT = Backoff(schedule=(0.0,))


def budget(
    limit: int = 10, *, patience: float = 300.0, backoff: Backoff = EXACT, logs_in: bool = True
) -> OpeningBudget:
    return OpeningBudget(lambda: limit, patience=patience, backoff=backoff, logs_in=logs_in)


def opened(wanted: OpeningBudget, now: float, number: int = 1) -> None:
    """This many sessions are opened at once and carry something."""
    for _ in range(number):
        wanted.begin(now)
    for _ in range(number):
        wanted.opened()
        wanted.carried()


# --- how many at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("logs_in", "second"), [(True, 1), (False, 3)])
def test_opening_budget_opens_one_first_then_as_many_as_are_open(logs_in: bool, second: int) -> None:
    wanted = budget(logs_in=logs_in)
    assert wanted.may_open(0.0)
    wanted.begin(0.0)
    assert not wanted.may_open(0.0)  # the first has not succeeded: a wrong password is tried once
    wanted.opened()
    wanted.carried()
    number = 0
    while wanted.may_open(0.0):
        wanted.begin(0.0)
        number += 1
    assert number == second


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_opening_budget_never_exceeds_the_limit(limit: int) -> None:
    wanted = budget(limit)
    for _ in range(10):
        if wanted.may_open(0.0):
            opened(wanted, 0.0)
    assert wanted.open == limit
    assert not wanted.is_crowded


def test_opening_budget_is_crowded_when_the_limit_falls_and_counts_those_that_leave() -> None:
    limit = 3
    wanted = OpeningBudget(lambda: limit, patience=300.0)
    opened(wanted, 0.0, 3)
    limit = 2
    assert wanted.is_crowded
    wanted.leaving += 1
    assert not wanted.is_crowded


# --- back-off ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["refused", "lost", "unused"])
def test_opening_that_carried_nothing_is_never_repeated_without_backoff(end: str) -> None:
    wanted = budget()
    wanted.begin(0.0)
    if end == "refused":
        wanted.failed()
        wanted.back_off(0.0, jitter=0.0)
    else:
        wanted.opened()
        wanted.closed(0.0, carried=0, was_lost=end == "lost", jitter=0.0)
    assert not wanted.may_open(0.0)
    assert wanted.wait(0.25) == 0.75
    assert wanted.may_open(1.0)


def test_opening_budget_waits_longer_after_each_failure_and_starts_over_when_something_is_carried() -> None:
    wanted, now, waits = budget(), 0.0, []
    for _ in range(4):
        wanted.begin(now)
        wanted.failed()
        wanted.back_off(now, jitter=0.0)
        waits.append(wanted.wait(now))
        now += waits[-1]
    assert waits == [1.0, 2.0, 4.0, 4.0]
    opened(wanted, now)
    wanted.closed(now, carried=1, was_lost=True, jitter=0.0)
    assert wanted.may_open(now)  # a session that worked costs no wait
    wanted.begin(now)
    wanted.failed()
    wanted.back_off(now, jitter=0.0)
    assert wanted.wait(now) == 1.0


def test_opening_budget_counts_failures_within_one_wait_once() -> None:
    wanted = budget()
    opened(wanted, 0.0, 3)
    for _ in range(3):
        wanted.back_off(5.0, jitter=0.0)
    assert wanted.wait(5.0) == 1.0


def test_opening_budget_opens_one_at_a_time_after_a_failure() -> None:
    wanted = budget()
    opened(wanted, 0.0, 4)
    wanted.back_off(0.0, jitter=0.0)
    wanted.begin(1.0)
    assert not wanted.may_open(1.0)


@pytest.mark.parametrize(("asked", "wait"), [(0.0, 1.0), (0.5, 1.0), (90.0, 90.0)])
def test_opening_budget_waits_as_long_as_the_relay_asks_and_not_less_than_its_own(asked: float, wait: float) -> None:
    wanted = budget()
    wanted.back_off(0.0, jitter=0.0, asked=asked)
    assert wanted.wait(0.0) == wait


# --- a relay that accepts nothing -------------------------------------------------------------------------------------


def test_relay_that_carries_nothing_sees_thirty_openings_in_the_first_minute_and_six_in_each_later_one() -> None:
    wanted, begun = budget(backoff=NO_WAIT), []
    for tick in range(60 * 10 * 4):
        now = tick / 4
        if wanted.may_open(now):
            wanted.begin(now)
            wanted.failed()
            wanted.back_off(now, jitter=0.0)
            begun.append(now)
    assert len([at for at in begun if at < OPENINGS_WINDOW]) == FIRST_OPENINGS
    for minute in range(1, 10):
        assert (
            len([at for at in begun if minute * OPENINGS_WINDOW <= at < (minute + 1) * OPENINGS_WINDOW])
            <= LATER_OPENINGS
        )
    assert len(begun) >= FIRST_OPENINGS + 9 * (LATER_OPENINGS - 1)  # and it is not forgotten


def test_relay_that_carries_something_is_not_counted() -> None:
    wanted = budget(1, backoff=NO_WAIT)
    for number in range(200):
        now = number / 10
        assert wanted.may_open(now)
        opened(wanted, now)
        wanted.closed(now, carried=1, was_lost=True, jitter=0.0)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.sampled_from(["refused", "lost", "unused", "carried"]), st.floats(0.0, 100.0)), max_size=120),
    st.floats(0.0, 0.999),
)
def test_opening_budget_holds_its_bounds_whatever_becomes_of_the_openings(
    ends: list[tuple[str, float]], jitter: float
) -> None:
    wanted, now = OpeningBudget(lambda: 4, patience=math.inf), 0.0
    barren: list[float] = []  # when openings began since one carried something
    for end, later in ends:
        now += later
        if not wanted.may_open(now):
            assert wanted.wait(now) > 0  # nothing is open, so it is a matter of time alone
            continue
        wanted.begin(now)
        barren.append(now)
        if end == "refused":
            wanted.failed()
            wanted.back_off(now, jitter=jitter)
        else:
            wanted.opened()
            if end == "carried":
                wanted.carried()
                barren.clear()
            wanted.closed(now, carried=int(end == "carried"), was_lost=end != "unused", jitter=jitter)
        assert end == "carried" or wanted.wait(now) > 0
        assert len([at for at in barren if at < barren[0] + OPENINGS_WINDOW]) <= FIRST_OPENINGS
        assert (
            len([at for at in barren if at > max(now - OPENINGS_WINDOW, barren[0] + OPENINGS_WINDOW)]) <= LATER_OPENINGS
        )
    assert (wanted.open, wanted.opening, wanted.fruitful) == (0, 0, 0)


# --- trouble and patience ---------------------------------------------------------------------------------------------


def test_relay_in_trouble_is_left_alone_and_works_again_after_a_message() -> None:
    wanted = budget()
    assert not wanted.is_failing
    wanted.record_failure(0.0, jitter=0.0)
    assert wanted.is_failing
    assert wanted.resume_at == 1.0
    wanted.record_failure(0.5, jitter=0.0)  # another session's, within the same wait
    assert wanted.resume_at == 1.0
    wanted.record_failure(1.0, jitter=0.0)
    assert wanted.resume_at == 3.0
    wanted.record_success()
    assert not wanted.is_failing
    wanted.record_failure(10.0, jitter=0.0)
    assert wanted.resume_at == 11.0


def test_patience_counts_from_the_first_failure_and_ends_when_it_says() -> None:
    wanted = budget(patience=10.0, backoff=Backoff(schedule=(4.0, 8.0)))
    assert wanted.patience_left(0.0) == math.inf
    wanted.record_failure(100.0, jitter=0.0)
    assert (wanted.patience_left(104.0), wanted.is_hopeless(104.0)) == (6.0, False)
    wanted.record_failure(104.0, jitter=0.0)
    assert wanted.resume_at == 110.0  # what is tried last is tried when patience ends, not 8 s later
    assert wanted.is_hopeless(110.0)
    wanted.record_failure(110.0, jitter=0.0)
    assert wanted.resume_at == 110.0 + LAST_WAIT_AT_LEAST
    wanted.record_success()
    assert not wanted.is_hopeless(1e9)


# --- sessions that the relay ends -------------------------------------------------------------------------------------


def test_session_that_is_dismissed_once_is_the_end_of_this_session_only() -> None:
    assert budget().dismissals.add(0.0, 50) == 0


def test_session_that_is_dismissed_twice_after_as_many_messages_reports_the_most_for_one() -> None:
    wanted = budget()
    assert wanted.dismissals.add(0.0, 50) == 0
    assert wanted.dismissals.add(10.0, 50) == 50


def test_session_that_carried_more_before_reports_no_most() -> None:
    wanted = budget()
    opened(wanted, 0.0)
    wanted.closed(0.0, carried=80, was_lost=False, jitter=0.0)
    assert wanted.dismissals.add(0.0, 50) == 0
    assert wanted.dismissals.add(10.0, 50) == 0


def test_sessions_that_are_dismissed_at_once_say_more_of_the_relay() -> None:
    wanted = budget()
    assert wanted.dismissals.add(0.0, 12) == 0
    assert wanted.dismissals.add(0.5, 17) is None


# --- logins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "seconds"),
    [
        (
            Reply(Stage.AUTH, 454, "4.7.0", "Too many login attempts, please try again later."),
            LOGIN_RETRIED_AFTER,
        ),
        (Reply(Stage.AUTH, 421, "4.7.0", "login rate limit"), LOGIN_RETRIED_AFTER),
        (Reply(Stage.AUTH, 454, "4.7.0", "Temporary authentication failure"), 0.0),
        (Reply(Stage.AUTH, 535, "5.7.8", "too many failures"), 0.0),
        (Reply(Stage.MAIL, 421, "4.7.0", "too many messages"), 0.0),
        (Fault(Stage.AUTH, Breakage.LOST, "too many"), 0.0),
    ],
)
def test_login_is_deferred_where_the_relay_counts_them(event: Reply | Fault, seconds: float) -> None:
    assert Feedback().decide(event).login_wait == seconds
