"""`bulkmail store`: made once, upgraded, checked, and one sentence for whatever is wrong."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from bulkmail.cluster import store_schema
from bulkmail.cluster.database import StoreError, connect, shown, store_url
from bulkmail.cluster.loading import load
from bulkmail.cluster.session import Session
from bulkmail.cluster.store import ClusterStore
from bulkmail.model.errors import ConfigError
from tests.cluster.making import make_campaign, make_pages
from tests.outbox.making import make_recipient
from tests.servers.postgresql import Database
from tests.store.conftest import answered

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]


def store(*arguments: str, **environment: str) -> tuple[int, str]:
    """What the command said, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "bulkmail", "store", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        cwd=ROOT,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_store_is_made_once_and_can_be_used(postgresql: Database) -> None:
    url = postgresql.make("fresh")
    code, said = store("check", url)
    assert code == 2 and "not a store yet" in said and "bulkmail store create" in said
    assert store("create", BULKMAIL_STORE=url) == (0, f"{url} is a store now.\n")
    code, said = store("create", url)
    assert code == 2 and "is a store already" in said
    assert store("upgrade", url)[0] == 0
    code, said = store("check", url)
    assert code == 0 and "no synchronous standby" in said and "can be used" in said


async def test_every_right_that_is_missing_is_named_and_its_fix_lets_others_load_and_send(database: str) -> None:
    admin = await connect(database)
    for role in ("loader", "sender"):
        await admin.execute(
            f"DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN REVOKE postgres FROM {role};"
            f" END $$; GRANT USAGE ON SCHEMA bulkmail TO {role}; GRANT SELECT ON version TO {role}"
        )
    for role in ("loader", "sender"):
        url = database.replace("postgres@", f"{role}@")
        connection = await connect(url)
        errors = [remark for remark in await store_schema.check(connection, url) if remark.is_error]
        said = "\n".join(remark.text for remark in errors)
        assert f"{role} lacks CREATE on the schema bulkmail" in said
        assert f"{role} lacks SELECT, INSERT, UPDATE, DELETE on campaign, work, spent, reserved, pause, procr" in said
        assert f"{role} lacks SELECT, INSERT, UPDATE on session, shard, row, delivery, attempt, setting, part" in said
        assert "which belong to postgres" in said and "the suppression list" in said
        for remark in errors:
            await admin.execute(remark.fix)
        assert not [remark for remark in await store_schema.check(connection, url) if remark.is_error]
        await admin.execute(f"REVOKE DELETE ON work, reserved FROM {role}; REVOKE postgres FROM {role}")
        errors = [remark for remark in await store_schema.check(connection, url) if remark.is_error]
        assert errors[0].text == f"{role} lacks DELETE on work, reserved"
        for remark in errors:
            await admin.execute(remark.fix)
        if role == "loader":
            await load(connection, url, make_campaign(), make_pages([make_recipient(1)]))
        await connection.close()
    async with Session(url) as session:
        sender = await ClusterStore.open(session, "spring")
        assert len((await answered(sender.claim(0, limit=5, now=time.time()))).jobs) == 1
        await sender.aclose()
    await admin.close()


async def test_store_of_a_later_version_is_left_alone(database: str) -> None:
    connection = await connect(database)
    await connection.execute("INSERT INTO version (version) VALUES (99)")
    for call in (store_schema.upgrade, store_schema.check):
        with pytest.raises(StoreError, match="version 99"):
            await call(connection, database)
    await connection.close()


async def test_two_administrators_at_once_make_one_store(postgresql: Database) -> None:
    url = await asyncio.to_thread(postgresql.make, "pair")
    first, second = await connect(url), await connect(url)
    made = await asyncio.gather(
        store_schema.create(first, url), store_schema.create(second, url), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in made) == ["NoneType", "StoreError"]
    for connection in (first, second):
        await connection.close()


async def test_campaign_is_loaded_whole_or_not_at_all(database: str) -> None:
    connection = await connect(database)
    rows = [make_recipient(number) for number in range(1, 4_001)]
    queues = {number: number % 3 for number in range(1, 4_001)}
    await load(connection, database, make_campaign(canary=20), make_pages(rows, queue_of=queues, most=2_000))
    shards = await connection.fetch(
        "SELECT s.id, s.is_canary, d.id AS delivery FROM shard s JOIN delivery d ON d.campaign = s.campaign"
        " AND d.queue = s.queue AND d.id BETWEEN s.first_id AND s.last_id ORDER BY d.id"
    )
    assert [shard["delivery"] for shard in shards] == list(range(1, 4_001)), "each delivery is in one shard"
    assert max(Counter(shard["id"] for shard in shards).values()) == 500
    assert [shard["delivery"] for shard in shards if shard["is_canary"]] == list(range(1, 21))
    with pytest.raises(StoreError, match="already"):
        await load(connection, database, make_campaign(), make_pages(rows))

    def broken():  # type: ignore[no-untyped-def]
        yield from make_pages(rows[:50])
        raise ValueError("the list ends in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        await load(connection, database, make_campaign("autumn"), broken())
    assert await connection.fetchval("SELECT count(*) FROM campaign") == 1
    await connection.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:secret@db/mail", "password in it"),
        ("postgresql://db/mail?password=secret", "password in it"),
        ("mysql://db/mail", "not the URL of a store"),
        ("spring", "not the URL of a store"),
        ("postgresql://[db/mail", "cannot be read"),
    ],
)
def test_url_that_is_none_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        store_url(url)
    assert "secret" not in str(caught.value)


def test_password_from_the_environment_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKMAIL_STORE", "postgresql://me:secret@db/mail?password=secret&sslmode=require")
    assert shown(store_url(None)) == "postgresql://me@db/mail?sslmode=require"
    monkeypatch.setenv("BULKMAIL_STORE", "")
    with pytest.raises(ConfigError, match="no store is named"):
        store_url(None)


@pytest.mark.parametrize(
    "password", ["secret/1", "1/secret", "secret#1", "secret?1", "1?a@secret", "secret%1", "50%secret"]
)
@pytest.mark.parametrize("is_given", [True, False])
def test_password_that_is_not_quoted_is_refused_and_never_shown(
    password: str, is_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://me:{password}@db/mail"
    monkeypatch.setenv("BULKMAIL_STORE", url)
    with pytest.raises(ConfigError) as caught:
        store_url(url if is_given else None)
    assert "secret" not in f"{caught.value} {caught.value.hint} {shown(url)}"


async def test_store_that_does_not_answer_is_named(postgresql: Database) -> None:
    with pytest.raises(StoreError, match=re.escape("127.0.0.1:1/mail")):
        await connect("postgresql://postgres@127.0.0.1:1/mail")
    with pytest.raises(StoreError, match="abc"):
        await connect("postgresql://postgres@127.0.0.1:abc/mail")
    with pytest.raises(StoreError, match="nowhere"):
        await connect(postgresql.url("nowhere"))
