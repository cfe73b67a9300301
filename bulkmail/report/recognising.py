"""Whether a file is a report that bulkmail has written, in whichever format."""

from __future__ import annotations

from pathlib import Path

from bulkmail.model.lazy import lazy_pattern
from bulkmail.recipients.columns import is_report as has_report_columns

HTML_MARK = b'<meta name="generator" content="bulkmail">'  # as in page.html
_LONGEST_LINE = 1 << 22  # bytes; a list may have thousands of columns
_HEAD = 1_000
_TAIL = 200
_JSON = lazy_pattern(rb'\s*\{\s*"bulkmail"\s*:\s*\d')
_CELLS = lazy_pattern(r"[,;\t|]")
_TEXT_MARK = lazy_pattern(rb"\nThis is the report of bulkmail run [0-9a-f]+\.\s*\Z")


def text_mark(run_id: str) -> str:
    """The last line of a report as text, by which it is known again."""
    return f"This is the report of bulkmail run {run_id}."


def is_report(path: Path) -> bool:
    """Whether it is a report in any format, whatever its name ends in; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
            head = first + file.read(_HEAD)
            file.seek(max(0, path.stat().st_size - _TAIL))
            tail = file.read(_TAIL)
    except OSError:
        return False
    if _JSON.match(head) or HTML_MARK in head or _TEXT_MARK.search(tail):
        return True
    return has_report_columns([cell.strip().strip('"') for cell in _CELLS.split(first.decode("utf-8-sig", "replace"))])
