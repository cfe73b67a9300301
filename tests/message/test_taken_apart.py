"""Messages of the standard library, taken apart and put on the line."""

from email import message_from_bytes, message_from_string
from email.message import EmailMessage
from email.mime.text import MIMEText
from email.policy import default
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.compose.ready_made import message_of, take_apart
from bulkmail.model.delivery import Envelope
from bulkmail.model.errors import ConfigError


def make(content="Dear Ann.\n", **headers):
    """A message; a keyword `reply_to` is the header Reply-To."""
    message = EmailMessage()
    for name, value in {"from": "Shop <shop@example.org>", "to": "ann@example.org", **headers}.items():
        if value is not None:
            message[name.replace("_", "-").title()] = value
    message.set_content(content)
    return message


def taken(message):
    return take_apart(message, run_id="run", number=1, date=0.0)


def paths(message):
    """The reverse path and the forward paths."""
    reverse_path, forward_paths = taken(message)[:2]
    return reverse_path, [address.wire for address in forward_paths]


def to_bytes(message):
    return taken(message)[2]


# --- paths -----------------------------------------------------------------------------------------------------------


def test_paths_are_those_of_from_and_to():
    assert paths(make()) == ("shop@example.org", ["ann@example.org"])


def test_sender_is_the_reverse_path_when_it_differs():
    assert paths(make(sender="office@example.org"))[0] == "office@example.org"


def test_first_of_several_authors_is_the_reverse_path():
    assert paths(make(**{"from": "a@example.org, b@example.org"}))[0] == "a@example.org"


def test_forward_paths_are_to_cc_and_bcc_each_once():
    message = make(to="Ann <ann@example.org>, bob@example.org", cc="Team: bob@example.org, cy@example.org;")
    message["Bcc"] = "ANN@example.org, dan@example.org"
    assert paths(message)[1] == ["ann@example.org", "bob@example.org", "cy@example.org", "dan@example.org"]


def test_forward_paths_may_be_hidden_altogether():
    assert paths(make(to="undisclosed-recipients:;", bcc="ann@example.org"))[1] == ["ann@example.org"]


def test_paths_have_ascii_domains():
    message = make(**{"from": "shop@bücher.example", "to": "ann@münchen.example"})
    assert paths(message) == ("shop@xn--bcher-kva.example", ["ann@xn--mnchen-3ya.example"])


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"from": None}, "has no From"),
        ({"to": None}, "has no recipient"),
        ({"to": "undisclosed-recipients:;"}, "has no recipient"),
        ({"to": "ann"}, "To of the message has 'ann', which has no @"),
        ({"to": "ann@example..org"}, "To of the message has "),
        ({"from": "shop@-example.org"}, "From of the message has "),
        ({"cc": "ann@example.org, <>"}, "Cc of the message has "),
    ],
    ids=["no-from", "no-to", "empty-group", "no-at", "two-dots", "hyphen", "empty"],
)
def test_message_without_usable_paths_is_refused(headers, reason):
    with pytest.raises(ConfigError, match=reason):
        taken(make(**headers))


# --- content ---------------------------------------------------------------------------------------------------------


def test_content_has_no_bcc_and_the_message_keeps_it():
    message = make(bcc="dan@example.org", resent_bcc="eve@example.org")
    assert b"cc:" not in to_bytes(message).lower()
    assert b"dan@" not in to_bytes(message)
    assert message["Bcc"] == "dan@example.org"
    assert message["Resent-Bcc"] == "eve@example.org"


def test_content_is_the_message():
    message = make("Grüße\n", subject="Grüße", reply_to="Zoë <zoe@example.org>")
    message.add_alternative("<p>Grüße</p>", subtype="html")
    message.add_attachment(b"%PDF\0", maintype="application", subtype="pdf", filename="ü.pdf")
    content = to_bytes(message)
    read = message_from_bytes(content, policy=default)
    assert content.isascii()
    assert read["Subject"] == "Grüße"
    assert read["Reply-To"].addresses[0].display_name == "Zoë"
    assert read.get_body(("plain",)).get_content().strip() == "Grüße"
    assert [part.get_content() for part in read.iter_attachments()] == [b"%PDF\0"]


def test_content_has_ascii_domains_and_encoded_names():
    message = make(**{"from": "Zoë <zoe@bücher.example>", "to": "Jürgen <j@münchen.example>, b@example.org"})
    head = to_bytes(message).partition(b"\r\n\r\n")[0]
    assert head.isascii()
    read = message_from_bytes(head + b"\r\n\r\n", policy=default)
    assert read["From"] == "Zoë <zoe@xn--bcher-kva.example>"
    assert read["To"] == "Jürgen <j@xn--mnchen-3ya.example>, b@example.org"


def test_content_has_utf8_only_when_a_local_part_needs_it():
    message = make("Grüße\n", to="zoë@münchen.example", subject="Grüße")
    head, _, body = to_bytes(message).partition(b"\r\n\r\n")
    assert "zoë@xn--mnchen-3ya.example" in head.decode()
    assert body.isascii()


