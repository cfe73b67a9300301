"""docs/reference has everything that the code has, and is what docs/reference.py makes of it."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import pytest
from pydantic import BaseModel

import bulkmail
import bulkmail.testing
from bulkmail.checks.catalog import CHECKS
from bulkmail.cli import main
from bulkmail.cli.metrics import Metrics
from bulkmail.cli.program import COMMANDS
from bulkmail.model.tally import Status
from bulkmail.recipients.columns import DELIVERY_COLUMNS
from bulkmail.settings.schema import CampaignFile, UserFile, read_campaign, read_user_file
from docs import formats, reference
from tests.docs.pages import DOCS, ROOT

SOURCES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "bulkmail").rglob("*.py")}


def page(name: str) -> str:
    return (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")


def tables_in(shape: type[BaseModel], path: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every table below `shape`, with its keys."""
    own = set()
    for name, field in shape.model_fields.items():
        key = field.alias or name
        below = list(models_of(field.annotation))
        if below and not path:
            for model in below:
                yield from tables_in(model, key)
        elif below and (path, key) != ("message", "html"):
            own.add(key)
            for model in below:
                yield from tables_in(model, f"{path}.{key}")
        else:
            own.add(key)
    if path:
        yield path, own
    if path == "mailbox_providers":
        from bulkmail.settings.key_types import ProviderTable

        yield from tables_in(ProviderTable, f"{path}.NAME")


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_of(part)


@pytest.mark.slow
def test_pages_and_schemas_are_up_to_date() -> None:
    for path, text in reference.pages().items():
        assert path.read_text(encoding="utf-8") == text, "type: python docs/reference.py"
    assert set((DOCS / "reference").rglob("*.*")) == set(reference.pages()) - {DOCS / "design.md"}


def test_every_setting_is_described() -> None:
    shapes = dict(tables_in(CampaignFile)) | dict(tables_in(UserFile))
    same = {"message.markdown", "message.mjml", "message.calendar", "message.html"}  # as message.text
    described = {name: set(table) for name, table in reference.tables().items() if name != "campaign"}
    assert {name: keys for name, keys in shapes.items() if name not in same} == described
    assert set(reference.tables()["campaign"]) == {"name", "relay", "recipients", "data"}
    types = set(reference.SAID["types"])
    assert {each[0] for table in reference.tables().values() for each in table.values()} <= types


@pytest.mark.parametrize("table", reference.tables())
def test_every_example_of_a_setting_can_be_read(table: str) -> None:
    for key, (_, _, example, _) in reference.tables()[table].items():
        head = {"campaign": "", "webhook": "[[webhook]]", "bounces": "[[bounces]]"}.get(table, f"[{table}]")
        data = tomllib.loads(f"{head}\n{key} = {example}")
        if table == "message.attachments":
            data = {"message": {"attachments": [data["message"]["attachments"]]}}
        read = read_user_file if table in reference.USER_TABLES else read_campaign
        assert not read(data, {})[1], f"{table}.{key}"


def test_defaults_that_the_code_has_are_those_described() -> None:
    for shape in (CampaignFile, UserFile):
        for name, model in (
            (key, model) for key, field in shape.model_fields.items() for model in models_of(field.annotation)
        ):
            for key, field in model.model_fields.items():
                if isinstance(field.default, bool):
                    said = reference.tables()["relay" if name == "relays" else name][field.alias or key][1]
                    assert said == f"`{str(field.default).lower()}`", key


def test_every_environment_variable_is_described() -> None:
    used = {name for text in SOURCES.values() for name in re.findall(r"(?<!_)\bBULKMAIL_[A-Z_]+[A-Z]\b", text)}
    assert used == {name for name in reference.SAID["variables"] if name.startswith("BULKMAIL_")}


@pytest.mark.slow
def test_every_logger_is_described() -> None:
    names = set()
    for path, text in SOURCES.items():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(text)) if "getLogger" in text else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger"):
                (argument,) = node.args
                names.add(argument.value if isinstance(argument, ast.Constant) else module)
    assert {name for name in names if name.startswith("bulkmail")} == set(reference.SAID["logs"])


