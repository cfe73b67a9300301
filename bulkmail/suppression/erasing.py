"""An address taken out of the list: every personal field blanked, the digests kept."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from bulkmail.suppression.tables import ListConnection

_PAGE = 500
_ERASE = (
    "UPDATE entry SET key = '', note = '' WHERE digest = :digest AND key || note <> ''",
    "UPDATE entry SET note = '' WHERE lower(note) LIKE :like ESCAPE '\\'",
    "UPDATE event SET key = '', words = '', report = NULL WHERE digest = :digest AND key <> ''",
    "UPDATE event SET words = '' WHERE lower(words) LIKE :like ESCAPE '\\'",
    "UPDATE event SET source = '' WHERE lower(source) LIKE :like ESCAPE '\\'",
    "UPDATE change SET why = '' WHERE (digest = :digest AND why <> '') OR lower(why) LIKE :like ESCAPE '\\'",
)


def erase(connection: ListConnection, key: str, digest: bytes, *, now: float) -> int:
    """Blanks every personal field about `key`, whose digest is `digest`; returns how many records were blanked."""
    like = f"%{_escaped(key.lower())}%"
    blanked = sum(connection.execute(statement, {"digest": digest, "like": like}).rowcount for statement in _ERASE)
    quoting = [(number,) for number, report in _reports(connection) if key.encode() in zlib.decompress(report).lower()]
    connection.executemany("UPDATE event SET report = NULL WHERE id = ?", quoting)
    if blanked or quoting:
        connection.execute(
            "INSERT INTO change (at, digest, what, reason, scope, why, who) VALUES (?, ?, 'erased', '', '', '', '')",
            (now, digest),
        )
    return blanked + len(quoting)


def _reports(connection: ListConnection) -> Iterator[tuple[int, bytes]]:
    after = 0
    while page := connection.execute(
        "SELECT id, report FROM event WHERE report IS NOT NULL AND id > ? ORDER BY id LIMIT ?", (after, _PAGE)
    ).fetchall():
        yield from page
        after = page[-1][0]


def _escaped(text: str) -> str:
    """`text` for LIKE, in which nothing stands for anything else."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
