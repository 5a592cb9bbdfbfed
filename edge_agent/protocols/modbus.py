"""Modbus TCP.

pymodbus gives the transport and the request frames. Its receiving side (3.16) is too trusting for
a pipeline that must never invent a value: it forgets half a reply when the next request goes out,
takes transaction 0 for any, waits on after garbage and lets exceptions out of `data_received`. So
that side is ours (`_Wire`):

* Frames are cut from one buffer that lives as long as the connection. The half of a reply that
  arrives after its request was given up is still recognised as that reply's half.
* A reply counts only under its request's transaction id. Replies to requests that were given up
  are dropped; an id that was never sent means that the two sides are out of step.
* Bytes that are no Modbus TCP frame end the connection: after them nothing can be told apart.
* A connection that ends fails the waiting request at once.

Sources: Modbus Application Protocol 1.1b3 (sections 6.1 to 6.4 and 7), Modbus Messaging on TCP/IP
Implementation Guide 1.0b (section 3.1.3, the MBAP header).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from struct import Struct
from typing import Final

from pymodbus.constants import ExcCodes
from pymodbus.framer import FramerSocket
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest
from pymodbus.transaction import TransactionManager
from pymodbus.transport import CommParams, CommType

from edge_agent.codec import BitBlockDecoder, BlockDecoder
from edge_agent.errors import DeviceError, TransientError
from edge_agent.model import Limits
from edge_agent.planner import Block
from edge_agent.protocols import modbus_syntax
from edge_agent.protocols.base import Reply, WallClock
from edge_agent.protocols.modbus_syntax import BIT_AREAS, ModbusConn

# It logs every refused connection and every odd byte; our errors say the same, once.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

STALE_REQUESTS_MAX: Final = 1_000
"""How many requests ago a dropped reply may have been asked for; at one a second, 16 minutes."""
TRANSACTION_IDS: Final = 65_000
"""pymodbus counts from 1 to here and starts again."""
PREPARED_BLOCKS_MAX: Final = 10_000
"""Compiled blocks kept; one connection's plan is far smaller, a reload replaces it."""
SHOWN_BYTES_MAX: Final = 12
"""Bytes of a malformed reply that an error shows."""

# A peer that vanished without a word (power, cable) is noticed by the kernel within about these.
KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3
UNACKNOWLEDGED_MS_MAX: Final = 15_000

_MBAP: Final = Struct(">HHHB")
_LENGTH_MIN, _LENGTH_MAX = 3, 254
"""MBAP length: unit id and a PDU of 2 to 253 bytes."""
_ERROR_BIT: Final = 0x80

_REQUESTS: Final[Mapping[str, type[ModbusPDU]]] = {
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
    "input": ReadInputRegistersRequest,
    "holding": ReadHoldingRegistersRequest,
}
_GAPS_HINT: Final = (
    "the request reads cells between the tags too; with ?gap_max=0 in `conn` it reads only those"
    " that the map names"
)


class ModbusDriver:
    """Reads one Modbus TCP server; the units behind a gateway share it.

    A refusal by the device (exception reply), a reply of the wrong length and a reply of another
    unit or function are ``DeviceError``: the connection is kept.
    """

    def __init__(self, conn: str, *, now_ms: WallClock) -> None:
        self.conn = modbus_syntax.parse_conn(conn)
        self.timeout_s = self.conn.timeout_ms / 1000
        self._now_ms = now_ms
        self._wire: _Wire | None = None
        self._prepared: dict[int, _Prepared] = {}

    parse_conn = staticmethod(modbus_syntax.parse_conn)
    parse_address = staticmethod(modbus_syntax.parse_address)

    @staticmethod
    def limits(conn: str, area: str) -> Limits:
        """What `conn` allows, in registers or in bits."""
        return modbus_syntax.parse_conn(conn).limits(area)

    async def connect(self) -> None:
        """Open a new connection in place of the old one, within ``timeout_s``."""
        await self.close()
        wire = _Wire(self.conn, self._now_ms)
        try:
            async with asyncio.timeout(self.timeout_s):
                await wire.open()
        except TimeoutError as error:
            raise TransientError(
                f"{self.conn}: no connection within {self.timeout_s:g} s"
            ) from error
        except OSError as error:
            raise TransientError(f"{self.conn}: {_reason(error)}") from error
        self._wire = wire

    async def read(self, block: Block) -> tuple[Reply]:
        """Read one block with one request. There is no retry, and no timeout: cancel it."""
        if self._wire is None:
            raise TransientError(f"{self.conn}: not connected")
        prepared = self._prepare(block)
        ts_ms, unit_id, body = await self._wire.ask(prepared.request)
        return (Reply(ts_ms, prepared.decode(unit_id, body)),)

    async def close(self) -> None:
        """Close the socket."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.give_up("closed")
            # The transport closes its socket on the loop's next turn. Some devices accept one
            # client only: a connect() right after this must not find the old one.
            await asyncio.sleep(0)

    def _prepare(self, block: Block) -> _Prepared:
        # By identity: hashing a block means hashing all its tags.
        prepared = self._prepared.get(id(block))
        if prepared is None:
            if len(self._prepared) >= PREPARED_BLOCKS_MAX:
                self._prepared.clear()
            prepared = self._prepared[id(block)] = _Prepared(self.conn, block)
        return prepared


class _Prepared:
    """A block's request and the decoder of its reply."""

    def __init__(self, conn: ModbusConn, block: Block) -> None:
        self.block = block  # keeps it alive: `ModbusDriver._prepared` goes by its identity
        self.request = _REQUESTS[block.area](
            address=block.start, count=block.count, dev_id=block.unit_id
        )
        self._decoder = BitBlockDecoder(block) if block.area in BIT_AREAS else BlockDecoder(block)
        last = block.start + block.count - 1
        span = f"{block.start} to {last}" if block.count > 1 else f"{last}"
        self._where = f"{conn} unit {block.unit_id}: {block.area} {span}"

    def decode(self, unit_id: int, body: bytes) -> Sequence[float]:
        """Raw values from a reply's unit id, and its PDU: function code, byte count, data."""
        size_bytes = self._decoder.size_bytes
        function = self.request.function_code
        if (
            unit_id == self.request.dev_id
            and body[0] == function
            and body[1] == size_bytes
            and len(body) == size_bytes + 2
        ):
            return self._decoder.decode(body[2:])
        raise self._refusal(unit_id, body)

    def _refusal(self, unit_id: int, body: bytes) -> DeviceError:
        """What is wrong with a reply that holds no values."""
        function = self.request.function_code
        if unit_id != self.request.dev_id:
            return DeviceError(f"{self._where}: unit {unit_id} answered")
        if body[0] == function | _ERROR_BIT:
            code = body[1]
            try:
                name = ExcCodes(code).name
            except ValueError:
                name = "unknown"
            helps = code == ExcCodes.ILLEGAL_ADDRESS and _reads_gaps(self.block)
            hint = _GAPS_HINT if helps else ""
            return DeviceError(f"{self._where}: exception {code} {name}", hint=hint)
        if body[0] != function:
            return DeviceError(f"{self._where}: function {body[0]} answered, {function} was asked")
        return DeviceError(
            f"{self._where}: {len(body) - 2} bytes of data, said to be {body[1]},"
            f" expected {self._decoder.size_bytes}"
        )


