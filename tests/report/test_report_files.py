"""Files that are whole whatever happens, and the checks before and after."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bulkmail.model.errors import BulkmailError, ConfigError
from bulkmail.report.report_files import replacing
from bulkmail.report.saving import check_target

KILLED_HALFWAY = """
import os, signal, sys
from pathlib import Path
from bulkmail.model.delivery import Status
from bulkmail.model.tally import Tally
from bulkmail.report.{module}_report import write_{module}
from bulkmail.report.run_source import Source
from tests.report.making import make_record, make_run

def rows():
    for number in range(1, 5_001):
        yield make_record(number)
    os.kill(os.getpid(), signal.SIGKILL)

write_{module}(Source(make_run(), Tally(9_999, {{Status.ACCEPTED: 9_999}}), rows), Path(sys.argv[1]))
"""


@pytest.mark.crash
@pytest.mark.parametrize("module", ["csv", "json"])
def test_report_killed_in_the_middle_leaves_the_old_one(tmp_path: Path, module: str) -> None:
    target = tmp_path / f"report.{module}"
    target.write_text("old")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_HALFWAY.format(module=module), str(target)], check=False, capture_output=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert target.read_text() == "old"
    (part,) = (path for path in tmp_path.iterdir() if path != target)
    assert part.stat().st_size > 100_000  # it was in the middle
    assert stat.S_IMODE(part.stat().st_mode) == 0o600


def test_file_takes_its_place_private_and_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.csv"
    target.write_text("old")
    target.chmod(0o644)
    with replacing(target) as file:
        file.write(b"new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["report.csv"]


def test_what_a_killed_one_left_goes_once_no_one_can_be_writing_it(tmp_path: Path) -> None:
    left = {age: tmp_path / f".report.csv.{age}.part" for age in (4_000, 60)}
    for age, path in left.items():
        path.write_text("people")
        os.utime(path, (time.time() - age,) * 2)
    with replacing(tmp_path / "report.csv") as file:
        file.write(b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".report.csv.60.part", "report.csv"]


@pytest.mark.parametrize("error", [ValueError("boom"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_file_is_as_it_was_when_writing_fails(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "report.csv"
    target.write_text("old")
    with pytest.raises(type(error)), replacing(target) as file:
        file.write(b"new")
        raise error
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.csv"]


def test_file_is_as_it_was_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "report.csv"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with (
        pytest.raises(
            BulkmailError, match=r"cannot write the report .*/report\.csv: No space left on device$"
        ) as caught,
        replacing(target) as file,
    ):
        file.write(b"new")
    assert "nothing is lost" in caught.value.hint
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.csv"]


def test_file_keeps_a_symbolic_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert real.read_text() == "new"


@pytest.mark.parametrize("name", [".", "pipe", "file/report.csv", "nowhere/report.csv"])
def test_file_says_why_it_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BulkmailError, match=r"^cannot write the report .*: ."), replacing(tmp_path / name) as file:
        file.write(b"new")
    assert sorted(tmp_path.iterdir()) == before


def test_file_that_is_a_stream_gets_everything_at_the_end() -> None:
    stream = io.BytesIO()
    with replacing(stream) as file:
        file.write(b"new")
        assert stream.getvalue() == b""
    assert stream.getvalue() == b"new"


@pytest.mark.parametrize("name", ["report.csv", "REPORT.JSON", "old.csv"])
def test_target_passes_that_can_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "old.csv").write_text("old")
    check_target(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        pytest.param("report.xlsx", "does not show the format", "let it end in .csv, .json or .html", id="suffix"),
        pytest.param("report", "does not show the format", "let it end in .csv, .json or .html", id="no-suffix"),
        pytest.param("folder.csv", "that is a folder", "name a file in it", id="folder"),
        pytest.param("nowhere/report.csv", "there is no folder", "create the folder first", id="no-such-folder"),
        pytest.param("file/report.csv", "there is no folder", "create the folder first", id="below-a-file"),
        pytest.param("\x1b[2J/report.csv", "there is no folder /", "create the folder first", id="escape-codes"),
    ],
)
def test_target_is_refused_before_anything_is_sent(tmp_path: Path, name: str, what: str, hint: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        check_target(tmp_path / name)
    assert what in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert caught.value.hint == hint


def test_target_is_refused_in_a_folder_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ConfigError, match="you may not write into"):
        check_target(tmp_path / "report.csv")
