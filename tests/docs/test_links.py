"""No link of README and docs leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links

# Addresses of examples, and pages of others that the text names; they are looked at when the text is written.
_ELSEWHERE = re.compile(r"(?:https|mailto):")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if _ELSEWHERE.match(link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_unencrypted(page: Path) -> None:
    assert not [link for link in links(page) if link.startswith("http:")]


def test_every_page_of_the_docs_is_linked_from_another() -> None:
    reached = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links(page)}
    docs = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert not docs - reached
