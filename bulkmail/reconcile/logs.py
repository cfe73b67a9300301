"""What Postfix and Exim wrote into their logs about messages that they took."""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bulkmail.model.errors import ConfigError
from bulkmail.reconcile.sighting import Sighting, addresses_in
from bulkmail.text import printable

LONGEST_LINE = 65_536  # characters; what follows is another line
_MOST_QUEUED = 200_000  # Postfix' queue ids that are remembered at a time

# What can begin at many places of a line is bounded: a hostile line, too, is to cost no more than its length.
#
# Postfix writes message-id= as soon as the header has come: before the end of the message, so it proves nothing yet.
# What was taken is queued, and only that is put into the active queue or has a recipient with a status.
_POSTFIX = re.compile(
    r"\bpostfix[\w./-]{0,60}/(?P<daemon>[\w-]{1,30})\[\d{1,10}\]: (?P<queue>[0-9A-Za-z]{6,32}): (?P<rest>.*)"
)
_MESSAGE_ID = re.compile(r"(?:resent-)?message-id=(<[^\s<>]*>)")
_STATUS = re.compile(r"to=<([^>]*)>,(?: orig_to=<([^>]*)>,)?.* status=(sent|deferred|bounced|expired)\b")
# Exim writes "<=" when it has taken a message, and then a line for each recipient.
_EXIM = re.compile(
    r"^\S+ \S+ (?:\S+ )?(?:\[\d+\] )?(?P<queue>\w{6,11}-\w{6,11}-\w{2,4}) (?P<sign><=|=>|->|\*\*|==) (?P<rest>.*)"
)
_EXIM_ID = re.compile(r" id=(\S+)")
_EXIM_FOR = re.compile(r" for (\S+@\S+(?: \S+@\S+)*)$")


def look_in_log(name: str) -> Iterator[Sighting]:
    """What the log `name` says was taken; `-` is standard input, and `.gz` is unpacked.

    Raises `ConfigError` for a file that cannot be read, or in which neither server wrote a line.
    """
    known = False
    with _lines_of(name) as lines:
        reader = LogReader(printable("standard input" if name == "-" else name))
        for line in lines:
            yield from reader.read(line)
        known = reader.has_read
    if not known:
        raise ConfigError(
            f"{printable(name)}: no line in it is of Postfix or Exim",
            hint="name Postfix' mail.log or Exim's mainlog; journalctl -u postfix | bulkmail reconcile RUN --log -",
        )


@contextmanager
def _lines_of(name: str) -> Iterator[Iterable[str]]:
    try:
        if name == "-":
            yield _cut(sys.stdin.buffer)
            return
        opener = gzip.open if name.endswith(".gz") else open
        with opener(Path(name), "rb") as file:
            yield _cut(file)
    except OSError as error:
        raise ConfigError(f"{printable(name)}: cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error, ValueError):
        raise ConfigError(f"{printable(name)}: cannot be unpacked or read to its end") from None


def _cut(file: object) -> Iterator[str]:
    """Lines of bounded length, whatever is in them."""
    while line := file.readline(LONGEST_LINE):  # type: ignore[attr-defined]
        yield line.decode("utf-8", "replace").rstrip("\r\n")


class LogReader:
    """Reads line by line; `has_read` says whether any was of a server that it knows."""

    def __init__(self, place: str) -> None:
        self.has_read = False
        self._place = place
        self._ids: dict[str, str] = {}  # queue id → Message-ID

    def read(self, line: str) -> Iterator[Sighting]:
        """What this line says was taken."""
        if (found := _POSTFIX.search(line)) is not None:
            self.has_read = True
            yield from self._postfix(found["daemon"], found["queue"], found["rest"])
        elif (found := _EXIM.match(line)) is not None:
            self.has_read = True
            yield from self._exim(found["queue"], found["sign"], found["rest"])

    def _postfix(self, daemon: str, queue: str, rest: str) -> Iterator[Sighting]:
        if daemon == "cleanup" and (named := _MESSAGE_ID.search(rest)) is not None:
            self._remember(queue, named[1])
        elif rest == "removed":
            self._ids.pop(queue, None)  # Postfix gives the same queue id again
        elif (message_id := self._ids.get(queue)) is None:
            return
        elif (status := _STATUS.match(rest)) is not None:
            paths = addresses_in(f"{status[1]} {status[2] or ''}")
            yield Sighting(message_id, f"{self._place}, as {queue}: {status[3]}", paths)
        elif daemon == "qmgr" and "queue active" in rest:
            yield Sighting(message_id, f"{self._place}, as {queue}")

    def _exim(self, queue: str, sign: str, rest: str) -> Iterator[Sighting]:
        if sign == "<=" and (named := _EXIM_ID.search(rest)) is not None:
            message_id = f"<{named[1].strip('<>')}>"
            self._remember(queue, message_id)
            paths = _EXIM_FOR.search(rest)
            yield Sighting(message_id, f"{self._place}, as {queue}", addresses_in(paths[1]) if paths else frozenset())
        elif sign != "<=" and (known := self._ids.get(queue)) is not None:
            yield Sighting(known, f"{self._place}, as {queue}: {sign}", addresses_in(rest.partition(" R=")[0]))

    def _remember(self, queue: str, message_id: str) -> None:
        self._ids.pop(queue, None)
        self._ids[queue] = message_id
        if len(self._ids) > _MOST_QUEUED:
            del self._ids[next(iter(self._ids))]
