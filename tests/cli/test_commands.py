"""The commands that look, make and rehearse: init, check, preview, status, report, inbox, sandbox."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import smtplib
import stat
import subprocess
import sys
import time
from email.message import EmailMessage
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bulkmail.cli import init as init_module
from bulkmail.cli import main
from bulkmail.cli.machine import JsonErrors
from bulkmail.cli.running import password_prompt
from bulkmail.model.outcome import Reply, Stage
from bulkmail.model.shaper import Slowdown
from bulkmail.outbox.outbox import Outbox
from bulkmail.settings.settings import load
from tests.report.making import STARTED, fill_outbox

KINDS = ("newsletter", "mail-merge", "invoice")


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), prog_name="bulkmail")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("BULKMAIL_RELAY", "BULKMAIL_DEBUG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the browser was told to open."""
    pages: list[str] = []

    def open_page(url: str) -> bool:
        pages.append(url)
        return len(pages) < 2

    monkeypatch.setattr("webbrowser.open", open_page)
    return pages


@pytest.fixture
def shop() -> Path:
    """A rehearsal of one good row, one bad and one that the message does not suit has ended."""
    Path("shop").mkdir()
    Path("shop/campaign.toml").write_text(
        'relay = "sandbox:"\nrecipients = "people.csv"\n[message]\nfrom = "Shop <hello@shop.example>"\n'
        'subject = "Hello {{ name }}"\ntext = "message.txt"\nhtml = "message.html"\n'
    )
    Path("shop/people.csv").write_text("email,name\nann@example.com,Ann Li\nbob@,Bob\nsato@example.net,佐藤 陽菜\n")
    Path("shop/message.txt").write_text("Dear {{ name }},\nhello.\n")
    Path("shop/message.html").write_text("<p>Dear {{ name }}</p>\n")
    return Path("shop")


@pytest.fixture
def rehearsed(shop: Path) -> Path:
    result = run("send", "shop", "--progress", "none")
    assert result.exit_code == 1, result.stderr
    return shop


# --- init -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_init_makes_a_campaign_that_rehearses_at_once(kind: str) -> None:
    result = run("init", "spring", "--kind", kind)
    assert result.exit_code == 0, result.stderr
    assert result.output.startswith(f"spring is now a campaign to start from: {kind}\n")
    settings = load("spring")
    assert settings.relay is not None
    assert settings.relay.kind.is_rehearsal
    checked = run("check", "spring")
    assert (checked.exit_code, "warning" in checked.output) == (0, False), checked.output
    sent = run("send", "spring", "--progress", "none")
    assert sent.exit_code == 0, sent.stderr
    assert sent.stdout.startswith("Rehearsal: no mail was sent to your recipients.\n")


def test_init_shows_what_it_made_and_what_to_type() -> None:
    assert run("init", "my spring", "--kind", "mail-merge").output == (
        "my spring is now a campaign to start from: mail-merge\n"
        "  campaign.toml\n"
        "  people.csv\n"
        "\n"
        "Read my spring/campaign.toml, change what you like, then type:\n"
        "  bulkmail check 'my spring'       checks it\n"
        "  bulkmail preview 'my spring'     shows the messages\n"
        "  bulkmail send 'my spring'        rehearses: no mail is sent to recipients\n"
    )


def test_init_takes_an_empty_folder_and_makes_those_above() -> None:
    Path("empty").mkdir()
    assert run("init", "empty").exit_code == 0
    assert run("init", "2026/spring").exit_code == 0
    assert Path("2026/spring/campaign.toml").is_file()


@pytest.mark.parametrize("name", ["a file", "full"])
def test_init_leaves_alone_what_is_there(name: str) -> None:
    Path("a file").write_text("mine")
    Path("full").mkdir()
    Path("full/.mine").write_text("mine")
    result = run("init", name)
    quoted = "'a file'" if " " in name else name
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {name}: already exists and was not changed\nhint: name a new folder: bulkmail init {quoted}-2\n"
    )
    assert not Path("full/campaign.toml").exists()


def test_init_says_that_it_may_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("shutil.copyfile", refuse)
    result = run("init", "spring")
    assert result.exit_code == 2
    assert result.stderr == "error: spring/campaign.toml: cannot be written: No space left on device\n"


