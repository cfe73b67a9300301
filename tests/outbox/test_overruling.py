"""Rows in doubt that were found: which of them, and whose copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bulkmail.model.tally import Status
from bulkmail.outbox.entries import ReadyMade
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from tests.outbox.making import BUSY, LOST, due, make_entries, make_mark, make_recipient, send, statuses


def lose_all(outbox: Outbox) -> None:
    for delivery in due(outbox):
        send(outbox, delivery, LOST)


def test_doubts_say_whether_a_message_id_is_of_one_alone(create: Callable[..., Outbox], path: Path) -> None:
    """Copies of a row are not alone, nor are ready-made messages that someone handed over twice."""
    twice = ReadyMade(b"x\r\n", "shop@example.org", "<twice@x>", "message")
    once = ReadyMade(b"x\r\n", "shop@example.org", "<once@x>", "message")
    outbox = create(
        [
            *make_entries(1),
            Entry(make_recipient(7), forward_paths=("user7@example.org", "boss@example.org")),
            *(Entry(message, forward_paths=("a@example.org",)) for message in (twice, once, twice)),
        ],
        allow_duplicates=True,
    )
    lose_all(outbox)
    found = [(doubt.row, doubt.forward_path, doubt.is_alone) for doubt in outbox.doubts()]
    assert found == [
        (1, "user1@example.org", True),
        (2, "user7@example.org", False),
        (2, "boss@example.org", False),
        (3, "a@example.org", False),
        (4, "a@example.org", True),
        (5, "a@example.org", False),
    ]
    assert [doubt.message_id for doubt in outbox.doubts()][3:] == ["<twice@x>", "<once@x>", "<twice@x>"]


def test_found_messages_are_accepted_and_no_others(create: Callable[..., Outbox]) -> None:
    outbox = create(make_entries(4))
    first, *rest = due(outbox)
    send(outbox, first)
    for delivery in rest[:2]:
        send(outbox, delivery, LOST)
    assert (
        outbox.settle_found({1: "accepted before", rest[0].id: "found in x", rest[2].id: "pending", 99: "nobody"}) == 1
    )
    assert statuses(outbox) == {Status.ACCEPTED: 2, Status.IN_DOUBT: 1, Status.PENDING: 1}


def test_row_in_doubt_that_is_to_be_sent_again_can_be_found_until_the_new_message_goes_out(
    create: Callable[..., Outbox],
) -> None:
    outbox = create(make_entries(4))
    lose_all(outbox)
    outbox.settle_in_doubt(Status.PENDING)
    _, second, third, fourth = due(outbox)
    assert [(doubt.delivery, doubt.is_retried) for doubt in outbox.doubts()] == [(n, True) for n in (1, 2, 3, 4)]
    assert {row.reason for row in OutboxReader.over(outbox).rows()} == {"in doubt before, to be sent again"}
    send(outbox, second, BUSY)
    send(outbox, third)
    outbox.write([make_mark(fourth)])
    assert [doubt.delivery for doubt in outbox.doubts()] == [1, 2]
    assert outbox.settle_found(dict.fromkeys((1, 2, 3, 4), "found in x")) == 2
    assert statuses(outbox) == {Status.ACCEPTED: 3, Status.PENDING: 1}
    assert due(outbox, 1e12) == []
    rows = list(OutboxReader.over(outbox).rows())
    assert rows[0].overruled.startswith("found in x on ") and rows[2].overruled == ""


def test_row_that_was_never_in_doubt_cannot_be_found(create: Callable[..., Outbox]) -> None:
    outbox = create(make_entries(2))
    send(outbox, due(outbox)[0], BUSY)
    assert (outbox.doubts(), outbox.settle_found({1: "x", 2: "x"})) == ([], 0)
