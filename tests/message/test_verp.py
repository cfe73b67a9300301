"""Reverse paths: fixed, rendered, or with the recipient inside, and who a bounce is about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bulkmail
from bulkmail.message.compose.composer import Composer
from bulkmail.message.verp import Pattern, decode_verp
from bulkmail.model.errors import AddressError, ConfigError, TemplateError
from bulkmail.model.recipient import Address

PATTERN = "bounces+{verp}@example.com"


@pytest.mark.parametrize(
    ("pattern", "forward_path", "filled"),
    [
        (PATTERN, "ann@example.org", "bounces+ann=example.org@example.com"),
        (PATTERN, "a=b@example.org", "bounces+a=b=example.org@example.com"),
        (PATTERN, "ann@xn--bcher-kva.example", "bounces+ann=xn--bcher-kva.example@example.com"),
        ("b-{verp}-x@Bücher.example", "ann@example.org", "b-ann=example.org-x@xn--bcher-kva.example"),
        (PATTERN, "a" * 50 + "@example.org", "bounces@example.com"),
        (PATTERN, "ü" * 30 + "@example.org", "bounces@example.com"),
        ("b+{verp}@" + "x" * 60 + "." + "y" * 60 + "." + "z" * 60 + ".example", "a" * 62 + "@e.example", None),
    ],
    ids=["plain", "equals-sign", "idn", "around", "too-long", "too-many-bytes", "long-domain"],
)
def test_pattern_takes_the_recipient_in(pattern, forward_path, filled):
    parsed = Pattern.parse(pattern)
    assert parsed.fill(forward_path) == (filled or parsed.plain)


@pytest.mark.slow
@given(st.emails(), st.sampled_from([PATTERN, "{verp}-b@x.example", "b.{verp}=x@x.example", "B={verp}@a.example"]))
def test_bounce_says_whom_it_is_about(text, pattern):
    try:
        address = Address.parse(text)
    except AddressError:
        return
    path = Pattern.parse(pattern).fill(address.wire)
    Address.parse(path)
    assert decode_verp(path, pattern) in (address, None)
    assert decode_verp(path, pattern) == address or path == Pattern.parse(pattern).plain


def test_bounce_is_read_whatever_its_case_was_made():
    assert decode_verp("BOUNCES+Ann=Example.ORG@EXAMPLE.com", PATTERN) == Address("Ann", "example.org")
    assert decode_verp(" bounces+ann=example.org@example.com\r\n", PATTERN) == Address("ann", "example.org")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "bounces@example.com",
        "bounces+@example.com",
        "bounces+ann@example.com",
        "bounces+ann=@example.com",
        "bounces+=example.org@example.com",
        "bounces+ann=example.org@example.net",
        "other+ann=example.org@example.com",
        "bounces+a\r\nb=example.org@example.com",
        "bounces+ann=exa mple@example.com",
    ],
)
def test_other_address_is_about_no_one(path):
    assert decode_verp(path, PATTERN) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "bounces@example.com",
        "{verp}@example.com",
        "b@{verp}.example",
        "{verp}{verp}@x.example",
        "b+{verp}",
        "b {verp}@x.example",
    ],
)
def test_pattern_that_is_none_is_refused(pattern):
    with pytest.raises(ValueError):
        decode_verp("x@example.com", pattern)


def test_decoding_is_public():
    assert bulkmail.decode_verp is decode_verp


# --- in a message ----------------------------------------------------------------------------------------------------


def path_of(campaign, recipient, forward_path=None):
    composer = Composer(campaign, run_id="run")
    composer.check(recipient)
    wire = forward_path or recipient.address.wire
    return composer.compose(recipient, row=1, forward_path=wire, date=0.0).envelope.reverse_path


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ("", "shop@example.org"),
        ("bounces@example.com", "bounces@example.com"),
        ("bounces@bücher.example", "bounces@xn--bcher-kva.example"),
        ("{{ name | lower }}-bounces@example.com", "ann-bounces@example.com"),
        ("{{ '' }}", "shop@example.org"),
        (PATTERN, "bounces+ann=example.org@example.com"),
        ("{{ name }}+{verp}@example.com", "Ann+ann=example.org@example.com"),
    ],
    ids=["none", "fixed", "idn", "template", "empty", "verp", "both"],
)
def test_reverse_path_is_what_the_campaign_says(make_campaign, recipient, setting, path):
    assert path_of(make_campaign(reverse_path=setting), recipient) == path


def test_verp_has_the_address_that_is_written_to(make_campaign, recipient):
    campaign = make_campaign(reverse_path=PATTERN, bcc="bob@example.net")
    assert path_of(campaign, recipient, "bob@example.net") == "bounces+bob=example.net@example.com"


@pytest.mark.parametrize("setting", ["bounces", "{verp}@example.com", "b@x y"])
def test_reverse_path_that_is_none_is_refused(make_campaign, setting):
    with pytest.raises(ConfigError, match="the reverse path"):
        Composer(make_campaign(reverse_path=setting), run_id="run")


@pytest.mark.parametrize(
    "cell", ["x", "x@y\r\nRCPT TO:<z@x.example>", "a@b.example> SIZE=1", "a@b.example,c@d.example"]
)
def test_reverse_path_from_a_cell_is_checked(make_campaign, make_recipient, cell):
    with pytest.raises(TemplateError, match=r"^campaign: reverse_path: the reverse path"):
        path_of(make_campaign(reverse_path="{{ x }}"), make_recipient(x=cell))
