"""The suppression list from a run's side: applied at loading and while it sends, told what servers say."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

import bulkmail
from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, Proof
from bulkmail.model.suppression import SuppressionReason
from bulkmail.model.tally import Status
from bulkmail.sandbox.faults import Faults
from bulkmail.sandbox.server import Sandbox
from bulkmail.settings.suppressions import SuppressionSettings
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.ports import Addition, EntryQuery
from bulkmail.testing import Late, ScriptedRelay

EVERYTHING = EntryQuery()
DELIVERS = ("8BITMIME", "ENHANCEDSTATUSCODES", "PIPELINING")  # without the word of a sandbox
ROWS = [{"email": f"p{number}@example.com"} for number in range(6)]
NO_USER = "550 5.1.1 no such user"


@pytest.fixture
def campaign():
    return bulkmail.compose(from_="Shop <shop@example.com>", subject="Hello", text="Dear {{ email }},\n", name="Spring")


@pytest.fixture
def path(state_folder: Path) -> Path:
    return state_folder / "suppressions.db"


class Elsewhere:
    """A store that another thread uses, as programs with a loop do."""

    def __init__(self, store: SqliteSuppressions, thread: Executor) -> None:
        self._store = store
        self._thread = thread

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            found = self._thread.submit(lambda: getattr(self._store, name)(*values, **named)).result()
            return self._thread.submit(list, found).result() if isinstance(found, Iterator) else found

        return call


@pytest.fixture
def store(path: Path) -> Iterator[Elsewhere]:
    with SqliteSuppressions(path) as opened, ThreadPoolExecutor(1) as thread:
        yield Elsewhere(opened, thread)


def url_of(relay, options=""):
    return f"smtp://{relay.host}:{relay.port}?tls=off{options}"


def reached(relay):
    return sorted(path for message in relay.messages for path in message.forward_paths)


def unsubscribed(address, list_id=""):
    return FeedbackEvent(
        f"link {address}",
        FeedbackKind.UNSUBSCRIBE,
        time.time(),
        Proof.TOKEN,
        forward_path=address,
        list_id=list_id,
    )


# -- loading


@pytest.mark.slow
async def test_list_is_applied_at_loading_with_its_reasons(campaign, store, tmp_path):
    store.add([Addition("p0@example.com", note="by phone"), Addition("@example.net")])
    store.record([replace(unsubscribed("p1@example.com"), campaign="winter", run_id="w")])
    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(url_of(relay))
        await mailer.send(campaign, [*ROWS, {"email": "x@example.net"}], outbox=tmp_path / "run.outbox")
    assert reached(relay) == [f"p{number}@example.com" for number in range(2, 6)]
    with bulkmail.Report.read(tmp_path / "run.outbox").source() as source:
        reasons = {row.address: row.reason for row in source.rows() if row.status is Status.SUPPRESSED}
    assert set(reasons) == {"p0@example.com", "p1@example.com", "x@example.net"}
    assert reasons["p0@example.com"].startswith("added by hand on") and reasons["p0@example.com"].endswith("by phone")
    assert reasons["p1@example.com"].startswith("unsubscribed on") and "(winter)" in reasons["p1@example.com"]


@pytest.mark.slow
async def test_list_of_one_campaign_leaves_others_alone(campaign, store):
    store.record([unsubscribed("p0@example.com", "spring"), unsubscribed("p1@example.com", "news.example.com")])
    news = replace(campaign, list_id=bulkmail.Template("list_id", "News <News.example.com>"))
    each = replace(campaign, list_id=bulkmail.Template("list_id", "{{ email }} <x.example.com>"))
    for chosen, left_out in ((campaign, {0}), (news, {1}), (each, {0, 1})):
        async with ScriptedRelay() as relay:
            await bulkmail.send(chosen, ROWS, relay=url_of(relay))
        assert reached(relay) == [f"p{number}@example.com" for number in range(6) if number not in left_out]


@pytest.mark.slow
async def test_campaign_applies_only_the_reasons_it_names(campaign, store):
    store.add([Addition("p0@example.com", SuppressionReason.HARD), Addition("p1@example.com")])
    async with ScriptedRelay() as relay:
        only_hard = SuppressionSettings(apply=frozenset({SuppressionReason.HARD}))
        await bulkmail.Mailer(url_of(relay), suppressions=only_hard).send(campaign, ROWS)
        assert len(relay.messages) == 5
        await bulkmail.Mailer(url_of(relay), suppressions=None).send(campaign, ROWS)
        assert len(relay.messages) == 11


async def test_ready_made_messages_leave_the_suppressed_out(store):
    store.add([Addition("p0@example.com")])
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.com", "p0@example.com, p1@example.com", "Hello"
    message.set_content("Hello\n")
    async with ScriptedRelay() as relay:
        await bulkmail.Mailer(url_of(relay)).send_messages([message])
    assert reached(relay) == ["p1@example.com"]


@pytest.mark.slow
async def test_run_that_goes_on_applies_who_was_added_since(campaign, store, tmp_path):
    async with ScriptedRelay(rcpt=["451 4.2.1 busy"] * 6 + ["250 ok"]) as relay:
        mailer = bulkmail.Mailer(url_of(relay), pace=bulkmail.Pace(wait=0))
        first = await mailer.send(campaign, ROWS, outbox=tmp_path / "run.outbox")
        assert first.tally.open == 6
        await to_thread.run_sync(store.add, [Addition("p2@example.com")])
        second = await mailer.send(campaign, ROWS, outbox=tmp_path / "run.outbox")
    assert second.tally[Status.SUPPRESSED] == 1


async def test_list_that_cannot_be_read_stops_the_run_before_anything_is_sent(campaign, path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a database, but something else" * 100)
    path.chmod(0o600)
    async with ScriptedRelay() as relay:
        with pytest.raises(bulkmail.SuppressionError, match="not a suppression list"):
            await bulkmail.send(campaign, ROWS, relay=url_of(relay))
    assert relay.messages == []


# -- what servers say


@pytest.mark.slow
async def test_refusal_during_smtp_enters_the_list(campaign, store, tmp_path):
    def answer(path):
        return {"p1": NO_USER, "p2": "550 5.7.1 looks like spam", "p3": "552 5.2.2 mailbox full"}.get(path[:2])

    async with ScriptedRelay(rcpt=answer, extensions=DELIVERS) as relay:
        await bulkmail.Mailer(url_of(relay), pace=bulkmail.Pace(wait=0)).send(
            campaign, ROWS, outbox=tmp_path / "run.outbox"
        )
    assert [(entry.key, entry.reason) for entry in store.entries(EVERYTHING)] == [
        ("p1@example.com", SuppressionReason.HARD)
    ]
    (stored,) = store.history("p1@example.com").events
    event = stored.event
    assert (event.code, event.enhanced, event.words, event.campaign) == (550, "5.1.1", "no such user", "Spring")
    assert event.proof is Proof.SMTP and event.row == 2 and event.kind is FeedbackKind.HARD
    (run,) = store.runs()
    assert run.outbox == str(tmp_path / "run.outbox") and run.list_id == "spring"
    async with ScriptedRelay(extensions=DELIVERS) as relay:
        await bulkmail.send(campaign, ROWS, relay=url_of(relay))
    assert reached(relay) == [f"p{number}@example.com" for number in (0, 2, 3, 4, 5)]


@pytest.mark.slow
async def test_refusal_that_a_killed_run_could_not_write_enters_when_it_goes_on(campaign, store, path, tmp_path):
    answers = {"p1": NO_USER, "p2": "451 4.2.1 busy"}
    async with ScriptedRelay(rcpt=lambda path: answers.get(path[:2]), extensions=DELIVERS) as relay:
        mailer = bulkmail.Mailer(url_of(relay), pace=bulkmail.Pace(wait=0))
        await mailer.send(campaign, ROWS, outbox=tmp_path / "run.outbox")
        assert store.count(EVERYTHING) == 1
        with closing(sqlite3.connect(path)) as connection:  # as if it had been killed before it wrote
            for table in ("entry", "event", "change"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608
            connection.commit()
        with closing(sqlite3.connect(tmp_path / "run.outbox")) as connection:
            connection.execute("UPDATE delivery SET due_at = 1 WHERE due_at IS NOT NULL")
            connection.commit()
        answers.clear()
        report = await mailer.send(campaign, ROWS, outbox=tmp_path / "run.outbox")
    assert report.accepted == 5
    assert [entry.key for entry in store.entries(EVERYTHING)] == ["p1@example.com"]


@pytest.mark.slow
async def test_refusal_of_a_copy_enters_under_its_own_address(campaign, store):
    copied = replace(campaign, bcc=bulkmail.Template("bcc", "archive@example.com"))
    refuse = lambda path: NO_USER if path.startswith("archive") else None  # noqa: E731
    async with ScriptedRelay(rcpt=refuse, extensions=DELIVERS) as relay:
        await bulkmail.send(copied, ROWS[:1], relay=url_of(relay))
    assert [entry.key for entry in store.entries(EVERYTHING)] == ["archive@example.com"]


@pytest.mark.slow
async def test_refusal_by_a_sandbox_leaves_no_trace(campaign, path):
    refuse = lambda path: NO_USER  # noqa: E731
    async with ScriptedRelay(rcpt=refuse) as relay:  # which says that it is one
        await bulkmail.send(campaign, ROWS, relay=url_of(relay))
    assert not path.exists()


async def test_rehearsal_reads_the_list_and_leaves_it_as_it_is(campaign, store, path):
    store.add([Addition("p0@example.com")])
    before = path.read_bytes()
    report = await bulkmail.send(campaign, ROWS, relay="null:")
    assert report.tally[Status.SUPPRESSED] == 1
    assert path.read_bytes() == before


async def test_sandbox_that_refuses_half_of_them_leaves_the_list_as_it_is(campaign, store, path, tmp_path):
    store.add([Addition("p0@example.com")])
    before = path.read_bytes()
    async with Sandbox(tmp_path / "kept", faults=Faults(reject=0.5)) as sandbox:
        report = await bulkmail.send(campaign, ROWS, relay=f"smtp://{sandbox.host}:{sandbox.port}?tls=off")
    assert report.tally[Status.SUPPRESSED] == 1 and report.tally[Status.REJECTED]
    assert path.read_bytes() == before


@pytest.mark.slow
async def test_provider_that_refuses_nearly_everyone_suppresses_no_address(campaign, store):
    rows = [{"email": f"p{number}@gmail.com"} for number in range(120)] + [{"email": "x@example.org"}]
    async with ScriptedRelay(rcpt=lambda path: NO_USER, extensions=DELIVERS) as relay:
        await bulkmail.Mailer(url_of(relay, "&connections=3")).send(campaign, rows)
    assert [entry.key for entry in store.entries(EVERYTHING)] == ["x@example.org"]
    (found,) = store.mistakes()
    assert (found.provider, found.held) == ("google", 120)


async def test_message_that_arrives_clears_soft_bounces(campaign, store, path):
    old = time.time() - 3 * 86_400
    for number in range(2):
        event = replace(unsubscribed("p0@example.com"), source_id=f"soft {number}", kind=FeedbackKind.SOFT)
        store.record([replace(event, proof=Proof.MESSAGE_ID, at=old + number * 86_400)])
    async with ScriptedRelay(extensions=DELIVERS) as relay:
        await bulkmail.send(campaign, ROWS, relay=url_of(relay))
    digest = store.digest("p0@example.com")
    with closing(sqlite3.connect(path)) as connection:
        assert [found for (found,) in connection.execute("SELECT digest FROM reached")] == [digest]


# -- while it sends


@pytest.mark.slow
async def test_running_send_leaves_out_who_opts_out_within_two_seconds(campaign, store, tmp_path):
    rows = [{"email": f"p{number}@example.com"} for number in range(60)]
    said_at: dict[str, float] = {}

    def answer(path):
        said_at[path] = time.monotonic()
        return Late(0.1, "250 ok")

    async with ScriptedRelay(rcpt=answer, extensions=("8BITMIME",)) as relay:
        mailer = bulkmail.Mailer(url_of(relay, "&connections=1"))
        async with anyio.create_task_group() as group:

            async def opt_out() -> None:
                while len(relay.messages) < 3:
                    await anyio.sleep(0.02)
                who = [unsubscribed(f"p{number}@example.com") for number in range(50, 60)]
                await to_thread.run_sync(store.record, who)
                await to_thread.run_sync(store.add, [Addition("@example.net"), Addition("p45@example.com")])

            group.start_soon(opt_out)
            report = await mailer.send(campaign, rows, outbox=tmp_path / "run.outbox")
    assert report.tally[Status.SUPPRESSED] == 11 and report.accepted == 49
    assert "p45@example.com" not in said_at and "p55@example.com" not in said_at
    assert len(relay.messages) == 49  # everyone else once


@pytest.mark.slow
async def test_running_send_keeps_its_limit_when_the_list_interrupts_it(campaign, store):
    rows = [{"email": f"p{number}@example.com"} for number in range(60)]
    async with ScriptedRelay(rcpt=lambda path: Late(0.1, "250 ok"), extensions=("8BITMIME",)) as relay:
        mailer = bulkmail.Mailer(url_of(relay, "&connections=1"), pace=bulkmail.Pace(limit=30))
        async with anyio.create_task_group() as group:

            async def opt_out() -> None:
                while len(relay.messages) < 3:
                    await anyio.sleep(0.02)
                await to_thread.run_sync(store.add, [Addition("p59@example.com")])

            group.start_soon(opt_out)
            report = await mailer.send(campaign, rows)
    assert (report.accepted, report.tally[Status.SUPPRESSED]) == (30, 1)


@pytest.mark.slow
async def test_running_send_applies_an_import_and_a_list_that_is_new(campaign, path):
    rows = [{"email": f"p{number}@example.com"} for number in range(40)]

    def import_() -> None:
        with SqliteSuppressions(path) as store:
            store.import_([Addition(f"p{number}@example.com") for number in range(35, 200)], why="old.csv")

    async with ScriptedRelay(rcpt=lambda path: Late(0.1, "250 ok"), extensions=("8BITMIME",)) as relay:
        mailer = bulkmail.Mailer(url_of(relay, "&connections=1"))
        async with anyio.create_task_group() as group:

            async def add() -> None:
                while len(relay.messages) < 3:
                    await anyio.sleep(0.02)
                await to_thread.run_sync(import_)

            group.start_soon(add)
            report = await mailer.send(campaign, rows)
    assert (report.accepted, report.tally[Status.SUPPRESSED]) == (35, 5)
