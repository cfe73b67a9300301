"""That the servers which other tests trust do what those tests rely on; seen with the standard library's client."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage

import pytest

from tests.servers.kept import MailServer
from tests.servers.postfix import run_postfix
from tests.servers.programs import cache, environment_of, find_program, missing, require_program
from tests.servers.sinks import Sink, run_sink

pytestmark = pytest.mark.slow

SENDER = "shop@example.org"


@contextmanager
def session(server: MailServer | Sink) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP(server.host, server.port, timeout=10.0) as client:
        yield client


def make_message(number: int) -> EmailMessage:
    message = EmailMessage()
    message["From"] = SENDER
    message["To"] = f"person{number}@example.net"
    message["Subject"] = f"Message {number}"
    message.set_content("Hello.\n..and a dot.\n")
    return message


def send_messages(server: MailServer | Sink, count: int) -> None:
    with session(server) as client:
        for number in range(count):
            assert client.send_message(make_message(number)) == {}


@pytest.fixture(params=["postfix", "exim"])
def server(request: pytest.FixtureRequest) -> MailServer:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, MailServer)
    return found


def test_server_keeps_each_accepted_message_once(server: MailServer) -> None:
    send_messages(server, 20)
    server.wait_for(20)
    assert server.recipients() == {f"person{number}@example.net": 1 for number in range(20)}
    assert {message["Subject"] for message in server.kept()} == {f"Message {number}" for number in range(20)}
    assert all(message.get_content() == "Hello.\n..and a dot.\n" for message in server.kept())


def test_server_refuses_unknown_users(server: MailServer) -> None:
    with session(server) as client:
        client.ehlo("client.example.org")
        client.mail(SENDER)
        code, text = client.rcpt("unknown7@example.net")
        assert code == 550
        assert text.startswith(b"5.1.1 ")
        client.rset()
        assert client.sendmail(SENDER, ["known7@example.net"], make_message(7).as_bytes()) == {}
    server.wait_for(1)


def test_server_offers_what_the_modes_of_the_line_need(server: MailServer) -> None:
    with session(server) as client:
        client.ehlo("client.example.org")
        assert {"pipelining", "chunking", "smtputf8", "8bitmime", "size"} <= client.esmtp_features.keys()


def test_server_discards_a_message_that_was_not_ended(server: MailServer) -> None:
    with session(server) as client:
        client.ehlo("client.example.org")
        client.mail(SENDER)
        client.rcpt("person1@example.net")
        assert client.docmd("DATA")[0] == 354
        client.send("Subject: half\r\n\r\nno end")
        client.close()
    send_messages(server, 1)
    server.wait_for(1)
    assert server.kept()[0]["Subject"] == "Message 0"


def test_server_reports_when_messages_are_missing(server: MailServer) -> None:
    send_messages(server, 1)
    server.wait_for(1)
    with pytest.raises(
        AssertionError, match=r"(?s)1 messages kept instead of 2; the log ends:\n.*person0@example\.net"
    ):
        server.wait_for(2, seconds=0.1)


@pytest.mark.real
def test_postfix_takes_settings() -> None:
    with run_postfix({"message_size_limit": "5000"}) as server, session(server) as client:
        client.ehlo("client.example.org")
        assert client.esmtp_features["size"] == "5000"


def test_sink_counts_what_it_takes(smtp_sink: Sink) -> None:
    assert smtp_sink.count() == 0
    send_messages(smtp_sink, 20)
    assert smtp_sink.count() == 20


@pytest.mark.real
def test_sink_takes_options() -> None:
    with run_sink(["-f", "RCPT"]) as sink, session(sink) as client:
        client.ehlo("client.example.org")
        client.mail(SENDER)
        assert client.rcpt("person@example.net")[0] == 500
        assert sink.count() == 0


# --- without the servers ---------------------------------------------------------------------------------------------


@pytest.fixture
def empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("BULKMAIL_TEST_SERVERS", str(tmp_path))
    monkeypatch.setattr("tests.servers.programs.SYSTEM_FOLDERS", ())


@pytest.mark.usefixtures("empty_machine")
def test_missing_program_skips_a_users_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"postfix is not installed; `\.ci/servers` gets"):
        require_program("postfix")


@pytest.mark.usefixtures("empty_machine")
def test_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="postfix is not installed"):
        require_program("postfix")
    with pytest.raises(pytest.fail.Exception, match="nothing"):
        missing("nothing")


@pytest.mark.usefixtures("empty_machine")
def test_program_is_found_among_the_unpacked() -> None:
    unpacked = cache() / "usr/sbin/postfix"
    unpacked.parent.mkdir(parents=True)
    unpacked.touch(0o755)
    assert find_program("postfix") == unpacked
    assert environment_of(unpacked)["LD_LIBRARY_PATH"] == str(cache() / "usr/lib/postfix")
