"""The report on one screen."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from bulkmail.model.errors import BulkmailError
from bulkmail.model.tally import Status, Tally
from bulkmail.outbox.entries import RowRecord
from bulkmail.report.report import Report
from bulkmail.report.text_report import MOST_LINES, styled, summary
from tests.report.making import STARTED, make_record, make_rejected, make_source


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The summary speaks local time."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def make_report(*records: RowRecord, **run: Any) -> Report:
    return Report.of(make_source(records, **run))


def some(status: Status, number: int, *, first: int = 1, **changes: Any) -> list[RowRecord]:
    return [make_record(row, status, **changes) for row in range(first, first + number)]


def test_summary_of_a_clean_run() -> None:
    report = make_report(*some(Status.ACCEPTED, 25))
    assert summary(report, reports=[Path("runs/spring-report.csv"), Path("runs/spring-report.json")]) == (
        "Spring: 25 rows from people.csv through smtp://mail.example.com:587\n"
        "  25 accepted  accepted by the mail server\n"
        "Started 2023-11-14 22:13, finished after 10 s, 2.5 messages a second.\n"
        "\n"
        "Next:\n"
        "  the report, row by row: runs/spring-report.csv, runs/spring-report.json\n"
    )


@pytest.mark.parametrize(
    ("run", "is_said"),
    [
        ({"next_try_at": 4_000_000_000.0}, True),
        ({"next_try_at": 4_000_000_000.0, "process": (12, "here")}, False),
        ({"next_try_at": STARTED}, False),
        ({}, False),
    ],
)
def test_summary_says_from_when_on_what_was_deferred_may_be_tried_again(run: dict[str, Any], is_said: bool) -> None:
    said = summary(make_report(*some(Status.DEFERRED, 2), **run))
    assert ("\nDeferred messages will be retried from 2096-10-02 07:06:40 on.\n" in said) == is_said


def test_summary_of_a_rehearsal_begins_with_the_promise() -> None:
    report = make_report(
        *some(Status.ACCEPTED, 1),
        relay="sandbox:",
        is_rehearsal=True,
        maildir="runs/spring mail",
        ended_at=STARTED + 0.5,
    )
    assert summary(report) == (
        "Rehearsal: no mail was sent to your recipients.\n"
        "\n"
        "Spring: 1 row from people.csv through sandbox:\n"
        "  1 accepted  in the rehearsal only\n"
        "Started 2023-11-14 22:13, finished after 0.5 s, 2.0 messages a second.\n"
        "\n"
        "Next:\n"
        "  see the messages: bulkmail inbox 'runs/spring mail'\n"
        "  the report, row by row: bulkmail report runs/spring.outbox -o report.csv\n"
    )


def test_summary_of_a_troubled_run_says_what_to_look_at_and_what_to_do() -> None:
    records = [
        *some(Status.ACCEPTED, 1_200),
        *[make_rejected(row) for row in range(1_201, 1_230)],
        *[make_rejected(row, reason="policy", enhanced="5.7.1", reply="go away") for row in (1_230, 1_231)],
        *some(Status.IN_DOUBT, 2, first=1_232, error="the connection ended", reason="no answer"),
        *some(Status.DEFERRED, 3, first=1_234, reason="greylisted", code=451, enhanced="4.7.1", reply="greylisted"),
        *some(Status.PENDING, 9, first=1_237),
        *some(Status.INVALID, 1, first=1_246, address="", reason="the address 'x' has no @"),
        *some(Status.DUPLICATE, 4, first=1_247, reason="same address as people.csv:3"),
        *some(Status.SUPPRESSED, 5, first=1_251, reason="in stop.txt:3"),
        *some(Status.FILTERED, 6, first=1_256),
    ]
    assert summary(make_report(*records, ended_at=None)) == (
        "Spring: 1,261 rows from people.csv through smtp://mail.example.com:587\n"
        "  1,200 accepted    accepted by the mail server\n"
        "     31 rejected    rejected permanently: unknown user 29, policy 2\n"
        "      2 in doubt    perhaps sent: the connection broke before the reply\n"
        "      3 deferred    deferred, will be retried: greylisted 3\n"
        "      9 pending     not tried yet\n"
        "      1 invalid     the row cannot be used: the address has no @ 1\n"
        "      4 duplicate   the same address appears earlier in the list\n"
        "      5 suppressed  on a suppression list: in stop.txt 5\n"
        "      6 filtered    excluded by --where\n"
        "Started 2023-11-14 22:13, not finished.\n"
        "\n"
        "To look at:\n"
        "  people.csv:1233 in doubt: user1232@example.org\n"
        "      the connection ended\n"
        "  people.csv:1202 rejected: user1201@example.org\n"
        "      550 5.1.1 no such user\n"
        "\n"
        "Next:\n"
        "  send the 12 rows left: bulkmail resume runs/spring.outbox\n"
        "  send the 2 in doubt again, perhaps twice:\n"
        "    bulkmail resume runs/spring.outbox --in-doubt retry\n"
        "  the report, row by row: bulkmail report runs/spring.outbox -o report.csv\n"
    )


hostile = st.text(st.characters(codec="utf-8") | st.sampled_from("\x1b\r\n\u202e漢字 \x9b"), max_size=120)


@pytest.mark.slow
@settings(max_examples=50)
@given(
    numbers=st.dictionaries(st.sampled_from(Status), st.integers(1, 30)),
    words=hostile,
    run=st.fixed_dictionaries(
        {"name": hostile, "relay": hostile, "list_name": hostile},
        optional={
            "is_rehearsal": st.booleans(),
            "maildir": st.just("runs/mail"),
            "process": st.tuples(st.integers(1), hostile),
            "started_at": st.none(),
            "ended_at": st.none(),
            "path": st.none() | st.just(Path("x" * 200 + ".outbox")),
        },
    ),
    width=st.integers(40, 120),
)
def test_summary_fits_one_screen_whatever_the_outbox_says(
    numbers: dict[Status, int], words: str, run: dict[str, Any], width: int
) -> None:
    records = [
        make_record(1, status, address=words, reason=words, error=words, reply=words)
        for status, number in numbers.items()
        for _ in range(number)
    ]
    report = make_report(*records, **run)
    text = summary(report, width=width)
    lines = text.split("\n")
    assert lines.pop() == ""
    assert len(lines) <= MOST_LINES
    assert all(cell_len(line) <= width or line.startswith("    bulkmail ") or "bulkmail re" in line for line in lines)
    assert not set("\x1b\r\x9b\u202e") & set(text)
    promise = " ".join(lines).startswith("Rehearsal: no mail was sent to your recipients.")
    assert promise == report.is_rehearsal
    for status, number in numbers.items():
        assert sum(line.split()[:2] == [str(number), status.value.split("_")[0]] for line in lines) == 1
    assert styled(report, width=width).plain == text


def test_summary_has_room_for_every_status_at_once() -> None:
    records = [record for status in Status for record in some(status, 3, reason="some reason")]
    text = summary(
        make_report(*records, is_rehearsal=True, maildir="m" * 90, path=Path("o" * 90)), reports=[Path("r" * 90)]
    )
    lines = text.splitlines()
    assert len(lines) <= MOST_LINES
    assert [line.strip().split(" ")[1] for line in lines if line.startswith("  bulkmail")] == [
        "resume",
        "resume",
        "inbox",
    ]
    assert "  " + "r" * 90 in lines


def test_summary_gives_each_report_a_line_where_two_do_not_fit_on_one() -> None:
    reports = [Path("r" * 60 + suffix) for suffix in (".csv", ".json")]
    assert summary(make_report(make_record()), reports=reports).splitlines()[-3:] == [
        "  the report, row by row:",
        "    " + "r" * 60 + ".csv",
        "    " + "r" * 60 + ".json",
    ]


def test_summary_shows_one_row_of_each_kind_before_more_of_one() -> None:
    records = [*some(Status.IN_DOUBT, 30), make_rejected(31), *some(Status.INVALID, 1, first=32, reason="has no @")]
    lines = summary(make_report(*records)).splitlines()
    shown = lines[lines.index("To look at:") + 1 : lines.index("Next:") - 1]
    kinds = [line.split(":")[1].split(" ", 1)[1] for line in shown[::2]]
    assert kinds == ["in doubt"] * (len(kinds) - 2) + ["rejected", "invalid"]
    assert len(kinds) > 3
    assert MOST_LINES - 1 <= len(lines) <= MOST_LINES


@pytest.mark.parametrize(
    ("run", "line"),
    [
        pytest.param(
            {"process": (4711, "mail\x1bhost")}, "Being sent now, by process 4711 on mail host.", id="running"
        ),
        pytest.param({"started_at": None, "ended_at": None}, "Nothing was sent.", id="not-begun"),
        pytest.param({"ended_at": None}, "Started 2023-11-14 22:13, not finished.", id="stopped"),
        pytest.param({"ended_at": STARTED}, "Started 2023-11-14 22:13, finished after 0.0 s.", id="in-no-time"),
    ],
)
def test_summary_says_when(run: dict[str, Any], line: str) -> None:
    assert line in summary(make_report(make_record(1, Status.PENDING), **run)).splitlines()


def test_summary_does_not_offer_to_go_on_while_someone_sends() -> None:
    text = summary(make_report(*some(Status.PENDING, 1), process=(4711, "mailhost")))
    assert "resume" not in text


def test_summary_of_an_outbox_in_memory_offers_nothing_to_type() -> None:
    assert "Next:" not in summary(make_report(*some(Status.PENDING, 1), path=None))


def test_summary_offers_commands_that_a_shell_takes() -> None:
    report = make_report(*some(Status.PENDING, 1), path=Path("it's; rm -rf $HOME.outbox"))
    (line,) = (line for line in summary(report).splitlines() if "resume" in line)
    assert shlex.split(line[line.index("bulkmail") :]) == ["bulkmail", "resume", "it's; rm -rf $HOME.outbox"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("runs/spring.outbox", "runs/spring.outbox", id="here"),
        pytest.param("-x.outbox", "./-x.outbox", id="like-an-option"),
        pytest.param("../elsewhere/spring.outbox", "../elsewhere/spring.outbox", id="next-door"),
    ],
)
def test_summary_says_paths_the_short_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    report = make_report(*some(Status.PENDING, 1), path=Path(os.path.abspath(path)))
    assert f" bulkmail resume {said}\n" in summary(report)


def test_summary_says_the_whole_path_when_the_working_folder_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    report = make_report(*some(Status.PENDING, 1), path=tmp_path / "spring.outbox")
    assert f" bulkmail resume {tmp_path}/spring.outbox\n" in summary(report)


def test_summary_cuts_by_columns_not_by_characters() -> None:
    (title, *_) = summary(make_report(name="漢" * 60)).splitlines()
    assert cell_len(title) in (79, 80)
    assert title.endswith("漢…")


def test_styled_summary_colours_words_and_changes_none() -> None:
    report = make_report(*some(Status.ACCEPTED, 3), make_rejected(4), is_rehearsal=True)
    text = styled(report)
    assert text.plain == summary(report)
    found = {(text.plain[span.start : span.end].strip(), str(span.style)) for span in text.spans}
    assert ("3 accepted", "green") in found
    assert ("1 rejected", "red") in found
    assert ("Rehearsal: no mail was sent to your recipients.", "bold magenta") in found


def test_summary_of_a_redirected_rehearsal_says_who_got_the_messages() -> None:
    records = [
        *some(Status.ACCEPTED, 2, first=1),
        *some(Status.FILTERED, 3, first=3, reason="not drawn for the sample"),
        *some(Status.FILTERED, 1, first=6, reason="excluded by --where"),
    ]
    report = make_report(*records, is_rehearsal=True, redirected_to="me@shop.example")
    lines = summary(report).splitlines()
    assert lines[0] == "Rehearsal: me@shop.example got every message; your recipients got none."
    assert "  2 accepted  accepted by the mail server" in lines
    assert "  4 filtered  not drawn for the sample 3, excluded by --where 1" in lines


def test_summary_counts_suppressed_copies() -> None:
    left_out = make_record(1, Status.SUPPRESSED, address="boss@example.org", reason="in stop.txt:1")
    other = make_record(1, address="team@example.org")
    said = summary(make_report(make_record(1, copies=(other, left_out)), make_record(2)))
    assert "  2 accepted  accepted by the mail server\nCopies (To, Cc, Bcc): 1 accepted, 1 suppressed.\n" in said


def test_summary_says_what_became_of_copies_and_names_each_address_once() -> None:
    dead = make_rejected(9, address="dead@example.org")
    doubtful = make_record(9, Status.IN_DOUBT, address="boss@example.org", error="no answer")
    records = [make_record(row, copies=(dead,)) for row in range(1, 31)]
    report = make_report(*records, make_record(31, copies=(doubtful,)))
    said = summary(report)
    assert "  31 accepted  accepted by the mail server\nCopies (To, Cc, Bcc): 30 rejected, 1 in doubt.\n" in said
    assert said.count("dead@example.org") == 1 and "rejected: dead@example.org (copy of 30 rows)" in said
    assert "in doubt: boss@example.org (copy of 1 row)" in said
    assert "send the 1 in doubt again, perhaps twice" in said
    assert report.failed == [("dead@example.org", 550, "no such user")]
    assert report.exit_code == 4


def test_report_is_refused_when_its_copies_are_not_those_counted() -> None:
    records = [make_record(1, copies=(make_rejected(9),))]
    with pytest.raises(BulkmailError, match="rejected copies 1 of 2"):
        Report.of(make_source(records, tally=Tally(1, {Status.ACCEPTED: 1}, {Status.REJECTED: 2})))


def test_summary_says_which_pending_rows_were_in_doubt() -> None:
    retried = some(Status.PENDING, 2, reason="in doubt before, to be sent again", attempts=1)
    said = summary(make_report(*retried, *some(Status.PENDING, 1, first=3)))
    assert "  3 pending  to be sent: in doubt before, to be sent again 2\n" in said
    assert "  1 pending  not tried yet\n" in summary(make_report(*some(Status.PENDING, 1)))
