"""Outboxes that are damaged, or made by someone else: a sentence, whatever is done with them."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

import bulkmail
from bulkmail.cli import main

ENDLESS = """CREATE VIEW delivery AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
SELECT x AS id, x AS row, '' AS forward_path, 'pending' AS status, 0 AS due_at FROM c"""


def sql(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return change


def cut(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size)


def garbage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = random.Random(7).randbytes(len(content) - 4096)
    path.write_bytes(content)


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    path = tmp_path / "run.outbox"
    campaign = bulkmail.compose(from_="a@shop.test", subject="Hi", text="Dear {{ email }},\n")
    rows = [{"email": f"u{n}@b.test"} for n in range(60)]
    relay = f"maildir:{tmp_path / 'mail'}"
    bulkmail.send_sync(campaign, rows, relay=relay, pace=bulkmail.Pace(limit=40), outbox=path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut(0), id="empty"),
        pytest.param(cut(100), id="cut in the header"),
        pytest.param(cut(9000), id="cut"),
        pytest.param(garbage, id="garbage"),
        pytest.param(sql("ALTER TABLE delivery RENAME TO other", ENDLESS), id="endless view"),
        pytest.param(sql("CREATE TRIGGER t AFTER UPDATE ON delivery BEGIN DELETE FROM row; END"), id="trigger"),
        pytest.param(sql("ALTER TABLE delivery DROP COLUMN tries"), id="no column"),
        pytest.param(sql("DROP TABLE setting"), id="no table"),
        pytest.param(sql("DELETE FROM run"), id="no run"),
        pytest.param(sql("UPDATE run SET created_at = 'abc'"), id="time of the run"),
        pytest.param(sql("UPDATE campaign SET content = x'00'"), id="campaign"),
        pytest.param(sql("UPDATE row SET fields = x'ff00'"), id="fields"),
        pytest.param(sql("UPDATE row SET fields = '[1]'"), id="fields of a list"),
        pytest.param(sql("UPDATE delivery SET status = 'foo', due_at = NULL"), id="status"),
        pytest.param(sql("UPDATE delivery SET due_at = 'zzz' WHERE due_at IS NOT NULL"), id="due"),
        pytest.param(sql("UPDATE delivery SET forward_path = x'ff'"), id="forward path"),
        pytest.param(sql("UPDATE attempt SET at = 'x'"), id="attempt"),
    ],
)
@pytest.mark.parametrize(
    "command", [["status"], ["report"], ["resume", "--relay", "null:"]], ids=lambda words: words[0]
)
def test_damaged_outbox_gets_a_sentence(damage: Callable[[Path], None], command: list[str], outbox: Path) -> None:
    damage(outbox)
    result = CliRunner().invoke(main, [*command, str(outbox)])
    assert result.exit_code != 70, result.output
    if command[0] == "resume":
        assert result.exit_code in (2, 3)
        assert "error:" in result.output


def setting(name: str, value: str) -> Callable[[Path], None]:
    return sql(f"DELETE FROM setting WHERE key = '{name}'", f"INSERT INTO setting SELECT '{name}', {value}")  # noqa: S608


def a_name_that_is_not_utf8(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"CREATE TABLE row (", b"CREATE TABLE \xcbow (", 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(sql("UPDATE run SET row_count = 'x'"), id="number of rows"),
        pytest.param(sql("UPDATE run SET created_at = 1e308"), id="time far off"),
        pytest.param(sql("UPDATE campaign SET content = 5"), id="campaign that is a number"),
        pytest.param(sql("UPDATE campaign SET content = zeroblob(50000000)"), id="huge campaign"),
        pytest.param(a_name_that_is_not_utf8, id="schema"),
        pytest.param(setting("relays", "'{['"), id="relays"),
        pytest.param(setting("relays", f"'{'[' * 20_000}'"), id="deep relays"),
        pytest.param(setting("columns", "'1e999'"), id="columns"),
        pytest.param(setting("number", "''"), id="number of the pass"),
        pytest.param(setting("passes", "'null'"), id="passes"),
        pytest.param(setting("rest", "'{}'"), id="rest"),
        pytest.param(sql("UPDATE delivery SET first_at = 'x'"), id="first try"),
        pytest.param(sql("UPDATE delivery SET forward_path = 5"), id="path that is a number"),
        pytest.param(sql("UPDATE delivery SET tries = x'ff', message_id = x'ff'"), id="tries"),
        pytest.param(sql("UPDATE attempt SET at = 1e308"), id="try far off"),
        pytest.param(sql("UPDATE attempt SET took = x'00', text = 7, relay = x'ff'"), id="attempt"),
    ],
)
def test_damaged_outbox_gets_a_sentence_from_every_command(
    damage: Callable[[Path], None], outbox: Path, tmp_path: Path
) -> None:
    damage(outbox)
    content = outbox.read_bytes()
    mail = tmp_path / "mail"
    (tmp_path / "message.txt").write_text("FROM: a@shop.test\nTO: {{ email }}\nSUBJECT: Hi\n\nDear reader\n")
    (tmp_path / "other.csv").write_text("email\nann@example.com\n")
    send = [
        "send",
        str(tmp_path / "message.txt"),
        "--recipients",
        str(tmp_path / "other.csv"),
        "--relay",
        "null:",
        "--yes",
    ]
    for command in (
        ["status", str(outbox)],
        ["report", str(outbox)],
        *(["report", str(outbox), "-o", str(tmp_path / f"report{suffix}")] for suffix in (".csv", ".json", ".html")),
        ["inbox", str(outbox)],
        [*send, "--outbox", str(tmp_path / "o.outbox"), "--suppress", str(outbox)],
        [*send, "--outbox", str(outbox), "--changed"],
        ["reconcile", str(outbox), "--maildir", str(mail), "--yes"],
        ["cancel", str(outbox), "--yes"],
    ):
        outbox.write_bytes(content)
        result = CliRunner().invoke(main, command)
        assert result.exit_code != 70, (command, result.output)


def test_outbox_as_it_was_made_is_no_damaged_one(outbox: Path) -> None:
    assert CliRunner().invoke(main, ["status", str(outbox)]).exit_code == 0
    result = CliRunner().invoke(main, ["report", str(outbox), "--format", "csv"])
    assert (result.exit_code, result.output.count("@b.test")) == (0, 60)
