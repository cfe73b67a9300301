"""Who we are to a relay: a user name with a password, or with access tokens that last a while each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import anyio
from anyio import to_thread

from bulkmail.model.lazy import dataclass
from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Secret

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
