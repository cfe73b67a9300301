"""What of a message shows only when it is sent: its copies, its keys, its hook, its signatures."""

from __future__ import annotations

import asyncio
import ssl
import sys
from email import message_from_bytes
from email.policy import default

import pytest
import trustme
from aiosmtpd.smtp import SMTP
from anyio import to_thread

import bulkmail
from bulkmail.mailing.mailing import Mailing
from bulkmail.mailing.rows import GivenRows, Selection
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import Address
from bulkmail.model.relay import Relay
from bulkmail.model.route import Route
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.report.saving import save_report
from bulkmail.report.text_report import summary
from bulkmail.testing import ScriptedRelay
from tests.signing import ED25519, RSA, UNSUBSCRIBE_KEY, pem

REAL = [Route(Relay.parse("smtp://mail.example.com"))]
ROWS = [
    {"email": "ann@example.com", "boss": "bob@example.com"},
    {"email": "cy@example.com", "boss": ""},
    {"email": "di@example.com", "boss": "nobody"},
]


def make_campaign(**parts):
    return bulkmail.compose(from_="Shop <shop@example.com>", subject="Hello", text="Dear {{ email }},\n", **parts)


def url_of(relay):
    return f"smtp://{relay.host}:{relay.port}?tls=off"


async def prepared(campaign, *, path=None, selection=None, **changes):
    return await Mailing.prepare(
        path,
        campaign=campaign,
        rows=GivenRows(ROWS, ListOptions()),
        routes=[Route(Relay.parse("null:"))],
        pace=Pace(),
        selection=selection or Selection(),
        **changes,
    )


@pytest.mark.slow
async def test_copies_of_a_message_go_together():
    async with ScriptedRelay() as relay:
        report = await bulkmail.send(
            make_campaign(cc="{{ boss }}", bcc="audit@example.com"), ROWS[:2], relay=url_of(relay)
        )
        sent = sorted((message.forward_paths, message.content) for message in relay.messages)
    assert (report.accepted, report.accepted_copies) == (2, 3)
    assert [paths for paths, _ in sent] == [
        ("ann@example.com", "bob@example.com", "audit@example.com"),
        ("cy@example.com", "audit@example.com"),
    ]
    assert all(b"audit" not in content for _, content in sent)
    assert [b"Cc: bob@example.com\r\n" in content for _, content in sent] == [True, False]


async def test_copies_with_reverse_paths_of_their_own_go_alone():
    campaign = make_campaign(cc="{{ boss }}", reverse_path="bounces+{verp}@example.com")
    async with ScriptedRelay() as relay:
        report = await bulkmail.send(campaign, ROWS[:2], relay=url_of(relay))
        sent = sorted(message.forward_paths for message in relay.messages)
    assert report.accepted == 2
    assert sent == [("ann@example.com",), ("bob@example.com",), ("cy@example.com",)]


@pytest.mark.parametrize("outbox", [None, "run.outbox"])
async def test_refused_copy_is_reported_by_its_own_address_and_its_row_as_accepted(tmp_path, outbox):
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path.startswith("bob@") else None) as relay:
        report = await bulkmail.send(
            make_campaign(cc="{{ boss }}"), ROWS[:2], relay=url_of(relay), outbox=outbox and tmp_path / outbox
        )
    assert (report.accepted, report.accepted_copies, report.exit_code) == (2, 0, 1)
    assert report.failed == [("bob@example.com", 550, "who?")]
    assert report.tally.by_status == {Status.ACCEPTED: 2} and report.tally.adds_up
    assert report.tally.copies == {Status.REJECTED: 1}
    assert [(trouble.address, trouble.copies) for trouble in report.attention] == [("bob@example.com", 1)]
    first, second = report.rows()
    assert [(copy.address, copy.status, copy.code) for copy in first.copies] == [
        ("bob@example.com", Status.REJECTED, 550)
    ]
    assert second.copies == ()


