"""The values of a campaign that are the same for every row: kept as JSON, found in every template by their names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import msgspec

from bulkmail.model.errors import ConfigError
from bulkmail.model.quantities import Literal, read_number
from bulkmail.text import printable

LONGEST = 10_000_000  # bytes of all values as JSON
RESERVED = frozenset({
    "row", "email", "unsubscribe_url", "now", "today", "days", "range", "dict", "cycler", "joiner", "namespace",
    "self", "super", "loop", "caller", "varargs", "kwargs", "true", "false", "none", "True", "False", "None",
})  # fmt: skip
"""Names that mean something else in a template."""


def written_values(values: Mapping[str, object]) -> str:
    """The values as JSON; empty for none.  Raises `ConfigError` for a name or a value that cannot be."""
    for name in values:
        if fault := name_fault(name):
            raise ConfigError(f"data: {printable(str(name), 40)!r} {fault}")
    if not values:
        return ""
    try:
        text = msgspec.json.encode(values, enc_hook=_literal).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"data: {printable(str(error))}", hint="use text, numbers, true, false, dates, lists and tables of such"
        ) from None
    if len(text) > LONGEST:
        raise ConfigError(f"data: is longer than {LONGEST // 1_000_000} MB", hint="is it the right file?")
    return text


@lru_cache(maxsize=4)
def read_values(text: str) -> Mapping[str, object]:
    """What `written_values` wrote."""
    if not text:
        return MappingProxyType({})
    return MappingProxyType(_decode(text))


def name_fault(name: object) -> str:
    """Why a template cannot use a value of that name, as a predicate; empty if it can."""
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        return "is not a name, expected letters, digits and _"
    if name in RESERVED:
        return "means something else in a template; choose another name"
    return ""


_decode = msgspec.json.Decoder(dict[str, object], float_hook=read_number).decode


def _literal(value: object) -> object:
    if isinstance(value, Literal):
        return msgspec.Raw(value.text.encode())
    raise TypeError(f"a value of the type {type(value).__name__} cannot be kept")
