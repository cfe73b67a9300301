"""Which way is taken to log in, what is said on it, and that no one is believed too easily."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.relay import Relay, Secret
from bulkmail.smtp.credentials import AccessToken, Credentials, TokenError, Tokens
from bulkmail.smtp.login import LoginError, Mechanism, choose_mechanism, log_in
from bulkmail.smtp.replies import Capabilities, RawReply, SessionRefused
from bulkmail.testing import Late, ScriptedRelay
from tests.connections import Single

USER, PASSWORD = "ann@example.com", "correct horse, battery=staple"
EVERY = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER")
CLEAR = "tls=off&auth=plaintext"
ANN = Credentials(USER, Secret(PASSWORD))


def by_token(*tokens: str | AccessToken) -> Credentials:
    """Credentials whose tokens come in this order, and none after the last."""
    left = [AccessToken(Secret(token)) if isinstance(token, str) else token for token in tokens]

    def fetch() -> AccessToken:
        if not left:
            raise TokenError(Breakage.NO_TOKEN, "no more tokens")
        return left.pop(0)

    return Credentials(USER, tokens=Tokens(fetch))


def chosen(offered: Sequence[str], who: Credentials = ANN, *, token: str = "", is_secure: bool = True) -> Mechanism:
    return choose_mechanism(
        who,
        AccessToken(Secret(token)) if token else None,
        Capabilities(auth_mechanisms=tuple(offered)),
        is_secure=is_secure,
        host="mail.example.com",
        port=587,
    )


async def opened(relay: ScriptedRelay, who: Credentials, query: str = CLEAR) -> None:
    session = await Single.to(Relay.parse(f"smtp://127.0.0.1:{relay.port}?{query}"), who, tls_context=None)
    assert session.usable
    await session.quit()


async def refused(relay: ScriptedRelay, who: Credentials) -> Reply | Fault:
    with pytest.raises(SessionRefused) as caught:
        await opened(relay, who)
    await asyncio.sleep(0.01)
    return caught.value.event


# Which way


@pytest.mark.parametrize(
    ("offered", "over_tls", "in_clear_text"),
    [
        (EVERY, "SCRAM-SHA-256", "SCRAM-SHA-256"),
        (("CRAM-MD5", "LOGIN", "PLAIN"), "PLAIN", "CRAM-MD5"),
        (("LOGIN", "CRAM-MD5"), "LOGIN", "CRAM-MD5"),
        (("LOGIN", "PLAIN"), "PLAIN", "PLAIN"),
        (("NTLM", "CRAM-MD5"), "CRAM-MD5", "CRAM-MD5"),
    ],
)
def test_strongest_usable_way_is_chosen(offered: Sequence[str], over_tls: str, in_clear_text: str) -> None:
    assert chosen(offered).name == over_tls
    assert chosen(offered, is_secure=False).name == in_clear_text


def test_password_that_scram_has_no_form_for_takes_another_way() -> None:
    assert chosen(EVERY, Credentials(USER, Secret("🐴"))).name == "PLAIN"
    with pytest.raises(LoginError, match="offers only SCRAM-SHA-256"):
        chosen(["SCRAM-SHA-256"], Credentials(USER, Secret("🐴")))


def test_token_takes_a_way_for_tokens_only() -> None:
    assert chosen(EVERY, token="abc").name == "OAUTHBEARER"
    assert chosen(("PLAIN", "XOAUTH2"), token="abc").name == "XOAUTH2"
    with pytest.raises(LoginError, match="offers only PLAIN; we know OAUTHBEARER, XOAUTH2, and an access token"):
        chosen(["PLAIN"], token="abc")
    with pytest.raises(LoginError, match="a password was given"):
        chosen(["XOAUTH2"])


@pytest.mark.parametrize("token", ["a b", "a\1b", "abc\r\n", "a\0", "ä", "="])
def test_what_is_no_token_is_not_said(token: str) -> None:
    with pytest.raises(LoginError, match="it is not a valid token") as caught:
        chosen(EVERY, token=token)
    assert caught.value.kind is Breakage.NO_TOKEN


@pytest.mark.parametrize("username", ["ann\0", "ann\1auth=Bearer x", "ann\ud800"])
def test_name_that_could_break_out_is_not_said(username: str) -> None:
    with pytest.raises(LoginError, match="was not sent"):
        chosen(EVERY, Credentials(username, Secret("x")), token="abc")


# What is said


def test_oauthbearer_says_what_rfc_7628_has() -> None:
    mechanism = choose_mechanism(
        Credentials("user@example.com"),
        AccessToken(Secret("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")),
        Capabilities(auth_mechanisms=("OAUTHBEARER",)),
        is_secure=True,
        host="server.example.com",
        port=143,
    )
    assert mechanism.first is not None
    assert base64.b64encode(mechanism.first) == (
        b"bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbV"
        b"RjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    )
    assert mechanism.answer(b'{"status":"invalid_token"}') == b"\1"


def test_cram_md5_says_what_rfc_2195_has() -> None:
    mechanism = chosen(["CRAM-MD5"], Credentials("tim", Secret("tanstaaftanstaaf")))
    assert mechanism.answer(b"<1896.697170952@postoffice.reston.mci.net>") == b"tim b913a602c7eda7a495b4e6e7334d3890"


@pytest.mark.parametrize("mechanism", EVERY)
async def test_each_way_in(mechanism: str) -> None:
    is_token = mechanism in ("XOAUTH2", "OAUTHBEARER")
    secret = "tok-en.1" if is_token else PASSWORD
    async with ScriptedRelay(auth={USER: secret}, mechanisms=[mechanism]) as relay:
        await opened(relay, by_token(secret) if is_token else ANN)
        event = await refused(relay, by_token("other") if is_token else Credentials(USER, Secret("other")))
    assert relay.violations == []
    if is_token:
        assert event == Fault(Stage.AUTH, Breakage.NO_TOKEN, "no more tokens")
    else:
        assert event == Reply(Stage.AUTH, 535, "5.7.8", "wrong user or password")
        assert relay.auth_attempts == 2


@pytest.mark.parametrize("mechanism", ["PLAIN", "XOAUTH2", "OAUTHBEARER"])
async def test_long_secret_does_not_go_with_the_command(mechanism: str) -> None:
    """A command line has 512 bytes at the most (RFC 4954 §4)."""
    secret = "x" * 3000
    who = Credentials(USER, Secret(secret)) if mechanism == "PLAIN" else by_token(secret)
    async with ScriptedRelay(auth={USER: secret}, mechanisms=[mechanism]) as relay:
        await opened(relay, who)
    assert relay.violations == []


# Whom we believe


async def test_server_that_does_not_prove_itself_is_not_believed() -> None:
    async with ScriptedRelay(auth={USER: "other"}, mechanisms=["SCRAM-SHA-256"], login="235 2.7.0 fine") as relay:
        event = await refused(relay, ANN)
    assert isinstance(event, Fault)
    assert event.kind is Breakage.IMPOSTOR
    assert "cannot prove that it knows the password" in event.what
    assert relay.auth_attempts == 1


class Server:
    """Says these replies, one for each line it is notified."""

    def __init__(self, *replies: tuple[int, bytes]) -> None:
        self.heard: list[bytes] = []
        self._replies = list(replies)

    async def say(self, line: bytes) -> RawReply:
        self.heard.append(line)
        code, text = self._replies.pop(0)
        return RawReply(code, (text.decode("latin-1"),))


@pytest.mark.parametrize("name", EVERY)
async def test_server_that_goes_on_asking_is_left(name: str) -> None:
    token = "abc" if name in ("XOAUTH2", "OAUTHBEARER") else ""
    server = Server(*[(334, b"")] * 10)
    with pytest.raises(LoginError) as caught:
        await log_in(chosen([name], token=token), server.say)
    assert caught.value.kind in (Breakage.DESYNC, Breakage.IMPOSTOR)
    assert len(server.heard) <= 4


@pytest.mark.slow
@given(
    st.sampled_from(EVERY),
    st.lists(
        st.tuples(
            st.sampled_from([334, 334, 334, 235, 250, 354, 421, 535]),
            st.binary(max_size=30).map(base64.b64encode) | st.binary(max_size=9),
        ),
        min_size=12,
        max_size=12,
    ),
)
async def test_any_server_gets_an_end(name: str, replies: list[tuple[int, bytes]]) -> None:
    token = "abc" if name in ("XOAUTH2", "OAUTHBEARER") else ""
    server = Server(*replies)
    try:
        reply = await log_in(chosen([name], token=token), server.say)
    except LoginError as error:
        assert PASSWORD not in str(error)
    else:
        assert reply.code != 334
        assert (name, reply.code) != ("SCRAM-SHA-256", 235)
    assert len(server.heard) <= 4
    if name in ("SCRAM-SHA-256", "CRAM-MD5"):
        said = b"".join(base64.b64decode(line.split()[-1]) for line in server.heard[1:] if line)
        assert PASSWORD.encode() not in said


# Tokens


async def test_refused_token_is_renewed_once_and_taken() -> None:
    async with ScriptedRelay(auth={USER: "new"}, mechanisms=["XOAUTH2"]) as relay:
        await opened(relay, by_token("old", "new"))
    assert relay.auth_attempts == 2
    assert relay.sessions == 2


async def test_second_refused_token_is_the_last() -> None:
    async with ScriptedRelay(auth={USER: "never"}, mechanisms=["XOAUTH2"]) as relay:
        who = by_token("old", "new", "newer", "newest")
        for attempts in (2, 3):
            event = await refused(relay, who)
            assert isinstance(event, Reply)
            assert event.code == 535
            assert relay.auth_attempts == attempts


async def test_same_token_again_is_not_said_twice() -> None:
    async with ScriptedRelay(auth={USER: "right"}, mechanisms=["XOAUTH2"]) as relay:
        event = await refused(relay, by_token("old", "old"))
    assert isinstance(event, Reply)
    assert relay.auth_attempts == 1


@pytest.mark.parametrize("answer", ["454 4.7.0 later", "534 5.7.9 stronger please", "421 4.7.0 bye"])
async def test_other_refusals_renew_nothing(answer: str) -> None:
    async with ScriptedRelay(auth={USER: "right"}, mechanisms=["XOAUTH2"], login=answer) as relay:
        assert str(await refused(relay, by_token("right", "right2"))) == answer
    assert relay.auth_attempts == 1


async def test_pool_renews_a_token_together() -> None:
    fetched: list[int] = []

    def fetch() -> AccessToken:
        fetched.append(len(fetched))
        return AccessToken(Secret("old" if len(fetched) == 1 else "new"))

    who = Credentials(USER, tokens=Tokens(fetch))
    async with ScriptedRelay(auth={USER: "new"}, mechanisms=["OAUTHBEARER"]) as relay:
        await asyncio.gather(*(opened(relay, who) for _ in range(10)))
    assert fetched == [0, 1]
    assert relay.auth_attempts <= 20


@pytest.mark.slow
async def test_token_is_renewed_before_its_end() -> None:
    tokens = Tokens(lambda: left.pop(0))
    left = [AccessToken(Secret("first"), 0.8), AccessToken(Secret("second"), 3600.0), AccessToken(Secret("third"))]
    first = await tokens.current()
    assert await tokens.current() is first
    await asyncio.sleep(0.75)
    second = await tokens.current()
    assert second.secret.reveal() == "second"
    assert await tokens.current() is second


async def test_token_that_no_one_gives_in_time_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    done = threading.Event()
    monkeypatch.setattr("bulkmail.smtp.credentials.FETCH_TIMEOUT", 0.05)

    def fetch() -> AccessToken:
        done.wait(5)
        return AccessToken(Secret("late"))

    try:
        with pytest.raises(TokenError, match="within 0 s") as caught:
            await Tokens(fetch).current()
        assert caught.value.kind is Breakage.TIMEOUT
    finally:
        done.set()


# The pool


@pytest.mark.slow
@pytest.mark.parametrize("is_right", [True, False])
async def test_pool_of_ten_logs_in_with_one_first(is_right: bool) -> None:
    import bulkmail

    waiting: list[int] = []

    def login(_: str) -> object:
        waiting.append(relay.sessions)
        answer = "235 2.7.0 welcome" if is_right else "535 5.7.8 no"
        return Late(0.1, answer) if len(waiting) == 1 else answer

    people = [{"email": f"p{number}@example.com"} for number in range(60)]
    campaign = bulkmail.compose(from_="shop@example.com", subject="Hello", text="We are open.")
    script: Any = login
    async with ScriptedRelay(auth={"ann": PASSWORD}, login=script, data=Late(0.02, "354 go on")) as relay:
        url = f"smtp://ann@127.0.0.1:{relay.port}?{CLEAR}&connections=10"
        if is_right:
            await bulkmail.send(campaign, people, relay=url, password=PASSWORD)
            assert relay.peak_sessions > 2
            assert len(relay.messages) == 60
        else:
            with pytest.raises(bulkmail.BulkmailError, match="refused the login"):
                await bulkmail.send(campaign, people, relay=url, password=PASSWORD)
            assert relay.auth_attempts == 1
            assert relay.messages == []
    assert waiting[0] == 1  # while the first one waits for its answer there is no other
