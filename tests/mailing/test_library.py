"""Sending from Python: what a program gets back, and what it can rely on."""

from __future__ import annotations

import gc
import warnings
from email.message import EmailMessage

import anyio
import pytest

import bulkmail
from bulkmail.mailing import program as outcomes
from bulkmail.testing import Drop, Late, ScriptedRelay

ROWS = [{"email": f"p{n}@example.com", "first_name": f"P{n}"} for n in range(20)]


@pytest.fixture
def campaign():
    return bulkmail.compose(
        from_="Shop <shop@example.com>", subject="Hello {{ first_name }}", text="Dear {{ first_name }},\n"
    )


def url_of(relay):
    return f"smtp://{relay.host}:{relay.port}?tls=off"


async def test_send_answers_the_classic_question(campaign):
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path.startswith("p7@") else None) as relay:
        report = await bulkmail.send(campaign, ROWS, relay=url_of(relay))
    assert report.accepted == 19
    assert report.failed == [("p7@example.com", 550, "who?")]
    assert report.exit_code == 1


def test_send_sync_works_without_a_loop(campaign):
    report = bulkmail.send_sync(campaign, ROWS, relay="null:")
    assert (report.accepted, report.failed) == (20, [])


@pytest.mark.slow
async def test_deliver_yields_each_outcome_as_it_settles(campaign):
    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(url_of(relay))
        seen = []
        async with mailer.deliver(campaign, ROWS) as deliveries:
            async for settled in deliveries:
                seen += [(settled.recipient.fields["first_name"], settled.delivery.status)]
    assert sorted(seen) == sorted((row["first_name"], bulkmail.Status.ACCEPTED) for row in ROWS)
    assert deliveries.report.accepted == 20


@pytest.mark.slow
async def test_leaving_the_iterator_early_stops_and_keeps_the_rest(campaign, tmp_path):
    async with ScriptedRelay(end=lambda path: Late(0.01, "250 ok")) as relay:
        mailer = bulkmail.Mailer(f"{url_of(relay)}&connections=2")
        async with mailer.deliver(campaign, ROWS, outbox=tmp_path / "run.outbox") as deliveries:
            async for _ in deliveries:
                break
        assert deliveries.report.tally.open > 0
        assert len(relay.messages) == deliveries.report.accepted < 20
        report = await mailer.send(campaign, ROWS, outbox=tmp_path / "run.outbox")
    assert report.accepted == 20
    assert len(relay.messages) == 20


@pytest.mark.slow
async def test_leaving_early_logs_nothing(campaign, caplog):
    async with ScriptedRelay(end=lambda path: Late(0.01, "250 ok")) as relay:
        mailer = bulkmail.Mailer(f"{url_of(relay)}&connections=5")
        async with mailer.deliver(campaign, ROWS) as deliveries:
            async for _ in deliveries:
                break
        assert len(relay.messages) == deliveries.report.accepted
    assert caplog.records == []


async def test_exception_of_the_reader_comes_out_as_it_is_and_what_was_under_way_is_finished(campaign, caplog):
    async with ScriptedRelay(end=lambda path: Late(0.01, "250 ok")) as relay:
        mailer = bulkmail.Mailer(f"{url_of(relay)}&connections=5")
        with pytest.raises(LookupError, match="my own"):
            async with mailer.deliver(campaign, ROWS) as deliveries:
                async for _ in deliveries:
                    raise LookupError("my own")
        assert len(relay.messages) == deliveries.report.accepted < 20
    assert deliveries.report.tally[bulkmail.Status.IN_DOUBT] == 0
    assert caplog.records == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3])
async def test_reader_that_is_cancelled_leaves_nothing_open(campaign, number):
    async with ScriptedRelay(end=lambda path: Late(0.01, "250 ok")) as relay:
        mailer = bulkmail.Mailer(f"{url_of(relay)}&connections=2")
        with anyio.CancelScope() as scope:
            async with mailer.deliver(campaign, ROWS) as deliveries:
                async for _ in deliveries:
                    number -= 1
                    if not number:
                        scope.cancel()
                        await anyio.sleep_forever()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            del deliveries
            gc.collect()
    assert scope.cancelled_caught
    assert [str(each.message) for each in warned if each.category is ResourceWarning] == []


