"""Quota, hours, ramp, providers and breakers, as a campaign says them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from bulkmail.model.breaker import BreakerLimits
from bulkmail.model.errors import ConfigError
from bulkmail.model.pace import Pace
from bulkmail.model.quota import NO_QUOTA, Quota, Ramp
from bulkmail.model.rate import Rate
from bulkmail.model.route import ProviderLimits
from bulkmail.settings.key_types import PositiveDuration
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.pacing import with_parts
from bulkmail.settings.schema import SendingTable
from bulkmail.settings.settings import load
from tests.settings.conftest import SOUND, MakeShop

NINE = datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp()

FULL = """
[sending]
quota = "500/hour, 2000/day"
window = "Mon-Fri 09:00-17:00 Europe/Vienna"
start = "2026-12-01 09:00 Europe/Vienna"
ramp = "200/day +30%"
canary = 25

[mailbox_providers]
presets = true
by_mx = true

[mailbox_providers.google]
rate = "20/s"
domains = ["shop.example"]

[mailbox_providers.club]
domains = ["Club.example"]
exchangers = ["mx.club.example"]
connections = 2
messages_per_session = 10

[mailbox_providers.other]
rate = "1/s"

[breakers]
policy_rejections = 10
unknown_users = "5%"
unknown_users_after = 100
canary_rejections = "50%"
"""


def pace_of(make_shop: MakeShop, toml: str, overrides: Overrides | None = None) -> Pace:
    make_shop(SOUND + toml)
    return load("shop", overrides or Overrides(), environ={"TZ": "Europe/Vienna"}).pace


def test_bounds_by_default_hold_nothing_back(make_shop: MakeShop) -> None:
    pace = pace_of(make_shop, "")
    assert (pace.quota, pace.windows.each, pace.start, pace.ramp) == (NO_QUOTA, (), None, None)
    assert pace.breakers == BreakerLimits()
    assert pace.mailbox_providers is None


def test_bounds_are_read_from_the_file(make_shop: MakeShop) -> None:
    pace = pace_of(make_shop, FULL)
    assert pace.quota == Quota(500, 2000)
    assert pace.windows.is_open(NINE) and not pace.windows.is_open(NINE - 1)
    assert (pace.start, pace.ramp) == (NINE, Ramp(200, percent=30.0))
    assert pace.breakers == BreakerLimits(10, 25, 0.05, 100, 25, 0.5)
    providers = pace.mailbox_providers
    assert providers is not None and providers.by_exchanger
    assert providers.limits("google") == ProviderLimits(Rate(20.0), 5, 50)
    assert [providers.of(domain) for domain in ("shop.example", "gmail.com", "club.example")] == [
        "google",
        "google",
        "club",
    ]
    assert providers.of_exchangers(["mx.club.example"]) == "club"
    assert providers.limits("club") == ProviderLimits(None, 2, 10)
    assert providers.limits("example.org") == ProviderLimits(Rate(1.0))


def test_bounds_are_overridden_by_flags(make_shop: MakeShop) -> None:
    flags = Overrides(quota="7/day", window="0-24 UTC", start="2026-12-01T09:00Z", ramp="1/day +1", canary=0)
    pace = pace_of(make_shop, FULL, flags)
    assert (pace.quota, pace.ramp, pace.breakers.canary) == (Quota(per_day=7), Ramp(1, more=1), 0)
    assert pace.windows.closes_at(NINE) is None
    assert pace.start == NINE + 3600


@pytest.mark.parametrize("moment", ["2026-12-01T09:00:00+01:00", "2026-12-01T09:00:00", "2026-12-01 08:00:00Z"])
def test_start_may_be_a_moment_of_toml(make_shop: MakeShop, moment: str) -> None:
    assert pace_of(make_shop, f"[sending]\nstart = {moment}\n").start == NINE


@pytest.mark.parametrize(
    ("toml", "what", "fix"),
    [
        ('[sending]\nquota = "many"\n', 'quota = "many": cannot read', "2000/day"),
        ('[sending]\nwindow = "nine to five"\n', "is not a valid sending window", "Mon-Fri 09:00-17:00"),
        (
            '[sending]\nwindow = "9-17 Europe/Viena"\n',
            '"Europe/Viena" is not a time zone',
            'did you mean "Europe/Vienna"?',
        ),
        ('[sending]\nstart = "tomorrow"\n', "is not a moment", "2026-12-01 09:00"),
        ("[sending]\nstart = 2026-12-01\n", "expected a text in quotes", ""),
        ('[sending]\nramp = "up"\n', "cannot read the ramp", "200/day +30%"),
        ("[sending]\ncanary = -1\n", "canary = -1: must be 0 or more", "whole number"),
        ('[mailbox_providers.google]\nrate = "fast"\n', "cannot read the rate 'fast'", "50/s"),
        ("[mailbox_providers.google]\nconnections = 0\n", "connections = 0: must be 1 or more", "whole number"),
        (
            '[mailbox_providers.gogle]\nrate = "5/s"\n',
            "gogle: is no provider that is known, and has no domains",
            "google",
        ),
        ('[mailbox_providers.club]\ndomains = ["a@b.example"]\n', "is not a domain", "example.com"),
        (
            '[mailbox_providers.other]\ndomains = ["b.example"]\n',
            "is for the domains that no provider names",
            "a name of its own",
        ),
        (
            "[mailbox_providers.google]\nspeed = 1\n",
            '[mailbox_providers.google] has no key "speed"',
            "known are rate, connections",
        ),
        ("[mailbox_providers]\npreset = true\n", "preset = true: expected a table of rate", ""),
        ('[breakers]\nunknown_users = "many"\n', "is not a percentage", "10%"),
        ('[breakers]\nunknown_users = "101%"\n', "is not a percentage", "10%"),
        ("[breakers]\npolicy_rejections = -1\n", "must be 0 or more", "0 for never"),
        ('[breakers]\nunknown_user = "5%"\n', '[breakers] has no key "unknown_user"', "unknown_users"),
    ],
)
def test_bounds_that_cannot_be_kept_are_refused(make_shop: MakeShop, toml: str, what: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pace_of(make_shop, toml)
    assert what in str(caught.value)
    assert str(caught.value).startswith("shop/campaign.toml:")
    assert fix in caught.value.hint


class LongerTable(SendingTable):
    nap: PositiveDuration | None = None


@dataclass(frozen=True, slots=True)
class LongerPace(Pace):
    nap: float = 0.0


def test_new_key_needs_a_line_in_the_schema_and_a_part_of_the_pace() -> None:
    """The example of docs/design.md: what reads the file, its faults and its flags knows nothing of the key."""

    read = LongerTable.model_validate({"nap": "2m", "wait": "1h"}, context={"environ": {}})
    pace = with_parts(LongerPace(), read)
    assert isinstance(pace, LongerPace) and (pace.nap, pace.wait) == (120.0, 3600.0)
    with pytest.raises(ValidationError, match="cannot read the duration"):
        LongerTable.model_validate({"nap": "soon"}, context={"environ": {}})
