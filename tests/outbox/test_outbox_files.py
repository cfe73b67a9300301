"""The file: whose it is, who may have it, and what its errors say."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.errors import OutboxBusy, OutboxError
from bulkmail.model.recipient import Address
from bulkmail.model.tally import Status
from bulkmail.outbox import lock, sqlite_file
from bulkmail.outbox import lock as locks
from bulkmail.outbox.outbox import Entry, Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.run_info import RunInfo
from bulkmail.outbox.settling import Settler
from tests.outbox.making import (
    BUSY,
    LOST,
    OK,
    UNKNOWN,
    due,
    fill,
    make_entries,
    make_mark,
    make_recipient,
    make_settlement,
    send,
    statuses,
)

ROOT = Path(__file__).parents[2]


def run_python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=15, check=False)


def names(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


# Opening --------------------------------------------------------------------------------------------------------------

Opener = Callable[[Path], object]
BOTH = pytest.mark.parametrize("opener", [Outbox.open, OutboxReader.open], ids=["outbox", "reader"])


@BOTH
def test_missing_file_is_said_to_be_missing(opener: Opener, path: Path) -> None:
    with pytest.raises(OutboxError, match=r"there is no outbox at .*run\.outbox"):
        opener(path)
    assert names(path.parent) == []


@BOTH
@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is empty, not an outbox", id="empty"),
        pytest.param(b"email,name\na@b.org,Ann\n" * 500, "is not an outbox", id="a-list"),
        pytest.param(
            b"SQLite format 3\0" + b"\xff" * 5000, "is (not an outbox|damaged)", id="garbage-behind-the-magic"
        ),
    ],
)
def test_other_file_is_refused_and_left_alone(opener: Opener, path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(OutboxError, match=f"run.outbox {message}") as caught:
        opener(path)
    assert caught.value.hint
    assert path.read_bytes() == content
    assert names(path.parent) == ["run.outbox"]


@BOTH
def test_database_of_another_program_is_refused_and_left_alone(opener: Opener, path: Path) -> None:
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE run (x)")
    foreign.commit()
    foreign.close()
    before = path.read_bytes()
    with pytest.raises(OutboxError, match="is not an outbox, but a database of another program"):
        opener(path)
    assert path.read_bytes() == before


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@BOTH
def test_outbox_of_a_newer_version_is_refused(opener: Opener, path: Path, create: Callable[..., Outbox]) -> None:
    create(make_entries(1)).close()
    change(path, "PRAGMA user_version = 99")
    with pytest.raises(OutboxError, match="another version of bulkmail: its format is 99, this one reads 3"):
        opener(path)
    assert names(path.parent) == ["run.outbox"]


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(
    ("statement", "message"),
    [
        pytest.param("DELETE FROM row WHERE number = 3", "is damaged: it should have 3 rows and has 2", id="rows"),
        pytest.param("DELETE FROM run", "is damaged: it does not say which run it is", id="no-run"),
        pytest.param("UPDATE campaign SET content = x'c1'", "is damaged: its campaign cannot be read", id="campaign"),
        pytest.param("DROP TABLE setting", "is damaged: its table 'setting' is missing", id="no-table"),
    ],
)
def test_damaged_outbox_is_refused(
    opener: Opener, path: Path, create: Callable[..., Outbox], statement: str, message: str
) -> None:
    campaign = Campaign("x", Template("x", "a@example.org"), Template("x", "s"), text=Template("x", "t"))
    create(make_entries(3), campaign=campaign).close()
    change(path, statement)
    with pytest.raises(OutboxError, match=message):
        opener(path)
    assert names(path.parent) == ["run.outbox"]


@BOTH
def test_truncated_outbox_is_damaged(opener: Opener, path: Path, create: Callable[..., Outbox]) -> None:
    create(make_entries(500)).close()
    path.write_bytes(path.read_bytes()[: 4096 * 5])

    def use() -> None:
        with opener(path) as opened:  # type: ignore[attr-defined]
            opened.tally()

    with pytest.raises(OutboxError, match=r"run\.outbox is damaged"):
        use()


def test_campaign_that_cannot_be_stored_is_refused_before_anything_is_made(path: Path) -> None:
    campaign = Campaign("x", Template("x", "\ud800"), Template("x", "s"), text=Template("x", "t"))
    with pytest.raises(OutboxError, match="the campaign 'x' cannot be recorded"):
        Outbox.create(path, campaign=campaign)
    assert names(path.parent) == []


# Creating -------------------------------------------------------------------------------------------------------------


def test_create_makes_the_folders_above(tmp_path: Path) -> None:
    with Outbox.create(tmp_path / "a" / "b" / "x.outbox", campaign=None) as outbox:
        assert outbox.path == tmp_path / "a" / "b" / "x.outbox"


def test_create_never_writes_over_a_run(create: Callable[..., Outbox]) -> None:
    first = create(make_entries(1))
    run_id = first.run_id
    first.close()
    with pytest.raises(OutboxError, match="exists already") as caught:
        create()
    assert "bulkmail resume" in caught.value.hint
    with Outbox.open(first.path) as outbox:
        assert outbox.run_id == run_id


def test_create_starts_over_on_request(create: Callable[..., Outbox], path: Path) -> None:
    """A log that a killed run left, complete with checksums, would be played into the new file if it stayed."""
    outbox = create(make_entries(300))
    for delivery in due(outbox):
        send(outbox, delivery)
    log = path.with_name("run.outbox-wal")
    stale = log.read_bytes()
    outbox.close()
    log.write_bytes(stale)
    for leftover in ("-shm", "-journal"):
        path.with_name(path.name + leftover).write_bytes(b"stale" * 1000)
    outbox = create(make_entries(1), replace=True)
    assert statuses(outbox) == {Status.PENDING: 1}


def test_create_never_takes_a_run_away_from_who_sends_it(create: Callable[..., Outbox]) -> None:
    first = create(make_entries(2))
    with pytest.raises(OutboxBusy):
        create(replace=True)
    assert first.tally().rows == 2


@pytest.mark.parametrize("made", ["file", "folder"])
def test_place_that_cannot_be_written_is_named(tmp_path: Path, made: str) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    target = blocked / "x.outbox" if made == "file" else blocked / "deep" / "x.outbox"
    with pytest.raises(OutboxError, match=r"blocked.* cannot be written: (Not a directory|File exists)"):
        Outbox.create(target, campaign=None)


def leave_half_written(path: Path) -> None:
    """As a kill leaves the file in the middle of a change that does not go through the -wal."""
    journal = path.with_name(f"{path.name}-journal")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("UPDATE row SET name = hex(zeroblob(2000))")
        half, undo = path.read_bytes(), journal.read_bytes()
    path.write_bytes(half)
    journal.write_bytes(undo)


def test_file_left_half_written_is_put_in_order_by_the_next_reader(create: Callable[..., Outbox], path: Path) -> None:
    with create(make_entries(300)) as outbox:
        send(outbox, due(outbox)[0])
    whole = path.read_bytes()
    leave_half_written(path)
    assert path.read_bytes() != whole
    with OutboxReader.open(path) as reader:
        assert reader.tally()[Status.ACCEPTED] == 1
        assert all(len(row.name) < 100 for row in reader.rows())
    assert path.read_bytes() == whole


def test_file_left_half_written_is_not_called_damaged_where_nothing_may_be_written(
    create: Callable[..., Outbox], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(make_entries(300)).close()
    leave_half_written(path)
    connect = sqlite_file.connect
    monkeypatch.setattr(sqlite_file, "connect", lambda path: connect(path, writes=False))
    with pytest.raises(OutboxError, match="left half written by a program that was killed") as caught:
        OutboxReader.open(path)
    assert "with write permission" in caught.value.hint


@pytest.mark.crash
def test_killed_creation_leaves_nothing_that_could_be_opened(path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from bulkmail.outbox import sqlite_file
from bulkmail.outbox.outbox import Outbox
sqlite_file.put_in_place = lambda draft, path: os.kill(os.getpid(), signal.SIGKILL)
Outbox.create(Path(sys.argv[1]), campaign=None)
"""
    assert run_python(script, path).returncode == -9
    assert not path.exists()
    with Outbox.create(path, campaign=None) as outbox:
        fill(outbox, make_entries(1))
    assert names(path.parent) == ["run.outbox"]


