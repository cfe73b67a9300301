"""For any cells: pictures, invitations and files of rows are what the standard library's own hand gives."""

import re
from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, default
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.compose.composer import Composer
from bulkmail.message.html.local_files import content_id
from bulkmail.model.campaign import Attachment, Campaign, InlineImage, RowAttachment, Template
from bulkmail.model.recipient import Address, Place, Recipient
from tests.examples import many
from tests.message.test_composer_property import assert_lawful, bodies, lines, structure, texts

PICTURE = InlineImage("logo.png", "Löwe.png", "image/png", bytes(range(256)) * 9)
TERMS = Attachment("Bedingungen für alle.pdf", "application/pdf", b"\0\r\n." * 500)
EVENT = "BEGIN:VCALENDAR\nVERSION:2.0\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:{{ place }}\nEND:VEVENT\nEND:VCALENDAR\n"
OWN = b"%PDF-1.7 \xff\n.\r\n" * 300

file_names = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp", "Co", "Cn"), exclude_characters='/\\"<>'),
    min_size=1,
    max_size=40,
).filter(lambda name: name == " ".join(name.split(" ")).strip() and name.isprintable() and "=?" not in name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the one file of a row is."""
    folder = tmp_path_factory.mktemp("bills")
    (folder / "17.pdf").write_bytes(OWN)
    return folder


@cache
def composer_of(parts: frozenset[str], folder: str) -> Composer:
    """The composer of a message with these parts."""
    campaign = Campaign("property", Template("from", "News <news@example.com>"), Template("subject", "Hello"))
    text = Template("message.txt", "{{ body }}")
    picture = '<img src="logo.png" alt="">' if "picture" in parts else ""
    campaign = replace(
        campaign,
        text=text if "text" in parts else None,
        html=Template("message.html", f"<p>{{{{ body }}}}</p>{picture}"),
        images=(PICTURE,) if "picture" in parts else (),
        calendar=Template("event.ics", EVENT) if "calendar" in parts else None,
        attachments=(TERMS,) if "terms" in parts else (),
    )
    if "own" in parts:
        own = RowAttachment(Template("file", "{{ number }}.pdf"), folder, filename=Template("name", "{{ file }}"))
        campaign = replace(campaign, row_attachments=(own,))
    return Composer(campaign, run_id="run")


def by_the_book(html: str, read: list[str], fields: dict[str, str], parts: frozenset[str]) -> EmailMessage:
    """The same message by the standard library's own hand; `read` is our text, which it cannot make of HTML."""
    message = EmailMessage(policy=SMTP)
    message.set_content(lines(fields["body"]) if "text" in parts else read[0])
    message.add_alternative(html, subtype="html")
    if "picture" in parts:
        page = message.get_payload()[1]
        page.add_related(PICTURE.content, "image", "png", cid=f"<{content_id(PICTURE)}>", filename=PICTURE.filename)
    event = EVENT.replace("{{ place }}", fields["place"].replace(",", "\\,"))
    if "calendar" in parts:
        message.add_alternative(event, subtype="calendar", params={"method": "REQUEST"})
    if "terms" in parts:
        message.add_attachment(TERMS.content, "application", "pdf", filename=TERMS.filename)
    if "calendar" in parts:
        message.add_attachment(event, subtype="calendar", params={"method": "REQUEST"}, filename="invite.ics")
    if "own" in parts:
        message.add_attachment(OWN, "application", "octet-stream", filename=fields["file"])
    return message


def unfolded(text: str) -> str:
    """A calendar as it is before its lines are cut at 75 bytes (RFC 5545 §3.1)."""
    return re.sub(r"\r?\n[ \t]", "", text).replace("\r\n", "\n")


def files(message: EmailMessage) -> list[tuple[str | None, object, str | None, str | None]]:
    """Name, content, Content-ID and method of all that is not a body."""
    found = []
    for part in message.walk():
        if part.is_multipart() or part.get_content_type() in ("text/plain", "text/html"):
            continue
        content = part.get_content()
        content = unfolded(content) if isinstance(content, str) else content
        found.append((part.get_filename(), content, part["Content-ID"], part["Content-Type"].params.get("method")))
    return found


@pytest.mark.slow
@many
@pytest.mark.timeout(240)
@given(
    parts=st.frozensets(st.sampled_from(["text", "picture", "calendar", "terms", "own"])),
    body=texts,
    place=st.from_regex(r"[^\W_][\w ,.-]{0,60}[^\W_]", fullmatch=True).filter(str.isprintable),
    file=file_names,
)
def test_parts_are_what_the_standard_library_makes(parts, body, place, file, folder):
    fields = {"body": body, "place": place, "file": f"{file}.bin", "number": "17"}
    recipient = Recipient(Address.parse("zoe@example.org"), "", fields, Place("list.csv", 2))
    composer = composer_of(parts, str(folder))
    composer.check(recipient)
    message = composer.compose(recipient, row=1, forward_path="zoe@example.org", date=1_700_000_000.0)

    raw = b"".join(message.buffers)
    assert_lawful(raw)
    read = message_from_bytes(raw, policy=default)
    assert all(not part.defects for part in read.walk())
    html = read.get_body(("html",)).get_content().replace("\r\n", "\n")
    assert ("cid:" in html) == ("picture" in parts)
    book = by_the_book(html, bodies(read), fields, parts)
    assert structure(read) == structure(book)
    assert [unfolded(text) for text in bodies(read)] == [unfolded(text) for text in bodies(book)]
    assert files(read) == files(book)
