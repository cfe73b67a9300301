"""What receivers run over the mail they get: a verifier of signatures and a judge of spam, both by other hands."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.servers.programs import require_program

_SCORE = re.compile(rb"^Content analysis details:\s+\((-?[\d.]+) points", re.MULTILINE)
_HIT = re.compile(rb"^ *-?[\d.]+ ([A-Z0-9_]+) ", re.MULTILINE)


def verified_by_opendkim(content: bytes, zone: Mapping[bytes, bytes], *, folder: Path) -> set[str]:
    """The algorithms of the signatures in `content` that OpenDKIM accepts; `zone` stands for the DNS."""
    names = [b"%b %b\n" % (name.rstrip(b"."), record) for name, record in zone.items()]
    (folder / "zone").write_bytes(b"".join(names))
    (folder / "message").write_bytes(content)
    # Only from hosts that are not its own does it verify.
    settings = f"TestDNSData {folder / 'zone'}\nMode v\nInternalHosts 192.0.2.1\nSyslog no\n"
    (folder / "opendkim.conf").write_text(settings)
    program = require_program("opendkim")
    command = [program, "-x", folder / "opendkim.conf", "-vv", "-t", folder / "message"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    return set(re.findall(r"dkim=pass [^;']*header\.a=([\w-]+)", said.stdout))


def judged_by_spamassassin(content: bytes) -> tuple[float, set[str]]:
    """The score that SpamAssassin gives `content` without asking the network, and the rules that it hit."""
    program = require_program("spamassassin")
    said = subprocess.run([program, "-L", "-t"], input=content, capture_output=True, timeout=30, check=True).stdout
    start = _SCORE.search(said)
    assert start, said[-2000:].decode("utf-8", "replace")
    return float(start[1]), {hit.decode() for hit in _HIT.findall(said, start.end())}
