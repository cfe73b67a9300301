"""Which relay a row goes through, from its address or its sender, and what is notified before anything is sent."""

from __future__ import annotations

import sqlite3
from email.message import EmailMessage

import pytest

import bulkmail
from bulkmail.model.errors import ChecksFailed, ConfigError
from bulkmail.testing import ScriptedRelay

ROWS = [
    {"email": f"p{n}@{domain}", "office": office}
    for n, (domain, office) in enumerate(
        [("gmail.com", "a.example"), ("mail.example.org", "b.example"), ("other.example", "a.example")] * 10
    )
]


def make_campaign(sender="Shop <shop@shop.example>"):
    return bulkmail.compose(from_=sender, subject="Hello", text="Dear you\n")


def route_to(relay, name, **more):
    return bulkmail.Route(bulkmail.Relay.parse(f"smtp://{relay.host}:{relay.port}?tls=off"), name, **more)


def domains_of(relay):
    return {path.rpartition("@")[2] for message in relay.messages for path in message.forward_paths}


@pytest.mark.slow
async def test_recipients_go_through_the_relay_that_names_their_domain(tmp_path):
    async with ScriptedRelay() as one, ScriptedRelay() as other:
        routes = [route_to(one, "one", recipients=("gmail.com", "*.example.org")), route_to(other, "other")]
        report = await bulkmail.send(make_campaign(), ROWS, relay=routes, outbox=tmp_path / "run.outbox")
    assert report.accepted == 30
    assert domains_of(one) == {"gmail.com", "mail.example.org"}
    assert domains_of(other) == {"other.example"}
    assert {row.relay for row in report.rows() if row.address.endswith("gmail.com")} == {"one"}
    assert report.accepted_by_relay == {"one": 20, "other": 10}


@pytest.mark.slow
async def test_senders_of_each_row_choose_the_relay(tmp_path):
    async with ScriptedRelay() as one, ScriptedRelay() as other:
        routes = [route_to(one, "one", senders=("a.example",)), route_to(other, "other", senders=("b.example",))]
        report = await bulkmail.send(make_campaign("Shop <shop@{{ office }}>"), ROWS, relay=routes)
    assert report.accepted == 30
    assert {message.reverse_path for message in one.messages} == {"shop@a.example"}
    assert {message.reverse_path for message in other.messages} == {"shop@b.example"}


@pytest.mark.slow
async def test_ready_made_messages_go_by_their_reverse_path():
    messages = []
    for number, domain in enumerate(["a.example", "b.example"] * 3):
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = f"me@{domain}", f"p{number}@example.com", "Hello"
        message.set_content("Dear you\n")
        messages.append(message)
    async with ScriptedRelay() as one, ScriptedRelay() as other:
        routes = [route_to(one, "one", senders=("a.example",)), route_to(other, "other")]
        report = await bulkmail.Mailer(routes).send_messages(messages)
    assert report.accepted == 6
    assert {message.reverse_path for message in one.messages} == {"me@a.example"}
    assert {message.reverse_path for message in other.messages} == {"me@b.example"}


async def test_mail_that_no_relay_takes_is_reported_before_anything_is_sent():
    async with ScriptedRelay() as one, ScriptedRelay() as other:
        routes = [
            route_to(one, "one", recipients=("gmail.com",)),
            route_to(other, "other", recipients=("*.example.org",)),
        ]
        with pytest.raises(
            ChecksFailed, match=r"no relay takes the mail of 10 deliveries, for example p2@other\.example"
        ):
            await bulkmail.send(make_campaign(), ROWS, relay=routes)
    assert one.sessions == other.sessions == 0


@pytest.mark.slow
async def test_run_goes_on_through_other_relays_than_it_was_begun_with(tmp_path):
    path = tmp_path / "run.outbox"
    async with ScriptedRelay() as one, ScriptedRelay(mail="550 5.7.1 not you") as bad:
        routes = [route_to(one, "one", recipients=("gmail.com",)), route_to(bad, "bad")]
        with pytest.raises(bulkmail.SendingStopped, match="bad refused the sender"):
            await bulkmail.send(make_campaign(), ROWS, relay=routes, outbox=path)
    assert domains_of(one) == {"gmail.com"}
    async with ScriptedRelay() as last:
        report = await bulkmail.send(make_campaign(), ROWS, relay=[route_to(last, "last")], outbox=path)
    assert report.accepted == 30
    assert domains_of(last) == {"mail.example.org", "other.example"}


@pytest.mark.slow
async def test_row_that_a_crash_left_at_its_end_names_its_relay(tmp_path):
    path = tmp_path / "run.outbox"
    async with ScriptedRelay() as one, ScriptedRelay(mail="550 5.7.1 not you") as bad:
        routes = [route_to(one, "one", recipients=("gmail.com",)), route_to(bad, "bad")]
        with pytest.raises(bulkmail.SendingStopped):
            await bulkmail.send(make_campaign(), ROWS, relay=routes, outbox=path)
        with sqlite3.connect(path) as connection:  # as a kill leaves it
            connection.execute("UPDATE delivery SET ending_at = 1, ending_relay = 'bad' WHERE id = 2")
        connection.close()
        with pytest.raises(bulkmail.SendingStopped) as caught:
            await bulkmail.send(make_campaign(), ROWS, relay=routes, outbox=path)
    (row,) = [row for row in caught.value.report.rows() if row.status is bulkmail.Status.IN_DOUBT]
    assert (row.row, row.relay) == (2, "bad")


@pytest.mark.parametrize(
    ("relays", "password", "words"),
    [
        pytest.param([], None, "no relay is given", id="none"),
        pytest.param(["null:", "null:"], None, "are both called 'null:'", id="one-name"),
        pytest.param(["null:", "smtp://a.example"], None, "a rehearsal and a real relay", id="mixed"),
        pytest.param(["smtp://a.example", "smtp://b.example"], "x", "one password for several", id="one-password"),
        pytest.param(["smtp://a.example"], {"b": "x"}, "a password for 'b', which is no relay", id="whose-password"),
    ],
)
def test_mailer_refuses_relays_that_cannot_stand_together(relays, password, words):
    with pytest.raises(ConfigError, match=words):
        bulkmail.Mailer(relays, password=password)
