"""Modbus over a TCP connection, plain or through TLS: the channel.

TLS checks the server's certificate against the system's authorities, or those of ``ca``, and that
it was made out to the host of `conn`. ``verify=ca`` leaves the name out (a PLC's certificate often
has none that fits), ``verify=none`` checks nothing. ``cert`` and ``key`` are the agent's own.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Final, cast

from edge_agent.errors import TransientError
from edge_agent.protocols.modbus_syntax import ModbusConn, Transport
from edge_agent.protocols.modbus_wire import Receiver, reason

# A peer that vanished without a word (power, cable) is noticed by the kernel within about these.
KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3
UNACKNOWLEDGED_MS_MAX: Final = 15_000

_CERTIFICATE_HINT: Final = (
    "name the authority that signed it with ?ca=/path in `conn`; with verify=ca its host name is"
    " not compared"
)


class SocketChannel(asyncio.Protocol):
    """One TCP connection. Never opened twice."""

    def __init__(self, conn: ModbusConn) -> None:
        self._conn = conn
        self._receiver: Receiver | None = None
        self._transport: asyncio.Transport | None = None

    async def open(self, receiver: Receiver) -> None:
        """Connect. Raises ``OSError``, and ``TransientError`` for the certificates."""
        context = await _context(self._conn) if self._conn.transport is Transport.TLS else None
        loop = asyncio.get_running_loop()
        self._receiver = receiver
        try:
            await loop.create_connection(
                lambda: self, self._conn.host, self._conn.port, ssl=context
            )
        except ssl.SSLCertVerificationError as error:
            raise TransientError(
                f"{self._conn}: {reason(error)}", hint=_CERTIFICATE_HINT
            ) from error

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport, which sends them at once or keeps them."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Close the socket; TLS without its farewell, for which a mute device would be awaited."""
        if self._transport is None:
            return
        if self._conn.transport is Transport.TLS:
            self._transport.abort()
        else:
            self._transport.close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        with suppress(OSError):  # a kernel without these options still reads PLCs
            _watch(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Pass on what has arrived."""
        assert self._receiver is not None
        self._receiver.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the wire, which may know already."""
        assert self._receiver is not None
        self._receiver.give_up(reason(exc))


async def _context(conn: ModbusConn) -> ssl.SSLContext:
    """The TLS context of a connection. Raises ``TransientError``: files may come later."""
    try:
        return await asyncio.to_thread(_load_context, conn)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise TransientError(
            f"{conn}: cannot load the TLS files: {reason(error)}",
            hint="check ca, cert and key in `conn`: PEM, readable, key not encrypted",
        ) from error


def _load_context(conn: ModbusConn) -> ssl.SSLContext:
    """Reads the files, so it does not belong on the event loop."""
    context = ssl.create_default_context(cafile=conn.ca or None)
    if conn.verify != "full":
        context.check_hostname = False
    if conn.verify == "none":
        context.verify_mode = ssl.CERT_NONE
    if conn.cert:
        # An empty password makes an encrypted key an error; without it OpenSSL asks on the
        # terminal and waits.
        context.load_cert_chain(conn.cert, conn.key or None, password="")
    return context


def _watch(connection: socket.socket) -> None:
    """Let the kernel end a connection whose peer vanished. The options are Linux's."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX)
