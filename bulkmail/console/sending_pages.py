"""Before a run: the checks, a message to oneself, a rehearsal, and the one screen that sends."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from bulkmail.console.commands import LOG_SUFFIX, CommandRunning, StartedCommand, command_line
from bulkmail.console.document import Document, read_document
from bulkmail.console.folders import CampaignFolder, RunFile
from bulkmail.console.pages import Console, PageNotice, Templates, form_of, redirect
from bulkmail.console.places import field_of
from bulkmail.console.run_view import RunView
from bulkmail.model.errors import BulkmailError, ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.relay import Relay, Secret
from bulkmail.model.tally import (
    EXIT_BUG,
    EXIT_IN_DOUBT,
    EXIT_NOTHING_SENT,
    EXIT_OK,
    EXIT_SOME_FAILED,
    EXIT_STOPPED,
    Status,
)
from bulkmail.settings.dating import pattern_of
from bulkmail.settings.runs import FOLDER, file_stem
from bulkmail.text import printable

SANDBOX = "sandbox:"
MOST_FINDINGS = 200
LONGEST_PASSWORD = 4_000
WAITED_CHECK = 3.0  # seconds that the answer to a form waits for the command, before it shows that it is running
WAITED_START = 8.0
_LOOKED_EVERY = 0.1

MEANINGS = {
    EXIT_OK: "done",
    EXIT_SOME_FAILED: "some recipients did not get it",
    EXIT_NOTHING_SENT: "nothing was sent",
    EXIT_STOPPED: "stopped before the end",
    EXIT_IN_DOUBT: "some messages are in doubt",
    EXIT_BUG: "a bug of bulkmail",
}
QUIET = ("--progress", "none", "--json")  # for our own reading


@dataclass(frozen=True, slots=True)
class Runs:
    """The latest real run and the latest rehearsal of a campaign."""

    run: tuple[RunFile, RunView] | None
    rehearsal: tuple[RunFile, RunView] | None


def runs_of(console: Console, campaign: CampaignFolder, document: Document) -> Runs:
    """Those that `bulkmail send` would find; not those of other campaigns in the folder, nor messages to oneself."""
    name = document.data.get("name")
    said = name if isinstance(name, str) and name.strip() else campaign.folder.name
    pattern = re.compile(pattern_of(" ".join(said.split()), file_stem) + r"(\.rehearsal)?\.outbox")
    latest: dict[bool, tuple[RunFile, RunView]] = {}
    for run in console.listing().runs_of(campaign.id):
        if not pattern.fullmatch(run.path.name):
            continue
        try:
            view = console.views.view(run.path)
        except BulkmailError:
            continue
        known = latest.get(view.is_rehearsal)
        if known is None or view.created_at > known[1].created_at:
            latest[view.is_rehearsal] = run, view
    return Runs(latest.get(False), latest.get(True))


def log_of(campaign: CampaignFolder) -> Path:
    """Where the commands of a campaign write what they print."""
    return campaign.folder / FOLDER / f"{file_stem(campaign.folder.name)}{LOG_SUFFIX}"


class SendingPages:
    """The pages from the checks to the start."""

    def __init__(self, console: Console, templates: Templates) -> None:
        self._console = console
        self._templates = templates
        self._checks: dict[str, tuple[str, StartedCommand]] = {}  # by campaign: of which files, and by which command

    def _read(self, campaign: CampaignFolder) -> Document:
        return read_document(campaign.file, self._console.folders.is_inside)

    # -- the checks

    async def check(self, request: Request) -> Response:
        """What the checks before sending found."""
        campaign = await self._console.campaign(request)
        signature, job = self._checks.get(campaign.id, ("", None))
        is_current = job is not None and signature == await to_thread.run_sync(self._signature, campaign)
        document = await to_thread.run_sync(self._read, campaign)
        result = await to_thread.run_sync(_checked, job, document) if job is not None else None
        notice, field = None, None
        if job is not None and job.exit_code is not None and result is None:
            said = await to_thread.run_sync(job.read_output)
            notice = PageNotice("bad", "The checks could not be made.", printable(said, 3_000))
            field = field_of(document, said)
        elif result is not None and not is_current:
            notice = PageNotice("warn", "The campaign has changed since these checks.")
        return self._templates.page(
            "check.html",
            campaign=campaign,
            result=result,
            field=field,
            is_running=job is not None and job.exit_code is None,
            notice=notice,
            command=command_line(["check", campaign.shown]),
        )

    async def start_check(self, request: Request) -> Response:
        """Starts the checks."""
        campaign = await self._console.campaign(request)
        form = await form_of(request)
        job = await to_thread.run_sync(self._start_check, campaign, bool(form.get("online")))
        await self._console.commands.wait(job, WAITED_CHECK)
        return redirect(f"/c/{campaign.id}/check")

    def _start_check(self, campaign: CampaignFolder, is_online: bool = False) -> StartedCommand:
        signature, job = self._checks.get(campaign.id, ("", None))
        now = self._signature(campaign)
        if job is not None and job.exit_code is None and signature == now:
            return job
        words = ["check", campaign.shown, *(["--online"] if is_online else [])]
        job = self._console.commands.start(words, subject=f"check {campaign.id}", unsaid=["--json"])
        self._checks[campaign.id] = now, job
        return job

    def _signature(self, campaign: CampaignFolder) -> str:
        """Changes with everything that a check reads in the campaign's folder."""
        digest = sha256()
        for folder, folders, names in os.walk(campaign.folder):
            folders[:] = sorted(name for name in folders if name != FOLDER and not name.startswith("."))
            for name in sorted(names):
                try:
                    found = os.stat(os.path.join(folder, name))
                except OSError:
                    continue
                digest.update(f"{name}\0{found.st_mtime_ns}\0{found.st_size}\0".encode("utf-8", "replace"))
        return digest.hexdigest()

    # -- rehearse and send

    async def start(self, request: Request) -> Response:
        """The screen that asks before it sends."""
        return await self._start(await self._console.campaign(request))

    async def _start(
        self, campaign: CampaignFolder, *, notice: PageNotice | None = None, problem: str = "", status: int = 200
    ) -> Response:
        context = await to_thread.run_sync(self._about_start, campaign)
        return self._templates.page("start.html", status, campaign=campaign, notice=notice, problem=problem, **context)

    def _about_start(self, campaign: CampaignFolder) -> dict[str, Any]:
        document = self._read(campaign)
        runs = runs_of(self._console, campaign, document)
        run = runs.run if runs.run is not None and not runs.run[1].tally.is_untouched else None
        is_sandbox = _is_rehearsal(document)
        expected, is_checking = None, False
        if run is not None and not is_sandbox:
            expected = _rehearsed(runs, run[1])
        elif not is_sandbox:
            expected, is_checking = self._counted(campaign)
        words = self._send_words(campaign, expected or 0, is_changed=run is not None)
        return {
            "busy": self._console.commands.running(campaign.id),
            "rehearsal": runs.rehearsal,
            "run": run,
            "is_sandbox": is_sandbox,
            "relay": printable(document.relay or "the relays of the campaign", 200),
            "is_checking": is_checking,
            "expected": expected,
            "why_not": "How many recipients are left is found out by a rehearsal: rehearse first."
            if run is not None
            else "The checks found something that keeps it from being sent, or were not made yet.",
            "list_name": document.list_file,
            "sender": printable(document.head("from"), 200),
            "subject": printable(document.head("subject"), 300),
            "asks_password": _asks_password(document),
            "rehearse_command": command_line(self._rehearse_words(campaign, "", is_changed=run is not None)),
            "send_command": command_line(words),
            "accepted": Status.ACCEPTED,
        }

    def _counted(self, campaign: CampaignFolder) -> tuple[int | None, bool]:
        """How many recipients the checks counted, and whether they are being made."""
        signature, job = self._checks.get(campaign.id, ("", None))
        if job is None or signature != self._signature(campaign):
            return None, False
        result = _checked(job, None)
        is_ready = result is not None and result["ready"]
        return (result["recipients"] if is_ready and result is not None else None), job.exit_code is None

    async def count(self, request: Request) -> Response:
        """Finds out how many recipients there are: by the checks, or, after a run, by a rehearsal of what is left."""
        campaign = await self._console.campaign(request)
        context = await to_thread.run_sync(self._about_start, campaign)
        if context["run"] is not None:
            return await self._rehearse(campaign, "", is_changed=True)
        job = await to_thread.run_sync(self._start_check, campaign)
        await self._console.commands.wait(job, WAITED_CHECK)
        if job.exit_code not in (None, EXIT_OK):
            return redirect(f"/c/{campaign.id}/check")
        return redirect(f"/c/{campaign.id}/start")

    async def rehearse(self, request: Request) -> Response:
        """Starts a rehearsal."""
        campaign = await self._console.campaign(request)
        form = await form_of(request)
        context = await to_thread.run_sync(self._about_start, campaign)
        run = context["run"]
        is_changed = run is not None and not run[1].tally.open
        return await self._rehearse(campaign, form.get("sample", "").strip(), is_changed=is_changed)

    async def _rehearse(self, campaign: CampaignFolder, sample: str, *, is_changed: bool) -> Response:
        if sample and not (sample.isascii() and sample.isdigit() and int(sample)):
            return await self._start(
                campaign, notice=PageNotice("bad", "The number of rows is a whole number."), status=400
            )
        words = self._rehearse_words(campaign, sample, is_changed=is_changed)
        return await self._started(campaign, words, is_rehearsal=True)

    def _rehearse_words(self, campaign: CampaignFolder, sample: str, *, is_changed: bool) -> list[str]:
        words = ["send", campaign.shown, "--relay", SANDBOX]
        return words + (["--sample", sample] if sample else []) + (["--changed"] if is_changed else [])

    def _send_words(self, campaign: CampaignFolder, expected: int, *, is_changed: bool) -> list[str]:
        words = ["send", campaign.shown, "--yes", "--expect", str(expected)]
        return words + (["--changed"] if is_changed else [])

    async def send(self, request: Request) -> Response:
        """Sends for real, if the number was typed that the page showed."""
        campaign = await self._console.campaign(request)
        form = await form_of(request)
        context = await to_thread.run_sync(self._about_start, campaign)
        expected = context["expected"]
        typed = re.sub(r"[\s,.']", "", form.get("confirm", ""))
        if expected is None or context["is_sandbox"] or form.get("expected") != str(expected):
            notice = PageNotice("bad", "Nothing was sent: the number of recipients is not known, or has changed.")
            return await self._start(campaign, notice=notice, status=409)
        if typed != str(expected):
            problem = f"Nothing was sent: this is not the number of recipients, which is {expected:,}."
            return await self._start(campaign, problem=problem, status=400)
        words = self._send_words(campaign, expected, is_changed=context["run"] is not None)
        password = password_of(form)
        if password is not None:
            words.append("--password-stdin")
        return await self._started(campaign, words, is_rehearsal=False, password=password)

    async def _started(
        self, campaign: CampaignFolder, words: Sequence[str], *, is_rehearsal: bool, password: Secret | None = None
    ) -> Response:
        def begin() -> StartedCommand:
            return self._console.commands.start(
                words, subject=campaign.id, output=log_of(campaign), unsaid=QUIET, password=password, is_alone=True
            )

        try:
            job = await to_thread.run_sync(begin)
        except CommandRunning as error:
            if list(error.job.words) != list(words):
                return await self._start(campaign, notice=PageNotice.of(error), status=409)
            job = error.job  # the button was pressed twice
        except ConfigError as error:
            return await self._start(campaign, notice=PageNotice.of(error), status=500)
        return redirect(await self._where_to(campaign, job, is_rehearsal=is_rehearsal))

    async def _where_to(self, campaign: CampaignFolder, job: StartedCommand, *, is_rehearsal: bool) -> str:
        """The page of the run as soon as it is there, else that of the command, which goes on to it."""
        with anyio.move_on_after(WAITED_START):
            while True:
                ended = job.exit_code is not None
                found = await to_thread.run_sync(self._run_of, campaign, job, is_rehearsal)
                if found is not None:
                    return f"/r/{found.id}"
                if ended:
                    break
                await anyio.sleep(_LOOKED_EVERY)
        return f"/j/{job.id}?go-on=1"

    def _run_of(
        self, campaign: CampaignFolder, job: StartedCommand, is_rehearsal: bool, *, is_waiting_enough: bool = False
    ) -> RunFile | None:
        """The run that a command has begun to send, or has ended; `is_waiting_enough`: or that it has only loaded."""
        self._console.folders.forget()
        runs = runs_of(self._console, campaign, self._read(campaign))
        found = runs.rehearsal if is_rehearsal else runs.run
        if found is None or job.exit_code in (EXIT_NOTHING_SENT, EXIT_BUG):
            return None
        run, view = found
        is_its = view.process is not None and view.process[0] == job.pid and view.is_loaded
        has_begun = view.started_at is not None or is_waiting_enough
        return run if (is_its and has_begun) or job.exit_code is not None else None

    # -- a command

    async def job(self, request: Request) -> Response:
        """A command that was started here: its line, and what it printed."""
        try:
            job = self._console.commands[request.path_params["job"]]
        except KeyError:
            raise HTTPException(404, "this command was not started since the console was; the log has it") from None
        listing = await to_thread.run_sync(self._console.listing)
        campaign = listing.campaigns.get(job.subject.rpartition(" ")[2])
        result = await to_thread.run_sync(job.result) if job.exit_code is not None else {}
        error, hint = result.get("error"), result.get("hint")
        notice = PageNotice("bad", printable(str(error), 2_000), printable(str(hint or ""), 1_000)) if error else None
        run = next((each for each in listing.runs.values() if each.path == job.run), None)
        if run is None and campaign is not None:
            run = await to_thread.run_sync(self._any_run_of, campaign, job)
        if run is not None and not job.has_failed and "go-on" in request.query_params:
            return redirect(f"/r/{run.id}")
        printed = await to_thread.run_sync(job.said)
        output = "\n".join(printable(line, 1_000) for line in printed.split("\n")[-200:])
        return self._templates.page(
            "job.html",
            job=job,
            campaign=campaign,
            run=run,
            title="Running" if job.exit_code is None else "Done" if job.exit_code == 0 else "Ended",
            meaning=MEANINGS.get(job.exit_code or 0, "ended by a signal"),
            notice=notice,
            output=output.strip(),
        )

    def _any_run_of(self, campaign: CampaignFolder, job: StartedCommand) -> RunFile | None:
        return next(
            filter(None, (self._run_of(campaign, job, kind, is_waiting_enough=True) for kind in _kinds(job))), None
        )


