"""Marks and outcomes: each only where it may follow, none lost, none twice."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from bulkmail.model.delivery import Delivery, Release
from bulkmail.model.errors import IllegalMove, OutboxError
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.pace import Durability
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from tests.outbox.making import (
    BUSY,
    LOST,
    OK,
    UNKNOWN,
    due,
    fill,
    make_entries,
    make_mark,
    make_recipient,
    make_settlement,
    send,
    statuses,
)


@pytest.fixture
def three(memory: Outbox) -> Outbox:
    return fill(memory, make_entries(3))


def test_due_hands_out_pending_rows_by_number(three: Outbox) -> None:
    assert [delivery.row for delivery in due(three)] == [1, 2, 3]
    assert [delivery.row for delivery in due(three, limit=2)] == [1, 2]
    assert due(three, limit=0) == []


@pytest.mark.parametrize("kind", [set, frozenset, list, dict.fromkeys, lambda ids: dict.fromkeys(ids).keys()])
def test_due_leaves_out_what_is_excluded(three: Outbox, kind: Callable[[list[int]], object]) -> None:
    assert [delivery.row for delivery in due(three, limit=1, excluding=kind([1]))] == [2]


def test_due_hands_out_again_what_is_no_longer_excluded(three: Outbox) -> None:
    due(three)
    assert [delivery.row for delivery in due(three)] == [1, 2, 3]


@pytest.mark.parametrize("allow_duplicates", [False, True])
def test_deliveries_to_an_address_are_those_of_its_rows_with_their_copies(allow_duplicates: bool) -> None:
    with Outbox.create(None, campaign=None, allow_duplicates=allow_duplicates) as outbox:
        paths = ("user2@example.org", "boss@example.org")
        fill(
            outbox, [Entry(make_recipient(1)), Entry(make_recipient(2), forward_paths=paths), Entry(make_recipient(3))]
        )
        keys = ["user2@example.org", "user3@example.org", "boss@example.org"]
        assert outbox.deliveries_to(keys) == {"user2@example.org": [2, 3], "user3@example.org": [4]}


def test_due_hands_out_the_wanted_only_and_waits_for_no_others(three: Outbox) -> None:
    [first, *_] = due(three)
    send(three, first, BUSY)
    later = three.next_due(after=1.0)
    assert [job.delivery.id for job in three.due(1.0, limit=9, excluding=(), wanted="[3, 7]")] == [3]
    assert [job.delivery.id for job in three.due(later, limit=9, excluding=[3], wanted="[1, 3]")] == [1]
    assert (three.next_due(after=1.0, wanted="[3]"), three.next_due(after=1.0, wanted="[1]")) == (None, later)
    assert (three.count_open(0), three.count_open(0, wanted="[1, 3, 7]")) == (3, 2)


def test_due_never_hands_out_what_is_marked(three: Outbox) -> None:
    three.write([make_mark(1)])
    assert [delivery.row for delivery in due(three)] == [2, 3]


def test_due_hands_out_more_than_one_query_fetches(memory: Outbox) -> None:
    fill(memory, make_entries(1200))
    assert [delivery.row for delivery in due(memory)] == list(range(1, 1201))


def test_deferred_delivery_is_due_at_its_time_and_before_the_pending(three: Outbox) -> None:
    [one, two, _] = due(three)
    assert three.next_due() is None
    send(three, two, BUSY, at=2000.0)
    send(three, one, BUSY, at=1000.0)
    first, second = 1000.5 + 300.0, 2000.5 + 300.0
    assert three.next_due() == first
    assert [delivery.row for delivery in due(three, first - 0.1)] == [3]
    assert [delivery.row for delivery in due(three, first)] == [1, 3]
    assert [delivery.row for delivery in due(three, second)] == [1, 2, 3]
    [again, _, _] = due(three, second)
    assert (again.status, again.attempts, again.tries, again.due_at, again.first_at) == (
        Status.DEFERRED,
        1,
        1,
        first,
        1000.0,
    )


def test_accepted_delivery_is_never_due_again(three: Outbox) -> None:
    send(three, due(three)[0])
    assert [delivery.row for delivery in due(three, 1e12)] == [2, 3]
    assert statuses(three) == {Status.ACCEPTED: 1, Status.PENDING: 2}


def test_outcome_is_recorded_with_the_servers_words(three: Outbox) -> None:
    [one, two, three_] = due(three)
    send(three, one)
    send(three, two, Reply(Stage.RCPT, 550, "5.1.1", "no one\ud800 here"))
    send(three, three_, Fault(Stage.BODY, Breakage.LOST, "gone\udcff"))
    rows = list(OutboxReader.over(three).rows())
    assert [(row.code, row.enhanced, row.reply, row.reason, row.error) for row in rows] == [
        (250, "2.0.0", "Ok: queued as 4WxYz1", "accepted", ""),
        (550, "5.1.1", "no one? here", "unknown user", ""),
        (None, "", "", "lost", "gone?"),
    ]
    assert {(row.attempts, row.relay, row.first_at, row.last_at) for row in rows} == {
        (1, "smtp://relay.example.org:587", 1000.0, 1000.5)
    }
    assert rows[0].message_id == "<1@example.org>"


def test_every_try_is_kept(three: Outbox) -> None:
    one = due(three)[0]
    send(three, one, BUSY, at=1000.0)
    send(three, due(three, 2000.0)[0], OK, at=2000.0)
    with three.store.reading() as connection:
        found = connection.execute("SELECT delivery, at, took, stage, code, breakage, outcome, counts FROM attempt")
        assert found.fetchall() == [
            (1, 1000.0, 0.5, "rcpt", 450, None, "deferred", 1),
            (1, 2000.0, 0.5, "end", 250, None, "accepted", 1),
        ]


def test_try_that_stops_the_campaign_leaves_the_row_pending(three: Outbox) -> None:
    send(three, due(three)[0], Reply(Stage.MAIL, 550, "5.7.1", "sender refused"))
    assert statuses(three) == {Status.PENDING: 3}
    one = due(three)[0]
    assert (one.row, one.tries, one.attempts) == (1, 1, 0)


def test_mark_and_outcome_may_come_in_one_write(three: Outbox) -> None:
    one = due(three)[0]
    three.write([make_mark(one), make_settlement(one, BUSY), make_mark(one), make_settlement(replace(one, tries=1))])
    assert statuses(three) == {Status.ACCEPTED: 1, Status.PENDING: 2}


def test_write_that_fails_leaves_nothing_for_the_next(three: Outbox) -> None:
    one, two, _ = due(three)
    with pytest.raises(OutboxError):
        three.write([make_settlement(one), make_mark(9)])
    three.write([make_settlement(two)])
    with three.store.reading() as connection:
        assert connection.execute("SELECT id, delivery FROM attempt").fetchall() == [(1, 2)]


def test_writing_nothing_is_nothing(three: Outbox) -> None:
    three.write([])
    assert OutboxReader.over(three).started_at is None


def test_release_makes_the_delivery_due_again(three: Outbox) -> None:
    three.write([make_mark(1, first_at=77.0)])
    three.write([Release(1), Release(2)])
    one, two, _ = due(three)
    assert (one.row, one.status, one.tries, one.first_at) == (1, Status.PENDING, 0, 77.0)
    assert two == Delivery(2, 2, "user2@example.org")


@pytest.mark.parametrize(
    ("event", "status"),
    [
        pytest.param(OK, Status.ACCEPTED, id="accepted"),
        pytest.param(UNKNOWN, Status.REJECTED, id="rejected"),
        pytest.param(LOST, Status.IN_DOUBT, id="in-doubt"),
    ],
)
def test_settled_delivery_is_never_overwritten(three: Outbox, event: Reply | Fault, status: Status) -> None:
    one = due(three)[0]
    send(three, one, event)
    for late in (OK, UNKNOWN, BUSY, LOST):
        with pytest.raises(OutboxError, match=rf"row 1 \(user1@example.org\): .* from {status.value} to "):
            three.write([make_mark(2), make_settlement(one, late)])
    with pytest.raises(OutboxError, match=f"row 1 .* is {status.value} and cannot be sent to"):
        three.write([make_mark(one)])
    assert statuses(three) == {status: 1, Status.PENDING: 2}
    assert [delivery.row for delivery in due(three)] == [2, 3], "the mark of the refused transaction must be gone"


def test_second_mark_is_refused(three: Outbox) -> None:
    three.write([make_mark(1)])
    with pytest.raises(OutboxError, match=r"row 1 .* is being sent to already"):
        three.write([make_mark(1)])


def test_unknown_delivery_is_refused(three: Outbox) -> None:
    for entry in (make_mark(9), make_settlement(Delivery(9, 9, "x@example.org"))):
        with pytest.raises(OutboxError, match="no delivery 9"):
            three.write([entry])


def test_outcome_is_refused_when_the_file_is_not_as_remembered(three: Outbox) -> None:
    one = due(three)[0]
    with three.store.writing() as connection:
        connection.execute("UPDATE delivery SET status = 'accepted', due_at = NULL WHERE id = 1")
    with pytest.raises(OutboxError, match=r"row 1 \(user1@example.org\) is no longer pending"):
        three.write([make_settlement(one)])
    assert statuses(three) == {Status.ACCEPTED: 1, Status.PENDING: 2}
    with pytest.raises(OutboxError, match="from accepted to accepted"):
        three.write([make_settlement(one)])


def test_expired_delivery_has_no_due_time(three: Outbox) -> None:
    one = due(three)[0]
    three.write([make_settlement(one, BUSY, policy=RetryPolicy(max_attempts=1))])
    assert statuses(three) == {Status.EXPIRED: 1, Status.PENDING: 2}
    assert three.next_due() is None


# In doubt -------------------------------------------------------------------------------------------------------------


def test_row_in_doubt_is_sent_again_only_as_the_same_message(three: Outbox) -> None:
    one = due(three)[0]
    three.write([make_mark(one, digest=b"A" * 16, first_at=500.0)])
    three.write([make_settlement(one, LOST)])
    assert three.settle_in_doubt(Status.PENDING) == 1
    [job] = [job for job in three.due(0.0, limit=10, excluding=()) if job.delivery.row == 1]
    assert (job.in_doubt_before, job.digest, job.message_id) == (True, b"A" * 16, "<1@example.org>")
    assert job.delivery.first_at == 500.0
    with pytest.raises(OutboxError, match=r"row 1 \(user1@example.org\) was in doubt, .* not the same message"):
        three.write([make_mark(one, digest=b"B" * 16)])
    three.write([make_mark(one, digest=b"A" * 16, first_at=500.0)])
    three.write([make_settlement(job.delivery, OK)])
    assert statuses(three) == {Status.ACCEPTED: 1, Status.PENDING: 2}


def test_doubt_once_is_doubt_for_ever(three: Outbox) -> None:
    """A refused resend says nothing about the first copy."""
    one = due(three)[0]
    send(three, one, LOST)
    three.settle_in_doubt(Status.PENDING)
    send(three, due(three)[0], UNKNOWN)
    assert three.reopen(Status.REJECTED) == 1
    with pytest.raises(OutboxError, match="not the same message"):
        three.write([make_mark(one, digest=b"B" * 16)])


def test_row_that_was_never_in_doubt_may_change_its_message(three: Outbox) -> None:
    one = due(three)[0]
    three.write([make_mark(one, digest=b"A" * 16, first_at=500.0), Release(1)])
    three.write([make_mark(one, digest=b"B" * 16, first_at=600.0), Release(1)])
    job = three.due(0.0, limit=1, excluding=())[0]
    assert (job.digest, job.delivery.first_at, job.in_doubt_before) == (b"B" * 16, 600.0, False)


def test_resend_may_wait_for_the_servers_time_out(three: Outbox) -> None:
    send(three, due(three)[0], LOST, at=5000.0)
    three.settle_in_doubt(Status.PENDING, wait=600.0)
    assert three.next_due() == 5600.5
    assert [delivery.row for delivery in due(three, 5600.0)] == [2, 3]
    assert [delivery.row for delivery in due(three, 5601.0)] == [1, 2, 3]


@pytest.mark.parametrize("to", [Status.ACCEPTED, Status.REJECTED])
def test_operator_settles_doubt(three: Outbox, to: Status) -> None:
    send(three, due(three)[0], LOST)
    assert three.settle_in_doubt(to) == 1
    assert statuses(three) == {to: 1, Status.PENDING: 2}
    row = next(OutboxReader.over(three).rows())
    assert row.overruled == row.reason
    assert re.fullmatch(f"{to.value} by the operator's word on 20..-..-.. at ..:.. UTC", row.reason)


# The operator's word --------------------------------------------------------------------------------------------------


def test_operator_leaves_alone_what_is_at_its_end(three: Outbox) -> None:
    three.write([make_mark(1)])
    assert three.cancel() == 2
    assert statuses(three) == {Status.PENDING: 1, Status.CANCELLED: 2}
    three.write([make_settlement(Delivery(1, 1, "user1@example.org"))])
    assert statuses(three) == {Status.ACCEPTED: 1, Status.CANCELLED: 2}


def test_reason_of_the_operator_goes_when_the_row_is_tried_again(three: Outbox) -> None:
    send(three, due(three)[0], LOST)
    three.settle_in_doubt(Status.REJECTED)
    three.reopen(Status.REJECTED)
    send(three, due(three)[0])
    assert next(OutboxReader.over(three).rows()).reason == "accepted"


def test_cancel_ends_what_is_open_and_nothing_else(memory: Outbox) -> None:
    fill(memory, [*make_entries(3), Entry(make_recipient(4), Status.FILTERED)])
    one, two, _ = due(memory)
    send(memory, one)
    send(memory, two, BUSY)
    assert memory.cancel() == 2
    assert statuses(memory) == {Status.ACCEPTED: 1, Status.CANCELLED: 2, Status.FILTERED: 1}
    assert due(memory, 1e12) == []
    assert [row.reply for row in OutboxReader.over(memory).rows()][1] == "try again later"


def test_reopened_row_starts_with_fresh_patience_and_date(three: Outbox) -> None:
    one = due(three)[0]
    three.write([make_mark(one, first_at=500.0), make_settlement(one, BUSY, policy=RetryPolicy(max_attempts=1))])
    assert three.reopen(Status.EXPIRED) == 1
    again = due(three)[0]
    assert (again.row, again.status, again.attempts, again.tries, again.first_at) == (1, Status.PENDING, 0, 1, None)


@pytest.mark.parametrize("status", [Status.ACCEPTED, Status.CANCELLED, Status.DUPLICATE, Status.INVALID])
def test_what_is_over_for_good_cannot_be_reopened(three: Outbox, status: Status) -> None:
    with pytest.raises(IllegalMove):
        three.reopen(status)


def test_doubt_cannot_be_settled_as_anything(three: Outbox) -> None:
    with pytest.raises(IllegalMove):
        three.settle_in_doubt(Status.EXPIRED)


# Rows with several paths ----------------------------------------------------------------------------------------------


@pytest.fixture
def copies(memory: Outbox) -> Outbox:
    paths = ("a@example.org", "b@example.org", "c@example.org")
    return fill(memory, [Entry(make_recipient(1)), Entry(make_recipient(2), forward_paths=paths)])


def test_row_is_as_its_own_recipient_and_copies_are_counted_apart(copies: Outbox) -> None:
    assert statuses(copies) == {Status.PENDING: 2}
    _, first, second, third = due(copies)
    assert [delivery.is_copy for delivery in due(copies)] == [False, False, True, True]
    for delivery, event, rows, others in (
        (third, UNKNOWN, [Status.PENDING, Status.PENDING], [Status.PENDING, Status.REJECTED]),
        (first, OK, [Status.PENDING, Status.ACCEPTED], [Status.PENDING, Status.REJECTED]),
        (second, BUSY, [Status.PENDING, Status.ACCEPTED], [Status.DEFERRED, Status.REJECTED]),
    ):
        send(copies, delivery, event)
        tally = copies.tally()
        assert (tally.by_status, tally.copies) == (Counter(rows), Counter(others))
        assert tally.adds_up
        assert OutboxReader.over(copies).tally() == tally
    row = list(OutboxReader.over(copies).rows())[1]
    assert (row.status, row.reply, row.code) == (Status.ACCEPTED, OK.text, 250)
    assert [(copy.address, copy.status, copy.reply) for copy in row.copies] == [
        ("b@example.org", Status.DEFERRED, "try again later"),
        ("c@example.org", Status.REJECTED, "no such user"),
    ]


@pytest.mark.parametrize("status", [Status.DUPLICATE, Status.INVALID, Status.FILTERED])
def test_row_that_is_left_out_shows_no_copies(copies: Outbox, status: Status) -> None:
    with copies.store.writing() as connection:
        connection.execute("UPDATE delivery SET status = ?, due_at = NULL WHERE row = 2", (status.value,))
    assert [row.copies for row in OutboxReader.over(copies).rows()] == [(), ()]
    assert copies.tally().open == 1


def test_row_whose_paths_settle_in_one_write_is_counted_once(copies: Outbox) -> None:
    copies.tally()
    [_, *paths] = due(copies)
    copies.write([make_settlement(path) for path in paths])
    assert statuses(copies) == {Status.PENDING: 1, Status.ACCEPTED: 1}
    assert copies.tally().copies == {Status.ACCEPTED: 2}


def test_path_that_moves_twice_in_one_write_is_counted_once(copies: Outbox) -> None:
    copies.tally()
    [_, first, second, third] = due(copies)
    copies.write([make_settlement(second), make_settlement(third)])
    deferred = make_settlement(first, BUSY)
    copies.write([deferred, make_settlement(deferred.delivery)])
    assert statuses(copies) == {Status.PENDING: 1, Status.ACCEPTED: 1}
    assert copies.tally().copies == {Status.ACCEPTED: 2}


def test_only_unsettled_paths_are_tried_again(copies: Outbox) -> None:
    _, first, second, third = due(copies)
    for delivery, event in ((first, OK), (second, LOST), (third, UNKNOWN)):
        send(copies, delivery, event)
    copies.settle_in_doubt(Status.PENDING)
    copies.reopen(Status.REJECTED)
    assert [delivery.forward_path for delivery in due(copies)][1:] == ["b@example.org", "c@example.org"]


# The end --------------------------------------------------------------------------------------------------------------


def test_finish_waits_until_nothing_is_open(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(2))
    outbox.finish()
    send(outbox, due(outbox)[0])
    outbox.finish()
    with OutboxReader.open(path) as reader:
        assert reader.started_at is not None
        assert reader.ended_at is None
    send(outbox, due(outbox)[0])
    outbox.finish()
    assert sorted(found.name for found in path.parent.iterdir()) == ["run.outbox", "run.outbox.lock"]
    outbox.finish()
    outbox.close()
    with OutboxReader.open(path) as reader:
        assert reader.ended_at is not None
        assert reader.tally().by_status == {Status.ACCEPTED: 2}
    assert [found.name for found in path.parent.iterdir()] == ["run.outbox"]


def test_end_of_a_run_stays_when_it_was(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create([])
    outbox.finish()
    ended_at = OutboxReader.over(outbox).ended_at
    outbox.close()
    with Outbox.open(path) as outbox:
        outbox.finish()
    with OutboxReader.open(path) as reader:
        assert reader.ended_at == ended_at


def test_finished_run_begins_again_when_the_operator_reopens_it(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(1))
    send(outbox, due(outbox)[0], UNKNOWN)
    outbox.finish()
    outbox.close()
    with Outbox.open(path) as outbox:
        outbox.reopen(Status.REJECTED)
        send(outbox, due(outbox)[0])
        with OutboxReader.open(path) as reader:
            assert reader.ended_at is None
        outbox.finish()
    with OutboxReader.open(path) as reader:
        assert reader.tally().by_status == {Status.ACCEPTED: 1}
        assert reader.ended_at is not None


def test_run_is_not_over_once_rows_are_open_again(create: Callable[..., Outbox]) -> None:
    outbox = create(make_entries(1))
    send(outbox, due(outbox)[0], UNKNOWN)
    outbox.finish()
    assert OutboxReader.over(outbox).ended_at is not None
    assert outbox.reopen(Status.EXPIRED) == 0
    assert OutboxReader.over(outbox).ended_at is not None
    outbox.reopen(Status.REJECTED)
    assert OutboxReader.over(outbox).ended_at is None


def test_closed_outbox_says_so(memory: Outbox) -> None:
    memory.close()
    memory.close()
    with pytest.raises(OutboxError, match="was closed"):
        memory.tally()
    with pytest.raises(OutboxError, match="was closed"):
        memory.write([make_mark(1)])


def test_power_mode_syncs_every_commit(create: Callable[..., Outbox]) -> None:
    outbox = create(make_entries(1), durability=Durability.POWER)
    with outbox.store.reading() as connection:
        modes = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "fullfsync")]
        assert modes == [2, 1]


def test_process_mode_does_not_wait_for_the_disk(create: Callable[..., Outbox]) -> None:
    with create(make_entries(1)).store.reading() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 1


@pytest.mark.slow
def test_threads_may_share_an_outbox(create: Callable[..., Outbox]) -> None:
    outbox = create(make_entries(400))
    everyone = due(outbox)
    failures: list[BaseException] = []

    def work(part: list[Delivery]) -> None:
        try:
            for delivery in part:
                send(outbox, delivery)
                outbox.due(0.0, limit=3, excluding=())
                assert outbox.tally().adds_up
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(everyone[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert statuses(outbox) == {Status.ACCEPTED: 400}
