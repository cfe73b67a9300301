"""The web server of `bulkmail console` and `bulkmail serve`: what it needs, and how it ends at a signal."""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio

from bulkmail.model.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn import Server

_ENDED = b"This program has ended while the request was under way.  Check what it has done before you repeat it.\n"


def check_installed(command: str, *modules: str) -> None:
    """Raises `ConfigError` for a module that is missing: some are imported only when the first form comes."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"bulkmail {command} needs {error.name}, which is not installed",
                hint="type: pip install 'bulkmail[web]'",
            ) from None


def make_server(app: ASGIApp, *, grace: int, keep_alive: int, trusts_proxy: bool = False) -> Server:
    """A server for `app` that waits `grace` seconds for requests under way when it ends."""
    from uvicorn import Config, Server

    from bulkmail.serve.client_connection import BoundedConnection

    return Server(
        Config(
            answering_at_end(app),
            log_config=None,
            access_log=False,  # a path may hold a token
            server_header=False,
            proxy_headers=trusts_proxy,
            http=BoundedConnection,
            ws="none",
            timeout_keep_alive=keep_alive,
            timeout_graceful_shutdown=grace,
            lifespan="on",
        )
    )


def answering_at_end(app: ASGIApp) -> ASGIApp:
    """`app`, with 503 for a request that is cancelled because the server ends; uvicorn answers 500, as for a bug."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, sending)
        except asyncio.CancelledError:
            if has_begun or scope["type"] != "http":
                raise
            headers = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(_ENDED)),
                (b"cache-control", b"no-store"),
            ]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": _ENDED})

    return answering


async def run_server(
    server: Server, listener: socket.socket, *beside: Callable[[], Coroutine[Any, Any, None]], log_level: int
) -> None:
    """Serves until SIGINT, SIGTERM or SIGHUP, and runs what is to be run `beside` it."""
    logging.getLogger("uvicorn.error").setLevel(log_level)

    @contextmanager
    def left_alone() -> Iterator[None]:
        yield

    server.capture_signals = left_alone  # type: ignore[method-assign]  # a signal ends us with 0, not by itself
    async with anyio.create_task_group() as group:
        await group.start(_end_at_signal, server)
        for each in beside:
            group.start_soon(each)
        await server.serve(sockets=[listener])
        group.cancel_scope.cancel()


async def _end_at_signal(
    server: Server, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    with anyio.open_signal_receiver(*(getattr(signal, name) for name in names if hasattr(signal, name))) as signals:
        task_status.started()
        async for _ in signals:
            server.should_exit = True
