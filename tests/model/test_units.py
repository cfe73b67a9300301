"""Durations and counts as people write and read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import ConfigError
from bulkmail.model.quantities import parse_duration, parse_share, say_duration
from bulkmail.text import count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("90s", 90.0),
        ("10m", 600.0),
        ("10 m", 600.0),
        ("1.5h", 5400.0),
        ("2d", 172_800.0),
        (" 2d\n", 172_800.0),
        ("0.125s", 0.125),
    ],
)
def test_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1w", "1h30m", "1,5h", "1.5.5", "1e9", "inf", "nan", "1 0", "1" * 10])
def test_duration_refuses_anything_else(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_duration(text)
    assert str(caught.value) == f"cannot read the duration {text!r}"
    assert caught.value.hint == 'write "30s", "10m", "2h" or "5d"'


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (0.04, "0.0 s"),
        (0.4, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (10, "10 s"),
        (12.4, "12 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3599, "59 min 59 s"),
        (3599.6, "1 h"),
        (3600, "1 h"),
        (3659, "1 h"),
        (3660, "1 h 1 min"),
        (7500, "2 h 5 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d"),
        (273_600, "3 d 4 h"),
    ],
)
def test_duration_is_said(seconds: float, words: str) -> None:
    assert say_duration(seconds) == words


@given(st.floats(0, 1e8))
def test_duration_is_said_in_at_most_two_units_and_nearly_right(seconds: float) -> None:
    units = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
    said = re.fullmatch(r"([0-9.]+) (\w+)(?: ([0-9]+) (\w+))?", say_duration(seconds))
    assert said
    read = float(said[1]) * units[said[2]] + (int(said[3]) * units[said[4]] if said[3] else 0)
    finest = units[said[4] or {"d": "h", "h": "min"}.get(said[2], "s")]
    assert abs(read - seconds) <= finest


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1204, "1,204 rows"), (1_000_000, "1,000,000 rows")],
)
def test_count_adds_an_s_and_commas(number: int, words: str) -> None:
    assert count(number, "row") == words


def test_count_takes_a_plural_of_its_own() -> None:
    assert count(2, "address", "addresses") == "2 addresses"
    assert count(1, "address", "addresses") == "1 address"


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.5 %", 0.005), ("0%", 0.0), ("100%", 1.0)])
def test_share_is_read(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["5", "101%", "-1%", "%", "a%", ""])
def test_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the share"):
        parse_share(text)
