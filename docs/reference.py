"""Writes the pages of docs/reference from the code: python docs/reference.py

What code cannot say (the meaning of a setting, an example) is in docs/settings.toml; tests hold it against the code.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FOLDER = DOCS / "reference"
WRITTEN = "This page is written by `python docs/reference.py`; change the code or `docs/settings.toml`, not the page."
SAID: dict[str, Any] = tomllib.loads((DOCS / "settings.toml").read_text(encoding="utf-8"))
_NOT_TABLES = ("types", "variables", "logs", "columns", "statuses", "exit_codes", "replies")
ROOMS = "## Rooms"  # the section of docs/design.md that is made here
USER_TABLES = ("serve", "webhook", "bounces")  # of the user's own file alone
LISTS = ("webhook", "bounces")  # written [[so]]


def tables() -> dict[str, dict[str, list[str]]]:
    """The settings by table: key to type, default, example and meaning."""
    return {name: table for name, table in SAID.items() if name not in _NOT_TABLES}


def row(*cells: str) -> str:
    """A line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _page(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"


def grid(head: str, rows: Iterator[str] | list[str]) -> str:
    """A table; `head` names the columns, separated by commas."""
    names = head.split(", ")
    return "\n".join([row(*names), "|" + "---|" * len(names), *rows])


def settings_page() -> str:
    """Every key of `campaign.toml` and of the user's own file."""
    parts = [
        "# Settings",
        f"Every key of `campaign.toml`, and of the user's own file, `~/.config/bulkmail/config.toml`. {WRITTEN}",
        "A flag stands before the file, and a value in `campaign.toml` before that of the user's own file.",
        "## Types",
        grid("type, is written", [row(name, text) for name, text in SAID["types"].items()]),
    ]
    for name, table in tables().items():
        where = "in the user's own file" if name in USER_TABLES else "in `campaign.toml`"
        if name in ("suppressions", "notify"):
            where = "in `campaign.toml` or the user's own file"
        brackets = f"[[{name}]]" if name in LISTS else f"[{name}]"
        heading = "Above the first table" if name == "campaign" else brackets
        parts.append(f"## {heading}\n\nKeys {where}.")
        rows = [
            row(f"`{key}`", kind, default, f"`{example}`", says)
            for key, (kind, default, example, says) in table.items()
        ]
        parts.append(grid("key, type, default, example, meaning", rows))
    return _page(*parts)


def environment_page() -> str:
    """Environment variables and loggers."""
    variables = grid("variable, meaning", [row(f"`{name}`", text) for name, text in SAID["variables"].items()])
    logs = grid("logger, says", [row(f"`{name}`", text) for name, text in SAID["logs"].items()])
    return _page(
        "# Environment variables and logs",
        f"What bulkmail reads of the environment, and the loggers that a program may listen to. {WRITTEN}",
        "## Environment variables",
        variables,
        "## Logs",
        "The library writes to these loggers of Python's `logging`, and configures none. Details are "
        "in `extra`. Addresses appear at debug level only, passwords and texts of messages never.",
        logs,
    )


def replies_page() -> str:
    """What bulkmail makes of the replies that people ask about."""
    from bulkmail.model.outcome import Stage, advice, make_reply
    from bulkmail.model.verdict import judge

    rows = []
    for name, replies in SAID["replies"].items():
        for text in replies:
            verdict = judge(make_reply(Stage(name), int(text[:3]), [text[4:]]))
            about = advice(verdict.reason)
            rows.append(
                row(
                    name.upper(), f"`{text}`", verdict.reason.value, _follows(verdict, name), about.fix if about else ""
                )
            )
    return _page(
        "# Server replies",
        f"What bulkmail makes of replies that people ask about. {WRITTEN}",
        grid("at, reply, is taken as, what follows, fix", rows),
        "What is not in this table is judged by the same rules. `bulkmail status` and the report show the server's own "
        "words for every row.",
    )


def _follows(verdict: Any, stage: str) -> str:
    """What becomes of the recipient and the run."""
    if verdict.outcome.value == "rejected":
        return "the recipient is rejected"
    if verdict.pause:
        return "the account pauses; recipients stay pending"
    if verdict.stops:
        return "the run stops; recipients stay pending"
    if verdict.strikes:
        return "the recipient stays pending; three in a row stop the run"
    if verdict.probes:
        return "the relay pauses, and one message at a time tries again"
    if verdict.effects or verdict.suspend or verdict.reason.name == "THROTTLED":
        return "bulkmail slows down; the recipient is tried again"
    if stage in ("greeting", "auth"):
        return "the relay is tried again; recipients stay pending"
    return "goes over another connection" if verdict.drops else "the recipient is tried again"


def exit_codes() -> dict[str, int]:
    """The exit codes by the names that the code has for them."""
    found = {}
    for module in ("bulkmail.model.tally", "bulkmail.cli.bounces"):
        names = vars(importlib.import_module(module))
        found.update({name: value for name, value in names.items() if name.startswith("EXIT_")})
    return found


def report_page() -> str:
    """Columns of the CSV report, statuses and exit codes."""
    from bulkmail.model.tally import Status
    from bulkmail.recipients.columns import DELIVERY_COLUMNS

    codes = exit_codes()
    return _page(
        "# Columns, statuses, exit codes",
        f"What a report and the end of a command say. {WRITTEN}",
        "## Columns",
        "The CSV report is the list, row by row and column by column, with these columns added.",
        grid("column, holds", [row(f"`{name}`", SAID["columns"][name]) for name in DELIVERY_COLUMNS]),
        "## Statuses",
        "Every row is in exactly one of these.",
        grid("status, means", [row(f"`{each.value}`", SAID["statuses"][each.value]) for each in Status]),
        "## Exit codes",
        grid(
            "exit code, means",
            [
                row(str(code), SAID["exit_codes"][name])
                for name, code in sorted(codes.items(), key=lambda item: item[1])
            ],
        ),
    )


def metrics() -> list[tuple[str, str, str, list[str]]]:
    """Name, kind, meaning and labels of every metric, as the code that makes it says."""
    found = []
    for path in sorted((ROOT / "bulkmail").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "MetricFamily(" not in text:
            continue
        tree = ast.parse(text)
        known = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant | ast.List)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("MetricFamily"):
                kind = node.func.id.removesuffix("MetricFamily").lower()
                name, meaning = (_literal(each, known) for each in node.args[:2])
                labels = next((_literal(each.value, known) for each in node.keywords if each.arg == "labels"), [])
                found.append((name + "_total" * (kind == "counter"), kind, meaning, labels))
    return found


def _literal(node: ast.expr, known: dict[str, ast.expr]) -> Any:
    return ast.literal_eval(known[node.id] if isinstance(node, ast.Name) else node)


def metrics_page() -> str:
    """Every metric."""
    rows = [
        row(f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels) or "none", meaning)
        for name, kind, meaning, labels in metrics()
    ]
    return _page(
        "# Metrics",
        f"What `--metrics PORT` of `send`, `resume` and `serve` shows to Prometheus, on this machine only. {WRITTEN}",
        grid("metric, type, labels, meaning", rows),
        "`mailbox_provider` is empty for a relay as a whole. Times are in seconds, rates in messages a second.",
    )


