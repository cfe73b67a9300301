"""Values that a template may not print, count, compare or ask without saying what it means."""

from __future__ import annotations

import pytest

from bulkmail.message.template.rendering import Workshop, compile_condition
from bulkmail.model.campaign import Template
from bulkmail.model.errors import TemplateError


def render(text: str, **fields: object) -> str:
    workshop = Workshop()
    return workshop.text(Template("message.txt", text)).render(workshop.variables(fields))


def refusal(text: str, **fields: object) -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        render(text, **fields)
    return caught.value


@pytest.mark.parametrize("cell", ["1.234,50", "43,0", "1,234.50", "12 EUR", "abc", "", "nan", "1_000", "1.234"])
@pytest.mark.parametrize("name", ["float", "int"])
def test_number_filter_of_jinja_refuses_what_is_no_number(name: str, cell: str) -> None:
    error = refusal("{{ amount | " + name + " }}", amount=cell)
    assert str(error).startswith("message.txt:1: ")
    assert repr(cell) in str(error)
    assert "| number" in error.hint or f"| {name}(0)" in error.hint


def test_number_filter_of_jinja_names_field_and_fix() -> None:
    error = refusal("{{ '%.2f' | format(amount | float) }}", amount="1.234,50")
    assert str(error) == "message.txt:1: amount is '1.234,50', which is not a number"
    assert error.hint.startswith("write {{ amount | number }}")


@pytest.mark.parametrize("value", [None, [], {}], ids=["null", "list", "object"])
def test_number_filter_of_jinja_refuses_what_is_no_text(value: object) -> None:
    assert "number" in str(refusal("{{ x | float }}", x=value))


@pytest.mark.parametrize(
    ("text", "cell", "expected"),
    [
        ("{{ x | float }}", "1234.50", "1234.5"),
        ("{{ x | float }}", " 7 ", "7.0"),
        ("{{ x | float(0) }}", "1.234,50", "0"),
        ("{{ x | float(default='?') }}", "", "?"),
        ("{{ x | int }}", "12.9", "12"),
        ("{{ x | int(-1) }}", "abc", "-1"),
        ("{{ x | int(base=16) }}", "ff", "255"),
        ("{{ x | int }}", "12345678901234567890", "12345678901234567890"),
        ("{{ x | float }}", 2, "2.0"),
    ],
)
def test_number_filter_of_jinja_reads_numbers_and_takes_defaults(text: str, cell: object, expected: str) -> None:
    assert render(text, x=cell) == expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("1234.50", "1234.50"),
        ("1.234,50", "1234.50"),
        ("1,234.50", "1234.50"),
        ("1 234,50 €", "1234.50"),
        ("€ 1.234,50", "1234.50"),
        ("1'234.50 CHF", "1234.50"),
        ("CHF 12.-", "12.00"),
        ("12,-- €", "12.00"),
        ("12.\u2013", "12.00"),
        ("US$ 12.50", "12.50"),
        ("R$ 1.234,50", "1234.50"),
        ("(12.50)", "-12.50"),
        ("12,50-", "-12.50"),
        ("($1,234.50)", "-1234.50"),
        ("1.234.567", "1234567.00"),
        ("-43,0", "-43.00"),
        ("\u221243,5", "-43.50"),
        ("0,125", "0.12"),
        ("1,23,456.00", "123456.00"),
        ("01067", "1067.00"),
    ],
)
def test_number_reads_comma_and_dot(cell: str, expected: str) -> None:
    assert render("{{ '%.2f' | format(x | number) }}", x=cell) == expected


@pytest.mark.parametrize("cell", ["1.234", "1,234", "$1,234"])
def test_number_refuses_two_readings_until_the_template_decides(cell: str) -> None:
    error = refusal("{{ x | number }}", x=cell)
    assert "which may be 1234 or 1.234" in str(error)
    assert "x | number(',')" in error.hint
    comma, dot = render("{{ x | number(',') }}", x=cell), render("{{ x | number('.') }}", x=cell)
    assert {comma, dot} == {"1234", "1.234"}


