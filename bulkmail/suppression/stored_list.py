"""The suppression list in its tables: what goes in, what comes out, and what an event does to it."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bulkmail.model.feedback_event import (
    MOST_REPORT_BYTES,
    FeedbackEvent,
    FeedbackKind,
    IntakeState,
    KnownRun,
    Proof,
    ReturnedEvent,
)
from bulkmail.model.suppression import (
    SuppressionEntry,
    SuppressionPolicy,
    SuppressionReason,
    SuppressionRules,
    effective_kind,
)
from bulkmail.suppression import returning
from bulkmail.suppression.acting import StoredAction, act, put
from bulkmail.suppression.erasing import erase
from bulkmail.suppression.explaining import explain
from bulkmail.suppression.ports import (
    DIGEST_BYTES,
    PREFIX_BYTES,
    Addition,
    AddressHistory,
    ChangedKeys,
    EntryQuery,
    ListChange,
    ProviderMistake,
    StoredEvent,
)
from bulkmail.suppression.queries import applies, meant
from bulkmail.suppression.tables import ListConnection, ListDatabase

# ruff: noqa: S608 - statements are put together of our own words; values are always bound


SLOT = 600  # seconds of messages that are counted together
REPORTS_KEPT = 30 * 86_400.0  # seconds that a report is kept as it came
SWEEP_EVERY = 3_600.0  # seconds between two looks for older ones

_PAGE, _BATCH = 1_000, 10_000
_RUN = "INSERT INTO run (run_id, campaign, list_id, outbox, began_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_EVENT = """
    INSERT INTO event (source_id, kind, counts_as, at, read_at, proof, digest, key, provider, run, list_id, row,
                       delivery, reason, code, enhanced, words, source, report)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source_id) DO NOTHING
    RETURNING id, counts_as, digest, key, at, proof, list_id, run, provider
"""
_BEHIND = "(e.digest, e.scope, e.reason) > (:d, :s, :r) ORDER BY e.digest, e.scope, e.reason"
_ENTRY = "e.digest, e.key, e.reason, e.since, e.scope, e.until, e.event, e.note"
_STORED = """
    SELECT v.id, v.source_id, v.kind, v.at, v.proof, v.key, r.run_id, r.campaign, v.list_id, v.row, v.delivery,
           v.reason, v.code, v.enhanced, v.words, v.source, v.report, v.provider, v.held, v.read_at
    FROM event AS v LEFT JOIN run AS r ON r.number = v.run
"""
_ADDED = """
    SELECT DISTINCT e.key FROM change AS c JOIN entry AS e ON e.digest = c.digest
    WHERE c.seq > ? AND c.what = 'added' LIMIT ?
"""
# What was imported is sorted into the list in one go, by digest: a hundred times as quick as one by one.
_GATHER = """
    CREATE TEMP TABLE gathered AS SELECT digest, scope, reason, key, since, until, note FROM entry WHERE FALSE
"""
_MERGE = """
    INSERT INTO entry (digest, scope, reason, key, since, until, event, note, seq)
    SELECT digest, scope, reason, max(key), min(since), CASE WHEN count(until) = count(*) THEN max(until) END, NULL,
           max(note), CAST(? AS INTEGER)
    FROM gathered WHERE TRUE GROUP BY digest, scope, reason ORDER BY digest, scope, reason
    ON CONFLICT (digest, scope, reason) DO UPDATE SET
        since = excluded.since, until = excluded.until, event = NULL, note = excluded.note, seq = excluded.seq,
        key = CASE entry.key WHEN '' THEN excluded.key ELSE entry.key END
    WHERE entry.until IS NOT NULL AND (excluded.until IS NULL OR excluded.until > entry.until)
