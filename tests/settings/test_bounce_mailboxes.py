"""`[[bounces]]`: which mailboxes are read when none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkmail.mailbox.imap import Mailbox
from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import SecretKind, SecretSource
from bulkmail.settings.user_tables import BounceMailbox, load_mailboxes


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "bulkmail"
    folder.mkdir()
    return folder


def load(home: Path, text: str) -> tuple[BounceMailbox, ...]:
    (home / "config.toml").write_text(text, encoding="utf-8")
    return load_mailboxes(environ={"XDG_CONFIG_HOME": str(home.parent), "HOME": str(home), "USERPROFILE": str(home)})


def test_mailboxes_are_read_with_what_belongs_to_each(home: Path) -> None:
    found = load(
        home,
        """
        [[bounces]]
        imap = "imaps://b%40shop.example@imap.shop.example"
        folder = "Bounces"
        then = "move=Done"
        password_file = "secret"
        [[bounces]]
        maildir = "Maildir"
        [[bounces]]
        mbox = "/var/mail/bounces"
        """,
    )
    assert found == (
        BounceMailbox(
            imap=Mailbox("imap.shop.example", 993, "b@shop.example"),
            folder="Bounces",
            then="move=Done",
            password_from=SecretSource(SecretKind.FILE, str(home / "secret")),
        ),
        BounceMailbox(maildir=home / "Maildir"),
        BounceMailbox(mbox=Path("/var/mail/bounces")),
    )


def test_no_settings_are_no_mailboxes(home: Path) -> None:
    assert load(home, "") == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("folder = 'x'", "config.toml:2: bounces: names no mailbox"),
        ("maildir = 'x'\nmbox = 'y'", "names several mailboxes, maildir and mbox"),
        ("maildir = 'x'\npassword_env = 'P'", "a password is for imap"),
        (
            "imap = 'imaps://u@h.example'\npassword_env = 'P'\npassword_file = 'f'",
            "the password cannot come from two places",
        ),
        ("imap = 'imaps://u:geheim@h.example'", "config.toml:3: imap: a password does not belong"),
        ("imap = 'pop3://u@h.example'", "is no IMAP address"),
        ("imapp = 'imaps://u@h.example'", "imapp"),
    ],
)
def test_fault_is_reported_with_its_place_and_without_a_secret(home: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(home, f"\n[[bounces]]\n{text}\n")
    assert why in str(refused.value)
    assert "geheim" not in f"{refused.value}{refused.value.hint}"
