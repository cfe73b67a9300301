"""What the DNS says of sender and recipients, asked of a name server that only exists here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from bulkmail.checks.check_finding import Finding, Severity
from bulkmail.mailing.checking import Online
from bulkmail.mailing.ordering import check
from bulkmail.probe.dns_records import MOST_AT_ONCE, KeyState, NoMail, Records, Unanswered, find_records
from bulkmail.settings.settings import load
from bulkmail.testing import ScriptedRelay

Zone = Mapping[tuple[str, str], tuple[str, ...] | None]


class Names:
    """A name server with a zone; None in it is a question that no one answers.  Counts what is asked."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.asked: list[tuple[str, str]] = []
        self.at_once = self.peak = 0

    async def __call__(self, name: str, kind: str) -> tuple[str, ...]:
        self.asked.append((name, kind))
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        try:
            await anyio.lowlevel.checkpoint()
        finally:
            self.at_once -= 1
        found = self.zone.get((name, kind), ())
        if found is None:
            raise Unanswered
        return found


async def ask(zone: Zone, **changes: object) -> Records:
    asked: dict[str, object] = {
        "sender_domain": "news.shop.example",
        "bounce_domain": "shop.example",
        "keys": {},
        "recipients": {},
        **changes,
    }
    return await find_records(Names(zone), **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "lookups"),
    [
        ("v=spf1 ip4:192.0.2.1 -all", 0),
        ("v=spf1 a mx -all", 2),
        ("v=spf1 include:a.example ~all", 4),
        ("v=spf1 exists:%{i}.shop.example redirect=a.example", 5),
        ("v=spf1 include:loop.example -all", 25),
    ],
    ids=["addresses", "own-hosts", "include", "redirect-and-macro", "loop"],
)
async def test_spf_lookups_are_counted_through_includes(record: str, lookups: int) -> None:
    zone = {
        ("shop.example", "TXT"): ("unrelated", record),
        ("a.example", "TXT"): ("v=spf1 include:b.example a:host.example -all",),
        ("b.example", "TXT"): ("v=spf1 mx -all",),
        ("loop.example", "TXT"): ("v=spf1 include:loop.example -all",),
    }
    found = (await ask(zone)).spf
    assert found is not None
    assert (found.lookups, found.missing) == (lookups, ())


async def test_spf_names_what_it_includes_in_vain() -> None:
    found = (await ask({("shop.example", "TXT"): ("v=spf1 include:gone.example -all",)})).spf
    assert found is not None
    assert found.missing == ("gone.example",)


@pytest.mark.parametrize(
    ("texts", "state"),
    [
        (("v=DKIM1; k=rsa; p=QUJD REVG",), KeyState.MATCHES),
        (("p=other",), KeyState.DIFFERS),
        (("v=DKIM1; p=",), KeyState.REVOKED),
        (("something else",), KeyState.MISSING),
        ((), KeyState.MISSING),
        (None, KeyState.UNANSWERED),
    ],
    ids=["equal", "other", "revoked", "no-key", "nothing", "silence"],
)
async def test_dkim_key_is_held_against_ours(texts: tuple[str, ...] | None, state: KeyState) -> None:
    name = "s1._domainkey.shop.example"
    assert (await ask({(name, "TXT"): texts}, keys={name: "QUJDREVG"})).keys == {name: state}


@pytest.mark.parametrize(
    ("zone", "policy"),
    [
        ({("_dmarc.news.shop.example", "TXT"): ("v=DMARC1; p=reject",)}, "reject"),
        ({("_dmarc.shop.example", "TXT"): ("v=DMARC1; p=reject; sp=none",)}, "none"),
        ({("_dmarc.shop.example", "TXT"): ("v=DMARC1;p=quarantine",)}, "quarantine"),
        ({}, ""),
        ({("_dmarc.news.shop.example", "TXT"): None}, None),
    ],
    ids=["own", "for-subdomains", "inherited", "none", "silence"],
)
async def test_dmarc_policy_is_that_of_the_domain_or_of_the_one_above(zone: Zone, policy: str | None) -> None:
    assert (await ask(zone)).policy == policy


@pytest.mark.parametrize(
    ("sender", "above"),
    [
        ("news.shop.co.uk", "shop.co.uk"),
        ("mail.amt.gv.at", "amt.gv.at"),
        ("shop.co.uk", None),
        ("a.b.c.shop.example", "shop.example"),
    ],
)
async def test_dmarc_policy_is_asked_of_the_organization_and_of_no_public_suffix(
    sender: str, above: str | None
) -> None:
    names = Names({})
    await find_records(names, sender_domain=sender, bounce_domain="", keys={}, recipients={})
    expected = [sender] if above is None else [sender, above]
    assert names.asked == [(f"_dmarc.{domain}", "TXT") for domain in expected]


