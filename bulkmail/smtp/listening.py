"""aiosmtplib's client as we use it, and the strict reader that looks over its shoulder."""

from __future__ import annotations

import asyncio
from typing import cast

import aiosmtplib

from bulkmail.smtp.replies import RawReply, ReplyError, ReplyParser
from bulkmail.smtp.tap import Tap


class Client(aiosmtplib.SMTP):
    """aiosmtplib's client, that drops a connection when it closes it.

    Its own way over TLS is to wait up to half a minute for a server that has stopped answering.
    """

    @property
    def raw_transport(self) -> asyncio.Transport:
        """The transport.  Raises `SMTPServerDisconnected` when there is none any more."""
        if self.transport is None:
            raise aiosmtplib.SMTPServerDisconnected("lost")
        return cast(asyncio.Transport, self.transport)

    async def lhlo(self, *, timeout: float) -> aiosmtplib.SMTPResponse:  # noqa: ASYNC109 - as `ehlo`
        """EHLO by another name (RFC 2033 §4.1)."""
        name = (self.local_hostname or "").encode("ascii")
        response = await self.execute_command(b"LHLO", name, timeout=timeout)
        if response.code != 250:
            raise aiosmtplib.SMTPHeloError(response.code, response.message)
        self.last_ehlo_response = response
        return response

    def close(self) -> None:
        transport = self.transport
        super().close()
        if transport is not None:
            cast(asyncio.Transport, transport).abort()


class Listener(asyncio.Protocol):
    """Reads over aiosmtplib's shoulder with our own strict parser: aiosmtplib overlooks what comes unasked."""

    def __init__(self, protocol: asyncio.Protocol, transport: asyncio.Transport, tap: Tap | None) -> None:
        self._tap = tap
        self.replies: list[RawReply] = []
        self.violation = ""
        self._protocol = protocol
        self._transport = transport
        self._parser = ReplyParser()
        self._expected = 0

    def expect(self, replies: int) -> None:
        """At most this many replies may come from now on, one in a piece."""
        self.replies = []
        self._expected = replies

    def data_received(self, data: bytes) -> None:
        if self._tap is not None:
            self._tap.heard(data)
        had = len(self.replies)
        try:
            for reply in self._parser.replies(data):
                self.replies.append(reply)
        except ReplyError as error:
            self.violation = str(error)
        else:
            came = len(self.replies) - had
            is_complete = came > 0 or len(self.replies) >= self._expected
            if came > 1 or len(self.replies) > self._expected or (is_complete and self._parser.has_partial):
                self.violation = "said something before it was asked"
        if self.violation:
            self._transport.abort()
        else:
            # As we have read it: aiosmtplib does not tolerate an empty line inside a reply.
            for reply in self.replies[had:]:
                self._protocol.data_received(reply.on_the_line())

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)
