"""Links to unsubscribe: signed for one person, in the form that mailboxes show a button for."""

from base64 import urlsafe_b64decode
from email import message_from_bytes
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bulkmail
from bulkmail.message.compose.composer import Composer
from bulkmail.message.template.rendering import referenced_names
from bulkmail.message.unsubscribe import (
    Unsubscriber,
    UnsubscribeRequest,
    make_token,
    read_unsubscribe,
    verify_unsubscribe,
)
from bulkmail.model.campaign import Keys, Template, Unsubscribe
from bulkmail.model.errors import ConfigError
from bulkmail.model.recipient import Address
from bulkmail.model.relay import Secret

KEY, OLD = "0123456789abcdef", "fedcba9876543210"
ANN = Address("Ann", "example.org")
HTTPS = "https://shop.example/u/{token}"


LOCAL = st.text("abcXYZ019+-_=ü日", min_size=1, max_size=15)


@pytest.mark.slow
@given(
    st.builds(Address, LOCAL, st.sampled_from(["example.org", "xn--bcher-kva.example"])),
    st.text("abcdefghij0123456789", min_size=16, max_size=40),
)
def test_token_names_whom_it_was_made_for(address, key):
    token = make_token(address, key.encode())
    assert verify_unsubscribe(token, [key]).key == address.key
    assert verify_unsubscribe(token, [key + "x", key]).key == address.key
    assert verify_unsubscribe(token, [key + "x"]) is None
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert token[-1].isalpha()


def test_token_is_the_same_for_two_spellings_of_one_mailbox():
    assert make_token(ANN, b"k" * 16) == make_token(Address("ann", "example.org"), b"k" * 16)


def test_token_of_an_older_key_is_known_as_long_as_the_key_is():
    token = make_token(ANN, OLD.encode())
    assert verify_unsubscribe(token, [KEY, OLD]) == Address("ann", "example.org")
    assert verify_unsubscribe(token, [OLD.encode(), KEY]) == Address("ann", "example.org")
    assert verify_unsubscribe(token, [KEY]) is None
    assert verify_unsubscribe(token, []) is None


def test_token_has_128_bits_of_tag():
    token = make_token(ANN, KEY.encode())
    assert len(urlsafe_b64decode(token[-22:] + "==")) == 16
    assert len(token) == 4 + 20 + 22


def test_no_changed_token_is_taken():
    token = make_token(ANN, KEY.encode())
    chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for position, char in enumerate(token):
        for other in chars:
            if other != char:
                assert verify_unsubscribe(token[:position] + other + token[position + 1 :], [KEY]) is None


