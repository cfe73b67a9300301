"""A whole list, with all that came back and its history, from one database to another."""

# ruff: noqa: S608 - statements are put together of our own words

from __future__ import annotations

from bulkmail.suppression.tables import ListConnection, among

_PAGE = 5_000
_TABLES = {  # in an order in which what is referred to comes first; the number of columns of the primary key
    "run": (1, "number run_id campaign list_id outbox began_at is_bulk"),
    "event": (
        1,
        "id source_id kind counts_as held at read_at proof digest key provider run list_id row delivery reason code"
        " enhanced words source report",
    ),
    "sent": (3, "run provider slot count"),
    "mistake": (2, "run provider since"),
    "reached": (2, "digest run at"),
    "entry": (3, "digest scope reason key since until event note seq"),
    "change": (1, "seq at digest what reason scope why who"),
    "intake": (1, "source is_pushed at"),
    "place": (1, "source uidvalidity uid at"),
}
_BOOLEAN = {"is_bulk", "held", "is_pushed"}  # numbers in SQLite


def copy_tables(source: ListConnection, target: ListConnection) -> None:
    """Copies all rows but the secret into empty tables.  Both are in a transaction."""
    for table, (key_columns, names) in _TABLES.items():
        columns = names.split()
        key = ", ".join(columns[:key_columns])
        truths = [place for place, name in enumerate(columns) if name in _BOOLEAN]
        where, after = "", ()
        while page := source.execute(
            f"SELECT {', '.join(columns)} FROM {table} {where} ORDER BY {key} LIMIT {_PAGE}", after
        ).fetchall():
            rows = [list(row) for row in page]
            for row in rows:
                for place in truths:
                    row[place] = bool(row[place])
            target.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES {among(columns)}", rows)
            after = tuple(page[-1][:key_columns])
            where = f"WHERE ({key}) > {among(after)}"
