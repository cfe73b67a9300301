"""A real Postfix whose mail goes on to a real Dovecot, as at a provider: accepted by one, delivered by the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.servers.dovecot_lmtp import run_dovecot
from tests.servers.kept import MailServer
from tests.servers.postfix import run_postfix


@contextmanager
def run_postfix_before_dovecot(addresses: list[str]) -> Iterator[MailServer]:
    """A Postfix that hands all mail on to a Dovecot; what is kept is in the mailboxes of `addresses`, one each."""
    with run_dovecot(addresses) as dovecot:
        settings = {
            "virtual_transport": f"lmtp:inet:{dovecot.host}:{dovecot.port}",
            "virtual_mailbox_maps": "static:all",
            "in_flow_delay": "0",  # else it takes in no more than it hands on
        }
        with run_postfix(settings) as server:
            mailboxes = dovecot.log.parent / "mail"
            yield replace(server, maildir=mailboxes, kept_in="*/new/*", recipient_header="Delivered-To")
