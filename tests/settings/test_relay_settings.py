"""Which relay a campaign goes through, and that no error repeats a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Dsn, Kind, Relay, Tls
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.settings import load
from tests.settings.conftest import SOUND, MakeShop

MESSAGE = SOUND.replace('relay = "sandbox:"\n', "")
URL = 'url = "smtp://ann@mail.example.com"'


def with_relay(table: str) -> str:
    """A sound campaign with this `[relay]`."""
    return f"{MESSAGE}[relay]\n{table}\n"


def relay_of(campaign: str = "shop", **overrides: object) -> Relay | None:
    return load(campaign, Overrides(**overrides)).relay  # type: ignore[arg-type]


def test_relay_is_none_when_no_one_names_one(make_shop: MakeShop) -> None:
    make_shop(MESSAGE)
    assert relay_of() is None


def test_relay_comes_from_the_environment_last(make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKMAIL_RELAY", "smtps://env.example.com")
    make_shop(MESSAGE)
    make_shop(MESSAGE.replace("[message]", 'relay = "smtps://file.example.com"\n[message]'), folder="other")
    assert relay_of() == Relay.parse("smtps://env.example.com")
    assert relay_of("other") == Relay.parse("smtps://file.example.com")
    assert relay_of("other", relay="smtps://flag.example.com") == Relay.parse("smtps://flag.example.com")


def test_relay_is_not_taken_from_an_empty_variable(make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKMAIL_RELAY", "")
    make_shop(MESSAGE)
    assert relay_of() is None


def test_relay_takes_its_whole_table(make_shop: MakeShop) -> None:
    make_shop(
        with_relay(
            'url = "smtp://mail.example.com:25"\nusername = "ann@example.com"\nconnections = 4\ntls = "opportunistic"\n'
            'ca_file = "ca.pem"\nehlo = "shop.example"\nkeyring = true'
        ),
        **{"ca.pem": ""},
    )
    assert relay_of() == Relay(
        Kind.SMTP,
        host="mail.example.com",
        port=25,
        username="ann@example.com",
        tls=Tls.OPPORTUNISTIC,
        connections=4,
        ca_file=str(Path("shop/ca.pem").absolute()),
        ehlo_name="shop.example",
        password_from="keyring:",
    )


def test_relay_table_completes_the_url_of_the_environment(make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKMAIL_RELAY", "smtp://mail.example.com")
    make_shop(with_relay('username = "ann"'))
    relay = relay_of()
    assert relay is not None
    assert str(relay) == "smtp://ann@mail.example.com:587"


@pytest.mark.parametrize(
    ("line", "password_from"),
    [
        ('password_env = "SHOP_PASSWORD"', "env:SHOP_PASSWORD"),
        ('password_command = "pass show shop"', "command:pass show shop"),
        ("keyring = true", "keyring:"),
        ("keyring = false", ""),
    ],
)
def test_relay_remembers_where_the_password_is(make_shop: MakeShop, line: str, password_from: str) -> None:
    make_shop(with_relay(f"{URL}\n{line}"))
    relay = relay_of()
    assert relay is not None
    assert relay.password_from == password_from
    assert "SHOP_PASSWORD" not in repr(relay)


def test_password_file_is_found_from_any_folder(make_shop: MakeShop) -> None:
    make_shop(with_relay(f'{URL}\npassword_file = "secret/password"'))
    relay = relay_of()
    assert relay is not None
    assert relay.password_from == f"file:{Path('shop/secret/password').absolute()}"


def test_another_relay_by_flag_never_learns_the_password(make_shop: MakeShop) -> None:
    make_shop(with_relay(f'{URL}\nusername = "ann"\npassword_env = "SHOP_PASSWORD"'))
    relay = relay_of(relay="smtp://elsewhere.example.com")
    assert relay is not None
    assert (relay.username, relay.password_from) == ("", "")


def test_rehearsal_passes_over_what_is_for_the_real_relay(make_shop: MakeShop) -> None:
    make_shop(with_relay('url = "sandbox:"\nusername = "ann"\ntls = "off"\nca_file = "not/there/yet.pem"'))
    assert relay_of() == Relay(Kind.SANDBOX)


def test_mail_folder_starts_from_where_it_was_said(make_shop: MakeShop) -> None:
    make_shop(with_relay('url = "maildir:out"'))
    assert relay_of() == Relay(Kind.MAILDIR, directory="shop/out")
    assert relay_of(relay="maildir:out") == Relay(Kind.MAILDIR, directory="out")


def test_certificates_of_a_flag_are_found_from_any_folder(shop: Path) -> None:
    Path("ca.pem").touch()
    relay = relay_of(relay="smtp://mail.example.com?ca_file=ca.pem")
    assert relay is not None
    assert relay.ca_file == str(Path("ca.pem").absolute())


@pytest.mark.parametrize(
    ("tables", "connections"),
    [
        (with_relay('url = "smtp://mail.example.com?connections=3"'), 3),
        (with_relay('url = "smtp://mail.example.com?connections=3"\nconnections = 4'), 4),
        (with_relay('url = "smtp://mail.example.com"') + "[sending]\nconnections = 5\n", 5),
        (with_relay('url = "smtp://mail.example.com"\nconnections = 5') + "[sending]\nconnections = 5\n", 5),
    ],
)
def test_connections_may_be_said_in_three_places(make_shop: MakeShop, tables: str, connections: int) -> None:
    make_shop(tables)
    relay = relay_of()
    assert relay is not None
    assert relay.connections == connections


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        pytest.param(
            'username = "ann"',
            "7: relay: has no url",
            'write url = "smtp://user@mail.example.com:587" below [relay]',
            id="no-url",
        ),
        pytest.param(
            'url = "smtp://ann:hunter2@mail.example.com"',
            "8: url: a relay URL must not hold a password: it would be seen in the process list and in shell history",
            "leave it out and set BULKMAIL_PASSWORD, or let bulkmail ask for it",
            id="password-in-url",
        ),
        pytest.param(
            f'{URL}\npassword = "hunter2"',
            '9: a password does not belong in a file that others may read: [relay] has no key "password"',
            'write password_env = "NAME", password_file, password_command or keyring = true',
            id="password-in-file",
        ),
        pytest.param(
            f"{URL}\npassword_env = 1234567",
            "9: password_env: expected a text in quotes",
            "",
            id="password-that-is-a-number",
        ),
        pytest.param(
            f'{URL}\npassword_env = "hunter 2!"',
            "9: password_env: is not the name of an environment variable",
            'write password_env = "SHOP_MAIL_PASSWORD"',
            id="password-in-place-of-its-variable",
        ),
        pytest.param(
            f'{URL}\npassword_command = " "',
            "9: password_command: is not a command",
            "fill it in, or leave password_command out",
            id="empty-command",
        ),
        pytest.param(
            f'{URL}\npassword_file = ""',
            "9: password_file: is not the name of a file",
            "fill it in, or leave password_file out",
            id="empty-file",
        ),
        pytest.param(
            f'{URL}\npassword_env = "A"\nkeyring = true',
            "10: keyring: the password cannot come from two places, password_env and keyring",
            "keep one of them",
            id="two-passwords",
        ),
        pytest.param(
            f'{URL}\ntls = "yes"',
            '9: tls = "yes": is not a kind of TLS',
            'write "required", "opportunistic" or "off"',
            id="tls",
        ),
        pytest.param(
            'url = "smtps://mail.example.com"\ntls = "off"',
            '9: tls = "off": does not go with this URL',
            'write the URL as "smtps://HOST" and leave tls out, or as "smtp://HOST" for STARTTLS',
            id="tls-off-on-smtps",
        ),
        pytest.param(
            f'{URL}\ntls = "implicit"',
            '9: tls = "implicit": does not go with this URL',
            'write the URL as "smtps://HOST" and leave tls out, or as "smtp://HOST" for STARTTLS',
            id="implicit-tls-on-smtp",
        ),
        pytest.param(
            f'{URL}\nca_file = "ca.pem"',
            '9: ca_file = "ca.pem": there is no such file in shop',
            "name a file of certificates in PEM form",
            id="certificates-missing",
        ),
        pytest.param(
            f'{URL}\nehlo = "shop example"',
            '9: ehlo = "shop example": is not a host name',
            'write for example "mail.example.com", or leave it out',
            id="ehlo",
        ),
        pytest.param(
            'url = "smtp://mail.example.com?ehlo=a,b"',
            '8: url: ehlo = "a,b": is not a host name',
            'write for example "mail.example.com", or leave it out',
            id="ehlo-in-url",
        ),
        pytest.param(
            f'{URL}\nusername = "ann\\r\\nx"',
            "9: username: the user name holds a control character",
            "type it again",
            id="username-with-line-end",
        ),
        pytest.param(
            f"{URL}\nconnections = 0", "9: connections = 0: out of range", "write a number from 1 to 1000", id="none"
        ),
        pytest.param(
            f"{URL}\nconnections = 3\n[sending]\nconnections = 4",
            "11: connections = 4: [relay] says 3",
            "keep one of them",
            id="connections-twice",
        ),
    ],
)
def test_load_refuses_a_relay(make_shop: MakeShop, table: str, message: str, hint: str) -> None:
    make_shop(with_relay(table))
    with pytest.raises(ConfigError) as caught:
        load("shop")
    assert (str(caught.value), caught.value.hint) == (f"shop/campaign.toml:{message}", hint)


def test_load_names_the_variable_that_a_bad_relay_came_from(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BULKMAIL_RELAY", "ann:hunter2@mail.example.com")
    make_shop(MESSAGE)
    with pytest.raises(ConfigError) as caught:
        load("shop")
    assert str(caught.value) == "BULKMAIL_RELAY: ann: is not a kind of relay"


@pytest.mark.parametrize(
    "url",
    [
        "smtp://ann:hunter2@mail.example.com",
        "smtp://ann:hunter2@[mail",
        "smtp://ann:hun/hunter2@mail.example.com",
        "smtp://ann:hunter2#x@mail.example.com",
        "smtp://ann:hunter2?x@mail.example.com",
        "smtp://ann:1/hunter2@mail.example.com",
        "smtp://ann:1#hunter2@mail.example.com",
        "smtp://ann:1?hunter2=3@mail.example.com",
        "smtp://ann:1?tls=hunter2@mail.example.com",
        "smtp://ann:1?auth=hunter2@mail.example.com",
        "smtp://ann:1?connections=hunter2@mail.example.com",
        "ann:hunter2@mail.example.com",
        "smtp//ann:hunter2@mail.example.com",
    ],
)
def test_no_error_repeats_what_may_be_a_password_in_the_url(shop: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("shop", Overrides(relay=url))
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_relay_takes_reports_and_tls_all_the_way(make_shop: MakeShop) -> None:
    make_shop(with_relay(f'{URL}\ndsn = ["delay", "failure"]\ndsn_return = "full"\nrequiretls = true'))
    relay = relay_of()
    assert relay is not None
    assert (relay.dsn, relay.requires_tls) == (Dsn(("failure", "delay"), returns_full=True), True)


def test_relay_table_overrides_the_reports_of_the_url(make_shop: MakeShop) -> None:
    make_shop(with_relay('url = "smtp://mail.example.com?dsn=failure&dsn_return=full&requiretls=yes"\ndsn = "never"'))
    relay = relay_of()
    assert relay is not None
    assert (relay.dsn, relay.requires_tls) == (Dsn((), returns_full=True), True)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        pytest.param(f'{URL}\ndsn = "always"', 'shop/campaign.toml:9: dsn = "always": names no events', id="dsn"),
        pytest.param(
            f'{URL}\ndsn = "failure"\ndsn_return = "some"', 'dsn_return = "some": is not what', id="dsn_return"
        ),
        pytest.param(f'{URL}\ndsn_return = "full"', "dsn_return: says nothing without dsn", id="dsn_return alone"),
        pytest.param('url = "smtp://h?tls=off"\nrequiretls = true', "requiretls: requiretls asks for TLS", id="clear"),
        pytest.param('url = "lmtp:///run/lmtp"\ntls = "required"', "tls: does not go with a Unix socket", id="tls"),
        pytest.param('url = "lmtp:///run/lmtp"\nrequiretls = true', "does not go with a Unix socket", id="socket"),
    ],
)
def test_relay_table_with_wishes_that_cannot_be(make_shop: MakeShop, table: str, words: str) -> None:
    make_shop(with_relay(table))
    with pytest.raises(ConfigError) as raised:
        relay_of()
    assert words in str(raised.value)
