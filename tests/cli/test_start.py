"""What the start of a run is spared: modules that this one does not use, and searches for garbage."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bulkmail.cli import main
from bulkmail.cli.program import COLLECTED_AFTER

UNUSED = (
    "aiosmtpd",
    "bulkmail.message.html.inlining",
    "bulkmail.message.html.markdown",
    "bulkmail.message.html.mjml",
    "bulkmail.probe.relay_probe",
    "bulkmail.preview",
    "bulkmail.recipients.json_reader",
    "bulkmail.recipients.json_reader",
    "bulkmail.recipients.xlsx",
    "bulkmail.report.html",
    "cryptography",
    "css_inline",
    "dns",
    "email_validator",
    "keyring",
    "prometheus_client",
    "publicsuffixlist",
    "python_calamine",
    "python_socks",
    "rich.console",
    "selectolax",
)


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    (tmp_path / "people.csv").write_text("email,name\nann@example.com,Ann\n", encoding="utf-8")
    (tmp_path / "message.txt").write_text("Dear {{ name }}\n", encoding="utf-8")
    (tmp_path / "message.html").write_text("<p>Dear {{ name }}</p>\n", encoding="utf-8")
    (tmp_path / "campaign.toml").write_text(
        'relay = "null:"\nrecipients = "people.csv"\n[message]\nfrom = "Shop <shop@example.com>"\n'
        'subject = "Hello"\ntext = "message.txt"\nhtml = "message.html"\n',
        encoding="utf-8",
    )
    return tmp_path


def at_the_end_of_a_run(campaign: Path, said: str) -> str:
    """What the expression `said` is when `bulkmail send` has ended, in a process of its own."""
    words = ["bulkmail", "send", str(campaign), "--progress", "none", "--report", str(campaign / "report.csv")]
    script = (
        "import atexit, gc, sys\n"
        f"sys.argv = {words!r}\n"
        f"atexit.register(lambda: print('FOUND', {said}))\n"
        "from bulkmail.cli import main\n"
        "main()"
    )
    environment = {**os.environ, "BULKMAIL_STATE_DIR": str(campaign / "state")}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.rpartition("FOUND")[2].strip()


@pytest.mark.slow
def test_send_imports_nothing_that_the_run_does_not_use(campaign: Path) -> None:
    assert at_the_end_of_a_run(campaign, f"*sorted({set(UNUSED)!r} & sys.modules.keys())") == ""


@pytest.mark.slow
def test_process_of_its_own_seldom_looks_for_garbage(campaign: Path) -> None:
    assert (
        at_the_end_of_a_run(campaign, "gc.get_threshold()[0], gc.get_freeze_count() > 0") == f"{COLLECTED_AFTER} True"
    )


def test_caller_in_python_keeps_its_own_collector() -> None:
    threshold, frozen = gc.get_threshold(), gc.get_freeze_count()
    assert CliRunner().invoke(main, ["--version"]).exit_code == 0
    assert gc.get_threshold() == threshold
    assert gc.get_freeze_count() <= frozen  # Python 3.13 has some frozen from the start, and they may go
