"""The filters that write for the people of a locale: `date`, `time`, `number`, `money`, `percent`, `list`, `plural`.

The locale is the campaign's, or the row's: then it is set for each rendering (`Locality.enter`).  Each filter reads a
cell in the one way it can be meant, or raises `Refused`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateRuntimeError, Undefined, pass_context

from bulkmail.message.template import dates, locales
from bulkmail.message.template.dates import NotADate
from bulkmail.message.template.numbers import MISSING, NotANumber, Refused, read_digits, refused_number, to_number
from bulkmail.message.template.strict_tree import LIST_AT_END, NUMBER_AT_END
from bulkmail.message.template.strictness import printed
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.quantities import Literal

if TYPE_CHECKING:
    from babel import Locale
    from jinja2 import Environment

LONGEST_LIST = 1_000
_CATEGORIES = ("zero", "one", "two", "few", "many", "other")
_SAY_LOCALE = 'write locale = "de_AT" below [message], or locale="de_AT" in the filter'
_PERCENT_DECIMALS = 2
_FREE_DECIMALS = 10  # of a number that was calculated
_MOST_DIGITS = 24  # with sign and mark: what decimal arithmetic keeps in full

_SIGNS: dict[str, frozenset[str]] = {
    "€": frozenset({"EUR"}),
    "£": frozenset({"GBP", "EGP", "FKP", "GIP", "LBP", "SHP", "SSP", "SDG", "SYP"}),
    "¥": frozenset({"JPY", "CNY"}),
    "₹": frozenset({"INR"}),
    "₽": frozenset({"RUB"}),
    "₺": frozenset({"TRY"}),
    "₴": frozenset({"UAH"}),
    "₩": frozenset({"KRW", "KPW"}),
    "₪": frozenset({"ILS"}),
    "฿": frozenset({"THB"}),
    "US$": frozenset({"USD"}),
    "C$": frozenset({"CAD"}),
    "CA$": frozenset({"CAD"}),
    "A$": frozenset({"AUD"}),
    "AU$": frozenset({"AUD"}),
    "NZ$": frozenset({"NZD"}),
    "HK$": frozenset({"HKD"}),
    "S$": frozenset({"SGD"}),
    "R$": frozenset({"BRL"}),
    "MX$": frozenset({"MXN"}),
    "$": frozenset({
        "USD", "CAD", "AUD", "NZD", "HKD", "SGD", "MXN", "TWD", "ARS", "CLP", "COP", "UYU", "BBD", "BSD", "JMD", "TTD",
    }),
    "Fr": frozenset({"CHF"}),
    "SFr": frozenset({"CHF"}),
    "kr": frozenset({"SEK", "NOK", "DKK", "ISK"}),
    "zł": frozenset({"PLN"}),
    "Kč": frozenset({"CZK"}),
    "Ft": frozenset({"HUF"}),
    "lei": frozenset({"RON", "MDL"}),
}  # fmt: skip
_NO_MARK = {ord(each): None for each in "0123456789.,()-+\u2212\u2013\u2014' \u2019\u00a0\u2009\u202f\t"}


class _Current(threading.local):
    locale: Locale | None = None


_current = _Current()


@dataclass(frozen=True, slots=True)
class Locality:
    """For whom a campaign writes: its locale, if every row has the same, its time zone and its moment.

    With `is_by_row` each rendering sets the locale.  `now` is the same for all messages of a run.
    """

    locale: Locale | None = None
    is_by_row: bool = False
    zone: tzinfo | None = None
    now: datetime = datetime(2000, 1, 1)

    def enter(self, locale: Locale | None) -> None:
        """Begins a rendering for a row of that locale."""
        if self.is_by_row:
            _current.locale = locale

    def found(self, name: str = "") -> Locale | None:
        """The locale that holds, or the one called `name`.  Raises `TemplateRuntimeError`."""
        if name:
            try:
                return locales.find_locale(name)
            except locales.UnknownLocale as error:
                raise TemplateRuntimeError(f"locale={name!r} {error}") from None
        return _current.locale if self.is_by_row else self.locale

    def needed(self, name: str, what: str) -> Locale:
        """As `found`.  Raises `TemplateRuntimeError` where there is none."""
        locale = self.found(name)
        if locale is None:
            raise NoLocale(what)
        return locale


class NoLocale(TemplateRuntimeError):
    """A filter is to write for the people of a locale, and none is set."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the filter {name} writes by a locale, and none is set")
        self.fix = _SAY_LOCALE


Filter = Callable[..., Any]


