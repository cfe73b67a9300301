"""Cc, Bcc, Sender, List-Id, unsubscribe links and DKIM as a campaign file says them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkmail.model.campaign import Campaign, Dkim, Unsubscribe
from bulkmail.model.errors import ConfigError
from bulkmail.outbox.entries import decode_campaign, encode_campaign
from bulkmail.settings.secrets import find_keys
from bulkmail.settings.settings import load
from tests.settings.conftest import SOUND, MakeShop

LINKS = '[message.unsubscribe]\nhttps = "https://shop.example/u/{token}"\n'
SIGNED = '[message.dkim]\ndomain = "shop.example"\nselector = "s1"\n'


@pytest.fixture
def campaign(make_shop: MakeShop) -> object:
    def read(more: str) -> Campaign:
        return load(str(make_shop(SOUND + more)), environ={}).campaign

    return read


@pytest.fixture
def refusal(make_shop: MakeShop) -> object:
    def refuse(more: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(str(make_shop(SOUND + more)), environ={})
        return f"{caught.value}; {caught.value.hint}"

    return refuse


def test_plain_campaign_has_none_of_it(campaign) -> None:
    plain = campaign("")
    assert (plain.cc, plain.bcc, plain.unsubscribe, plain.dkim) == (None, None, None, ())


def test_lists_may_be_texts_or_lists(campaign) -> None:
    read = campaign('to = "a@x.example"\ncc = ["b@x.example", "{{ boss }}"]\nbcc = []\n')
    assert read.to.text == "a@x.example"
    assert read.cc.text == "b@x.example, {{ boss }}"
    assert read.cc.name == "campaign.toml: cc"
    assert read.bcc.text == ""


def test_names_of_sender_and_list(campaign) -> None:
    read = campaign('sender = "Post <post@shop.example>"\nlist_id = "news.shop.example"\nfeedback_id = "a:sender"\n')
    assert (read.sent_by.text, read.list_id.text, read.feedback_id.text) == (
        "Post <post@shop.example>",
        "news.shop.example",
        "a:sender",
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("bounces@Shop.example", "bounces@shop.example"),
        ("bounces+{verp}@shop.example", "bounces+{verp}@shop.example"),
        ("{{ name }}-bounces@shop.example", "{{ name }}-bounces@shop.example"),
    ],
)
def test_reverse_path_may_vary(campaign, written: str, read: str) -> None:
    assert campaign(f'reverse_path = "{written}"\n').reverse_path == read


@pytest.mark.parametrize(
    ("key", "place"),
    [('key_env = "SHOP_KEY"', "env:SHOP_KEY"), ('key_command = "pass show x"', "command:pass show x")],
)
def test_key_may_come_from_elsewhere(campaign, key: str, place: str) -> None:
    assert campaign(LINKS + key).unsubscribe == Unsubscribe("https://shop.example/u/{token}", "", place)
    assert place not in repr(Dkim("a", "b", "", place))


def test_key_file_is_found_beside_the_campaign(campaign) -> None:
    read = campaign(LINKS + 'key_file = "keys/u.txt"')
    assert read.unsubscribe.key_from == f"file:{Path('shop/keys/u.txt').absolute()}"


@pytest.mark.parametrize("table", ["[message.dkim]", "[[message.dkim]]"])
def test_one_signature_is_a_table(campaign, table: str) -> None:
    read = campaign(SIGNED.replace("[message.dkim]", table) + 'preset = "ses"\nkey_env = "K"\n')
    assert read.dkim == (Dkim("shop.example", "s1", "ses", "env:K"),)


def test_two_signatures_are_two_tables(campaign) -> None:
    one = SIGNED.replace("[message.dkim]", "[[message.dkim]]") + 'key_env = "K"\n'
    assert [each.selector for each in campaign(one + one.replace("s1", "s2")).dkim] == ["s1", "s2"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("cc = 5\n", "campaign.toml:8: cc = 5: expected a text in quotes"),
        ('sender = "post"\n', 'campaign.toml:8: sender = "post": has no @'),
        ('reverse_path = "{verp}"\n', 'reverse_path = "{verp}": has no @'),
        ('reverse_path = "{{ x \\u0007 }}"\n', "holds a control character"),
        ("[message.unsubscribe]\n", "campaign.toml:8: unsubscribe: says neither https nor mailto"),
        (LINKS, "campaign.toml:8: unsubscribe: does not say where its key is; write key_file"),
        (LINKS + 'key_env = "K"\nkey_file = "k"\n', "the key cannot come from two places, key_env and key_file"),
        (LINKS + 'key_env = "hunter2!"\n', "campaign.toml:10: key_env: is not the name of an environment variable"),
        (LINKS + 'key_file = " "\n', "campaign.toml:10: key_file: is not the name of a file; fill it in"),
        (LINKS + 'key = "hunter2"\n', '[message.unsubscribe] has no key "key"'),
        (LINKS + 'kay_env = "K"\n', 'did you mean "key_env"?'),
        (SIGNED + 'key_enf = "K"\n', "campaign.toml:11: [message.dkim] has no key"),
        ("[message.dkim]\nkey_env = 'K'\n", "campaign.toml:8: dkim: has no domain"),
        (SIGNED + 'preset = "sess"\nkey_env = "K"\n', 'campaign.toml:11: preset = "sess": is not a relay'),
        (SIGNED.replace('"s1"', "1") + "key_env = 'K'\n", "campaign.toml:10: selector = 1: expected a text in quotes"),
        ("dkim = 5\n", "expected a list"),
    ],
)
def test_fault_is_reported_with_its_place(refusal, more: str, said: str) -> None:
    reported = refusal(more)
    assert said in reported
    assert "hunter2" not in reported.replace('"key"', "")


def test_campaign_survives_the_outbox_without_its_keys(campaign) -> None:
    read = campaign('cc = "a@x.example"\n' + LINKS + 'key_env = "A"\n' + SIGNED + 'key_env = "B"\n')
    assert decode_campaign(encode_campaign(read)) == read
    assert read.fingerprint == decode_campaign(encode_campaign(read)).fingerprint


# --- the keys themselves ---------------------------------------------------------------------------------------------


def test_keys_are_found_late(make_shop: MakeShop) -> None:
    shop = make_shop(SOUND + LINKS + 'key_env = "A"\n' + SIGNED + 'key_file = "dkim.pem"\n')
    (shop / "dkim.pem").write_text("one\ntwo\n")
    (shop / "dkim.pem").chmod(0o600)
    keys = find_keys(load(str(shop), environ={}).campaign, environ={"A": " hunter2 \n"})
    assert keys.unsubscribe.reveal() == "hunter2"
    assert [key.reveal() for key in keys.dkim] == ["one\ntwo"]
    assert "hunter2" not in repr(keys)


def test_command_gives_a_whole_key(campaign) -> None:
    keys = find_keys(campaign(SIGNED + "key_command = \"printf 'one\\\\ntwo\\\\n'\"\n"), environ={})
    assert [key.reveal() for key in keys.dkim] == ["one\ntwo"]


def test_campaign_that_needs_no_keys_asks_for_none(campaign) -> None:
    assert find_keys(campaign("")).dkim == ()
    assert find_keys(None).unsubscribe is None


@pytest.mark.parametrize(
    ("more", "environ", "said"),
    [
        (
            LINKS + 'key_env = "A"',
            {},
            "variable A is not set, and the key that signs unsubscribe links is to",
        ),
        (LINKS + 'key_env = "A"', {"A": " "}, "the key that signs unsubscribe links is empty"),
        (LINKS + 'key_env = "A"', {"A": "hunter2\nx"}, "is not one line"),
        (LINKS + 'key_env = "A"', {"A": "hunter2" * 9999}, "is not one line of at most 10,000"),
        (SIGNED + 'key_file = "none.pem"', {}, "the key file cannot be read"),
        (SIGNED + 'key_env = "A"', {"A": "x\0y"}, "the DKIM key of s1._domainkey.shop.example is not a text"),
        (SIGNED + 'key_command = "false"', {}, "the key command false ended with exit code 1"),
    ],
)
def test_key_that_is_not_there_is_reported_unseen(campaign, more: str, environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_keys(campaign(more + "\n"), environ=environ)
    assert said in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_key_without_a_place_is_reported() -> None:
    from bulkmail.model.campaign import Template

    bare = Campaign("c", Template("f", "x"), Template("s", "y"), unsubscribe=Unsubscribe("https://x.example/{token}"))
    with pytest.raises(ConfigError, match="nothing says where the key that signs unsubscribe links comes from"):
        find_keys(bare)
