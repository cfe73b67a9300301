"""What can be done about a run: stop it, go on with it, cancel what is left, decide what is in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from bulkmail.console.commands import LOG_SUFFIX, Job, command_line
from bulkmail.console.folders import RunFile
from bulkmail.console.pages import Console, Notice, Templates, form_of, redirect
from bulkmail.console.run_pages import RunPages
from bulkmail.console.sending_pages import QUIET, password_of
from bulkmail.model.errors import BulkmailError
from bulkmail.model.relay import Secret
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.text import printable

WAITED = 8.0  # seconds that the answer waits for what was asked for
MOST_DOUBTFUL = 500
_LOOKED_EVERY = 0.1
CHOICES = {
    "retry": "Send again: a recipient who has it already gets it twice, with the same Message-ID",
    "accepted": "Count as accepted: it is not sent again",
    "rejected": "Count as rejected: it is not sent again",
}


class ActionPages:
    """The forms on a run's page."""

    def __init__(self, console: Console, templates: Templates, runs: RunPages) -> None:
        self._console = console
        self._templates = templates
        self._runs = runs

    async def stop(self, request: Request) -> Response:
        """Ends the sending process as Ctrl-C does: the first, or with `now` the second."""
        run = await self._console.run(request)
        form = await form_of(request)
        words = ["stop", run.shown, *(["--now"] if form.get("now") else [])]
        job = await self._begin(run, words, subject=f"stop {run.id}", unsaid=["--json"])
        await self._console.commands.wait(job, WAITED)
        if job.exit_code not in (None, 0, 3):
            return redirect(f"/j/{job.id}")
        return redirect(f"/r/{run.id}")

    async def resume(self, request: Request) -> Response:
        """Goes on with what is left."""
        run = await self._console.run(request)
        form = await form_of(request)
        return await self._go_on(run, self._resume_words(run), password_of(form))

    def _resume_words(self, run: RunFile) -> list[str]:
        return ["resume", run.shown, "--yes"]

    async def _go_on(self, run: RunFile, words: Sequence[str], password: Secret | None = None) -> Response:
        if self._console.commands.running(_subject(run)) is not None:
            notice = Notice("bad", "Another command about this campaign is running; wait until it is done.")
            return await self._runs.page(run, notice, 409)
        words = [*words, *(["--password-stdin"] if password is not None else [])]
        job = await self._begin(run, words, subject=_subject(run), unsaid=QUIET, password=password)
        with anyio.move_on_after(WAITED):
            # A process begins and ends without telling the loop.
            while job.exit_code is None and not await to_thread.run_sync(self._is_sending, run, job):  # noqa: ASYNC110
                await anyio.sleep(_LOOKED_EVERY)
        return redirect(f"/j/{job.id}" if job.exit_code in (2, 70) else f"/r/{run.id}")

    def _is_sending(self, run: RunFile, job: Job) -> bool:
        try:
            process = self._console.views.view(run.path).process
        except BulkmailError:
            return False
        return process is not None and process[0] == job.pid

    async def _begin(
        self,
        run: RunFile,
        words: Sequence[str],
        *,
        subject: str,
        unsaid: Sequence[str],
        password: Secret | None = None,
    ) -> Job:
        def start() -> Job:
            return self._console.commands.start(
                words, subject=subject, output=_log(run.path), run=run.path, unsaid=unsaid, password=password
            )

        return await to_thread.run_sync(start)

    # -- cancel

    async def ask_cancel(self, request: Request) -> Response:
        """What cancelling means, and the button that does it."""
        run = await self._console.run(request)
        return await self._cancel_page(run)

    async def _cancel_page(self, run: RunFile, problem: str = "", status: int = 200) -> Response:
        view = await to_thread.run_sync(self._console.views.view, run.path)
        words = ["cancel", run.shown, "--yes"]
        return self._templates.page(
            "cancel.html", status, run=run, view=view, command=command_line(words), problem=problem
        )

    async def cancel(self, request: Request) -> Response:
        """Stops the run if it is being sent, then cancels what is left."""
        run = await self._console.run(request)
        form = await form_of(request)
        if form.get("confirm", "").strip().lower() != "cancel":
            return await self._cancel_page(run, "Nothing was cancelled: type the word “cancel”.", 400)
        job = await self._begin(run, ["cancel", run.shown, "--yes"], subject=_subject(run), unsaid=[])
        await self._console.commands.wait(job, WAITED)
        return redirect(f"/r/{run.id}" if job.exit_code == 0 else f"/j/{job.id}")

    # -- in doubt

    async def doubt(self, request: Request) -> Response:
        """The messages in doubt, and what can be done about them."""
        return await self._doubt_page(await self._console.run(request))

    async def _doubt_page(self, run: RunFile, problem: str = "", status: int = 200) -> Response:
        context = await to_thread.run_sync(self._doubtful, run)
        return self._templates.page("doubt.html", status, run=run, choices=CHOICES, problem=problem, **context)

    def _doubtful(self, run: RunFile) -> dict[str, Any]:
        view = self._console.views.view(run.path)
        with OutboxReader.open(run.path) as reader:
            rows = [
                (record.row, printable(path.address, 200), path.last_at, printable(path.error or path.reply, 300))
                for record in islice(reader.in_doubt(), MOST_DOUBTFUL)
                for path in (record, *record.copies)
                if path.status is Status.IN_DOUBT
            ]
        return {"view": view, "rows": rows, "left_out": view.doubtful - len(rows)}

    async def decide(self, request: Request) -> Response:
        """Takes all that is in doubt out of doubt: the choice is that of `resume --in-doubt`."""
        run = await self._console.run(request)
        form = await form_of(request)
        choice = form.get("choice", "")
        if choice not in CHOICES:
            return await self._doubt_page(run, "Choose what becomes of the messages in doubt.", 400)
        return await self._go_on(run, [*self._resume_words(run), "--in-doubt", choice], password_of(form))


def _subject(run: RunFile) -> str:
    """What a command is about: the campaign, so that it and a new run exclude one another."""
    return run.campaign or run.id


def _log(path: Path) -> Path:
    return path.with_name(path.name.partition(".")[0] + LOG_SUFFIX)
