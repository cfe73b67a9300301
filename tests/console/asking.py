"""Asks the console without a socket, as a browser on this computer does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from starlette.types import ASGIApp

PORT = 8026
TOKEN = "a-token-that-only-tests-know-0123456789"
HOST = f"127.0.0.1:{PORT}"
COOKIE = {"cookie": f"bulkmail-{PORT}={TOKEN}"}
OWN = {"sec-fetch-site": "same-origin"}
_FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass
class Answer:
    """What the console answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def target(self) -> str:
        """Where a redirect leads."""
        return self.headers.get("location", "")

    def field(self, name: str) -> str:
        """The value of a hidden field."""
        found = re.search(rf'name="{name}" value="([^"]*)"', self.text)
        assert found, name
        return found[1]


@dataclass
class Asker:
    """Asks one application."""

    app: ASGIApp
    seen: list[Answer] = field(default_factory=list)

    async def get(self, path: str, headers: Mapping[str, str] = COOKIE, *, host: str = HOST) -> Answer:
        return await self.ask("GET", path, headers, host=host)

    async def post(
        self, path: str, fields: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        body = urlencode(fields or {}).encode()
        return await self.ask("POST", path, {**COOKIE, **OWN, **_FORM, **(headers or {})}, body)

    async def upload(self, path: str, name: str, content: bytes, fields: Mapping[str, str]) -> Answer:
        mark = "-----mark"
        parts = [
            f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in fields.items()
        ]
        head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = b"".join(parts) + head.encode() + content + f"\r\n--{mark}--\r\n".encode()
        headers = {**COOKIE, **OWN, "content-type": f"multipart/form-data; boundary={mark}"}
        return await self.ask("POST", path, headers, body)

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, host: str = HOST
    ) -> Answer:
        path, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [
                (b"host", host.encode()),
                *((key.encode(), value.encode()) for key, value in headers.items()),
            ],
            "server": ("127.0.0.1", PORT),
            "client": ("127.0.0.1", 50_000),
            "scheme": "http",
            "http_version": "1.1",
            "root_path": "",
        }
        pieces = [body[at : at + 65_536] for at in range(0, len(body), 65_536)] or [b""]
        answer = Answer(0, {})

        async def receive() -> dict[str, Any]:
            if pieces:
                return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {key.decode(): value.decode() for key, value in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        await self.app(scope, receive, send)
        self.seen.append(answer)
        return answer
