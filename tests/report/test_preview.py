"""A message before it is sent: as text for a terminal and as files."""

from __future__ import annotations

import email
import email.policy
import stat
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.errors import ConfigError
from bulkmail.preview.message_parts import LONGEST_LINE, MOST_LINES, ShownFile, plain_view, take_parts
from bulkmail.preview.preview_files import file_stem, write_message

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


def make_message(text: str | None = "Dear Ann,\n\nhello.\n", html: str | None = None) -> EmailMessage:
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"] = "Shop <shop@example.com>"
    message["To"] = "Жанна <ann@example.org>"
    message["Subject"] = "Hello Ann"
    if text is not None:
        message.set_content(text)
    if html is not None and text is not None:
        message.add_alternative(html, subtype="html")
    elif html is not None:
        message.set_content(html, subtype="html")
    return message


def ready(message: EmailMessage) -> Message:
    content = message.as_bytes()
    return Message(Envelope("shop@example.com", "ann@example.org"), "<1@example.com>", [content[:20], content[20:]])


def parsed(content: bytes) -> EmailMessage:
    return email.message_from_bytes(content, policy=email.policy.default)


def test_view_shows_headers_message_and_enclosures() -> None:
    message = make_message(html="<p>Dear Ann</p>\n")
    message["X-Campaign"] = "spring"
    message.add_attachment(b"x" * 12_345, maintype="application", subtype="pdf", filename="map, großer.pdf")
    assert plain_view(message) == (
        "From:      Shop <shop@example.com>\n"
        "To:        Жанна <ann@example.org>\n"
        "Subject:   Hello Ann\n"
        "X-Campaign: spring\n"
        "\n"
        "Dear Ann,\n"
        "\n"
        "hello.\n"
        "\n"
        "Also as HTML (16 bytes).\n"
        "\n"
        "Enclosed:\n"
        "  map, großer.pdf  application/pdf, 12.3 KB\n"
    )


@pytest.mark.parametrize(
    ("message", "note"),
    [
        pytest.param(make_message(None, "<p>hello</p>"), "(no text part: the message is HTML only)", id="html-only"),
        pytest.param(parsed(b"Subject: x\nContent-Type: image/png\n\nx"), "(the message has no text)", id="neither"),
    ],
)
def test_view_says_what_is_missing(message: EmailMessage, note: str) -> None:
    assert note in plain_view(message).splitlines()


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1_000, "1.0 KB"), (999_949, "999.9 KB"), (999_950, "1.0 MB")],
)
def test_view_says_sizes_as_people_do(size: int, said: str) -> None:
    message = make_message()
    message.add_attachment(b"x" * size, maintype="application", subtype="octet-stream")
    assert plain_view(message).endswith(f"  (no name)  application/octet-stream, {said}\n")


def test_view_keeps_columns_and_cuts_what_is_too_long() -> None:
    message = make_message(
        "  1  apples    3.20\n\t2\tpears\n" + "x" * (LONGEST_LINE + 1) + "\n" + "line\n" * MOST_LINES
    )
    lines = plain_view(message).splitlines()
    assert lines[4] == "  1  apples    3.20"
    assert lines[5] == "        2       pears"
    assert lines[6] == "x" * (LONGEST_LINE - 1) + "…"
    assert lines[-1] == "… and 3 more lines"


@given(hostile=st.text(st.characters(codec="utf-8") | st.sampled_from(ESCAPE)))
def test_view_never_steers_a_terminal(hostile: str) -> None:
    message = parsed(
        f"From: {hostile}\nX\x1b[2J: 1\nSubject: =?utf-8?q?=1B]0;owned=07?=\n".encode()
        + b'Content-Type: multipart/mixed; boundary="b"\n\n--b\n\n'
        + hostile.encode()
        + f'\n--b\nContent-Disposition: attachment; filename="{hostile}"\n\nx\n--b--\n'.encode()
    )
    assert all(character == "\n" or _harmless(character) for character in plain_view(message))


def _harmless(character: str) -> bool:
    """As `printable()` has it: no control, no line separator, no bidirectional override."""
    return not (
        ord(character) < 0x20
        or 0x7F <= ord(character) <= 0x9F
        or character in "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    )


def test_view_leaves_markup_of_a_text_part_as_text() -> None:
    assert "<script>alert(1)</script>" in plain_view(make_message("<script>alert(1)</script>\n"))


def test_view_bounds_the_headers() -> None:
    message = parsed(b"".join(b"X-%d: 1\n" % number for number in range(5_000)) + b"\nhello\n")
    assert len(plain_view(message).splitlines()) < 60


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\x00\x1b", id="bytes"),
        pytest.param(b"From: <\nTo: =?x?b?!!?=\nDate: 99\n\nhello", id="broken-headers"),
        pytest.param(b"Content-Type: text/plain; charset=nonsense\n\nhello", id="unknown-charset"),
        pytest.param(b"Content-Type: text/plain; charset=hex\n\nhello", id="charset-that-is-none"),
        pytest.param(b'Content-Type: text/plain; charset="a\0b"\n\nhello', id="charset-with-nul"),
        pytest.param(b"Content-Type: text/plain; charset=idna\n\n\xff", id="charset-without-replace"),
        pytest.param(b"Content-Transfer-Encoding: base64\n\n!!!=!", id="broken-base64"),
        pytest.param(b"Content-Type: multipart/mixed\n\nhello", id="no-boundary"),
        pytest.param(b"Content-Type: multipart/mixed; boundary=b\n\n--b--\n", id="no-parts"),
        pytest.param(b"Content-Disposition: attachment; filename*=x'y'%ff%1b\n\n", id="broken-filename"),
    ],
)
def test_view_accepts_any_message(content: bytes) -> None:
    view = plain_view(parsed(content))
    assert view.endswith("\n")
    assert "\x1b" not in view


