"""A transport and its protocol with a tap in between: anyone who uses them notices nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from bulkmail.smtp.tap import Tap

TAP = "bulkmail tap"  # what `get_extra_info` knows it by


class TappedTransport(asyncio.Transport):
    """Hands everything on to `transport`, and what passes in either direction to `tap` as well."""

    def __init__(self, transport: asyncio.Transport, tap: Tap) -> None:
        super().__init__()
        self._transport = transport
        self._tap = tap

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._tap.said(bytes(data))
        self._transport.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(TappedProtocol(cast(asyncio.Protocol, protocol), self._tap))

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tap if name == TAP else self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def write_eof(self) -> None:
        self._transport.write_eof()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()


class TappedProtocol(asyncio.Protocol):
    """Hands everything on to `protocol`."""

    def __init__(self, protocol: asyncio.Protocol, tap: Tap) -> None:
        self._protocol = protocol
        self._tap = tap

    def data_received(self, data: bytes) -> None:
        self._tap.heard(data)
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        self._tap.note("the server has closed its side")
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)  # it may still read what the connection had left
        self._tap.closed(f"closed: {error}" if error else "closed")
