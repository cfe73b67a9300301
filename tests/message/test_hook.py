"""A program's own hand on each message."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import pytest

from bulkmail.message.compose.composer import Composer
from bulkmail.model.campaign import Attachment
from bulkmail.model.errors import TemplateError
from tests.signing import RSA


def compose(campaign, recipient, hook, **changes):
    composer = Composer(campaign, run_id="run", on_message=hook, **changes)
    return composer.compose(recipient, row=1, forward_path=recipient.address.wire, date=0.0)


def to_bytes(message):
    return b"".join(message.buffers)


def test_hook_that_does_nothing_changes_nothing(make_campaign, recipient):
    campaign = make_campaign(
        html="<p>  ü {{ name }}", attachments=(Attachment("a.pdf", "application/pdf", bytes(9000)),), subject="Grüße"
    )
    assert to_bytes(compose(campaign, recipient, lambda message: message)) == to_bytes(
        compose(campaign, recipient, None)
    )


def test_hook_may_change_the_message(make_campaign, recipient):
    def stamp(message):
        message["X-House"] = "Rule 7"
        message.replace_header("Subject", "Grüße")
        return message

    read = message_from_bytes(to_bytes(compose(make_campaign(), recipient, stamp)), policy=default)
    assert read["X-House"] == "Rule 7"
    assert read["Subject"] == "Grüße"


def test_hook_may_return_another_message(make_campaign, recipient):
    def wrap(message):
        outer = EmailMessage()
        for name in ("From", "To", "Subject", "Date", "Message-ID"):
            outer[name] = str(message[name])
        outer.set_content("see the attachment")
        outer.add_attachment(message.as_bytes(), maintype="application", subtype="pkcs7-mime", filename="smime.p7m")
        return outer

    read = message_from_bytes(to_bytes(compose(make_campaign(), recipient, wrap)), policy=default)
    assert [part.get_filename() for part in read.iter_attachments()] == ["smime.p7m"]


def test_hook_comes_before_the_signature(make_campaign, recipient, key_ring):
    def stamp(message):
        message.replace_header("Subject", "Changed")
        return message

    campaign = make_campaign(dkim=(RSA,), html="<p>x")
    content = to_bytes(compose(campaign, recipient, stamp, keys=key_ring.keys_for(RSA)))
    assert b"Subject: Changed" in content
    assert key_ring.verifies(content)


def test_hook_cannot_show_who_is_not_shown(make_campaign, recipient):
    def betray(message):
        message["Bcc"] = "audit@example.org"
        return message

    assert b"audit" not in to_bytes(compose(make_campaign(), recipient, betray))


def fails(message):
    raise KeyError("no\ncertificate")


def returns_nothing(message):
    return None


def breaks_the_line(message):
    message["X-Bad"] = "a\nBcc: v@x.example"
    return message


def has_a_long_line(message):
    message.set_payload("x" * 1000)
    return message


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (fails, "on_message: KeyError: 'no"),
        (returns_nothing, "on_message: TypeError: returned NoneType, not an EmailMessage"),
        (breaks_the_line, "on_message: ValueError: "),
        (has_a_long_line, "on_message: the message cannot be sent: line"),
    ],
)
def test_hook_that_fails_is_reported_by_the_gate(make_campaign, recipient, hook, said):
    composer = Composer(make_campaign(), run_id="run", on_message=hook)
    with pytest.raises(TemplateError) as error:
        composer.check(recipient)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_hook_keeps_a_message_that_needs_smtputf8(make_campaign, make_recipient):
    message = compose(make_campaign(), make_recipient("zoë@example.org"), lambda message: message)
    assert message.needs_smtputf8
    assert "zoë@example.org".encode() in to_bytes(message)
