"""How a list goes through Haraka with STARTTLS and a login: connections and rate of bulkmail and of nodemailer's pool.

    python benchmarks/haraka.py --rows 1000 --runs 3

Haraka (npm, pinned in package.json) refuses commands that follow the end of a message in the same write.  A client
that drops the session for it opens a connection, and logs in, for each message.  Each run is a whole process: start,
read the list, send, report, end.  The two sides alternate, and the medians count.  Needs Node.js with npm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import blast

from tests.servers.certificates import authority
from tests.servers.programs import end, free_port, wait_until_listening

USER, PASSWORD = "ann", "correct horse"
# Takes mail for everyone who has logged in, keeps none, and writes a line for each connection and message.
TAKES_ALL = """\
const { appendFileSync } = require('node:fs')
const count = (what) => appendFileSync(COUNTS, `${what}\\n`)
exports.hook_lookup_rdns = (next) => next(OK, 'localhost')
exports.hook_connect = (next) => { count('connection'); next() }
exports.hook_mail = (next, connection) => next(connection.notes.auth_user ? OK : DENY)
exports.hook_rcpt = (next) => next(OK)
exports.hook_queue_outbound = (next) => { count('message'); next(OK) }
"""


@contextmanager
def haraka(folder: Path, *, port: int, certificate: Path, key: Path) -> Iterator[Path]:
    """Haraka with its folder there.  Gives the file in which it counts."""
    node = shutil.which("node") or sys.exit("node is missing")
    package = blast.install("Haraka")
    counts = folder / "counts"
    (folder / "config").mkdir(parents=True)
    (folder / "plugins").mkdir()
    (folder / "plugins" / "takes_all.js").write_text(TAKES_ALL.replace("COUNTS", json.dumps(str(counts))))
    for name, text in {
        "smtp.ini": f"listen=127.0.0.1:{port}\nnodes=0\n",
        "plugins": "tls\nauth/flat_file\ntakes_all\n",
        "auth_flat_file.ini": f"[core]\nmethods=PLAIN,LOGIN\nconstrain_sender=false\n[users]\n{USER}={PASSWORD}\n",
        "tls.ini": f"key={key}\ncert={certificate}\n",
        "log.ini": "level=ERROR\n",
        "me": "haraka.test\n",
    }.items():
        (folder / "config" / name).write_text(text)
    shutil.copy(package / "config" / "connection.ini", folder / "config")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [node, str(package / "bin" / "haraka"), "-c", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until_listening(port, process=process, seconds=30)
            yield counts
        finally:
            end(process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3, help="of each side")
    parser.add_argument("--connections", type=int, default=10)
    arguments = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bulkmail-haraka-") as name, authority() as issuer:
        folder = Path(name)
        certificate, key = issuer.issue()
        blast.write_files(folder, arguments.rows, enclose=False)
        relay = f"smtp://{USER}@localhost:{port}?ca_file={issuer.ca_file}"
        os.environ.update(
            {"BULKMAIL_PASSWORD": PASSWORD, "SMTP_USER": USER, "SMTP_PASSWORD": PASSWORD}, SMTP_CA=str(issuer.ca_file)
        )
        with haraka(folder / "haraka", port=port, certificate=certificate, key=key) as counts:

            def run(side: str) -> tuple[blast.Run, int]:
                counts.write_text("")
                if side == "bulkmail":
                    found = blast.run_bulkmail(
                        folder, port=port, connections=arguments.connections, enclose=False, relay=relay
                    )
                else:
                    found = blast.run_nodemailer(folder, port=port, connections=arguments.connections, enclose=False)
                said = counts.read_text().split()
                if not found.accepted == said.count("message") == arguments.rows:
                    sys.exit(f"{side}: {found.accepted} accepted, {said.count('message')} kept of {arguments.rows}")
                print(blast.line(side, found, rows=arguments.rows), f"{said.count('connection'):6,} connections")
                return found, said.count("connection")

            runs: dict[str, list[tuple[blast.Run, int]]] = {"bulkmail": [], "nodemailer": []}
            for _ in range(arguments.runs):
                for side, done in runs.items():
                    done.append(run(side))
    for side, done in runs.items():
        median = blast.median([found for found, _ in done])
        connections = statistics.median(connections for _, connections in done)
        print(blast.line(f"{side}, median", median, rows=arguments.rows), f"{connections:6,.0f} connections")


if __name__ == "__main__":
    main()
