"""Notifications as they arrive: by webhook, by command, by mail; and what is said when they do not."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from bulkmail.mailing.notifying import MailWay, Notification, NotifiedRun, make_notification, notify, sender_of
from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.notification import NotifyEvent, NotifySettings
from bulkmail.model.relay import Relay
from bulkmail.model.route import Route
from bulkmail.model.tally import Status, Tally
from bulkmail.testing import ScriptedRelay
from tests.servers.hooks import HookServer, hook_server

KEY = "whsec_" + b64encode(b"k" * 32).decode()
RUN = NotifiedRun("spring", "r1", "/home/shop/spring/runs/spring.outbox", is_rehearsal=False)
TALLY = Tally(3, {Status.ACCEPTED: 2, Status.REJECTED: 1})
QUICK = (0.0, 0.0)


@pytest.fixture
def notification() -> Notification:
    return make_notification(NotifyEvent.FINISHED, RUN, TALLY, now=1_800_000_000.0, exit_code=1)


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HookServer]:
    with hook_server(tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
        monkeypatch.setenv("HOOK_KEY", KEY)
        yield server


def test_notification_says_how_it_went_and_names_no_recipient() -> None:
    error = "the relay refuses: 550 <ann@example.com> is not allowed"
    found = make_notification(NotifyEvent.STOPPED, RUN, TALLY, now=1_800_000_000.0, exit_code=3, error=error)
    assert found.text == (
        "bulkmail: spring stopped before the end: 2 accepted, 1 rejected"
        " (the relay refuses: 550 <address> is not allowed)"
    )
    data = found.content.pop("data")
    assert found.content == {
        "type": "run.stopped",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "version": 1,
        "text": found.text,
    }
    assert (data["name"], data["run_id"], data["exit_code"], data["still_seconds"]) == ("spring", "r1", 3, None)
    assert (data["totals"]["rows"], data["totals"]["accepted"], data["totals"]["pending"]) == (3, 2, 0)
    assert "ann@" not in json.dumps(data)


async def test_webhook_gets_a_call_that_the_library_of_the_standard_verifies(
    hooks: HookServer, notification: Notification, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = NotifySettings(webhook_from=f"url:{hooks.url}/run?x=1", secret_from="env:HOOK_KEY")
    assert await notify(settings, notification, mail=None) == []
    [(path, headers, body)] = hooks.calls
    assert path == "/run?x=1"
    assert headers["content-type"] == "application/json"
    assert Webhook(KEY).verify(body, headers) == notification.content


async def test_webhook_that_fails_for_now_is_called_again_with_the_same_id(
    hooks: HookServer, notification: Notification
) -> None:
    hooks.answers = [503, 429]
    settings = NotifySettings(webhook_from=f"url:{hooks.url}/")
    assert await notify(settings, notification, mail=None, backoff=QUICK) == []
    assert len(hooks.calls) == 3
    assert len({headers["webhook-id"] for _, headers, _ in hooks.calls}) == 1
    assert "webhook-signature" not in hooks.calls[0][1]


@pytest.mark.parametrize(("answers", "calls"), [([500, 500, 500, 500], 3), ([404], 1), ([302], 1)])
async def test_webhook_that_goes_on_failing_is_given_up(
    answers: list[int], calls: int, hooks: HookServer, notification: Notification
) -> None:
    hooks.answers = list(answers)
    faults = await notify(
        NotifySettings(webhook_from=f"url:{hooks.url}/s3cret"), notification, mail=None, backoff=QUICK
    )
    assert faults == [f"by webhook: it answered {answers[0]}"]
    assert len(hooks.calls) == calls


async def test_webhook_with_a_certificate_that_no_one_knows_gets_nothing(
    hooks: HookServer, notification: Notification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    [fault] = await notify(NotifySettings(webhook_from=f"url:{hooks.url}/s3cret"), notification, mail=None, backoff=())
    assert fault.startswith("by webhook: ") and "s3cret" not in fault
    assert hooks.calls == []


async def test_command_gets_the_json_and_no_shell(
    tmp_path: Path, notification: Notification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BULKMAIL_PASSWORD", "s3cret")
    kept = tmp_path / "kept"
    script = (
        "import json, os, sys; open(sys.argv[1], 'w').write(json.dumps("
        "[json.load(sys.stdin), sys.argv[2:], os.environ.get('BULKMAIL_PASSWORD')]))"
    )
    command = (sys.executable, "-c", script, str(kept), "$HOME; {text}")
    assert await notify(NotifySettings(command=command), notification, mail=None) == []
    content, arguments, password = json.loads(kept.read_text())
    assert content == notification.content
    assert arguments == [f"$HOME; {notification.text}"]
    assert password is None


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ((sys.executable, "-c", "raise SystemExit(7)"), f"by command: {sys.executable} ended with exit code 7"),
        (("/no/such/program",), "by command: No such file or directory"),
    ],
    ids=["exit-code", "missing"],
)
async def test_command_that_fails_is_said(command: tuple[str, ...], fault: str, notification: Notification) -> None:
    assert await notify(NotifySettings(command=command), notification, mail=None) == [fault]


async def test_one_way_that_fails_keeps_none_of_the_others_back(hooks: HookServer, notification: Notification) -> None:
    settings = NotifySettings(webhook_from=f"url:{hooks.url}/", command=("/no/such/program",))
    assert await notify(settings, notification, mail=None) == ["by command: No such file or directory"]
    assert len(hooks.calls) == 1


async def test_mail_goes_through_the_relay_as_one_message(notification: Notification) -> None:
    async with ScriptedRelay() as relay:
        way = MailWay([Route(Relay.parse(f"smtp://{relay.host}:{relay.port}?tls=off"))], [None], "shop@shop.example")
        assert await notify(NotifySettings(mail="me@shop.example"), notification, mail=way) == []
    [message] = relay.messages
    assert message.forward_paths == ("me@shop.example",)
    content = message.content.decode()
    for words in (
        "Subject: bulkmail: spring finished: 2 accepted, 1 rejected",
        "From: shop@shop.example",
        "Auto-Submitted: auto-generated",
        "Outbox: /home/shop/spring/runs/spring.outbox",
    ):
        assert words in content


async def test_mail_that_the_relay_refuses_is_said(notification: Notification) -> None:
    async with ScriptedRelay(rcpt=lambda path: "550 5.1.1 no such user") as relay:
        way = MailWay([Route(Relay.parse(f"smtp://{relay.host}:{relay.port}?tls=off"))], [None], "")
        faults = await notify(NotifySettings(mail="me@shop.example"), notification, mail=way)
    assert faults == ["by mail: 550 5.1.1 no such user"]


async def test_mail_says_that_its_relay_is_the_trouble(notification: Notification) -> None:
    way = MailWay([Route(Relay.parse("smtp://127.0.0.1:1?tls=off"))], [None], "")
    [fault] = await notify(NotifySettings(mail="me@shop.example"), notification, mail=way)
    assert fault.startswith("by mail: ") and "127.0.0.1" in fault


@pytest.mark.parametrize(
    ("sender", "url", "expected"),
    [
        ("Shop <hello@shop.example>", "smtp://mail.shop.example", "hello@shop.example"),
        ("{{ clerk }}@shop.example", "smtp://ann%40shop.example@mail.shop.example", "ann@shop.example"),
        ("{{ clerk }}@shop.example", "smtp://apikey@mail.shop.example", ""),
    ],
)
def test_mail_is_from_the_campaign_or_the_login(
    sender: str, url: str, expected: str, make_campaign: Callable[..., Campaign]
) -> None:
    found = make_campaign(sender=Template("sender", sender))
    assert sender_of(found, [Route(Relay.parse(url))]) == expected