@given(st.text(max_size=100) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_no_other_text_is_a_token(text):
    assert verify_unsubscribe(text, [KEY]) is None


@pytest.mark.parametrize(
    "change", [str.lower, lambda token: token[:-1], lambda token: token * 2, lambda token: "x" * 2000]
)
def test_damaged_token_is_none(change):
    assert verify_unsubscribe(change(make_token(ANN, KEY.encode())), [KEY]) is None


def test_token_without_one_of_its_messages_is_none():
    token = make_token(ANN, KEY.encode())
    for position in range(len(token)):
        assert verify_unsubscribe(token[:position] + token[position + 1 :], [KEY]) is None


@pytest.mark.parametrize("who", ["nobody", "a b@example.org", "\udcff@example.org"], ids=ascii)
def test_signed_text_that_is_no_address_is_none(who):
    class Odd:
        key = type("Text", (), {"encode": lambda self: who.encode("utf-8", "surrogateescape")})()

    assert verify_unsubscribe(make_token(Odd(), KEY.encode()), [KEY]) is None


def test_token_may_have_white_space_around_it():
    assert verify_unsubscribe(f" {make_token(ANN, KEY.encode())}\r\n", [KEY])


@pytest.mark.parametrize("list_id", ["", "news.example.org", "ü liste"])
def test_token_names_the_list(list_id):
    token = make_token(ANN, KEY.encode(), list_id=list_id)
    assert read_unsubscribe(token, [OLD, KEY]) == UnsubscribeRequest(Address("ann", "example.org"), list_id)
    assert verify_unsubscribe(token, [KEY]) == Address("ann", "example.org")
    assert token[-1].isalpha()


def test_token_of_before_lists_counts_for_all_of_them():
    token = "DiRcYW5uQGV4YW1wbGUub3Jn9rfqXnZBsC_l6lx2MEfGBg"  # as 0.1.0 made it
    assert make_token(ANN, KEY.encode()) == token
    assert read_unsubscribe(token, [KEY]).list_id == ""


def test_verifying_is_public():
    assert bulkmail.verify_unsubscribe is verify_unsubscribe


# --- in a letter -----------------------------------------------------------------------------------------------------


@pytest.fixture
def compose(make_campaign, make_recipient):
    def compose(setting, *, address="ann@example.org", key=KEY, fields=None, **parts):
        composer = Composer(make_campaign(unsubscribe=setting, **parts), run_id="run", keys=Keys(key and Secret(key)))
        recipient = make_recipient(address, **(fields or {}))
        composer.check(recipient)
        message = composer.compose(recipient, row=1, forward_path=address, date=0.0)
        return message_from_bytes(b"".join(message.buffers), policy=default)

    return compose


def token_of(address="ann@example.org", list_id="spring"):
    return make_token(Address.parse(address), KEY.encode(), list_id=list_id)


def unfolded(read):
    return " ".join(str(read["List-Unsubscribe"]).split())


@pytest.mark.parametrize(
    ("setting", "value", "has_post"),
    [
        (Unsubscribe(https=HTTPS), "<https://shop.example/u/{}>", True),
        (Unsubscribe(HTTPS, "u@shop.example"), "<https://shop.example/u/{}>, <mailto:u@shop.example?subject={}>", True),
        (Unsubscribe(mailto="u+{token}@shop.example"), "<mailto:u+{}@shop.example>", False),
        (Unsubscribe(mailto="mailto:u@shop.example"), "<mailto:u@shop.example?subject={}>", False),
        (
            Unsubscribe(mailto="u@shop.example?subject=stop%20{token}"),
            "<mailto:u@shop.example?subject=stop%20{}>",
            False,
        ),
        (Unsubscribe(mailto="u@shop.example?subject=stop"), "<mailto:u@shop.example?subject=stop>", False),
    ],
    ids=["https", "both", "token-in-address", "address-alone", "token-in-subject", "no-token"],
)
def test_header_has_the_links(compose, setting, value, has_post):
    read = compose(setting)
    assert unfolded(read) == value.replace("{}", token_of())
    assert read["List-Unsubscribe-Post"] == ("List-Unsubscribe=One-Click" if has_post else None)
    assert read["Precedence"] == "bulk"


def test_token_is_for_the_list_of_its_row(compose):
    def list_of(read):
        token = unfolded(read)[len("<https://shop.example/u/") : -1]
        return read_unsubscribe(token, [KEY]).list_id

    setting = Unsubscribe(https=HTTPS)
    assert list_of(compose(setting)) == "spring"
    assert list_of(compose(setting, name="News 2026-12-01")) == "news"
    assert list_of(compose(setting, list_id="News <News.example.org>")) == "news.example.org"
    each = compose(setting, list_id="{{ topic }} <{{ topic }}.example.org>", fields={"topic": "tea"})
    assert list_of(each) == "tea.example.org"


def test_token_that_no_local_part_can_hold_goes_into_the_subject(compose):
    address = f"{'a' * 40}@example.org"
    read = compose(Unsubscribe(mailto="unsubscribe+{token}@shop.example"), address=address)
    assert unfolded(read) == f"<mailto:unsubscribe@shop.example?subject={token_of(address)}>"


def test_longest_address_has_lawful_links(compose):
    address = f"{'ü' * 32}@{'x' * 60}.{'y' * 60}.{'z' * 50}.example"
    read = compose(Unsubscribe("https://shop.example/" + "p" * 370 + "/{token}", "u@shop.example"), address=address)
    assert token_of(address) in unfolded(read)


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        (Unsubscribe(HTTPS, "u@shop.example"), "https://shop.example/u/{}"),
        (Unsubscribe("", "u@x.example"), "mailto:u@x.example?subject={}"),
    ],
    ids=["https", "mailto"],
)
def test_message_can_use_the_link(compose, make_campaign, setting, url):
    parts = {"text": "{{ unsubscribe_url }}", "html": '<a href="{{ unsubscribe_url }}">'}
    read = compose(setting, fields={"unsubscribe_url": "https://evil.example"}, **parts)
    url = url.format(token_of())
    assert read.get_body(("plain",)).get_content().strip() == url
    assert read.get_body(("html",)).get_content().strip() == f'<a href="{url}">'
    assert "unsubscribe_url" not in referenced_names(make_campaign(unsubscribe=setting, **parts))
    assert "unsubscribe_url" in referenced_names(make_campaign(**parts))


def test_precedence_is_left_to_those_who_sets_it(compose):
    read = compose(Unsubscribe(HTTPS), headers=(("Precedence", Template("p", "list")),))
    assert read.get_all("Precedence") == ["list"]


@pytest.mark.parametrize("name", ["List-Unsubscribe", "list-unsubscribe-post"])
def test_header_is_not_set_twice(compose, name):
    with pytest.raises(ConfigError, match="set twice"):
        compose(Unsubscribe(HTTPS), headers=((name, Template("h", "x")),))


@pytest.mark.parametrize(
    ("setting", "key", "said"),
    [
        (Unsubscribe(), KEY, "neither https nor mailto"),
        (Unsubscribe("http://shop.example/{token}"), KEY, "no web address"),
        (Unsubscribe("https://shop.example/"), KEY, "no web address"),
        (Unsubscribe("https://shop.example/{token}/{token}"), KEY, "no web address"),
        (Unsubscribe("https://shop.example/{token}>, <x"), KEY, "no web address"),
        (Unsubscribe("https://shop.example/{token}\r\nBcc: x"), KEY, "no web address"),
        (Unsubscribe("https://bücher.example/{token}"), KEY, "no web address"),
        (Unsubscribe("https://" + "x" * 400 + "/{token}"), KEY, "more than 400"),
        (Unsubscribe(mailto="u@"), KEY, "the address"),
        (Unsubscribe(mailto="u@{token}.example"), KEY, "where it cannot be"),
        (Unsubscribe(mailto="u+{token}+{token}@x.example"), KEY, "where it cannot be"),
        (Unsubscribe(mailto="ü@x.example"), KEY, "where it cannot be"),
        (Unsubscribe(mailto="u@x.example?subject=a b"), KEY, "a link cannot have"),
        (Unsubscribe(mailto="u@x.example>\r\nBcc: x"), KEY, "the address"),
        (Unsubscribe(HTTPS), None, "is missing"),
        (Unsubscribe(HTTPS), "short", "has 5 bytes, and 16 are needed"),
    ],
)
def test_setting_that_makes_no_link_is_refused(setting, key, said):
    with pytest.raises(ConfigError) as error:
        Unsubscriber(setting, key and Secret(key))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert key is None or key not in str(error.value)
