"""What a Modbus driver asks over: a framing, and the channel that carries its bytes.

A *channel* moves bytes and knows nothing of Modbus (`modbus_socket`: TCP and TLS, `modbus_serial`:
a serial line). A *wire* is a framing on a channel: it sends a request and gives the one reply that
is that request's (`modbus_mbap`: Modbus TCP, `modbus_rtu`: RTU). `modbus.py` puts them together; a
further transport is one more channel or one more wire.

A wire lives from connect to the end of its connection and is never opened twice. Calls of ``ask``
come one at a time, and each may be cancelled at any point.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from edge_agent.errors import TransientError
from edge_agent.protocols.base import WallClock
from edge_agent.protocols.modbus_syntax import ModbusConn

SHOWN_BYTES_MAX: Final = 12
"""Bytes of a malformed reply that an error shows."""
ERROR_BIT: Final = 0x80
"""Set in the function code of an exception reply."""
SLEEP_S_MIN: Final = 0.001
"""uvloop rounds what is shorter to zero, and would spin."""


@dataclass(frozen=True, slots=True)
class Request:
    """A read: its PDU (function code, first cell, cells), and the bytes of data it asks for."""

    unit_id: int
    pdu: bytes
    size_bytes: int

    @property
    def function(self) -> int:
        """The function code."""
        return self.pdu[0]


class Answer(NamedTuple):
    """A reply: its arrival in ms, the unit that gave it, and its PDU of at least two bytes."""

    ts_ms: int
    unit_id: int
    pdu: bytes


class DamagedReplyError(Exception):
    """Something came in answer to a request, but no whole reply to it."""


class Receiver(Protocol):
    """What a channel reports to."""

    def received(self, data: bytes) -> None:
        """Bytes have arrived."""

    def give_up(self, reason: str) -> None:
        """The channel has ended."""


class Channel(Protocol):
    """Bytes to and from a device."""

    async def open(self, receiver: Receiver) -> None:
        """Make one attempt. Raises ``OSError`` or ``TransientError``; may be cancelled."""

    def write(self, data: bytes) -> None:
        """Send without waiting. A failure is reported to the receiver."""

    def close(self) -> None:
        """Release it at once, with what was not sent yet. Never raises; in any state."""


class Wire(ABC):
    """One connection, from connect to its end."""

    def __init__(self, conn: ModbusConn, channel: Channel, now_ms: WallClock) -> None:
        self._conn = conn
        self._channel = channel
        self._now_ms = now_ms
        self._timeout_s = conn.timeout_ms / 1000
        self._pause_s = conn.pause_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._free_at = 0.0
        """When the device wants to be asked again, as the loop counts time."""
        self.sent = b""
        """The newest request as it was on the wire."""
        self.heard = b""
        """What came of it: the reply, what came instead of one, or nothing."""
        self._received = bytearray()
        self._waiting: asyncio.Future[Answer] | None = None
        self._ended: str | None = None

    async def open(self) -> None:
        """Connect. Raises ``OSError`` or ``TransientError``."""
        await self._channel.open(self)
        self._free_at = self._loop.time() + self._conn.pause_after_connect_ms / 1000

    @abstractmethod
    async def ask(self, request: Request) -> Answer:
        """Send a request and wait for its reply.

        Raises ``TimeoutError`` if nothing came, ``DamagedReplyError``, and ``TransientError`` once
        the connection has ended.
        """

    @abstractmethod
    def received(self, data: bytes) -> None:
        """Cut frames from what has arrived, and hand the awaited one over."""

    def give_up(self, reason: str) -> None:
        """End the connection and fail the request that waits. Does nothing the second time."""
        if self._ended is not None:
            return
        self._ended = reason
        self._channel.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(self._error())

    def _write(self, frame: bytes) -> None:
        self.sent, self.heard = frame, b""
        self._channel.write(frame)

    async def _turn(self) -> asyncio.Future[Answer]:
        """Wait until the device may be asked; then a new future for its reply."""
        await self._until(self._free_at)
        if self._ended is not None:
            raise self._error()
        self._waiting = self._loop.create_future()
        return self._waiting

    async def _until(self, at: float) -> None:
        left_s = at - self._loop.time()
        while left_s > 0 and self._ended is None:
            await asyncio.sleep(max(left_s, SLEEP_S_MIN))
            left_s = at - self._loop.time()

    def _rest(self) -> None:
        """An exchange is over, whichever way."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting.done() and not waiting.cancelled():
            waiting.exception()  # seen: a read may be cancelled just as its connection ends
        if self._pause_s:
            self._free_at = self._loop.time() + self._pause_s

    def _error(self) -> TransientError:
        return TransientError(f"{self._conn}: {self._ended}")


def reason(error: Exception | None) -> str:
    """Why a connection ended, without the noise of an error's class and arguments."""
    if error is None:
        return "closed by the device"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):  # its number is OpenSSL's own
        return f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number > 0:
        return os.strerror(number)
    return str(error) or type(error).__name__