def schema(name: str) -> str:
    """The JSON schema of one format."""
    from docs.formats import FORMATS

    return json.dumps(msgspec.json.schema(FORMATS[name]), indent=1) + "\n"


def json_page() -> str:
    """The JSON formats, with links to their schemas."""
    from docs.formats import EVENTS, FORMATS

    rows = [
        row(f"[{name}](schemas/{name}.json)", _first_line(inspect.getdoc(kind) or "")) for name, kind in FORMATS.items()
    ]
    return _page(
        "# JSON",
        f"Every JSON format has a schema. Within a version keys are only added. {WRITTEN}",
        grid("schema, format", rows),
        "Commands with `--json` that are not among these (as `bounces --unmatched`) print an object with "
        "`bulkmail`, `exit_code`, `error` and `hint` beside what they found.",
        "## Events",
        "With `--progress json` every line on standard error is an object with `event` and `at` (UTC).",
        grid("event, says", [row(f"`{name}`", text) for name, text in EVENTS.items()]),
    )


def python_page() -> str:
    """The Python API, from the docstrings."""
    import bulkmail
    import bulkmail.testing

    parts = [
        "# Python API",
        f"Every public name, from its docstring; how to use them: [from Python](../guides/python.md). {WRITTEN}",
        "Durations are seconds as floats, times of the wall clock are seconds since 1970, shares are 0 to 1, sizes are "
        "bytes. Every exception is a `BulkmailError`; its `hint` says what to try.",
        "## bulkmail",
    ]
    parts += [_name_section("bulkmail", name, getattr(bulkmail, name)) for name in bulkmail.__all__]
    parts.append("## bulkmail.testing\n\n" + inspect.getdoc(bulkmail.testing))
    parts += [
        _name_section("bulkmail.testing", name, getattr(bulkmail.testing, name)) for name in bulkmail.testing.__all__
    ]
    return _page(*parts)


