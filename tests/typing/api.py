"""How a program uses bulkmail; type-checked, never run."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import EmailMessage
from typing import assert_type

import bulkmail
from bulkmail.testing import ScriptedRelay


@dataclass
class Person:
    email: str
    name: str


async def send_to_a_list() -> None:
    campaign = bulkmail.compose(from_="a@example.com", subject="Hi {{ name }}", text="Dear {{ name }}")
    report = await bulkmail.send(
        campaign, [{"email": "b@example.com", "name": "B"}], relay="smtps://a@mail.example.com"
    )
    assert_type(report.messages.messages, int)
    assert_type(report, bulkmail.Report)
    assert_type(report.accepted, int)
    for address, code, reply in report.failed:
        assert_type((address, code, reply), tuple[str, int, str])
    for place, reason in report.invalid:
        assert_type(place.line, int)
        assert_type(reason, str)


def one_message_for_several_rows() -> None:
    bulkmail.compose(from_="a@example.com", subject="Order", text="{{ rows | length }}", group_by="email")
    bulkmail.compose(from_="a@example.com", subject="Order", text="{{ rows | length }}", group_by=["email", "order"])


async def send_to_what_programs_have(campaign: bulkmail.Campaign, later: AsyncIterator[Person]) -> None:
    for recipients in ([Person("b@example.com", "B")], sqlite3.connect("shop.db").execute("SELECT 1"), later):
        try:
            report = await bulkmail.send(campaign, recipients, relay="null:")
            assert_type(report, bulkmail.Report)
        except bulkmail.NothingToSend as error:
            assert_type(error.report, bulkmail.Report)


async def test_against_a_server_of_ones_own(campaign: bulkmail.Campaign) -> None:
    async with ScriptedRelay(rcpt=["550 5.1.1 who?"]) as relay:
        await bulkmail.send(campaign, [], relay=f"smtp://{relay.host}:{relay.port}")


async def watch_the_outcomes(campaign: bulkmail.Campaign) -> None:
    mailer = bulkmail.Mailer(
        "smtp://a@mail.example.com",
        password="secret",
        pace=bulkmail.Pace(
            bulkmail.Rate(10.0), quota=bulkmail.Quota(per_day=2000), provider_backoff=bulkmail.Backoff(schedule=(60.0,))
        ),
    )
    async with mailer.deliver(campaign, "people.csv", outbox="people.outbox") as deliveries:
        async for settled in deliveries:
            if settled.delivery.status is bulkmail.Status.REJECTED:
                assert_type(settled.delivery.forward_path, str)


async def send_through_several() -> None:
    main = bulkmail.Route(bulkmail.Relay.parse("smtps://a@mail.example.com"), "main", weight=9)
    routes: list[bulkmail.Route | str] = [main, "smtp://b.example"]
    report = await bulkmail.Mailer(routes, password={"main": "secret"}).send_messages([])
    assert_type(report, bulkmail.Report)


async def send_what_is_ready_made(messages: list[EmailMessage]) -> bulkmail.Report:
    return await bulkmail.Mailer("null:").send_messages(messages)


async def send_signed(key: bulkmail.Secret, unsubscribe_key: str) -> None:
    campaign = bulkmail.compose(
        from_="a@example.com",
        subject="Hi",
        text="{{ unsubscribe_url }}",
        cc="{{ boss }}",
        reverse_path="bounces+{verp}@example.com",
        unsubscribe=bulkmail.Unsubscribe("https://example.com/u/{token}"),
        dkim=[bulkmail.Dkim("example.com", "s1")],
    )
    keys = bulkmail.Keys(bulkmail.Secret(unsubscribe_key), (key,))
    await bulkmail.Mailer("null:", keys=keys, on_message=stamped).send(campaign, "people.csv")
    await bulkmail.Mailer("null:").send(campaign, "people.csv", send_at="column:when", timezone="column:tz")
    await bulkmail.Mailer("null:").send(campaign, follow_up="first.outbox", unless=["bounced"])


def stamped(message: EmailMessage) -> EmailMessage:
    message["X-House"] = "7"
    return message


def heed(token: str, key: str, bounced_to: str) -> None:
    assert_type(bulkmail.verify_unsubscribe(token, [key]), bulkmail.Address | None)
    assert_type(bulkmail.decode_verp(bounced_to, "bounces+{verp}@example.com"), bulkmail.Address | None)
