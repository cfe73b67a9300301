"""A run's pages: rows by search, a row with every try, what is in doubt, and the commands behind the buttons."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bulkmail.cli.reconcile import rows_of
from bulkmail.console import run_pages
from bulkmail.console.commands import Commands
from bulkmail.console.doubt_pages import spelled
from bulkmail.console.run_view import WORDS
from bulkmail.model.outcome import Fault, Reply, Stage
from bulkmail.model.suppression import SuppressionReason
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.run_info import RunInfo
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.ports import Addition
from tests.console.asking import Asker
from tests.outbox.making import LOST, OK, UNKNOWN, due, send
from tests.report.making import fill_outbox

HARM = "<script>alert(1)</script>"
HOSTILE = Reply(Stage.RCPT, 550, "5.1.1", f"{HARM} \x1b[2J\u202eno")
RETRY = Reply(Stage.RCPT, 452, "4.2.2", "mailbox full")


@pytest.fixture
def outbox(root: Path) -> Path:
    """A run with rows in each state, some of whose replies are hostile."""
    path = root / "spring" / "runs" / "spring.outbox"
    path.parent.mkdir()
    events: Sequence[Reply | Fault | None] = [OK, UNKNOWN, HOSTILE, RETRY, LOST, None, *[OK] * 150]
    with Outbox.create(path, campaign=None, info=RunInfo(name="spring", relay=HARM, list_name="people.csv")) as made:
        fill_outbox(made, events, bad=[HARM])
    return path


async def run_of(console: Asker) -> str:
    found = re.search(r'href="(/r/spring-[0-9a-f]{8})"', (await console.get("/")).text)
    assert found
    return found[1]


@pytest.mark.slow
async def test_every_page_of_a_run_escapes_what_others_wrote(console: Asker, outbox: Path) -> None:
    run = await run_of(console)
    pages = "/rows /rows?status=rejected /rows/3 /rows/157 /doubt /cancel /report /rows?q=%3Cscript"
    for path in ("", *pages.split()):
        answer = await console.get(run + path)
        assert answer.status == 200, path
        assert HARM not in answer.text, path
        assert "\x1b" not in answer.text, path
        assert len(answer.body) < 60_000, path
    assert "&lt;script&gt;" in (await console.get(f"{run}/rows/3")).text


async def test_run_says_where_it_stands_in_figures(console: Asker, outbox: Path) -> None:
    text = (await console.get(await run_of(console))).text
    for status, number in (("accepted", 151), ("rejected", 2), ("deferred", 1), ("in_doubt", 1), ("pending", 1)):
        assert re.search(rf'class="{status}"><b>{number}</b>', text), status
    assert "Go on with 2" in text
    assert "Decide 1 in doubt" in text
    assert "550 5.1.1 no such user" in text


def numbers_in(text: str) -> list[int]:
    return [int(found) for found in re.findall(r'/rows/(\d+)" title=', text)]


async def test_rows_are_found_by_status_address_and_number(console: Asker, outbox: Path) -> None:
    run = await run_of(console)
    assert numbers_in((await console.get(f"{run}/rows?status=rejected")).text) == [2, 3]
    assert numbers_in((await console.get(f"{run}/rows?q=user15@")).text) == [15]
    assert numbers_in((await console.get(f"{run}/rows?q=USER15@")).text) == [15]
    assert numbers_in((await console.get(f"{run}/rows?q=7")).text) == [7]
    assert numbers_in((await console.get(f"{run}/rows?q=%25")).text) == []
    assert "No row is like this" in (await console.get(f"{run}/rows?q=no one")).text


@pytest.mark.slow
async def test_rows_are_paged_by_key_until_the_end(console: Asker, outbox: Path) -> None:
    run, seen = await run_of(console), []
    path = f"{run}/rows"
    while path:
        text = (await console.get(path)).text
        seen += numbers_in(text)
        following = re.search(r'rel="next" href="([^"]+)"', text)
        path = following[1].replace("&amp;", "&") if following else ""
    assert seen == list(range(1, 158))
    for odd in ("?after=-1", "?after=x", "?after=99999999999999999999999", "?status=x", "/0", "/x", "/158"):
        assert (await console.get(f"{run}/rows{odd}")).status in (200, 404)


async def test_row_shows_every_try_in_the_servers_words(console: Asker, outbox: Path, root: Path) -> None:
    with Outbox.open(outbox) as again:
        send(again, next(each for each in due(again, 2e9) if each.row == 4), UNKNOWN)
    text = (await console.get(f"{await run_of(console)}/rows/4")).text
    assert "452 4.2.2 mailbox full" in text
    assert "550 5.1.1 no such user" in text
    assert "Graz" in text


@pytest.mark.slow
async def test_buttons_start_the_commands_of_a_terminal(
    console: Asker, outbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, started = await run_of(console), []
    real = Commands.start

    def note(self: Commands, words: Sequence[str], **options: object) -> object:
        started.append((list(words), options.get("password") is not None))
        return real(self, ["--version"], **options | {"unsaid": [], "password": None})  # type: ignore[arg-type]

    monkeypatch.setattr(Commands, "start", note)
    shown = "spring/runs/spring.outbox"
    for path, fields, words in (
        ("stop", {}, ["stop", shown]),
        ("stop", {"now": "1"}, ["stop", shown, "--now"]),
        ("resume", {}, ["resume", shown, "--yes"]),
        ("resume", {"password": "secret"}, ["resume", shown, "--yes", "--password-stdin"]),
        ("doubt", {"choice": "retry", "which": "all"}, ["reconcile", shown, "--as", "retry"]),
        (
            "doubt",
            {"choice": "accepted", "which": "some", "row": "5"},
            ["reconcile", shown, "--as", "accepted", "--rows", "5"],
        ),
        (
            "mailbox",
            {"imap": "imaps://me@mail.example.com", "folder": "", "password": "secret"},
            ["reconcile", shown, "--imap", "imaps://me@mail.example.com", "--folder", "Sent", "--password-stdin"],
        ),
        ("cancel", {"confirm": "cancel"}, ["cancel", shown, "--yes"]),
    ):
        answer = await console.post(f"{run}/{path}", fields)
        assert answer.status == 303
        assert started.pop() == (words, "password" in fields)
        await asyncio.sleep(0.3)
    for path, fields in (
        ("doubt", {}),
        ("doubt", {"choice": "x", "which": "all"}),
        ("doubt", {"choice": "retry"}),
        ("doubt", {"choice": "retry", "which": "some"}),
        ("doubt", {"choice": "retry", "which": "some", "row": "--as"}),
        ("mailbox", {}),
        ("mailbox", {"imap": "imaps://me:secret@mail.example.com"}),
        ("mailbox", {"imap": "file:///x"}),
        ("log", {}),
        ("cancel", {}),
        ("cancel", {"confirm": "yes"}),
    ):
        assert (await console.post(f"{run}/{path}", fields)).status == 400
    campaign = re.findall(r'href="(/c/[^"/]+)"', (await console.get("/")).text)[0]
    for path, fields, words in (
        ("test", {"to": "me@example.org", "row": "2"}, ["send", "spring", "--test", "me@example.org", "--row", "2"]),
        ("relay", {}, ["relay", "spring"]),
    ):
        assert (await console.post(f"{campaign}/{path}", fields)).status == 303
        assert started.pop() == (words, False)
    for fields in ({"to": "x"}, {"to": ""}, {"to": "me@example.org", "row": "0"}, {"to": "--relay", "row": "1"}):
        assert (await console.post(f"{campaign}/test", fields)).status == 400
    assert not started
    log = (await console.get("/log")).text
    assert "secret" not in log


async def test_no_get_starts_anything(console: Asker, outbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Commands, words: Sequence[str], **options: object) -> None:
        raise AssertionError(words)

    monkeypatch.setattr(Commands, "start", refuse)
    run = await run_of(console)
    campaign = re.findall(r'href="(/c/[^"/]+)"', (await console.get("/")).text)[0]
    paths = [f"{run}/{each}" for each in ("stop", "resume", "cancel", "doubt", "rows", "report")]
    paths += [f"{campaign}/{each}" for each in ("check", "start", "send", "rehearse", "count", "test", "relay", "save")]
    for path in (*paths, "/campaigns", "/log", "/returns", "/suppressions"):
        assert (await console.get(path)).status in (200, 405, 404)


async def test_suppression_list_is_not_made_by_looking_for_it(console: Asker, state_folder: Path) -> None:
    for path in ("/suppressions", "/returns"):
        assert (await console.get(path)).status == 200
    assert not (state_folder / "suppressions.db").exists()


@pytest.fixture
def suppressed(state_folder: Path) -> None:
    """A list with an address and a domain."""
    with SqliteSuppressions(state_folder / "suppressions.db") as store:
        store.add([Addition("ann@example.org", SuppressionReason.MANUAL, note=HARM), Addition("@example.net")])


async def test_suppressions_are_shown_and_searched(suppressed: None, console: Asker) -> None:
    text = (await console.get("/suppressions")).text
    assert "ann@example.org" in text
    assert "@example.net" in text
    assert HARM not in text
    only = (await console.get("/suppressions?q=ann@example.org")).text
    assert "@example.net" not in only
    assert "1 entry" in only
    assert (await console.get("/suppressions?reason=x&q=%00")).status == 200


async def test_damaged_outbox_is_reported_and_spoils_no_other(console: Asker, outbox: Path, root: Path) -> None:
    (root / "spring" / "runs" / "broken.outbox").write_bytes(b"SQLite format 3\0" + bytes(100))
    text = (await console.get("/")).text
    assert "Could not be read" in text
    assert "151 of" in text


def test_every_status_of_a_row_has_a_word() -> None:
    assert set(WORDS) == set(Status)


@pytest.mark.slow
async def test_button_that_is_pressed_twice_starts_one_command(
    console: Asker, outbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tabs, or two presses before the first was answered."""
    started = []
    real = Commands._start

    def note(self: Commands, words: Sequence[str], *options: object) -> object:
        started.append(words[0])
        time.sleep(0.2)  # while the other asks
        return real(self, ["check", "--help"], *options)  # type: ignore[arg-type]

    monkeypatch.setattr(Commands, "_start", note)
    run = await run_of(console)
    answers = await asyncio.gather(*(console.post(f"{run}/resume") for _ in range(3)))
    assert started == ["resume"]
    assert {answer.status for answer in answers} <= {303, 409}
    assert 303 in {answer.status for answer in answers}


