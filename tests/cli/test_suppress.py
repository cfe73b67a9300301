"""`bulkmail suppress`: the list as people look after it."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bulkmail.cli import main
from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, Proof
from bulkmail.model.recipient import Address
from bulkmail.model.suppression import SuppressionReason
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.ports import Addition, EntryQuery
from tests.e2e.commands import write_campaign

EVERYTHING = EntryQuery()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(state_folder: Path) -> Iterator[SqliteSuppressions]:
    with SqliteSuppressions(state_folder / "suppressions.db") as opened:
        yield opened


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["suppress", *words], prog_name="bulkmail")


def event(number: int, to: str = "ann@example.org", *, run: str = "run-1", kind: FeedbackKind = FeedbackKind.HARD):
    return FeedbackEvent(
        f"report {number}",
        kind,
        time.time(),
        Proof.MESSAGE_ID,
        address=Address.parse(to),
        run_id=run,
        campaign="spring",
        row=17,
        code=550,
        enhanced="5.1.1",
        words="no such \x1b[31muser",
        source="maildir bounces",
    )


def keys(store: SqliteSuppressions) -> set[str]:
    return {entry.key for entry in store.entries(EVERYTHING)}


def test_add_puts_addresses_and_domains_on_the_list(store: SqliteSuppressions) -> None:
    result = run(
        "add", "Ann <Ann@Example.org>", "@Bücher.example", "--note", "by phone", "--until", "30d", "--list", "N"
    )
    assert (result.exit_code, result.output) == (0, "2 addresses added\n")
    found = {entry.key: entry for entry in store.entries(EVERYTHING)}
    assert set(found) == {"ann@example.org", "@xn--bcher-kva.example"}
    ann = found["ann@example.org"]
    assert (ann.reason, ann.scope, ann.note) == (SuppressionReason.MANUAL, "n", "by phone")
    assert ann.until is not None and abs(ann.until - time.time() - 30 * 86_400) < 100
    assert "1 already on the list" in run("add", "ann@example.org", "--list", "n", "--until", "1d").output


@pytest.mark.parametrize("text", ["ann", "a*b@example.org", "@*.example.org", "ann@example.org, bob@example.org", ""])
def test_add_refuses_what_is_no_address(store: SqliteSuppressions, text: str) -> None:
    result = run("add", "bob@example.org", text)
    assert result.exit_code == 2 and "write ann@example.com" in result.output
    assert keys(store) == set()


def test_remove_says_why_in_the_history(store: SqliteSuppressions) -> None:
    store.add([Addition("ann@example.org"), Addition("bob@example.org")])
    result = run("remove", "ann@example.org", "eve@example.org", "--why", "subscribed again")
    assert result.output == "1 entry removed from the list; 1 not on the list\n"
    assert keys(store) == {"bob@example.org"}
    shown = run("show", "ann@example.org").output
    assert "is not on the list" in shown and "subscribed again" in shown


def test_remove_needs_a_reason_and_something_to_remove(store: SqliteSuppressions) -> None:
    store.add([Addition("ann@example.org")])
    assert run("remove", "ann@example.org").exit_code == 2
    assert "name addresses" in run("remove", "--why", "x").output
    assert "do not go with addresses" in run("remove", "ann@example.org", "--since", "2d", "--why", "x").output
    assert keys(store) == {"ann@example.org"}


def test_remove_undoes_many_entries_at_once(store: SqliteSuppressions) -> None:
    store.record([event(1), event(2, "bob@example.net"), event(3, "cy@example.org", kind=FeedbackKind.UNSUBSCRIBE)])
    meant = ("remove", "--reason", "hard", "--since", "2h", "--provider", "example.org", "--why", "a mistake")
    assert run(*meant, "--dry-run").output == "1 entry would be removed\n"
    assert "add --yes" in run(*meant).output and len(keys(store)) == 3
    assert run(*meant, "--yes").output == "1 entry removed from the list\n"
    assert keys(store) == {"bob@example.net", "cy@example.org"}


def test_list_shows_the_newest_and_says_how_many_more(store: SqliteSuppressions) -> None:
    store.add([Addition(f"p{number}@example.org", note="x") for number in range(5)])
    result = run("list", "--limit", "2")
    assert result.output.count("@example.org") == 2 and "5 entries, the newest 2 shown" in result.output
    found = json.loads(run("list", "--json", "--reason", "manual").output)
    assert found["total"] == 5 and found["entries"][0]["reason"] == "manual"
    assert json.loads(run("list", "--json", "--reason", "hard").output)["entries"] == []


def test_show_says_everything_that_is_known(store: SqliteSuppressions) -> None:
    store.record([event(1)])
    store.add([Addition("@example.org", note="left the country")])
    shown = run("show", "Ann@example.org").output
    assert "ann@example.org gets no mail" in shown and "(spring): 550 5.1.1 no such [31muser; all lists" in shown
    assert "left the country" in shown and "(all of @example.org)" in shown
    assert "spring row 17" in shown and "proved by message_id, read from maildir bounces" in shown
    assert "\x1b" not in shown
    found = json.loads(run("show", "ann@example.org", "--json").output)
    assert found["suppressed"] and found["events"][0]["row"] == 17 and found["changes"][0]["what"] == "added"
    assert json.loads(run("show", "bob@example.com", "--json").output)["suppressed"] is False


def test_list_shows_what_looks_like_a_mistake(store: SqliteSuppressions) -> None:
    store.record([event(number, f"p{number}@example.org") for number in range(30)])
    assert "example.org refused 30 addresses of spring as unknown" in run("list", "--held").output
    assert json.loads(run("list", "--held", "--json").output)["held"][0]["count"] == 30


# -- files


def test_import_takes_lines_and_lists(store: SqliteSuppressions, here: Path) -> None:
    (here / "old.txt").write_text("ann@example.org\n# no one\n@example.net\n")
    (here / "old.csv").write_text("name,email\nBob,bob@example.org\nAnn,ANN@example.org\n")
    assert run("import", "old.txt", "--reason", "unsubscribe").output == "2 entries added\n"
    assert run("import", "old.csv", "--reason", "unsubscribe").output == "1 entry added; 1 already on the list\n"
    assert keys(store) == {"ann@example.org", "@example.net", "bob@example.org"}
    assert "import of old.txt" in run("show", "ann@example.org").output


def test_import_with_a_line_that_is_not_understood_adds_nothing(store: SqliteSuppressions, here: Path) -> None:
    (here / "old.txt").write_text("ann@example.org\nbob@@example\n")
    result = run("import", "old.txt")
    assert result.exit_code == 2 and "old.txt:2:" in result.output and keys(store) == set()
    assert run("import", "old.txt", "--skip-faults").output == "1 entry added; 1 could not be read\n"


def test_import_refuses_a_delivery_report(store: SqliteSuppressions, here: Path) -> None:
    (here / "report.csv").write_text("email,delivery_status\nann@example.org,accepted\n")
    result = run("import", "report.csv")
    assert result.exit_code == 2 and "delivery report" in result.output and "--suppress" in result.output
    assert keys(store) == set()


def test_export_comes_back_by_import(store: SqliteSuppressions, here: Path) -> None:
    store.add(
        [
            Addition("ann@example.org", SuppressionReason.UNSUBSCRIBE, "news", note="=1+1"),
            Addition("=1+1@example.org", until=time.time() + 86_400),
            Addition("@example.net"),
        ]
    )
    assert run("export", "-o", "all.csv").output == "3 entries written to all.csv\n"
    assert (here / "all.csv").stat().st_mode & 0o777 == 0o600
    rows = list(csv.DictReader(io.StringIO((here / "all.csv").read_text())))
    assert not any(cell.startswith(("=", "+", "-")) for row in rows for cell in row.values())
    assert run("import", "all.csv", "--file", "other.db").output == "3 entries added\n"
    with SqliteSuppressions(here / "other.db") as other:
        same = [(e.key, e.reason, e.scope, e.note, e.until and int(e.until)) for e in other.entries(EVERYTHING)]
    old = [(e.key, e.reason, e.scope, e.note, e.until and int(e.until)) for e in store.entries(EVERYTHING)]
    assert sorted(same, key=str) == sorted(old, key=str)


def test_hashed_export_names_no_address(store: SqliteSuppressions) -> None:
    store.add([Addition("ann@example.org", note="ann")])
    out = run("export", "--hashed").output
    assert "ann" not in out and store.digest("ann@example.org").hex() in out


def test_hashed_export_is_known_to_its_own_list_alone(store: SqliteSuppressions, here: Path) -> None:
    store.add([Addition("ann@example.org")])
    run("export", "--hashed", "-o", "all.csv")
    store.remove(["ann@example.org"], why="x")
    assert run("import", "all.csv").output == "1 entry added\n"
    assert len(store.history("ann@example.org").entries) == 1
    result = run("import", "all.csv", "--file", "other.db")
    assert result.exit_code == 2 and "made by another list" in result.output


def test_archive_moves_the_list_to_another_machine(store: SqliteSuppressions, here: Path) -> None:
    store.add([Addition("ann@example.org")])
    store.erase("ann@example.org")
    store.record([event(1, "bob@example.org")])
    assert "2 entries written" in run("export", "--archive", "list.archive").output
    assert (here / "list.archive").stat().st_mode & 0o777 == 0o600
    assert run("import", "list.archive", "--file", "new.db").output == "2 entries taken over as a new list\n"
    with SqliteSuppressions(here / "new.db") as new:
        assert new.secret == store.secret and new.history("ann@example.org").entries
        assert new.history("bob@example.org").events
    assert (here / "new.db").stat().st_mode & 0o777 == 0o600
    assert run("import", "list.archive", "--file", "new.db").output == "0 entries added; 2 already on the list\n"
    assert run("export", "--archive", "list.archive").exit_code == 3  # it is there


def test_archive_of_another_list_brings_the_addresses_that_it_knows(store: SqliteSuppressions, here: Path) -> None:
    store.add([Addition("ann@example.org"), Addition("bob@example.org")])
    store.erase("ann@example.org")
    run("export", "--archive", "list.archive")
    run("add", "eve@example.org", "--file", "other.db")
    result = run("import", "list.archive", "--file", "other.db")
    assert result.exit_code == 2 and "erased" in result.output
    assert "1 entry added" in run("import", "list.archive", "--file", "other.db", "--skip-faults").output


# -- with a campaign


@pytest.mark.slow
def test_send_leaves_out_who_is_on_the_list(store: SqliteSuppressions, here: Path) -> None:
    store.add([Addition("ann@example.com", note="asked by phone")])
    campaign = write_campaign(here / "spring", ["ann@example.com", "bob@example.com"], relay="sandbox:")
    result = CliRunner().invoke(main, ["send", str(campaign)], prog_name="bulkmail")
    assert result.exit_code == 0, result.output
    report = next((campaign / "runs").glob("*-report.csv")).read_text("utf-8-sig")
    assert "asked by phone" in report and "added by hand on" in report


def test_settings_say_which_list_and_what_of_it(here: Path, store: SqliteSuppressions) -> None:
    campaign = write_campaign(here / "spring", ["ann@example.com", "bob@example.com"], relay="sandbox:")
    toml = campaign / "campaign.toml"
    toml.write_text(toml.read_text() + '\n[suppressions]\nfile = "shop.db"\napply = ["hard"]\n')
    with SqliteSuppressions(campaign / "shop.db") as shop:
        shop.add([Addition("ann@example.com", SuppressionReason.HARD), Addition("bob@example.com")])
    result = CliRunner().invoke(main, ["check", str(campaign)], prog_name="bulkmail")
    assert "1 suppressed" in result.output


def test_suppress_reads_the_settings_of_the_user(here: Path, state_folder: Path) -> None:
    config = state_folder / "config" / "bulkmail" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[suppressions]\nfile = "{here / "mine.db"}"\n')
    run("add", "ann@example.org")
    assert (here / "mine.db").exists()
    config.write_text('[suppressions]\nsoft = "often"\nfiel = "x"\n')
    result = run("list")
    assert result.exit_code == 2 and "config.toml:2: soft" in result.output
    assert "config.toml:3" in result.output and 'did you mean "file"?' in result.output


def test_check_names_a_key_that_serve_does_not_know(here: Path, state_folder: Path) -> None:
    campaign = write_campaign(here / "spring", ["ann@example.com"], relay="sandbox:")
    toml = campaign / "campaign.toml"
    links = 'unsubscribe = { mailto = "u@shop.example", key_file = "own.key" }\n'
    toml.write_text(toml.read_text().replace("[message]\n", f"[message]\n{links}"))
    config = state_folder / "config" / "bulkmail" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[serve]\nkeys = ["served.key"]\n')
    for path, key in ((campaign / "own.key", "a" * 20), (config.with_name("served.key"), "b" * 20)):
        path.write_text(key)
        path.chmod(0o600)
    assert "[key-not-served]" in CliRunner().invoke(main, ["check", str(campaign)]).output
    config.with_name("served.key").write_text("a" * 20 + "\n")
    assert "[key-not-served]" not in CliRunner().invoke(main, ["check", str(campaign)]).output
