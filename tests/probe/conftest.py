"""Both event loops here, too: a relay is spoken to."""

from __future__ import annotations

from tests.smtp.conftest import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
