"""The fault matrix, F14 to F45: what goes wrong while messages are handed over."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest
from msgspec.structs import replace

from bulkmail.model.pace import Pace
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.report.report import Report
from bulkmail.report.text_report import summary
from bulkmail.testing import Drop, Hang, Late, Reset, ScriptedRelay
from tests.engine.conftest import compose
from tests.faults.quick import FastClock, Lapse, sessions

SOON = Pace(retry=RetryPolicy(schedule=(1.0,) * 8))


def every(number, answer):
    """A script that gives `answer` each this many times."""
    count = 0

    def script(path):
        nonlocal count
        count += 1
        return answer if count % number == 0 else None

    return script


def reached(relay):
    return Counter(path for message in relay.messages for path in message.forward_paths)


def assert_right(relay, outbox):
    """Everyone once, everyone his own message, and the books agree."""
    got = reached(relay)
    assert outbox.tally().adds_up
    assert not [path for path, times in got.items() if times > 1]
    for message in relay.messages:
        assert f"Dear {message.forward_paths[0]}\r\n".encode() in message.content
    rows = {row.address: row.status for row in OutboxReader.over(outbox).rows()}
    assert {path for path, status in rows.items() if status is Status.ACCEPTED} <= got.keys()
    assert got.keys() <= {path for path, status in rows.items() if status in (Status.ACCEPTED, Status.IN_DOUBT)}


ALL_DELIVERED = {
    "f14-mail-421": {"mail": every(20, "421 4.3.2 closing")},
    "f15-mail-451-burst": {"mail": ["451 4.3.0 busy", "452 4.3.1 no room", "451 4.3.0 busy"]},
    "f22-data-451": {"data": every(9, "451 4.3.0 not now")},
    "f30-end-421": {"end": [None, "421 4.3.0 closing", None, "421 4.3.0 closing"]},
    "f31-end-251": {"end": "251 2.1.5 will forward"},
    "f31-end-252": {"end": "252 2.1.5 will try"},
    "f31-end-299": {"end": "299 whatever"},
    "f34-end-of-300-lines": {"end": "\n".join(["250-more"] * 300 + ["250 done"])},
    "f34-rcpt-of-33-kb-without-an-end": {"rcpt": [None, b"250 " + b"x" * 33_000]},
    "f36-code-2_5": {"rcpt": [None, b"2_5 ok\r\n"]},
    "f36-code-abc": {"rcpt": [None, b"abc ok\r\n"]},
    "f36-code-99": {"rcpt": [None, b"99 ok\r\n"]},
    "f36-code-600": {"rcpt": [None, b"600 ok\r\n"]},
    "f36-mixed-codes": {"rcpt": [None, b"250-ok\r\n251 ok\r\n"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ALL_DELIVERED)
async def test_f14_to_f36_server_that_fails_for_a_while_gets_everything_once(people, make_engine, outbox, fault):
    addresses = people(60)
    async with ScriptedRelay(**ALL_DELIVERED[fault]) as relay:
        with anyio.fail_after(15):
            ending = await make_engine(sessions(relay, rcpt=1.0), pace=SOON, clock=FastClock(60)).run()
    assert ending.error is None
    assert_right(relay, outbox)
    assert outbox.tally().by_status == {Status.ACCEPTED: 60}
    assert reached(relay) == Counter(addresses)


REJECTED = {
    "f17-rcpt-550": ({"rcpt": every(20, "550 5.1.1 no such user")}, 3),
    "f21-rcpt-552-mailbox-full": ({"rcpt": every(20, "552 5.3.4 too big for you")}, 3),
    "f22-data-554": ({"data": every(20, "554 5.6.0 not this")}, 3),
    "f23-550-while-the-body-is-sent": (
        {
            "body": lambda path: "550 5.7.1 looks like spam" if "0@" in path else None,
            "end": lambda path: Drop() if "0@" in path else None,
        },
        6,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", REJECTED)
async def test_f17_to_f23_refusal_hits_whom_it_is_for_and_no_one_else(people, make_engine, outbox, fault):
    people(60)
    script, number = REJECTED[fault]
    async with ScriptedRelay(**script) as relay:
        await make_engine(relay, pace=SOON, clock=FastClock(60)).run()
    assert_right(relay, outbox)
    assert outbox.tally().by_status == {Status.ACCEPTED: 60 - number, Status.REJECTED: number}


@pytest.mark.slow
@pytest.mark.parametrize("way", [Drop, Reset], ids=["f24-eof", "f25-reset"])
async def test_f24_f25_loss_in_the_middle_of_the_body_is_tried_again(people, make_engine, outbox, way):
    """The end not on the lists way yet: no one can have the message, and nothing is in doubt.

    8 MB, because what fits into the buffers of the system has left ours, and then the end follows.
    """
    addresses = people(4)

    def long(job, first_at):
        message = compose(job, first_at)
        return replace(message, buffers=(*message.buffers, (b"y" * 990 + b"\r\n") * 8_000))

    async with ScriptedRelay(body=[None, way(), None, way()], receive_buffer=4096) as relay:
        engine = make_engine(relay, connections=1, pace=SOON, clock=FastClock(60))
        object.__setattr__(engine._run.plan, "compose", long)
        await engine.run()
    assert_right(relay, outbox)
    assert outbox.tally().by_status == {Status.ACCEPTED: 4}
    assert reached(relay) == Counter(addresses)


@pytest.mark.parametrize("keeps", [False, True], ids=["f26-not-stored", "f27-stored"])
@pytest.mark.parametrize("way", [Drop, Reset], ids=["eof", "reset"])
async def test_f26_f27_loss_after_the_end_is_in_doubt_and_repeated_only_on_request(
    people, make_engine, outbox, keeps, way
):
    """Anyone who was in doubt and had it gets a second one with the same Message-ID: SMTP knows no better."""
    addresses = people(40)
    async with ScriptedRelay(end=[None, None, way(keeps=keeps), None, way(keeps=keeps)]) as relay:
        await make_engine(relay, pace=SOON, clock=FastClock(60)).run()
        assert outbox.tally().by_status == {Status.ACCEPTED: 38, Status.IN_DOUBT: 2}
        assert_right(relay, outbox)
        doubtful = {row.address for row in OutboxReader.over(outbox).in_doubt()}
        outbox.settle_in_doubt(Status.PENDING)
        await make_engine(relay).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 40}
    assert reached(relay) == Counter(addresses) + Counter(doubtful if keeps else ())
    copies = {message.content for message in relay.messages}
    assert len(copies) == 40


async def test_f28_answer_after_nine_minutes_is_waited_for(people, make_engine, outbox, monkeypatch):
    people(1)
    lapse = Lapse(monkeypatch)
    async with ScriptedRelay(end=Late(560.0, "250 2.0.0 at last")) as relay, anyio.create_task_group() as group:
        group.start_soon(make_engine(relay, connections=1).run)
        while "." not in relay.commands:
            await anyio.sleep(0.01)
        await lapse.pass_by(550.0)
        assert outbox.tally()[Status.PENDING] == 1
        await lapse.pass_by(15.0)
    assert outbox.tally().by_status == {Status.ACCEPTED: 1}
    assert len(relay.messages) == 1


async def test_f29_answer_that_never_comes_is_in_doubt_after_ten_minutes(people, make_engine, outbox, monkeypatch):
    people(1)
    lapse = Lapse(monkeypatch)
    async with ScriptedRelay(end=Hang(keeps=True)) as relay, anyio.create_task_group() as group:
        group.start_soon(make_engine(relay, connections=1).run)
        while "." not in relay.commands:
            await anyio.sleep(0.01)
        await lapse.pass_by(590.0)
        assert outbox.tally()[Status.IN_DOUBT] == 0
        await lapse.pass_by(15.0)
    assert outbox.tally().by_status == {Status.IN_DOUBT: 1}


async def test_f32_second_answer_is_booked_to_no_one(people, make_engine, outbox):
    people(60)
    async with ScriptedRelay(end=every(10, "250 2.0.0 ok\n550 5.1.1 and one more")) as relay:
        await make_engine(relay, pace=SOON, clock=FastClock(60)).run()
    assert_right(relay, outbox)
    assert outbox.tally().by_status == {Status.ACCEPTED: 60}


async def test_f35_reply_of_any_bytes_steers_neither_outbox_nor_report(people, make_engine, outbox, loop_watch):
    people(4)
    ugly = b"550 5.1.1 \xff\xfe \x1b[31m\x1b]0;title\x07 =cmd|'/c calc'!A1 <script>alert(1)</script> \x00\x85\r\n"
    async with ScriptedRelay(rcpt=[ugly, b"550-5.1.1 =1+1\r\n550 5.1.1 \xe2\x80\xae\r\n"]) as relay:
        await make_engine(relay, connections=1).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 2, Status.REJECTED: 2}
    loop_watch.deactivate()
    report = Report.read(OutboxReader.over(outbox))
    for forbidden in ("\x1b", "\x07", "\x00", "\x85", "\u202e"):
        assert forbidden not in summary(report, reports=())
    assert all("\x1b" not in row.reply for row in OutboxReader.over(outbox).rows())


async def test_f39_one_message_a_connection_is_enough(people, make_engine, outbox, events):
    """The server closes after each message, without a word."""
    addresses = people(30)
    async with ScriptedRelay(mail=every(2, Drop())) as relay:
        await make_engine(relay, connections=1, clock=FastClock(60)).run()
    assert reached(relay) == Counter(addresses)
    assert outbox.tally().by_status == {Status.ACCEPTED: 30}


async def test_f41_reset_without_an_answer_does_not_hide_the_refusal(people, make_engine, outbox):
    people(10)
    async with ScriptedRelay(rcpt=[None, "550 5.1.1 who?"], rset=[Hang()]) as relay:
        await make_engine(sessions(relay, mail=0.3), connections=1, pace=SOON, clock=FastClock(60)).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 9, Status.REJECTED: 1}
    (row,) = (row for row in OutboxReader.over(outbox).rows() if row.status is Status.REJECTED)
    assert (row.code, row.attempts) == (550, 1)


async def test_f44_message_above_the_limit_is_refused_before_mail_is_said(people, make_engine, outbox):
    people(60)
    limit = len(b"Subject: hello\r\nMessage-ID: <9@example.com>\r\n\r\nDear p9@example.com\r\n")
    async with ScriptedRelay(extensions=(f"SIZE {limit}", "8BITMIME")) as relay:
        await make_engine(relay).run()
    assert outbox.tally().by_status == {Status.ACCEPTED: 9, Status.REJECTED: 51}
    assert sum(command.startswith("MAIL") for command in relay.commands) == 9


async def test_f48_quota_in_the_middle_stops_and_the_next_run_sends_the_others(people, make_engine, outbox):
    addresses = people(50)
    full = "550 5.4.5 Daily user sending limit exceeded."
    async with ScriptedRelay(mail=[*[None] * 20, *[full] * 30]) as relay:
        ending = await make_engine(relay, connections=2).run()
        assert "says: 550 5.4.5" in str(ending.error)
        assert outbox.tally().by_status == {Status.ACCEPTED: 20, Status.PENDING: 30}
    async with ScriptedRelay() as tomorrow:
        await make_engine(tomorrow).run()
    assert reached(relay) + reached(tomorrow) == Counter(addresses)
