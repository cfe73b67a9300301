"""The quota ledger: how many recipients an account has written to, shared by all runs, and what one may take."""

from __future__ import annotations

import math
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import anyio.to_thread

from bulkmail.model.errors import OutboxError
from bulkmail.model.lazy import dataclass
from bulkmail.model.quota import DAY, NO_QUOTA, Quota, QuotaBooking, QuotaCredit, Ramp
from bulkmail.model.relay import Relay
from bulkmail.model.timing import Hold
from bulkmail.outbox.lock import refuse_network
from bulkmail.outbox.sqlite_file import statements

# -- The quota ledger: how many recipients an account has written to, shared by all runs on this machine.


VARIABLE = "BULKMAIL_STATE_DIR"

APPLICATION_ID = 0x626D6C67  # "bmlg"
SCHEMA_VERSION = 1
HOLD = 60.0  # seconds that a reservation is good for
LONGEST_HOLD = 600.0
LONGEST_PAUSE = 2 * DAY
_BUCKET = 10  # seconds that are counted together, at the end of them: a day is at most 8,640 rows
_KEPT = 7 * DAY  # seconds that what was spent is remembered
_BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Reservation:
    """`count` recipients may be written to, the last of them before `until`, wall-clock seconds."""

    id: int
    count: int
    until: float


def state_folder(environ: Mapping[str, str] = os.environ, *, platform: str = sys.platform) -> Path:
    """Where the user's programs keep what they must not forget; `BULKMAIL_STATE_DIR` says otherwise."""
    if chosen := environ.get(VARIABLE):
        return Path(chosen)
    home = Path(environ.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    if platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData/Local") / "bulkmail"
    if platform == "darwin":
        return home / "Library/Application Support/bulkmail"
    state = environ.get("XDG_STATE_HOME", "")
    # The XDG base directory specification: a relative path there is to be ignored.
    return (Path(state) if Path(state).is_absolute() else home / ".local/state") / "bulkmail"


def account_of(relay: Relay) -> str:
    """What a provider counts by: the login and the host; without a login also the port, which may lead elsewhere.

    Of a Unix socket it is the path.
    """
    if relay.socket_path:
        return relay.socket_path
    host = relay.host.rstrip(".").lower()
    return f"{relay.username}@{host}" if relay.username else f"{host}:{relay.port}"


def ledger_path(folder: Path, account: str) -> Path:
    """The file of `account`: a name that people recognise, and a digest that keeps accounts apart."""
    readable = re.sub(r"[^a-z0-9.@_-]+", "-", account.lower())[:60].strip("-.")
    return folder / f"{readable}-{blake2b(account.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}.ledger"


class Ledger:
    """One account's file.  Any number of processes and threads may use it at once; a call may wait for the disk.

    What is reserved counts until it is given back, so that a crash makes us send too little, never too much; so does
    a clock that was set back.  Every method raises `OutboxError` when the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection = _open(path)
        try:
            _tune(self._connection, path)
            with self._writing() as connection:
                _lay_down(connection, path)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection.  What is reserved stays so.  May be called again."""
        with self._lock:
            self._connection.close()

    def reserve(
        self,
        wanted: int,
        now: float,
        *,
        quota: Quota = NO_QUOTA,
        ramp: Ramp | None = None,
        campaign: str = "",
        hold: float = HOLD,
    ) -> Reservation | Hold:
        """The right to write to up to `wanted` recipients (1 or more), within `hold` seconds.

        `campaign` tells the ramps of several campaigns apart; the days of one begin with its first reservation.
        """
        hold = min(hold, LONGEST_HOLD)
        with self._writing() as connection:
            _heal(connection, now)
            if resting := _pause(connection, now):
                return resting
            bookings = _bookings(connection, now)
            free = quota.free(bookings, now)
            if free == 0:
                return Hold(quota.opens_at(bookings, now), f"the quota of {quota} is used up")
            count = wanted if free is None else min(wanted, free)
            if ramp is not None:
                began_at = _ramp_began(connection, campaign, now)
                day = ramp.day(began_at, now)
                since = ramp.begins_at(began_at, day)
                left = ramp.allowance(day) - sum(booking.count for booking in bookings if booking.at >= since)
                if left <= 0:
                    opens_at = ramp.begins_at(began_at, day + 1)
                    return Hold(opens_at, f"the ramp of {ramp} allows {ramp.allowance(day):,} on day {day + 1}")
                count = min(count, left)
            cursor = connection.execute("INSERT INTO reserved (until, count) VALUES (?, ?)", (now + hold, count))
            return Reservation(int(cursor.lastrowid or 0), count, now + hold)

    def settle(self, reservation: Reservation, used: int, now: float) -> None:
        """Of `reservation`, `used` recipients were written to, the last of them by `now`; the others are given back."""
        with self._writing() as connection:
            row = connection.execute("DELETE FROM reserved WHERE id = ? RETURNING count", (reservation.id,)).fetchone()
            if row is not None:  # else it was counted whole, long after its time
                _spend(connection, now, min(used, row[0]))

    def pause(self, seconds: float, why: str, now: float) -> float:
        """Pauses the account for `seconds`, two days at most; returns until when.  A longer pause stays."""
        with self._writing() as connection:
            _heal(connection, now)
            until = now + min(seconds, LONGEST_PAUSE)
            resting = _pause(connection, now)
            if resting and resting.until >= until:
                return resting.until
            connection.execute("INSERT OR REPLACE INTO pause VALUES (1, ?, ?)", (until, why))
            return until

    def paused(self, now: float) -> Hold | None:
        """Until when the account is paused, and why; None if it is not."""
        with self._writing() as connection:
            _heal(connection, now)
            return _pause(connection, now)

    def lift(self) -> None:
        """Ends the pause of the account, because the user says so."""
        with self._writing() as connection:
            connection.execute("DELETE FROM pause")

    def bookings(self, now: float) -> list[QuotaBooking]:
        """What counts towards the quotas, by time: the last day's, and what is reserved."""
        with self._writing() as connection:
            _heal(connection, now)
            return _bookings(connection, now)

    def ramp_began(self, campaign: str) -> float | None:
        """When the first message of `campaign` was promised; None before that."""
        with self._writing() as connection:
            row = connection.execute("SELECT began_at FROM ramp WHERE campaign = ?", (campaign,)).fetchone()
            return None if row is None else float(row[0])

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Alone with the file, in one transaction: committed at the end, rolled back by any exception."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise _explained(error, self._path) from error


def open_ledger(account: str, *, environ: Mapping[str, str] = os.environ) -> Ledger:
    """The ledger of `account` in the user's state folder, made if need be.  Raises `OutboxError`."""
    return Ledger(ledger_path(state_folder(environ), account))


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_network(path.parent.resolve())
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600))
    except OSError as error:
        raise OutboxError(f"{path} cannot be written: {error.strerror}", hint=_ELSEWHERE) from error
    except OutboxError:
        raise OutboxError(
            f"{path.parent} is on a network file system, where two runs could miss each other's counts", hint=_ELSEWHERE
        ) from None
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
    except sqlite3.Error as error:
        raise _explained(error, path) from error
    return connection


