"""Style sheets written into the elements: once where that is safe, else message by message, with the same result."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.compose.composer import Composer
from bulkmail.message.html.fallbacks import carried_style, declarations, restored_style
from bulkmail.message.html.inlining import inlined, inlined_once, tidied
from bulkmail.message.template.tags import mask
from bulkmail.model.campaign import Template
from tests.message.pages import campaign_of, rendered, row


def once(page):
    found = inlined_once(tidied(mask(Template("message.html", page))))
    return None if found is None else found.unmasked()


class Elements(HTMLParser):
    """Start tags with their attributes, styles as they are meant, and the text between."""

    def __init__(self, page):
        super().__init__()
        self.said = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.is_style = tag == "style"
        found = dict(attributes)
        found["style"] = [part.strip() for part in (found.get("style") or "").split(";") if part.strip()]
        if tag != "tbody":
            self.said.append((tag, found))

    def handle_data(self, data):
        if data.strip() and not self.is_style:  # rules for what is not in this message may stay
            self.said.append(" ".join(data.split()))


PAGE = """<!DOCTYPE html>
<html><head><style>
  td, .big { color: red; font-family: "A B", serif }
  .big { font-size: 20px !important }
  p a { color: blue } a:hover { color: green }
  @media (max-width: 600px) { .big { font-size: 12px !important } }
