"""When the relay cannot be used: one clear sentence, exit 3, and every row as it was."""

from __future__ import annotations

import ssl

import pytest
import trustme

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, write_campaign

pytestmark = pytest.mark.slow

PEOPLE = [f"p{n}@example.com" for n in range(40)]


def statuses(campaign):
    with OutboxReader.open(campaign / "runs" / "spring.outbox") as reader:
        return reader.tally().by_status


@pytest.fixture
def authority():
    return trustme.CA()


def server_context(authority, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_nothing_listens_says_where_and_what_to_try_and_a_later_send_goes_on(tmp_path):
    async with ScriptedRelay() as relay:
        port = relay.port
    campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=f"smtp://127.0.0.1:{port}?tls=off")
    result = await run("send", campaign, "--yes", cwd=tmp_path)
    assert result.code == 3
    error = next(line for line in result.err.splitlines() if line.startswith("error:"))
    assert "127.0.0.1" in error and str(port) in error
    assert "hint: " in result.err
    assert statuses(campaign) == {Status.PENDING: 40}
    async with ScriptedRelay() as relay:
        url = f"smtp://127.0.0.1:{relay.port}?tls=off"
        later = await run("send", campaign, "--yes", "--relay", url, cwd=tmp_path)
    assert later.code == 0, later.err
    assert len(relay.messages) == 40


async def test_wrong_password_is_tried_exactly_once(tmp_path, authority):
    authority_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(authority_file)
    async with ScriptedRelay(auth={"ann": "right"}, tls=server_context(authority, "localhost")) as relay:
        url = f"smtp://ann@localhost:{relay.port}?ca_file={authority_file}&connections=10"
        campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=url)
        result = await run("send", campaign, "--yes", cwd=tmp_path, BULKMAIL_PASSWORD="wrong-Canary-93")
        assert result.code == 3
        assert "refused the login" in result.err
        assert relay.auth_attempts == 1
        assert not any(command.startswith("MAIL") for command in relay.commands)
        assert statuses(campaign) == {Status.PENDING: 40}
        right = await run("send", campaign, "--yes", cwd=tmp_path, BULKMAIL_PASSWORD="right")
    assert right.code == 0, right.err
    assert len(relay.messages) == 40
    for file in (campaign / "runs").iterdir():
        assert b"wrong-Canary-93" not in file.read_bytes()
    assert "wrong-Canary-93" not in result.out + result.err


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_certificate_that_does_not_verify_is_refused_before_anything_leaves(tmp_path, authority, scheme):
    async with ScriptedRelay(
        auth={"ann": "secret"}, tls=server_context(authority, "localhost"), implicit=scheme == "smtps"
    ) as relay:
        campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=f"{scheme}://ann@localhost:{relay.port}")
        result = await run("send", campaign, "--yes", cwd=tmp_path, BULKMAIL_PASSWORD="secret")
    assert result.code == 3
    assert "certificate" in result.err and "ca_file" in result.err
    assert relay.auth_attempts == 0
    assert not any(command.startswith(("AUTH", "MAIL", "RCPT")) for command in relay.commands)
    assert statuses(campaign) == {Status.PENDING: 40}


async def test_starttls_not_offered_is_refused_before_anything_leaves(tmp_path):
    async with ScriptedRelay(auth={"ann": "secret"}) as relay:
        campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=f"smtp://ann@localhost:{relay.port}")
        result = await run("send", campaign, "--yes", cwd=tmp_path, BULKMAIL_PASSWORD="secret")
    assert result.code == 3
    assert "STARTTLS" in result.err and "smtps://" in result.err
    assert relay.auth_attempts == 0
    assert not any(command.startswith(("AUTH", "MAIL", "RCPT")) for command in relay.commands)
    assert statuses(campaign) == {Status.PENDING: 40}


async def test_no_relay_and_no_terminal_is_refused(tmp_path):
    campaign = write_campaign(tmp_path / "spring", PEOPLE, relay="sandbox:")
    text = (campaign / "campaign.toml").read_text()
    (campaign / "campaign.toml").write_text(text.replace('relay = "sandbox:"', ""))
    result = await run("send", campaign, "--yes", cwd=tmp_path)
    assert result.code == 2
    assert "no relay is given" in result.err
    assert not (campaign / "runs").exists()


async def test_real_relay_without_yes_and_without_terminal_is_refused(tmp_path):
    async with ScriptedRelay() as relay:
        campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=f"smtp://127.0.0.1:{relay.port}?tls=off")
        result = await run("send", campaign, cwd=tmp_path)
    assert result.code == 2
    assert "--yes" in result.err
    assert relay.sessions == 0


async def test_message_that_no_one_can_get_closes_the_gate(tmp_path):
    async with ScriptedRelay() as relay:
        campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=f"smtp://127.0.0.1:{relay.port}?tls=off")
        (campaign / "message.txt").write_text("Dear {{ frist_name }},\n")
        result = await run("send", campaign, "--yes", cwd=tmp_path)
    assert result.code == 2
    assert "message.txt:1" in result.err
    assert "'frist_name'" in result.err and "first_name" in result.err
    assert relay.sessions == 0
