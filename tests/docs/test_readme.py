"""What README and guide show, works."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from bulkmail.cli.program import COMMANDS
from tests.e2e.commands import run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_python_example_prints_what_it_says(capsys):
    (example,) = blocks(README, "python")
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - ours
    assert capsys.readouterr().out == "2 [] []\n"


def test_settings_of_the_user_in_the_guide_are_known():
    from bulkmail.settings.schema import read_user_file

    (example,) = [block for block in blocks(GUIDE, "toml") if "[serve]" in block]
    assert read_user_file(tomllib.loads(example), {})[1] == []


@pytest.mark.parametrize("text", [README, GUIDE], ids=["readme", "guide"])
def test_campaign_example_loads(text, tmp_path):
    from bulkmail.settings.settings import load

    found = [block for block in blocks(text, "toml") if "[serve]" not in block]  # which is the user's own file
    # The guide's later ones are further tables of the first.
    relays = "".join(block for block in found if "[[relay]]" in block)  # or stand in its place
    example = "\n".join(block for block in found if "[[relay]]" not in block)
    (tmp_path / "campaign.toml").write_text(example, encoding="utf-8")
    for name in ("people.csv", "message.txt", "message.html", "menu.pdf", "terms.pdf"):
        (tmp_path / name).write_text("email,first_name,last_name\n", encoding="utf-8")
    settings = load(str(tmp_path))
    assert settings.campaign.subject.text == tomllib.loads(example)["message"]["subject"]
    if relays:
        several = re.sub(r"(?m)^relay = .*$", "", example) + relays
        (tmp_path / "campaign.toml").write_text(several, encoding="utf-8")
        assert [route.name for route in load(str(tmp_path)).routes] == ["main", "spare"]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
async def test_every_command_has_help_with_an_example(command, tmp_path):
    result = await run(command, "--help", cwd=tmp_path)
    assert result.code == 0
    assert f"bulkmail {command}" in result.out.partition("Example")[2]
    assert max(map(len, result.out.splitlines())) <= 80


def test_guide_names_every_setting():
    from bulkmail.settings.key_types import BreakersTable, ProvidersTable, ProviderTable
    from bulkmail.settings.schema import (
        BouncesTable,
        MessageTable,
        NotifyTable,
        RecipientsTable,
        RelayTable,
        SendingTable,
        ServeTable,
        SuppressionsTable,
        WebhookTable,
    )

    pace = (ProvidersTable, ProviderTable, BreakersTable)
    user = (BouncesTable, ServeTable, SuppressionsTable, WebhookTable)
    for table in (MessageTable, RecipientsTable, RelayTable, SendingTable, NotifyTable, *user, *pace):
        for name, field in table.model_fields.items():
            assert (field.alias or name) in GUIDE, f"{table.__name__}.{name}"


def test_one_minute_of_the_readme_is_made_of_commands_that_exist():
    named = set(re.findall(r"^bulkmail (\w+)", README, re.MULTILINE))
    assert named
    assert not named - set(COMMANDS)


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_one_minute_of_the_readme_works(tmp_path):
    for command in (
        ("init", "spring"),
        ("check", "spring"),
        ("preview", "spring", "--row", "3"),
        ("send", "spring"),
        ("inbox", "spring"),
        ("status", "spring"),
        ("report", "spring"),
    ):
        result = await run(*command, cwd=tmp_path)
        assert result.code == 0, (command, result.err)
