"""DKIM: dkimpy takes every signature, and none after what it covers was changed."""

import re
from base64 import b64encode
from hashlib import sha256

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from dkim.canonicalization import CanonicalizationPolicy
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.compose.composer import Composer
from bulkmail.message.dkim import Signer, Signers, body_hash, canonical_body, canonical_fields
from bulkmail.model.campaign import Attachment, Dkim, InlineImage, Keys, RowAttachment, Template, Unsubscribe
from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Secret
from tests.signing import ED25519, RSA, pem

DATE = 1_700_000_000.5


@pytest.fixture
def sign(recipient, key_ring):
    """The bytes of a signed message."""

    def sign(campaign, *, to=recipient, row=1, **changes):
        composer = Composer(campaign, run_id="run", keys=key_ring.keys_for(*campaign.dkim), **changes)
        message = composer.compose(to, row=row, forward_path=to.address.wire, date=DATE)
        return b"".join(message.buffers)

    return sign


def tags(content, index=0):
    """The tags of one signature."""
    value = [value for name, value in dkim.rfc822_parse(content)[0] if name.lower() == b"dkim-signature"][index]
    return {key.decode(): part.decode() for key, part in dkim.util.parse_tag_value(value).items()}


SHAPES = {
    "text": {},
    "spaces": {"text": "Dear {{ name }},\n\n  two  spaces\tand a tab \n\n\n  and more   \n"},
    "umlauts": {
        "text": "Liebe {{ name }},\nviele Grüße aus Wien, und das an alle.\n",
        "subject": "Grüße, {{ name }}",
    },
    "dense": {"text": "日本語の手紙 {{ name }}\n" * 30, "subject": "日本語" * 40},
    "html": {"text": None, "html": "<table>\n  <tr>\n    <td>{{ name }}</td>\n  </tr>\n</table>\n"},
    "both": {"html": "<p>  {{ name }}\n\t<b>x</b>"},
    "dots": {"text": ".\n..\nFrom me\n.\n"},
    "attachment": {"html": "<p>x", "attachments": (Attachment("ä b.pdf", "application/pdf", bytes(range(256)) * 90),)},
    "markdown": {"text": None, "markdown": "# Hi {{ name }}\n\n- a\n- b  \n"},
    "pictures": {
        "html": "<p>{{ name }}<img src=a.png>",
        "images": (InlineImage("a.png", "a.png", "image/png", bytes(range(256)) * 90),),
    },
    "calendar": {"calendar": "BEGIN:VCALENDAR\nMETHOD:REQUEST\nEND:VCALENDAR"},
    "all-headers": {
        "to": "Bob <bob@example.org>",
        "cc": "Cy  Li <cy@example.org>, " * 9,
        "sent_by": "Post <post@shop.example>",
        "reply_to": "Ann <ann@shop.example>",
        "list_id": "Garden  news <news.shop.example>",
        "feedback_id": "spring:news:gardenshop",
        "unsubscribe": Unsubscribe("https://shop.example/u/{token}", "off@shop.example"),
        "headers": (("X-Tag", Template("X-Tag", "a    b")),),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("keys", [(RSA,), (ED25519,), (RSA, ED25519)], ids=["rsa", "ed25519", "both"])
def test_dkimpy_takes_the_signature(make_campaign, sign, key_ring, keys, shape):
    content = sign(make_campaign(dkim=keys, **shape))
    for index in range(len(keys)):
        assert key_ring.verifies(content, index)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 10, 300_000])
