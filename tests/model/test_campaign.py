"""The campaign's fingerprint: changes with everything that shapes a message, and with nothing else."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model import campaign as module
from bulkmail.model.campaign import (
    Attachment,
    Campaign,
    Dkim,
    InlineImage,
    RowAttachment,
    RowPictures,
    Template,
    Unsubscribe,
)

PLAIN = Campaign(name="spring", sender=Template("from", "shop@example.org"), subject=Template("subject", "Hello"))
FULL = Campaign(
    name="spring",
    sender=Template("from", "shop@example.org"),
    subject=Template("subject", "Hello {{ name }}"),
    text=Template("message.txt", "text"),
    html=Template("message.html", "<p>text"),
    to_name=Template("to", "{{ name }}"),
    reply_to=Template("reply", "ann@example.org"),
    headers=(("X-One", Template("h1", "1")), ("X-Two", Template("h2", "2"))),
    attachments=(Attachment("a.pdf", "application/pdf", b"%PDF"), Attachment("b.txt", "text/plain", b"b")),
    partials=(Template("base.html", "<html>"), Template("foot.txt", "--")),
    reverse_path="bounces@example.org",
)
WHOLE = replace(
    FULL,
    to=Template("to", "a@example.org"),
    cc=Template("cc", "b@example.org"),
    bcc=Template("bcc", "c@example.org"),
    sent_by=Template("sender", "d@example.org"),
    list_id=Template("list_id", "news.example.org"),
    feedback_id=Template("feedback_id", "a:sender"),
    unsubscribe=Unsubscribe("https://example.org/{token}", "off@example.org", "env:KEY"),
    dkim=(Dkim("example.org", "s1", "", "file:/key.pem"), Dkim("example.org", "s2")),
)
RICH = replace(
    WHOLE,
    markdown=Template("message.md", "# text"),
    mjml=Template("message.mjml", "<mjml>"),
    preheader=Template("preheader", "now"),
    calendar=Template("invite.ics", "BEGIN:VCALENDAR"),
    images=(InlineImage("logo.png", "logo.png", "image/png", b"PNG"),),
    stylesheets=(Template("style.css", "p {}"),),
    inline_css=False,
    row_attachments=(RowAttachment(Template("a", "{{ id }}.pdf"), "/srv/files"),),
    locale=Template("locale", "de_AT"),
    timezone="Europe/Vienna",
    data='{"season":"spring"}',
    variants=(("a", 1), ("b", 1)),
    group_by=("email",),
    row_pictures=RowPictures("/shop", "pages"),
    follows="0123456789abcdef",
)


def reworded(template: Template) -> Template:
    return replace(template, text=template.text + ".")


def renamed(template: Template) -> Template:
    return replace(template, name="elsewhere/" + template.name)


CHANGES: dict[str, dict[str, object]] = {
    "sender": {"sender": reworded(FULL.sender)},
    "subject": {"subject": reworded(FULL.subject)},
    "text": {"text": Template("message.txt", "texts")},
    "text-gone": {"text": None},
    "text-empty": {"text": Template("message.txt", "")},
    "html": {"html": Template("message.html", "<p>text\n")},
    "html-gone": {"html": None},
    "to_name": {"to_name": Template("to", "{{ Name }}")},
    "to_name-gone": {"to_name": None},
    "reply_to": {"reply_to": Template("reply", "bob@example.org")},
    "reply_to-gone": {"reply_to": None},
    "headers-name": {"headers": (("X-Uno", Template("h1", "1")), ("X-Two", Template("h2", "2")))},
    "headers-value": {"headers": (("X-One", Template("h1", "3")), ("X-Two", Template("h2", "2")))},
    "headers-order": {"headers": FULL.headers[::-1]},
    "headers-fewer": {"headers": FULL.headers[:1]},
    "attachments-filename": {"attachments": (replace(FULL.attachments[0], filename="c.pdf"), FULL.attachments[1])},
    "attachments-type": {
        "attachments": (replace(FULL.attachments[0], content_type="application/x-pdf"), FULL.attachments[1])
    },
    "attachments-content": {"attachments": (replace(FULL.attachments[0], content=b"%PDG"), FULL.attachments[1])},
    "attachments-order": {"attachments": FULL.attachments[::-1]},
    "attachments-fewer": {"attachments": FULL.attachments[:1]},
    "partials-name": {"partials": (replace(FULL.partials[0], name="bass.html"), FULL.partials[1])},
    "partials-text": {"partials": (replace(FULL.partials[0], text="<HTML>"), FULL.partials[1])},
    "partials-fewer": {"partials": FULL.partials[:1]},
    "reverse_path": {"reverse_path": "bounce@example.org"},
    "reverse_path-gone": {"reverse_path": ""},
    **{
        f"{name}-{how}": {name: value}
        for name in ("to", "cc", "bcc", "sent_by", "list_id", "feedback_id")
        for how, value in (("changed", reworded(getattr(WHOLE, name))), ("gone", None))
    },
    "to-became-cc": {"to": None, "cc": WHOLE.to, "bcc": WHOLE.cc},
    "unsubscribe-https": {"unsubscribe": Unsubscribe("https://example.com/{token}", "off@example.org")},
    "unsubscribe-mailto": {"unsubscribe": Unsubscribe("https://example.org/{token}", "of@example.org")},
    "unsubscribe-gone": {"unsubscribe": None},
    "dkim-domain": {"dkim": (Dkim("example.com", "s1"), Dkim("example.org", "s2"))},
    "dkim-selector": {"dkim": (Dkim("example.org", "s3"), Dkim("example.org", "s2"))},
    "dkim-preset": {"dkim": (Dkim("example.org", "s1", "ses"), Dkim("example.org", "s2"))},
    "dkim-order": {"dkim": WHOLE.dkim[::-1]},
    "dkim-fewer": {"dkim": WHOLE.dkim[:1]},
    "dkim-gone": {"dkim": ()},
    **{f"{part}-gone": {part: None} for part in ("markdown", "mjml", "preheader", "calendar")},
    "markdown": {"markdown": Template("message.md", "## text")},
    "images-source": {"images": (replace(RICH.images[0], source="other.png"),)},
    "images-filename": {"images": (replace(RICH.images[0], filename="other.png"),)},
    "images-type": {"images": (replace(RICH.images[0], content_type="image/webp"),)},
    "images-content": {"images": (replace(RICH.images[0], content=b"GIF"),)},
    "images-gone": {"images": ()},
    "stylesheets-name": {"stylesheets": (Template("other.css", "p {}"),)},
    "stylesheets-text": {"stylesheets": (Template("style.css", "a {}"),)},
    "inline_css": {"inline_css": True},
    "row_attachments-path": {"row_attachments": (replace(RICH.row_attachments[0], path=Template("a", "{{ no }}")),)},
    "row_attachments-filename": {"row_attachments": (replace(RICH.row_attachments[0], filename=Template("n", "x")),)},
    "row_attachments-type": {"row_attachments": (replace(RICH.row_attachments[0], content_type="text/plain"),)},
    "row_attachments-optional": {"row_attachments": (replace(RICH.row_attachments[0], is_optional=True),)},
    "row_attachments-gone": {"row_attachments": ()},
    "has_subject": {"has_subject": False},
    "locale": {"locale": Template("locale", "de_CH")},
    "locale-gone": {"locale": None},
    "timezone": {"timezone": "UTC"},
    "data": {"data": '{"season":"summer"}'},
    "data-gone": {"data": ""},
    "variants-name": {"variants": (("a", 1), ("c", 1))},
    "variants-share": {"variants": (("a", 1), ("b", 2))},
    "variants-gone": {"variants": ()},
    "group_by-other": {"group_by": ("email", "order")},
    "group_by-gone": {"group_by": ()},
    "row_pictures-beside": {"row_pictures": RowPictures("/shop")},
    "row_pictures-attached": {"row_pictures": RowPictures("/shop", "pages", are_attached=True)},
    "row_pictures-gone": {"row_pictures": None},
    "follows": {"follows": "fedcba9876543210"},
    "follows-gone": {"follows": ""},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_fingerprint_changes_with_the_message(changes: dict[str, object]) -> None:
    assert replace(RICH, **changes).fingerprint != RICH.fingerprint  # type: ignore[arg-type]


def test_fingerprint_test_knows_every_field() -> None:
    assert {name.partition("-")[0] for name in CHANGES} == {part.name for part in fields(Campaign)} - {
        "name",
        "moment",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "summer"},
        {"moment": "2026-12-01T09:00:00+01:00"},
        {"sender": renamed(FULL.sender)},
        {"text": Template("moved/message.txt", "text")},
        {"headers": tuple((name, renamed(value)) for name, value in FULL.headers)},
        {"unsubscribe": Unsubscribe("https://example.org/{token}", "off@example.org", "env:OTHER")},
        {"dkim": tuple(replace(each, key_from="env:OTHER") for each in WHOLE.dkim)},
    ],
    ids=["name", "moment", "sender", "text", "headers", "unsubscribe-key", "dkim-key"],
)
def test_fingerprint_ignores_names_and_where_keys_come_from(changes: dict[str, object]) -> None:
    assert replace(RICH, **changes).fingerprint == RICH.fingerprint  # type: ignore[arg-type]


def test_fingerprint_stays_the_same_from_version_to_version() -> None:
    """It stands in outboxes: a new value would make every unfinished run look changed."""
    assert PLAIN.fingerprint == "8131dd4cd565529ccc4d749eb08d8ffb"
    assert FULL.fingerprint == "200c3681bd02d552d57529f4ae6c8e33"
    assert WHOLE.fingerprint == "9aa1737ec081f5d86f8fe444da409e92"


# Few messages, so that parts often run into one another: "ab" + "c" and "a" + "bc".
WORD = st.text("ab:1", max_size=3)
TEMPLATES = st.builds(Template, WORD, WORD)
CAMPAIGNS = st.builds(
    Campaign,
    name=st.just(""),
    sender=TEMPLATES,
    subject=TEMPLATES,
    text=st.none() | TEMPLATES,
    html=st.none() | TEMPLATES,
    headers=st.lists(st.tuples(WORD, TEMPLATES), max_size=2).map(tuple),
    attachments=st.lists(st.builds(Attachment, WORD, WORD, WORD.map(str.encode)), max_size=2).map(tuple),
    partials=st.lists(TEMPLATES, max_size=2).map(tuple),
    reverse_path=WORD,
)


def meaning(campaign: Campaign) -> tuple[object, ...]:
    """What of a campaign shapes a message."""
    return (
        campaign.sender.text,
        campaign.subject.text,
        campaign.text and (campaign.text.text,),
        campaign.html and (campaign.html.text,),
        [(name, value.text) for name, value in campaign.headers],
        campaign.attachments,
        campaign.partials,
        campaign.reverse_path,
    )


class Recorder:
    """Stands in for the hash: keeps what it is fed."""

    def __init__(self) -> None:
        self.fed = b""

    def update(self, data: bytes) -> None:
        self.fed += data


def fed_by(campaign: Campaign) -> bytes:
    recorder = Recorder()
    for part in fields(campaign):
        if part.name != "name":
            module._feed(recorder, part.name, getattr(campaign, part.name), in_partials=part.name == "partials")  # type: ignore[arg-type]
    return recorder.fed


@pytest.mark.slow
@given(CAMPAIGNS, CAMPAIGNS)
def test_fingerprint_is_equal_exactly_when_the_campaigns_mean_the_same(one: Campaign, other: Campaign) -> None:
    """Not by luck: what is fed to the hash does not even begin with what another campaign feeds it."""
    is_same = meaning(one) == meaning(other)
    assert (one.fingerprint == other.fingerprint) == is_same
    assert fed_by(one).startswith(fed_by(other)) == is_same


@given(st.text(st.characters(), max_size=5))
def test_fingerprint_takes_any_text(text: str) -> None:
    odd = replace(PLAIN, sender=Template("from", text + "\ud800"), reverse_path="\udfff")
    assert len(bytes.fromhex(odd.fingerprint)) == 16


def test_fingerprint_refuses_a_part_it_does_not_know() -> None:
    with pytest.raises(AssertionError, match="a campaign part of an unknown type: <class 'int'>"):
        _ = replace(PLAIN, reverse_path=5).fingerprint  # type: ignore[arg-type]


def test_attachment_keeps_its_content_out_of_its_repr() -> None:
    assert "PDF" not in repr(Attachment("a", "b/c", b"PDF"))
