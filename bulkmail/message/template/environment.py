"""What a template may do: the Jinja environments that messages are written in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any, cast

from jinja2 import DictLoader, StrictUndefined, TemplateRuntimeError, UndefinedError, nodes
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.utils import missing as NOTHING
from markupsafe import Markup

from bulkmail.message.attachments import drawing
from bulkmail.message.template import links, local_filters, strict_tree, strictness
from bulkmail.message.template.local_filters import Locality
from bulkmail.message.template.tags import with_css_apart
from bulkmail.model.lazy import lazy_pattern
from bulkmail.text import suggest

LONGEST_OUTPUT = 10_000_000  # characters of one rendered template
LONGEST_RANGE = 100_000  # numbers that the ranges of one rendering give, all together
_LONGEST_POWER = 10_000  # bits
_BATCH = 32  # chunks joined before their size is looked at again: one may be a cell of many megabytes

_FORMAT_FIELD = lazy_pattern(r"%[^%A-Za-z]*|\{[^{}]*\{?")
_WIDE = lazy_pattern(r"\d{6}")


class TooMuch(TemplateRuntimeError):
    """A template wants more output, numbers or memory than any message needs."""


def join_chunks(chunks: Iterable[str]) -> str:
    """`"".join(chunks)`, stopped with `TooMuch` before it is longer than `LONGEST_OUTPUT`."""
    pieces: list[str] = []
    size = 0
    remaining = iter(chunks)
    while True:
        batch = list(islice(remaining, _BATCH))
        size += sum(map(len, batch))
        _check_size(size)
        pieces += batch
        if len(batch) < _BATCH:
            return "".join(pieces)


class UndefinedValue(UndefinedError):
    """A template uses `name`, which is no field of the row, or no attribute of the value that stands before it."""

    def __init__(self, message: str, *, name: str, is_field: bool) -> None:
        super().__init__(message)
        self.name = name
        self.is_field = is_field


class _Missing(StrictUndefined):
    """An undefined value that says what a mapping would have had instead, and raises `UndefinedValue`."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = NOTHING,
        name: str | None = None,
        exc: type[TemplateRuntimeError] = UndefinedError,
    ) -> None:
        super().__init__(hint, obj, name, exc)
        if hint is None and isinstance(name, str):
            # Jinja calls it with the message, and nothing else.
            raised = partial(UndefinedValue, name=name, is_field=obj is NOTHING)
            self._undefined_exception = cast("type[TemplateRuntimeError]", raised)

    @property
    def _undefined_message(self) -> str:
        holder, name = self._undefined_obj, self._undefined_name
        if self._undefined_hint or not (isinstance(holder, Mapping) and isinstance(name, str)):
            return super()._undefined_message
        return f"there is no field {name!r}{suggest(name, (str(key) for key in holder))}"


class MessageEnvironment(ImmutableSandboxedEnvironment):
    """The immutable sandbox, with bounds on what an operator or a call may make of a number from a cell.

    Whatever it compiles is made strict: see `strictness`.
    """

    intercepted_binops = frozenset({"*", "**", "%"})
    concat = staticmethod(join_chunks)
    locality: Locality
    values: dict[str, object]

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        return super()._generate(strict_tree.made_strict(source, self), name, filename, defer_init)

    def preprocess(self, source: str, name: str | None = None, filename: str | None = None) -> str:
        """The source as it is meant: see `with_css_apart`."""
        return super().preprocess(with_css_apart(str(source)), name, filename)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operator's result; `TooMuch` instead of a text, list or number of absurd size."""
        if operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _LONGEST_POWER:
                raise TooMuch(f"{left} ** {right} is too large a number")
        elif operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, str | bytes | list | tuple) and isinstance(times, int):
                    _check_size(len(many) * times)
        elif isinstance(left, str):
            _check_format(left, right if isinstance(right, tuple) else (right,))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls a function from a template.  A method of a text or number gets no number that makes it huge."""
        if isinstance(__obj, _SafeFormat):
            _check_format(__obj.text, (*args, *kwargs.values()))
        elif (args or kwargs) and isinstance(getattr(__obj, "__self__", None), str | bytes | int):
            _check_numbers((*args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` as the sandbox wraps it, with the text kept so that widths in it can be bounded."""
        if super().wrap_str_format(value) is None:
            return None
        text = value.__self__
        strict = _EscapeFormatter(self, escape=text.escape) if isinstance(text, Markup) else _Formatter(self)
        return _SafeFormat(text, strict, takes_mapping=value.__name__ == "format_map")


class _SafeFormat:
    def __init__(self, text: str, formatter: SandboxedFormatter, *, takes_mapping: bool) -> None:
        self.text = text
        self._formatter = formatter
        self._takes_mapping = takes_mapping

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        if self._takes_mapping:
            (kwargs,), args = args, ()
        return type(self.text)(self._formatter.vformat(self.text, args, kwargs))


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        return super().format_field(strictness.formatted(value, format_spec), format_spec)


