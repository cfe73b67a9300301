"""Our own messages, bounced by a real Postfix and a real Dovecot, are matched to their rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bulkmail
from bulkmail.config.suppressions import load_suppressions
from bulkmail.mailbox.files import MaildirSource
from bulkmail.mailing.bounce_keys import known_run
from bulkmail.mailing.intake import Intake
from bulkmail.mailing.suppression_list import open_settings
from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, Proof
from bulkmail.outbox.reader import OutboxReader
from tests.servers.dovecot_lmtp import run_dovecot
from tests.servers.kept import MailServer
from tests.servers.postfix import run_postfix

pytestmark = pytest.mark.real
KNOWN = ["ann@example.org", "bob@example.org"]
GONE = [f"gone{number}@example.org" for number in range(5)]


@pytest.fixture
def provider() -> Iterator[tuple[MailServer, Path]]:
    """A Postfix that takes everything, and the folder of the mailboxes that Dovecot keeps behind it."""
    with run_dovecot([*KNOWN, "bounces@shop.example"]) as dovecot:
        settings = {
            "virtual_transport": f"lmtp:inet:{dovecot.host}:{dovecot.port}",
            "virtual_mailbox_maps": "static:all",
            "recipient_delimiter": "+",
            "virtual_alias_maps": "inline:{bounces@shop.example=bounces@shop.example}",
            "propagate_unmatched_extensions": "",
            "in_flow_delay": "0",
        }
        with run_postfix(settings) as server:
            yield server, dovecot.log.parent / "mail"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("reverse_path", "proof"),
    [("bounces+{bounce}@shop.example", Proof.TOKEN), ("bounces@shop.example", Proof.MESSAGE_ID)],
)
def test_every_bounce_of_ours_is_matched_to_its_row(
    provider: tuple[MailServer, Path], tmp_path: Path, monkeypatch, reverse_path: str, proof: Proof
) -> None:
    server, mailboxes = provider
    monkeypatch.setenv("BULKMAIL_STATE_DIR", str(tmp_path / "state"))
    letter = bulkmail.letter(
        sender="Shop <shop@shop.example>", subject="Hello", text="Dear {{ email }},\n", reverse_path=reverse_path
    )
    rows = [{"email": address} for address in [*KNOWN, *GONE]]
    report = bulkmail.send_sync(letter, rows, relay=server.url, outbox=tmp_path / "run.outbox")
    assert report.accepted == len(rows)
    kept = mailboxes / "bounces@shop.example"
    while len(list((kept / "new").glob("*")) if kept.exists() else []) < len(GONE):
        time.sleep(0.1)
    events: list[FeedbackEvent] = []
    with open_settings(load_suppressions()) as store, OutboxReader.open(tmp_path / "run.outbox") as reader:
        intake = Intake(store, also=[known_run(reader, tmp_path / "run.outbox")], observe=events.append)
        intake.take(MaildirSource(kept))
    assert {(event.row, event.forward_path, event.kind, event.proof) for event in events} == {
        (row, address, FeedbackKind.HARD, proof) for row, address in enumerate([*KNOWN, *GONE], 1) if address in GONE
    }
    assert intake.summary.unmatched == 0
