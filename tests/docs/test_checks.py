"""docs/checks.md says what the checks say."""

from __future__ import annotations

from pathlib import Path

from bulkmail.checks.catalog import CHECKS, table

TEXT = (Path(__file__).parents[2] / "docs" / "checks.md").read_text(encoding="utf-8")


def test_table_in_the_docs_is_that_of_the_code() -> None:
    assert TEXT.endswith("\n\n" + table()), "write what bulkmail.checks.catalog.table() says into docs/checks.md"


def test_every_check_has_a_code_of_its_own_and_says_all_that_it_should() -> None:
    assert len({check.code for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.code == check.code.lower().replace("_", "-").strip("-")
        assert check.finds and check.why.endswith(".") and check.fix and not check.fix.endswith(".")
