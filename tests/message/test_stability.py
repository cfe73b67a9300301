"""Whatever page a template makes, what is worked out once is what would be worked out for each message."""

from html.parser import HTMLParser

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bulkmail.message.compose.composer import Composer
from bulkmail.message.html import to_text
from bulkmail.message.html.inlining import inlined
from bulkmail.message.html.to_text import read_page, typeset
from bulkmail.model.errors import TemplateError
from tests.message.pages import campaign_of, row

SHEET = (
    "<style>p { color: red } .a b { margin: 0 } td, li { padding: 1px } div p { top: 2px } table b { left: 0 }</style>"
)
WORDS = st.sampled_from(["word", " ", "\n", "{{ x }}", "{{ i }}", "<br>", "{{- x -}}", "<img alt=cat src=x>", "&amp;"])
FRAMES = [
    *(
        f"<{name}>{{}}</{name}>"
        for name in ("p", "div", "b", "ul", "ol", "li", "h1", "blockquote", "td", "tr", "table")
    ),
    "<div class=a>{}</div>",
    "<table><tr><td>{}</td></tr></table>",
    "<ul><li>{}</li><li>x</li></ul>",
    "<table><tr><th>{}</th><td>y</td></tr></table>",
    "<a href='{{{{ u }}}}'>{}</a>",
    "<p style='color: {{{{ c }}}}'>{}</p>",
    "{{% if x %}}{}{{% endif %}}",
    "{{% if x %}}<p>{{% else %}}<div>{{% endif %}}{}",
    "{{% for i in y %}}{}{{% endfor %}}",
    "{{%- for i in y -%}}{}{{%- else %}}none{{% endfor -%}}",
    "<p>{}",
    "<li>{}",
    "{}</p>",
    "<pre> {} </pre>",
    "<select>{}</select>",
    "<span hidden>{}</span>",
    "<title>{}</title>",
    "<!-- {} -->",
]
PAGES = st.recursive(
    WORDS,
    lambda inner: st.builds(
        lambda frame, parts: frame.format("".join(parts)), st.sampled_from(FRAMES), st.lists(inner, max_size=3)
    ),
    max_leaves=14,
)
VALUES = st.sampled_from(["", "A", "a b", "<p>", "x\ny", "  "])


class Elements(HTMLParser):
    """Start tags and styles, in order."""

    def __init__(self, page):
        super().__init__()
        self.said = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        styles = [part.strip() for part in (found.pop("style", None) or "").split(";") if part.strip()]
        if tag not in ("tbody", "style"):
            self.said.append((tag, found, styles))


def parsed(page):
    """The page as a browser understands it, with no style added."""
    return inlined(page.replace(SHEET, ""))


@pytest.mark.slow
@given(page=PAGES, x=VALUES, y=st.lists(VALUES, max_size=3))
def test_page_worked_out_once_is_the_page_worked_out_each_time(page, x, y):
    whole = f"<!doctype html><html><head>{SHEET}</head><body>{page}</body></html>"
    try:
        once = Composer(campaign_of(html=whole), run_id="run")
        each = Composer(campaign_of(html=whole, inline_css=False), run_id="run")
        fields = row(x=x, y=y, i="I", u="https://example.com/" + x.strip("<>"), c="blue")
        message, plain = once.render(fields), each.render(fields)
    except TemplateError:
        assume(False)
    assert message.text == plain.text == typeset(read_page(plain.html))
    assert Elements(parsed(message.html)).said == Elements(inlined(plain.html)).said


@pytest.mark.slow
@pytest.mark.parametrize("start", ["{{ x }}", "{{ '' | safe }}{{ x }}"], ids=["once", "each"])
@pytest.mark.parametrize(
    ("opening", "closing"),
    [("<div>", "</div>"), ("<div>", ""), ("<div></x>", ""), ("<b><p>", ""), ("<table><tr><td>", "</table>")],
    ids=["closed", "open", "closed-wrongly", "formatting", "tables"],
)
def test_page_as_deep_as_the_sea_is_sent_as_it_is(start, opening, closing):
    """Parsers in C and Rust end the process when they run out of stack, at ten times this depth."""
    times = 2_000 // opening.count("<")
    page = f"<style>p {{ color: red }}</style>{start}{opening * times}{closing * times}"
    message = Composer(campaign_of(html=page), run_id="run").render(row(x="here"))
    assert message.text == "here\n"
    assert message.html.startswith("<style>p { color: red }</style>")
    assert message.html.count(opening) == times


@pytest.mark.slow
@pytest.mark.parametrize("start", ["", "{{ '' | safe }}"], ids=["once", "each"])
def test_page_that_a_parser_would_take_minutes_for_is_an_error_and_not_read(start, monkeypatch):
    """A start tag makes it look through all that is open."""
    given = []
    monkeypatch.setattr(to_text, "read_page", lambda page: given.append(page) or "")
    composer = Composer(campaign_of(html=start + "<div>" * 5_000), run_id="run")
    with pytest.raises(TemplateError, match=r"message\.html:1: more than 2,000 elements one within the other"):
        composer.render(row(x="here"))
    assert given == []


@pytest.mark.slow
def test_paragraphs_and_items_that_are_never_closed_do_not_nest():
    message = Composer(campaign_of(html="<ul>" + "<li>x" * 3_000 + "</ul>" + "<p>y" * 3_000), run_id="run").render(
        row()
    )
    assert message.text.count("x") == message.text.count("y") == 3_000


@pytest.mark.slow
def test_lists_too_deep_to_be_set_are_an_error():
    for start in ("", "{{ '' | safe }}"):
        composer = Composer(campaign_of(html=start + "<ul><li>{{ x }}" * 400), run_id="run")
        with pytest.raises(TemplateError, match=r"message\.html:1: is nested too deeply"):
            composer.render(row(x="here"))
