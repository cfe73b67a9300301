"""The pages that people read, and what is in them: headings, links, code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / ".github").rglob("*.md"), *ROOT.glob("benchmarks/*.md")]
)
_BLOCK = re.compile(
    r"(?:^`(?P<file>[^`\n]+)`:\n\n)?"
    r"^(?P<indent> *)```(?P<language>[\w+-]*)(?: title=\"(?P<title>[^\"]*)\")?\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)")


@dataclass(frozen=True)
class Block:
    """A fenced code block; `about` is its title, or the name of a file that stands alone on the line above it."""

    page: Path
    line: int
    language: str
    about: str
    body: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """The code blocks of a page, those in `languages` if some are named."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        if not languages or found["language"] in languages:
            body = re.sub(rf"^{found['indent']}", "", found["body"], flags=re.MULTILINE)
            about = found["title"] or found["file"] or ""
            yield Block(page, text.count("\n", 0, found.start("language")) + 1, found["language"], about, body)


def prose(page: Path) -> str:
    """The page without its code blocks and code in lines."""
    return re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", page.read_text(encoding="utf-8")))


def links(page: Path) -> list[str]:
    """Where the links of a page lead, as written."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as code hosts and the site make them."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    names: set[str] = set()
    for heading in _HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        names.add(
            slug if slug not in names else next(f"{slug}-{n}" for n in range(1, 99) if f"{slug}-{n}" not in names)
        )
    return names | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
