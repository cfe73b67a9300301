"""A console over a folder with one campaign, without a socket."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from anyio import to_thread
from starlette.types import ASGIApp

from bulkmail.cli.init import KINDS, make_campaign
from bulkmail.console.app import make_app
from bulkmail.console.renderer import Renderer
from bulkmail.console.worker import RenderedAnswer, Request, render
from bulkmail.model.relay import Secret
from tests.console.asking import PORT, TOKEN, Asker


@pytest.fixture(scope="session")
def newsletter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign as `init` makes it, to be copied."""
    folder = tmp_path_factory.mktemp("made") / "spring"
    make_campaign("newsletter", folder)
    return folder


@pytest.fixture
def root(tmp_path: Path, newsletter: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the console shows, which is the current one; it has the campaign `spring`."""
    folder = tmp_path / "mail"
    shutil.copytree(newsletter, folder / "spring")
    monkeypatch.chdir(folder)
    return folder


class InProcess(Renderer):
    """Makes messages in a thread: a worker costs a second to start."""

    async def _ask(self, request: Request) -> RenderedAnswer:
        return await to_thread.run_sync(render, request)


@pytest.fixture
def app(request: pytest.FixtureRequest, root: Path, state_folder: Path) -> ASGIApp:
    """The application; tests that are marked as slow have a render worker."""
    renderer = Renderer() if request.node.get_closest_marker("slow") else InProcess()
    return make_app(
        [root],
        token=Secret(TOKEN),
        port=PORT,
        state=state_folder,
        make_campaign=make_campaign,
        kinds=KINDS,
        renderer=renderer,
    )


@pytest.fixture
async def console(app: ASGIApp) -> AsyncIterator[Asker]:
    """The application at work."""
    async with _working(app):
        yield Asker(app)


class _working:
    """The application's lifespan, in a task of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._asked: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._reported: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._app({"type": "lifespan"}, self._asked.get, self._reported.put))  # type: ignore[arg-type]
        await self._asked.put({"type": "lifespan.startup"})
        assert (await self._reported.get())["type"] == "lifespan.startup.complete"

    async def __aexit__(self, *error: object) -> None:
        await self._asked.put({"type": "lifespan.shutdown"})
        await self._reported.get()
        with suppress(asyncio.CancelledError):
            await self._task