def test_init_copies_nothing_that_a_rehearsal_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("campaign.toml", "runs/x.outbox", ".DS_Store", "__pycache__/x.pyc", "parts/foot.txt"):
        path = Path("templates/newsletter") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(init_module, "templates_folder", lambda: Path("templates"))
    assert init_module.copy_template("newsletter", Path("spring")) == ["campaign.toml", "parts/foot.txt"]


def test_init_finds_its_templates_in_a_wheel_and_in_a_checkout(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = here / "site-packages/bulkmail/cli/init.py"
    module.parent.mkdir(parents=True)
    monkeypatch.setattr(init_module, "__file__", str(module))
    assert "lacks its templates" in run("init", "spring").stderr
    in_checkout = here / "site-packages/templates"
    in_checkout.mkdir()
    assert init_module.templates_folder() == in_checkout
    in_wheel = here / "site-packages/bulkmail/data/templates"
    in_wheel.mkdir(parents=True)
    assert init_module.templates_folder() == in_wheel


@pytest.mark.slow
def test_init_works_from_a_wheel(here: Path, request: pytest.FixtureRequest) -> None:
    root = request.config.rootpath
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", str(root)]
    built = subprocess.run(wheel, capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    (file,) = Path("dist").glob("*.whl")
    target = [*pip, "install", "--no-deps", "--target", "site", str(file)]
    subprocess.run(target, check=True, capture_output=True, timeout=60)
    assert not (here / "site/templates").exists()
    for kind in KINDS:
        done = subprocess.run(
            [sys.executable, "-m", "bulkmail", "init", kind, "--kind", kind],
            env={**os.environ, "PYTHONPATH": str(here / "site"), "PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == 0, done.stderr
        made = {str(path.relative_to(kind)) for path in Path(kind).rglob("*") if path.is_file()}
        source = root / "templates" / kind
        assert made == {
            str(path.relative_to(source))
            for path in source.rglob("*")
            if path.is_file() and "runs" not in path.relative_to(source).parts
        }


# --- check and preview ------------------------------------------------------------------------------------------------


def test_check_passes_what_can_be_sent(shop: Path) -> None:
    result = run("check", "shop")
    assert result.exit_code == 0
    ready = "Ready: shop goes to 2 recipients of 3 rows (1 invalid), through sandbox: (a rehearsal)."
    assert " ".join(result.output.split()).endswith(ready)
    assert not Path("shop/runs").exists()


def test_check_says_that_no_relay_is_named(shop: Path) -> None:
    file = shop / "campaign.toml"
    file.write_text(file.read_text().replace('relay = "sandbox:"\n', ""))
    assert run("check", "shop").output.endswith("(1 invalid), when a relay is named.\n")


def test_check_refuses_a_message_that_suits_no_one(shop: Path) -> None:
    (shop / "message.txt").write_text("Dear {{ nmae }}")
    result = run("check", "shop")
    assert result.exit_code == 2
    assert "error: " in result.output
    assert "'nmae'" in result.output
    assert result.output.endswith("Not ready: shop would be sent to 0 recipients of 3 rows (3 invalid).\n")


def test_check_warns_of_a_message_that_does_not_suit_someone(shop: Path) -> None:
    (shop / "people.csv").write_text("email,name\nann@example.com,Ann\nbob@example.com,\n")
    result = run("check", "shop")
    assert result.exit_code == 0
    assert "warning: column name: 'name' is empty in 1 row: line 3\n" in result.output


def test_check_refuses_a_list_of_no_one(shop: Path) -> None:
    result = run("check", "shop", "--where", "false")
    assert result.exit_code == 2
    assert result.output.endswith("Not ready: shop would be sent to 0 recipients of 3 rows (1 invalid, 2 filtered).\n")


def test_check_reports_faults_of_the_campaign(shop: Path) -> None:
    result = run("check", "shop", "--rate", "fast")
    assert result.exit_code == 2
    assert result.stderr == (
        'error: --rate "fast": cannot read the rate \'fast\'\nhint: write "50/s", "3000/h" or "1 per 2s"\n'
    )


def test_preview_shows_the_first_message(shop: Path) -> None:
    result = run("preview", "shop")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "── row 1, shop/people.csv:2 ──"
    assert "Subject:   Hello Ann Li" in lines
    assert "Dear Ann Li," in lines
    assert "佐藤" not in result.output


@pytest.mark.parametrize("which", [["--row", "3"], ["--address", "SATO@example.net"]], ids=["row", "address"])
def test_preview_shows_the_message_that_is_asked_for(shop: Path, which: list[str]) -> None:
    result = run("preview", "shop", *which)
    assert result.exit_code == 0, result.stderr
    assert result.output.startswith("── row 3, shop/people.csv:4 ──\n")
    assert "Dear 佐藤 陽菜,\n" in result.output


def test_preview_shows_all_messages(shop: Path) -> None:
    output = run("preview", "shop", "--all").output
    assert [line for line in output.splitlines() if line.startswith("──")] == [
        "── row 1, shop/people.csv:2 ──",
        "── row 3, shop/people.csv:4 ──",
    ]


def test_preview_names_a_column_that_is_there_twice(shop: Path) -> None:
    (shop / "people.csv").write_text("email,name,town,name,town\nann@example.com,Ann,Ulm,Li,Graz\n")
    result = run("preview", "shop")
    assert "error: column name: the message uses 'name', and 2 columns have that name" in " ".join(
        result.stderr.split()
    )
    assert "{{ name_2 }}" in result.stderr and "town" not in result.stderr
    assert "Dear Ann" in result.output
    where = run("preview", "shop", "--where", "town == 'Ulm'")
    assert "column town" in where.stderr


def test_preview_writes_files(shop: Path) -> None:
    result = run("preview", "shop", "--all", "--out", "messages")
    assert result.output == "2 messages written to messages\n"
    assert sorted(path.name for path in Path("messages").iterdir()) == [
        "00001-ann@example.com.eml",
        "00001-ann@example.com.html",
        "00001-ann@example.com.txt",
        "00003-sato@example.net.eml",
        "00003-sato@example.net.html",
        "00003-sato@example.net.txt",
    ]


def test_preview_opens_the_browser(shop: Path, opened: list[str]) -> None:
    result = run("preview", "shop", "--open", "--out", "messages")
    page = Path("messages/shop-preview.html").absolute()
    assert opened == [page.as_uri()]
    assert result.output == "2 messages are in messages/shop-preview.html\n"
    text = page.read_text("utf-8")
    assert "Hello Ann Li" in text and "Hello 佐藤 陽菜" in text


def test_preview_says_that_there_is_no_browser(shop: Path, opened: list[str]) -> None:
    opened.append("one that was opened before")
    result = run("preview", "shop", "--row", "1", "--open")
    assert result.stderr == "There is no browser here that could be opened.\n"
    page = Path(result.stdout.removeprefix("The message is in ").rstrip())
    assert page.is_file()
    page.unlink()
    page.parent.rmdir()


def test_preview_sample_takes_every_branch_once(shop: Path) -> None:
    (shop / "message.txt").write_text("{% if vip %}Dear{% else %}Hello{% endif %} {{ name }}\n")
    rows = "".join(f"p{n}@example.com,P{n},{'yes' if n == 7 else ''}\n" for n in range(1, 11))
    (shop / "people.csv").write_text("email,name,vip\n" + rows)
    lines = run("preview", "shop", "--sample").output.splitlines()
    assert [line for line in lines if line.startswith("──")] == [
        "── row 1, shop/people.csv:2 ──",
        "── row 7, shop/people.csv:8 ──",
    ]
    assert "Dear P7" in lines and "Hello P1" in lines


def test_preview_shows_only_those_who_are_meant_unless_one_is_named(shop: Path) -> None:
    output = run("preview", "shop", "--all", "--where", "name != 'Ann Li'").output
    assert output.startswith("── row 3,") and "Ann" not in output
    assert run("preview", "shop", "--where", "false", "--row", "1").output.startswith("── row 1,")


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (
            ["--row", "2"],
            "row 2 of shop/people.csv is not there or cannot be used",
            "bulkmail check says what is wrong with each row",
        ),
        (
            ["--address", "zoe@example.com"],
            "no row of shop/people.csv has the address zoe@example.com",
            "bulkmail check says what is wrong with each row",
        ),
        (
            ["--to", "a@b.example", "--row", "2"],
            "row 2 of --to is not there or cannot be used",
            "bulkmail check says what is wrong with each row",
        ),
        (["--address", "zoe@"], '--address "zoe@": has nothing after the @', "write it as name@example.com"),
        (
            ["--row", "1", "--all"],
            "--row, --address, --sample and --all each say which messages are meant",
            "keep one",
        ),
    ],
)
def test_preview_says_what_it_cannot_show(shop: Path, words: list[str], error: str, hint: str) -> None:
    result = run("preview", "shop", *words)
    assert (result.exit_code, result.stderr) == (2, f"error: {error}\nhint: {hint}\n")


def test_preview_says_that_no_one_can_be_written_to(shop: Path) -> None:
    (shop / "people.csv").write_text("email\nbob@\n")
    assert run("preview", "shop").stderr.startswith("error: no row of shop/people.csv can be sent to\n")


# --- send -------------------------------------------------------------------------------------------------------------


def test_only_an_address_that_is_not_in_the_list_is_an_error(shop: Path) -> None:
    result = run("send", "shop", "--progress", "none", "--only", "ann@example.com", "--only", "Anne@example.com")
    assert result.exit_code == 2
    assert "error: --only: Anne@example.com is not in the list" in result.stderr


@pytest.mark.slow
def test_very_long_list_gets_the_csv_report_alone_and_a_note(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkmail.cli.running.MOST_IN_ALL_FORMATS", 2)
    result = run("send", "shop", "--progress", "none")
    runs = Path("shop/runs")
    assert [path.name for path in runs.glob("*-report.*")] == ["shop.rehearsal-report.csv"]
    assert "of more than 2 rows only the CSV report is written" in " ".join(result.stderr.split())
    asked = run("report", str(runs / "shop.rehearsal.outbox"), "--format", "json")
    assert len(json.loads(asked.stdout)["rows"]) == 3
    named = run("send", "shop", "--progress", "none", "--report", "mine.json")
    assert Path("mine.json").is_file() and "only the CSV report" not in named.stderr


@pytest.mark.slow
def test_very_long_list_leaves_no_report_of_the_run_that_it_replaces(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Path("shop/runs")
    run("send", "shop", "--progress", "none")
    assert len(list(runs.glob("*-report.*"))) == 3
    monkeypatch.setattr("bulkmail.cli.running.MOST_IN_ALL_FORMATS", 2)
    run("send", "shop", "--progress", "none")
    assert [path.name for path in runs.glob("*-report.*")] == ["shop.rehearsal-report.csv"]
    (runs / "shop.rehearsal-report.json").write_text("[]")
    run("send", "shop", "--progress", "none")
    assert (runs / "shop.rehearsal-report.json").read_text() == "[]"


@pytest.mark.slow
def test_progress_in_json_has_an_object_in_every_line_and_ends_with_totals_and_exit_code(shop: Path) -> None:
    (shop / "people.csv").write_text("email,name\nann@example.com,Ann\nbob@example.com,Bob\nbad,Cy\n")
    result = run("send", "shop", "--progress", "json", "--limit", "1", "--quota", "1/day")
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["at"]) for event in events)
    assert {"note", "reading", "sending", "settled"} <= {event["event"] for event in events}
    last = events[-1]
    assert (last["event"], last["exit_code"], result.exit_code) == ("ended", 3, 3)
    assert (last["totals"]["rows"], last["totals"]["accepted"], last["totals"]["invalid"]) == (3, 1, 1)
    assert last["copies"]["accepted"] == 0 and last["error"] is None
    assert last["outbox"].endswith("shop.rehearsal.outbox")
    assert [Path(each).suffix for each in last["reports"]] == [".csv", ".json", ".html"]
    assert [event["event"] for event in events].count("ended") == 1


@pytest.mark.parametrize(
    "words", [["--progress=json"], ["--progress", "json", "--frob"], ["--progress", "json", "--bar"]]
)
def test_progress_in_json_reports_an_error_in_its_last_event(shop: Path, words: list[str]) -> None:
    (shop / "people.csv").unlink()
    result = run("send", "shop", *words)
    *_, last = map(json.loads, result.stderr.splitlines())
    assert (last["event"], last["exit_code"], result.exit_code) == ("ended", 2, 2)
    assert last["error"] and "hint" in last


@pytest.mark.slow
def test_send_prints_its_result_as_one_json_object(shop: Path) -> None:
    result = run("send", "shop", "--json", "--progress", "none")
    said = json.loads(result.stdout)
    assert (said["bulkmail"], said["exit_code"], result.exit_code) == (1, 1, 1)
    assert (said["totals"]["accepted"], said["totals"]["invalid"], said["is_rehearsal"]) == (2, 1, True)
    assert "accepted" not in result.stderr
    resumed = run("resume", said["outbox"], "--json", "--progress", "none")
    assert json.loads(resumed.stdout)["totals"] == said["totals"]


def test_send_prints_an_error_as_json_too(shop: Path) -> None:
    (shop / "people.csv").unlink()
    result = run("send", "shop", "--json")
    said = json.loads(result.stdout)
    assert (said["exit_code"], result.exit_code, "totals" in said) == (2, 2, False)
    assert said["error"] and f"error: {said['error']}" in result.stderr


@pytest.mark.parametrize("command", ["send", "check", "preview", "resume"])
def test_help_has_every_flag_under_a_heading(command: str) -> None:
    text = run(command, "--help").output
    known = main.get_command(main.make_context("bulkmail", [command, "--help"], resilient_parsing=True), command)
    assert known is not None
    flags = [option.opts[0] for option in known.params if option.param_type_name == "option"]
    shown = re.findall(r"^  (--[\w-]+)", text.partition("\nExamples:")[0], re.MULTILINE)
    assert sorted(shown) == sorted(flag for flag in flags if flag not in ("--debug", "--help"))
    headings = re.findall(r"^(\w+):$", text, re.MULTILINE)
    order = ["Recipients", "Message", "Relay", "Pace", "Safety", "Output", "Other", "Examples"]
    assert headings == [heading for heading in order if heading in headings]
    other = re.findall(r"^  (\S.*?)  ", text.partition("\nOther:\n")[2].partition("\n\n")[0], re.MULTILINE)
    assert other == ["-h, --help"]


def test_password_is_asked_for_with_one_colon(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda prompt: asked.append(prompt) or "secret")
    ask = password_prompt()
    assert ask is not None and ask("Password for smtp://mail.example.com: ") == "secret"
    assert "".join(asked).count(":") <= 2 and ": :" not in "".join(asked)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_preview_deletes_the_pages_of_past_days_from_the_temporary_folder(
    shop: Path, opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old, new, other = (tmp_path / name for name in ("bulkmail-preview-old", "bulkmail-preview-new", "bulkmail-other"))
    for folder in (old, new, other):
        folder.mkdir()
        (folder / "page.html").write_text("x")
    (tmp_path / "bulkmail-preview-link").symlink_to(other)
    for folder in (old, other):
        os.utime(folder, (0, 0))
    assert run("preview", "shop", "--open").exit_code == 0
    assert not old.exists() and new.exists() and (other / "page.html").exists()
    assert len(list(tmp_path.glob("bulkmail-preview-*/*.html"))) == 3  # that of the link, too


@pytest.mark.slow
def test_question_says_what_became_of_all_that_were_tried_before_and_counts_copies_apart(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "people.csv").write_text("email,name\n" + "".join(f"p{n}@example.com,P\n" for n in range(5)))
    settings = (shop / "campaign.toml").read_text()
    (shop / "campaign.toml").write_text(settings.replace("[message]", '[message]\nbcc = "archive@example.com"'))
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: self.name == "<stdin>")
    relay = ("--relay", "smtp://127.0.0.1:1?tls=off", "--ignore", "placeholder")
    first = CliRunner().invoke(main, ["send", "shop", *relay], input="n\n", prog_name="bulkmail")
    assert "To        5 recipients of" in first.stderr and "and 5 copies (To, Cc, Bcc)" in first.stderr, first.stderr
    assert "Done" not in first.stderr
    with Outbox.open(Path("shop/runs/shop.outbox")) as outbox, outbox.store.writing() as connection:
        for number, status in ((1, "accepted"), (2, "accepted"), (3, "rejected"), (4, "accepted"), (5, "in_doubt")):
            connection.execute("UPDATE delivery SET status = ?, due_at = NULL WHERE id = ?", (status, number))
    again = CliRunner().invoke(main, ["send", "shop", *relay, "--limit", "1"], input="n\n", prog_name="bulkmail")
    assert "Done      1 accepted, 1 rejected, 1 in doubt before\n" in again.stderr
    assert "Later     1 stay pending (--limit)\n" in again.stderr


def test_send_says_no_plan_when_nothing_is_left_to_send(shop: Path) -> None:
    (shop / "people.csv").write_text("email,name\nbad,Bob\n")
    assert "plan:" not in run("send", "shop", "--progress", "none", "--quota", "1/day").stderr


def test_json_errors_show_half_a_line_when_it_is_flushed() -> None:
    events = io.StringIO()
    stream = JsonErrors(events)
    stream.write("one\ntw")
    stream.write("o\n\nPassword: ")
    stream.flush()
    assert [json.loads(line)["text"] for line in events.getvalue().splitlines()] == ["one", "two", "Password:"]


# --- status and report ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_status_says_how_a_run_ended(rehearsed: Path) -> None:
    result = run("status", "shop")
    lines = result.output.splitlines()
    assert lines[:3] == [
        "shop: a rehearsal, 3 rows in shop/runs/shop.rehearsal.outbox",
        "  2 accepted    66.7%",
        "  1 invalid     33.3%",
    ]
    assert lines[3].startswith("Started 2")
    assert ", finished 2" in lines[3]
    assert lines[4:] == ["The result of each row: bulkmail report shop/runs/shop.rehearsal.outbox"]


@pytest.mark.slow
def test_status_takes_the_latest_run_here(rehearsed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("shop")
    assert run("status").output.startswith("shop: a rehearsal, 3 rows in runs/shop.rehearsal.outbox\n")


def test_status_of_a_run_that_is_under_way_names_the_process(shop: Path) -> None:
    settings = load("shop")
    Path("shop/runs").mkdir()
    outbox = Outbox.create(Path("shop/runs/shop.outbox"), campaign=settings.campaign)
    try:
        assert "The list has not been read completely yet." in run("status", "shop").output
        outbox.finish_loading()
        output = run("status", "shop").output
    finally:
        outbox.close()
    assert output.startswith("shop: 0 rows in shop/runs/shop.outbox\n")
    assert f"Being sent now, by process {os.getpid()} on " in output
    assert "resume" not in output


@pytest.mark.slow
def test_status_of_a_run_that_was_cut_off_says_how_to_go_on(shop: Path) -> None:
    assert run("send", "shop", "--progress", "none", "--limit", "1").exit_code == 3
    output = run("status", "shop").output
    assert ", not finished.\n" in output
    assert "To continue with the 1 row left: bulkmail resume shop/runs/shop.rehearsal.outbox\n" in output


def test_status_says_when_what_was_deferred_is_tried_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox.create(Path("late.outbox"), campaign=None)
    try:
        fill_outbox(outbox, [Reply(Stage.RCPT, 451, "4.3.0", "later")])
    finally:
        outbox.close()
    monkeypatch.setattr("bulkmail.cli.status.time.time", lambda: STARTED + 1)
    assert re.search(
        r"Deferred messages will be retried from 2023-11-1\d \S+ on\.\n", run("status", "late.outbox").output
    )
    monkeypatch.setattr("bulkmail.cli.status.time.time", lambda: STARTED + 86_400)
    assert "Deferred messages will be retried" not in run("status", "late.outbox").output


@pytest.mark.slow
def test_status_watch_ends_with_the_run(rehearsed: Path) -> None:
    result = run("status", "shop", "--watch")
    assert result.exit_code == 0
    assert result.output.startswith("shop: a rehearsal, 3 rows in shop/runs/shop.rehearsal.outbox; 2 accepted 66.7%; ")
    assert len(result.output.splitlines()) == 1


@pytest.mark.slow
def test_status_watch_waits_for_what_is_left_until_ctrl_c(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("send", "shop", "--progress", "none", "--limit", "1").exit_code == 3
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("bulkmail.cli.watch.time.sleep", sleep)
    result = run("status", "shop", "--watch")
    assert (result.exit_code, looks) == (0, 3)
    assert len(result.output.splitlines()) == 1  # nothing changed, nothing more is said
    assert "1 pending" in result.output


def make_slowed(shop: Path, number: int) -> Path:
    """A run with this many providers in trouble."""
    run("send", "shop")
    path = next(Path("shop/runs").glob("*.outbox"))
    found = [
        Slowdown("sandbox:", f"d{n}.example", times=9 - n, at=time.time(), why="busy", until=time.time() + 600)
        for n in range(number)
    ]
    with Outbox.open(path) as outbox:
        outbox.note(slowdowns=tuple(found))
    return path


@pytest.mark.slow
def test_status_says_who_slows_the_run_down(shop: Path) -> None:
    make_slowed(shop, 7)
    output = run("status", "shop").output
    assert "Slowed down:\n  d0.example asked us to slow down 9 times; paused until " in output
    assert "d4.example" in output and "  and 2 others; --json has them all\n" in output


@pytest.mark.slow
def test_status_as_json_is_the_head_of_the_report(shop: Path) -> None:
    path = make_slowed(shop, 7)
    said = json.loads(run("status", "shop", "--json").output)
    assert (said["totals"]["rows"], said["totals"]["accepted"]) == (3, 2)
    assert (said["outbox"], said["process"]) == (str(path), None)
    assert [each["mailbox_provider"] for each in said["slowdowns"]] == [f"d{n}.example" for n in range(7)]
    watched = run("status", "shop", "--watch", "--json").output.splitlines()
    assert [json.loads(line)["totals"] for line in watched] == [said["totals"]]


def test_status_of_a_run_that_never_began_says_so(shop: Path) -> None:
    Path("shop/runs").mkdir()
    path = Path("shop/runs/shop.outbox")
    Outbox.create(path, campaign=load("shop").campaign).close()
    assert "The list was never read completely.\n" in run("status", "shop").output
    outbox = Outbox.create(path, campaign=load("shop").campaign, replace=True)
    outbox.finish_loading()
    outbox.close()
    assert "Nothing has been sent yet.\n" in run("status", "shop").output


@pytest.mark.slow
def test_report_is_a_text_by_default(rehearsed: Path) -> None:
    output = run("report", "shop").output
    assert output.startswith("Rehearsal: no mail was sent to your recipients.\n")
    assert "  2 accepted" in output


@pytest.mark.slow
def test_report_as_csv_has_every_row(rehearsed: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run("report", "shop", "--format", "csv").stdout_bytes.decode())))
    assert [(row["email"], row["name"], row["delivery_status"]) for row in rows] == [
        ("ann@example.com", "Ann Li", "accepted"),
        ("bob@", "Bob", "invalid"),
        ("sato@example.net", "佐藤 陽菜", "accepted"),
    ]


@pytest.mark.slow
def test_report_as_json_adds_up(rehearsed: Path) -> None:
    report = json.loads(run("report", "shop", "--format", "json").stdout_bytes)
    assert report["totals"]["rows"] == len(report["rows"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more", "beginning"),
    [
        ("out.csv", [], "email,name,delivery_status"),
        ("out.json", [], '{"bulkmail":1'),
        ("out.txt", [], "Rehearsal: no mail was sent to your recipients."),
        ("out.txt", ["--format", "csv"], "email,name,delivery_status"),
    ],
)
def test_report_goes_into_a_file(rehearsed: Path, name: str, more: list[str], beginning: str) -> None:
    result = run("report", "shop", "-o", name, *more)
    assert (result.stdout, result.stderr) == ("", f"written to {name}\n")
    assert Path(name).read_text("utf-8").startswith(beginning)
    if name != "out.txt" or more:
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600


@pytest.mark.slow
def test_report_is_coloured_on_a_terminal(rehearsed: Path) -> None:
    master, slave = os.openpty()
    command = [sys.executable, "-m", "bulkmail", "report", "shop"]
    environ = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[2])}
    try:
        subprocess.run(command, stdout=slave, check=True, timeout=20, env=environ)
        output = os.read(master, 100_000).decode()
    finally:
        os.close(slave)
        os.close(master)
    assert "\x1b[1;35mRehearsal: no mail was sent to your recipients.\x1b[0m\r\n" in output


def test_report_of_no_run_says_what_it_looked_for() -> None:
    result = run("report", "shop")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: shop: there is no such run: no outbox and no campaign by that name\n")


# --- inbox and sandbox ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_inbox_lists_what_a_rehearsal_kept(rehearsed: Path) -> None:
    lines = run("inbox", "shop").output.splitlines()
    assert lines[0] == "2 messages in shop/runs/shop.inbox"
    assert sorted(line[7:] for line in lines[1:]) == [
        "ann@example.com                 Hello Ann Li",
        "sato@example.net                Hello 佐藤 陽菜",
    ]


@pytest.mark.slow
def test_inbox_shows_a_message(rehearsed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("shop")
    output = run("inbox", "1").output
    assert output.startswith("From:      Shop <hello@shop.example>\n")
    assert "\nhello.\n" in output
    assert output == run("inbox", ".", "1").output


@pytest.mark.slow
def test_inbox_opens_a_message_in_the_browser(rehearsed: Path, opened: list[str]) -> None:
    result = run("inbox", "shop", "1", "--open")
    page = Path(result.output.removeprefix("Message 1 is in ").rstrip())
    assert opened == [page.as_uri()]
    assert page.read_text("utf-8").count('<article id="message-1" class="chosen"') == 1
    assert run("inbox", "shop", "1", "--open").stderr == "There is no browser here that could be opened.\n"


@pytest.mark.slow
def test_inbox_opens_at_the_latest(rehearsed: Path, opened: list[str]) -> None:
    output = run("inbox", "shop", "--open").output
    page = Path(output.removeprefix("Message 2 is in ").rstrip())
    assert '<article id="message-2" class="chosen"' in page.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (
            ["shop", "3", "--open"],
            "there is no message 3: shop/runs/shop.inbox holds 2 messages",
            "name a number from 1 to 2",
        ),
        (["shop", "3"], "there is no message 3: shop/runs/shop.inbox holds 2 messages", "name a number from 1 to 2"),
    ],
)
def test_inbox_says_what_it_cannot_show(rehearsed: Path, words: list[str], error: str, hint: str) -> None:
    result = run("inbox", *words)
    assert (result.exit_code, result.stderr) == (2, f"error: {error}\nhint: {hint}\n")


