"""Lines that need no server: they meet the port of an SMTP session and put mail into a Maildir, or nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bulkmail.model.delivery import Message
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.sandbox.maildir import Maildir
from bulkmail.text import printable

Done = Callable[[BaseException | None], None]
Mark = Callable[[Done], None]


class Outgoing(Protocol):
    """A message on its way, which wants to know what it came to."""

    message: Message

    def mark(self, done: Done, /) -> None: ...
    def decided(self, result: Reply | Fault, /) -> None: ...


class NullLine:
    """Takes every message and keeps none: for finding out how fast everything else is."""

    def __init__(self) -> None:
        """Inside a running event loop, whose time `opened_at` is."""
        self.usable = True
        self.transactions = 0
        self.closed_because = ""  # no server ends it
        self.delivers = False
        self.reached_end = False  # whether the last message's fate left our hands: the first byte of a terminator
        self.opened_at = asyncio.get_running_loop().time()

    async def transact(self, message: Message, mark: Mark) -> Reply | Fault:
        """Takes `message` once `mark` is durable.  An error of the mark is raised, and the line then not usable."""
        self._begin()
        await self._marked(mark)
        self.reached_end = True
        return Reply(Stage.END, 250, "2.0.0", "thrown away")

    async def carry(self, more: Callable[[], Outgoing | None]) -> None:
        """Takes what `more` gives, one message after another, until it gives None; tells each what it came to."""
        while self.usable and (outgoing := more()) is not None:
            try:
                outcome = await self.transact(outgoing.message, outgoing.mark)
            except BaseException:
                stage = Stage.END if self.reached_end else Stage.DATA
                outgoing.decided(Fault(stage, Breakage.STOPPED, "stopped by us"))
                self.usable = False
                raise
            outgoing.decided(outcome)

    async def quit(self) -> None:
        """Never raises."""
        self.abort()

    def abort(self) -> None:
        """Nothing is under way that could be broken off."""
        self.usable = False

    def _begin(self) -> None:
        self.transactions += 1
        self.reached_end = False

    async def _marked(self, mark: Mark) -> None:
        """Waits until `mark` is durable.  Whatever interrupts that, nothing was delivered and the line is done with."""
        durable = asyncio.get_running_loop().create_future()

        def done(error: BaseException | None) -> None:
            if durable.done():  # cancelled while the mark was being written
                return
            if error is None:
                durable.set_result(None)
            else:
                durable.set_exception(error)

        try:
            mark(done)
            await durable
        except BaseException:
            self.usable = False
            raise


class MaildirLine(NullLine):
    """Keeps every message in a Maildir.  Its appearing there is what the terminator is on a wire."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder if it is missing.  Raises `RelayError` when mail cannot be kept there."""
        super().__init__()
        self._maildir = Maildir(folder)

    async def transact(self, message: Message, mark: Mark) -> Reply | Fault:
        """Keeps `message` once `mark` is durable; a folder that takes no file answers like a server out of room."""
        self._begin()
        names: list[str] = []
        try:
            for path in message.envelope.forward_paths:  # a file for each, as in a real mailbox
                name = self._maildir.write(message.envelope.reverse_path, path, message.buffers)
                names.append(name)
        except OSError as error:
            self._discard(names)
            return _out_of_room(Stage.DATA, error)
        try:
            await self._marked(mark)
        except BaseException:
            self._discard(names)
            raise
        self.reached_end = True
        try:
            for name in names:
                self._maildir.publish(name)
        except OSError as error:  # it certainly did not appear
            self._discard(names)
            return _out_of_room(Stage.END, error)
        return Reply(Stage.END, 250, "2.0.0", f"kept as {names[0]}")

    def _discard(self, names: list[str]) -> None:
        for name in names:
            self._maildir.discard(name)


def _out_of_room(stage: Stage, error: OSError) -> Reply:
    """RFC 3463 §3.4, X.3.1: it is the relay's fault, and may pass."""
    return Reply(stage, 452, "4.3.1", printable(f"cannot keep mail in the folder: {error.strerror or error}"))
