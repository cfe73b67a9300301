"""What a page brings along or has put in: pictures, style sheets, the preheader; and a calendar beside it."""

import pytest

from bulkmail.message.attachments.invitation import escape_value, folded
from bulkmail.message.compose.bodies import local_names
from bulkmail.message.compose.composer import Composer
from bulkmail.model.campaign import Attachment, InlineImage, Template
from tests.message.pages import campaign_of, composed, kinds, rendered, row

LOGO = InlineImage("img/logo.png", "logo.png", "image/png", b"\x89PNG" + bytes(9000))


def test_picture_comes_along_and_is_shown():
    message = composed(html="<p>x</p><img alt=Logo src='img/logo.png'>", images=(LOGO,))
    assert kinds(message) == [
        *("multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"),
    ]
    related = list(message.iter_parts())[1]
    assert related.get_param("type") == "text/html"
    page, picture = related.iter_parts()
    content_id = picture["Content-ID"].strip("<>")
    assert f'src="cid:{content_id}"' in page.get_content()
    assert picture.get_content() == LOGO.content
    assert picture.get_content_disposition() == "inline"
    assert picture.get_filename() == "logo.png"


def test_picture_is_shared_between_messages():
    composer = Composer(campaign_of(html="<img src=img/logo.png>", images=(LOGO,)), run_id="run")
    one, two = (composer.compose(row(), row=n, forward_path="ann@example.com", date=0.0) for n in (1, 2))
    shared = [buffer for buffer in one.buffers if any(buffer is other for other in two.buffers)]
    assert max(map(len, shared)) > len(LOGO.content)


def test_picture_in_markdown_and_in_a_part_comes_along():
    part = Template("head.html", "<table background='img/logo.png'><tr><td>x</td></tr></table>")
    for parts in ({"markdown": "![x](img/logo.png)"}, {"html": "{% include 'head.html' %}", "partials": (part,)}):
        assert "cid:" in rendered(images=(LOGO,), **parts).html


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("logo.png", "logo.png"),
        ("my%20logo.png?v=1#x", "my logo.png"),
        ("./a/b.png", "./a/b.png"),
        ("p/{{ id }}.png", None),  # each row's own
        ("https://example.com/a.png", None),
        ("//example.com/a.png", None),
        ("data:image/png;base64,xx", None),
        ("cid:x", None),
        ("{{ picture }}", None),
        ("", None),
    ],
)
def test_local_pictures_are_reported_from_those_of_elsewhere(source, file):
    images, _ = local_names(campaign_of(html=f'<img src="{source}">'))
    assert images == ({} if file is None else {source: file})


def test_style_sheet_of_the_folder_is_put_in():
    sheet = Template("style.css", "p { color: red }\n@media print { p { color: black } }")
    page = "<html><head><link rel='stylesheet' href='style.css' media='screen'></head><body><p>x</p></body></html>"
    assert local_names(campaign_of(html=page)) == ({}, {"style.css": "style.css"})
    html = rendered(html=page, stylesheets=(sheet,)).html
    assert '<p style="color: red;">x</p>' in html
    assert "@media print" in html
    assert "<link" not in html


# --- preheader


@pytest.mark.parametrize(
    "page",
    [
        "<!doctype html><html><head><title>t</title></head><body class=a><p>x</p></body></html>",
        "<!doctype html><html><head><title>t</title></head><p>x</p></html>",
        "<p>x</p>",
        "<!doctype html><p>x</p>",
    ],
    ids=["body", "head", "piece", "doctype"],
)
def test_preheader_is_the_first_thing_in_the_page_and_hidden(page):
    message = rendered({"name": "A < B"}, html=page, preheader="For {{ name }}")
    before, after = message.html.split("For A &lt; B")
    assert "x</p>" in after
    assert before.rpartition("<div")[2].startswith(' style="display: none')
    assert message.html.startswith(page[:15]) == page.startswith("<!doctype")
    assert message.text == "x\n"


def test_preheader_goes_into_the_page_that_is_extended():
    base = Template("base.html", "<html><body>{% block message %}{% endblock %}</body></html>")
    page = '{% extends "base.html" %}{% block message %}<p>x</p>{% endblock %}'
    html = rendered(html=page, preheader="Soon", partials=(base,)).html
    assert html.index("<body>") < html.index("Soon") < html.index("<p>x</p>")


def test_error_in_the_preheader_names_it():
    with pytest.raises(Exception, match=r"message\.preheader:1: 'nmae' is undefined"):
        rendered({"name": "x"}, html="<p>x</p>", preheader="{{ nmae }}")


# --- calendar

EVENT = """BEGIN:VCALENDAR
VERSION:2.0
METHOD:REQUEST
BEGIN:VEVENT
SUMMARY:{{ title }}
ATTENDEE;CN="{{ name }}":mailto:{{ email }}

END:VEVENT
END:VCALENDAR
"""


def test_calendar_is_an_alternative_and_a_file():
    pdf = Attachment("a.pdf", "application/pdf", b"%PDF")
    message = composed({"title": "Tea", "name": "Ann"}, text="x", calendar=EVENT, attachments=(pdf,))
    assert kinds(message) == [
        *("multipart/mixed", "multipart/alternative", "text/plain", "text/calendar", "application/pdf"),
        "text/calendar",
    ]
    alternative, file = (part for part in message.walk() if part.get_content_type() == "text/calendar")
    assert alternative.get_param("method") == file.get_param("method") == "REQUEST"
    assert alternative.get_content_disposition() is None
    assert file.get_filename() == "invite.ics"
    assert alternative.get_content() == file.get_content()
    assert "SUMMARY:Tea\r\n" in file.get_content()
    assert "\r\n\r\n" not in file.get_content()


def test_no_cell_adds_a_property_to_a_calendar():
    evil = 'Tea\r\nATTACH:http://evil.example\nX:1;2,3\\4"\u2028'
    message = composed({"title": evil, "name": evil}, text="x", calendar=EVENT)
    calendar = message.get_body(("plain",)) and next(
        part for part in message.walk() if part.get_content_type() == "text/calendar"
    )
    lines = calendar.get_content().replace("\r\n ", "").split("\r\n")
    assert [line.partition(":")[0].partition(";")[0] for line in lines if line] == [
        *("BEGIN", "VERSION", "METHOD", "BEGIN", "SUMMARY", "ATTENDEE", "END", "END"),
    ]
    assert lines[4] == "SUMMARY:Tea\\nATTACH:http://evil.example\\nX:1\\;2\\,3\\\\4'\\n"


def test_calendar_lines_are_folded_between_characters():
    text = folded("SUMMARY:" + "ü" * 100)
    assert all(len(line.encode()) <= 75 for line in text.split("\n"))
    assert text.replace("\n ", "") == "SUMMARY:" + "ü" * 100 + "\n"


def test_calendar_leaves_what_is_called_safe():
    from markupsafe import Markup

    assert escape_value(Markup("a;b")) == "a;b"
    assert escape_value(7) == "7"


def test_calendar_without_a_method_says_none():
    message = composed(text="x", calendar="BEGIN:VCALENDAR\nEND:VCALENDAR")
    calendar = [part for part in message.walk() if part.get_content_type() == "text/calendar"]
    assert [part.get_param("method") for part in calendar] == [None, None]