def test_failed_creation_leaves_the_old_run_and_no_lock(
    create: Callable[..., Outbox], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(make_entries(2)).close()
    monkeypatch.setattr(sqlite_file, "statements", lambda name: ("CREATE NONSENSE",))
    with pytest.raises(OutboxError, match=r"run\.outbox.* cannot be used .*NONSENSE"):
        create(replace=True)
    assert names(path.parent) == ["run.outbox"]
    with OutboxReader.open(path) as reader:
        assert reader.tally().rows == 2


def test_link_to_an_outbox_is_the_same_outbox(create: Callable[..., Outbox], path: Path, tmp_path: Path) -> None:
    create(make_entries(1))
    link = tmp_path / "link.outbox"
    link.symlink_to(path)
    with pytest.raises(OutboxBusy):
        Outbox.open(link)


def test_awkward_file_names_are_no_obstacle(tmp_path: Path) -> None:
    for name in ("100% ?mode=memory#x&y.outbox", "Grüße \u2028.outbox", os.fsdecode(b"\xff.outbox"), "a'b;--.outbox"):
        with Outbox.create(tmp_path / name, campaign=None) as outbox:
            fill(outbox, make_entries(1))
        assert (tmp_path / name).is_file()
        with OutboxReader.open(tmp_path / name) as reader:
            assert reader.tally().rows == 1


# The lock -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_second_process_is_reported_who_has_it(create: Callable[..., Outbox], path: Path) -> None:
    create(make_entries(1))
    script = """
import sys
from pathlib import Path
from bulkmail.model.errors import OutboxBusy
from bulkmail.outbox.outbox import Outbox
try:
    Outbox.open(Path(sys.argv[1]))
except OutboxBusy as error:
    print(error, error.hint, sep="\\n")
"""
    said, hint = run_python(script, path).stdout.splitlines()
    assert f"is in use by process {os.getpid()} on {socket.gethostname()}, running since 20" in said
    assert "bulkmail status" in hint


def test_reader_sees_who_sends(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(1))
    with OutboxReader.open(path) as reader:
        assert reader.is_running == (os.getpid(), socket.gethostname())
        outbox.close()
        assert reader.is_running is None


def test_lock_file_of_a_dead_process_is_no_obstacle(create: Callable[..., Outbox], path: Path) -> None:
    create(make_entries(1)).close()
    side = locks.side_file(path)
    side.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started_at": 1.0}))
    with OutboxReader.open(path) as reader:
        assert reader.is_running is None
    with Outbox.open(path) as outbox:
        assert outbox.tally().rows == 1
    assert not side.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "\x00" * 100])