async def test_refused_recipient_leaves_its_copies_accepted():
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path.startswith("ann@") else None) as relay:
        report = await bulkmail.send(make_campaign(cc="{{ boss }}"), ROWS[:2], relay=url_of(relay))
    assert (report.accepted, report.accepted_copies, report.exit_code) == (1, 1, 1)
    assert report.failed == [("ann@example.com", 550, "who?")]


@pytest.mark.slow
async def test_deferred_copy_keeps_the_run_open_and_the_row_accepted(tmp_path):
    async with ScriptedRelay(rcpt=lambda path: "451 4.2.0 later" if path.startswith("bob@") else None) as relay:
        mailer = bulkmail.Mailer(url_of(relay), pace=Pace(wait=0))
        report = await mailer.send(make_campaign(cc="{{ boss }}"), ROWS[:2], outbox=tmp_path / "run.outbox")
    assert (report.accepted, report.tally.open, report.exit_code) == (2, 1, 3)
    assert report.ended_at is None
    assert "send the 1 copy left" in await to_thread.run_sync(summary, report)
    async with ScriptedRelay() as relay:
        mailer = bulkmail.Mailer(url_of(relay), pace=Pace(wait=0))
        again = await mailer.send(make_campaign(cc="{{ boss }}"), ROWS[:2], outbox=tmp_path / "run.outbox")
    assert again.tally.open == 1 and relay.messages == []  # it is not due yet


@pytest.mark.slow
async def test_dead_blind_copy_of_a_long_list_stops_nothing_and_is_named_once(tmp_path):
    people = [{"email": f"p{number}@example.com"} for number in range(300)]
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path.startswith("dead@") else None) as relay:
        report = await bulkmail.send(
            make_campaign(bcc="dead@example.com"), people, relay=url_of(relay), outbox=tmp_path / "run.outbox"
        )
    assert (report.accepted, report.exit_code) == (300, 1)
    assert report.failed == [("dead@example.com", 550, "who?")]
    assert [(trouble.address, trouble.copies) for trouble in report.attention] == [("dead@example.com", 300)]
    reports = [tmp_path / "report.csv", tmp_path / "report.json", tmp_path / "report.html"]
    for target in reports:
        await to_thread.run_sync(save_report, report, target)
    text = await to_thread.run_sync(summary, report)
    assert "  300 accepted  accepted by the mail server\nCopies (To, Cc, Bcc): 300 rejected.\n" in text
    assert "rejected: dead@example.com (copy of 300 rows)" in text
    page = await to_thread.run_sync(reports[2].read_text)
    # It may also be among the slowest tries, where a line begins with it.
    assert page.count("</td><td><bdi>dead@example.com</bdi>") == 1
    assert "copy of the message to p0@example.com: 550" in page

    async with ScriptedRelay() as relay:  # everyone was reached, so no one is written to again
        mailer = bulkmail.Mailer(url_of(relay))
        again = await mailer.send(make_campaign(bcc="dead@example.com"), people, suppress=reports[:1], allow_empty=True)
        assert again.tally.by_status == {Status.SUPPRESSED: 300}
    assert relay.messages == []
    with OutboxReader.open(tmp_path / "run.outbox") as reader:
        assert set(reader.reached()) == {person["email"] for person in people}


async def test_row_with_a_bad_copy_is_invalid_and_says_why():
    mailing = await prepared(make_campaign(cc="{{ boss }}"))
    rows = list(OutboxReader.over(mailing.outbox).rows())
    mailing.abandon()
    assert [row.status for row in rows] == [Status.PENDING, Status.PENDING, Status.INVALID]
    assert rows[2].reason == "cc:1: Cc has 'nobody', which has no @"


async def test_redirection_overrides_all_copies():
    to = Address.parse("me@example.net")
    mailing = await prepared(
        make_campaign(cc="bob@example.com", bcc="audit@example.com"), selection=Selection(redirect_to=to)
    )
    jobs = mailing.outbox.due(0.0, limit=99, excluding=())
    mailing.abandon()
    assert [job.delivery.forward_path for job in jobs] == ["me@example.net"] * 3


