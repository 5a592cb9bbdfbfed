"""Modbus: the driver.

It turns a block into a request and a reply into values; sending, receiving and telling replies
apart is done by a wire on a channel (`modbus_wire`). pymodbus gives the requests and the names of
exceptions. Its own receiving side (3.16) is too trusting for a pipeline that must never invent a
value: it forgets half a reply when the next request goes out, takes transaction 0 for any, waits
on after garbage and lets exceptions out of `data_received`.

Source: Modbus Application Protocol 1.1b3, sections 6.1 to 6.4 and 7.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from pymodbus.constants import ExcCodes
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from edge_agent.codec import BitBlockDecoder, BlockDecoder
from edge_agent.errors import DeviceError, RefusedError, SilentUnitError, TransientError
from edge_agent.model import Address, Limits, LineTiming, ValueType
from edge_agent.planner import Block
from edge_agent.protocols import modbus_syntax
from edge_agent.protocols.base import Frames, Reply, WallClock
from edge_agent.protocols.modbus_mbap import HEADER_BYTES, MbapWire
from edge_agent.protocols.modbus_rtu import (
    FRAME_BYTES_MAX,
    FRAMING_BYTES,
    RtuWire,
    Unanswered,
    silence_s,
)
from edge_agent.protocols.modbus_socket import SocketChannel
from edge_agent.protocols.modbus_syntax import (
    BIT_AREAS,
    REGISTER_BITS,
    ModbusConn,
    Transport,
)
from edge_agent.protocols.modbus_wire import (
    ERROR_BIT,
    Answer,
    DamagedReplyError,
    Request,
    Wire,
    reason,
)

# It logs every refused connection and every odd byte; our errors say the same, once.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

PREPARED_BLOCKS_MAX: Final = 10_000
"""Compiled blocks kept; one connection's plan is far smaller, a reload replaces it."""

_REQUEST_PDU_BYTES: Final = 5
"""Function code, first cell, number of cells: section 6.1."""
_REPLY_HEAD_BYTES: Final = 2
"""Function code and byte count, before the data."""
_CONNECT_ROUND_TRIPS: Final[Mapping[Transport, int]] = {
    Transport.TCP: 1,
    Transport.TLS: 3,  # TLS 1.2 takes two: RFC 5246, 7.3
    Transport.RTU: 0,
    Transport.RTU_TCP: 1,
}

_REQUESTS: Final[Mapping[str, type[ModbusPDU]]] = {
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
    "input": ReadInputRegistersRequest,
    "holding": ReadHoldingRegistersRequest,
}


