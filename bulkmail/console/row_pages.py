"""The rows of a run, a page at a time, and everything that happened to one of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from bulkmail.console.folders import RunFile
from bulkmail.console.pages import Console, Templates
from bulkmail.console.run_view import WORDS
from bulkmail.model.tally import Status
from bulkmail.outbox.entries import RowRecord
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.text import printable

PAGE = 100
LONGEST_SEARCH = 200  # characters
_LARGEST = 2**62


class RowPages:
    """Search and detail."""

    def __init__(self, console: Console, templates: Templates) -> None:
        self._console = console
        self._templates = templates

    async def rows(self, request: Request) -> Response:
        """Rows with a status and an address, found by key."""
        run = await self._console.run(request)
        query = request.query_params
        status = Status(query["status"]) if query.get("status") in {each.value for each in WORDS} else None
        address = query.get("q", "").strip()[:LONGEST_SEARCH]
        after = number_of(query.get("after", ""))
        context = await to_thread.run_sync(self._found, run, status, address, after)
        following = {"status": status.value if status else "", "q": address, "after": str(context["next"])}
        return self._templates.page(
            "rows.html",
            run=run,
            statuses=WORDS,
            chosen=status,
            q=address,
            after=after,
            next_page="?" + urlencode({name: value for name, value in following.items() if value}),
            **context,
        )

    def _found(self, run: RunFile, status: Status | None, address: str, after: int) -> dict[str, Any]:
        view = self._console.views.view(run.path)
        with OutboxReader.open(run.path) as reader:
            if address.isascii() and address.isdigit():  # a row's number
                rows, following = reader.records([min(int(address), _LARGEST)]), 0
            else:
                rows, following = reader.page(after=after, status=status, address=address, limit=PAGE)
        return {"view": view, "rows": [_line(row) for row in rows], "next": following}

    async def row(self, request: Request) -> Response:
        """Every try of a row, in the server's words."""
        run = await self._console.run(request)
        context = await to_thread.run_sync(self._detail, run, number_of(request.path_params["row"]))
        if context is None:
            raise HTTPException(404, "this run has no such row")
        return self._templates.page("row.html", run=run, **context)

    def _detail(self, run: RunFile, number: int) -> dict[str, Any] | None:
        view = self._console.views.view(run.path)
        with OutboxReader.open(run.path) as reader:
            found = reader.records([number])
            tries = reader.tries_of(number)
        if not found:
            return None
        record = found[0]
        return {
            "view": view,
            "row": _line(record),
            "fields": [(printable(str(name), 80), printable(str(value), 500)) for name, value in record.fields.items()],
            "paths": [(printable(path.address, 200), path.status.value, path) for path in (record, *record.copies)],
            "tries": [
                {
                    "at": each.at,
                    "took": each.took,
                    "address": printable(each.address, 200),
                    "relay": printable(each.relay, 200),
                    "stage": printable(each.stage, 40),
                    "outcome": each.outcome,
                    "said": printable(" ".join(str(p) for p in (each.code, each.enhanced, each.text) if p), 2_000),
                }
                for each in tries
            ],
        }


def number_of(text: str) -> int:
    """A number in an address; 0 for anything else."""
    return min(int(text), _LARGEST) if text.isascii() and text.isdigit() else 0


def _line(record: RowRecord) -> dict[str, Any]:
    return {
        "row": record.row,
        "place": printable(str(record.place), 100),
        "address": printable(record.address, 200),
        "name": printable(record.name, 120),
        "status": record.status.value,
        "tries": record.attempts,
        "words": printable(
            " ".join(str(part) for part in (record.code, record.enhanced, record.reply) if part)
            or record.error
            or record.reason,
            300,
        ),
    }
