"""A report of accepted rows that is written page by page says the same, byte by byte, as one made row by row."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkmail.model.delivery import AttemptResult, Mark, Settlement, settle
from bulkmail.model.errors import BulkmailError, OutboxError
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.recipient import Address, BadRow, Place, Recipient
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status, Tally
from bulkmail.model.verdict import judge
from bulkmail.outbox import outbox_reader as reading
from bulkmail.outbox.entries import Entry, Fold, ReadyMade, RowRecord
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.run_info import RunInfo
from bulkmail.report.csv_report import write_csv
from bulkmail.report.html import write_html
from bulkmail.report.json_report import write_json
from bulkmail.report.report import Report
from bulkmail.report.run_source import Source
from tests.report.making import STARTED

COLUMNS = ("email", "town")
OK = Reply(Stage.END, 250, "2.0.0", "Ok: queued as 4WxYz1")
OTHERS = (
    Reply(Stage.RCPT, 550, "5.1.1", "no such user"),
    Reply(Stage.RCPT, 450, "4.2.1", "try again later"),
    Fault(Stage.END, Breakage.LOST, "the connection ended"),
)
# What may not stand in a table as it is, and what looks like it.
ODD = (
    *("a;=b", "a; @b", ";", "+43 (1) 234", "-1.5", "+ann@example.com", "=1", "@a", "\uff1d1", "\t", " a", "a,b", 'a"b'),
    *("a\rb", "a\nb", "\r\n", "\0", "\0=", "'=1", "'"),
)
texts = st.one_of(
    st.text(st.characters(codec="utf-8") | st.sampled_from("=+-@\t\r\n\",;'\0 0123"), max_size=8),
    st.sampled_from(ODD),
)
harmless = st.sampled_from(["Graz", "", "Wels 2", "Zürich"])


@dataclass
class Made:
    """A row on its way into an outbox, and how the tries of its deliveries end."""

    fields: dict[str, object]
    events: Sequence[Reply | Fault | None]
    is_bad: bool = False
    is_ready: bool = False
    message_id: str = ""


replies = st.one_of(st.just(OK), texts.map(lambda text: replace(OK, text=text)))
events = st.one_of(st.none(), replies, replies, replies, st.sampled_from(OTHERS))
values = st.one_of(harmless, harmless, harmless, texts, st.none(), st.integers(), st.lists(st.booleans(), max_size=2))
fields = st.dictionaries(st.sampled_from(COLUMNS), values, min_size=1)
rows = st.builds(
    Made,
    fields,
    st.one_of(events.map(lambda event: [event]), st.lists(events, min_size=1, max_size=4)),
    is_bad=st.integers(0, 9).map(lambda n: n == 0),
    is_ready=st.integers(0, 9).map(lambda n: n == 0),
    message_id=st.one_of(st.just("<1@example.com>"), texts),
)


def fill(outbox: Outbox, made: Sequence[Made]) -> None:
    entries = []
    for number, row in enumerate(made, 1):
        paths = tuple(f"user{number}.{n}@example.org" for n in range(len(row.events)))
        if row.is_bad:
            entries.append(Entry(BadRow("no address", row.fields, Place("people.csv", number)), Status.INVALID))
        elif row.is_ready:
            entries.append(Entry(ReadyMade(b"x", "", "<ready@example.com>", "label"), forward_paths=paths))
        else:
            address = Address(f"user{number}.0", "example.org")
            person = Recipient(address, "", row.fields, Place("people.csv", number))
            entries.append(Entry(person, forward_paths=paths))
    outbox.record(entries)
    outbox.finish_loading()
    jobs = iter(outbox.due(STARTED, limit=10_000, excluding=()))
    for row in made:
        for event in () if row.is_bad else row.events:
            job = next(jobs)
            if event is None:
                continue
            outbox.write([Mark(job.delivery.id, row.message_id, STARTED, b"0123456789abcdef")])
            attempt = AttemptResult(STARTED, 0.25, "main", event, judge(event))
            outbox.write([Settlement(settle(job.delivery, attempt, RetryPolicy(), jitter=0.5), attempt)])
    outbox.write([Fold()])


def written(source: Source) -> bytes:
    stream = io.BytesIO()
    write_csv(source, stream)
    return stream.getvalue()


def make(made: Sequence[Made], columns: Sequence[str], *, decides: bool = False) -> Outbox:
    outbox = Outbox.create(None, campaign=None, info=RunInfo(columns=tuple(columns), relay_kind="smtp"))
    fill(outbox, made)
    if decides:
        outbox.settle_in_doubt(Status.ACCEPTED, wait=0)
    return outbox


@pytest.mark.slow
@given(st.lists(rows, max_size=12), st.sampled_from([COLUMNS, ("email",), ()]), st.booleans(), st.integers(2, 5))
@settings(deadline=None)
def test_report_by_page_is_the_report_by_row(
    made: list[Made], columns: Sequence[str], decides: bool, page: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, make(made, columns, decides=decides) as outbox:
        patch.setattr(reading, "_PAGE", page)
        with OutboxReader.over(outbox) as reader:
            by_row = Source.of(reader)
            by_page = replace(by_row, reader=reader)
            assert written(by_page) == written(by_row)
            # One in memory keeps its rows, and so differs in that alone.
            assert replace(Report.of(by_page), _kept=()) == replace(Report.of(by_row), _kept=())


@pytest.mark.parametrize("write", [write_csv, write_json, write_html])
def test_every_format_has_the_same_by_page_and_by_row(
    write: Callable[[Source, io.BytesIO], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Made({"email": "a@example.org", "town": "Graz"}, [OK])
    made = [plain] * 5 + [replace(plain, events=[OK, OTHERS[0]]), replace(plain, events=[OTHERS[1]])]
    monkeypatch.setattr(reading, "_PAGE", 3)
    with make(made, COLUMNS) as outbox:
        reader = OutboxReader.over(outbox)
        by_row = Source.of(reader)
        found = [io.BytesIO(), io.BytesIO()]
        for target, source in zip(found, (by_row, replace(by_row, reader=reader)), strict=True):
            write(source, target)
    assert found[0].getvalue() == found[1].getvalue()
    assert b"no such user" in found[0].getvalue()


@pytest.mark.parametrize("text", ODD)
def test_report_by_page_is_the_report_by_row_for_a_cell_that_is_odd(text: str) -> None:
    plain = Made({"email": "a@example.org", "town": "Graz"}, [OK])
    made = [
        replace(plain, fields={"email": text, "town": "Graz"}),
        replace(plain, fields={"email": "a@example.org", "town": text}),
        replace(plain, events=[replace(OK, text=text)]),
        replace(plain, message_id=text),
    ]
    with make(made, COLUMNS) as outbox:
        reader = OutboxReader.over(outbox)
        by_row = Source.of(reader)
        assert written(replace(by_row, reader=reader)) == written(by_row)


def test_report_by_page_has_a_column_for_a_field_that_the_list_did_not_name() -> None:
    with make([Made({"email": "a@example.org", "town": "Graz"}, [OK])], ["email"]) as outbox:
        reader = OutboxReader.over(outbox)
        table = written(replace(Source.of(reader), reader=reader))
    assert table.startswith(b"email,town,delivery_status") and b"\r\na@example.org,Graz,accepted" in table


def test_report_takes_plain_accepted_rows_in_brief() -> None:
    plain = Made({"email": "a@example.org", "town": "Graz"}, [OK])
    with make([plain, replace(plain, events=[OTHERS[0]]), plain], COLUMNS) as outbox:
        batch = [row for batch in OutboxReader.over(outbox).batches() for row in batch]
    assert [isinstance(row, RowRecord) for row in batch] == [False, True, False]


@pytest.mark.parametrize("others", [[], [OTHERS[0]]], ids=["accepted", "one-refused"])
def test_report_by_page_does_not_add_up_when_the_tally_is_another(others: list[Reply]) -> None:
    plain = Made({"email": "a@example.org", "town": "Graz"}, [OK])
    with make([plain, plain, *(replace(plain, events=[event]) for event in others)], COLUMNS) as outbox:
        reader = OutboxReader.over(outbox)
        source = replace(Source.of(reader), tally=Tally(2, {Status.ACCEPTED: 1, Status.REJECTED: 1}), reader=reader)
        for read in (written, Report.of):
            with pytest.raises(BulkmailError, match="the report does not add up: the outbox counts 2 rows"):
                read(source)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE row SET fields = x'7b'",
        "UPDATE attempt SET code = 'x'",
        "UPDATE attempt SET relay = x'00'",
        "UPDATE delivery SET tries = 'x'",
    ],
)
def test_report_by_page_says_that_the_outbox_is_damaged(damage: str) -> None:
    with make([Made({"email": "a@example.org", "town": "Graz"}, [OK])], COLUMNS) as outbox:
        with outbox.store.writing() as connection:
            connection.execute(damage)
        reader = OutboxReader.over(outbox)
        with pytest.raises(OutboxError, match="is damaged: a value in it cannot be read"):
            written(replace(Source.of(reader), reader=reader))
