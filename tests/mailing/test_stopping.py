"""Stopping a run from elsewhere: the note beside the outbox, and what it must not be taken for."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

import bulkmail
from bulkmail.cli import main
from bulkmail.mailing.operator import EVERY, FileControl, requested_here, stop_note
from bulkmail.model.breaker import NO_ONE_NAMED, StopRequest
from bulkmail.model.errors import OutboxBusy, OutboxError
from bulkmail.outbox.outbox import Outbox
from bulkmail.report.report import Report
from bulkmail.testing import Hang, ScriptedRelay

PEOPLE = [{"email": f"p{n}@example.com", "first_name": "Pat"} for n in range(200)]
SLOW = bulkmail.Pace(rate=bulkmail.Rate(20, 1.0))


@pytest.fixture
def campaign():
    return bulkmail.compose(from_="Shop <shop@example.com>", subject="Hello {{ first_name }}", text="Dear you,\n")


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return tmp_path / "spring.outbox"


def url_of(relay):
    return f"smtp://{relay.host}:{relay.port}?tls=off"


async def begun(relay, number=1):
    while len(relay.messages) < number:
        await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_stop_ends_a_run_that_says_who_stopped_it_and_goes_on_later(campaign, outbox):
    async with ScriptedRelay() as relay:
        slow, fast = bulkmail.Mailer(url_of(relay), pace=SLOW), bulkmail.Mailer(url_of(relay))
        sending = asyncio.ensure_future(slow.send(campaign, PEOPLE, outbox=outbox))
        await begun(relay)
        asked = time.monotonic()
        assert await bulkmail.stop(outbox)
        assert time.monotonic() - asked < EVERY + 1
        stopped, sent = await sending, len(relay.messages)
        assert not stop_note(outbox).exists()
        assert stopped.accepted == sent < len(PEOPLE)
        assert stopped.run.stopped.by == requested_here().by
        report = await fast.resume(outbox)
    assert report.accepted == len(relay.messages) == len(PEOPLE)
    assert report.run.stopped is None


@pytest.mark.slow
async def test_stop_now_aborts_what_is_under_way_and_leaves_it_in_doubt(campaign, outbox):
    async with ScriptedRelay(end=Hang()) as relay:
        sending = asyncio.ensure_future(bulkmail.send(campaign, PEOPLE, relay=url_of(relay), outbox=outbox))
        while not any("DATA" in command or "BDAT" in command for command in relay.commands):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert not await bulkmail.stop(outbox, wait=EVERY + 1)
        assert await bulkmail.stop(outbox, now=True)
        report = await sending
    doubtful = report.tally[bulkmail.Status.IN_DOUBT]
    assert 1 <= doubtful <= 10  # connections
    assert report.tally.open == len(PEOPLE) - doubtful


@pytest.mark.slow
async def test_cancel_stops_a_run_first(campaign, outbox):
    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(url_of(relay), pace=SLOW)
        sending = asyncio.ensure_future(mailer.send(campaign, PEOPLE, outbox=outbox))
        await begun(relay)
        number = await bulkmail.cancel(outbox)
        await sending
    assert number == len(PEOPLE) - len(relay.messages)
    assert Report.read(outbox).tally[bulkmail.Status.CANCELLED] == number


@pytest.mark.slow
async def test_cancel_leaves_a_run_alone_that_does_not_end(campaign, outbox):
    async with ScriptedRelay(end=Hang()) as relay:
        sending = asyncio.ensure_future(bulkmail.send(campaign, PEOPLE, relay=url_of(relay), outbox=outbox))
        while not any("DATA" in command or "BDAT" in command for command in relay.commands):
            await asyncio.sleep(0.01)
        with pytest.raises(OutboxBusy, match="still under way"):
            await bulkmail.cancel(outbox, wait=0.1)
        await bulkmail.stop(outbox, now=True)
        await sending


async def test_stop_of_a_run_that_no_one_sends_leaves_no_note(campaign, outbox):
    async with ScriptedRelay() as relay:
        await bulkmail.send(campaign, PEOPLE[:2], relay=url_of(relay), outbox=outbox)
    assert await bulkmail.stop(outbox)
    assert not stop_note(outbox).exists()


async def test_stop_names_a_file_that_is_no_outbox(tmp_path):
    with pytest.raises(OutboxError, match="there is no outbox"):
        await bulkmail.stop(tmp_path / "none.outbox")


async def test_note_that_an_earlier_run_left_is_removed_at_start(campaign, outbox):
    stop_note(outbox).write_text(StopRequest("ann on web1", 1.0).recorded())
    os.utime(stop_note(outbox), (1, 1))
    async with ScriptedRelay() as relay:
        report = await bulkmail.send(campaign, PEOPLE[:3], relay=url_of(relay), outbox=outbox)
    assert report.accepted == 3
    assert not stop_note(outbox).exists()


@pytest.fixture
def held(outbox, campaign):
    """A run that has begun, so that its lock is held, and its control."""
    with Outbox.create(outbox, campaign=campaign):
        yield FileControl(outbox)


async def test_note_is_not_followed_if_it_is_a_link(held, outbox, tmp_path):
    (tmp_path / "other").write_text(StopRequest("ann on web1", time.time()).recorded())
    stop_note(outbox).symlink_to(tmp_path / "other")
    assert await held.asked() is None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda note: note.write_bytes(b" " * 5_000)])
async def test_note_that_is_no_small_file_is_none(held, outbox, make):
    make(stop_note(outbox))
    async with asyncio.timeout(2):
        assert await held.asked() is None


async def test_request_replaces_a_link_and_leaves_what_it_pointed_to(held, outbox, tmp_path):
    (tmp_path / "other").write_text("mine")
    stop_note(outbox).symlink_to(tmp_path / "other")
    await held.begin()
    await held.ask_to_stop(StopRequest("ann on web1", 5.0))
    assert await held.asked() == StopRequest("ann on web1", 5.0)
    assert (tmp_path / "other").read_text() == "mine"
    assert not stop_note(outbox).is_symlink()


@pytest.mark.parametrize(
    "text", ["", "stop, please", "[" * 4_000, '{"by": 7}', '{"at": 1e300}', '{"at": NaN}', '{"by": "\\ud800"}', "\xff"]
)
async def test_note_in_other_words_is_a_request_of_an_unnamed_user(held, outbox, text):
    stop_note(outbox).write_text(text, encoding="latin-1")
    request = await held.asked()
    assert request is not None and request.by == NO_ONE_NAMED and not request.now
    assert request.sentence.startswith("Stopped by an unnamed user at 20")


async def test_note_cannot_steer_the_terminal(held):
    await held.ask_to_stop(StopRequest("\x1b[2Jann\n" + "x" * 1_000, 5.0))
    request = await held.asked()
    assert request.by.isprintable() and len(request.by) == 200


async def test_note_is_readable_for_a_sending_process_of_another_user(held, outbox):
    old = os.umask(0o077)
    try:
        await held.ask_to_stop(requested_here())
    finally:
        os.umask(old)
    assert stop_note(outbox).stat().st_mode & 0o444 == 0o444
    assert [path.name for path in outbox.parent.glob("*.stop*")] == ["spring.outbox.stop"]


async def test_request_that_cannot_be_left_says_what_to_do(held, outbox):
    stop_note(outbox).mkdir()
    (stop_note(outbox) / "full").touch()
    with pytest.raises(OutboxError, match="cannot be written") as caught:
        await held.ask_to_stop(requested_here())
    assert "write permission" in caught.value.hint
    assert [path.name for path in outbox.parent.glob("*.stop*")] == ["spring.outbox.stop"]


def test_command_says_that_a_run_is_not_being_sent(campaign, outbox, capsys):
    bulkmail.send_sync(campaign, PEOPLE[:2], relay="null:", outbox=outbox)
    with pytest.raises(SystemExit) as ended:
        main(["stop", str(outbox), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert (ended.value.code, said["was_sending"], said["has_ended"], said["left"]) == (0, False, True, 0)
