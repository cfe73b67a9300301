"""Compiling and rendering: what a template can use, and what is said when it cannot."""

import re

import pytest

from bulkmail.message.template.rendering import Workshop, compile_condition, referenced_names
from bulkmail.model.campaign import Template
from bulkmail.model.errors import TemplateError
from bulkmail.model.recipient import Address
from tests.message.pages import rendered

ANN = Address.parse("ann@example.org")


def render(text: str, *, kind: str = "text", partials: dict[str, str] | None = None, **fields: object) -> str:
    """The text for one row with these fields."""
    workshop = Workshop(tuple(Template(name, source) for name, source in (partials or {}).items()))
    return getattr(workshop, kind)(Template("message.txt", text)).render(workshop.variables(fields, ANN))


def refusal(text: str, **options: object) -> TemplateError:
    """The error that the same gives."""
    with pytest.raises(TemplateError) as caught:
        render(text, **options)
    return caught.value


def test_template_uses_a_field_by_name():
    assert render("Hi {{ first_name }}!", first_name="Zoë") == "Hi Zoë!"


def test_template_uses_any_column_through_row():
    workshop = Workshop()
    rendering = workshop.text(Template("t", '{{ row["First name"] }} {{ row.city }}'))
    assert rendering.render(workshop.variables({"First name": "Ann", "city": "Graz"})) == "Ann Graz"


def test_template_uses_the_address_as_email():
    assert render("{{ email }}") == "ann@example.org"


def test_template_uses_the_column_called_email_instead_of_the_address():
    assert render("{{ email }}", email="Ann <ann@example.org>") == "Ann <ann@example.org>"


def test_template_shows_an_international_domain_in_its_own_script():
    workshop = Workshop()
    variables = workshop.variables({}, Address.parse("ann@münchen.example"))
    assert workshop.text(Template("t", "{{ email }}")).render(variables) == "ann@münchen.example"


def test_row_is_all_fields_even_when_a_column_has_its_name():
    assert render('{{ row["row"] }}', row="seven") == "seven"


@pytest.mark.parametrize("column", ["range", "dict", "self", "loop", "class", "environment"])
def test_column_with_a_name_of_jinja_or_python_is_reached_through_row(column):
    assert render(f'{{{{ row["{column}"] }}}}', **{column: "x"}) == "x"


def test_column_called_range_is_the_column():
    assert render("{{ range }}", range="Alps") == "Alps"


def test_cell_is_never_a_template():
    assert render("{{ note }}", note="{{ 7*7 }}{% if %}") == "{{ 7*7 }}{% if %}"


def test_html_escapes_cells_only():
    assert render("<b>{{ note }}</b>", kind="html", note="<script>&\"'") == "<b>&lt;script&gt;&amp;&#34;&#39;</b>"


def test_text_and_headers_do_not_escape():
    assert render("{{ note }}", note="<b>&") == "<b>&"
    assert render("{{ note }}", kind="header", note="<b>&") == "<b>&"


def test_header_template_may_be_written_over_several_lines():
    assert render("Hello\n   {{ name }},\r\n\r\n\tnews", kind="header", name="Ann") == "Hello Ann, news"


def test_header_template_keeps_the_line_ends_of_cells():
    assert render("{{ name }}", kind="header", name="a\nb") == "a\nb"


def test_partials_are_included_extended_and_imported():
    partials = {
        "base.txt": "[{% block body %}{% endblock %}]",
        "sign.txt": "Yours, {{ name }}",
        "macros.txt": "{% macro shout(word) %}{{ word | upper }}{% endmacro %}",
    }
    text = (
        '{% extends "base.txt" %}{% import "macros.txt" as m %}'
        '{% block body %}{{ m.shout("hi") }} {% include "sign.txt" %}{% endblock %}'
    )
    assert render(text, partials=partials, name="Ann") == "[HI Yours, Ann]"


def test_partial_is_escaped_in_html_and_not_in_text():
    partials = {"sign": "{{ name }}"}
    assert render('{% include "sign" %}', kind="html", partials=partials, name="<") == "&lt;"
    assert render('{% include "sign" %}', partials=partials, name="<") == "<"


def test_include_that_may_be_missing_may_be_missing():
    assert render('a{% include "none" ignore missing %}b') == "ab"