def test_holder_that_did_not_write_itself_down_is_another_process(path: Path, text: str) -> None:
    held = locks.Lock(path)
    locks.side_file(path).write_text(text)
    assert locks.holder(path) == locks.Holder()
    with pytest.raises(OutboxBusy, match="is in use by another process"):
        locks.Lock(path)
    held.release()
    held.release()
    assert locks.holder(path) is None


def test_lock_is_not_fooled_by_a_file_that_its_last_holder_removed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classic race: opened before the holder removed it, locked after."""
    first = locks.Lock(path)
    opened = locks._open

    def open_late(side: Path) -> int:
        monkeypatch.setattr(locks, "_open", opened)
        descriptor = opened(side)
        first.release()
        return descriptor

    monkeypatch.setattr(locks, "_open", open_late)
    second = locks.Lock(path)
    with pytest.raises(OutboxBusy):
        locks.Lock(path)
    second.release()


def test_reader_that_only_looks_is_no_obstacle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = [True]
    try_lock = locks._try_lock

    def busy_once(descriptor: int, *, shared: bool = False) -> bool:
        return not looking.pop() if looking else try_lock(descriptor, shared=shared)

    monkeypatch.setattr(locks, "_try_lock", busy_once)
    locks.Lock(path).release()
    assert looking == []


def test_lock_file_that_is_not_ours_to_read_is_someones(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", file)

    monkeypatch.setattr(locks.os, "open", refuse)
    assert locks.holder(path) == locks.Holder()


def test_lock_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutboxError, match=r"missing/run\.outbox\.lock cannot be written: No such file"):
        locks.Lock(tmp_path / "missing" / "run.outbox")


def test_file_system_without_locks_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with pytest.raises(OutboxError, match="cannot be locked: No locks available"):
        locks.Lock(path)


# Network file systems -------------------------------------------------------------------------------------------------

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:30 / /home rw,relatime shared:2 master:3 - nfs4 server:/home rw
31 30 0:31 / /home/ann/local rw - xfs /dev/vdb rw
32 27 0:32 / /mnt/My\040Share rw - cifs //server/share rw
33 27 0:33 / /mnt/over rw - autofs systemd-1 rw
34 33 0:34 / /mnt/over rw - nfs server:/over rw
35 27 0:35 / /mnt/ssh rw - fuse.sshfs ann@host: rw
36 27 0:36 / /mnt/c rw - 9p drvfs rw
37 27 0:37 / /mnt/vm rw - virtiofs share rw
broken line
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/var/run.outbox", "ext4"),
        ("/home/ann/x.outbox", "nfs4"),
        ("/home/ann/local/x.outbox", "xfs"),
        ("/home/ann/localx", "nfs4"),
        ("/mnt/My Share/x.outbox", "cifs"),
        ("/mnt/over/x", "nfs"),
        ("/mnt/ssh/x", "fuse.sshfs"),
        ("/mnt/c/x", "9p"),
    ],
)
def test_file_system_is_that_of_the_nearest_mount(place: str, kind: str) -> None:
    assert lock.file_system(Path(place), MOUNTS) == kind


def test_file_system_is_unknown_without_a_mount() -> None:
    assert lock.file_system(Path("/x"), "") == ""


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "ceph", "glusterfs", "fuse.rclone"]
)
def test_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda self: f"1 0 0:1 / / rw - {kind} x rw\n".encode())
    with pytest.raises(OutboxError, match=rf"run.outbox is on a network file system \({kind}\)") as caught:
        Outbox.create(path, campaign=None)
    assert caught.value.hint == "keep it on a local disk: --outbox FILE"
    assert names(path.parent) == []


@pytest.mark.parametrize("kind", ["ext4", "tmpfs", "overlay", "9p", "virtiofs", "btrfs"])
def test_local_file_system_is_taken(path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda self: f"1 0 0:1 / / rw - {kind} x rw\n".encode())
    lock.refuse_network(path)


def test_nothing_is_held_against_a_place_that_nothing_is_known_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path) -> bytes:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_bytes", missing)
    lock.refuse_network(path)


def test_windows_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Share:
        drive = "\\\\server\\share"

        def __str__(self) -> str:
            return "\\\\server\\share\\x.outbox"

    monkeypatch.setattr(lock.sys, "platform", "win32")
    with pytest.raises(OutboxError, match="is on a network share"):
        lock.refuse_network(Share())  # type: ignore[arg-type]


def test_file_system_without_shared_memory_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    class NoWal(sqlite3.Connection):
        def execute(self, statement: str, *rest: object) -> sqlite3.Cursor:  # type: ignore[override]
            return super().execute(statement.replace("= WAL", "= DELETE"), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=NoWal, **options))
    with pytest.raises(OutboxError, match="on a file system without shared memory"):
        Outbox.create(path, campaign=None)
    assert not locks.side_file(path).exists()


# The disk -------------------------------------------------------------------------------------------------------------


def limit_pages(outbox: Outbox, more: int) -> None:
    with outbox.store.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + more}")


def test_full_disk_while_loading_is_reported_and_nothing_half_stays(create: Callable[..., Outbox]) -> None:
    outbox = create()
    outbox.record(make_entries(5))
    limit_pages(outbox, 2)
    with pytest.raises(
        OutboxError, match=r"run\.outbox cannot grow: the disk is full \(database or disk is full\)"
    ) as caught:
        outbox.record(make_entries(1000))
    assert "bulkmail resume" in caught.value.hint
    assert outbox.tally().rows == 5
    limit_pages(outbox, 1000)
    outbox.record(make_entries(5))
    assert outbox.tally().rows == 10


@pytest.mark.slow
def test_full_disk_while_sending_keeps_what_was_written(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(3000))
    limit_pages(outbox, 3)
    written = 0
    with pytest.raises(OutboxError, match="the disk is full"):
        for delivery in due(outbox):
            outbox.write([make_mark(delivery), make_settlement(delivery)])
            written += 1
    assert 0 < written < 3000
    assert statuses(outbox) == {Status.ACCEPTED: written, Status.PENDING: 3000 - written}
    outbox.close()
    with Outbox.open(path) as outbox:
        assert statuses(outbox) == {Status.ACCEPTED: written, Status.PENDING: 3000 - written}
        assert outbox.newly_in_doubt == 0


@pytest.mark.slow
def test_refusing_disk_is_reported_in_the_systems_words(create: Callable[..., Outbox], path: Path) -> None:
    """A real write error: the process may not make files of more than this many bytes."""
    create(make_entries(2000)).close()
    script = """
