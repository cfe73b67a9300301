"""A run goes on at the pace that it was begun with."""

from __future__ import annotations

from datetime import timedelta, timezone

import pytest

from bulkmail.model.breaker import BreakerLimits
from bulkmail.model.errors import OutboxError
from bulkmail.model.pace import Pace
from bulkmail.model.quota import Quota, Ramp
from bulkmail.model.route import Route
from bulkmail.model.schedule import Window, Windows, parse_windows
from bulkmail.outbox.run_info import RunInfo
from bulkmail.settings.parsers import find_zone
from bulkmail.settings.presets import known_providers

ROUTES = (Route.parse("smtp://ann@relay.example?quota=500/day"),)
CAPE = Windows((Window(frozenset({1}), 540, 1020, timezone(timedelta(hours=-3.5))),))


@pytest.mark.parametrize(
    "pace",
    [
        Pace(windows=parse_windows("Mon-Fri 09:00-17:00 Europe/Vienna; Sat 9-12 UTC", find_zone), start=1.8e9),
        Pace(windows=CAPE),
        Pace(
            quota=Quota(500, 2000),
            ramp=Ramp(200, percent=30.0),
            breakers=BreakerLimits(canary=25),
            mailbox_providers=known_providers(),
        ),
    ],
    ids=["zones", "offset", "quota"],
)
def test_recorded_pace_comes_back(pace):
    info = RunInfo.begun(ROUTES, pace)
    assert RunInfo.read(info.notes()) == info
    assert info.read_sending("spring.outbox") == (ROUTES, pace)


def test_recorded_zone_that_this_machine_does_not_know_is_reported():
    notes = RunInfo.begun(ROUTES, Pace(windows=CAPE)).notes()
    info = RunInfo.read(notes | {"sending": notes["sending"].replace("-0330", "Mars/Base")})
    with pytest.raises(OutboxError, match="Mars/Base"):
        info.read_sending("spring.outbox")