async def test_domains_that_take_no_mail_are_found_and_silence_is_no_proof() -> None:
    zone = {
        ("null.example", "MX"): ("0 .",),
        ("good.example", "MX"): ("10 mail.good.example.",),
        ("host.example", "AAAA"): ("2001:db8::1",),
        ("silent.example", "MX"): None,
    }
    names = ("good.example", "null.example", "host.example", "silent.example", "gone.example")
    found = await ask(zone, recipients=dict.fromkeys(names, 1))
    assert found.no_mail == (("null.example", NoMail.NULL_MX), ("gone.example", NoMail.NO_SERVER))
    assert found.unanswered == ("silent.example MX",)


async def test_only_the_most_frequent_domains_are_asked_about_and_not_all_at_once() -> None:
    names = Names({})
    recipients = {f"d{number}.example": number for number in range(1, 200)}
    found = await find_records(
        names, sender_domain="", bounce_domain="", keys={}, recipients=recipients, most_domains=100
    )
    asked = {name for name, kind in names.asked if kind == "MX"}
    assert asked == {f"d{number}.example" for number in range(100, 200)}
    assert (found.asked, found.domains) == (100, 199)
    assert 1 < names.peak <= MOST_AT_ONCE


async def test_a_name_server_that_hangs_costs_its_time_out_and_no_more() -> None:
    async def hang(name: str, kind: str) -> tuple[str, ...]:
        await anyio.sleep(60)
        return ()

    found = await find_records(
        hang, sender_domain="", bounce_domain="", keys={}, recipients={"a.example": 1}, patience=0.01
    )
    assert (found.no_mail, found.unanswered) == ((), ("a.example MX",))


# --- as findings ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    from tests.signing import KeyRing, pem

    key = tmp_path / "dkim.pem"
    key.write_text(pem(KeyRing().ed25519).reveal())
    key.chmod(0o600)
    (tmp_path / "campaign.toml").write_text(
        'recipients = "people.csv"\n[message]\nfrom = "shop@shop.example"\nsubject = "News"\ntext = "message.txt"\n'
        'list_id = "news.shop.example"\nattachments = ["plan.bin"]\n'
        '[message.headers]\nList-Unsubscribe = "<https://shop.example/u>"\n'
        'List-Unsubscribe-Post = "List-Unsubscribe=One-Click"\n'
        '[[message.dkim]]\ndomain = "shop.example"\nselector = "s1"\nkey_file = "dkim.pem"\n'
    )
    (tmp_path / "people.csv").write_text("email\nann@null.example\nbob@good.example\n")
    (tmp_path / "message.txt").write_text("Hello\n")
    (tmp_path / "plan.bin").write_bytes(b"x" * 3_000)
    return tmp_path


async def findings(shop: Path, relay: str, zone: Zone) -> list[Finding]:
    from bulkmail.settings.overrides import Overrides
    from bulkmail.settings.secrets import find_keys

    settings = load(str(shop), Overrides(relays=(relay,)), environ={})
    checked = await check(
        settings,
        keys=find_keys(settings.campaign),
        reading=lambda rows: None,
        checking=lambda rows: None,
        online=Online([None], ask=Names(zone)),
    )
    return checked.findings


@pytest.mark.slow
def test_check_online_reports_what_relay_and_dns_say(shop: Path) -> None:
    zone: Zone = {
        ("null.example", "MX"): ("0 .",),
        ("good.example", "MX"): None,
        ("shop.example", "TXT"): ("v=spf1 a +all",),
    }

    async def main() -> list[Finding]:
        async with ScriptedRelay(extensions=("SIZE 2000",)) as relay:
            found = await findings(shop, f"smtp://localhost:{relay.port}?tls=off", zone)
            assert not relay.messages
            return found

    found = anyio.run(main)
    assert {(each.code, each.severity) for each in found} == {
        ("attachment-too-big", Severity.ERROR),
        ("bounces-without-token", Severity.NOTE),
        ("dkim-key", Severity.ERROR),
        ("dmarc", Severity.WARNING),
        ("domain-without-mail", Severity.WARNING),
        ("spf-broken", Severity.WARNING),
        ("dns-unanswered", Severity.NOTE),
    }
    assert next(each for each in found if each.code == "domain-without-mail").lines == (2,)
    assert all(each.fix and each.why for each in found)


def test_check_online_reports_that_no_one_answers_at_the_relay(shop: Path, unused_tcp_port: int) -> None:
    relay = f"smtp://127.0.0.1:{unused_tcp_port}?tls=off"
    found = anyio.run(findings, shop, relay, {})
    (unusable,) = [each for each in found if each.code == "relay-unusable"]
    assert unusable.severity is Severity.ERROR
    assert {"spf-missing", "dkim-key", "dmarc"} <= {each.code for each in found}
