"""Messages of the standard library, made fit for the line."""

from email import message_from_bytes, message_from_string
from email.message import EmailMessage
from email.policy import default
from email.utils import parsedate_to_datetime

import pytest

from bulkmail.message.ready_made import message_of, take_apart
from bulkmail.model.errors import ConfigError
from bulkmail.model.message import Envelope


@pytest.fixture
def make():
    def make(text="Hello\n", **headers):
        message = EmailMessage()
        for name, value in {"From": "Shop <shop@example.com>", "To": "ann@example.org", **headers}.items():
            if value is not None:
                message[name.replace("_", "-")] = value
        message.set_content(text)
        return message

    return make


def taken(message, **changes):
    return take_apart(message, **{"run_id": "run", "number": 1, "date": 1_700_000_000.0, **changes})


def test_message_without_an_id_or_a_date_gets_stable_ones(make):
    message = make()
    first, again = taken(message), taken(message)
    read = message_from_bytes(first.content, policy=default)
    assert first == again
    assert read["Message-ID"] == first.message_id
    assert first.message_id.endswith("@example.com>")
    assert parsedate_to_datetime(read["Date"]).timestamp() == 1_700_000_000
    assert "Message-ID" not in message
    assert "Date" not in message


def test_message_ids_differ_by_number_and_run(make):
    ids = {taken(make(), number=n, run_id=run).message_id for n in (1, 2) for run in ("a", "b")}
    assert len(ids) == 4


def test_message_keeps_the_id_and_the_date_it_has(make):
    message = make(Message_ID="<me@example.com>", Date="Mon, 01 Jan 2024 00:00:00 +0000")
    assert taken(message).message_id == "<me@example.com>"
    read = message_from_bytes(taken(message).content, policy=default)
    assert read.get_all("Message-ID") == ["<me@example.com>"]
    assert read.get_all("Date") == ["Mon, 01 Jan 2024 00:00:00 +0000"]


def test_paths_are_those_of_to_cc_and_bcc_each_once(make):
    message = make(
        To="Ann <ann@example.org>, bob@example.org", Cc="ANN@example.org, cy@example.org", Bcc="di@x.example"
    )
    result = taken(message)
    assert result.reverse_path == "shop@example.com"
    assert [path.wire for path in result.forward_paths] == [
        "ann@example.org",
        "bob@example.org",
        "cy@example.org",
        "di@x.example",
    ]
    assert b"di@x.example" not in result.content
    assert b"bcc" not in result.content.lower()
    assert message["Bcc"] == "di@x.example"


def test_sender_is_the_reverse_path_when_there_is_one(make):
    assert taken(make(Sender="post@example.com")).reverse_path == "post@example.com"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"From": None}, "no From"),
        ({"To": None}, "addressed to nobody"),
        ({"To": "ann@-.example"}, "To of the message"),
        ({"To": "undisclosed-recipients:;"}, "addressed to nobody"),
    ],
)
def test_message_that_cannot_go_is_refused(make, headers, said):
    with pytest.raises(ConfigError, match=said):
        taken(make(**headers))


def test_body_travels_in_ascii_and_international_domains_too(make):
    message = make("Grüße\n" + "x" * 2000, To="zoë <ann@bücher.example>")
    content = taken(message).content
    assert content.isascii()
    assert b"ann@xn--bcher-kva.example" in content
    body = message_from_bytes(content, policy=default).get_content()
    assert body.replace("\r\n", "\n") == "Grüße\n" + "x" * 2000 + "\n"


def test_local_part_outside_ascii_needs_smtputf8(make):
    result = taken(make(To="zoë@example.org"))
    message = message_of(
        result.content, envelope=Envelope("shop@example.com", "zoë@example.org"), message_id=result.message_id
    )
    assert message.needs_smtputf8
    assert message.is_8bit


def test_message_made_under_the_old_policy_is_taken():
    message = message_from_string("From: a@example.com\nTo: b@example.com\nSubject: x\n\nhello\n")
    result = taken(message)
    assert b"\r\nhello\r\n" in result.content
    assert result.message_id.encode() in result.content


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\0\r\n", b"x" * 999 + b"\r\n", b"no end"])
def test_octets_that_no_server_must_be_sent_are_refused(content):
    with pytest.raises(ConfigError, match="cannot be sent"):
        message_of(content, envelope=Envelope("a@example.com", "b@example.com"), message_id="<1@x>")


def test_message_with_a_line_that_is_too_long_is_refused(make):
    message = make()
    message.set_payload("x" * 1000)
    with pytest.raises(ConfigError, match="longer than 998"):
        taken(message)
