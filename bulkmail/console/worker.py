"""The render worker: a process of its own that makes messages to look at, so that a template that loops can be killed.

`python -m bulkmail.console.worker` reads a request as a line of JSON and answers with one.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from itertools import islice
from typing import BinaryIO

import msgspec

from bulkmail.model.errors import BulkmailError, ConfigError, TemplateError
from bulkmail.model.lazy import dataclass
from bulkmail.text import printable

MEMORY = 1_500_000_000  # bytes of address space: a template may ask for more than there is
LONGEST_SOURCE = 200_000  # characters of a message's source that are shown
MOST_COLUMNS = 60
_LONGEST_FAULT = 2_000  # characters


@dataclass(frozen=True, slots=True)
class Request:
    """The message of `row` (from 1) of a campaign's folder, with `drafts` in place of files."""

    campaign: str
    row: int
    drafts: dict[str, str]


@dataclass(frozen=True, slots=True)
class RenderedAnswer:
    """What a request came to.  With `faults` there is no message; each is a text and what to do about it."""

    faults: tuple[tuple[str, str], ...] = ()
    label: str = ""
    subject: str = ""
    sender: str = ""
    to: str = ""
    size: str = ""
    text: str | None = None
    html: str | None = None
    remote: str = ""
    no_html: str = ""
    source: str = ""
    attachments: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()


def render(request: Request) -> RenderedAnswer:
    """The message, or why there is none."""
    try:
        return _message(request)
    except BulkmailError as error:
        return RenderedAnswer(faults=_faults(error))
    except MemoryError:
        return RenderedAnswer(faults=(("the message needs more memory than a preview may take", "make it smaller"),))
    except RecursionError:
        return RenderedAnswer(faults=(("the template is nested too deeply", "make it simpler"),))


def _faults(error: BulkmailError) -> tuple[tuple[str, str], ...]:
    """The lines of an error that tells several things, each for itself."""
    first, *others = printable_lines(str(error))
    if others:
        return tuple((line.strip(), "") for line in others)
    return ((first, printable(error.hint, _LONGEST_FAULT)),)


def printable_lines(text: str) -> list[str]:
    """Line by line what can be shown."""
    return [printable(line, _LONGEST_FAULT) for line in text.split("\n")] or [""]


def _message(request: Request) -> RenderedAnswer:
    from bulkmail.mailing.ordering import messages
    from bulkmail.preview.preview_page import sheet_of
    from bulkmail.settings.secrets import find_keys
    from bulkmail.settings.settings import load

    settings = load(request.campaign, drafts=request.drafts)
    keys = find_keys(settings.campaign, runs_commands=False)
    found = next(islice(messages(settings, keys=keys, row=request.row), 1), None)
    if found is None:
        raise ConfigError(f"row {request.row} of the list does not exist or cannot be used", hint="choose another row")
    number, recipient, message = found
    columns = tuple(printable(str(name), 60) for name in islice(recipient.fields, MOST_COLUMNS))
    if isinstance(message, TemplateError):
        return RenderedAnswer(faults=_faults(message), columns=columns)
    sheet = sheet_of(message, f"row {number}, {recipient.place}")
    source = b"".join(message.buffers).decode("utf-8", "replace").replace("\r\n", "\n")
    return RenderedAnswer(
        label=sheet.label,
        subject=sheet.subject,
        sender=sheet.sender,
        to=sheet.to,
        size=sheet.size,
        text=sheet.text,
        html=sheet.html,
        remote=sheet.remote,
        no_html=sheet.no_html,
        source=source[:LONGEST_SOURCE] + ("…" if len(source) > LONGEST_SOURCE else ""),
        attachments=tuple((each["name"], each["size"]) for each in sheet.enclosures),
        columns=columns,
    )


def serve(asked: BinaryIO, answered: BinaryIO) -> None:
    """Answers until there are no more requests."""
    for line in asked:
        answered.write(msgspec.json.encode(render(msgspec.json.decode(line, type=Request))) + b"\n")
        answered.flush()


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource

        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def main() -> None:
    """Runs as a process of its own; what anything prints goes to standard error."""
    _limit_memory()
    answered = sys.stdout.buffer
    sys.stdout = sys.stderr
    serve(sys.stdin.buffer, answered)


if __name__ == "__main__":
    main()
