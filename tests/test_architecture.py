"""The house rules that no type checker knows: sizes, names, and a model that touches nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import bulkmail
from tests.cases import every

pytestmark = pytest.mark.timeout(300)  # a test reads all modules, on a busy machine

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bulkmail"
MODULES = sorted(PACKAGE.rglob("*.py"))
MODEL = sorted((PACKAGE / "model").glob("*.py"))

LONGEST_MODULE = 600  # lines
BANNED_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "core", "common", "misc"}

# What model/ may import: everything else could tell the time, roll dice, wait, log or reach the world outside.
PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "datetime",
    "email_validator",
    "enum",
    "functools",
    "hashlib",
    "ipaddress",
    "itertools",
    "math",
    "msgspec",
    "operator",
    "re",
    "reprlib",
    "typing",
    "unicodedata",
    "urllib",
}
# What else tells the time, or asks the machine for its zone, in a module that may be imported for its arithmetic.
CLOCKS = {f"{name}.{call}" for name in ("datetime", "date") for call in ("now", "utcnow", "today")}
IMPURE_CALLS = {"open", "print", "input", "eval", "exec", "compile", "breakpoint", "__import__", "id", "hash"}


def name_of(module: Path) -> str:
    return str(module.relative_to(ROOT))


@cache
def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"), filename=str(module))


def names_imported_by(tree: ast.Module) -> set[str]:
    """`module.name` of each `from module import name` at the top."""
    froms = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {f"{node.module}.{alias.name}" for node in froms for alias in node.names}


def imports_of(tree: ast.AST) -> Iterator[str]:
    """The full names of everything that is imported, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# A command uses a tenth of the patterns in these rooms.
LAZY_ROOMS = {"cli", "settings", "mailing", "message", "model", "checks", "recipients", "report"}


EVERY_MODULE = every((name_of(module), (module,)) for module in MODULES)
EVERY_MODEL_MODULE = every((name_of(module), (module,)) for module in MODEL)


def test_architecture_sees_the_modules() -> None:
    assert len(MODEL) >= 15
    assert set(MODEL) <= set(MODULES)


@EVERY_MODULE
def test_module_is_short(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


@EVERY_MODULE
def test_module_name_says_a_concept(module: Path) -> None:
    assert not BANNED_NAMES & {part.removesuffix(".py") for part in module.relative_to(ROOT).parts}


@pytest.mark.slow
def test_class_name_has_one_meaning() -> None:
    """A reader who searches for a name finds one class; `report` and `feedback` do not both have a `Report`."""
    homes: dict[str, list[str]] = {}
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name_of(module))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_file_name_is_in_one_room() -> None:
    """A command's file bears the name of the command, and may share it with the room that does the work."""
    homes: dict[str, list[str]] = {}
    for module in MODULES:
        if module.name != "__init__.py" and module.parent != PACKAGE / "cli":
            homes.setdefault(module.name, []).append(name_of(module))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


@EVERY_MODULE
def test_module_begins_with_what_it_knows(module: Path) -> None:
    docstring = ast.get_docstring(tree_of(module))
    assert docstring, "the first line of a module is a sentence that says what it knows"
    assert docstring.partition("\n\n")[0].endswith("."), "it is a sentence"


@pytest.mark.slow
@EVERY_MODULE
def test_module_does_not_import_the_package_root(module: Path) -> None:
    """The root hands names on for users; inside, it would tie every room to every other."""
    rooms = {path.stem for path in PACKAGE.iterdir()}
    for imported in imports_of(tree_of(module)):
        if imported.partition(".")[0] == "bulkmail":
            assert imported.split(".")[1:2] and imported.split(".")[1] in rooms, f"imports {imported}"


@pytest.mark.slow
@EVERY_MODULE
def test_module_leaves_no_work_for_later(module: Path) -> None:
    assert not re.findall(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", module.read_text(encoding="utf-8"))


@EVERY_MODULE
def test_module_compiles_no_pattern_when_it_is_imported(module: Path) -> None:
    if not LAZY_ROOMS.intersection(module.relative_to(PACKAGE).parts):
        return
    for node in tree_of(module).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            assert ast.unparse(node.value.func) != "re.compile", f"line {node.lineno}: lazy_pattern() is for that"


@pytest.mark.slow
@EVERY_MODULE
def test_module_makes_no_dataclass_at_once_but_for_programs(module: Path) -> None:
    """Anyone who inspects a class of the public ones is to see its parameters before there is an instance."""
    home = ".".join(module.relative_to(PACKAGE).with_suffix("").parts)
    if home == "model.lazy" or home.startswith("testing."):
        return
    tree = tree_of(module)
    at_once = {"dataclasses.dataclass"}
    if "dataclasses.dataclass" in names_imported_by(tree):
        at_once.add("dataclass")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(
            ast.unparse(by).partition("(")[0] in at_once for by in node.decorator_list
        ):
            assert bulkmail._HOMES.get(node.name) == home, f"{node.name}: bulkmail.model.lazy is for that"


@pytest.mark.slow
@EVERY_MODEL_MODULE
def test_model_imports_nothing_that_reaches_outside(module: Path) -> None:
    roots = {imported.partition(".")[0] for imported in imports_of(tree_of(module))}
    assert roots - {"bulkmail"} <= PURE
    assert not {imported for imported in imports_of(tree_of(module)) if imported.startswith("urllib.request")}


@EVERY_MODEL_MODULE
def test_model_imports_only_the_model(module: Path) -> None:
    ours = {imported for imported in imports_of(tree_of(module)) if imported.startswith("bulkmail")}
    assert all(imported.startswith(("bulkmail.model.", "bulkmail.text.")) for imported in ours)


@EVERY_MODEL_MODULE
def test_model_awaits_and_calls_nothing_that_reaches_outside(module: Path) -> None:
    for node in ast.walk(tree_of(module)):
        assert not isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Global))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            reported = ast.unparse(node.func)
            assert reported not in CLOCKS, f"{reported}() tells the time"


@EVERY_MODEL_MODULE
def test_model_dataclasses_are_frozen_and_slotted(module: Path) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                made_by = ast.unparse(decorator).removeprefix("dataclasses.")
                assert made_by == "dataclass(frozen=True, slots=True)", node.name


@pytest.mark.slow
def test_layers_are_kept() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    linted = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr
