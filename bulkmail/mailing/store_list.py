"""A campaign in a store and the suppression list: who is added while workers send is left out by all of them."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from anyio import to_thread

from bulkmail.cluster import overruling
from bulkmail.cluster.database import StoreError, connect, shown
from bulkmail.engine.contracts import Event
from bulkmail.mailing.list_keeper import ListKeeper, at_work
from bulkmail.mailing.suppression_list import open_settings
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import ConfigError, SuppressionError
from bulkmail.model.feedback_event import FeedbackEvent
from bulkmail.model.lazy import dataclass
from bulkmail.model.suppression import ListInUse
from bulkmail.outbox.run_info import RunInfo
from bulkmail.settings.suppressions import SuppressionSettings
from bulkmail.suppression.ports import EntryQuery
from bulkmail.text import count

if TYPE_CHECKING:
    from bulkmail.cluster.store import ClusterStore


@dataclass(frozen=True, slots=True)
class StoredRun:
    """The parts of a campaign in a store that its keeper asks for."""

    url: str
    number: int
    run_id: str
    campaign: Campaign
    info: RunInfo
    path: None = None
    started_at: None = None  # what other workers heard is theirs to write


class StoreListKeeper(ListKeeper):
    """The `ListKeeper` of one worker.  What the list names is suppressed in the store, for all workers.

    `interrupt` is called where this worker holds some of it, so that it lets go of what it holds.
    """

    def __init__(
        self,
        run: StoredRun,
        used: ListInUse,
        store: ClusterStore,
        *,
        interrupt: Callable[[], None],
        observe: Callable[[Event], None],
    ) -> None:
        super().__init__(run, used, interrupt=interrupt, observe=observe)
        self._run = run
        self._claimed = store

    async def begin(self) -> None:
        """As `ListKeeper` says; who was added since the campaign was loaded is left out at once."""
        await super().begin()
        if self._index is not None:
            await to_thread.run_sync(lambda: asyncio.run(self._suppress(None)))

    def _heard_before(self) -> list[tuple[FeedbackEvent, str]]:
        return []

    def _rows(self, keys: Iterable[str] | None) -> set[int]:
        """The deliveries that this worker holds; those of the whole campaign are suppressed meanwhile."""
        index = self._index
        if index is None:
            return set()
        named = None
        if keys is not None:
            named = [key for key in keys if index.applies(key)]
            if not named:
                return set()
            if not all(map(str.isascii, named)):  # PostgreSQL's lower case depends on the database's locale
                named = None
        asyncio.run(self._suppress(named))
        return self._claimed.held(lambda address: index.reason(address.key) != "")

    async def _suppress(self, keys: list[str] | None) -> None:
        index = self._index
        assert index is not None  # noqa: S101
        url = self._run.url
        try:
            connection = await connect(url)
            try:
                reason_of = lambda address: index.reason(address.key)  # noqa: E731
                await overruling.suppress(connection, url, self._run.number, reason_of, keys=keys)
            finally:
                await connection.close(timeout=2)
        except StoreError as error:
            raise SuppressionError(f"who the suppression list names cannot be left out: {error}") from error


@asynccontextmanager
async def keeping_store_to_list(
    run: StoredRun,
    store: ClusterStore,
    *,
    is_rehearsal: bool,
    interrupt: Callable[[], None],
    observe: Callable[[Event], None],
) -> AsyncIterator[StoreListKeeper | None]:
    """The keeper of a worker while it sends; None for a rehearsal, and for a campaign without a suppression list."""
    used = run.info.suppression_list
    if used is None or is_rehearsal:
        yield None
        return
    async with at_work(StoreListKeeper(run, used, store, interrupt=interrupt, observe=observe)) as keeper:
        yield keeper


def list_of_store(url: str, own: SuppressionSettings) -> SuppressionSettings:
    """`own` with the suppression list of the store.  Raises `ConfigError` where only a file has entries. Blocks."""
    chosen = replace(own, store=url)
    try:
        file = own.path() if own.is_there() else None
    except RuntimeError:  # no home folder, and so no file
        file = None
    if file is not None:
        with open_settings(own) as kept, open_settings(chosen) as shared:
            number = kept.count(EntryQuery())
            if number and not shared.count(EntryQuery()):
                raise ConfigError(
                    f"the suppression list {file} has {count(number, 'entry', 'entries')}, and that of {shown(url)},"
                    " which holds for campaigns in it, has none",
                    hint=f"bulkmail suppress export --archive list.db, then bulkmail suppress import list.db --store"
                    f" {shlex.quote(shown(url))}",
                )
    return chosen