async def test_duplicates_are_reported_by_the_row_and_take_their_copies_along():
    mailing = await Mailing.prepare(
        None,
        campaign=make_campaign(bcc="audit@example.com"),
        rows=GivenRows([ROWS[0], ROWS[0]], ListOptions()),
        routes=[Route(Relay.parse("null:"))],
        pace=Pace(),
    )
    jobs = mailing.outbox.due(0.0, limit=99, excluding=())
    mailing.abandon()
    assert [job.delivery.forward_path for job in jobs] == ["ann@example.com", "audit@example.com"]


@pytest.mark.slow
async def test_signed_messages_survive_the_way_through_another_server(key_ring):
    kept = []

    class Keeper:
        async def handle_DATA(self, server, session, envelope):
            kept.append(envelope.original_content)
            return "250 ok"

    campaign = make_campaign(
        html="<p>\n  Dear\t{{ email }},\n\n\n",
        cc="{{ boss | default('', true) }}",
        list_id="Grüße <news.shop.example>",
        unsubscribe=bulkmail.Unsubscribe("https://shop.example/u/{token}", "u+{token}@shop.example"),
        dkim=(RSA, ED25519),
    )
    keys = key_ring.keys_for(RSA, ED25519)
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(Keeper()), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        report = await bulkmail.Mailer(f"smtp://127.0.0.1:{port}?tls=off", keys=keys).send(campaign, ROWS[:2])
    assert report.accepted == 2
    assert len(kept) == 2
    assert all(key_ring.verifies(content, index) for content in kept for index in (0, 1))
    headers = [message_from_bytes(content, policy=default)["List-Unsubscribe"] for content in kept]
    tokens = {header.split("/u/")[1].split(">")[0] for header in headers}
    people = {bulkmail.verify_unsubscribe(token, [UNSUBSCRIBE_KEY]).wire for token in tokens}
    assert people == {"ann@example.com", "cy@example.com"}


async def test_keys_come_from_where_the_campaign_says(monkeypatch):
    monkeypatch.setenv("SHOP_KEY", "k" * 32)
    campaign = make_campaign(unsubscribe=bulkmail.Unsubscribe("https://shop.example/{token}", key_from="env:SHOP_KEY"))
    async with ScriptedRelay() as relay:
        await bulkmail.send(campaign, ROWS[:1], relay=url_of(relay))
        assert b"List-Unsubscribe-Post" in relay.messages[0].content


async def test_key_that_is_missing_is_reported_before_anything_is_sent(tmp_path):
    campaign = make_campaign(unsubscribe=bulkmail.Unsubscribe("https://shop.example/{token}"))
    with pytest.raises(bulkmail.ConfigError, match="key that signs unsubscribe links"):
        await bulkmail.send(campaign, ROWS, relay="null:", outbox=tmp_path / "run.outbox")
    assert not (tmp_path / "run.outbox").exists()


@pytest.mark.slow
def test_outbox_holds_no_key(tmp_path, key_ring):
    secret = pem(key_ring.rsa)
    campaign = make_campaign(unsubscribe=bulkmail.Unsubscribe("https://shop.example/{token}"), dkim=(RSA,))
    keys = bulkmail.Keys(bulkmail.Secret("hunter2-hunter2-hunter2"), (secret,))
    mailer = bulkmail.Mailer("null:", keys=keys)
    asyncio.run(mailer.send(campaign, ROWS[:1], outbox=tmp_path / "run.outbox"))
    content = (tmp_path / "run.outbox").read_bytes()
    assert b"hunter2" not in content
    assert secret.reveal().splitlines()[1].encode() not in content


# --- the hook --------------------------------------------------------------------------------------------------------


def stamp(message):
    message["X-House"] = "Rule 7"
    return message


async def test_hook_has_a_hand_in_every_message():
    async with ScriptedRelay() as relay:
        await bulkmail.Mailer(url_of(relay), on_message=stamp).send(make_campaign(), ROWS)
        assert all(b"X-House: Rule 7\r\n" in message.content for message in relay.messages)
        assert len(relay.messages) == 3


