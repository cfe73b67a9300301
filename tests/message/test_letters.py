"""Composing one message: whom it is from and to, what identifies it, what it may hold."""

import re
from email import message_from_bytes
from email.policy import default
from hashlib import blake2b

import pytest

from bulkmail.message.compose.composer import Composer, Rendered
from bulkmail.model.campaign import Template
from bulkmail.model.delivery import Envelope
from bulkmail.model.errors import ConfigError, TemplateError


def compose(campaign, recipient, *, row=1, date=1_700_000_000.5, run_id="run", forward_path=None):
    """The message for `recipient`."""
    composer = Composer(campaign, run_id=run_id)
    return composer.compose(recipient, row=row, forward_path=forward_path or recipient.address.wire, date=date)


def read(message):
    """The message as the standard library reads it."""
    return message_from_bytes(b"".join(message.buffers), policy=default)


def refusal(campaign, recipient):
    """What `check` says; `compose` and `render` must say the same."""
    composer = Composer(campaign, run_id="run")
    words = []
    for act in (
        composer.check,
        composer.render,
        lambda row: composer.compose(row, row=1, forward_path="a@example.org", date=0),
    ):
        with pytest.raises(TemplateError) as caught:
            act(recipient)
        words.append(str(caught.value))
    assert len(set(words)) == 1
    return words[0]


def test_message_has_exactly_these_headers(campaign, recipient):
    assert read(compose(campaign, recipient)).items() == [
        ("From", "Shop <shop@example.org>"),
        ("To", "Ann <ann@example.org>"),
        ("Subject", "Hello Ann"),
        ("Date", "Tue, 14 Nov 2023 22:13:20 +0000"),
        ("Message-ID", read(compose(campaign, recipient))["Message-ID"]),
        ("MIME-Version", "1.0"),
        ("Content-Type", 'text/plain; charset="utf-8"'),
        ("Content-Transfer-Encoding", "7bit"),
    ]


# --- envelope and identity -------------------------------------------------------------------------------------------


def test_reverse_path_is_the_address_of_from(campaign, recipient):
    assert compose(campaign, recipient).envelope == Envelope("shop@example.org", "ann@example.org")


def test_reverse_path_of_the_campaign_comes_first(make_campaign, recipient):
    campaign = make_campaign(reverse_path="Bounces@Münster.example")
    assert compose(campaign, recipient).envelope.reverse_path == "Bounces@xn--mnster-3ya.example"


def test_forward_path_is_the_one_asked_for(campaign, recipient):
    message = compose(campaign, recipient, forward_path="other@example.net")
    assert message.envelope.forward_path == "other@example.net"
    assert read(message)["To"] == "Ann <ann@example.org>"


def test_message_id_is_base32_at_the_domain_of_from(campaign, recipient):
    message = compose(campaign, recipient)
    assert re.fullmatch(r"<[0-9a-f]{32}@example\.org>", message.message_id)
    assert read(message)["Message-ID"] == message.message_id


@pytest.mark.slow
def test_message_id_is_its_own_for_every_row_and_run(campaign, recipient):
    found = {
        compose(campaign, recipient, row=row, run_id=run_id).message_id
        for row in range(1, 50)
        for run_id in ("1", "11")
    }
    assert len(found) == 98


def test_message_id_stays_what_it_is_between_versions(campaign, recipient):
    """A resend by a later version must be the same message."""
    digest = blake2b(b"run\0" + b"1", digest_size=16).hexdigest()
    assert compose(campaign, recipient).message_id == f"<{digest}@example.org>"


def test_same_arguments_give_the_same_bytes(make_campaign, make_recipient):
    campaign = make_campaign(html="<p>{{ name }}</p>")
    first = compose(campaign, make_recipient(name="Zoë"))
    other = compose(campaign, make_recipient(name="Bob"), row=2)  # in between, to soil whatever is kept
    assert first.digest() == compose(campaign, make_recipient(name="Zoë")).digest() != other.digest()


def test_date_is_the_one_given_in_whole_seconds_and_utc(campaign, recipient):
    assert read(compose(campaign, recipient, date=0.99))["Date"] == "Thu, 01 Jan 1970 00:00:00 +0000"


