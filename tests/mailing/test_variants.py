"""Variants of a message: who gets which, that it stays so, and what the report says of each."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path

import pytest

import bulkmail
from bulkmail.model.feedback_event import FeedbackKind
from bulkmail.model.recipient import Address, parse_variants, variant_of
from bulkmail.model.tally import Status
from bulkmail.report.report import Report
from bulkmail.report.saving import save_report
from bulkmail.report.text_report import summary
from bulkmail.settings.settings import load
from bulkmail.testing import ScriptedRelay

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
PEOPLE = [{"email": f"p{number}@example.com"} for number in range(8)]


@pytest.fixture
def campaign() -> bulkmail.Campaign:
    return bulkmail.compose(
        from_="Shop <shop@shop.example>", subject="{{ variant }}", text="Hello\n", variants=("a", "b"), name="spring"
    )


def test_variant_depends_on_address_and_campaign_alone() -> None:
    variants = parse_variants({"a": 1, "b": 1})
    addresses = [Address.parse(f"p{number}@example.com") for number in range(8)]
    found = [variant_of(address.key, variants, salt="spring") for address in addresses]
    assert "".join(found) == "bbbbabaa"  # other versions have to find the same
    assert variant_of(Address.parse("p0@EXAMPLE.com").key, variants, salt="spring") == found[0]
    assert [variant_of(address.key, variants, salt="summer") for address in addresses] != found


def test_shares_are_kept_to() -> None:
    variants = parse_variants({"a": 90, "b": 10})
    counts = Counter(
        variant_of(Address.parse(f"p{number}@example.com").key, variants, salt="spring") for number in range(4000)
    )
    assert 3400 < counts["a"] < 3800


@pytest.mark.parametrize(
    "shares", [{}, {"a": 1}, {"a": 1, "b": 0}, {"a": 1, "b": True}, {"a b": 1, "c": 1}, {str(n): 1 for n in range(30)}]
)
def test_variants_that_cannot_be_are_refused(shares: dict[str, int]) -> None:
    with pytest.raises(bulkmail.ConfigError):
        parse_variants(shares)


@pytest.mark.slow
async def test_each_recipient_gets_its_variant_and_the_report_counts_them(
    campaign: bulkmail.Campaign, tmp_path: Path
) -> None:
    refused = {"p0@example.com": "550 5.1.1 unknown"}
    async with ScriptedRelay(rcpt=lambda path: refused.get(path, "250 ok")) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?tls=off"
        report = await bulkmail.send(campaign, PEOPLE, relay=url, outbox=tmp_path / "run.outbox")
        again = await bulkmail.send(campaign, PEOPLE, relay=url, outbox=tmp_path / "run.outbox")
    expected = {
        row["email"]: variant_of(Address.parse(row["email"]).key, campaign.variants, salt="spring") for row in PEOPLE
    }
    sent = {
        message.forward_paths[0]: re.findall(rb"Subject: (\w+)", message.content)[0].decode()
        for message in relay.messages
    }
    assert sent == {address: name for address, name in expected.items() if address not in refused}
    rows, said = await asyncio.to_thread(lambda: (list(report.rows()), summary(report)))
    in_json, in_html = await asyncio.to_thread(saved, report, tmp_path)
    assert {record.address: record.fields["variant"] for record in rows} == expected
    assert sum(outcomes[Status.ACCEPTED] for outcomes in report.outcomes_by_variant.values()) == 7
    assert report.outcomes_by_variant[expected["p0@example.com"]][Status.REJECTED] == 1
    assert again.outcomes_by_variant == report.outcomes_by_variant
    assert list(in_json) == ["a", "b"]
    for name, outcomes in report.outcomes_by_variant.items():
        by_status = {status.value: outcomes[status] for status in Status}
        assert in_json[name] == {
            "rows": outcomes.total(),
            **by_status,
            "feedback": {kind.value: 0 for kind in FeedbackKind},
        }
    assert "By variant" in in_html
    assert re.search(r"Variants: a \d of \d accepted, b \d of \d accepted\.", said)


def saved(report: Report, folder: Path) -> tuple[dict[str, dict[str, object]], str]:
    for name in ("r.json", "r.html"):
        save_report(report, folder / name)
    return json.loads((folder / "r.json").read_text())["variants"], (folder / "r.html").read_text()


@pytest.mark.slow
async def test_list_that_has_the_column_decides_itself(campaign: bulkmail.Campaign) -> None:
    rows = [
        {"email": "ann@example.com", "variant": "a"},
        {"email": "bob@example.com", "variant": "b"},
        {"email": "cyd@example.com", "variant": ""},
        {"email": "dan@example.com", "variant": "c"},
    ]
    async with ScriptedRelay() as relay:
        report = await bulkmail.send(campaign, rows, relay=f"smtp://127.0.0.1:{relay.port}?tls=off")
    found = {record.address: record.fields["variant"] for record in report.rows() if record.status is Status.ACCEPTED}
    assert (found["ann@example.com"], found["bob@example.com"]) == ("a", "b")
    assert found["cyd@example.com"] in ("a", "b")
    assert [reason for _, reason in report.invalid] == ["the variant 'c' is none of this campaign: a, b"]


def campaign_file(folder: Path, message: str) -> bulkmail.Campaign:
    (folder / "people.csv").write_text("email,name\nann@example.com,Ann\n")
    for name in ("message-short.txt", "message-long.txt"):
        (folder / name).write_text(f"{name}\n")
    top = 'recipients = "people.csv"\n[message]\nfrom = "shop@shop.example"\n'
    (folder / "campaign.toml").write_text(top + message)
    return load(str(folder)).campaign


def test_guide_example_loads(tmp_path: Path) -> None:
    section = GUIDE.partition("### Variants\n")[2].partition("\n### ")[0]
    (example,) = re.findall(r"```\n\[message\]\n(.*?)```", section, re.DOTALL)
    found = campaign_file(tmp_path, example)
    assert found.variants == (("short", 1), ("long", 1))
    assert found.fingerprint != campaign_file(tmp_path, example.replace("variants = ", "#")).fingerprint


@pytest.mark.parametrize("written", ['["a"]', '["a", "a"]', "5", "{ a = 1, b = -1 }", '{ a = 1, b = "x" }'])
def test_fault_in_a_campaign_file_is_reported(tmp_path: Path, written: str) -> None:
    with pytest.raises(bulkmail.ConfigError, match=r"campaign\.toml:\d+"):
        campaign_file(tmp_path, f'subject = "x"\ntext = "message-long.txt"\nvariants = {written}\n')