def _tune(connection: sqlite3.Connection, path: Path) -> None:
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        # Emptied instead of removed, the journal costs no write to the folder.
        connection.execute("PRAGMA journal_mode = TRUNCATE").fetchone()
    except sqlite3.Error as error:
        raise _explained(error, path) from error


def _lay_down(connection: sqlite3.Connection, path: Path) -> None:
    if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in statements("ledger.sql"):
            connection.execute(statement)
        return
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise OutboxError(f"{path} is not a quota ledger", hint=f"move it away, or set {VARIABLE}")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise OutboxError(
            f"{path} was written by another version of bulkmail: its format is {version}, this one reads"
            f" {SCHEMA_VERSION}",
            hint="use the version that wrote it, or a newer one",
        )


def _heal(connection: sqlite3.Connection, now: float) -> None:
    """Counts what was never given back, forgets what is long past, and pulls in what a clock that was ahead wrote."""
    for row_id, until, count in connection.execute("SELECT id, until, count FROM reserved").fetchall():
        if until > now + LONGEST_HOLD:
            connection.execute("UPDATE reserved SET until = ? WHERE id = ?", (now + LONGEST_HOLD, row_id))
        elif until < now - LONGEST_HOLD:  # its holder is gone
            connection.execute("DELETE FROM reserved WHERE id = ?", (row_id,))
            _spend(connection, until, count)
    latest = now + LONGEST_HOLD
    # Set back by an hour: the last hour's count as if they had gone just now, which is too late but never too early.
    ahead = connection.execute("SELECT sum(count) FROM spent WHERE at > ?", (latest,)).fetchone()[0]
    if ahead:
        connection.execute("DELETE FROM spent WHERE at > ?", (latest,))
        _spend(connection, now, ahead)
    connection.execute("DELETE FROM spent WHERE at < ?", (now - _KEPT,))
    connection.execute("UPDATE pause SET until = ? WHERE until > ?", (now + LONGEST_PAUSE, now + LONGEST_PAUSE))
    connection.execute("UPDATE ramp SET began_at = ? WHERE began_at > ?", (now, latest))


def _spend(connection: sqlite3.Connection, at: float, count: int) -> None:
    if count > 0:
        connection.execute(
            "INSERT INTO spent (at, count) VALUES (?, ?) ON CONFLICT (at) DO UPDATE SET count = count + excluded.count",
            (math.ceil(at / _BUCKET) * _BUCKET, count),
        )


def _bookings(connection: sqlite3.Connection, now: float) -> list[QuotaBooking]:
    rows = connection.execute(
        "SELECT at, count FROM spent WHERE at > ? UNION ALL SELECT until, count FROM reserved ORDER BY 1", (now - DAY,)
    )
    return [QuotaBooking(float(at), count) for at, count in rows]


