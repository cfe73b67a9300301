"""A real OpenSMTPD of our own, in a mount namespace because its folders are compiled in."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.programs import cache, end, free_port, missing, require_root, wait_until_listening

USERS = ("opensmtpd", "opensmtpq")  # compiled in

CONFIGURATION = """\
listen on 127.0.0.1 port {port}
action "on" relay host "lmtp://{behind}"
match from any for any action "on"
"""

# What is mounted here is seen by this process and its children alone.
START = """\
set -e
for folder in /var/spool /var/lib /run /usr/libexec; do mount -t tmpfs none "$folder"; done
mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd /usr/libexec/opensmtpd
chmod 711 /var/lib/opensmtpd/empty /var/spool/smtpd
cp "{programs}"/usr/libexec/opensmtpd/* /usr/libexec/opensmtpd/
exec "{programs}/usr/sbin/smtpd" -d -f "{configuration}"
"""


@contextmanager
def run_opensmtpd(behind: str) -> Iterator[str]:
    """The URL of an OpenSMTPD that takes mail for everyone, and hands it on by LMTP to `HOST:PORT`."""
    require_root()
    import pwd  # only here: Windows has none, and imports this module too

    if not (cache() / "usr/sbin/smtpd").exists() or not (cache() / "usr/libexec/opensmtpd").is_dir():
        missing("opensmtpd is not unpacked")
    if not set(USERS) <= {user.pw_name for user in pwd.getpwall()}:
        missing(f"there are no users {' and '.join(USERS)}, as whom smtpd runs")
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        missing("mount namespaces cannot be made here")
    home = Path(tempfile.mkdtemp(prefix="bulkmail-opensmtpd-"))
    try:
        port = free_port()
        configuration = home / "smtpd.conf"
        configuration.write_text(CONFIGURATION.format(port=port, behind=behind))
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", START.format(programs=cache(), configuration=configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_listening(port, process=process)
            yield f"smtp://127.0.0.1:{port}?tls=off"
        finally:
            end(process)
    finally:
        shutil.rmtree(home)
