"""MJML messages."""

import sys

import pytest

from bulkmail.model.errors import ConfigError, TemplateError
from tests.message.pages import rendered

FRAME = "<mjml><mj-body>{}</mj-body></mjml>"
SECTION = "<mj-section><mj-column>{}</mj-column></mj-section>"


def page_of(inner, **fields):
    return rendered(fields, mjml=FRAME.format(inner)).html


def test_mjml_makes_a_page_and_a_text():
    button = '<mj-button href="{{ url }}">Go</mj-button>'
    message = rendered(
        {"name": "A & B", "url": "https://x.example"},
        mjml=FRAME.format(SECTION.format("<mj-text>Hi {{ name }}</mj-text>" + button)),
    )
    assert "Hi A &amp; B" in message.html
    assert 'href="https://x.example"' in message.html
    assert "mj-" not in message.html.replace("mj-outlook", "").replace("mj-column", "")
    assert message.text == "Hi A & B\nGo (https://x.example)\n"


@pytest.mark.parametrize(
    "inner",
    [
        "{% for i in items %}" + SECTION.format("<mj-text>n{{ i }}</mj-text>") + "{% endfor %}",
        SECTION.format("{% for i in items %}<mj-text>n{{ i }}</mj-text>{% endfor %}"),
        SECTION.format("<mj-raw>{% for i in items %}</mj-raw><mj-text>n{{ i }}</mj-text><mj-raw>{% endfor %}</mj-raw>"),
        SECTION.format("<mj-text>{% for i in items %}n{{ i }}<br/>{% endfor %}</mj-text>"),
        SECTION.format("<mj-table>{% for i in items %}<tr><td>n{{ i }}</td></tr>{% endfor %}</mj-table>"),
    ],
    ids=["sections", "texts", "raw", "in-text", "in-table"],
)
def test_mjml_repeats_what_stands_in_a_loop(inner):
    page = page_of(inner, items=[1, 2])
    assert page.index("n1") < page.index("n2")
    assert page.count("n2") == 1


def test_mjml_takes_a_condition_with_signs_of_xml():
    assert "few" in page_of(SECTION.format("<mj-text>{% if n < 3 and n > 1 %}few{% endif %}</mj-text>"), n=2)


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        ("\n<mj-sektion></mj-sektion>", "message.mjml:2: MJML has no element <mj-sektion>; did you mean 'mj-section'?"),
        (SECTION.format("\n\n<mj-nope>x</mj-nope>"), "message.mjml:3: MJML has no element <mj-nope>"),
        ('<mj-include path="/etc/passwd"/>', "message.mjml:1: <mj-include> is not read"),
        ("\n" + SECTION.format("<mj-text>a<b></mj-text>"), "message.mjml: is not MJML"),
    ],
    ids=["misspelt", "unknown", "include", "not-xml"],
)
def test_mjml_reports_what_it_does_not_know(inner, reason):
    with pytest.raises(TemplateError) as caught:
        page_of(inner)
    assert str(caught.value).startswith(reason)


def test_mjml_reports_where_a_tag_would_be_lost():
    attribute = '<mj-column full-width="{{ name }}"></mj-column>'
    with pytest.raises(TemplateError, match=r"message\.mjml:2: MJML takes no tag in this attribute: \{\{ name \}\}"):
        page_of(f"\n<mj-section>{attribute}</mj-section>", name="x")


def test_error_in_mjml_names_its_line():
    with pytest.raises(TemplateError, match=r"message\.mjml:3: 'nmae' is undefined"):
        rendered({"name": "x"}, mjml=FRAME.format(SECTION.format("\n\n<mj-text>{{ nmae }}</mj-text>")))


def test_mjml_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mjml", None)
    with pytest.raises(ConfigError, match="MJML is not installed") as caught:
        page_of("")
    assert caught.value.hint == "type: pip install 'bulkmail[mjml]'"
