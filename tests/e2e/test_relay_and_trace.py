"""`bulkmail relay` and `--trace`, as people type them."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import stat

import pytest
import trustme

from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, write_campaign

pytestmark = pytest.mark.slow

PEOPLE = [f"p{n}@example.com" for n in range(5)]
PASSWORD = "Canary-7-correct-horse"


@pytest.fixture
def tls(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def test_relay_command_shows_a_server_in_80_columns(tmp_path, tls):
    async with ScriptedRelay(auth={"ann": PASSWORD}, tls=tls) as relay:
        url = f"smtp://ann@localhost:{relay.port}?ca_file={tmp_path / 'ca.pem'}"
        result = await run("relay", url, "--from", "shop@example.com", cwd=tmp_path, BULKMAIL_PASSWORD=PASSWORD)
    assert result.code == 0, result.out + result.err
    assert (result.out.splitlines()[0], result.err) == (f"smtp://ann@localhost:{relay.port}", "")
    for words in ("Login        as ann by PLAIN: works", "Sender       accepted: 250", "Usable."):
        assert words in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    assert "\x1b" not in result.out and PASSWORD not in result.out


async def test_relay_command_takes_a_campaign_and_answers_programs(tmp_path, tls):
    async with ScriptedRelay(auth={"ann": PASSWORD}, tls=tls) as relay:
        url = f"smtp://ann@localhost:{relay.port}?ca_file={tmp_path / 'ca.pem'}"
        write_campaign(tmp_path / "spring", PEOPLE, relay=url)
        result = await run("relay", "spring", "--json", cwd=tmp_path, BULKMAIL_PASSWORD="wrong")
        assert relay.auth_attempts == 1
        without = await run("relay", "spring", "--json", cwd=tmp_path)
    assert (result.code, without.code) == (3, 3)
    facts = json.loads(result.out)
    assert facts["login"] == {"state": "refused", "mechanism": "PLAIN"}
    assert facts["trouble"]["what"] == "The server refused the login."
    assert facts["tls"]["version"].startswith("TLSv1.")
    assert json.loads(without.out)["login"]["state"] == "no password"


async def test_password_comes_through_a_pipe(tmp_path, tls):
    async with ScriptedRelay(auth={"ann": PASSWORD}, tls=tls) as relay:
        url, line = f"smtp://ann@localhost:{relay.port}?ca_file={tmp_path / 'ca.pem'}", f"{PASSWORD}\n".encode()
        campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=url)
        looked = await run("relay", "spring", "--password-stdin", cwd=tmp_path, stdin=line)
        flags = ("--yes", "--password-stdin")
        wrong = await run("send", campaign, *flags, cwd=tmp_path, stdin=b"wrong\n", BULKMAIL_PASSWORD=PASSWORD)
        sent = await run("send", campaign, *flags, "--limit", "2", cwd=tmp_path, stdin=line)
        resumed = await run("resume", campaign, *flags, cwd=tmp_path, stdin=line.rstrip())
        empty = await run("resume", campaign, *flags, cwd=tmp_path)
    assert (looked.code, wrong.code, sent.code, resumed.code, empty.code) == (0, 3, 3, 0, 2), wrong.err + empty.err
    assert "the password from standard input is empty" in empty.err
    assert len(relay.messages) == len(PEOPLE)
    said = "".join(each.out + each.err for each in (looked, wrong, sent, resumed))
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert PASSWORD not in said and kept == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sandbox:"], "has no server to test"),
        (["spring"], "there is no such folder or file"),
        (["smtp://ann:Canary-7@mail.example.com"], "must not hold a password"),
        (["smtp://ann:Canary?7@mail.example.com"], "is there a password in it?"),
        (["smtp://127.0.0.1:1", "--to", "bob@example.com"], "add --from ADDRESS"),
        (["smtp://127.0.0.1:1", "--from", "bob"], '--from "bob": has no @'),
    ],
)
async def test_relay_command_says_what_is_wrong_with_its_arguments(arguments, said, tmp_path):
    result = await run("relay", *arguments, cwd=tmp_path)
    assert result.code == 2
    assert said in result.err
    assert "Canary" not in result.err


async def test_trace_of_a_run_shows_all_but_the_password(tmp_path, tls):
    target = tmp_path / "talk.txt"
    async with ScriptedRelay(auth={"ann": PASSWORD}, tls=tls) as relay:
        url = f"smtp://ann@localhost:{relay.port}?ca_file={tmp_path / 'ca.pem'}"
        campaign = write_campaign(tmp_path / "spring", PEOPLE, relay=url)
        result = await run(
            "send", campaign, "--yes", "--limit", "3", "--trace", target, cwd=tmp_path, BULKMAIL_PASSWORD=PASSWORD
        )
        assert result.code == 3, result.err
        result = await run("resume", campaign, "--yes", "--trace", "-", cwd=tmp_path, BULKMAIL_PASSWORD=PASSWORD)
        assert result.code == 0, result.err
    text = await asyncio.to_thread(target.read_text)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    for traced, number in ((text, 3), (result.err, 2)):
        assert traced.count(" > MAIL FROM:<shop@example.com>") == number
        assert " > (login by PLAIN: " in traced
        assert PASSWORD not in traced
        assert base64.b64encode(f"\0ann\0{PASSWORD}".encode()).decode() not in traced
    assert "# bulkmail trace" in result.err and "\x1b" not in result.err


async def test_trace_is_refused_where_it_would_spoil_something(tmp_path):
    campaign = write_campaign(tmp_path / "spring", PEOPLE, relay="null:")
    result = await run("send", campaign, "--trace", "talk.txt", cwd=tmp_path)
    assert (result.code, "has no SMTP conversation" in result.err) == (2, True)
    people = campaign / "people.csv"
    result = await run("send", campaign, "--relay", "sandbox:", "--trace", people, cwd=tmp_path)
    assert (result.code, "this file is not a trace" in result.err) == (2, True)
