"""Siemens S7: data blocks, flags, inputs and outputs over ISO on TCP (RFC 1006).

python-snap7 gives the requests (*jobs*) and takes the replies' PDUs apart. Its clients (3.3) can't
be cancelled: the asynchronous one forgets the header of a reply whose read is given up, and takes
the rest for the next header; the other one blocks. So the connection is ours (`_Wire`):

* TPKT frames are cut from one buffer that lives as long as the connection. The half of a reply
  that arrives after its job was given up is still recognised as that reply's half.
* A reply counts only under its job's PDU reference. Replies to jobs that were given up are
  dropped; a reference that was not asked for means that the two sides are out of step.
* Bytes that are no ISO on TCP, and PDUs that are no reply, end the connection: after them nothing
  can be told apart.
* A connection that ends fails the waiting job at once.

How large a PDU may be is agreed when the connection is made. The plan is older: it counts on the
`pdu` of the map. Where the CPU grants less, a block is read by several jobs; they are cut between
values, so that none is put together from two moments.

Sources: RFC 1006 (section 6, TPKT), RFC 905 (section 13, class 0 TPDUs), and for the S7 PDUs
python-snap7's own s7protocol.py and datatypes.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from struct import Struct
from typing import Any, Final, cast

from snap7.datatypes import S7Area, S7WordLen
from snap7.error import S7ProtocolError
from snap7.s7protocol import S7PDUType, S7Protocol, get_return_code_description

from edge_agent.codec import REGISTER_BYTES, WIDTHS, BlockDecoder
from edge_agent.errors import DeviceError, RefusedError, TransientError
from edge_agent.model import Address, ByteOrder, Limits, LineTiming, ValueType
from edge_agent.planner import Block
from edge_agent.protocols import s7_syntax
from edge_agent.protocols.base import Frames, Reply, WallClock
from edge_agent.protocols.s7_syntax import (
    PDU_BYTES_MAX,
    PDU_BYTES_MIN,
    REPLY_HEADER_BYTES,
    S7Conn,
)

STALE_JOBS_MAX: Final = 1_000
"""How many jobs ago a dropped reply may have been asked for; at one a second, 16 minutes."""
PREPARED_BLOCKS_MAX: Final = 10_000
"""Compiled blocks kept; one connection's plan is far smaller, a reload replaces it."""
SHOWN_BYTES_MAX: Final = 12
"""Bytes of a malformed reply that an error shows."""
VALUE_BYTES_MAX: Final = 8
"""The widest value; a CPU whose PDU does not hold it can't be read."""

_TPKT: Final = Struct(">BBH")
_TPKT_VERSION: Final = 3
_DATA_HEADER: Final = bytes([2, 0xF0, 0x80])
"""Length, TPDU code DT, end of transmission."""
_FRAME_BYTES_MIN: Final = _TPKT.size + len(_DATA_HEADER)
_FRAME_BYTES_MAX: Final = _FRAME_BYTES_MIN + PDU_BYTES_MAX
_CONNECT_REQUEST, _CONNECT_CONFIRM, _DISCONNECT_REQUEST, _DATA = 0xE0, 0xD0, 0x80, 0xF0
_LAST: Final = 0x80
"""Set in the last TPDU of a PDU."""
_OWN_TSAP: Final = 0x0100
_PROGRAMMER: Final = 1
"""Kind of connection in the other side's TSAP: what every CPU keeps free for one more client."""
_TPDU_BYTES_LOG2: Final = 10
"""1024 bytes, so that a PDU of 960 needs one TPDU."""

_S7: Final = 0x32
_PDU_HEADER_BYTES: Final = 12
READ_JOB_BYTES: Final = 24
"""The PDU of a job that reads one item: header 10, parameters 14."""
_REFERENCES: Final = 65_536
_SUCCESS: Final = 0xFF
_OUT_OF_RANGE: Final = 0x05
"""The area is there, and ends before the last byte that was asked for."""

