"""Who slowed a run down: kept in its outbox, read by people and programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from selectolax.lexbor import LexborHTMLParser

from bulkmail.model.rate import AdaptiveRate
from bulkmail.model.shaper import Slowdown
from bulkmail.outbox.run_info import RunInfo
from bulkmail.report.html import write_html
from bulkmail.report.report import Report
from bulkmail.report.slowdowns import as_object, clock_time, sentence, slowdowns_of
from bulkmail.report.text_report import MOST_LINES, summary
from tests.report.making import STARTED, make_record, make_source

NOW = STARTED + 60
GOOGLE = Slowdown(
    "main",
    "google",
    times=3,
    at=NOW,
    why="Gmail: unusual rate of mail",
    words="421 4.7.28 unusual rate",
    speed=AdaptiveRate(low=9.0, peak=10.0, since=NOW),
    lowest=9.0,
    until=NOW + 600,
)
RELAY = Slowdown("main", "", times=1, at=NOW, why="too many connections", words="421 too many", connections=2)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sentences speak local time."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def recorded(slowdown: Slowdown) -> str:
    return RunInfo(slowdowns=(slowdown,)).notes()["slowdowns"]


def test_outbox_gives_back_what_it_was_reported() -> None:
    noted = RunInfo(slowdowns=(RELAY, GOOGLE))
    assert slowdowns_of(RunInfo.read(noted.notes())) == (RELAY, GOOGLE)
    assert slowdowns_of(RunInfo()) == ()


@pytest.mark.parametrize(
    "kept",
    [
        "{}",
        '[{"relay": 1}]',
        "not JSON",
        recorded(replace(GOOGLE, until=1e300)),
        recorded(replace(GOOGLE, times=0)),
        recorded(replace(GOOGLE, speed=AdaptiveRate(low=0.0, peak=1.0, since=NOW))),
    ],
)
def test_what_makes_no_sense_is_not_believed(kept: str) -> None:
    assert slowdowns_of(RunInfo.read({"slowdowns": kept})) == ()


@pytest.mark.parametrize(
    ("slowdown", "later", "is_running", "said"),
    [
        (
            GOOGLE,
            10.0,
            True,
            "google asked us to slow down 3 times, to 9.0/s at the least; now paused until 22:24:20, then 38/s: "
            "421 4.7.28 unusual rate",
        ),
        (GOOGLE, 5.0, False, "at the least; paused until 22:24:20, then 38/s: 421"),
        (GOOGLE, 20_000.0, True, "at the least; back to full speed: 421"),
        (GOOGLE, 20_000.0, False, "3 times, to 9.0/s at the least: 421 4.7.28 unusual rate"),
        (RELAY, 5.0, True, "The relay main asked us to slow down once; now 2 connections: 421 too many"),
    ],
    ids=["held", "held and no one sends", "over", "over and no one sends", "relay"],
)
def test_sentence_says_who_how_often_and_what_it_gets(
    slowdown: Slowdown, later: float, is_running: bool, said: str
) -> None:
    assert said in sentence(slowdown, NOW + later, is_running=is_running, has_several=False)


def test_sentence_names_the_relay_where_there_are_several() -> None:
    assert sentence(GOOGLE, NOW, is_running=True, has_several=True).startswith("google through main asked us")


def test_hostile_names_and_words_are_printable_and_short() -> None:
    hostile = replace(GOOGLE, provider="\x1b[31m" + "x" * 500, words="\u202e\x1b]0;" + "y" * 5000)
    said = sentence(hostile, NOW, is_running=True, has_several=True)
    assert said.isprintable() and len(said) < 500
    assert str(as_object(hostile, NOW)["reply"]).isprintable()


def test_object_for_programs_has_null_for_what_does_not_hold() -> None:
    assert as_object(GOOGLE, NOW + 10) == {
        "relay": "main",
        "mailbox_provider": "google",
        "times": 3,
        "last_at": "2023-11-14T22:14:20.500Z",
        "why": "Gmail: unusual rate of mail",
        "reply": "421 4.7.28 unusual rate",
        "until": "2023-11-14T22:24:20.500Z",
        "per_second": 9.5,
        "lowest_per_second": 9.0,
        "connections": None,
    }
    over = as_object(RELAY, NOW + 20_000)
    assert (over["mailbox_provider"], over["until"], over["per_second"], over["connections"]) == (None, None, None, 2)


def test_summary_names_three_who_slowed_it_down_and_fits_the_screen() -> None:
    slowdowns = tuple(replace(GOOGLE, provider=f"provider {number}") for number in range(8))
    said = summary(Report.of(make_source([make_record()], slowdowns=slowdowns)))
    assert "\nprovider 0 asked us to slow down 3 times, to 9.0/s at the least.\n" in said
    assert "5 others also asked us to slow down." in said
    assert len(said.splitlines()) <= MOST_LINES
    assert "slow down" not in summary(Report.of(make_source([make_record()])))


def test_summary_says_until_when_someone_is_left_alone() -> None:
    until = time.time() + 3600
    said = summary(Report.of(make_source([make_record()], slowdowns=(replace(GOOGLE, until=until),))))
    assert f"google asked us to slow down 3 times; paused until {clock_time(until, time.time())}.\n" in said


def test_page_has_a_list_of_them_only_where_there_are_any() -> None:
    from io import BytesIO

    def page(*slowdowns: Slowdown) -> LexborHTMLParser:
        target = BytesIO()
        write_html(make_source([make_record()], slowdowns=slowdowns), target)
        return LexborHTMLParser(target.getvalue().decode())

    shown = page(RELAY, replace(GOOGLE, words="<script>alert(1)</script>"))
    reported = [item.text() for item in shown.css("ul.slowed li")]
    assert reported[0].startswith("The relay main asked us to slow down once")
    assert "<script>" in reported[1] and len(shown.css("script")) == 1
    assert not page().css("ul.slowed")
