"""Mail folders: a Maildir on this machine, and a folder that an IMAP server has."""

from __future__ import annotations

import os
import socketserver
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkmail.mailbox.imap import Mailbox
from bulkmail.model.errors import BulkmailError, ConfigError, RelayError
from bulkmail.model.relay import Secret
from bulkmail.reconcile.mail_folders import look_in_imap, look_in_maildir

PASSWORD = "the canary's own sôngbook"
HEADER = b"Delivered-To: ann@example.com\nMessage-ID: <1.run@shop.example>\nSubject: x\n"


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    for name in ("new", "cur", "tmp"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_maildir_is_read_by_headers_of_its_messages_alone(maildir: Path) -> None:
    (maildir / "new" / "1").write_bytes(HEADER + b"\nMessage-ID: <inside@x>\n")
    (maildir / "cur" / "2:2,S").write_bytes(b"message-id:\n <2.run@shop.example>\n\n")
    # A bounce brings the message along: no sign that it arrived.
    (maildir / "cur" / "3").write_bytes(
        b'Message-ID: <bounce@mx>\nContent-Type: multipart/report; boundary="b"\n\n--b\n'
        b"Content-Type: message/rfc822\n\nMessage-ID: <4.run@shop.example>\n\n--b--\n"
    )
    (maildir / "tmp" / "5").write_bytes(b"Message-ID: <5.run@shop.example>\n\n")
    (maildir / "cur" / "6").write_bytes(b"\xff\x00no message")
    os.symlink("/etc/hostname", maildir / "cur" / "7")
    os.mkfifo(maildir / "cur" / "8")
    found = {sighting.message_id: sighting for sighting in look_in_maildir(maildir)}
    assert set(found) == {"<1.run@shop.example>", "<2.run@shop.example>", "<bounce@mx>"}
    assert found["<1.run@shop.example>"].forward_paths == {"ann@example.com"}


def test_folder_that_is_no_maildir_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no Maildir"):
        list(look_in_maildir(tmp_path))


class Imap(socketserver.StreamRequestHandler):
    """As much of an IMAP server as is asked for; `kept` are its headers, `said` what it was told."""

    def handle(self) -> None:
        self.say(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] here")
        while line := self.rfile.readline():
            tag, _, rest = line.strip().partition(b" ")
            self.server.said.append(rest)  # type: ignore[attr-defined]
            self.answer(tag, rest)

    def say(self, line: bytes) -> None:
        self.wfile.write(line + b"\r\n")

    def answer(self, tag: bytes, rest: bytes) -> None:
        kept: list[bytes] = self.server.kept  # type: ignore[attr-defined]
        verb = rest.split()[0].upper()
        if verb == b"CAPABILITY":
            self.say(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN")
        elif verb == b"AUTHENTICATE":
            self.say(b"+ ")
            import base64

            _, user, password = base64.b64decode(self.rfile.readline()).decode().split("\0")
            if (user, password) != ("ann@example.com", PASSWORD):
                return self.say(tag + b" NO wrong: " + password.encode())
        elif verb == b"EXAMINE" and b'"Sent"' not in rest:
            return self.say(tag + b" NO no such folder")
        elif verb == b"UID" and b"SEARCH" in rest:
            wanted = rest.rpartition(b'"<')[2].rstrip(b'">')
            hits = [b"%d" % n for n, header in enumerate(kept, 1) if wanted in header]
            self.say(b"* SEARCH " + b" ".join(hits))
        elif verb == b"UID":
            header = kept[int(rest.split()[2]) - 1]
            size = self.server.size or b"%d" % len(header)  # type: ignore[attr-defined]
            self.say(b"* 1 FETCH (UID 1 BODY[HEADER.FIELDS (MESSAGE-ID)] {%b}" % size)
            self.wfile.write(header)
            self.say(b")")
        elif verb == b"LOGOUT":
            self.say(b"* BYE")
        return self.say(tag + b" OK done")


@contextmanager
def serving(*kept: bytes, size: bytes = b"") -> Iterator[tuple[Mailbox, list[bytes]]]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Imap) as server:
        server.kept, server.said, server.size = list(kept), [], size  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        port = server.server_address[1]
        try:
            yield Mailbox.parse(f"imap://ann%40example.com@127.0.0.1:{port}?tls=off"), server.said  # type: ignore[attr-defined]
        finally:
            server.shutdown()


def test_imap_folder_is_asked_for_each_message_id_and_changed_in_nothing() -> None:
    """A search is for a part of the field: what merely has ours in it is no find."""
    other = b"Message-ID: <999.1.run@shop.example.org>\r\n\r\n"
    with serving(other, HEADER.replace(b"\n", b"\r\n") + b"\r\n") as (mailbox, said):
        ids = ["<1.run@shop.example>", "<2.run@shop.example>", '<"\r\n>']
        untold: list[str] = []
        found = list(look_in_imap(mailbox, Secret(PASSWORD), folder="Sent", message_ids=ids, reported=untold.append))
    assert {sighting.message_id for sighting in found} == {"<1.run@shop.example>"}
    assert untold == ['<"\r\n>']
    verbs = {line.split()[0].upper() for line in said}
    assert verbs <= {b"CAPABILITY", b"AUTHENTICATE", b"EXAMINE", b"UID", b"LOGOUT"}
    assert not [line for line in said if b"STORE" in line or b"BODY[" in line]


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (b"1000000000000", r"announces an answer of 1,000,000,000,000 bytes .* at most 4,194,304 bytes are read"),
        (b"4194304", "at most 4,194,304 bytes are read"),
        (b"9" * 5000, "did not answer as IMAP servers do"),
    ],
)
def test_imap_answer_of_any_announced_size_takes_no_memory(size: bytes, reason: str) -> None:
    tracemalloc.start()
    try:
        with serving(HEADER, size=size) as (mailbox, _), pytest.raises(RelayError, match=reason):
            list(look_in_imap(mailbox, Secret(PASSWORD), folder="Sent", message_ids=["<1.run@shop.example>"]))
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_imap_line_without_end_is_not_read_to_its_end() -> None:
    with serving(*[b"<1.run@shop.example>"] * 700_000) as (mailbox, _), pytest.raises(RelayError, match="bytes"):
        list(look_in_imap(mailbox, Secret(PASSWORD), folder="Sent", message_ids=["<1.run@shop.example>"]))


