"""An outbox with people in it, and a run over it: as for the engine's own tests."""

from __future__ import annotations

from tests.engine.conftest import events, make_engine, outbox, people

__all__ = ["events", "make_engine", "outbox", "people"]