def test_size_is_that_of_all_buffers(campaign, recipient):
    message = compose(campaign, recipient)
    assert message.size_bytes == len(b"".join(message.buffers))


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to_name", "name", "to"),
    [
        (None, "Ann", "Ann <ann@example.org>"),
        (None, "", "ann@example.org"),
        (None, "  ", "ann@example.org"),
        (None, "Ann\tExample", "Ann Example <ann@example.org>"),
        ("{{ title }} {{ name }}", "Ann", "Dr Ann <ann@example.org>"),
        ("", "Ann", "ann@example.org"),
        ("{{ title | replace('Dr', '') }}", "Ann", "ann@example.org"),
    ],
)
def test_to_is_the_template_or_the_name_or_the_address_alone(make_campaign, make_recipient, to_name, name, to):
    campaign = make_campaign(subject="x", text="x", to_name=to_name)
    recipient = make_recipient(name=name, title="Dr")
    assert read(compose(campaign, recipient))["To"] == to
    assert Composer(campaign, run_id="").render(recipient).to == to


def test_sender_may_differ_from_row_to_row(make_campaign, make_recipient):
    campaign = make_campaign(sender="{{ agent }} <{{ agent_email }}>")
    message = compose(campaign, make_recipient(agent="Jürgen", agent_email="j@bücher.example"))
    assert message.envelope.reverse_path == "j@xn--bcher-kva.example"
    assert message.message_id.endswith("@xn--bcher-kva.example>")
    assert read(message)["From"].addresses[0].display_name == "Jürgen"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("eve <eve@example.com>", "holds several addresses"),
        ("eve@example.com,", "holds several addresses"),
        ("Ann\n", "would hold a line feed (U+000A), from the field 'agent'"),
        ("x" * 20_000, "would be 20,019 characters long"),
        ("x" * 2000, "is longer than 1000 characters"),
    ],
    ids=["second-address", "list", "line-feed", "huge", "long"],
)
def test_cell_cannot_make_another_sender(make_campaign, make_recipient, cell, reason):
    campaign = make_campaign(sender="{{ agent }} <shop@example.org>")
    composer = Composer(campaign, run_id="")
    with pytest.raises(TemplateError, match=r"^campaign\.toml: sender: From ") as caught:
        composer.check(make_recipient(agent=cell))
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300


def test_empty_sender_is_refused(make_campaign, make_recipient):
    campaign = make_campaign(sender="{{ agent }}")
    assert refusal(campaign, make_recipient(agent="")) == "campaign.toml: sender: From is empty"


def test_reply_to_is_an_address(make_campaign, make_recipient):
    campaign = make_campaign(reply_to="{{ agent }} <a@example.org>")
    assert read(compose(campaign, make_recipient(agent="Zoë")))["Reply-To"] == "Zoë <a@example.org>"
    with pytest.raises(TemplateError, match=r"^campaign\.toml: reply_to: Reply-To is 'nobody', which has no @"):
        Composer(make_campaign(reply_to="nobody"), run_id="")


@pytest.mark.parametrize("check", ["check", "compose"])
def test_reply_to_of_a_row_is_checked(make_campaign, make_recipient, check):
    composer = Composer(make_campaign(reply_to="{{ agent }}"), run_id="")
    arguments = {"row": 1, "forward_path": "a@example.org", "date": 0.0} if check == "compose" else {}
    with pytest.raises(TemplateError, match="Reply-To is 'nobody', which has no @"):
        getattr(composer, check)(make_recipient(agent="nobody"), **arguments)


# --- SMTPUTF8 --------------------------------------------------------------------------------------------------------


def test_message_of_ascii_addresses_needs_nothing(make_campaign, make_recipient):
    message = compose(make_campaign(subject="Grüße", text="Grüße"), make_recipient("ann@münchen.example", name="Zoë"))
    assert (message.needs_smtputf8, message.is_8bit) == (False, False)
    assert b"".join(message.buffers).isascii()


def test_local_part_of_the_recipient_needs_smtputf8(campaign, make_recipient):
    message = compose(campaign, make_recipient("zoë@example.org"))
    assert (message.needs_smtputf8, message.is_8bit) == (True, True)
    head, _, body = b"".join(message.buffers).partition(b"\r\n\r\n")
    assert "<zoë@example.org>" in head.decode()
    assert head.replace("zoë".encode(), b"").isascii()
    assert body.isascii()