@pytest.mark.slow
async def test_message_that_the_hook_refuses_is_not_sent():
    def refuse(message):
        if "cy@" in message["To"]:
            raise ValueError("no certificate")
        return message

    async with ScriptedRelay() as relay:
        report = await bulkmail.Mailer(url_of(relay), on_message=refuse).send(make_campaign(), ROWS)
        assert len(relay.messages) == 2
    assert report.tally[Status.INVALID] == 1
    assert report.reasons["on_message: ValueError: no certificate"] == 1


async def test_run_with_a_hook_does_not_go_on_without_it(tmp_path):
    path = tmp_path / "run.outbox"
    mailing = await prepared(make_campaign(), path=path, on_message=stamp)
    mailing.pass_gate()
    mailing.abandon()
    with pytest.raises(bulkmail.ConfigError, match="on_message"):
        Mailing.reopen(path, routes=REAL, pace=Pace())
    Mailing.reopen(path, routes=REAL, pace=Pace(), on_message=stamp).abandon()


async def test_run_with_a_key_does_not_go_on_without_it(tmp_path):
    path = tmp_path / "run.outbox"
    keys = bulkmail.Keys(bulkmail.Secret("k" * 32))
    campaign = make_campaign(unsubscribe=bulkmail.Unsubscribe("https://shop.example/{token}"))
    mailing = await prepared(campaign, path=path, keys=keys)
    mailing.pass_gate()
    mailing.abandon()
    with pytest.raises(bulkmail.ConfigError, match="is missing"):
        Mailing.reopen(path, routes=REAL, pace=Pace())
    Mailing.reopen(path, routes=REAL, pace=Pace(), keys=keys).abandon()


# --- ready-made messages ---------------------------------------------------------------------------------------------


async def test_ready_made_messages_get_what_they_lack():
    def message(to):
        from email.message import EmailMessage

        made = EmailMessage()
        made["From"], made["To"], made["Subject"] = "shop@example.com", to, "Hello"
        made.set_content("Dear you,\n")
        return made

    async with ScriptedRelay() as relay:
        await bulkmail.Mailer(url_of(relay)).send_messages([message("a@example.com"), message("b@example.com")])
        read = [message_from_bytes(each.content, policy=default) for each in relay.messages]
    assert len({each["Message-ID"] for each in read}) == 2
    assert all(each["Date"] for each in read)


async def stopped_by(relay):
    """How a run over `relay` stops: the report of no one written to, and the error behind it."""
    with pytest.raises(bulkmail.SendingStopped) as stopped:
        await bulkmail.send(make_campaign(), ROWS[:2], relay=relay)
    assert stopped.value.report.tally.by_status == {Status.PENDING: 2}
    return stopped.value.__cause__


async def test_relay_without_requiretls_stops_the_run_and_leaves_all(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with ScriptedRelay(tls=context) as relay:
        error = await stopped_by(f"smtp://localhost:{relay.port}?requiretls=yes&ca_file={tmp_path / 'ca.pem'}")
    assert "does not offer REQUIRETLS" in str(error)
    assert error.hint.startswith("leave requiretls out")
    assert not any(command.startswith("MAIL") for command in relay.commands)


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio has no Unix sockets on Windows")
async def test_socket_that_is_not_there_is_reported():
    error = await stopped_by("lmtp:///nonexistent/lmtp")
    assert "there is no socket /nonexistent/lmtp" in str(error)
    assert error.hint.startswith("check the path of the socket")


async def test_run_that_did_not_pass_the_gate_is_not_gone_on_with(tmp_path):
    """Nor one that was cut off before it was judged: what is wrong with it would go out."""
    path = tmp_path / "run.outbox"
    mailing = await prepared(make_campaign(reply_to="{{ missing }}"), path=path)
    with pytest.raises(bulkmail.ChecksFailed):
        mailing.pass_gate()
    with pytest.raises(bulkmail.ConfigError, match="did not pass the pre-send checks"):
        Mailing.reopen(path, routes=REAL, pace=Pace())
