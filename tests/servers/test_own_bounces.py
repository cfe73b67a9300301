"""Our own messages, bounced by real servers, are matched to their rows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import bulkmail
from bulkmail.mailbox.mail_files import MaildirSource
from bulkmail.mailing.intake import Intake
from bulkmail.mailing.suppression_list import known_run, open_settings
from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, Proof
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.settings.suppressions import load_suppressions
from tests.servers.dovecot_lmtp import run_dovecot
from tests.servers.exim import USER, run_exim
from tests.servers.kept import MailServer
from tests.servers.opensmtpd import run_opensmtpd
from tests.servers.postfix import run_postfix

pytestmark = pytest.mark.real
KNOWN = ["ann@example.org", "bob@example.org"]
GONE = [f"gone{number}@example.org" for number in range(5)]


@dataclass(frozen=True)
class Provider:
    """A server that takes everything at `url`, and the Maildir that it puts bounces of ours into."""

    url: str
    bounces: Path


@contextmanager
def _postfix() -> Iterator[Provider]:
    """Dovecot keeps the mailboxes behind it, and says who is unknown."""
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
            yield Provider(server.url, dovecot.log.parent / "mail" / "bounces@shop.example")


_OWN = """\
bounces:
  driver = accept
  local_parts = ^bounces
  transport = keep_bounces
"""
_KEEP_BOUNCES = """\
keep_bounces:
  driver = appendfile
  directory = HOME/bounces
  maildir_format
  create_directory
  envelope_to_add
  user = Debian-exim
"""


@contextmanager
def _exim() -> Iterator[Provider]:
    """It knows itself, after the message was taken, who is unknown."""
    unknown = "gone:\n  driver = redirect\n  local_parts = ^gone\n  allow_fail\n  data = :fail: Unknown user\n"
    with run_exim(routers=_OWN + unknown, transports=_KEEP_BOUNCES) as server:
        yield Provider(server.url, _writable(server))


@contextmanager
def _exim_before_dovecot() -> Iterator[Provider]:
    """Another server, asked after the message was taken, says who is unknown."""
    with run_dovecot(KNOWN) as dovecot:
        others = "others:\n  driver = manualroute\n  route_list = * 127.0.0.1\n  self = send\n  transport = lmtp\n"
        transport = f"lmtp:\n  driver = smtp\n  protocol = lmtp\n  port = {dovecot.port}\n  allow_localhost\n"
        with run_exim(routers=_OWN + others, transports=_KEEP_BOUNCES + transport) as server:
            yield Provider(server.url, _writable(server))


@contextmanager
def _opensmtpd() -> Iterator[Provider]:
    """Dovecot behind it says who is unknown, and keeps what comes back."""
    with (
        run_dovecot([*KNOWN, "bounces@shop.example"], delimiter="+") as dovecot,
        run_opensmtpd(f"{dovecot.host}:{dovecot.port}") as url,
    ):
        yield Provider(url, dovecot.log.parent / "mail" / "bounces@shop.example")


def _writable(server: MailServer) -> Path:
    """A folder beside the server's mailbox that its user may write into."""
    folder = server.maildir.parent / "bounces"
    folder.mkdir()
    shutil.chown(folder, USER, USER)
    return folder


PROVIDERS = {"postfix": _postfix, "exim": _exim, "exim-before-dovecot": _exim_before_dovecot, "opensmtpd": _opensmtpd}


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Iterator[Provider]:
    with PROVIDERS[request.param]() as found:
        yield found


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("reverse_path", "proof"),
    [("bounces+{bounce}@shop.example", Proof.TOKEN), ("bounces@shop.example", Proof.MESSAGE_ID)],
)
def test_every_bounce_of_ours_is_matched_to_its_row(
    provider: Provider, tmp_path: Path, monkeypatch, reverse_path: str, proof: Proof
) -> None:
    monkeypatch.setenv("BULKMAIL_STATE_DIR", str(tmp_path / "state"))
    campaign = bulkmail.compose(
        from_="Shop <shop@shop.example>", subject="Hello", text="Dear {{ email }},\n", reverse_path=reverse_path
    )
    rows = [{"email": address} for address in [*KNOWN, *GONE]]
    report = bulkmail.send_sync(campaign, rows, relay=provider.url, outbox=tmp_path / "run.outbox")
    assert report.accepted == len(rows)
    kept = provider.bounces
    while len(list((kept / "new").glob("*")) if (kept / "new").exists() else []) < len(GONE):
        time.sleep(0.1)
    events: list[FeedbackEvent] = []
    with open_settings(load_suppressions()) as store, OutboxReader.open(tmp_path / "run.outbox") as reader:
        intake = Intake(store, also=[known_run(reader, tmp_path / "run.outbox")], observe=events.append)
        intake.take(MaildirSource(kept))
    assert {(event.row, event.forward_path, event.kind, event.proof) for event in events} == {
        (row, address, FeedbackKind.HARD, proof) for row, address in enumerate([*KNOWN, *GONE], 1) if address in GONE
    }
    assert intake.summary.unmatched == 0