def test_content_of_eight_bits_is_encoded():
    message = message_from_bytes(
        b"From: a@example.org\nTo: b@example.org\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
        b"Content-Transfer-Encoding: 8bit\n\nGr\xc3\xbc\xc3\x9fe\n",
        policy=default,
    )
    content = to_bytes(message)
    assert content.isascii()
    assert message_from_bytes(content, policy=default).get_content().strip() == "Grüße"


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("text/plain", b"Gr\xc3\xbc\xc3\x9fe", "has characters outside ASCII, and no charset that has them"),
        ("text/html; charset=us-ascii", b"Gr\xfc\xdfe", "has characters outside ASCII, and no charset that has them"),
        ("text/plain; charset=latin-9000", b"Gr\xfc\xdfe", "names the charset 'latin-9000', which is not known"),
        ("text/plain; charset=utf-8", b"Gr\xfc\xdfe", "is not in utf-8, as it says: byte 3 of its text is 0xFC"),
        ("image/png", b"\x89PNG", "has bytes outside ASCII that are not encoded"),
    ],
)
def test_content_of_eight_bits_that_does_not_say_what_it_is_is_refused(kind, body, reason):
    head = f"From: me@example.org\nTo: ann@example.org\nContent-Type: {kind}\nContent-Transfer-Encoding: 8bit\n\n"
    with pytest.raises(ConfigError) as caught:
        taken(message_from_bytes(head.encode() + body, policy=default))
    assert str(caught.value) == f"the {kind.partition(';')[0]} part of the message {reason}"
    assert caught.value.hint


def test_message_of_the_older_kind_is_taken_too():
    message = MIMEText("Grüße")
    message["From"], message["To"], message["Bcc"] = "a@example.org", "B <b@example.org>", "c@example.org"
    assert paths(message) == ("a@example.org", ["b@example.org", "c@example.org"])
    assert b"c@example.org" not in to_bytes(message)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""], ids=ascii)
def test_content_has_crlf_throughout(end):
    message = message_from_string(f"From: a@example.org\nTo: b@example.org\n\none{end}two{end}", policy=default)
    assert to_bytes(message).endswith(b"\r\n")
    assert b"\n" not in to_bytes(message).replace(b"\r\n", b"")
    assert b"\r" not in to_bytes(message).replace(b"\r\n", b"")


@pytest.mark.parametrize(
    ("body", "reason"),
    [("x" * 999, "line 6 is longer than 998 bytes"), ("a\n\0\n", "line 7 holds a NUL byte")],
    ids=["long-line", "nul"],
)
def test_content_that_no_server_takes_is_refused(body, reason):
    message = message_from_string(f"From: a@example.org\nTo: b@example.org\n\n{body}\n", policy=default)
    with pytest.raises(ConfigError, match=reason):
        taken(message)


@pytest.mark.parametrize("name", ["Subject", "To", "X-Tag"])
@pytest.mark.parametrize(
    ("attack", "called"),
    [
        ("a@example.org\r\nBcc: eve@example.com", "a carriage return"),
        ("a@example.org\n\nbody", "a line feed"),
        ("a@example.org\r\n \r\nBcc: eve@example.com", "a carriage return"),
        ("a@example.org\0", "a NUL"),
    ],
    ids=["header", "body", "empty-line", "nul"],
)
def test_header_that_would_break_its_line_is_refused(name, attack, called):
    """The older kind of message lets them in, and some versions of the library write them (CVE-2024-6923)."""
    message = MIMEText("x")
    for header, value in {"From": "a@example.org", "To": "b@example.org"}.items():
        message[header] = value
    del message[name]
    message[name] = attack
    with pytest.raises(ConfigError, match=f"{name} of the message (holds {called}|has .* which is not valid)"):
        taken(message)


def test_header_of_a_part_is_refused_like_any_other():
    message = make()
    message.add_attachment("x", filename="a.txt")
    [part] = message.iter_attachments()
    part._headers.append(("X-Tag", "a\r\nb"))
    with pytest.raises(ConfigError, match="X-Tag of the message holds a carriage return"):
        taken(message)


def test_header_that_came_folded_is_taken():
    raw = "From: a@example.org\nTo: b@example.org\nSubject: one\n two\n\tthree\n\nx\n"
    for message in (message_from_string(raw), message_from_string(raw, policy=default)):
        assert message_from_bytes(to_bytes(message), policy=default)["Subject"].split() == ["one", "two", "three"]


@pytest.mark.slow
@given(
    subject=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])),
    body=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
def test_any_text_is_taken_apart_into_lawful_bytes(subject, body):
    content = to_bytes(make(body, subject=subject))
    assert content.isascii()
    assert b"\0" not in content
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert b"\n" not in content.replace(b"\r\n", b"")
    message_of(content, envelope=Envelope("a@example.org", "b@example.org"), message_id="<1@example.org>")