def test_one_row_leaves_nothing_to_the_next():
    workshop = Workshop()
    rendering = workshop.text(Template("t", "{% if first %}{% set x = 1 %}{% endif %}{{ x is defined }}"))
    assert rendering.render(workshop.variables({"first": True})) == "TRUE"
    assert rendering.render(workshop.variables({"first": False})) == "FALSE"


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        pytest.param("a\n\nHi {{ nmae }}", {"name": ""}, "message.txt:3: 'nmae' is undefined; did you mean 'name'?"),
        pytest.param("{{ nothing_like_it }}", {"name": ""}, "message.txt:1: 'nothing_like_it' is undefined"),
        pytest.param(
            "{{ first_name }}",
            {"First name": ""},
            "message.txt:1: 'first_name' is undefined; did you mean row['First name']?",
            id="column-of-two-words",
        ),
        pytest.param("\n{{ row.nmae }}", {"name": ""}, "message.txt:2: there is no field 'nmae'; did you mean 'name'?"),
        pytest.param("{{ order.totl }}", {"order": {"total": 1}}, "no field 'totl'; did you mean 'total'?", id="json"),
        pytest.param("{{ items[3] }}", {"items": [1]}, "message.txt:1: list object has no element 3"),
        pytest.param("{{ 1 / n }}", {"n": 0}, "message.txt:1: divides by zero"),
        pytest.param("{{ n }}", {"n": None}, "message.txt:1: n is empty (null)", id="null"),
        pytest.param("{{ n.upper }}", {"n": "a"}, "message.txt:1: this gives a function", id="forgotten-call"),
        pytest.param("{{ n | map('upper') }}", {"n": ["a"]}, "message.txt:1: this gives a function or a sequence"),
        pytest.param(
            "{{ n.__class__ }}", {"n": "a"}, "message.txt:1: a message must not do this: access to", id="class"
        ),
        pytest.param(
            "{{ n.append(1) }}", {"n": []}, "message.txt:1: a message must not do this: access to", id="append"
        ),
        pytest.param("{% include n %}", {"n": "/etc/passwd"}, "message.txt:1: there is no template '/etc/passwd'"),
        pytest.param("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", {}, "includes or calls itself without end"),
        pytest.param("{{ x | int('z') + 'a' }}", {"x": "1"}, "message.txt:1: unsupported operand", id="type"),
    ],
)
def test_row_that_does_not_render_is_reported_by_line_and_name(text, fields, message):
    workshop = Workshop()
    rendering = workshop.text(Template("message.txt", text))
    with pytest.raises(TemplateError) as caught:
        rendering.render(workshop.variables(fields))
    assert message in str(caught.value)
    assert str(caught.value).startswith("message.txt:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a\n{% if x %}", "message.txt:2: Unexpected end of template", id="unclosed"),
        pytest.param(
            "a\n\n{{ x | uper }}", "message.txt:3: there is no filter 'uper'; did you mean 'upper'?", id="filter"
        ),
        pytest.param(
            "{{ x is defind }}", "message.txt:1: there is no test 'defind'; did you mean 'defined'?", id="test"
        ),
        pytest.param("{{ x ", "message.txt:1: ", id="brace"),
        pytest.param(
            "a\n{% if x %}{{ x | uper }}{% endif %}",
            "message.txt:2: there is no filter 'uper'; did you mean 'upper'?",
            id="filter-in-a-branch",
        ),
        pytest.param("{% if x | nope %}{% endif %}", "message.txt:1: there is no filter 'nope'", id="condition"),
        pytest.param("{{ 1 if x is nope }}", "message.txt:1: there is no test 'nope'", id="test-of-a-condition"),
        pytest.param("{{ x | random }}", "message.txt:1: there is no filter 'random'", id="chance"),
        pytest.param("\n{% include 'singn' %}", "message.txt:2: there is no template 'singn'; did you mean 'sign'?"),
        pytest.param(
            "{% for a in b %}" * 30 + "{% endfor %}" * 30, "message.txt:1: too many statically nested", id="deep"
        ),
        pytest.param("{{ " + "(" * 900 + ")" * 900 + " }}", "message.txt:1: ", id="parentheses"),
    ],
)
def test_template_that_cannot_be_read_is_reported_before_any_row(text, message):
    workshop = Workshop((Template("sign", "x"),))
    with pytest.raises(TemplateError) as caught:
        workshop.text(Template("message.txt", text))
    assert str(caught.value).startswith(message)


def test_filter_whose_existence_is_asked_for_may_be_missing():
    text = "{% if 'nope' is filter %}{{ name | nope }}{% else %}{{ name }}{% endif %}"
    assert render(text, name="Ann") == "Ann"


def test_condition_with_an_unknown_filter_is_refused_before_any_row():
    with pytest.raises(TemplateError, match=r"--where.*there is no filter .nope"):
        compile_condition("(name | nope) if name else true")


def test_partial_that_cannot_be_read_is_reported_although_no_one_includes_it():
    with pytest.raises(TemplateError, match=r"^sign:2: "):
        Workshop((Template("sign", "a\n{% if %}"),))


