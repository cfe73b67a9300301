"""An outbox with people in it and a run over it, in one of four settings of the core."""

from __future__ import annotations

import pytest

from tests.engine.conftest import events, make_engine, outbox, people
from tests.faults.core_settings import enter, setting_of

__all__ = ["events", "make_engine", "outbox", "people"]


@pytest.fixture(autouse=True)
def core_setting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of them this test runs in."""
    setting = setting_of(request.node.nodeid)
    enter(setting, monkeypatch)
    return setting
