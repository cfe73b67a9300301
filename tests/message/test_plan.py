"""The shape of messages: which part stands where, and what is shared."""

from email import message_from_bytes
from email.policy import default
from email.utils import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.compose.mime_plan import IDENTITY_LENGTH, MimePlan, Slot, body_slot, make_plan
from bulkmail.model.campaign import Attachment, Campaign, Template
from bulkmail.model.errors import ConfigError

IDENTITY = b"abcdefghijklmnopqrstuvwxyz234567"
PDF = Attachment("invoice.pdf", "application/pdf", b"%PDF")


def plan_of(kinds: str, *attachments: Attachment) -> MimePlan:
    """The plan of a campaign with a text (t), an HTML (h) and these attachments."""
    template = Template("x", "x")
    return make_plan(
        Campaign(
            "spring",
            template,
            template,
            text=template if "t" in kinds else None,
            html=template if "h" in kinds else None,
            attachments=attachments,
        )
    )


def fill(plan: MimePlan) -> bytes:
    """A whole message of `plan`."""
    values = {
        Slot.HEAD: b"Subject: x\r\n",
        Slot.IDENTITY: IDENTITY,
        Slot.TEXT: body_slot(b"7bit", b"the text\r\n"),
        Slot.HTML: body_slot(b"quoted-printable", b"<p>=C3=BC</p>\r\n"),
        Slot.CALENDAR: body_slot(b"7bit", b"BEGIN:VCALENDAR\r\n"),
        Slot.PICTURES: b"",
    }
    return b"".join(plan.fill([values[slot] for slot in Slot]))


@pytest.mark.parametrize(
    ("kinds", "attachments", "structure"),
    [
        ("t", [], ["text/plain"]),
        ("h", [], ["multipart/alternative", "text/plain", "text/html"]),
        ("th", [], ["multipart/alternative", "text/plain", "text/html"]),
        ("t", [PDF], ["multipart/mixed", "text/plain", "application/pdf"]),
        (
            "th",
            [PDF, PDF],
            [
                "multipart/mixed",
                "multipart/alternative",
                "text/plain",
                "text/html",
                "application/pdf",
                "application/pdf",
            ],
        ),
    ],
    ids=["text", "html", "both", "text-and-file", "both-and-files"],
)
def test_plan_nests_no_deeper_than_it_must(kinds, attachments, structure):
    read = message_from_bytes(fill(plan_of(kinds, *attachments)), policy=default)
    assert [part.get_content_type() for part in read.walk()] == structure
    assert [name for name in read.keys() if name != "Content-Transfer-Encoding"] == [  # noqa: SIM118
        "Subject",
        "MIME-Version",
        "Content-Type",
    ]
    assert not any(part.defects for part in read.walk())


def test_plan_puts_each_body_in_its_place():
    read = message_from_bytes(fill(plan_of("th", PDF)), policy=default)
    text, html = (read.get_body((kind,)) for kind in ("plain", "html"))
    assert text.get_content() == "the text\r\n"
    assert html.get_content() == "<p>ü</p>\r\n"
    assert html["Content-Transfer-Encoding"] == "quoted-printable"
    assert {text.get_content_charset(), html.get_content_charset()} == {"utf-8"}


def test_plan_makes_every_boundary_of_the_identity():
    read = message_from_bytes(fill(plan_of("th", PDF)), policy=default)
    boundaries = [part.get_boundary() for part in read.walk() if part.is_multipart()]
    assert boundaries == [f"=_m_{IDENTITY.decode()}", f"=_a_{IDENTITY.decode()}"]
    assert len(IDENTITY) == IDENTITY_LENGTH


def test_plan_shares_long_attachments_between_messages():
    big = Attachment("big.bin", "application/octet-stream", bytes(100_000))
    plan = plan_of("t", big, PDF, big)
    values = [b"", IDENTITY, body_slot(b"7bit", b"x\r\n"), b""]
    first, second = plan.fill(values), plan.fill(values)
    assert [len(buffer) > 100_000 for buffer in first] == [False, True, False, True, False]
    assert first[1] is second[1]
    assert first[1] == first[3]


@pytest.mark.slow
@given(st.lists(st.binary(max_size=5000), max_size=3))
def test_plan_keeps_attachments_to_the_byte(contents):
    attachments = [Attachment(f"{number}.bin", "application/zip", each) for number, each in enumerate(contents)]
    raw = fill(plan_of("t", *attachments))
    read = message_from_bytes(raw, policy=default)
    assert [part.get_content() for part in read.iter_attachments()] == contents
    assert max(map(len, raw.split(b"\r\n"))) <= 78


chars = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="/\\")
file_names = (
    st.text(chars, max_size=60).map(str.strip).filter(lambda name: name and not ("=?" in name and "?=" in name))
)


@pytest.mark.slow
@given(file_names)
def test_plan_keeps_file_names_of_any_script(name):
    raw = fill(plan_of("t", Attachment(name, "application/pdf", b"x")))
    [attachment] = message_from_bytes(raw, policy=default).iter_attachments()
    # Python's reader takes angle brackets around a whole name for quotes; the parameter itself has them.
    assert attachment.get_filename() == unquote(name)
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998


def test_plan_is_not_misled_by_a_file_name_that_looks_like_its_own_marks():
    plan = plan_of("t", PDF)
    inner = [piece for segment in plan.segments for piece in segment if isinstance(piece, bytes)]
    assert all(b"Content-Transfer-Encoding: 7bit" not in piece for piece in inner)
    [attachment] = message_from_bytes(
        fill(plan_of("t", Attachment("s0 s1 s2 c0e.pdf", "application/pdf", b"x"))), policy=default
    ).iter_attachments()
    assert attachment.get_filename() == "s0 s1 s2 c0e.pdf"


@pytest.mark.parametrize("content_type", ["message/rfc822", "multipart/mixed", "MESSAGE/Partial"])
def test_plan_sends_a_message_as_a_file(content_type):
    enclosed = b"Subject: x\n\n--=_m_\n"
    [attachment] = message_from_bytes(
        fill(plan_of("t", Attachment("a.eml", content_type, enclosed))), policy=default
    ).iter_attachments()
    assert attachment.get_content_type() == "application/octet-stream"
    assert attachment.get_content() == enclosed


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "a/b.pdf",
        "..\\b.pdf",
        "a\nb.pdf",
        "a\rb.pdf",
        "a\0b",
        "a\tb",
        "a\u2028b",
        "a\x85b",
        "a\ud800b",
        "x" * 256,
        "=?utf-8?q?a?=",
    ],
    ids=ascii,
)
def test_plan_refuses_a_file_name_that_is_none(name):
    with pytest.raises(ConfigError, match=r"attachment"):
        plan_of("t", Attachment(name, "application/pdf", b"x"))


@pytest.mark.parametrize("content_type", ["", "pdf", "a/b/c", "text/plain; charset=x", "a/b\r\nBcc: x", "é/b", "/"])
def test_plan_refuses_a_type_that_is_none(content_type):
    with pytest.raises(ConfigError, match=r"has the type"):
        plan_of("t", Attachment("a.pdf", content_type, b"x"))


def test_plan_refuses_a_campaign_that_says_nothing():
    with pytest.raises(ConfigError, match=r"'spring' has neither text nor HTML"):
        plan_of("")
