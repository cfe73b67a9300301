"""The guide's worked example of a login by token loads, and names every setting of it."""

from __future__ import annotations

import re
from pathlib import Path

from bulkmail.model.relay import Oauth, parse_proxy
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.schema import OauthTable
from bulkmail.settings.settings import load

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
MESSAGE = """
recipients = "people.csv"
[message]
from = "shop@example.com"
subject = "Hello"
text = "message.txt"
"""


def test_login_example_loads(tmp_path):
    (example,) = re.findall(r"~~~toml\n(.*?)~~~", GUIDE, re.DOTALL)
    (tmp_path / "campaign.toml").write_text(MESSAGE + example, encoding="utf-8")
    (tmp_path / "people.csv").write_text("email\n", encoding="utf-8")
    (tmp_path / "message.txt").write_text("Hello\n", encoding="utf-8")
    relay = load(str(tmp_path), Overrides()).relay
    assert str(relay) == "smtp://shop@example.com@smtp.gmail.com:587"
    assert relay.oauth == Oauth(
        "https://oauth2.googleapis.com/token",
        "1234.apps.googleusercontent.com",
        client_secret_from="env:SHOP_CLIENT_SECRET",
        refresh_token_from=f"file:{tmp_path / 'secret' / 'refresh-token'}",
    )


def test_guide_names_every_setting_of_a_refresh_grant():
    assert [name for name in OauthTable.model_fields if name not in GUIDE] == []


def test_guide_names_proxies_that_a_relay_may_have() -> None:
    found = re.findall(r'`proxy = "([^"]+)"`', GUIDE)
    assert [parse_proxy(url).partition(":")[0] for url in found] == ["socks5", "http"]
