"""The files that a run writes: what a target is, is looked at before anything is sent.

A run replaces its own kind of file only: an outbox, a report, a trace or the mail folder of a rehearsal that bulkmail
has made.  Nothing else is overwritten, nor is what the campaign is made of, nor the other end of a link.
"""

from __future__ import annotations

import os
from pathlib import Path

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.outbox.outbox_reader import is_outbox
from bulkmail.report.recognising import is_report
from bulkmail.report.report_files import check_folder
from bulkmail.report.saving import check_target
from bulkmail.smtp.trace import is_trace
from bulkmail.text import printable


@dataclass(frozen=True, slots=True)
class Targets:
    """Where a run writes.  `trace` is None for none and for standard error; `inputs` are the campaign's files.

    Unless it `takes_any_format`, the name of a report says its format.
    """

    outbox: Path | None = None
    reports: tuple[Path, ...] = ()
    trace: Path | None = None
    inputs: tuple[str, ...] = ()
    takes_any_format: bool = False

    def check(self) -> None:
        """Raises `ConfigError` for a target that would cost a file that is not of its kind.  Reads a little of each."""
        for report in self.reports:
            if self.outbox is not None and report.parent == self.outbox.parent and not report.parent.exists():
                continue  # that folder is made for the outbox
            (check_folder if self.takes_any_format else check_target)(report)
        kinds = [("--outbox", self.outbox, is_outbox, "an outbox"), ("--trace", self.trace, is_trace, "a trace")]
        kinds += [("the report", report, is_report, "a report of bulkmail") for report in self.reports]
        taken: dict[str, str] = {}
        for what, path, is_ours, expected in kinds:
            if path is None:
                continue
            self._refuse_input(what, path)
            if path.is_symlink() and not path.exists():
                raise ConfigError(f"{what} {_say(path)}: is a link that leads nowhere", hint="name the file itself")
            if path.exists() and _is_filled(path) and not is_ours(path):
                raise ConfigError(
                    f"{what} {_say(path)}: this file is not {expected}, and would be overwritten",
                    hint="name another file, or move this one away",
                )
            if (other := taken.setdefault(os.path.realpath(path), what)) != what:
                raise ConfigError(f"{what} {_say(path)}: is the file of {other}, too", hint="name another file")

    def _refuse_input(self, what: str, path: Path) -> None:
        for file in self.inputs:
            if path.exists() and os.path.exists(file) and os.path.samefile(path, file):
                raise ConfigError(
                    f"{what} {_say(path)}: the campaign itself is made of this file, and it would be overwritten",
                    hint="name another file",
                )


def _is_filled(path: Path) -> bool:
    """Whether there is something to lose; a device takes what it is given.  The other end of a link may be empty."""
    return path.is_dir() or (path.is_file() and (path.is_symlink() or path.stat().st_size > 0))


def _say(path: Path) -> str:
    return printable(str(path), 4_000)