_AREAS: Final = {"M": S7Area.MK, "I": S7Area.PE, "Q": S7Area.PA}

_BUSY_HINT: Final = "check rack and slot; a CPU also refuses when all its connections are taken"
_BLOCK_HINT: Final = (
    "the data block must be in the CPU, be long enough, and have its attribute"
    " 'Optimized block access' off"
)
_ACCESS_HINT: Final = "switch on 'Permit access with PUT/GET communication' in the CPU's properties"
_HINTS: Final = {0x03: _ACCESS_HINT, 0x05: _BLOCK_HINT, 0x0A: _BLOCK_HINT, 0x8104: _ACCESS_HINT}
"""By the return code of an item, or the error word of a header."""


class S7Driver:
    """Reads one S7 CPU; `unit_id` means nothing to it.

    What the CPU refuses, and a reply of the wrong length, are ``DeviceError``: the connection is
    kept. Bytes beyond an area's end are a ``RefusedError``.
    """

    def __init__(self, conn: str, *, now_ms: WallClock) -> None:
        self.conn = s7_syntax.parse_conn(conn)
        self.timeout_s = self.conn.timeout_ms / 1000
        self.frames: Frames | None = None
        """The last job of the last `read`, and its reply."""
        self._now_ms = now_ms
        self._wire: _Wire | None = None
        self._prepared: dict[int, _Prepared] = {}

    @staticmethod
    def parse_conn(conn: str) -> S7Conn:
        """Check ``s7://host:102?rack=0&slot=1``."""
        return s7_syntax.parse_conn(conn)

    @staticmethod
    def parse_address(address: str, value_type: ValueType) -> Address:
        """Locate ``DB1.DBW2``, ``MD4`` or ``I0.3``, in bytes."""
        return s7_syntax.parse_address(address, value_type)

    @staticmethod
    def limits(conn: str, area: str) -> Limits:  # noqa: ARG004  (the same in every area)
        """What `conn` allows, in bytes."""
        return s7_syntax.parse_conn(conn).limits()

    @staticmethod
    def timing(conn: str) -> LineTiming:  # noqa: ARG004  (the same on every connection)
        """One job a block, one job at a time: true where the CPU grants the PDU of `conn`."""
        return LineTiming(
            cell="byte",
            cell_bits=8,
            request_bytes=_FRAME_BYTES_MIN + READ_JOB_BYTES,
            reply_bytes=_FRAME_BYTES_MIN + REPLY_HEADER_BYTES,
        )

    @property
    def hint(self) -> str:
        """The `pdu` that `conn` should say: blocks are planned for more than the CPU grants."""
        granted = 0 if self._wire is None else self._wire.data_bytes_max + REPLY_HEADER_BYTES
        if not 0 < granted < self.conn.pdu:
            return ""
        return (
            f"the CPU grants PDUs of {granted} bytes, and a request is planned for"
            f" {self.conn.pdu}: write pdu={max(granted, PDU_BYTES_MIN)} into `conn`"
        )

    async def connect(self) -> None:
        """Open a new connection in place of the old one, within ``timeout_s``."""
        await self.close()
        wire = _Wire(self.conn, self._now_ms)
        try:
            async with asyncio.timeout(self.timeout_s):
                await wire.open()
            self._wire = wire
        except TimeoutError as error:
            raise TransientError(
                f"{self.conn}: no connection within {self.timeout_s:g} s"
            ) from error
        except OSError as error:
            raise TransientError(f"{self.conn}: {_reason(error)}") from error
        finally:
            if self._wire is not wire:
                wire.give_up("not connected")

    async def read(self, block: Block) -> tuple[Reply]:
        """Read one block, with one job where the CPU's PDU holds it. Cancel it at any time."""
        wire = self._wire
        if wire is None:
            raise TransientError(f"{self.conn}: not connected")
        ts_ms = 0
        values: list[float] = []
        try:
            for part in self._prepare(block, wire.data_bytes_max).parts:
                ts_ms, pdu = await wire.read(part.area, part.number, part.start, part.count)
                values += part.decode(pdu)
        finally:
            self.frames = Frames(wire.request, wire.reply)
        return (Reply(ts_ms, values),)

    async def close(self) -> None:
        """Close the socket."""
        wire, self._wire = self._wire, None
        self._prepared.clear()  # the next connection may be granted another PDU
        if wire is not None:
            wire.give_up("closed")
            # The transport closes its socket on the loop's next turn. A CPU has few connections:
            # a connect() right after this must not find the old one.
            await asyncio.sleep(0)

    def _prepare(self, block: Block, bytes_max: int) -> _Prepared:
        # By identity: hashing a block means hashing all its tags.
        prepared = self._prepared.get(id(block))
        if prepared is None:
            if len(self._prepared) >= PREPARED_BLOCKS_MAX:
                self._prepared.clear()
            prepared = self._prepared[id(block)] = _Prepared(self.conn, block, bytes_max)
        return prepared


