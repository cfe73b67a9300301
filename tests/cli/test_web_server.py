"""What `bulkmail console` and `bulkmail serve` answer when they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bulkmail.cli.web_server import answering_at_end, check_installed
from bulkmail.model.errors import ConfigError


@pytest.mark.parametrize("has_begun", [False, True])
async def test_request_under_way_at_the_end_is_answered_503(has_begun: bool) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if has_begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    request = asyncio.ensure_future(answering_at_end(app)({"type": "http"}, None, send))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled() == has_begun
    assert [each.get("status") for each in sent] == ([200] if has_begun else [503, None])


def test_missing_module_is_named() -> None:
    with pytest.raises(ConfigError, match="bulkmail console needs no_such_module, which is not installed"):
        check_installed("console", "tomllib", "no_such_module")
