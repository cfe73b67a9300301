"""Which provider a recipient belongs to, and how its lane may be used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.lane import Lane, LaneLimits, Lanes
from bulkmail.model.rate import Rate

GOOGLE = Lane("google", frozenset({"gmail.com"}), frozenset({"google.com"}), preset=LaneLimits(Rate(10.0), 5, 50))
YAHOO = Lane("yahoo", frozenset({"yahoo.*", "aol.com"}), frozenset({"yahoodns.net"}))
JAPAN = Lane("yahoo-japan", frozenset({"yahoo.co.jp"}))
LANES = Lanes({lane.name: lane for lane in (GOOGLE, YAHOO, JAPAN)})


@pytest.mark.parametrize(
    ("domain", "lane"),
    [
        ("gmail.com", "google"),
        ("GMail.Com.", "google"),
        ("yahoo.fr", "yahoo"),
        ("yahoo.co.uk", "yahoo"),
        ("yahoo.co.jp", "yahoo-japan"),
        ("yahoo.com", "yahoo"),
        ("yahoo.com.br", "yahoo"),
        ("yahoo.example.com", "yahoo.example.com"),
        ("yahoo.example.fr", "yahoo.example.fr"),
        ("yahoo.co.example", "yahoo.co.example"),
        ("yahoo.shop.example.com", "yahoo.shop.example.com"),
        ("mail.gmail.com", "mail.gmail.com"),
        ("example.org", "example.org"),
        ("localhost", "localhost"),
    ],
)
def test_lane_is_the_provider_or_the_domain(domain: str, lane: str) -> None:
    assert LANES.of(domain) == lane


@pytest.mark.parametrize(
    ("hosts", "lane"),
    [
        (["aspmx.l.google.com", "alt1.aspmx.l.google.com"], "google"),
        (["MX.YAHOODNS.NET."], "yahoo"),
        (["mail.notgoogle.com"], None),
        (["google.com.evil.example"], None),
        ([], None),
        (["mx.example.org", "google.com"], "google"),
    ],
)
def test_lane_by_exchanger_goes_by_the_end_of_the_name(hosts: list[str], lane: str | None) -> None:
    assert LANES.of_exchangers(hosts) == lane


@given(st.text(max_size=300))
def test_lane_of_anything_is_something(domain: str) -> None:
    assert isinstance(LANES.of(domain), str)
    assert LANES.of_exchangers([domain]) in (None, *LANES.by_name)


def test_lane_presets_hold_only_where_they_are_wanted() -> None:
    assert LANES.limits("google") == LaneLimits()
    wanting = Lanes(LANES.by_name, uses_presets=True)
    assert wanting.limits("google") == LaneLimits(Rate(10.0), 5, 50)


def test_lane_limits_of_the_user_stand_above_the_preset_one_by_one() -> None:
    lanes = Lanes(LANES.by_name, uses_presets=True).with_lane(
        Lane("google", frozenset({"shop.example"}), limits=LaneLimits(rate=Rate(20.0)))
    )
    assert lanes.limits("google") == LaneLimits(Rate(20.0), 5, 50)
    assert (lanes.of("shop.example"), lanes.of("gmail.com")) == ("google", "google")
    assert lanes.with_lane(Lane("google", limits=LaneLimits(connections=1))).limits("google").rate == Rate(20.0)


def test_lane_of_the_user_takes_domains_from_the_table() -> None:
    lanes = LANES.with_lane(Lane("ours", frozenset({"gmail.com"}), limits=LaneLimits(connections=2)))
    assert lanes.of("gmail.com") == "ours"
    assert lanes.limits("ours").connections == 2
    # One that was in the table before stands last as well, once the user wrote about it.
    assert lanes.with_lane(Lane("google", frozenset({"gmail.com"}))).of("gmail.com") == "google"


def test_lane_of_a_domain_that_is_nobodys_has_the_limits_of_the_others() -> None:
    lanes = Lanes(LANES.by_name, other=LaneLimits(Rate(1.0)))
    assert lanes.limits("example.org") == LaneLimits(Rate(1.0))
    assert lanes.limits("google") == LaneLimits()


def test_lane_presets_are_about_us_only_at_a_providers_own_exchanger() -> None:
    assert LANES.for_relay(host="gmail-smtp-in.l.google.com", port=25).uses_presets
    assert LANES.for_relay(host="smtp.google.com", port=587) is LANES
    assert LANES.for_relay(host="mail.example.com", port=25) is LANES
    unwilling = Lanes(LANES.by_name, uses_presets=False)
    assert unwilling.for_relay(host="gmail-smtp-in.l.google.com", port=25) is unwilling
