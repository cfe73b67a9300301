"""The ordinary commands, started as processes of their own that outlive the console, and what became of them."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path

import anyio
import msgspec
from anyio import to_thread

from bulkmail.console.command_journal import CommandEntry, CommandJournal
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.relay import Secret
from bulkmail.model.tally import EXIT_IN_DOUBT, EXIT_OK, EXIT_SOME_FAILED, EXIT_STOPPED

LOG_SUFFIX = ".console.log"
MOST_KEPT = 200  # jobs that have ended
LONGEST_OUTPUT = 20_000  # bytes of a command's output that are shown
LONGEST_RESULT = 5_000_000  # of its JSON
_DONE = (EXIT_OK, EXIT_SOME_FAILED, EXIT_STOPPED, EXIT_IN_DOUBT)
_REAPED_EVERY = 0.2  # seconds


class CommandRunning(ConfigError):
    """Another command about the same campaign has not ended; `job` is that."""

    def __init__(self, job: StartedCommand) -> None:
        super().__init__("another command about this campaign is running", hint="wait until it is done")
        self.job = job


@dataclass(slots=True)
class StartedCommand:
    """A command that was started here.  `words` are those behind `bulkmail` as a person would type them.

    `output` is the file that its streams go to; `run` is the outbox that it is about, where there is one; `subject` is
    the id of the campaign.  `exit_code` is None as long as it is running.
    """

    id: str
    words: tuple[str, ...]
    output: Path
    subject: str
    pid: int
    started_at: float
    run: Path | None = None
    exit_code: int | None = None
    start: int = 0  # of its own output in the file
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def command(self) -> str:
        """The line to type in a terminal."""
        return command_line(self.words)

    @property
    def has_failed(self) -> bool:
        """Whether it ended without doing what was asked for."""
        return self.exit_code not in (None, *_DONE)

    def read_output(self, longest: int = LONGEST_OUTPUT) -> str:
        """The end of what it printed."""
        try:
            with self.output.open("rb") as file:
                file.seek(max(self.start, file.seek(0, os.SEEK_END) - longest))
                return file.read(longest).decode("utf-8", "replace")
        except OSError:
            return ""

    def result(self) -> dict[str, object]:
        """The JSON object that it printed at its end; empty where there is none."""
        return self._parted()[1]

    def said(self) -> str:
        """The end of what it printed, without that object."""
        return self._parted()[0][-LONGEST_OUTPUT:]

    def _parted(self) -> tuple[str, dict[str, object]]:
        text = self.read_output(LONGEST_RESULT)
        for number in [0, *(found + 1 for found in _all(text, "\n{"))]:
            if text.startswith("{", number):
                with suppress(msgspec.MsgspecError, RecursionError):
                    return text[:number], msgspec.json.decode(text[number:], type=dict[str, object])
        return text, {}


def command_line(words: Sequence[str]) -> str:
    """The line to type in a terminal."""
    return shlex.join(["bulkmail", *words])


def _all(text: str, part: str) -> Iterable[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)


class Commands:
    """Starts commands and remembers them; each has a session of its own and outlives the console."""

    def __init__(self, journal: CommandJournal, scratch: Path) -> None:
        self._journal = journal
        self._scratch = scratch
        self._jobs: dict[str, StartedCommand] = {}
        self._lock = threading.RLock()

    def __getitem__(self, job: str) -> StartedCommand:
        return self._jobs[job]

    def jobs(self) -> list[StartedCommand]:
        """All that are remembered, the newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: -job.started_at)

    def running(self, subject: str) -> StartedCommand | None:
        """A command about this campaign that has not ended."""
        return next((job for job in self.jobs() if job.subject == subject and job.exit_code is None), None)

    def start(
        self,
        words: Sequence[str],
        *,
        subject: str = "",
        output: Path | None = None,
        run: Path | None = None,
        unsaid: Sequence[str] = (),
        password: Secret | None = None,
        stdin: int | None = None,
        is_alone: bool = False,
    ) -> StartedCommand:
        """Starts `bulkmail WORDS`; `unsaid` are flags for the console's own reading, which a person would not type.

        A password goes through a pipe; `stdin` is an open file to read in its place.  With `is_alone` no other command
        about the subject may be running, or this is a `CommandRunning`.  Raises `ConfigError` where nothing could be
        started.
        """
        with self._lock:  # a button may be pressed twice, in two tabs
            if is_alone and (other := self.running(subject)) is not None:
                raise CommandRunning(other)
            return self._start(words, subject, output, run, unsaid, password, stdin)

    def _start(
        self,
        words: Sequence[str],
        subject: str,
        output: Path | None,
        run: Path | None,
        unsaid: Sequence[str],
        password: Secret | None,
        stdin: int | None,
    ) -> StartedCommand:
        identity = secrets.token_hex(6)
        target = output or self._scratch / f"{identity}{LOG_SUFFIX}"
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(target, "ab", opener=_open_private) as log:
                start = log.tell()
                process = subprocess.Popen(  # noqa: S603 - our own program, and no shell
                    [sys.executable, "-m", "bulkmail", *words, *unsaid],
                    stdin=subprocess.PIPE if password is not None else subprocess.DEVNULL if stdin is None else stdin,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "NO_COLOR": "1"},
                    start_new_session=True,
                )
        except OSError as error:
            raise ConfigError(f"the command could not be started: {error.strerror or error}") from None
        if password is not None and process.stdin is not None:
            _hand_over(process, password)
        job = StartedCommand(
            identity, tuple(words), target, subject, process.pid, time.time(), run, None, start, process
        )
        self._jobs[identity] = job
        self._forget_old()
        self._journal.add(CommandEntry(job.started_at, job.command, subject, process.pid))
        return job

    def last(self, subject: str) -> StartedCommand | None:
        """The newest command about this campaign."""
        return next((job for job in self.jobs() if job.subject == subject), None)

    async def reap(self) -> None:
        """Notes the ends of commands as they come.  To be cancelled."""
        while True:
            for job in list(self._jobs.values()):
                if job.exit_code is None and job._process is not None:
                    code = job._process.poll()
                    if code is not None:
                        job.exit_code = code
                        entry = CommandEntry(time.time(), job.command, job.subject, job.pid, code)
                        await to_thread.run_sync(self._journal.add, entry)
            await anyio.sleep(_REAPED_EVERY)

    async def wait(self, job: StartedCommand, seconds: float) -> bool:
        """Whether it ends in time."""
        with anyio.move_on_after(seconds):
            while job.exit_code is None:  # noqa: ASYNC110 - a process ends without telling the loop
                await anyio.sleep(_REAPED_EVERY / 2)
        return job.exit_code is not None

    def _forget_old(self) -> None:
        ended = [job for job in self.jobs() if job.exit_code is not None]
        for job in ended[MOST_KEPT:]:
            del self._jobs[job.id]
            if job.output.parent == self._scratch:
                with suppress(OSError):
                    job.output.unlink()


def _hand_over(process: subprocess.Popen[bytes], password: Secret) -> None:
    """Writes the password into the pipe: in a thread of its own, since a command may end without reading it."""

    def write() -> None:
        if process.stdin is not None:
            with suppress(OSError), process.stdin:
                process.stdin.write(password.reveal().encode() + b"\n")

    threading.Thread(target=write, daemon=True).start()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