"""


class Suppressions:
    """The list in `tables`: a `SuppressionStore`, whose promises it keeps.

    `rules` say what an event does; `provider_of` names the mailbox provider of a domain.
    """

    def __init__(
        self,
        tables: ListDatabase,
        *,
        rules: SuppressionRules = SuppressionRules(),  # noqa: B008 - frozen
        provider_of: Callable[[str], str] = str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rules = rules
        self._provider_of = provider_of
        self._clock = clock
        self._swept_at = -SWEEP_EVERY  # when old reports were last dropped
        self._tables = tables
        self._read_secret()

    def _read_secret(self) -> None:
        with self._tables.reading() as connection:
            self._secret: bytes = connection.execute("SELECT key FROM secret").fetchone()[0]
        digest_key = blake2b(key=self._secret, person=b"digests").digest()
        self._digest_of = blake2b(digest_size=DIGEST_BYTES, key=digest_key)  # copied: half the time of a new one
        self._token_key = blake2b(key=self._secret, person=b"tokens", digest_size=32).digest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection.  May be called again."""
        self._tables.close()

    @property
    def secret(self) -> bytes:
        """What digests and tokens are keyed with, for an archive that another machine goes on with."""
        return self._secret

    def digest(self, key: str) -> bytes:
        """The keyed digest of an address or domain."""
        keyed = self._digest_of.copy()
        keyed.update(key.encode("utf-8", "replace"))
        return keyed.digest()

    # Runs and places --------------------------------------------------------------------------------------------------

    def register(self, run: KnownRun) -> KnownRun:
        """Makes the run known, and gives it its number; a `run_id` that is known keeps the number it has."""
        with self._tables.writing() as connection:
            connection.execute(_RUN, (run.run_id, run.campaign, run.list_id, run.outbox, run.began_at))
            if run.outbox:  # it may have been a report that named it first, or the file has moved
                connection.execute(
                    "UPDATE run SET campaign = ?, list_id = ?, outbox = ?, began_at = ?, is_bulk = ? WHERE run_id = ?",
                    (run.campaign, run.list_id, run.outbox, run.began_at, run.is_bulk, run.run_id),
                )
            return _known(connection.execute(f"{_RUNS} WHERE run_id = ?", (run.run_id,)).fetchone())

    def runs(self) -> list[KnownRun]:
        """All of them, in the order of their numbers."""
        with self._tables.reading() as connection:
            return [_known(row) for row in connection.execute(f"{_RUNS} ORDER BY number")]

    def token_key(self) -> bytes:
        """32 random bytes, made once for the store, that sign tokens."""
        return self._token_key

    def place(self, source: str) -> tuple[int, int]:
        """UIDVALIDITY and the highest UID of which the events are durable; (0, 0) at first."""
        with self._tables.reading() as connection:
            row = connection.execute("SELECT uidvalidity, uid FROM place WHERE source = ?", (source,)).fetchone()
            return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def set_place(self, source: str, place: tuple[int, int]) -> None:
        """Called after `record` has returned."""
        with self._tables.writing() as connection:
            connection.execute(
                "INSERT INTO place VALUES (?, ?, ?, ?) ON CONFLICT (source) DO UPDATE SET"
                " uidvalidity = excluded.uidvalidity, uid = excluded.uid, at = excluded.at",
                (source, *place, self._clock()),
            )

    # Events -----------------------------------------------------------------------------------------------------------

    def record(self, events: Sequence[FeedbackEvent]) -> int:
        """Keeps those whose `source_id` is not known yet, in one transaction, and says how many those were."""
        if not events:
            return 0
        now, new, runs = self._clock(), 0, dict[str, int | None]()
        with self._tables.writing() as connection:
            if not 0 <= now - self._swept_at < SWEEP_EVERY:  # it reads all events
                old = "UPDATE event SET report = NULL WHERE report IS NOT NULL AND read_at < ?"
                connection.execute(old, (now - REPORTS_KEPT,))
                self._swept_at = now
            for event in events:
                for each in event.replaces:
                    connection.execute(
                        "DELETE FROM event WHERE source_id = ? AND proof = 'none'", (_fingerprint(each),)
                    )
                if event.run_id not in runs:
                    runs[event.run_id] = self._run_of(connection, event)
                inserted = self._insert(connection, event, runs[event.run_id], now)
                if inserted is not None:
                    new += 1
                    act(connection, inserted, self.rules, now=now)
        return new

    def _insert(
        self, connection: ListConnection, event: FeedbackEvent, run: int | None, now: float
    ) -> StoredAction | None:
        """What the new event asks for; None for one that is known."""
        whom, counts_as = event.mailbox, effective_kind(event)
        inserted = connection.execute(
            _EVENT,
            (
                _fingerprint(event.source_id),
                event.kind.value,
                counts_as.value if counts_as else "",
                min(event.at, now),
                now,
                event.proof.value,
                self.digest(whom.key) if whom else None,
                whom.key if whom else "",
                self._provider_of(whom.domain) if whom else "",
                run,
                event.list_id,
                event.row,
                event.delivery,
                event.reason,
                event.code,
                event.enhanced,
                event.words,
                event.source,
                zlib.compress(event.report[:MOST_REPORT_BYTES]) if event.report else None,
            ),
        ).fetchone()
        return None if inserted is None else StoredAction(*inserted)

    def _run_of(self, connection: ListConnection, event: FeedbackEvent) -> int | None:
        if not event.run_id:
            return None
        connection.execute(_RUN, (event.run_id, event.campaign, event.list_id, "", 0.0))
        return _number_of(connection, event.run_id)

    def note_sent(self, run_id: str, counts: Mapping[str, int], *, at: float) -> None:
        """Counts the messages of a known run that each provider answered at about `at` (wall clock)."""
        slot = int(at // SLOT) * SLOT
        with self._tables.writing() as connection:
            run = _number_of(connection, run_id)
            connection.executemany(
                "INSERT INTO sent VALUES (?, ?, ?, ?) ON CONFLICT (run, provider, slot)"
                " DO UPDATE SET count = sent.count + excluded.count",
                [(run, provider, slot, count) for provider, count in counts.items()] if run is not None else [],
            )

    def soft_bounced(self, within: float) -> frozenset[bytes]:
        """The digests of addresses that had a soft bounce in the last `within` seconds."""
        with self._tables.reading() as connection:
            found = connection.execute(
                "SELECT DISTINCT digest FROM event WHERE counts_as = 'soft' AND digest IS NOT NULL AND at > ?",
                (self._clock() - within,),
            )
            return frozenset(digest for (digest,) in found)

    def note_reached(self, run_id: str, digests: Sequence[bytes], *, at: float) -> None:
        """Messages of a known run to these addresses, which had soft bounces, were accepted."""
        with self._tables.writing() as connection:
            run = _number_of(connection, run_id)
            connection.executemany(
                "INSERT INTO reached VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [(digest, run, at) for digest in digests] if run is not None else [],
            )

    def since_run(
        self, run_id: str, *, kinds: Mapping[FeedbackKind, str], reasons: Mapping[SuppressionReason, str], now: float
    ) -> dict[bytes, str]:
        """As `returning.known_since()`."""
        with self._tables.reading() as connection:
            return returning.known_since(connection, run_id, kinds=kinds, reasons=reasons, now=now)

    def mistakes(self) -> list[ProviderMistake]:
        """Providers whose hard bounces are not believed, the newest first."""
        query = """
            SELECT r.run_id, r.campaign, m.provider, m.since,
                   (SELECT count(*) FROM event AS v WHERE v.provider = m.provider AND v.run = m.run AND v.held)
            FROM mistake AS m JOIN run AS r ON r.number = m.run ORDER BY m.since DESC
        """
        with self._tables.reading() as connection:
            return [ProviderMistake(*row) for row in connection.execute(query)]

    # The list ---------------------------------------------------------------------------------------------------------

    def add(self, additions: Iterable[Addition], *, why: str = "", who: str = "") -> int:
        """Puts these on the list, each with a change of its own; returns how many were not there."""
        now, added = self._clock(), 0
        with self._tables.writing() as connection:
            for addition in additions:
                added += put(connection, self._entry(addition, now), why=why, who=who, now=now)
        return added

    def import_(self, additions: Iterable[Addition], *, why: str, who: str = "") -> int:
        """The same for any number, as a single change.  Nothing is ever removed by it."""
        now = self._clock()
        rows = (self._columns(self._entry(addition, now)) for addition in additions)
        with self._tables.reading() as connection:
            connection.execute(_GATHER)
            try:
                connection.execute("BEGIN")  # of the temporary table alone: the file is free meanwhile
                while batch := list(islice(rows, _BATCH)):
                    connection.executemany("INSERT INTO gathered VALUES (?, ?, ?, ?, ?, ?, ?)", batch)
                connection.execute("COMMIT")
                with self._tables.writing():
                    seq = connection.execute(
                        "INSERT INTO change (at, digest, what, reason, scope, why, who)"
                        " VALUES (?, NULL, 'imported', '', '', ?, ?) RETURNING seq",
                        (now, why, who),
                    ).fetchone()
                    return connection.execute(_MERGE, tuple(seq)).rowcount
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                connection.execute("DROP TABLE IF EXISTS gathered")

    def _entry(self, addition: Addition, now: float) -> SuppressionEntry:
        return SuppressionEntry(
            digest=addition.digest or self.digest(addition.key),
            key=addition.key,
            reason=addition.reason,
            since=now if addition.since is None else min(addition.since, now),
            scope=addition.scope,
            until=addition.until,
            note=addition.note,
        )

    @staticmethod
    def _columns(entry: SuppressionEntry) -> tuple[object, ...]:
        reason = entry.reason.value
        return entry.digest, entry.scope, reason, entry.key, entry.since, entry.until, entry.note

    def remove(
        self,
        keys: Iterable[str],
        *,
        why: str,
        who: str = "",
        reason: SuppressionReason | None = None,
        scope: str | None = None,
    ) -> int:
        """Takes these off the list, or only their entries of `reason` or of one list; returns how many entries."""
        removed, chosen = 0, "digest = :digest"
        limits = {"reason": reason.value if reason else None, "scope": scope}
        chosen += "".join(f" AND {name} = :{name}" for name, value in limits.items() if value is not None)
        with self._tables.writing() as connection:
            for key in keys:
                values = {"digest": self.digest(key), **limits}
                removed += _take_off(connection, chosen, values, why=why, who=who, now=self._clock())
        return removed

    def undo(self, query: EntryQuery, *, why: str, who: str = "") -> int:
        """Takes all entries that `query` means off the list; returns how many."""
        condition, values = meant(query)
        chosen = f"(digest, scope, reason) IN (SELECT e.digest, e.scope, e.reason {condition})"
        with self._tables.writing() as connection:
            return _take_off(connection, chosen, values, why=why, who=who, now=self._clock())

    def count(self, query: EntryQuery) -> int:
        """How many entries `query` means."""
        condition, values = meant(query)
        with self._tables.reading() as connection:
            return int(connection.execute(f"SELECT count(*) {condition}", values).fetchone()[0])

    def entries(self, query: EntryQuery) -> Iterator[SuppressionEntry]:
        """The entries that `query` means, by digest.  Holds no lock between two of them."""
        condition, values = meant(query)
        after: tuple[bytes, str, str] = (b"", "", "")
        while True:
            with self._tables.reading() as connection:
                page = connection.execute(
                    f"SELECT {_ENTRY} {condition} AND {_BEHIND} LIMIT :most",
                    {**values, "d": after[0], "s": after[1], "r": after[2], "most": _PAGE},
                ).fetchall()
            yield from map(_entry_of, page)
            if len(page) < _PAGE:
                return
            after = page[-1][0], page[-1][4], page[-1][2]

    def newest(self, query: EntryQuery, limit: int) -> list[SuppressionEntry]:
        """The entries that `query` means, the newest first, at most `limit`."""
        condition, values = meant(query)
        with self._tables.reading() as connection:
            found = connection.execute(
                f"SELECT {_ENTRY} {condition} ORDER BY e.since DESC, e.seq DESC LIMIT :most", {**values, "most": limit}
            )
            return [_entry_of(row) for row in found]

    def history(self, key: str) -> AddressHistory:
        """All that is known of an address or domain."""
        digest = self.digest(key)
        with self._tables.reading() as connection:
            entries = connection.execute(f"SELECT {_ENTRY} FROM entry AS e WHERE e.digest = ?", (digest,)).fetchall()
            events = connection.execute(f"{_STORED} WHERE v.digest = ? ORDER BY v.at, v.id", (digest,)).fetchall()
            changes = connection.execute(
                "SELECT seq, at, what, reason, scope, why, who FROM change WHERE digest = :digest"
                " OR seq IN (SELECT seq FROM entry WHERE digest = :digest) ORDER BY seq",
                {"digest": digest},
            ).fetchall()
        return AddressHistory(
            tuple(sorted(map(_entry_of, entries), key=lambda entry: entry.since)),
            tuple(map(_stored, events)),
            tuple(ListChange(*change) for change in changes),
        )

    def unmatched(self, limit: int) -> list[StoredEvent]:
        """What came back and was matched to no message of ours, the newest first, at most `limit`."""
        with self._tables.reading() as connection:
            found = connection.execute(f"{_STORED} WHERE v.proof = 'none' ORDER BY v.id DESC LIMIT ?", (limit,))
            return [_stored(row) for row in found]

    def note_intake(self, source: str, *, is_pushed: bool) -> None:
        """All that was in `source` is durable."""
        with self._tables.writing() as connection:
            returning.note_intake(connection, source, is_pushed=is_pushed, now=self._clock())

    def intake_state(self) -> IntakeState:
        """When intake last succeeded, and since when a bulk campaign waits for it."""
        with self._tables.reading() as connection:
            return returning.intake_state(connection, now=self._clock())

    def count_unmatched(self) -> int:
        """How much came back and was matched to no message of ours."""
        with self._tables.reading() as connection:
            return returning.count_unmatched(connection)

    def returned(self, run_id: str) -> list[ReturnedEvent]:
        """What came back about a run, by mail and webhook, oldest first."""
        with self._tables.reading() as connection:
            return returning.of_run(connection, run_id)

    def opted_out(self, list_id: str, *, since: float, to: float) -> list[ReturnedEvent]:
        """Who unsubscribed from a list, or from all, in `since <= at < to`, without a run being known; oldest first."""
        with self._tables.reading() as connection:
            return returning.opted_out(connection, list_id, since=since, to=to)

    def count_returned(self) -> dict[tuple[str, FeedbackKind], int]:
        """How much came back, by campaign and kind; an opt-out without a run has no campaign."""
        with self._tables.reading() as connection:
            return returning.counted(connection)

    def event(self, number: int) -> StoredEvent | None:
        """One event with its report; None if there is none with this number."""
        with self._tables.reading() as connection:
            row = connection.execute(f"{_STORED} WHERE v.id = ?", (number,)).fetchone()
        return None if row is None else _stored(row)

    # For a run --------------------------------------------------------------------------------------------------------

    def applied(self, policy: SuppressionPolicy, now: float) -> tuple[int, bytes]:
        """The newest `seq`, and the first 8 bytes of each digest that `policy` applies at `now`, in ascending order."""
        condition, values = applies(policy, now)
        prefixes = bytearray()
        with self._tables.snapshot() as connection:
            latest = _latest(connection)
            last: Sequence[Any] = (b"", "", "")
            while page := connection.execute(
                f"SELECT e.digest, e.scope, e.reason FROM entry AS e WHERE {condition} AND {_BEHIND} LIMIT :most",
                {**values, "d": last[0], "s": last[1], "r": last[2], "most": _BATCH},
            ).fetchall():
                prefixes += b"".join([row[0][:PREFIX_BYTES] for row in page])
                last = page[-1]
        return latest, bytes(prefixes)

    def reason(self, digest: bytes, policy: SuppressionPolicy, now: float) -> str:
        """Why `policy` leaves this one out at `now`, for people; empty if it does not."""
        condition, values = applies(policy, now)
        with self._tables.reading() as connection:
            row = connection.execute(
                f"SELECT {_ENTRY}, r.campaign, v.code, v.enhanced, v.words FROM entry AS e"
                " LEFT JOIN event AS v ON v.id = e.event LEFT JOIN run AS r ON r.number = v.run"
                f" WHERE e.digest = :digest AND {condition} ORDER BY e.since LIMIT 1",
                {**values, "digest": digest},
            ).fetchone()
        if row is None:
            return ""
        campaign, code, enhanced, words = row[8:]
        said = " ".join(str(part) for part in (code, enhanced, words) if part)
        return explain(_entry_of(row[:8]), campaign=campaign or "", said=said)

    def version(self) -> int:
        """Another number whenever another connection wrote."""
        return self._tables.version()

    def changes(self, after: int) -> ChangedKeys:
        """What was added after the change `after`."""
        with self._tables.snapshot() as connection:
            latest = _latest(connection)
            keys = {key for (key,) in connection.execute(_ADDED, (after, _PAGE + 1))}
            imported = connection.execute(
                "SELECT 1 FROM change WHERE seq > ? AND what = 'imported' LIMIT 1", (after,)
            ).fetchone()
        return ChangedKeys(latest, frozenset(keys - {""}), bool(imported) or len(keys) > _PAGE or "" in keys)

    # Erasure ----------------------------------------------------------------------------------------------------------

    def erase(self, key: str) -> int:
        """Blanks every personal field about an address; digests stay.  Returns how many records were blanked."""
        with self._tables.writing() as connection:
            return erase(connection, key, self.digest(key), now=self._clock())

    def copy_to(self, target: Path) -> None:
        """A copy of the whole list, its secret included, in a new file for its owner's eyes only."""
        self._tables.copy_to(target)

    def shrink(self) -> None:
        """Leaves nothing of what was erased, also where the database keeps what it no longer needs."""
        self._tables.shrink()


_RUNS = "SELECT number, run_id, campaign, list_id, outbox, began_at, is_bulk FROM run"


def _known(row: Sequence[Any]) -> KnownRun:
    number, run_id, campaign, list_id, outbox, began_at, is_bulk = row
    return KnownRun(number, run_id, campaign, list_id, outbox, began_at, bool(is_bulk))


def _fingerprint(source_id: str) -> bytes:  # the id itself may name an address, which could not be erased
    return blake2b(source_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _latest(connection: ListConnection) -> int:
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM change").fetchone()[0])


def _number_of(connection: ListConnection, run_id: str) -> int | None:
    found = connection.execute("SELECT number FROM run WHERE run_id = ?", (run_id,)).fetchone()
    return None if found is None else int(found[0])


def _take_off(
    connection: ListConnection, chosen: str, values: dict[str, Any], *, why: str, who: str, now: float
) -> int:
    """Deletes the entries that `chosen` is true for, and notes each in the history."""
    taken = connection.execute(f"DELETE FROM entry WHERE {chosen} RETURNING digest, reason, scope", values).fetchall()
    connection.executemany(
        "INSERT INTO change (at, digest, what, reason, scope, why, who) VALUES (?, ?, 'removed', ?, ?, ?, ?)",
        [(now, digest, reason, scope, why, who) for digest, reason, scope in taken],
    )
    return len(taken)


def _entry_of(row: Sequence[Any]) -> SuppressionEntry:
    digest, key, reason, *rest = row
    return SuppressionEntry(digest, key, SuppressionReason(reason), *rest)


def _stored(row: Sequence[Any]) -> StoredEvent:
    number, source_id, kind, at, proof, key, run_id, campaign, list_id, *rest = row
    row_number, delivery, reason, code, enhanced, words, source, report, provider, held, read_at = rest
    event = FeedbackEvent(
        source_id.hex(),
        FeedbackKind(kind),
        at,
        Proof(proof),
        run_id=run_id or "",
        campaign=campaign or "",
        list_id=list_id,
        row=row_number,
        delivery=delivery,
        reason=reason,
        code=code,
        enhanced=enhanced,
        words=words,
        source=source,
        report=zlib.decompress(report) if report else b"",
    )
    return StoredEvent(number, event, key, provider, bool(held), read_at)
