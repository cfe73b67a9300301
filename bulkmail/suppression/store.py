"""The suppression list in an SQLite file: what goes in, what comes out, and what an event does to it."""

# ruff: noqa: S608 - statements are put together of our own words; values are always bound

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from bulkmail.model.errors import SuppressionError
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
    ALL_LISTS,
    SuppressionEntry,
    SuppressionPolicy,
    SuppressionReason,
    SuppressionRules,
    effective_kind,
)
from bulkmail.suppression import returning
from bulkmail.suppression.acting import act, put
from bulkmail.suppression.erasing import erase
from bulkmail.suppression.file import SuppressionFile
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
from bulkmail.suppression.wording import explain

SLOT = 600  # seconds of messages that are counted together
REPORTS_KEPT = 30 * 86_400.0  # seconds that a report is kept as it came
SWEEP_EVERY = 3_600.0  # seconds between two looks for older ones

_PAGE, _BATCH = 1_000, 10_000
_RUN = "INSERT INTO run (run_id, campaign, list_id, outbox, began_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_EVENT = """
    INSERT INTO event (source_id, kind, counts_as, at, read_at, proof, digest, key, provider, run, list_id, row,
                       delivery, reason, code, enhanced, words, source, report)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source_id) DO NOTHING
"""
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
_GATHERED = "digest BLOB, scope TEXT, reason TEXT, key TEXT, since REAL, until REAL, note TEXT"
_MERGE = """
    INSERT INTO entry (digest, scope, reason, key, since, until, event, note, seq)
    SELECT digest, scope, reason, key, since, until, NULL, note, ? FROM gathered WHERE true
    ORDER BY digest, scope, reason
    ON CONFLICT (digest, scope, reason) DO UPDATE SET
        since = excluded.since, until = excluded.until, event = NULL, note = excluded.note, seq = excluded.seq,
        key = CASE entry.key WHEN '' THEN excluded.key ELSE entry.key END
    WHERE entry.until IS NOT NULL AND (excluded.until IS NULL OR excluded.until > entry.until)
