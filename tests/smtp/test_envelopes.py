from __future__ import annotations

from collections.abc import Callable

import pytest

from bulkmail.model.delivery import Message
from bulkmail.model.outcome import Breakage, Outcome, Stage
from bulkmail.model.verdict import judge
from bulkmail.smtp.replies import Capabilities
from bulkmail.smtp.transaction import mail_command, rcpt_command, unsendable

EVERYTHING = Capabilities(size_limit=1000, smtputf8=True, eight_bit_mime=True)
NOTHING = Capabilities()


@pytest.mark.parametrize(
    ("traits", "capabilities", "command"),
    [
        pytest.param({}, NOTHING, "MAIL FROM:<news@example.org>", id="nothing offered"),
        pytest.param({}, EVERYTHING, "MAIL FROM:<news@example.org> SIZE=8", id="nothing needed"),
        pytest.param({}, Capabilities(size_limit=0), "MAIL FROM:<news@example.org> SIZE=8", id="SIZE without a limit"),
        pytest.param(
            {"is_8bit": True}, EVERYTHING, "MAIL FROM:<news@example.org> SIZE=8 BODY=8BITMIME", id="8-bit content"
        ),
        pytest.param(
            {"needs_smtputf8": True}, EVERYTHING, "MAIL FROM:<news@example.org> SIZE=8 SMTPUTF8", id="UTF-8 in headers"
        ),
        pytest.param(
            {"to": "é@example.com"}, EVERYTHING, "MAIL FROM:<news@example.org> SIZE=8 SMTPUTF8", id="UTF-8 to"
        ),
        pytest.param({"sender": ""}, EVERYTHING, "MAIL FROM:<> SIZE=8", id="null reverse path"),
    ],
)
def test_mail_command(
    make_message: Callable[..., Message], traits: dict[str, object], capabilities: Capabilities, command: str
) -> None:
    message = make_message(b"a: b\r\n\r\n", **traits)
    assert unsendable(message, capabilities) is None
    assert mail_command(message, capabilities) == f"{command}\r\n".encode()


def test_rcpt_command() -> None:
    assert rcpt_command("é@example.com") == "RCPT TO:<é@example.com>\r\n".encode()


@pytest.mark.parametrize(
    ("traits", "capabilities", "words"),
    [
        pytest.param({"to": "é@example.com"}, NOTHING, "SMTPUTF8", id="UTF-8 path"),
        pytest.param({"needs_smtputf8": True}, NOTHING, "SMTPUTF8", id="UTF-8 header"),
        pytest.param({"is_8bit": True}, NOTHING, "8BITMIME", id="8-bit content"),
        pytest.param({}, Capabilities(size_limit=7), "8 bytes, and the server takes at most 7", id="too big"),
        pytest.param({"to": ""}, EVERYTHING, "no recipient", id="no forward path"),
        pytest.param({"to": "a@b.c>\r\nRCPT TO:<d@e.f"}, EVERYTHING, "cannot be written", id="CR LF in a path"),
        pytest.param({"to": "a@b.c> NOTIFY=NEVER"}, EVERYTHING, "cannot be written", id="bracket in a path"),
        pytest.param({"sender": "a b@c.d"}, EVERYTHING, "cannot be written", id="space in a path"),
        pytest.param({"sender": "a\0@c.d"}, EVERYTHING, "cannot be written", id="NUL in a path"),
        pytest.param({"to": "\ud800@c.d"}, EVERYTHING, "cannot be written", id="surrogate in a path"),
        pytest.param({"to": "a" * 10_000_000 + "@c.d"}, EVERYTHING, "cannot be written", id="endless path"),
    ],
)
def test_message_cannot_be_sent(
    make_message: Callable[..., Message], traits: dict[str, object], capabilities: Capabilities, words: str
) -> None:
    fault = unsendable(make_message(b"a: b\r\n\r\n", **traits), capabilities)
    assert fault is not None
    assert (fault.stage, fault.kind) == (Stage.MAIL, Breakage.UNSENDABLE)
    assert words in fault.what
    assert fault.what.isprintable()
    assert judge(fault).outcome is Outcome.REJECTED


def test_message_as_big_as_the_limit_can_be_sent(make_message: Callable[..., Message]) -> None:
    assert unsendable(make_message(b"a: b\r\n\r\n"), Capabilities(size_limit=8)) is None
