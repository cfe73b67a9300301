"""Which sessions are busy with which lane, and how many messages of it they have carried."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bulkmail.engine.occupancy import Occupancy, Use

LIMITS = {"google": 2, "gmx": 1, "shop.example": None}


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "back", "renew"]), st.sampled_from(sorted(LIMITS)))))
def test_use_is_full_exactly_when_a_provider_has_all_that_a_session_may_carry(events: list[tuple[str, str]]) -> None:
    occupancy, use, out, number = Occupancy(), Use(), [], 0
    for what, lane in events:
        if what == "begin":
            number += 1
            out.append(number)
            occupancy.begin(number, lane, use, messages=LIMITS[lane])
        elif what == "renew":
            use.renew()
        elif out:
            occupancy.end(out.pop(), came_back=what == "back")
        full = [lane for lane, most in LIMITS.items() if most is not None and use.carried[lane] >= most]
        assert use.full == len(full)
        assert all(count >= 0 for count in use.carried.values())
    for each in out:
        occupancy.end(each)
    assert all(occupancy.sessions(lane) == 0 for lane in LIMITS)
