"""`[notify]` of a campaign and of the user."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from bulkmail.model.errors import ConfigError
from bulkmail.model.notification import NotifySettings
from bulkmail.settings.allowed_commands import commands_in
from bulkmail.settings.notify_settings import find_webhook, load_notify
from bulkmail.settings.settings import load
from bulkmail.settings.suppressions import user_file
from tests.settings.conftest import SOUND, MakeShop

KEY = "whsec_" + b64encode(b"k" * 32).decode()


@pytest.fixture
def notify_of(make_shop: MakeShop) -> Callable[[str], NotifySettings]:
    def read(table: str) -> NotifySettings:
        return load(str(make_shop(f"{SOUND}[notify]\n{table}")), environ={}).notify

    return read


def test_notify_table_is_read_whole(notify_of: Callable[[str], NotifySettings]) -> None:
    found = notify_of(
        f"""
mail = "Me <me@shop.example>"
webhook = "https://hooks.example.com/x?y=1"
secret_env = "HOOK_KEY"
command = ["{sys.executable}", "-c", "pass"]
after = "30min"
"""
    )
    assert found == NotifySettings(
        mail="me@shop.example",
        webhook_from="url:https://hooks.example.com/x?y=1",
        secret_from="env:HOOK_KEY",
        command=(sys.executable, "-c", "pass"),
        after=1800.0,
    )
    assert find_webhook(found, environ={"HOOK_KEY": KEY}) is not None


def test_address_of_a_webhook_may_be_a_secret(notify_of: Callable[[str], NotifySettings]) -> None:
    found = notify_of('webhook_env = "HOOK"')
    assert found.webhook_from == "env:HOOK"
    assert find_webhook(found, environ={"HOOK": "https://hooks.example.com/T0/s3cret"}) == (
        "https://hooks.example.com/T0/s3cret",
        None,
    )
    with pytest.raises(ConfigError) as caught:
        find_webhook(found, environ={"HOOK": "http://hooks.example.com/T0/s3cret"})
    assert str(caught.value) == "the webhook's address is not an https address"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('mail = "me"', 'campaign.toml:9: mail = "me": has no @'),
        ('webhook = "http://hooks.example.com/s3cret"', "9: webhook: is not an https address"),
        ('webhook = "https://ann:s3cret@hooks.example.com"', "9: webhook: holds a password that others may read"),
        ('webhook = "https://[s3cret"', "9: webhook: is not an address"),
        ('webhook = "https://a.example"\nwebhook_env = "S3CRET"', "9: webhook: the webhook is named twice"),
        ('mail = "me@shop.example"\nsecret_env = "S3CRET"', "10: secret_env: signs a webhook, and there is none here"),
        (
            'webhook = "https://a.example"\nsecret_env = "A"\nsecret_file = "b"',
            "secret cannot come from two places",
        ),
        ("command = []", "9: command: is not a program with its arguments"),
        ('command = ["no-such-program-7"]', "9: command: there is no program 'no-such-program-7'"),
        ('command = "beep"', '9: command = "beep": expected a list in square brackets'),
        ('after = "30s"', '9: after = "30s": is shorter than a minute'),
        ('after = "soon"', "9: after = \"soon\": cannot read the duration 'soon'"),
        ('mial = "me@shop.example"', '9: [notify] has no key "mial"'),
    ],
)
def test_notify_setting_that_cannot_be_used_is_reported_with_its_line(
    notify_of: Callable[[str], NotifySettings], table: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        notify_of(table)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "whsec_", "too short", "whsec_" + b64encode(b"k" * 8).decode()])
def test_secret_that_cannot_sign_is_refused_without_repeating_it(key: str) -> None:
    settings = NotifySettings(webhook_from="url:https://a.example", secret_from="env:KEY")
    with pytest.raises(ConfigError) as caught:
        find_webhook(settings, environ={"KEY": key})
    assert not key.removeprefix("whsec_") or key not in str(caught.value) + caught.value.hint


def test_users_own_file_notifies_of_all_campaigns(state_folder: Path) -> None:
    assert load_notify() == NotifySettings()
    path = user_file()
    path.parent.mkdir(parents=True)
    path.write_text('[notify]\nmail = "me@shop.example"\nsecret_file = "key"\nwebhook_file = "hook"\n')
    found = load_notify()
    assert found.mail == "me@shop.example"
    assert found.secret_from == f"file:{path.parent / 'key'}"


def test_commands_of_notify_need_a_permission() -> None:
    settings = NotifySettings(
        webhook_from="command:pass show hook", secret_from="command:pass show key", command=("beep", "two words")
    )
    assert commands_in(None, (), settings) == ("pass show hook", "pass show key", "beep 'two words'")
