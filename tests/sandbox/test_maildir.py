"""Mail kept as files, and the reading of it."""

from __future__ import annotations

import mailbox
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import BulkmailError, RelayError
from bulkmail.sandbox.inbox import LONGEST_HEAD, Inbox
from bulkmail.sandbox.maildir import Maildir

MESSAGE = b"From: shop@example.com\r\nTo: Ann <ann@example.org>\r\nSubject: Hello\r\n\r\nDear Ann\r\n"


def keep(maildir: Maildir, *buffers: bytes, to: str = "ann@example.org", sender: str = "shop@example.com") -> str:
    name = maildir.write(sender, to, buffers or (MESSAGE,))
    maildir.publish(name)
    return name


@pytest.fixture
def maildir(tmp_path: Path) -> Maildir:
    return Maildir(tmp_path / "mail")


def test_maildir_shows_a_message_only_once_it_is_published(maildir: Maildir) -> None:
    name = maildir.write("shop@example.com", "ann@example.org", [MESSAGE])
    assert maildir.paths() == []
    maildir.publish(name)
    assert [path.name for path in maildir.paths()] == [name]


def test_maildir_takes_a_message_back(maildir: Maildir) -> None:
    written = maildir.write("shop@example.com", "ann@example.org", [MESSAGE])
    published = keep(maildir)
    for name in (written, published, "never-was"):
        maildir.discard(name)
    assert maildir.paths() == []
    assert list((maildir.folder / "tmp").iterdir()) == []


def test_maildir_leaves_nothing_behind_when_writing_fails(maildir: Maildir) -> None:
    with pytest.raises(UnicodeEncodeError):
        maildir.write("shop@example.com", "\ud900@example.org", [MESSAGE])
    assert list((maildir.folder / "tmp").iterdir()) == []


def test_maildir_is_private_and_has_lf_line_ends(maildir: Maildir) -> None:
    keep(maildir, MESSAGE[:44], MESSAGE[44:])
    (path,) = maildir.paths()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(maildir.folder.stat().st_mode) == 0o700
    assert path.read_bytes() == (
        b"Return-Path: <shop@example.com>\nDelivered-To: ann@example.org\n" + MESSAGE.replace(b"\r\n", b"\n")
    )


