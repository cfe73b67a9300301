"""Where a template asks, counts, compares or joins values: there `made_strict` puts the filters of `strictness`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce
from typing import cast

from jinja2 import Environment, nodes
from jinja2.visitor import NodeTransformer

from bulkmail.message.template.required import field_of

# The names of our own filters: no template can write them by accident.
TRUTH = "_truth"
VALUE_OR = "_value_or"
FIGURE = "_figure"
ADDED = "_added"
COMPARED = "_compared"
PRINTED = "_printed"
ARGUMENTS = "_arguments"
NUMBER_AT_END = "_number_at_end"
LIST_AT_END = "_list_at_end"
_OWN = frozenset({TRUTH, VALUE_OR, FIGURE, ADDED, COMPARED, PRINTED, ARGUMENTS, NUMBER_AT_END, LIST_AT_END})
_AT_END = {"number": NUMBER_AT_END, "list": LIST_AT_END}

OPERATORS = frozenset({"eq", "ne", "lt", "lteq", "gt", "gteq"})
"""The comparisons that are looked at, as Jinja calls them."""


def is_own(name: str) -> bool:
    """Whether a filter of that name is one of ours that no template writes."""
    return name in _OWN


def made_strict(tree: nodes.Template, environment: Environment) -> nodes.Template:
    """The same template, which refuses with `Refused` what it would otherwise do in silence."""
    strict = cast(nodes.Template, _Strict(_printed_fields(tree)).visit(tree))
    strict.set_environment(environment)
    return strict


class _Strict(NodeTransformer):
    def __init__(self, printed: frozenset[str]) -> None:
        self._printed = printed

    def visit_If(self, node: nodes.If) -> nodes.Node:
        node.test = self._condition(node.test)
        for name in ("body", "elif_", "else_"):
            setattr(node, name, [self.visit(child) for child in getattr(node, name)])
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        test, node.test = node.test, None
        self.generic_visit(node)
        node.test = None if test is None else self._condition(test)
        return node

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:
        node.test = self._condition(node.test)
        node.expr1 = self.visit(node.expr1)
        node.expr2 = None if node.expr2 is None else self.visit(node.expr2)
        return node

    def visit_Not(self, node: nodes.Not) -> nodes.Node:
        node.node = self._condition(node.node)
        return node

    def visit_And(self, node: nodes.And) -> nodes.Node:
        node.left, node.right = self._condition(node.left), self.visit(node.right)
        return node

    def visit_Or(self, node: nodes.Or) -> nodes.Node:
        # `{{ name or "friend" }}` prints the name, and a person may be called No.
        node.left, node.right = self._wrapped(self.visit(node.left), VALUE_OR), self.visit(node.right)
        return node

    def _condition(self, node: nodes.Node) -> nodes.Expr:
        match node:
            case nodes.And() | nodes.Or():
                node.left, node.right = self._condition(node.left), self._condition(node.right)
                return node
            case nodes.Not() | nodes.Compare() | nodes.Test() | nodes.Const():
                return cast(nodes.Expr, self.visit(node))
        # A field that is printed as well is asked whether it is there, and a person may be called No.
        is_printed = field_of(node) in self._printed
        return self._wrapped(cast(nodes.Expr, self.visit(node)), TRUTH, nodes.Const(is_printed))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        left, links = node.expr, []
        for operand in node.ops:  # `1 < x <= 9` is two comparisons
            if operand.op in OPERATORS:
                links.append(self._wrapped(left, COMPARED, operand.expr, nodes.Const(operand.op)))
            else:
                links.append(nodes.Compare(left, [operand], lineno=node.lineno))
            left = operand.expr
        return reduce(nodes.And, links)

    def visit_Add(self, node: nodes.Add) -> nodes.Node:
        is_text = any(_is_text(part) for part in _parts(node))
        self.generic_visit(node)
        return node if is_text else self._wrapped(node.left, ADDED, node.right)

    def visit_Mul(self, node: nodes.Mul) -> nodes.Node:
        is_text = _is_text(node.left) or _is_text(node.right)  # a line of `"-" * 40`
        self.generic_visit(node)
        return node if is_text else self._figures(node)

    def visit_Mod(self, node: nodes.Mod) -> nodes.Node:
        is_text = _is_text(node.left)
        self.generic_visit(node)
        if is_text:
            node.right = self._wrapped(node.left, ARGUMENTS, node.right)
            return node
        return self._figures(node)

    def visit_Neg(self, node: nodes.Neg) -> nodes.Node:
        self.generic_visit(node)
        node.node = self._wrapped(node.node, FIGURE)
        return node

    visit_Pos = visit_Neg

    def visit_Sub(self, node: nodes.Sub) -> nodes.Node:
        self.generic_visit(node)
        return self._figures(node)

    visit_Div = visit_FloorDiv = visit_Pow = visit_Sub

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        for each in node.nodes:
            _write_at_end(each)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        for each in node.nodes:
            _write_at_end(each)
        self.generic_visit(node)
        node.nodes = [each if isinstance(each, nodes.Const) else self._wrapped(each, PRINTED) for each in node.nodes]
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        # A tree may come here in pieces, and again as a whole.
        return node if node.name in _OWN - set(_AT_END.values()) else self.generic_visit(node)

    def _figures(self, node: nodes.BinExpr) -> nodes.Node:
        node.left, node.right = self._wrapped(node.left, FIGURE), self._wrapped(node.right, FIGURE)
        return node

    def _wrapped(self, node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Expr:
        if isinstance(node, nodes.Const) and name in (FIGURE, TRUTH):
            return node
        return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _write_at_end(node: nodes.Node | None) -> None:
    """Where `number` or `list` gives what is printed, it writes; elsewhere something is done with its value."""
    match node:
        case nodes.Filter(name="number" | "list"):
            node.name = _AT_END[node.name]
        case nodes.CondExpr():
            _write_at_end(node.expr1)
            _write_at_end(node.expr2)
        case nodes.Or() | nodes.And():
            _write_at_end(node.right)


def _parts(node: nodes.Expr) -> Iterator[nodes.Expr]:
    """What is added up in a chain of additions."""
    if isinstance(node, nodes.Add):
        yield from _parts(node.left)
        yield from _parts(node.right)
    else:
        yield node


def _is_text(node: nodes.Expr) -> bool:
    """Whether a value is text for certain, and meant as such."""
    return isinstance(node, nodes.Concat) or (isinstance(node, nodes.Const) and isinstance(node.value, str))


def _printed_fields(tree: nodes.Template) -> frozenset[str]:
    return frozenset(name for output in tree.find_all(nodes.Output) for name in _printed_in(output))


def _printed_in(node: nodes.Node) -> Iterator[str]:
    """The fields that are printed by `node`, not those that only decide what is."""
    if name := field_of(node):
        yield name
        return
    match node:
        case nodes.CondExpr():
            children: Iterable[nodes.Node | None] = (node.expr1, node.expr2)
        case nodes.And():
            children = (node.right,)
        case nodes.Not() | nodes.Compare() | nodes.Test():
            children = ()
        case _:
            children = node.iter_child_nodes()
    for child in children:
        if child is not None:
            yield from _printed_in(child)
