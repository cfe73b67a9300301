"""Bounces in the mailbox of a real Dovecot, read over IMAP."""

from __future__ import annotations

import imaplib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bulkmail.mailbox.imap import ImapSource, Mailbox
from bulkmail.mailbox.mail_source import Afterwards, FetchedMail
from bulkmail.mailing.intake import Intake
from bulkmail.model.errors import RelayError
from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, KnownRun
from bulkmail.model.relay import Secret
from bulkmail.suppression.file import SqliteSuppressions
from tests.feedback import mails
from tests.servers.dovecot_lmtp import PASSWORD, Mailboxes, run_dovecot

pytestmark = pytest.mark.real
BOUNCES = "bounces@shop.example"


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Mailboxes]:
    with run_dovecot([BOUNCES]) as mailboxes:
        yield mailboxes


@pytest.fixture
def client(dovecot: Mailboxes) -> Iterator[imaplib.IMAP4]:
    """Logged in, and every folder but an empty INBOX is gone."""
    with imaplib.IMAP4(dovecot.host, dovecot.imap_port, timeout=10.0) as opened:
        opened.login(BOUNCES, PASSWORD)
        if int(opened.select("INBOX")[1][0] or 0):
            opened.store("1:*", "+FLAGS", r"(\Deleted)")
            opened.expunge()
        opened.delete("Done")
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteSuppressions]:
    with SqliteSuppressions(tmp_path / "suppressions.db") as opened:
        yield opened


def source(
    dovecot: Mailboxes, store: SqliteSuppressions | None, then: str = "keep", folder: str = "INBOX"
) -> ImapSource:
    mailbox = Mailbox(dovecot.host, dovecot.imap_port, BOUNCES, is_implicit=False, has_tls=False)
    return ImapSource(mailbox, Secret(PASSWORD), folder=folder, then=Afterwards.parse(then), places=store)


def put(client: imaplib.IMAP4, *contents: bytes) -> None:
    for content in contents:
        assert client.append("INBOX", "", None, content.replace(b"\n", b"\r\n"))[0] == "OK"


def mail(number: int) -> bytes:
    return mails.dsn(recipient=f"p{number}@example.org", quoted=f"Message-ID: <{number}@shop.example>\n")


def keys_of(found: Sequence[Sequence[FetchedMail]]) -> list[str]:
    return [each.key for batch in found for each in batch]


def folder_of(client: imaplib.IMAP4, name: str) -> int:
    return int(client.select(name, readonly=True)[1][0] or 0)


def test_mail_is_read_whole_and_not_marked_as_seen(dovecot, client, store) -> None:
    put(client, mail(1), mail(2))
    opened = source(dovecot, store)
    (batch,) = opened.batches()
    assert [each.raw.replace(b"\r\n", b"\n") for each in batch] == [mail(1), mail(2)]
    opened.close()
    client.select("INBOX", readonly=True)
    assert b"Seen" not in client.fetch("1:*", "(FLAGS)")[1][0]


def test_mail_that_was_kept_is_read_once(dovecot, client, store) -> None:
    put(client, mail(1))
    opened = source(dovecot, store)
    (batch,) = opened.batches()
    opened.done(batch, understood=frozenset())
    assert list(opened.batches()) == []
    put(client, mail(2))
    (batch,) = opened.batches()
    assert len(batch) == 1
    opened.close()
    another = source(dovecot, store)
    assert keys_of(list(another.batches())) == keys_of([batch])  # which was not said to be done
    another.close()


@pytest.mark.parametrize(("then", "moved"), [("move=Done", 1), ("delete", 0)])
def test_mail_is_put_away_when_it_was_understood(dovecot, client, store, then: str, moved: int) -> None:
    put(client, mail(1), mail(2))
    opened = source(dovecot, store, then)
    (batch,) = opened.batches()
    opened.done(batch, understood=frozenset({batch[0].key}))
    assert keys_of(list(opened.batches())) == [batch[1].key]
    opened.close()
    assert folder_of(client, "INBOX") == 1
    if moved:
        assert folder_of(client, "Done") == 1


def test_mail_that_others_have_deleted_stays_until_they_expunge_it(dovecot, client, store) -> None:
    put(client, mail(1), mail(2))
    client.store("2", "+FLAGS", r"(\Deleted)")
    opened = source(dovecot, store, "delete")
    (batch,) = opened.batches()
    opened.done(batch, understood=frozenset({batch[0].key}))
    opened.close()
    assert folder_of(client, "INBOX") == 1


def test_new_mail_ends_the_wait(dovecot, client, store) -> None:
    opened = source(dovecot, store)
    list(opened.batches())
    timer = threading.Timer(0.3, put, (client, mail(1)))
    timer.start()
    before = time.monotonic()
    opened.wait(30.0)
    timer.join()
    assert time.monotonic() - before < 25.0
    assert len(keys_of(list(opened.batches()))) == 1
    opened.close()


def test_connection_that_was_lost_is_reported_and_opened_again(dovecot, client, store) -> None:
    put(client, mail(1))
    opened = source(dovecot, store)
    list(opened.batches())
    opened._open.client.sock.close()
    for _ in range(2):
        try:
            found = keys_of(list(opened.batches()))
            break
        except RelayError:
            continue
    assert len(found) == 1
    opened.close()


def test_folder_that_is_not_there_is_reported(dovecot, store) -> None:
    with pytest.raises(RelayError, match="cannot be opened"):
        list(source(dovecot, store, folder="Nowhere").batches())


@pytest.mark.slow
def test_thousand_bounces_are_read_matched_and_stored(dovecot, client, store) -> None:
    put(client, *(mail(number) for number in range(1_000)))
    seen: list[FeedbackEvent] = []
    opened = source(dovecot, store, "move=Done")
    intake = Intake(store, observe=seen.append)
    intake.take(opened)
    opened.close()
    assert (intake.summary.mails, intake.summary.new, intake.summary.unmatched) == (1_000, 1_000, 1_000)
    assert {event.kind for event in seen} == {FeedbackKind.HARD}
    assert folder_of(client, "INBOX") == 1_000  # none was about a message of ours


class Failing(SqliteSuppressions):
    """A store whose disk is full."""

    def record(self, events: Sequence[FeedbackEvent]) -> int:
        raise OSError("disk full")


def test_no_mail_is_moved_whose_event_could_not_be_stored(dovecot, client, tmp_path) -> None:
    put(client, mail(1))
    with Failing(tmp_path / "failing.db") as failing:
        failing.register(KnownRun(0, "run", outbox=str(tmp_path / "x.outbox"), began_at=time.time()))
        opened = source(dovecot, failing, "delete")
        with pytest.raises(OSError, match="disk full"):
            Intake(failing).take(opened)
        opened.close()
    assert folder_of(client, "INBOX") == 1
