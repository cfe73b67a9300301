"""The web application: the unsubscribe page, one-click POST (RFC 8058), and webhooks.  Needs the extra `web`."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bulkmail.feedback.matching import Arrived
from bulkmail.message.unsubscribe import UnsubscribeRequest, read_unsubscribe
from bulkmail.model.errors import SuppressionError
from bulkmail.model.relay import Secret
from bulkmail.serve import opt_out_pages as pages
from bulkmail.serve.fetching import fetch as fetch_https
from bulkmail.serve.hooks import arrived
from bulkmail.serve.proofs import Call, Fetch, HookRefused, Webhook, is_sns_address, verified
from bulkmail.serve.writer import TooBusy, Writer

log = logging.getLogger("bulkmail.serve")

REQUEST_TIMEOUT = 10.0  # seconds
LONGEST_FORM = 65_536  # bytes
LONGEST_HOOK = 1_000_000  # bytes
TAKEN_BACK_WITHIN = 3_600.0  # seconds
RETRY_AFTER = "30"  # seconds
MOST_FIELDS = 20
_URLENCODED = "application/x-www-form-urlencoded"
_ONE_CLICK = ("List-Unsubscribe", "One-Click")  # RFC 8058 §3.2
_CERTIFICATES_KEPT = 16


class PublicSide:
    """What the routes share.  `keys` sign unsubscribe links, `hooks` are by provider.

    `counts` are of answers, by route and status.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        keys: Sequence[Secret],
        hooks: Mapping[str, Webhook],
        fetch: Fetch = fetch_https,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        self._writer = writer
        self._keys = [key.reveal() for key in keys]
        self._hooks = dict(hooks)
        self._fetch = fetch
        self._clock = clock
        self._certificates: dict[str, bytes] = {}

    # -- unsubscribing

    async def page(self, request: Request) -> Response:
        """GET and HEAD: changes nothing, because link scanners follow every link."""
        wish = self._wish(request)
        if wish is None:
            return _html(pages.unknown(), 404)
        return _html(pages.asking(wish.address.readable, wish.list_id))

    async def unsubscribe(self, request: Request) -> Response:
        """POST: by a mailbox's button without a page, or by the page's own."""
        form = await _form(request)
        wish = self._wish(request)
        is_one_click = form.get(_ONE_CLICK[0]) == _ONE_CLICK[1]
        if wish is None:
            return PlainTextResponse("not a valid link", 404) if is_one_click else _html(pages.unknown(), 404)
        if is_one_click:
            await self._writer.unsubscribe(wish)
            return PlainTextResponse("unsubscribed", headers=pages.HEADERS)
        if form.get("action") == "unsubscribe":
            await self._writer.unsubscribe(wish)
            return _html(pages.unsubscribed(wish.address.readable, wish.list_id))
        if form.get("action") == "undo":
            if await self._writer.take_back(wish, within=TAKEN_BACK_WITHIN):
                return _html(pages.taken_back(wish.address.readable, wish.list_id))
            return _html(pages.too_late(), 409)
        return PlainTextResponse("expected List-Unsubscribe=One-Click", 400)

    def _wish(self, request: Request) -> UnsubscribeRequest | None:
        return read_unsubscribe(request.path_params["token"], self._keys)

    # -- webhooks

    async def hook(self, request: Request) -> Response:
        """A service's report: proved, durable, then answered."""
        hook = self._hooks.get(request.path_params["provider"])
        if hook is None:
            return PlainTextResponse("not found", 404)
        body = await _body(request, LONGEST_HOOK)
        now = self._clock()
        call = Call({name.lower(): value for name, value in request.headers.items()}, body, now)

        def read() -> tuple[dict[str, Any], list[Arrived]]:
            reported = verified(hook, call, fetch=self._kept)
            return reported, arrived(hook.provider, reported, body, now=now)

        try:
            reported, mails = await to_thread.run_sync(read)
        except HookRefused as refused:
            log.warning("webhook refused", extra={"provider": hook.provider, "why": str(refused)})
            return PlainTextResponse("not accepted", 401)
        if hook.provider == "ses" and reported["Type"] == "SubscriptionConfirmation":
            return await self._confirm(str(reported.get("SubscribeURL", "")))
        await self._writer.report(mails)
        return PlainTextResponse("ok")

    async def _confirm(self, address: str) -> Response:
        """Answers SNS that its topic, one of ours, may send here."""
        if not is_sns_address(address):
            return PlainTextResponse("not accepted", 401)
        try:
            await to_thread.run_sync(self._fetch, address)
        except OSError:
            return PlainTextResponse("cannot confirm just now", 503, headers={"Retry-After": RETRY_AFTER})
        return PlainTextResponse("confirmed")

    def _kept(self, address: str) -> bytes:
        """A certificate, fetched once.  Blocks; raises `OSError`."""
        if address not in self._certificates:
            if len(self._certificates) >= _CERTIFICATES_KEPT:
                self._certificates.clear()
            self._certificates[address] = self._fetch(address)
        return self._certificates[address]


