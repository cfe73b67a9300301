"""Letters in one file, as people bring them from mailmerge: sent unchanged."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
from click.testing import CliRunner

from bulkmail.cli import main

DATABASE = 'email,name,number\nmyself@example.org,"Myself",17\nbob@example.com,"Bob",42\n'
HEAD = "TO: {{email}}\nSUBJECT: Testing\nFROM: My Self <myself@example.org>\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mailmerge_database.csv").write_text(DATABASE)
    return tmp_path


def send(template: str):  # type: ignore[no-untyped-def]
    Path("mailmerge_template.txt").write_text(template, encoding="utf-8")
    arguments = ["--recipients", "mailmerge_database.csv", "--relay", "sandbox:"]
    result = CliRunner().invoke(main, ["send", "mailmerge_template.txt", *arguments])
    assert result.exit_code == 0, result.output
    files = sorted(Path("runs/mailmerge_template.inbox/new").iterdir())
    found = [message_from_bytes(path.read_bytes(), policy=default) for path in files]
    return sorted(found, key=lambda message: str(message["To"]))


def test_plain_letter_goes_to_everybody() -> None:
    bob, myself = send(f"{HEAD}\nHi, {{{{name}}}},\n\nYour number is {{{{number}}}}.\n")
    assert bob["To"] == "Bob <bob@example.com>"
    assert bob.get_content() == "Hi, Bob,\n\nYour number is 42.\n"
    assert myself.get_content() == "Hi, Myself,\n\nYour number is 17.\n"
    assert Path("runs/mailmerge_template.rehearsal-report.csv").is_file()


def test_blind_copies_go_out_and_are_not_told() -> None:
    messages = send(HEAD + "BCC: myself@example.org\nCC: Boss <boss@example.org>\n\nHi {{name}}\n")
    assert sorted(str(message["To"]) for message in messages) == [
        *["Bob <bob@example.com>"] * 3,
        *["Myself <myself@example.org>"] * 2,  # who has the letter already
    ]
    assert all(message["Cc"] == "Boss <boss@example.org>" and message["Bcc"] is None for message in messages)


def test_letter_with_everything_goes_to_everybody(here: Path) -> None:
    for number in (17, 42):
        (here / f"{number}.txt").write_text(f"file of {number}")
    (here / "image.jpg").write_bytes(b"\xff\xd8\xff")
    bob, _ = send(
        f"{HEAD}ATTACHMENT: {{{{number}}}}.txt\nATTACHMENT: image.jpg\nCONTENT-TYPE: text/markdown\n\n"
        "Hi, **{{name}}**,\n\n![image](image.jpg)\n"
    )
    assert [part.get_filename() for part in bob.iter_attachments()] == ["image.jpg", "42.txt"]
    assert "<strong>Bob</strong>" in bob.get_body(("html",)).get_content()
    assert bob.get_body(("plain",)).get_content() == "Hi, Bob,\n\nimage\n"


def test_status_and_preview_find_a_letter() -> None:
    send(f"{HEAD}\nx\n")
    for command in (["status", "mailmerge_template.txt"], ["inbox", "mailmerge_template.txt"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    preview = ["preview", "mailmerge_template.txt", "--recipients", "mailmerge_database.csv"]
    assert "Subject:   Testing" in CliRunner().invoke(main, preview).output


def test_row_whose_file_is_missing_is_told_before_anything_is_sent(here: Path) -> None:
    (here / "17.txt").write_text("x")
    Path("letter.txt").write_text(f"{HEAD}ATTACHMENT: {{{{number}}}}.txt\n\nx\n")
    result = CliRunner().invoke(main, ["check", "letter.txt", "--recipients", "mailmerge_database.csv"])
    assert "'42.txt' is not there" in result.output
    assert "1 recipient of 2 rows (1 invalid)" in result.output