class ModbusDriver:
    """Reads one Modbus server or serial line; the units behind it share it.

    An exception reply, a reply of the wrong length and a reply of another unit or function are
    ``DeviceError``: the connection is kept. Exception 2 (illegal address) is a ``RefusedError``,
    exception 11 (a gateway has waited in vain) a ``SilentUnitError``.
    """

    def __init__(self, conn: str, *, now_ms: WallClock) -> None:
        self.conn = modbus_syntax.parse_conn(conn)
        self.timeout_s = read_timeout_s(self.conn)
        self.close_after_scan = self.conn.close_after_scan
        self._now_ms = now_ms
        self._wire: Wire | None = None
        self._unanswered = Unanswered()
        self._prepared: dict[int, _Prepared] = {}

    parse_conn = staticmethod(modbus_syntax.parse_conn)
    parse_address = staticmethod(modbus_syntax.parse_address)

    @staticmethod
    def locate(conn: str, address: str, value_type: ValueType) -> Address:
        """`parse_address` as `conn` counts: with ``zero_based`` 40000 is the first register."""
        zero_based = modbus_syntax.parse_conn(conn).zero_based
        return modbus_syntax.parse_address(address, value_type, zero_based=zero_based)

    @staticmethod
    def limits(conn: str, area: str) -> Limits:
        """What `conn` allows, in registers or in bits."""
        return modbus_syntax.parse_conn(conn).limits(area)

    @staticmethod
    def timing(conn: str) -> LineTiming:
        """What a request takes, one at a time: the framing, the line and the pauses of `conn`."""
        return line_timing(modbus_syntax.parse_conn(conn))

    @property
    def frames(self) -> Frames | None:
        """The newest exchange; None before the first one of a connection."""
        wire = self._wire
        return Frames(wire.sent, wire.heard) if wire is not None and wire.sent else None

    async def connect(self) -> None:
        """Open a new connection in place of the old one, within ``timeout_ms``."""
        await self.close()
        wire = self._new_wire()
        timeout_s = self.conn.timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout_s):
                await wire.open()
        except TimeoutError as error:
            raise TransientError(f"{self.conn}: no connection within {timeout_s:g} s") from error
        except OSError as error:
            raise TransientError(f"{self.conn}: {reason(error)}") from error
        self._wire = wire

    async def read(self, block: Block) -> tuple[Reply]:
        """Read one block with one request, repeated as often as ``retries`` of `conn` says.

        Only silence and damaged replies are worth a repetition: an exception is an answer.
        """
        prepared = self._prepare(block)
        for _ in range(self.conn.retries):
            try:
                return (await self._ask(prepared),)
            except (TimeoutError, DamagedReplyError):
                continue
        try:
            return (await self._ask(prepared),)
        except DamagedReplyError as error:
            raise DeviceError(f"{prepared.where}: {error}") from error
        except TimeoutError as error:
            times = self.conn.retries + 1
            each = f" to each of {times} requests" if times > 1 else ""
            raise TimeoutError(
                f"{prepared.where}: no answer within {self.conn.timeout_ms / 1000:g} s{each}"
            ) from error

    async def close(self) -> None:
        """Close the socket or the port."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.give_up("closed")
            # The transport closes its socket on the loop's next turn. Some devices accept one
            # client only: a connect() right after this must not find the old one.
            await asyncio.sleep(0)

    def _new_wire(self) -> Wire:
        """The framing and the channel of the transport. A further transport goes here."""
        conn = self.conn
        match conn.transport:
            case Transport.TCP | Transport.TLS:
                return MbapWire(conn, SocketChannel(conn), self._now_ms)
            case Transport.RTU_TCP:
                # A new connection has no late replies of the old one.
                return RtuWire(conn, SocketChannel(conn), self._now_ms, Unanswered())
            case Transport.RTU:
                # Loaded when it is needed: pyserial is the serial line's alone.
                from edge_agent.protocols.modbus_serial import SerialChannel

                return RtuWire(conn, SerialChannel(conn), self._now_ms, self._unanswered)

    async def _ask(self, prepared: _Prepared) -> Reply:
        if self._wire is None:
            raise TransientError(f"{self.conn}: not connected")
        answer = await self._wire.ask(prepared.request)
        return Reply(answer.ts_ms, prepared.decode(answer))

    def _prepare(self, block: Block) -> _Prepared:
        # By identity: hashing a block means hashing all its tags.
        prepared = self._prepared.get(id(block))
        if prepared is None:
            if len(self._prepared) >= PREPARED_BLOCKS_MAX:
                self._prepared.clear()
            prepared = self._prepared[id(block)] = _Prepared(self.conn, block)
        return prepared


def read_timeout_s(conn: ModbusConn) -> float:
    """How long one read may take: repetitions, pauses, and the time that frames are on a line.

    Plain Modbus TCP without options takes ``timeout_ms``. With RTU a fence may go before each
    request, so that each may take twice as long; a unit that keeps silent takes it once.
    """
    timeout_s, pause_s = conn.timeout_ms / 1000, conn.pause_ms / 1000
    if conn.transport in {Transport.RTU, Transport.RTU_TCP}:
        frames_s = 2 * FRAME_BYTES_MAX * conn.character_s
        once_s = 2 * (timeout_s + frames_s + silence_s(conn) + pause_s) + timeout_s
    else:
        once_s = timeout_s + pause_s
    return (conn.retries + 1) * once_s + conn.pause_after_connect_ms / 1000


def line_timing(conn: ModbusConn) -> LineTiming:
    """The frames and times of requests, of which a line carries one at a time.

    Through TCP no silence is waited for unless something went wrong (`modbus_rtu`).
    """
    rtu = conn.transport in {Transport.RTU, Transport.RTU_TCP}
    framing_bytes = FRAMING_BYTES if rtu else HEADER_BYTES
    serial = conn.transport is Transport.RTU
    again = conn.close_after_scan
    return LineTiming(
        cell="register",
        cell_bits=REGISTER_BITS,
        bit_areas=BIT_AREAS,
        request_bytes=framing_bytes + _REQUEST_PDU_BYTES,
        reply_bytes=framing_bytes + _REPLY_HEAD_BYTES,
        character_s=conn.character_s,
        silence_s=silence_s(conn) if serial else 0.0,
        pause_s=conn.pause_ms / 1000,
        connect_round_trips=_CONNECT_ROUND_TRIPS[conn.transport] if again else 0,
        connect_pause_s=conn.pause_after_connect_ms / 1000 if again else 0.0,
    )


class _Prepared:
    """A block's request and the decoder of its reply."""

    def __init__(self, conn: ModbusConn, block: Block) -> None:
        self.block = block  # keeps it alive: `ModbusDriver._prepared` goes by its identity
        self._decoder = BitBlockDecoder(block) if block.area in BIT_AREAS else BlockDecoder(block)
        pdu = _REQUESTS[block.area](address=block.start, count=block.count)
        self.request = Request(
            block.unit_id, bytes([pdu.function_code]) + pdu.encode(), self._decoder.size_bytes
        )
        last = block.start + block.count - 1
        span = f"{block.start} to {last}" if block.count > 1 else f"{last}"
        self.where = f"{conn} unit {block.unit_id}: {block.area} {span}"

    def decode(self, answer: Answer) -> Sequence[float]:
        """Raw values from a reply, whose PDU is function code, byte count and data."""
        body, request = answer.pdu, self.request
        if (
            answer.unit_id == request.unit_id
            and body[0] == request.function
            and body[1] == request.size_bytes
            and len(body) == request.size_bytes + 2
        ):
            return self._decoder.decode(body[2:])
        raise self._refusal(answer)

    def _refusal(self, answer: Answer) -> DeviceError:
        """What is wrong with a reply that holds no values."""
        body, function = answer.pdu, self.request.function
        if answer.unit_id != self.request.unit_id:
            return DeviceError(f"{self.where}: unit {answer.unit_id} answered")
        if body[0] == function | ERROR_BIT:
            code = body[1]
            try:
                name = ExcCodes(code).name
            except ValueError:
                name = "unknown"
            text = f"{self.where}: exception {code} {name}"
            if code == ExcCodes.ILLEGAL_ADDRESS:
                return RefusedError(text)
            if code == ExcCodes.GATEWAY_NO_RESPONSE:
                return SilentUnitError(text)
            return DeviceError(text)
        if body[0] != function:
            return DeviceError(f"{self.where}: function {body[0]} answered, {function} was asked")
        return DeviceError(
            f"{self.where}: {len(body) - 2} bytes of data, said to be {body[1]},"
            f" expected {self.request.size_bytes}"
        )
