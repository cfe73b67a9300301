"""Jobs are handed out once each, keys in turns, and no one is overlooked whatever becomes of them."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from bulkmail.engine.queues import BATCH, Queues
from bulkmail.model.delivery import AttemptResult, Settlement
from bulkmail.model.tally import Status
from bulkmail.model.verdict import judge
from bulkmail.outbox.sending import OutboxStore
from tests.outbox.making import BUSY, OK


def number_of(job):
    return int(job.delivery.forward_path[1:].partition("@")[0])


def sort(outbox, keys):
    outbox.sort_into_queues(lambda path, recipient, reverse: int(path[1:].partition("@")[0]) % keys, reads_rows=False)


def settle(store, job, status, due_at):
    """What became of a job is put down as an engine does."""
    event = OK if status is Status.ACCEPTED else BUSY
    attempt = AttemptResult(1.0, 0.0, "the relay", event, judge(event))
    delivery = replace(job.delivery, status=status, due_at=due_at, tries=job.delivery.tries + 1)
    store.write([Settlement(delivery, attempt)])


def test_keys_take_turns(people, outbox):
    people(9)
    sort(outbox, 3)
    queues = Queues(OutboxStore(outbox), keys=range(3))
    assert [number_of(queues.next(1.0)) % 3 for _ in range(9)] == [0, 1, 2] * 3
    assert queues.next(1.0) is None


def test_closed_key_is_passed_over_and_not_looked_through(people, outbox, monkeypatch):
    people(5 * BATCH)
    sort(outbox, 2)
    queues = Queues(OutboxStore(outbox), keys=range(2))
    looks = []
    due = outbox.due
    monkeypatch.setattr(outbox, "due", lambda now, **more: looks.append(more["queue"]) or due(now, **more))
    numbers = []
    while (job := queues.next(1.0, may_go=lambda key: key == 1)) is not None:
        numbers.append(number_of(job))
    assert numbers == list(range(1, 5 * BATCH, 2))
    assert looks.count(0) <= 1


def test_unwanted_are_never_looked_at(people, outbox, monkeypatch):
    people(10 * BATCH)
    made = []
    due = outbox.due
    monkeypatch.setattr(outbox, "due", lambda now, **more: made.extend(found := due(now, **more)) or found)
    queues = Queues(OutboxStore(outbox, wants={9 * BATCH, 3, 10 * BATCH + 1}))
    assert [number_of(queues.next(1.0)), number_of(queues.next(1.0))] == [3, 9 * BATCH]
    assert queues.next(1.0) is None
    assert len(made) == 2


async def test_unwanted_that_are_due_later_are_not_waited_for(people, outbox):
    people(3)
    with outbox.store.writing() as connection:
        connection.execute("UPDATE delivery SET status = 'deferred', due_at = 10 * id")
    queues = Queues(OutboxStore(outbox, wants={2}))
    assert queues.next(1.0) is None
    assert (queues.next_due(1.0), await queues.left_in(0)) == (20.0, 1)
    assert number_of(queues.next(40.0)) == 2
    assert queues.next(40.0) is None


async def test_wanted_that_comes_again_at_once_is_handed_out_again(people, outbox):
    people(5)
    store = OutboxStore(outbox, wants={4, 5})
    queues = Queues(store)
    first, second = queues.next(1.0), queues.next(1.0)
    settle(store, first, Status.PENDING, 0.0)
    queues.settled(first.delivery.id, due_at=0.0)
    assert number_of(queues.next(1.0)) == number_of(first) and number_of(second) == 5


@pytest.mark.slow
async def test_everybody_comes_until_closed_whatever_happens(people, outbox):
    """Taken back, due again at once, due later: in any order nobody is lost and nobody is out twice."""
    people(150)
    sort(outbox, 3)
    rng = random.Random(7)
    store = OutboxStore(outbox)
    queues, out, closed, now = Queues(store, keys=range(3)), {}, set(), 1.0
    while len(closed) < 150:
        job = queues.next(now, may_go=lambda key: rng.random() < 0.8) if rng.random() < 0.6 else None
        if job is not None:
            assert job.delivery.id not in out.keys() | closed
            out[job.delivery.id] = job
        elif out:
            number = rng.choice(list(out))
            job = out.pop(number)
            what = rng.randrange(4)
            if what == 0:
                queues.take_back(job)
            else:
                status, due_at = [
                    (job.delivery.status, job.delivery.due_at),  # as it was: at once
                    (Status.DEFERRED, now + 5),
                    (Status.ACCEPTED, 0.0),
                ][what - 1]
                settle(store, job, status, due_at)
                queues.settled(number, due_at=due_at if status.is_open else None)
                closed |= {number} if what == 3 else set()
        now += 0.5
    assert queues.next(now) is None
    assert queues.in_hand == 0