def make_app(side: PublicSide, writer: Writer) -> ASGIApp:
    """The application; the writer works as long as it runs."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(writer.run)
            yield
            group.cancel_scope.cancel()

    async def unavailable(request: Request, error: Exception) -> Response:
        log.warning("not stored", extra={"why": str(error)})
        headers = {"Retry-After": RETRY_AFTER, **pages.HEADERS}
        return HTMLResponse(pages.busy(), 503, headers)

    async def plain(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return PlainTextResponse("not found" if status == 404 else "not possible", status)

    app = Starlette(
        routes=[
            Route("/u/{token}", side.page, methods=["GET", "HEAD"], name="unsubscribe page"),
            Route("/u/{token}", side.unsubscribe, methods=["POST"], name="unsubscribe"),
            Route("/hooks/{provider}", side.hook, methods=["POST"], name="webhook"),
        ],
        exception_handlers={SuppressionError: unavailable, TooBusy: unavailable, HTTPException: plain, 404: plain},
        lifespan=lifespan,
    )
    return _Bounded(app, side.counts)


class _Bounded:
    """Ends a request that takes too long, counts the answers, and logs route and status: never path or query, which
    hold tokens.
    """

    def __init__(self, app: ASGIApp, counts: Counter[tuple[str, int]]) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        with anyio.move_on_after(REQUEST_TIMEOUT) as limit, suppress(ClientDisconnect):
            await self._app(scope, receive, noting)
        if limit.cancelled_caught and not status:
            status = 408
            await PlainTextResponse("too slow", 408)(scope, receive, send)
        route = str(getattr(scope.get("route"), "name", "")) or "other"
        self._counts[route, status] += 1
        client = scope.get("client")
        log.info("request", extra={"route": route, "status": status, "client": masked(client[0] if client else "")})


def masked(address: str) -> str:
    """A client's network: an IPv4 address without its last byte, an IPv6 address without its last ten."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return str(ipaddress.ip_network((found, 24 if found.version == 4 else 48), strict=False).network_address)


async def _body(request: Request, longest: int) -> bytes:
    """The whole body.  Raises `HTTPException` 413 for a longer one."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > longest:
            raise HTTPException(413)
    request._body = bytes(body)
    return bytes(body)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, urlencoded or multipart (RFC 8058 §3.2 allows both); none for anything else."""
    body = await _body(request, LONGEST_FORM)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == _URLENCODED:
        try:  # what nearly all send
            return dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_FIELDS))
        except ValueError:
            raise HTTPException(400) from None
    form = await request.form(max_files=4, max_fields=MOST_FIELDS)
    try:
        return {name: value for name, value in form.items() if not isinstance(value, UploadFile)}
    finally:
        await form.close()


def _html(page: str, status: int = 200) -> Response:
    return HTMLResponse(page, status, pages.HEADERS)
