"""A real Dovecot that judges logins for a Postfix: passwords by every mechanism it has, and tokens signed here."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.programs import end, require_program, require_root

MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER")

CONFIGURATION = """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
auth_verbose = yes
protocols =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  mechanisms = plain login cram-md5 scram-sha-256
  args = scheme=PLAIN username_format=%u {home}/users
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {home}/oauth2
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
service auth {{
  unix_listener {home}/sasl {{
    mode = 0666
  }}
}}
# Without this it answers an address that guesses wrongly later and later, up to 17 seconds.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""
# Tokens are judged by their signature: the key is looked up by issuer and algorithm.
OAUTH2 = """\
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={home}/keys/
username_attribute = sub
"""


@dataclass(frozen=True)
class DovecotSasl:
    """A running Dovecot.  `settings` make a Postfix ask it."""

    socket: Path
    log: Path
    key: bytes

    @property
    def settings(self) -> Mapping[str, str]:
        return {
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": str(self.socket),
            "smtpd_sasl_security_options": "noanonymous",
            "smtpd_tls_auth_only": "yes",
        }

    def token(self, username: str, *, lifetime: float = 3600.0) -> str:
        """A token for this user that ends this many seconds from now, or ended before (RFC 7519, HS256)."""
        now = int(time.time())
        claims = {"sub": username, "iat": now - 7200, "nbf": now - 7200, "exp": int(now + lifetime)}
        parts = [_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
        signature = hmac.digest(self.key, ".".join(parts).encode(), "sha256")
        return ".".join((*parts, _encoded(signature)))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def run_dovecot_sasl(users: Mapping[str, str]) -> Iterator[DovecotSasl]:
    """A Dovecot that knows these users by these passwords, and everyone by a token of its own."""
    require_root()
    program = require_program("dovecot")
    # Its processes are other users: not below pytest's own folder, which only root may enter.
    home = Path(tempfile.mkdtemp(prefix="bulkmail-dovecot-"))
    try:
        key = secrets.token_bytes(32)
        _lay_out(home, users, key)
        process = subprocess.Popen(
            [program, "-F", "-c", home / "conf"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(home, process)
            yield DovecotSasl(home / "sasl", home / "log", key)
        finally:
            end(process)
    finally:
        shutil.rmtree(home)


def _lay_out(home: Path, users: Mapping[str, str], key: bytes) -> None:
    home.chmod(0o755)
    (home / "state").mkdir()
    keys = home / "keys/default/HS256"
    keys.mkdir(parents=True)
    (keys / "default").write_text(base64.b64encode(key).decode())
    (home / "users").write_text("".join(f"{user}:{{PLAIN}}{password}\n" for user, password in users.items()))
    (home / "oauth2").write_text(OAUTH2.format(home=home))
    (home / "conf").write_text(CONFIGURATION.format(home=home, mechanisms=" ".join(MECHANISMS).lower()))


def _wait(home: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10.0
    while not (home / "sasl").is_socket():
        if process.poll() is not None or time.monotonic() > deadline:
            log = home / "log"
            raise RuntimeError(f"dovecot does not start:\n{log.read_text() if log.exists() else '(no log)'}")
        time.sleep(0.02)
