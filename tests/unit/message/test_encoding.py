"""Bodies as they travel: the encoding fits the text, and comes back as it was."""

import base64
import quopri
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.encoding import base64_lines, encode_text, fault_in, forbidden_in_text, normalised

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
awkward = st.lists(
    st.sampled_from(
        ["From me", ".", "..", " \n", "\t\n", "=", "=_", "x" * 76, "x" * 77, "x" * 999, "ü" * 40, "\r", "\n"]
    )
    | texts
).map("".join)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Dear Ann,\nhello.\n", b"7bit"),
        ("x" * 76 + "\n", b"7bit"),
        ("x" * 77 + "\n", b"quoted-printable"),
        ("From me\n", b"quoted-printable"),
        (".\n", b"quoted-printable"),
        ("a \n", b"quoted-printable"),
        ("a\t\n", b"quoted-printable"),
        ("1 = 1\n", b"quoted-printable"),
        ("Liebe Zoë,\nviele Grüße aus dem schönen Wien an alle.\n", b"quoted-printable"),
        ("Здравствуйте, мир\n", b"base64"),
        ("日本語の手紙\n", b"base64"),
        ("🎉\n", b"base64"),
    ],
    ids=ascii,
)
def test_encoding_suits_the_text(text, encoding):
    assert encode_text(text)[0] == encoding


@given(awkward)
def test_encoded_text_comes_back_and_is_lawful(text):
    text = normalised(text)
    encoding, body = encode_text(text)
    decoded = {b"7bit": bytes, b"quoted-printable": quopri.decodestring, b"base64": base64.b64decode}[encoding](body)
    assert decoded.decode().replace("\r\n", "\n") == text
    lines = body.split(b"\r\n")
    assert lines.pop() == b""
    assert body.isascii()
    assert max(map(len, lines)) <= 76
    for line in lines:
        assert not re.search(rb"[\r\n\0]|[ \t]$|^From |^\.$", line)
        assert not re.search(rb"=(?![0-9A-F]{2}|$)", line) or encoding == b"base64"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a", "a\n"),
        ("a\n\n\n", "a\n"),
        ("a\r\nb\rc", "a\nb\nc\n"),
        ("", "\n"),
        ("\n", "\n"),
        ("a\u2028b", "a\u2028b\n"),
    ],
    ids=ascii,
)
def test_normalised_text_has_line_feeds_and_one_at_its_end(text, wanted):
    assert normalised(text) == wanted


@given(st.binary(max_size=400))
def test_base64_lines_are_what_the_standard_library_writes(data):
    assert base64_lines(data) == base64.encodebytes(data).rstrip(b"\n").replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    ("text", "bad"), [("a\0b", "\0"), ("\ud800", "\ud800"), ("ok\r\n\u2028\x07", "")], ids=["nul", "surrogate", "fine"]
)
def test_forbidden_in_text_finds_what_no_letter_can_hold(text, bad):
    assert forbidden_in_text(text) == bad


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"A: b\r\n\r\nc\r\n", ""),
        (b"x" * 998 + b"\r\n", ""),
        (b"a\r\nb\0\r\n", "line 2 holds a NUL octet"),
        (b"a\r\nb\nc\r\n", "line 2 has a bare LF"),
        (b"a\rb\r\n", "line 1 has a bare CR"),
        (b"a\r\n" + b"x" * 999 + b"\r\n", "line 2 is longer than 998 octets"),
        (b"a", "the last line does not end in CRLF"),
        (b"", "the last line does not end in CRLF"),
    ],
)
def test_fault_in_names_the_line(content, fault):
    assert fault_in(content) == fault


def test_encoding_remembers_no_more_lines_than_it_should():
    from bulkmail.message import encoding

    for number in range(9000):
        encode_text(f"line {number}\n")
    assert len(encoding._quoted) <= encoding._QuotedLines._MOST
    encode_text("z" * 2000 + "\n")
    assert "z" * 2000 not in encoding._quoted