class _EscapeFormatter(SandboxedEscapeFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        return super().format_field(strictness.formatted(value, format_spec), format_spec)


class _OneLine(Extension):
    """Makes the line ends that a template itself contains into spaces: a long subject may be written over two lines.

    Those that come out of a cell stay, and are refused: that is how a header would be injected.
    """

    def filter_stream(self, stream: TokenStream) -> Iterable[Token]:
        for token in stream:
            if token.type == "data":
                yield Token(token.lineno, token.type, _LINE_END.sub(" ", token.value))
            else:
                yield token


_LINE_END = lazy_pattern(r"[ \t]*(?:\r\n?|\n)[ \t\r\n]*")


NO_VALUES: Mapping[str, object] = {}
NOWHERE = Locality()
"""For templates that are only looked at, and for conditions without a date."""


def make_environment(
    partials: Mapping[str, str],
    *,
    html: bool = False,
    one_line: bool = False,
    escape: Callable[[object], object] | None = None,
    locality: Locality = NOWHERE,
    values: Mapping[str, object] = NO_VALUES,
    draws: bool = False,
    picture: Callable[[Any], object] | None = None,
) -> MessageEnvironment:
    """An environment whose templates can include `partials`.  With `html` what comes from cells is escaped.

    `escape` is what is done to every value instead.  `locality` says for whom dates and numbers are written, `values`
    are what every template finds by name.  With `html`, or if it `draws`, the filters `qr` and `picture` may be used;
    the latter is the function of that name.
    """
    environment = MessageEnvironment(
        loader=DictLoader(dict(partials)),
        undefined=_Missing,
        autoescape=html,
        finalize=strictness.printed if escape is None else lambda value: escape(strictness.printed(value)),
        auto_reload=False,
        extensions=[_OneLine] if one_line else [],
    )
    # Chance would make the second try of a message another message.
    del environment.globals["lipsum"]
    del environment.filters["random"]
    strictness.install(environment)
    environment.filters["nl2br"] = strictness.nl2br if html else strictness.printed
    local_filters.install(environment, locality)
    environment.locality = locality
    environment.values = {"now": locality.now, "today": locality.now.date(), **values}
    environment.globals |= environment.values
    environment.globals["range"] = bounded_range
    environment.filters[links.FILTER] = links.link
    environment.filters["utm"] = links.utm
    environment.filters[drawing.FILTER] = drawing.qr if html or draws else drawing.no_qr
    shows = picture is not None and (html or draws)
    environment.filters[drawing.PICTURE] = picture if shows and picture else drawing.no_picture
    environment.filters["format"] = _bounded(environment.filters["format"], _check_format)
    for name in ("batch", "center", "indent", "round", "slice", "tojson"):
        environment.filters[name] = _bounded(environment.filters[name], lambda _, numbers: _check_numbers(numbers))
    return environment


class _Spent(threading.local):
    numbers = 0


_spent = _Spent()


def reset_ranges() -> None:
    """Begins a rendering: what its ranges give is counted from here."""
    _spent.numbers = 0


def bounded_range(*args: int) -> range:
    """`range`, but all of one rendering give at most `LONGEST_RANGE` numbers: nested loops end, too."""
    numbers = range(*args)
    _spent.numbers += 1 + min(len(numbers), LONGEST_RANGE)
    if _spent.numbers > LONGEST_RANGE:
        raise TooMuch(f"its loops over range() take more than {LONGEST_RANGE:,} steps")
    return numbers


def _bounded(function: Callable[..., Any], check: Callable[[Any, tuple[object, ...]], None]) -> Callable[..., Any]:
    def bounded(value: Any, *args: Any, **kwargs: Any) -> Any:
        check(value, (*args, *kwargs.values()))
        return function(value, *args, **kwargs)

    # Jinja reads from these what else it has to pass.
    bounded.__dict__.update(vars(function))
    return bounded


def _check_size(size: int) -> None:
    if size > LONGEST_OUTPUT:
        raise TooMuch(f"gives more than {LONGEST_OUTPUT:,} characters")


def _check_numbers(arguments: Iterable[object]) -> None:
    """Refuses widths and counts that would make a text of absurd size."""
    for argument in arguments:
        if isinstance(argument, int) and abs(argument) > LONGEST_RANGE:
            raise TooMuch("a width or count is too large")


def _check_format(text: object, arguments: Iterable[object]) -> None:
    """Refuses a format with an absurd width, be it written in `text` or, by `*` or `{}`, among the arguments."""
    for field in _FORMAT_FIELD.findall(str(text)):
        if _WIDE.search(field):
            raise TooMuch("a width in the format is too large")
        if "*" in field or "{" in field[1:]:
            _check_numbers(arguments)
