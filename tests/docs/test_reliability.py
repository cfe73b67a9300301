"""What docs/reliability.md calls evidence is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_every_test_that_reliability_names_exists():
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 60
    assert named <= there, sorted(named - there)


def test_every_fault_of_the_matrix_has_a_line_with_a_test():
    lines = re.findall(r"^\| (F\d\d) \|.*$", PAGE, re.MULTILINE)
    assert lines == [f"F{number:02}" for number in range(1, 63)]
    assert all("`test_" in line for line in PAGE.splitlines() if re.match(r"\| F\d\d \|", line))
