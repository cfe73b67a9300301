"""Copies of one message: one transaction, one outcome each, one commit before the end."""

from __future__ import annotations

import pytest

from bulkmail.engine.contracts import Outlet, Plan
from bulkmail.engine.engine import Engine
from bulkmail.model.delivery import Envelope, Mark, Message
from bulkmail.model.pace import Pace
from bulkmail.model.rate import Rate
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.model.relay import Relay
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.route import Route
from bulkmail.outbox.outbox import Entry
from bulkmail.outbox.sending import OutboxStore
from bulkmail.smtp.peer_policy import PeerPolicy
from bulkmail.testing import Drop, ScriptedRelay
from tests.connections import Single, results_of

SOON = Pace(retry=RetryPolicy(schedule=(0.05, 0.05, 0.05)))
PIPED = ("PIPELINING", "SIZE 1000000", "ENHANCEDSTATUSCODES")


def compose(job, first_at):
    content = f"Subject: hello\r\nMessage-ID: <{job.delivery.row}@example.com>\r\n\r\nDear you\r\n".encode()
    return Message(
        Envelope("s@example.com", job.delivery.forward_path), f"<{job.delivery.row}@example.com>", (content,)
    )


@pytest.fixture
def rows(outbox):
    """Puts rows into the outbox, each with this many forward paths: `a1@`, `b1@`, … for the first."""

    def add(number, copies):
        outbox.record(
            Entry(
                Recipient(Address.parse(f"a{row}@example.com"), "", {}, Place("people.csv", row + 1)),
                forward_paths=tuple(f"{chr(97 + copy)}{row}@example.com" for copy in range(copies)),
            )
            for row in range(1, number + 1)
        )
        outbox.finish_loading()

    return add


@pytest.fixture(params=["plain", "pipelining"])
def extensions(request):
    return PIPED if request.param == "pipelining" else ()


@pytest.fixture
def run(outbox, events):
    async def run(relay, *, pace=SOON, connections=2, scheme="smtp"):
        async def connect():
            return await Single.to(where, None, tls_context=None, policy=PeerPolicy())

        where = Relay.parse(f"{scheme}://{relay.host}:{relay.port}?tls=off&connections={connections}")
        outlet = Outlet(Route(where, "the relay"), connect)
        plan = Plan(OutboxStore(outbox), compose=compose, outlets=[outlet], pace=pace, observe=events.append)
        return await Engine(plan).run()

    return run


def outcomes_of(events):
    """What each forward path came to in the end."""
    return {e.delivery.forward_path: e.delivery.status.value for e in results_of(events)}


async def test_copies_go_in_one_transaction(rows, run, events, extensions):
    rows(20, 3)
    async with ScriptedRelay(extensions=extensions) as relay:
        await run(relay)
    assert sorted(message.forward_paths for message in relay.messages) == sorted(
        (f"a{row}@example.com", f"b{row}@example.com", f"c{row}@example.com") for row in range(1, 21)
    )
    assert set(outcomes_of(events).values()) == {"accepted"} and len(outcomes_of(events)) == 60
    assert relay.violations == []


async def test_refused_copy_is_settled_alone(rows, run, events, extensions):
    rows(5, 3)

    def rcpt(path):
        return "550 5.1.1 who?" if path.startswith("b") else None

    async with ScriptedRelay(extensions=extensions, rcpt=rcpt) as relay:
        await run(relay)
    found = outcomes_of(events)
    assert {path: status for path, status in found.items() if status != "accepted"} == {
        f"b{row}@example.com": "rejected" for row in range(1, 6)
    }
    assert len(relay.messages) == 5


async def test_deferred_copy_goes_again_alone(rows, run, events, extensions):
    rows(1, 3)
    answers = [None, "450 4.2.1 busy", None]
    async with ScriptedRelay(extensions=extensions, rcpt=answers) as relay:
        await run(relay)
    assert [message.forward_paths for message in relay.messages] == [
        ("a1@example.com", "c1@example.com"),
        ("b1@example.com",),
    ]
    assert set(outcomes_of(events).values()) == {"accepted"}


