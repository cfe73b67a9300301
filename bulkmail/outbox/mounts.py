"""Which file systems an outbox may lie on: SQLite's WAL needs memory that every process using the file shares."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from bulkmail.model.errors import OutboxError

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
