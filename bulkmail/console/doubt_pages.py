"""The messages of a run that are in doubt: looked up in a mailbox or a log, or decided by a person, all or some."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from anyio import to_thread
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from bulkmail.console.action_pages import begin
from bulkmail.console.commands import command_line
from bulkmail.console.folders import RunFile
from bulkmail.console.pages import Console, PageNotice, Templates, form_of, redirect
from bulkmail.console.sending_pages import password_of
from bulkmail.mailbox.imap import Mailbox
from bulkmail.model.errors import BulkmailError
from bulkmail.model.relay import Secret
from bulkmail.model.tally import EXIT_IN_DOUBT, EXIT_OK, Status
from bulkmail.outbox.entries import PathRecord, RowRecord
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.text import printable

WAITED_DECISION = 20.0  # seconds that the answer waits for the command
WAITED_SEARCH = 20.0
MOST_DOUBTFUL = 500  # that are shown, and can be chosen one by one
CHOICES = {
    "retry": "Send again: a recipient who has it already gets it twice, with the same Message-ID",
    "accepted": "Count as accepted: it is not sent again",
    "rejected": "Count as rejected: it is not sent again",
}
_FIELDS = MOST_DOUBTFUL + 20
_LONGEST_FOLDER = 200  # characters


class DoubtPages:
    """What is in doubt, and what can be done about it."""

    def __init__(self, console: Console, templates: Templates) -> None:
        self._console = console
        self._templates = templates

    async def show(self, request: Request) -> Response:
        """The messages in doubt."""
        return await self._page(await self._console.run(request))

    async def _page(
        self,
        run: RunFile,
        notice: PageNotice | None = None,
        form: dict[str, str] | None = None,
        chosen: Iterable[int] = (),
    ) -> Response:
        context = await to_thread.run_sync(self._doubtful, run)
        return self._templates.page(
            "doubt.html",
            400 if notice is not None else 200,
            run=run,
            choices=CHOICES,
            notice=notice,
            form={"choice": "", "which": "", "imap": "", "folder": "Sent"} | (form or {}),
            chosen=frozenset(chosen),
            command=commands_of(run),
            **context,
        )

    def _doubtful(self, run: RunFile) -> dict[str, Any]:
        view = self._console.views.view(run.path)
        with OutboxReader.open(run.path) as reader:
            rows = [
                (
                    record.row,
                    number == 0,
                    printable(path.address, 200),
                    path.last_at,
                    printable(path.error or path.reply, 300),
                )
                for record in islice(reader.in_doubt(), MOST_DOUBTFUL)
                for number, path in enumerate(_doubtful_paths(record))
            ]
        return {"view": view, "rows": rows, "left_out": view.doubtful - len(rows)}

    # -- decided by a person

    async def decide(self, request: Request) -> Response:
        """Takes the chosen messages, or all, out of doubt.  Nothing is sent by that."""
        run = await self._console.run(request)
        async with request.form(max_files=0, max_fields=_FIELDS) as sent:
            form = {name: value for name, value in sent.items() if isinstance(value, str)}
            texts = [each for each in sent.getlist("row") if isinstance(each, str)]
        rows = sorted({int(each) for each in texts if _NUMBER.fullmatch(each)})
        choice, which = form.get("choice", ""), form.get("which", "")
        if choice not in CHOICES:
            return await self._page(run, PageNotice("bad", "Choose what becomes of the messages."), form, rows)
        if which not in ("all", "some") or (which == "some" and not rows):
            return await self._page(run, PageNotice("bad", "Choose the messages, or all of them."), form, rows)
        words = ["reconcile", run.shown, "--as", choice, *(["--rows", spelled(rows)] if which == "some" else [])]
        try:
            job = await begin(self._console, run, words)
        except BulkmailError as error:
            return await self._page(run, PageNotice.of(error), form, rows)
        await self._console.commands.wait(job, WAITED_DECISION)
        if job.exit_code not in (EXIT_OK, EXIT_IN_DOUBT):
            return redirect(f"/j/{job.id}")
        return redirect(f"/r/{run.id}/doubt" if job.exit_code == EXIT_IN_DOUBT else f"/r/{run.id}")

    # -- looked up

    async def look_in_mailbox(self, request: Request) -> Response:
        """Looks the messages up in a folder of a mail account; what is found is accepted."""
        run = await self._console.run(request)
        form = await form_of(request)
        address, folder = form.get("imap", "").strip(), form.get("folder", "").strip()[:_LONGEST_FOLDER] or "Sent"
        try:
            Mailbox.parse(address)
        except BulkmailError as error:
            return await self._page(run, PageNotice.of(error), form)
        words = ["reconcile", run.shown, "--imap", address, "--folder", folder]
        return await self._look(run, words, password=password_of(form))

    async def look_in_log(self, request: Request) -> Response:
        """Looks the messages up in a mail server's log that was uploaded."""
        run = await self._console.run(request)
        async with request.form(max_files=1, max_fields=4) as form:
            upload = form.get("file")
            if not isinstance(upload, UploadFile) or not upload.filename:
                return await self._page(run, PageNotice("bad", "choose the log file"))
            await to_thread.run_sync(upload.file.rollover)  # type: ignore[attr-defined]  # a file with a number
            await upload.seek(0)
            return await self._look(run, ["reconcile", run.shown, "--log", "-"], stdin=upload.file.fileno())

    async def _look(
        self, run: RunFile, words: Sequence[str], *, password: Secret | None = None, stdin: int | None = None
    ) -> Response:
        words = [*words, *(["--password-stdin"] if password is not None else [])]
        try:
            job = await begin(self._console, run, words, password=password, stdin=stdin)
        except BulkmailError as error:
            return await self._page(run, PageNotice.of(error))
        await self._console.commands.wait(job, WAITED_SEARCH)
        return redirect(f"/j/{job.id}")  # it says what was found


def _doubtful_paths(record: RowRecord) -> list[PathRecord]:
    return [each for each in (record, *record.copies) if each.status is Status.IN_DOUBT]


_NUMBER = re.compile(r"[0-9]{1,18}")


def spelled(rows: Sequence[int]) -> str:
    """Ascending row numbers as the command takes them: `"3,7,40-45"`."""
    parts: list[list[int]] = []
    for row in rows:
        if parts and row == parts[-1][1] + 1:
            parts[-1][1] = row
        else:
            parts.append([row, row])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)


def commands_of(run: RunFile) -> str:
    """What to type instead."""
    return "\n".join(
        command_line(["reconcile", run.shown, *words])
        for words in (["--imap", "imaps://USER@HOST"], ["--as", "accepted", "--rows", "3,7,40-45"])
    )
