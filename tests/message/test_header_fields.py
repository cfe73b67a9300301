"""Header fields as bytes, held against the parsers of the standard library."""

import re
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import default
from email.utils import getaddresses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulkmail.message.header.headers import (
    address_field,
    field_name_fault,
    forbidden_in,
    is_address_field,
    is_plain_field,
    name_character,
    plain_field,
    text_field,
)
from bulkmail.model.recipient import Address

ANN = Address("ann", "example.org")
values = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=200).map(
    lambda text: text.strip(" ")
)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,49}", fullmatch=True)


def lines(field: bytes) -> list[bytes]:
    """The lines of a field, checked for what holds of every line of every field."""
    assert field.endswith(b"\r\n")
    found = field.removesuffix(b"\r\n").split(b"\r\n")
    assert all(line.strip() for line in found)
    assert all(b"\r" not in line and b"\n" not in line and len(line) <= 998 for line in found)
    assert all(line.startswith(b" ") for line in found[1:])
    return found


def unfolded(field: bytes) -> str:
    """The value as RFC 5322 §2.2.3 unfolds it."""
    return b"".join(lines(field)).decode().partition(": ")[2]


def words(field: bytes) -> list[str]:
    return re.findall(r"=\?[^ ]*\?=", unfolded(field))


# --- free text -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(name=names, value=values.filter(bool))
@example(name="Subject", value="x" * 1200)
@example(name="Subject", value="a" + " " * 1200 + "b")
@example(name="Subject", value="=?utf-8?q?a?=")
@example(name="X" * 50, value="🎉" * 50)
def test_text_field_is_read_back_as_it_was(name, value):
    field = text_field(name, value)
    assert field.isascii()
    for line in lines(field):
        assert len(line) <= 76 or b"=?" not in line
    assert str(make_header(decode_header(unfolded(field)))) == value
    if name.lower() in ("subject", "comments"):
        assert message_from_bytes(field + b"\r\n", policy=default)[name] == value


@given(value=values.filter(bool))
def test_subject_is_read_back_by_the_newer_parser(value):
    assert message_from_bytes(text_field("Subject", value) + b"\r\n", policy=default)["Subject"] == value


def test_text_field_of_plain_text_stands_as_it_is():
    assert text_field("Subject", "News of the week") == b"Subject: News of the week\r\n"


def test_text_field_is_folded_between_words():
    field = text_field("Subject", "word " * 40 + "end")
    assert max(map(len, lines(field))) <= 78
    assert unfolded(field) == "word " * 40 + "end"


def test_text_field_keeps_a_long_word_whole_while_a_line_can_hold_it():
    field = text_field("Subject", "see " + "x" * 890)
    assert [len(line) for line in lines(field)] == [12, 891]


def test_text_field_encodes_a_word_that_no_line_can_hold():
    assert len(words(text_field("Subject", "x" * 1000))) > 10


def test_text_field_is_quoted_for_latin_and_base64_for_other_scripts():
    assert text_field("Subject", "Grüße aus Wien") == b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_aus_Wien?=\r\n"
    assert words(text_field("Subject", "こんにちは世界"))[0].startswith("=?utf-8?b?")


def test_text_field_is_broken_between_characters():
    broken = words(text_field("Subject", "🎉é" * 60))
    assert len(broken) > 1
    for word in broken:
        assert len(word) <= 75
        decoded, charset = decode_header(word)[0]
        assert decoded.decode(charset)  # each word is whole by itself, RFC 2047 §5


def test_text_field_encodes_what_would_read_as_encoded():
    field = text_field("Subject", "=?utf-8?q?=0D=0ABcc=3A_eve?=")
    assert b"=?utf-8?q?=0D" not in field
    assert str(make_header(decode_header(unfolded(field)))) == "=?utf-8?q?=0D=0ABcc=3A_eve?="


# --- what machines read ----------------------------------------------------------------------------------------------


def test_plain_field_is_folded_and_never_encoded():
    value = ", ".join(f"<https://example.org/u?{number}={'x' * 60}>" for number in range(3))
    assert unfolded(plain_field("List-Unsubscribe", value)) == value
    assert not words(plain_field("References", "<=?a?=@example.org>"))[1:]


