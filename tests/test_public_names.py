"""The names of `bulkmail.__all__` stay what they are, whatever else is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import importlib, pkgutil, types
import bulkmail
for module in pkgutil.walk_packages(bulkmail.__path__, "bulkmail."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
hidden = [name for name in bulkmail.__all__ if isinstance(getattr(bulkmail, name), types.ModuleType)]
assert not hidden, hidden
"""


@pytest.mark.slow
def test_no_public_name_is_hidden_by_a_module() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
