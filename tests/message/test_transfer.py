"""Bodies as they travel: CRLF, short lines, and the text that comes out again."""

import base64
import quopri
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulkmail.message.compose.transfer_encoding import (
    base64_lines,
    encode_text,
    fault_in,
    forbidden_in_text,
    normalised,
)

texts = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=120)
    | st.sampled_from(
        ["\n", "\r\n", "\r", "From ", ".", " \n", "\t\n", "=", "x" * 76, "x" * 1200, "ü" * 60, "日本" * 40]
    )
    | st.sampled_from(["From me to you\n", ".\n", "-- \n", "--=_m_\n", "=\n", "\x0c", "\x1b"]),
    max_size=12,
).map("".join)


def decoded(encoding: bytes, body: bytes) -> str:
    data = body
    if encoding == b"base64":
        data = base64.b64decode(body, validate=False)
    elif encoding == b"quoted-printable":
        data = quopri.decodestring(body)
    return data.decode().replace("\r\n", "\n")


@pytest.mark.slow
@given(texts)
@example("From " + "x" * 71 + "\n")
@example("x" * 75 + "From you\n")
@example("From .\n")
@example("From From me\n")
@example(" " * 200 + "\n")
@example("a" * 75 + " \n")
def test_encoded_text_comes_out_again(text):
    text = normalised(text)
    encoding, body = encode_text(text)
    assert decoded(encoding, body) == text
    assert body.isascii()
    assert fault_in(body) == ""
    for line in body.split(b"\r\n"):
        assert len(line) <= 76
        assert not line.startswith(b"From ")
        assert not line.endswith((b" ", b"\t"))
    assert b"=_" not in body  # what boundaries begin with


@given(texts)
def test_encoded_text_depends_on_nothing_but_the_text(text):
    text = normalised(text)
    assert encode_text(text) == encode_text(text)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        pytest.param("Dear Ann,\n\nwe are open.\n", b"7bit", id="plain"),
        pytest.param("\ta tab\n", b"7bit", id="tab"),
        pytest.param("x" * 76 + "\n", b"7bit", id="76"),
        pytest.param("x" * 77 + "\n", b"quoted-printable", id="77"),
        pytest.param("trailing \n", b"quoted-printable", id="trailing-space"),
        pytest.param("From me\n", b"quoted-printable", id="from"),
        pytest.param(".\n", b"quoted-printable", id="lone-dot"),
        pytest.param("..\n", b"7bit", id="two-dots"),
        pytest.param("1 + 1 = 2\n", b"quoted-printable", id="equals"),
        pytest.param("form\x0cfeed\n", b"quoted-printable", id="control"),
        pytest.param("Herzliche Grüße aus dem schönen Wien\n", b"quoted-printable", id="latin"),
        pytest.param("Привет, мир\n", b"base64", id="cyrillic"),
        pytest.param("こんにちは\n", b"base64", id="japanese"),
        pytest.param("🎉\n", b"base64", id="emoji"),
        pytest.param("a party 🎉 for everyone who reads this line\n", b"quoted-printable", id="an-emoji"),
    ],
)
def test_encoding_suits_the_text(text, encoding):
    assert encode_text(text)[0] == encoding


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "a\n"),
        ("a\n\n\n", "a\n"),
        ("a\r\nb\rc\nd", "a\nb\nc\nd\n"),
        ("", "\n"),
        ("\n\n", "\n"),
        ("a  \n", "a  \n"),
    ],
    ids=ascii,
)
def test_normalised_text_has_one_kind_of_line_end_and_one_at_its_end(text, expected):
    assert normalised(text) == expected


@pytest.mark.parametrize(("text", "found"), [("a\0b", "\0"), ("ü\ud83d", "\ud83d"), ("\udc00", "\udc00")], ids=ascii)
def test_text_that_no_mail_can_hold_is_found(text, found):
    assert forbidden_in_text(text) == found


@pytest.mark.slow
@given(texts)
def test_every_other_text_can_be_held(text):
    assert forbidden_in_text(text) == ""


@given(st.binary(max_size=500))
@example(b"x" * 57)
@example(b"x" * 58)
@example(b"")
def test_base64_lines_are_those_of_the_standard_library(data):
    assert base64_lines(data) == base64.encodebytes(data).rstrip(b"\n").replace(b"\n", b"\r\n")
    assert all(len(line) <= 76 for line in base64_lines(data).split(b"\r\n"))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a\r\nb\r\n", ""),
        (b"x" * 998 + b"\r\n", ""),
        (b"a\r\n" + b"x" * 999 + b"\r\n", "line 2 is longer than 998 bytes"),
        (b"a\r\nb\nc\r\n", "line 2 has a bare LF"),
        (b"a\r\nb\rc\r\n", "line 2 has a bare CR"),
        (b"a\r\n\r\nb\0\r\n", "line 3 holds a NUL byte"),
        (b"a\r\nb", "the last line does not end in CRLF"),
        (b"", "the last line does not end in CRLF"),
        (b"a\r\n.\r\n", ""),
    ],
    ids=["right", "998", "999", "lf", "cr", "nul", "no-end", "empty", "dot"],
)
def test_fault_that_no_server_must_see_is_named_with_its_line(content, fault):
    assert fault_in(content) == fault


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\0", b"x" * 998])).map(b"".join))
def test_content_without_fault_is_lines_ending_in_crlf(content):
    is_right = re.fullmatch(rb"(?:[^\r\n\0]{0,998}\r\n)+", content) is not None
    assert (fault_in(content) == "") is is_right
