"""Who may ask the console for anything: its own pages in the user's browser, and nothing else."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from html import escape
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

import anyio
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkmail.model.relay import Secret

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LONGEST_BODY = 12_000_000  # bytes of a form
LONGEST_LIST = 200_000_000
LONGEST_ATTACHMENT = 25_000_000
BODY_TIMEOUT = 60.0  # seconds for the body of a request
UPLOAD_TIMEOUT = 900.0
_SPARE = 100_000  # bytes that a form adds to the file in it
_METHODS = frozenset({"GET", "HEAD", "POST"})


def cookie_name(port: int) -> str:
    """Cookies know no port, so that two consoles on one computer would share one: its name has the port."""
    return f"bulkmail-{port}"


def local_hosts(port: int) -> frozenset[str]:
    """What a browser on this computer calls the console in `Host`."""
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))


class Guard:
    """Lets through what comes from the console's own pages; answers everything else itself.

    A foreign `Host` gets 421 (DNS rebinding), no token 401, a POST from another site 403.  `?token=` is taken once, for
    a cookie.  Every answer gets the headers that keep other sites, frames and caches out, unless it has its own.
    """

    def __init__(self, app: ASGIApp, *, token: Secret, port: int, allowed: Iterable[str] = ()) -> None:
        self._app = app
        self._token = token
        self._cookie = cookie_name(port)
        self._hosts = local_hosts(port) | {host.lower() for host in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, _bounded(scope, receive), _with_headers(send))
            else:
                await refusal(scope, receive, _with_headers(send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered in place of the page; None where the request is fine."""
        hosts = list(_headers(scope, b"host"))
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return PlainTextResponse("this is not the address of the console", 421)
        if scope["method"] not in _METHODS:
            return PlainTextResponse("not possible", 405, {"allow": "GET, HEAD, POST"})
        if scope["method"] == "POST" and not _is_own(scope, hosts[0]):
            return PlainTextResponse("this form was not sent by a page of the console", 403)
        if given := parse_qs(scope["query_string"].decode("latin-1")).get("token"):
            return self._handed_over(scope, given[-1])
        if not self._is_token(self._from_cookie(scope)):
            return HTMLResponse(_NO_TOKEN, 401)
        return None

    def _handed_over(self, scope: Scope, given: str) -> Response:
        """A page that goes on by itself: coming from a file, a browser keeps a Strict cookie back along a redirect."""
        if not self._is_token(given):
            return HTMLResponse(_NO_TOKEN, 401)
        target = escape(scope["path"] if str(scope["path"]).startswith("/") else "/")
        page = HTMLResponse(_GO_ON.format(target if not target.startswith("//") else "/"))
        page.set_cookie(self._cookie, self._token.reveal(), httponly=True, samesite="strict", path="/")
        return page

    def _from_cookie(self, scope: Scope) -> str:
        for header in _headers(scope, b"cookie"):
            try:
                morsel = SimpleCookie(header).get(self._cookie)
            except CookieError:
                continue
            if morsel is not None:
                return morsel.value
        return ""

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.reveal().encode())


_HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    '<link rel="icon" href="data:,">'
)
_NO_TOKEN = f"""{_HEAD}<title>bulkmail console</title>
<h1>This page needs the console's address with its token</h1>
<p>Open the address that <code>bulkmail console</code> prints when it starts. It looks like this:</p>
<p><code>http://127.0.0.1:8026/?token=…</code></p>"""
_GO_ON = f"""{_HEAD}<meta http-equiv="refresh" content="0;url={{0}}"><title>bulkmail console</title>
<p><a href="{{0}}">Open the console</a></p>"""


def _headers(scope: Scope, name: bytes) -> Iterator[str]:
    return (value.decode("latin-1") for key, value in scope["headers"] if key == name)


def _is_own(scope: Scope, host: str) -> bool:
    """Whether a POST comes from a page of ours; a browser says so in one of two ways, a page elsewhere cannot."""
    site = next(_headers(scope, b"sec-fetch-site"), None)
    if site is not None:
        return site == "same-origin"
    origin = next(_headers(scope, b"origin"), "")
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {key.lower() for key, _ in message["headers"]}
            added = [(key.encode(), value.encode()) for key, value in HEADERS.items() if key.encode() not in present]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """`receive`, with an end to how long and how slow a body may be.  Raises `HTTPException`."""
    path = str(scope["path"])
    upload = {"list": LONGEST_LIST, "log": LONGEST_LIST, "attachments": LONGEST_ATTACHMENT}.get(path.rpartition("/")[2])
    longest = LONGEST_BODY if upload is None else upload + _SPARE
    seen, is_whole = 0, False
    deadline = anyio.current_time() + (BODY_TIMEOUT if upload is None else UPLOAD_TIMEOUT)

    async def receiving() -> Message:
        nonlocal seen, is_whole
        if is_whole:
            return await receive()  # only the end of the connection is left to come
        with anyio.move_on_at(deadline):
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > longest:
                raise HTTPException(413, f"at most {longest / 1e6:,.0f} MB can be uploaded here")
            is_whole = not message.get("more_body", False)
            return message
        raise HTTPException(408, "the upload was too slow")

    return receiving