import resource, signal, sys
from pathlib import Path
from bulkmail.model.errors import OutboxError
from bulkmail.outbox.outbox import Outbox
from tests.outbox.making import due, send
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
outbox = Outbox.open(Path(sys.argv[1]))
everyone = due(outbox)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number, delivery in enumerate(everyone):
        send(outbox, delivery)
except OutboxError as error:
    print(number, error, sep="\\n")
"""
    done = run_python(script, path)
    written, said = done.stdout.splitlines()
    assert f"{path} cannot be read or written (disk I/O error)" in said
    with Outbox.open(path) as outbox:
        accepted = outbox.tally()[Status.ACCEPTED]
        assert accepted == int(written) > 0
        assert outbox.tally().adds_up


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts file systems")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not follow RLIMIT_AS")
def test_memory_that_is_really_used_up_leaves_the_outbox_in_order(path: Path) -> None:
    """What could not be recorded is not there; what comes afterwards, with memory to be had again, is."""
    script = """
import resource, sys
from pathlib import Path
from bulkmail.outbox.outbox import Entry, Outbox, ReadyMade
outbox = Outbox.create(Path(sys.argv[1]), campaign=None)
def entry(size):
    return Entry(ReadyMade(b"x" * size, "me@example.org", "<1@example.org>", "label"), forward_paths=("a@example.org",))