def test_view_says_so_when_the_email_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> str:
        raise IndexError("list index out of range")

    message = parsed(b"Subject: hello\nContent-Type: image/png\n\nx")
    monkeypatch.setattr("email.headerregistry.HeaderRegistry.__call__", fail)
    monkeypatch.setattr(EmailMessage, "get_content_type", lambda self: "image/png")
    monkeypatch.setattr(EmailMessage, "get_content_disposition", lambda self: None)
    view = plain_view(message)
    assert "Subject:   (cannot be read)" in view
    assert "  (cannot be read)  image/png, 1 byte" in view


def test_parts_takes_an_attached_text_for_an_enclosure() -> None:
    message = make_message("the message\n")
    message.add_attachment("not the message\n", filename="notes.txt")
    message.add_attachment(make_message("nor this\n", "<p>nor this</p>\n"), filename="older.eml")
    parts = take_parts(message)
    assert (parts.text, parts.html) == ("the message\n", None)
    assert parts.enclosures == (
        ShownFile("notes.txt", "text/plain", 16),
        ShownFile("older.eml", "message/rfc822", 25),
    )


def test_files_hold_the_message_and_its_parts(tmp_path: Path) -> None:
    message = ready(make_message(html='<!DOCTYPE html>\n<meta charset="iso-8859-1">\n<p>Grüße</p>\n'))
    paths = write_message(message, tmp_path / "out", "0001-ann@example.org")
    assert [path.name for path in paths] == [f"0001-ann@example.org{suffix}" for suffix in (".eml", ".txt", ".html")]
    eml, text, html = paths
    assert eml.read_bytes() == b"".join(message.buffers)
    assert text.read_text() == "Dear Ann,\n\nhello.\n"
    page = html.read_bytes().decode("utf-8-sig")
    assert page.startswith('<!DOCTYPE html>\n<meta http-equiv="Content-Security-Policy" content="script-src \'none\';')
    assert page.endswith('>\n<meta charset="iso-8859-1">\n<p>Grüße</p>\n')
    assert html.read_bytes().startswith(b"\xef\xbb\xbf")
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in paths)


def test_files_are_only_of_parts_that_there_are(tmp_path: Path) -> None:
    assert [path.suffix for path in write_message(ready(make_message()), tmp_path, "a")] == [".eml", ".txt"]
    assert [path.suffix for path in write_message(ready(make_message(None, "<p>x</p>")), tmp_path, "b")] == [
        ".eml",
        ".html",
    ]


def test_html_file_forbids_scripts_before_anything_else(tmp_path: Path) -> None:
    *_, page = write_message(ready(make_message(None, "<script>alert(1)</script><p>x</p>\n")), tmp_path, "a")
    assert page.read_text(encoding="utf-8-sig").startswith('<meta http-equiv="Content-Security-Policy"')


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        pytest.param("0001-ann@example.org", "0001-ann@example.org", id="plain"),
        pytest.param("../../etc/passwd", "_.._etc_passwd", id="traversal"),
        pytest.param("..", "message", id="parent"),
        pytest.param("", "message", id="empty"),
        pytest.param("-rf\x1b[2J\0\n", "rf_2J", id="option-and-escapes"),
        pytest.param("Жанна Ö", "Жанна_Ö", id="letters-of-any-script"),
    ],
)
def test_file_stem_is_a_plain_name(stem: str, name: str) -> None:
    assert file_stem(stem) == name


@pytest.mark.slow
@given(st.text(st.characters(codec="utf-8") | st.sampled_from("./\\\0:"), max_size=300))
def test_file_stem_never_leaves_the_folder(text: str) -> None:
    stem = file_stem(text)
    assert 1 <= len(stem.encode()) <= 120
    assert not set(stem) & set('/\\\0:*?"<>|\n\r')
    assert stem[0] not in ".-"


@pytest.mark.parametrize("folder", ["file/out", "nul\0"], ids=["below-a-file", "nul"])
def test_files_say_where_they_cannot_be_written(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*/a\.eml: .") as caught:
        write_message(ready(make_message()), tmp_path / folder, "a")
    assert caught.value.hint == "name a folder that you may write to, with --out FOLDER"
    assert "\0" not in str(caught.value)


def test_html_file_has_the_pictures_of_its_message_inside(tmp_path: Path) -> None:
    message = make_message(
        html="<img src='cid:1@inline'><p style=\"background: url('cid:1@inline')\">x <img src='cid:2@inline'>"
    )
    page = message.get_body(("html",))
    assert page is not None
    page.add_related(b"PNG", "image", "png", cid="<1@inline>")
    html = next(path for path in write_message(ready(message), tmp_path, "a") if path.suffix == ".html").read_text()
    assert html.count("data:image/png;base64,UE5H") == 2
    assert "cid:1@inline" not in html
    assert "cid:2@inline" in html
