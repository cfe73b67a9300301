"""Messages to look at, made by a render worker that is killed when it takes too long."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

import anyio
import msgspec

from bulkmail.console.worker import RenderedAnswer, Request

TIMEOUT = 2.0  # seconds for a message
START_TIMEOUT = 10.0  # seconds more for the first one of a new worker
_LONGEST_ANSWER = 50_000_000  # bytes

TOO_SLOW = "the preview took longer than 2 seconds, so it was stopped"
TOO_SLOW_HINT = "look for a loop without an end in the template, or choose a row nearer to the beginning of the list"
BROKEN = "the preview process ended unexpectedly"


class Renderer:
    """One worker for all pages, which takes one request after another."""

    def __init__(self) -> None:
        self._worker: Process | None = None
        self._lock = anyio.Lock()
        self._newest: dict[str, int] = {}
        self._counter = 0

    async def render(self, request: Request) -> RenderedAnswer:
        """The message, or why there is none."""
        async with self._lock:
            return await self._ask(request)

    async def render_newest(self, request: Request) -> RenderedAnswer | None:
        """The same for a draft that is being typed; None when a newer draft of the campaign came meanwhile."""
        self._counter += 1
        mine = self._newest[request.campaign] = self._counter
        async with self._lock:
            if self._newest[request.campaign] != mine:
                return None
            return await self._ask(request)

    async def _ask(self, request: Request) -> RenderedAnswer:
        is_new = self._worker is None or self._worker.returncode is not None
        worker = await self._start() if is_new or self._worker is None else self._worker
        try:
            with anyio.fail_after(TIMEOUT + (START_TIMEOUT if is_new else 0.0)):
                return await _exchange(worker, request)
        except TimeoutError:
            await self._kill()
            return RenderedAnswer(faults=((TOO_SLOW, TOO_SLOW_HINT),))
        except (OSError, ValueError, msgspec.MsgspecError):
            await self._kill()
            return RenderedAnswer(faults=((BROKEN, "show it again"),))
        except BaseException:  # half an answer may be under way: the next request must not get the rest of it
            await self._kill()
            raise

    async def _start(self) -> Process:
        self._worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bulkmail.console.worker",
            stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL, limit=_LONGEST_ANSWER,
        )  # fmt: skip
        return self._worker

    async def _kill(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            with suppress(ProcessLookupError):
                worker.kill()
            with anyio.CancelScope(shield=True):
                await worker.wait()

    async def close(self) -> None:
        """Ends the worker."""
        await self._kill()


async def _exchange(worker: Process, request: Request) -> RenderedAnswer:
    if worker.stdin is None or worker.stdout is None:
        raise ValueError("the worker has no pipes")
    worker.stdin.write(msgspec.json.encode(request) + b"\n")
    await worker.stdin.drain()
    line = await worker.stdout.readline()
    if not line.endswith(b"\n"):
        raise ValueError("the worker is gone")
    return msgspec.json.decode(line, type=RenderedAnswer)
