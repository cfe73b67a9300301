"""Deliveries: every move that is allowed, every one that is not, and what each verdict makes of a row."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bulkmail.model.delivery import MOST_FREE_TRIES, MOVES, OPERATOR_MOVES, AttemptResult, Delivery, check_move, settle
from bulkmail.model.errors import IllegalMove
from bulkmail.model.outcome import Breakage, Fault, Outcome, Reply, Scope, Stage, Verdict
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status
from bulkmail.model.verdict import judge

S = Status
AFTER_DEFERRED = {S.ACCEPTED, S.DEFERRED, S.REJECTED, S.EXPIRED, S.IN_DOUBT, S.SUPPRESSED, S.CANCELLED}
# Written out here a second time on purpose: the table in the code is what is being tested.
ALLOWED = {
    *((S.PENDING, after) for after in S if after is not S.PENDING),
    *((S.DEFERRED, after) for after in AFTER_DEFERRED),
}
ALLOWED_TO_OPERATORS = ALLOWED | {
    (S.IN_DOUBT, S.PENDING),
    (S.IN_DOUBT, S.ACCEPTED),
    (S.IN_DOUBT, S.REJECTED),
    (S.REJECTED, S.PENDING),
    (S.EXPIRED, S.PENDING),
}
PAIRS = list(itertools.product(S, S))
EVERY_MOVE = pytest.mark.parametrize(
    ("before", "after"), PAIRS, ids=[f"{before.value}-to-{after.value}" for before, after in PAIRS]
)


def moves(before: Status, after: Status, *, by_operator: bool) -> bool:
    try:
        check_move(before, after, by_operator=by_operator)
    except IllegalMove as error:
        assert str(error) == f"a delivery cannot go from {before.value} to {after.value}"
        return False
    return True


@EVERY_MOVE
def test_move_is_allowed_by_the_table(before: Status, after: Status) -> None:
    assert moves(before, after, by_operator=False) == ((before, after) in ALLOWED)


@EVERY_MOVE
def test_move_is_allowed_to_operators_by_their_table(before: Status, after: Status) -> None:
    assert moves(before, after, by_operator=True) == ((before, after) in ALLOWED_TO_OPERATORS)


def test_move_needs_the_operators_word_only_when_asked_for() -> None:
    with pytest.raises(IllegalMove):
        check_move(S.IN_DOUBT, S.PENDING)


def test_moves_lead_from_every_status() -> None:
    assert set(MOVES) == set(S)
    assert all(not MOVES[status] for status in OPERATOR_MOVES)


@pytest.mark.parametrize("status", S, ids=lambda status: status.value)
def test_status_is_open_exactly_when_sending_goes_on(status: Status) -> None:
    assert status.is_open == (status in (S.PENDING, S.DEFERRED))


@pytest.mark.parametrize("status", S, ids=lambda status: status.value)
def test_status_is_eligible_unless_screened_out(status: Status) -> None:
    assert status.is_eligible == (status not in (S.INVALID, S.DUPLICATE, S.SUPPRESSED, S.FILTERED))


def test_status_words_are_those_of_the_reports() -> None:
    words = "pending deferred accepted rejected expired in_doubt invalid duplicate suppressed filtered cancelled"
    assert " ".join(status.value for status in S) == words


# --- settle ----------------------------------------------------------------------------------------------------------

FRESH = Delivery(id=7, row=3, forward_path="ann@example.org")
TRIED = replace(FRESH, status=S.DEFERRED, attempts=1, tries=2, due_at=900.0, first_at=100.0)
POLICY = RetryPolicy(first=60.0, max_attempts=3, max_age=10_000.0)


def test_delivery_begins_pending_untried_and_due() -> None:
    assert (FRESH.status, FRESH.attempts, FRESH.tries) == (S.PENDING, 0, 0)
    assert (FRESH.due_at, FRESH.first_at) == (0.0, None)


def attempt(event: Reply | Fault, *, at: float = 1000.0, took: float = 2.0) -> AttemptResult:
    return AttemptResult(at=at, took=took, relay="smtp://mail.example.com:587", event=event, verdict=judge(event))


OK = Reply(Stage.END, 250, "2.0.0", "queued")
UNKNOWN = Reply(Stage.RCPT, 550, "5.1.1", "unknown user")
BUSY = Reply(Stage.RCPT, 451, "4.2.1", "busy")
SHUTDOWN = Reply(Stage.MAIL, 421, "4.3.2", "shutting down")
BAD_LOGIN = Reply(Stage.AUTH, 535, "5.7.8", "wrong password")
LOST_AT_END = Fault(Stage.END, Breakage.LOST, "the connection ended")


def test_settle_counts_a_try_that_is_not_the_rows_fault_when_there_were_too_many() -> None:
    free = settle(replace(FRESH, tries=MOST_FREE_TRIES - 1), attempt(SHUTDOWN), POLICY, jitter=0.5)
    counted = settle(replace(FRESH, tries=MOST_FREE_TRIES), attempt(SHUTDOWN), POLICY, jitter=0.5)
    assert (free.attempts, counted.attempts) == (0, 1)
    assert counted.due_at > free.due_at
    assert settle(replace(FRESH, tries=MOST_FREE_TRIES), attempt(BAD_LOGIN), POLICY, jitter=0.5).attempts == 0


@pytest.mark.parametrize("delivery", [FRESH, TRIED], ids=["pending", "deferred"])
@pytest.mark.parametrize(
    ("event", "status"),
    [(OK, S.ACCEPTED), (UNKNOWN, S.REJECTED), (LOST_AT_END, S.IN_DOUBT), (BUSY, S.DEFERRED)],
    ids=["accepted", "rejected", "in-doubt", "deferred"],
)
def test_settle_takes_the_verdicts_outcome(delivery: Delivery, event: Reply | Fault, status: Status) -> None:
    after = settle(delivery, attempt(event), POLICY, jitter=0.5)
    assert after.status is status
    assert after.attempts == delivery.attempts + 1
    assert after.tries == delivery.tries + 1
    assert (after.id, after.row, after.forward_path) == (7, 3, "ann@example.org")


def test_settle_makes_a_deferred_delivery_due_after_the_policys_wait() -> None:
    after = settle(FRESH, attempt(BUSY), POLICY, jitter=0.25)
    assert after.due_at == 1000.0 + 2.0 + 60.0 * 0.75


def test_settle_measures_age_from_the_first_try_to_the_end_of_this_one() -> None:
    at_the_limit = RetryPolicy(first=60.0, max_age=1000.0 + 2.0 - 100.0 + 120.0)
    just_below = RetryPolicy(first=60.0, max_age=at_the_limit.max_age - 0.5)
    assert settle(TRIED, attempt(BUSY), at_the_limit, jitter=0.5).status is S.DEFERRED
    assert settle(TRIED, attempt(BUSY), just_below, jitter=0.5).status is S.EXPIRED


def test_settle_expires_when_the_policy_gives_up() -> None:
    after = settle(replace(TRIED, attempts=2), attempt(BUSY), POLICY, jitter=0.5)
    assert after.status is S.EXPIRED
    assert after.attempts == 3
    assert after.due_at == 900.0


def test_settle_sets_the_first_time_once() -> None:
    assert settle(FRESH, attempt(OK), POLICY, jitter=0.5).first_at == 1000.0
    assert settle(TRIED, attempt(OK), POLICY, jitter=0.5).first_at == 100.0
    assert settle(replace(FRESH, first_at=0.0), attempt(OK), POLICY, jitter=0.5).first_at == 0.0


@pytest.mark.parametrize("delivery", [FRESH, TRIED], ids=["pending", "deferred"])
def test_settle_keeps_the_status_when_the_row_was_not_at_fault(delivery: Delivery) -> None:
    after = settle(delivery, attempt(SHUTDOWN), POLICY, jitter=0.5)
    assert after.status is delivery.status
    assert after.attempts == delivery.attempts
    assert after.tries == delivery.tries + 1
    assert after.due_at == 1002.0


@pytest.mark.parametrize("delivery", [FRESH, TRIED], ids=["pending", "deferred"])
def test_settle_leaves_the_row_as_it_is_when_the_campaign_stops(delivery: Delivery) -> None:
    after = settle(delivery, attempt(BAD_LOGIN), POLICY, jitter=0.5)
    assert after.status is delivery.status
    assert after.attempts == delivery.attempts
    assert after.due_at == delivery.due_at
    assert after.tries == delivery.tries + 1


@pytest.mark.parametrize("event", [OK, UNKNOWN, BUSY, SHUTDOWN, BAD_LOGIN, LOST_AT_END], ids=str)
@pytest.mark.parametrize("status", [status for status in S if not status.is_open], ids=lambda status: status.value)
def test_settle_refuses_a_closed_delivery(status: Status, event: Reply | Fault) -> None:
    with pytest.raises(IllegalMove):
        settle(replace(FRESH, status=status), attempt(event), POLICY, jitter=0.5)


VERDICTS = st.builds(
    Verdict,
    st.sampled_from(Outcome),
    st.sampled_from(Scope),
    st.just("why"),
    counts=st.booleans(),
    stops=st.booleans(),
)


@given(
    VERDICTS,
    st.sampled_from([S.PENDING, S.DEFERRED]),
    st.integers(0, 5),
    st.one_of(st.none(), st.floats(0, 2e9)),
    st.floats(0, 600),
    st.floats(0, 1, exclude_max=True),
)
def test_settle_makes_only_moves_of_the_table(
    verdict: Verdict, status: Status, attempts: int, first_at: float | None, took: float, jitter: float
) -> None:
    before = Delivery(
        id=1, row=1, forward_path="a@b.example", status=status, attempts=attempts, tries=attempts, first_at=first_at
    )
    tried = AttemptResult(at=2e9, took=took, relay="", event=OK, verdict=verdict)
    after = settle(before, tried, POLICY, jitter=jitter)
    assert after.status is before.status or (before.status, after.status) in ALLOWED
    assert after.tries == before.tries + 1
    assert after.attempts - before.attempts == verdict.counts
    assert after.first_at == (2e9 if first_at is None else first_at)
    if after.status is S.DEFERRED and verdict.counts and not verdict.stops:
        assert after.due_at >= 2e9 + took


def test_settle_comes_back_no_sooner_than_the_server_asks() -> None:
    delivery = Delivery(1, 1, "ann@example.com")
    for code, text, due in (
        (450, "greylisted, try again in 2 hours", 7201.0),
        (450, "greylisted, try again in 2 seconds", 301.0),
        (421, "try again in 5 minutes", 301.0),
        (421, "goodbye", 1.0),
    ):
        reply = Reply(Stage.RCPT, code, "", text)
        attempt = AttemptResult(0.0, 1.0, "relay", reply, judge(reply))
        assert settle(delivery, attempt, RetryPolicy(), jitter=0.5).due_at == due, text
