"""Retries: how long the waits are, and exactly when a delivery expires instead."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import ConfigError
from bulkmail.model.retry import (
    PROVIDER_BACKOFF,
    RELAY_BACKOFF,
    Backoff,
    RetryPolicy,
    asked_wait,
    parse_schedule,
)
from bulkmail.model.timing import LONGEST_ASKED_WAIT

JITTER = st.floats(0, 1, exclude_max=True)
POLICIES = st.builds(
    RetryPolicy,
    first=st.floats(1, 3600),
    longest=st.floats(1, 86400),
    max_attempts=st.integers(1, 3000),
    max_age=st.floats(0, 1e7),
    schedule=st.lists(st.floats(0, 86400), max_size=10).map(tuple),
)


def middle(policy: RetryPolicy, attempts: int) -> float | None:
    return policy.delay(attempts, age=0.0, jitter=0.5)


def test_retry_waits_double_up_to_the_longest() -> None:
    policy = RetryPolicy(first=300.0, longest=4000.0)
    assert [middle(policy, n) for n in range(1, 7)] == [300.0, 600.0, 1200.0, 2400.0, 4000.0, 4000.0]


def test_retry_spreads_a_wait_from_half_to_one_and_a_half() -> None:
    policy = RetryPolicy(first=300.0)
    assert policy.delay(1, age=0.0, jitter=0.0) == 150.0
    assert policy.delay(1, age=0.0, jitter=0.75) == 375.0


def test_retry_keeps_a_written_schedule_exactly() -> None:
    policy = RetryPolicy(schedule=(60.0, 300.0, 300.0), max_attempts=20)
    waits = [policy.delay(n, age=0.0, jitter=0.9) for n in range(1, 5)]
    assert waits == [60.0, 300.0, 300.0, None]


def test_retry_expires_after_the_last_attempt() -> None:
    policy = RetryPolicy(max_attempts=3)
    assert middle(policy, 2) is not None
    assert middle(policy, 3) is None
    assert middle(policy, 4) is None


def test_retry_expires_rather_than_grow_too_old() -> None:
    policy = RetryPolicy(first=100.0, max_age=1000.0)
    assert policy.delay(1, age=900.0, jitter=0.5) == 100.0
    assert policy.delay(1, age=900.5, jitter=0.5) is None


def test_retry_counts_attempts_before_a_schedule_ends() -> None:
    assert middle(RetryPolicy(schedule=(1.0, 1.0, 1.0), max_attempts=2), 2) is None


def test_retry_by_default_gives_up_after_20_attempts_and_before_5_days() -> None:
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.max_age) == (20, 432_000.0)
    assert (policy.first, policy.longest, policy.schedule) == (300.0, 4000.0, ())


@given(POLICIES, st.integers(1, 4000), st.floats(0, 1e7), JITTER)
def test_retry_expires_exactly_when_it_must(policy: RetryPolicy, attempts: int, age: float, jitter: float) -> None:
    delay = policy.delay(attempts, age=age, jitter=jitter)
    used_up = attempts >= policy.max_attempts or (policy.schedule and attempts > len(policy.schedule))
    if used_up:
        assert delay is None
    else:
        shortest = policy.schedule[attempts - 1] if policy.schedule else min(policy.first, policy.longest) * 0.5
        longest = policy.schedule[attempts - 1] if policy.schedule else policy.longest * 1.5
        if delay is None:
            assert age + longest > policy.max_age
        else:
            assert shortest <= delay <= longest
            assert age + delay <= policy.max_age


@given(st.floats(1, 3600), st.floats(1, 86400), st.integers(1, 4000), JITTER)
def test_retry_waits_never_shrink_with_more_attempts(
    first: float, longest: float, attempts: int, jitter: float
) -> None:
    policy = RetryPolicy(first=first, longest=longest, max_attempts=10_000, max_age=math.inf)
    sooner = policy.delay(attempts, age=0.0, jitter=jitter)
    later = policy.delay(attempts + 1, age=0.0, jitter=jitter)
    assert sooner is not None
    assert later is not None
    assert sooner <= later


@given(POLICIES, JITTER)
def test_retry_ends_always(policy: RetryPolicy, jitter: float) -> None:
    age, attempts = 0.0, 1
    while (delay := policy.delay(attempts, age=age, jitter=jitter)) is not None:
        age += delay
        attempts += 1
        assert attempts <= policy.max_attempts
        assert age <= policy.max_age


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("1m", (60.0,)),
        ("90", (90.0,)),
        ("1m, 5m*2, 1h*3", (60.0, 300.0, 300.0, 3600.0, 3600.0, 3600.0)),
        (" 1m * 2 ,5m ", (60.0, 60.0, 300.0)),
        ("0s*1000", (0.0,) * 1000),
        ("1m*0, 2m", (120.0,)),
    ],
)
def test_schedule_is_read(text: str, waits: tuple[float, ...]) -> None:
    assert parse_schedule(text) == waits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read '' in a retry schedule"),
        ("1m,,2m", "cannot read '' in a retry schedule"),
        ("1m*", "cannot read '1m*' in a retry schedule"),
        ("1m*2*3", "cannot read '1m*2*3' in a retry schedule"),
        ("1m*x", "cannot read '1m*x' in a retry schedule"),
        ("soon", "cannot read the duration 'soon'"),
        ("1m*0", "a retry schedule has 1 to 1000 steps"),
        ("1m*1001", "a retry schedule has 1 to 1000 steps"),
    ],
)
def test_schedule_refuses_anything_else(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schedule(text)
    assert str(caught.value) == message
    assert caught.value.hint.startswith("write ")


def test_backoff_doubles_up_to_the_longest() -> None:
    waits = [Backoff(1.0, 20.0).wait(n, jitter=0.0) for n in range(1, 7)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]


def test_backoff_spreads_from_half_to_the_whole() -> None:
    assert RELAY_BACKOFF.wait(1, jitter=0.0) == 0.5
    assert RELAY_BACKOFF.wait(1, jitter=0.5) == 0.75
    assert RELAY_BACKOFF.wait(100, jitter=0.0) == 150.0


def test_backoff_begins_with_what_the_complaint_is_worth() -> None:
    assert [PROVIDER_BACKOFF.wait(n, jitter=0.5, least=600.0) for n in (1, 2, 3, 4)] == [600.0, 1500.0, 3000.0, 3600.0]
    assert PROVIDER_BACKOFF.wait(9, jitter=0.5, least=7200.0) == 7200.0


def test_backoff_keeps_a_written_schedule_but_lets_the_server_have_more() -> None:
    written = Backoff(1.0, 300.0, (10.0, 60.0))
    assert [written.wait(n, jitter=0.9, least=600.0) for n in (1, 2, 3, 70)] == [10.0, 60.0, 60.0, 60.0]
    assert [written.wait(n, jitter=0.9, asked=30.0) for n in (1, 2)] == [30.0, 60.0]


BACKOFFS = st.builds(Backoff, st.floats(0.1, 600), st.floats(1, 86400), st.just(()))


@given(BACKOFFS, st.integers(1, 5000), JITTER, JITTER, st.sampled_from([0.0, 300.0, 7200.0]))
def test_backoff_never_shrinks_and_stays_within_its_longest(
    backoff: Backoff, times: int, jitter: float, other: float, least: float
) -> None:
    wait, later = (backoff.wait(n, jitter=d, least=least) for n, d in ((times, jitter), (times + 1, other)))
    most = max(backoff.longest, least)
    assert 0 < wait <= most and later <= most
    assert later >= wait or wait > most / 2  # at its longest it is spread


# --- what the server asks for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Rate exceeded, try again in 5 minutes", 300.0),
        ("Please retry in 300 seconds", 300.0),
        ("try again after 15 min.", 900.0),
        ("Please wait 2 hours", 7200.0),
        ("TRY AGAIN IN 90S", 90.0),
        ("Greylisted, please come back in 00:05:00", 300.0),
        ("greylisted for 60 seconds", 60.0),
        ("retry after 24 hours", LONGEST_ASKED_WAIT),
        ("come back in 99:59:59", LONGEST_ASKED_WAIT),
        ("Please try again later", 0.0),
        ("try again later from 192.0.2.1 (S77719)", 0.0),
        ("again in 5 fathoms", 0.0),
        ("limit is 300 seconds", 0.0),
        ("", 0.0),
    ],
)
def test_asked_wait_is_read_from_the_words_of_servers(text: str, seconds: float) -> None:
    assert asked_wait(text) == seconds


@given(st.text(max_size=500))
def test_asked_wait_of_anything_is_bounded(text: str) -> None:
    assert 0.0 <= asked_wait(f"again in {text}") <= LONGEST_ASKED_WAIT


@given(POLICIES, st.integers(1, 20), st.floats(0, 1e5), JITTER, st.floats(0, 1e5))
def test_retry_follows_the_server_upward_only(
    policy: RetryPolicy, attempts: int, age: float, jitter: float, asked: float
) -> None:
    plain = policy.delay(attempts, age=age, jitter=jitter)
    decision = policy.delay(attempts, age=age, jitter=jitter, asked=asked)
    if plain is None:
        assert decision is None
    elif decision is None:
        assert age + max(plain, asked) > policy.max_age
    else:
        assert decision == max(plain, asked)


@pytest.mark.slow
@given(POLICIES, st.lists(JITTER, min_size=1, max_size=40), st.lists(st.floats(0, 1e4), min_size=40, max_size=40))
def test_retry_goes_forward_in_time_and_ends(policy: RetryPolicy, jitter: list[float], asked: list[float]) -> None:
    """Tries come one after another, the last of them before the delivery is too old."""
    age = 0.0
    for attempts, (die, ask) in enumerate(zip(jitter, asked, strict=False), 1):
        delay = policy.delay(attempts, age=age, jitter=die, asked=ask)
        if delay is None:
            break
        assert delay >= 0
        age += delay
        assert age <= policy.max_age * (1 + 1e-9)
        assert attempts < policy.max_attempts


@given(st.floats(1, 3600), st.floats(1, 86400), JITTER)
def test_retry_waits_never_get_shorter_by_themselves(first: float, longest: float, jitter: float) -> None:
    policy = RetryPolicy(first=first, longest=longest, max_attempts=3000, max_age=math.inf)
    delays = [policy.delay(attempts, age=0.0, jitter=jitter) or 0.0 for attempts in range(1, 100)]
    assert delays == sorted(delays)
