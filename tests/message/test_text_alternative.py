"""The text that is made of a page when a campaign gives none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.compose.composer import Composer
from bulkmail.message.html.to_text import read_page, typeset
from tests.message.pages import campaign_of, composed, kinds, rendered, row


def text_of(page):
    return typeset(read_page(page))


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<img src='https://x.example/a/spring%20sale.png?v=2'>", "spring sale.png\n"),
        ("<p><img src=a.png alt=''></p><p><img src=b.png></p>", "a.png\n\nb.png\n"),
        ("<img src=a.png><img src=b.png alt='A cat'>", "A cat\n"),
        ("<img src=a.png> says", "says\n"),
        ("<img src=dot.gif width=1 height=1><img src='data:image/gif;base64,R0lG'><img>", "\n"),
    ],
    ids=["name", "names", "text-of-another", "words", "nameless"],
)
def test_page_of_pictures_alone_is_read_as_their_names(page, text):
    assert text_of(page) == text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>One</p><p>Two</p>", "One\n\nTwo\n"),
        ("<div>One</div><div>Two</div>", "One\nTwo\n"),
        ("<p>One<br>two<br><br>three</p>", "One\ntwo\n\nthree\n"),
        ("<p>  One \n two &nbsp; three </p>", "One two three\n"),
        ("a<b>b</b> <i>c</i>d", "ab cd\n"),
        ("<h1>News</h1><p>x</p>", "News\n====\n\nx\n"),
        ("<h2>News</h2>x<h3>Less</h3>y", "News\n----\n\nx\n\nLess\n\ny\n"),
        ("<ul><li>one<li>two</ul>", "* one\n* two\n"),
        ("<ol start=9><li>one<li>two</ol>", "9. one\n10. two\n"),
        ("<ul><li>one<ol><li>a<li>b</ol><li>two</ul>", "* one\n  1. a\n  2. b\n* two\n"),
        ("<ul><li><p>a</p><p>b</p></ul>", "* a\n\n  b\n"),
        ("<blockquote><p>a</p><p>b</p></blockquote>c", "> a\n>\n> b\n\nc\n"),
        ("<pre>a\n  b</pre>", "a\n  b\n"),
        ("a<hr>b", "a\n\n" + "-" * 40 + "\n\nb\n"),
        ("<img alt='A cat' src=cat.png> says", "A cat says\n"),
        ("<title>t</title><style>p{}</style><script>x</script><p>y", "y\n"),
        ("<p>a</p><div style='display: none'>b</div><p hidden>c</p>", "a\n"),
        ("<q>so</q>", "“so”\n"),
        ("", "\n"),
    ],
    ids=[
        *(
            "paragraphs",
            "lines",
            "breaks",
            "spaces",
            "inline",
            "heading",
            "lower-headings",
            "list",
            "numbered",
            "nested",
        ),
        *("list-of-paragraphs", "quote", "verbatim", "rule", "picture", "silent", "hidden", "quoted", "empty"),
    ],
)
def test_text_reads_as_the_page_does(page, text):
    assert text_of(page) == text


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("<a href='https://example.com/a?b=1&amp;c=2'>our shop</a>", "our shop (https://example.com/a?b=1&c=2)"),
        ("<a href='https://example.com/'>example.com</a>", "example.com"),
        ("<a href='mailto:a@example.com?subject=x'>a@example.com</a>", "a@example.com"),
        ("<a href='mailto:a@example.com?subject=x'>write</a>", "write (a@example.com)"),
        ("<a href='https://example.com'><img src=x></a>", "https://example.com"),
        ("<a href='https://example.com'><img src=x alt=Shop></a>", "Shop (https://example.com)"),
        ("<a href='#top'>up</a>", "up"),
        ("<a href='javascript:alert(1)'>evil</a>", "evil"),
        ("<a name=x>here</a>", "here"),
        ("<a href='https://example.com'>a<br>b</a>", "a b (https://example.com)"),
    ],
    ids=["other", "same", "same-mail", "mail", "picture", "picture-with-alt", "anchor", "script", "no-href", "broken"],
)
def test_text_says_where_a_link_leads(link, text):
    assert text_of(f"<p>See {link}, now.</p>") == f"See {text}, now.\n"


def test_text_keeps_the_columns_of_a_table_of_data():
    page = "<table><tr><th>Item<th>Price<tr><td>Bread<td>3.20 €<tr><td>Butter &amp; jam<td>12.00 €</table>"
    assert text_of(page) == "Item            Price\nBread          3.20 €\nButter & jam  12.00 €\n"


def test_text_sets_a_wide_table_row_by_row():
    page = f"<table><tr><th>{'a' * 50}<th>{'b' * 50}<tr><td>c<td>d</table>"
    assert text_of(page) == f"{'a' * 50} | {'b' * 50}\nc | d\n"


def test_text_reads_a_table_for_layout_cell_by_cell():
    inner = "<table role=presentation><tr><td>a</td><td>b</td></tr></table>"
    assert text_of(f"<table><tr><td>{inner}</td></tr><tr><td><p>c</p></td></tr></table>") == "a\nb\n\nc\n"


PAGE = (
    "<!doctype html><html><head><title>{{ name }}</title></head><body>"
    "<h1>Hello {{ name }}</h1>{%- if items %}<p>You ordered:</p><ul>{% for item in items %}<li>{{ item }}</li>"
    "{% endfor %}</ul>{% else %}<p>Nothing.</p>{% endif -%}"
    "<table><tr><th>What</th><th>n</th></tr>{% for item in items %}<tr><td>{{ item }}</td>"
    "<td>{{ loop.index }}</td></tr>{% endfor %}</table>"
    "<p>See <a href='{{ url }}'>{{ name }}</a> {{- ' now' -}} !</p></body></html>"
)
CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["<b>x</b>", "a\nb", "  ", "{{ 7*7 }}", "\ufde0", "\ufdd7\ufdd8", "&amp;", "https://example.com"]
)


@pytest.mark.slow
@given(name=CELLS, items=st.lists(CELLS, max_size=3))
def test_text_made_once_is_the_text_made_of_each_message(name, items):
    """What is read from the template, and then filled, is what is read from the message."""
    composer = ONCE
    fields = {
        "name": name.replace("\0", ""),
        "items": [item.replace("\0", "") for item in items],
        "url": "https://x.example",
    }
    message = composer.render(row(**fields))
    assert message.text == typeset(read_page(message.html))


ONCE = Composer(campaign_of(html=PAGE), run_id="run")


def test_text_is_made_once_where_the_page_is_the_same_for_all():
    assert ONCE._bodies._derived is not None


@pytest.mark.parametrize(
    "page",
    [
        "<p>{{ name | safe }}</p>",
        "<p>{{ name | e }}</p>",
        "{% if name %}<div>{% else %}<p>{% endif %}x",
        "{% macro m() %}<p>{{ name }}</p>{% endmacro %}{{ m() }}",
        "<table>{{ name }}<tr><td>x</td></tr></table>",
        "<p {% if name %}hidden{% endif %}>{{ name }}</p>",
        "{% raw %}<p>{{ name }}</p>{% endraw %}",
    ],
    ids=["safe", "escaped", "crossing", "macro", "moved-by-browsers", "in-tag", "raw"],
)
def test_text_is_made_of_each_message_where_the_page_depends_on_the_row(page):
    composer = Composer(campaign_of(html=page), run_id="run")
    assert composer._bodies._derived is None
    message = composer.render(row(name="<i>A</i> & B"))
    assert message.text == typeset(read_page(message.html))


def test_text_is_an_alternative_of_the_page():
    message = composed({"name": "Ann"}, html="<p>Hello {{ name }}</p>")
    assert kinds(message) == ["multipart/alternative", "text/plain", "text/html"]
    assert message.get_body(("plain",)).get_content() == "Hello Ann\r\n"


def test_text_that_is_given_is_taken():
    assert rendered(text="mine", html="<p>other</p>").text == "mine\n"


def test_text_names_the_place_of_an_error_in_the_page():
    with pytest.raises(Exception, match=r"message\.html:3: 'nmae' is undefined; did you mean 'name'\?"):
        rendered({"name": "Ann"}, html="<p>\n\n{{ nmae }}</p>")


HIDING = {
    "class": ("<style>.pre { display: none !important }</style>", "class=pre"),
    "class-in-media-only": ("<style>@media print { .x { display: none } } .pre { display: none }</style>", "class=pre"),
    "id": ("<style>#pre { visibility: hidden }</style>", "id=pre"),
    "no-height": ("", 'style="max-height:0;overflow:hidden"'),
    "no-height-in-pixels": ("<style>.pre { max-height: 0px; overflow: hidden }</style>", "class=pre"),
    "outdone": ("", 'style="display: none !important; display: block"'),
}


@pytest.mark.parametrize("inline_css", [True, False])
@pytest.mark.parametrize("value", ["{{ name }}", "{{ name | safe }}"], ids=["once", "each"])
@pytest.mark.parametrize(("head", "attribute"), HIDING.values(), ids=HIDING)
def test_what_a_style_hides_is_not_in_the_text(head, attribute, value, inline_css):
    page = f"<html><head>{head}</head><body><p {attribute}>unseen</p><p>Dear {value}</p></body></html>"
    assert rendered({"name": "Ann"}, html=page, inline_css=inline_css).text == "Dear Ann\n"


@pytest.mark.parametrize(
    "head",
    [
        "<style>@media (max-width: 600px) { .desk { display: none !important } }</style>",
        "<style>.desk { display: none } .desk { display: block }</style>",
        "<style>.desk { max-height: 0 }</style>",
    ],
)
def test_what_only_some_screens_hide_is_in_the_text(head):
    page = f"<html><head>{head}</head><body><p class=desk>seen</p></body></html>"
    assert rendered(html=page).text == "seen\n"
