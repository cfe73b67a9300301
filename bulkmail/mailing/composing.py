"""How messages of one outbox are made: in this process, and ahead of the line in others that do nothing else."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import IO, Protocol, TypeVar

import anyio
import msgspec
from anyio import to_thread
from msgspec import Struct

from bulkmail.engine.contracts import Compose, Event, Notice, Sign
from bulkmail.message.compose.composer import Composer
from bulkmail.message.compose.identity import date_field
from bulkmail.message.compose.ready_made import Hook, message_of
from bulkmail.model.campaign import BounceKey, Campaign, Keys
from bulkmail.model.delivery import Envelope, Job, Message
from bulkmail.model.errors import BulkmailError
from bulkmail.model.recipient import RowFields
from bulkmail.model.relay import Secret
from bulkmail.model.tally import Tally
from bulkmail.outbox.outbox_reader import OutboxReader

# -- A process that does nothing but read rows and make their messages, for the one that sends them.
#
# It keeps no promise and may be killed at any time.  What is said to it and by it are the structures here, each as a
# frame: four bytes for the length, then MessagePack.


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


# -- How the messages of one outbox are made: in this process, and ahead of the line in others that do nothing else.


log = logging.getLogger("bulkmail.mailing")

MANY = 20_000  # open rows from which a process of its own composes
MOST_PROCESSES = 8  # unless more are asked for
MOST_AHEAD = 2_048  # messages that are made and not yet sent
MOST_BYTES = 8_000_000  # of them
AHEAD = 1.0  # seconds of sending that are made ahead at most
AHEAD_SIGNED = 0.3  # where a message of another second has to be made again
OLD = 5.0  # seconds after which a message that was not asked for is dropped
LEAST_RATE = 50.0  # messages a second from which it is worth while to compose ahead
TURN = 0.03  # seconds that the composing of one range takes
LONGEST_RANGE = 512  # messages
LOOK = 0.25  # seconds between two looks at whether more is needed
# What a process needs to start.  All else may be secret, and goes over the pipe.
_ENVIRON = {
    *("PATH", "HOME", "USERPROFILE", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "TZ", "LANG", "VIRTUAL_ENV"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE"),
}


class ComposedRun(Protocol):
    """The run whose messages are made; `path` is its outbox, None where other processes cannot read its rows."""

    @property
    def campaign(self) -> Campaign | None: ...
    @property
    def run_id(self) -> str: ...
    @property
    def path(self) -> Path | None: ...

    def tally(self) -> Tally:
        """Rows by status."""

    def rows_of(self, row: int) -> tuple[RowFields, ...]:
        """The fields of all rows that share the message of `row`."""


class SignedMessage(Message, frozen=True):
    """A message that was signed by the process that composed it."""


@asynccontextmanager
async def composing(
    outbox: ComposedRun, *, keys: Keys, on_message: Hook | None, processes: int, observe: Callable[[Event], None]
) -> AsyncIterator[tuple[Compose, Sign | None]]:
    """What makes the message of a job; None beside it where it is signed already.

    `processes` is how many may be at work, this one included; 0 leaves that to us.
    """
    campaign = outbox.campaign
    if campaign is None:
        yield _ready_made, None
        return
    composer = Composer(campaign, run_id=outbox.run_id, keys=keys, on_message=on_message)
    number = _number_of(outbox, composer, processes, hook=on_message)
    others = ComposingProcesses(number, _setup(outbox, keys, on_message), composer) if number else None
    make = composer.compose if composer.is_signed and not composer.is_slow_to_sign else composer.draft

    def compose(job: Job, first_at: float) -> Message:
        if job.recipient is None:
            return _ready_made(job, first_at)
        if others is not None:
            if others.trouble:
                observe(Notice(others.trouble, ""))
                others.trouble = ""
            if (message := others.take(job.delivery.id, int(first_at))) is not None:
                return message
        at, recipient = job.delivery, job.recipient
        if composer.is_grouped:
            recipient = with_rows(composer, job, outbox.rows_of).recipient or recipient
        return make(recipient, row=at.row, forward_path=at.forward_path, date=first_at, delivery=at.id)

    def sign(message: Message, first_at: float) -> Message:
        return message if isinstance(message, SignedMessage) else composer.sign(message, first_at)

    try:
        yield compose, sign if composer.is_slow_to_sign else None
    finally:
        if others is not None:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(others.stop)


def _ready_made(job: Job, first_at: float) -> Message:
    if job.content is None:
        raise BulkmailError(f"row {job.delivery.row} of the outbox has no message")
    envelope = Envelope(job.reverse_path, job.delivery.forward_path)
    return message_of(job.content, envelope=envelope, message_id=job.message_id)


def _number_of(outbox: ComposedRun, composer: Composer, processes: int, *, hook: Hook | None) -> int:
    """How many processes compose beside this one."""
    if outbox.path is None or not sys.executable or (hook is not None and not _name_of(hook)):
        return 0
    if processes:
        return processes - 1
    cores = usable_cores()
    if cores < 2 or outbox.tally().open < MANY:
        return 0
    return min(cores, MOST_PROCESSES) - 1 if composer.is_heavy else 1


def usable_cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _setup(outbox: ComposedRun, keys: Keys, hook: Hook | None) -> Setup:
    bounce = keys.bounce
    return Setup(
        str(outbox.path),
        outbox.run_id,
        keys.unsubscribe.reveal() if keys.unsubscribe is not None else None,
        tuple(key.reveal() for key in keys.dkim),
        (bounce.run, bounce.key.reveal()) if bounce is not None else None,
        _name_of(hook) if hook is not None else "",
        {name: value for name, value in os.environ.items() if not _is_kept(name)} if hook is not None else {},
    )


def _is_kept(name: str) -> bool:
    return name.upper() in _ENVIRON or name.startswith("LC_")


def _name_of(hook: Hook) -> str:
    """`module:name` of a hook that another process can import; empty for any other."""
    module, name = getattr(hook, "__module__", None), getattr(hook, "__qualname__", "")
    if not isinstance(module, str) or module == "__main__" or not name:
        return ""
    try:
        is_it = attrgetter(name)(sys.modules[module]) is hook
    except (AttributeError, KeyError):
        return ""
    return f"{module}:{name}" if is_it else ""


class ComposingProcesses:
    """Messages that other processes make ahead, each for one delivery and one second.

    A message is a function of its delivery and its date, so those are the same bytes as are made here.  Nothing is sent
    because it is here: the sender asks for the message of a delivery that it has claimed.  `trouble` is a sentence
    once a process has ended by itself; its part is done here from then on.
    It has more attributes than a class should: what is asked, made, missed and shared is one piece of bookkeeping.
    """

    def __init__(self, number: int, setup: Setup, composer: Composer) -> None:
        """Starts them, each with a thread of its own that speaks with it: nothing here waits for them."""
        self.trouble = ""
        self._shared = composer.shared(SHARED)
        self._is_signed = composer.is_signed
        self._is_bound_to_second = composer.is_signed or bool(setup.hook)
        self._made: dict[int, Made] = {}
        self._taken = 0
        self._recent: deque[int] = deque(maxlen=33)  # ids that were asked for
        self._missed: deque[int] = deque(maxlen=4 * LONGEST_RANGE)  # those of them that were not here
        self._lock = threading.Lock()  # between the threads; the loop never waits for it
        self._asked = 0  # up to this id
        self._last = 0  # there is no higher id
        self._gap = 16  # ids between what is being sent and what is asked for: those are made here meanwhile
        self._rate = 0.0
        self._counted = (0, time.monotonic())
        self._is_stopping = threading.Event()
        self._running: list[subprocess.Popen[bytes]] = []
        self._threads = [
            threading.Thread(target=self._speak, args=(setup,), name=f"bulkmail-compose-{each}", daemon=True)
            for each in range(number)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [process.pid for process in self._running if process.poll() is None]

    def take(self, delivery: int, date: int) -> Message | None:
        """The message of this delivery; None where it has to be made here."""
        self._taken += 1
        self._recent.append(delivery)
        made = self._made.pop(delivery, None)
        if made is None or (made.date != date and self._is_bound_to_second):
            self._missed.append(delivery)
            return None
        buffers = [self._shared[each] if isinstance(each, int) else each for each in made.buffers]
        if made.date != date:
            old, new = date_field(made.date), date_field(date)
            for number, buffer in enumerate(buffers):
                # Date is a field of the header, and no value has a line end in it, so that the first one is it.
                at = buffer.find(b"\r\n" + old) + 2
                if at > 1:
                    buffers[number] = buffer[:at] + new + buffer[at + len(old) :]
                    break
            else:
                return None
        kind = SignedMessage if self._is_signed else Message
        return kind(
            Envelope(made.reverse_path, made.forward_path),
            made.message_id,
            tuple(buffers),
            needs_smtputf8=made.needs_smtputf8,
            is_8bit=made.is_8bit,
        )

    def stop(self) -> None:
        """Ends the processes, and drops what they made.  Waits for them, for a moment."""
        self._is_stopping.set()
        for process in list(self._running):
            process.kill()
        for thread in self._threads:
            thread.join(5.0)
        self._made.clear()

    def _speak(self, setup: Setup) -> None:
        """All that one process receives and sends."""
        with tempfile.TemporaryFile() as errors:
            try:
                process = _start(errors)
            except OSError as error:
                self._fails(error.strerror or type(error).__name__, errors)
                return
            self._running.append(process)
            if self._is_stopping.is_set():
                process.kill()
            assert process.stdin is not None and process.stdout is not None  # noqa: S101
            with process:
                try:
                    self._ask(process.stdin, process.stdout, setup)
                except (OSError, ValueError, EOFError, msgspec.MsgspecError) as error:
                    log.debug("a composing process does not answer", extra={"why": type(error).__name__})
                    process.kill()
                    code = process.wait()
                    self._fails(f"signal {-code}" if code < 0 else f"exit code {code}", errors)
                finally:
                    process.kill()
                    with suppress(OSError):
                        process.stdin.close()

    def _fails(self, why: str, errors: IO[bytes]) -> None:
        if self._is_stopping.is_set():
            return
        errors.seek(0, os.SEEK_END)
        errors.seek(max(0, errors.tell() - 2_000))
        log.debug("a composing process ended", extra={"why": why, "stderr": errors.read().decode(errors="replace")})
        self.trouble = f"a composing process ended ({why}): its messages are made by the sending process from now on"

    def _ask(self, orders: IO[bytes], answers: IO[bytes], setup: Setup) -> None:
        write_frame(orders, setup)
        ready = _answer(answers, Ready)
        with self._lock:
            self._last = ready.last
        size = 16
        while not self._is_stopping.is_set():
            wanted = self._next(size)
            if wanted is None:
                if self._asked >= self._last:
                    return
                self._is_stopping.wait(LOOK if self._rate < LEAST_RATE else TURN)
                continue
            began = time.monotonic()
            write_frame(orders, wanted)
            self._keep(_answer(answers, Batch).messages)
            took = max(time.monotonic() - began, 1e-4)
            size = max(8, min(LONGEST_RANGE, int(size * min(4.0, TURN / took))))

    def _next(self, size: int) -> Range | None:
        """What is made next, at most `size` messages; None where enough is here for now."""
        with self._lock:
            now = time.monotonic()
            taken, counted_at = self._counted
            if now - counted_at >= 0.1:
                self._rate = (self._taken - taken) / (now - counted_at)
                self._counted = self._taken, now
            self._drop_old()
            held = list(self._made.values())
            ahead = AHEAD_SIGNED if self._is_bound_to_second else AHEAD
            each = len(self._threads)
            room = (min(MOST_AHEAD, int(self._rate * ahead)) - len(held)) // each
            free = MOST_BYTES - sum(len(part) for made in held for part in made.buffers if isinstance(part, bytes))
            if self._rate < LEAST_RATE or room < 8 or free < MOST_BYTES // 4 or self._asked >= self._last:
                return None
            recent = sorted(self._recent.copy())
            position = recent[len(recent) // 2] if recent else 0
            after = max(self._asked, position + self._gap)
            self._asked = min(after + min(size, room), self._last)
            if after >= self._asked:
                return None
            return Range(after, self._asked, int(time.time() + len(held) / self._rate), free // each)

    def _drop_old(self) -> None:
        oldest = time.time() - OLD
        for made in list(self._made.values()):
            if made.date >= oldest:
                return
            self._made.pop(made.delivery, None)

    def _keep(self, messages: list[Made]) -> None:
        """Takes them in, but for those that were made here meanwhile: then more is left for this process next time."""
        missed = set(self._missed.copy())
        late = 0
        for made in messages:
            if made.delivery in missed:
                late += 1
            else:
                self._made[made.delivery] = made
        with self._lock:
            self._gap = min(self._gap + late + 8, MOST_AHEAD) if late else max(16, self._gap * 3 // 4)


def _start(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    # The search path is that of this process; neither arguments nor environment hold a secret.
    code = f"import sys; sys.path[:] = {sys.path!a}; from bulkmail.mailing.composing import main; main()"
    return subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={name: value for name, value in os.environ.items() if _is_kept(name)},
        start_new_session=sys.platform != "win32",
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _answer(pipe: IO[bytes], kind: type[T]) -> T:
    """Raises `EOFError` where the process has ended."""
    found = read_frame(pipe, kind)
    if found is None:
        raise EOFError
    return found