def _name_section(package: str, name: str, thing: Any) -> str:
    module = (inspect.getmodule(thing) or sys.modules[package]).__name__
    parts = [f"### {name}", f"`{package}.{name}`, {_kind(thing)} of `{module}`.", *_signature(name, thing), _doc(thing)]
    for member, value in _members(thing) if inspect.isclass(thing) else ():
        parts.append(f"#### {name}.{member}")
        if isinstance(value, property):
            kind = inspect.signature(value.fget).return_annotation if value.fget else ""
            parts += [f"Property: `{_annotation(kind)}`", _doc(value)]
        else:
            function = getattr(value, "__func__", value)
            parts += [*_signature(f"{name}.{member}", function), _doc(function)]
    return "\n\n".join(part for part in parts if part)


def _kind(thing: Any) -> str:
    if inspect.isclass(thing):
        return "exception" if issubclass(thing, BaseException) else "enum" if issubclass(thing, enum.Enum) else "class"
    return "coroutine" if inspect.iscoroutinefunction(thing) else "function"


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties, those of our own base classes too."""
    if issubclass(kind, enum.Enum):
        return
    seen: set[str] = set()
    for each in (kind, *(base for base in kind.__mro__[1:] if base.__module__.startswith("bulkmail."))):
        for name, value in vars(each).items():
            is_member = inspect.isroutine(value) or isinstance(value, property | classmethod | staticmethod)
            if is_member and not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, value


def _signature(name: str, thing: Any) -> list[str]:
    if inspect.isclass(thing) and issubclass(thing, enum.Enum):
        return [grid("member, value", [row(f"`{name}.{each.name}`", f"`{each.value!r}`") for each in thing])]
    signature = inspect.signature(thing)
    shown = [each for each in signature.parameters.values() if each.name not in ("self", "cls") and each.name[0] != "_"]
    words: list[str] = []
    has_star = False
    for parameter in shown:
        if parameter.kind is parameter.KEYWORD_ONLY and not has_star:
            words.append("*")
        has_star = has_star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        words.append(_parameter(parameter))
    back = signature.return_annotation
    tail = f" -> {_annotation(back)}" if back is not signature.empty and not inspect.isclass(thing) else ""
    one = f"{name}({', '.join(words)}){tail}"
    if len(one) > 100:
        one = f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){tail}"
    return [f"```text\n{one}\n```"]


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {_default(parameter.default)}"
    return text


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return re.sub(r"\bbulkmail(?:\.\w+)+\.", "", text)


def _default(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    text = repr(value)
    if "<" not in text and len(text) <= 60:
        return text
    try:
        return f"{type(value).__name__}()" if type(value)() == value else "…"
    except TypeError:
        return "…"


def _first_line(text: str) -> str:
    return text.partition("\n\n")[0].replace("\n", " ")


def _doc(thing: Any) -> str:
    """The docstring in Markdown: indented blocks stay code, single spaces end sentences."""
    return re.sub(r"(?<=[.!?:;)`])  (?=\S)", " ", inspect.getdoc(thing) or "")


def architecture_page() -> str:
    """docs/design.md with the map of rooms as their packages describe themselves."""
    rows = []
    for package in sorted((ROOT / "bulkmail").glob("*/__init__.py")):
        said = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))) or ""
        rows.append(row(f"`{package.parent.name}/`", re.sub(r"(?<=\.)  ", " ", _first_line(said))))
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(ROOMS)
    after = rest.partition("\n##")[2]
    return f"{before}{ROOMS}\n\n{grid('room, is', rows)}\n\n##{after}"


def pages() -> dict[Path, str]:
    """Every page and schema, as it should be."""
    from docs.formats import FORMATS

    makers: dict[str, Callable[[], str]] = {
        "settings": settings_page,
        "environment": environment_page,
        "report": report_page,
        "metrics": metrics_page,
        "replies": replies_page,
        "json": json_page,
        "python": python_page,
    }
    return {
        DOCS / "design.md": architecture_page(),
        **{FOLDER / f"{name}.md": make() for name, make in makers.items()},
        **{FOLDER / "schemas" / f"{name}.json": schema(name) for name in FORMATS},
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    (FOLDER / "schemas").mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
