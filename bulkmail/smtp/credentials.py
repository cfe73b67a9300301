"""Who we are to a relay: a user name with a password, or access tokens, and the refresh grant that renews them."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import urlencode, urlsplit

import anyio
from anyio import to_thread

from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Oauth, Secret
from bulkmail.text import printable

# -- Who we are to a relay: a user name with a password, or with access tokens that last a while each.


EARLY = 300.0  # seconds before its end at which a token is not used for another login; a tenth of its life at most
FETCH_TIMEOUT = 150.0  # seconds; a command may ask a person to unlock something
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 §2.1


def is_token(text: str) -> bool:
    """Whether `text` can be an access token at all: what is not could break out of the message it is put into."""
    return _TOKEN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, eq=False)
class AccessToken:
    """A bearer token (RFC 6750) that was just given; `lifetime` in seconds, None where no one says."""

    secret: Secret
    lifetime: float | None = None


class TokenError(Exception):
    """There is no token to be had.  `str(error)` is a sentence without a secret; `kind` tells now from never."""

    def __init__(self, kind: Breakage, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class Tokens:
    """The access token that all sessions of a pool share.  One at a time renews it, and the others wait for that.

    `fetch` gets a new one, blocking, in a thread; it raises `TokenError`.
    """

    def __init__(self, fetch: Callable[[], AccessToken]) -> None:
        self._fetch = fetch
        self._turn = asyncio.Lock()
        self._token: AccessToken | None = None
        self._best_before = 0.0
        self._is_second = False  # it replaced one that was refused, and was never accepted itself

    async def current(self) -> AccessToken:
        """A token for a login that begins now.  Raises `TokenError`."""
        async with self._turn:
            if self._token is None or asyncio.get_running_loop().time() >= self._best_before:
                await self._renew()
            assert self._token is not None  # noqa: S101
            return self._token

    async def instead_of(self, refused: AccessToken) -> AccessToken | None:
        """A newer token than the one just refused; None when there is none or the newer one was refused as well.

        Raises `TokenError`.
        """
        async with self._turn:
            if self._token is refused:
                if self._is_second:
                    return None
                await self._renew()
                self._is_second = True
            newer = self._token
            assert newer is not None  # noqa: S101
            return None if newer.secret.reveal() == refused.secret.reveal() else newer

    def accepted(self, token: AccessToken) -> None:
        """A login with `token` went well."""
        if token is self._token:
            self._is_second = False

    async def _renew(self) -> None:
        asked_at = asyncio.get_running_loop().time()
        try:
            with anyio.fail_after(FETCH_TIMEOUT):
                token = await to_thread.run_sync(self._fetch, abandon_on_cancel=True)
        except TimeoutError:
            what = f"no access token was received within {FETCH_TIMEOUT:.0f} s"
            raise TokenError(Breakage.TIMEOUT, what) from None
        self._token = token
        self._best_before = float("inf")
        if token.lifetime is not None:
            self._best_before = asked_at + token.lifetime - min(EARLY, token.lifetime / 10)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to the relay: `password` or `tokens`, and tokens if both are given."""

    username: str
    password: Secret | None = None
    tokens: Tokens | None = None


# -- The refresh grant: asks a provider for a new access token (RFC 6749 §6).  Blocking, for a thread.


TIMEOUT = 30.0  # seconds for the whole of question and answer
LONGEST_ANSWER = 65_536  # bytes
_LONGEST_LIFE = 10 * 365 * 86_400.0  # seconds


