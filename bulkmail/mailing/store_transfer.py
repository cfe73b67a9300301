"""A campaign on its way into a store, checked as any other, and back into a file that reports are made from."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from anyio import from_thread, to_thread
from msgspec import structs

from bulkmail.cluster.campaigns import CampaignState, StoredCampaign
from bulkmail.cluster.database import saying
from bulkmail.cluster.loading import NewCampaign, load
from bulkmail.cluster.reader import read_pages
from bulkmail.cluster.session import expire
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.store_run import PROVIDERS, QUEUES, campaign_of, info_of, queues_to_setting, request_in
from bulkmail.mailing.suppression_list import with_bounce_key
from bulkmail.model.errors import ConfigError
from bulkmail.model.kept_row import KeptPage
from bulkmail.outbox.entries import encode_campaign
from bulkmail.outbox.run_copy import CopiedRun, pages_of, write_copy
from bulkmail.outbox.run_info import Pause

if TYPE_CHECKING:
    from asyncpg import Connection


async def upload(connection: Connection, url: str, name: str, mailing: Mailing) -> int:
    """Loads a mailing that passed its checks into the store under `name`; says its number there.

    Raises `StoreError`, for a name that is taken, too, and `ChecksFailed`; then nothing was loaded.
    """
    outbox = mailing.outbox
    campaign = outbox.campaign
    if campaign is None:
        raise ConfigError("ready-made messages cannot be sent from a store", hint="send them from this machine")
    queues = await mailing.find_queues()
    await to_thread.run_sync(with_bounce_key, outbox, mailing.keys)
    settings = structs.replace(outbox.info, maildir="").notes() | {
        QUEUES: queues_to_setting(queues),
        PROVIDERS: msgspec.json.encode(mailing.providers).decode(),
    }
    new = NewCampaign(
        name=name,
        run_id=outbox.run_id,
        content=bytes(await to_thread.run_sync(encode_campaign, campaign)),
        fingerprint=campaign.fingerprint,
        is_rehearsal=outbox.is_rehearsal,
        version=await to_thread.run_sync(version, "bulkmail"),
        settings=settings,
        canary=mailing.pace.breakers.canary,
    )
    return await load(connection, url, new, pages_of(outbox))


@asynccontextmanager
async def copied(connection: Connection, url: str, stored: StoredCampaign) -> AsyncIterator[Path]:
    """An outbox with all that the store has of the campaign now, for as long as the context lasts.

    Workers that are gone are noticed first, so that what they left is in doubt.
    """
    with saying(url):
        await expire(connection)
    info = info_of(stored)
    if stored.state is CampaignState.STOPPED:
        request = request_in(stored.why)
        info = structs.replace(
            info,
            stopped=request,
            rest=info.rest if request is not None else Pause(None, stored.why),
        )
    run = CopiedRun(
        run_id=stored.run_id,
        created_at=stored.created_at,
        started_at=stored.started_at,
        ended_at=stored.ended_at,
        allow_duplicates=stored.allow_duplicates,
        campaign=campaign_of(stored),
        info=info,
    )
    pages = read_pages(connection, url, stored.id)

    def fetched() -> Iterator[KeptPage]:
        while (page := from_thread.run(_next, pages)) is not None:
            yield page

    with tempfile.TemporaryDirectory(prefix="bulkmail-") as folder:
        path = Path(folder) / f"{stored.id}.outbox"
        await to_thread.run_sync(write_copy, path, run, fetched())
        yield path


async def _next(pages: AsyncIterator[KeptPage]) -> KeptPage | None:
    return await anext(pages, None)
