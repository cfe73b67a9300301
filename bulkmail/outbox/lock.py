"""The lock that keeps a second process from sending out of the same outbox, and the file systems where it holds."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from bulkmail.model.errors import OutboxBusy, OutboxError
from bulkmail.model.lazy import dataclass

# -- Which file systems an outbox may lie on: SQLite's WAL needs memory that every process using the file shares.


# 9p and virtiofs are not here although they, too, are served by another kernel: they are the home folder in WSL,
# containers and virtual machines, where every process that could use the outbox runs on this side, under one kernel
# with one page cache.  Where such a mount lacks shared memory SQLite refuses WAL by itself, and we hand that on.
_NETWORK = {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncp", "ncpfs", "afs", "coda", "davfs", "ceph", "glusterfs"}
_CLUSTER = {"lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "ocfs2", "gfs2"}
_FUSE = {"sshfs", "glusterfs", "ceph", "cephfs", "davfs", "davfs2", "curlftpfs", "rclone", "s3fs", "gcsfuse", "goofys"}
_FUSE |= {"mount-s3", "juicefs", "smbnetfs", "gvfsd-fuse", "moosefs", "blobfuse2"}
_REFUSED = _NETWORK | _CLUSTER | {f"fuse.{name}" for name in _FUSE}
_ESCAPE = re.compile(r"\\([0-7]{3})")


def file_system(path: Path, mountinfo: str) -> str:
    """The type of the file system that `path`, absolute and resolved, lies on; empty when `mountinfo` does not say.

    `mountinfo` is the text of `/proc/self/mountinfo` (proc(5)): the mount point is the fifth field, spaces and the like
    as octal escapes; the type follows a lone hyphen.  Of mounts on one point the last covers the others.
    """
    found, depth = "", -1
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = Path(_ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), fields[4]))
        if len(point.parts) >= depth and path.is_relative_to(point):
            found, depth = right.split(" ", 1)[0], len(point.parts)
    return found


def refuse_network(path: Path) -> None:
    """Raises `OutboxError` when `path`, resolved, lies where other machines may write at the same time."""
    kind = ""
    if sys.platform == "win32":
        kind = "a network share" if path.drive.startswith("\\\\") else ""
    else:
        try:
            text = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
        except OSError:  # no Linux, or no /proc: nothing is known against the place
            return
        kind = file_system(path, text)
        kind = f"a network file system ({kind})" if kind in _REFUSED else ""
    if kind:
        raise OutboxError(
            f"{path} is on {kind}, where an outbox could be damaged",
            hint="keep it on a local disk: --outbox FILE",
        )


# -- The lock that keeps a second process from sending out of the same outbox.


if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FAR = 1 << 30  # Windows locks bytes, also against reading: one far behind the text
_PATIENCE = 0.25  # seconds; a reader that looks whether a run is active holds the lock for microseconds


@dataclass(frozen=True, slots=True)
class Holder:
    """Who is sending.  `started_at` is wall-clock seconds; a holder that did not get to write itself down has pid 0."""

    pid: int = 0
    host: str = ""
    started_at: float = 0.0

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started_at))
        return f"process {self.pid} on {self.host}, running since {since}"


class Lock:
    """Held from construction to `release()`, and no longer than this process lives: the kernel lets go of it.

    A side file that a killed process left behind is no obstacle: it is the kernel's lock on it that counts.  Raises
    `OutboxBusy` with the holder, or `OutboxError`.
    """

    def __init__(self, outbox: Path) -> None:
        self._path = side_file(outbox)
        self._descriptor = _acquire(self._path, outbox)

    def release(self) -> None:
        """Lets the next one in and takes the side file away.  May be called again."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        if sys.platform == "win32":
            os.close(descriptor)  # Windows does not remove what is open
            with suppress(OSError):
                self._path.unlink()
        else:
            # Before the release: a process that opened the file meanwhile sees that its name is gone, and reopens it.
            with suppress(FileNotFoundError):
                self._path.unlink()
            os.close(descriptor)


def side_file(outbox: Path) -> Path:
    """Where the lock of `outbox` is kept."""
    return outbox.with_name(outbox.name + ".lock")


def holder(outbox: Path) -> Holder | None:
    """The process that is sending from `outbox` now, or None."""
    path = side_file(outbox)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError:  # it belongs to another user, and cannot be read
        return Holder()
    try:
        return None if _try_lock(descriptor, shared=True) else _read(path) or Holder()
    finally:
        os.close(descriptor)


def _acquire(path: Path, outbox: Path) -> int:
    """An open, locked descriptor of the file that `path` names, with this process written into it."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        descriptor = _open(path)
        try:
            if _try_lock(descriptor):
                if _is_still(path, descriptor):
                    _write_down(descriptor)
                    return descriptor
            elif time.monotonic() > deadline:
                raise OutboxBusy(
                    f"{outbox} is in use by {_read(path) or Holder()}",
                    hint=f"wait until it is done; bulkmail status {outbox} shows where it stands",
                )
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(0.01)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        raise OutboxError(f"{path} cannot be written: {error.strerror}", hint="look at the folder’s rights") from error


def _try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Whether the lock was to be had.  `shared` is for looking: two that look do not see each other."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the second is Windows’ word for it
        return False
    except OSError as error:
        raise OutboxError(
            f"the outbox cannot be locked: {error.strerror}", hint="keep it on a local disk: --outbox FILE"
        ) from error
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether `path` still names the locked file: between opening and locking its last holder may have removed it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write_down(descriptor: int) -> None:
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started_at": time.time()})
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, text.encode())


def _read(path: Path) -> Holder | None:
    try:
        found = json.loads(path.read_bytes())
        return Holder(int(found["pid"]), str(found["host"]), float(found["started_at"]))
    except (OSError, ValueError, KeyError, TypeError):  # just being written, or not ours
        return None
