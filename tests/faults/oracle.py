"""The witness as a process, and what must be true of its log, the outbox and the report together."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkmail.model.tally import Status
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.sqlite_file import put_in_order
from bulkmail.outbox.turns import Turns
from tests.e2e.commands import write_campaign

WITNESS = Path(__file__).with_name("witness.py")
MESSAGE = "Dear {{ first_name }},\n\nthis is for {{ email }} alone.\n.\nfrom here on: dots\n"


@dataclass(frozen=True)
class Taken:
    """A line of a witness: one recipient of one message."""

    id: str
    path: str
    digest: str
    text: str
    session: int
    at: float


@dataclass
class Seen:
    """A running witness."""

    log: Path
    port: int
    process: asyncio.subprocess.Process
    plan: dict[str, Any] = field(default_factory=dict)

    def url(self, connections: int = 4, **options: object) -> str:
        """The relay that it plays."""
        more = "".join(f"&{key}={value}" for key, value in options.items())
        return f"smtp://127.0.0.1:{self.port}?tls=off&connections={connections}{more}"

    @property
    def size(self) -> int:
        """How many bytes are written down."""
        return self.log.stat().st_size if self.log.exists() else 0

    def taken(self) -> list[Taken]:
        """All that was taken.  Asserts that the client broke no rule."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        breaches = [line for line in lines if "breach" in line]
        assert not breaches, breaches[:3]
        return [Taken(**line) for line in lines]

    async def stop(self) -> None:
        """Kills it, if it lives."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    async def start_again(self) -> None:
        """At the same port, with the same log."""
        await self.stop()
        again = await _start(self.log, {**self.plan, "port": self.port})
        self.process = again.process


async def _start(log: Path, plan: dict[str, Any]) -> Seen:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WITNESS), str(log), json.dumps(plan), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    return Seen(log, int(await process.stdout.readline()), process, plan)


@asynccontextmanager
async def witness(log: Path, **plan: Any) -> AsyncIterator[Seen]:
    """A witness in a process of its own; see `witness.py` for what may be planned."""
    seen = await _start(log, plan)
    try:
        yield seen
    finally:
        await seen.stop()


def make_campaign(folder: Path, people: Sequence[str], *, settings: str = "") -> Path:
    """A campaign whose message says whom it is for."""
    campaign = write_campaign(folder, people, relay="null:", settings=settings)
    (campaign / "message.txt").write_text(MESSAGE)
    return campaign


def expected_text(address: str) -> str:
    """The digest of the text that this person is to get, by our own reckoning."""
    name = address.partition("@")[0].title()
    text = MESSAGE.replace("{{ first_name }}", name).replace("{{ email }}", address)
    return hashlib.sha256(text.rstrip("\n").encode()).hexdigest()


def count_marks(outbox: Path) -> int:
    """How many deliveries a crash has left at their mark.  Puts none of them in order."""
    if not outbox.exists():
        return 0
    put_in_order(outbox)
    with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as connection:
        return len(marked_in(connection))


def marked_in(connection: sqlite3.Connection) -> list[str]:
    """The forward paths that are marked, in the table or in the journal of turns."""
    ids = [number for (number,) in connection.execute("SELECT id FROM delivery WHERE ending_at IS NOT NULL")]
    query = "SELECT forward_path FROM delivery WHERE id = ?"
    return [connection.execute(query, (number,)).fetchone()[0] for number in (*ids, *Turns.read(connection).marks)]


def once_in_doubt(outbox: Path) -> set[str]:
    """Anyone who was in doubt at any time."""
    with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as connection:
        return {path for (path,) in connection.execute("SELECT forward_path FROM delivery WHERE in_doubt_before")}


def make_due(outbox: Path) -> None:
    """As if every wait had passed."""
    with closing(sqlite3.connect(outbox)) as connection, connection:
        connection.execute("UPDATE delivery SET due_at = 1 WHERE due_at > 1")


@dataclass(frozen=True)
class Verdict:
    """What came out of a run that was held against the oracle."""

    taken: int
    statuses: Counter[Status]
    twice: int
    once_in_doubt: int


def hold(outbox: Path, people: Sequence[str], *witnesses: Seen, said: str = "") -> Verdict:
    """Asserts I1 to I5 of the fault matrix: the log of the witnesses, the outbox and the input agree."""
    entries = [entry for seen in witnesses for entry in seen.taken()]
    got = Counter(entry.path for entry in entries)
    with OutboxReader.open(outbox) as reader:
        assert reader.tally().adds_up, said
        assert reader.tally().rows == len(people), said
        rows = {row.address: row for row in reader.rows()}
    assert set(rows) == set(people), said
    doubtful = once_in_doubt(outbox)
    accepted = {address for address, row in rows.items() if row.status is Status.ACCEPTED}
    in_doubt = {address for address, row in rows.items() if row.status is Status.IN_DOUBT}
    assert accepted <= got.keys(), f"{said}: told to be accepted, and never taken: {accepted - got.keys()}"
    assert got.keys() <= accepted | in_doubt, f"{said}: taken, and no one knows: {got.keys() - accepted - in_doubt}"
    twice = {address for address, times in got.items() if times > 1}
    assert twice <= doubtful, f"{said}: twice without having been in doubt: {twice - doubtful}"
    wrong = {entry.path for entry in entries if entry.text != expected_text(entry.path)}
    assert not wrong, f"{said}: another one's message: {sorted(wrong)[:5]}"
    for address in twice:
        copies = {(entry.id, entry.digest) for entry in entries if entry.path == address}
        assert len(copies) == 1, f"{said}: two that are not the same to the byte: {address}"
    ids = {entry.path: entry.id for entry in entries}
    assert len(set(ids.values())) == len(ids), f"{said}: one Message-ID for two people"
    assert all(rows[address].message_id == ids[address] for address in accepted), said
    return Verdict(len(entries), Counter(row.status for row in rows.values()), len(twice), len(doubtful))


def hold_report(report: Path, people: Sequence[str], statuses: Counter[Status]) -> None:
    """Asserts that the report as CSV says of each person, once, what the outbox says."""
    with report.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["email"] for row in rows] == list(people)
    assert Counter(row["delivery_status"] for row in rows) == {s.value: n for s, n in statuses.items() if n}
