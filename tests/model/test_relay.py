"""Relay URLs: every form, the exact errors, and no password taken, shown or kept."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import EXAMPLES, Dsn, Kind, Relay, Secret, Tls, parse_connections


def smtp(**changes: object) -> Relay:
    return Relay(**{"kind": Kind.SMTP, "host": "mail.example.com", "port": 587, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "relay"),
    [
        ("smtp://mail.example.com", smtp()),
        ("smtp://mail.example.com/", smtp()),
        ("  smtp://mail.example.com\n", smtp()),
        ("SMTP://Mail.Example.COM", smtp()),
        ("smtp://mail.example.com:25", smtp(port=25)),
        ("smtp://mail.example.com:65535", smtp(port=65535)),
        ("smtp://ann@mail.example.com", smtp(username="ann")),
        ("smtp://ann@shop.example@mail.example.com", smtp(username="ann@shop.example")),
        ("smtp://ann%40shop.example@mail.example.com", smtp(username="ann@shop.example")),
        ("smtp://J%C3%B6rg@mail.example.com", smtp(username="Jörg")),
        ("smtp://127.0.0.1:2525", smtp(host="127.0.0.1", port=2525)),
        ("smtp://[::1]:2525", smtp(host="::1", port=2525)),
        ("smtps://mail.example.com", smtp(port=465, tls=Tls.IMPLICIT)),
        ("smtps://ann@mail.example.com:4650", smtp(port=4650, username="ann", tls=Tls.IMPLICIT)),
        ("smtp://mail.example.com?tls=required", smtp(tls=Tls.REQUIRED)),
        ("smtp://mail.example.com?tls=opportunistic", smtp(tls=Tls.OPPORTUNISTIC)),
        ("smtp://mail.example.com?tls=off", smtp(tls=Tls.OFF)),
        ("smtp://mail.example.com?connections=1", smtp(connections=1)),
        ("smtp://mail.example.com/?connections=1000", smtp(connections=1000)),
        ("smtp://mail.example.com?ca_file=/etc/my%20ca.pem", smtp(ca_file="/etc/my ca.pem")),
        ("smtp://mail.example.com?ca_file=a@b.pem", smtp(ca_file="a@b.pem")),
        ("smtp://mail.example.com?ehlo=client.example.org", smtp(ehlo_name="client.example.org")),
        ("smtp://mail.example.com?auth=plaintext", smtp(plaintext_login=True)),
        ("smtp://mail.example.com?tls=off&connections=3", smtp(tls=Tls.OFF, connections=3)),
        ("sandbox:", Relay(Kind.SANDBOX)),
        ("sandbox:kept", Relay(Kind.SANDBOX, directory="kept")),
        ("sandbox://kept", Relay(Kind.SANDBOX, directory="kept")),
        ("maildir:out", Relay(Kind.MAILDIR, directory="out")),
        ("maildir:///srv/out", Relay(Kind.MAILDIR, directory="/srv/out")),
        ("maildir:/srv/my%20mail", Relay(Kind.MAILDIR, directory="/srv/my mail")),
        ("null:", Relay(Kind.NULL)),
        ("Null:", Relay(Kind.NULL)),
    ],
)
def test_relay_is_read_from_its_url(url: str, relay: Relay) -> None:
    assert Relay.parse(url) == relay


def test_relay_examples_are_all_read() -> None:
    written = EXAMPLES.removeprefix("write ").replace(" or ", ", ").split(", ")
    assert [Relay.parse(url.strip('"')).kind for url in written] == [
        Kind.SMTP,
        Kind.SMTP,
        Kind.SANDBOX,
        Kind.MAILDIR,
        Kind.NULL,
    ]


def test_relay_without_a_server_has_none() -> None:
    relay = Relay.parse("null:")
    assert (relay.host, relay.port, relay.username, relay.directory) == ("", 0, "", "")
    assert (relay.ca_file, relay.ehlo_name, relay.password_from) == ("", "", "")


def test_kinds_and_tls_are_written_as_in_urls() -> None:
    assert [kind.value for kind in Kind] == ["smtp", "sandbox", "maildir", "null"]
    assert [tls.value for tls in Tls] == ["implicit", "required", "opportunistic", "off"]


def test_relay_by_default_requires_tls_and_opens_ten_sessions() -> None:
    relay = Relay.parse("smtp://mail.example.com")
    assert relay.tls is Tls.REQUIRED
    assert relay.connections == 10
    assert not relay.plaintext_login


NO_PASSWORD = "a relay URL must not hold a password: it would be seen in the process list and in shell history"
SET_PASSWORD = "leave it out and set BULKMAIL_PASSWORD, or let bulkmail ask for it"
OPTIONS = (
    "known are auth, ca_file, client_certificate, client_key, connections, depth, dsn, dsn_return, ehlo, requiretls, "
    "source, tls"
)

SOCKET_OPTIONS = "known are auth, connections, depth, dsn, dsn_return, ehlo"
NEEDS_PATH = "needs the whole path of a Unix socket, of at most 107 bytes"
THREE_SLASHES = 'write three slashes, as in "lmtp:///run/dovecot/lmtp"'
ONE_OF_DSN = 'write one or several of success, failure and delay, or "never" for no bounces'
TLS_ALL_THE_WAY = "requiretls asks for TLS all the way, and this relay may be reached without"


@pytest.mark.parametrize(
    ("url", "tls", "place"),
    [
        ("lmtp://localhost", Tls.OFF, "localhost port 24"),
        ("lmtp://127.0.0.1:2424", Tls.OFF, "127.0.0.1 port 2424"),
        ("lmtp://[::1]", Tls.OFF, "::1 port 24"),
        ("lmtp://127.evil.example", Tls.REQUIRED, "127.evil.example port 24"),
        ("lmtp://mail.example.com", Tls.REQUIRED, "mail.example.com port 24"),
        ("lmtp://localhost?tls=required", Tls.REQUIRED, "localhost port 24"),
        ("lmtp:///run/dovecot/lmtp", Tls.OFF, "the socket /run/dovecot/lmtp"),
        ("LMTP+unix:///run/a%20b", Tls.OFF, "the socket /run/a b"),
    ],
)
def test_lmtp_needs_tls_only_off_this_machine(url: str, tls: Tls, place: str) -> None:
    relay = Relay.parse(url)
    assert (relay.is_lmtp, relay.tls, relay.place) == (True, tls, place)


def test_socket_of_an_smtp_server() -> None:
    relay = Relay.parse("smtp+unix:///run/mta?connections=3&dsn=delay,failure&dsn_return=full&auth=plaintext")
    assert (relay.is_lmtp, relay.socket_path, relay.connections) == (False, "/run/mta", 3)
    assert relay.dsn == Dsn(("failure", "delay"), returns_full=True)
    assert relay.plaintext_login
    assert str(relay) == "smtp+unix:///run/mta"


@pytest.mark.parametrize(
    ("url", "message", "hint"),
    [
        ("", "'' is not a relay URL", EXAMPLES),
        ("mail.example.com", "'mail.example.com' is not a relay URL", EXAMPLES),
        ("http://mail.example.com", "http: is not a kind of relay", EXAMPLES),
        ("mail.example.com:25", "mail.example.com: is not a kind of relay", EXAMPLES),
        ("maildir:", "maildir: needs a folder", 'write "maildir:out"'),
        ("maildir://", "maildir: needs a folder", 'write "maildir:out"'),
        ("smtp:", "the relay URL names no host", EXAMPLES),
        ("smtp:mail.example.com", "the relay URL names no host", EXAMPLES),
        ("smtp://", "the relay URL names no host", EXAMPLES),
        ("smtp://:25", "the relay URL names no host", EXAMPLES),
        ("smtp://ann@", "the relay URL names no host", EXAMPLES),
        ("smtp://host:0", "cannot read 'host:0' as the relay's host and port", EXAMPLES),
        ("smtp://ann@host:ten", "cannot read 'host:ten' as the relay's host and port", EXAMPLES),
        ("smtp://host:65536", "cannot read 'host:65536' as the relay's host and port", EXAMPLES),
        ("smtp://[::1", "cannot read '[::1' as the relay's host and port", EXAMPLES),
        ("smtp://host/path", "the relay URL has '/path' after the host", EXAMPLES),
        ("smtp://host#part", "the relay URL has '#' after the host", EXAMPLES),
        ("smtp://host?colour=red", "a relay URL has no option 'colour'", OPTIONS),
        ("smtp://host?colour", "a relay URL has no option 'colour'", OPTIONS),
        ("smtp://host?tls=", "tls='' in the relay URL", "write tls=required, opportunistic or off"),
        ("smtp://host?tls=maybe", "tls='maybe' in the relay URL", "write tls=required, opportunistic or off"),
        ("smtp://host?tls=implicit", "tls='implicit' in the relay URL", "write tls=required, opportunistic or off"),
        (
            "smtps://host?tls=off",
            "smtps: has TLS from the first byte; tls= does not go with it",
            EXAMPLES,
        ),
        ("smtp://host?auth=login", "auth='login' in the relay URL", 'the only value is "plaintext"'),
        ("smtp://host?connections=0", "connections='0'", "write a number from 1 to 1000"),
        ("smtp://host?ehlo=a%0d%0aMAIL", "the relay URL has a control character in it", EXAMPLES),
        ("smtp://an\x00n@host", "the relay URL has a control character in it", EXAMPLES),
        ("smtp://ho\nst", "the relay URL has a control character in it", EXAMPLES),
        ("smtp://ann:hunter2@host", NO_PASSWORD, SET_PASSWORD),
        ("smtps://ann:@host", NO_PASSWORD, SET_PASSWORD),
        ("lmtp+unix://ann:hunter2@/run/lmtp", NO_PASSWORD, SET_PASSWORD),
        ("lmtp+unix://ann@/run/lmtp", "a Unix socket's URL has no user name", EXAMPLES),
        ("lmtp+unix://run/lmtp", "lmtp+unix: " + NEEDS_PATH, THREE_SLASHES),
        ("smtp+unix:///", "smtp+unix: " + NEEDS_PATH, THREE_SLASHES),
        ("lmtp:///run/" + "x" * 103, "lmtp: " + NEEDS_PATH, THREE_SLASHES),
        ("lmtp:///run/lmtp?tls=off", "tls= does not go with a Unix socket", "leave it out"),
        ("lmtp:///run/lmtp?colour=red", "a relay URL has no option 'colour'", SOCKET_OPTIONS),
        ("smtp://host?dsn=always", "dsn='always'", ONE_OF_DSN),
        ("smtp://host?dsn=never,failure", "dsn='never,failure'", ONE_OF_DSN),
        ("smtp://host?dsn=", "dsn=''", ONE_OF_DSN),
        ("smtp://host?dsn=failure&dsn_return=all", "dsn_return='all'", "write headers or full"),
        ("smtp://host?dsn_return=full", "dsn_return= says nothing without dsn=", "add dsn=failure, or leave it out"),
        ("smtp://host?requiretls=1", "requiretls='1'", "write yes or no"),
        ("smtp://host?requiretls=yes&tls=off", TLS_ALL_THE_WAY, "leave tls= out of the relay URL, or write smtps://"),
        ("lmtp://localhost?requiretls=yes", TLS_ALL_THE_WAY, "leave tls= out of the relay URL, or write smtps://"),
        ("smtp://:hunter2@host", NO_PASSWORD, SET_PASSWORD),
    ],
)
def test_relay_url_error_says_what_is_wrong_and_what_to_write(url: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Relay.parse(url)
    assert str(caught.value) == message
    assert caught.value.hint == hint


@given(st.text(st.characters(exclude_characters="/?#@", exclude_categories=["C"]), max_size=8), st.sampled_from("/?#"))
@example("12", "?")
@example("", "/")
@example("\u2100", "#")
def test_relay_url_error_repeats_no_piece_of_a_password(start: str, special: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Relay.parse(f"smtp://ann:{start}{special}hunter2@host")
    assert "hunter2" not in str(caught.value) + caught.value.hint
    assert caught.value.__cause__ is None


@given(st.text(max_size=80))
def test_relay_url_is_read_or_refused_whatever_it_is(rest: str) -> None:
    for scheme in ("", "smtp://", "smtps://ann@", "lmtp://", "lmtp:///", "smtp+unix:///", "sandbox:", "maildir:"):
        try:
            relay = Relay.parse(scheme + rest)
        except ConfigError:
            continue
        assert not any(ord(character) < 32 for character in f"{relay.host}{relay.username}{relay.ehlo_name}")
        if relay.kind is Kind.SMTP:
            has_host = bool(relay.host) and 1 <= relay.port <= 65535
            assert has_host != relay.socket_path.startswith("/")
            assert str(relay) and not any(ord(character) < 32 for character in str(relay) + relay.place + relay.peer)


@pytest.mark.parametrize(
    ("relay", "shown"),
    [
        (smtp(), "smtp://mail.example.com:587"),
        (smtp(username="ann", port=25), "smtp://ann@mail.example.com:25"),
        (smtp(tls=Tls.IMPLICIT, port=465), "smtps://mail.example.com:465"),
        (smtp(host="::1"), "smtp://[::1]:587"),
        (Relay(Kind.SANDBOX), "sandbox:"),
        (Relay(Kind.MAILDIR, directory="out"), "maildir:out"),
        (Relay(Kind.NULL), "null:"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_relay_shows_itself_as_a_url(relay: Relay, shown: str) -> None:
    assert str(relay) == shown
    assert Relay.parse(shown) == relay


def test_relay_keeps_the_source_of_its_password_out_of_its_repr() -> None:
    assert "vault" not in repr(smtp(password_from="command:vault read mail"))


@pytest.mark.parametrize(
    ("kind", "is_rehearsal"),
    [(Kind.SMTP, False), (Kind.SANDBOX, True), (Kind.MAILDIR, True), (Kind.NULL, True)],
    ids=lambda value: value.value if isinstance(value, Kind) else "",
)
def test_kind_is_a_rehearsal_unless_someone_is_written_to(kind: Kind, is_rehearsal: bool) -> None:
    assert kind.is_rehearsal is is_rehearsal


@pytest.mark.parametrize("text", ["1", "10", "1000", "007"])
def test_connections_are_a_number_from_1_to_1000(text: str) -> None:
    assert parse_connections(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "0", "1001", "-1", "1.5", "ten", "٣", "²", " 5", pytest.param("9" * 5000, id="5000-nines")]
)
def test_connections_refuse_anything_else(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_connections(text)
    assert str(caught.value) == f"connections={text!r}"
    assert caught.value.hint == "write a number from 1 to 1000"


def test_secret_shows_itself_to_no_one() -> None:
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    assert [str(secret), repr(secret), f"{secret}", f"{[secret]}"] == ["Secret(***)"] * 3 + ["[Secret(***)]"]
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize("carry_off", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_secret_is_not_copied_or_stored(carry_off: object) -> None:
    with pytest.raises(TypeError, match="a secret is not copied or stored"):
        carry_off(Secret("hunter2"))  # type: ignore[operator]


@pytest.mark.parametrize(("text", "depth"), [("", 8), ("?depth=1", 1), ("?depth=64", 64)])
def test_depth_is_read(text: str, depth: int) -> None:
    assert Relay.parse(f"smtp://host{text}").depth == depth


@pytest.mark.parametrize("text", ["0", "65", "-1", "x", "٣", "100000000", ""])
def test_depth_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="depth="):
        Relay.parse(f"smtp://host?depth={text}")
