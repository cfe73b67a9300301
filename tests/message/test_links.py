"""What a cell may put into an address: no script, and no attribute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateRuntimeError

from bulkmail.message.compose.composer import Composer
from bulkmail.message.template.links import link
from bulkmail.model.campaign import Template
from bulkmail.model.errors import TemplateError
from tests.message.pages import campaign_of, rendered, row

SCRIPTS = [
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    " javascript:alert(1)",
    "java\tscript:alert(1)",
    "java\nscript:alert(1)",
    "\x01javascript:alert(1)",
    "java\u200bscript:alert(1)",
    "vbscript:x",
    "data:text/html,<script>alert(1)</script>",
    "file:///etc/passwd",
    "blob:x",
    "ht\ttps://example.com",
]


@pytest.mark.slow
@pytest.mark.parametrize("address", SCRIPTS)
@pytest.mark.parametrize(
    "page",
    [
        "<a href='{{ url }}'>x</a>",
        '<a href="{{ url }}">x</a>',
        "<a href={{ url }}>x</a>",
        "<a href=' {{ url }} '>x</a>",
        "<A HREF='{{ url }}'>x</A>",
        "<img src='{{ url }}'>",
        "<a href='{% if url %}{{ url }}{% endif %}'>x</a>",
        "<a href='{{ url if url else '#' }}'>x</a>",
        "<form action='{{ url }}'></form>",
        "<a href='{{ '' }}{{ url }}'>x</a>",
        "<a href='{{- url -}}'>x</a>",
        "<svg><a xlink:href='{{ url }}'></a></svg>",
    ],
    ids=range(12),
)
def test_no_cell_makes_a_script_of_an_address(page, address):
    with pytest.raises(TemplateError, match="is no address that a message may link to"):
        rendered({"url": address}, html=page)


@pytest.mark.slow
def test_no_cell_makes_a_script_in_markdown_or_a_part():
    for parts in (
        {"markdown": "[x]({{ url }})"},
        {"markdown": "<{{ url }}>\n\n<a href='{{ url }}'>x</a>"},
        {"html": "{% include 'part.html' %}", "partials": (Template("part.html", "<a href='{{ url }}'>x</a>"),)},
    ):
        with pytest.raises(TemplateError, match="no address"):
            rendered({"url": "javascript:alert(1)"}, **parts)


def test_script_is_found_before_anything_is_sent():
    composer = Composer(campaign_of(html="<a href='{{ url }}'>x</a>"), run_id="run")
    with pytest.raises(TemplateError, match=r"message\.html:1: 'javascript:alert\(1\)' is no address"):
        composer.check(row(url="javascript:alert(1)"))


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("https://example.com/?a=1&b=2#c", "https://example.com/?a=1&b=2#c"),
        ("HTTP://example.com", "HTTP://example.com"),
        ("mailto:a@example.com", "mailto:a@example.com"),
        ("tel:+43 1 234", "tel:+43%201%20234"),
        ("page.html?x=a:b", "page.html?x=a:b"),
        ("#part", "#part"),
        ("", ""),
        (" https://example.com ", "https://example.com"),
        (7, "7"),
    ],
    ids=["https", "upper-case", "mailto", "tel", "relative", "anchor", "empty", "spaces", "number"],
)
def test_link_takes_addresses_of_every_day(address, same):
    assert link(address) == same


@given(st.text())
def test_link_gives_an_address_of_a_known_scheme_or_nothing(text):
    try:
        given_back = link(text)
    except TemplateRuntimeError:
        return
    assert not any(space.isspace() for space in given_back)
    scheme, colon, _ = given_back.partition("#")[0].partition("?")[0].partition("/")[0].partition(":")
    assert not colon or scheme.lower() in {"http", "https", "mailto", "tel", "sms"}


def test_address_after_a_fixed_beginning_is_left_alone():
    html = rendered({"id": "a:b"}, html="<a href='https://example.com/{{ id }}'>x</a>").html
    assert "https://example.com/a:b" in html


def test_no_cell_adds_an_attribute():
    cells = {"width": "1 onclick=alert(1)", "url": "x onclick=alert(1)"}
    html = rendered(cells, html="<td width={{ width }}><a href={{ url }}>").html
    assert html == '<td width="1 onclick=alert(1)"><a href="x%20onclick=alert(1)">\n'


def test_address_that_is_markup_already_is_not_escaped_again():
    html = rendered({"url": "https://x.example/?a=1&amp;b=2"}, html="<a href='{{ url | safe }}'>x</a>").html
    assert "a=1&amp;b=2" in html


def test_what_a_cell_holds_is_text_in_the_page():
    html = rendered({"name": "<script>alert('x')</script>"}, html="<p title='{{ name }}'>{{ name }}</p>").html
    assert "<script>" not in html


def test_filter_is_there_for_texts_too():
    assert rendered({"url": "https://example.com"}, text="{{ url | link }}").text == "https://example.com\n"
    with pytest.raises(TemplateError, match="no address"):
        rendered({"url": "javascript:x"}, text="{{ url | link }}")