@lru_cache(maxsize=16)
def filters_of(locality: Locality) -> dict[str, Filter]:
    """The filters by name, for the values and arguments alone; `install` makes them filters of Jinja."""

    def write_date(value: Any, format: str = "medium", read: str = "", locale: str = "") -> str:
        _require(value)
        return _written_date(value, format, read, locality.needed(locale, "date"), locality.zone)

    def write_time(value: Any, format: str = "short", read: str = "", locale: str = "") -> str:
        _require(value)
        return _written_time(value, format, read, locality.needed(locale, "time"), locality.zone)

    def to_date(value: Any, read: str = "") -> date:
        _require(value)
        return _date_of(_moment(value, read, locality.found(), locality.zone))

    def number(
        value: Any, decimal: str = "", default: Any = MISSING, decimals: int | None = None, locale: str = ""
    ) -> Any:
        if decimals is None and not locale:
            return to_number(value, decimal, default)
        return number_at_end(value, decimal, default, decimals, locale)

    def number_at_end(
        value: Any, decimal: str = "", default: Any = MISSING, decimals: int | None = None, locale: str = ""
    ) -> Any:
        found = locality.found(locale)
        if found is None:
            if decimals is None:
                return to_number(value, decimal, default)
            raise NoLocale("number")
        exact = _exact(value, decimal, default)
        if not isinstance(exact, Decimal):
            return exact
        return _style(found, "decimal").write(exact, _decimals_of(exact) if decimals is None else _checked(decimals))

    def money(value: Any, currency: str = "", decimal: str = "", decimals: int | None = None, locale: str = "") -> str:
        found = locality.needed(locale, "money")
        exact = _exact(value, decimal, MISSING)
        code = _currency(value, currency)
        usual = _currency_decimals(code)
        if isinstance(value, str | Literal) and decimals is None and round(exact, usual) != exact:
            raise Refused(
                value, f"has more decimals than amounts of {code}",
                fix=f"write {{{{ … | money({code!r}, decimals={_decimals_of(exact)}) }}}} if they are meant",
            )  # fmt: skip
        return _style(found, "currency", code).write(exact, usual if decimals is None else _checked(decimals))

    def percent(
        value: Any, of: int | float = 0, decimal: str = "", decimals: int | None = None, locale: str = ""
    ) -> str:
        found = locality.needed(locale, "percent")
        exact = _percentage(value, of, decimal)
        if decimals is None:
            is_written = isinstance(value, str | Literal)
            decimals = _decimals_of(exact) if is_written else min(_decimals_of(exact), _PERCENT_DECIMALS)
        return _style(found, "percent").write(exact, _checked(decimals))

    def list_at_end(value: Any, style: str = "", locale: str = "") -> Any:
        found = locality.found(locale)
        if found is None and not style and not locale:
            return list(value)  # which is refused where it is printed
        if found is None:
            raise NoLocale("list")
        return _written_list(value, style or "and", found)

    def plain_list(value: Any, style: str = "", locale: str = "") -> Any:
        return list_at_end(value, style, locale) if style or locale else list(value)

    def plural(value: Any, *forms: str, decimal: str = "", locale: str = "", **named: str) -> str:
        found = locality.needed(locale, "plural")
        exact = _exact(value, decimal, MISSING)
        form = _plural_form(exact, _forms(forms, named), found, value)
        return form.replace("#", _style(found, "decimal").write(exact, _decimals_of(exact)))

    return {
        "date": write_date,
        "time": write_time,
        "to_date": to_date,
        "number": number,
        NUMBER_AT_END: number_at_end,
        "money": money,
        "percent": percent,
        "list": plain_list,
        LIST_AT_END: list_at_end,
        "plural": plural,
    }


COMPILED = frozenset({"date", "time", "money", "percent", "plural", "number"})
"""The filters that `compiled` calls itself."""


def install(environment: Environment, locality: Locality) -> None:
    """Adds the filters, and `days`."""
    environment.filters |= {name: _by_context(function) for name, function in filters_of(locality).items()}
    environment.globals["days"] = _days


