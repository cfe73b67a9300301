"""The address rules, held against email-validator's own over generated addresses."""

from __future__ import annotations

import unicodedata

import pytest
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bulkmail.model.errors import AddressError
from bulkmail.model.recipient import LONGEST_LOCAL_PART, Address, has_control, parse_mailbox

MESSAGES = "abcxyzABCXYZ0189"
ATOMS = st.text(MESSAGES + "+-_", min_size=1, max_size=12) | st.text(MESSAGES + "!#$%&'*/=?^`{|}~.-", max_size=12)
ODD = st.text(st.characters(), max_size=6) | st.text('.@"<>() \t\r\n\0\\,;:[]éß\u0308\u202e\u3002', max_size=6)
LOCALS = st.one_of(
    ATOMS, ODD, st.text(MESSAGES, min_size=60, max_size=70), st.lists(ATOMS | ODD, max_size=3).map(".".join)
)
LABELS = st.one_of(
    st.text(MESSAGES + "-", min_size=1, max_size=10),
    st.text(MESSAGES, min_size=60, max_size=66),
    st.text("äöüßéжд日本إ-", min_size=1, max_size=6),
    st.sampled_from(
        ["xn--mller-kva", "xn--", "xn--a", "ab--cd", "XN--MLLER-KVA", "com", "org", "de", "рф", "localhost"]
    ),
    ODD,
)
DOMAINS = st.lists(LABELS, min_size=1, max_size=5).map(".".join)
ADDRESSES = st.tuples(LOCALS, DOMAINS).map("@".join) | st.text(MESSAGES + "@.-_é ", max_size=20) | st.emails()


def theirs(text: str) -> tuple[str, str] | None:
    """Local part and ASCII domain as email-validator takes them; None if it does not."""
    try:
        found = validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return None
    return found.local_part, str(found.ascii_domain)


def ours(text: str) -> tuple[str, str] | None:
    try:
        address = Address.parse(text)
    except AddressError:
        return None
    return address.local, address.domain


def is_special(text: str) -> bool:
    domain = text.rpartition("@")[2].lower()
    return any(domain == name or domain.endswith(f".{name}") for name in SPECIAL_USE_DOMAIN_NAMES)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(text=ADDRESSES)
@example(text="ann@example.org")
@example(text="Ann.B+c@EXAMPLE.Org")
@example(text="a@b--c.org")
@example(text="zoe\u0308@example.org")
@example(text="\ud800@example.org")
@example(text="a@\ud800.org")
@example(text="a@1.2.3.4")
@example(text="a@[1.2.3.4]")
@example(text='"a b"@example.org')
@example(text='"ab"@example.org')
@example(text="a@example.org\n")
@example(text="a@" + "x" * 63 + ".org")
@example(text="a@" + "x" * 64 + ".org")
@example(text="a@" + "x." * 125 + "org")
@example(text="a" * 64 + "@" + "x" * 60 + "." + "y" * 60 + "." + "z" * 60 + ".org")
@example(text="a@x。org")
@example(text="\u2126@example.org")
@example(text="a\u037eb@example.org")
@example(text="a@" + ".".join(["日本語" * 5] * 6) + ".jp")
@example(text="é" * 32 + "@" + ".".join(["x" * 60] * 3) + ".org")
@example(text="POSTMASTER@example.org")
@example(text="a@xn--mller-kva.de")
@example(text="a@xn--a.de")
@example(text="a@x.xn--p1ai")
def test_address_agrees_with_email_validator(text: str) -> None:
    assume(not is_special(text))
    expected, found = theirs(text), ours(text)
    if expected is not None and len(text.rpartition("@")[0].encode()) > LONGEST_LOCAL_PART:
        assert found is None  # it lets longer ones pass unless it is asked to be strict; RFC 5321 does not
        return
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert unicodedata.normalize("NFC", found[0]).casefold() == expected[0].casefold()
        assert found[1] == expected[1].lower()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(local=st.from_regex(r"[A-Za-z0-9_+.-]{1,66}", fullmatch=True), domain=DOMAINS)
def test_shortest_way_agrees_with_the_long_one(local: str, domain: str) -> None:
    """`parse_mailbox` takes plain addresses itself; what it says must be what `Address.parse` says."""
    text = f"{local}@{domain}"
    assume(text == text.strip() and not text.endswith(">"))
    try:
        expected: object = Address.parse(text)
    except AddressError:
        expected = None
    try:
        name, found = parse_mailbox(text)
    except AddressError:
        assert expected is None
    else:
        assert (name, found) == ("", expected)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(text=ADDRESSES | st.tuples(st.text(max_size=10), ADDRESSES).map(lambda parts: f"{parts[0]} <{parts[1]}>"))
def test_no_address_can_steer_a_server(text: str) -> None:
    try:
        name, address = parse_mailbox(text)
    except AddressError as error:
        assert not has_control(str(error))
        return
    assert not has_control(name)
    for form in (address.wire, address.readable, address.key):
        assert not has_control(form)
        assert not set(form) & set(" <>\r\n\t\0")
        assert form.count("@") == 1
    assert address.domain.isascii()
    assert len(address.wire.encode()) <= 254


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(text=ADDRESSES)
def test_address_survives_a_second_parse(text: str) -> None:
    found = ours(text)
    assume(found is not None)
    address = Address.parse(text)
    assert Address.parse(address.wire) == address
    assert Address.parse(address.readable).key == address.key
    assert Address.parse(address.key).key == address.key
