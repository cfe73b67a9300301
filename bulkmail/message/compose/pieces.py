"""A template as the pieces that it prints: constant text and cells of the row, if it has nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import filters, nodes
from jinja2.exceptions import TemplateError as JinjaError

from bulkmail.message.template import links
from bulkmail.message.template.local_filters import COMPILED, Locality, filters_of
from bulkmail.message.template.strict_tree import NUMBER_AT_END

if TYPE_CHECKING:
    from bulkmail.message.template.environment import MessageEnvironment

_MOST_PIECES = 2_000  # of one template: the generated functions stay small
_DEEPEST_INCLUDE = 5
_NOT_CELLS = frozenset({"row", "self", "super", "loop", "caller", "varargs", "kwargs"})
FILTERS: dict[str, Callable[[str], str]] = {
    "upper": filters.do_upper,
    "lower": filters.do_lower,
    "title": filters.do_title,
    "capitalize": filters.do_capitalize,
    "trim": filters.do_trim,
    "urlencode": filters.do_urlencode,
}
"""Filters of Jinja that make a text of a text."""


class FilterStep(NamedTuple):
    """A filter that writes by the locale of the campaign or of the row, called with constants."""

    name: str
    call: Callable[..., str]
    args: tuple[str | int, ...] = ()
    kwargs: tuple[tuple[str, str | int], ...] = ()


class Cell(NamedTuple):
    """A place where a template prints one cell of the row.

    `is_by_row` is `row["name"]`, always the column even where a variable has the same name.  `filters` are applied in
    order; `is_link` if `link` is the last of them.  `value` stands there for rows without a column of that
    name: `now`, `today`, or a text among the campaign's values.
    """

    name: str
    is_by_row: bool = False
    filters: tuple[str | FilterStep, ...] = ()
    is_link: bool = False
    value: date | str | None = None


Piece = str | Cell


class NotCompiled(Exception):
    """The template, or the whole campaign, needs the general composer."""


def pieces_of(tree: nodes.Template, environment: MessageEnvironment) -> tuple[Piece, ...] | None:
    """Text and cells of a template that has nothing else, includes resolved; None for any other template."""
    found: list[Piece] = []
    try:
        _collect(tree, environment, found, depth=0)
    except (NotCompiled, JinjaError):  # what Jinja says of it, it says again where it is rendered
        return None
    return tuple(found)


def _collect(tree: nodes.Template, environment: MessageEnvironment, found: list[Piece], *, depth: int) -> None:
    for output in tree.body:
        match output:
            case nodes.Output():
                for node in output.nodes:
                    if not isinstance(node, nodes.TemplateData):
                        found.append(_printed_cell(node, environment))
                    elif found and isinstance(found[-1], str):
                        found[-1] += node.data
                    else:
                        found.append(node.data)
            case nodes.Include(template=nodes.Const(value=str(name)), with_context=True, ignore_missing=False):
                if depth == _DEEPEST_INCLUDE or environment.loader is None:
                    raise NotCompiled
                source = environment.loader.get_source(environment, name)[0]
                _collect(environment.parse(source, name), environment, found, depth=depth + 1)
            case _:
                raise NotCompiled
        if len(found) > _MOST_PIECES:
            raise NotCompiled


def _printed_cell(node: nodes.Expr, environment: MessageEnvironment) -> Cell:
    cell = _cell(node, environment)
    if isinstance(cell.value, date) and not (cell.filters and isinstance(cell.filters[0], FilterStep)):
        raise NotCompiled
    match node:  # elsewhere it is a number to calculate with
        case nodes.Filter(name="number"):
            return cell
    if any(isinstance(step, FilterStep) and step.name == "number" for step in cell.filters):
        raise NotCompiled
    return cell


def _cell(node: nodes.Expr, environment: MessageEnvironment) -> Cell:
    match node:
        case nodes.Name(name=name) if name in environment.values:
            value = environment.values[name]
            if isinstance(value, date | str):
                return Cell(name, value=value)
            raise NotCompiled
        case nodes.Name(name=name) if name not in _NOT_CELLS:
            return Cell(name)
        # An attribute that every dictionary has is its method.
        case nodes.Getattr(node=nodes.Name(name="row"), attr=name) if not hasattr(dict, name):
            return Cell(name, is_by_row=True)
        case nodes.Getitem(node=nodes.Name(name="row"), arg=nodes.Const(value=str(name))):
            return Cell(name, is_by_row=True)
        case nodes.Filter(node=nodes.Expr() as inner, name=name, args=[], kwargs=[], dyn_args=None, dyn_kwargs=None):
            cell = _cell(inner, environment)
            if name == links.FILTER and not cell.is_link:
                return cell._replace(is_link=True)
            if name in FILTERS and not cell.is_link:
                return cell._replace(filters=(*cell.filters, name))
    if isinstance(node, nodes.Filter) and node.name in COMPILED and node.node is not None:
        cell = _cell(node.node, environment)
        if not cell.is_link:
            return cell._replace(filters=(*cell.filters, _step(node, environment.locality)))
    raise NotCompiled


def _step(node: nodes.Filter, locality: Locality) -> FilterStep:
    """A filter of a locale whose arguments are the same for every row."""
    if not (locality.is_by_row or locality.locale) or node.dyn_args or node.dyn_kwargs:
        raise NotCompiled
    args = tuple(map(_constant_of, node.args))
    kwargs = tuple((str(pair.key), _constant_of(pair.value)) for pair in node.kwargs)
    name = NUMBER_AT_END if node.name == "number" else node.name
    return FilterStep(node.name, filters_of(locality)[name], args, kwargs)


def _constant_of(node: nodes.Expr) -> str | int:
    match node:
        case nodes.Const(value=str() | int() as value) if not isinstance(value, bool):
            return value
    raise NotCompiled
