"""Templates: what they can use, what they say when they cannot, and which fields they need."""

import pytest

from bulkmail.message.templates import Workshop, compile_condition, referenced_names
from bulkmail.model.address import Address
from bulkmail.model.campaign import Template
from bulkmail.model.errors import TemplateError


def render(text, fields, *, kind="text", partials=()):
    workshop = Workshop(tuple(partials))
    rendering = getattr(workshop, kind)(Template("letter.txt", text))
    return rendering.render(workshop.variables(fields, Address("ann", "example.org")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ name }}", "Ann"),
        ("{{ row['First name'] }}", "Annie"),
        ("{{ row.name }}", "Ann"),
        ("{{ email }}", "ann@example.org"),
        ("{{ nothing | default('friend') }}", "friend"),
        ("{{ empty or 'friend' }}", "friend"),
        ("{% for item in items %}{{ item.name }};{% endfor %}", "a;b;"),
        ("{% include 'foot.txt' %}", "Bye, Ann"),
    ],
)
def test_template_can_use_the_row(text, said):
    fields = {"name": "Ann", "First name": "Annie", "empty": "", "items": [{"name": "a"}, {"name": "b"}]}
    assert render(text, fields, partials=[Template("foot.txt", "Bye, {{ name }}")]) == said


def test_column_called_email_is_that_column():
    assert render("{{ email }}", {"email": "Ann <ann@example.org>"}) == "Ann <ann@example.org>"


def test_header_template_may_be_written_over_two_lines():
    assert render("Hello\n  {{ name }}", {"name": "Ann"}, kind="header") == "Hello Ann"


def test_html_escapes_cells_in_partials_too():
    partials = [Template("foot.html", "<b>{{ name }}</b>")]
    assert render("{% include 'foot.html' %}", {"name": "<i>"}, kind="html", partials=partials) == "<b>&lt;i&gt;</b>"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\nb\n{{ nmae }}", "letter.txt:3: 'nmae' is undefined; did you mean 'name'?"),
        ("{{ First_name }}", "did you mean row['First name']?"),
        ("{{ row.nmae }}", "there is no field 'nmae'; did you mean 'name'?"),
        ("{{ name", "letter.txt:1: "),
        ("\n{% if %}", "letter.txt:2: "),
        ("{{ name | uper }}", "there is no filter 'uper'; did you mean 'upper'?"),
        ("{{ 1 / 0 }}", "letter.txt:1: divides by zero"),
        ("{{ age > 3 }}", "letter.txt:1: '>' not supported"),
        ("{{ range }}", "gives a function"),
        ("{% include 'fot.txt' %}", "there is no template 'fot.txt'; did you mean 'foot.txt'?"),
        ("{% include 'loop.txt' %}", "without end"),
    ],
)
def test_error_names_file_and_line(text, said):
    partials = [Template("foot.txt", ""), Template("loop.txt", "{% include 'loop.txt' %}")]
    with pytest.raises(TemplateError) as error:
        render(text, {"name": "Ann", "First name": "Annie", "age": "7"}, partials=partials)
    assert said in str(error.value)


def test_error_in_a_partial_names_the_partial():
    with pytest.raises(TemplateError, match=r"^foot.txt:2: 'x' is undefined"):
        render("{% include 'foot.txt' %}", {}, partials=[Template("foot.txt", "\n{{ x }}")])


@pytest.mark.parametrize(
    ("condition", "selected"),
    [
        ("country == 'AT'", ["ann"]),
        ("age | int > 18", ["bob"]),
        ("nothing == 1", []),
        ("nothing is not defined", ["ann", "bob"]),
        ("country in ['AT', 'DE'] and age | int < 99", ["ann", "bob"]),
    ],
)
def test_condition_selects_rows(condition, selected):
    rows = [{"name": "ann", "country": "AT", "age": "17"}, {"name": "bob", "country": "DE", "age": "40"}]
    chosen = compile_condition(condition)
    assert [row["name"] for row in rows if chosen(row)] == selected


@pytest.mark.parametrize("condition", ["", "country =", "country == 'AT' }}", "x | nosuch", "{{ x }}"])
def test_condition_that_is_none_is_refused(condition):
    with pytest.raises(TemplateError, match=r"^--where"):
        compile_condition(condition)


def test_condition_that_makes_no_sense_for_a_row_is_told():
    with pytest.raises(TemplateError, match="--where"):
        compile_condition("age > 18")({"age": "17"})


def test_condition_knows_what_it_needs():
    assert compile_condition("a == 1 and b | default(0) == row['c d']").names == {"a", "c d"}


def test_referenced_names_are_those_that_rows_must_have(make_campaign):
    campaign = make_campaign(
        sender="{{ shop }} <a@example.org>",
        subject="{{ name }} {{ row['First name'] }}",
        text="{{ email }} {{ a | default('') }} {% if b is defined %}{{ b }}{% endif %}"
        "{% for c in d %}{{ c }}{% endfor %}",
        html="{% include 'foot.html' %}",
        reply_to="{{ r }} <a@example.org>",
        headers=(("X", Template("X", "{{ h }}")),),
        partials=(Template("foot.html", "{{ f }}"),),
    )
    assert referenced_names(campaign) == {"shop", "name", "First name", "d", "f", "r", "h"}
