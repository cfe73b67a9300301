"""How `[relay]` says what a login is with, and where each secret is looked for."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from bulkmail.model.errors import ConfigError
from bulkmail.model.outcome import Breakage
from bulkmail.model.pace import Pace
from bulkmail.model.relay import Kind, Oauth, Relay, Secret
from bulkmail.model.route import Route
from bulkmail.outbox.run_info import RunInfo
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.secrets import find_key_password, find_password, find_proxy_password, find_tokens
from bulkmail.settings.settings import load
from bulkmail.smtp.credentials import TokenError
from tests.settings.conftest import SOUND, MakeShop

MESSAGE = SOUND.replace('relay = "sandbox:"\n', "")
URL = 'url = "smtp://mail.example.com"\nusername = "ann@example.com"\n'
OAUTH = """[relay.oauth]
token_url = "https://oauth.example.com/token"
client_id = "shop"
"""


def relay_with(make_shop: MakeShop, table: str, **files: str) -> Relay:
    make_shop(f"{MESSAGE}[relay]\n{table}\n", **files)
    relay = load("shop", Overrides()).relay
    assert relay is not None
    return relay


def refusal(make_shop: MakeShop, table: str) -> str:
    with pytest.raises(ConfigError) as caught:
        relay_with(make_shop, table)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    return str(caught.value)


def token_relay(**more: object) -> Relay:
    return Relay(Kind.SMTP, host="mail.example.com", port=587, username="ann", **more)  # type: ignore[arg-type]


def write_secret(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return f"file:{path}"


# What the table says


def test_relay_takes_a_refresh_grant(make_shop: MakeShop) -> None:
    grant = 'scope = "mail"\nclient_secret_env = "SHOP_SECRET"\nrefresh_token_file = "secret/refresh"'
    relay = relay_with(make_shop, f"{URL}{OAUTH}{grant}")
    assert relay.oauth == Oauth(
        "https://oauth.example.com/token",
        "shop",
        scope="mail",
        client_secret_from="env:SHOP_SECRET",
        refresh_token_from=f"file:{Path('shop/secret/refresh').absolute()}",
    )
    assert relay.wants_token
    assert "SHOP_SECRET" not in repr(relay)
    assert find_password(relay, ask=None, environ={"BULKMAIL_PASSWORD": "x"}) is None
    assert RunInfo.begun((Route(relay),), Pace()).read_sending("")[0][0].relay == relay


@pytest.mark.parametrize(
    ("line", "token_from"),
    [('token_command = "pass show shop"', "command:pass show shop"), ('token_file = "/run/token"', "file:/run/token")],
)
def test_relay_takes_the_place_of_a_token(make_shop: MakeShop, line: str, token_from: str) -> None:
    relay = relay_with(make_shop, URL + line)
    assert (relay.token_from, relay.wants_token) == (token_from, True)


def test_relay_takes_where_it_comes_from_and_what_it_shows(make_shop: MakeShop) -> None:
    relay = relay_with(
        make_shop,
        f'{URL}source_address = "192.0.2.7"\nclient_certificate = "me.pem"\nclient_key = "me.key"\n'
        'client_key_password_env = "KEY_PASSWORD"',
        **{"me.pem": "", "me.key": ""},
    )
    assert relay.source_address == "192.0.2.7"
    assert relay.client_certificate == str(Path("shop/me.pem").absolute())
    assert relay.client_key == str(Path("shop/me.key").absolute())
    assert relay.key_password_from == "env:KEY_PASSWORD"
    assert "KEY_PASSWORD" not in repr(relay)


def test_relay_takes_a_proxy(make_shop: MakeShop) -> None:
    proxy = 'proxy = "socks5://ann@proxy.example.com:1080"\nproxy_password_env = "PROXY_PASSWORD"'
    relay = relay_with(make_shop, URL + proxy)
    assert relay.proxy == "socks5://ann@proxy.example.com:1080"
    password = find_proxy_password(relay, environ={"PROXY_PASSWORD": "hunter2"})
    assert password is not None
    assert password.reveal() == "hunter2"
    assert "PROXY_PASSWORD" not in repr(relay)


def test_relay_url_says_the_same(shop: Path) -> None:
    Path("me.pem").touch()
    url = "smtp://mail.example.com?source=2001:DB8::7&client_certificate=me.pem"
    relay = load("shop", Overrides(relay=url)).relay
    assert relay is not None
    assert relay.source_address == "2001:db8::7"
    assert relay.client_certificate == str(Path("me.pem").absolute())


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (f'{URL}token_file = "a"\ntoken_command = "b"', "the token cannot come from two places"),
        (f'{URL}token_file = "a"\npassword_env = "B"', "two of them are here"),
        (f'{URL}token_file = "a"\nkeyring = true', "two of them are here"),
        (f'{URL}token_file = "a"\n{OAUTH}refresh_token_env = "B"', "two of them are here"),
        (f'{URL}keyring = true\npassword_env = "B"', "the password cannot come from two places, password_env and keyr"),
        ('url = "smtp://mail.example.com"\ntoken_file = "a"', "whose token this is, is not said"),
        (f"{URL}{OAUTH}", "nothing says where the refresh token is"),
        (f'{URL}{OAUTH}refresh_token = "hunter2"', "a secret does not belong in a file that others may read"),
        (f'{URL}{OAUTH}client_secret = "hunter2"', "a secret does not belong in a file that others may read"),
        (f'{URL}{OAUTH}refresh_token_env = "hunter 2"', "refresh_token_env: is not the name of an environment var"),
        (f'{URL}{OAUTH}refresh_token_file = ""', "refresh_token_file: is not the name of a file"),
        (f'{URL}{OAUTH}refresh_tokn_file = "a"', 'has no key "refresh_tokn_file"'),
        (
            f"{URL}{OAUTH}refresh_token_env = 'A'".replace("https", "http"),
            "token_url: is not an address that secrets may be sent to",
        ),
        (f"{URL}[relay.oauth]\nrefresh_token_env = 'A'", "token_url is missing"),
        (f"{URL}[relay.oauth]\nrefresh_token_env = 'A'", "client_id is missing"),
        (f'{URL}source_address = "mail.example.com"', "is not an IP address"),
        (f'{URL}client_certificate = "none.pem"', 'client_certificate = "none.pem": there is no such file'),
        (f'{URL}client_key = "campaign.toml"', "the certificate it belongs to is not named"),
        (f'{URL}proxy = "socks5://ann:hunter2@proxy.example.com:1080"', "proxy: must not hold a password"),
        (f'{URL}proxy = "socks5://proxy.example.com"', "proxy: is not the URL of a proxy"),
        (f'{URL}proxy = "https://proxy.example.com:3128"', "proxy: is not the URL of a proxy"),
        (f'{URL}proxy = "socks5://proxy.example.com:1080/path"', "proxy: is not the URL of a proxy"),
        (f'{URL}client_key_password = "hunter2"', "a password does not belong in a file that others may read"),
    ],
)
def test_login_that_cannot_be_is_refused(make_shop: MakeShop, table: str, words: str) -> None:
    assert words in refusal(make_shop, table)


# Where the secrets are


def test_no_token_is_looked_for_where_a_password_is_used() -> None:
    assert find_tokens(token_relay(), environ={}) is None
    assert find_key_password(token_relay(), environ={}) is None


def test_token_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="whose access token this is, is not said"):
        find_tokens(Relay(Kind.SMTP, host="mail.example.com", port=587, token_from="env:TOKEN"), environ={})


def test_token_file_is_read_again_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    fetch = find_tokens(token_relay(token_from=write_secret(path, "first\n")), environ={})
    assert fetch is not None
    assert fetch().secret.reveal() == "first"
    write_secret(path, "second\n")
    token = fetch()
    assert (token.secret.reveal(), token.lifetime) == ("second", None)
    path.unlink()
    with pytest.raises(TokenError, match="the token file cannot be read") as caught:
        fetch()
    assert caught.value.kind is Breakage.NO_TOKEN


def test_token_comes_from_a_command() -> None:
    command = f"command:{sys.executable} -c \"print('ya29.abc')\""
    fetch = find_tokens(token_relay(token_from=command), environ={})
    assert fetch is not None
    assert fetch().secret.reveal() == "ya29.abc"


def test_token_command_that_fails_is_named() -> None:
    command = f"command:{sys.executable} -c \"print('hunter2'); exit(3)\""
    fetch = find_tokens(token_relay(token_from=command), environ={})
    assert fetch is not None
    with pytest.raises(TokenError, match="ended with exit code 3") as caught:
        fetch()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("missing", ["CLIENT", "REFRESH"])
def test_secret_of_a_grant_that_is_missing_is_named(missing: str) -> None:
    oauth = Oauth(
        "https://oauth.example.com", "shop", client_secret_from="env:CLIENT", refresh_token_from="env:REFRESH"
    )
    environ = {"CLIENT": "hunter2", "REFRESH": "hunter2"}
    assert find_tokens(token_relay(oauth=oauth), environ=environ) is not None
    del environ[missing]
    with pytest.raises(ConfigError, match=f"the environment variable {missing} is not set"):
        find_tokens(token_relay(oauth=oauth), environ=environ)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_new_refresh_token_is_kept_where_the_old_one_was(tmp_path: Path) -> None:
    path, link = tmp_path / "refresh", tmp_path / "link"
    write_secret(path, "old\n")
    link.symlink_to(path)
    oauth = Oauth("https://oauth.example.com", "shop", refresh_token_from=f"file:{link}")
    grant = find_tokens(token_relay(oauth=oauth), environ={})
    keep = grant._keep  # type: ignore[union-attr]
    keep(Secret("new"))
    assert path.read_text() == "new\n"
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [link, path]


def test_refresh_token_that_cannot_be_kept_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    place = write_secret(folder / "refresh", "old\n")
    oauth = Oauth("https://oauth.example.com", "shop", refresh_token_from=place)
    keep = find_tokens(token_relay(oauth=oauth), environ={})._keep  # type: ignore[union-attr]
    (folder / "refresh").unlink()
    folder.rmdir()
    keep(Secret("hunter2"))
    assert "the new refresh token cannot be written there" in caplog.text
    assert "hunter2" not in caplog.text


def test_key_password_keeps_its_blanks(tmp_path: Path) -> None:
    password = find_key_password(
        token_relay(key_password_from=write_secret(tmp_path / "key", " hunter2 \n")), environ={}
    )
    assert password is not None
    assert password.reveal() == " hunter2 "
