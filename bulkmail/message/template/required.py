"""Which fields a template cannot do without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jinja2 import meta, nodes

_MAPPING_METHODS = frozenset({"get", "items", "keys", "values"})


def required_by(tree: nodes.Template, partials: Mapping[str, nodes.Template]) -> set[str]:
    """The names that must come from the row for `tree`, and what it includes from `partials`, to be rendered.

    A field counts by its own name and as `row["Its name"]`.  It does not when every use gives it a `default()`, or
    when the template asks anywhere whether it `is defined`.
    """
    trees = [tree, *_included(tree, partials)]
    names = _required(tree)
    # What an including template sets (in a loop, too) is there for those it includes.
    assigned = {node.name for each in trees for node in each.find_all(nodes.Name) if node.ctx != "load"}
    for included in trees[1:]:
        names |= _required(included) - assigned
    return names


def _included(tree: nodes.Template, partials: Mapping[str, nodes.Template]) -> list[nodes.Template]:
    found: dict[str, nodes.Template] = {}
    remaining = [tree]
    while remaining:
        for name in meta.find_referenced_templates(remaining.pop()):
            if name is not None and name in partials and name not in found:
                found[name] = partials[name]
                remaining.append(partials[name])
    return list(found.values())


def _required(tree: nodes.Template) -> set[str]:
    undeclared = meta.find_undeclared_variables(tree)
    tested = {
        name
        for test in tree.find_all(nodes.Test)
        if test.name in ("defined", "undefined") and (name := field_of(test.node)) is not None
    }
    names = {name for name, is_direct in _uses(tree) if not is_direct or name in undeclared}
    return names - tested


def _uses(node: nodes.Node) -> Iterator[tuple[str, bool]]:
    """Every use of a field without a default, and whether it is by its own name."""
    name = field_of(node)
    if name is not None:
        yield name, isinstance(node, nodes.Name)
        return
    for child in node.iter_child_nodes():
        has_default = isinstance(node, nodes.Filter) and node.name in ("default", "d") and child is node.node
        if not (has_default and field_of(child) is not None):
            yield from _uses(child)


def field_of(node: nodes.Node) -> str | None:
    """The field that `node` is, `name`, `row.name` or `row["name"]`; None for anything else."""
    match node:
        case nodes.Name(name=str(name), ctx="load") if name != "row":
            return name
        case nodes.Getattr(node=nodes.Name(name="row"), attr=str(name)) if name not in _MAPPING_METHODS:
            return name
        case nodes.Getitem(node=nodes.Name(name="row"), arg=nodes.Const(value=str(name))):
            return name
    return None
