"""How long mail that came back may stay unread."""

from __future__ import annotations

import pytest

from bulkmail.model.feedback_event import REFUSE_AFTER, WARN_AFTER, YOUNG, IntakeState, say_overdue

NOW, HOUR, DAY = 1_800_000_000.0, 3_600.0, 86_400.0


def state(pulled: float | None = None, pushed: float | None = None, began: float | None = None) -> IntakeState:
    """Each is seconds before now."""
    return IntakeState(*(None if age is None else NOW - age for age in (pulled, pushed, began)))


@pytest.mark.parametrize(
    ("known", "seconds"),
    [
        pytest.param(state(), 0.0, id="no campaign"),
        pytest.param(state(began=YOUNG + 1), 0.0, id="an old campaign"),
        pytest.param(state(began=5 * HOUR), 5 * HOUR, id="never read"),
        pytest.param(state(pulled=2 * HOUR, began=5 * DAY), 2 * HOUR, id="read since"),
        pytest.param(state(pulled=9 * DAY, began=3 * DAY), 3 * DAY, id="read before the campaign only"),
        pytest.param(state(pushed=4 * DAY, began=5 * DAY), 0.0, id="handed over"),
        pytest.param(state(pushed=YOUNG + 1, began=5 * DAY), 5 * DAY, id="handed over long ago"),
        pytest.param(state(pulled=3 * DAY, pushed=4 * DAY, began=5 * DAY), 3 * DAY, id="a mailbox read later"),
        pytest.param(state(pulled=-60.0, began=5 * DAY), 0.0, id="a clock that went back"),
    ],
)
def test_intake_is_overdue_since_it_last_succeeded_or_the_campaign_began(known: IntakeState, seconds: float) -> None:
    assert known.overdue(NOW) == seconds


def test_people_are_warned_after_a_day() -> None:
    assert say_overdue(WARN_AFTER - 1) == ""
    assert "not read for 1 d" in say_overdue(WARN_AFTER)
    assert REFUSE_AFTER == 2 * WARN_AFTER