class RefreshGrant:
    """Gets access tokens from `oauth.token_url`.  `client_secret` goes into the body, where all providers look for it.

    A provider may give a new refresh token with each access token and forget the old one: the new one is then used,
    and `keep` receives it.  May be called from several threads.
    """

    def __init__(
        self,
        oauth: Oauth,
        *,
        refresh_token: Secret,
        client_secret: Secret | None,
        keep: Callable[[Secret], None] | None = None,
    ) -> None:
        self._oauth = oauth
        self._refresh_token = refresh_token
        self._client_secret = client_secret
        self._keep = keep
        self._turn = threading.Lock()

    def __call__(self) -> AccessToken:
        """A new access token.  Raises `TokenError`."""
        with self._turn:
            status, answer = self._ask()
            if status != 200:
                raise self._refused(status, answer)
            return self._read(answer)

    @property
    def _place(self) -> str:
        return printable(urlsplit(self._oauth.token_url).hostname or "", 80)

    def _ask(self) -> tuple[int, bytes]:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self._refresh_token.reveal(),
            "client_id": self._oauth.client_id,
        }
        if self._client_secret is not None:
            form["client_secret"] = self._client_secret.reveal()
        if self._oauth.scope:
            form["scope"] = self._oauth.scope
        request = urllib.request.Request(  # noqa: S310 - https, or our own machine: see `Oauth`
            self._oauth.token_url,
            data=urlencode(form).encode(),
            headers={"Accept": "application/json", "User-Agent": "bulkmail"},
        )
        deadline = time.monotonic() + TIMEOUT
        try:
            try:
                answer = _opener(self._oauth.token_url).open(request, timeout=TIMEOUT)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                return answer.status or 0, _read_all(answer, deadline)
        except (TimeoutError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise TokenError(Breakage.TIMEOUT, f"{self._place} gave no access token in time") from None
            words = printable(getattr(reason, "strerror", None) or type(reason).__name__, 80)
            raise TokenError(
                Breakage.UNREACHABLE, f"{self._place}, which gives us access tokens, cannot be reached: {words}"
            ) from None

    def _refused(self, status: int, answer: bytes) -> TokenError:
        """400 and 401 are the grant's own refusals (RFC 6749 §5.2); anything else may pass."""
        try:
            reported = json.loads(answer)
            words = [reported.get("error"), reported.get("error_description")]
        except (ValueError, AttributeError, RecursionError):
            words = []
        text = ": ".join(word for word in words if isinstance(word, str) and word)
        for secret in (self._refresh_token, self._client_secret):
            if secret is not None:
                text = text.replace(secret.reveal(), "***")
        is_final = status in (400, 401, 403)
        said = f"{status} {printable(text, 200)}".strip()
        return TokenError(
            Breakage.NO_TOKEN if is_final else Breakage.UNREACHABLE,
            f"{self._place} gives us no access token: {said}",
        )

    def _read(self, answer: bytes) -> AccessToken:
        try:
            reported = json.loads(answer)
            token, kind = reported["access_token"], reported.get("token_type", "bearer")
            if not (isinstance(token, str) and is_token(token) and isinstance(kind, str) and kind.lower() == "bearer"):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise TokenError(Breakage.NO_TOKEN, f"{self._place} answered with something else than a token") from None
        newer = reported.get("refresh_token")
        if isinstance(newer, str) and newer and newer != self._refresh_token.reveal():
            self._refresh_token = Secret(newer)
            if self._keep is not None:
                self._keep(self._refresh_token)
        return AccessToken(Secret(token), _lifetime(reported.get("expires_in")))


def _lifetime(said: object) -> float | None:
    """Seconds; some providers write the number as a text."""
    text = str(said) if isinstance(said, str | int | float) and not isinstance(said, bool) else ""
    return min(float(text), _LONGEST_LIFE) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text) else None


def _read_all(answer: IO[bytes], deadline: float) -> bytes:
    """The whole answer, unless it is too long or comes too slowly."""
    data = b""
    while piece := answer.read1(8192):  # type: ignore[attr-defined]
        data += piece
        if len(data) > LONGEST_ANSWER:
            raise HTTPException("too long")
        if time.monotonic() > deadline:
            raise TimeoutError
    return data


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Our secrets go to the address that was configured and to no other."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if urlsplit(url).scheme != "https":
        handlers.append(urllib.request.ProxyHandler({}))  # in clear text it must not leave this machine
    return urllib.request.build_opener(*handlers)
