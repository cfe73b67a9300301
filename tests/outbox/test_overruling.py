"""Rows in doubt that were found: which of them, and whose copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bulkmail.model.delivery import Status
from bulkmail.outbox.outbox import Entry, Outbox, ReadyMade
from tests.outbox.making import LOST, due, make_entries, make_recipient, send, statuses


def lose_all(outbox: Outbox) -> None:
    for delivery in due(outbox):
        send(outbox, delivery, LOST)


def test_doubts_say_whether_a_message_id_is_of_one_alone(create: Callable[..., Outbox], path: Path) -> None:
    """Copies of a row are not alone, nor are ready-made messages that somebody handed over twice."""
    twice = ReadyMade(b"x\r\n", "shop@example.org", "<twice@x>", "letter")
    once = ReadyMade(b"x\r\n", "shop@example.org", "<once@x>", "letter")
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


def test_found_letters_are_accepted_and_no_others(create: Callable[..., Outbox]) -> None:
    outbox = create(make_entries(4))
    first, *rest = due(outbox)
    send(outbox, first)
    for delivery in rest[:2]:
        send(outbox, delivery, LOST)
    assert (
        outbox.settle_found({1: "accepted before", rest[0].id: "found in x", rest[2].id: "pending", 99: "nobody"}) == 1
    )
    assert statuses(outbox) == {Status.ACCEPTED: 2, Status.IN_DOUBT: 1, Status.PENDING: 1}
