"""The examples of the contributors' guide work."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkmail.checks import catalog
from bulkmail.recipients import list_source
from tests.docs.pages import ROOT, blocks
from tests.docs.test_guides import says

PAGE = ROOT / ".github" / "CONTRIBUTING.md"
CARDS = """\
BEGIN:VCARD
VERSION:4.0
FN:Ann Li
EMAIL;TYPE=work:ann@example.com
END:VCARD
BEGIN:VCARD
FN:Bob
EMAIL:nowhere
END:VCARD
"""


def example(title: str) -> str:
    """The code of a section."""
    text = PAGE.read_text(encoding="utf-8")
    begin = text.count("\n", 0, text.index(f"### {title}")) + 1
    return next(block.body for block in blocks(PAGE, "python") if block.line > begin)


def run(title: str) -> None:
    exec(compile(example(title), f"CONTRIBUTING.md, {title}", "exec"), {"__name__": __name__})  # noqa: S102 - ours


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a list of two cards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "people.vcf").write_text(CARDS, encoding="utf-8")
    (tmp_path / "campaign.toml").write_text(
        'relay = "null:"\nrecipients = "people.vcf"\n'
        '[message]\nfrom = "a@shop.test"\nsubject = "BUY, {{ name.upper() }}"\n'
        'text = """\nDear {{ name }}\n"""\n',
        encoding="utf-8",
    )
    return tmp_path


@pytest.mark.slow
def test_new_list_format_is_one_module_and_one_line(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_source, "FORMATS", dict(list_source.FORMATS))
    run("a list format")
    assert len([line for line in example("a list format").splitlines() if line.strip()]) < 30
    said = says("bulkmail check")
    assert "people.vcf:6" in said
    assert "1 accepted" in says("bulkmail send --yes")


@pytest.mark.slow
def test_new_check_is_a_function_and_a_row(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (campaign / "people.vcf").rename(campaign / "people.csv").write_text("email,name\nb@shop.test,Ann\n")
    file = campaign / "campaign.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("people.vcf", "people.csv"), encoding="utf-8")
    monkeypatch.setattr(catalog, "CHECKS", catalog.CHECKS)
    run("a check")
    assert "the subject shouts: BUY, ANN" in says("bulkmail check")


@pytest.mark.parametrize("title", ["a setting", "a relay feature"])
def test_example_runs(title: str) -> None:
    run(title)