@pytest.mark.parametrize(
    ("value", "reason"),
    [("<https://example.org/ü>", "urlencode"), ("<https://example.org/" + "x" * 900, "more than 900 characters")],
    ids=["outside-ascii", "too-long"],
)
def test_plain_field_refuses_what_would_have_to_be_encoded(value, reason):
    with pytest.raises(ValueError, match=reason):
        plain_field("List-Unsubscribe", value)


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field"),
    [
        pytest.param("", b"To: ann@example.org\r\n", id="no-name"),
        pytest.param("Ann Example", b"To: Ann Example <ann@example.org>\r\n", id="atoms"),
        pytest.param("Ann  Example", b"To: Ann Example <ann@example.org>\r\n", id="two-spaces"),
        pytest.param("Ann B. Example", b'To: "Ann B. Example" <ann@example.org>\r\n', id="dot"),
        pytest.param("Example, Ann", b'To: "Example, Ann" <ann@example.org>\r\n', id="comma"),
        pytest.param('Ann "A" \\', b'To: "Ann \\"A\\" \\\\" <ann@example.org>\r\n', id="quotes"),
        pytest.param("eve@example.com", b'To: "eve@example.com" <ann@example.org>\r\n', id="address"),
        pytest.param("Zoë", b"To: =?utf-8?q?Zo=C3=AB?= <ann@example.org>\r\n", id="latin"),
        pytest.param("Zoë (x)", b"To: =?utf-8?b?Wm/DqyAoeCk=?= <ann@example.org>\r\n", id="specials"),
        pytest.param("=?x?=", b"To: =?utf-8?b?PT94Pz0=?= <ann@example.org>\r\n", id="looks-encoded"),
    ],
)
def test_address_field_writes_the_name_as_it_needs(name, field):
    assert address_field("To", [(name, ANN)]) == field


@given(name=values)
@example(name="x" * 1000)
@example(name="." + "x" * 900)
@example(name="a, " * 300)
def test_address_field_is_one_mailbox_whatever_the_name(name):
    field = address_field("To", [(name, ANN)])
    assert field.isascii()
    [(read, address)] = getaddresses([unfolded(field)])
    assert address == "ann@example.org"
    assert str(make_header(decode_header(read))) == " ".join(filter(None, name.split(" ")))
    parsed = message_from_bytes(field + b"\r\n", policy=default)["To"]
    assert [mailbox.addr_spec for mailbox in parsed.addresses] == ["ann@example.org"]


@pytest.mark.slow
@given(st.lists(st.tuples(values, st.sampled_from([ANN, Address("x" * 64, "y" * 60 + ".example.org")])), min_size=1))
def test_address_field_lists_every_mailbox_in_order(mailboxes):
    field = address_field("Cc", mailboxes)
    parsed = message_from_bytes(field + b"\r\n", policy=default)["Cc"]
    assert [mailbox.addr_spec for mailbox in parsed.addresses] == [address.wire for _, address in mailboxes]
    lines(field)


def test_address_field_has_utf8_only_in_a_local_part_that_needs_it():
    field = address_field("To", [("Zoë", Address.parse("zoë@münchen.example"))])
    assert field.decode() == "To: =?utf-8?q?Zo=C3=AB?= <zoë@xn--mnchen-3ya.example>\r\n"


# --- what may be said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("character", "called"),
    [
        ("\n", "a line feed (U+000A)"),
        ("\r", "a carriage return (U+000D)"),
        ("\0", "a NUL (U+0000)"),
        ("\x0b", "a control character (U+000B)"),
        ("\x1c", "a control character (U+001C)"),
        ("\x7f", "a DEL (U+007F)"),
        ("\x85", "a next-line character (U+0085)"),
        ("\x92", "a control character (U+0092)"),
        ("\u2028", "a line separator (U+2028)"),
        ("\u2029", "a paragraph separator (U+2029)"),
        ("\ud800", "half a character (U+D800)"),
        ("\udfff", "half a character (U+DFFF)"),
    ],
    ids=ascii,
)
def test_character_that_breaks_a_header_is_found_and_called_by_name(character, called):
    assert forbidden_in(f"a{character}b") == character
    assert name_character(character) == called


@given(values)
@example("a\tb")
@example("\u00a0\u3000\u200f\u202e")
def test_every_other_character_may_stand_in_a_header(value):
    assert forbidden_in(value) == ""


@pytest.mark.parametrize("name", ["X-Tag", "Sender", "List-Id", "Precedence", "x!#$%&'*+.^_`|~9", "X" * 50])
def test_header_of_the_campaign_may_be_named(name):
    assert field_name_fault(name) == ""


@pytest.mark.parametrize(
    "name",
    [
        *["", "X Tag", "X:Tag", "X-Tag:", "X-Täg", "X-Tag\r\nBcc", "\n", "X\0", "X\x7f", "X" * 51],
        *["From", "to", "CC", "bcc", "Reply-To", "Subject", "Date", "Message-ID", "MIME-Version", "Received"],
        *["Return-Path", "DKIM-Signature", "Content-Type", "content-transfer-encoding", "Resent-To", "ARC-Seal"],
    ],
    ids=ascii,
)
def test_header_that_is_none_or_not_the_campaigns_may_not(name):
    assert field_name_fault(name)


def test_headers_are_reported_apart_by_kind():
    assert is_address_field("SENDER")
    assert not is_address_field("X-Sender")
    assert is_plain_field("List-Unsubscribe")
    assert is_plain_field("references")
    assert not is_plain_field("List-ID")
