"""How fast and how patient a run is unless told otherwise."""

from __future__ import annotations

import math

from bulkmail.model.pace import Durability, Pace
from bulkmail.model.retry import RetryPolicy


def test_pace_by_default_is_as_fast_as_the_relay_and_waits_ten_minutes() -> None:
    pace = Pace()
    assert pace.rate is None
    assert pace.limit is None
    assert (pace.wait, pace.patience) == (600.0, 300.0)
    assert (pace.messages_per_session, pace.session_age) == (1000, 300.0)
    assert pace.retry == RetryPolicy()
    assert pace.durability is Durability.PROCESS


def test_pace_waits_for_all_only_without_end() -> None:
    assert Pace(wait=math.inf).waits_for_all
    assert not Pace(wait=1e300).waits_for_all
    assert not Pace(wait=0.0).waits_for_all


def test_durability_is_written_as_in_the_settings() -> None:
    assert [durability.value for durability in Durability] == ["process", "power"]