def _reads_gaps(block: Block) -> bool:
    """Whether some of the block's cells belong to no tag."""
    wanted = {
        cell
        for address in block.addresses
        for cell in range(address.offset, address.offset + address.width)
    }
    return len(wanted) < block.count


class _Wire(TransactionManager):
    """One TCP connection, from connect to its end. Never opened twice."""

    def __init__(self, conn: ModbusConn, now_ms: WallClock) -> None:
        params = CommParams(
            comm_name=str(conn),
            comm_type=CommType.TCP,
            host=conn.host,
            port=conn.port,
            reconnect_delay=0.0,  # reconnecting is the poller's
        )
        super().__init__(
            params,
            FramerSocket(DecodePDU(is_server=False)),
            retries=0,
            is_server=False,
            trace_packet=None,
            trace_pdu=None,
            trace_connect=None,
        )
        self._conn = conn
        self._now_ms = now_ms
        self._received = bytearray()
        self._waiting: asyncio.Future[tuple[int, int, bytes]] | None = None
        self._ended: str | None = None

    async def open(self) -> None:
        """Connect. Raises ``OSError``; pymodbus's own `connect` keeps the reason to itself."""
        transport, _ = await self.call_create()
        with suppress(OSError):  # a kernel without these options still reads PLCs
            _watch(transport.get_extra_info("socket"))

    async def ask(self, request: ModbusPDU) -> tuple[int, int, bytes]:
        """Send a request; the reply's arrival in ms, its unit id and its PDU (>= 2 bytes)."""
        if self._ended is not None:
            raise self._error()
        waiting: asyncio.Future[tuple[int, int, bytes]] = self.loop.create_future()
        self._waiting = waiting
        request.transaction_id = self.getNextTID()
        self.pdu_send(request)
        return await waiting

    def give_up(self, reason: str) -> None:
        """End the connection and fail the request that waits. Does nothing the second time."""
        if self._ended is not None:
            return
        self._ended = reason
        self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(self._error())

    def _error(self) -> TransientError:
        return TransientError(f"{self._conn}: {self._ended}")

    # What asyncio and pymodbus call.

    def callback_disconnected(self, exc: Exception | None) -> None:
        self.give_up("closed by the device" if exc is None else _reason(exc))

    def data_received(self, data: bytes) -> None:
        """Cut complete frames from what has arrived, and hand the awaited one over."""
        received = self._received
        received += data
        while len(received) >= _MBAP.size and self._ended is None:
            transaction_id, protocol_id, length, unit_id = _MBAP.unpack_from(received)
            if protocol_id != 0 or not _LENGTH_MIN <= length <= _LENGTH_MAX:
                shown = received[:SHOWN_BYTES_MAX].hex(" ")
                self.give_up(f"not a Modbus TCP reply: it begins with {shown}")
                return
            end = _MBAP.size - 1 + length
            if len(received) < end:
                return
            body = bytes(received[_MBAP.size : end])
            del received[:end]
            self._accept(transaction_id, unit_id, body)

    def _accept(self, transaction_id: int, unit_id: int, body: bytes) -> None:
        asked = self.next_tid
        if transaction_id != asked:
            age = (asked - transaction_id) % TRANSACTION_IDS
            if transaction_id == 0 or age > STALE_REQUESTS_MAX:  # 0 is never sent
                self.give_up(f"transaction {transaction_id} answered, {asked} was asked")
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((self._now_ms(), unit_id, body))


def _watch(connection: socket.socket) -> None:
    """Let the kernel end a connection whose peer vanished. The options are Linux's."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX)


def _reason(error: Exception) -> str:
    """An OSError's reason without the noise of its class and arguments."""
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number > 0:
        return os.strerror(number)
    return str(error) or type(error).__name__