def fill_maildir(folder: str, number: int) -> None:
    """Messages with wide, long and hostile subjects."""
    for name in ("tmp", "new", "cur"):
        (Path(folder) / name).mkdir(parents=True)
    for n in range(1, number + 1):
        subject = ("佐藤" * 40, "x" * 200, "=?utf-8?q?=1B[2J=E2=80=AEred?=")[n % 3]
        path = Path(folder) / "new" / f"{n}.M{n:06}P1Q{n}.host"
        path.write_text(f"Delivered-To: {'a' * 60}{n}@example.com\nSubject: {subject}\n\nx\n", encoding="utf-8")


def test_inbox_fits_into_eighty_columns() -> None:
    from rich.cells import cell_len

    fill_maildir("kept", 30)
    lines = run("inbox", "kept").output.splitlines()
    assert lines[0] == "30 messages in kept, the latest 25:"
    assert [int(line[:5]) for line in lines[1:]] == list(range(6, 31))
    assert max(map(cell_len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert len(run("inbox", "kept", "--all").output.splitlines()) == 31


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if words in line:
            break
    return text


@pytest.mark.slow
def test_sandbox_says_which_trouble_it_makes_and_made(here: Path) -> None:
    command = [sys.executable, "-m", "bulkmail", "sandbox", "--port", "0", "--maildir", "kept", "--reject", "100%"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
        try:
            head = read_until(process, "Send to it")
            port = int(head.partition(" port ")[2].partition(";")[0])
            with smtplib.SMTP("127.0.0.1", port, timeout=10) as client, pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail("shop@shop.example", ["ann@example.com"], b"Subject: x\r\n\r\nx\r\n")
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            rest = process.stdout.read()
            assert process.wait(10) == 0
        finally:
            process.kill()
    assert "Simulated failures: 100 % rejected; seed 0." in head
    assert rest == "Simulated failures: 1 rejected.\n"


def test_sandbox_refuses_a_share_that_is_none() -> None:
    result = run("sandbox", "--reject", "5")
    assert (result.exit_code, result.stderr) == (
        2,
        'error: --reject "5": cannot read the share \'5\'\nhint: write "5%", from 0% to 100%\n',
    )


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_sandbox_reports_what_arrives_until_it_is_ended(here: Path, ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "bulkmail", "sandbox", "--port", "0", "--maildir", "kept"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
        try:
            head = read_until(process, "Send to it")
            port = int(head.partition(" port ")[2].partition(";")[0])
            message = EmailMessage()
            message["From"], message["To"] = "shop@shop.example", "ann@example.com"
            message["Subject"] = "Grüße"
            message.set_content("Hello")
            with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
                client.send_message(message)
                reported = read_until(process, "ann@example.com")
                for _ in range(30):
                    client.send_message(message)
            process.send_signal(ending)
            assert process.stdout is not None
            rest = process.stdout.read()
            assert process.wait(10) == 0
        finally:
            process.kill()
    assert f"--relay 'smtp://127.0.0.1:{port}?tls=off' --outbox trouble.outbox" in head
    assert reported.rstrip().endswith("1  to ann@example.com: Grüße")
    assert rest.endswith("31 messages kept; type: bulkmail inbox kept\n")
    assert run("inbox", "kept").output.startswith("31 messages in kept, the latest 25:\n")


def test_sandbox_says_that_the_port_is_taken(here: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("sandbox", "--port", str(port), "--maildir", "kept")
    assert result.exit_code == 3
    assert result.stderr.startswith(f"error: the sandbox cannot listen at 127.0.0.1 port {port}: ")
