"""An address taken out of the list: every personal field blanked, the digests kept."""

from __future__ import annotations

import sqlite3
import zlib

_ERASE = (
    "UPDATE entry SET key = '', note = '' WHERE digest = :digest AND key || note <> ''",
    "UPDATE entry SET note = '' WHERE note LIKE :like ESCAPE '\\'",
    "UPDATE event SET key = '', words = '', report = NULL WHERE digest = :digest AND key <> ''",
    "UPDATE event SET words = '' WHERE words LIKE :like ESCAPE '\\'",
    "UPDATE event SET source = '' WHERE source LIKE :like ESCAPE '\\'",
    "UPDATE change SET why = '' WHERE (digest = :digest AND why <> '') OR why LIKE :like ESCAPE '\\'",
)


def erase(connection: sqlite3.Connection, key: str, digest: bytes, *, now: float) -> int:
    """Blanks every personal field about `key`, whose digest is `digest`; returns how many records were blanked."""
    like = f"%{_escaped(key)}%"
    blanked = sum(connection.execute(statement, {"digest": digest, "like": like}).rowcount for statement in _ERASE)
    quoting = [
        (number,)
        for number, report in connection.execute("SELECT id, report FROM event WHERE report IS NOT NULL")
        if key.encode() in zlib.decompress(report).lower()
    ]
    connection.executemany("UPDATE event SET report = NULL WHERE id = ?", quoting)
    if blanked or quoting:
        connection.execute(
            "INSERT INTO change (at, digest, what, reason, scope, why, who) VALUES (?, ?, 'erased', '', '', '', '')",
            (now, digest),
        )
    return blanked + len(quoting)


def _escaped(text: str) -> str:
    """`text` for LIKE, in which nothing stands for anything else."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
