"""That the types of the installed package reach the programs that use it, under mypy and under pyright."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("api.py")
WRONG = """import bulkmail

bulkmail.compose(from_=7, subject="Hi", text="Hi")
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Two programs beside an environment in which the package is installed as its wheel has it."""
    folder = tmp_path_factory.mktemp("program")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(request.config.rootpath)]
    built = subprocess.run([*pip, *wheel], capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    venv.create(folder / "venv")
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(packages)
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies))
    shutil.copy(PROGRAM, folder / "right.py")
    (folder / "wrong.py").write_text(WRONG)
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    return folder


def checked(folder: Path, program: str, *checker: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *checker, program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=140)


CHECKERS = [
    pytest.param(["mypy", "--strict", "--cache-dir", "cache", "--python-executable", "venv/bin/python"], id="mypy"),
    pytest.param(["basedpyright", "--pythonpath", "venv/bin/python"], id="pyright"),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_types_of_the_package_reach_its_users(folder: Path, checker: list[str]) -> None:
    right = checked(folder, "right.py", *checker)
    assert right.returncode == 0, right.stdout
    wrong = checked(folder, "wrong.py", *checker)
    assert wrong.returncode == 1
    assert "wrong.py:3" in wrong.stdout
    assert '"from_"' in wrong.stdout