@pytest.mark.parametrize("cut", range(len(MESSAGE)))
def test_maildir_finds_line_ends_that_two_buffers_share(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    maildir = Maildir(tmp_path_factory.mktemp("mail"))
    keep(maildir, MESSAGE[:cut], MESSAGE[cut:])
    assert b"\r" not in maildir.paths()[0].read_bytes()


def test_maildir_is_read_by_pythons_own_mailbox(maildir: Maildir) -> None:
    for number in range(3):
        keep(maildir, to=f"p{number}@example.org")
    found = mailbox.Maildir(str(maildir.folder), create=False)
    assert sorted(message["Delivered-To"] for message in found) == [f"p{number}@example.org" for number in range(3)]


def test_maildir_never_gives_a_name_twice(maildir: Maildir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkmail.sandbox.maildir.time.time", lambda: 1_700_000_000.25)
    other = Maildir(maildir.folder)
    names = [keep(maildir if number % 2 else other) for number in range(50)]
    assert len(set(names)) == 50
    assert [path.name for path in maildir.paths()] == names


def test_maildir_orders_foreign_files_by_their_time(maildir: Maildir) -> None:
    name = keep(maildir)
    for other, moment in (("older", 1_000_000_000), ("newer", 4_000_000_000)):
        path = maildir.folder / "cur" / f"{other}:2,S"
        path.write_bytes(MESSAGE)
        os.utime(path, (moment, moment))
    assert [path.name for path in maildir.paths()] == ["older:2,S", name, "newer:2,S"]


def test_maildir_overlooks_what_is_not_a_message(maildir: Maildir) -> None:
    (maildir.folder / "new" / ".hidden").write_bytes(b"")
    (maildir.folder / "new" / "folder").mkdir()
    (maildir.folder / "new" / "link").symlink_to("/etc/hostname")
    assert maildir.paths() == []


def test_maildir_clears_messages_and_nothing_else(maildir: Maildir) -> None:
    keep(maildir)
    maildir.write("shop@example.com", "ann@example.org", [MESSAGE])
    (maildir.folder / "notes.txt").write_text("mine")
    maildir.clear()
    assert maildir.paths() == []
    assert sorted(path.name for path in maildir.folder.iterdir()) == ["cur", "new", "notes.txt", "tmp"]
    assert list((maildir.folder / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", ["file/mail", "nul\0", "x" * 300], ids=["below-a-file", "nul", "too-long"])
def test_maildir_says_where_mail_cannot_be_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RelayError, match=r"cannot keep mail in .*: .") as caught:
        Maildir(tmp_path / name)
    assert "\0" not in str(caught.value)
    assert "maildir:FOLDER" in caught.value.hint


@pytest.mark.slow
@given(
    path=st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n\0:\udc80\udcff")),
)
def test_maildir_envelope_lines_hold_against_any_path(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    maildir = Maildir(tmp_path_factory.mktemp("mail"))
    keep(maildir, to=path, sender=path)
    lines = maildir.paths()[0].read_bytes().split(b"\n")
    assert lines[0].startswith(b"Return-Path: <")
    assert lines[0].endswith(b">")
    assert lines[1].startswith(b"Delivered-To: ")
    assert lines[2] == b"From: shop@example.com"
    assert not set(b"\r\0") & set(b"".join(lines))


def test_inbox_numbers_messages_from_the_oldest(maildir: Maildir) -> None:
    for number in range(1, 4):
        keep(maildir, MESSAGE.replace(b"Hello", b"Message %d" % number), to=f"p{number}@example.org")
    inbox = Inbox(maildir.folder)
    assert len(inbox) == 3
    assert [(kept.number, kept.subject, kept.forward_path) for kept in inbox] == [
        (1, "Message 1", "p1@example.org"),
        (2, "Message 2", "p2@example.org"),
        (3, "Message 3", "p3@example.org"),
    ]
    assert [kept.number for kept in reversed(inbox)] == [3, 2, 1]
    assert inbox.get(2)["Subject"] == "Message 2"
    assert inbox.get(2).get_content() == "Dear Ann\n"


def test_inbox_decodes_names_in_every_script(maildir: Maildir) -> None:
    keep(maildir, MESSAGE.replace(b"Ann <", b"=?utf-8?q?=D0=96=D0=B0=D0=BD=D0=BD=D0=B0?= <"))
    assert next(iter(Inbox(maildir.folder))).to == "Жанна <ann@example.org>"


def test_inbox_shows_nothing_that_steers_a_terminal(maildir: Maildir) -> None:
    hostile = b"=?utf-8?q?=1B]0;owned=07=1B[2J=E2=80=AE?= <script>alert(1)</script>" + b"x" * 10_000
    keep(maildir, MESSAGE.replace(b"Hello", hostile).replace(b"Ann <", b"=?utf-8?q?=1B[31m?= <"), to="a\x1b[2J@b.c")
    kept = next(iter(Inbox(maildir.folder)))
    for text in (kept.subject, kept.to, kept.sender, kept.forward_path, kept.date):
        assert text.isprintable()
        assert len(text) <= 500
    assert "<script>" in kept.subject  # text it is, and text it stays


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00\xff\xfe", id="bytes"),
        pytest.param(b"From: <\r\nTo: @\r\nSubject:\r\nDate: 99\r\n\r\n", id="broken-headers"),
        pytest.param(b"To: =?utf-8?q?=0A=0D?= <a@b.c>, =?x?b?!!?=\r\n\r\n", id="broken-words"),
        pytest.param(b"Subject: " + b"=?utf-8?b?" * 2_000 + b"\r\n\r\n", id="many-openings"),
        pytest.param(b"X: " + b"y" * LONGEST_HEAD + b"\r\n\r\nbody", id="head-without-an-end"),
    ],
)
def test_inbox_lists_and_gets_any_content(maildir: Maildir, content: bytes) -> None:
    keep(maildir, content)
    inbox = Inbox(maildir.folder)
    assert [kept.forward_path for kept in inbox] == ["ann@example.org"]
    assert inbox.get(1)["Delivered-To"] == "ann@example.org"


def test_inbox_says_so_when_the_email_package_fails(maildir: Maildir, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> str:
        raise IndexError("list index out of range")

    keep(maildir)
    monkeypatch.setattr("email.headerregistry.HeaderRegistry.__call__", fail)
    assert next(iter(Inbox(maildir.folder))).subject == "(cannot be read)"


@pytest.mark.parametrize("number", [0, -1, 2, 10**20])
def test_inbox_names_the_numbers_there_are(maildir: Maildir, number: int) -> None:
    keep(maildir)
    with pytest.raises(BulkmailError, match=rf"no message {number}: .* holds 1 message$") as caught:
        Inbox(maildir.folder).get(number)
    assert caught.value.hint == "name a number from 1 to 1"


def test_inbox_of_nothing_says_what_to_do(maildir: Maildir) -> None:
    inbox = Inbox(maildir.folder)
    assert list(inbox) == []
    with pytest.raises(BulkmailError, match="holds 0 messages") as caught:
        inbox.get(1)
    assert caught.value.hint == "send something to the sandbox first"


@pytest.mark.slow
def test_inbox_refuses_a_message_that_nests_too_deep(maildir: Maildir) -> None:
    nested = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(1_000))
    keep(maildir, nested)
    inbox = Inbox(maildir.folder)
    assert len(list(inbox)) == 1
    with pytest.raises(BulkmailError, match="message 1 has too many parts within parts") as caught:
        inbox.get(1)
    assert str(maildir.paths()[0]) in caught.value.hint


def test_inbox_refuses_a_folder_that_is_no_maildir(tmp_path: Path) -> None:
    with pytest.raises(BulkmailError, match="is not a mail folder"):
        Inbox(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_inbox_reports_of_a_message_that_went_away(maildir: Maildir) -> None:
    keep(maildir)
    inbox = Inbox(maildir.folder)
    maildir.clear()
    with pytest.raises(BulkmailError, match=r"cannot read the message .*: No such file"):
        inbox.get(1)
    with pytest.raises(BulkmailError, match=r"cannot read the message .*: No such file"):
        list(inbox)


def test_inbox_reports_of_a_folder_that_cannot_be_read(maildir: Maildir, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Maildir) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Maildir, "paths", fail)
    with pytest.raises(BulkmailError, match=r"cannot read the mail folder .*: Permission denied"):
        Inbox(maildir.folder)
