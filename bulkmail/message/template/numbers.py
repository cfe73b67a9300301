"""Numbers in text: what the filters `float`, `int` and `number` make of a cell, and which texts look like a number."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from jinja2 import TemplateRuntimeError, Undefined

from bulkmail.model.lazy import lazy_pattern

LONGEST = 100  # characters of a text that is read as a number
MISSING: Any = object()

_GROUPING = " '\u2019\u00a0\u2009\u202f"  # between thousands, beside comma and dot
_PLAIN = lazy_pattern(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WRITTEN = lazy_pattern(rf"([-+\u2212]?)\s*([0-9.,][0-9.,{_GROUPING}]*)")
_THOUSANDS = lazy_pattern(r"[0-9]{1,3}([ .,])(?:[0-9]{2,3}\1)*[0-9]{3}")
_MINUS = ("-", "\u2212")
_SIGNS = ("+", "-", "\u2212", "(")
_ACCOUNTING = lazy_pattern(r"\(([^()]+)\)|(.*[0-9])-")  # (12.50) and 12.50-
_CODE = lazy_pattern(r"[A-Z]{3}|Fr\.?|SFr\.?|kr\.?|z\u0142|K\u010d|Ft|lei")
_DATE = lazy_pattern(r"[0-9]{1,2}([./-])\s?[0-9]{1,2}\1\s?(?:[0-9]{4}|[0-9]{2})(?![0-9])")


class Refused(TemplateRuntimeError):
    """A template asks of a value what cannot be done without a guess.

    `what` is a predicate about `value`; `fix` says what to write instead, with `…` for the expression.
    """

    def __init__(self, value: object, what: str, *, fix: str = "") -> None:
        super().__init__(f"{value!r} {what}")
        self.value = value
        self.what = what
        self.fix = fix


class MissingFile(Refused):
    """A row names a file that its message cannot have."""


class NotANumber(ValueError):
    """A text cannot be read as a number; the message is a predicate."""


def to_float(value: Any, default: Any = MISSING) -> Any:
    """The filter `float`: a number with a decimal point.  Any other text is refused unless there is a `default`."""
    if default is not MISSING:
        try:
            return float(value)
        except (TypeError, ValueError):
            return default
    return float(_plain(value, "float"))


def to_int(value: Any, default: Any = MISSING, base: int = 10) -> Any:
    """The filter `int`: as `float`, without the decimals."""
    if default is not MISSING:
        return _lenient_int(value, default, base)
    if base != 10 and isinstance(value, str):
        try:
            return int(value, base)
        except ValueError:
            raise Refused(value, f"is not a number to the base {base}", fix="write {{ … | int(0) }}") from None
    plain = _plain(value, "int")
    try:
        return int(plain)
    except ValueError:
        return int(float(plain))


def to_number(value: Any, decimal: str = "", default: Any = MISSING) -> Any:
    """The filter `number`: `1,234.50`, `1.234,50`, `1 234,50 €`; `decimal` says which sign stands before decimals.

    A text that may be read in two ways is refused, as is one that is no number, unless there is a `default`.
    """
    if decimal not in ("", ",", "."):
        raise TemplateRuntimeError(f"number() takes ',' or '.' as the sign before the decimals, not {decimal!r}")
    if isinstance(value, Undefined):
        return float(value) if default is MISSING else default
    if isinstance(value, int | float):
        return value
    try:
        if not isinstance(value, str):
            raise NotANumber("is not a number")
        return read_number(value, decimal)
    except NotANumber as error:
        if default is not MISSING:
            return default
        raise refused_number(value, error, "number(default=0)") from None


def read_number(text: str, decimal: str = "") -> int | float:
    """The number that `text` is.  Raises `NotANumber`, also where comma or dot leave two readings."""
    digits = read_digits(text, decimal)
    return float(digits) if "." in digits else int(digits)


def read_digits(text: str, decimal: str = "") -> str:
    """The number that `text` is as Python writes it, with all its decimals: `-1234.50`.  Raises as `read_number`."""
    sign, digits = _parts(text)
    for mark in _GROUPING:
        digits = digits.replace(mark, " ")
    whole, decimals = _split(digits.strip(), decimal)
    if not whole.isdigit():
        if not _THOUSANDS.fullmatch(whole):
            raise NotANumber("is not a number")
        whole = re.sub(r"[^0-9]", "", whole)
    return f"{'-' if sign in _MINUS else ''}{whole}{'.' if decimals else ''}{decimals}"


def looks_like_number(text: str) -> bool:
    """Whether people read `text` as a number or an amount of money, in whatever notation."""
    try:
        read_number(text)
    except Ambiguous:
        return True
    except NotANumber:
        return bool(_PLAIN.fullmatch(text.strip()))
    return True


def looks_like_date(text: str) -> bool:
    """Whether `text` is a date that does not sort as text does: `24.12.2026`."""
    return bool(_DATE.match(text.strip()))


class Ambiguous(NotANumber):
    """A text is a number that can be read in two ways."""


def _parts(text: str) -> tuple[str, str]:
    """Sign and digits, without a currency before or behind them."""
    bare = text.strip()
    if not bare or len(bare) > LONGEST:
        raise NotANumber("is empty, not a number" if not bare else f"is longer than {LONGEST} characters")
    if bare.endswith("%"):
        raise NotANumber("is a percentage, and may mean its hundredth")
    sign = ""
    if found := _ACCOUNTING.fullmatch(bare):  # -12.50, as accounts have it
        sign, bare = "-", (found[1] or found[2]).strip()
        if bare[:1] in _SIGNS:
            raise NotANumber("is not a number")
    elif bare[0] in "+-\u2212":
        sign, bare = bare[0], bare[1:].lstrip()
    found = _WRITTEN.fullmatch(_without_dash(_without_currency(_without_dash(bare))))
    if not found or (sign and found[1]) or not re.search("[0-9]", found[2]):
        raise NotANumber("is not a number")
    return sign or found[1], found[2]


def _without_dash(text: str) -> str:
    """`12` of `12.\u2013`: whole amounts in Switzerland and Austria."""
    return re.sub(r"(?<=[0-9])[.,]\s?(?:--?|\u2013|\u2014)$", "", text)


def _without_currency(text: str) -> str:
    if text and unicodedata.category(text[0]) == "Sc":
        return text[1:].strip()
    if text and unicodedata.category(text[-1]) == "Sc":
        return text[:-1].strip()
    if dollar := re.match(r"(?:US|CA?|AU?|NZ|HK|S|R|MX)\$", text):
        return text[dollar.end() :].strip()
    head = re.match(r"[^\W\d_]+\.?", text)
    if head and _CODE.fullmatch(head[0]):
        return text[head.end() :].strip()
    tail = re.search(r"[^\W\d_]+\.?$", text)
    if tail and _CODE.fullmatch(tail[0]):
        return text[: tail.start()].strip()
    return text


def _split(digits: str, decimal: str) -> tuple[str, str]:
    """The part before the decimals, thousands marked or not, and the decimals."""
    dots, commas = digits.count("."), digits.count(",")
    if not decimal:
        if dots and commas:
            decimal = "." if digits.rfind(".") > digits.rfind(",") else ","
        elif dots + commas == 1:
            decimal = "." if dots else ","
            whole, _, decimals = digits.partition(decimal)
            if len(decimals) == 3 and whole.isdigit() and len(whole) <= 3 and whole[0] != "0":
                raise Ambiguous(f"may be {whole}{decimals} or {whole}.{decimals}")
    if not decimal or digits.count(decimal) == 0:
        return digits, ""
    if digits.count(decimal) > 1:
        raise NotANumber("is not a number")
    whole, _, decimals = digits.partition(decimal)
    if not (decimals.isascii() and decimals.isdigit()):
        raise NotANumber("is not a number")
    return whole or "0", decimals


def _plain(value: Any, name: str) -> Any:
    """`value` if Python's own reading of it is the only one."""
    if isinstance(value, Undefined):
        return float(value)  # says that it is undefined
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        raise Refused(value, "is not a number", fix=f"write {{{{ … | {name}(0) }}}} to say what it counts as")
    text = value.strip()
    if not _PLAIN.fullmatch(text) or not math.isfinite(float(text)):
        raise refused_number(value, NotANumber("is not a number" if text else "is empty, not a number"), f"{name}(0)")
    try:
        read_number(text)
    except Ambiguous as error:
        raise refused_number(value, error, f"{name}(0)") from None
    except NotANumber:
        pass  # 1e5: no person writes it, and it has one meaning
    return text


def refused_number(value: object, error: NotANumber, default: str) -> Refused:
    """What to raise of a value that is to be a number; `default` is the filter that says what counts instead."""
    if isinstance(error, Ambiguous):
        fix = "write {{ … | number(',') }} if the comma stands before decimals, {{ … | number('.') }} if the dot does"
    elif isinstance(value, str) and value.strip():
        fix = "write {{ … | number }}, which reads 1,234.50 and 1.234,50" if _is_readable(value) else "correct the cell"
        fix += f", or {{{{ … | {default} }}}} to say what counts instead"
    else:
        fix = f"write {{{{ … | {default} }}}} to say what an empty cell counts as"
    return Refused(value, str(error), fix=fix)


def _is_readable(text: str) -> bool:
    try:
        read_number(text)
    except NotANumber:
        return False
    return True


def _lenient_int(value: Any, default: Any, base: int) -> Any:
    try:
        return int(value, base) if isinstance(value, str) else int(value)
    except (TypeError, ValueError):
        try:
            return int(float(value))
        except (TypeError, ValueError, OverflowError):
            return default