@pytest.mark.parametrize(
    "cell", ["abc", "", "12.34.5", "(-5)", "-5-", "()", "5.-5", "2026-12-24", "19%", "12 34", "1.2,3.4", "x" * 1000]
)
def test_number_refuses_what_is_no_number(cell: str) -> None:
    assert str(refusal("{{ x | number }}", x=cell))
    assert render("{{ x | number(default='?') }}", x=cell) == "?"


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "{{ a * 2 }}",
        "{{ 2 * a }}",
        "{{ a + b }}",
        "{{ a - b }}",
        "{{ a / 2 }}",
        "{{ a // 2 }}",
        "{{ a % 2 }}",
        "{{ a ** 2 }}",
        "{{ -a }}",
        "{{ a + 1 }}",
        "{{ a | round }}",
        "{{ a | abs }}",
    ],
)
def test_arithmetic_on_text_is_refused(text: str) -> None:
    assert "| number" in refusal(text, a="12.00", b="3.50").hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ a ~ b }}", "12.003.50"),
        ("{{ 'No. ' + a }}", "No. 12.00"),
        ("{{ a + ', ' + b }}", "12.00, 3.50"),
        ("{{ first + last }}", "AnnLi"),
        ("{{ '-' * 3 }}", "---"),
        ("{{ '=' * (first | length) }}", "==="),
        ("{{ '%s!' % first }}", "Ann!"),
        ("{{ a | number + b | number }}", "15.5"),
        ("{{ ([1] + [2]) | length }}", "2"),
    ],
)
def test_text_is_joined_where_that_is_meant(text: str, expected: str) -> None:
    assert render(text, a="12.00", b="3.50", first="Ann", last="Li") == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{ '9.00' < a }}",
        "{{ a > b }}",
        "{% if a == 12 %}{% endif %}",
        "{% if a != 12.0 %}{% endif %}",
        "{{ [a, b] | sort | join }}",
        "{{ [a, b] | max }}",
        "{{ [{'p': a}, {'p': b}] | min(attribute='p') }}",
        "{{ [{'p': a}, {'p': b}] | sort(attribute='p') | length }}",
        "{{ [a] | select('eq', 12) | list | length }}",
    ],
)
def test_text_is_not_compared_as_a_number(text: str) -> None:
    assert "number" in refusal(text, a="12.00", b="3.50").hint


def test_dates_are_not_compared_as_text() -> None:
    assert "2026-12-31" in refusal("{{ a < b }}", a="24.12.2026", b="01.01.2027").hint
    assert render("{{ a < b }}", a="2026-12-24", b="2027-01-01") == "TRUE"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ [b, a] | sort | join(' ') }}", "Ann Bob"),
        ("{{ ['01067', '10115'] | sort | join(' ') }}", "01067 10115"),
        ("{{ [9, 10] | max }}", "10"),
        ("{{ a < b }}", "TRUE"),
        ("{{ 1 <= 2 }}", "TRUE"),
        ("{{ a == none }}", "FALSE"),
    ],
)
def test_comparisons_that_mean_what_they_say_go_through(text: str, expected: str) -> None:
    assert render(text, a="Ann", b="Bob") == expected


CONDITIONS = [
    "{% if x %}a{% endif %}",
    "{% if not x %}a{% endif %}",
    "{% if y and x %}a{% endif %}",
    "{% if z or x %}a{% endif %}",
    "{% if (x) %}a{% elif y %}b{% endif %}",
    "{% if z %}a{% elif x %}b{% endif %}",
    "{{ 'a' if x else 'b' }}",
    "{{ 'a' if row.x }}",
    "{{ 'a' if row['x'] | trim }}",
    "{{ x and 'a' }}",
    "{% for n in [1] if x %}{{ n }}{% endfor %}",
    "{{ [x] | select | list | length }}",
    "{{ [x] | reject | list | length }}",
    "{{ [{'v': x}] | selectattr('v') | list | length }}",
    "{{ [{'v': x}] | rejectattr('v') | list | length }}",
    "{% set flag = not x %}{{ flag }}",
]


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["FALSE", "false", "no", "No", "nein", "0", "0.00", "0,00", "n"])
@pytest.mark.parametrize("text", CONDITIONS)
def test_text_that_says_no_is_no_condition(text: str, cell: str) -> None:
    error = refusal(text, x=cell, y="1", z="")
    assert repr(cell) in str(error)
    assert "any text counts as true" in str(error)


@pytest.mark.parametrize("cell", ["FALSE", "false"])
@pytest.mark.parametrize("text", ["{{ x or 'a' }}", "{{ x | default('a', true) }}", "{{ x | d('a', boolean=true) }}"])
def test_text_that_says_false_has_no_default(text: str, cell: str) -> None:
    assert "any text counts as true" in str(refusal(text, x=cell))


@pytest.mark.parametrize("cell", ["TRUE", "yes", "ja", "1", "x", "Vienna"])
def test_text_that_says_yes_is_a_condition(cell: str) -> None:
    assert render("{% if x %}a{% endif %}", x=cell) == "a"


def test_booleans_and_empty_cells_are_conditions() -> None:
    text = "{% if x %}a{% else %}b{% endif %}"
    assert [render(text, x=value) for value in (True, False, "", 0, None, [], [1])] == list("abbbbba")


