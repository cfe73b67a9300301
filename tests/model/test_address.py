"""Addresses: what is taken, what is refused in which words, and how one looks on the wire, to people and to the key."""

from __future__ import annotations

import pytest

from bulkmail.model.errors import AddressError
from bulkmail.model.recipient import Address, has_control, parse_mailbox

SEVERAL = "holds several addresses; one row is for one person"


@pytest.mark.parametrize(
    ("text", "wire", "readable", "key", "needs_smtputf8"),
    [
        ("ann@example.org", "ann@example.org", "ann@example.org", "ann@example.org", False),
        ("Ann.B+x@Example.ORG", "Ann.B+x@example.org", "Ann.B+x@example.org", "ann.b+x@example.org", False),
        ("o'hara@example.org", "o'hara@example.org", "o'hara@example.org", "o'hara@example.org", False),
        ("a@example.test", "a@example.test", "a@example.test", "a@example.test", False),
        ("a@münchen.de", "a@xn--mnchen-3ya.de", "a@münchen.de", "a@xn--mnchen-3ya.de", False),
        ("a@xn--mnchen-3ya.de", "a@xn--mnchen-3ya.de", "a@münchen.de", "a@xn--mnchen-3ya.de", False),
        ("a@XN--MNCHEN-3YA.de", "a@xn--mnchen-3ya.de", "a@münchen.de", "a@xn--mnchen-3ya.de", False),
        ("a@почта.рф", "a@xn--80a1acny.xn--p1ai", "a@почта.рф", "a@xn--80a1acny.xn--p1ai", False),
        ("É@example.org", "É@example.org", "É@example.org", "é@example.org", True),
        ("e\u0301@example.org", "e\u0301@example.org", "e\u0301@example.org", "é@example.org", True),
    ],
    ids=["plain", "case", "apostrophe", "test", "idn", "a-label", "upper-a-label", "cyrillic", "utf8", "decomposed"],
)
def test_address_is_taken(text: str, wire: str, readable: str, key: str, needs_smtputf8: bool) -> None:
    address = Address.parse(text)
    assert (address.wire, address.readable, address.key) == (wire, readable, key)
    assert str(address) == readable
    assert address.needs_smtputf8 is needs_smtputf8


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("ann", "has no @"),
        ("@example.org", "has nothing before the @"),
        ("ann@", "has nothing after the @"),
        ("x" * 65 + "@example.org", "has more than 64 bytes before the @"),
        ("é" * 33 + "@example.org", "has more than 64 bytes before the @"),
        ("a@" + "b" * 250 + ".de", "is longer than 254 characters"),
        ("a" * 64 + "@" + ".".join(["ü" * 30] * 6) + ".de", "is longer than 254 bytes"),
    ],
    ids=["empty", "no-at", "no-local", "no-domain", "long-local", "long-local-bytes", "long", "long-bytes"],
)
def test_address_is_refused_in_our_words(text: str, reason: str) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "text",
    [
        "a b@example.org",
        "a@b@example.org",
        "a..b@example.org",
        ".a@example.org",
        "a.@example.org",
        '"a b"@example.org',
        "a<b@example.org",
        "a>b@example.org",
        "a@localhost",
        "a@example..org",
        "a@example.org.",
        "a@-example.org",
        "a@exa_mple.org",
        "a@[192.0.2.1]",
        "a@example.o1",
        "a@ab--cd.org",
        "a@xn--zz.org",
        "a@" + "x" * 64 + ".org",
        "a\r\nRCPT TO:<b@example.org>@example.org",
        "a@example.org\r\nDATA",
        "a\x00@example.org",
        "a\x7f@example.org",
        "a\u2028@example.org",
        "\ud800@example.org",
        "a@\ud800.org",
        "a@example.org\n",
    ],
    ids=ascii,
)
def test_address_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    reason = str(caught.value)
    assert reason.startswith("is not valid: ")
    assert reason[len("is not valid: ")].islower()
    assert not reason.endswith(".")
    assert "example" not in reason
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("length", [64, 253])
def test_address_may_be_as_long_as_the_standard_says(length: int) -> None:
    local = "x" * min(length, 64)
    domain = "example.org" if length == 64 else ".".join(["y" * 61] * 3) + ".org"
    assert Address.parse(f"{local}@{domain}").wire == f"{local}@{domain}"


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("a@example.org", ""),
        ("  a@example.org\t", ""),
        ("<a@example.org>", ""),
        ("Ann <a@example.org>", "Ann"),
        ("Ann\n <  a@example.org >", "Ann"),
        ("Ann Müller <a@example.org>", "Ann Müller"),
        ("Müller, Ann <a@example.org>", "Müller, Ann"),
        ('"Müller, Ann" <a@example.org>', "Müller, Ann"),
        ('"Ann \\"A\\" \\\\ B" <a@example.org>', 'Ann "A" \\ B'),
        ('"" <a@example.org>', ""),
        ('" <a@example.org>', '"'),
        ('"Ann <a@example.org>', '"Ann'),
        ('Ann" <a@example.org>', 'Ann"'),
        ("Ann @ Work <a@example.org>", "Ann @ Work"),
        ('"Ann, ann@example.net" <a@example.org>', "Ann, ann@example.net"),
        ("x" * 985 + "<a@example.org>", "x" * 985),
    ],
    ids=ascii,
)
def test_mailbox_is_read(cell: str, name: str) -> None:
    assert parse_mailbox(cell) == (name, Address("a", "example.org"))


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("   ", "is empty"),
        ("Ann <>", "is empty"),
        ("Ann <ann>", "has no @"),
        ("a@example.org>", "has a > without a <"),
        ("a@example.org, b@example.org", SEVERAL),
        ("a@example.org;b@example.org", SEVERAL),
        ("a@example.org b@example.org", SEVERAL),
        ("Ann <a@example.org>, Bob <b@example.org>", SEVERAL),
        ("<a@example.org> <b@example.org>", SEVERAL),
        ("Ann> <a@example.org>", SEVERAL),
        ("a@example.org, Bob <b@example.org>", SEVERAL),
        ("a@example.org; Bob <b@example.org>", SEVERAL),
        ("An\x00n <a@example.org>", "has a control character in the name"),
        ('"An\nn" <a@example.org>', "has a control character in the name"),
        ("Ann\u2028Bcc: x <a@example.org>", "has a control character in the name"),
        ("x" * 986 + "<a@example.org>", "is longer than 1000 characters"),
        ("a" * 10_000_000, "is longer than 1000 characters"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_mailbox_is_refused(cell: str, reason: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_mailbox(cell)
    assert str(caught.value) == reason


@pytest.mark.parametrize("character", "\x00\t\n\x1f\x7f\x80\x85\x9f\u2028\u2029\ud800\udfff", ids=ascii)
def test_control_is_found(character: str) -> None:
    assert has_control(f"a{character}b")


@pytest.mark.parametrize("text", ["", "a b", "~\u00a0é", "用户", "👩\u200d🚒", "\ud7ff\ue000"], ids=ascii)
def test_control_is_not_seen_where_there_is_none(text: str) -> None:
    assert not has_control(text)
