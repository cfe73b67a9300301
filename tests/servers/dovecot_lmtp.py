"""A real Dovecot of our own, beside whatever the machine runs: takes mail by LMTP, gives it out over IMAP."""

from __future__ import annotations

import email
import email.policy
import imaplib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

from tests.servers.programs import end, free_port, missing, require_program, require_root, wait_until_listening

PASSWORD = "a-password-of-the-tests"

# {unknown} has no mailbox: LMTP answers its RCPT with 550 5.1.1.
CONFIGURATION = """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
protocols = lmtp imap
ssl = no
disable_plaintext_auth = no
mail_location = maildir:{home}/mail/%u
first_valid_uid = 1
lmtp_save_to_detail_mailbox = no
recipient_delimiter = {delimiter}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {home}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {home}/users
}}
service lmtp {{
  client_limit = 1
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp_port}
  }}
  unix_listener {home}/lmtp {{
    mode = 0666
  }}
}}
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"""


@dataclass(frozen=True)
class Mailboxes:
    """Takes mail at `port` and at the Unix socket `socket_path`, for those it was started for and no one else."""

    port: int
    socket_path: Path
    imap_port: int
    log: Path
    host: str = "127.0.0.1"

    def read(self, address: str) -> list[EmailMessage]:
        """What is in the inbox of `address`, in the order of arrival, read over IMAP."""
        with imaplib.IMAP4(self.host, self.imap_port, timeout=10.0) as client:
            client.login(address, PASSWORD)
            client.select("INBOX", readonly=True)
            numbers = client.search(None, "ALL")[1][0].split()
            fetched = [client.fetch(number.decode(), "(BODY.PEEK[])")[1][0] for number in numbers]
        return [email.message_from_bytes(part[1], policy=email.policy.default) for part in fetched]


@contextmanager
def run_dovecot(addresses: list[str], *, delimiter: str = "") -> Iterator[Mailboxes]:
    """A Dovecot with a mailbox for each of `addresses`; behind the `delimiter` a local part may say anything."""
    require_root()
    program = require_program("dovecot")
    for protocol in ("lmtp", "imap"):
        if not (Path("/usr/lib/dovecot") / protocol).exists():
            missing(f"dovecot speaks no {protocol.upper()}: dovecot-{protocol}d is not installed")
    home = Path(tempfile.mkdtemp(prefix="bulkmail-lmtp-"))  # short: a Unix socket's path has 107 bytes
    try:
        home.chmod(0o755)
        (home / "mail").mkdir()
        shutil.chown(home / "mail", "nobody", "nogroup")
        owner = (home / "mail").stat()
        lines = [f"{address}:{PASSWORD}:{owner.st_uid}:{owner.st_gid}::{home}\n" for address in addresses]
        (home / "users").write_text("".join(lines))
        mailboxes = Mailboxes(free_port(), home / "lmtp", free_port(), home / "log")
        (home / "dovecot.conf").write_text(
            CONFIGURATION.format(
                home=home, lmtp_port=mailboxes.port, imap_port=mailboxes.imap_port, delimiter=delimiter
            )
        )
        process = subprocess.Popen(
            [program, "-F", "-c", home / "dovecot.conf"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_listening(mailboxes.port, process=process)
            yield mailboxes
        finally:
            end(process)
    finally:
        shutil.rmtree(home, ignore_errors=True)
