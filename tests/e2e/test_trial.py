"""`bulkmail send --test ME`: one message to its author."""

from __future__ import annotations

import json
import re

import pytest

from bulkmail.message.unsubscribe import read_unsubscribe
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, write_campaign

pytestmark = pytest.mark.slow

PEOPLE = [f"p{n}@example.com" for n in range(5)]
KEY = "k" * 64


def url_of(relay):
    return f"smtp://{relay.host}:{relay.port}?tls=off"


@pytest.fixture
def campaign(tmp_path):
    folder = write_campaign(tmp_path / "spring", PEOPLE, relay="sandbox:", settings="canary = 2")
    with (folder / "campaign.toml").open("a") as file:
        file.write('[message.unsubscribe]\nhttps = "https://shop.example/u/{token}"\nkey_env = "SHOP_KEY"\n')
    return folder


def files_of(folder):
    return sorted(path.name for path in folder.rglob("*"))


async def test_test_message_is_that_of_the_row_and_leaves_nothing(campaign, tmp_path):
    before = files_of(tmp_path)
    async with ScriptedRelay() as relay:
        where = ("--relay", url_of(relay), "--test", "me@example.org", "--row", "3")
        sent = await run("send", campaign, *where, cwd=tmp_path, SHOP_KEY=KEY)
    assert sent.code == 0, sent.err
    assert sent.out.startswith("me@example.org was sent what row 3 (p2@example.com) would get.\n  250 ")
    assert "resume" not in sent.out + sent.err
    (message,) = relay.messages
    assert message.forward_paths == ("me@example.org",)
    assert b"To: p2@example.com" in message.content and b"Dear P2," in message.content
    token = re.search(rb"https://shop\.example/u/([^>]+)>", message.content.replace(b"\r\n ", b""))
    assert token and read_unsubscribe(token[1].decode(), [KEY]) is None
    assert files_of(tmp_path) == before


async def test_test_message_that_is_refused_says_so(campaign, tmp_path):
    async with ScriptedRelay(rcpt="550 5.7.1 not wanted") as relay:
        where = ("--relay", url_of(relay), "--test", "me@example.org", "--json")
        sent = await run("send", campaign, *where, cwd=tmp_path, SHOP_KEY=KEY)
    found = json.loads(sent.out)
    assert (sent.code, found["status"], found["code"], found["row"]) == (1, "rejected", 550, 1)
    assert found["reply"] == "550 5.7.1 not wanted"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--test", "me@example.org"], "would not reach me@example.org"),
        (["--relay", "smtp://127.0.0.1:1", "--test", "me@example.org", "--row", "6"], "row 6 cannot be used"),
        (["--test", "me@example.org", "--limit", "3"], "--limit is about a whole run"),
        (["--row", "3"], "add --test YOUR-ADDRESS"),
    ],
    ids=["sandbox", "no-such-row", "limit", "row-alone"],
)
async def test_test_message_that_cannot_be_is_refused(campaign, tmp_path, flags, said):
    refused = await run("send", campaign, *flags, cwd=tmp_path, SHOP_KEY=KEY)
    assert refused.code == 2
    assert said in refused.err
