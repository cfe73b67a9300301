"""What comes in, comes in whole, and each address once."""

from __future__ import annotations

import datetime
import decimal
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.campaign import Attachment, Campaign, Template
from bulkmail.model.errors import OutboxError
from bulkmail.model.recipient import Address, Place, PlainRows, Recipient
from bulkmail.model.tally import Status
from bulkmail.outbox.entries import ReadyMade
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.run_info import RunInfo
from tests.outbox.making import due, fill, make_bad_row, make_entries, make_recipient, statuses

CAMPAIGN = Campaign(
    name="spring",
    sender=Template("message.txt", "Ann <ann@example.org>"),
    subject=Template("message.txt", "Grüße {{ name }}"),
    text=Template("message.txt", "Hello\n"),
    headers=(("X-Kind", Template("message.txt", "news")),),
    attachments=(Attachment("a.bin", "application/octet-stream", bytes(range(256)) * 100),),
    partials=(Template("foot.txt", "bye"),),
)


def test_outbox_keeps_campaign_and_settings_to_the_byte(path: Path) -> None:
    with Outbox.create(path, campaign=CAMPAIGN, info=RunInfo(relay="smtp://x:25", list_name="\udcff.csv")) as outbox:
        run_id = fill(outbox, make_entries(1)).run_id
        outbox.note(relay="smtp://y:25", columns=("\ud800",))
    with Outbox.open(path) as outbox:
        assert outbox.campaign == CAMPAIGN
        assert outbox.campaign.fingerprint == CAMPAIGN.fingerprint
        assert outbox.run_id == run_id
        assert outbox.info == RunInfo(relay="smtp://y:25", list_name="?.csv", columns=("?",))


def test_two_outboxes_have_different_run_ids(memory: Outbox, create: Callable[..., Outbox]) -> None:
    assert memory.run_id != create().run_id


def test_row_comes_back_as_recipient(memory: Outbox) -> None:
    recipient = make_recipient(
        address=Address("jürgen", "xn--bcher-kva.example"),
        name="Jürgen \U0001f600",
        fields={"id": "007", "n": 7, "big": 10**25, "f": 1.5, "list": [1, None, {"deep": True}], "": "unnamed"},
    )
    fill(memory, [Entry(recipient)])
    [job] = memory.due(0.0, limit=10, excluding=())
    assert job.recipient == recipient
    assert job.delivery.forward_path == "jürgen@xn--bcher-kva.example"
    assert (job.content, job.digest, job.in_doubt_before, job.reverse_path, job.message_id) == (
        None,
        None,
        False,
        "",
        "",
    )
    assert memory.pending_rows(0, 10) == [(1, recipient)]


def test_fields_may_be_any_mapping_of_what_json_can_say(memory: Outbox) -> None:
    fields = MappingProxyType({"day": datetime.date(2026, 1, 2), "sum": decimal.Decimal("1.10")})
    fill(memory, [Entry(make_recipient(fields=fields))])
    [(_, recipient)] = memory.pending_rows(0, 1)
    assert recipient.fields == {"day": "2026-01-02", "sum": "1.10"}


def test_field_that_json_cannot_say_is_refused_with_its_place(memory: Outbox) -> None:
    with pytest.raises(OutboxError, match=r"people\.csv:2: a field cannot be recorded: .*object"):
        memory.record([Entry(make_recipient(fields={"x": object()}))])


def test_surrogates_anywhere_in_a_row_are_stored_as_question_marks(memory: Outbox) -> None:
    hostile = make_recipient(name="A\ud800", fields={"x\udcff": "y\ud800z", "d": datetime.date(2026, 1, 2)})
    hostile = make_recipient(name=hostile.name, fields=hostile.fields, place=Place("\udcff.csv", 3))
    fill(memory, [Entry(hostile), Entry(make_bad_row(), Status.INVALID, "bad \udcff")])
    found = list(OutboxReader.over(memory).rows())
    assert (found[0].name, found[0].place.file) == ("A?", "?.csv")
    assert found[0].fields == {"x?": "y?z", "d": "2026-01-02"}
    assert found[1].reason == "bad ?"


@pytest.mark.slow
@given(st.dictionaries(st.text(), st.text() | st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers()))
def test_fields_survive(fields: dict[str, object]) -> None:
    fields = {key: value for key, value in fields.items() if value not in (float("inf"), float("-inf"))}
    with Outbox.create(None, campaign=None) as outbox:
        fill(outbox, [Entry(make_recipient(fields=fields))])
        [(_, recipient)] = outbox.pending_rows(0, 1)
    assert recipient.fields == fields


