"""The refresh grant against a provider on loopback that answers well, badly, late, or leads astray."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

import pytest

from bulkmail.model.errors import ConfigError
from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Oauth, Secret
from bulkmail.smtp import credentials
from bulkmail.smtp.credentials import AccessToken, RefreshGrant, TokenError, Tokens

REFRESH, CLIENT = "refresh-hunter2", "client-hunter2"
GOOD = {"access_token": "ya29.abc", "token_type": "Bearer", "expires_in": 3599}


class Provider:
    """Answers each request with the next of `answers`: a status and a body.  `asked` has what came."""

    def __init__(self, *answers: tuple[int, object], pause: float = 0.0, headers: dict[str, str] | None = None) -> None:
        self.asked: list[dict[str, str]] = []
        self.answers = list(answers)
        self.pause = pause
        self.headers = headers or {}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    @contextmanager
    def running(self) -> Iterator[Provider]:
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                provider.asked.append({key: values[0] for key, values in form.items()})
                status, body = provider.answers.pop(0)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    self.send_response(status)
                    for name, value in provider.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    for byte in (data[n : n + 1] for n in range(len(data))) if provider.pause else (data,):
                        time.sleep(provider.pause)
                        self.wfile.write(byte)
                        self.wfile.flush()
                except OSError:
                    pass

            do_GET = do_POST

            def log_message(self, *_: object) -> None: ...

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def grant(
    url: str, *, keep: Callable[[Secret], None] | None = None, scope: str = "", secret: bool = True
) -> RefreshGrant:
    oauth = Oauth(url, "shop-client", scope=scope)
    return RefreshGrant(
        oauth, refresh_token=Secret(REFRESH), client_secret=Secret(CLIENT) if secret else None, keep=keep
    )


def failure(*answers: tuple[int, object], **more: object) -> TokenError:
    with Provider(*answers, **more).running() as provider, pytest.raises(TokenError) as caught:  # type: ignore[arg-type]
        grant(provider.url)()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def test_grant_asks_as_rfc_6749_has_it() -> None:
    with Provider((200, GOOD), (200, GOOD)).running() as provider:
        token = grant(provider.url, scope="https://mail.example.com/")()
        grant(provider.url, secret=False)()
    assert (token.secret.reveal(), token.lifetime) == ("ya29.abc", 3599.0)
    public = {"grant_type": "refresh_token", "refresh_token": REFRESH, "client_id": "shop-client"}
    assert provider.asked == [{**public, "client_secret": CLIENT, "scope": "https://mail.example.com/"}, public]


def test_new_refresh_token_replaces_the_old_one() -> None:
    kept: list[str] = []
    with Provider((200, {**GOOD, "refresh_token": "second"}), (200, GOOD)).running() as provider:
        ask = grant(provider.url, keep=lambda token: kept.append(token.reveal()))
        ask()
        ask()
    assert [form["refresh_token"] for form in provider.asked] == [REFRESH, "second"]
    assert kept == ["second"]


@pytest.mark.parametrize("lifetime", [None, "3599", 3599.5, True, -1, "soon", 10**30, [], "nan"])
def test_lifetime_is_a_number_or_unknown(lifetime: object) -> None:
    with Provider((200, {**GOOD, "expires_in": lifetime})).running() as provider:
        token = grant(provider.url)()
    assert token.lifetime in (None, 3599.0, 3599.5)


def test_refused_grant_says_why_and_hides_secrets() -> None:
    reported = {"error": "invalid_grant", "error_description": f"Token {REFRESH} has expired\r\nfor {CLIENT}"}
    error = failure((400, reported))
    assert error.kind is Breakage.NO_TOKEN
    assert str(error) == ("127.0.0.1 gives us no access token: 400 invalid_grant: Token *** has expired for ***")


@pytest.mark.parametrize("status", [429, 500, 503, 404])
def test_provider_that_is_out_of_order_may_be_asked_again(status: int) -> None:
    assert failure((status, b"<html>")).kind is Breakage.UNREACHABLE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[" * 30_000,
        b"\xff",
        {"token_type": "Bearer"},
        {**GOOD, "access_token": "a b"},
        {**GOOD, "access_token": 7},
        {**GOOD, "access_token": "x\1y"},
        {**GOOD, "token_type": "mac"},
        {**GOOD, "token_type": None},
    ],
)
def test_answer_without_a_token_is_refused(body: object) -> None:
    assert failure((200, body)).kind is Breakage.NO_TOKEN


def test_answer_without_end_is_cut() -> None:
    assert failure((200, b"x" * 200_000)).kind is Breakage.UNREACHABLE


def test_answer_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "TIMEOUT", 0.2)
    assert failure((200, b"x" * 100_000), pause=0.02).kind is Breakage.TIMEOUT  # to its end it would take half an hour


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_secrets_follow_no_redirect(status: int) -> None:
    with Provider((200, GOOD)).running() as elsewhere:
        failure((status, b""), headers={"Location": elsewhere.url})
    assert elsewhere.asked == []


def test_secrets_in_clear_text_pass_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    with Provider((200, GOOD)).running() as proxy, Provider((200, GOOD)).running() as provider:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        grant(provider.url)()
    assert (len(proxy.asked), len(provider.asked)) == (0, 1)


def test_provider_that_is_not_there_is_named() -> None:
    with Provider().running() as provider:
        url = provider.url
    with pytest.raises(TokenError, match=r"^127\.0\.0\.1, which gives us access tokens, cannot be reached: ") as caught:
        grant(url)()
    assert caught.value.kind is Breakage.UNREACHABLE


async def test_ten_that_want_a_token_ask_once() -> None:
    import asyncio

    with Provider((200, GOOD)).running() as provider:
        tokens = Tokens(grant(provider.url))
        found = await asyncio.gather(*(tokens.current() for _ in range(10)))
    assert len(provider.asked) == 1
    assert {id(token) for token in found} == {id(found[0])}
    assert isinstance(found[0], AccessToken)
    assert "ya29" not in repr(found[0])


@pytest.mark.parametrize(
    "url",
    [
        "http://oauth.example.com/token",
        "http://127.0.0.1.example.com/token",
        "http://localhost@example.com/token",
        "https://user:secret@example.com/token",
        "ftp://localhost/token",
        "file:///etc/passwd",
        "https://",
        "https://example.com:port/",
        "https://example.com/a b",
        "https://example.com/\r\nX: y",
        "https://example.com/#fragment",
        "",
    ],
)
def test_secrets_are_sent_to_safe_addresses_only(url: str) -> None:
    with pytest.raises(ConfigError, match="token_url is not an address that secrets may be sent to"):
        Oauth(url, "client")


@pytest.mark.parametrize(
    "url", ["https://oauth.example.com/token", "http://[::1]:8080/token", "http://localhost/t?x=1"]
)
def test_safe_addresses_are_taken(url: str) -> None:
    assert Oauth(url, "client").token_url == url
