"""The tables that come with the program: each entry does what its examples say, and each number is sane."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import bulkmail.settings
from bulkmail.model.outcome import Outcome, Stage, make_reply
from bulkmail.model.verdict import judge
from bulkmail.model.wording import Subject, read
from bulkmail.settings.presets import known_feedback, known_providers

DATA = Path(bulkmail.settings.__file__).parents[1] / "data"
REPLIES: list[dict[str, Any]] = tomllib.loads((DATA / "replies.toml").read_text("utf-8"))["reply"]
STAGES = (Stage.GREETING, Stage.MAIL, Stage.RCPT, Stage.END)
EXAMPLES = [
    pytest.param(number, line, id=f"{number}-{'-'.join(re.findall('[a-zA-Z0-9]+', line)[:7])}")
    for number, entry in enumerate(REPLIES)
    for line in entry["examples"]
]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "line"), EXAMPLES)
def test_replies_table_knows_its_examples(number: int, line: str) -> None:
    rule = known_feedback().rules[number]
    for stage in rule.stages & set(STAGES) or STAGES:
        reply = make_reply(stage, int(line[:3]), [line[4:]])
        assert next(each for each in known_feedback().rules if each.fits(reply, read(reply))) is rule
        label = rule.verdict.label if rule.verdict else ""
        assert known_feedback().decide(reply).verdict.label == label


@pytest.mark.parametrize(("number", "line"), EXAMPLES)
def test_no_reply_of_the_table_about_us_rejects_a_recipient(number: int, line: str) -> None:
    rule = known_feedback().rules[number]
    for stage in STAGES:
        reply = make_reply(stage, int(line[:3]), [line[4:]])
        if rule.verdict is not None:  # such words are understood without the table, too
            assert judge(reply).outcome is Outcome.DEFERRED
        is_recipients = rule.verdict is None and rule.subject in (Subject.RECIPIENT, Subject.CONTENT)
        if not is_recipients or stage not in (Stage.RCPT, Stage.END):
            assert known_feedback().decide(reply).verdict.outcome is Outcome.DEFERRED
        else:
            assert known_feedback().decide(reply).verdict.outcome is Outcome.REJECTED


def test_replies_table_asks_for_bounded_times() -> None:
    for rule in known_feedback().rules:
        assert rule.verdict is None or 0 <= rule.verdict.suspend <= 6 * 3600
        assert rule.verdict is None or 0 <= rule.verdict.pause <= 86400


@pytest.mark.parametrize(
    ("domain", "provider"),
    [
        ("gmail.com", "google"),
        ("hotmail.co.uk", "microsoft"),
        ("outlook.de", "microsoft"),
        ("yahoo.co.uk", "yahoo"),
        ("yahoo.co.jp", "yahoo-japan"),
        ("aol.com", "yahoo"),
        ("icloud.com", "apple"),
        ("gmx.at", "united-internet"),
        ("web.de", "united-internet"),
        ("pm.me", "proton"),
        ("example.org", "example.org"),
    ],
)
def test_providers_table_knows_providers(domain: str, provider: str) -> None:
    assert known_providers().of(domain) == provider


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("aspmx.l.google.com", "google"),
        ("alt1.aspmx.l.google.com", "google"),
        ("shop-example.mail.protection.outlook.com", "microsoft"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx01.mail.icloud.com", "apple"),
        ("mx00.emig.gmx.net", "united-internet"),
        ("mail.protonmail.ch", "proton"),
        ("mx.zoho.eu", "zoho"),
    ],
)
def test_providers_table_knows_exchangers(host: str, provider: str) -> None:
    assert known_providers().of_exchangers([host]) == provider


def test_providers_table_is_in_order() -> None:
    providers = known_providers().by_name.values()
    for field in ("domains", "exchangers"):
        names = [name for provider in providers for name in getattr(provider, field)]
        assert len(names) == len(set(names)), "one name, one provider"
        assert all(re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*(\.\*)?", name) for name in names)
    for provider in providers:
        assert re.fullmatch("[a-z][a-z-]*", provider.name)
        assert provider.domains or provider.exchangers
        preset = provider.preset
        assert preset.rate and 1 <= preset.rate.per_second <= 50
        assert preset.connections and 1 <= preset.connections <= 25
        assert preset.messages_per_session and 1 <= preset.messages_per_session <= 1000
