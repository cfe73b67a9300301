"""The reading of an outbox."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from msgspec import structs

from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.errors import BulkmailError, ConfigError, OutboxError
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.recipient import Place
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.entries import RowRecord
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.run_info import RunInfo
from bulkmail.report.csv_report import write_csv
from bulkmail.report.json_report import write_json
from bulkmail.report.report import MOST_NAMED, MOST_SHOWN, AttentionRow, Report
from bulkmail.report.saving import save_report
from tests.report.making import STARTED, fill_outbox, make_record, make_rejected, make_source

OK = Reply(Stage.END, 250, "2.0.0", "Ok: queued as 4WxYz1")
UNKNOWN = Reply(Stage.RCPT, 550, "5.1.1", "no such user")
BUSY = Reply(Stage.RCPT, 450, "4.2.1", "try again later")
LOST = Fault(Stage.END, Breakage.LOST, "the connection ended")

INFO = RunInfo(relay="smtp://mail.example.com:587", relay_kind="smtp", list_name="people.csv")


def make_outbox(path: Path | None, **noted: object) -> Outbox:
    campaign = Campaign("spring", Template("from", "shop@example.com"), Template("subject", "Hello"))
    return Outbox.create(path, campaign=campaign, info=structs.replace(INFO, **noted))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "spring.outbox"
    with make_outbox(path) as outbox:
        fill_outbox(outbox, [OK, UNKNOWN, BUSY, LOST, None, OK], bad=["the address 'x' has no @"])
    return path


def check_mixed(report: Report) -> None:
    """What `fill_outbox` above comes to."""
    assert report.accepted == 2
    assert report.failed == [("user2@example.org", 550, "no such user")]
    assert report.tally == Tally(
        7,
        {
            Status.ACCEPTED: 2,
            Status.REJECTED: 1,
            Status.DEFERRED: 1,
            Status.IN_DOUBT: 1,
            Status.PENDING: 1,
            Status.INVALID: 1,
        },
    )
    assert report.exit_code == 3
    assert report.reasons == {
        "unknown user": 1,
        "not now": 1,
        "no answer to the end of the message": 1,
        "the address has no @": 1,
    }
    assert [(trouble.status, str(trouble.place), trouble.words) for trouble in report.attention] == [
        (Status.IN_DOUBT, "people.csv:5", "the connection ended"),
        (Status.REJECTED, "people.csv:3", "550 5.1.1 no such user"),
        (Status.INVALID, "people.csv:100", "the address 'x' has no @"),
        (Status.DEFERRED, "people.csv:4", "450 4.2.1 try again later"),
    ]
    assert report.in_doubt == report.attention[:1]
    assert [record.row for record in report.rows()] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("kind", [Path, str])
def test_report_reads_an_outbox(path: Path, kind: type) -> None:
    report = Report.read(kind(path))
    check_mixed(report)
    assert report.outbox == path
    assert (report.name, report.relay, report.is_rehearsal) == ("spring", "smtp://mail.example.com:587", False)
    assert report.run.list_name == "people.csv"
    assert report.run.process is None
    assert report.started_at is not None
    assert (report.ended_at, report.duration, report.per_second) == (None, None, None)


def test_report_reads_an_outbox_in_memory_and_outlives_it(tmp_path: Path) -> None:
    with make_outbox(None) as outbox:
        fill_outbox(outbox, [OK, UNKNOWN, BUSY, LOST, None, OK], bad=["the address 'x' has no @"])
        report = Report.read(OutboxReader.over(outbox))
    check_mixed(report)
    assert report.outbox is None
    save_report(report, tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(newline="") as file:
        assert [row["delivery_status"] for row in csv.DictReader(file)] == [
            "accepted", "rejected", "deferred", "in_doubt", "pending", "accepted", "invalid"
        ]  # fmt: skip


def test_report_reads_while_someone_sends(tmp_path: Path) -> None:
    with make_outbox(tmp_path / "spring.outbox") as outbox:
        fill_outbox(outbox, [OK, None])
        report = Report.read(tmp_path / "spring.outbox")
        assert report.run.process is not None
        assert report.tally.by_status == {Status.ACCEPTED: 1, Status.PENDING: 1}


def test_report_of_an_ended_run_says_how_long_it_took(tmp_path: Path) -> None:
    report = Report.of(make_source([make_record(n) for n in range(1, 21)]))
    assert (report.started_at, report.ended_at) == (STARTED, STARTED + 10)
    assert (report.duration, report.per_second) == (10, 2)
    assert report.exit_code == 0
    assert report.failed == []
    assert report.attention == ()


def test_report_accepts_a_clock_that_was_set_back() -> None:
    report = Report.of(make_source([make_record()], ended_at=STARTED - 5))
    assert (report.duration, report.per_second) == (0, None)


@pytest.mark.parametrize(
    ("settings", "is_rehearsal"),
    [
        pytest.param({"relay_kind": "smtp"}, False, id="smtp"),
        pytest.param({"relay_kind": "null", "is_rehearsal": True}, True, id="null"),
        pytest.param({"relay_kind": "smtp", "is_rehearsal": True}, True, id="redirected"),
        pytest.param({"relay_kind": "sandbox", "is_rehearsal": False}, False, id="its-relay-does-not-count"),
    ],
)
def test_report_knows_a_rehearsal(tmp_path: Path, settings: dict[str, object], is_rehearsal: bool) -> None:
    with make_outbox(tmp_path / "spring.outbox", **settings) as outbox:
        fill_outbox(outbox, [OK])
    assert Report.read(tmp_path / "spring.outbox").is_rehearsal is is_rehearsal


@pytest.mark.parametrize(
    ("settings", "maildir"),
    [
        pytest.param({"relay": "sandbox:", "maildir": "runs/mail"}, "runs/mail", id="said-by-the-run"),
        pytest.param({"relay": "sandbox:kept"}, "kept", id="sandbox-with-a-folder"),
        pytest.param({"relay": "maildir:out"}, "out", id="maildir"),
        pytest.param({"relay": "sandbox:"}, "", id="nowhere-said"),
        pytest.param({"relay": "no relay"}, "", id="unreadable"),
    ],
)
def test_report_knows_where_a_rehearsal_kept_its_mail(
    tmp_path: Path, settings: dict[str, object], maildir: str
) -> None:
    with make_outbox(tmp_path / "spring.outbox", **settings) as outbox:
        fill_outbox(outbox, [OK])
    assert Report.read(tmp_path / "spring.outbox").run.maildir == maildir


def test_report_is_named_by_setting_campaign_or_file(tmp_path: Path) -> None:
    for number, (campaign, settings, name) in enumerate(
        [
            (True, {"name": "Spring sale"}, "Spring sale"),
            (True, {}, "spring"),
            (False, {}, "run-2"),
        ]
    ):
        path = tmp_path / f"run-{number}.outbox"
        made = (
            make_outbox(path, **settings)
            if campaign
            else Outbox.create(path, campaign=None, info=structs.replace(INFO, **settings))
        )
        with made as outbox:
            fill_outbox(outbox, [OK])
        assert Report.read(path).name == name


def test_report_names_many_in_doubt_and_few_of_the_rest() -> None:
    records = [make_record(n, Status.IN_DOUBT) for n in range(1, MOST_NAMED + 11)]
    records += [make_rejected(n) for n in range(MOST_NAMED + 11, MOST_NAMED + 51)]
    report = Report.of(make_source(records))
    assert len(report.in_doubt) == MOST_NAMED
    assert [trouble.status for trouble in report.attention] == [
        *[Status.IN_DOUBT] * MOST_SHOWN,
        *[Status.REJECTED] * MOST_SHOWN,
    ]
    assert len(report.failed) == 40


def test_report_lists_as_refused_what_was_rejected_or_expired() -> None:
    records = [
        make_record(1, Status.EXPIRED, code=450, enhanced="4.2.1", reply="later"),
        make_record(2, Status.REJECTED, error="too big for this relay", reason="cannot be sent through this relay"),
        make_record(3, Status.REJECTED, reason="decided by the operator"),
        make_record(4, Status.INVALID, reason="has no @"),
    ]
    assert Report.of(make_source(records)).failed == [
        ("user1@example.org", 450, "later"),
        ("user2@example.org", 0, "too big for this relay"),
        ("user3@example.org", 0, "decided by the operator"),
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param(
            make_record(1, Status.INVALID, reason="the address 'it's' has no @"), "the address has no @", id="address"
        ),
        pytest.param(
            make_record(1, Status.INVALID, reason="the address 'a@b,c' is not valid: there is a ',' in it"),
            "the address is not valid: there is a ',' in it",
            id="address-quoted-again",
        ),
        pytest.param(make_record(1, Status.INVALID, reason="message.txt:3: 'nmae' is undefined"), None, id="template"),
        pytest.param(make_record(1, Status.SUPPRESSED, reason="in stop.txt:312"), "in stop.txt", id="stop-list"),
        pytest.param(make_record(1, Status.SUPPRESSED, reason="asked us"), None, id="stop-list-without-line"),
        pytest.param(
            make_record(1, Status.DUPLICATE, reason="same address as people.csv:3"),
            "same address as an earlier row",
            id="duplicate",
        ),
        pytest.param(make_record(1, Status.IN_DOUBT, error="lost\x1b[2J"), "lost [2J", id="no-reason"),
    ],
)
def test_report_counts_alike_what_differs_by_row_only(record: RowRecord, reason: str | None) -> None:
    assert dict(Report.of(make_source([record])).reasons_of[record.status]) == {reason or record.reason: 1}


def test_report_counts_no_reason_where_there_is_none() -> None:
    report = Report.of(make_source([make_record(1, Status.PENDING), make_record(2, reason="accepted")]))
    assert report.reasons_of == {}


def test_report_is_refused_when_it_does_not_add_up() -> None:
    with pytest.raises(BulkmailError, match="does not add up"):
        Report.of(make_source([make_record()], tally=Tally(2, {Status.ACCEPTED: 2})))


def test_report_of_no_outbox_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an outbox")
    for name in ("notes.txt", "nowhere.outbox"):
        with pytest.raises(OutboxError, match=name):
            Report.read(tmp_path / name)


def test_trouble_holds_the_servers_words_uncut() -> None:
    report = Report.of(make_source([make_rejected(reply="x" * 10_000)]))
    assert report.attention == (
        AttentionRow(Place("people.csv", 2), "user1@example.org", Status.REJECTED, "550 5.1.1 " + "x" * 10_000),
    )


def test_saved_report_is_in_the_format_of_its_name(path: Path, tmp_path: Path) -> None:
    report = Report.read(path)
    table, machine = tmp_path / "report.CSV", tmp_path / "report.json"
    assert [save_report(report, target) for target in (table, machine)] == [table, machine]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["email"] for row in rows[:2]] == ["user1@example.org", "user2@example.org"]
    assert rows[1]["delivery_reply"] == "no such user"
    found = json.loads(machine.read_bytes())
    assert [row["status"] for row in found["rows"]] == [row["delivery_status"] for row in rows]
    assert found["totals"]["rows"] == len(rows) == 7


def test_tables_are_written_from_a_reader_too(path: Path, tmp_path: Path) -> None:
    report = Report.read(path)
    with OutboxReader.open(path) as reader:
        for write, name in ((write_csv, "report.csv"), (write_json, "report.json")):
            write(reader, tmp_path / name)
            assert (tmp_path / name).read_bytes() == save_report(report, tmp_path / f"saved-{name}").read_bytes()


def test_saved_report_needs_a_format(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not show the format"):
        save_report(Report.read(path), tmp_path / "report.txt")


def test_saved_report_says_so_when_the_outbox_has_gone(path: Path, tmp_path: Path) -> None:
    report = Report.read(path)
    path.unlink()
    with pytest.raises(OutboxError, match=r"spring\.outbox"):
        save_report(report, tmp_path / "report.csv")
    assert not (tmp_path / "report.csv").exists()


def test_saved_report_says_so_when_there_is_no_memory_for_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(reader: OutboxReader) -> None:
        raise MemoryError

    report = Report.read(path)
    monkeypatch.setattr(OutboxReader, "batches", fail)
    with pytest.raises(BulkmailError, match=r"report\.csv: this computer does not have enough memory for it") as caught:
        save_report(report, tmp_path / "report.csv")
    assert "bulkmail report" in caught.value.hint
    assert not (tmp_path / "report.csv").exists()
