"""Writing a campaign: the list of them, a new one, the form, its preview, and what is uploaded."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import Any, BinaryIO

from anyio import to_thread
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bulkmail.console.document import (
    BODIES,
    HEADS,
    PACES,
    ChangedOnDisk,
    Document,
    TypedDocument,
    draft_of,
    read_document,
    save,
)
from bulkmail.console.folders import CampaignFolder, RunFile, home_shown
from bulkmail.console.guard import HEADERS
from bulkmail.console.pages import Console, PageNotice, Templates, form_of, redirect
from bulkmail.console.run_view import RunView
from bulkmail.console.worker import RenderedAnswer, printable_lines
from bulkmail.console.worker import Request as Wanted
from bulkmail.model.errors import BulkmailError, ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.tally import Status
from bulkmail.settings.layers import FILE_NAME
from bulkmail.text import printable

VIEWS = {"desktop": "Desktop", "phone": "Phone", "text": "Text", "source": "Source"}
MARKS = {
    "markdown": [("Bold", "**", "**"), ("Link", "[", "](https://)"), ("List", "\n* ", "")],
    "html": [("Bold", "<strong>", "</strong>"), ("Link", '<a href="https://">', "</a>"), ("List", "\n<li>", "</li>")],
    "mjml": [("Bold", "<strong>", "</strong>"), ("Link", '<a href="https://">', "</a>")],
}
EXAMPLES = {"rate": "20/s", "connections": "4", "window": "Mon-Fri 09:00-17:00", "quota": "2000/day"}
LISTS = (".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".csv.gz", ".json.gz", ".jsonl.gz")
MOST_KEPT = 40  # rendered messages
_NAME = re.compile(r"[\w][\w .-]{0,79}")
_MESSAGE_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
_SAVED = {
    "saved": PageNotice("good", "Saved."),
    "list": PageNotice("good", "The list is uploaded and used now."),
    "attached": PageNotice("good", "The file is attached now."),
    "detached": PageNotice("good", "The file is not attached any more. It stays in the campaign's folder."),
    "made": PageNotice("good", "This campaign works as it is, and rehearses. Change what you like."),
}


@dataclass(frozen=True, slots=True)
class Item:
    """A campaign in the list, with its latest runs."""

    folder: CampaignFolder
    runs: list[tuple[RunFile, RunView]]
    fault: str = ""


class CampaignPages:
    """The pages about writing."""

    def __init__(
        self,
        console: Console,
        templates: Templates,
        *,
        make: Callable[[str, Path], object],
        kinds: Mapping[str, str],
    ) -> None:
        """`make` makes a campaign of one of `kinds`, which are there with what they are."""
        self._console = console
        self._kinds = kinds
        self._templates = templates
        self._make = make
        self._rendered: OrderedDict[str, tuple[str, RenderedAnswer]] = OrderedDict()
        self._saving = Lock()  # two tabs may save at once: what one has written the other must see

    # -- the list of campaigns

    async def campaigns(self, request: Request) -> Response:
        """All campaigns and runs."""
        context = await to_thread.run_sync(self._listed)
        if request.query_params.get("seen") == context["seen"]:  # asked every two seconds
            return Response(status_code=204)
        return self._templates.page("campaigns.html", **context)

    def _listed(self, form: Mapping[str, str] | None = None, problem: str = "") -> dict[str, Any]:
        listing = self._console.listing()
        found: dict[str, list[tuple[RunFile, RunView]]] = {}
        unreadable = []
        for run in listing.runs.values():
            try:
                found.setdefault(run.campaign, []).append((run, self._console.views.view(run.path)))
            except BulkmailError as error:
                unreadable.append((run, printable(str(error), 300)))
        for runs in found.values():
            runs.sort(key=lambda each: -each[1].created_at)
        campaigns = [Item(folder, found.get(folder.id, [])[:3]) for folder in listing.campaigns.values()]
        campaigns.sort(key=lambda item: (-(item.runs[0][1].created_at if item.runs else 0), item.folder.name.lower()))
        shown = [(run.id, view.state, view.waiting, view.counts()) for runs in found.values() for run, view in runs]
        return {
            "here": "/",
            "campaigns": campaigns,
            "others": found.get("", [])[:20],
            "unreadable": unreadable[:20],
            "kinds": self._kinds,
            "root": home_shown(self._console.folders.roots[0]),
            "accepted": Status.ACCEPTED,
            "form": {"name": "", **(form or {})},
            "problem": problem,
            "seen": sha256(repr((list(listing.campaigns), shown)).encode()).hexdigest()[:16],
        }

    async def make(self, request: Request) -> Response:
        """A new campaign, from a template or as a copy."""
        form = await form_of(request)
        try:
            made = await to_thread.run_sync(self._made, form.get("name", "").strip(), form.get("from", ""))
        except BulkmailError as error:
            context = await to_thread.run_sync(self._listed, form, printable(f"{error}", 500))
            return self._templates.page("campaigns.html", 400, **context)
        return redirect(f"/c/{made}?said=made")

    def _made(self, name: str, origin: str) -> str:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                "a name has letters, digits, spaces, dots and dashes, and begins with a letter or a digit"
            )
        folder = self._console.folders.roots[0] / name.replace(" ", "-")
        if folder.exists():
            raise ConfigError(f"there is already something named {folder.name}; choose another name")
        kind, _, value = origin.partition(":")
        if kind == "copy":
            source = self._console.listing().campaigns.get(value)
            if source is None:
                raise ConfigError("the campaign to copy is no longer there")
            _copy(source.folder, folder)
        elif kind == "kind" and value in self._kinds:
            self._make(value, folder)
        else:
            raise ConfigError("choose what to start from")
        self._console.folders.forget()
        made = [each for each in self._console.listing().campaigns.values() if each.folder == folder.resolve()]
        if not made:
            raise ConfigError(f"{folder} could not be made")
        return made[0].id

    # -- the form

    async def compose(self, request: Request) -> Response:
        """The form with a preview of the first row."""
        campaign = await self._console.campaign(request)
        document = await to_thread.run_sync(self._read, campaign)
        return await self._form(request, campaign, document, notice=_SAVED.get(request.query_params.get("said", "")))

    def _read(self, campaign: CampaignFolder) -> Document:
        return read_document(campaign.file, self._console.folders.is_inside)

    async def _form(
        self,
        request: Request,
        campaign: CampaignFolder,
        document: Document,
        *,
        typed: Mapping[str, str] | None = None,
        notice: PageNotice | None = None,
        status: int = 200,
    ) -> Response:
        form = _values(document) | dict(typed or {})
        asked = dict(request.query_params) | {name: form[name] for name in ("as", "row") if form.get(name)}
        shown_as, row = _view(asked), _row(asked.get("row", ""))
        rendered = await self._render(campaign, document, typed, row)
        key = self._keep(campaign, rendered) if rendered is not None and not rendered.faults else ""
        return self._templates.page(
            "compose.html",
            status,
            campaign=campaign,
            document=document,
            form=form,
            kinds=BODIES,
            heads=HEADS,
            paces=PACES,
            examples=EXAMPLES,
            marks=MARKS,
            missing=_addable(document),
            lists=await to_thread.run_sync(_lists, campaign, form.get("list", "")),
            columns=rendered.columns if rendered is not None else (),
            views=VIEWS,
            shown_as=shown_as,
            row=row,
            rendered=rendered,
            message=rendered if key else None,
            key=key,
            oob_columns=False,
            notice=notice,
            saved=typed is None and request.query_params.get("said") == "saved",
        )

    async def _render(
        self,
        campaign: CampaignFolder,
        document: Document,
        typed: Mapping[str, str] | None,
        row: int,
        *,
        is_typing: bool = False,
    ) -> RenderedAnswer | None:
        if document.fault:
            return None
        try:
            draft = draft_of(document, typed or {})
        except BulkmailError as error:
            return RenderedAnswer(faults=tuple((line, "") for line in printable_lines(str(error))))
        renderer = self._console.renderer
        render = renderer.render_newest if is_typing else renderer.render
        return await render(Wanted(campaign.shown, row, draft.texts(campaign.file)))

    def _keep(self, campaign: CampaignFolder, rendered: RenderedAnswer) -> str:
        key = secrets.token_urlsafe(12)
        self._rendered[key] = campaign.id, rendered
        while len(self._rendered) > MOST_KEPT:
            self._rendered.popitem(last=False)
        return key

    async def preview(self, request: Request) -> Response:
        """The draft as it was typed: a part of the page for its script, the whole page without one."""
        campaign = await self._console.campaign(request)
        form = await form_of(request)
        document = await to_thread.run_sync(self._read, campaign)
        if request.headers.get("hx-request") != "true":
            notice = PageNotice("warn", "This is a preview. Nothing is saved yet.")
            return await self._form(request, campaign, document, typed=form, notice=notice)
        rendered = await self._render(campaign, document, form, _row(form.get("row", "")), is_typing=True)
        if rendered is None:  # a newer one is under way
            return Response(status_code=204)
        last = self._rendered.get(form.get("key", ""))
        key, message = "", None
        if not rendered.faults:
            key, message = self._keep(campaign, rendered), rendered
        elif last is not None and last[0] == campaign.id:
            key, message = form["key"], last[1]
        return self._templates.page(
            "_preview.html",
            campaign=campaign,
            document=document,
            rendered=rendered,
            message=message,
            key=key,
            shown_as=_view(form),
            views=VIEWS,
            columns=rendered.columns,
            oob_columns=bool(rendered.columns),
        )

    async def message(self, request: Request) -> Response:
        """The message itself, for a frame in which nothing runs."""
        campaign = await self._console.campaign(request)
        kept = self._rendered.get(request.query_params.get("key", ""))
        if kept is None or kept[0] != campaign.id:
            raise HTTPException(404, "this preview is too old; show it again")
        rendered, shown_as = kept[1], _view(request.query_params)
        headers = HEADERS | {"content-security-policy": _MESSAGE_POLICY}
        if shown_as in ("desktop", "phone"):
            return HTMLResponse(rendered.html or "", headers=headers)
        text = rendered.text if shown_as == "text" else rendered.source
        body = self._templates.text("_text.html", text=text if text is not None else "This message has no text part.")
        return HTMLResponse(body, headers=headers)

    async def save(self, request: Request) -> Response:
        """Writes the form to the campaign's files."""
        campaign = await self._console.campaign(request)
        form = await form_of(request)
        return await self._saved(request, campaign, form, said="saved")

    async def detach(self, request: Request) -> Response:
        """Takes a file out of the attachments."""
        form = await form_of(request)
        wanted: dict[str, str] = {name: form[name] for name in ("digest", "remove") if name in form}
        return await self._saved(request, await self._console.campaign(request), wanted, said="detached")

    async def _saved(
        self, request: Request, campaign: CampaignFolder, form: Mapping[str, str], *, said: str
    ) -> Response:
        def write() -> Document:
            with self._saving:
                draft = draft_of(self._read(campaign), form)
                return save(campaign.file, draft, digest=form.get("digest", ""), inside=self._console.folders.is_inside)

        try:
            await to_thread.run_sync(write)
        except ChangedOnDisk:
            return await self._conflict(campaign, form)
        except BulkmailError as error:
            document = await to_thread.run_sync(self._read, campaign)
            return await self._form(request, campaign, document, typed=form, notice=PageNotice.of(error), status=400)
        row, shown_as = _row(form.get("row", "")), _view(form)
        return redirect(f"/c/{campaign.id}?said={said}&row={row}&as={shown_as}")

    async def _conflict(self, campaign: CampaignFolder, form: Mapping[str, str]) -> Response:
        document = await to_thread.run_sync(self._read, campaign)
        typed = [(name, document.head(key), form[key]) for key, name in HEADS.items() if key in form]
        pairs = [(name, disk, yours) for name, disk, yours in typed if disk != yours]
        for body in document.bodies:
            yours = form.get(f"body-{body.kind}", body.text).replace("\r\n", "\n")
            if yours != body.text:
                pairs.append((body.file or BODIES[body.kind], body.text, yours))
        if "settings" in form:
            pairs = [(FILE_NAME, document.settings, form["settings"])]
        return self._templates.page("conflict.html", 409, campaign=campaign, pairs=pairs)

    # -- all settings

    async def settings(self, request: Request) -> Response:
        """`campaign.toml` as it is."""
        campaign = await self._console.campaign(request)
        document = await to_thread.run_sync(self._read, campaign)
        notice = _SAVED.get(request.query_params.get("said", ""))
        return self._settings(campaign, document, document.settings, notice)

    def _settings(
        self, campaign: CampaignFolder, document: Document, text: str, notice: PageNotice | None, status: int = 200
    ) -> Response:
        return self._templates.page(
            "settings.html", status, campaign=campaign, document=document, text=text, notice=notice, file=FILE_NAME
        )

    async def save_settings(self, request: Request) -> Response:
        """Writes `campaign.toml` as it was typed."""
        campaign = await self._console.campaign(request)
        form = await form_of(request)
        typed = form.get("settings", "").replace("\r\n", "\n")

        def write() -> None:
            inside = self._console.folders.is_inside
            with self._saving:
                save(campaign.file, TypedDocument(typed, {}), digest=form.get("digest", ""), inside=inside)

        try:
            await to_thread.run_sync(write)
        except ChangedOnDisk:
            return await self._conflict(campaign, form)
        except BulkmailError as error:
            document = await to_thread.run_sync(self._read, campaign)
            return self._settings(campaign, document, typed, PageNotice.of(error), 400)
        return redirect(f"/c/{campaign.id}/settings?said=saved")

    # -- uploads

    async def upload_list(self, request: Request) -> Response:
        """A list, which is used from then on."""
        return await self._uploaded(request, field="list", suffixes=LISTS, said="list")

    async def attach(self, request: Request) -> Response:
        """A file for all recipients."""
        return await self._uploaded(request, field="attach", suffixes=(), said="attached")

    async def _uploaded(self, request: Request, *, field: str, suffixes: tuple[str, ...], said: str) -> Response:
        campaign = await self._console.campaign(request)
        async with request.form(max_files=1, max_fields=4) as form:
            upload, digest = form.get("file"), form.get("digest")
            if not isinstance(upload, UploadFile) or not upload.filename:
                return await self._refused(request, campaign, "choose a file to upload")
            name = file_name(upload.filename)
            if suffixes and not name.lower().endswith(suffixes):
                return await self._refused(request, campaign, f"{name} is not a list; upload {', '.join(LISTS[:5])}")
            try:
                name = await to_thread.run_sync(_store, campaign.folder, name, upload.file)
            except OSError as error:
                return await self._refused(request, campaign, f"{name} could not be stored: {error.strerror}")
            fields = {"digest": str(digest or ""), field: name}
        return await self._saved(request, campaign, fields, said=said)

    async def _refused(self, request: Request, campaign: CampaignFolder, why: str) -> Response:
        document = await to_thread.run_sync(self._read, campaign)
        return await self._form(request, campaign, document, notice=PageNotice("bad", why), status=400)