@pytest.mark.parametrize("html", [None, "<p>x"], ids=["text", "both"])
def test_dkimpy_takes_the_signature_over_files_of_the_row(make_campaign, sign, key_ring, tmp_path, html, size):
    (tmp_path / "a.bin").write_bytes(b"x" * size)
    own = RowAttachment(Template("attachments", "{{ 'a.bin' }}"), str(tmp_path))
    common = Attachment("b.pdf", "application/pdf", bytes(range(256)) * 90)
    for files in ({"row_attachments": (own,)}, {"row_attachments": (own, own), "attachments": (common,)}):
        assert key_ring.verifies(sign(make_campaign(dkim=(RSA,), html=html, **files)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"From: Shop", b"From: Shep"),
        (b"Subject: Hello", b"Subject: Hallo"),
        (b"we are open", b"we are shut"),
        (b"Date: Tue", b"Date: Wed"),
        (b"Reply-To:", b"Reply-Xo:"),
        (b"List-Unsubscribe-Post: List", b"List-Unsubscribe-Post: Last"),
        (b"MIME-Version: 1.0", b"MIME-Version: 1.1"),
        (b"From: Shop", b"From: evil@example.net\r\nFrom: Shop"),
    ],
)
@pytest.mark.parametrize("keys", [RSA, ED25519], ids=["rsa", "ed25519"])
def test_signature_breaks_with_what_it_covers(make_campaign, sign, key_ring, keys, old, new):
    campaign = make_campaign(
        dkim=(keys,), reply_to="a@shop.example", unsubscribe=Unsubscribe("https://shop.example/u/{token}")
    )
    content = sign(campaign)
    assert key_ring.verifies(content)
    assert content.count(old) == 1
    assert not key_ring.verifies(content.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"), [(b"X-Tag: a", b"X-Tag: b"), (b"To: Ann", b"TO:  Ann"), (b" we are", b"   we \t are")], ids=repr
)
def test_signature_holds_where_relays_may_change_things(make_campaign, sign, key_ring, old, new):
    campaign = make_campaign(
        dkim=(RSA,), headers=(("X-Tag", Template("X-Tag", "a")),), text="Dear {{ name }}, we are open.\n"
    )
    assert key_ring.verifies(sign(campaign).replace(old, new))


def test_signature_says_what_it_should(make_campaign, sign):
    content = sign(make_campaign(dkim=(RSA,), **SHAPES["all-headers"]))
    found = tags(content)
    names = re.sub(r"\s", "", found["h"]).split(":")
    assert found["v"] == "1"
    assert found["a"] == "rsa-sha256"
    assert found["c"] == "relaxed/relaxed"
    assert (found["d"], found["s"], found["t"]) == ("shop.example", "rsa", "1700000000")
    assert names[:2] == ["from", "from"]
    assert set(names) == {
        *("from", "to", "cc", "reply-to", "sender", "subject", "date", "message-id", "mime-version", "content-type"),
        *("content-transfer-encoding", "list-id", "list-unsubscribe", "list-unsubscribe-post", "feedback-id"),
    }
    assert content.startswith(b"DKIM-Signature: v=1;")
    signature = content.partition(b"\r\nFrom:")[0]
    assert max(map(len, signature.split(b"\r\n"))) <= 78


def test_signature_names_no_header_that_is_not_there(make_campaign, sign):
    names = re.sub(r"\s", "", tags(sign(make_campaign(dkim=(RSA,))))["h"]).split(":")
    assert names == [
        "from",
        *("from", "to", "subject", "date", "message-id", "mime-version", "content-type", "content-transfer-encoding"),
    ]


def test_preset_leaves_out_what_the_relay_rewrites(make_campaign, sign, key_ring):
    content = sign(make_campaign(dkim=(Dkim("shop.example", "rsa", preset="ses"),)))
    rewritten = re.sub(rb"(?m)^(Message-ID|Date): .*", rb"\1: another", content)
    assert rewritten != content
    assert key_ring.verifies(rewritten)


@pytest.mark.slow
def test_resend_is_the_same_to_the_byte(make_campaign, sign):
    campaign = make_campaign(dkim=(RSA, ED25519))
    assert sign(campaign) == sign(campaign)
    assert sign(campaign) != sign(campaign, row=2)


def test_long_constants_are_made_canonical_once_and_stay_shared(make_campaign, recipient, key_ring):
    campaign = make_campaign(dkim=(RSA,), attachments=(Attachment("a.pdf", "application/pdf", bytes(60_000)),))
    composer = Composer(campaign, run_id="run", keys=key_ring.keys_for(RSA))
    one, two = (composer.compose(recipient, row=row, forward_path="a@example.org", date=DATE).buffers for row in (1, 2))
    assert one[2] is two[2]
    assert len(one[2]) > 80_000
    assert composer._signers._canonical[1] is one[2]


@pytest.mark.slow
@given(
    st.lists(
        st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"x", b"yy", b"="])).map(b"".join), min_size=1, max_size=4
    ),
)
def test_body_is_made_canonical_as_dkimpy_does(buffers):
    buffers = [*buffers, b"\r\n"]  # as every message ends
    policy = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")
    assert body_hash(buffers, [None] * len(buffers)) == sha256(policy.canonicalize_body(b"".join(buffers))).digest()