async def test_reader_that_is_far_behind_can_leave(campaign, monkeypatch):
    monkeypatch.setattr(outcomes, "LAG", 2)
    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(f"{url_of(relay)}&connections=1")
        async with mailer.deliver(campaign, ROWS) as deliveries:
            while len(relay.messages) < 2:
                await anyio.sleep(0.001)
    assert deliveries.report.tally.open > 0


async def test_deliver_raises_what_stopped_the_run_to_the_reader(campaign):
    async with ScriptedRelay(mail=["250 ok"] * 5 + ["550 5.7.1 enough"] * 50) as relay:
        mailer = bulkmail.Mailer(f"{url_of(relay)}&connections=1")
        seen = []
        with pytest.raises(bulkmail.SendingStopped, match="refused the sender"):
            async with mailer.deliver(campaign, ROWS) as deliveries:
                async for settled in deliveries:
                    seen += [settled.delivery.status]
    assert seen.count(bulkmail.Status.ACCEPTED) == deliveries.report.accepted == 5


async def test_deliver_raises_what_stopped_the_run_when_it_is_left_unread(campaign):
    async with ScriptedRelay(mail=["550 5.7.1 enough"] * 50) as relay:
        with pytest.raises(bulkmail.SendingStopped, match="refused the sender"):
            async with bulkmail.Mailer(f"{url_of(relay)}&connections=1").deliver(campaign, ROWS) as deliveries:
                while deliveries.report is None:
                    await anyio.sleep(0.001)


@pytest.mark.parametrize("has_outbox", [False, True])
async def test_list_without_anyone_to_send_to_is_refused_each_time(campaign, has_outbox, tmp_path):
    rows = [{"email": "not an address", "first_name": "A"}, {"email": "", "first_name": "B"}]
    for _ in range(2):
        with pytest.raises(bulkmail.NothingToSend) as caught:
            await bulkmail.send(campaign, rows, relay="null:", outbox=tmp_path / "run.outbox" if has_outbox else None)
        assert str(caught.value) == "no recipient is left of 2 rows (2 invalid): nothing was sent"
        assert "<rows>:1: the address 'not an address'" in caught.value.hint
        assert [(str(place), reason) for place, reason in caught.value.report.invalid] == [
            ("<rows>:1", "the address 'not an address' has no @"),
            ("<rows>:2", "there is no address: the field 'email' is empty"),
        ]


async def test_messages_that_cannot_be_sent_to_anyone_are_refused():
    with pytest.raises(bulkmail.NothingToSend, match="1 invalid"):
        await bulkmail.Mailer("null:").send_messages([EmailMessage()])


async def test_report_names_invalid_rows_beside_those_refused(campaign):
    report = await bulkmail.send(campaign, [*ROWS[:2], {"email": "x", "first_name": "X"}], relay="null:")
    assert (report.accepted, report.failed) == (2, [])
    assert [(place.line, reason) for place, reason in report.invalid] == [(3, "the address 'x' has no @")]


@pytest.mark.slow
async def test_same_call_on_a_finished_outbox_sends_nothing(campaign, tmp_path):
    async with ScriptedRelay() as relay:
        for _ in range(2):
            report = await bulkmail.send(campaign, ROWS, relay=url_of(relay), outbox=tmp_path / "run.outbox")
            assert report.accepted == 20
    assert len(relay.messages) == 20


@pytest.mark.slow
async def test_another_message_for_an_outbox_that_has_begun_is_refused(campaign, tmp_path):
    other = bulkmail.compose(from_="shop@example.com", subject="Other", text="Other\n")
    async with ScriptedRelay() as relay:
        await bulkmail.send(campaign, ROWS, relay=url_of(relay), outbox=tmp_path / "run.outbox")
        with pytest.raises(bulkmail.ConfigError, match="the message changed"):
            await bulkmail.send(other, ROWS, relay=url_of(relay), outbox=tmp_path / "run.outbox")


@pytest.mark.slow
async def test_stopped_run_raises_with_the_report(campaign):
    async with ScriptedRelay(mail=["250 ok"] * 5 + ["550 5.7.1 enough"] * 50) as relay:
        with pytest.raises(bulkmail.SendingStopped, match="refused the sender") as stopped:
            await bulkmail.send(campaign, ROWS, relay=f"{url_of(relay)}&connections=1")
    assert stopped.value.report.accepted == 5
    assert stopped.value.report.tally.open == 15
    assert isinstance(stopped.value.__cause__, bulkmail.RelayError)


