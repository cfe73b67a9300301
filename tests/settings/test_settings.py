"""What a sound campaign comes to, from file, environment and flags."""

from __future__ import annotations

import io
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bulkmail.model.campaign import Attachment, Template
from bulkmail.model.errors import ConfigError
from bulkmail.model.pace import Durability, Pace
from bulkmail.model.rate import Rate
from bulkmail.model.relay import Kind, Relay
from bulkmail.model.retry import PROVIDER_BACKOFF, RELAY_BACKOFF, RetryPolicy
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.settings import ListSettings, load
from tests.settings.conftest import SOUND, MakeShop


def test_address_of_a_list_without_one_is_made_of_its_fields(make_shop: MakeShop) -> None:
    toml = SOUND.replace('"people.csv"', '{ file = "people.csv", address = "{{ login }}@x.example" }')
    settings = load(str(make_shop(toml)), environ={})
    assert settings.address is not None
    assert settings.address.text == "{{ login }}@x.example"
    assert settings.list_options == ListSettings(), "the name column is looked for as ever"
    assert settings.campaign.to is None


def test_addresses_of_a_row_stand_in_to_with_those_of_all(make_shop: MakeShop) -> None:
    toml = (
        SOUND.replace('"people.csv"', '{ file = "people.csv", address = "{{ a }}, {{ b }}" }') + 'to = "c@x.example"\n'
    )
    settings = load(str(make_shop(toml)), environ={})
    assert settings.campaign.to is not None
    assert settings.campaign.to.text == "{{ a }}, {{ b }}, c@x.example"


FULL = '''\
name = "Spring  news"

[relay]
url = "sandbox:"

[recipients]
file = "lists/people.csv"
address_column = "mail"
name_column = "who"
encoding = "cp1252"
sheet = 2
header_row = 3
keep_space = true
where = "city == 'Wien'"
suppress = ["stop.txt", "lists/left.txt"]
allow_duplicates = true

[message]
from = "{{ shop }} <hello@shop.example>"
reply_to = "Help <help@shop.example>"
to_name = "{{ who }}"
reverse_path = " bounces@bücher.example "
subject = """Hello
  {{ who }}"""
text = """
Dear {{ who }},
hello.
"""
html = { inline = "<p>Hello</p>" }
attachments = [
  "menu.pdf",
  { file = "menu.pdf", name = "Menü.pdf", type = "application/x-menu" },
]
[message.headers]
X-Shop = "{{ shop }}"
List-Id = "news.shop.example"

[sending]
rate = "50/s"
burst = 5
connections = 3
retry = "1m, 5m*2"
max_attempts = 2
max_age = "1d"
wait = "forever"
patience = 60
messages_per_session = 100
session_age = "2m"
durability = "power"
'''


def test_load_reads_every_key_of_a_full_campaign(make_shop: MakeShop) -> None:
    make_shop(FULL, **{"lists__people.csv": "mail\n", "stop.txt": "", "lists__left.txt": "", "menu.pdf": b"%PDF"})
    settings = load("shop")
    assert settings.name == "Spring news"
    assert settings.home == Path("shop")
    assert settings.is_folder
    assert settings.list_source == "shop/lists/people.csv"
    assert settings.list_options == ListSettings("mail", "who", "cp1252", "2", 3, keep_space=True)
    assert settings.where == "city == 'Wien'"
    assert settings.suppress == ("shop/stop.txt", "shop/lists/left.txt")
    assert settings.allow_duplicates
    assert settings.to == ()
    assert settings.relay == Relay(Kind.SANDBOX, connections=3)
    assert settings.pace == Pace(
        rate=Rate(50.0, 5),
        retry=RetryPolicy(schedule=(60.0, 300.0, 300.0), max_attempts=2, max_age=86400.0),
        wait=math.inf,
        patience=60.0,
        messages_per_session=100,
        session_age=120.0,
        durability=Durability.POWER,
    )
    campaign = settings.campaign
    assert campaign.name == "Spring news"
    assert campaign.sender == Template("campaign.toml: from", "{{ shop }} <hello@shop.example>")
    assert campaign.subject.text == "Hello\n  {{ who }}"
    assert campaign.text == Template("campaign.toml: text", "Dear {{ who }},\nhello.\n")
    assert campaign.html == Template("campaign.toml: html", "<p>Hello</p>")
    assert campaign.to_name == Template("campaign.toml: to_name", "{{ who }}")
    assert campaign.reply_to == Template("campaign.toml: reply_to", "Help <help@shop.example>")
    assert campaign.reverse_path == "bounces@xn--bcher-kva.example"
    assert campaign.headers == (
        ("X-Shop", Template("campaign.toml: headers.X-Shop", "{{ shop }}")),
        ("List-Id", Template("campaign.toml: headers.List-Id", "news.shop.example")),
    )
    assert campaign.attachments == (
        Attachment("menu.pdf", "application/pdf", b"%PDF"),
        Attachment("Menü.pdf", "application/x-menu", b"%PDF"),
    )


