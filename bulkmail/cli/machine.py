"""What programs read of a command: standard error as JSON lines, and how it ended as one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import TextIOBase
from itertools import pairwise
from threading import Lock
from typing import Any, TextIO

VERSION = 1


def wants_json_lines(words: Sequence[str]) -> bool:
    """Whether a command line says `--progress json`: known before it is parsed, so that its faults are JSON too."""
    return "--progress=json" in words or ("--progress", "json") in pairwise(words)


def put(stream: TextIO, event: Mapping[str, object]) -> None:
    """Writes one event, with the time of now as `at`.  Raises `OSError` or `ValueError` when the reader is gone."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    stream.write(json.dumps({"event": event["event"], "at": at, **event}) + "\n")
    stream.flush()


class JsonErrors(TextIOBase):
    """Standard error where every line is JSON: any line of text becomes a `note`.

    `events` is the stream behind it, for what is JSON already.
    """

    def __init__(self, events: TextIO) -> None:
        self.events = events
        self._part = ""
        self._lock = Lock()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._part = (self._part + text).split("\n")
            self._put(lines)
        return len(text)

    def flush(self) -> None:
        """Half a line, such as a question, is shown now."""
        with self._lock:
            part, self._part = self._part, ""
            self._put([part])
        self.events.flush()

    def writable(self) -> bool:
        return True

    def _put(self, lines: Sequence[str]) -> None:
        for line in lines:
            if line.strip():
                put(self.events, {"event": "note", "text": line.rstrip()})


@contextmanager
def json_errors(words: Sequence[str]) -> Iterator[TextIO | None]:
    """Makes standard error JSON lines if `words` ask for that; then gives the stream for the events."""
    if not wants_json_lines(words):
        yield None
        return
    plain = sys.stderr
    sys.stderr = JsonErrors(plain)
    try:
        yield plain
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        sys.stderr = plain


def ended(result: Mapping[str, Any], exit_code: int) -> dict[str, object]:
    """How a command ended: its result, if it came to one, with the exit code and what went wrong (null for nothing)."""
    return {"bulkmail": VERSION, "error": None, "hint": None, **result, "exit_code": exit_code}