class _Prepared:
    """A block's jobs, each with the decoder of its reply."""

    def __init__(self, conn: S7Conn, block: Block, bytes_max: int) -> None:
        self.block = block  # keeps it alive: `S7Driver._prepared` goes by its identity
        self.parts = [_Part(conn, part) for part in _cut(block, bytes_max)]


def _cut(block: Block, bytes_max: int) -> Iterator[Block]:
    """A block in parts of at most ``bytes_max`` bytes, between values; most often itself."""
    if block.count <= bytes_max:
        yield block
        return
    first = 0
    start = end = block.start
    for place, address in enumerate(block.addresses):  # the planner has sorted them
        new_end = max(end, address.offset + address.width)
        if new_end - start > bytes_max:
            yield _part(block, first, place, start, end)
            first, start = place, address.offset
        end = new_end
    yield _part(block, first, len(block.tags), start, end)


def _part(block: Block, first: int, after: int, start: int, end: int) -> Block:
    return replace(
        block,
        start=start,
        count=end - start,
        tags=block.tags[first:after],
        addresses=block.addresses[first:after],
    )


class _Part:
    """One job and the decoder of its reply."""

    def __init__(self, conn: S7Conn, block: Block) -> None:
        self.start, self.count = block.start, block.count
        self.area = _AREAS.get(block.area, S7Area.DB)
        self.number = 0 if block.area in _AREAS else int(block.area.removeprefix("DB"))
        last = block.start + block.count - 1
        span = f"bytes {block.start} to {last}" if block.count > 1 else f"byte {last}"
        self._where = f"{conn}: {block.area} {span}"
        self._decoder = _ByteDecoder(block)

    def decode(self, pdu: bytes) -> Sequence[float]:
        """Raw values from a reply's PDU. Raises ``DeviceError``."""
        try:
            response = _PARSER.parse_response(pdu)
            code = _return_code(response)
            if code != _SUCCESS:
                what = get_return_code_description(code)
                kind = RefusedError if code == _OUT_OF_RANGE else DeviceError
                raise kind(f"{self._where}: {what} (0x{code:02x})", hint=_HINTS.get(code, ""))
            data = bytes(_PARSER.extract_read_data(response, S7WordLen.BYTE, self.count))
        except S7ProtocolError as error:
            hint = _HINTS.get(error.error_code or 0, "")
            raise DeviceError(f"{self._where}: {error}", hint=hint) from error
        return self._decoder.decode(data)


_PARSER: Final = S7Protocol()
"""For its parsing, which keeps no state."""


def _return_code(response: dict[str, Any]) -> int:
    """The item's return code; 0, which no CPU gives for success, where there is no item."""
    return int((response["data"] or {}).get("return_code", 0))


