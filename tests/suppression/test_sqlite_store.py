"""The SQLite store keeps the contract, and what only a file can do wrong."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bulkmail.model.errors import SuppressionError
from bulkmail.model.suppression import SuppressionRules
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.ports import Addition, EntryQuery
from tests.suppression import contract


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "suppressions.db"


USUAL = SuppressionRules()


@pytest.fixture
def open_store(path: Path) -> Iterator[contract.OpenStore]:
    with ExitStack() as stack:

        def open_again(
            *, rules: SuppressionRules = USUAL, clock: Callable[[], float] = time.time
        ) -> SqliteSuppressions:
            return stack.enter_context(SqliteSuppressions(path, rules=rules, clock=clock))

        yield open_again


@pytest.mark.slow
class TestContract(contract.Contract):
    """The suite of all stores."""


def test_file_is_for_its_owner_only(open_store: contract.OpenStore, path: Path) -> None:
    open_store()
    assert path.stat().st_mode & 0o777 == 0o600


def test_file_that_everyone_reads_is_refused(open_store: contract.OpenStore, path: Path) -> None:
    open_store().close()
    path.chmod(0o644)
    with pytest.raises(SuppressionError, match="every user") as caught:
        open_store()
    assert "chmod o-rwx" in caught.value.hint


def test_file_of_a_group_is_taken(open_store: contract.OpenStore, path: Path) -> None:
    open_store().close()
    path.chmod(0o660)
    assert open_store().add([Addition("ann@example.org")]) == 1
    assert path.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize("content", [b"no database at all, but text" * 50, b"SQLite format 3\0" + b"\xff" * 4_000])
def test_file_of_something_else_is_refused(path: Path, open_store: contract.OpenStore, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SuppressionError, match=r"suppressions\.db"):
        open_store()
    assert path.read_bytes() == content


def test_database_of_another_program_is_refused(path: Path, open_store: contract.OpenStore) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE entry (x)")
    other.close()
    path.chmod(0o600)
    with pytest.raises(SuppressionError, match="another program"):
        open_store()


def test_file_of_another_version_is_refused(path: Path, open_store: contract.OpenStore) -> None:
    open_store().close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(SuppressionError, match="its format is 99"):
        open_store()


def test_erased_address_is_nowhere_in_the_file(open_store: contract.OpenStore, path: Path) -> None:
    store = open_store()
    store.record([contract.event(1, to="ann.secret@example.org", words="ann.secret@example.org is unknown")])
    store.add([Addition("ann.secret@example.org", note="ann.secret@example.org called")], why="ann.secret@example.org")
    assert b"ann.secret" in path.read_bytes()
    store.erase("ann.secret@example.org")
    store.close()
    assert not [file for file in path.parent.iterdir() if b"ann.secret" in file.read_bytes()]


WRITER = """
import sys
from pathlib import Path
from bulkmail.suppression.ports import Addition
from bulkmail.suppression.file import SqliteSuppressions
with SqliteSuppressions(Path(sys.argv[1])) as store:
    for number in range(100):
        store.add([Addition(f"{sys.argv[2]}{number}@example.org")])
"""


@pytest.mark.slow
def test_several_programs_write_at_once(open_store: contract.OpenStore, path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    store = open_store()
    assert store.count(EntryQuery()) == 300
    assert len({entry.digest for entry in store.entries(EntryQuery())}) == 300