async def test_no_answer_to_the_end_is_in_doubt_for_all_but_the_refused(rows, run, events, extensions):
    rows(1, 3)
    async with ScriptedRelay(extensions=extensions, rcpt=[None, "550 5.1.1 who?"], end=Drop(keeps=True)) as relay:
        await run(relay)
    assert outcomes_of(events) == {
        "a1@example.com": "in_doubt",
        "b1@example.com": "rejected",
        "c1@example.com": "in_doubt",
    }
    assert len(relay.messages) == 1


async def test_lmtp_answers_each_copy(rows, run, events):
    rows(2, 3)

    def end(path):
        return {"b": "552 5.2.2 full", "c": "550 5.2.1 closed"}.get(path[0])

    async with ScriptedRelay(is_lmtp=True, extensions=PIPED, end=end) as relay:
        await run(relay, scheme="lmtp", pace=Pace(wait=0.0))
    assert outcomes_of(events) == {
        f"{name}{row}@example.com": status
        for row in (1, 2)
        for name, status in zip("abc", ("accepted", "deferred", "rejected"), strict=True)
    }


async def test_too_many_recipients_go_on_in_another_transaction(rows, run, events, extensions):
    """And the next messages are not asked again: the server's number is kept."""
    rows(4, 5)
    named = 0

    def mail(path):
        nonlocal named
        named = 0

    def rcpt(path):
        nonlocal named
        named += 1
        return "452 4.5.3 too many recipients" if named > 2 else None

    async with ScriptedRelay(extensions=extensions, mail=mail, rcpt=rcpt) as relay:
        await run(relay, connections=1)
    sizes = [len(message.forward_paths) for message in relay.messages]
    assert sum(sizes) == 20 and max(sizes) == 2
    assert set(outcomes_of(events).values()) == {"accepted"}
    assert all(event.delivery.tries == 1 for event in results_of(events))
    assert relay.sessions == 1


async def test_one_commit_marks_all_copies_and_no_others(rows, run, outbox, monkeypatch):
    rows(1, 4)
    marked = []
    write = outbox.write

    def watched(entries):
        marks = [entry.delivery_id for entry in entries if isinstance(entry, Mark)]
        if marks:
            marked.append((marks, len(relay.messages)))
        write(entries)

    monkeypatch.setattr(outbox, "write", watched)
    async with ScriptedRelay(rcpt=[None, "550 5.1.1 who?"]) as relay:
        await run(relay)
    assert marked == [([1, 3, 4], 0)]


async def test_rate_counts_copies(rows, run, events):
    rows(3, 4)
    async with ScriptedRelay(extensions=PIPED) as relay:
        await run(relay, pace=Pace(rate=Rate(200.0, burst=2)))
    assert sorted(len(message.forward_paths) for message in relay.messages)[-1] <= 2
    assert len(outcomes_of(events)) == 12


async def test_limit_counts_copies(rows, run, events):
    rows(3, 4)
    async with ScriptedRelay(extensions=PIPED) as relay:
        await run(relay, pace=Pace(limit=6), connections=1)
    assert len(outcomes_of(events)) == 6


async def test_more_copies_than_a_transaction_holds_go_in_several(rows, run, events):
    rows(2, 26)  # as many as there are messages
    async with ScriptedRelay(extensions=PIPED) as relay:
        import bulkmail.engine.engine as worker

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker, "MOST_COPIES", 10)
            await run(relay, connections=1)
    assert [len(message.forward_paths) for message in relay.messages] == [10, 10, 6] * 2


async def test_copies_of_a_message_too_big_for_the_server_are_refused_without_a_word(rows, run, events):
    rows(1, 3)
    async with ScriptedRelay(extensions=["PIPELINING", "SIZE 20"]) as relay:
        await run(relay)
    assert set(outcomes_of(events).values()) == {"rejected"} and len(outcomes_of(events)) == 3
    assert not any(command.startswith("MAIL") for command in relay.commands)
