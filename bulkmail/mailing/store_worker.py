"""A worker: one process that sends from all campaigns in a store that it can, until it is stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from bulkmail.cluster.campaigns import StoredCampaign, active_campaigns, due_shards
from bulkmail.cluster.database import STANDS_STILL, StoreError, connect
from bulkmail.cluster.dispatch import Dispatch
from bulkmail.cluster.session import Session, expire
from bulkmail.engine.contracts import Event
from bulkmail.mailing.relays import open_routes
from bulkmail.mailing.store_run import StoreRun, campaign_of, info_of
from bulkmail.model.errors import BulkmailError, ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.model.relay import Secret
from bulkmail.settings.allowed_commands import commands_in
from bulkmail.settings.secrets import find_keys, find_passwords

log = logging.getLogger("bulkmail.worker")

SHARDS = 4  # that a worker holds at a time
SLOTS = 64  # jobs that wait for each queue of a campaign, at most
LOOK = 1.0  # seconds between two looks at what there is to do
IDLE = 2.0  # seconds without a shard after which a campaign's engine ends
LEFT_ALONE = 60.0  # seconds for which a campaign is left to others that cannot be sent from here


@dataclass(slots=True)
class _Running:
    """A campaign that this worker sends from."""

    run: StoreRun
    is_ready: anyio.Event
    shards: int = 0
    used_at: float = 0.0
    has_ended: bool = False


class StoreWorker:
    """Takes shards as they are handed out.  `say` gets what a person should read."""

    def __init__(
        self,
        url: str,
        *,
        say: Callable[[str], None],
        observe: Callable[[Event], None] = lambda event: None,
        only: str = "",
        connections: int | None = None,
        drains: bool = False,
    ) -> None:
        """`only` names the one campaign to send from; `drains`: it ends when nothing is left to send."""
        self._url = url
        self._say = say
        self._observe = observe
        self._only = only
        self._connections = connections
        self._drains = drains
        self._running: dict[int, _Running] = {}
        self._left_alone: dict[int, float] = {}
        self._version = ""
        self._session: Session | None = None
        self._group: TaskGroup | None = None
        self._is_stopping = anyio.Event()

    def stop(self) -> None:
        """Finishes the messages under way and begins no others."""
        self._is_stopping.set()
        for each in self._running.values():
            each.run.stop()

    async def run(self) -> None:
        """Works until it is stopped, or with `drains` until nothing is left.  Raises `StoreError`, `ConfigError`."""
        self._version = await to_thread.run_sync(version, "bulkmail")
        dispatch = await to_thread.run_sync(partial(Dispatch, self._url, self._serve, shards=SHARDS))
        async with (
            Session(self._url) as session,
            dispatch,
            anyio.create_task_group() as campaigns,
        ):
            self._session, self._group = session, campaigns
            async with anyio.create_task_group() as group:
                group.start_soon(dispatch.run)
                group.start_soon(self._sweep, dispatch)
                await self._is_stopping.wait()
                group.cancel_scope.cancel()
            for each in self._running.values():
                each.run.stop()

    async def _serve(self, campaign: int, queue: int) -> None:
        """Sends one shard."""
        running = await self._running_of(campaign)
        if running is None or self._is_stopping.is_set():
            return
        running.shards += 1
        try:
            await running.is_ready.wait()
            store = running.run.store
            if store is None or running.has_ended:
                return
            with suppress(StoreError):
                shard = await store.hold(queue)
                if shard is not None:
                    running.used_at = time.monotonic()
                    await store.until_given_back(queue, shard)
        finally:
            running.shards -= 1
            running.used_at = time.monotonic()

    async def _running_of(self, campaign: int) -> _Running | None:
        """The engine of a campaign, started if need be; None for one that cannot be sent from here."""
        if (running := self._running.get(campaign)) is not None:
            return running
        if self._left_alone.get(campaign, 0.0) > time.monotonic() or self._group is None:
            return None
        connection = await connect(self._url)
        try:
            found = [each for each in await active_campaigns(connection, self._url) if each.id == campaign]
        finally:
            await connection.close(timeout=2)
        if not found or (self._only and found[0].name != self._only):
            return None
        if campaign in self._running:  # another shard was quicker
            return self._running[campaign]
        try:
            run, passwords = await to_thread.run_sync(self._prepared, found[0])
        except BulkmailError as error:
            self._leave_alone(found[0], error)
            return None
        if campaign in self._running:
            return self._running[campaign]
        running = self._running[campaign] = _Running(run, anyio.Event(), used_at=time.monotonic())
        self._group.start_soon(self._send, running, passwords)
        return running

    def _prepared(self, stored: StoredCampaign) -> tuple[StoreRun, list[Secret | None]]:
        """What sending from here takes.  Raises `BulkmailError` for what is missing."""
        if stored.version != self._version:
            raise ConfigError(
                f"it was loaded by bulkmail {stored.version}, and this is {self._version}: its messages could differ",
                hint=f"start a worker of bulkmail {stored.version}",
            )
        if info_of(stored).has_hook:
            raise ConfigError("it was loaded by a program whose on_message may change each message")
        run = StoreRun.of(self._url, stored)
        if commands := commands_in(run.campaign, run.routes):
            raise ConfigError(f"it gets a secret from the command {commands[0]!r}, which a worker does not run")
        if self._connections is not None:
            run.routes = tuple(
                replace(route, relay=replace(route.relay, connections=self._connections)) for route in run.routes
            )
        run.keys = find_keys(campaign_of(stored))
        return run, find_passwords(run.routes, ask=None)

    async def _send(self, running: _Running, passwords: Sequence[Secret | None]) -> None:
        run = running.run
        assert self._session is not None  # noqa: S101
        self._say(f"sending from {run.stored.name}")
        try:
            async with open_routes(run.routes, passwords, inbox=None, notify=self._say) as connects:
                ending = await run.send(
                    self._session, connects, observe=self._observe, fed=True, ready=running.is_ready.set
                )
            if ending.error is not None:
                self._leave_alone(run.stored, ending.error)
        except BulkmailError as error:
            self._leave_alone(run.stored, error)
        finally:
            running.has_ended = True
            running.is_ready.set()
            self._running.pop(run.stored.id, None)

    def _leave_alone(self, stored: StoredCampaign, error: BulkmailError) -> None:
        self._left_alone[stored.id] = time.monotonic() + LEFT_ALONE
        self._say(f"{stored.name} is left to other workers: {error}")

    async def _sweep(self, dispatch: Dispatch) -> None:
        """Sees to it that there are jobs for what is due, and ends engines that have nothing to do."""
        while True:
            try:
                await self._look(dispatch)
            except Exception as error:  # the store does not answer: what is under way waits for it, too
                log.info("the store was not asked", extra={"why": f"{type(error).__name__}: {error}"})
            await anyio.sleep(LOOK)

    async def _look(self, dispatch: Dispatch) -> None:
        connection = await connect(self._url, stands_still=STANDS_STILL)
        try:
            await expire(connection)
            found = await due_shards(connection, self._url)
            for campaign, queue, shards in found:
                await dispatch.offer(campaign, queue, min(SLOTS, shards))
            await dispatch.remove_lost()
            has_any = bool(await active_campaigns(connection, self._url))
        finally:
            await connection.close(timeout=2)
        now = time.monotonic()
        for running in list(self._running.values()):
            if not running.shards and now - running.used_at > IDLE and running.run.store is not None:
                running.run.store.finish()
        if self._drains and not has_any and not self._running:
            self._is_stopping.set()
