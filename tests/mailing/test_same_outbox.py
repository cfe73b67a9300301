"""An outbox that a program names again is for the same list, the same message and the same kind of run."""

from __future__ import annotations

from email.message import EmailMessage
from email.utils import localtime, make_msgid

import pytest

import bulkmail
from bulkmail.message.template.locality import frozen
from bulkmail.testing import ScriptedRelay

ANN, BOB, CYD = ({"email": f"{name}@example.com", "first_name": name} for name in ("ann", "bob", "cyd"))


@pytest.fixture
def campaign():
    return bulkmail.compose(from_="Shop <shop@example.com>", subject="Hello {{ first_name }}", text="Dear you,\n")


@pytest.fixture
def outbox(tmp_path):
    return tmp_path / "run.outbox"


def url_of(relay):
    return f"smtp://{relay.host}:{relay.port}?tls=off"


def paths(relay):
    return sorted(path for message in relay.messages for path in message.forward_paths)


def message(to, text="Hello\n", **headers):
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "me@example.com", to, "Hi"
    made["Date"], made["Message-ID"] = localtime(), make_msgid()
    for name, value in headers.items():
        made[name] = value
    made.set_content(text)
    cid = make_msgid()
    made.add_alternative(f'<p>Hello <img src="cid:{cid[1:-1]}"></p>\n', subtype="html")
    made.get_payload()[1].add_related(b"picture", "image", "png", cid=cid)
    return made


@pytest.mark.slow
async def test_other_rows_for_an_outbox_that_has_begun_are_refused(campaign, outbox):
    async with ScriptedRelay() as relay:
        await bulkmail.send(campaign, [ANN], relay=url_of(relay), outbox=outbox)
        with pytest.raises(bulkmail.ConfigError, match="the list changed"):
            await bulkmail.send(campaign, [BOB, CYD], relay=url_of(relay), outbox=outbox)
        with pytest.raises(bulkmail.ConfigError, match="the list changed"):
            await bulkmail.send(campaign, [{**ANN, "first_name": "Anna"}], relay=url_of(relay), outbox=outbox)
        same = await bulkmail.send(campaign, iter([ANN]), relay=url_of(relay), outbox=outbox)
    assert same.accepted == 1
    assert paths(relay) == ["ann@example.com"]


