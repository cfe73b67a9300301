"""For any cells: what is composed, read back by the standard library, is what was meant, and its bytes are lawful."""

import re
from email import message_from_bytes
from email.header import decode_header, make_header
from email.headerregistry import Address as StandardAddress
from email.message import EmailMessage
from email.policy import SMTP, default
from email.utils import parseaddr
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.compose.composer import Composer
from bulkmail.message.header.headers import forbidden_in
from bulkmail.message.html.to_text import read_page, typeset
from bulkmail.model.campaign import Attachment, Campaign, Template
from bulkmail.model.recipient import Address, Place, Recipient
from tests.examples import many

HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Reply-To", "X-Tag", "MIME-Version", "Content-Type"]

nasty = st.sampled_from(
    [
        "=?utf-8?q?=0D=0ABcc=3A_x?=",
        "=?",
        "?=",
        "From ",
        "\nFrom me\n",
        ".",
        "\n.\n",
        "..",
        '"',
        "\\",
        "<script>",
        "{{ 7*7 }}",
        "a@b.example, c@d.example",
        ";:<>()[]",
        " ",
        "  ",
        "\t",
        "=",
        "=_m_",
        "--",
        "🎉",
        "e\u0301",
        "\u200f\u05e9\u05dc\u05d5\u05dd",
        "日本語",
        "Привет, мир",
        "x" * 80,
        "ü" * 80,
        "y" * 1100,
        "\u00a0",
        "\u3000",
        "\x1b[31m",
        "\u2028",
        "\x85",
        "\x0c",
        "\r",
        "\r\n",
        "\n",
    ]
)
pieces = st.lists(nasty | st.text(max_size=30), max_size=6).map("".join)
words = pieces.map(lambda text: "".join(" " if forbidden_in(each) else each for each in text))
texts = pieces.map(lambda text: text.replace("\0", ""))
subjects = words.map(lambda text: text if text.strip() else "News")
companies = words.map(lambda text: re.sub("[<>@]", "", text)[:900])
ATTACHMENTS = {
    "none": (),
    "one": (Attachment("invoice.pdf", "application/pdf", b"\0\r\n." * 2000),),
    "two": (Attachment("Rechnung für Zoë.pdf", "application/pdf", b"%PDF"), Attachment("b.txt", "text/plain", b"")),
}


def spaced(text: str) -> str:
    """As a header keeps it."""
    return text.replace("\t", " ").strip(" ")


def named(text: str) -> str:
    """As a display name keeps it: runs of spaces are one."""
    return " ".join(filter(None, spaced(text).split(" ")))


def lines(text: str) -> str:
    """As a body keeps it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"


def structure(message: EmailMessage) -> list[str]:
    """The types of all parts, in order."""
    return [part.get_content_type() for part in message.walk()]


def bodies(message: EmailMessage) -> list[str]:
    """The decoded texts with LF line ends."""
    return [
        part.get_content().replace("\r\n", "\n")
        for part in message.walk()
        if part.get_content_maintype() == "text" and not part.is_attachment()
    ]


def enclosures(message: EmailMessage) -> list[tuple[str | None, object]]:
    """Names and bytes of the attachments."""
    return [(part.get_filename(), part.get_content()) for part in message.iter_attachments()]


@cache
def composer_of(kinds: str, attachments: str) -> Composer:
    """The composer of a message that shows the cells everywhere."""
    campaign = Campaign(
        "property",
        Template("from", "{{ company }} <news@example.com>"),
        Template("subject", "{{ subject }}"),
        text=Template("message.txt", "{{ body }}") if "t" in kinds else None,
        html=Template("message.html", "<p>{{ body }}</p>") if "h" in kinds else None,
        to_name=Template("to_name", "{{ name }}"),
        reply_to=Template("reply_to", "Ann <ann@example.com>"),
        headers=(("X-Tag", Template("X-Tag", "{{ tag }}")),),
        attachments=ATTACHMENTS[attachments],
    )
    return Composer(campaign, run_id="run")


def write(composer: Composer, fields: dict[str, object]) -> bytes:
    """The bytes of the message for these cells."""
    recipient = Recipient(Address.parse("zoe@example.org"), "", fields, Place("list.csv", 2))
    composer.check(recipient)
    message = composer.compose(recipient, row=1, forward_path="zoe@example.org", date=1_700_000_000.0)
    assert not message.is_8bit
    assert not message.needs_smtputf8
    return b"".join(message.buffers)


def by_the_book(fields: dict[str, str], *, kinds: str, attachments: tuple[Attachment, ...]) -> EmailMessage:
    """The same message by the standard library's own hand."""
    message = EmailMessage(policy=SMTP)
    message["From"] = StandardAddress(named(fields["company"]), addr_spec="news@example.com")
    message["To"] = StandardAddress(named(fields["name"]), addr_spec="zoe@example.org")
    message["Subject"] = spaced(fields["subject"])
    escaped = fields["body"]
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ('"', "&#34;")):
        escaped = escaped.replace(sign, entity)
    html = lines(f"<p>{escaped}</p>")
    if "t" in kinds:
        message.set_content(lines(fields["body"]))
    else:
        message.set_content(lines(typeset(read_page(html))))
    if "h" in kinds:
        message.add_alternative(html, subtype="html")
    for each in attachments:
        maintype, subtype = each.content_type.split("/")
        message.add_attachment(each.content, maintype=maintype, subtype=subtype, filename=each.filename)
    return message


