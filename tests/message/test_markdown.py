"""Markdown messages: a page and a text, with the template tags where they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.compose.composer import Composer
from bulkmail.model.campaign import Template
from bulkmail.model.errors import TemplateError
from tests.message.pages import campaign_of, composed, kinds, rendered, row


def body_of(html):
    return html.partition("<body")[2].partition(">")[2].partition("</body>")[0].strip()


def page_of(markdown, **fields):
    return body_of(rendered(fields, markdown=markdown, inline_css=False).html)


@pytest.mark.parametrize(
    ("markdown", "page"),
    [
        ("# Hello {{ name }}", "<h1>Hello A &amp; B</h1>"),
        ("one\n*two* **three**", "<p>one<br />\n<em>two</em> <strong>three</strong></p>"),
        ("[x]({{ url }})", '<p><a href="https://x.example/?a=1&amp;b=2">x</a></p>'),
        ("[{{ name }}](https://x.example/{{ n }})", '<p><a href="https://x.example/3">A &amp; B</a></p>'),
        ("![{{ name }}]({{ url }})", '<p><img src="https://x.example/?a=1&amp;b=2" alt="A &amp; B" /></p>'),
        ("`{{ name }}`", "<p><code>A &amp; B</code></p>"),
        ("{{ name }} is *{{ n }}*", "<p>A &amp; B is <em>3</em></p>"),
        ("{{ \"a\" ~ '*b*' }}", "<p>a*b*</p>"),
        ("a {% if n %}*b*{% else %}c{% endif %} d", "<p>a <em>b</em> d</p>"),
        ("{# say #}\n# x", "<h1>x</h1>"),
        ("<b>{{ name }}</b>", "<p><b>A &amp; B</b></p>"),
        ("~~x~~", "<p><s>x</s></p>"),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
    ],
    ids=[
        *("heading", "line-ends", "link", "link-in-part", "picture", "code", "emphasis", "quotes", "condition"),
        *("comment", "html", "struck", "script"),
    ],
)
def test_markdown_makes_a_page(markdown, page):
    assert page_of(markdown, name="A & B", url="https://x.example/?a=1&b=2", n=3) == page


@pytest.mark.parametrize(
    ("markdown", "page"),
    [
        (
            "{% for i in items %}\n- {{ i }}\n{% endfor %}",
            "<ul>\n<li>1</li>\n<li>2</li>\n</ul>",
        ),
        (
            "- a\n{% if items %}\n- b\n{% endif %}\n- c",
            "<ul>\n<li>a</li>\n<li>b</li>\n<li>c</li>\n</ul>",
        ),
        (
            "{% if items %}\nx\n\n{% for i in items %}\n1. {{ i }}\n{% endfor %}\n\ny\n{% endif %}",
            "<p>x</p>\n<ol>\n<li>1</li>\n<li>2</li>\n</ol>\n<p>y</p>",
        ),
        (
            "| a | b |\n|---|---|\n{% for i in items %}\n| {{ i }} | x |\n{% endfor %}\n| s | y |",
            "<tr><td>1</td><td>x</td></tr><tr><td>2</td><td>x</td></tr><tr><td>s</td><td>y</td></tr>",
        ),
        (
            "| a |\n|---|\n| z |\n{% for i in items %}\n| {{ i }} |\n{% endfor %}\n\nend",
            "<tr><td>z</td></tr><tr><td>1</td></tr><tr><td>2</td></tr></tbody></table><p>end</p>",
        ),
        ("{% for i in items %}\nFor {{ i }}:\n\nx\n{% endfor %}", "<p>For 1:</p><p>x</p><p>For 2:</p><p>x</p>"),
    ],
    ids=["list", "list-with-a-choice", "list-in-a-choice", "table", "table-ends-in-loop", "paragraphs"],
)
def test_markdown_repeats_whole_items_and_rows(markdown, page):
    found = "".join(page_of(markdown, items=[1, 2]).split("\n"))
    assert "".join(page.split("\n")) in found
    assert found.count("<ul>") <= 1


def test_markdown_makes_a_text_too():
    message = rendered(
        {"name": "Ann", "url": "https://x.example"}, markdown="# Hi {{ name }}\n\nSee [this]({{ url }}).\n\n- a\n- b\n"
    )
    assert message.text == "Hi Ann\n======\n\nSee this (https://x.example).\n\n* a\n* b\n"


def test_markdown_text_that_is_given_is_taken():
    message = composed({"name": "Ann"}, markdown="*x*", text="plain {{ name }}")
    assert kinds(message) == ["multipart/alternative", "text/plain", "text/html"]
    assert message.get_body(("plain",)).get_content() == "plain Ann\r\n"


@given(st.text(st.sampled_from("*_`[]()<>!#-|\\~&{}%ab \n"), max_size=40))
def test_markdown_in_a_cell_is_text(cell):
    page = MESSAGE.render(row(name=cell)).html
    body = body_of(page)
    assert body.startswith("<p ") or body.startswith("<p>")
    assert body.count("<") == 4  # p, strong and their ends
    assert "href" not in body


MESSAGE = Composer(campaign_of(markdown="Dear **{{ name }}**"), run_id="run")


def test_markdown_keeps_a_page_that_is_one_already():
    html = rendered(markdown="<html><body>\n\n# x\n\n</body></html>").html
    assert html.count("<body") == 1


def test_markdown_fits_into_a_page_that_it_extends():
    base = Template("base.html", "<html><body>{% block message %}{% endblock %}</body></html>")
    html = rendered(
        {"name": "Ann"},
        markdown='{% extends "base.html" %}\n{% block message %}\n# Hi {{ name }}\n{% endblock %}\n',
        partials=(base,),
    ).html
    assert html.replace("\n", "") == "<html><body><h1>Hi Ann</h1></body></html>"


def test_markdown_includes_markdown():
    foot = Template("foot.md", "*Bye*, {{ name }}")
    html = rendered(
        {"name": "Ann"}, markdown='Hi\n\n{% include "foot.md" %}\n', partials=(foot,), inline_css=False
    ).html
    assert "<p><em>Bye</em>, Ann</p>" in html


@pytest.mark.slow
def test_error_in_markdown_names_its_line():
    with pytest.raises(TemplateError, match=r"message\.markdown:5: 'nmae' is undefined; did you mean 'name'"):
        rendered({"name": "x"}, markdown="# a\n\n- b\n\n{{ nmae }}")
    with pytest.raises(TemplateError, match=r"message\.markdown:3: "):
        rendered(markdown="# a\n\n{% if %}")


def test_markdown_page_lets_dark_mode_be_dark():
    html = rendered(markdown="x").html
    assert '<meta name="color-scheme" content="light dark">' in html
    assert ":root { color-scheme: light dark; }" in html
    assert "max-width: 38em" in html