def _pause(connection: sqlite3.Connection, now: float) -> Hold | None:
    row = connection.execute("SELECT until, why FROM pause WHERE until > ?", (now,)).fetchone()
    return None if row is None else Hold(float(row[0]), row[1])


def _ramp_began(connection: sqlite3.Connection, campaign: str, now: float) -> float:
    connection.execute("INSERT INTO ramp VALUES (?, ?) ON CONFLICT DO NOTHING", (campaign, now))
    return float(connection.execute("SELECT began_at FROM ramp WHERE campaign = ?", (campaign,)).fetchone()[0])


_ELSEWHERE = f"set {VARIABLE} to a folder on a local disk that you may write to"


def _explained(error: sqlite3.Error, path: Path) -> OutboxError:
    code = getattr(error, "sqlite_errorname", "") or ""
    if code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        hint = "move it away; what was sent before is then not counted any more"
        return OutboxError(f"the quota ledger {path} is damaged ({error})", hint=hint)
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return OutboxError(f"the quota ledger {path} is in use by another program", hint="close whatever reads it")
    return OutboxError(f"the quota ledger {path} cannot be used ({error})", hint=_ELSEWHERE)


# -- What one run may still take from the quota ledger of its account, without waiting for the disk at every message.


BATCH = 20  # recipients that are reserved at a time, at first: as many as a crash makes us forgo
MOST = 2_000  # of them, for runs that spend them quickly
QUICK, SLOW = 2.0, 20.0  # seconds that they should last, at least and at most
EARLY = 20.0  # seconds before a reservation ends at which the next one is due


class Allowance:
    """Recipients are spent by plain calls; when few are left, `refill()` asks the ledger in a thread.

    Times are wall-clock seconds.  Only one task at a time calls `refill()` or `settle()`.
    """

    def __init__(
        self, ledger: Ledger, *, quota: Quota = NO_QUOTA, ramp: Ramp | None = None, campaign: str = ""
    ) -> None:
        self._ledger = ledger
        self._quota = quota
        self._ramp = ramp
        self._campaign = campaign
        self._credit = QuotaCredit()
        self._reservation: Reservation | None = None
        self._batch = BATCH
        self._filled_at = 0.0
        self._is_last = False  # the ledger gave all it had

    def take(self, count: int, now: float) -> bool:
        """Spends `count` recipients; False, and nothing is spent, when `refill()` is to be asked first."""
        return self._credit.take(count, now)

    def give_back(self, count: int) -> None:
        """`count` recipients of messages that were not attempted after all."""
        self._credit.give_back(count)

    def is_running_low(self, now: float) -> bool:
        """Whether it is time for `refill()`: before the last one is spent, if there may be more to have."""
        if self._is_last:
            return not self._credit.holds(1, now)
        return not self._credit.holds(1 + self._batch // 4, now) or not self._credit.holds(1, now + EARLY)

    async def refill(self, now: float) -> Hold | None:
        """Reserves more and settles what was spent before; a `Hold` when nothing is left and there is no more.

        What is left may be spent meanwhile.  Raises `OutboxError`.  When it is cancelled, what the ledger gave counts
        until it is settled.
        """
        if not self._credit.holds(1, now):
            await self.settle(now)
        self._batch = _sized(self._batch, lasted=now - self._filled_at)
        before = self._reservation
        got = await anyio.to_thread.run_sync(self._reserve, self._batch, now)
        if isinstance(got, Hold):
            self._is_last = before is not None
            return None if before is not None else got
        used = self._credit.used
        self._credit.fill(got.count, until=got.until)
        self._filled_at = now
        self._is_last = got.count < self._batch
        if before is not None:
            await anyio.to_thread.run_sync(self._ledger.settle, before, used, now)
        return None

    async def settle(self, now: float) -> None:
        """Tells the ledger what was spent and gives the rest back: at the end of a run, and before a long wait."""
        reservation, used = self._reservation, self._credit.used
        self._reservation = None
        self._credit.fill(0, until=now)
        if reservation is not None:
            await anyio.to_thread.run_sync(self._ledger.settle, reservation, used, now)

    async def pause(self, seconds: float, why: str, now: float) -> float:
        """The provider said that a quota is used up: no run writes to anyone for `seconds`; returns until when."""
        return await anyio.to_thread.run_sync(self._ledger.pause, seconds, why, now)

    def _reserve(self, wanted: int, now: float) -> Reservation | Hold:
        """In a thread.  Kept here and not only returned: a cancelled caller does not get it."""
        got = self._ledger.reserve(wanted, now, quota=self._quota, ramp=self._ramp, campaign=self._campaign)
        if isinstance(got, Reservation):
            self._reservation = got
        return got


def _sized(batch: int, *, lasted: float) -> int:
    """How many to reserve when `batch` of them lasted so long: the disk is asked rarely, and a crash costs little."""
    if lasted < QUICK:
        return min(MOST, batch * 2)
    return max(BATCH, batch // 2) if lasted > SLOW else batch
