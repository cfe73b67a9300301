"""What a template may not do: the bounds that keep one cell from taking the machine."""

import pytest

from bulkmail.message.template.environment import LONGEST_OUTPUT, LONGEST_RANGE, TooMuch, join_chunks
from bulkmail.message.template.rendering import Workshop
from bulkmail.model.campaign import Template
from bulkmail.model.errors import TemplateError


def render(text: str, **fields: object) -> str:
    """The text for one row with these fields."""
    workshop = Workshop()
    return workshop.text(Template("message.txt", text)).render(workshop.variables(fields))


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        pytest.param("{{ 'x' * n | int }}", {"n": "10000000000"}, id="text-times"),
        pytest.param("{{ n | int * 'x' }}", {"n": "10000000000"}, id="times-text"),
        pytest.param("{{ [1] * n }}", {"n": 10**10}, id="list-times"),
        pytest.param("{{ 9 ** n | int }}", {"n": "99999999"}, id="power"),
        pytest.param("{{ '%*d' % (n, 1) }}", {"n": 10**9}, id="percent-star"),
        pytest.param("{{ n % 1 }}", {"n": "%999999999d"}, id="percent-cell"),
        pytest.param("{{ n | format(1) }}", {"n": "%999999999d"}, id="format-filter"),
        pytest.param("{{ n.format(1) }}", {"n": "{:999999999}"}, id="format-method"),
        pytest.param("{{ '{:{}}'.format('x', n) }}", {"n": 10**9}, id="format-nested"),
        pytest.param(
            "{{ '{a:{b}}'.format_map({'a': 'x', 'b': n}) }}", {"n": 10**9}, id="format-map", marks=pytest.mark.slow
        ),
        pytest.param("{{ 'x'.center(n) }}", {"n": 10**9}, id="method"),
        pytest.param("{{ 'x'.ljust(width=n) }}{{ 'x'.zfill(n) }}", {"n": 10**9}, id="methods"),
        pytest.param("{{ 'x' | center(n) }}", {"n": 10**9}, id="center"),
        pytest.param("{{ 'x' | indent(n, true) }}", {"n": 10**9}, id="indent"),
        pytest.param("{{ [1] | batch(n, 'x') | list }}", {"n": 10**9}, id="batch"),
        pytest.param("{{ [1] | slice(n) | list }}", {"n": 10**9}, id="slice"),
        pytest.param("{{ 1.5 | round(n, 'ceil') }}", {"n": 10**6}, id="round"),
        pytest.param("{{ range(n | int) }}", {"n": "1000000000"}, id="range"),
        pytest.param("{{ range(n) }}", {"n": 10**40}, id="range-beyond-any"),
        pytest.param(
            "{% for a in range(n) %}{% for b in range(n) %}{% endfor %}{% endfor %}", {"n": 90_000}, id="nested"
        ),
        pytest.param("{% for a in range(n) %}{{ x }}{% endfor %}", {"n": 2000, "x": "y" * 10_000}, id="output"),
        pytest.param(
            "{% set big %}{% for a in range(n) %}{{ x }}{% endfor %}{% endset %}",
            {"n": 2000, "x": "y" * 10_000},
            id="captured-output",
        ),
    ],
)
def test_rendering_ends_before_it_takes_the_machine(text, fields):
    with pytest.raises(TemplateError, match=r"^message\.txt:1: "):
        render(text, **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ '-' * 72 }}", "-" * 72),
        ("{{ 3 * 4 }} {{ 2 ** 10 }} {{ 7 % 4 }} {{ 2.5 * 2 }}", "12 1024 3 5.0"),
        ("{{ '{:,}'.format(1500000) }}", "1,500,000"),
        ("{{ '%d items' % 1500000 }}", "1500000 items"),
        ("{{ '%.2f EUR' | format(12.5) }}", "12.50 EUR"),
        ("{{ '%s and %s' % ('a', 'b') }}", "a and b"),
        ("{{ '{:>6}|'.format('a') }}", "     a|"),
        ("{{ '{a}'.format_map({'a': 'x'}) }}", "x"),
        ("{{ 1234567 | round(-3) }}", "1235000"),
        ("{{ 'a' | center(5) }}|{{ 'a'.ljust(3) }}|", "  a  |a  |"),
        ("{{ [1, 2, 3] | batch(2) | map('join') | join('|') }}", "12|3"),
        ("{{ [1, 2, 3] | slice(2) | map('sum') | join('+') }}", "3+3"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{% for n in range(3) %}{{ n }}{% endfor %}", "012"),
        ("{{ 'x' if false }}", ""),
        ("{{ true }} {{ 1 }} {{ 2.5 }}", "TRUE 1 2.5"),
    ],
)
def test_ordinary_templates_are_not_in_the_way(text, expected):
    assert render(text) == expected


def test_ranges_are_counted_again_for_each_rendering():
    workshop = Workshop()
    rendering = workshop.text(Template("t", "{% for a in range(n) %}{% endfor %}done"))
    for _ in range(3):
        assert rendering.render(workshop.variables({"n": LONGEST_RANGE - 1})) == "done"


def test_join_chunks_stops_at_the_first_chunk_too_many():
    taken = []

    def chunks():
        for number in range(10_000):
            taken.append(number)
            yield "x" * 1_000_000

    with pytest.raises(TooMuch):
        join_chunks(chunks())
    assert len(taken) < 100


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 100])
def test_join_chunks_joins_them_all(count):
    assert join_chunks(str(number) for number in range(count)) == "".join(map(str, range(count)))


def test_output_may_be_as_long_as_it_may():
    assert len(join_chunks(["x" * LONGEST_OUTPUT])) == LONGEST_OUTPUT


def test_chance_is_not_among_the_functions():
    for text in ("{{ lipsum() }}", "{{ [1] | random }}"):
        with pytest.raises(TemplateError):
            render(text)
