"""The journal of turns and the tables are one to anyone who looks, at every moment and after every kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bulkmail.model.delivery import PutBack, Release
from bulkmail.model.errors import OutboxError
from bulkmail.model.tally import Status
from bulkmail.outbox.entries import Fold, RowRecord
from bulkmail.outbox.lookup import FoundDelivery
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.turns import FOLD
from tests.outbox.making import BUSY, LOST, UNKNOWN, due, make_entries, make_mark, make_recipient, make_settlement, send


def rows_of_journal(outbox: Outbox) -> int:
    with outbox.store.reading() as connection:
        return int(connection.execute("SELECT count(*) FROM turn").fetchone()[0])


def seen(reader: OutboxReader) -> dict[str, object]:
    """What every method of a reader says, but for what is in doubt after a crash."""
    rows = list(reader.rows())
    settled = [row for row in rows if row.status is Status.ACCEPTED]
    return {
        "accepted": settled,
        "by relay": reader.accepted_by_relay(),
        "attempts": [each for each in reader.attempts() if each.outcome == "accepted"],
        "tally": reader.tally()[Status.ACCEPTED],
        "copies": reader.tally().copies.get(Status.ACCEPTED, 0),
        "reached": sorted(set(reader.reached()) - {row.address for row in rows if row.status is not Status.ACCEPTED}),
        "statuses": [each for each in reader.statuses() if each.status is Status.ACCEPTED],
        "open or in doubt": reader.tally().open + reader.tally()[Status.IN_DOUBT],
    }


def copied(path: Path, to: Path) -> Path:
    """The files as a kill would leave them just now."""
    to.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, to / file.name)
    return to / path.name


def check_readers(path: Path, folder: Path) -> None:
    """A reader of the killed outbox says what one of the recovered copy says."""
    killed, recovered = copied(path, folder / "killed"), copied(path, folder / "recovered")
    Outbox.open(recovered).close()
    with OutboxReader.open(killed) as reader, OutboxReader.open(recovered) as other:
        assert seen(reader) == seen(other)
        assert reader.last_tried_at() is not None


@pytest.mark.crash
@pytest.mark.parametrize("number", [1, 3, FOLD - 1, FOLD, FOLD + 1, 2 * FOLD + 5])
def test_killed_before_and_after_each_fold_every_reader_says_the_same(
    create: Callable[..., Outbox], path: Path, tmp_path: Path, number: int
) -> None:
    outbox = create([*make_entries(2 * FOLD + 10), Entry(make_recipient(9_000), forward_paths=("a@x.org", "b@x.org"))])
    everyone = due(outbox)
    for delivery in everyone[: number - 1]:
        outbox.write([make_mark(delivery), make_settlement(delivery)])
    send(outbox, everyone[-1])  # a copy
    outbox.write([make_mark(everyone[number + 3])])
    assert rows_of_journal(outbox) > 0
    check_readers(path, tmp_path)
    assert outbox.tally()[Status.ACCEPTED] + outbox.tally().copies.get(Status.ACCEPTED, 0) == number


def test_acceptances_are_folded_by_the_hundred_and_with_whatever_else_comes(create: Callable[..., Outbox]) -> None:
    outbox = create(make_entries(FOLD + 20))
    everyone = due(outbox)
    for delivery in everyone[: FOLD - 1]:
        send(outbox, delivery)
    assert rows_of_journal(outbox) > FOLD
    send(outbox, everyone[FOLD - 1])
    assert rows_of_journal(outbox) == 0
    send(outbox, everyone[FOLD])
    assert outbox.has_unfolded
    outbox.write([Fold()])
    assert not outbox.has_unfolded
    send(outbox, everyone[FOLD + 1])
    send(outbox, everyone[FOLD + 2], UNKNOWN)
    assert not outbox.has_unfolded


def test_delivery_stays_claimed_until_its_outcome_is_folded(create: Callable[..., Outbox]) -> None:
    outbox = create(make_entries(3))
    first, second, third = due(outbox)
    send(outbox, first)
    outbox.write([make_mark(second)])
    assert outbox.has_unfolded
    assert [delivery.id for delivery in due(outbox)] == [third.id]
    outbox.write([Release(second.id)])
    assert [delivery.id for delivery in due(outbox)] == [second.id, third.id]
    assert outbox.count_open(0) == 2  # looks at tables that say all
    assert not outbox.has_unfolded


def test_tries_stand_in_the_order_in_which_they_ended(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(4))
    for delivery, event in zip(due(outbox), [None, BUSY, None, UNKNOWN], strict=True):
        send(outbox, delivery) if event is None else send(outbox, delivery, event)
    with OutboxReader.open(path) as reader:
        assert [attempt.row for attempt in reader.attempts()] == [1, 2, 3, 4]


def test_mark_of_the_journal_is_not_given_twice(create: Callable[..., Outbox]) -> None:
    outbox = create(make_entries(2))
    first, second = due(outbox)
    outbox.write([make_mark(first)])
    with pytest.raises(OutboxError, match="is being sent to already"):
        outbox.write([make_mark(first)])
    send(outbox, second)
    with pytest.raises(OutboxError, match="is accepted and cannot be sent to"):
        outbox.write([make_mark(second)])
    assert outbox.tally()[Status.ACCEPTED] == 1


def test_released_mark_leaves_the_delivery_as_it_was(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(2))
    first, second = due(outbox)
    outbox.write([make_mark(first), make_mark(second)])
    outbox.write([Release(first.id)])
    send(outbox, first)
    outbox.close()
    with Outbox.open(path) as outbox:
        assert outbox.newly_in_doubt == 1
        assert outbox.tally().by_status == {Status.ACCEPTED: 1, Status.IN_DOUBT: 1}


@pytest.mark.parametrize("event", [BUSY, UNKNOWN, LOST])
def test_other_outcome_of_a_mark_of_the_journal_keeps_what_the_mark_says(
    create: Callable[..., Outbox], path: Path, event: object
) -> None:
    outbox = create(make_entries(1))
    (delivery,) = due(outbox)
    outbox.write([make_mark(delivery, first_at=77.0)])
    outbox.write([make_settlement(delivery, event, at=88.0)])  # type: ignore[arg-type]
    with OutboxReader.open(path) as reader:
        (record,) = reader.rows()
    assert (record.message_id, record.first_at, record.attempts) == ("<1@example.org>", 77.0, 1)


def test_what_changes_rows_otherwise_sees_marks_and_outcomes(create: Callable[..., Outbox]) -> None:
    outbox = create(make_entries(4))
    first, second, *_ = due(outbox)
    send(outbox, first)
    outbox.write([make_mark(second)])
    assert outbox.suppress(lambda address: "opted out").rows == 2  # neither what was sent nor what is being sent
    outbox.write([make_settlement(second)])
    assert outbox.tally().by_status == {Status.ACCEPTED: 2, Status.SUPPRESSED: 2}
    outbox.write([PutBack((first.id,))])
    assert outbox.tally()[Status.ACCEPTED] == 2  # which was not rejected


def test_damaged_journal_is_reported(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(2))
    outbox.write([make_mark(due(outbox)[0])])
    with outbox.store.writing() as connection:
        connection.execute("UPDATE turn SET entries = x'93c1'")
    with OutboxReader.open(path) as reader, pytest.raises(OutboxError, match="is damaged"):
        list(reader.rows())
    copy = copied(path, path.parent / "copy")
    with pytest.raises(OutboxError, match="is damaged"):
        Outbox.open(copy)


def test_record_read_over_the_journal_equals_the_folded_one(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(2))
    send(outbox, due(outbox)[0])

    def record() -> RowRecord:
        with OutboxReader.open(path) as reader:
            return next(iter(reader.rows()))

    before = record()
    outbox.write([Fold()])
    assert before == record()
    assert (before.status, before.reply, before.attempts) == (Status.ACCEPTED, "Ok: queued as 4WxYz1", 1)


@pytest.mark.parametrize("by", ["number", "row", "message-id", "path"])
def test_delivery_found_over_the_journal_equals_the_folded_one(
    create: Callable[..., Outbox], path: Path, by: str
) -> None:
    outbox = create(make_entries(3))
    accepted, marked, _ = due(outbox)
    send(outbox, accepted)
    outbox.write([make_mark(marked)])
    numbers, rows = (accepted.id, marked.id), (accepted.row, marked.row)
    wanted = {
        "number": {"numbers": numbers},
        "row": {"rows": rows},
        "message-id": {"message_ids": [f"<{number}@example.org>" for number in numbers]},
        "path": {"paths": [accepted.forward_path, marked.forward_path]},
    }[by]

    def found() -> list[FoundDelivery]:
        with OutboxReader.open(path) as reader:
            return sorted(reader.find(**wanted))  # type: ignore[arg-type]

    before = found()
    outbox.write([Fold()])
    assert before == found()
    assert [(each.message_id, each.was_sent, each.first_at) for each in before] == [
        (f"<{accepted.id}@example.org>", True, 1000.0),
        (f"<{marked.id}@example.org>", False, 1000.0),
    ]
    with OutboxReader.open(path) as reader:
        assert reader.find(message_ids=["<another@example.org>"]) == []
