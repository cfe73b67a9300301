"""Debian's Chromium without a window, and pages in it at the widths and in the colours that people have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.programs import require_program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# The rules of WCAG 2.2 at level AA, contrast among them.  Frames hold messages, which are not ours to judge.
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "iframes": False}
_TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  const bad = [...document.querySelectorAll("body *")].filter((one) =>
    one.getBoundingClientRect().right > width + 1 && !one.closest("svg, .screen") && one.checkVisibility());
  const page = document.documentElement.scrollWidth;
  return (page > width ? [`the page is ${page} wide`] : []).concat(bad.map((one) => one.outerHTML.slice(0, 100)));
}"""


@dataclass
class Opened:
    """A page that is open, and all that it did which no one asked for."""

    page: Page
    surprises: list[str] = field(default_factory=list)

    def watch(self, file: Path) -> None:
        page, own = self.page, file.as_uri()
        page.on("console", lambda message: self.surprises.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.surprises.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.surprises.append(f"dialog: {dialog.message}"))
        page.on("popup", lambda popup: self.surprises.append(f"window: {popup.url}"))
        page.on("request", lambda request: self._note(request.url, own))
        page.goto(own)

    def _note(self, url: str, own: str) -> None:
        if url.partition("#")[0] != own and not url.startswith(("data:", "about:")):
            self.surprises.append(f"request: {url}")

    def too_wide(self) -> list[str]:
        """What is wider than the window, shown so far."""
        wide: list[str] = self.page.evaluate(_TOO_WIDE)
        return wide

    def violations(self) -> list[str]:
        """What axe-core holds against it."""
        from axe_playwright_python.sync_playwright import Axe

        found: list[dict[str, Any]] = Axe().run(self.page, options=_RULES).response["violations"]
        return [
            f"{each['id']}: {node['html'][:200]} {node['failureSummary']}" for each in found for node in each["nodes"]
        ]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser, one for all pages of a module."""
    program = require_program("chromium")
    api = pytest.importorskip("playwright.sync_api")
    # As root, as CI is, Chromium wants to hear that it need not lock itself in.
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Callable[..., Opened]]:
    """Opens a file: `opened(path, width=360, scheme="dark", scripts=True)`."""
    contexts = []

    def open_page(file: Path, *, width: int = 1280, scheme: Any = "light", scripts: bool = True) -> Opened:
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=scripts
        )
        context.set_default_timeout(10_000)  # ms
        contexts.append(context)
        shown = Opened(context.new_page())
        shown.watch(file)
        return shown

    yield open_page
    for context in contexts:
        context.close()