@pytest.mark.slow
async def test_other_file_or_choice_for_an_outbox_that_has_begun_is_refused(campaign, outbox, tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("email,first_name\nann@example.com,Ann\nbob@example.com,Bob\n")
    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(url_of(relay))
        first = await mailer.send(campaign, people, outbox=outbox, where="first_name == 'Ann'")
        assert first.accepted == 1
        with pytest.raises(bulkmail.ConfigError, match="the list changed"):
            await mailer.send(campaign, people, outbox=outbox)
        people.write_text(people.read_text() + "cyd@example.com,Cyd\n")
        with pytest.raises(bulkmail.ConfigError, match="the list changed"):
            await mailer.send(campaign, people, outbox=outbox, where="first_name == 'Ann'")
    assert paths(relay) == ["ann@example.com"]


@pytest.mark.slow
async def test_other_ready_made_messages_are_refused_and_the_same_made_again_are_not(outbox):
    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(url_of(relay))
        for _ in range(2):
            report = await mailer.send_messages([message("a@example.com"), message("b@example.com")], outbox=outbox)
            assert report.accepted == 2
        for others in (
            [message("a@example.com")],
            [message("a@example.com"), message("c@example.com")],
            [message("a@example.com"), message("b@example.com", "Bye\n")],
            [message("a@example.com"), message("b@example.com", Cc="c@example.com")],
        ):
            with pytest.raises(bulkmail.ConfigError, match="the list changed"):
                await mailer.send_messages(others, outbox=outbox)
    assert paths(relay) == ["a@example.com", "b@example.com"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["campaign", "messages"])
async def test_rehearsal_and_real_run_do_not_share_an_outbox(campaign, outbox, tmp_path, kind):
    def send(relay, path):
        mailer = bulkmail.Mailer(relay)
        if kind == "messages":
            return mailer.send_messages([message("ann@example.com")], outbox=path)
        return mailer.send(campaign, [ANN], outbox=path)

    async with ScriptedRelay() as relay:
        assert (await send("null:", outbox)).is_rehearsal
        with pytest.raises(bulkmail.ConfigError, match="is the outbox of a rehearsal"):
            await send(url_of(relay), outbox)
        real = tmp_path / "real.outbox"
        assert not (await send(url_of(relay), real)).is_rehearsal
        with pytest.raises(bulkmail.ConfigError, match="is the outbox of a real run"):
            await send("null:", real)
    assert len(relay.messages) == 1


@pytest.mark.slow
async def test_unfinished_real_run_is_not_settled_by_a_rehearsal(campaign, outbox):
    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(url_of(relay), pace=bulkmail.Pace(limit=1))
        await mailer.send(campaign, [ANN, BOB], outbox=outbox)
        with pytest.raises(bulkmail.ConfigError, match="is the outbox of a real run"):
            await bulkmail.send(campaign, [ANN, BOB], relay="null:", outbox=outbox)
        report = await bulkmail.send(campaign, [ANN, BOB], relay=url_of(relay), outbox=outbox)
    assert report.accepted == 2
    assert paths(relay) == ["ann@example.com", "bob@example.com"]


async def test_file_that_is_no_outbox_is_never_replaced(campaign, tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("email,first_name\nann@example.com,Ann\n")
    for relay in ("null:", "smtp://127.0.0.1:1"):
        with pytest.raises(bulkmail.OutboxError):
            await bulkmail.send(campaign, people, relay=relay, outbox=people)
    assert people.read_text() == "email,first_name\nann@example.com,Ann\n"


@pytest.mark.slow
async def test_recipient_who_opted_out_since_the_run_began_is_left_out(campaign, outbox, tmp_path):
    stop = tmp_path / "stop.txt"
    stop.write_text("")
    async with ScriptedRelay() as relay:
        await bulkmail.Mailer(url_of(relay), pace=bulkmail.Pace(limit=1)).send(
            campaign, [ANN, BOB, CYD], outbox=outbox, suppress=[stop]
        )
        stop.write_text("bob@example.com\n")
        report = await bulkmail.Mailer(url_of(relay)).send(campaign, [ANN, BOB, CYD], outbox=outbox, suppress=[stop])
    assert paths(relay) == ["ann@example.com", "cyd@example.com"]
    assert report.tally[bulkmail.Status.SUPPRESSED] == 1


@pytest.mark.slow
async def test_outbox_of_another_run_suppresses_whom_it_reached(campaign, outbox, tmp_path):
    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(url_of(relay))
        await mailer.send(campaign, [ANN], outbox=outbox)
        report = await mailer.send(campaign, [ANN, BOB], suppress=[outbox])
        await bulkmail.send(campaign, [CYD], relay="null:", outbox=tmp_path / "rehearsed.outbox")
        after = await mailer.send(campaign, [CYD], suppress=[tmp_path / "rehearsed.outbox"])
    assert (report.accepted, report.tally[bulkmail.Status.SUPPRESSED], after.accepted) == (1, 1, 1)


async def test_condition_over_an_unknown_column_is_an_error(campaign):
    with pytest.raises(bulkmail.ConfigError, match="no column 'frist_name'") as refused:
        await bulkmail.Mailer("null:").send(campaign, [ANN], where="frist_name == 'x'")
    assert "first_name" in refused.value.hint


@pytest.mark.slow
async def test_nothing_to_send_is_raised_with_the_report_unless_allowed(campaign, tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("email,first_name\n")
    mailer = bulkmail.Mailer("null:")
    with pytest.raises(bulkmail.NothingToSend, match="matches the condition") as refused:
        await mailer.send(campaign, [ANN], where="first_name == 'Zoe'")
    assert refused.value.report.tally[bulkmail.Status.FILTERED] == 1
    for recipients in ([], people):
        with pytest.raises(bulkmail.NothingToSend) as refused:
            await mailer.send(campaign, recipients)
        assert refused.value.report.tally.rows == 0
        assert (await mailer.send(campaign, recipients, allow_empty=True)).exit_code == 0
    with pytest.raises(bulkmail.NothingToSend):
        await mailer.send_messages([])
    assert (await mailer.send_messages([], allow_empty=True)).accepted == 0
    with pytest.raises(bulkmail.NothingToSend):
        await bulkmail.send(campaign, [], relay="null:")


async def test_share_of_invalid_rows_has_a_limit(campaign):
    rows = [{"email": f"p{n}@example.com" if n % 3 else "NULL", "first_name": "P"} for n in range(12)]
    with pytest.raises(bulkmail.ChecksFailed, match="4 of 12 rows"):
        await bulkmail.Mailer("null:").send(campaign, rows)
    report = await bulkmail.Mailer("null:").send(campaign, rows, max_invalid=0.5)
    assert report.accepted == 8


@pytest.fixture
def dated_campaign():
    return bulkmail.compose(
        from_="Shop <shop@example.com>",
        subject="News",
        text="Today is {{ today | date }}, {{ now | time }}.\n",
        locale="de_AT",
        timezone="Europe/Vienna",
    )


@pytest.mark.slow
async def test_today_is_the_day_that_the_run_was_prepared_on(dated_campaign, outbox, monkeypatch):
    monkeypatch.setattr("bulkmail.mailing.mailing.frozen", lambda campaign, now: frozen(campaign, 1_700_000_000.0))
    async with ScriptedRelay() as relay:
        await bulkmail.send(dated_campaign, [ANN], relay=url_of(relay), outbox=outbox)
        again = await bulkmail.send(
            dated_campaign, [ANN], relay=url_of(relay), outbox=outbox
        )  # the same campaign to it
    assert again.accepted == 1
    assert [b"Today is 14.11.2023, 23:13." in message.content for message in relay.messages] == [True]