def test_local_part_of_the_reverse_path_needs_smtputf8(make_campaign, recipient):
    message = compose(make_campaign(reverse_path="bücher@example.org"), recipient)
    assert (message.needs_smtputf8, message.is_8bit) == (True, False)


def test_local_part_of_a_header_needs_smtputf8(make_campaign, recipient):
    message = compose(make_campaign(reply_to="bücher@example.org"), recipient)
    assert (message.needs_smtputf8, message.is_8bit) == (True, True)


# --- subject, headers and bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", ["", " ", "\t", "\u00a0\u3000"], ids=ascii)
def test_blank_subject_is_refused(make_campaign, make_recipient, blank):
    campaign = make_campaign(subject="{{ topic }}")
    assert refusal(campaign, make_recipient(topic=blank)) == "campaign.toml: subject: Subject is empty"


@pytest.mark.parametrize(
    "subject",
    ["🎉 Hello 🎉", "\u200fשלום לכולם", "e\u0301\u0302", "Hello  twice", "x" * 300, "日本語 " * 40],
    ids=ascii,
)
def test_subject_of_any_script_arrives(make_campaign, make_recipient, subject):
    campaign = make_campaign(subject="{{ topic }}")
    assert read(compose(campaign, make_recipient(topic=subject)))["Subject"] == subject.strip()


def test_header_that_comes_out_empty_is_left_out(make_campaign, make_recipient):
    campaign = make_campaign(headers=(("X-Tag", Template("X-Tag", "{{ tag }}")),))
    assert read(compose(campaign, make_recipient(tag="a")))["X-Tag"] == "a"
    assert "X-Tag" not in read(compose(campaign, make_recipient(tag=" ")))


def test_header_of_a_machine_is_refused_when_it_would_have_to_be_encoded(make_campaign, make_recipient):
    campaign = make_campaign(headers=(("List-Help", Template("campaign.toml: List-Help", "<{{ url }}>")),))
    with pytest.raises(TemplateError, match=r"^campaign\.toml: List-Help: List-Help has characters outside ASCII"):
        Composer(campaign, run_id="").check(make_recipient(url="https://example.org/ü"))


def test_header_of_an_address_is_encoded_as_one(make_campaign, recipient):
    campaign = make_campaign(headers=(("Sender", Template("s", "Zoë <zoe@example.org>")),))
    assert read(compose(campaign, recipient))["Sender"].address.display_name == "Zoë"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Bcc", "h: the header Bcc cannot be set like this: everyone would see it"),
        ("Content-Type", "h: the header Content-Type cannot be set like this: it tells how"),
        ("X Tag", "h: 'X Tag' is not the name of a header"),
        ("X-Tag\r\nBcc: eve@example.com", "h: 'X-Tag\\r\\nBcc: eve@example.com' is not the name of a header"),
    ],
)
def test_header_that_is_not_the_campaigns_is_refused_with_the_reason(make_campaign, name, reason):
    with pytest.raises(ConfigError) as caught:
        Composer(make_campaign(headers=((name, Template("h", "x")),)), run_id="")
    assert str(caught.value).startswith(reason)


def test_header_that_a_message_has_once_is_not_set_twice(make_campaign):
    twice = (("Sender", Template("h", "a@example.org")), ("SENDER", Template("h", "b@example.org")))
    with pytest.raises(ConfigError, match="the header SENDER is set twice"):
        Composer(make_campaign(headers=twice), run_id="")


def test_header_of_no_special_kind_may_be_there_twice(make_campaign, recipient):
    twice = (("X-Tag", Template("h", "a")), ("X-Tag", Template("h", "b")))
    assert read(compose(make_campaign(headers=twice), recipient)).get_all("X-Tag") == ["a", "b"]


def test_bodies_have_one_line_end_at_their_end(make_campaign, make_recipient):
    campaign = make_campaign(text="Dear {{ name }},\r\n{{ note }}\n\n\n", html="{{ note }}")
    message = read(compose(campaign, make_recipient(note="a\rb\r\nc")))
    assert message.get_body(("plain",)).get_content() == "Dear Ann,\r\na\r\nb\r\nc\r\n"
    assert message.get_body(("html",)).get_content() == "a\r\nb\r\nc\r\n"