large = entry(100_000_000)
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 20_000_000, resource.RLIM_INFINITY))
try:
    outbox.record([entry(10), large])
except MemoryError:
    print("no memory")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
outbox.record([entry(10)])
outbox.finish_loading()
print(outbox.tally().rows)
outbox.close()
"""
    assert run_python(script, path).stdout.split("\n") == ["no memory", "1", ""]


def test_disk_that_is_really_full(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this container does not let root mount")
    try:
        with Outbox.create(tmp_path / "x.outbox", campaign=None) as outbox:
            fill(outbox, make_entries(300))
            with pytest.raises(OutboxError, match="the disk is full"):
                for delivery in due(outbox) * 50:
                    send(outbox, delivery)
            assert outbox.tally().adds_up
            accepted = outbox.tally()[Status.ACCEPTED]
        with OutboxReader.open(tmp_path / "x.outbox") as reader:
            assert reader.tally()[Status.ACCEPTED] == accepted
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_failure_to_tidy_up_is_reported(create: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = create(make_entries(1))

    class Broken:
        """A connection whose disk fails when the log is to be moved into the file."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def execute(self, statement: str) -> sqlite3.Cursor:
            if "journal_mode" in statement:
                raise sqlite3.OperationalError("disk I/O error")
            return self._connection.execute(statement)

        def close(self) -> None:
            self._connection.close()

    monkeypatch.setattr(outbox.store, "connection", Broken(outbox.store.connection))
    with pytest.raises(OutboxError, match="disk I/O error"):
        outbox.close()
    assert locks.holder(outbox.store.path or Path()) is None


def test_opening_that_fails_half_way_lets_go(
    create: Callable[..., Outbox], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(make_entries(1)).close()

    def fail(self: Settler, connection: sqlite3.Connection, *, relay: str, now: float) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Settler, "recover", fail)
        with pytest.raises(KeyboardInterrupt):
            Outbox.open(path)
    Outbox.open(path).close()


def test_file_that_may_not_be_opened_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(OutboxError, match=r"run\.outbox cannot be opened \(unable to open database file\)"):
        sqlite_file.connect(path)


def test_folder_in_the_way_of_a_new_outbox_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(OutboxError, match=r"run\.outbox cannot be written: Is a directory"):
        Outbox.create(path, campaign=None, replace=True)
    assert names(path.parent) == ["run.outbox"]