def _by_context(function: Filter) -> Filter:
    """A filter whose result Jinja does not work out while it compiles: the locale may be the row's."""

    @pass_context
    def by_context(_: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        return function(value, *args, **kwargs)

    return by_context


def _days(number: Any) -> timedelta:
    """`today + days(14)`."""
    if isinstance(number, bool) or not isinstance(number, int) or abs(number) > 36_525:
        raise TemplateRuntimeError(f"days() takes a whole number up to 36,525, not {str(number)[:20]!r}")
    return timedelta(days=number)


def _require(value: Any) -> None:
    if isinstance(value, Undefined):
        str(value)  # says that it is undefined


def _date_of(moment: date | datetime) -> date:
    return moment.date() if isinstance(moment, datetime) else moment


@lru_cache(maxsize=4096)
def _written_text_date(value: str, pattern: str, read: str, locale: Locale, zone: tzinfo | None) -> str:
    moment = _moment(value, read, locale, zone)
    return locales.written_date(_date_of(moment) if pattern in locales.LENGTHS else moment, pattern, locale)


def _written_date(value: Any, pattern: str, read: str, locale: Locale, zone: tzinfo | None) -> str:
    try:
        if type(value) is str:
            return _written_text_date(value, pattern, read, locale, zone)
        moment = _moment(value, read, locale, zone)
        return locales.written_date(_date_of(moment) if pattern in locales.LENGTHS else moment, pattern, locale)
    except ValueError as error:
        raise TemplateRuntimeError(str(error)) from None


def _written_time(value: Any, pattern: str, read: str, locale: Locale, zone: tzinfo | None) -> str:
    try:
        form, months = _form(read, locale)
        found: time = dates.read_time(value, form, months=months, zone=zone)
    except NotADate as error:
        raise _refused_date(value, error, "time") from None
    try:
        return locales.written_time(found, pattern, locale)
    except ValueError as error:
        raise TemplateRuntimeError(str(error)) from None


def _moment(value: Any, read: str, locale: Locale | None, zone: tzinfo | None) -> date | datetime:
    try:
        form, months = _form(read, locale)
        return dates.read_moment(value, form, months=months, zone=zone)
    except NotADate as error:
        raise _refused_date(value, error, "date") from None


def _form(read: str, locale: Locale | None) -> tuple[str, Mapping[str, int]]:
    """The form that `read=` says, and the names of months that count."""
    if "%" in read:
        if fault := dates.form_fault(read):
            raise TemplateRuntimeError(f"read={read!r} {fault}")
        return read, {}
    if not read or read in dates.FORMS:
        return read, locales.months_of(locale)
    try:
        reported = locales.find_locale(read)
    except locales.UnknownLocale:
        known = ", ".join(dates.FORMS)
        what = f"read={read!r} is no form of dates, expected {known}, a locale such as en_US or %d.%m.%y"
        raise TemplateRuntimeError(what) from None
    if str(reported) == "en":
        raise TemplateRuntimeError("read='en' does not say whether the month comes first: write 'en_US' or 'en_GB'")
    return locales.order_of(reported), locales.months_of(reported)


def _refused_date(value: object, error: NotADate, name: str) -> Refused:
    match error:
        case dates.TwoDigitYear():
            fix = f"write the year with four digits, or {{{{ … | {name}(read='%d.%m.%y') }}}} if that is its form"
        case dates.TwoReadings():
            fix = f"write {{{{ … | {name}(read='dmy') }}}} if the day comes first, read='mdy' if the month does"
        case dates.NoZone():
            fix = 'write timezone = "Europe/Vienna" below [message]'
        case _ if isinstance(value, str) and not value.strip():
            fix = "write {% if … %} around it"
        case _:
            fix = (
                f"correct the cell, or say its form: {{{{ … | {name}(read='excel') }}}} for the numbers of a sheet, "
                "read='de' for names of months"
            )
    return Refused(value, str(error), fix=fix)


def _exact(value: Any, decimal: str, default: Any) -> Any:
    """The number as a `Decimal` with the digits it was written with, or `default`.  Raises `Refused`."""
    if decimal not in ("", ",", "."):
        raise TemplateRuntimeError(f"a filter takes ',' or '.' as the sign before the decimals, not {decimal!r}")
    if isinstance(value, Undefined) and default is MISSING:
        str(value)  # says that it is undefined
    try:
        match value:
            case str():
                return _read(value, decimal)
            case bool():
                raise NotANumber("is not a number")
            case Literal():
                return _kept(Decimal(value.text))
            case Decimal() if value.is_finite():
                return _kept(value)
            case int():
                return _kept(Decimal(value))
            case float() if value == value and abs(value) < 1e15:
                return _shortest(round(Decimal(repr(value)), _FREE_DECIMALS))
        raise NotANumber("is not a number")
    except NotANumber as error:
        if isinstance(default, int | float) and not isinstance(default, bool):
            return _exact(default, "", MISSING)
        if default is not MISSING:
            return default
        raise refused_number(value, error, "number(default=0)") from None


_COMMON = lazy_pattern(r"-?[0-9]{1,15}(?:([.,])[0-9]{1,2})?")  # what most cells hold, and can be meant in one way only


@lru_cache(maxsize=1024)  # a number often stands in a message twice, as text and as HTML
def _read(text: str, decimal: str) -> Decimal:
    if (found := _COMMON.fullmatch(text)) and (not decimal or found[1] in (None, decimal)):
        return Decimal(text.replace(",", "."))
    digits = read_digits(text, decimal)
    if len(digits) > _MOST_DIGITS:
        raise NotANumber(f"has more than {_MOST_DIGITS - 2} digits")
    return Decimal(digits)


def _kept(number: Decimal) -> Decimal:
    digits, exponent = number.as_tuple()[1:]
    if len(digits) > _MOST_DIGITS - 2 or not isinstance(exponent, int) or not -_MOST_DIGITS < exponent < _MOST_DIGITS:
        raise NotANumber(f"has more than {_MOST_DIGITS - 2} digits")
    return number


def _decimals_of(number: Decimal) -> int:
    """The decimals to write of a number: those it was written with."""
    exponent = number.as_tuple().exponent
    return min(max(0, -exponent), locales.MOST_DECIMALS * 2) if isinstance(exponent, int) else 0


def _checked(decimals: Any) -> int:
    if isinstance(decimals, bool) or not isinstance(decimals, int) or not 0 <= decimals <= locales.MOST_DECIMALS:
        raise TemplateRuntimeError(f"decimals={str(decimals)[:20]} is not a whole number from 0 to 10")
    return decimals


_style = locales.number_style


def _currency(value: Any, currency: str) -> str:
    """The currency that was said, or that the cell names; `Refused` where they differ or none is named."""
    mark = value.translate(_NO_MARK) if isinstance(value, str) else ""
    meant = _SIGNS.get(mark, frozenset({mark})) if mark else None
    if meant is None:
        if not currency:
            raise Refused(value, "names no currency", fix="write {{ … | money('EUR') }}")
        return currency
    if not currency:
        if len(meant) > 1:
            raise Refused(
                value, f"may be in {', '.join(sorted(meant)[:4])} …", fix="write {{ … | money('USD') }} to say which"
            )
        return min(meant)
    if currency not in meant:
        raise Refused(value, f"is not in {currency}", fix="write {{ … | money }}, which takes the cell's currency")
    return currency


def _currency_decimals(code: str) -> int:
    try:
        return locales.currency_decimals(code)
    except ValueError as error:
        raise TemplateRuntimeError(str(error)) from None


def _percentage(value: Any, of: float, decimal: str) -> Decimal:
    """The number to stand before the percent sign."""
    if isinstance(value, str) and value.strip().endswith("%"):
        exact = _exact(value.strip()[:-1].strip(), decimal, MISSING)
        if of not in (0, 100):
            raise Refused(value, "says percent itself", fix="write {{ … | percent }}")
        return Decimal(exact)
    exact = _exact(value, decimal, MISSING)
    if of not in (1, 100):
        raise Refused(
            value, "may be a part of 1 or of 100",
            fix="write {{ … | percent(of=1) }} if 1 means 100 %, percent(of=100) if it means 1 %",
        )  # fmt: skip
    return _shortest(Decimal(exact) * 100) if of == 1 else Decimal(exact)


def _shortest(number: Decimal) -> Decimal:
    """Without zeros at the end of its decimals."""
    short = number.normalize()
    return short if _decimals_of(short) else number.quantize(Decimal(1))


def _written_list(value: Any, style: str, locale: Locale) -> str:
    if style not in ("and", "or"):
        raise TemplateRuntimeError(f"list takes 'and' or 'or', not {style[:20]!r}")
    if isinstance(value, str):
        raise Refused(value, "is text, and a list of it would be its letters", fix="write {{ ….split(', ') | list }}")
    items = []
    for item in value:
        text = str(printed(item)).strip()
        if not text:
            raise Refused(value, "has an empty item", fix="write {{ … | select | list }} to leave it out")
        items.append(text)
        if len(items) > LONGEST_LIST:
            raise TemplateRuntimeError(f"a list of more than {LONGEST_LIST:,} items")
    if not items:
        raise Refused(value, "is an empty list", fix="write {% if … %} around it")
    return locales.written_list(items, style, locale)


def _forms(forms: Iterable[str], named: Mapping[str, str]) -> dict[str, str]:
    found = dict(named)
    positional = list(forms)
    if len(positional) not in (0, 2):
        raise TemplateRuntimeError("plural takes the words for one and for several: plural('day', 'days')")
    if positional:
        found = {"one": positional[0], "other": positional[1]} | found
    if unknown := set(found) - set(_CATEGORIES):
        raise TemplateRuntimeError(f"plural has no {min(unknown)!r}, expected {', '.join(_CATEGORIES)}")
    if "other" not in found:
        raise TemplateRuntimeError("plural lacks other=, the word for several: plural('day', 'days')")
    return found


def _plural_form(number: Decimal, forms: Mapping[str, str], locale: Locale, value: object) -> str:
    category = locales.plural_category(abs(number), locale)
    if category not in forms:
        named = ", ".join(f"{each}='word'" for each in _CATEGORIES if each in {*locale.plural_form.tags, "other"})
        raise Refused(
            value, f"takes the form {category!r} in {locale.english_name or locale}", fix=f"write plural({named})"
        )
    return forms[category]
