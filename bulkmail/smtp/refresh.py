"""The refresh grant: asks a provider for a new access token (RFC 6749 §6).  Blocking, for a thread."""

from __future__ import annotations

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

from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Oauth, Secret
from bulkmail.smtp.credentials import AccessToken, TokenError, is_token
from bulkmail.text import printable

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
