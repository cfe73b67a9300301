"""Known relays: what their names stand for, and whether they are as `bulkmail relay` finds such a server."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from bulkmail.model.errors import ConfigError
from bulkmail.model.quota import parse_quota
from bulkmail.model.rate import Rate
from bulkmail.model.relay import Secret, Tls
from bulkmail.model.route import Route
from bulkmail.probe.relay_probe import Login, look_at
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.presets import (
    RelayPreset,
    expanded,
    known_feedback,
    preset_at,
    presets_table,
    relay_presets,
    say_preset,
)
from bulkmail.settings.settings import load
from bulkmail.smtp.credentials import AccessToken, Credentials, Tokens
from bulkmail.testing import ScriptedRelay

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
FEEDBACK = known_feedback()  # read before any loop runs
PASSWORDS = ("LOGIN", "PLAIN")
# Answers to EHLO in the manner of these servers, once TLS is there; not recordings.
OFFERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "smtp.gmail.com": (
        ("SIZE 35882577", "8BITMIME", "ENHANCEDSTATUSCODES", "PIPELINING", "CHUNKING", "SMTPUTF8"),
        ("LOGIN", "PLAIN", "XOAUTH2", "PLAIN-CLIENTTOKEN", "OAUTHBEARER", "XOAUTH"),
    ),
    "smtp-mail.outlook.com": (
        (
            "SIZE 157286400",
            "PIPELINING",
            "DSN",
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "BINARYMIME",
            "CHUNKING",
            "SMTPUTF8",
        ),
        ("LOGIN", "XOAUTH2"),
    ),
    "smtp.office365.com": (
        (
            "SIZE 157286400",
            "PIPELINING",
            "DSN",
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "BINARYMIME",
            "CHUNKING",
            "SMTPUTF8",
        ),
        ("LOGIN", "XOAUTH2"),
    ),
    "smtp.mail.me.com": (
        ("PIPELINING", "SIZE 28311552", "ENHANCEDSTATUSCODES", "8BITMIME"),
        ("LOGIN", "PLAIN", "XOAUTH2"),
    ),
    "smtp.mail.yahoo.com": (("PIPELINING", "SIZE 41697280", "8BITMIME"), ("PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER")),
    "smtp.fastmail.com": (
        ("PIPELINING", "SIZE 71000000", "ENHANCEDSTATUSCODES", "8BITMIME"),
        (*PASSWORDS, "OAUTHBEARER"),
    ),
    "smtp.zoho.com": (("SIZE 53477376",), PASSWORDS),
    "smtp.resend.com": (("PIPELINING", "8BITMIME", "SIZE 41943040"), PASSWORDS),
    "smtp.sendgrid.net": (("8BITMIME", "PIPELINING", "SIZE 31457280"), PASSWORDS),
    "email-smtp.eu-west-1.amazonaws.com": (("8BITMIME",), PASSWORDS),
    "smtp-broadcasts.postmarkapp.com": (("PIPELINING", "SIZE 10485760", "8BITMIME"), (*PASSWORDS, "CRAM-MD5")),
}
USUAL = (("PIPELINING", "8BITMIME", "SIZE 52428800"), PASSWORDS)
EVERY = pytest.mark.parametrize("preset", relay_presets().values(), ids=list(relay_presets()))
TOP = (
    '[recipients]\nfile = "people.csv"\n[message]\nfrom = "Ann <ann@gmail.com>"\nsubject = "x"\ntext = "message.txt"\n'
)


def name_of(preset: RelayPreset) -> str:
    return f"{preset.name}:{preset.regions[0]}" if preset.regions else preset.name


@EVERY
def test_facts_of_a_preset_are_sane(preset: RelayPreset) -> None:
    route = Route.parse(expanded(f"{name_of(preset)}:ann@example.com"))
    assert route.relay.tls in (Tls.REQUIRED, Tls.IMPLICIT)
    assert route.relay.port == (465 if route.relay.tls is Tls.IMPLICIT else 587)
    assert route.relay.username == "ann@example.com"
    assert preset.login in ("password", "token")
    assert preset.source.startswith("https://")
    assert preset.setup.startswith("https://")
    assert datetime.date(2026, 1, 1) <= preset.noted <= datetime.date(2100, 1, 1)
    assert preset.checked is None or preset.noted <= preset.checked
    for key, value in preset.limits:
        assert {"quota": parse_quota, "rate": Rate.parse, "connections": int}[key](value)
    found = preset_at(route.relay.host)
    assert found is not None
    assert found.url == preset.url
    assert preset.setup in say_preset(preset)


@pytest.mark.slow
@EVERY
async def test_preset_is_as_bulkmail_relay_finds_the_server(preset: RelayPreset) -> None:
    route = Route.parse(expanded(f"{name_of(preset)}:ann@example.com"))
    extensions, mechanisms = OFFERS.get(route.relay.host, USUAL)
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    is_token = preset.login == "token"
    token = Tokens(lambda: AccessToken(Secret("abc")))
    who = Credentials("ann@example.com", tokens=token) if is_token else Credentials("ann@example.com", Secret("abc"))
    with authority.cert_pem.tempfile() as ca_file:
        async with ScriptedRelay(
            extensions=extensions,
            auth={"ann@example.com": "abc"},
            mechanisms=mechanisms,
            tls=server_side,
            implicit=route.relay.tls is Tls.IMPLICIT,
        ) as server:
            there = replace(route.relay, host="127.0.0.1", port=server.port, ca_file=ca_file)
            where = replace(there, token_from="file:token") if is_token else there
            facts = await look_at(where, who, feedback=FEEDBACK)
    assert facts.obstacle is None
    assert facts.is_usable
    assert facts.login is Login.WORKS
    assert (facts.mechanism in ("XOAUTH2", "OAUTHBEARER")) is is_token


def campaign_of(folder: Path, text: str, overrides: Overrides = Overrides()) -> Route:  # noqa: B008 - frozen
    (folder / "people.csv").write_text("email\nbob@example.com\n")
    (folder / "message.txt").write_text("Hello\n")
    (folder / "campaign.toml").write_text(text)
    (route,) = load(str(folder), overrides, environ={}).routes
    return route


def test_campaign_names_a_preset_and_logs_in_as_from(tmp_path: Path) -> None:
    route = campaign_of(tmp_path, 'relay = "gmail"\n' + TOP)
    assert str(route.relay) == "smtps://ann@gmail.com@smtp.gmail.com:465"
    assert (str(route.quota), route.relay.username) == (str(parse_quota("500/day")), "ann@gmail.com")


def test_what_the_campaign_says_goes_before_the_preset(tmp_path: Path) -> None:
    route = campaign_of(tmp_path, TOP + '[relay]\nurl = "Gmail"\nusername = "bob@gmail.com"\nquota = "90/day"\n')
    assert (route.relay.username, str(route.quota)) == ("bob@gmail.com", str(parse_quota("90/day")))
    assert campaign_of(tmp_path, 'relay = "gmail"\n' + TOP + '[sending]\nquota = "90/day"\n').quota is None
    typed = campaign_of(tmp_path, TOP, Overrides(relays=("microsoft365:ann@shop.example",)))
    assert (typed.relay.host, typed.relay.connections, str(typed.rate)) == ("smtp.office365.com", 3, "30/min")


@pytest.mark.parametrize(
    ("relay", "what"),
    [
        ("gmial", '"gmial" is not a known relay'),
        ("ses", "ses does not say its region"),
        ("ses:..:user", "ses does not say its region"),
        ("ses:eu-west-1", "Amazon SES wants a login"),
        ("gmail:ann@gmail.com:hunter2", "must not hold a password"),
        ("hello", "is not a relay URL"),
    ],
)
def test_fault_in_a_preset_is_reported(tmp_path: Path, relay: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        campaign_of(tmp_path, f'relay = "{relay}"\n{TOP}')
    assert what in str(caught.value)
    assert "hunter2" not in str(caught.value) + caught.value.hint


def test_program_has_to_name_the_user() -> None:
    assert expanded("sendgrid", needs_user=True).startswith("smtp://apikey@smtp.sendgrid.net:587")
    with pytest.raises(ConfigError, match="Gmail wants a login"):
        expanded("gmail", needs_user=True)


def test_guide_has_the_table_of_known_relays() -> None:
    assert presets_table() in GUIDE
