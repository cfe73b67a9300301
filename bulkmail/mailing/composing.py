"""How the messages of one outbox are made: in this process, and ahead of the line in others that do nothing else."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from operator import attrgetter
from typing import IO, TypeVar

import anyio
import msgspec
from anyio import to_thread
from msgspec import Struct

from bulkmail.engine.contracts import Compose, Event, Notice, Sign
from bulkmail.mailing.composing_process import (
    SHARED,
    Batch,
    Made,
    Range,
    Ready,
    Setup,
    read_frame,
    with_rows,
    write_frame,
)
from bulkmail.message.compose.composer import Composer
from bulkmail.message.compose.identity import date_field
from bulkmail.message.compose.ready_made import Hook, message_of
from bulkmail.model.errors import BulkmailError
from bulkmail.model.job import Job
from bulkmail.model.keys import Keys
from bulkmail.model.message import Envelope, Message
from bulkmail.outbox.outbox import Outbox

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


T = TypeVar("T", bound=Struct)


class SignedMessage(Message, frozen=True):
    """A message that was signed by the process that composed it."""


@asynccontextmanager
async def composing(
    outbox: Outbox, *, keys: Keys, on_message: Hook | None, processes: int, observe: Callable[[Event], None]
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


def _number_of(outbox: Outbox, composer: Composer, processes: int, *, hook: Hook | None) -> int:
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


def _setup(outbox: Outbox, keys: Keys, hook: Hook | None) -> Setup:
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
    code = f"import sys; sys.path[:] = {sys.path!a}; from bulkmail.mailing.composing_process import main; main()"
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