def _values(document: Document) -> dict[str, str]:
    """The fields of the form as they are on disk."""
    values = {key: document.head(key) for key in HEADS} | {key: document.pace(key) for key in PACES}
    values |= {f"body-{body.kind}": body.text for body in document.bodies}
    return values | {"list": document.list_file, "relay": document.relay or "", "row": ""}


def _addable(document: Document) -> list[str]:
    """The formats that could be added: of those that make the HTML part there is only one."""
    present = {body.kind for body in document.bodies}
    pages = {"markdown", "html", "mjml"}
    return [kind for kind in BODIES if kind not in present and not (kind in pages and present & pages)]


def _lists(campaign: CampaignFolder, chosen: str) -> list[str]:
    """The files in the campaign's folder that may be lists, and the one that is chosen."""
    try:
        found = sorted(entry.name for entry in os.scandir(campaign.folder) if entry.is_file())
    except OSError:
        found = []
    names = [name for name in found if name.lower().endswith(LISTS)][:200]
    return names if chosen in names else [chosen, *names]


def _view(form: Mapping[str, str]) -> str:
    return form["as"] if form.get("as") in VIEWS else "desktop"


def _row(text: str) -> int:
    return max(1, min(int(text), 10**9)) if text.strip().isascii() and text.strip().isdigit() else 1


