"""Whatever stands in a campaign file: it is loaded, or refused in words, and secrets stay secret."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bulkmail.model.errors import BulkmailError
from bulkmail.model.recipient import has_control
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.settings import Settings, load
from tests.settings.conftest import SOUND

TABLES = {
    "": ["name", "relay", "recipients", "message", "sending", "data"],
    "relay": [
        "url", "username", "password_env", "password_file", "password_command", "keyring", "connections", "tls",
        "ca_file", "ehlo", "name", "weight", "priority", "rate", "messages_per_session", "session_age", "senders",
        "recipients", "quota",
    ],
    "recipients": [
        "file", "address", "address_column", "name_column", "encoding", "sheet", "header_row", "keep_space", "where",
        "suppress", "allow_duplicates", "allow_empty", "max_invalid",
    ],
    "message": [
        "from", "reply_to", "to_name", "reverse_path", "subject", "text", "html", "headers", "attachments", "to", "cc",
        "bcc", "sender", "list_id", "feedback_id", "unsubscribe", "dkim", "locale", "timezone", "variants",
    ],
    "message.unsubscribe": ["https", "mailto", "key_file", "key_env", "key_command"],
    "message.dkim": ["domain", "selector", "preset", "key_file", "key_env", "key_command"],
    "sending": [
        "rate", "burst", "connections", "retry", "max_attempts", "max_age", "wait", "patience",
        "messages_per_session", "session_age", "durability", "processes",
    ],
    "sending.retry": ["recipient", "mailbox_provider", "relay"],
}  # fmt: skip
KEYS = [key for keys in TABLES.values() for key in keys]
WORDS = st.sampled_from(
    [
        '"people.csv"', '"message.txt"', '"."', '".."', '"-"', '""', '" "', '"\\u0000"', '"/dev/zero"', '"~"', '"~x/y"',
        '"a@b.example"', '"{{ name }}"', '"{% include \'message.txt\' %}"', '"{% for %}"', '"sandbox:"', '"null:"',
        '"smtp://ann@mail.example.com"', '"smtps://[::1]:1"', '"smtp://a:b@c"', '"1/s"', '"1m, 5m*2"', '"10m"',
        '"forever"', '"power"', '"utf-8"', '"punycode"', '"off"', "0", "1", "-1", "5", "1e400", "nan", "true", "false",
        "[]", "{}", "2026-01-01", '["message.txt"]', '{ inline = "x" }', '{ file = "message.txt" }', "'''\nx\n'''",
        '"https://x.example/{token}"', '"b+{verp}@x.example"', '"ses"', '["a@x.example"]', '{ domain = "x" }',
        '"gmail"', '"ses:x"', '"de_AT"', '"Europe/Vienna"', '"message-{{ x }}.txt"', "{ a = 1, b = 2 }", '["a", "b"]',
        '["*", "a.example"]', '"*.example"', '["smtp://a.example", "smtp://b.example?weight=2"]',
        '[{ file = "message.txt", name = "x", type = "a/b" }]', '{ X-Y = "z", "\\n" = "z" }', "9" * 5000,
    ]
)  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=20)
VALUES = st.one_of(WORDS, TEXTS.map(lambda text: f'"{text}"'))
LINES = st.one_of(
    st.tuples(st.sampled_from(KEYS), VALUES).map(" = ".join),
    st.sampled_from(
        [f"[{name}]" for name in TABLES if name]
        + ["[[relay]]", "[message.headers]", "[[message.attachments]]", "[[message.dkim]]"]
    ),
    st.text(max_size=20),
)


@st.composite
def shaped(draw: st.DrawFn) -> str:
    """A campaign whose keys are in their tables, be their values what they may."""
    lines = []
    for table, keys in TABLES.items():
        lines += [f"[{table}]"] if table else []
        chosen = draw(st.lists(st.sampled_from(keys), unique=True, max_size=len(keys)))
        lines += [f"{key} = {draw(VALUES)}" for key in chosen if table or key not in TABLES or draw(st.booleans())]
    return "\n".join(lines)


@pytest.fixture(autouse=True, scope="module")
def here() -> object:
    """A list and a message in the current folder, for all examples."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("people.csv").write_text("email\nann@example.com\n")
        Path("message.txt").write_text("Hello\n")
        yield
        os.chdir(before)