def password_of(form: Any) -> Secret | None:
    """The password that was typed, if one was.  Raises `HTTPException` for what cannot be one."""
    typed = str(form.get("password", ""))
    if len(typed) > LONGEST_PASSWORD or any(character in typed for character in "\0\r\n"):
        raise HTTPException(400, "the password is not one line of text")
    return Secret(typed) if typed else None


def _kinds(job: StartedCommand) -> tuple[bool, ...]:
    """Whether a command rehearses; both where its words do not say."""
    return (True,) if SANDBOX in job.words else (False, True)


def _checked(job: StartedCommand, document: Document | None) -> dict[str, Any] | None:
    """The result of the checks, as the page shows it, with the fields of `document`; None where there is none."""
    if job.exit_code is None:
        return None
    found: Any = job.result()
    if not isinstance(found.get("findings"), list):
        return None
    findings = [_finding(each, document) for each in found["findings"][:MOST_FINDINGS]]
    by_status = found.get("by_status", {})
    return {
        "ready": bool(found.get("ready")),
        "rows": int(found.get("rows", 0)),
        "recipients": int(found.get("recipients", 0)),
        "notices": [printable(str(each), 1_000) for each in found.get("notices", [])[:50]],
        "left_out": [(name, number) for name, number in by_status.items() if not Status(name).is_open and number],
        "findings": findings,
    }


