"""The site has every page.  That it can be built, and that no anchor is missing, .ci/run finds out."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from tests.docs.pages import DOCS, ROOT


def pages_in(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for each in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from pages_in(each)


def test_every_page_is_in_the_navigation_of_the_site_once() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    found = sorted(pages_in(nav))
    assert found == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