def test_load_fills_in_what_a_short_campaign_does_not_say(shop: Path) -> None:
    settings = load("shop")
    assert settings.name == "shop"
    assert settings.list_options == ListSettings()
    assert (settings.where, settings.suppress, settings.allow_duplicates) == ("", (), False)
    assert settings.pace == Pace()
    assert settings.campaign.text == Template("message.txt", "Hello {{ name }}\n")
    assert settings.campaign.html is None
    assert settings.campaign.reverse_path == ""


def test_load_takes_the_campaign_of_the_current_folder(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("shop")
    settings = load(None, Overrides(rate="1/s"))
    assert (settings.name, settings.home, settings.is_folder) == ("shop", Path("."), True)
    assert settings.list_source == "people.csv"


def test_load_names_a_campaign_after_its_own_file(shop: Path) -> None:
    Path("shop/autumn.toml").write_text(SOUND)
    assert load("shop/autumn.toml").name == "autumn"


def test_flags_come_before_the_file(make_shop: MakeShop) -> None:
    make_shop(
        FULL.replace('url = "sandbox:"', 'url = "smtp://ann@mail.example.com"\npassword_env = "SHOP"'),
        **{"lists__people.csv": "mail\n", "stop.txt": "", "lists__left.txt": "", "menu.pdf": b"%PDF"},
    )
    for name in ("other.csv", "other.html", "gone.txt"):
        Path(name).write_text(name)
    settings = load(
        "shop",
        Overrides(
            recipients="other.csv",
            sender="Other <o@shop.example>",
            subject="Other",
            text="Hello\nyou\n",
            html="other.html",
            attach=("gone.txt",),
            headers=("x-shop: other", "X-More:yes"),
            relay="smtp://other.example.com?tls=off",
            where="true",
            suppress=("gone.txt",),
            encoding="utf-8",
            address_column="address",
            sheet="People",
            header_row=1,
            rate="1/s",
            connections=7,
            retry="1s",
            wait="0",
            limit=9,
        ),
    )
    assert settings.list_source == "other.csv"
    assert settings.list_options == ListSettings("address", "who", "utf-8", "People", 1, keep_space=True)
    assert settings.where == "true"
    assert settings.suppress == ("shop/stop.txt", "shop/lists/left.txt", "gone.txt")
    assert settings.relay is not None
    assert (settings.relay.host, settings.relay.username, settings.relay.password_from) == ("other.example.com", "", "")
    assert settings.relay.connections == 7
    assert settings.pace.rate == Rate(1.0, 5)
    assert settings.pace.retry.schedule == (1.0,)
    assert (settings.pace.wait, settings.pace.limit) == (0.0, 9)
    campaign = settings.campaign
    assert campaign.sender == Template("--from", "Other <o@shop.example>")
    assert campaign.subject == Template("--subject", "Other")
    assert campaign.text == Template("--text", "Hello\nyou\n")
    assert campaign.html == Template("other.html", "other.html")
    assert [name for name, _ in campaign.headers] == ["x-shop", "List-Id", "X-More"]
    assert campaign.headers[0][1].text == "other"
    assert campaign.attachments[-1] == Attachment("gone.txt", "text/plain", b"gone.txt")


def test_to_takes_the_place_of_the_list(make_shop: MakeShop) -> None:
    make_shop(SOUND.replace('"people.csv"', '{ file = "gone.csv", where = "city" }'))
    settings = load("shop", Overrides(to=("Ann <ann@example.com>", "bob@example.com")))
    assert settings.to == ("Ann <ann@example.com>", "bob@example.com")
    assert (settings.list_source, settings.where) == ("", "")


def test_allow_duplicates_by_flag(shop: Path) -> None:
    assert load("shop", Overrides(allow_duplicates=True)).allow_duplicates


def test_load_needs_no_list_when_the_caller_brings_the_people(make_shop: MakeShop) -> None:
    make_shop(SOUND.replace('recipients = "people.csv"\n', ""))
    assert load("shop", needs_list=False).list_source == ""


def test_flags_alone_make_a_campaign(shop: Path) -> None:
    settings = load(
        None,
        Overrides(
            sender="a@b.example", subject="Hi", html="shop/message.txt", recipients="-", suppress=("shop/message.txt",)
        ),
    )
    assert (settings.name, settings.home, settings.is_folder) == ("stdin", Path("."), False)
    assert settings.list_source == "-"
    assert settings.campaign.html == Template("shop/message.txt", "Hello {{ name }}\n")
    assert settings.suppress == ("shop/message.txt",)
    assert settings.relay is None


def test_message_is_read_from_standard_input(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfHello\r\nyou\r")))
    settings = load("shop", Overrides(text="-"))
    assert settings.campaign.text == Template("<stdin>", "Hello\nyou\n")


def test_load_says_that_there_is_no_standard_input(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigError, match="there is no standard input") as caught:
        load("shop", Overrides(text="-"))
    assert (str(caught.value), caught.value.hint) == ('--text "-": there is no standard input', "name a file")


def test_flags_may_name_a_pipe(shop: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"Hello from a pipe\n")
    os.close(writing)
    try:
        settings = load("shop", Overrides(text=f"/dev/fd/{reading}"))
    finally:
        os.close(reading)
    assert settings.campaign.text is not None
    assert settings.campaign.text.text == "Hello from a pipe\n"


def test_message_is_the_same_with_any_line_ends_and_mark(make_shop: MakeShop) -> None:
    make_shop(folder="unix", **{"message.txt": "Hello\nyou\n"})
    make_shop(("\ufeff" + SOUND).replace("\n", "\r\n"), folder="windows", **{"message.txt": "\ufeffHello\r\nyou\r\n"})
    assert load("unix").campaign.fingerprint == load("windows").campaign.fingerprint


@pytest.mark.parametrize(
    ("filename", "content_type"),
    [
        ("a.pdf", "application/pdf"),
        ("A.PDF", "application/pdf"),
        ("a.png", "image/png"),
        ("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a.ics", "text/calendar"),
        ("a.csv.gz", "application/gzip"),
        ("a.bz2", "application/x-bzip2"),
        ("a.unheard-of", "application/octet-stream"),
        ("noname", "application/octet-stream"),
        ("data:text,x.pdf", "application/pdf"),
    ],
)
def test_attachment_gets_the_type_of_its_name(make_shop: MakeShop, filename: str, content_type: str) -> None:
    make_shop(f"{SOUND}attachments = ['{filename}']\n", **{filename: b"\0"})
    assert load("shop").campaign.attachments == (Attachment(filename, content_type, b"\0"),)


def test_attachment_is_found_in_the_home_folder(make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    make_shop(f"{SOUND}attachments = ['~/menu.pdf']\n")
    Path("home").mkdir()
    Path("home/menu.pdf").write_bytes(b"%PDF")
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    assert load("shop").campaign.attachments[0].content == b"%PDF"


def test_schedule_is_kept_to_its_end(make_shop: MakeShop) -> None:
    make_shop(f'{SOUND}[sending]\nretry = "1d*30"\n')
    retry = load("shop").pace.retry
    assert retry.max_attempts == 31
    assert retry.delay(30, age=29.5 * 86400, jitter=0.5) == 86400


def test_schedules_of_relays_and_providers_stand_beside_that_of_recipients(make_shop: MakeShop) -> None:
    written = '[sending.retry]\nrecipient = "1m, 1h"\nrelay = "30s, 1m, 5m*3"\nmailbox_provider = "5m, 1h"\n'
    make_shop(f"{SOUND}{written}")
    pace = load("shop").pace
    assert pace.retry.schedule == (60.0, 3600.0)
    assert pace.relay_backoff == replace(RELAY_BACKOFF, schedule=(30.0, 60.0, 300.0, 300.0, 300.0))
    assert pace.provider_backoff == replace(PROVIDER_BACKOFF, schedule=(300.0, 3600.0))
    assert pace.patience == 990.0  # to the end of what is written
    assert load("shop", Overrides(retry="5s")).pace.retry.schedule == (5.0,)
    Path("shop/campaign.toml").write_text(f"{SOUND}[sending]\npatience = 60\n{written}")
    assert load("shop").pace.patience == 60.0


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        (
            'retry = { mailbox_provider = "0s" }',
            'mailbox_provider = "0s": each wait must be a second at least and a day at most',
            'write "30s, 1m, 5m*3"',
        ),
        ('retry = { relay = "2d" }', 'relay = "2d": each wait must be a second at least and a day at most', ""),
        (
            "retry = 5",
            "retry = 5: expected a schedule in quotes, or a table of recipient, mailbox_provider and relay",
            "",
        ),
        (
            'retry = { mailbox_providers = "1m" }',
            '[sending.retry] has no key "mailbox_providers"',
            'did you mean "mailbox_provider"?',
        ),
        ("burst = 5", "burst = 5: has no effect without a rate", 'write rate = "50/s" as well'),
        ('rate = "1/s"\nburst = 0', "burst = 0: must be 1 or more", "write a whole number from 1"),
        ("rate = 5", "rate = \"5\": cannot read the rate '5'", 'write "50/s", "3000/h" or "1 per 2s"'),
        ('retry = "soon"', "retry = \"soon\": cannot read the duration 'soon'", 'write "30s", "10m", "2h" or "5d"'),
        ("max_attempts = 0", "max_attempts = 0: must be 1 or more", "write a whole number from 1"),
        ('max_age = "0"', 'max_age = "0": must be longer than nothing', 'write "30s", "10m", "2h" or "5d"'),
        ("wait = -1", "wait = \"-1\": cannot read the duration '-1'", 'write "10m", "forever" or "0"'),
        ("wait = inf", "wait = \"inf\": cannot read the duration 'inf'", 'write "10m", "forever" or "0"'),
        ("patience = true", "patience = true: expected a text in quotes", ""),
        ("session_age = 0", 'session_age = "0": must be longer than nothing', 'write "30s", "10m", "2h" or "5d"'),
        ("messages_per_session = 0", "messages_per_session = 0: must be 1 or more", "write a whole number from 1"),
        (
            'durability = "disk"',
            'durability = "disk": is not a kind of durability',
            'write "process" (survives kill -9) or "power" (survives a power cut)',
        ),
    ],
)
def test_load_refuses_a_pace_that_is_none(make_shop: MakeShop, line: str, message: str, hint: str) -> None:
    make_shop(f"{SOUND}[sending]\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load("shop")
    number = len(f"{SOUND}[sending]\n{line}".splitlines())
    assert str(caught.value) == f"shop/campaign.toml:{number}: {message}"
    assert caught.value.hint == hint or not hint