@pytest.mark.slow
def test_imap_refusals_are_reported_without_the_password() -> None:
    with serving() as (mailbox, _):
        for folder, password, words in (("Sent", "wrong-canary", "refused the login"), ("Gone", PASSWORD, "no folder")):
            with pytest.raises(BulkmailError, match=words) as caught:
                list(look_in_imap(mailbox, Secret(password), folder=folder, message_ids=["<1@x>"]))
            assert password not in repr(caught.value) + str(caught.value.__cause__) + caught.value.hint
    with pytest.raises(BulkmailError, match="cannot be reached"):
        list(look_in_imap(mailbox, Secret(PASSWORD), folder="Sent", message_ids=["<1@x>"]))


@pytest.mark.parametrize(
    "url",
    [
        "imaps://ann:canary@example.com", "imaps://example.com", "http://ann@example.com", "imap://ann@example.com?tls=off",
        "imaps://ann@127.0.0.1?tls=off", "imaps://ann@[", "imaps://ann@example.com/INBOX", "imaps://ann@example.com:99999",
    ],
)  # fmt: skip
def test_imap_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Mailbox.parse(url)
    assert "canary" not in str(caught.value) + caught.value.hint


def test_imap_address_says_how() -> None:
    assert Mailbox.parse("imaps://ann%40example.com@mx") == Mailbox("mx", 993, "ann@example.com")
    assert Mailbox.parse("imap://ann@mx:10143") == Mailbox("mx", 10143, "ann", is_implicit=False)