def test_person_called_no_is_greeted() -> None:
    assert render("{% if name %}Dear {{ name }}{% endif %}", name="No") == "Dear No"
    assert render("{{ name or 'friend' }}", name="No") == "No"


@pytest.mark.parametrize("cell", ["TRUE", "false"])
@pytest.mark.parametrize("test", ["x is true", "x == true", "x is false", "x != false"])
def test_text_is_not_compared_with_true_or_false(test: str, cell: str) -> None:
    assert "is text" in str(refusal("{{ 'a' if " + test + " }}", x=cell))


@pytest.mark.parametrize("cell", ["FALSE", "no", "0"])
@pytest.mark.parametrize("text", ["active", "not active", "active and email", "row.active"])
def test_condition_over_rows_refuses_text_that_says_no(text: str, cell: str) -> None:
    condition = compile_condition(text)
    with pytest.raises(TemplateError, match="any text counts as true"):
        condition({"active": cell, "email": "ann@example.org"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("{{ x }}", "write {{ x['$date'] }}"),
        ("{{ 'on ' ~ x }}", "write {{ x['$date'] }}"),
        ("{{ x | upper }}", "write {{ x['$date'] }}"),
        ("{{ x | string }}", "write {{ x['$date'] }}"),
        ("{{ '%s' | format(x) }}", "write {{ x['$date'] }}"),
        ("{{ y }}", "write {{ y | join(', ') }}"),
        ("{{ y | e }}", "write {{ y | join(', ') }}"),
        ("{{ '%s' % y }}", "write {{ y | join(', ') }}"),
        ("{{ z }}", "write {% for item in z %}, and what of each item is to stand there"),
        ("{{ [x] | join }}", "write {{ x['$date'] }}"),
        ("{{ row['a b'] }}", "write {{ row['a b'] | join(', ') }}"),
    ],
)
def test_objects_and_lists_are_not_printed(text: str, fix: str) -> None:
    fields = {"x": {"$date": "2024"}, "y": ["a", "b"], "z": [{"n": 1}], "a b": [1]}
    error = refusal(text, **fields)
    assert "not a text" in str(error)
    assert error.hint == fix


def test_null_is_not_joined_to_a_text() -> None:
    assert "null" in str(refusal("{{ 'a' ~ x }}", x=None))


def test_booleans_are_printed_as_sheets_show_them() -> None:
    assert render("{{ x }} {{ 'a' ~ y }} {{ x | lower }}", x=True, y=False) == "TRUE aFALSE true"


def test_line_ends_become_breaks_in_pages() -> None:
    workshop = Workshop()
    rendering = workshop.html(Template("message.html", "{{ x | nl2br }}"))
    assert rendering.render(workshop.variables({"x": "a & b\r\nc\n<d>"})) == "a &amp; b<br>\nc<br>\n&lt;d&gt;"
    assert render("{{ x | nl2br }}", x="a\nb") == "a\nb"


def test_partial_is_as_strict_as_what_includes_it() -> None:
    workshop = Workshop((Template("sign", "{% if vip %}VIP{% endif %}"),))
    rendering = workshop.text(Template("message.txt", '{% include "sign" %}'))
    with pytest.raises(TemplateError, match=r"sign:1: vip is 'FALSE'"):
        rendering.render(workshop.variables({"vip": "FALSE"}))


@pytest.mark.parametrize(
    "text",
    [
        "{{ a | round(2) }}",
        "{{ a | abs }}",
        "{{ a | filesizeformat }}",
        "{{ -a }}",
        "{{ +a }}",
        "{{ '%.2f' | format(a) }}",
        "{{ '%s: %d' | format('x', a) }}",
        "{{ '%.2f' % a }}",
        "{{ '{:.2f}'.format(a) }}",
        "{{ '{x:,.2f}'.format(x=a) }}",
        "{% if a > 5 %}x{% endif %}",
        "{% if 5 < a %}x{% endif %}",
        "{% if a <= '5' < '9' %}x{% endif %}",
    ],
)
def test_text_where_a_number_is_wanted_is_refused_with_field_and_value(text: str) -> None:
    error = refusal(text, a="12,50", b="x")
    assert str(error).startswith("message.txt:1: a is '12,50', which is text")
    assert "| number" in error.hint or "map('number')" in error.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ '%s %.1f %d' | format(name, price, flag) }}", "Ann 2.5 1"),
        ("{{ '%s %% %s' % (name, flag) }}", "Ann % TRUE"),
        ("{{ '%(name)s: %(flag)s' % row }}", "Ann: TRUE"),
        ("{{ '{} {:.2f} {}'.format(name, price, flag) }}", "Ann 2.50 TRUE"),
        ("{{ '{r[name]:>5}'.format(r=row) }}", "  Ann"),
        ("{{ [price, 1] | sum }}", "3.5"),
        ("{{ [{'n': 1}, {'n': 2}] | sum(attribute='n', start=1) }}", "4"),
        ("{{ price | round | int }} {{ -price }} {{ (-1) | abs }}", "2 -2.5 1"),
        ("{% if 1 < price < 3 and 1 < 2 in [2] %}yes{% endif %}", "yes"),
    ],
)
def test_values_that_fit_their_places_go_through(text: str, expected: str) -> None:
    fields = {"name": "Ann", "price": 2.5, "flag": True}
    assert render(text, **fields, row=fields) == expected


