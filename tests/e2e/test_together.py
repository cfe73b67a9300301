"""`--to … --to … --together`: one message whose recipients see each other."""

from __future__ import annotations

from email import message_from_bytes

import pytest

from bulkmail.report.report import Report
from bulkmail.testing import ScriptedRelay
from tests.e2e.commands import run, write_campaign

pytestmark = pytest.mark.slow

MESSAGE = ["--from", "me@example.com", "--subject", "Dinner", "--text", "-"]


def to(*addresses):
    return [word for address in addresses for word in ("--to", address)]


async def send(folder, *arguments, stdin=b"At eight.\n"):
    return await run("send", *arguments, cwd=folder, stdin=stdin)


async def test_together_sends_one_message_that_shows_all_addresses(tmp_path):
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 who?" if path.startswith("cid@") else None) as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off"
        people = to("Ann Li <ann@example.com>", "bob@example.com", "cid@example.com")
        result = await send(tmp_path, *people, "--together", *MESSAGE, "--relay", url, "--yes", "--outbox", "d.outbox")
    assert result.code == 1, result.err
    [message] = relay.messages
    assert message.forward_paths == ("ann@example.com", "bob@example.com")
    headers = message_from_bytes(message.content)
    assert headers.get_all("To") == ["Ann Li <ann@example.com>, bob@example.com, cid@example.com"]
    assert "each recipient sees all of them" in " ".join(result.err.split())
    report = Report.read(tmp_path / "d.outbox")
    assert report.tally.rows == 1
    assert [address for address, _, _ in report.failed] == ["cid@example.com"]


async def test_without_together_no_one_sees_the_others(tmp_path):
    async with ScriptedRelay() as relay:
        url = f"smtp://{relay.host}:{relay.port}?tls=off"
        people = to("ann@example.com", "bob@example.com")
        result = await send(tmp_path, *people, *MESSAGE, "--relay", url, "--yes")
    assert result.code == 0
    assert [message.forward_paths for message in relay.messages] == [("ann@example.com",), ("bob@example.com",)]
    assert all(message.content.count(b"@example.com") < 4 for message in relay.messages)


async def test_together_asks_unless_yes_is_said(tmp_path):
    people = to("ann@example.com", "bob@example.com")
    result = await send(tmp_path, *people, "--together", *MESSAGE, "--relay", "smtp://127.0.0.1:1?tls=off")
    assert result.code == 2
    assert "add --yes" in result.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (to(*(f"p{n}@example.com" for n in range(21))), "shows 21 addresses to each other, and at most 20 may be"),
        ([], "there is none"),
        (to("a@example.com", "{{x}}@example.com"), "an address looks like a template"),
    ],
    ids=["too-many", "none", "template"],
)
async def test_together_refuses_what_it_must_not_show(arguments, said, tmp_path):
    result = await send(tmp_path, *arguments, "--together", *MESSAGE, "--relay", "sandbox:")
    assert result.code == 2
    assert said in " ".join(result.err.split())


async def test_together_is_never_for_a_list(tmp_path):
    campaign = write_campaign(tmp_path / "spring", ["ann@example.com", "bob@example.com"], relay="sandbox:")
    result = await run("send", campaign, "--together", cwd=tmp_path)
    assert result.code == 2
    assert "--together: shows the addresses of --to to each other, and there is none" in " ".join(result.err.split())


async def test_together_refuses_a_link_to_unsubscribe_that_all_would_share(tmp_path):
    links = '[message.unsubscribe]\nmailto = "u+{token}@example.com"\nkey_env = "KEY"'
    campaign = write_campaign(tmp_path / "spring", [], relay="sandbox:", settings=links)
    people = to("ann@example.com", "bob@example.com")
    result = await run("send", campaign, *people, "--together", cwd=tmp_path, KEY="0123456789abcdef0123")
    assert result.code == 2
    assert "all recipients would get the unsubscribe link of the first address" in " ".join(result.err.split())
