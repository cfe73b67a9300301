"""What can be done about a run: stop it, go on with it, cancel what is left."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from bulkmail.console.commands import LOG_SUFFIX, CommandRunning, StartedCommand, command_line
from bulkmail.console.folders import RunFile
from bulkmail.console.pages import Console, PageNotice, Templates, form_of, redirect
from bulkmail.console.run_pages import RunPages
from bulkmail.console.sending_pages import QUIET, password_of
from bulkmail.mailing.operator import FileControl, requested_here
from bulkmail.model.errors import BulkmailError, OutboxError
from bulkmail.model.relay import Secret

WAITED = 8.0  # seconds that the answer waits for what was asked for
_LOOKED_EVERY = 0.1


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
        is_now = bool(form.get("now"))
        words = ["stop", run.shown, *(["--now"] if is_now else [])]
        control = FileControl(run.path)
        if await control.sender():  # the request itself: each second until the command is up is more messages sent
            with suppress(OutboxError):  # the command says why
                await control.ask_to_stop(requested_here(now=is_now))
        job = await begin(self._console, run, words, unsaid=["--json"], subject=f"stop {run.id}")
        await self._console.commands.wait(job, WAITED)
        if job.exit_code not in (None, 0, 3):
            return redirect(f"/j/{job.id}")
        return redirect(f"/r/{run.id}")

    async def resume(self, request: Request) -> Response:
        """Goes on with what is left."""
        run = await self._console.run(request)
        password = password_of(await form_of(request))
        words = ["resume", run.shown, "--yes", *(["--password-stdin"] if password is not None else [])]
        try:
            job = await begin(self._console, run, words, unsaid=QUIET, password=password)
        except CommandRunning as error:
            if list(error.job.words) != words:
                return await self._runs.page(run, PageNotice.of(error), 409)
            job = error.job  # the button was pressed twice
        with anyio.move_on_after(WAITED):
            # A process begins and ends without telling the loop.
            while job.exit_code is None and not await to_thread.run_sync(self._is_sending, run, job):  # noqa: ASYNC110
                await anyio.sleep(_LOOKED_EVERY)
        return redirect(f"/j/{job.id}" if job.exit_code in (2, 70) else f"/r/{run.id}")

    def _is_sending(self, run: RunFile, job: StartedCommand) -> bool:
        try:
            process = self._console.views.view(run.path).process
        except BulkmailError:
            return False
        return process is not None and process[0] == job.pid

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
        # Even while it is sent: the command stops it first.
        job = await begin(self._console, run, ["cancel", run.shown, "--yes"], subject=f"cancel {run.id}")
        await self._console.commands.wait(job, WAITED)
        return redirect(f"/r/{run.id}" if job.exit_code == 0 else f"/j/{job.id}")


async def begin(
    console: Console,
    run: RunFile,
    words: Sequence[str],
    *,
    unsaid: Sequence[str] = (),
    password: Secret | None = None,
    stdin: int | None = None,
    subject: str = "",
) -> StartedCommand:
    """Starts a command about a run, whose output goes beside it.

    Without a `subject` of its own it is one about the campaign, of which one at a time may run: a run and a new one
    exclude one another.  Raises `CommandRunning`, `ConfigError`.
    """

    def start() -> StartedCommand:
        return console.commands.start(
            words,
            subject=subject or run.campaign or run.id,
            output=run.path.with_name(run.path.name.partition(".")[0] + LOG_SUFFIX),
            run=run.path,
            unsaid=unsaid,
            password=password,
            stdin=stdin,
            is_alone=not subject,
        )

    return await to_thread.run_sync(start)