def test_error_in_a_partial_names_the_partial():
    error = refusal('{% include "sign" %}', partials={"sign": "a\n{{ nmae }}"}, name="x")
    assert str(error) == "sign:2: 'nmae' is undefined; did you mean 'name'?"


def test_error_says_what_the_row_has():
    fields = {f"column{number}": "" for number in range(20)}
    assert refusal("{{ zzz }}", **fields).hint.startswith("a template of this row can use column0, column1, ")
    assert refusal("{{ zzz }}", **fields).hint.endswith(" and 10 more")


def test_error_in_a_setting_needs_no_line():
    workshop = Workshop()
    rendering = workshop.header(Template("campaign.toml: subject", "{{ nmae }}"))
    with pytest.raises(TemplateError, match=r"^campaign\.toml: subject: 'nmae' is undefined"):
        rendering.render(workshop.variables({}))


def test_error_shows_nothing_that_steers_a_terminal():
    error = refusal("{{ x | int + y }}", x="1", y="\x1b[31m")
    assert "\x1b" not in str(error)
    assert "\x1b" not in refusal("{% include x %}", x="\x1b[31m").args[0]


def test_constant_is_known_before_any_row():
    workshop = Workshop()
    assert workshop.text(Template("t", "Hello\n\nall")).constant == "Hello\n\nall"
    assert workshop.text(Template("t", "{# a remark #}Hello")).constant == "Hello"
    assert workshop.text(Template("t", "{{ x }}")).constant is None
    assert workshop.text(Template("t", "{% if 1 %}a{% endif %}")).constant is None
    assert workshop.text(Template("t", "")).constant == ""


# --- conditions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ('country == "AT"', True),
        ('country == "DE"', False),
        ("age | int >= 18", True),
        ("age | int >= 65", False),
        ('row["First name"] == "Ann"', True),
        ("missing", False),
        ('missing == "x"', False),
        ("missing is defined", False),
        ("missing is undefined", True),
        ('country in ["AT", "CH"] and age', True),
        ('"@example.org" in email', True),
    ],
)
def test_condition_selects_rows(text, selected):
    condition = compile_condition(text)
    fields = {"country": "AT", "age": "42", "First name": "Ann", "email": "ann@example.org"}
    assert condition(fields) is selected


@pytest.mark.parametrize("text", ["", "a b", "a ==", "a | uper", "{{ a }}", "a }} {{ b", "(" * 900])
def test_condition_that_cannot_be_read_is_reported(text):
    with pytest.raises(TemplateError, match=r"^--where: "):
        compile_condition(text)


def test_condition_that_makes_no_sense_for_a_row_is_reported_with_the_fix():
    condition = compile_condition("age > 18")
    with pytest.raises(TemplateError, match=r"^--where: age is '42', which is text") as caught:
        condition({"age": "42"})
    assert "age | number" in caught.value.hint


@pytest.mark.parametrize("text", ["'x' * 10 ** 9", "range(999999) | list", "2 ** 999999999"])
def test_condition_has_the_bounds_of_a_message(text):
    with pytest.raises(TemplateError, match=r"^--where: "):
        compile_condition(text)({})


def test_condition_knows_the_fields_it_needs():
    assert compile_condition('country == "AT" and row["Paid at"] and email').names == {"country", "Paid at"}


# --- what a campaign needs of a row ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("{{ a }} {{ b.c }}", {"a", "b"}, id="plain"),
        pytest.param('{{ row["First name"] }} {{ row.city }}', {"First name", "city"}, id="row"),
        pytest.param("{{ row[key] }}", {"key"}, id="row-by-variable"),
        pytest.param("{{ row.get('x') }} {% for k, v in row.items() %}{{ k }}{% endfor %}", set(), id="row-methods"),
        pytest.param("{{ a | default('x') }} {{ b | d }} {{ row.c | default('') }}", set(), id="default"),
        pytest.param("{{ a | default('x') }} {{ a }}", {"a"}, id="default-once-only"),
        pytest.param("{{ a | default(b) }}", {"b"}, id="default-from-a-field"),
        pytest.param("{{ a.b | default('x') }}", {"a"}, id="default-of-a-part"),
        pytest.param("{% if a is defined %}{{ a }}{% endif %}{{ row.b if row.b is defined }}", set(), id="defined"),
        pytest.param("{{ 'x' if a is undefined else a }}", set(), id="undefined"),
        pytest.param("{% for i in items %}{{ i.x }} {{ loop.index }} {{ y }}{% endfor %}", {"items", "y"}, id="loop"),
        pytest.param("{% set a = b %}{{ a }}", {"b"}, id="set"),
        pytest.param("{{ email }} {{ range(3) | list }} {{ row }}", set(), id="always-there"),
        pytest.param("{% macro m(x) %}{{ x }}{{ z }}{% endmacro %}{{ m(y) }}", {"y", "z"}, id="macro"),
        pytest.param("{{ a | upper }} {{ b is even }} {{ c ~ d }} {{ f(e) }}", set("abcdef"), id="expressions"),
        pytest.param("{% for i in g %}{% include 'deep' %}{% endfor %}", {"g", "j", "k"}, id="partials"),
        pytest.param("{% include g %}{% include 'gone' ignore missing %}", {"g"}, id="partial-by-variable"),
    ],
)
def test_referenced_names_are_what_the_row_must_have(make_campaign, text, names):
    partials = (Template("deep", "{{ i }} {{ j }} {% include 'deeper' %}"), Template("deeper", "{{ i }} {{ k }}"))
    campaign = make_campaign(subject="x", text=text, partials=partials)
    assert referenced_names(campaign) == names