def test_screened_rows_keep_status_and_reason(memory: Outbox) -> None:
    entries = [
        Entry(make_bad_row(), Status.INVALID),
        Entry(make_recipient(2), Status.SUPPRESSED, "in stop.txt:3"),
        Entry(make_recipient(3)),
        Entry(make_recipient(4), Status.FILTERED),
        Entry(make_recipient(5), Status.DUPLICATE, "twice"),
    ]
    fill(memory, entries)
    found = [(row.row, row.status, row.reason, row.address) for row in OutboxReader.over(memory).rows()]
    assert found == [
        (1, Status.INVALID, "the address is empty", ""),
        (2, Status.SUPPRESSED, "in stop.txt:3", "user2@example.org"),
        (3, Status.PENDING, "", "user3@example.org"),
        (4, Status.FILTERED, "", "user4@example.org"),
        (5, Status.DUPLICATE, "twice", "user5@example.org"),
    ]
    assert [delivery.row for delivery in due(memory)] == [3]
    assert memory.tally().adds_up
    assert memory.tally().rows == 5


def test_second_row_of_a_mailbox_is_duplicate_and_says_of_which(memory: Outbox) -> None:
    again = make_recipient(3, address=Address("USER1", "example.org"))
    memory.record([Entry(make_recipient(1)), Entry(make_recipient(2))])
    memory.record([Entry(again), Entry(make_recipient(1))])
    memory.finish_loading()
    found = [(row.status, row.reason) for row in OutboxReader.over(memory).rows()]
    same = (Status.DUPLICATE, "same address as people.csv:2")
    assert found == [(Status.PENDING, ""), (Status.PENDING, ""), same, same]
    assert statuses(memory) == {Status.PENDING: 2, Status.DUPLICATE: 2}


def test_only_pending_rows_take_part_in_the_search_for_duplicates(memory: Outbox) -> None:
    fill(
        memory,
        [
            Entry(make_recipient(1), Status.SUPPRESSED, "stop"),
            Entry(make_recipient(1)),
            Entry(make_recipient(1), Status.FILTERED),
        ],
    )
    assert [row.status for row in OutboxReader.over(memory).rows()] == [
        Status.SUPPRESSED,
        Status.PENDING,
        Status.FILTERED,
    ]


def test_duplicates_are_kept_when_allowed(create: Callable[..., Outbox]) -> None:
    outbox = create([Entry(make_recipient(1)), Entry(make_recipient(1))], allow_duplicates=True)
    assert statuses(outbox) == {Status.PENDING: 2}


@pytest.mark.slow
@given(st.lists(st.integers(0, 8), max_size=60), st.integers(1, 20))
def test_first_of_each_mailbox_stays_pending(numbers: list[int], size: int) -> None:
    with Outbox.create(None, campaign=None) as outbox:
        for start in range(0, len(numbers), size):
            outbox.record([Entry(make_recipient(n)) for n in numbers[start : start + size]])
        outbox.finish_loading()
        expected = [Status.DUPLICATE if n in numbers[:i] else Status.PENDING for i, n in enumerate(numbers)]
        assert [row.status for row in OutboxReader.over(outbox).rows()] == expected
        assert outbox.tally().adds_up


def test_extra_paths_become_deliveries_of_one_row(memory: Outbox) -> None:
    paths = ("user2@example.org", "copy@example.org", "copy@example.org")
    fill(memory, [Entry(make_recipient(1)), Entry(make_recipient(2), forward_paths=paths), Entry(make_recipient(3))])
    found = [(delivery.id, delivery.row, delivery.forward_path) for delivery in due(memory)]
    assert found == [
        (1, 1, "user1@example.org"),
        (2, 2, "user2@example.org"),
        (3, 2, "copy@example.org"),
        (4, 3, "user3@example.org"),
    ]
    assert memory.tally().rows == 3
    assert statuses(memory) == {Status.PENDING: 3}
    assert [number for number, _ in memory.pending_rows(0, 10)] == [1, 2, 3]


def test_own_path_may_be_replaced_by_another(memory: Outbox) -> None:
    fill(memory, [Entry(make_recipient(1), forward_paths=("me@example.org",)), Entry(make_recipient(2))])
    assert [delivery.forward_path for delivery in due(memory)] == ["me@example.org", "user2@example.org"]


