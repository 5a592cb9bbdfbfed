"""One Modbus TCP server: a listening socket, its units and their four areas.

Served: function codes 1 to 4, pipelined requests, answered in order. Refused with an exception:

=====  ==================  ================================================================
code   name                when
=====  ==================  ================================================================
1      illegal function    any other function code: this PLC is not written to
2      illegal address     a cell before the first or behind the last tag of unit and area
3      illegal value       a quantity of 0, above 125 registers or 2,000 bits, a wrong size
11     no response         a unit id that no tag has
=====  ==================  ================================================================

Bytes that are no Modbus TCP frame close that client's connection and touch nobody else's.

A request is looked up as the bytes it came in; its range is compiled once and read once per
step, whoever asks. All requests that arrive together are answered as of the same time.

With faults (`faults.py`) each reply goes through the client's outbox, which keeps their order: a
reply that is late holds up those behind it on its connection, as in a PLC that does one thing at a
time. Other connections notice nothing.

Source: Modbus Application Protocol 1.1b3, sections 6 and 7; Modbus Messaging
on TCP/IP 1.0b, section 3.1.3.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from edge_agent.errors import TransientError
from edge_agent.model import AddressSyntax, Tag
from edge_agent.simulator.faults import ListenerFaults, pieces
from edge_agent.simulator.memory import Area, Range
from edge_agent.simulator.signals import STEP_MS

ANSWERS_MAX: Final = 4_096
"""Different requests remembered per listener; an agent sends far fewer, a fuzzer far more."""

OUTBOX_PIECES_MAX: Final = 1_000
"""Replies of a client that wait for their time; until they are gone it is not read from."""

BACKLOG_CONNECTIONS: Final = 128
"""Clients that may arrive in one turn of the event loop."""

STOP_TIMEOUT_S: Final = 5.0
"""Aborted sockets are gone after one turn of the event loop; this is for a broken one."""

_AREAS: Final = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
_BIT_AREAS: Final = frozenset({"coil", "discrete"})
_BITS_MAX, _REGISTERS_MAX = 2_000, 125

_FRAME = struct.Struct(">HH")  # protocol id (0) and length, behind the transaction id
_TRANSACTION_BYTES = 2
_PREFIX_BYTES = 6  # transaction id, protocol id, length; the length counts what follows
_LENGTH_MIN, _LENGTH_MAX = 2, 254  # unit id and function code; unit id and the longest PDU

_RESOLUTION_S = 0.001

_ILLEGAL_FUNCTION, _ILLEGAL_ADDRESS, _ILLEGAL_VALUE, _NO_RESPONSE = 1, 2, 3, 11


@dataclass(slots=True)
class _Answer:
    """The reply to one request, ready but for the transaction id."""

    head: bytes
    cells: Range | None = None
    registers: int = 0
    asked: int = 0
    step: int | None = None
    reply: bytes = b""

    @classmethod
    def refuse(cls, unit_id: int, function: int, code: int) -> _Answer:
        """An exception reply."""
        return cls(struct.pack(">HHBBB", 0, 3, unit_id, function | 0x80, code))

    def at(self, step: int) -> bytes:
        """The reply of a step."""
        if self.step != step:
            self.reply = self.head if self.cells is None else self.head + self.cells.read(step)
            self.step = step
        return self.reply


class Listener:
    """One simulated connection: a listening socket and the units behind it.

    ``conns`` are the map's names for it, ``tags`` what it answers for; ``port`` is the real one
    after the start. Counted since the start: ``requests`` taken, ``registers`` in the replies
    (bits are not counted), ``errors`` (exception replies and malformed frames), bytes of whole
    requests and of replies as they are without faults, and ``spoiled`` replies by kind of fault.
    """

    def __init__(self, host: str, port: int, now_ms: Callable[[], int]) -> None:
        self.host = host
        self.port = port
        self.conns: list[str] = []
        self.tags: list[Tag] = []
        self.requests = 0
        self.registers = 0
        self.errors = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.spoiled: Counter[str] = Counter()
        self.muted = False
        self.faults: ListenerFaults | None = None
        self.now_ms = now_ms
        self._units: dict[int, dict[str, Area]] = {}
        self._answers: dict[bytes, _Answer] = {}
        self._clients: set[_Client] = set()
        self._server: asyncio.Server | None = None

    @property
    def unit_ids(self) -> list[int]:
        """Units that answer, sorted."""
        return sorted(self._units)

    @property
    def clients(self) -> int:
        """How many clients are connected now."""
        return len(self._clients)

    def add(self, tag: Tag, syntax: type[AddressSyntax]) -> str | None:
        """Answer for this tag too; or say why it cannot be had."""
        if tag.conn not in self.conns:
            self.conns.append(tag.conn)
        address = syntax.parse_address(tag.address, tag.type)
        areas = self._units.setdefault(tag.unit_id, {})
        area = areas.setdefault(address.area, Area(bits=address.area in _BIT_AREAS))
        refusal = area.claim(tag, address)
        if refusal is None:
            self.tags.append(tag)
        return refusal

    def answer(self, request: bytes, step: int) -> bytes:
        """Reply, from the protocol id on, to a request, from the unit id on."""
        answer = self._answers.get(request)
        if answer is None:
            if len(self._answers) >= ANSWERS_MAX:
                self._answers.clear()
            answer = self._answers[request] = self._compile(request)
        answer.asked += 1
        self.requests += 1
        self.registers += answer.registers
        self.errors += answer.cells is None
        reply = answer.at(step)
        self.bytes_received += _PREFIX_BYTES + len(request)
        self.bytes_sent += _TRANSACTION_BYTES + len(reply)
        return reply

    def asked(self, request: bytes) -> int:
        """How often a request (from the unit id on) has come; forgotten with `ANSWERS_MAX`."""
        answer = self._answers.get(request)
        return 0 if answer is None else answer.asked

    def _compile(self, request: bytes) -> _Answer:
        unit_id, function = request[0], request[1]
        areas = self._units.get(unit_id)
        if areas is None:
            return _Answer.refuse(unit_id, function, _NO_RESPONSE)
        if function not in _AREAS:
            return _Answer.refuse(unit_id, function, _ILLEGAL_FUNCTION)
        name = _AREAS[function]
        bits = name in _BIT_AREAS
        if len(request) != 6:
            return _Answer.refuse(unit_id, function, _ILLEGAL_VALUE)
        start, count = struct.unpack_from(">HH", request, 2)
        if not 1 <= count <= (_BITS_MAX if bits else _REGISTERS_MAX):
            return _Answer.refuse(unit_id, function, _ILLEGAL_VALUE)
        area = areas.get(name)
        if area is None or not area.covers(start, count):
            return _Answer.refuse(unit_id, function, _ILLEGAL_ADDRESS)
        size = (count + 7) // 8 if bits else 2 * count
        return _Answer(
            head=struct.pack(">HHBBB", 0, 3 + size, unit_id, function, size),
            cells=area.range(start, count),
            registers=0 if bits else count,
        )

    async def start(self) -> None:
        """Listen. Raises ``TransientError`` if the address is taken or not this machine's."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: _Client(self, self._clients),
                self.host,
                self.port,
                backlog=BACKLOG_CONNECTIONS,
            )
        except OSError as error:
            raise TransientError(
                f"cannot listen on {self.host}:{self.port} for {self.conns[0]}: {error}",
                hint="simulate on this machine's own ports: --host 127.0.0.1 --port 5020",
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop all clients; may be called in any state, also twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        closed = [client.closed for client in self._clients]
        self.drop()
        if closed:
            await asyncio.wait(closed, timeout=STOP_TIMEOUT_S)
        await server.wait_closed()

    def pause(self) -> None:
        """Go mute: accept connections and requests, answer nothing, now or later."""
        self.muted = True

    def resume(self) -> None:
        """Answer again what arrives from now on."""
        self.muted = False

    def drop(self) -> None:
        """Close all client connections at once; new ones are welcome."""
        for client in list(self._clients):
            client.abort()


class _Client(asyncio.Protocol):
    """One client's connection."""

    _transport: asyncio.Transport

    def __init__(self, listener: Listener, clients: set[_Client]) -> None:
        self._listener = listener
        self._clients = clients
        self._rest = b""  # the beginning of a frame: shorter than _PREFIX_BYTES + _LENGTH_MAX
        self._outbox: _Outbox | None = None
        self._blocked = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._clients.add(self)
        if self._listener.faults is not None:
            self._outbox = _Outbox(self._transport, self._read_on)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._clients.discard(self)
        if self._outbox is not None:
            self._outbox.stop()
        self.closed.set_result(None)

    def abort(self) -> None:
        self._transport.abort()

    # A client that asks without reading is not read from until it does.
    def pause_writing(self) -> None:
        self._blocked = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._blocked = False
        self._read_on()

    def _read_on(self) -> None:
        """Read again, if there is room for replies in the outbox and in the socket."""
        full = self._outbox is not None and self._outbox.full
        if not (self._blocked or full or self._transport.is_closing()):
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        listener = self._listener
        step = listener.now_ms() // STEP_MS
        data = self._rest + data
        replies: list[bytes] = []
        start, received = 0, len(data)
        while received - start >= _PREFIX_BYTES:
            protocol_id, length = _FRAME.unpack_from(data, start + 2)
            if protocol_id != 0 or not _LENGTH_MIN <= length <= _LENGTH_MAX:
                listener.errors += 1
                if self._outbox is None:
                    self._transport.write(b"".join(replies))
                    self._transport.close()
                else:
                    self._outbox.put(0.0, None)
                return
            end = start + _PREFIX_BYTES + length
            if end > received:
                break
            if not listener.muted:
                request = data[start + _PREFIX_BYTES : end]
                reply = (data[start : start + 2], listener.answer(request, step))
                if self._outbox is None:
                    replies += reply
                else:
                    self._spoil(self._outbox, request, b"".join(reply))
            start = end
        self._rest = data[start:]
        if replies:
            self._transport.write(b"".join(replies))

    def _spoil(self, outbox: _Outbox, request: bytes, reply: bytes) -> None:
        """Send a reply as the faults want it."""
        listener = self._listener
        faults = listener.faults
        effect = None if faults is None else faults.effect(request, listener.asked(request))
        if effect is None:
            outbox.put(0.0, reply)
            return
        listener.spoiled.update(effect.kinds)
        for delay_ms, piece in pieces(effect, reply):
            outbox.put(delay_ms / 1000, piece)


class _Outbox:
    """What a client is sent, in order, each piece at its time.

    Once it is ``full`` nothing is read until it is empty; then it calls ``drained``.
    """

    def __init__(self, transport: asyncio.Transport, drained: Callable[[], None]) -> None:
        self.full = False
        self._transport = transport
        self._drained = drained
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, delay_s: float, piece: bytes | None) -> None:
        """Send a piece so much later, but not before what waits already; None closes."""
        earliest = self._loop.time()
        if self._waiting:
            earliest = max(earliest, self._waiting[-1][0])
        if not self._waiting and delay_s <= 0:
            self._send(piece)
            return
        self._waiting.append((earliest + delay_s, piece))
        if self._timer is None:
            self._timer = self._loop.call_at(self._waiting[0][0], self._send_due)
        if len(self._waiting) >= OUTBOX_PIECES_MAX:
            self.full = True
            self._transport.pause_reading()

    def stop(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send_due(self) -> None:
        self._timer = None
        # A loop's timers may be early by its clock's resolution.
        while self._waiting and self._waiting[0][0] <= self._loop.time() + _RESOLUTION_S:
            self._send(self._waiting.popleft()[1])
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self._send_due)
        elif self.full:
            self.full = False
            self._drained()

    def _send(self, piece: bytes | None) -> None:
        if piece is None:
            self._transport.close()
        elif not self._transport.is_closing():
            self._transport.write(piece)