def test_lines_of_dots_arrive_as_they_are(make_campaign, recipient):
    text = "..\n.a\nFrom here\ntrailing  \n"
    campaign = make_campaign(text=text + ".\n")
    assert read(compose(campaign, recipient)).get_content() == (text + ".\n").replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("cell", "called"), [("\0", "a NUL (U+0000)"), ("\ud83d", "half a character (U+D83D)")], ids=ascii
)
@pytest.mark.parametrize("body", ["text", "html"])
def test_body_that_no_mail_can_hold_is_refused(make_campaign, make_recipient, body, cell, called):
    campaign = make_campaign(**{body: "a\n{{ note }}"})
    assert refusal(campaign, make_recipient(note=f"x{cell}")) == (
        f"campaign.toml: {body}: the message would hold {called}, from the field 'note'; no mail can"
    )


def test_body_that_is_the_same_for_all_is_refused_at_once(make_campaign):
    with pytest.raises(TemplateError, match="would hold a NUL"):
        Composer(make_campaign(text="a\0b"), run_id="")


def test_name_of_a_recipient_that_breaks_a_header_is_refused(campaign, make_recipient):
    assert refusal(campaign, make_recipient(name="Ann\r\nBcc: eve@example.com")).startswith(
        "campaign.toml: subject: Subject would hold a carriage return (U+000D), from the field 'name'"
    )


def test_name_of_a_recipient_is_checked_by_itself(make_campaign, make_recipient):
    campaign = make_campaign(subject="x", text="x")
    assert refusal(campaign, make_recipient(name="Ann\n")) == (
        "To: the recipient's name holds a line feed (U+000A), from the field 'name'; a header is one line"
    )
    assert "10,001 characters" in refusal(campaign, make_recipient(name="x" * 10_001))


# --- preview and gate ------------------------------------------------------------------------------------------------


def test_render_shows_the_message_as_its_reader_sees_it(make_campaign, make_recipient):
    campaign = make_campaign(
        html="<p>{{ name }}</p>",
        reply_to="Zoë <zoe@example.org>",
        headers=(("X-Tag", Template("h", "{{ tag }}")),),
    )
    assert Composer(campaign, run_id="").render(make_recipient("ann@münchen.example", tag="")) == Rendered(
        subject="Hello Ann",
        sender="Shop <shop@example.org>",
        to="Ann <ann@münchen.example>",
        text="Dear Ann,\n\nwe are open.\n",
        html="<p>Ann</p>\n",
        headers=(("Reply-To", "Zoë <zoe@example.org>"),),
    )


def test_render_has_no_body_that_the_campaign_has_not(campaign, recipient):
    assert Composer(campaign, run_id="").render(recipient).html is None


@pytest.mark.parametrize("part", ["sender", "subject", "text", "html", "to_name", "reply_to"])
def test_missing_field_is_reported_wherever_it_is_used(make_campaign, recipient, part):
    campaign = make_campaign(**{part: "{{ nmae }}"})
    assert refusal(campaign, recipient) == f"campaign.toml: {part}: 'nmae' is undefined; did you mean 'name'?"


def test_check_passes_what_can_be_composed(make_campaign, make_recipient):
    Composer(make_campaign(html="{{ name }}"), run_id="").check(make_recipient(name="Zoë"))


@pytest.mark.parametrize(
    ("part", "text", "reason"),
    [
        ("sender", "nobody", "campaign.toml: sender: From is 'nobody', which has no @"),
        ("reverse_path", "nobody", "the reverse path 'nobody' has no @"),
        ("text", "\n{% if %}", "campaign.toml: text:2: "),
        ("subject", "{{ 'a", "campaign.toml: subject: "),
    ],
)
def test_campaign_that_cannot_be_is_refused_before_any_row(make_campaign, part, text, reason):
    with pytest.raises(ConfigError) as caught:
        Composer(make_campaign(**{part: text}), run_id="")
    assert str(caught.value).startswith(reason)
