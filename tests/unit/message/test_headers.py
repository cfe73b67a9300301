"""Header fields: what the standard library reads is what was meant, and no line breaks a rule."""

from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.headers import (
    address_field,
    field_name_fault,
    forbidden_in,
    is_address_field,
    is_plain_field,
    name_character,
    plain_field,
    text_field,
)
from bulkmail.model.address import Address

ANN = Address("ann", "example.org")
printable = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=300)
values = st.lists(printable | st.sampled_from(["=?", "?=", "x" * 1000, "ü" * 99, "🎉", '"', "\\", "  "])).map("".join)


def unfolded(field):
    """The field's value as the standard library's older code reads it, which knows RFC 2047 §6.2."""
    return message_from_bytes(field + b"\r\n").items()[0][1].replace("\r\n", "")


def assert_lawful(field):
    assert field.isascii()
    assert field.endswith(b"\r\n")
    for number, line in enumerate(field[:-2].split(b"\r\n")):
        assert len(line) <= 998
        assert len(line) <= 76 or b"=?utf-8?" not in line
        assert line.strip()
        assert number == 0 or line.startswith(b" ")


@given(values.map(lambda value: value.strip(" ")).filter(bool))
def test_text_field_comes_back(value):
    field = text_field("Subject", value)
    assert_lawful(field)
    assert str(make_header(decode_header(unfolded(field)))) == value


@given(values)
def test_display_name_comes_back(name):
    field = address_field("To", [(name, ANN)])
    assert_lawful(field)
    read = message_from_bytes(field + b"\r\n", policy=default)["To"].addresses
    assert [mailbox.addr_spec for mailbox in read] == ["ann@example.org"]
    if "=?" not in name:
        spaces_apart = "".join(read[0].display_name.split())
        assert spaces_apart == "".join(name.split())


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("Spring", b"Subject: Spring\r\n"),
        ("Zoë", b"Subject: =?utf-8?q?Zo=C3=AB?=\r\n"),
        ("日本語", b"Subject: =?utf-8?b?5pel5pys6Kqe?=\r\n"),
        ("=?x", b"Subject: =?utf-8?b?PT94?=\r\n"),
        ("x" * 69, b"Subject: " + b"x" * 69 + b"\r\n"),
    ],
    ids=["ascii", "latin", "dense", "looks-encoded", "just-fits"],
)
def test_text_field_reads_like_this(value, field):
    assert text_field("Subject", value) == field


def test_text_field_is_folded_at_spaces_and_never_after_the_name():
    field = text_field("Subject", "word " * 40 + "end")
    assert field.startswith(b"Subject: word")
    assert all(len(line) <= 76 for line in field.split(b"\r\n"))


def test_text_field_encodes_a_word_that_no_line_can_hold():
    assert b"=?utf-8?q?xxx" in text_field("Subject", "x" * 2000)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("", b"To: ann@example.org\r\n"),
        ("Ann Example", b"To: Ann Example <ann@example.org>\r\n"),
        ("Ann, Example", b'To: "Ann, Example" <ann@example.org>\r\n'),
        ('Ann "A" \\', b'To: "Ann \\"A\\" \\\\" <ann@example.org>\r\n'),
        ("Zoë", b"To: =?utf-8?q?Zo=C3=AB?= <ann@example.org>\r\n"),
        ("a  b", b"To: a b <ann@example.org>\r\n"),
        ("a@b.example", b'To: "a@b.example" <ann@example.org>\r\n'),
    ],
)
def test_address_field_reads_like_this(name, field):
    assert address_field("To", [(name, ANN)]) == field


def test_address_field_holds_many():
    mailboxes = [(f"Person {number}", Address(f"p{number}", "example.org")) for number in range(30)]
    field = address_field("Cc", mailboxes)
    assert_lawful(field)
    read = message_from_bytes(field + b"\r\n", policy=default)["Cc"].addresses
    assert [(mailbox.display_name, mailbox.addr_spec) for mailbox in read] == [(n, a.wire) for n, a in mailboxes]


def test_address_field_keeps_a_local_part_outside_ascii_as_it_is():
    assert address_field("To", [("", Address("zoë", "example.org"))]) == "To: zoë@example.org\r\n".encode()


def test_plain_field_is_never_encoded():
    assert plain_field("List-Unsubscribe", "<https://x.example/=?u?=>") == (
        b"List-Unsubscribe: <https://x.example/=?u?=>\r\n"
    )
    with pytest.raises(ValueError, match="outside ASCII"):
        plain_field("List-Unsubscribe", "<https://x.example/ü>")
    with pytest.raises(ValueError, match="900"):
        plain_field("List-Unsubscribe", "x" * 901)


@pytest.mark.parametrize("name", ["X-Tag", "List-Id", "List-Unsubscribe", "Feedback-ID", "Sender", "X" * 76])
def test_campaign_may_set_ordinary_headers(name):
    assert field_name_fault(name) == ""


@pytest.mark.parametrize(
    "name",
    [
        "",
        "X Tag",
        "X:",
        "X\r\nY",
        "Ü",
        "X" * 77,
        "From",
        "SUBJECT",
        "bcc",
        "Content-Type",
        "Resent-To",
        "ARC-Seal",
        "Received",
    ],
)
def test_campaign_may_not_set_those_of_its_message(name):
    assert field_name_fault(name)


def test_kinds_of_headers():
    assert is_address_field("Sender")
    assert not is_address_field("List-Id")
    assert is_plain_field("LIST-UNSUBSCRIBE")
    assert not is_plain_field("List-ID")
    assert not is_plain_field("X-Tag")


@pytest.mark.parametrize(
    ("character", "called"),
    [
        ("\0", "a NUL (U+0000)"),
        ("\n", "a line feed (U+000A)"),
        ("\x07", "a control character (U+0007)"),
        ("\x9b", "a control character (U+009B)"),
        ("\ud800", "half a character (U+D800)"),
        ("\u2028", "a line separator (U+2028)"),
    ],
    ids=ascii,
)
def test_forbidden_characters_are_found_and_named(character, called):
    assert forbidden_in(f"a{character}b") == character
    assert name_character(character) == called


@pytest.mark.parametrize("value", ["", "a\tb", "\u200f\u05e9", "🎉", "\u00a0", "\u3000"], ids=ascii)
def test_ordinary_characters_are_allowed(value):
    assert forbidden_in(value) == ""
