"""How the people of a locale write dates, numbers, amounts and lists, as the CLDR has it.  Imports Babel late."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from bulkmail.message.template.dates import ORDERS, Months
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.text import suggest

if TYPE_CHECKING:
    from babel import Locale

LENGTHS = ("short", "medium", "long", "full")
MOST_DECIMALS = 10
_NAME = lazy_pattern(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")
_EXACT = Context(prec=200, rounding=ROUND_HALF_UP)
_FIELD = lazy_pattern(r"'[^']*'|([A-Za-z])\1*")
_DATE_FIELDS = frozenset("GyYuUQqMLlwWdDFgEec")
_TIME_FIELDS = frozenset("abBhHKkmsSA")
_LONGEST_PATTERN = 60


class UnknownLocale(ValueError):
    """There is no such locale; the message is a predicate."""


def find_locale(name: str) -> Locale:
    """The locale `name`: `de`, `de_AT`, `pt-BR`.  Raises `UnknownLocale`, and `ConfigError` without Babel."""
    try:
        return _find_locale(name.strip().replace("-", "_"))
    except UnknownLocale as error:
        near = [known for known in _known() if known[:2].lower() == name[:2].lower()]
        raise UnknownLocale(f"{error}{suggest(name, near)}") from None


@lru_cache(maxsize=256)
def _find_locale(name: str) -> Locale:
    try:
        from babel import Locale, UnknownLocaleError
    except ImportError:
        raise ConfigError(
            "a locale needs the Babel package, which is not installed", hint="type: pip install 'bulkmail[locale]'"
        ) from None
    if not _NAME.fullmatch(name):
        raise UnknownLocale("is not a locale, expected for example de_AT or en_US")
    try:
        return Locale.parse(name)
    except (UnknownLocaleError, ValueError):
        raise UnknownLocale("is not a known locale, expected for example de_AT or en_US") from None


def _known() -> list[str]:
    from babel.localedata import locale_identifiers

    return locale_identifiers()


def load(locale: Locale) -> None:
    """Reads whatever the functions here need of the locale, so that they read no file afterwards."""
    months_of(locale)
    written_date(date(2000, 1, 1), "full", locale)
    written_time(time(0, 0), "H:mm", locale)
    currency_decimals("EUR")
    for kind in ("decimal", "percent"):
        number_style(locale, kind)
    number_style(locale, "currency", "EUR")
    plural_category(Decimal(1), locale)
    written_list(["a", "b", "c"], "or", locale)


@lru_cache(maxsize=64)
def months_of(locale: Locale | None) -> Months:
    """The names of months in English and in `locale`; not those that could be two of them."""
    found: dict[str, set[int]] = {}
    for each in {find_locale("en"), locale or find_locale("en")}:
        for context in ("format", "stand-alone"):
            for width in ("wide", "abbreviated"):
                for number, name in each.months[context][width].items():
                    found.setdefault(name.rstrip(".").casefold(), set()).add(number)
    return MappingProxyType({name: min(numbers) for name, numbers in found.items() if len(numbers) == 1})


def order_of(locale: Locale) -> str:
    """`dmy`, `mdy` or `ymd`: in which order the people of `locale` write day, month and year."""
    pattern = locale.date_formats["short"].pattern
    order = "".join(dict.fromkeys(char for char in pattern.replace("L", "M").lower() if char in "dmy"))
    return order if order in ORDERS else ""


def written_date(value: date | datetime, pattern: str, locale: Locale) -> str:
    """The date in the length (see `LENGTHS`) or the CLDR pattern.  Raises `ValueError` for a pattern that is none."""
    if pattern in LENGTHS:
        return str(locale.date_formats[pattern].apply(value, locale))
    _check_pattern(pattern, _DATE_FIELDS | (_TIME_FIELDS if isinstance(value, datetime) else frozenset()))
    return _applied(value, pattern, locale)


def written_time(value: time, pattern: str, locale: Locale) -> str:
    """The time of day, as `written_date`.  The long forms name a time zone, which a time of day has not."""
    if pattern in LENGTHS[:2]:
        return str(locale.time_formats[pattern].apply(value, locale))
    if pattern in LENGTHS:
        raise ValueError(f"{pattern!r} names a time zone, expected 'short', 'medium' or a pattern such as 'H:mm'")
    _check_pattern(pattern, _TIME_FIELDS)
    return _applied(value, pattern, locale)


def _check_pattern(pattern: str, known: frozenset[str]) -> None:
    if "%" in pattern:
        raise ValueError(f"{pattern!r} is not a pattern of the CLDR: write dd.MM.yyyy, not %d.%m.%Y")
    if not pattern.strip() or len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"{pattern[:20]!r} is not a pattern, expected one such as 'd. MMMM yyyy'")
    fields = {found[1] for found in _FIELD.finditer(pattern) if found[1]}
    if "Y" in fields and "w" not in fields:
        raise ValueError(f"{pattern!r} has Y, the year of the week: write yyyy for the year of the day")
    if unknown := fields - known:
        char = min(unknown)
        meant = "m is minutes and M the month" if char == "m" else f"{char} is none of it"
        raise ValueError(f"{pattern!r} is not a pattern for this: {meant}; other words stand in '…'")


def _applied(value: date | time, pattern: str, locale: Locale) -> str:
    from babel.dates import parse_pattern

    try:
        return parse_pattern(pattern).apply(value, locale)
    except (AttributeError, KeyError, ValueError, TypeError):
        raise ValueError(f"{pattern!r} is not a pattern, expected one such as 'd. MMMM yyyy'") from None


@dataclass(frozen=True, slots=True)
class NumberStyle:
    """How a locale writes numbers of one kind: what stands before, between and behind the digits."""

    before: str
    behind: str
    before_negative: str
    behind_negative: str
    mark: str
    separator: str
    groups: tuple[int, int]

    def write(self, number: Decimal, decimals: int) -> str:
        """The number with `decimals` decimals, rounded half up."""
        if number.as_tuple().exponent != -decimals:
            number = number.quantize(Decimal(1).scaleb(-decimals), context=_EXACT)
        whole, _, fraction = f"{number:f}".partition(".")
        is_negative = whole[0] == "-"
        if is_negative:
            whole = whole[1:]
        digits = (
            f"{_grouped(whole, self.groups, self.separator)}{self.mark}{fraction}"
            if fraction
            else (_grouped(whole, self.groups, self.separator))
        )
        if is_negative and number:
            return f"{self.before_negative}{digits}{self.behind_negative}"
        return f"{self.before}{digits}{self.behind}"


def _grouped(digits: str, groups: tuple[int, int], separator: str) -> str:
    digits = digits.lstrip("0") or "0"
    first, next_ones = groups
    if len(digits) <= first:
        return digits
    if groups == (3, 3):
        return f"{int(digits):,}".replace(",", separator)
    pieces, rest = [digits[-first:]], digits[:-first]
    while rest:
        pieces.append(rest[-next_ones:])
        rest = rest[:-next_ones]
    return separator.join(reversed(pieces))


@lru_cache(maxsize=512)
def number_style(locale: Locale, kind: str, currency: str = "") -> NumberStyle:
    """The style of `decimal`, `percent` or `currency`, the last for the three letters of a currency."""
    from babel import numbers

    if kind == "currency":
        pattern = locale.currency_formats["standard"]
        positive, negative = (
            numbers.format_currency(number, currency, locale=locale, decimal_quantization=False, currency_digits=False)
            for number in (1, -1)
        )
    else:
        pattern = locale.decimal_formats[None] if kind == "decimal" else locale.percent_formats[None]
        unit = Decimal(1) if kind == "decimal" else Decimal("0.01")
        positive, negative = (pattern.apply(sign * unit, locale, decimal_quantization=False) for sign in (1, -1))
    digits = re.compile(r"1(?:[^0-9]?0+)?")
    before, behind = _sides(digits.split(positive, maxsplit=1))
    before_negative, behind_negative = _sides(digits.split(negative, maxsplit=1))
    symbols = locale.number_symbols.get("latn", {})
    return NumberStyle(
        before,
        behind,
        before_negative,
        behind_negative,
        mark=str(symbols.get("decimal", ".")),
        separator=str(symbols.get("group", ",")),
        groups=cast("tuple[int, int]", tuple(pattern.grouping)),
    )


def _sides(sides: list[str]) -> tuple[str, str]:
    """What stands before and behind the digits, with a space where a letter would touch them."""
    before, behind = sides
    return (
        f"{before}\u00a0" if before[-1:].isalpha() else before,
        f"\u00a0{behind}" if behind[:1].isalpha() else behind,
    )


@lru_cache(maxsize=256)
def currency_decimals(code: str) -> int:
    """How many decimals amounts of a currency have.  Raises `ValueError` for a code that is none."""
    from babel.numbers import get_currency_precision, list_currencies

    if code not in list_currencies():
        raise ValueError(f"{code[:20]!r} is not a currency, expected three letters such as EUR")
    return get_currency_precision(code)


def plural_category(number: Decimal, locale: Locale) -> str:
    """`zero`, `one`, `two`, `few`, `many` or `other`: the form of a word that stands with the number."""
    return _plural_category(str(number), locale)  # by its digits: 1 and 1.0 are equal, and two forms


@lru_cache(maxsize=4096)
def _plural_category(digits: str, locale: Locale) -> str:
    return str(locale.plural_form(Decimal(digits)))


def written_list(items: list[str], style: str, locale: Locale) -> str:
    """`a, b and c`; `style` is `and` or `or`."""
    from babel.lists import format_list

    return format_list(items, "standard" if style == "and" else "or", locale)
