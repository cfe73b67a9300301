"""Real mail servers take a thousand messages each, and whom they do not know is notified in their words."""

from __future__ import annotations

import asyncio
import csv
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import bulkmail
from tests.e2e.commands import run, write_campaign
from tests.servers.exim import run_exim
from tests.servers.forwarder import forwarding
from tests.servers.kept import UNKNOWN, MailServer
from tests.servers.postfix import run_postfix
from tests.servers.verifiers import judged_by_spamassassin, verified_by_opendkim
from tests.signing import ED25519, RSA

pytestmark = pytest.mark.slow

SAMPLES = Path(__file__).parents[2] / "samples"
NAMES = ["Ann", "José", "Łukasz", "Ольга", "佐藤", "محمد", "Zoë"]


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("server", ["postfix", "exim"])
async def test_thousand_messages_are_accepted_and_unknown_users_rejected(server, request, tmp_path):
    real: MailServer = request.getfixturevalue(server)
    people = [f"{UNKNOWN if n % 20 == 7 else 'p'}{n}@example.com" for n in range(1000)]
    known = [person for person in people if not person.startswith(UNKNOWN)]
    campaign = write_campaign(tmp_path / "spring", people, relay=real.url)
    names = {person: NAMES[n % len(NAMES)] for n, person in enumerate(people)}
    rows = "".join(f"{person},{name}\n" for person, name in names.items())
    (campaign / "people.csv").write_text(f"email,first_name\n{rows}", encoding="utf-8")
    result = await run("send", campaign, "--yes", "--progress", "none", cwd=tmp_path)
    assert result.code == 1, result.err + real.tail()
    with (campaign / "runs" / "spring-report.csv").open(newline="", encoding="utf-8") as file:
        report = list(csv.DictReader(file))
    assert Counter(row["delivery_status"] for row in report) == {"accepted": 950, "rejected": 50}
    for row in report:
        is_known = not row["email"].startswith(UNKNOWN)
        assert row["delivery_status"] == ("accepted" if is_known else "rejected")
        if not is_known:
            assert row["delivery_code"] == "550"
            assert "unknown" in row["delivery_reply"].lower() or "unrouteable" in row["delivery_reply"].lower()
    await asyncio.to_thread(real.wait_for, len(known), seconds=60)
    assert real.recipients() == dict.fromkeys(known, 1)
    for message in real.kept():
        name = names[str(message[real.recipient_header])]
        assert message["Subject"] == f"Hello {name}"
        assert message.get_content().startswith(f"Dear {name},")


FEW_CONNECTS = """\
check_connect:
  defer message = Rate limit exceeded, slow down
        ratelimit = 6 / 1m / per_conn / strict
  accept
"""
# Each ends sessions, or refuses to open them, for what others overlook.
TOUCHY: dict[str, Callable[[], AbstractContextManager[MailServer]]] = {
    # Postfix' own default for all of its clients while many of them are there.
    "postfix-bears-no-error": lambda: run_postfix({"smtpd_hard_error_limit": "1"}),
    "exim-bears-no-protocol-error": lambda: run_exim({"smtp_max_synprot_errors": "0"}),
    "exim-limits-connects": lambda: run_exim({"acl_smtp_connect": "check_connect"}, acls=FEW_CONNECTS),
}


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("server", TOUCHY)
async def test_touchy_server_takes_all_and_is_not_stormed(server: str, tmp_path: Path) -> None:
    people = [f"{UNKNOWN if n % 20 == 7 else 'p'}{n}@example.com" for n in range(300)]
    known = [person for person in people if not person.startswith(UNKNOWN)]
    with TOUCHY[server]() as real:
        async with forwarding(real.port) as seen:
            relay = f"smtp://127.0.0.1:{seen.port}?tls=off"
            campaign = write_campaign(tmp_path / "spring", people, relay=relay)
            result = await run("send", campaign, "--yes", "--progress", "none", cwd=tmp_path)
        assert result.code == 1, result.err + real.tail()
        with (campaign / "runs" / "spring-report.csv").open(newline="", encoding="utf-8") as file:
            report = {row["email"]: row["delivery_status"] for row in csv.DictReader(file)}
        assert [person for person in people if report[person] == "accepted"] == known
        assert Counter(report.values()) == {"accepted": 285, "rejected": 15}
        assert seen.connects <= seen.most_open + 15 + 10, real.tail()
        await asyncio.to_thread(real.wait_for, len(known), seconds=60)
        assert real.recipients() == dict.fromkeys(known, 1)


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("server", ["postfix", "exim"])
async def test_signatures_survive_a_real_server(server, request, key_ring, tmp_path):
    real: MailServer = request.getfixturevalue(server)
    campaign = bulkmail.compose(
        from_="Grüne Shop <shop@shop.example>",
        subject="Grüße, {{ name }}",
        text="Dear {{ name }},\n\n  two  spaces\tand a tab   \n.\nFrom here on dots:\n..\n\n\n",
        html="<table>\n  <tr>\n\t<td>  {{ name }}</td>\n  </tr>\n</table>\n",
        cc='"Copy, the" <copy@example.com>',
        list_id="Grüße <news.shop.example>",
        unsubscribe=bulkmail.Unsubscribe("https://shop.example/u/{token}", "u+{token}@shop.example"),
        attachments=[bulkmail.Attachment("Menü.pdf", "application/pdf", bytes(range(256)) * 400)],
        dkim=(RSA, ED25519),
    )
    people = [{"email": f"p{number}@example.com", "name": name} for number, name in enumerate(NAMES)]
    report = await bulkmail.Mailer(real.url, keys=key_ring.keys_for(RSA, ED25519)).send(campaign, people)
    assert report.accepted == len(people)
    await asyncio.to_thread(real.wait_for, 2 * len(people), seconds=30)
    for path in (real.maildir / "new").iterdir():
        content = await asyncio.to_thread(path.read_bytes)
        assert key_ring.verifies(content, 0)
        assert key_ring.verifies(content, 1)
        passed = await asyncio.to_thread(verified_by_opendkim, content, key_ring.zone, folder=tmp_path)
        assert passed == {"rsa-sha256", "ed25519-sha256"}


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("sample", ["newsletter", "invoice"])
async def test_samples_look_like_mail_to_a_spam_filter(sample, key_ring, tmp_path):
    campaign = tmp_path / sample
    await asyncio.to_thread(shutil.copytree, SAMPLES / sample, campaign, ignore=shutil.ignore_patterns("runs"))
    signature = f'\n[message.dkim]\ndomain = "{RSA.domain}"\nselector = "{RSA.selector}"\nkey_env = "DKIM_KEY"\n'
    settings = (campaign / "campaign.toml").read_text("utf-8") + signature
    (campaign / "campaign.toml").write_text(settings, encoding="utf-8")
    key = key_ring.keys_for(RSA).dkim[0].reveal()
    result = await run("send", campaign, "--relay", f"maildir:{tmp_path / 'box'}", cwd=tmp_path, DKIM_KEY=key)
    assert result.code == 0, result.err
    messages = sorted((tmp_path / "box" / "new").iterdir())
    for message in (messages[0], messages[-1]):
        score, hits = await asyncio.to_thread(judged_by_spamassassin, await asyncio.to_thread(message.read_bytes))
        assert score <= 0.5
        assert hits <= {"NO_RECEIVED", "NO_RELAYS", "HTML_MESSAGE"}  # it came over no network, and has a page
