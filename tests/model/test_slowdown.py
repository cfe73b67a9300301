"""What a complaint led to, as others read it later by their own clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.rate import AdaptiveRate
from bulkmail.model.shaper import MOST_KEPT, Slowdown, Slowdowns

NOW = 1_000.0
SLOW = Slowdown(
    "main",
    "google",
    times=3,
    at=NOW,
    why="Gmail: unusual rate of mail",
    words="421 4.7.28 slow down",
    speed=AdaptiveRate(low=9.0, peak=10.0, since=NOW),
    lowest=9.0,
    until=NOW + 600,
)


def test_slowdown_is_over_when_nothing_holds_it_back() -> None:
    assert SLOW.per_second(NOW) == 9.0
    assert SLOW.is_left_alone(NOW + 599) and not SLOW.is_left_alone(NOW + 600)
    assert not SLOW.is_over(NOW + 700)
    assert SLOW.is_over(NOW + 20_000) and SLOW.per_second(NOW + 20_000) is None
    assert not replace(SLOW, connections=2).is_over(NOW + 20_000)


@given(st.floats(1e5, 2e9), st.floats(0, 2500))
def test_slowdown_says_the_same_by_another_clock(ahead: float, later: float) -> None:
    moved = SLOW.shifted(ahead)
    when = NOW + later
    assert moved.per_second(when + ahead) == pytest.approx(SLOW.per_second(when), rel=1e-4)
    assert moved.until - moved.at == pytest.approx(600, rel=1e-4)
    assert replace(SLOW, until=0.0).shifted(ahead).until == 0.0


def test_slowdowns_keep_the_last_word_on_each() -> None:
    kept = Slowdowns([SLOW])
    again = replace(SLOW, times=4)
    assert kept.note(again) == SLOW
    assert kept.note(replace(SLOW, provider="", times=1)) is None
    assert kept.note(replace(SLOW, provider="yahoo", times=9)) is None
    assert [(each.provider, each.times) for each in kept] == [("", 1), ("yahoo", 9), ("google", 4)]


def test_slowdowns_forget_those_who_has_not_complained_for_longest() -> None:
    kept = Slowdowns()
    for number in range(MOST_KEPT + 50):
        kept.note(replace(SLOW, provider=f"d{number}.example", at=NOW + number))
    assert len(kept) == MOST_KEPT
    assert min(each.at for each in kept) == NOW + 50
