"""A store in PostgreSQL with a campaign in it."""

from __future__ import annotations

from tests.store.conftest import database, postgresql

__all__ = ["database", "postgresql"]
