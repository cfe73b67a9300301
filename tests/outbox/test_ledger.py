"""The quota ledger: shared, durable, and wrong only to the safe side."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import OutboxError
from bulkmail.model.quota import DAY, HOUR, Quota, QuotaBooking, Ramp
from bulkmail.model.relay import Relay
from bulkmail.model.timing import Hold
from bulkmail.outbox import ledger as ledger_module
from bulkmail.outbox.ledger import (
    HOLD,
    LONGEST_HOLD,
    LONGEST_PAUSE,
    Ledger,
    Reservation,
    account_of,
    ledger_path,
    open_ledger,
    state_folder,
)

NOW = 1_800_000_000.0
QUOTA = Quota(10, 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "account.ledger"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as opened:
        yield opened


def reserve(ledger: Ledger, wanted: int, now: float, quota: Quota = QUOTA) -> Reservation:
    got = ledger.reserve(wanted, now, quota=quota)
    assert isinstance(got, Reservation)
    return got


def spend(ledger: Ledger, count: int, now: float) -> None:
    ledger.settle(reserve(ledger, count, now, Quota()), count, now)


def test_ledger_reserves_what_the_quota_leaves(ledger: Ledger) -> None:
    assert reserve(ledger, 7, NOW) == Reservation(1, 7, NOW + HOLD)
    assert reserve(ledger, 7, NOW).count == 3
    assert ledger.reserve(7, NOW, quota=QUOTA) == Hold(NOW + HOLD + HOUR, "the quota of 10/hour, 20/day is used up")


def test_ledger_gives_back_what_was_not_used(ledger: Ledger) -> None:
    ledger.settle(reserve(ledger, 7, NOW), 5, NOW)
    assert ledger.bookings(NOW) == [QuotaBooking(NOW, 5)]
    assert reserve(ledger, 9, NOW).count == 5


def test_ledger_never_books_more_than_was_reserved(ledger: Ledger) -> None:
    reservation = reserve(ledger, 7, NOW)
    ledger.settle(reservation, 99, NOW)
    ledger.settle(reservation, 7, NOW)
    assert ledger.bookings(NOW) == [QuotaBooking(NOW, 7)]


def test_ledger_forgets_when_the_window_has_passed(ledger: Ledger) -> None:
    spend(ledger, 10, NOW)
    assert isinstance(ledger.reserve(1, NOW + HOUR - 1, quota=QUOTA), Hold)
    assert reserve(ledger, 100, NOW + HOUR).count == 10
    refusal = ledger.reserve(1, NOW + 2 * HOUR + HOLD, quota=QUOTA)
    assert isinstance(refusal, Hold)
    assert refusal.until == NOW + DAY


def test_ledger_without_a_quota_counts_and_refuses_no_one(ledger: Ledger) -> None:
    assert reserve(ledger, 10**6, NOW, Quota()).count == 10**6


def test_ledger_is_shared_and_survives(path: Path) -> None:
    with Ledger(path) as one, Ledger(path) as other:
        ledger_one = reserve(one, 4, NOW)
        assert reserve(other, 10, NOW).count == 6
        one.settle(ledger_one, 0, NOW)
        assert reserve(other, 10, NOW).count == 4
    with Ledger(path) as again:
        assert isinstance(again.reserve(1, NOW, quota=QUOTA), Hold)


@pytest.mark.crash
def test_ledger_counts_what_a_killed_run_had_reserved(path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from bulkmail.outbox.ledger import Ledger\n"
        f"Ledger(Path(sys.argv[1])).reserve(8, {NOW})\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, path], check=False)
    with Ledger(path) as ledger:
        assert reserve(ledger, 10, NOW).count == 2
        # Until its time is over and the window has passed since, though no one ever gives it back.
        assert sum(booking.count for booking in ledger.bookings(NOW + LONGEST_HOLD + 2 * HOLD)) == 10
        assert reserve(ledger, 100, NOW + DAY + HOUR, Quota(per_day=10)).count == 10


def test_ledger_is_used_by_many_threads_without_exceeding(path: Path) -> None:
    quota, got = Quota(per_day=100), list[int]()

    def work() -> None:
        with Ledger(path) as ledger:
            while isinstance(reservation := ledger.reserve(3, NOW, quota=quota), Reservation):
                used = reservation.count - (len(got) % 2)
                got.append(used)
                ledger.settle(reservation, used, NOW)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == 100


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_ledger_counts_on_when_the_clock_is_set_back(ledger: Ledger) -> None:
    spend(ledger, 10, NOW)
    assert isinstance(ledger.reserve(1, NOW - HOUR, quota=QUOTA), Hold)
    # As if they had gone just then: not for ever, however far ahead the clock was.
    assert reserve(ledger, 10, NOW).count == 10


def test_ledger_recovers_from_a_clock_that_was_years_ahead(ledger: Ledger) -> None:
    ahead = NOW + 1000 * DAY
    reserve(ledger, 5, ahead)
    spend(ledger, 5, ahead)
    ledger.pause(DAY, "quota", ahead)
    ledger.reserve(1, ahead, ramp=Ramp(1, more=1), campaign="spring")
    assert ledger.paused(NOW) == Hold(NOW + LONGEST_PAUSE, "quota")
    ledger.lift()
    assert isinstance(ledger.reserve(1, NOW, quota=QUOTA), Hold)
    assert reserve(ledger, 10, NOW + LONGEST_HOLD + HOUR).count == 10


STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "settle", "lose"]), st.floats(0, 1200), st.integers(1, 12)), max_size=30
)


@pytest.mark.slow
@given(STEPS)
def test_ledger_lets_no_window_exceed_its_quota(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, float, int]]
) -> None:
    """Anyone who reserves uses it all at the last moment allowed, which is the worst that can happen."""
    used, held, now = list[QuotaBooking](), list[Reservation](), NOW
    with Ledger(tmp_path_factory.mktemp("ledger") / "x.ledger") as ledger:
        for kind, nap, number in steps:
            now += nap
            for gone in [each for each in held if each.until <= now]:
                held.remove(gone)
                used.append(QuotaBooking(gone.until, gone.count))
            if kind == "reserve":
                got = ledger.reserve(number, now, quota=QUOTA)
                held += [got] if isinstance(got, Reservation) else []
            elif held:
                reservation = held.pop()
                count = min(number, reservation.count)
                used.append(QuotaBooking(now, count))
                if kind == "settle":
                    ledger.settle(reservation, count, now)
    for span, limit in QUOTA.limits:
        for booking in used:
            assert sum(each.count for each in used if booking.at - span < each.at <= booking.at) <= limit


# --- pauses and ramps ------------------------------------------------------------------------------------------------


def test_ledger_pauses_until_a_quota_reply_says_so(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.paused(NOW) is None
        assert ledger.pause(DAY, "550 5.4.5 daily limit", NOW) == NOW + DAY
        assert ledger.pause(HOUR, "again", NOW) == NOW + DAY
    with Ledger(path) as ledger:
        expected = Hold(NOW + DAY, "550 5.4.5 daily limit")
        assert ledger.paused(NOW + 1) == ledger.reserve(1, NOW + 1) == expected
        assert ledger.paused(NOW + DAY) is None
        assert ledger.pause(10 * DAY, "long", NOW) == NOW + LONGEST_PAUSE
        ledger.lift()
        assert ledger.paused(NOW) is None


def test_ledger_keeps_to_a_ramp_over_restarts(path: Path) -> None:
    ramp = Ramp(10, percent=50.0)
    for day, allowance in enumerate((10, 15, 22)):
        with Ledger(path) as ledger:
            now = NOW + day * DAY
            assert ledger.ramp_began("spring") == (NOW if day else None)
            got = ledger.reserve(100, now, ramp=ramp, campaign="spring")
            assert isinstance(got, Reservation)
            assert got.count == allowance
            ledger.settle(got, allowance, now)
            refusal = ledger.reserve(1, now + HOUR, ramp=ramp, campaign="spring")
            assert refusal == Hold(now + DAY, f"the ramp of 10/day +50% allows {allowance} on day {day + 1}")


# --- files -----------------------------------------------------------------------------------------------------------


def test_ledger_lies_where_programs_keep_their_state() -> None:
    home = {"HOME": "/home/ann", "USERPROFILE": "/Users/ann"}
    assert state_folder(home, platform="linux") == Path("/home/ann/.local/state/bulkmail")
    assert state_folder({**home, "XDG_STATE_HOME": "/state"}, platform="linux") == Path("/state/bulkmail")
    assert state_folder({**home, "XDG_STATE_HOME": "state"}, platform="linux") == Path(
        "/home/ann/.local/state/bulkmail"
    )
    assert state_folder(home, platform="darwin") == Path("/home/ann/Library/Application Support/bulkmail")
    assert state_folder(home, platform="win32") == Path("/Users/ann/AppData/Local/bulkmail")
    assert state_folder({**home, "LOCALAPPDATA": "/local"}, platform="win32") == Path("/local/bulkmail")
    assert state_folder({**home, "BULKMAIL_STATE_DIR": "/mine"}, platform="win32") == Path("/mine")


def test_ledger_is_one_for_each_account(tmp_path: Path) -> None:
    def account(url: str) -> str:
        return account_of(Relay.parse(url))

    assert (
        account("smtp://ann@Mail.Example.com:587") == account("smtps://ann@mail.example.com") == "ann@mail.example.com"
    )
    assert account("smtp://localhost:25") != account("smtp://localhost:2525")
    assert ledger_path(tmp_path, "ann@a/../b").parent == tmp_path
    assert ledger_path(tmp_path, "a/b") != ledger_path(tmp_path, "a-b")
    assert len(ledger_path(tmp_path, "x" * 5000).name) < 100


def test_ledger_is_for_its_owner_only(tmp_path: Path) -> None:
    environ = {"BULKMAIL_STATE_DIR": str(tmp_path / "deep" / "state")}
    open_ledger("ann@mail.example.com", environ=environ).close()
    folder = tmp_path / "deep" / "state"
    files = list(folder.iterdir())
    assert [file.name.startswith("ann@mail.example.com-") for file in files if file.suffix == ".ledger"] == [True]
    assert all(each.stat().st_mode & 0o077 == 0 for each in (folder, *files))


def test_ledger_refuses_files_of_others(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(OutboxError, match="is not a quota ledger"):
        Ledger(path)
    path.write_bytes(b"no database" * 100)
    with pytest.raises(OutboxError, match="is damaged") as caught:
        Ledger(path)
    assert "move it away" in caught.value.hint


def test_ledger_refuses_another_version(path: Path, ledger: Ledger) -> None:
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(OutboxError, match="its format is 99, this one reads 1"):
        Ledger(path)


def test_ledger_says_when_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutboxError, match="cannot be written") as caught:
        Ledger(tmp_path / "file" / "x.ledger")
    assert "BULKMAIL_STATE_DIR" in caught.value.hint
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutboxError, match="cannot be written"):
        Ledger(tmp_path / "link")


def test_ledger_says_when_someone_holds_it(path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_BUSY_SECONDS", 0.01)
    with Ledger(path) as other:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutboxError, match="is in use by another program"):
            other.bookings(NOW)
        holder.close()
        assert other.bookings(NOW) == []


def test_ledger_is_not_kept_on_a_network(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: os.PathLike[str]) -> None:
        raise OutboxError("no")

    monkeypatch.setattr(ledger_module, "refuse_network", refuse)
    with pytest.raises(OutboxError, match="on a network file system") as caught:
        Ledger(path)
    assert "BULKMAIL_STATE_DIR" in caught.value.hint
