"""A process that does nothing but read rows and make their messages, for the one that sends them.

It keeps no promise and may be killed at any time.  What is said to it and by it are the structures here, each as a
frame: four bytes for the length, then MessagePack.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import IO, TypeVar

import msgspec
from msgspec import Struct

from bulkmail.message.compose.composer import Composer
from bulkmail.message.compose.ready_made import Hook
from bulkmail.model.campaign import BounceKey, Keys
from bulkmail.model.delivery import Job, Message
from bulkmail.model.errors import BulkmailError
from bulkmail.model.recipient import RowFields
from bulkmail.model.relay import Secret
from bulkmail.outbox.outbox_reader import OutboxReader

SHARED = 4_096  # bytes from which a part of every message is named and not sent

T = TypeVar("T", bound=Struct)


class Setup(Struct, frozen=True, array_like=True):
    """The run, and what its messages are made with: secrets go over the pipe, and nowhere else.

    `hook` is `module:name`, empty for none.  `environ` is what the environment has beside the few names that a process
    needs to start: some of it may be secret.
    """

    outbox: str
    run_id: str
    unsubscribe: str | None
    dkim: tuple[str, ...]
    bounce: tuple[int, str] | None
    hook: str
    environ: dict[str, str]

    def __repr__(self) -> str:
        return f"Setup({self.outbox!r}, {self.run_id!r})"


class Ready(Struct, frozen=True, array_like=True):
    """Everything is read; `last` is the highest id of a delivery."""

    last: int


class Range(Struct, frozen=True, array_like=True):
    """Asks for the messages of the open deliveries with these ids, `after` excluded, dated `date`.

    At most `most_bytes` of them; the rest is left out.
    """

    after: int
    last: int
    date: int
    most_bytes: int


class Made(Struct, frozen=True, array_like=True):
    """A message, signed.  A buffer that all messages share is its number among the composer's `shared` ones."""

    delivery: int
    date: int
    reverse_path: str
    forward_path: str
    message_id: str
    buffers: list[bytes | int]
    needs_smtputf8: bool
    is_8bit: bool


class Batch(Struct, frozen=True, array_like=True):
    """The messages of a range.  Those that cannot be made are not among them."""

    messages: list[Made]


def write_frame(pipe: IO[bytes], what: Struct) -> None:
    """Raises `OSError` where the other side is gone."""
    raw = msgspec.msgpack.encode(what)
    pipe.write(len(raw).to_bytes(4, "big"))
    pipe.write(raw)
    pipe.flush()


def read_frame(pipe: IO[bytes], kind: type[T]) -> T | None:
    """The next frame; None where the other side is gone."""
    head = pipe.read(4)
    raw = pipe.read(int.from_bytes(head, "big")) if len(head) == 4 else b""
    return msgspec.msgpack.decode(raw, type=kind) if raw else None


def with_rows(composer: Composer, job: Job, rows_of: Callable[[int], tuple[RowFields, ...]]) -> Job:
    """The job with all the rows of its message, where rows share one."""
    if not composer.is_grouped or job.recipient is None:
        return job
    return msgspec.structs.replace(job, recipient=replace(job.recipient, rows=rows_of(job.delivery.row)))


def main() -> None:
    """Reads a `Setup` and then `Range`s from standard input until that ends; writes a `Batch` for each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that sends
    orders = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a hook prints does not get among the messages
    setup = read_frame(orders, Setup)
    if setup is None:
        return
    os.environ.update(setup.environ)
    with OutboxReader.open(Path(setup.outbox)) as reader:
        if reader.run_id != setup.run_id or reader.campaign is None:
            return
        hook = _hook(setup.hook) if setup.hook else None
        composer = Composer(reader.campaign, run_id=setup.run_id, keys=_keys(setup), on_message=hook)
        numbers = {id(raw): number for number, raw in enumerate(composer.shared(SHARED))}
        ready = Ready(reader.last_delivery())
        reader.renew()
        write_frame(answers, ready)
        while (asked := read_frame(orders, Range)) is not None:
            batch = _make(reader, composer, asked, numbers)
            reader.renew()  # or the log of the outbox would grow until the next range
            write_frame(answers, batch)


def _make(reader: OutboxReader, composer: Composer, asked: Range, numbers: dict[int, int]) -> Batch:
    made: list[Made] = []
    size = 0
    for job in reader.open_between(asked.after, asked.last, float(asked.date)):
        recipient, at = with_rows(composer, job, reader.rows_of).recipient, job.delivery
        if recipient is None:
            continue
        date = at.first_at or float(asked.date)
        try:
            message = composer.compose(recipient, row=at.row, forward_path=at.forward_path, date=date, delivery=at.id)
        except BulkmailError:  # the process that sends finds the same, and deals with it
            continue
        found = _written(message, at.id, int(date), numbers)
        size += sum(len(buffer) for buffer in found.buffers if isinstance(buffer, bytes))
        if size > asked.most_bytes:
            break
        made.append(found)
    return Batch(made)


def _written(message: Message, delivery: int, date: int, numbers: dict[int, int]) -> Made:
    envelope = message.envelope
    return Made(
        delivery,
        date,
        envelope.reverse_path,
        envelope.forward_path,
        message.message_id,
        [numbers.get(id(buffer), buffer) for buffer in message.buffers] if numbers else list(message.buffers),
        message.needs_smtputf8,
        message.is_8bit,
    )


def _keys(setup: Setup) -> Keys:
    return Keys(
        unsubscribe=None if setup.unsubscribe is None else Secret(setup.unsubscribe),
        dkim=tuple(map(Secret, setup.dkim)),
        bounce=None if setup.bounce is None else BounceKey(setup.bounce[0], Secret(setup.bounce[1])),
    )


def _hook(name: str) -> Hook:
    module, _, path = name.partition(":")
    found: Hook = attrgetter(path)(import_module(module))
    return found
