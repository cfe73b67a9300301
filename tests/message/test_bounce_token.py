"""Tokens that tell whose message came back: made, read, forged, and in the messages of a campaign."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.compose.composer import Composer
from bulkmail.message.verp import BounceTokens, Pattern, TokenSubject, decode_verp, find_token, read_token
from bulkmail.model.campaign import BounceKey, Keys, Template
from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.relay import Secret

KEY = bytes(range(32))
PATTERN = "bounces+{bounce}@shop.example"
NUMBERS = st.integers(0, 2**62)


def tokens(run: int = 7, key: bytes = KEY) -> BounceTokens:
    return BounceTokens(BounceKey(run, Secret(key.hex())))


@given(NUMBERS, NUMBERS)
def test_token_names_its_run_and_what_it_was_made_for(run: int, number: int) -> None:
    assert read_token(tokens(run).of_delivery(number), KEY) == TokenSubject(run, delivery=number)
    assert read_token(tokens(run).of_row(number), KEY) == TokenSubject(run, row=number)


def test_token_is_short_and_survives_a_change_of_case() -> None:
    token = tokens(run=500).of_delivery(1_000_000)
    assert len(token) <= 21
    assert token == token.lower() and token.isalnum()
    assert read_token(f" {token.upper()}\r\n", KEY) == TokenSubject(500, delivery=1_000_000)


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz234567", min_size=0, max_size=45))
def test_token_that_was_not_made_by_us_names_nothing(text: str) -> None:
    assert read_token(text, KEY) is None


@given(st.integers(0, 20), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_token_that_was_changed_names_nothing_else(place: int, sign: str) -> None:
    token = tokens().of_delivery(1_000_000)
    changed = token[:place] + sign + token[place + 1 :]
    found = read_token(changed, KEY)
    assert found is None or found == TokenSubject(7, delivery=1_000_000)


def test_token_of_another_key_names_nothing() -> None:
    assert read_token(tokens(key=bytes(32)).of_row(1), KEY) is None


@pytest.mark.parametrize("text", ["", "a" * 13, "ü" * 13, "7" * 40, "1" * 13, "a" * 10_000])
def test_text_that_is_no_token_names_nothing(text: str) -> None:
    assert read_token(text, KEY) is None


@pytest.mark.parametrize(
    "address", ["bounces+{}@shop.example", "{}@b.shop.example", "BATV=1=b+{}@x", "b-{}-x@shop.example"]
)
def test_token_is_found_in_an_address_that_servers_have_changed(address: str) -> None:
    token = tokens().of_delivery(3)
    addresses = ["news@shop.example", address.format(token.upper())]
    assert find_token(addresses, KEY) == TokenSubject(7, delivery=3)


def test_token_is_not_looked_for_in_a_domain() -> None:
    assert find_token([f"news@{tokens().of_delivery(3)}.example", "a" * 100_000 + "@x"], KEY) is None


# --- in a reverse path ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("bounces{bounce}@shop.example", "letter or digit"),
        ("b+{bounce}x@shop.example", "letter or digit"),
        ("b+{bounce}+{verp}@shop.example", "both"),
        ("{bounce}+{bounce}@shop.example", "elsewhere"),
        ("b@{bounce}.example", "elsewhere"),
    ],
)
def test_reverse_path_whose_token_could_not_be_read_is_refused(make_campaign, pattern, why):
    with pytest.raises(AddressError, match=why):
        Pattern.parse(pattern)
    with pytest.raises(ConfigError, match=why):
        Composer(make_campaign(reverse_path=pattern), run_id="run")


def test_reverse_path_names_the_delivery_and_the_header_the_row(make_campaign, recipient):
    keys = Keys(bounce=BounceKey(7, Secret(KEY.hex())))
    for compiles in (True, False):
        composer = Composer(make_campaign(reverse_path=PATTERN), run_id="run", keys=keys, compiles=compiles)
        made = [
            composer.compose(recipient, row=2, forward_path=path, date=0.0, delivery=number)
            for number, path in ((5, "ann@example.org"), (6, "boss@example.org"))
        ]
        assert [find_token([each.envelope.reverse_path], KEY) for each in made] == [
            TokenSubject(7, delivery=5),
            TokenSubject(7, delivery=6),
        ]
        assert b"".join(made[0].buffers) == b"".join(made[1].buffers)  # one content for all copies
        head = b"".join(made[0].buffers).partition(b"\r\n\r\n")[0].decode()
        named = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("X-Bulkmail-Id: ")]
        assert [read_token(value, KEY) for value in named] == [TokenSubject(7, row=2)]


def test_message_without_a_key_has_a_token_that_no_register_knows(make_campaign, recipient):
    made = [
        Composer(make_campaign(reverse_path=PATTERN), run_id=run).compose(
            recipient, row=1, forward_path="a@b.example", date=0
        )
        for run in ("one", "one", "two")
    ]
    paths = [each.envelope.reverse_path for each in made]
    assert paths[0] == paths[1] != paths[2]
    assert all(find_token([path], KEY) is None and decode_verp(path, PATTERN) is None for path in paths)


def test_message_of_a_campaign_without_the_placeholder_says_nothing_of_it(make_campaign, recipient):
    keys = Keys(bounce=BounceKey(7, Secret(KEY.hex())))
    made = Composer(make_campaign(), run_id="run", keys=keys).compose(
        recipient, row=1, forward_path="a@b.example", date=0
    )
    assert b"X-Bulkmail-Id" not in b"".join(made.buffers)


def test_header_of_ours_cannot_be_set_by_a_campaign(make_campaign):
    with pytest.raises(ConfigError, match="reverse_path"):
        Composer(make_campaign(headers=(("X-Bulkmail-Id", Template("h", "x")),)), run_id="run")
