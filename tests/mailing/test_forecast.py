"""What is notified before the start keeps to what the ledgers know."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from bulkmail.mailing.confirm import Outlook, look_ahead
from bulkmail.model.pace import Pace
from bulkmail.model.quota import DAY, Quota, Ramp
from bulkmail.model.rate import Rate
from bulkmail.model.route import Route
from bulkmail.model.schedule import parse_windows
from bulkmail.outbox.ledger import Reservation, open_ledger
from bulkmail.settings.parsers import find_zone

SATURDAY = datetime(2026, 11, 21, 12, tzinfo=ZoneInfo("Europe/Vienna")).timestamp()
OFFICE = parse_windows("Mon-Fri 09:00-17:00 Europe/Vienna", find_zone)
ANN = Route.parse("smtp://ann@relay.example?tls=off&name=ann")
BEN = Route.parse("smtp://ben@relay.example?tls=off&name=ben")
SPARE = Route.parse("smtp://carl@relay.example?tls=off&name=carl&priority=2")


def look(pace: Pace, total: int = 1000, *routes: Route, is_rehearsal: bool = False) -> Outlook:
    return look_ahead(routes or (ANN,), pace, total, run_id="run", is_rehearsal=is_rehearsal, now=SATURDAY)


def test_campaign_without_bounds_goes_at_once(state_folder):
    assert look(Pace(rate=Rate(50.0))).is_at_once
    assert not state_folder.exists()


@pytest.mark.parametrize(
    ("pace", "said"),
    [
        (Pace(windows=OFFICE, quota=Quota(per_day=600)), "600 on Monday, 400 on Tuesday"),
        (Pace(ramp=Ramp(400, percent=50.0)), "400 today, 600 tomorrow"),
        (Pace(quota=Quota(per_day=600), rate=Rate(1.0)), "600 today, 400 tomorrow; the first 600 take about 10 min"),
        (Pace(start=SATURDAY + 8 * DAY), "1,000 on 29 November"),
    ],
    ids=["hours", "ramp", "rate", "start"],
)
def test_plan_keeps_to_the_pace(pace, said):
    assert look(pace).sentence() == said


def test_plan_counts_what_the_account_has_sent():
    with open_ledger("ann@relay.example") as ledger:
        reservation = ledger.reserve(250, SATURDAY - 3600)
        assert isinstance(reservation, Reservation)
        ledger.settle(reservation, 250, SATURDAY - 3600)
    assert look(Pace(quota=Quota(per_day=600))).sentence() == "350 today, 600 tomorrow, 50 on Monday"


def test_accounts_add_up_but_not_those_that_only_stand_in():
    pace = Pace(quota=Quota(per_day=300))
    assert look(pace, 1000, ANN, BEN, SPARE).sentence() == "600 today, 400 tomorrow"


@pytest.mark.parametrize(
    ("quotas", "said"),
    [
        (("500/day", "100/day"), "600 today, 400 tomorrow"),
        (("500/day", ""), "800 today, 200 tomorrow"),
    ],
    ids=["their own", "one has the campaign's"],
)
def test_plan_adds_up_the_quotas_of_the_relays(quotas, said):
    own = [Route.parse(f"smtp://u{n}@relay.example?name=r{n}" + f"&quota={q}" * bool(q)) for n, q in enumerate(quotas)]
    assert look(Pace(quota=Quota(per_day=300)), 1000, *own).sentence() == said
    assert look(Pace(), 1000, own[0], Route.parse("smtp://x@relay.example?name=free")).is_at_once


def test_plan_begins_when_the_first_account_pauses_no_more():
    with open_ledger("ann@relay.example") as ledger:
        ledger.pause(DAY, "550 5.4.5 daily limit", SATURDAY)
    assert look(Pace()).sentence() == "1,000 tomorrow (550 5.4.5 daily limit)"
    assert look(Pace(), 1000, ANN, BEN).is_at_once


def test_rehearsal_is_at_once():
    null = Route.parse("null:")
    assert look(Pace(windows=OFFICE, quota=Quota(per_day=1)), 1000, null, is_rehearsal=True).is_at_once