"""


class SqliteSuppressions:
    """The list in the file at `path`, made if need be: a `SuppressionStore`, whose promises it keeps.

    `rules` say what an event does; `provider_of` names the mailbox provider of a domain.
    """

    def __init__(
        self,
        path: Path,
        *,
        rules: SuppressionRules = SuppressionRules(),  # noqa: B008 - frozen
        provider_of: Callable[[str], str] = str,
        clock: Callable[[], float] = time.time,
        key: bytes = b"",
    ) -> None:
        self.path = path
        self.rules = rules
        self._provider_of = provider_of
        self._clock = clock
        self._swept_at = -SWEEP_EVERY  # when old reports were last dropped
        self._file = SuppressionFile(path, key=key)
        with self._file.reading() as connection:
            self._secret: bytes = connection.execute("SELECT key FROM secret").fetchone()[0]
        digest_key = blake2b(key=self._secret, person=b"digests").digest()
        self._digest_of = blake2b(digest_size=DIGEST_BYTES, key=digest_key)  # copied: half the time of a new one
        self._token_key = blake2b(key=self._secret, person=b"tokens", digest_size=32).digest()

    def __enter__(self) -> SqliteSuppressions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection.  May be called again."""
        self._file.close()

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
        with self._file.writing() as connection:
            connection.execute(_RUN, (run.run_id, run.campaign, run.list_id, run.outbox, run.began_at))
            if run.outbox:  # it may have been a report that named it first, or the file has moved
                connection.execute(
                    "UPDATE run SET campaign = ?, list_id = ?, outbox = ?, began_at = ?, is_bulk = ? WHERE run_id = ?",
                    (run.campaign, run.list_id, run.outbox, run.began_at, run.is_bulk, run.run_id),
                )
            return _known(connection.execute(f"{_RUNS} WHERE run_id = ?", (run.run_id,)).fetchone())

    def runs(self) -> list[KnownRun]:
        """All of them, in the order of their numbers."""
        with self._file.reading() as connection:
            return [_known(row) for row in connection.execute(f"{_RUNS} ORDER BY number")]

    def token_key(self) -> bytes:
        """32 random bytes, made once for the store, that sign tokens."""
        return self._token_key

    def place(self, source: str) -> tuple[int, int]:
        """UIDVALIDITY and the highest UID of which the events are durable; (0, 0) at first."""
        with self._file.reading() as connection:
            row = connection.execute("SELECT uidvalidity, uid FROM place WHERE source = ?", (source,)).fetchone()
            return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def set_place(self, source: str, place: tuple[int, int]) -> None:
        """Called after `record` has returned."""
        with self._file.writing() as connection:
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
        now, new = self._clock(), 0
        with self._file.writing() as connection:
            if not 0 <= now - self._swept_at < SWEEP_EVERY:  # it reads all events
                old = "UPDATE event SET report = NULL WHERE report IS NOT NULL AND read_at < ?"
                connection.execute(old, (now - REPORTS_KEPT,))
                self._swept_at = now
            for event in events:
                connection.executemany(
                    "DELETE FROM event WHERE source_id = ? AND proof = 'none'",
                    [(_fingerprint(each),) for each in event.replaces],
                )
                number = self._insert(connection, event, now)
                if number:
                    new += 1
                    act(connection, number, self.rules, now=now)
        return new

    def _insert(self, connection: sqlite3.Connection, event: FeedbackEvent, now: float) -> int:
        """The number of the new event; 0 for one that is known."""
        run = self._run_of(connection, event)
        whom, counts_as = event.mailbox, effective_kind(event)
        cursor = connection.execute(
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
        )
        return int(cursor.lastrowid or 0) if cursor.rowcount == 1 else 0

    def _run_of(self, connection: sqlite3.Connection, event: FeedbackEvent) -> int | None:
        if not event.run_id:
            return None
        connection.execute(_RUN, (event.run_id, event.campaign, event.list_id, "", 0.0))
        return int(connection.execute("SELECT number FROM run WHERE run_id = ?", (event.run_id,)).fetchone()[0])

    def note_sent(self, run_id: str, counts: Mapping[str, int], *, at: float) -> None:
        """Counts the messages of a known run that each provider answered at about `at` (wall clock)."""
        slot = int(at // SLOT) * SLOT
        with self._file.writing() as connection:
            connection.executemany(
                "INSERT INTO sent SELECT number, ?, ?, ? FROM run WHERE run_id = ? ON CONFLICT (run, provider, slot)"
                " DO UPDATE SET count = count + excluded.count",
                [(provider, slot, count, run_id) for provider, count in counts.items()],
            )

    def soft_bounced(self, within: float) -> frozenset[bytes]:
        """The digests of addresses that had a soft bounce in the last `within` seconds."""
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT DISTINCT digest FROM event WHERE counts_as = 'soft' AND digest IS NOT NULL AND at > ?",
                (self._clock() - within,),
            )
            return frozenset(digest for (digest,) in found)

    def note_reached(self, run_id: str, digests: Sequence[bytes], *, at: float) -> None:
        """Messages of a known run to these addresses, which had soft bounces, were accepted."""
        with self._file.writing() as connection:
            connection.executemany(
                "INSERT INTO reached SELECT ?, number, ? FROM run WHERE run_id = ? ON CONFLICT DO NOTHING",
                [(digest, at, run_id) for digest in digests],
            )

    def since_run(
        self, run_id: str, *, kinds: Mapping[FeedbackKind, str], reasons: Mapping[SuppressionReason, str], now: float
    ) -> dict[bytes, str]:
        """As `returning.known_since()`."""
        with self._file.reading() as connection:
            return returning.known_since(connection, run_id, kinds=kinds, reasons=reasons, now=now)

    def mistakes(self) -> list[ProviderMistake]:
        """Providers whose hard bounces are not believed, the newest first."""
        query = """
            SELECT r.run_id, r.campaign, m.provider, m.since,
                   (SELECT count(*) FROM event AS v WHERE v.provider = m.provider AND v.run = m.run AND v.held)
            FROM mistake AS m JOIN run AS r ON r.number = m.run ORDER BY m.since DESC
        """
        with self._file.reading() as connection:
            return [ProviderMistake(*row) for row in connection.execute(query)]

    # The list ---------------------------------------------------------------------------------------------------------

    def add(self, additions: Iterable[Addition], *, why: str = "", who: str = "") -> int:
        """Puts these on the list, each with a change of its own; returns how many were not there."""
        now, added = self._clock(), 0
        with self._file.writing() as connection:
            for addition in additions:
                added += put(connection, self._entry(addition, now), why=why, who=who, now=now)
        return added

    def import_(self, additions: Iterable[Addition], *, why: str, who: str = "") -> int:
        """The same for any number, as a single change.  Nothing is ever removed by it."""
        now = self._clock()
        rows = (self._columns(self._entry(addition, now)) for addition in additions)
        with self._file.reading() as connection:
            connection.execute(f"CREATE TEMP TABLE gathered ({_GATHERED})")
            try:
                connection.execute("BEGIN")  # of the temporary table alone: the file is free meanwhile
                while batch := list(islice(rows, _BATCH)):
                    connection.executemany("INSERT INTO temp.gathered VALUES (?, ?, ?, ?, ?, ?, ?)", batch)
                connection.execute("COMMIT")
                with self._file.writing():
                    cursor = connection.execute(
                        "INSERT INTO change (at, digest, what, reason, scope, why, who)"
                        " VALUES (?, NULL, 'imported', '', '', ?, ?)",
                        (now, why, who),
                    )
                    return connection.execute(_MERGE, (cursor.lastrowid,)).rowcount
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                connection.execute("DROP TABLE IF EXISTS temp.gathered")

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
        removed = 0
        with self._file.writing() as connection:
            for key in keys:
                values = {"digest": self.digest(key), "only": reason.value if reason else "", "scope": scope}
                removed += _take_off(connection, _OF_ADDRESS, values, why=why, who=who, now=self._clock())
        return removed

    def undo(self, query: EntryQuery, *, why: str, who: str = "") -> int:
        """Takes all entries that `query` means off the list; returns how many."""
        condition, values = _meant(query)
        chosen = f"(digest, scope, reason) IN (SELECT e.digest, e.scope, e.reason {condition})"
        with self._file.writing() as connection:
            return _take_off(connection, chosen, values, why=why, who=who, now=self._clock())

    def count(self, query: EntryQuery) -> int:
        """How many entries `query` means."""
        condition, values = _meant(query)
        with self._file.reading() as connection:
            return int(connection.execute(f"SELECT count(*) {condition}", values).fetchone()[0])

    def entries(self, query: EntryQuery) -> Iterator[SuppressionEntry]:
        """The entries that `query` means, by digest.  Holds no lock between two of them."""
        condition, values = _meant(query)
        after: tuple[bytes, str, str] = (b"", "", "")
        while True:
            with self._file.reading() as connection:
                page = connection.execute(
                    f"SELECT {_ENTRY} {condition} AND (e.digest, e.scope, e.reason) > (:d, :s, :r)"
                    " ORDER BY e.digest, e.scope, e.reason LIMIT :most",
                    {**values, "d": after[0], "s": after[1], "r": after[2], "most": _PAGE},
                ).fetchall()
            yield from map(_entry_of, page)
            if len(page) < _PAGE:
                return
            after = page[-1][0], page[-1][4], page[-1][2]

    def newest(self, query: EntryQuery, limit: int) -> list[SuppressionEntry]:
        """The entries that `query` means, the newest first, at most `limit`."""
        condition, values = _meant(query)
        with self._file.reading() as connection:
            found = connection.execute(
                f"SELECT {_ENTRY} {condition} ORDER BY e.since DESC, e.seq DESC LIMIT :most", {**values, "most": limit}
            )
            return [_entry_of(row) for row in found]

    def history(self, key: str) -> AddressHistory:
        """All that is known of an address or domain."""
        digest = self.digest(key)
        with self._file.reading() as connection:
            entries = connection.execute(f"SELECT {_ENTRY} FROM entry AS e WHERE e.digest = ?", (digest,)).fetchall()
            events = connection.execute(f"{_STORED} WHERE v.digest = ? ORDER BY v.at, v.id", (digest,)).fetchall()
            changes = connection.execute(
                "SELECT seq, at, what, reason, scope, why, who FROM change WHERE digest = ?1"
                " OR seq IN (SELECT seq FROM entry WHERE digest = ?1) ORDER BY seq",
                (digest,),
            ).fetchall()
        return AddressHistory(
            tuple(sorted(map(_entry_of, entries), key=lambda entry: entry.since)),
            tuple(map(_stored, events)),
            tuple(ListChange(*change) for change in changes),
        )

    def unmatched(self, limit: int) -> list[StoredEvent]:
        """What came back and was matched to no message of ours, the newest first, at most `limit`."""
        with self._file.reading() as connection:
            found = connection.execute(f"{_STORED} WHERE v.proof = 'none' ORDER BY v.id DESC LIMIT ?", (limit,))
            return [_stored(row) for row in found]

    def note_intake(self, source: str, *, is_pushed: bool) -> None:
        """All that was in `source` is durable."""
        with self._file.writing() as connection:
            returning.note_intake(connection, source, is_pushed=is_pushed, now=self._clock())

    def intake_state(self) -> IntakeState:
        """When intake last succeeded, and since when a bulk campaign waits for it."""
        with self._file.reading() as connection:
            return returning.intake_state(connection, now=self._clock())

    def count_unmatched(self) -> int:
        """How much came back and was matched to no message of ours."""
        with self._file.reading() as connection:
            return returning.count_unmatched(connection)

    def returned(self, run_id: str) -> list[ReturnedEvent]:
        """What came back about a run, by mail and webhook, oldest first."""
        with self._file.reading() as connection:
            return returning.of_run(connection, run_id)

    def opted_out(self, list_id: str, *, since: float, to: float) -> list[ReturnedEvent]:
        """Who unsubscribed from a list, or from all, in `since <= at < to`, without a run being known; oldest first."""
        with self._file.reading() as connection:
            return returning.opted_out(connection, list_id, since=since, to=to)

    def count_returned(self) -> dict[tuple[str, FeedbackKind], int]:
        """How much came back, by campaign and kind; an opt-out without a run has no campaign."""
        with self._file.reading() as connection:
            return returning.counted(connection)

    def event(self, number: int) -> StoredEvent | None:
        """One event with its report; None if there is none with this number."""
        with self._file.reading() as connection:
            row = connection.execute(f"{_STORED} WHERE v.id = ?", (number,)).fetchone()
        return None if row is None else _stored(row)

    # For a run --------------------------------------------------------------------------------------------------------

    def applied(self, policy: SuppressionPolicy, now: float) -> tuple[int, bytes]:
        """The newest `seq`, and the first 8 bytes of each digest that `policy` applies at `now`, in ascending order."""
        condition, values = _applies(policy, now)
        with self._file.reading() as connection:
            connection.execute("BEGIN")
            try:
                latest = _latest(connection)
                found = connection.execute(
                    f"SELECT substr(e.digest, 1, {PREFIX_BYTES}) FROM entry AS e WHERE {condition} ORDER BY e.digest",
                    values,
                )
                prefixes = bytearray()
                while page := found.fetchmany(_BATCH):
                    prefixes += b"".join([prefix for (prefix,) in page])
            finally:
                connection.execute("COMMIT")
        return latest, bytes(prefixes)

    def reason(self, digest: bytes, policy: SuppressionPolicy, now: float) -> str:
        """Why `policy` leaves this one out at `now`, for people; empty if it does not."""
        condition, values = _applies(policy, now)
        with self._file.reading() as connection:
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
        with self._file.reading() as connection:
            return int(connection.execute("PRAGMA data_version").fetchone()[0])

    def changes(self, after: int) -> ChangedKeys:
        """What was added after the change `after`."""
        with self._file.reading() as connection:
            connection.execute("BEGIN")
            try:
                latest = _latest(connection)
                keys = {key for (key,) in connection.execute(_ADDED, (after, _PAGE + 1))}
                imported = connection.execute(
                    "SELECT 1 FROM change WHERE seq > ? AND what = 'imported' LIMIT 1", (after,)
                ).fetchone()
            finally:
                connection.execute("COMMIT")
        return ChangedKeys(latest, frozenset(keys - {""}), bool(imported) or len(keys) > _PAGE or "" in keys)

    # Erasure ----------------------------------------------------------------------------------------------------------

    def erase(self, key: str) -> int:
        """Blanks every personal field about an address; digests stay.  Returns how many records were blanked."""
        with self._file.writing() as connection:
            return erase(connection, key, self.digest(key), now=self._clock())

    def copy_to(self, target: Path) -> None:
        """A copy of the whole list, its secret included, in a new file for its owner's eyes only."""
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise SuppressionError(f"{target} cannot be written: {error.strerror}", hint="name a new file") from error
        with self._file.reading() as connection:
            connection.execute("VACUUM INTO ?", (str(target),))

    def shrink(self) -> None:
        """Rewrites the file without its free pages."""
        with self._file.reading() as connection:
            connection.execute("VACUUM")