def test_referenced_names_are_those_of_all_templates(make_campaign):
    campaign = make_campaign(
        sender="{{ a }} <x@example.org>",
        subject="{{ b }}",
        text="{{ c }}",
        html="{{ d }}",
        to_name="{{ e }}",
        reply_to="{{ f }}",
        headers=(("X-Tag", Template("X-Tag", "{{ g }}")),),
    )
    assert referenced_names(campaign) == set("abcdefg")


@pytest.mark.parametrize("text", ["\n{{ a | uper }}", "\n{% if %}"])
def test_referenced_names_of_a_broken_template_are_reported_with_its_line(make_campaign, text):
    with pytest.raises(TemplateError, match=r"^campaign\.toml: text:2: "):
        referenced_names(make_campaign(text=text))


TAG_LINES = {
    "loop": ("a\n{% for i in [1, 2] %}\n* {{ i }}\n{% endfor %}\nb\n", "a\n* 1\n* 2\nb\n"),
    "indented": ("a\n  {% if true %}\nb\n  {% endif %}\n", "a\nb\n"),
    "set-and-comment": ("{% set x = 1 %} {# why #}\na{{ x }}\n", "a1\n"),
    "within-a-line": ("a {% if true %}b{% endif %}\nc\n", "a b\nc\n"),
    "kept-on-purpose": ("a\n{% if true +%}\nb\n{% endif %}\n", "a\n\nb\n"),
    "value": ("{{ '' }}\na\n", "\na\n"),
    "raw": ("{% raw %}{% if %}{% endraw %}\na\n", "{% if %}\na\n"),
}


@pytest.mark.parametrize(("text", "expected"), TAG_LINES.values(), ids=TAG_LINES)
def test_line_of_tags_alone_leaves_no_line_in_a_text(text, expected):
    assert rendered(text=text).text == expected


def test_included_part_stands_on_a_line_of_its_own():
    part = Template("foot.txt", "{% if true %}\nfoot\n{% endif %}")
    assert rendered(text='a\n{% include "foot.txt" %}\nb\n', partials=(part,)).text == "a\nfoot\n\nb\n"


def test_line_of_an_error_is_that_of_the_template():
    with pytest.raises(TemplateError, match=r":5: 'nmae' is undefined"):
        rendered({"name": "x"}, text="{% set a = 1 %}\n{% if a %}\nx\n{% endif %}\n{{ nmae }}\n")


WORDS = {
    "curly-quote": ("{{ row[‘First Name’] }}", "a tag has the typographic quote ‘", "write straight quotes"),
    "two-words": ("{{ First Name }}", "{{ First Name }} is not one name", '{{ row["First Name"] }}'),
    "comment": ("p{#main{}", '"{#" begins a comment of the template', '"{ #main"'),
}


@pytest.mark.parametrize(("text", "message", "hint"), WORDS.values(), ids=WORDS)
def test_what_jinja_cannot_read_is_said_in_words(text, message, hint):
    with pytest.raises(TemplateError) as caught:
        rendered({"First Name": "x"}, text=text)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_rule_of_a_style_sheet_is_no_comment():
    css = "@media (max-width:600px){#a{top:1px}}{# a comment #}"
    page = f"<html><head><style>{css}</style></head><body>{{# no #}}<p>x</p></body></html>"
    html = rendered(text="x", html=page).html
    assert "#a{top:1px}" in html
    assert "comment" not in html
    assert "no" not in html.partition("<body>")[2]


@pytest.mark.parametrize(
    "meta",
    [
        '<meta charset="windows-1252">',
        '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1">',
        "<META charset=latin1>",
    ],
)
def test_page_says_the_encoding_that_it_goes_out_in(meta):
    html = rendered(text="x", html=f"<html><head>{meta}</head><body><p>ü</p></body></html>").html
    assert re.search('charset="?utf-8', html)
    assert not re.search("1252|8859|latin", html)
