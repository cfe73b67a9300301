"""Number formats of sheets: from a value and a code such as `#,##0.00 "€"` to the text that people see.

Signs between thousands and before decimals are those of the code, `,` and `.`, as files have them in every country.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache

from bulkmail.model.lazy import dataclass, lazy_pattern

GENERAL = "General"

BUILT_IN: dict[int, str] = {
    0: GENERAL,
    1: "0",
    2: "0.00",
    3: "#,##0",
    4: "#,##0.00",
    9: "0%",
    10: "0.00%",
    11: "0.00E+00",
    18: "h:mm AM/PM",
    19: "h:mm:ss AM/PM",
    20: "h:mm",
    21: "h:mm:ss",
    37: "#,##0;(#,##0)",
    38: "#,##0;(#,##0)",
    39: "#,##0.00;(#,##0.00)",
    40: "#,##0.00;(#,##0.00)",
    45: "mm:ss",
    46: "[h]:mm:ss",
    49: "@",
}
"""Those that mean the same on every computer (ECMA-376 18.8.30); the others, dates and money, are its own."""

_TEXT_SECTION = 3  # the number, from 0, of the section for text
_LONGEST = 255  # characters of a code, as in Excel
_TOKEN = lazy_pattern(
    r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|_.|\*.|\[(?P<bracket>[^\]]*)\]'
    r"|(?P<general>General)|(?P<half>AM/PM|A/P)|(?P<exponent>E[+-])|(?P<date>y+|m+|d+|h+|s+(?:\.0+)?)"
    r"|(?P<figure>[0#?]|[.,%])|(?P<text>@)|(?P<plain>[-+$()/: !^&'~{}<>=]|[^\x00-\x7f])",
    re.IGNORECASE,
)
_ELAPSED = lazy_pattern(r"h+|m+|s+", re.IGNORECASE)
_CURRENCY = lazy_pattern(r"\$([^-]*)(?:-([0-9A-Fa-f]+))?")
_COLOR = lazy_pattern(r"black|blue|cyan|green|magenta|red|white|yellow|color ?\d+", re.IGNORECASE)
_ENGLISH = 0x09  # of the language in a Windows locale
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

Token = tuple[str, str]
Moment = datetime.datetime


class NotShown(Exception):
    """What people see in a cell is unknown: it depends on their computer, or the code is not supported."""


@dataclass(frozen=True, slots=True)
class Section:
    """One of the parts that semicolons divide a code into."""

    tokens: tuple[Token, ...]
    is_date: bool
    has_english_names: bool


def shown_number(value: float, code: str) -> str:
    """A number as people see it.  Raises `NotShown`."""
    if fixed := _fixed(code):
        return fixed.text(value)
    number = Decimal(f"{value:.15g}")
    sections = _sections(code)
    numeric = [section for section in sections if ("text", "@") not in section.tokens]
    if not numeric:
        raise NotShown(code)
    if number < 0 and len(numeric) > 1:
        return _figures(-number, numeric[1])
    if number == 0 and len(numeric) > 2:
        return _figures(number, numeric[2])
    text = _figures(abs(number), numeric[0])
    return f"-{text}" if number < 0 and re.search("[1-9]", text) else text


@dataclass(frozen=True, slots=True)
class _Fixed:
    """What nearly all codes are: a fixed number of decimals, with text around them."""

    before: str
    behind: str
    digits: int
    decimals: int
    is_grouped: bool
    is_percent: bool

    def text(self, value: float) -> str:
        """The number, negative or not."""
        known = f"{value:.15g}"
        point = known.find(".")
        number: float | Decimal = abs(value)
        if self.is_percent or "e" in known or (point >= 0 and len(known) - point - 1 > self.decimals):  # to be rounded
            number = abs(Decimal(known)) * (100 if self.is_percent else 1)
            try:
                number = number.quantize(Decimal(1).scaleb(-self.decimals), ROUND_HALF_UP)
            except InvalidOperation:
                raise NotShown("too many digits") from None
        text = f"{number:,.{self.decimals}f}" if self.is_grouped else f"{number:0{self.digits}.{self.decimals}f}"
        return f"{'-' if value < 0 and number else ''}{self.before}{text}{self.behind}".strip()


_FIXED = lazy_pattern(r"(#,##)?(0+)(?:\.(0+))?(%?)")


@lru_cache(maxsize=1024)
def _fixed(code: str) -> _Fixed | None:
    sections = _sections(code)
    if len(sections) > 1 or sections[0].is_date:
        return None
    tokens = sections[0].tokens
    core = [at for at, (kind, _) in enumerate(tokens) if kind != "literal"]
    if not core or core != list(range(core[0], core[-1] + 1)):
        return None
    figures = _FIXED.fullmatch("".join(text for _, text in tokens[core[0] : core[-1] + 1]))
    if not figures or any(tokens[at][0] != "figure" for at in core) or (figures[1] and len(figures[2]) > 1):
        return None
    before, behind = ("".join(text for _, text in part) for part in (tokens[: core[0]], tokens[core[-1] + 1 :]))
    decimals = len(figures[3] or "")
    digits = len(figures[2]) + (decimals + 1 if decimals else 0)
    return _Fixed(before, figures[4] + behind, digits, decimals, bool(figures[1]), bool(figures[4]))


def shown_moment(value: datetime.date | datetime.time | datetime.timedelta, code: str) -> str:
    """A date, a time or both as people see it.  Raises `NotShown`."""
    section = _sections(code)[0]
    if not section.is_date:
        raise NotShown(code)
    if isinstance(value, datetime.timedelta):
        return _elapsed(value, section)
    if any(kind == "elapsed" for kind, _ in section.tokens):
        raise NotShown(code)
    has_day = isinstance(value, datetime.date)
    if isinstance(value, datetime.time):
        moment = Moment.combine(Moment(1900, 1, 1), value)
    elif isinstance(value, Moment):
        moment = value
    else:
        moment = Moment(value.year, value.month, value.day)
    half = any(kind == "half" for kind, _ in section.tokens)
    pieces = [
        _date_part(token, moment, section, half=half, has_day=has_day, is_minute=at in _minutes(section.tokens))
        for at, token in enumerate(section.tokens)
    ]
    return "".join(pieces).strip()


def shown_text(value: str, code: str) -> str:
    """A text as people see it: a fourth section, or an only one with `@`, is for text.  Raises `NotShown`."""
    if "@" not in code and code.count(";") < _TEXT_SECTION:
        return value
    section = _sections(code)[-1]
    if ("text", "@") not in section.tokens:
        if len(_sections(code)) > _TEXT_SECTION:  # hidden, and perhaps the address
            raise NotShown(code)
        return value
    if any(kind not in ("literal", "text") for kind, _ in section.tokens):
        raise NotShown(code)
    return "".join(value if kind == "text" else text for kind, text in section.tokens)


def is_plain(code: str) -> bool:
    """Whether a number looks in it as it does in no format at all."""
    return code in (GENERAL, "@", "")


@lru_cache(maxsize=1024)
def _sections(code: str) -> tuple[Section, ...]:
    if not code or len(code) > _LONGEST:
        raise NotShown(code)
    sections: list[Section] = []
    tokens: list[Token] = []
    is_english, at = False, 0
    while at <= len(code):
        if at == len(code) or code[at] == ";":
            is_date = any(kind in ("date", "elapsed") for kind, _ in tokens)
            sections.append(Section(tuple(tokens), is_date, is_english))
            tokens, is_english, at = [], False, at + 1
            continue
        found = _TOKEN.match(code, at)
        if found is None:
            raise NotShown(code)
        at = found.end()
        if (bracket := found["bracket"]) is not None:
            is_english |= _bracket(bracket, tokens, code)
            continue
        kind = found.lastgroup or ""
        if kind in ("quoted", "escaped", "plain"):
            tokens.append(("literal", found[kind]))
        elif kind:
            tokens.append((kind, found[0]))
    return tuple(sections)


def _bracket(text: str, tokens: list[Token], code: str) -> bool:
    """Adds what stands in square brackets to `tokens`; says whether it asks for English names."""
    if _ELAPSED.fullmatch(text):
        tokens.append(("elapsed", text.lower()))
        return False
    if _COLOR.fullmatch(text):
        return False
    found = _CURRENCY.fullmatch(text)
    if not found or (found[2] and int(found[2], 16) & 0xF000 == 0xF000):  # the computer's own format of dates
        raise NotShown(code)
    tokens.append(("literal", found[1]))
    return bool(found[2]) and int(found[2], 16) & 0x3FF == _ENGLISH


def _figures(number: Decimal, section: Section) -> str:
    """A number, not negative, in one section."""
    tokens = section.tokens
    kinds = {kind for kind, _ in tokens}
    if section.is_date or kinds & {"half", "text"}:
        raise NotShown("a number in a format for dates")
    if "general" in kinds:
        return "".join(f"{number:f}" if kind == "general" else text for kind, text in tokens).strip()
    if not any(kind == "figure" and text in "0#?" for kind, text in tokens):
        return "".join(text for kind, text in tokens if kind in ("literal", "figure")).strip()
    if ("literal", "/") in tokens:  # a fraction
        raise NotShown("a fraction")
    number *= Decimal(100) ** tokens.count(("figure", "%"))
    if "exponent" in kinds:
        return _scientific(number, tokens)
    return _plain_figures(number, tokens).strip()


def _plain_figures(number: Decimal, tokens: Sequence[Token]) -> str:
    point = tokens.index(("figure", ".")) if ("figure", ".") in tokens else len(tokens)
    whole, behind = list(tokens[:point]), tokens[point + 1 :]
    places = [at for at, token in enumerate(whole) if token[0] == "figure" and token[1] in "0#?"]
    last = places[-1] if places else -1
    commas = [at for at, token in enumerate(whole) if token == ("figure", ",")]
    is_grouped = any(places and places[0] < at < last for at in commas)
    number /= Decimal(1000) ** sum(at > last for at in commas)
    decimals = [text for kind, text in behind if kind == "figure" and text in "0#?"]
    try:
        rounded = number.quantize(Decimal(1).scaleb(-len(decimals)), ROUND_HALF_UP)
    except InvalidOperation:
        raise NotShown("too many digits") from None
    digits, _, fraction = f"{rounded:f}".partition(".")
    left = _whole_part(whole, digits.lstrip("0"), is_grouped=is_grouped)
    if point == len(tokens):
        return left
    return left + _fraction_part(behind, fraction)


def _whole_part(tokens: Sequence[Token], digits: str, *, is_grouped: bool) -> str:
    """Digits from the right into the places for them; all that are left over go into the first."""
    places = sum(kind == "figure" and text in "0#?" for kind, text in tokens)
    pieces: list[str] = []
    written = 0
    for kind, text in reversed(tokens):
        if kind == "literal" or text == "%":
            pieces.append(text)
        elif text in "0#?":
            places -= 1
            some = digits if not places else digits[-1:]
            digits = "" if not places else digits[:-1]
            for digit in reversed(some or ("0" if text == "0" else "")):
                if is_grouped and written and written % 3 == 0:
                    pieces.append(",")
                pieces.append(digit)
                written += 1
    return (digits + "".join(reversed(pieces))) if digits else "".join(reversed(pieces))


def _fraction_part(tokens: Sequence[Token], fraction: str) -> str:
    wanted = [text for kind, text in tokens if kind == "figure" and text in "0#?"]
    while fraction and wanted and fraction[-1] == "0" and wanted[len(fraction) - 1] != "0":
        fraction = fraction[:-1]
    pieces, at = ["."] if fraction else [], 0
    for kind, text in tokens:
        if kind == "literal" or text == "%":
            pieces.append(text)
        elif text in "0#?":
            pieces.append(fraction[at : at + 1])
            at += 1
    return "".join(pieces)


def _scientific(number: Decimal, tokens: Sequence[Token]) -> str:
    at = next(at for at, token in enumerate(tokens) if token[0] == "exponent")
    before, behind = tokens[:at], tokens[at + 1 :]
    point = before.index(("figure", ".")) if ("figure", ".") in before else len(before)
    if sum(text in "0#?" for _, text in before[:point]) != 1 or not behind:
        raise NotShown("an exponent of engineers")
    decimals = sum(text in "0#?" for _, text in before[point:])
    mantissa, _, exponent = f"{number:.{decimals}E}".partition("E")
    sign, figures = exponent[0], exponent[1:].zfill(sum(text in "0#?" for _, text in behind))
    return f"{mantissa}E{sign if sign == '-' or tokens[at][1].endswith('+') else ''}{figures}"


def _minutes(tokens: tuple[Token, ...]) -> frozenset[int]:
    """Which of the tokens `m` mean minutes: those behind an hour or before a second."""
    parts = [(at, text[0].lower()) for at, (kind, text) in enumerate(tokens) if kind in ("date", "elapsed")]
    found = set()
    for number, (at, char) in enumerate(parts):
        if char == "m" and len(tokens[at][1]) <= 2:
            before = parts[number - 1][1] if number else ""
            after = parts[number + 1][1] if number + 1 < len(parts) else ""
            if before == "h" or after == "s":
                found.add(at)
    return frozenset(found)


def _date_part(token: Token, moment: Moment, section: Section, *, half: bool, has_day: bool, is_minute: bool) -> str:
    kind, text = token
    if kind == "literal":
        return text
    if kind == "half":
        return ("AM" if moment.hour < 12 else "PM")[: 2 if len(text) > 3 else 1]
    if kind != "date":
        if kind == "figure" and text in ".,":
            return text
        raise NotShown("numbers within a date")
    char, size = text[0].lower(), len(text)
    if char == "h":
        hour = (moment.hour % 12 or 12) if half else moment.hour
        return f"{hour:02}" if size > 1 else str(hour)
    if char == "s":
        whole, _, fraction = text.partition(".")
        seconds = f"{moment.second:02}" if len(whole) > 1 else str(moment.second)
        return seconds + (f".{moment.microsecond:06}"[: len(fraction) + 1] if fraction else "")
    if char == "m" and is_minute:
        return f"{moment.minute:02}" if size > 1 else str(moment.minute)
    if not has_day:
        raise NotShown("a date of a time")
    if char == "y":
        return f"{moment.year:04}" if size > 2 else f"{moment.year % 100:02}"
    number = moment.month if char == "m" else moment.day
    if size <= 2:
        return f"{number:02}" if size == 2 else str(number)
    if not section.has_english_names:
        raise NotShown("names of months in the language of the computer")
    name = _MONTHS[moment.month - 1] if char == "m" else _DAYS[moment.weekday()]
    return name[:3] if size == 3 else (name[0] if size == 5 else name)


def _elapsed(value: datetime.timedelta, section: Section) -> str:
    seconds = round(value.total_seconds())
    if seconds < 0:
        raise NotShown("a negative time")
    minutes = _minutes(section.tokens)
    units = {"h": 3600, "m": 60, "s": 1}
    largest = next((units[text[0]] for kind, text in section.tokens if kind == "elapsed"), 86400)
    pieces = []
    for at, (kind, text) in enumerate(section.tokens):
        char = text[0].lower() if text else ""
        if kind == "elapsed":
            pieces.append(str(seconds // units[char]).zfill(len(text)))
        elif kind == "date" and (char in "hs" or at in minutes) and "." not in text:
            above = min(largest, {"h": 86400, "m": 3600, "s": 60}[char])
            pieces.append(str(seconds % above // units[char]).zfill(min(len(text), 2)))
        elif kind == "literal":
            pieces.append(text)
        else:
            raise NotShown("a part of a date in a time")
    return "".join(pieces).strip()