@pytest.mark.parametrize(
    "text",
    ["{{ '%s' % x }}", "{{ '{}'.format(x) }}", "{{ '{a}'.format_map({'a': x}) }}", "{{ x.items() }}", "{{ x.keys() }}"],
)
def test_object_is_printed_by_no_way_round(text: str) -> None:
    assert "not a text" in str(refusal(text, x={"a": 1}))


def test_value_within_an_object_is_named_by_its_path() -> None:
    person = {"orders": [{"items": ["a", "b"]}]}
    error = refusal("{{ person.orders[0]['items'] }}", person=person)
    assert str(error) == "message.txt:1: person.orders[0].items is a list, not a text"
    assert error.hint == "write {{ person.orders[0].items | join(', ') }}"


def test_empty_object_is_reported_without_a_key_to_write() -> None:
    error = refusal("{{ x }}", x={})
    assert str(error) == "message.txt:1: x is an empty object, not a text"
    assert "['" not in error.hint


@pytest.mark.parametrize(("value", "what"), [("0", "a or b is '0', which is text"), (None, "a or b is empty (null)")])
def test_value_that_several_fields_have_is_not_taken_for_the_first(value: object, what: str) -> None:
    text = "{{ 'x' if b }}" if value else "{{ b }}"
    assert what in str(refusal(text, a=value, b=value))


@pytest.mark.parametrize("cell", ["FAUX", "Nein.", "no!", "0 EUR", "onwaar", "nei", "ЛОЖЬ", "ei", "-", "✗", "☐"])
def test_text_that_says_no_in_other_ways_is_no_condition(cell: str) -> None:
    assert "counts as true" in str(refusal("{% if not x %}a{% endif %}", x=cell))


@pytest.mark.parametrize("cell", ["ja", "Yes", "x", "1", "no", "WAHR"])
def test_text_that_says_yes_or_no_is_not_asked_whether_it_is_true(cell: str) -> None:
    assert "neither true nor false" in str(refusal("{{ 'a' if x is true else 'b' }}", x=cell))


def test_null_is_reported_with_a_default_that_can_be_pasted() -> None:
    error = refusal("{{ n }}", n=None)
    assert error.hint == "write {{ n | default('another text', true) }}"
    assert render(error.hint.removeprefix("write "), n=None) == "another text"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["12.50", "3.50"], "16.00"),
        (["12,50", "3,50 €", 1], "17.00"),
        (["1.234,50", "0.10", "0.20"], "1234.80"),
        (["7", "5"], "12"),
        ([0.1, 0.2], "0.3"),
        (["(12.50)", "12.50"], "0.00"),
        ([], "0"),
    ],
)
def test_sum_adds_texts_that_are_numbers_with_the_decimals_that_they_have(cells: list[object], expected: str) -> None:
    assert render("{{ items | sum }}", items=cells) == expected
    assert render("{{ items | sum(attribute='n') }}", items=[{"n": cell} for cell in cells]) == expected


@pytest.mark.parametrize(
    ("cell", "what", "fix"),
    [
        ("x", "which is not a number", "map('number', default=0) | sum"),
        ("", "is empty, not a number", "map('number', default=0) | sum"),
        ("1.234", "may be 1234 or 1.234", "map('number', ',') | sum"),
        (None, "is not a number", "map('number', default=0) | sum"),
        (["1"], "is not a number", "map('number', default=0) | sum"),
    ],
    ids=["word", "empty", "ambiguous", "null", "list"],
)
def test_sum_refuses_what_it_would_have_to_guess(cell: object, what: str, fix: str) -> None:
    error = refusal("{{ items | sum(attribute='n') }}", items=[{"n": "2.50"}, {"n": cell}])
    assert what in str(error)
    assert f"rows | map(attribute='n') | {fix}" in error.hint
    assert (
        render("{{ items | map(attribute='n') | map('number', default=0) | sum }}", items=[{"n": "x"}, {"n": 2}]) == "2"
    )
