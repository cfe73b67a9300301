"""For any cells: copies, senders, list and links are what the standard library would make, lawful and signed."""

import re
from email import message_from_bytes
from email.headerregistry import Address as StandardAddress
from email.message import EmailMessage
from email.policy import SMTP, default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.compose.composer import Composer
from bulkmail.message.unsubscribe import verify_unsubscribe
from bulkmail.message.verp import decode_verp
from bulkmail.model.campaign import Campaign, Template, Unsubscribe
from bulkmail.model.recipient import Address, Place, Recipient
from tests.examples import many
from tests.signing import ED25519, RSA, UNSUBSCRIBE_KEY, KeyRing

NAMES = {
    *("DKIM-Signature", "From", "Sender", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "List-Id"),
    *("Feedback-ID", "Precedence", "List-Unsubscribe", "List-Unsubscribe-Post"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
}
VERP = "bounces+{verp}@shop.example"

ring = KeyRing()
composer = Composer(
    Campaign(
        "property",
        Template("from", "{{ agent }} <{{ agent_address }}>"),
        Template("subject", "News"),
        text=Template("message.txt", "{{ body }}\n{{ unsubscribe_url }}\n"),
        to=Template("to", "{{ friend }} <friend@example.org>"),
        cc=Template("cc", "{{ boss }} <boss@example.org>, {{ more }}"),
        bcc=Template("bcc", "archive@example.org"),
        sent_by=Template("sender", "{{ office }} <office@shop.example>"),
        reply_to=Template("reply_to", "{{ agent }} <{{ agent_address }}>"),
        list_id=Template("list_id", "{{ title }} <news.shop.example>"),
        feedback_id=Template("feedback_id", "spring:news:gardenshop"),
        unsubscribe=Unsubscribe("https://shop.example/u/{token}", "u+{token}@shop.example"),
        dkim=(RSA, ED25519),
        reverse_path=VERP,
    ),
    run_id="run",
    keys=ring.keys_for(RSA, ED25519),
)

plain = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="<>@"), max_size=20)
nasty = st.sampled_from(["=?utf-8?q?=0D=0ABcc=3A_x?=", "=?", '"', "\\", "  ", "(", ";", ",", "🎉", "שלום", "ü" * 80])
names = st.lists(plain | nasty, max_size=3).map("".join).map(lambda text: text.strip().strip('"').strip())
locals_ = st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,25}", fullmatch=True)
addresses = st.builds(Address, locals_, st.sampled_from(["example.org", "xn--bcher-kva.example"]))


def unspaced(text):
    """`text` without spaces: Python 3.11 keeps one between encoded words that RFC 2047 §6.2 drops."""
    return "".join(text.split())


def shown(header):
    return [(unspaced(mailbox.display_name), mailbox.addr_spec) for mailbox in header.addresses]


def written(fields, *, to):
    """Names and addresses as they were meant."""
    return {
        "From": [(fields["agent"], fields["agent_address"])],
        "Sender": [(fields["office"], "office@shop.example")],
        "To": [("", to), (fields["friend"], "friend@example.org")],
        "Cc": [(fields["boss"], "boss@example.org"), *[("", other) for other in fields["more"].split(";") if other]],
    }


def by_the_book(mailboxes):
    """Those headers by the standard library's own hand, read back; those that it writes wrongly are missing."""
    message = EmailMessage(policy=SMTP)
    for header, pairs in mailboxes.items():
        message[header] = [StandardAddress(name, addr_spec=address) for name, address in pairs]
    read = message_from_bytes(message.as_bytes(), policy=default)
    for header, pairs in mailboxes.items():
        # Folding a list with an encoded name, Python 3.11 may encode the comma between two mailboxes: then it loses one
        # when it reads them, or fails.
        try:
            found = [mailbox.addr_spec for mailbox in read[header].addresses]
        except IndexError:
            found = []
        if found != [address for _, address in pairs]:
            del read[header]
    return read


@pytest.mark.slow
@many
@given(
    address=addresses,
    agent_address=addresses.map(lambda address: f"agent.{address.wire}"),
    agent=names,
    office=names,
    friend=names,
    boss=names,
    title=names,
    more=st.lists(addresses.map(lambda address: f"more.{address.wire}"), max_size=3, unique_by=str.casefold),
    body=st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=200),
)
def test_heading_is_what_the_standard_library_makes(address, agent_address, more, body, **cells):
    fields = {**cells, "agent_address": agent_address, "more": ";".join(more), "body": body}
    recipient = Recipient(address, "", fields, Place("list.csv", 2))
    composer.check(recipient)
    message = composer.compose(recipient, row=1, forward_path=address.wire, date=1_700_000_000.0)
    raw = b"".join(message.buffers)

    head = raw.partition(b"\r\n\r\n")[0]
    assert raw.isascii()
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", raw)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert all(len(line) <= 76 for line in head.split(b"\r\n") if b"=?utf-8?" in line)
    found = re.findall(rb"(?m)^([^ \t:]+):", head)
    assert {name.decode() for name in found} == NAMES
    assert len(found) == len(NAMES) + 1  # two signatures

    assert ring.verifies(raw, 0)
    assert ring.verifies(raw, 1)

    read = message_from_bytes(raw, policy=default)
    meant = written(fields, to=address.wire)
    for name, mailboxes in meant.items():
        assert [addr for _, addr in shown(read[name])] == [addr for _, addr in mailboxes]
    # A name that looks like an encoded word the library decodes before it writes, line ends and all.
    if not any("=?" in str(cell) for cell in cells.values()):
        book = by_the_book(meant)
        assert all(shown(read[name]) == shown(book[name]) for name in meant if name in book)
    assert str(read["List-Id"]).endswith("<news.shop.example>")
    token = re.search(r"/u/([\w-]+)>", str(read["List-Unsubscribe"]).replace(" ", ""))[1]
    assert verify_unsubscribe(token, [UNSUBSCRIBE_KEY]).key == address.key
    assert f"https://shop.example/u/{token}" in read.get_content()

    paths = composer.forward_paths(recipient)
    assert paths[0] == address.wire
    assert set(paths) >= {"friend@example.org", "boss@example.org", "archive@example.org", *more}
    assert b"archive@" not in raw
    path = message.envelope.reverse_path
    assert path == "bounces@shop.example" or decode_verp(path, VERP) == address