class _ByteDecoder:
    """Decodes a block of bytes with the decoder for registers.

    Values may begin at odd bytes and overlap. So their bytes are first laid one behind the other,
    each value in registers of its own, a byte alone in the lower half of one; there the byte order
    of the map holds as it does for any register.
    """

    def __init__(self, block: Block) -> None:
        pad = block.count  # where `decode` puts a zero
        picked: list[int] = []
        tags = []
        addresses = []
        for tag, address in zip(block.tags, block.addresses, strict=True):
            register = len(picked) // REGISTER_BYTES
            first = address.offset - block.start
            if address.width == 1:
                picked += pad, first
                tags.append(replace(tag, byte_order=ByteOrder.ABCD))
            else:
                picked += range(first, first + address.width)
                tags.append(tag)
            addresses.append(Address(block.area, register, WIDTHS[tag.type], address.bit))
        count = len(picked) // REGISTER_BYTES
        self._registers = BlockDecoder(
            replace(block, start=0, count=count, tags=tuple(tags), addresses=tuple(addresses))
        )
        self._pick = itemgetter(*picked)

    def decode(self, data: bytes) -> Sequence[float]:
        """One raw value per tag; ``data`` has one byte for each of the block's cells."""
        return self._registers.decode(bytes(self._pick(data + b"\0")))


