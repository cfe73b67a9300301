"""Messages as one page: what it shows, what hostile messages come to, how many it tolerates."""

from __future__ import annotations

import re
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from bulkmail.message.html import framed as framing
from bulkmail.message.html.framed import Picture, framed
from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.errors import ConfigError
from bulkmail.preview.preview_page import MOST_MESSAGES, Album, sheet_of


def ready(text: str | None = "Dear Ann\n", html: str | None = "<p>Dear Ann</p>\n", **headers: str) -> Message:
    message = EmailMessage()
    for name, value in {"From": "shop@shop.example", "To": "Ann <ann@example.com>", "Subject": "Hello"}.items():
        message[name] = headers.get(name.lower(), value)
    if text is not None:
        message.set_content(text)
        if html is not None:
            message.add_alternative(html, subtype="html")
    elif html is not None:
        message.set_content(html, subtype="html")
    return Message(Envelope("shop@shop.example", "ann@example.com"), "<1@x>", [message.as_bytes()])


def page_of(*messages: Message, folder: Path, chosen: int = 0) -> LexborHTMLParser:
    album = Album()
    for number, message in enumerate(messages, 1):
        album.add(message, f"row {number}, people.csv:{number + 1}")
    return LexborHTMLParser(album.write(folder, "page", title="Preview", chosen=chosen).read_text("utf-8"))


def test_page_shows_messages_that_lead_to_each_other(tmp_path: Path) -> None:
    page = page_of(ready(), ready(subject="Second"), ready(subject="Third"), folder=tmp_path, chosen=1)
    articles = page.css("article")
    assert [article.attributes["id"] for article in articles] == ["message-1", "message-2", "message-3"]
    assert [article.attributes.get("class") for article in articles] == [None, "chosen", None]
    for number, article in enumerate(articles, 1):
        before, after = article.css_first("[rel=prev]"), article.css_first("[rel=next]")
        assert (before and before.attributes["href"]) == (f"#message-{number - 1}" if number > 1 else None)
        assert (after and after.attributes["href"]) == (f"#message-{number + 1}" if number < 3 else None)
    assert (tmp_path / "page.html").stat().st_mode & 0o077 == 0


def test_page_of_one_message_needs_no_list(tmp_path: Path) -> None:
    page = page_of(ready(), folder=tmp_path)
    assert page.css_first("nav") is None
    assert page.css_first("[rel=next]") is None


def test_page_asks_nothing_of_the_network_and_runs_only_its_own_script(tmp_path: Path) -> None:
    page = page_of(ready(html='<img src="https://t.example/1.gif"><script>x</script>'), folder=tmp_path)
    policy = page.css_first("meta[http-equiv=Content-Security-Policy]").attributes["content"] or ""
    assert policy.startswith("default-src 'none';")
    assert re.search(r"script-src 'sha256-[\w+/=]+'$", policy)
    (frame,) = page.css("iframe")
    assert frame.attributes["sandbox"] in (None, "")  # nothing is allowed
    assert "t.example" not in (page.html or "")
    assert not page.css("link, [src]")


def test_page_of_a_hostile_message_shows_its_markup_as_text(tmp_path: Path) -> None:
    evil = "</title></iframe></pre><script>alert(1)</script>"
    page = page_of(
        ready(f"{evil}\n", f"<p>{evil}</p>", subject=evil, to=f'"{evil}" <ann@example.com>'), folder=tmp_path
    )
    assert len(page.css("script")) == 1
    assert page.css_first("h2").text() == evil
    assert page.css_first("pre").text() == f"{evil}\n"


def test_page_says_what_is_not_there(tmp_path: Path) -> None:
    page = page_of(ready(html=None), ready(text=None), folder=tmp_path)
    assert [note.text() for note in page.css(".empty")] == [
        "This message has no HTML part: its text is all there is.",
        "This message has no text part.",
    ]


@pytest.mark.slow
def test_album_shows_up_to_some_messages_and_needs_one(tmp_path: Path) -> None:
    album = Album()
    with pytest.raises(ConfigError, match="no message"):
        album.write(tmp_path, "page", title="x")
    for _ in range(MOST_MESSAGES):
        assert not album.is_full
        album.add(ready(), "row 1")
    assert album.is_full


@pytest.mark.slow
def test_sheet_does_not_show_a_page_of_many_megabytes() -> None:
    sheet = sheet_of(ready(html="<p>" + "word " * 500_000), "row 1")
    assert sheet.html is None
    assert "too long" in sheet.no_html


LOGO = {"logo@x": Picture("image/png", b"abc")}


def test_frame_has_the_pictures_of_the_message_in_it() -> None:
    html, remote = framed('<img src="cid:logo@x" alt="L"><p style="background:url(cid:logo@x)">', LOGO)
    assert html.count("data:image/png;base64,YWJj") == 2
    assert remote == 0


@pytest.mark.parametrize(
    "html",
    [
        '<img src="https://t.example/1.gif">',
        '<img src=" //t.example/1.gif">',
        '<img src="1.gif" srcset="https://t.example/2.gif 2x">',
        '<table background="http://t.example/1.png"><tr><td>x</table>',
        "<p style=\"background: URL( 'https://t.example/1.png' )\">",
        "<style>p { background: url(https://t.example/1.png) }</style>",
        '<link rel="stylesheet" href="https://t.example/a.css">',
        '<input type="image" src="https://t.example/1.png">',
    ],
)
def test_frame_counts_and_leaves_out_what_the_network_has(html: str) -> None:
    cleaned, remote = framed(html, {})
    assert "t.example" not in cleaned
    assert remote == 1


@pytest.mark.parametrize(
    "html",
    [
        "<script>alert(1)</script>",
        '<p onclick="alert(1)">x',
        '<meta http-equiv="refresh" content="0;url=https://t.example">',
        '<iframe src="https://t.example"></iframe>',
        '<base href="https://t.example">',
        '<style>@import "https://t.example/a.css"; p { color: red }</style>',
        '<a href="https://shop.example" ping="https://t.example">x</a>',
    ],
)
def test_frame_leaves_out_what_would_run_or_lead_away(html: str) -> None:
    cleaned, _ = framed(html, {})
    assert "t.example" not in cleaned
    assert "alert" not in cleaned


def test_frame_keeps_links_and_sends_them_to_a_window_that_may_not_open() -> None:
    html, _ = framed('<a href="https://shop.example/a?b=1">x</a>', {})
    assert '<base target="_blank">' in html
    assert 'href="https://shop.example/a?b=1"' in html


@pytest.mark.slow
@given(st.text(max_size=200) | st.text("<>/='\" stylescriptimgbody!-[]", max_size=200))
def test_frame_accepts_any_text(html: str) -> None:
    cleaned, remote = framed(html, LOGO)
    assert "<script" not in cleaned.lower()
    assert remote >= 0


@pytest.mark.slow
def test_page_that_a_parser_would_take_minutes_for_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "LexborHTMLParser", None)  # anyone who calls it fails
    sheet = sheet_of(ready(html="<div>" * 100_000), "row 1")
    assert sheet.html is None
    assert sheet.no_html == "The HTML of this message has over 2,000 elements one within the other: too many."
    assert (
        sheet_of(ready(html="x" * 3_000_000), "row 1").no_html
        == "The HTML of this message is too long to be shown here."
    )
