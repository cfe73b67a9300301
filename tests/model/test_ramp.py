"""Growing day by day."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import ConfigError
from bulkmail.model.quota import DAY, MOST, Ramp, parse_ramp


@pytest.mark.parametrize(
    ("text", "ramp"),
    [
        ("200/day +30%", Ramp(200, percent=30.0)),
        ("200 per day + 12.5 %", Ramp(200, percent=12.5)),
        ("200/d, +100", Ramp(200, more=100)),
        ("200/day +100/day up to 5000", Ramp(200, more=100, top=5000)),
        ("200/day +30% to 200", Ramp(200, percent=30.0, top=200)),
    ],
)
def test_ramp_is_read_and_written_again(text: str, ramp: Ramp) -> None:
    assert parse_ramp(text) == ramp
    assert parse_ramp(str(ramp)) == ramp


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "cannot read"),
        ("200", "cannot read"),
        ("200/day", "cannot read"),
        ("200/day 30%", "cannot read"),
        ("200/hour +30%", "cannot read"),
        ("200/day -30%", "cannot read"),
        ("200/day +1.5", "cannot read"),
        ("0/day +30%", "begins with nothing"),
        ("200/day +0%", "does not grow"),
        ("200/day +0", "does not grow"),
        ("200/day +30% up to 100", "ends below where it begins"),
        ("200/day +1001%", "more than 1000% a day"),
    ],
)
def test_ramp_refuses_what_it_cannot_keep(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        parse_ramp(text)
    assert caught.value.hint.startswith("write ")


def test_ramp_grows_by_its_percentage_or_its_number() -> None:
    assert [Ramp(200, percent=30.0).allowance(day) for day in range(4)] == [200, 260, 338, 439]
    assert [Ramp(200, more=100, top=350).allowance(day) for day in range(4)] == [200, 300, 350, 350]


def test_ramp_counts_days_from_its_beginning() -> None:
    ramp = Ramp(1, more=1)
    assert [ramp.day(1000.0, 1000.0 + hours * 3600) for hours in (0, 23.99, 24, 47.99, 48)] == [0, 0, 1, 1, 2]
    assert ramp.day(1000.0, -1e9) == 0
    assert ramp.begins_at(1000.0, 2) == 1000.0 + 2 * DAY


@given(
    st.builds(
        Ramp,
        st.integers(1, 10**6),
        percent=st.floats(0, 1000),
        more=st.integers(0, 10**6),
        top=st.one_of(st.none(), st.integers(10**6, 10**8)),
    ),
    st.integers(0, 100_000),
)
def test_ramp_never_falls_and_has_an_end(ramp: Ramp, day: int) -> None:
    assert 1 <= ramp.allowance(day) <= ramp.allowance(day + 1) <= (ramp.top or MOST)