@pytest.mark.slow
@given(
    st.lists(
        st.lists(st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"x", b"Y:", b"=?"]), max_size=9).map(b"".join),
        max_size=5,
    )
)
def test_header_is_made_canonical_as_dkimpy_does(values):
    head = b"".join(b"X-Tag :%b\r\n" % value for value in values)
    expected = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed").canonicalize_headers(
        [(b"X-Tag ", value + b"\r\n") for value in values]
    )
    found = canonical_fields(head).get(b"x-tag", [])
    assert found == [b"%b:%b" % (name, value) for name, value in expected]


@pytest.mark.slow
def test_header_may_reach_over_several_buffers(make_campaign, sign, key_ring):
    content = sign(make_campaign(dkim=(RSA,))).partition(b"\r\nFrom:")[2]
    signers = Signers([Signer(RSA, pem(key_ring.rsa))], [(0,), b"x", (1,)])
    buffers = signers.sign([b"From:", content[:20], content[20:]], 1_700_000_000)
    assert buffers[1:] == (b"From:", content[:20], content[20:])
    assert key_ring.verifies(b"".join(buffers))


def test_body_without_white_space_is_not_copied():
    data = b64encode(bytes(9000))
    assert canonical_body(data) is data


BAD_KEYS = {
    "none": (None, "is missing"),
    "no-pem": (Secret("hunter2"), "not a private key in PEM"),
    "public": (Secret("-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----"), "not a private key in PEM"),
}


@pytest.mark.parametrize(("key", "said"), BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_key_that_cannot_sign_is_refused_unseen(key, said):
    with pytest.raises(ConfigError, match=said) as error:
        Signer(RSA, key)
    assert "rsa._domainkey.shop.example" in str(error.value)
    assert "hunter2" not in f"{error.value}{error.value.hint}"


def test_key_that_is_encrypted_is_refused(key_ring):
    encrypted = key_ring.rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
    with pytest.raises(ConfigError, match="encrypted"):
        Signer(RSA, Secret(encrypted))


def test_key_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="neither RSA nor Ed25519"):
        Signer(RSA, pem(ec.generate_private_key(ec.SECP256R1())))


def test_key_ring_that_no_one_accepts_is_refused(monkeypatch):
    monkeypatch.setattr("bulkmail.message.dkim.SHORTEST_RSA", 4096)
    with pytest.raises(ConfigError, match="2048 bits"):
        Signer(RSA, pem(generate_private_key(65537, 2048)))


def test_key_in_a_variable_may_have_its_line_ends_written(key_ring):
    Signer(RSA, Secret(pem(key_ring.rsa).reveal().replace("\n", "\\n")))


@pytest.mark.parametrize(
    ("dkim", "said"),
    [
        (Dkim("shop example", "s"), "is not a domain"),
        (Dkim("", "s"), "is not a domain"),
        (Dkim("shop.example; d=evil", "s"), "is not a domain"),
        (Dkim("shop.example", "s\r\nX: y"), "is not a selector"),
        (Dkim("shop.example", ""), "is not a selector"),
        (Dkim("shop.example", "s", preset="sess"), "no preset 'sess'"),
    ],
)
def test_names_that_no_dns_has_are_refused(dkim, said, key_ring):
    with pytest.raises(ConfigError, match=said):
        Signer(dkim, pem(key_ring.rsa))


def test_international_domain_is_signed_in_ascii(make_campaign, recipient, key_ring):
    campaign = make_campaign(dkim=(Dkim("bücher.example", "s"),))
    composer = Composer(campaign, run_id="run", keys=key_ring.keys_for(RSA))
    buffers = composer.compose(recipient, row=1, forward_path="a@example.org", date=DATE).buffers
    assert b"d=xn--bcher-kva.example;" in buffers[0]


def test_as_many_keys_as_signatures(make_campaign, key_ring):
    with pytest.raises(ConfigError, match="1 DKIM keys for 2 signatures"):
        Composer(make_campaign(dkim=(RSA, ED25519)), run_id="run", keys=key_ring.keys_for(RSA))


def test_keys_are_shown_to_no_one(key_ring):
    assert "BEGIN" not in repr(Keys(Secret("BEGIN"), (pem(key_ring.rsa),)))