_OF_ADDRESS = "digest = :digest AND (:only = '' OR reason = :only) AND (:scope IS NULL OR scope = :scope)"
_RUNS = "SELECT number, run_id, campaign, list_id, outbox, began_at, is_bulk FROM run"


def _known(row: Sequence[Any]) -> KnownRun:
    number, run_id, campaign, list_id, outbox, began_at, is_bulk = row
    return KnownRun(number, run_id, campaign, list_id, outbox, began_at, bool(is_bulk))


def _fingerprint(source_id: str) -> bytes:  # the id itself may name an address, which could not be erased
    return blake2b(source_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _latest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM change").fetchone()[0])


def _applies(policy: SuppressionPolicy, now: float) -> tuple[str, dict[str, object]]:
    reasons = [reason.value for reason in SuppressionReason if reason in policy.reasons]
    names = {f"reason{number}": reason for number, reason in enumerate(reasons)}
    condition = f"e.reason IN ({', '.join(f':{name}' for name in names)}) AND (e.until IS NULL OR e.until > :now)"
    values: dict[str, object] = {**names, "now": now}
    if policy.list_id is not None:
        condition += " AND e.scope IN (:all, :list)"
        values |= {"all": ALL_LISTS, "list": policy.list_id}
    return condition, values


def _meant(query: EntryQuery) -> tuple[str, dict[str, Any]]:
    """`FROM … WHERE …` for the entries that `query` means, with its values."""
    conditions, values = ["true"], dict[str, Any]()
    for condition, name, value in (
        ("e.reason = :reason", "reason", query.reason.value if query.reason else None),
        ("e.since >= :since", "since", query.since),
        ("e.since < :to", "to", query.to),
        ("r.campaign = :campaign", "campaign", query.campaign or None),
        ("r.run_id = :run_id", "run_id", query.run_id or None),
        ("v.provider = :provider", "provider", query.provider or None),
    ):
        if value is not None:
            conditions.append(condition)
            values[name] = value
    joins = "LEFT JOIN event AS v ON v.id = e.event LEFT JOIN run AS r ON r.number = v.run"
    return f"FROM entry AS e {joins} WHERE {' AND '.join(conditions)}", values


def _take_off(
    connection: sqlite3.Connection, chosen: str, values: dict[str, Any], *, why: str, who: str, now: float
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
