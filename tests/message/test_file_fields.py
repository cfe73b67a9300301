"""Names of files as standard, Outlook and old mail programs read them."""

import email
import re
from email.header import decode_header, make_header
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.attachments.file_parts import file_fields
from bulkmail.model.campaign import InlineImage
from tests.message.pages import composed, kinds


def part(filename, **more):
    head = "".join(f"{name}: {value}\r\n" for name, value in file_fields(filename, "application/pdf", **more))
    return head, email.message_from_string(head + "\r\n", policy=default)


NAMES = {
    "ascii": "menu.pdf",
    "quote": 'the "menu".pdf',
    "long": "x" * 200 + ".pdf",
    "german": "Rechnung für März.pdf",
    "chinese": "请" * 70 + ".pdf",
    "emoji": "🎉 party.pdf",
    "percent": "100% *'ü'.pdf",
}


@pytest.mark.parametrize("filename", NAMES.values(), ids=NAMES)
def test_name_is_read_in_both_forms(filename):
    head, parsed = part(filename)
    assert parsed.get_filename() == filename
    raw = re.search(r'name="((?:[^"\\]|\\.)*)"', head.partition("Content-Transfer")[0], re.DOTALL)[1]
    unquoted = re.sub(r"\\(.)", r"\1", raw.replace("\r\n ", " "))
    assert str(make_header(decode_header(unquoted))) == filename


@pytest.mark.slow
@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=120))
def test_any_name_comes_back(name):
    filename = f"a{name}.pdf"
    head, parsed = part(filename)
    assert head.isascii()
    assert parsed.get_filename() == filename
    if not filename.isascii():
        assert max(map(len, head.split("\r\n"))) <= 76


def test_ascii_name_is_never_split():
    head, _ = part("a" * 200 + ".pdf")
    assert f'filename="{"a" * 200}.pdf"' in head
    assert "filename*" not in head


def test_picture_has_its_content_id():
    _, parsed = part("a.png", content_id="1@inline")
    assert parsed["Content-ID"] == "<1@inline>"
    assert parsed.get_content_disposition() == "inline"


def test_picture_that_is_named_in_several_ways_is_one_part():
    page = '<img src="a.png" alt=""><img src="./a.png" alt=""><img src="a.png?v=2" alt="">'
    images = tuple(InlineImage(source, "a.png", "image/png", b"x") for source in ("a.png", "./a.png", "a.png?v=2"))
    message = composed({}, text="x", html=page, images=images)
    assert kinds(message).count("image/png") == 1
    html = message.get_body(("html",)).get_content()
    assert len(set(re.findall('cid:[^"]+', html))) == 1
    assert html.count("cid:") == 3
