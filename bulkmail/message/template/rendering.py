"""Templates made ready: compiled once, then rendered for row after row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from jinja2 import Template as JinjaTemplate
from jinja2 import UndefinedError, nodes

from bulkmail.message.attachments.invitation import escape_value
from bulkmail.message.compose.pieces import Piece, pieces_of
from bulkmail.message.template.constants import read_values
from bulkmail.message.template.environment import (
    NO_VALUES,
    NOWHERE,
    MessageEnvironment,
    join_chunks,
    make_environment,
    reset_ranges,
)
from bulkmail.message.template.local_filters import Locality
from bulkmail.message.template.locales import UnknownLocale, find_locale
from bulkmail.message.template.locality import locale_of, locality_now
from bulkmail.message.template.required import required_by
from bulkmail.message.template.strictness import truth
from bulkmail.message.template.tags import without_tag_lines
from bulkmail.message.template.template_errors import NO_ROW, UnknownOperation, explain, missing_partial, place
from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.errors import TemplateError
from bulkmail.model.lazy import dataclass
from bulkmail.model.recipient import Address

if TYPE_CHECKING:
    from babel import Locale

_ALWAYS_THERE = frozenset({"row", "email"})
UNSUBSCRIBE_URL = "unsubscribe_url"
ROWS = "rows"
LOCALE = "locale of the row"  # among the variables, under a name that no template can write


class Rendering:
    """One template, compiled.

    `constant` is its text when nothing in it depends on the row.  `pieces` are its text and cells when it has nothing
    else, None for any other template.
    """

    __slots__ = ("_environment", "_template", "constant", "name", "pieces")

    def __init__(self, template: Template, environment: MessageEnvironment) -> None:
        """Raises `TemplateError` with file and line for what Jinja cannot read and for partials that are not there."""
        self.name = template.name
        self._environment = environment
        tree = _parse(template, environment)
        self.constant = _constant_text(tree)
        self.pieces: tuple[Piece, ...] | None = pieces_of(tree, environment)
        self._template = _compile(template, tree, environment)

    def render(self, variables: dict[str, object]) -> str:
        """The text for one row, at most `LONGEST_OUTPUT` characters.  Raises `TemplateError`, whatever goes wrong."""
        if self.constant is not None:
            return self.constant
        reset_ranges()
        self._environment.locality.enter(cast("Locale | None", variables.get(LOCALE)))
        try:
            return join_chunks(self._template.root_render_func(self._template.new_context(variables, shared=True)))
        except Exception as error:
            rows = variables.get(ROWS)
            raise explain(
                error,
                name=self.name,
                environment=self._environment,
                row=_row(variables),
                rows=rows if isinstance(rows, list) else (),
            ) from None


def _row(variables: Mapping[str, object]) -> Mapping[str, object]:
    row = variables.get("row")
    return row if isinstance(row, Mapping) else NO_ROW


class Workshop:
    """Compiles the templates of one campaign, each in the environment of its kind.

    Raises `TemplateError` for a partial that Jinja cannot read, used or not.
    """

    def __init__(
        self,
        partials: tuple[Template, ...] = (),
        *,
        html_partials: Callable[[], Mapping[str, str]] | None = None,
        locality: Locality = NOWHERE,
        locale: Template | None = None,
        values: Mapping[str, object] = NO_VALUES,
        picture: Callable[[Any], object] | None = None,
    ) -> None:
        """`html_partials` gives the partials as pages include them; without, they are the same there.

        `locality` says for whom dates and numbers are written, `locale` the locale of each row if that `is_by_row`.
        `values` are those that every template finds by name, if the row has no such field.  `picture` is the filter of
        pages that shows a file of the row.
        """
        sources = {each.name: each.text for each in partials}
        self._header = make_environment(sources, one_line=True, locality=locality, values=values)
        texts = {each.name: (each if _is_page(each.name) else without_tag_lines(each)).text for each in partials}
        self._make_text = partial(make_environment, texts, locality=locality, values=values, picture=picture)
        self._text = self._make_text()
        self._page_text: MessageEnvironment | None = None
        self._calendar = make_environment(sources, escape=escape_value, locality=locality, values=values)
        self._locality = locality
        self._locale = self.header(locale) if locale is not None and locality.is_by_row else None
        self._globals = dict(self._text.globals)
        for each in partials:
            _parse(each, self._text)
        pages = {**sources, **(html_partials() if html_partials else {})}
        self._html = make_environment(pages, html=True, locality=locality, values=values, picture=picture)

    @property
    def row_locale(self) -> Rendering | None:
        """What names the locale of each row; None where all have the same."""
        return self._locale

    def enter(self, name: str) -> bool:
        """The locale called `name` holds for what filters write next; False where there is none."""
        try:
            self._locality.enter(find_locale(name))
        except UnknownLocale:
            return False
        return True

    def header(self, template: Template) -> Rendering:
        """A template whose own line ends are spaces; those of cells are not."""
        return Rendering(template, self._header)

    def text(self, template: Template, *, draws: bool = False) -> Rendering:
        """A plain text; if it `draws`, it is one of a page, and its pictures are addresses."""
        if draws and self._page_text is None:
            self._page_text = self._make_text(draws=True)
        return Rendering(template, self._page_text if draws and self._page_text is not None else self._text)

    def html(self, template: Template) -> Rendering:
        """An HTML text: whatever comes from a cell is escaped."""
        return Rendering(template, self._html)

    def calendar(self, template: Template) -> Rendering:
        """An iCalendar object: whatever comes from a cell is escaped."""
        return Rendering(template, self._calendar)

    def variables(
        self,
        fields: Mapping[str, object],
        address: Address | None = None,
        *,
        unsubscribe_url: str = "",
        rows: Sequence[Mapping[str, object]] = (),
    ) -> dict[str, object]:
        """What a template can use for one row: each field by its name, all of them as `row`, and `email`.

        `rows`, if there are any, are those that share the message, under that name even if there is such a column.

        A column called `email` is that column; one called `row` is reached as `row["row"]`.  `unsubscribe_url`, if
        there is one, comes before a column of that name.  Raises `TemplateError` for a row whose locale is none.
        """
        variables = _variables(self._globals, fields)
        if rows:
            variables[ROWS] = list(rows)
        if unsubscribe_url:
            variables[UNSUBSCRIBE_URL] = unsubscribe_url
        if address is not None and "email" not in fields:
            variables["email"] = address.readable
        if self._locale is not None:
            variables[LOCALE] = locale_of(self._locale.name, self._locale.render(variables))
        return variables


def _is_page(name: str) -> bool:
    return name.lower().endswith((".html", ".htm", ".md", ".markdown"))


def _variables(functions: Mapping[str, object], fields: Mapping[str, object]) -> dict[str, object]:
    return {**functions, **fields, "row": fields}


@dataclass(frozen=True, slots=True)
class Condition:
    """An expression over the fields of a row.  `names` are the fields that it needs."""

    text: str
    names: frozenset[str]
    _holds: Callable[[Mapping[str, object]], bool] = field(repr=False)

    def __call__(self, fields: Mapping[str, object]) -> bool:
        """Whether the row is selected; one that lacks a field in the expression is not.

        Raises `TemplateError` when the expression makes no sense for the row, such as `age > 18` with `age` a text.
        """
        return self._holds(fields)


def compile_condition(text: str, *, name: str = "--where") -> Condition:
    """The Jinja expression `text`, as in `country == "AT" and age | int >= 18`.  Raises `TemplateError`."""
    environment = make_environment({}, locality=locality_now())
    functions = _globals(environment)
    try:
        tree = environment.parse("{{ " + text + " }}")
        _check_filters(tree, name, environment)
        expression = environment.compile_expression(text, undefined_to_none=False)
        names = required_by(tree, {}) - _ALWAYS_THERE
    except Exception as error:
        raise explain(error, name=name, environment=environment) from None

    def holds(fields: Mapping[str, object]) -> bool:
        reset_ranges()
        try:
            return bool(truth(expression(_variables(functions, fields))))
        except UndefinedError:
            return False
        except Exception as error:
            raise explain(error, name=name, environment=environment, row=fields) from None

    return Condition(text, frozenset(names), holds)


def referenced_names(campaign: Campaign) -> set[str]:
    """The fields that every row must have for `campaign` to be written: by name or as `row["Its name"]`.

    Not those that a template provides for: given to `default()`, or anywhere tested with `is defined`.
    """
    sources = {partial.name: partial.text for partial in campaign.partials}
    environment = make_environment(sources, values=read_values(campaign.data))
    partials = {partial.name: _parse(partial, environment) for partial in campaign.partials}
    names: set[str] = set()
    for template in campaign.templates():
        tree = _parse(template, environment)
        try:
            names |= required_by(tree, partials)
        except Exception as error:
            raise explain(error, name=template.name, environment=environment) from None
    names -= _ALWAYS_THERE | ({UNSUBSCRIBE_URL} if campaign.unsubscribe else set())
    return names - ({ROWS} if campaign.group_by else set())


def _parse(template: Template, environment: MessageEnvironment) -> nodes.Template:
    try:
        tree = environment.parse(template.text, template.name)
        _check_filters(tree, template.name, environment)
    except Exception as error:
        raise explain(error, name=template.name, environment=environment) from None
    _check_partials(tree, template.name, environment)
    return tree


def _check_filters(tree: nodes.Template, name: str, environment: MessageEnvironment) -> None:
    """Raises `UnknownOperation` for a filter or test that there is not.

    Jinja itself leaves one inside a condition to the rendering of each row, as the condition may ask whether it exists.
    """
    used = list(tree.find_all((nodes.Filter, nodes.Test)))
    if any(isinstance(node, nodes.Test) and node.name in ("filter", "test") for node in used):
        return
    for node in used:
        kind, known = ("filter", environment.filters) if isinstance(node, nodes.Filter) else ("test", environment.tests)
        if node.name not in known:
            raise UnknownOperation(kind, node.name, node.lineno, name)


def _check_partials(tree: nodes.Template, name: str, environment: MessageEnvironment) -> None:
    """Raises `TemplateError` for a template that `tree` includes by a fixed name and that there is not."""
    known = environment.list_templates()
    for node in tree.find_all(_INCLUDING):
        match getattr(node, "template", None):
            case nodes.Const(value=str(wanted)) if wanted not in known and not getattr(node, "ignore_missing", False):
                raise TemplateError(
                    f"{place(name, node.lineno)}: {missing_partial(wanted, environment)}",
                    hint="a template includes others by the name that the campaign gives them",
                )


_INCLUDING = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)


def _compile(template: Template, tree: nodes.Template, environment: MessageEnvironment) -> JinjaTemplate:
    try:
        code = environment.compile(tree, template.name, template.name)
        return environment.template_class.from_code(environment, code, _globals(environment))
    except Exception as error:
        raise explain(error, name=template.name, environment=environment) from None


def _globals(environment: MessageEnvironment) -> dict[str, object]:
    # A plain dictionary, because Jinja's own chain of them costs each rendering microseconds.
    return dict(environment.globals)


def _constant_text(tree: nodes.Template) -> str | None:
    pieces: list[str] = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for piece in output.nodes:
            if not isinstance(piece, nodes.TemplateData):
                return None
            pieces.append(piece.data)
    return "".join(pieces)
