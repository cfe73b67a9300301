"""`bulkmail erase` and `bulkmail purge`: what was kept of a person goes, and what is still needed stays."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bulkmail.cli import main
from bulkmail.outbox.lock import Lock
from bulkmail.report.report import Report
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.ports import Addition
from tests.e2e.commands import write_campaign

PEOPLE = ["ann.secret@example.com", "bob@example.com", "cy@example.com"]


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign that was rehearsed: an outbox, three reports and a mail folder."""
    monkeypatch.chdir(tmp_path)
    campaign = write_campaign(tmp_path / "spring", PEOPLE, relay="sandbox:")
    assert run("send", str(campaign)).exit_code == 0
    (campaign / "people.csv").unlink()  # the sender's own
    return campaign


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), prog_name="bulkmail")


def naming(folder: Path, text: str = "ann.secret") -> list[str]:
    """The files below `folder` that name a text, in any case."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.name for path in files if text.encode() in path.read_bytes().lower())


@pytest.mark.slow
def test_erased_address_is_nowhere_any_more(campaign: Path, state_folder: Path) -> None:
    with SqliteSuppressions(state_folder / "suppressions.db") as store:
        store.add([Addition("ann.secret@example.com", note="ann.secret@example.com called")])
    assert len(naming(campaign)) >= 5 and naming(state_folder)
    result = run("erase", "Ann.Secret@example.com", "--yes")
    assert result.exit_code == 0, result.output
    assert naming(campaign) == [] and naming(state_folder) == []
    assert "1 message of rehearsals removed" in result.output
    with SqliteSuppressions(state_folder / "suppressions.db") as store:
        assert store.history("ann.secret@example.com").entries
    assert len(naming(campaign, "bob@example.com")) >= 5
    report = Report.read(next(campaign.rglob("*.outbox")))
    assert report.tally.rows == 3 and report.exit_code == 0
    assert run("status", str(campaign)).exit_code == 0


@pytest.mark.slow
def test_dry_run_names_what_would_be_erased_and_changes_nothing(campaign: Path, state_folder: Path) -> None:
    before = {path: path.read_bytes() for path in campaign.rglob("*") if path.is_file()}
    result = run("erase", PEOPLE[0], "--dry-run")
    assert result.exit_code == 0 and "would be erased" in result.output and "spring.rehearsal-report" in result.output
    assert {path: path.read_bytes() for path in campaign.rglob("*") if path.is_file()} == before
    assert not (state_folder / "suppressions.db").exists()


@pytest.mark.slow
def test_erasing_asks_first(campaign: Path) -> None:
    result = run("erase", PEOPLE[0])
    assert result.exit_code == 2 and "add --yes" in result.output and naming(campaign)


@pytest.mark.slow
def test_run_that_is_open_is_left_and_named(campaign: Path) -> None:
    outbox = next(campaign.rglob("*.outbox"))
    with closing(sqlite3.connect(outbox)) as connection:
        connection.execute("UPDATE delivery SET status = 'in_doubt' WHERE id = 2")
        connection.commit()
    result = run("erase", PEOPLE[0], "--yes")
    assert result.exit_code == 1 and "open or in doubt" in result.output and outbox.name in naming(campaign)


@pytest.mark.slow
def test_run_that_is_in_use_is_left_and_named(campaign: Path) -> None:
    lock = Lock(next(campaign.rglob("*.outbox")))
    try:
        result = run("erase", PEOPLE[0], "--yes")
    finally:
        lock.release()
    assert result.exit_code == 1 and "is in use by" in result.output


@pytest.mark.slow
def test_file_that_is_not_ours_to_change_is_named(campaign: Path) -> None:
    (campaign / "runs" / "trace.txt").write_text("RCPT TO:<ANN.SECRET@example.com>\n")
    result = run("erase", PEOPLE[0], "--yes")
    assert result.exit_code == 1 and "trace.txt" in result.output
    assert naming(campaign) == ["trace.txt"]


@pytest.mark.slow
def test_copies_of_an_erased_address_go_from_other_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    campaign = write_campaign(tmp_path / "spring", [], relay="sandbox:")
    (campaign / "people.csv").write_text("email,first_name,boss\nbob@example.com,Bob,Ann.Secret@example.com\n")
    toml = campaign / "campaign.toml"
    toml.write_text(toml.read_text().replace("[message]\n", '[message]\ncc = "{{ boss }}"\n'))
    assert run("send", str(campaign)).exit_code == 0
    (campaign / "people.csv").unlink()
    assert naming(campaign)
    assert run("erase", PEOPLE[0], "--yes").exit_code == 0
    assert naming(campaign) == [] and naming(campaign, "bob@example.com")


# -- purge


def age(campaign: Path, days: float) -> None:
    """Makes the run as old as that."""
    ended = time.time() - days * 86_400
    for outbox in campaign.rglob("*.outbox"):
        with closing(sqlite3.connect(outbox)) as connection:
            connection.execute("UPDATE run SET ended_at = ?", (ended,))
            connection.commit()
        os.utime(outbox, (ended, ended))


@pytest.mark.slow
def test_purge_removes_old_runs_with_what_is_beside_them(campaign: Path) -> None:
    age(campaign, 100)
    assert "would be removed" in run("purge", "--older-than", "90d", "--dry-run").output
    assert "add --yes" in run("purge", "--older-than", "90d").output
    assert next(campaign.rglob("*.outbox"))
    result = run("purge", "--older-than", "90d", "--yes")
    assert result.exit_code == 0 and "1 run removed" in result.output
    assert [path.name for path in (campaign / "runs").iterdir()] == []
    assert (campaign / "campaign.toml").exists()


@pytest.mark.slow
def test_purge_keeps_what_is_younger(campaign: Path) -> None:
    age(campaign, 80)
    assert "0 runs removed" in run("purge", "--older-than", "90d", "--yes").output
    assert next(campaign.rglob("*.outbox"))


@pytest.mark.slow
def test_purge_never_removes_a_run_in_doubt_nor_its_earlier_passes(campaign: Path) -> None:
    age(campaign, 100)
    outbox = next(campaign.rglob("*.outbox"))
    earlier = outbox.with_name(f"{outbox.stem}.1.outbox")
    earlier.write_bytes(outbox.read_bytes())
    with closing(sqlite3.connect(outbox)) as connection:
        connection.execute("UPDATE delivery SET status = 'in_doubt' WHERE id = 1")
        connection.commit()
    result = run("purge", "--older-than", "90d", "--yes")
    assert "0 runs removed" in result.output and "open or in doubt" in result.output
    assert outbox.exists() and earlier.exists()


@pytest.mark.slow
def test_purge_refuses_an_age_that_is_none(campaign: Path) -> None:
    result = run("purge", "--older-than", "long", "--yes")
    assert result.exit_code == 2 and "--older-than" in result.output
