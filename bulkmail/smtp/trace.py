"""The conversation of all sessions of a run: written to a file by a thread, or handed to a program line by line."""

from __future__ import annotations

import asyncio
import io
import os
import queue
import socket
import ssl
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

import anyio

from bulkmail.model.errors import ConfigError
from bulkmail.smtp.tap import EVENT, Tap
from bulkmail.text import printable

HEADING = "# bulkmail trace"
_LEGEND = "> we say  < the server says  * what happens  | of a message; the number is the connection's"
_COLOURS = (36, 33, 35, 32, 34, 31)  # of the terminal, for one connection after another
_BACKLOG = 100_000  # lines that may wait to be written


class Trace:
    """Takes lines at once and writes them when it can; a context manager, to be left outside the event loop.

    A file that cannot keep up loses lines, and says how many; one that cannot be written any more stops the trace and
    never the sending: then `fault` says why.
    """

    def __init__(self, stream: TextIO, *, is_coloured: bool = False, closes: bool = False) -> None:
        self.fault = ""
        self._stream = stream
        self._is_coloured = is_coloured
        self._closes = closes
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lost = 0
        self._connections = 0
        self._second = 0
        self._clock = ""
        self._writer = threading.Thread(target=self._write, name="bulkmail-trace", daemon=True)

    @classmethod
    def open(cls, target: str) -> Trace:
        """A trace appended to the file `target`, which only its owner may read; `-` is standard error.

        A terminal gets colours unless `NO_COLOR` is set.  Raises `ConfigError`, also for a file that is no trace.
        """
        if target == "-":
            return cls(sys.stderr, is_coloured=_wants_colour(sys.stderr.isatty()))
        _look(Path(target))
        try:
            number = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOCTTY", 0), 0o600)
        except OSError as error:
            raise ConfigError(
                f"--trace {target}: cannot be written: {error.strerror}", hint="name a file in a folder of yours"
            ) from None
        stream = os.fdopen(number, "a", encoding="utf-8", errors="backslashreplace", newline="\n")
        return cls(stream, is_coloured=_wants_colour(os.isatty(number)), closes=True)

    def __enter__(self) -> Trace:
        self._writer.start()
        self._waiting.put(f"{HEADING} {time.strftime('%Y-%m-%d %H:%M:%S %z')}; {_LEGEND}\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._writer.join()

    def tap(self, *, secrets: Iterable[str] = (), username: str = "") -> Tap:
        """For another connection, over which `username` logs in with `secrets`."""
        self._connections += 1
        label = f"{self._connections:>3}"
        begin, end = "", "\n"
        if self._is_coloured:
            begin, end = f"\x1b[{_COLOURS[self._connections % len(_COLOURS)]}m", "\x1b[0m\n"

        def show(sign: str, text: str) -> None:
            self._put(f"{begin}{self._now()} {label} {sign} {text}{end}")

        return Tap(show, secrets=secrets, username=username)

    @property
    def is_behind(self) -> bool:
        """Whether lines wait to be written."""
        return not self._waiting.empty()

    def _now(self) -> str:
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._clock = time.strftime("%H:%M:%S", time.localtime(now))
        return f"{self._clock}.{int(now % 1 * 1000):03}"

    def _put(self, line: str) -> None:
        if self._waiting.qsize() >= _BACKLOG:
            self._lost += 1
            return
        if self._lost:
            self._waiting.put(f"# {self._lost:,} lines are missing here: this file was too slow for them\n")
            self._lost = 0
        self._waiting.put(line)

    def _write(self) -> None:
        """The thread: whatever waits, in one piece."""
        is_over = False
        while not is_over:
            lines = [self._waiting.get()]
            while not self._waiting.empty() and len(lines) < 1000:
                lines.append(self._waiting.get())
            is_over = None in lines
            if not self.fault:
                self._output("".join(filter(None, lines)))
        if self._closes:
            with suppress(OSError):  # what could not be written is in `fault` already
                self._stream.close()

    def _output(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.fault = str(getattr(error, "strerror", "") or error)


def _wants_colour(is_terminal: bool) -> bool:
    return is_terminal and not os.environ.get("NO_COLOR")


def is_trace(path: Path) -> bool:
    """Whether the file is a trace, which more may be added to; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(HEADING)) == HEADING.encode()
    except OSError:
        return False


def _look(path: Path) -> None:
    """Raises `ConfigError` if `path` is something that a trace must not be added to."""
    try:
        found = path.stat()
        if stat.S_ISCHR(found.st_mode):
            return
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"--trace {path}: is not a file", hint="name a new file, or - for standard error")
        with path.open("rb") as file:
            start = file.read(len(HEADING))
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(f"--trace {path}: is a link that leads nowhere", hint="name the file itself") from None
        return
    except OSError as error:
        raise ConfigError(
            f"--trace {path}: cannot be read: {error.strerror}", hint="name a new file, or - for standard error"
        ) from None
    if start != HEADING.encode() and (start or path.is_symlink()):
        raise ConfigError(f"--trace {path}: this file is not a trace", hint="name a new file for the trace")


# For the code that opens a session, with or without a trace.


def connected(
    trace: Trace | None, host: str, connection: socket.socket, *, secrets: Iterable[str] = (), username: str = ""
) -> Tap | None:
    """A tap for a connection that stands, over which `username` logs in with `secrets`."""
    if trace is None:
        return None
    tap = trace.tap(secrets=secrets, username=username)
    at = "an address that has gone again"
    with suppress(OSError):
        where = connection.getpeername()
        at = f"{where[0]} port {where[1]}" if isinstance(where, tuple) else str(where)
    tap.note(f"connected to {host}: {at}")
    return tap


def not_connected(trace: Trace | None, why: str) -> None:
    """There is no connection, and so no conversation."""
    if trace is not None:
        trace.tap().note(why)


def hidden(tap: Tap | None, mechanism: str) -> AbstractContextManager[None]:
    """From the first byte of AUTH to its final reply."""
    return nullcontext() if tap is None else tap.hidden(f"login by {mechanism}")


def note_security(tap: Tap | None, transport: asyncio.Transport) -> None:
    """Shows how `transport` is secured, if it is."""
    secured = transport.get_extra_info("ssl_object")
    if tap is not None and secured is not None:
        cipher = secured.cipher() or ("",)
        tap.note(f"{secured.version()}, {cipher[0]}, certificate of {_subject(secured)}")


def _subject(secured: ssl.SSLObject) -> str:
    """The names that the certificate is for, as it says them."""
    certificate = secured.getpeercert() or {}
    names = [str(pair[1]) for group in certificate.get("subject", ()) for pair in group if pair[0] == "commonName"]
    names += [str(name[1]) for name in certificate.get("subjectAltName", ())]
    return printable(", ".join(dict.fromkeys(names)), 200) or "no recipient"


LAG = 10_000  # lines that may wait for a slow reader; what comes then is left out, and counted


@dataclass(frozen=True, slots=True)
class ConversationLine:
    """One line; `connection` counts from 1 in the order in which connections are opened, 0 is none of them.

    `sign` is `">"` for what we say, `"<"` for what the server says, `"*"` for what happens, `"|"` for a line of a
    message.  `text` is printable and cut as in a trace, without passwords and tokens.  `at` is wall-clock seconds.
    """

    at: float
    connection: int
    sign: str
    text: str

    def __str__(self) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(self.at))
        return f"{clock}.{int(self.at % 1 * 1000):03} {self.connection:>3} {self.sign} {self.text}"


class Conversation:
    """The lines of one run, for `async for`.  It ends with the run; to stop reading earlier harms nothing.

    A reader that is too slow misses lines, and gets their number in a line of its own; the sending never waits for it.
    """

    def __init__(self) -> None:
        self._lines: deque[ConversationLine] = deque()
        self._lost = 0
        self._is_over = False
        self._news = anyio.Event()

    def __aiter__(self) -> Conversation:
        return self

    async def __anext__(self) -> ConversationLine:
        while not self._lines:
            if self._is_over:
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        return self._lines.popleft()

    def add(self, line: ConversationLine) -> None:
        """For the run: another line."""
        if self._is_over:
            return
        if len(self._lines) >= LAG:
            self._lost += 1
            return
        self._tell_lost(line.at)
        self._lines.append(line)
        self._news.set()

    def end(self) -> None:
        """For the run, which is over, or for a reader that wants no more."""
        if not self._is_over:
            self._tell_lost(time.time())
        self._is_over = True
        self._news.set()

    async def aclose(self) -> None:
        """Wants no more lines, and lets go of those that wait."""
        self._is_over = True
        self._lines.clear()
        self._news.set()

    def _tell_lost(self, at: float) -> None:
        if self._lost:
            text = f"{self._lost:,} lines are missing here: the reader was too slow for them"
            self._lines.append(ConversationLine(at, 0, EVENT, text))
            self._lost = 0


class ConversationTrace(Trace):
    """A trace that goes to readers in this process instead of a file; it needs no thread, and no context."""

    def __init__(self, readers: Sequence[Conversation]) -> None:
        super().__init__(io.StringIO())
        self._readers = readers

    def tap(self, *, secrets: Iterable[str] = (), username: str = "") -> Tap:
        """For another connection, over which `username` logs in with `secrets`."""
        self._connections += 1
        number = self._connections

        def show(sign: str, text: str) -> None:
            line = ConversationLine(time.time(), number, sign, text)
            for reader in self._readers:
                reader.add(line)

        return Tap(show, secrets=secrets, username=username)
