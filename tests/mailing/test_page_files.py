"""Messages that a program makes: what they bring along."""

import re

import pytest

import bulkmail
from tests.message.pages import rendered


def make_campaign(**parts):
    return bulkmail.compose(from_="a@example.org", subject="Hi", **parts)


def test_message_brings_pictures_and_style_sheets_of_its_folder(tmp_path):
    (tmp_path / "logo.png").write_bytes(b"PNG")
    (tmp_path / "style.css").write_text("p { color: red }")
    page = "<link rel=stylesheet href=style.css><p>x</p><img src=logo.png>"
    made = make_campaign(html=page, folder=tmp_path)
    assert [(image.source, image.content_type, image.content) for image in made.images] == [
        ("logo.png", "image/png", b"PNG")
    ]
    assert made.stylesheets == (bulkmail.Template("style.css", "p { color: red }"),)
    assert make_campaign(html=page).images == ()


def test_message_says_which_picture_is_missing(tmp_path):
    with pytest.raises(bulkmail.ConfigError, match=r"the picture .*no\.png cannot be read: No such file"):
        make_campaign(html="<img src=no.png>", folder=tmp_path)


def test_message_takes_files_of_all_and_of_rows(tmp_path):
    (tmp_path / "menu.pdf").write_bytes(b"%PDF")
    own = bulkmail.RowAttachment(bulkmail.Template("x", "{{ x }}"), str(tmp_path))
    made = make_campaign(
        text="x",
        attachments=[tmp_path / "menu.pdf", "{{ id }}.pdf", bulkmail.Attachment("a.txt", "text/plain", b"a"), own],
        folder=tmp_path,
    )
    assert [(each.filename, each.content_type) for each in made.attachments] == [
        *[("menu.pdf", "application/pdf"), ("a.txt", "text/plain")],
    ]
    assert [(each.path.text, each.root) for each in made.row_attachments] == [
        *[("{{ id }}.pdf", str(tmp_path)), ("{{ x }}", str(tmp_path))],
    ]


def test_message_may_be_markdown_or_mjml_alone():
    assert make_campaign(markdown="# x").markdown is not None
    assert make_campaign(mjml="<mjml/>").mjml is not None
    with pytest.raises(bulkmail.ConfigError, match="needs a text"):
        make_campaign(preheader="x")


@pytest.fixture
def invoices(tmp_path):
    """A message with a file of each row, of which only the first is there."""
    (tmp_path / "1.txt").write_text("one")
    return make_campaign(markdown="# x", attachments=["{{ id }}.txt"], folder=tmp_path)


async def test_message_with_files_of_rows_is_sent(invoices):
    rows = [{"email": "a@example.org", "id": "1"}, {"email": "b@example.org", "id": "2"}]
    report = await bulkmail.send(invoices, rows, relay="null:")
    assert (report.accepted, report.tally.rows) == (1, 2)


PLACES = {
    "srcset": '<img src="https://example.com/a.png" alt="" srcset="a.png 2x, https://example.com/b.png 3x">',
    "source": '<picture><source srcset="a.png"><img src="https://example.com/a.png" alt=""></picture>',
    "poster": '<video poster="a.png"></video>',
    "style": "<p style=\"background: url('a.png')\">x</p>",
    "style-escaped": '<p style="background: url(&quot;a.png&quot;)">x</p>',
    "sheet": "<style>p{background-image:url(a.png)}</style><p>x</p>",
    "media": "<style>@media print{p{background-image:url( a.png )}}</style><p>x</p>",
}


@pytest.mark.parametrize("page", PLACES.values(), ids=PLACES)
def test_pictures_in_every_place_are_brought_along(tmp_path, page):
    (tmp_path / "a.png").write_bytes(b"PNG")
    made = make_campaign(html=page, folder=tmp_path)
    assert [(image.source, image.content) for image in made.images] == [("a.png", b"PNG")]
    html = rendered(html=page, images=made.images).html
    assert "cid:" in html
    assert not re.search(r"[^/]a\.png", html)
    assert make_campaign(html=page, folder=tmp_path / "elsewhere").images == ()


def test_pictures_of_a_style_sheet_are_looked_for_beside_it(tmp_path):
    (tmp_path / "css").mkdir()
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "bg.png").write_bytes(b"PNG")
    (tmp_path / "css" / "mail.css").write_text("p { background: url(../img/bg.png); src: url(font.woff) }")
    page = '<link rel=stylesheet href="css/mail.css"><p>x</p>'
    made = make_campaign(html=page, folder=tmp_path)
    assert [image.source for image in made.images] == ["img/bg.png"]
    assert "url(cid:" in rendered(html=page, images=made.images, stylesheets=made.stylesheets).html


def test_fonts_and_pictures_that_rows_name_are_not_looked_for(tmp_path):
    page = "<style>@font-face{src:url(a.woff)}</style><p style='background:url({{ x }}.png)'>x</p>"
    assert make_campaign(html=page, folder=tmp_path).images == ()