async def test_streams_beyond_the_limit_are_told_to_ask_later(
    console: Asker, outbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_pages, "MOST_STREAMS", 0)
    answer = await console.get(f"{await run_of(console)}/events")
    assert "event: full" in answer.text


@pytest.mark.parametrize(
    ("rows", "text"), [([], ""), ([3], "3"), ([3, 7, 40, 41, 42], "3,7,40-42"), ([1, 2, 4, 5], "1-2,4-5")]
)
def test_rows_are_spelled_as_the_command_reads_them(rows: list[int], text: str) -> None:
    assert spelled(rows) == text
    assert [row for each in (rows_of(text) if text else []) for row in each] == rows


@pytest.mark.slow
async def test_log_that_was_uploaded_is_what_the_command_reads(
    console: Asker, outbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = []
    real = Commands._start

    def note(self: Commands, words: Sequence[str], *options: object) -> object:
        got.append((list(words), os.pread(options[-1], 100, 0)))  # type: ignore[arg-type]
        return real(self, ["check", "--help"], *options)  # type: ignore[arg-type]

    monkeypatch.setattr(Commands, "_start", note)
    answer = await console.upload(f"{await run_of(console)}/log", "mail.log", b"postfix said", {})
    assert answer.target.startswith("/j/")
    assert got == [(["reconcile", "spring/runs/spring.outbox", "--log", "-"], b"postfix said")]
