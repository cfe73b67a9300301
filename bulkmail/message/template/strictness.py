"""What templates must not do with values in silence: count, compare, ask or print what means something else to people.

Cells of a list are text, and Python has an answer for everything: "FALSE" counts as true, "12.00" + "3.50" is
"12.003.50", and a list prints as "['a', 'b']".  `strict_tree` puts the filters to such places in a template.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from datetime import date
from typing import Any, cast

from jinja2 import Environment, TemplateRuntimeError, Undefined, pass_environment, pass_eval_context
from jinja2.filters import make_attrgetter
from markupsafe import Markup

from bulkmail.message.template import strict_tree
from bulkmail.message.template.numbers import (
    Ambiguous,
    NotANumber,
    Refused,
    looks_like_date,
    looks_like_number,
    read_digits,
    read_number,
    to_float,
    to_int,
    to_number,
)
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.quantities import Literal

_LONGEST_SUM = 500  # digits: more than numbers of the longest text that is read as one can have
_AMOUNT = lazy_pattern(r"-?[0-9]{1,15}(?:\.[0-9]{1,2})?")  # nearly every cell that is added up, and one reading
_MOST_MESSAGES = 12  # of a text that may mean no
_ZERO = lazy_pattern(r"[-+]?0+(?:[.,]0+)?(?:\s?[%€$£]|\s[A-Z]{3})?", re.IGNORECASE)
_FALSE = frozenset({"false"})
# Also what spreadsheet programs in other languages write for FALSE and TRUE.
_NO = frozenset({
    "no", "n", "f", "off", "nein", "non", "nee", "nej", "nei", "nie", "não", "nao", "нет", "ei", "ne", "nu",
    "nem", "όχι", "hayır", "hayir", "falsch", "faux", "falso", "onwaar", "falskt", "falsk", "usann", "epätosi",
    "fałsz", "nepravda", "hamis", "yanlış", "yanliş", "ложь", "-", "–", "—", "✗", "✘", "❌", "☐",
})  # fmt: skip
_YES = frozenset({
    "yes", "y", "t", "on", "ja", "j", "oui", "sí", "si", "sim", "tak", "да", "x", "✓", "✔", "☑", "wahr", "vrai",
    "verdadero", "vero", "verdadeiro", "waar", "sant", "sann", "tosi", "prawda", "pravda", "igaz", "истина", "1",
})  # fmt: skip
_BOOLEAN = frozenset({"true", "false"})
_FIGURES = frozenset("diouxXeEfFgGbn%")  # what a field for a number ends in
_PLACE = lazy_pattern(r"%%|%[-#0 +]*\d*(?:\.\d+)?[a-zA-Z]")
_NAMED = lazy_pattern(r"%\(([^)]*)\)")
_FORMAT = lazy_pattern(r"%[-#0 +]*(?:\d+|\*)?(?:\.(?:\d+|\*))?[sdifeEgGrxXoca(]")

_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
}
_TESTS = {
    "eq": ("eq", "equalto", "=="),
    "ne": ("ne", "!="),
    "lt": ("lt", "lessthan", "<"),
    "lteq": ("le", "<="),
    "gt": ("gt", "greaterthan", ">"),
    "gteq": ("ge", ">="),
}
_TEXT_FILTERS = (
    "capitalize", "center", "e", "escape", "forceescape", "indent", "lower", "replace", "safe", "string", "striptags",
    "title", "trim", "truncate", "upper", "urlize", "wordcount", "wordwrap",
)  # fmt: skip


def install(environment: Environment) -> None:
    """Adds the filters that `made_strict` needs, and makes those of Jinja refuse what they would make up."""
    filters = environment.filters
    filters.update(
        {
            strict_tree.TRUTH: truth,
            strict_tree.VALUE_OR: _value_or,
            strict_tree.FIGURE: _figure,
            strict_tree.ADDED: _added,
            strict_tree.COMPARED: _compared,
            strict_tree.PRINTED: printed,
            strict_tree.ARGUMENTS: arguments,
            "float": to_float,
            "int": to_int,
            "number": to_number,
            "default": _default(filters["default"]),
            "join": _join(filters["join"]),
            "format": _format(filters["format"]),
        }
    )
    filters["d"] = filters["default"]
    for name in _TEXT_FILTERS:
        filters[name] = _of_text(filters[name])
    for name in ("round", "abs", "filesizeformat"):
        filters[name] = _of_figure(filters[name])
    filters["sum"] = _sum(filters["sum"])
    for name in ("select", "reject"):
        filters[name] = _choosing(filters[name], by_attribute=False)
    for name in ("selectattr", "rejectattr"):
        filters[name] = _choosing(filters[name], by_attribute=True)
    for name, position in (("sort", 2), ("min", 1), ("max", 1)):
        filters[name] = _ordering(filters[name], position)
    for operation, names in _TESTS.items():
        environment.tests.update(dict.fromkeys(names, _test(operation)))
    for name in ("true", "false"):
        environment.tests[name] = _boolean_test(cast(Callable[[Any], bool], environment.tests[name]))


def truth(value: Any, is_printed: bool = False) -> Any:
    """`value`, which is used as a condition.  Raises `Refused` for text that says no: any text counts as true."""
    if isinstance(value, str) and 0 < len(value) <= _MOST_MESSAGES and says_no(value, is_printed=is_printed):
        raise Refused(
            value,
            "is text, and any text counts as true",
            fix=f"compare it, as in {{% if … != {str(value)!r} %}}, or use {{{{ … | number }}}} if it is a number",
        )
    return value


def says_no(text: str, *, is_printed: bool = False) -> bool:
    """Whether people read `text` as no, false or zero; where it `is_printed` as well, `No` may be a name."""
    word = text.strip().casefold().rstrip(".!")
    return word in _FALSE or (not is_printed and word in _NO) or bool(_ZERO.fullmatch(word))


def _value_or(value: Any) -> Any:
    if isinstance(value, str) and len(value) <= _MOST_MESSAGES and value.strip().casefold() in _FALSE:
        raise Refused(value, "is text, and any text counts as true", fix=f"compare it: … != {str(value)!r}")
    return value


def _figure(value: Any) -> Any:
    """`value`, which something is calculated with."""
    if isinstance(value, str) and not _FORMAT.search(value):
        raise Refused(
            value, "is text, and cannot be calculated with", fix="write {{ … | number }} to calculate with it"
        )
    return value


def _added(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        for value in (left, right):
            if looks_like_number(value):
                raise Refused(
                    value,
                    "is text, and + would join it to another",
                    fix="write {{ … | number }} on both sides to add them, or ~ in place of + to join them",
                )
    return left + right


def _compared(left: Any, right: Any, operation: str) -> Any:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str) and isinstance(other, date):
            raise Refused(one, "is text, and cannot be compared with a date", fix="write … | to_date to compare it")
    if isinstance(left, str):
        if isinstance(right, str):
            if operation not in ("eq", "ne"):
                _check_order(left, right)
        elif isinstance(right, int | float) and operation in ("eq", "ne"):
            _refuse_comparison(left, right)
        elif isinstance(right, int | float):
            _refuse_order(left)
    elif isinstance(right, str) and isinstance(left, int | float):
        if operation in ("eq", "ne"):
            _refuse_comparison(right, left)
        _refuse_order(right)
    return _OPERATIONS[operation](left, right)


def _refuse_comparison(text: str, other: object) -> None:
    if isinstance(other, bool):
        what = f"is text, and never equal to {'true' if other else 'false'}"
        raise Refused(text, what, fix="compare it with a text in quotes, or write {% if … %} for true or false")
    raise Refused(text, f"is text, and never equal to the number {other}", fix="write … | number to compare it")


def _refuse_order(text: str) -> None:
    raise Refused(text, "is text, and cannot be compared with a number", fix="write … | number to compare it")


def _check_order(left: str, right: str) -> None:
    for one, other in ((left, right), (right, left)):
        if looks_like_number(one) and (looks_like_number(other) or not other.strip()):
            raise Refused(one, "is text, and does not sort as numbers do", fix="write … | number on both sides")
        if looks_like_date(one):
            raise Refused(
                one,
                "is text, and does not sort as dates do",
                fix="write … | to_date on both sides, or dates as 2026-12-31 in the list",
            )


def printed(value: Any, is_argument: bool = False) -> Any:
    """`value` as it is to stand in the message.  Raises `Refused` for what would stand there as Python or nothing."""
    if isinstance(value, str | Undefined):
        return value
    if value is True or value is False:
        return _Boolean(value) if is_argument else ("TRUE" if value else "FALSE")  # as sheets show it
    if value is None:
        raise Refused(value, "is empty (null)", fix="write {{ … | default('another text', true) }}")
    if isinstance(value, Mapping):
        if not value:
            raise Refused(value, "is an empty object, not a text", fix="take it out, or fill it in")
        key = next(iter(value))
        raise Refused(value, f"is an object, not a text{_example(value)}", fix=f"write {{{{ …[{str(key)!r}] }}}}")
    if isinstance(value, list | tuple | set | frozenset | range | KeysView | ValuesView | ItemsView):
        loop = any(isinstance(item, Mapping | list | tuple) for item in value)
        fix = (
            "write {% for item in … %}, and what of each item is to stand there"
            if loop
            else "write {{ … | join(', ') }}"
        )
        raise Refused(value, "is a list, not a text", fix=fix)
    if isinstance(value, bytes):
        raise Refused(value, "is bytes, not a text", fix="write {{ ….decode() }}")
    if callable(value) or isinstance(value, Iterator):
        raise TemplateRuntimeError("this gives a function or a sequence, not a text; write {{ …() }} or {{ … | join }}")
    return value


class _Boolean(int):
    """True or false as an argument of a format: `%d` shows a number, `%s` what sheets show."""

    def __str__(self) -> str:
        return "TRUE" if self else "FALSE"

    def __format__(self, spec: str) -> str:
        return int.__format__(self, spec) if spec and spec[-1] in _FIGURES else str.__format__(str(self), spec)


def formatted(value: Any, spec: str) -> Any:
    """`value` as an argument of `str.format`, whose field has the format `spec`."""
    if isinstance(value, str) and spec and spec[-1] in _FIGURES:
        raise Refused(value, "is text, and is to be written as a number", fix="write {{ … | number }} in its place")
    return printed(value, is_argument=True)


def arguments(text: str, values: Any) -> Any:
    """`values` as the right side of `text % values`."""
    if isinstance(values, Mapping) and (names := _NAMED.findall(text)):
        return {name: printed(values[name], True) for name in names if name in values}
    shown = tuple(printed(value, True) for value in values) if isinstance(values, tuple) else printed(values, True)
    _check_figures(text, shown if isinstance(shown, tuple) else (shown,))
    return shown


def _check_figures(text: str, values: Sequence[object]) -> None:
    """Raises `Refused` where `text` has the place of a number for a text."""
    places = [found[0][-1] for found in _PLACE.finditer(text) if found[0] != "%%"]
    if len(places) == len(values):
        for place, value in zip(places, values, strict=True):
            if isinstance(value, str) and place in _FIGURES:
                formatted(value, place)


def _example(value: Mapping[object, object]) -> str:
    keys = [str(key) for key in list(value)[:3]]
    return f" (with {', '.join(map(repr, keys))}{' …' if len(value) > 3 else ''})" if keys else ""


def _default(original: Callable[..., Any]) -> Callable[..., Any]:
    def default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
        return original(_value_or(value) if boolean else value, default_value, boolean)

    return default


def _join(original: Callable[..., Any]) -> Callable[..., Any]:
    @pass_eval_context
    def join(context: Any, value: Any, d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            value = map(make_attrgetter(context.environment, attribute), value)
        return cast(str, original(context, list(map(printed, value)), d))

    return join


def _format(original: Callable[..., Any]) -> Callable[..., Any]:
    def format_(value: Any, *args: Any, **kwargs: Any) -> Any:
        shown = [printed(arg, True) for arg in args]
        if isinstance(value, str):
            _check_figures(value, shown)
        return original(value, *shown, **{key: printed(arg, True) for key, arg in kwargs.items()})

    return format_


def _of_text(original: Callable[..., Any]) -> Callable[..., Any]:
    at = 1 if hasattr(original, "jinja_pass_arg") else 0  # Jinja's own argument comes before the value

    def of_text(*args: Any, **kwargs: Any) -> Any:
        if len(args) > at and type(args[at]) is not str:
            args = (*args[:at], printed(args[at]), *args[at + 1 :])
        return original(*args, **kwargs)

    of_text.__dict__.update(vars(original))
    return of_text


def _of_figure(original: Callable[..., Any]) -> Callable[..., Any]:
    def of_figure(value: Any, *args: Any, **kwargs: Any) -> Any:
        return original(_figure(value), *args, **kwargs)

    return of_figure


def _sum(original: Callable[..., Any]) -> Callable[..., Any]:
    @pass_environment
    def total(environment: Environment, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
        items = list(iterable)
        values = items if attribute is None else list(map(make_attrgetter(environment, attribute), items))
        if any(isinstance(value, str | float) for value in values):
            return _exact_sum([start, *values], attribute)
        return original(environment, items, attribute, start)

    return total


def _exact_sum(values: Sequence[Any], attribute: object) -> int | float:
    """The sum of numbers and of texts that are numbers, with the decimals that they were written with.

    Raises `Refused` for the first that is no number or that can be read in two ways.
    """
    from decimal import Context, Decimal  # late: few messages add anything up

    context, total = Context(prec=_LONGEST_SUM), Decimal(0)
    for value in values:
        if isinstance(value, str) and _AMOUNT.fullmatch(value):
            digits = str(value)
        else:
            try:
                digits = read_digits(value) if isinstance(value, str) else str(to_number(value))
            except (NotANumber, Refused) as error:
                each = "…" if attribute is None else f"rows | map(attribute={attribute!r})"
                choice, said = "default=0", "to say what counts instead"
                if isinstance(error, Ambiguous):
                    choice, said = "','", "if the comma stands before decimals"
                fix = f"correct the cell, or write {{{{ {each} | map('number', {choice}) | sum }}}} {said}"
                raise Refused(value, error.what if isinstance(error, Refused) else str(error), fix=fix) from None
        total = context.add(total, Decimal(digits))
    written = format(total, "f")
    if "." not in written and total.is_finite():
        return int(total)
    return Literal(written) if any(isinstance(value, str | Literal) for value in values) else float(total)


def _choosing(original: Callable[..., Any], *, by_attribute: bool) -> Callable[..., Any]:
    """`select` and its like, which ask each item itself if no test is named."""

    def choose(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) == by_attribute:
            asked = make_attrgetter(context.environment, args[0]) if by_attribute else None
            value = list(value)
            for item in value:
                truth(asked(item) if asked else item)
        return original(context, value, *args, **kwargs)

    choose.__dict__.update(vars(original))
    return choose


def _ordering(original: Callable[..., Any], position: int) -> Callable[..., Any]:
    """`sort`, `min` and `max`, which take "10" for less than "9"; `position` is that of the argument `attribute`."""

    @pass_environment
    def order(environment: Environment, value: Any, *args: Any, **kwargs: Any) -> Any:
        items = list(value)
        attribute = kwargs.get("attribute", args[position] if len(args) > position else None)
        for name in attribute.split(",") if isinstance(attribute, str) else [attribute]:
            get = make_attrgetter(environment, name)
            _check_sorting([key for key in map(get, items) if isinstance(key, str)])
        return original(environment, items, *args, **kwargs)

    return order


def _check_sorting(texts: list[str]) -> None:
    """Raises `Refused` where texts are numbers or dates, and do not sort as these do."""
    numbers: list[float] = []
    for text in sorted(texts) if len(texts) > 1 else ():
        try:
            numbers.append(read_number(text))
        except NotANumber as error:
            if isinstance(error, Ambiguous) or looks_like_date(text):
                _check_order(text, text)
            return
    if numbers != sorted(numbers):
        _check_order(texts[0], texts[1])


def _test(operation: str) -> Callable[[Any, Any], Any]:
    def test(left: Any, right: Any) -> Any:
        return _compared(left, right, operation)

    return test


def _boolean_test(original: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def test(value: Any) -> Any:
        if isinstance(value, str) and (says_no(value) or value.strip().casefold() in _BOOLEAN | _YES):
            raise Refused(value, "is text, neither true nor false", fix=f"compare it: … == {str(value)!r}")
        return original(value)

    return test


def nl2br(value: Any) -> Markup:
    """The filter `nl2br` of pages: the text with `<br>` at its line ends."""
    text = printed(value)
    text = text if isinstance(text, str) else str(text)
    return Markup("<br>\n").join(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