def test_finished_run_that_someone_reads_is_not_gone_on_with(
    create: Callable[..., Outbox], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(make_entries(1)).close()
    monkeypatch.setattr(sqlite_file, "_BUSY_SECONDS", 0.05)
    with (
        OutboxReader.open(path) as reader,
        pytest.raises(OutboxError, match="is in use by another program") as caught,
    ):
        Outbox.open(path)
    assert "close whatever reads it" in caught.value.hint
    assert reader.is_running is None
    Outbox.open(path).close()


def test_failure_at_the_end_does_not_hide_what_went_wrong_first(
    create: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: sqlite_file.OutboxFile) -> None:
        raise OutboxError("the disk is gone")

    monkeypatch.setattr(sqlite_file.OutboxFile, "settle_down", fail)
    with pytest.raises(ValueError, match="first") as caught, create(make_entries(1)):
        raise ValueError("first")
    assert caught.value.__notes__ == ["the disk is gone"]
    monkeypatch.undo()
    create(replace=True).close()  # the lock is free again
    monkeypatch.setattr(sqlite_file.OutboxFile, "settle_down", fail)
    with pytest.raises(OutboxError, match="the disk is gone"):
        create(replace=True).close()


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_reader_shows_one_moment_while_the_writer_goes_on(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(2500))
    everyone = due(outbox)
    send(outbox, everyone[0])
    with OutboxReader.open(path) as reader:
        rows = reader.rows()
        first = next(rows)
        for delivery in everyone[1:]:
            send(outbox, delivery)
        rest = list(rows)
        assert [row.row for row in (first, *rest)] == list(range(1, 2501))
        assert {row.status for row in rest} == {Status.PENDING}
        assert reader.tally().by_status == {Status.ACCEPTED: 1, Status.PENDING: 2499}
    with OutboxReader.open(path) as reader:
        assert reader.tally().by_status == {Status.ACCEPTED: 2500}


def test_reader_neither_writes_nor_checkpoints(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(3))
    send(outbox, due(outbox)[0])
    log = path.with_name("run.outbox-wal")
    before = (path.read_bytes(), log.read_bytes())
    with OutboxReader.open(path) as reader:
        list(reader.rows())
        with pytest.raises(OutboxError, match="cannot be written"), reader._store.writing() as connection:
            connection.execute("DELETE FROM row")
    assert (path.read_bytes(), log.read_bytes()) == before


def test_reader_of_a_finished_run_leaves_nothing_beside_it(create: Callable[..., Outbox], path: Path) -> None:
    create(make_entries(3)).close()
    path.chmod(0o400)
    with OutboxReader.open(path) as reader:
        assert len(list(reader.rows())) == 3
    assert names(path.parent) == ["run.outbox"]


def test_reader_shows_the_run_as_a_whole(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(3), info=RunInfo(relay="smtp://x"))
    with OutboxReader.open(path) as reader:
        assert (reader.run_id, reader.info, reader.campaign) == (outbox.run_id, RunInfo(relay="smtp://x"), None)
        assert reader.is_loaded
        assert reader.name == str(path)
        assert reader.created_at > 1e9
        assert (reader.started_at, reader.ended_at, reader.recovered, reader.recovered_at) == (None, None, 0, None)


def test_reader_of_an_outbox_in_memory_sees_it_as_it_is(memory: Outbox) -> None:
    fill(memory, make_entries(1))
    with OutboxReader.over(memory) as reader:
        assert reader.is_running is None
        send(memory, due(memory)[0])
        assert reader.tally().by_status == {Status.ACCEPTED: 1}
    assert memory.tally().rows == 1, "the reader must not close what is not its own"


def test_reached_are_those_who_have_the_message_or_may_have_it(memory: Outbox) -> None:
    people = [make_recipient(n, address=Address(f"User{n}", "example.org")) for n in range(1, 6)]
    fill(memory, [Entry(person) for person in people])
    for delivery, event in zip(due(memory), (OK, UNKNOWN, BUSY, LOST), strict=False):
        send(memory, delivery, event)
    reader = OutboxReader.over(memory)
    assert list(reader.reached()) == ["user1@example.org", "user4@example.org"]
    assert [row.row for row in reader.in_doubt()] == [4]


def test_writer_is_not_stopped_at_the_end_by_a_reader(create: Callable[..., Outbox], path: Path) -> None:
    outbox = create(make_entries(1))
    send(outbox, due(outbox)[0])
    with OutboxReader.open(path) as reader:
        outbox.finish()
        outbox.close()
        assert reader.tally().rows == 1
    with OutboxReader.open(path) as reader:
        assert reader.ended_at is not None
        assert reader.tally().by_status == {Status.ACCEPTED: 1}
    Outbox.open(path).close()
    assert names(path.parent) == ["run.outbox"]