def test_rows_after_one_with_extra_paths_keep_their_order(memory: Outbox) -> None:
    memory.record([Entry(make_recipient(1), forward_paths=("a@example.org", "b@example.org"))])
    memory.record([Entry(make_recipient(2)), Entry(make_recipient(3), Status.FILTERED), Entry(make_recipient(4))])
    memory.finish_loading()
    assert [(delivery.id, delivery.row) for delivery in due(memory)] == [(1, 1), (2, 1), (3, 2), (5, 4)]


def test_ready_made_message_comes_back_with_its_envelope(memory: Outbox) -> None:
    ready = ReadyMade(b"Subject: x\r\n\r\n\x00\xff", "me@example.org", "<1@example.org>", "Invoice 1")
    fill(memory, [Entry(ready, forward_paths=("a@example.org", "b@example.org"))])
    first, second = memory.due(0.0, limit=10, excluding=())
    assert (first.content, first.recipient) == (ready.content, None)
    assert (first.reverse_path, first.message_id) == ("me@example.org", "<1@example.org>")
    assert (first.delivery.forward_path, second.delivery.forward_path) == ("a@example.org", "b@example.org")
    [row] = OutboxReader.over(memory).rows()
    assert (row.name, row.address, row.message_id) == ("Invoice 1", "a@example.org", "<1@example.org>")
    assert memory.pending_rows(0, 10) == []
    assert "Subject" not in repr(first) + repr(ready)


def test_ready_made_messages_to_one_person_are_no_duplicates(memory: Outbox) -> None:
    ready = ReadyMade(b"x\r\n", "", "<1@example.org>", "")
    fill(memory, [Entry(ready, forward_paths=("a@example.org",))] * 2)
    assert statuses(memory) == {Status.PENDING: 2}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        pytest.param(Entry(make_recipient(), Status.ACCEPTED), "row 1 comes with the status accepted", id="settled"),
        pytest.param(Entry(make_bad_row()), "row 1 is a bad row and cannot be pending", id="bad-row-pending"),
        pytest.param(
            Entry(ReadyMade(b"", "", "", "")), "row 1 is a ready-made message without a recipient", id="no-path"
        ),
    ],
)
def test_impossible_entry_is_refused(memory: Outbox, entry: Entry, message: str) -> None:
    with pytest.raises(OutboxError, match=message):
        memory.record([entry])


@pytest.mark.slow
def test_call_that_fails_leaves_no_row_behind(memory: Outbox) -> None:
    def rows() -> Iterator[Entry]:
        yield from make_entries(1500)
        raise RuntimeError("the list broke off")

    memory.record(make_entries(2))
    with pytest.raises(RuntimeError, match="the list broke off"):
        memory.record(rows())
    memory.record([Entry(make_recipient(3))])
    memory.finish_loading()
    assert [row.row for row in OutboxReader.over(memory).rows()] == [1, 2, 3]
    assert memory.tally().rows == 3


def test_empty_list_is_a_run_of_no_rows(create: Callable[..., Outbox]) -> None:
    outbox = create([])
    assert outbox.tally().rows == 0
    assert outbox.tally().adds_up
    assert due(outbox) == []
    assert outbox.next_due() is None


def test_sending_waits_until_everything_is_loaded(memory: Outbox) -> None:
    memory.record(make_entries(1))
    assert not memory.is_loaded
    assert statuses(memory) == {Status.PENDING: 1}
    for early in (lambda: due(memory), lambda: memory.pending_rows(0, 1), memory.cancel, memory.finish):
        with pytest.raises(OutboxError, match="does not have all its rows yet"):
            early()
    memory.finish_loading()
    for late in (memory.finish_loading, lambda: memory.record(make_entries(1))):
        with pytest.raises(OutboxError, match="has all its rows already"):
            late()


def test_rows_found_unusable_by_the_gate_become_invalid(create: Callable[..., Outbox]) -> None:
    outbox = create(make_entries(4))
    assert statuses(outbox) == {Status.PENDING: 4}
    outbox.invalidate(2, "message.txt:3: 'nmae' is undefined")
    outbox.invalidate_many([(3, "x\ud800"), (4, "y")])
    assert statuses(outbox) == {Status.PENDING: 1, Status.INVALID: 3}
    assert [row.reason for row in OutboxReader.over(outbox).rows()] == [
        "",
        "message.txt:3: 'nmae' is undefined",
        "x?",
        "y",
    ]
    assert [number for number, _ in outbox.pending_rows(0, 10)] == [1]


@pytest.mark.parametrize("row", [pytest.param(2, id="invalid-already"), pytest.param(9, id="no-such-row")])
def test_row_that_is_not_pending_cannot_become_invalid(memory: Outbox, row: int) -> None:
    fill(memory, make_entries(3))
    memory.invalidate(2, "bad")
    with pytest.raises(OutboxError, match=f"row {row} is not pending"):
        memory.invalidate_many([(1, "bad"), (row, "bad")])
    assert statuses(memory) == {Status.PENDING: 2, Status.INVALID: 1}


def test_loaded_rows_are_in_the_file_itself(create: Callable[..., Outbox], path: Path) -> None:
    create(make_entries(1000))
    assert path.with_name("run.outbox-wal").stat().st_size == 0
    assert path.stat().st_size > 100_000


def test_pending_rows_are_handed_out_in_pages(memory: Outbox) -> None:
    fill(memory, make_entries(5))
    assert [number for number, _ in memory.pending_rows(0, 2)] == [1, 2]
    assert [number for number, _ in memory.pending_rows(2, 2)] == [3, 4]
    assert [number for number, _ in memory.pending_rows(4, 2)] == [5]


def test_file_is_for_its_owner_only(create: Callable[..., Outbox], path: Path) -> None:
    old = os.umask(0)
    try:
        create(make_entries(1))
    finally:
        os.umask(old)
    modes = {found.name: found.stat().st_mode & 0o777 for found in path.parent.iterdir()}
    assert modes == dict.fromkeys(("run.outbox", "run.outbox-wal", "run.outbox-shm", "run.outbox.lock"), 384)


@pytest.mark.slow
def test_loading_is_flat_in_memory(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from tests.outbox.making import make_recipient
from bulkmail.outbox.outbox import Entry, Outbox
with Outbox.create(Path(sys.argv[1]), campaign=None) as outbox:
    outbox.record(Entry(make_recipient(n)) for n in range(1_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outbox.record(Entry(make_recipient(n)) for n in range(1_000, 60_000))
    outbox.finish_loading()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script, str(tmp_path / "big.outbox")]
    grown_kb = int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert grown_kb < 12_000


def make_person(number: int, address: str = "") -> Recipient:
    wire = address or f"User{number}@example.org"
    local, _, domain = wire.rpartition("@")
    fields = {"email": wire, "name": "Zoë", "town": f'Graz "{number}"'}
    return Recipient(Address(local, domain), "Zoë", fields, Place("lists/\udcff.csv", number + 1))


def in_brief(people: list[Recipient]) -> PlainRows:
    return PlainRows(
        people[0].place.file,
        [(each.place.line, each.address.wire, each.name, each.address.key, dict(each.fields)) for each in people],  # type: ignore[arg-type]
    )


def stored(outbox: Outbox) -> list[list[tuple[object, ...]]]:
    with outbox.store.reading() as connection:
        return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("row", "delivery")]  # noqa: S608


@pytest.mark.slow
@pytest.mark.parametrize("allow_duplicates", [False, True])
@given(kinds=st.lists(st.sampled_from(["plain", "plain", "bad", "filtered", "copies", "repeated"]), max_size=12))
def test_plain_rows_are_stored_as_entries_are(kinds: list[str], allow_duplicates: bool) -> None:
    entries: list[Entry] = []
    for number, kind in enumerate(kinds, 1):
        person = make_person(number, "Ann@example.org" if kind == "repeated" else "")
        match kind:
            case "bad":
                entries.append(Entry(make_bad_row(number), Status.INVALID))
            case "filtered":
                entries.append(Entry(person, Status.FILTERED, "left out"))
            case "copies":
                entries.append(Entry(person, forward_paths=(person.address.wire, "cc@example.org")))
            case _:
                entries.append(Entry(person))
    mixed: list[Entry | PlainRows] = []
    for is_plain, run in itertools.groupby(entries, key=lambda entry: entry == Entry(entry.row)):
        some = list(run)
        if is_plain:
            mixed.append(in_brief([entry.row for entry in some if isinstance(entry.row, Recipient)]))
        else:
            mixed += some
    found = []
    for given_rows in (entries, mixed):
        with Outbox.create(None, campaign=None, allow_duplicates=allow_duplicates) as outbox:
            outbox.record(given_rows)
            outbox.record(given_rows)  # behind those that are there
            outbox.finish_loading()
            found.append(stored(outbox))
    assert found[0] == found[1]
