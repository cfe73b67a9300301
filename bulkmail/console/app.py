"""The console's application: its routes, behind the guard, with a page for every error."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bulkmail.console.action_pages import ActionPages
from bulkmail.console.campaign_pages import CampaignPages
from bulkmail.console.command_journal import CommandJournal
from bulkmail.console.commands import Commands
from bulkmail.console.doubt_pages import DoubtPages
from bulkmail.console.folders import Folders, home_shown
from bulkmail.console.guard import Guard
from bulkmail.console.live import Live
from bulkmail.console.other_pages import OtherPages
from bulkmail.console.pages import Console, Templates, static_address, static_file
from bulkmail.console.renderer import Renderer
from bulkmail.console.row_pages import RowPages
from bulkmail.console.run_pages import RunPages
from bulkmail.console.run_view import Views
from bulkmail.console.sending_pages import SendingPages
from bulkmail.model.errors import BulkmailError
from bulkmail.model.relay import Secret
from bulkmail.text import printable

log = logging.getLogger(__name__)

STATIC = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx-2.0.11.min.js": "text/javascript; charset=utf-8",
}
_TITLES = {
    400: "This cannot be done",
    404: "Not found",
    405: "This cannot be done",
    408: "Too slow",
    413: "Too large",
}


def make_app(
    roots: Sequence[Path],
    *,
    token: Secret,
    port: int,
    state: Path,
    allowed: Iterable[str] = (),
    make_campaign: Callable[[str, Path], object],
    kinds: Mapping[str, str],
    renderer: Renderer | None = None,
) -> ASGIApp:
    """The application for the campaigns below `roots`.  `make_campaign` makes one of `kinds` in a folder.

    `renderer` makes the messages to look at; None is one with a worker of its own.
    """
    folders = Folders(roots)
    journal, views = CommandJournal(state), Views()
    commands = Commands(journal, state / "console-output")
    console = Console(folders, views, Live(views), commands, journal, renderer or Renderer())
    templates = Templates({"folders": ", ".join(map(home_shown, folders.roots))})
    writing = CampaignPages(console, templates, make=make_campaign, kinds=kinds)
    sending, runs = SendingPages(console, templates), RunPages(console, templates)
    actions, rows = ActionPages(console, templates, runs), RowPages(console, templates)
    doubts, others = DoubtPages(console, templates), OtherPages(console, templates)

    for each in STATIC:
        static_address(each)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(commands.reap)
            yield
            group.cancel_scope.cancel()
        await console.renderer.close()

    def error_page(status: int, text: str, hint: str = "") -> Response:
        title = _TITLES.get(status, "Something went wrong")
        return templates.page(
            "error.html", status, title=title, text=printable(text, 2_000), hint=printable(hint, 1_000)
        )

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = error.detail if isinstance(error, HTTPException) else ""
        return error_page(status, detail or "there is no such page")

    async def failed(request: Request, error: Exception) -> Response:
        return error_page(409, str(error), error.hint if isinstance(error, BulkmailError) else "")

    async def broken(request: Request, error: Exception) -> Response:
        log.error("console failed", exc_info=error)
        return error_page(500, "bulkmail has a bug here; the terminal where the console runs shows more")

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404)
        is_current = static_address(name) == request.url.path
        headers = {"cache-control": f"private, max-age={31_536_000 if is_current else 0}, immutable"}
        return Response(static_file(name), media_type=STATIC[name], headers=headers)

    campaign, run = "/c/{campaign}", "/r/{run}"
    routes = [
        Route("/", writing.campaigns),
        Route("/campaigns", writing.make, methods=["POST"]),
        Route(campaign, writing.compose),
        Route(f"{campaign}/save", writing.save, methods=["POST"]),
        Route(f"{campaign}/preview", writing.preview, methods=["POST"]),
        Route(f"{campaign}/message", writing.message),
        Route(f"{campaign}/list", writing.upload_list, methods=["POST"]),
        Route(f"{campaign}/attachments", writing.attach, methods=["POST"]),
        Route(f"{campaign}/detach", writing.detach, methods=["POST"]),
        Route(f"{campaign}/settings", writing.settings),
        Route(f"{campaign}/settings", writing.save_settings, methods=["POST"]),
        Route(f"{campaign}/check", sending.check),
        Route(f"{campaign}/check", sending.start_check, methods=["POST"]),
        Route(f"{campaign}/start", sending.start),
        Route(f"{campaign}/count", sending.count, methods=["POST"]),
        Route(f"{campaign}/rehearse", sending.rehearse, methods=["POST"]),
        Route(f"{campaign}/send", sending.send, methods=["POST"]),
        Route(f"{campaign}/test", others.test),
        Route(f"{campaign}/test", others.send_test, methods=["POST"]),
        Route(f"{campaign}/relay", others.relay),
        Route(f"{campaign}/relay", others.ask_relay, methods=["POST"]),
        Route("/j/{job}", sending.job),
        Route("/returns", others.returns),
        Route("/suppressions", others.suppressions),
        Route("/log", others.log),
        Route(run, runs.show),
        Route(f"{run}/events", runs.events),
        Route(f"{run}/report", runs.reports),
        Route(f"{run}/rows", rows.rows),
        Route(f"{run}/rows/{{row}}", rows.row),
        Route(f"{run}/stop", actions.stop, methods=["POST"]),
        Route(f"{run}/resume", actions.resume, methods=["POST"]),
        Route(f"{run}/cancel", actions.ask_cancel),
        Route(f"{run}/cancel", actions.cancel, methods=["POST"]),
        Route(f"{run}/doubt", doubts.show),
        Route(f"{run}/doubt", doubts.decide, methods=["POST"]),
        Route(f"{run}/mailbox", doubts.look_in_mailbox, methods=["POST"]),
        Route(f"{run}/log", doubts.look_in_log, methods=["POST"]),
        *(Route(f"{run}/report.{suffix}", runs.report, name=suffix) for suffix in ("csv", "json", "html")),
        Route("/static/{digest}/{name}", static),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: refused, BulkmailError: failed, Exception: broken},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Guard(app, token=token, port=port, allowed=allowed)