class _Wire(asyncio.Protocol):
    """One connection, from connect to its end. Never opened twice."""

    def __init__(self, conn: S7Conn, now_ms: WallClock) -> None:
        self.data_bytes_max = 0
        """Bytes that one job may read, once the connection is open."""
        self.request = b""
        """What was sent last, with its frame."""
        self.reply = b""
        """What came in answer to it, if anything, also where it made no sense."""
        self._conn = conn
        self._now_ms = now_ms
        self._jobs = S7Protocol()
        self._asked = 0
        self._received = bytearray()
        self._frames = bytearray()
        """The frames of the PDU that is coming in."""
        self._pdu = bytearray()
        self._confirmed = False
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._ended: str | None = None

    async def open(self) -> None:
        """Connect and agree on the size of a PDU. Raises ``OSError`` and ``TransientError``."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, self._conn.host, self._conn.port)
        try:
            await self._send(_connect_request(self._conn))
            granted = await self._agree()
        except TransientError as error:
            raise TransientError(str(error), hint=_BUSY_HINT) from error
        self.data_bytes_max = min(granted, self._conn.pdu) - REPLY_HEADER_BYTES
        if self.data_bytes_max < VALUE_BYTES_MAX:
            raise TransientError(f"{self._conn}: the CPU allows PDUs of {granted} bytes only")

    async def _agree(self) -> int:
        """Set the communication up; the PDU size in bytes that the CPU grants."""
        job = self._jobs.build_setup_communication_request(pdu_length=self._conn.pdu)
        _, pdu = await self._ask(job)
        try:
            parameters = self._jobs.parse_response(pdu)["parameters"] or {}
        except S7ProtocolError as error:
            raise TransientError(f"{self._conn}: {error}") from error
        if "pdu_length" not in parameters:
            raise TransientError(f"{self._conn}: the CPU did not say how large a PDU may be")
        return int(parameters["pdu_length"])

    async def read(self, area: S7Area, number: int, start: int, count: int) -> tuple[int, bytes]:
        """Read ``count`` bytes; the reply's arrival in ms, and its PDU."""
        return await self._ask(
            self._jobs.build_read_request(area, number, start, S7WordLen.BYTE, count)
        )

    async def _ask(self, job: bytes) -> tuple[int, bytes]:
        self._asked = self._jobs.sequence
        return await self._send(_DATA_HEADER + job)

    async def _send(self, tpdu: bytes) -> tuple[int, bytes]:
        """Send a TPDU and wait for what answers it."""
        if self._ended is not None or self._transport is None:
            raise self._error()
        waiting: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting = waiting
        self.request = _TPKT.pack(_TPKT_VERSION, 0, _TPKT.size + len(tpdu)) + tpdu
        self.reply = b""
        self._transport.write(self.request)
        return await waiting

    def give_up(self, reason: str) -> None:
        """End the connection and fail the job that waits. Does nothing the second time."""
        if self._ended is not None:
            return
        self._ended = reason
        if self._transport is not None:
            self._transport.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(self._error())

    def _give_up_on(self, data: bytes | bytearray, reason: str) -> None:
        self.reply = bytes(self._frames) or bytes(data)
        self.give_up(f"{reason}: it begins with {data[:SHOWN_BYTES_MAX].hex(' ')}")

    def _error(self) -> TransientError:
        return TransientError(f"{self._conn}: {self._ended}")

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._ended is not None:  # given up while the socket was being connected
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.give_up("closed by the device" if exc is None else _reason(exc))

    def data_received(self, data: bytes) -> None:
        """Cut complete frames from what has arrived."""
        received = self._received
        received += data
        while len(received) >= _TPKT.size and self._ended is None:
            version, _, length = _TPKT.unpack_from(received)
            if version != _TPKT_VERSION or not _FRAME_BYTES_MIN <= length <= _FRAME_BYTES_MAX:
                self._give_up_on(received, "not ISO on TCP")
                return
            if len(received) < length:
                return
            tpdu = bytes(received[_TPKT.size : length])
            self._frames += received[:length]
            del received[:length]
            self._accept_tpdu(tpdu)

    def _accept_tpdu(self, tpdu: bytes) -> None:
        kind = tpdu[1] & 0xF0
        if kind == _CONNECT_CONFIRM and not self._confirmed:
            self._confirmed = True
            self._answer(tpdu)
            self._frames.clear()
        elif kind == _DATA and tpdu[0] == len(_DATA_HEADER) - 1 and self._confirmed:
            self._pdu += tpdu[len(_DATA_HEADER) :]
            if len(self._pdu) > PDU_BYTES_MAX:
                self._give_up_on(self._pdu, f"a PDU of more than {PDU_BYTES_MAX} bytes")
            elif tpdu[2] & _LAST:
                self._accept(bytes(self._pdu))
                self._pdu.clear()
                self._frames.clear()
        elif kind == _DISCONNECT_REQUEST:
            self.give_up("disconnected by the device")
        else:
            self._give_up_on(tpdu, "not what was asked for")

    def _accept(self, pdu: bytes) -> None:
        """Take a PDU for the reply of the job that waits, if it is."""
        replies = {S7PDUType.ACK, S7PDUType.ACK_DATA}
        if len(pdu) < _PDU_HEADER_BYTES or pdu[0] != _S7 or pdu[1] not in replies:
            self._give_up_on(pdu, "not an S7 reply")
            return
        reference = int.from_bytes(pdu[4:6], "big")
        age = (self._asked - reference) % _REFERENCES
        if age == 0:
            self._answer(pdu)
        elif age > STALE_JOBS_MAX:
            self.give_up(f"job {reference} answered, {self._asked} was asked")

    def _answer(self, data: bytes) -> None:
        self.reply = bytes(self._frames)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((self._now_ms(), data))


def _connect_request(conn: S7Conn) -> bytes:
    """The TPDU that asks for a connection to the CPU in a rack and slot."""
    tsap = _PROGRAMMER << 8 | conn.rack << 5 | conn.slot
    body = Struct(">BHHB BBH BBH BBB").pack(
        _CONNECT_REQUEST, 0, 1, 0,
        0xC1, 2, _OWN_TSAP,
        0xC2, 2, tsap,
        0xC0, 1, _TPDU_BYTES_LOG2,
    )  # fmt: skip
    return bytes([len(body)]) + body


def _reason(error: Exception) -> str:
    """An OSError's reason without the noise of its class and arguments."""
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number > 0:
        return os.strerror(number)
    return str(error) or type(error).__name__
