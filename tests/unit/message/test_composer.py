"""The composer's promises: the same arguments give the same octets, what is constant is shared, faults are told."""

from email import message_from_bytes
from email.policy import default

import pytest

from bulkmail.message.composer import Composer
from bulkmail.model.campaign import Attachment, Template
from bulkmail.model.errors import ConfigError, TemplateError

DATE = 1_700_000_000.0


@pytest.fixture
def compose(recipient):
    def compose(campaign, to=recipient, *, run_id="run", row=1, date=DATE):
        return Composer(campaign, run_id=run_id).compose(to, row=row, forward_path=to.address.wire, date=date)

    return compose


def read(message):
    return message_from_bytes(b"".join(message.buffers), policy=default)


def test_same_arguments_give_the_same_octets(compose, make_campaign):
    campaign = make_campaign(html="<p>{{ name }}</p>", attachments=(Attachment("a.txt", "text/plain", b"x"),))
    assert compose(campaign).digest() == compose(campaign).digest()


@pytest.mark.parametrize("change", [{"row": 2}, {"run_id": "other"}])
def test_message_id_and_boundaries_differ_by_row_and_run(compose, make_campaign, change):
    campaign = make_campaign(html="<p>{{ name }}</p>")
    one, other = compose(campaign), compose(campaign, **change)
    assert one.message_id != other.message_id
    assert read(one).get_boundary() != read(other).get_boundary()


def test_headers_come_in_their_places(compose, make_campaign):
    campaign = make_campaign(
        to_name="{{ name }} Example",
        reply_to="Ann <owner@example.org>",
        headers=(("X-Tag", Template("X-Tag", "{{ name }}")), ("X-Blank", Template("X-Blank", "{{ '' }}"))),
        reverse_path="bounces@example.net",
    )
    message = compose(campaign)
    assert message.envelope.reverse_path == "bounces@example.net"
    assert read(message).items()[:7] == [
        ("From", "Shop <shop@example.org>"),
        ("To", "Ann Example <ann@example.org>"),
        ("Subject", "Hello Ann"),
        ("Date", "Tue, 14 Nov 2023 22:13:20 +0000"),
        ("Message-ID", message.message_id),
        ("Reply-To", "Ann <owner@example.org>"),
        ("X-Tag", "Ann"),
    ]


def test_reverse_path_is_the_address_of_from_when_none_is_given(compose, make_campaign, make_recipient):
    campaign = make_campaign(sender="{{ shop }} <{{ shop }}@example.org>")
    assert compose(campaign, make_recipient(shop="graz")).envelope.reverse_path == "graz@example.org"


@pytest.mark.parametrize(
    ("parts", "types"),
    [
        ({}, ["text/plain"]),
        ({"text": None, "html": "<p>"}, ["text/html"]),
        ({"html": "<p>"}, ["multipart/alternative", "text/plain", "text/html"]),
        ({"attachments": (Attachment("a", "a/b", b""),)}, ["multipart/mixed", "text/plain", "a/b"]),
        (
            {"html": "<p>", "attachments": (Attachment("a", "message/rfc822", b""),)},
            ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "application/octet-stream"],
        ),
    ],
    ids=["text", "html", "both", "attachment", "all"],
)
def test_structure_follows_what_there_is(compose, make_campaign, parts, types):
    assert [part.get_content_type() for part in read(compose(make_campaign(**parts))).walk()] == types


def test_letter_of_nothing_is_refused(make_campaign):
    with pytest.raises(ConfigError, match="neither text nor HTML"):
        Composer(make_campaign(text=None), run_id="run")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"sender": "{{ '' }}"}, "From is empty"),
        ({"sender": "{{ name }}"}, "From is 'Ann', which has no @"),
        ({"reply_to": "{{ name }}"}, "Reply-To is 'Ann', which has no @"),
        ({"subject": "{{ '' }}"}, "Subject is empty"),
        ({"subject": "{{ nmae }}"}, "did you mean 'name'?"),
        ({"subject": "{{ None }}"}, "the value is empty"),
        ({"text": "{{ name | upper | nosuch }}"}, "there is no filter 'nosuch'"),
        ({"text": "{% include 'foot.txt' %}"}, "there is no template 'foot.txt'"),
        ({"headers": (("List-Unsubscribe", Template("h", "<{{ 'ü' }}>")),)}, "outside ASCII"),
        ({"headers": (("Sender", Template("h", "{{ 'x' }}")),)}, "Sender is 'x', which has no @"),
    ],
)
def test_letter_that_cannot_be_written_is_told(make_campaign, recipient, parts, said):
    with pytest.raises(TemplateError) as error:
        Composer(make_campaign(**parts), run_id="run").check(recipient)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["Sender", "List-Unsubscribe", "Precedence"])
def test_header_that_a_message_has_once_is_refused_twice(make_campaign, name):
    value = Template("h", "a@example.org")
    with pytest.raises(ConfigError, match="set twice"):
        Composer(make_campaign(headers=((name, value), (name.lower(), value))), run_id="run")


def test_smtputf8_is_asked_for_only_by_a_local_part(compose, make_campaign, make_recipient):
    plain = compose(make_campaign(), make_recipient("ann@bücher.example", name="Zoë"))
    assert not plain.needs_smtputf8
    assert b"xn--bcher-kva" in b"".join(plain.buffers)
    special = compose(make_campaign(), make_recipient("zoë@example.org"))
    assert special.needs_smtputf8
    assert special.is_8bit
    reverse = compose(make_campaign(reverse_path="böse@example.org"))
    assert reverse.needs_smtputf8
    assert not reverse.is_8bit


def test_rendered_is_what_a_reader_sees(make_campaign, recipient):
    campaign = make_campaign(html="<p>{{ name }}", headers=(("X-A", Template("a", "1")), ("X-B", Template("b", ""))))
    rendered = Composer(campaign, run_id="run").render(recipient)
    assert rendered.subject == "Hello Ann"
    assert rendered.sender == "Shop <shop@example.org>"
    assert rendered.to == "Ann <ann@example.org>"
    assert rendered.text == "Dear Ann,\n\nwe are open.\n"
    assert rendered.html == "<p>Ann\n"
    assert rendered.headers == (("X-A", "1"),)


def test_long_constants_are_shared_between_messages(make_campaign, recipient):
    composer = Composer(make_campaign(attachments=(Attachment("a", "image/png", bytes(9000)),)), run_id="run")
    one, two = (composer.compose(recipient, row=row, forward_path="a@example.org", date=DATE) for row in (1, 2))
    assert one.buffers[1] is two.buffers[1]
    assert read(one).get_payload()[1].get_content() == bytes(9000)


def test_attachment_cannot_hold_the_marks_of_the_plan(compose, make_campaign):
    content = b"0123456789abcdef" * 999
    names = [f"{number:024x}s0" for number in range(3)]
    campaign = make_campaign(attachments=tuple(Attachment(name, "a/b", content) for name in names))
    assert [part.get_filename() for part in read(compose(campaign)).iter_attachments()] == names
