"""Which sessions are busy with which provider, and how many messages of it they have carried."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.engine.relay_state import ProviderUse, SessionUse

RELAY: Any = None
LIMITS = {"google": 2, "gmx": 1, "shop.example": None}


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "back", "renew"]), st.sampled_from(sorted(LIMITS)))))
def test_use_is_full_exactly_when_a_provider_has_all_that_a_session_may_carry(events: list[tuple[str, str]]) -> None:
    counting, use, out, number = ProviderUse(), SessionUse(RELAY), [], 0
    for what, provider in events:
        if what == "begin":
            number += 1
            out.append(number)
            counting.begin(number, provider, use, messages=LIMITS[provider])
        elif what == "renew":
            use.renew()
        elif out:
            counting.end(out.pop(), came_back=what == "back")
        full = [provider for provider, most in LIMITS.items() if most is not None and use.carried[provider] >= most]
        assert use.full == len(full)
        assert all(count >= 0 for count in use.carried.values())
    for each in out:
        counting.end(each)
    assert all(counting.sessions(provider) == 0 for provider in LIMITS)