# --- on the line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "forward_path", "needs_smtputf8", "is_8bit"),
    [
        ("To: a\r\n\r\nx\r\n", "b@example.org", False, False),
        ("To: a\r\n\r\nü\r\n", "b@example.org", False, True),
        ("To: ü\r\n\r\nx\r\n", "b@example.org", True, True),
        ("To: a\r\n\r\nx\r\n", "ü@example.org", True, False),
    ],
    ids=["ascii", "body", "header", "path"],
)
def test_message_says_what_it_needs(content, forward_path, needs_smtputf8, is_8bit):
    envelope = Envelope("a@example.org", forward_path)
    message = message_of(content.encode(), envelope=envelope, message_id="<1@example.org>")
    assert (message.needs_smtputf8, message.is_8bit) == (needs_smtputf8, is_8bit)
    assert (message.envelope, message.message_id) == (envelope, "<1@example.org>")
    assert b"".join(message.buffers) == content.encode()


@pytest.mark.parametrize(
    "content", [b"a\nb\r\n", b"a", b"\0\r\n", b"x" * 999 + b"\r\n"], ids=["lf", "end", "nul", "long"]
)
def test_bytes_that_are_not_fit_for_the_line_are_refused(content):
    with pytest.raises(ConfigError, match="the message cannot be sent: "):
        message_of(content, envelope=Envelope("a@example.org", "b@example.org"), message_id="<1@example.org>")


# --- what a message lacks --------------------------------------------------------------------------------------------


def completed(message, **changes):
    return take_apart(message, **{"run_id": "run", "number": 1, "date": 1_700_000_000.0, **changes})


def test_message_without_an_id_or_a_date_gets_stable_ones():
    message = make()
    first, again = completed(message), completed(message)
    read = message_from_bytes(first.content, policy=default)
    assert first == again
    assert read["Message-ID"] == first.message_id
    assert first.message_id.endswith("@example.org>")
    assert parsedate_to_datetime(read["Date"]).timestamp() == 1_700_000_000
    assert "Message-ID" not in message
    assert "Date" not in message


def test_message_ids_differ_by_number_and_run():
    ids = {completed(make(), number=number, run_id=run).message_id for number in (1, 2) for run in ("a", "b")}
    assert len(ids) == 4


def test_message_keeps_the_id_and_the_date_it_has():
    message = make(message_id="<me@example.com>", date="Mon, 01 Jan 2024 00:00:00 +0000")
    assert completed(message).message_id == "<me@example.com>"
    read = message_from_bytes(completed(message).content, policy=default)
    assert read.get_all("Message-ID") == ["<me@example.com>"]
    assert read.get_all("Date") == ["Mon, 01 Jan 2024 00:00:00 +0000"]


def test_message_id_of_blanks_is_none():
    assert completed(make(message_id=" ")).message_id == completed(make()).message_id


def with_text(content_type, payload):
    """A message whose content is text, whatever its Content-Type says."""
    message = make()
    del message["Content-Type"], message["Content-Transfer-Encoding"]
    message["Content-Type"] = content_type
    message.set_payload(payload)
    return message


PARTS = (
    "for old programs\n--B\nContent-Type: text/plain; charset=utf-8\n\nDear Jörg\n.\n"
    "--B\nContent-Type: text/html; charset=utf-8\n\n<p>Dear Jörg\n--B--\n"
)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_parts_that_stand_there_as_text_are_parts(end):
    content = to_bytes(with_text('multipart/alternative; boundary="B"', PARTS.replace("\n", end)))
    assert content.replace(b"\r\n", b"").isascii() and b"\n" not in content.replace(b"\r\n", b"")
    sent = message_from_bytes(content, policy=default)
    assert [part.get_content_type() for part in sent.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert sent.get_body(("plain",)).get_content() == "Dear Jörg\n."
    assert not sent.defects


def test_message_inside_that_stands_there_as_text_is_a_message():
    sent = message_from_bytes(to_bytes(with_text("message/rfc822", "Subject: inner\n\nHello\n")), policy=default)
    assert sent.get_payload(0)["Subject"] == "inner"


@pytest.mark.parametrize(
    ("content_type", "payload", "reason"),
    [
        ("multipart/mixed", "Dear Ann\nbye\n", "says multipart/mixed, but its content is text and names no boundary"),
        ("multipart/mixed; boundary=B", "Dear Ann\nbye\n", "content is text with no line --B"),
        ("multipart/mixed; boundary=B", "--B\nContent-Type: multipart/related\n\nx\ny\n--B--\n", "multipart/related"),
    ],
)
def test_text_in_place_of_parts_is_refused_by_its_type(content_type, payload, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        to_bytes(with_text(content_type, payload))
    assert "set_content()" in caught.value.hint
