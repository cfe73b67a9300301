"""The frame around all commands: help, errors, exit codes, and what is not imported."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from bulkmail.cli import main, program, running
from bulkmail.cli.choices import campaign_options, overrides_from
from bulkmail.cli.mishaps import judge, tell
from bulkmail.engine.contracts import Ending
from bulkmail.model.errors import (
    BulkmailError,
    ChecksFailed,
    ConfigError,
    ListError,
    OutboxBusy,
    OutboxError,
    RelayError,
    TemplateError,
)
from bulkmail.settings.overrides import Overrides

HEAVY = ("rich", "jinja2", "aiosmtplib", "msgspec", "email_validator", "anyio", "asyncio", "sqlite3")


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), prog_name="bulkmail")


def python(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=20, **more)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, BaseException]]:
    """A command `init` that notes an outbox and raises what the test puts here."""
    raised: dict[str, BaseException] = {}

    @click.command()
    def command() -> None:
        program.note_outbox(Path("runs/shop.outbox"))
        raise raised["error"]

    module = type(sys)("broken_command")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "broken_command", module)
    monkeypatch.setitem(program.COMMANDS, "init", ("broken_command", "Breaks."))
    monkeypatch.delenv("BULKMAIL_DEBUG", raising=False)
    yield raised


def test_help_names_every_command_on_a_line() -> None:
    result = run("--help")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    for name, (_, summary) in program.COMMANDS.items():
        assert f"  {name:<10}  {summary}" in lines
    assert max(map(len, lines)) <= 80


def test_no_words_show_the_help() -> None:
    result = run()
    assert result.exit_code == 2
    assert result.output == run("--help").output


@pytest.mark.parametrize("name", list(program.COMMANDS))
def test_table_leads_to_a_command_that_explains_itself(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: bulkmail {name} ")
    assert f"bulkmail {name}" in result.output.partition("Example")[2]
    assert "--debug" not in result.output


def test_version_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"7.1 of {name}")
    assert run("--version").output == "bulkmail 7.1 of bulkmail\n"


def test_version_of_a_mere_checkout_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    assert run("--version").output == "bulkmail (not installed)\n"


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["sned"], "there is no command 'sned'", 'did you mean "bulkmail send"?'),
        (["zzz"], "there is no command 'zzz'", "bulkmail --help lists what is available"),
        (["shop"], "there is no command 'shop'", 'did you mean "bulkmail send shop"?'),
        (["--versoin"], "bulkmail has no option --versoin", "did you mean --version?"),
        (["--zzz"], "bulkmail has no option --zzz", "bulkmail --help lists what is available"),
        (["init", "--knd", "x"], "bulkmail init has no option --knd", "did you mean --kind?"),
        (["init"], "missing argument 'DIR'", "bulkmail init --help lists what is available"),
        (
            ["init", "x", "--kind", "novel"],
            "invalid value for '--kind': 'novel' is not one of 'newsletter', 'mail-merge', 'invoice'",
            "bulkmail init --help lists what is available",
        ),
        (
            ["init", "x", "y"],
            "got unexpected extra argument (y)",
            "bulkmail init --help lists what is available",
        ),
    ],
)
def test_usage_error_says_what_to_type(
    words: list[str], error: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop").mkdir()
    result = run(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"error: {error}\nhint: {hint}\n"


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ConfigError("no", hint="do"), 2),
        (TemplateError("no", hint="do"), 2),
        (ListError("no", hint="do"), 2),
        (ChecksFailed("no", hint="do"), 2),
        (BulkmailError("no", hint="do"), 2),
        (RelayError("no", hint="do"), 3),
        (OutboxError("no", hint="do"), 3),
        (OutboxBusy("no", hint="do"), 3),
        (ExceptionGroup("group", [ExceptionGroup("group", [RelayError("no", hint="do")])]), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_error_becomes_words_and_an_exit_code(
    broken: dict[str, BaseException], error: BaseException, exit_code: int
) -> None:
    broken["error"] = error
    result = run("init")
    assert (result.exit_code, result.stdout, result.stderr) == (exit_code, "", "error: no\nhint: do\n")


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (ConfigError("no"), 2, "error: no\n"),
        (
            KeyboardInterrupt(),
            3,
            "\nerror: interrupted\nhint: every row is in runs/shop.outbox; type: bulkmail resume runs/shop.outbox\n",
        ),
        (click.Abort(), 2, "error: no answer; nothing was done\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "report.csv"),
            3,
            "error: report.csv: No space left on device\n"
            "hint: every row is in runs/shop.outbox; type: bulkmail resume runs/shop.outbox\n",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 3, ""),
        (
            ExceptionGroup("two senders", [MemoryError(), MemoryError()]),
            3,
            "error: this computer does not have enough memory for this mailing\n"
            "hint: close other programs, or use smaller attachments: they are held in memory several times; "
            "every row is in runs/shop.outbox; type: bulkmail resume runs/shop.outbox\n",
        ),
        (
            ZeroDivisionError("division by zero"),
            70,
            "error: bulkmail itself failed, and that is a bug: ZeroDivisionError: division by zero\n"
            "hint: every row is in runs/shop.outbox; type: bulkmail resume runs/shop.outbox; "
            "for a report, BULKMAIL_DEBUG=1 shows where it happened\n",
        ),
        (
            AssertionError(),
            70,
            "error: bulkmail itself failed, and that is a bug: AssertionError\n"
            "hint: every row is in runs/shop.outbox; type: bulkmail resume runs/shop.outbox; "
            "for a report, BULKMAIL_DEBUG=1 shows where it happened\n",
        ),
        (
            ConfigError("a\x1b[2Jb\nc\u202ed"),
            2,
            "error: a\N{REPLACEMENT CHARACTER}[2Jb\nc\N{REPLACEMENT CHARACTER}d\n",
        ),
    ],
    ids=["no-hint", "interrupt", "abort", "disk-full", "broken-pipe", "memory", "bug", "bug-without-words", "steering"],
)
def test_mishap_is_reported(broken: dict[str, BaseException], error: BaseException, exit_code: int, said: str) -> None:
    broken["error"] = error
    result = run("init")
    assert (result.exit_code, result.stdout, result.stderr) == (exit_code, "", said)


def test_bug_without_an_outbox_names_none() -> None:
    assert judge(ValueError("x")).hint == "for a report, BULKMAIL_DEBUG=1 shows where it happened"


def test_exit_of_a_command_is_left_alone(broken: dict[str, BaseException]) -> None:
    broken["error"] = SystemExit(4)
    assert run("init").exit_code == 4


@pytest.mark.parametrize(
    "words", [["--debug", "init"], ["init", "--debug"]], ids=["before-the-command", "after-the-command"]
)
def test_debug_shows_where_it_happened(broken: dict[str, BaseException], words: list[str]) -> None:
    broken["error"] = ConfigError("no")
    result = run(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert result.stderr.endswith("\nbulkmail.model.errors.ConfigError: no\nerror: no\n")


@pytest.mark.parametrize(("value", "is_shown"), [("1", True), ("0", False), ("", False)])
def test_debug_may_be_wished_for_in_the_environment(
    broken: dict[str, BaseException], monkeypatch: pytest.MonkeyPatch, value: str, is_shown: bool
) -> None:
    monkeypatch.setenv("BULKMAIL_DEBUG", value)
    broken["error"] = ConfigError("no")
    assert ("Traceback" in run("init").stderr) is is_shown


def test_library_users_get_the_exception_itself(broken: dict[str, BaseException]) -> None:
    broken["error"] = ConfigError("no")
    with pytest.raises(ConfigError):
        main(["init"], standalone_mode=False)


def test_noting_an_outbox_outside_a_command_does_nothing() -> None:
    program.note_outbox("runs/shop.outbox")


def test_error_is_red_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda stream=None, color=None: color is False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    tell(ConfigError("no"))
    assert capsys.readouterr().err == "\x1b[31m\x1b[1merror:\x1b[0m no\n"
    monkeypatch.setenv("NO_COLOR", "1")
    tell(ConfigError("no"))
    assert capsys.readouterr().err == "error: no\n"


@pytest.mark.slow
def test_reader_that_goes_away_leaves_no_noise() -> None:
    """`bulkmail --help | true`, with help that does not fit into the pipe."""
    script = (
        "import sys, time; from bulkmail.cli import main, program\n"
        "program.COMMANDS.update({f'c{n}': ('x', 'y' * 40) for n in range(20_000)})\n"
        "main(['--help'])"
    )
    # Unbuffered, Python itself drops what a pipe did not take at once.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 3


def test_error_that_no_one_can_read_still_has_its_exit_code() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "bulkmail", "zzz"], stderr=writing, timeout=20, check=False)
    os.close(writing)
    assert done.returncode == 2


def test_output_in_a_script_that_the_terminal_lacks_is_no_error() -> None:
    script = "from bulkmail.cli import main, program\nprogram.COMMANDS['send'] = ('x', '佐藤')\nmain(['--help'])"
    done = python("-c", script, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0
    assert "  send        ??\n" in done.stdout


def test_python_m_bulkmail_is_the_same_program() -> None:
    done = python("-m", "bulkmail", "sned")
    assert done.returncode == 2
    assert done.stderr == "error: there is no command 'sned'\nhint: did you mean \"bulkmail send\"?\n"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["sned"], ["--version"]])
def test_frame_imports_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys; from bulkmail.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        f"print('imported:', *sorted({set(HEAVY)!r} & sys.modules.keys()))"
    )
    done = python("-c", script)
    assert done.stdout.endswith("imported:\n"), done.stdout + done.stderr


@pytest.mark.slow
def test_settings_import_nothing_heavy_before_they_are_loaded() -> None:
    script = (
        "import sys, bulkmail.settings.settings, bulkmail.settings.runs, bulkmail.settings.secrets\n"
        "print(*sorted({'msgspec', 'jinja2', 'keyring', 'email_validator'} & sys.modules.keys()))"
    )
    assert python("-c", script).stdout == "\n"


def test_completion_knows_commands_and_options_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(program.COMMANDS, "send", ("no.such.module", "Sends."))
    context = click.Context(main)
    found = {item.value: item.help for item in main.shell_complete(context, "sen")}
    assert found == {"send": "Sends."}
    assert "--version" in {item.value for item in main.shell_complete(context, "--")}


def test_flags_of_a_campaign_become_overrides() -> None:
    @click.command()
    @campaign_options
    def command(**options: object) -> None:
        click.echo(repr(overrides_from({**options, "limit": 3})))

    result = CliRunner().invoke(
        command,
        [
            *("--recipients", "a.csv", "--to", "a@b.c", "--to", "d@e.f", "--from", "s", "--subject", "Hi"),
            *("--text", "-", "--html", "l.html", "--attach", "x", "--header", "A: b", "--relay", "null:"),
            *("--where", "x", "--suppress", "s.txt", "--encoding", "utf-8", "--address-column", "mail"),
            *("--sheet", "People", "--header-row", "3", "--keep-space"),
            *("--allow-duplicates", "--rate", "1/s", "--connections", "2", "--retry", "1m", "--wait", "0"),
        ],
    )
    wanted = Overrides(
        recipients="a.csv",
        to=("a@b.c", "d@e.f"),
        sender="s",
        subject="Hi",
        text="-",
        html="l.html",
        attach=("x",),
        headers=("A: b",),
        relays=("null:",),
        where="x",
        suppress=("s.txt",),
        encoding="utf-8",
        address_column="mail",
        sheet="People",
        header_row=3,
        keep_space=True,
        allow_duplicates=True,
        rate="1/s",
        connections=2,
        retry="1m",
        wait="0",
        limit=3,
    )
    assert result.output == f"{wanted!r}\n"


def test_flags_that_are_not_given_override_nothing() -> None:
    @click.command()
    @campaign_options
    def command(**options: object) -> None:
        click.echo(repr(overrides_from(options)))

    assert CliRunner().invoke(command, []).output == f"{Overrides()!r}\n"


def test_report_that_does_not_add_up_is_no_ordinary_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(report: object, target: Path) -> Path:
        raise BulkmailError("the report does not add up")

    monkeypatch.setattr(running, "save_report", fail)
    mailing: Any = SimpleNamespace(close=lambda: None)
    with pytest.raises(BulkmailError, match="does not add up"):
        running.conclude(mailing, Ending(), targets=[Path("report.csv")])
