"""Which columns a message mentions, and which of them stand in it as they are."""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import nodes

from bulkmail.message.template.environment import make_environment
from bulkmail.message.template.required import field_of
from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.errors import ConfigError

FUNCTIONS = frozenset(make_environment({}).globals)
"""What templates can call without any row having it."""


def mentioned_names(campaign: Campaign) -> set[str] | None:
    """The fields that any template of `campaign` mentions; None when one reads rows whatever their columns are."""
    names: set[str] = set()
    for tree in _trees([*campaign.templates(), *campaign.partials]):
        whole_rows = sum(1 for node in tree.find_all(nodes.Name) if node.name == "row" and node.ctx == "load")
        for node in tree.find_all((nodes.Name, nodes.Getattr, nodes.Getitem)):
            if name := field_of(node):
                names.add(name)
                whole_rows -= not isinstance(node, nodes.Name)
        for call in tree.find_all(nodes.Call):  # row.get("name")
            match call.node, call.args:
                case nodes.Getattr(node=nodes.Name(name="row"), attr="get"), [nodes.Const(value=str(name)), *_]:
                    names.add(name)
                    whole_rows -= 1
        if whole_rows > 0 and not campaign.group_by:
            return None
        if campaign.group_by:  # what is asked of each of `rows`, by whatever name a loop gives it
            names |= set(_attributes(tree))
    return names


def names_of_message(campaign: Campaign) -> set[str]:
    """The fields of its first row that a message of several rows mentions, beside what it asks of each of `rows`."""
    return {
        name
        for tree in _trees([*campaign.templates(), *campaign.partials])
        for name in set(_beside_loops(tree, over_rows=False)) - _assigned(tree)
    }


def names_of_rows(campaign: Campaign) -> frozenset[str]:
    """What a message of several rows may ask of each of them; texts in filters are among it.  Empty for others."""
    if not campaign.group_by:
        return frozenset()
    trees = _trees([*campaign.templates(), *campaign.partials])
    return frozenset(name for tree in trees for name in _attributes(tree))


def _assigned(tree: nodes.Template) -> set[str]:
    """The names that a template gives itself."""
    return {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}


def refuse_rows_in_heading(campaign: Campaign) -> None:
    """Raises `ConfigError` where a template that says who gets or sends the message asks for `rows`.

    These are needed row by row, before rows are grouped.
    """
    if not campaign.group_by:
        return
    heading = (campaign.sender, campaign.sent_by, campaign.to, campaign.cc, campaign.bcc, campaign.list_id)
    reverse_path = Template("reverse_path", campaign.reverse_path)
    for template in (*heading, reverse_path):
        if template is not None and "rows" in fields_in(template):
            raise ConfigError(
                f"{template.name}: cannot use rows: sender and addresses are those of the first row",
                hint="write the name of a column there",
            )


def _attributes(tree: nodes.Template) -> Iterator[str]:
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter)):
        match node:
            case nodes.Getattr(attr=str(name)) | nodes.Getitem(arg=nodes.Const(value=str(name))):
                yield name
            case nodes.Filter(args=arguments, kwargs=options):
                for each in [*arguments, *(option.value for option in options)]:
                    if isinstance(each, nodes.Const) and isinstance(each.value, str):
                        yield each.value


def _beside_loops(node: nodes.Node, *, over_rows: bool) -> Iterator[str]:
    """The fields below `node`; within a loop that calls each of its items `row`, none of `row`."""
    if (name := field_of(node)) and not (over_rows and not isinstance(node, nodes.Name)):
        yield name
    if isinstance(node, nodes.For) and isinstance(node.target, nodes.Name) and node.target.name == "row":
        yield from _beside_loops(node.iter, over_rows=over_rows)
        for child in node.body:
            yield from _beside_loops(child, over_rows=True)
        return
    for child in node.iter_child_nodes():
        yield from _beside_loops(child, over_rows=over_rows)


def fields_in(template: Template) -> frozenset[str]:
    """The fields that one template mentions by name."""
    return frozenset(
        name
        for tree in _trees([template])
        for node in tree.find_all((nodes.Name, nodes.Getattr, nodes.Getitem))
        if (name := field_of(node))
    )


def printed_names(campaign: Campaign) -> set[str]:
    """The fields whose value stands in subject, sender or body of every message, so that an empty one leaves a gap.

    Not those that a template asks about before (`{% if name %}`) or provides for (`name or "friend"`).
    """
    printed: set[str] = set()
    for tree in _trees([campaign.sender, campaign.subject, *campaign.bodies(), *campaign.partials]):
        printed |= set(_printed(tree, frozenset(_assigned(tree))))
    return printed


def _trees(templates: list[Template]) -> Iterator[nodes.Template]:
    environment = make_environment({})
    for template in templates:
        yield environment.parse(template.text, template.name)


def _printed(node: nodes.Node, known: frozenset[str]) -> Iterator[str]:
    """The names below `node` that are printed; `known` are those that are provided for."""
    match node:
        case nodes.If():
            known |= _names_in(node.test)
            for child in (*node.body, *node.elif_, *node.else_):
                yield from _printed(child, known)
        case nodes.Output():
            for child in node.nodes:
                yield from _value(child, known)
        case nodes.Expr():
            return
        case _:
            for child in node.iter_child_nodes():
                yield from _printed(child, known)


def _value(node: nodes.Node, known: frozenset[str]) -> Iterator[str]:
    if name := field_of(node):
        if name not in known:
            yield name
        return
    match node:
        case nodes.Filter(name="default" | "d" | "length" | "count"):
            return
        case nodes.Filter(node=nodes.Node() as inner):
            yield from _value(inner, known)
            for argument in node.args:
                yield from _value(argument, known)
        case nodes.CondExpr():
            known |= _names_in(node.test)
            for branch in (node.expr1, node.expr2):
                if branch is not None:
                    yield from _value(branch, known)
        case nodes.Concat():
            for child in node.nodes:
                yield from _value(child, known)
        case nodes.Add():
            yield from _value(node.left, known)
            yield from _value(node.right, known)
        case nodes.Call(node=nodes.Getattr(node=nodes.Node() as inner)):
            yield from _value(inner, known)


def _names_in(node: nodes.Node) -> set[str]:
    below = list(node.find_all((nodes.Name, nodes.Getattr, nodes.Getitem)))
    return {name for each in [node, *below] if (name := field_of(each))}