@pytest.mark.slow
async def test_rows_in_doubt_are_named(campaign):
    async with ScriptedRelay(end=[Drop(keeps=True)]) as relay:
        report = await bulkmail.send(campaign, ROWS, relay=f"{url_of(relay)}&connections=1")
    assert report.tally[bulkmail.Status.IN_DOUBT] == 1
    assert [trouble.address for trouble in report.in_doubt] == ["p0@example.com"]


async def test_ready_made_messages_go_to_to_cc_and_bcc(campaign):
    def message(number):
        made = EmailMessage()
        made["From"] = "me@example.com"
        made["To"] = f"p{number}@example.com"
        made["Cc"] = "copy@example.com"
        made["Bcc"] = "secret@example.com"
        made["Subject"] = f"Nº {number}"
        made.set_content("Grüße\n")
        return made

    no_one = EmailMessage()
    no_one["From"] = "me@example.com"
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path.startswith("p2@") else None) as relay:
        mailer = bulkmail.Mailer(url_of(relay))
        report = await mailer.send_messages([message(1), message(2), no_one])
    paths = sorted(path for taken in relay.messages for path in taken.forward_paths)
    assert paths == ["copy@example.com"] * 2 + ["p1@example.com"] + ["secret@example.com"] * 2
    assert not any(b"secret@" in taken.content for taken in relay.messages)
    assert report.tally.by_status == {
        bulkmail.Status.ACCEPTED: 1,
        bulkmail.Status.REJECTED: 1,
        bulkmail.Status.INVALID: 1,
    }
    assert report.tally.copies == {bulkmail.Status.ACCEPTED: 4}


@pytest.mark.parametrize(
    ("to", "accepted", "accepted_copies"), [("r0, nouser, r2", 1, 1), ("nouser, r0, r2", 0, 2)], ids=["later", "first"]
)
async def test_ready_made_message_names_the_refused_recipient(to, accepted, accepted_copies):
    made = EmailMessage()
    made["From"] = "me@example.com"
    made["To"] = ", ".join(f"{name}@example.com" for name in to.split(", "))
    made["Subject"] = "Hello"
    made.set_content("Hello\n")
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path.startswith("nouser@") else None) as relay:
        report = await bulkmail.Mailer(url_of(relay)).send_messages([made])
    assert report.failed == [("nouser@example.com", 550, "who?")]
    assert (report.accepted, report.accepted_copies, report.exit_code) == (accepted, accepted_copies, 1)
    assert report.tally.rows == 1 and report.tally.adds_up


async def test_recipients_may_be_a_file(campaign, tmp_path):
    (tmp_path / "people.csv").write_text("email,first_name\nann@example.com,Ann\nbad,Bob\n")
    report = await bulkmail.send(campaign, tmp_path / "people.csv", relay="null:")
    assert report.tally.by_status == {bulkmail.Status.ACCEPTED: 1, bulkmail.Status.INVALID: 1}


async def test_all_failing_to_render_closes_the_gate():
    campaign = bulkmail.compose(from_="shop@example.com", subject="Hi", text="{{ frist_name }}\n")
    with pytest.raises(bulkmail.ChecksFailed, match="frist_name"):
        await bulkmail.send(campaign, ROWS, relay="null:")


async def test_where_and_suppress_choose_the_rows(campaign, tmp_path):
    (tmp_path / "stop.txt").write_text("p3@example.com\n")
    async with ScriptedRelay() as relay:
        report = await bulkmail.Mailer(url_of(relay)).send(
            campaign, ROWS, where="first_name in ('P1', 'P3', 'P5')", suppress=[tmp_path / "stop.txt"]
        )
    assert sorted(m.forward_paths[0] for m in relay.messages) == ["p1@example.com", "p5@example.com"]
    assert report.tally[bulkmail.Status.FILTERED] == 17
    assert report.tally[bulkmail.Status.SUPPRESSED] == 1


def test_every_public_name_is_there():
    for name in bulkmail.__all__:
        assert getattr(bulkmail, name) is not None
    with pytest.raises(AttributeError):
        bulkmail.nothing_of_that_name  # noqa: B018
