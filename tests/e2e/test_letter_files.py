"""Messages in one file, as people bring them from mailmerge: sent unchanged."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
from click.testing import CliRunner

from bulkmail.cli import main

pytestmark = pytest.mark.slow

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


def test_plain_message_goes_to_all() -> None:
    bob, myself = send(f"{HEAD}\nHi, {{{{name}}}},\n\nYour number is {{{{number}}}}.\n")
    assert bob["To"] == "bob@example.com", "the name column is not put into To unasked"
    assert bob.get_content() == "Hi, Bob,\n\nYour number is 42.\n"
    assert myself.get_content() == "Hi, Myself,\n\nYour number is 17.\n"
    assert Path("runs/mailmerge_template.rehearsal-report.csv").is_file()


def test_blind_copies_go_out_and_are_not_reported() -> None:
    messages = send(HEAD + "BCC: myself@example.org\nCC: Boss <boss@example.org>\n\nHi {{name}}\n")
    assert sorted(str(message["To"]) for message in messages) == [
        *["bob@example.com"] * 3,
        *["myself@example.org"] * 2,  # who has the message already
    ]
    assert all(message["Cc"] == "Boss <boss@example.org>" and message["Bcc"] is None for message in messages)


def test_message_with_everything_goes_to_all(here: Path) -> None:
    for number in (17, 42):
        (here / f"{number}.txt").write_text(f"file of {number}")
    (here / "image.jpg").write_bytes(b"\xff\xd8\xff")
    bob, _ = send(
        f"{HEAD}ATTACHMENT: {{{{number}}}}.txt\nATTACHMENT: image.jpg\nCONTENT-TYPE: text/markdown\n\n"
        "Hi, **{{name}}**,\n\n![image](image.jpg)\n"
    )
    assert [part.get_filename() for part in bob.iter_attachments()] == ["42.txt"]
    assert [part.get_filename() for part in bob.walk() if part.get_content_type() == "image/jpeg"] == ["image.jpg"]
    assert "<strong>Bob</strong>" in bob.get_body(("html",)).get_content()
    assert bob.get_body(("plain",)).get_content() == "Hi, Bob,\n\nimage\n"


def test_text_of_a_picture_alone_is_its_name(here: Path) -> None:
    (here / "image.jpg").write_bytes(b"\xff\xd8\xff")
    bob, myself = send(
        f"{HEAD}CONTENT-TYPE: text/markdown\n\n{{% if number == '17' %}}Look!{{% endif %}} ![](image.jpg)\n"
    )
    assert bob.get_body(("plain",)).get_content() == "image.jpg\n"
    assert myself.get_body(("plain",)).get_content() == "Look!\n"


@pytest.mark.parametrize("written", ["me@example.org>", "<me@example.org"])
def test_bare_address_with_a_single_angle_bracket_is_read_with_a_notice(written: str) -> None:
    Path("stray.txt").write_text(f"TO: {{{{email}}}}\nFROM: {written}\nSUBJECT: x\n\nHi {{{{name}}}}\n")
    arguments = ["stray.txt", "--recipients", "mailmerge_database.csv"]
    result = CliRunner().invoke(main, ["send", *arguments, "--relay", "sandbox:"])
    assert result.exit_code == 0, result.output
    said = f'stray.txt:2: FROM: "{written}" has a single < or >; read as me@example.org'
    assert said in " ".join(result.output.split())
    assert said in " ".join(CliRunner().invoke(main, ["check", *arguments]).output.split())
    files = sorted(Path("runs/stray.inbox/new").iterdir())
    assert {str(message_from_bytes(path.read_bytes())["From"]) for path in files} == {"me@example.org"}


@pytest.mark.parametrize(
    "written", ["Me me@example.org>", "a@x.org, b@x.org>", "<<me@example.org", "{{ email }}>", "me>"]
)
def test_angle_bracket_that_leaves_the_address_open_is_an_error(written: str) -> None:
    Path("stray.txt").write_text(f"TO: {{{{email}}}}\nFROM: {written}\nSUBJECT: x\n\nHi {{{{name}}}}\n")
    arguments = ["stray.txt", "--recipients", "mailmerge_database.csv", "--relay", "null:"]
    assert CliRunner().invoke(main, ["send", *arguments]).exit_code == 2


def test_to_of_two_columns_goes_to_both() -> None:
    Path("mailmerge_database.csv").write_text("email,email2,login\nann@example.com,bea@example.com,ann7\n")
    messages = send("TO: {{email}}, {{email2}}\nFROM: me@example.org\n\nHi {{login}}\n")
    assert [message["Delivered-To"] for message in messages] == ["ann@example.com", "bea@example.com"]
    assert {str(message["To"]) for message in messages} == {"ann@example.com, bea@example.com"}
    assert {message["Subject"] for message in messages} == {None}


def test_to_of_no_column_gets_every_row(here: Path) -> None:
    Path("office.txt").write_text("TO: Office <office@example.org>\nFROM: me@example.org\nSUBJECT: x\n\nHi {{name}}\n")
    arguments = ["office.txt", "--recipients", "mailmerge_database.csv", "--relay", "sandbox:"]
    result = CliRunner().invoke(main, ["send", *arguments])
    assert result.exit_code == 0, result.output
    assert "office.txt: to: names no column; all 2 messages go to office@example.org" in result.output
    files = sorted(Path("runs/office.inbox/new").iterdir())
    found = [message_from_bytes(path.read_bytes(), policy=default) for path in files]
    assert sorted(message.get_content() for message in found) == ["Hi Bob\n", "Hi Myself\n"]
    assert {str(message["To"]) for message in found} == {"Office <office@example.org>"}


def test_message_without_a_subject_is_warned_of() -> None:
    Path("message.txt").write_text("TO: {{email}}\nFROM: me@example.org\n\nx\n")
    arguments = ["message.txt", "--recipients", "mailmerge_database.csv"]
    result = CliRunner().invoke(main, ["check", *arguments, "--json"])
    assert '"subject-missing"' in result.output
    assert result.exit_code == 0
    assert CliRunner().invoke(main, ["send", *arguments, "--relay", "null:", "--strict"]).exit_code == 2


def test_status_and_preview_find_a_message() -> None:
    send(f"{HEAD}\nx\n")
    for command in (["status", "mailmerge_template.txt"], ["inbox", "mailmerge_template.txt"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    preview = ["preview", "mailmerge_template.txt", "--recipients", "mailmerge_database.csv"]
    assert "Subject:   Testing" in CliRunner().invoke(main, preview).output


def test_row_whose_file_is_missing_is_reported_before_anything_is_sent(here: Path) -> None:
    (here / "17.txt").write_text("x")
    Path("message.txt").write_text(f"{HEAD}ATTACHMENT: {{{{number}}}}.txt\n\nx\n")
    result = CliRunner().invoke(main, ["check", "message.txt", "--recipients", "mailmerge_database.csv"])
    assert "'42.txt' is not there" in result.output
    assert "1 recipient of 2 rows (1 invalid)" in result.output
