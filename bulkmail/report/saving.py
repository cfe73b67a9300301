"""A report as a file, in the format that its name asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bulkmail.model.errors import ConfigError
from bulkmail.report.csv_report import write_csv
from bulkmail.report.json_report import write_json
from bulkmail.report.report import Report
from bulkmail.report.report_files import ReportUnwritten, check_folder
from bulkmail.report.run_source import Source
from bulkmail.text import printable


def _write_html(source: Source, target: Path | BinaryIO) -> None:
    from bulkmail.report.html import write_html  # late: its figures and its page take long to import

    write_html(source, target)


_WRITERS: dict[str, Callable[[Source, Path | BinaryIO], None]] = {
    ".csv": write_csv,
    ".json": write_json,
    ".html": _write_html,
}


def save_report(report: Report, target: Path) -> Path:
    """Writes every row to `target`, in place of what is there, and returns it.  Raises `BulkmailError`."""
    writer = _writer(target)
    try:
        with report.source() as source:
            writer(source, target)
    except MemoryError:  # the page shows the message, and the outbox has it with all its attachments
        raise ReportUnwritten(target, "this computer does not have enough memory for it") from None
    return target


def check_target(target: Path) -> None:
    """Raises `ConfigError` when no report can be written there: better before the mailing than after it."""
    _writer(target)
    check_folder(target)


def _writer(target: Path) -> Callable[[Source, Path | BinaryIO], None]:
    try:
        return _WRITERS[target.suffix.lower()]
    except KeyError:
        raise ConfigError(
            f"the name does not show the format of the report: {printable(str(target), 4_000)}",
            hint="let it end in .csv, .json or .html",
        ) from None
