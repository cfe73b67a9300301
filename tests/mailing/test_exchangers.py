"""Domains whose mail a provider takes in are in that provider's provider, if DNS says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

import bulkmail
from bulkmail.mailing import relays
from bulkmail.mailing.relays import with_exchangers
from bulkmail.model.pace import Pace
from bulkmail.settings.presets import known_providers
from bulkmail.smtp.dialling import Exchangers
from bulkmail.testing import ScriptedRelay

PROVIDERS = known_providers()
RECORDS = {"firm.example": ("aspmx.l.google.com",), "own.example": ("mail.own.example",)}


async def ask(domain):
    return RECORDS[domain]


async def test_domain_of_a_provider_is_in_its_provider():
    providers = await with_exchangers(PROVIDERS, ["firm.example", "own.example", "dead.example"], Exchangers(ask))
    assert [providers.of(domain) for domain in ("firm.example", "own.example", "dead.example", "gmail.com")] == [
        *("google", "own.example", "dead.example", "google")
    ]


@pytest.mark.slow
async def test_domain_that_a_provider_serves_rests_with_it(monkeypatch):
    monkeypatch.setattr(relays, "Exchangers", lambda: Exchangers(ask))

    def rcpt(path):
        return "451 4.7.28 unusual rate of mail" if path.endswith("@gmail.com") else None

    people = [{"email": f"p{n}@{domain}"} for n in range(40) for domain in ("gmail.com", "firm.example", "own.example")]
    campaign = bulkmail.compose(from_="shop@example.com", subject="Hi", text="Hello")
    pace = Pace(wait=0, mailbox_providers=replace(PROVIDERS, by_exchanger=True))
    async with ScriptedRelay(rcpt=rcpt) as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off&connections=2"
        report = await bulkmail.Mailer(url, pace=pace).send(campaign, people)
    asked = [command for command in relay.commands if command.startswith("RCPT") and "own.example" not in command]
    assert report.accepted >= 40
    assert len(asked) <= 40  # once the provider complained, those that it serves elsewhere rested too


@pytest.mark.slow
async def test_by_mx_sends_to_every_domain_and_slows_only_the_provider_that_complains(monkeypatch, tmp_path):
    monkeypatch.setattr(relays, "Exchangers", lambda: Exchangers(ask))
    campaign = bulkmail.compose(from_="shop@example.com", subject="Hi", text="Hello")
    pace = Pace(wait=0, mailbox_providers=replace(PROVIDERS, by_exchanger=True))
    people = [{"email": f"p{n}@{domain}"} for n in range(3) for domain in ("firm.example", "own.example")]
    async with ScriptedRelay() as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off&connections=2"
        report = await bulkmail.Mailer(url, pace=pace).send(campaign, people, outbox=tmp_path / "run.outbox")
    assert (report.accepted, report.exit_code) == (6, 0)

    def rcpt(path):
        return "451 4.7.28 unusual rate of mail" if path.endswith("@gmail.com") else None

    domains = ("firm.example", "yahoo.com", "gmail.com", "own.example")
    people = [{"email": f"p{n}@{domain}"} for n in range(20) for domain in domains]
    async with ScriptedRelay(rcpt=rcpt) as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off&connections=2"
        report = await bulkmail.Mailer(url, pace=pace).send(campaign, people)
    accepted = [message.forward_paths[0].partition("@")[2] for message in relay.messages]
    assert accepted.count("yahoo.com") == accepted.count("own.example") == 20
    assert {slowdown.provider for slowdown in report.run.slowdowns} == {"google"}