</style></head><body><h1 class="big">{{ name }}</h1>
<table>{% for item in items %}<tr><td style="padding: {{ width }}px; color: black">{{ item }}</td></tr>
{% endfor %}</table>
{% if items %}<p>See <a href="https://example.com/?a=1&amp;b={{ name | urlencode }}">this</a></p>
{% else %}<p>No</p>{% endif %}
</body></html>"""


def test_styles_are_written_into_their_elements():
    page = once(
        "<style>p { color: red } @media print { p { color: black } } a:hover { color: blue }</style><p>{{ x }}</p>"
    )
    assert '<p style="color: red;">{{ x }}</p>' in page
    assert "@media print { p { color: black } }" in page
    assert "a:hover { color: blue; }" in page
    assert "p { color: red }" not in page.partition("@media")[0]


def test_styles_leave_the_template_tags_where_they_are():
    page = once(PAGE)
    assert re.findall(r"\{[{%].*?[%}]\}", page) == re.findall(r"\{[{%].*?[%}]\}", PAGE)
    assert "<table>{% for item in items %}<tr><td style=" in page
    assert page.count("\n") >= PAGE.count("\n")
    assert page.partition("</style>")[2].count("\n") == PAGE.partition("</style>")[2].count("\n")


# A finished page with one of the noncharacters that pages are marked with is left without styles; that is tested below.
MARKS = "".join(map(chr, range(0xFDD0, 0xFDF0)))
CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=MARKS), max_size=12)
CELLS |= st.sampled_from(["<p>", "&amp;", "{{ x }}"])


@pytest.mark.slow
@given(name=CELLS, items=st.lists(CELLS, max_size=3), width=st.integers(0, 99))
def test_styles_written_once_are_those_written_into_each_message(name, items, width):
    fields = row(name=name, items=items, width=width)
    assert Elements(ONCE.render(fields).html).said == Elements(inlined(EACH.render(fields).html)).said


def test_page_with_a_noncharacter_keeps_its_styles_where_they_are():
    page = "<style>p { color: red }</style><p>\ufdd0</p>"
    assert inlined(page) == page


ONCE = Composer(campaign_of(html=PAGE), run_id="run")
EACH = Composer(campaign_of(html=PAGE, inline_css=False), run_id="run")


@pytest.mark.parametrize(
    ("css", "page"),
    [
        ("tr:nth-child(2) { color: red }", "{% for i in items %}<p>{{ i }}</p>{% endfor %}"),
        ("p + p { color: red }", "{% for i in items %}<p>{{ i }}</p>{% endfor %}"),
        ("[href] { color: red }", "<p>{{ items }}</p>"),
        (".a { color: red }", "<p class='{{ items }}'>x</p>"),
        ("p { color: {{ items }} }", "<p>x</p>"),
        ("p { color: red }", "{{ items | safe }}"),
        ("p { color: red }", "{% if items %}<div>{% else %}<p>{% endif %}"),
        ("p { color: red }", "<p style='{% if items %}color: blue{% endif %}'>x</p>"),
        ("p { color: red }", "<p {% if items %}class=b{% endif %}>x</p>"),
        ("p { color: red ", "<p>x</p>"),
        ("} p { color: red }", "<p>x</p>"),
    ],
    ids=[
        *("counting", "beside", "attribute", "class-of-row", "sheet-of-row", "markup-of-row", "crossing"),
        *("style-of-row", "in-tag", "open", "closed-twice"),
    ],
)
def test_styles_wait_for_the_message_where_they_depend_on_the_row(css, page):
    whole = f"<html><head><style>{css}</style></head><body>{page}</body></html>"
    assert once(whole) is None
    composer = Composer(campaign_of(html=whole), run_id="run")
    before = Composer(campaign_of(html=whole, inline_css=False), run_id="run").render(row(items="red")).html
    assert composer.render(row(items="red")).html.strip() == inlined(before.strip())


@pytest.mark.parametrize("css", ["p::first-letter", "p:first-letter", "p::first-line", "a:hover, p.a > b"])
def test_styles_of_plain_selectors_are_inlined_once(css):
    assert once(f"<html><head><style>{css} {{ color: red }}</style></head><body><p>{{{{ items }}}}</p></body></html>")


def test_styles_for_print_alone_stay_where_they_are():
    page = once("<style media=print>p { color: black }</style><p>x</p>")
    assert "@media print {p { color: black }}" in page
    assert "<p>x</p>" in page


def test_color_scheme_stays_in_the_style_sheet():
    page = once("<html><head><style>:root { color-scheme: light dark; } p { color: red }</style></head><p>x</p></html>")
    assert "<style>:root { color-scheme: light dark; }</style>" in page
    assert '<p style="color: red;">' in page
    assert "data-css-inline" not in page


def test_style_attribute_that_is_broken_does_not_stop_the_others():
    page = once('<style>p { color: red }</style><p style="margin: 0; oops; padding: 1px">x</p>')
    assert '<p style="color: red;margin: 0;padding: 1px">x</p>' in page


def test_value_that_breaks_a_style_leaves_the_message_as_it_is():
    page = "<style>p { color: red }</style>{{ '' | safe }}<p style='{{ style }}'>x</p>"
    assert "p { color: red }" in rendered({"style": "oops"}, html=page).html
    assert '<p style="color: blue">x</p>' in rendered({"style": "color: blue"}, html=page).html


def test_style_sheets_of_elsewhere_are_neither_read_nor_taken_out(tmp_path):
    (tmp_path / "style.css").write_text("p { color: red }")
    for address in ("https://example.com/style.css", f"file://{tmp_path}/style.css", f"{tmp_path}/style.css"):
        link = f'<link rel="stylesheet" href="{address}">'
        page = f"<html><head>{link}<style>b {{ color: blue }}</style></head><p>x</p></html>"
        assert f'href="{address}"' in inlined(page)
        assert "<p>x</p>" in inlined(page)


def test_styles_stay_where_they_are_if_the_campaign_says_so():
    page = "<style>p { color: red }</style><p>x</p>"
    assert rendered(html=page, inline_css=False).html == page + "\n"


def test_error_in_a_page_with_styles_names_its_line():
    page = "<style>\np {\n color: red\n}\n</style>\n<p>{{ nmae }}</p>"
    with pytest.raises(Exception, match=r"message\.html:6: 'nmae' is undefined"):
        rendered({"name": "x"}, html=page)


def test_sheet_that_looks_like_a_template_is_none():
    sheet = Template("style.css", "@media print{#a{color:red}}\n@media screen{#b{color:{{ 7*7 }}}}</style>")
    page = "<link rel=stylesheet href=style.css><p>x</p>"
    html = rendered(html=page, stylesheets=(sheet,)).html
    assert "49" not in html
    assert html.count("</style>") == 1


TWICE = "<style>p { background: #222; background: linear-gradient(red, blue) } .x p { background: red }</style>"


@pytest.mark.parametrize("make", [once, inlined], ids=["once", "each"])
def test_earlier_declaration_is_kept_for_programs_that_know_no_other(make):
    page = make(f"<html><head>{TWICE}</head><body><p>a</p><div class='x'><p>b</p></div></body></html>")
    first, second = re.findall(r'<p style="([^"]*)"', page)
    assert first == "background: #222; background: linear-gradient(red, blue)"
    assert second.replace(";", "") == "background: red", "what is overridden brings nothing along"


@pytest.mark.parametrize("make", [once, inlined], ids=["once", "each"])
def test_earlier_declaration_of_an_attribute_or_a_kept_rule_stays(make):
    page = make(
        "<html><head><style>i { top: 0 } a:hover { color: red; color: rgba(1, 1, 1, .5) }</style></head>"
        '<body><i style="color: red; color: rgb(1 1 1)">a</i><a>b</a></body></html>'
    )
    assert re.search(r"color: red;\s+color: rgb\(1 1 1\)", page)
    assert re.search(r"a:hover \{ color: red;\s+color: rgba\(1, 1, 1, \.5\); \}", page)
    assert "bulkmail" not in page


@pytest.mark.parametrize("make", [once, inlined], ids=["once", "each"])
def test_rule_for_everything_is_not_written_where_no_one_sees_it(make):
    page = make(
        "<html><head><meta charset='utf-8'><title>t</title><style>* { margin: 0 } br { clear: both } a:hover { top: 0 }"
        "</style></head><body><p>a<br>b</p></body></html>"
    )
    assert '<p style="margin: 0;">' in page
    assert "margin" not in page.partition("<body")[0].partition("<head")[2]
    assert re.search(r'<br style="clear: both;?">', page)


@pytest.mark.parametrize(
    ("make", "hook"), [(once, ".ReadMsgBody"), (inlined, ".ReadMsgBody"), (inlined, "[data-ogsc] .d")]
)
def test_rules_that_match_nothing_go_unless_a_mail_program_may_match_them(make, hook):
    css = f".unused {{ top: 0 }} #outlook a {{ top: 1px }} {hook} {{ top: 2px }} p {{ top: 3px }}"
    page = make(
        f"<html><head><style>{css} @media print {{ .m {{ top: 4px }} }}</style></head><body><p>a</p></body></html>"
    )
    sheet = page.partition("<style>")[2].partition("</style>")[0]
    assert re.findall(r"top: (\d\w*)", sheet) == ["1px", "2px", "4px"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["color", "background", "width"]),
            st.sampled_from(["red", "url('a;b')", "1px", "rgba(1, 2, 3, .5)", "blue !important"]),
        ),
        max_size=6,
    )
)
def test_what_is_carried_comes_back(pairs):
    style = "; ".join(f"{name}: {value}" for name, value in pairs)
    back = list(declarations(restored_style(carried_style(style))))
    final = {}
    for name, value in pairs:
        if "important" in value or "important" not in final.get(name, ""):
            final[name] = value
    seen = {}
    for name, value in back:
        if "important" in value or "important" not in seen.get(name, ""):
            seen[name] = value
    assert seen == final
    assert {(name, value) for name, value in pairs} == set(back)
