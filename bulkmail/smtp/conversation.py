"""The conversation with a relay for a program to read while it runs: the lines of a trace, one by one."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import anyio

from bulkmail.smtp.tap import EVENT, Tap
from bulkmail.smtp.trace import Trace

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
