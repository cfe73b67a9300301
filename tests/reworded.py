"""Imported before bulkmail: every message of the outer rooms is worded otherwise, so that nothing can depend on one."""

from __future__ import annotations

import ast
import importlib.machinery
import re
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType

ROOMS = ("checks", "message", "preview", "probe", "recipients", "report", "sandbox", "settings", "text")
_SENTENCE = re.compile(r"[\w ,;.:()'’…-]*[a-z]+ [\w ,;.:()'’…-]*|[ ,;:.()'-]*[a-z]+[ ,;:.()'-]*")
_SAYS = {"BadRow", "Fault", "Flaw", "Found", "NotADate", "Refused", "RelayTrouble", "_SeenFlaw", "add", "bad", "fault"}
_NAMES = {"fix", "hint", "reason", "text", "what", "why", "words"}


class _Sentences(ast.NodeTransformer):
    """What is below here is said to people: case is turned round in every constant part of it that is a sentence."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str) and " " in node.value and _SENTENCE.fullmatch(node.value):
            return ast.copy_location(ast.Constant(node.value.swapcase()), node)
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.expr:
        return node


class _Messages(ast.NodeTransformer):
    """Finds what is said to people: raised, returned as a sentence, handed to what keeps faults."""

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        return _said(node)

    def visit_Return(self, node: ast.Return) -> ast.stmt:
        self.generic_visit(node)
        return _said(node) if isinstance(node.value, ast.Constant | ast.JoinedStr) else node

    def visit_Assign(self, node: ast.Assign) -> ast.stmt:
        self.generic_visit(node)
        is_message = any(isinstance(target, ast.Name) and target.id in _NAMES for target in node.targets)
        return _said(node) if is_message and isinstance(node.value, ast.Constant | ast.JoinedStr) else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in _SAYS:
            return node
        node.args = [_said(each) for each in node.args]
        node.keywords = [_said(each) for each in node.keywords]
        return node


def _said(node):  # type: ignore[no-untyped-def]
    return ast.fix_missing_locations(_Sentences().visit(node))


class _Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, *, _optimize: int = -1) -> CodeType:  # type: ignore[no-untyped-def, override]
        tree = _Messages().visit(ast.parse(data, filename=str(path)))
        return compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True, optimize=_optimize)

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)  # never what was compiled before


class _Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(  # type: ignore[override]
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.split(".")[:1] != ["bulkmail"] or (
            fullname.split(".")[1:2] and fullname.split(".")[1] not in ROOMS
        ):
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder)
