"""What all pages share: templates, the words they show values in, forms, and where things are looked up."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from anyio import to_thread
from jinja2 import ChoiceLoader, DictLoader, Environment, PackageLoader, StrictUndefined
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from bulkmail.console.command_journal import CommandJournal
from bulkmail.console.commands import Commands, command_line
from bulkmail.console.folders import CampaignFolder, Folders, Listing, RunFile
from bulkmail.console.guard import LONGEST_BODY
from bulkmail.console.live import Live
from bulkmail.console.places import field_of
from bulkmail.console.renderer import Renderer
from bulkmail.console.run_view import RunView, Views
from bulkmail.model.errors import BulkmailError
from bulkmail.model.lazy import dataclass
from bulkmail.model.quantities import say_duration, say_rate
from bulkmail.model.tally import Status
from bulkmail.pages.kit import read_part
from bulkmail.pages.moments import moment
from bulkmail.text import printable

MOST_FIELDS = 100
_SHOWN_STATUSES = ("accepted", "rejected", "expired", "in_doubt", "deferred")


@dataclass(frozen=True, slots=True)
class PageNotice:
    """Something said at the top of a page.  `kind` is `good`, `bad` or `warn`."""

    kind: str
    text: str
    hint: str = ""

    @classmethod
    def of(cls, error: BulkmailError) -> PageNotice:
        """What went wrong."""
        return cls("bad", printable(str(error), 2_000), printable(error.hint, 1_000))


@dataclass(frozen=True, slots=True)
class Console:
    """All that the pages look at."""

    folders: Folders
    views: Views
    live: Live
    commands: Commands
    journal: CommandJournal
    renderer: Renderer

    def listing(self) -> Listing:
        """What there is now."""
        return self.folders.listing()

    async def campaign(self, request: Request) -> CampaignFolder:
        """The campaign of the address.  Raises `HTTPException` 404."""
        found = (await to_thread.run_sync(self.listing)).campaigns.get(request.path_params["campaign"])
        if found is None:
            raise HTTPException(404, "there is no such campaign below the folders of the console")
        return found

    async def run(self, request: Request) -> RunFile:
        """The run of the address.  Raises `HTTPException` 404."""
        found = (await to_thread.run_sync(self.listing)).runs.get(request.path_params["run"])
        if found is None:
            raise HTTPException(404, "there is no such run below the folders of the console")
        return found


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form without files."""
    async with request.form(max_files=0, max_fields=MOST_FIELDS, max_part_size=LONGEST_BODY) as form:
        return {name: value for name, value in form.items() if not isinstance(value, UploadFile)}


def redirect(target: str) -> Response:
    """Shows another page after a POST."""
    return RedirectResponse(target, 303)


class Templates:
    """The pages' templates, with escaping on, and with the values that all of them show."""

    def __init__(self, shared: Mapping[str, Any]) -> None:
        self._environment = _environment()
        self._shared = dict(shared)

    def text(self, name: str, **context: Any) -> str:
        """The page, or a part of one."""
        return self._environment.get_template(name).render(self._shared | context)

    def page(self, name: str, status: int = 200, headers: Mapping[str, str] | None = None, **context: Any) -> Response:
        """The page as an answer."""
        return HTMLResponse(self.text(name, **{"here": "", "notice": None} | context), status, headers)


@cache
def _environment() -> Environment:
    kit = DictLoader({"kit/macros.html": read_part("bulkmail.pages", "macros.html")})
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("bulkmail.console"), kit]),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
    )
    environment.globals.update(static=static_address, command_line=command_line, field_of=field_of)
    environment.filters.update(
        number=lambda value: f"{value:,}",
        percent=say_percent,
        moment=lambda seconds: moment(seconds, "second"),
        rate=say_rate,
        duration=say_duration,
        shown=lambda text: printable(str(text), 200),
        word=lambda text: str(text).replace("_", " "),
        segments=segments,
    )
    for name in environment.list_templates():  # now, and not when a page waits for it
        environment.get_template(name)
    return environment


def say_percent(value: float) -> str:
    """Never 100 % before the end, never 0 % after the beginning."""
    if 0 < value < 1 or 99 < value < 100:
        return f"{min(value, 99.9):.1f} %"
    return f"{value:.0f} %"


def segments(view: RunView) -> list[tuple[str, str, str]]:
    """The parts of a progress bar: status, beginning and width in percent."""
    whole = view.tally.eligible or 1
    found, at = [], 0.0
    for name in _SHOWN_STATUSES:
        width = 100.0 * view.tally[Status(name)] / whole
        if width:
            found.append((name, f"{at:.2f}", f"{width:.2f}"))
            at += width
    return found


@cache
def static_file(name: str) -> bytes:
    """A style sheet or script, with those of the page kit before it.  Raises `FileNotFoundError`."""
    own = files("bulkmail.console").joinpath("static", name).read_bytes()
    return "".join(read_part("bulkmail.pages", part) for part in _OF_KIT.get(name, ())).encode() + own


_OF_KIT = {"console.css": ("kit.css", "base.css"), "console.js": ("base.js",)}


@cache
def static_address(name: str) -> str:
    """Where it is; another address after a change, so that it can be kept by the browser."""
    return f"/static/{sha256(static_file(name)).hexdigest()[:12]}/{name}"