def file_name(label: str) -> str:
    """A plain file name made of what an upload calls itself: no folders, no leading dot, not too long."""
    last = re.split(r"[/\\]", label)[-1]
    cleaned = re.sub(r"[^\w.@+ -]+", "_", last).strip(" .-") or "file"
    stem, dot, suffix = cleaned.rpartition(".")
    return f"{stem[:80]}.{suffix[:12]}" if dot and stem else cleaned[:80]


def _store(folder: Path, name: str, source: BinaryIO) -> str:
    """Writes an upload under a name that is free; returns that."""
    with NamedTemporaryFile(dir=folder, prefix=".bulkmail-upload-", delete=False) as new:
        try:
            shutil.copyfileobj(source, new)
            os.fchmod(new.fileno(), 0o644) if hasattr(os, "fchmod") else None
            stem, dot, suffix = name.partition(".")
            number, free = 1, name
            while True:
                try:
                    os.close(os.open(folder / free, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                    break
                except FileExistsError:
                    number += 1
                    free = f"{stem}-{number}{dot}{suffix}"
            new.flush()
            os.replace(new.name, folder / free)
        except BaseException:
            Path(new.name).unlink(missing_ok=True)
            raise
    return free


def _copy(source: Path, target: Path) -> None:
    """The files of a campaign without its runs.  Raises `ConfigError`."""
    from bulkmail.settings.runs import FOLDER

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {
            name
            for name in names
            if name == FOLDER or name.startswith(".") or os.path.islink(os.path.join(folder, name))
        }

    try:
        shutil.copytree(source, target, ignore=left_out)
    except (OSError, shutil.Error) as error:
        raise ConfigError(f"the campaign could not be copied: {error}") from None
