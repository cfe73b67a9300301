"""A run: where it stands, as it goes on, its rows, its reports."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bulkmail.console.commands import command_line
from bulkmail.console.folders import RunFile
from bulkmail.console.live import CATCHING_UP, EVERY, LivePicture
from bulkmail.console.pages import Console, PageNotice, Templates, say_percent
from bulkmail.model.errors import OutboxError
from bulkmail.model.quantities import say_duration
from bulkmail.model.tally import Status
from bulkmail.pages.plots import time_plot
from bulkmail.text import count, printable

MOST_STREAMS = 64
HEARTBEAT = 15.0  # seconds
ANNOUNCED_EVERY = 10.0  # seconds between two words to a screen reader
_EARLY = 0.1  # seconds: a look that is nearly due is not deferred by a whole one
_OUTCOMES = {
    "accepted": "accepted by the server",
    "deferred": "deferred",
    "rejected": "rejected",
    "in_doubt": "in doubt",
    "expired": "given up",
}
TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json", "html": "text/html; charset=utf-8"}


class RunPages:
    """The pages of one run."""

    def __init__(self, console: Console, templates: Templates) -> None:
        self._console = console
        self._templates = templates
        self._streams = 0
        self._made: dict[str, tuple[LivePicture, dict[str, str]]] = {}

    async def show(self, request: Request) -> Response:
        """Where the run stands."""
        return await self.page(await self._console.run(request))

    async def page(self, run: RunFile, notice: PageNotice | None = None, status: int = 200) -> Response:
        """The run's page with something said at its top."""
        picture = await self._console.live.picture(run.path)
        last = self._console.commands.last(run.campaign or run.id)
        result = await to_thread.run_sync(last.result) if last is not None and last.exit_code else {}
        if notice is None and last is not None and result.get("error"):
            notice = PageNotice(
                "bad", printable(str(result["error"]), 2_000), printable(str(result.get("hint") or ""), 1_000)
            )
        return self._templates.page(
            "run.html",
            status,
            run=run,
            view=picture.view,
            picture=picture,
            plot=plot_of(picture),
            state=_state(picture),
            commands="\n".join(_commands(run, picture)),
            notice=notice,
            failed=last if last is not None and last.has_failed and notice is None else None,
        )

    # -- as it goes on

    async def events(self, request: Request) -> Response:
        """What has changed, as it changes (server-sent events)."""
        run = await self._console.run(request)
        if self._streams >= MOST_STREAMS:
            body = "retry: 10000\nevent: full\ndata: \n\n"
            return Response(body, media_type="text/event-stream")
        return StreamingResponse(
            self._stream(run, request.query_params.get("state", "")),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no"},
        )

    async def _stream(self, run: RunFile, state: str) -> AsyncIterator[str]:
        self._streams += 1
        try:
            yield "retry: 2000\n\n"
            sent: dict[str, str] = {}
            spoken, announced, pause = time.monotonic(), 0.0, EVERY
            while True:
                try:
                    picture = await self._console.live.picture(run.path, fresh=pause - _EARLY)
                except OutboxError:  # just being replaced, or gone
                    yield "event: reload\ndata: \n\n"
                    return
                if _state(picture) != state:
                    yield "event: reload\ndata: \n\n"
                    return
                parts = self._parts(run, picture)
                now = time.monotonic()
                if now - announced >= ANNOUNCED_EVERY and picture.view.is_running:
                    parts["announced"] = announcement(picture)
                    announced = now
                for name, html in parts.items():
                    if sent.get(name) != html:
                        sent[name] = html
                        spoken = now
                        yield f"event: part\ndata: {json.dumps({'id': name, 'html': html})}\n\n"
                if now - spoken >= HEARTBEAT:
                    spoken = now
                    yield ": still here\n\n"
                pause = EVERY if picture.is_whole else CATCHING_UP
                await anyio.sleep(pause)
        finally:
            self._streams -= 1

    def _parts(self, run: RunFile, picture: LivePicture) -> dict[str, str]:
        """The parts of the page that change, made once for all tabs."""
        kept = self._made.get(run.id)
        if kept is None or kept[0] is not picture:
            kept = self._made[run.id] = picture, self._make_parts(run, picture)
            while len(self._made) > MOST_STREAMS:
                del self._made[next(iter(self._made))]
        return dict(kept[1])

    def _make_parts(self, run: RunFile, picture: LivePicture) -> dict[str, str]:
        context: dict[str, Any] = {"run": run, "picture": picture, "plot": plot_of(picture)}
        return {
            "figures": self._templates.text("_run_figures.html", **context),
            "plot": self._templates.text("_run_plot.html", **context),
            "words": self._templates.text("_run_words.html", **context),
        }

    # -- reports

    async def reports(self, request: Request) -> Response:
        """The report in its formats."""
        run = await self._console.run(request)
        view = await to_thread.run_sync(self._console.views.view, run.path)
        return self._templates.page(
            "report.html", run=run, view=view, command=command_line(["report", run.shown, "-o", "report.html"])
        )

    async def report(self, request: Request) -> Response:
        """The report as a file; the page is shown in the browser, without anything that runs."""
        run = await self._console.run(request)
        suffix = request.url.path.rpartition(".")[2]
        content = await to_thread.run_sync(_report, run.path, suffix)
        name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in run.path.name.split(".")[0])
        headers = {"content-disposition": f'attachment; filename="{name}-report.{suffix}"'}
        return Response(content, media_type=TYPES[suffix], headers=headers)


def _report(path: Path, suffix: str) -> bytes:
    """The report of all passes of the run's campaign that end with it.  Raises `BulkmailError`."""
    from bulkmail.report.report import Report
    from bulkmail.report.saving import save_report

    with TemporaryDirectory(prefix="bulkmail-") as folder:
        target = Path(folder) / f"report.{suffix}"
        save_report(Report.read(path), target)
        return target.read_bytes()


def _commands(run: RunFile, picture: LivePicture) -> list[str]:
    """The lines that do in a terminal what the page does."""
    if picture.view.is_running:
        return [command_line(["status", run.shown, "--watch"]), command_line(["stop", run.shown])]
    words = ("status", "resume", "cancel", "report") if picture.view.tally.open else ("status", "report")
    return [command_line([word, run.shown]) for word in words]


def _state(picture: LivePicture) -> str:
    """What decides which buttons there are: when it changes, the page is loaded again."""
    view = picture.view
    return f"{view.run_id[:8]}-{view.is_running:d}-{bool(view.tally.open):d}-{bool(view.doubtful):d}"


def announcement(picture: LivePicture) -> str:
    """The progress in a sentence, for who listens."""
    view = picture.view
    left = f", about {say_duration(picture.left)} left" if picture.left else ""
    return f"{say_percent(view.percent)} done, {count(view.tally[Status.ACCEPTED], 'message')} accepted{left}"


def plot_of(picture: LivePicture) -> dict[str, Any] | None:
    """The tries over time, as the page kit draws them."""
    plot = time_plot(picture.bars, _OUTCOMES, start=picture.start, seconds=picture.seconds)
    if plot is None:
        return None
    seen: Counter[str] = sum((Counter(bucket) for bucket in picture.bars), Counter())
    return {
        "title": "",
        "boxes": plot.boxes,
        "ticks": plot.ticks,
        "moments": plot.shown_moments(),
        "words": f"Tries a second by outcome, {say_duration(picture.seconds)} a bar; at most {plot.highest:,.1f}."
        + ("" if picture.is_whole else " Earlier tries are still being counted."),
        "key": [(kind, f"{word} {seen[kind]:,}") for kind, word in _OUTCOMES.items() if seen[kind]],
    }