def _finding(found: dict[str, Any], document: Document | None) -> dict[str, Any]:
    where, message = str(found.get("where") or ""), str(found.get("message", ""))
    return {
        "severity": found["severity"] if found["severity"] in ("error", "warning") else "note",
        "message": printable(message, 2_000),
        "where": printable(where, 300),
        "why": printable(str(found.get("why") or ""), 2_000),
        "fix": printable(str(found.get("fix") or ""), 2_000),
        "code": printable(str(found.get("code", "")), 60),
        # A fault of a row names the place in the template; that is what can be corrected.
        "field": field_of(document, where, message) if document is not None else None,
    }


def _is_rehearsal(document: Document) -> bool:
    """Whether the campaign's own relay delivers nothing."""
    if not document.relay:
        return document.relay is not None
    try:
        return Relay.parse(document.relay).kind.is_rehearsal
    except BulkmailError:
        return False


def _asks_password(document: Document) -> bool:
    return document.relay is None or "@" in document.relay


def _rehearsed(runs: Runs, run: RunView) -> int | None:
    """How many a rehearsal that is newer than the run says are left to send to."""
    if runs.rehearsal is None or runs.rehearsal[1].is_running or runs.rehearsal[1].created_at < run.created_at:
        return None
    tally = runs.rehearsal[1].tally
    return sum(tally[status] for status in Status if status.is_eligible and status is not Status.INVALID) or None
