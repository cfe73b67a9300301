"""Where in which template something went wrong, in words for its author."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType

from jinja2 import (
    Template,
    TemplateAssertionError,
    TemplateNotFound,
    TemplateSyntaxError,
    UndefinedError,
)
from jinja2.exceptions import SecurityError

from bulkmail.message.template import syntax
from bulkmail.message.template.environment import LONGEST_OUTPUT, MessageEnvironment, UndefinedValue
from bulkmail.message.template.local_filters import NoLocale
from bulkmail.message.template.numbers import MissingFile, Refused
from bulkmail.message.template.strict_tree import is_own
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import RowFields
from bulkmail.text import closest, printable, suggest

_CLOCK = frozenset({"date", "datetime", "time", "current_date", "utcnow"})
_DATES = frozenset({"strftime", "dateformat", "date_format", "datetime", "datetimeformat", "format_date"})
_SAY_CLOCK = "write {{ today | date }} for the date of the run, {{ now | time }} for its time"
_SAY_DATE = (
    "write {{ due | date }} or {{ due | date('dd.MM.yyyy') }}: the filter reads the cell, and writes by the locale"
)
_BRACES = lazy_pattern(r"\{[{%]\s*(?:if\s+)?|\s*[}%]\}")
_MOST_FIELDS = 12
_LONGEST_VALUE = 60
_DEEPEST = 5  # levels of a row in which the place of a value is looked for
_MOST_VALUES = 1_000
_MOST_NAMED = 3  # fields with the same value
NO_ROW: Mapping[str, object] = {}


class EnclosureError(TemplateError):
    """A row names a file that its message cannot have."""


class UndefinedField(TemplateError):
    """A template uses `name`, which is neither a field of the row nor anything else; `suggestion` is the closest field.

    `is_clock`: other programs have the time under that name.
    """

    def __init__(self, message: str, *, hint: str, name: str, suggestion: str = "", is_clock: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.suggestion = suggestion
        self.is_clock = is_clock


class UnknownOperation(TemplateAssertionError):
    """There is no filter or test (the `kind`) of the name that is `wanted`."""

    def __init__(self, kind: str, wanted: str, lineno: int, name: str) -> None:
        super().__init__(f"No {kind} named {wanted!r}.", lineno, name)
        self.kind = kind
        self.wanted = wanted


def explain(
    error: Exception,
    *,
    name: str,
    environment: MessageEnvironment,
    row: Mapping[str, object] = NO_ROW,
    rows: Iterable[object] = (),
) -> TemplateError:
    """The error of template `name` as a `TemplateError` that begins with file and line.

    `row` has the fields of the row, `rows` are those that share its message.  Raises a `MemoryError` again for which
    the template can do nothing.
    """
    if isinstance(error, TemplateSyntaxError):
        is_nameless = error.name in (None, "<introspection>")  # as Jinja calls what it only looks into
        where = place(name if is_nameless else str(error.name), error.lineno)
        if isinstance(error, UnknownOperation):
            known = environment.filters if error.kind == "filter" else environment.tests
            near = suggest(error.wanted, [each for each in known if not is_own(each)])
            hint = _SAY_DATE if error.wanted in _DATES else ""
            return TemplateError(f"{where}: there is no {error.kind} {error.wanted!r}{near}", hint=hint)
        text, hint = syntax.say(str(error.message), error.source or "", error.lineno)
        return TemplateError(f"{where}: {text.rstrip('.')}", hint=hint)
    where = place(*_innermost(error.__traceback__, name))
    match error:
        case UndefinedValue(is_field=False, name=name) if name in _DATES:
            return TemplateError(f"{where}: {printable(str(error))}", hint=_SAY_DATE)
        case UndefinedValue(is_field=True, name=name) if name in _CLOCK:
            return UndefinedField(f"{where}: {error}", hint=_SAY_CLOCK, name=name, is_clock=True)
        case UndefinedValue(is_field=True, name=name):
            fields = list(dict.fromkeys([*row, "email", "row"]))
            meant = closest(name, fields)
            text = f"{where}: {error}" + (f"; did you mean {_spelled(meant)}?" if meant else "")
            return UndefinedField(text, hint=_say_fields(fields), name=name, suggestion=meant)
        case UndefinedError():
            text = str(error)
        case Refused():
            return _refused(error, where, row, rows)
        case NoLocale():
            return TemplateError(f"{where}: {error}", hint=error.fix)
        case ConfigError():
            return TemplateError(f"{where}: {error}", hint=error.hint)
        case SecurityError():
            text = f"a message must not do this: {error}"
        case TemplateNotFound():
            text = missing_partial(str(error.name), environment)
        case RecursionError():
            text = "includes or calls itself without end"
        case MemoryError():
            if not _has_room():
                raise error  # it is the computer that has none: no fault of this row, nor of the message
            text = "wants more memory than a message may have"
        case ZeroDivisionError():
            text = "divides by zero"
        case TypeError():
            hint = "cells of a list are text; write {{ price | number }} or {{ age | int }} to calculate with them"
            return TemplateError(f"{where}: {printable(str(error))}", hint=hint)
        case _:
            text = (str(error) or type(error).__name__).rstrip(".")
    return TemplateError(f"{where}: {printable(text)}")


def _refused(error: Refused, where: str, row: Mapping[str, object], rows: Iterable[object]) -> TemplateError:
    """Names the field that the value came from, if one has it; of a message of several rows, the row too."""
    value = error.value
    paths = _paths(value, row)
    field = paths[0] if len(paths) == 1 else ""
    subject = " or ".join(paths) if len(paths) <= _MOST_NAMED else ""
    for each in rows:
        place_of_row = RowFields.place_of(each)
        if place_of_row is not None and isinstance(each, Mapping) and (paths := _paths(value, each)):
            field, subject = "", f"{' or '.join(paths[:_MOST_NAMED])} in {place_of_row}"
            break
    if isinstance(value, str):
        shown = repr(printable(value, _LONGEST_VALUE))
        subject = f"{subject} is {shown}, which" if subject else shown
    fix = error.fix.replace("…", field or "…")
    if where.startswith("-"):  # a condition is an expression without braces
        fix = _BRACES.sub("", fix)
    words = printable(f"{subject or 'the value'} {error.what}")
    kind = EnclosureError if isinstance(error, MissingFile) else TemplateError
    return kind(f"{where}: {words}", hint=fix)


def _paths(value: object, row: Mapping[str, object]) -> list[str]:
    """How a template names what has that value in the row; several if these cannot be distinguished."""
    for level in _levels(row):
        if found := [path for path, other in level if other is value or (type(other) is str and other == value)]:
            return found
    return []


def _levels(row: Mapping[str, object]) -> Iterator[list[tuple[str, object]]]:
    """What a row has, with its expression: first the fields themselves, then what is in them."""
    level = [(field_expression(name), value) for name, value in row.items()]
    for _ in range(_DEEPEST):
        yield level
        level = [
            (f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[{key!r}]", inner)
            for path, value in level
            for key, inner in (
                value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            )
        ][:_MOST_VALUES]


def field_expression(name: str) -> str:
    """How a template names the field."""
    return name if name.isidentifier() else f"row[{name!r}]"


def _has_room() -> bool:
    """Whether there is memory for the longest text that a message may have, four bytes a character."""
    try:
        bytearray(4 * LONGEST_OUTPUT)
    except MemoryError:
        return False
    return True


def place(name: str, line: int) -> str:
    """`message.txt:3`; a setting of one line, `campaign.toml: subject` or `--where`, needs no line number."""
    is_setting = ": " in name or name.startswith("-")
    return name if line <= 1 and is_setting else f"{name}:{line}"


def missing_partial(name: str, environment: MessageEnvironment) -> str:
    """What to say of an included template that there is not."""
    return f"there is no template {printable(name, 80)!r}{suggest(name, environment.list_templates())}"


def _spelled(field: str) -> str:
    """A column that is no plain word is shown as it has to be written."""
    return repr(field) if field.isidentifier() else f"row[{field!r}]"


def _say_fields(fields: list[str]) -> str:
    names = [field_expression(name) for name in fields[:_MOST_FIELDS]]
    rest = f" and {len(fields) - _MOST_FIELDS} more" if len(fields) > _MOST_FIELDS else ""
    return printable(f"a template of this row can use {', '.join(names)}{rest}")


def _innermost(traceback: TracebackType | None, name: str) -> tuple[str, int]:
    """The template and line that the deepest frame of a template stood at."""
    line = 1
    while traceback is not None:
        template = traceback.tb_frame.f_globals.get("__jinja_template__")
        if isinstance(template, Template):
            name, line = template.name or name, template.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    return name, line