def load_or_refuse(toml: str | bytes) -> Settings | None:
    """The settings; None when they are refused in words."""
    Path("campaign.toml").write_bytes(toml if isinstance(toml, bytes) else toml.encode("utf-8", "surrogatepass"))
    try:
        return load("campaign.toml", environ={})
    except BulkmailError as error:
        assert str(error)
        assert not any(map(has_control, f"{error}\n{error.hint}".split("\n")))
        return None


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.one_of(st.text(), st.lists(LINES, max_size=12).map("\n".join), shaped(), st.binary(max_size=200)))
@example('message = 1\n[[relay]]\nrelay = {}\n"" = 1')
@example('recipients = { suppress = [[], {}, "x"], file = 1 }\nmessage = { headers = { a = {} } }')
@example('"\\u0007" = 1')
@example('message = { text = "x\\u0007/y", html = "\\u0007/{% if %}", attachments = ["\\u0007/"] }')
@example(b"\xff\xfe")
def test_load_takes_or_refuses_any_file(toml: str | bytes) -> None:
    load_or_refuse(toml)


def test_load_takes_the_sound_file_of_these_examples() -> None:
    assert load_or_refuse(SOUND) is not None


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="'\"\\"), min_size=6, max_size=20),
    st.sampled_from(
        [
            "relay = \"smtp://ann:{}@mail.example.com\"",
            "relay = \"smtp://ann@mail.example.com?password={}\"",
            "[relay]\npassword = \"{}\"",
            "[relay]\nurl = \"smtp://ann@mail.example.com\"\npasswort = \"{}\"",
            "[relay]\nurl = \"smtp://ann@mail.example.com\"\npassword_env = [\"{}\"]",
            "[relay]\nurl = \"smtp://ann@mail.example.com\"\npassword_file = {{ x = \"{}\" }}",
            "[relay]\nurl = \"smtp://ann@mail.example.com\"\npassword_command = \"pass {}\"\nkeyring = true",
        ]
    ),
)  # fmt: skip
def test_no_refusal_and_no_repr_shows_a_password(secret: str, shape: str) -> None:
    secret = f"~{secret}~"
    Path("campaign.toml").write_text(f"{shape.format(secret)}\n", encoding="utf-8")
    with pytest.raises(BulkmailError) as caught:
        load("campaign.toml", environ={})
    assert secret not in f"{caught.value} {caught.value.hint}"


@pytest.mark.slow
@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="'\"\\"), min_size=6, max_size=20))
def test_no_repr_of_settings_shows_a_command(secret: str) -> None:
    relay = f'[relay]\nurl = "smtp://ann@mail.example.com"\npassword_command = "pass ~{secret}~"\n'
    loaded = load_or_refuse(SOUND.replace('relay = "sandbox:"\n', "") + relay)
    assert loaded is not None
    assert f"~{secret}~" not in repr(loaded)


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.builds(
        Overrides,
        recipients=st.one_of(st.none(), st.text(max_size=9), st.just("people.csv")),
        to=st.lists(st.one_of(st.text(max_size=9), st.just("a@b.example")), max_size=2).map(tuple),
        sender=st.one_of(st.none(), st.text(max_size=9), st.just("a@b.example")),
        subject=st.one_of(st.none(), st.text(max_size=9)),
        text=st.one_of(st.none(), st.text(max_size=9).filter(lambda text: text != "-"), st.just("message.txt")),
        html=st.one_of(st.none(), st.text(max_size=9).filter(lambda text: text != "-"), st.just("message.txt")),
        attach=st.lists(st.text(max_size=9), max_size=2).map(tuple),
        headers=st.lists(st.text(max_size=9), max_size=2).map(tuple),
        relay=st.one_of(st.none(), st.text(max_size=9), st.just("sandbox:")),
        where=st.one_of(st.none(), st.text(max_size=9)),
        suppress=st.lists(st.text(max_size=9), max_size=2).map(tuple),
        encoding=st.one_of(st.none(), st.text(max_size=9)),
        rate=st.one_of(st.none(), st.text(max_size=9)),
        connections=st.one_of(st.none(), st.integers()),
        retry=st.one_of(st.none(), st.text(max_size=9)),
        wait=st.one_of(st.none(), st.text(max_size=9)),
        limit=st.one_of(st.none(), st.integers()),
    )
)
@example(Overrides(sender="a@b.example", subject="x", text="message.txt", to=("a@b.example",)))
def test_load_takes_or_refuses_any_flags(overrides: Overrides) -> None:
    Path("campaign.toml").unlink(missing_ok=True)
    try:
        assert load(None, overrides, environ={}).campaign.sender.text
    except BulkmailError as error:
        assert str(error)
