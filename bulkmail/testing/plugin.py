"""Fixtures for pytest, which finds them by itself where bulkmail is installed.

Nothing of bulkmail is imported before a test asks for one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bulkmail.testing.manual_clock import ManualClock
    from bulkmail.testing.threaded_relay import ThreadedRelay


@pytest.fixture
def recording_relay() -> Iterator[ThreadedRelay]:
    """A relay that takes every message and delivers none: send through `recording_relay.url`, look at its `inbox`."""
    from bulkmail.testing.threaded_relay import ThreadedRelay

    with ThreadedRelay() as relay:
        yield relay


@pytest.fixture
def scripted_relay() -> Iterator[Callable[..., ThreadedRelay]]:
    """Makes relays that answer as told: `scripted_relay(rcpt=["550 5.1.1 no such user"])`; see `ScriptedRelay`."""
    from bulkmail.testing.threaded_relay import ThreadedRelay

    with ExitStack() as stack:

        def make(**scripts: Any) -> ThreadedRelay:
            return stack.enter_context(ThreadedRelay(**scripts))

        yield make


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock that stands still until it is advanced."""
    from bulkmail.testing.manual_clock import ManualClock

    return ManualClock()