def test_every_column_status_and_exit_code_is_there() -> None:
    text = page("report")
    for name in (*DELIVERY_COLUMNS, *(each.value for each in Status)):
        assert f"| `{name}` |" in text
    for code in reference.exit_codes().values():
        assert f"| {code} |" in text
    assert set(reference.SAID["columns"]) == set(DELIVERY_COLUMNS)
    assert set(reference.SAID["exit_codes"]) == set(reference.exit_codes())
    assert set(reference.SAID["statuses"]) == {each.value for each in Status}


def test_every_check_is_there() -> None:
    text = (DOCS / "checks.md").read_text(encoding="utf-8")
    assert not [check.code for check in CHECKS if f"| `{check.code}` |" not in text]


def test_every_metric_is_there() -> None:
    text = page("metrics")
    counted = Metrics()
    families = [family.name for family in counted.collect()]
    assert len(families) >= 7
    assert not [name for name in families if f"`{name}`" not in text and f"`{name}_total`" not in text]
    assert len(reference.metrics()) == sum(text.count("MetricFamily(") for text in SOURCES.values())


def test_every_flag_of_every_command_is_there() -> None:
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    root = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(root, name)
        assert command is not None
        for each in (command, *(command.commands.values() if isinstance(command, click.Group) else ())):
            for option in each.params:
                if isinstance(option, click.Option) and not option.hidden:
                    assert option.opts[-1] in text, f"{name} {option.opts}"


@pytest.mark.parametrize("package", [bulkmail, bulkmail.testing], ids=lambda package: package.__name__)
def test_every_public_name_is_there_with_a_promise(package: Any) -> None:
    text = page("python")
    for name in package.__all__:
        section = re.search(rf"^### {name}\n(.*?)(?=^###? )", text + "\n## \n", re.MULTILINE | re.DOTALL)
        assert section, name
        said = re.sub(r"```.*?```", "", section[1], flags=re.DOTALL)
        said = re.sub(r"^(?:`.*` ?, .* of .*|\|.*\|)$", "", said, flags=re.MULTILINE)
        assert len(said.split()) >= 4 and f"\n{name}(" not in said, f"{name} has no docstring of its own"
    bare = re.findall(r"^#### (\S+)\n\n(?:Property: .*|```text\n(?:.*\n)*?```)\n\n(?=#|\Z)", text, re.MULTILINE)
    assert not bare, "methods without a docstring"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> bytes:
    """What a command prints, run in this process."""
    with pytest.raises(SystemExit):
        main(list(arguments))
    return capsys.readouterr().out.encode()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_commands_print_the_json_that_the_schemas_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said(capsys, "init", "spring")
    commands = {
        "check": ("check", "spring", "--json"),
        "send": ("send", "spring", "--json", "--progress", "none"),
        "status": ("status", "spring", "--json"),
        "report": ("report", "spring", "--format", "json"),
        "doctor": ("doctor", "--offline", "--json"),
        "stop": ("stop", "spring", "--json"),
        "relay": ("relay", "smtp://localhost:1?tls=off", "--json"),
        "suppress-list": ("suppress", "list", "--json"),
        "suppress-show": ("suppress", "show", "ann@example.com", "--json"),
    }
    said(capsys, "suppress", "add", "ann@example.com")
    for name, command in commands.items():
        shown = said(capsys, *command)
        try:
            msgspec.json.decode(shown, type=formats.FORMATS[name], strict=True)
        except msgspec.ValidationError as error:
            pytest.fail(f"{' '.join(command)}: {error}: {shown.decode()[:2000]}")


def test_example_of_a_notification_is_as_its_schema_says() -> None:
    guide = (DOCS / "guide.md").read_text(encoding="utf-8")
    (example,) = [block for block in re.findall(r"```json\n(.*?)```", guide, re.DOTALL) if "run.finished" in block]
    msgspec.json.decode(example, type=formats.Notification)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_schema_is_a_schema(name: str) -> None:
    schema = json.loads((DOCS / "reference" / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    assert "$ref" in schema and "$defs" in schema
