"""Dates, numbers and amounts as lists hold them: read in the one way they can be meant, or refused; never wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal

import pytest

from bulkmail.message.compose.composer import Composer
from bulkmail.message.template.locality import frozen
from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.quantities import Literal
from bulkmail.model.recipient import Address, Place, Recipient

PLAIN = Campaign("plain", Template("from", "shop@shop.example"), Template("subject", "News"))
REFUSED = None


def composer(text: str, locale: str | None = "de_AT", *, timezone: str = "", html: bool = False) -> Composer:
    body = {"html" if html else "text": Template("message.txt", text)}
    setting = None if locale is None else Template("campaign.toml: locale", locale)
    campaign = replace(
        PLAIN,
        locale=setting,
        timezone=timezone,
        moment="2026-12-24T23:30:00+00:00",
        **body,  # type: ignore[arg-type]
    )
    return Composer(campaign, run_id="r")


def render(text: str, locale: str | None = "de_AT", *, timezone: str = "", **fields: object) -> str:
    recipient = Recipient(Address.parse("ann@example.com"), "", fields, Place("list.csv", 2))
    found = composer(text, locale, timezone=timezone).render(recipient).text
    assert found is not None
    return found.removesuffix("\n").replace("\u00a0", " ").replace("\u202f", " ")


def refusal(text: str, locale: str | None = "de_AT", **fields: object) -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        render(text, locale, **fields)
    return caught.value


def read(text: str, cell: object) -> str | None:
    try:
        return render(text, "en_US", x=cell)
    except TemplateError as error:
        assert error.hint or "write" in str(error)
        return REFUSED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "reported", "meant"),
    [
        # German and Austrian
        ("24.12.2026", "", "2026-12-24"),
        ("24. 12. 2026", "", "2026-12-24"),
        ("1.2.2026", "", "2026-02-01"),
        ("01.02.2026", "", "2026-02-01"),
        ("24. Dezember 2026", "de", "2026-12-24"),
        ("1. März 2026", "de", "2026-03-01"),
        ("24.12.26", "", REFUSED),
        ("24.12.26", "%d.%m.%y", "2026-12-24"),
        ("24.12.2026 18:00", "", "2026-12-24"),
        ("31.11.2026", "", REFUSED),
        # American
        ("12/24/2026", "", "2026-12-24"),
        ("01/02/2026", "", REFUSED),
        ("01/02/2026", "en_US", "2026-01-02"),
        ("01/02/2026", "mdy", "2026-01-02"),
        ("Dec 24, 2026", "", "2026-12-24"),
        ("December 24, 2026", "", "2026-12-24"),
        ("12/24/2026 6:00 PM", "", "2026-12-24"),
        ("1/2/26", "en_US", REFUSED),
        # British
        ("24/12/2026", "", "2026-12-24"),
        ("01/02/2026", "en_GB", "2026-02-01"),
        ("24 Dec 2026", "", "2026-12-24"),
        ("24-Dec-2026", "", "2026-12-24"),
        ("01/02/2026", "en", REFUSED),
        # French
        ("24/12/2026", "fr", "2026-12-24"),
        ("03/04/2026", "fr", "2026-04-03"),
        ("24 décembre 2026", "fr", "2026-12-24"),
        ("24 décembre 2026", "", REFUSED),
        # Spanish
        ("24 de diciembre de 2026", "es", "2026-12-24"),
        # Czech and Croatian: one word, two months
        ("1. listopadu 2026", "cs", "2026-11-01"),
        ("1. listopada 2026", "hr", "2026-10-01"),
        # Russian
        ("24 декабря 2026 г.", "ru", "2026-12-24"),
        # Hungarian, Japanese, Swedish: the year first
        ("2026. 12. 24.", "", "2026-12-24"),
        ("2026/12/24", "", "2026-12-24"),
        ("2026年12月24日", "", "2026-12-24"),
        ("2026-12-24", "", "2026-12-24"),
        # what programs write
        ("2026-12-24T18:30:00", "", "2026-12-24"),
        ("2026-12-24 18:30:00.000", "", "2026-12-24"),
        ("2026-12-24T23:30:00+01:00", "", "2026-12-24"),
        ("2026-12-24T23:30:00Z", "", REFUSED),
        ("2026-12-24T23:30:00+99:99", "", REFUSED),
        ("20261224", "", "2026-12-24"),
        ("46380", "", REFUSED),
        ("46380", "excel", "2026-12-24"),
        ("46380.75", "excel", "2026-12-24"),
        (46380.0, "excel", "2026-12-24"),
        ("44918", "excel1904", "2026-12-24"),
        ("60", "excel", REFUSED),
        ("1798070400", "", REFUSED),
        ("0001-01-01", "", REFUSED),
        ("0000-00-00", "", REFUSED),
        ("01.01.0001", "", REFUSED),
        ("2026-02-29", "", REFUSED),
        ("2024-02-29", "", "2024-02-29"),
        ("\u200e24.12.2026", "", "2026-12-24"),
        ("", "", REFUSED),
        ("n/a", "", REFUSED),
        ("24.13.2026", "", REFUSED),
        ("12.24.2026", "", REFUSED),
        ("tomorrow", "", REFUSED),
        (date(2026, 12, 24), "", "2026-12-24"),
        (datetime(2026, 12, 24, 18, 30), "", "2026-12-24"),
        (True, "", REFUSED),
        (None, "", REFUSED),
        (["2026-12-24"], "", REFUSED),
    ],
)
def test_date_is_read_right_or_refused(cell: object, reported: str, meant: str | None) -> None:
    option = f", read='{reported}'" if reported else ""
    assert read("{{ x | date('yyyy-MM-dd'" + option + ") }}", cell) == meant


@pytest.mark.parametrize(
    ("cell", "reported", "meant"),
    [
        ("18:30", "", "18:30"),
        ("6:30 PM", "", "18:30"),
        ("12:05 am", "", "00:05"),
        ("6:30 p.m.", "", "18:30"),
        ("18:30:59", "", "18:30"),
        ("2026-12-24T18:30", "", "18:30"),
        ("24.12.2026 18:30", "", "18:30"),
        ("18.30", "", REFUSED),
        ("18.30", "%H.%M", "18:30"),
        ("0.75", "excel", "18:00"),
        ("46380.75", "excel", "18:00"),
        ("25:00", "", REFUSED),
        ("13:30 PM", "", REFUSED),
        ("24.12.2026", "", REFUSED),
        ("18:30+01:00", "", REFUSED),
        (time(18, 30), "", "18:30"),
    ],
)
def test_time_is_read_right_or_refused(cell: object, reported: str, meant: str | None) -> None:
    option = f", read='{reported}'" if reported else ""
    assert read("{{ x | time('HH:mm'" + option + ") }}", cell) == meant


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        # en_US, de_DE, de_CH, fr_FR, sv_SE, pl_PL, en_IN, es_ES
        ("1,234.50", "1,234.50"),
        ("1.234,50", "1,234.50"),
        ("1'234.50", "1,234.50"),
        ("1\u2019234.50", "1,234.50"),
        ("1\u202f234,50", "1,234.50"),
        ("1\u00a0234,50", "1,234.50"),
        ("1 234,50", "1,234.50"),
        ("12,34,567.5", "1,234,567.5"),
        ("1.234.567", "1,234,567"),
        ("1,234,567", "1,234,567"),
        ("1.234", REFUSED),
        ("1,234", REFUSED),
        ("0,5", "0.5"),
        ("-43,0", "-43.0"),
        ("\u221243,5", "-43.5"),
        ("(12.50)", "-12.50"),
        ("12,50-", "-12.50"),
        ("+12", "12"),
        ("007", "7"),
        ("1,23,45", REFUSED),
        ("1..2", REFUSED),
        ("12 34", REFUSED),
        ("1e5", REFUSED),
        ("0x10", REFUSED),
        ("١٢٣", REFUSED),
        ("19%", REFUSED),
        ("nan", REFUSED),
        ("", REFUSED),
        ("twelve", REFUSED),
        ("12345678901234567.89", "12,345,678,901,234,567.89"),
        ("1" * 40, REFUSED),
        (10**40, REFUSED),
        (Literal("1e90"), REFUSED),
        (1234.5, "1,234.5"),
        (1234, "1,234"),
        (0.1 + 0.2, "0.3"),
        (Literal("19.90"), "19.90"),
        (Decimal("19.90"), "19.90"),
        (float("inf"), REFUSED),
        (True, REFUSED),
        (None, REFUSED),
    ],
)
def test_number_is_read_right_or_refused(cell: object, meant: str | None) -> None:
    assert read("{{ x | number }}", cell) == meant


@pytest.mark.parametrize(
    ("cell", "currency", "meant"),
    [
        ("1.234,50 €", "", "€1,234.50"),
        ("EUR 1.234,50", "", "€1,234.50"),
        ("€1,234.5", "EUR", "€1,234.50"),
        ("CHF 12.\u2013", "", "CHF 12.00"),
        ("SFr. 12.50", "CHF", "CHF 12.50"),
        ("12,50 zł", "", "PLN 12.50"),
        ("1 500 Ft", "", "HUF 1,500"),
        ("($1,234.50)", "USD", "-$1,234.50"),
        ("$5", "", REFUSED),
        ("$5", "EUR", REFUSED),
        ("CA$5", "", "CA$5.00"),
        ("£5", "GBP", "£5.00"),
        ("¥500", "JPY", "¥500"),
        ("500.00", "JPY", "¥500"),
        ("500.50", "JPY", REFUSED),
        ("12.505", "EUR", REFUSED),
        ("0,005", "EUR", REFUSED),
        ("CHF 5", "EUR", REFUSED),
        ("12.50", "", REFUSED),
        ("12.50", "EUR", "€12.50"),
        (12.505, "EUR", "€12.51"),
        (-0.001, "EUR", "€0.00"),
        (7, "EUR", "€7.00"),
        ("", "EUR", REFUSED),
        ("₿5", "EUR", REFUSED),
        ("5 apples", "EUR", REFUSED),
    ],
)
def test_amount_is_read_right_or_refused(cell: object, currency: str, meant: str | None) -> None:
    found = read("{{ x | money" + (f"('{currency}')" if currency else "") + " }}", cell)
    assert found == meant


@pytest.mark.parametrize(
    ("cell", "option", "meant"),
    [
        ("19%", "", "19%"),
        ("19 %", "", "19%"),
        ("7,5 %", "", "7.5%"),
        ("12.345%", "", REFUSED),
        ("12.3456%", "", "12.3456%"),
        ("19", "", REFUSED),
        ("0.19", "", REFUSED),
        ("19", "of=100", "19%"),
        ("0.19", "of=1", "19%"),
        (0.195, "of=1", "19.5%"),
        (1 / 3, "of=1", "33.33%"),
        (1 / 3, "of=1, decimals=0", "33%"),
        ("19%", "of=1", REFUSED),
    ],
)
def test_percentage_is_read_right_or_refused(cell: object, option: str, meant: str | None) -> None:
    assert read("{{ x | percent(" + option + ") }}", cell) == meant


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("de_AT", "24. Dezember 2026 | 24.12.2026 | 1.234.567,50 | € 1.234,50 | 19 % | a, b und c | 18:30"),
        ("de-CH", "24. Dezember 2026 | 24.12.2026 | 1'234'567.50 | EUR 1'234.50 | 19% | a, b und c | 18:30"),
        ("en_US", "December 24, 2026 | Dec 24, 2026 | 1,234,567.50 | €1,234.50 | 19% | a, b, and c | 6:30 PM"),
        ("en_GB", "24 December 2026 | 24 Dec 2026 | 1,234,567.50 | €1,234.50 | 19% | a, b and c | 18:30"),
        ("fr", "24 décembre 2026 | 24 déc. 2026 | 1 234 567,50 | 1 234,50 € | 19 % | a, b et c | 18:30"),
        ("pl", "24 grudnia 2026 | 24 gru 2026 | 1 234 567,50 | 1 234,50 € | 19% | a, b i c | 18:30"),
        ("hi_IN", "24 दिसंबर 2026 | 24 दिस॰ 2026 | 12,34,567.50 | €1,234.50 | 19% | a, b और c | 6:30 pm"),
    ],
)
def test_filters_write_as_the_people_of_a_locale_do(locale: str, expected: str) -> None:
    text = (
        "{{ d | date('long') }} | {{ d | date }} | {{ n | number }} | {{ m | money('EUR') }} | {{ p | percent }} | "
        "{{ names | list }} | {{ t | time }}"
    )
    fields = {"d": "2026-12-24", "n": "1,234,567.50", "m": "1.234,50", "p": "19%", "t": "18:30"}
    found = render(text, locale, names=["a", "b", "c"], **fields)
    assert found.replace("\u2019", "'") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ n | number + 1 }}", "1235.5"),
        ("{{ (n | number * 2) | number(decimals=2) }}", "2.469,00"),
        ("{{ 'a' ~ (n | number) }}", "a1.234,50"),
        ("{{ n | number if n else '' }}", "1.234,50"),
        ("{% for x in [n] | list %}{{ x }}{% endfor %}", "1,234.50"),
        ("{{ [n, n] | map('number') | sum | number }}", "2.469"),
        ("{{ '' | number(default=0.5) }}", "0,5"),
        ("{{ n | number(locale='en_US') }}", "1,234.50"),
        ("{{ (today + days(14)) | date }}", "07.01.2027"),
        ("{{ today }} {{ now | time }} {{ today.year }}", "2026-12-24 23:30 2026"),
        ("{% if due | to_date < today %}late{% endif %}", "late"),
        ("{{ 1 | plural('day', '# days') }} {{ 3 | plural('day', '# days') }}", "day 3 days"),
        ("{{ ['a'] | list('or') }} {{ ['a', 'b'] | list('or') }}", "a a oder b"),
        ('{{ due | date("EEEE, d. MMMM") }}', "Mittwoch, 1. April"),
    ],
)
def test_filters_calculate_inside_and_write_at_the_end(text: str, expected: str) -> None:
    assert render(text, timezone="UTC", n="1,234.50", due="2026-04-01") == expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{{ '2026-12-24' | date('%d.%m.%Y') }}", "write dd.MM.yyyy"),
        ("{{ '2026-12-24' | date('dd.mm.yyyy') }}", "m is minutes"),
        ("{{ '2026-12-24' | date('dd.MM.YYYY') }}", "write yyyy"),
        ("{{ '2026-12-24' | date('') }}", "is not a pattern"),
        ("{{ '2026-12-24' | date(read='dmx') }}", "is no form of dates"),
        ("{{ '2026-12-24' | date(read='%d.%m') }}", "does not say day, month and year"),
        ("{{ '2026-12-24' | date(read='%A %d') }}", "has %A"),
        ("{{ '2026-12-24' | date(locale='xx') }}", "is not a known locale"),
        ("{{ '18:30' | time('full') }}", "names a time zone"),
        ("{{ 5 | money('EURO') }}", "is not a currency"),
        ("{{ 5 | number(decimals=99) }}", "from 0 to 10"),
        ("{{ 5 | plural('day') }}", "for one and for several"),
        ("{{ 5 | plural(one='day', many='days') }}", "lacks other="),
        ("{{ 5 | plural('day', 'days', several='x') }}", "has no 'several'"),
        ("{{ 5 | plural('dzień', 'dni', locale='pl') }}", "takes the form 'many' in Polish"),
        ("{{ [] | list }}", "is an empty list"),
        ("{{ ['a', ''] | list }}", "has an empty item"),
        ("{{ 'abc' | list }}", "is text"),
        ("{{ days('14') }}", "takes a whole number"),
        ("{{ missing | date }}", "'missing' is undefined"),
        ("{% if '2026-12-24' < today %}{% endif %}", "cannot be compared with a date"),
        ("{{ 'shop.example' | utm('news') }}", "does not begin with https"),
    ],
)
def test_filter_says_what_is_wrong(text: str, what: str) -> None:
    error = refusal(text)
    assert str(error).startswith("message.txt:1: ")
    assert what in str(error).replace("is not an address that begins", "does not begin")


def test_without_a_locale_the_filters_say_so_and_number_is_as_ever() -> None:
    for text in (
        "{{ d | date }}",
        "{{ 5 | money('EUR') }}",
        "{{ ['a'] | list('or') }}",
        "{{ 5 | number(decimals=2) }}",
    ):
        error = refusal(text, None, d="2026-12-24")
        assert "none is set" in str(error)
        assert "locale" in error.hint
    assert render("{{ n | number }} {{ d | date(locale='de') }}", None, n="1,234.50", d="2026-12-24") == (
        "1234.5 24.12.2026"
    )
    assert "is a list" in str(refusal("{{ ['a'] | list }}", None))


def test_each_row_may_have_its_locale() -> None:
    text = "{% macro when(d) %}{{ d | date('long') }}{% endmacro %}{{ when(d) }}"
    found = composer(text, "{{ lang }}")
    for lang, expected in (("fr", "24 décembre 2026"), ("en_US", "December 24, 2026"), ("fr", "24 décembre 2026")):
        fields = {"lang": lang, "d": "2026-12-24"}
        rendered = found.render(Recipient(Address.parse("ann@example.com"), "", fields, Place("list.csv", 2)))
        assert rendered.text == f"{expected}\n"
    error = refusal(text, "{{ lang }}", lang="", d="2026-12-24")
    assert str(error) == "campaign.toml: locale: is empty"
    assert "'zz' is not a known locale" in str(refusal(text, "{{ lang }}", lang="zz", d="2026-12-24"))


def test_attack_by_a_locale_in_a_cell_reads_no_file() -> None:
    for lang in ("../../../../etc/passwd", "de/../en", "de\0", "de" * 1000, "__class__"):
        assert "is not a" in str(refusal("{{ d | date }}", "{{ lang }}", lang=lang, d="2026-12-24"))


def test_moment_is_that_of_the_time_zone() -> None:
    assert render("{{ today | date }} {{ now | time }}", timezone="Europe/Vienna") == "25.12.2026 00:30"
    assert render("{{ x | date }}", timezone="Europe/Vienna", x="2026-12-24T23:30:00Z") == "25.12.2026"
    with pytest.raises(ConfigError, match="is not a time zone"):
        composer("x", timezone="Europe/Wien")


def test_column_called_today_is_the_column() -> None:
    assert render("{{ today }}", today="Monday") == "Monday"


def test_frozen_sets_the_moment_once_and_only_where_it_is_asked_for() -> None:
    asks = replace(PLAIN, text=Template("text", "{{ today }}"))
    first = frozen(asks, 1_700_000_000.0)
    assert datetime.fromisoformat(first.moment).timestamp() == 1_700_000_000.0
    assert frozen(first, 1_800_000_000.0) == first
    assert frozen(replace(PLAIN, text=Template("text", "{{ name }}")), 1_700_000_000.0).moment == ""
    assert first.fingerprint == asks.fingerprint


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (
            "https://shop.example/a",
            "https://shop.example/a?utm_source=news&utm_medium=email&utm_campaign=spring%20sale",
        ),
        (
            "https://shop.example/a?b=c#d",
            "https://shop.example/a?b=c&utm_source=news&utm_medium=email&utm_campaign=spring%20sale#d",
        ),
        (
            "https://shop.example/?utm_source=x",
            "https://shop.example/?utm_source=x&utm_medium=email&utm_campaign=spring%20sale",
        ),
    ],
)
def test_utm_adds_what_is_missing(address: str, expected: str) -> None:
    assert render("{{ x | utm('news', campaign='spring sale') }}", x=address) == expected


def test_utm_in_a_page_is_escaped_once() -> None:
    found = composer("<a href=\"{{ x | utm('news') }}\">x</a>", html=True)
    fields = {"x": 'https://shop.example/?a="b"'}
    html = found.render(Recipient(Address.parse("ann@example.com"), "", fields, Place("list.csv", 2))).html
    assert html is not None
    assert 'href="https://shop.example/?a=&#34;b&#34;&amp;utm_source=news&amp;utm_medium=email"' in html