def decoded_name(raw: bytes) -> str:
    """The display name in To, decoded by the library's older code, which knows RFC 2047 §6.2."""
    raw = message_from_bytes(raw)["To"].replace("\r\n", "")
    return str(make_header(decode_header(parseaddr(raw)[0])))


def unspaced(text: str) -> str:
    """`text` without any kind of space."""
    return "".join(text.split())


def assert_lawful(raw: bytes) -> None:
    """No byte that a server may refuse or read differently (RFC 5321 §2.3.8, RFC 5322 §2.1.1, RFC 2045 §6)."""
    assert raw.isascii()
    assert b"\0" not in raw
    assert raw.endswith(b"\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", raw)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    head, _, body = raw.partition(b"\r\n\r\n")
    assert max(map(len, body.split(b"\r\n"))) <= 78  # the headers of parts; encoded text has 76
    assert not re.search(rb"(?m)^From ", body)
    names = [line.partition(b":")[0].decode() for line in head.split(b"\r\n") if line[:1] not in b" \t"]
    assert len(names) == len(set(names))
    assert set(names) <= {*HEADERS, "Content-Transfer-Encoding"}
    for line in head.split(b"\r\n"):
        assert line.strip()
        assert len(line) <= 76 or b"=?utf-8?" not in line
        assert len(line) <= 78 or b" " not in line.strip().partition(b": ")[2]


@pytest.mark.slow
@many
@given(
    kinds=st.sampled_from(["t", "h", "th"]),
    attachments=st.sampled_from(sorted(ATTACHMENTS)),
    company=companies,
    name=words,
    subject=subjects,
    tag=words,
    body=texts,
)
def test_composer_writes_what_the_standard_library_reads(kinds, attachments, company, name, subject, tag, body):
    fields = {"company": company, "name": name, "subject": subject, "tag": tag, "body": body}

    raw = write(composer_of(kinds, attachments), fields)

    assert_lawful(raw)
    read = message_from_bytes(raw, policy=default)
    assert all(not part.defects for part in read.walk())
    book = by_the_book(fields, kinds=kinds, attachments=ATTACHMENTS[attachments])
    assert read["Subject"] == spaced(subject)
    assert read["To"].addresses[0].addr_spec == "zoe@example.org"
    assert len(read["To"].addresses) == len(read["From"].addresses) == 1
    assert read["From"].addresses[0].addr_spec == "news@example.com"
    assert decoded_name(raw) == named(name)
    assert read.get("X-Tag", "") == spaced(tag)
    assert structure(read) == structure(book)
    assert bodies(read) == bodies(book)
    assert enclosures(read) == enclosures(book)
    if "=?" not in subject + name:  # the library takes these for words already encoded
        assert read["Subject"] == book["Subject"]
        # Between two encoded words of a name Python 3.11 keeps a space that RFC 2047 §6.2 drops; it strips others.
        assert unspaced(read["To"].addresses[0].display_name) == unspaced(book["To"].addresses[0].display_name)
    boundaries = [part.get_boundary() for part in read.walk() if part.is_multipart()]
    for part in read.walk():
        if not part.is_multipart():
            assert not any(f"--{boundary}" in part.get_payload() for boundary in boundaries)
