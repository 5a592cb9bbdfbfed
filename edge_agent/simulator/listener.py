"""One connection's PLCs: its units, their four areas, and what listens for requests to them.

Served: function codes 1 to 4, pipelined requests, answered in order. Refused with an exception:

=====  ==================  ================================================================
code   name                when
=====  ==================  ================================================================
1      illegal function    any other function code: this PLC is not written to
2      illegal address     a cell before the first or behind the last tag of unit and area
3      illegal value       a quantity of 0, above 125 registers or 2,000 bits, a wrong size
11     no response         a unit id that no tag has; with RTU nobody answers for it
=====  ==================  ================================================================

Bytes that are no Modbus TCP frame close that client's connection and touch nobody else's; with RTU
they are noise (`framing.py`).

A request is looked up as the bytes it came in; its range is compiled once and read once per
step, whoever asks. All requests that arrive together are answered as of the same time.

Source: Modbus Application Protocol 1.1b3, sections 6 and 7; Modbus over Serial Line 1.02, section
2.2 (unit id 0 is the broadcast, which nobody answers).
"""

from __future__ import annotations

import asyncio
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge_agent.errors import TransientError
from edge_agent.model import AddressSyntax, Tag, locate
from edge_agent.simulator.client import Client
from edge_agent.simulator.faults import AREAS, ListenerFaults
from edge_agent.simulator.framing import ERROR_BIT, Framing
from edge_agent.simulator.memory import Area, Range
from edge_agent.text.reasons import reason_of

ANSWERS_MAX: Final = 4_096
"""Different requests remembered per listener; an agent sends far fewer, a fuzzer far more."""

BACKLOG_CONNECTIONS: Final = 128
"""Clients that may arrive in one turn of the event loop."""

STOP_TIMEOUT_S: Final = 5.0
"""Aborted sockets are gone after one turn of the event loop; this is for a broken one."""

_BIT_AREAS: Final = frozenset({"coil", "discrete"})
_BITS_MAX, _REGISTERS_MAX = 2_000, 125

_ILLEGAL_FUNCTION, _ILLEGAL_ADDRESS, _ILLEGAL_VALUE, _NO_RESPONSE = 1, 2, 3, 11
_BROADCAST = 0


@dataclass(slots=True)
class _Answer:
    """The reply to one request, but for what the framing takes from the request."""

    head: bytes
    cells: Range | None = None
    checksum: Callable[[bytes], bytes] | None = None
    registers: int = 0
    asked: int = 0
    step: int | None = None
    reply: bytes = b""

    def at(self, step: int) -> bytes:
        """The reply of a step; empty if nobody answers."""
        if self.step != step:
            self.reply = self.head
            if self.cells is not None:
                self.reply += self.cells.read(step)
                if self.checksum is not None:
                    self.reply += self.checksum(self.reply)
            self.step = step
        return self.reply


class Listener(ABC):
    """One simulated connection: the units behind it, and whoever asks them.

    ``conns`` are the map's names for it, ``tags`` what it answers for, ``host`` and ``port`` where
    it listens, if it is a socket; ``port`` is the real one after the start. Counted from then on:
    ``requests`` taken, ``registers`` in the replies (bits are not counted), ``errors`` (exception
    replies, malformed frames, noise), bytes of whole requests and of replies as they are without
    faults, and ``spoiled`` replies by kind of fault.
    """

    def __init__(
        self, framing: Framing, now_ms: Callable[[], int], *, host: str = "", port: int = 0
    ) -> None:
        self.framing = framing
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
        self._request_bytes = framing.request_bytes
        self._reply_bytes = framing.reply_bytes
        self._units: dict[int, dict[str, Area]] = {}
        self._answers: dict[bytes, _Answer] = {}
        self._clients: set[Client] = set()

    @property
    @abstractmethod
    def place(self) -> dict[str, object]:
        """Where it listens, ready for JSON."""

    @abstractmethod
    async def start(self) -> None:
        """Listen. Raises ``TransientError`` if it can't."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop listening and drop all clients; may be called in any state, also twice."""

    @abstractmethod
    def drop(self) -> None:
        """Close all client connections at once; new ones are welcome."""

    def describe(self) -> dict[str, object]:
        """What listens where, ready for JSON."""
        return {
            **self.place,
            "conns": self.conns,
            "unit_ids": self.unit_ids,
            "tags": len(self.tags),
        }

    def counted(self) -> dict[str, object]:
        """What was counted since the start, ready for JSON."""
        return {
            "conns": self.conns,
            "requests": self.requests,
            "registers": self.registers,
            "errors": self.errors,
            "bytes_received": self.bytes_received,
            "bytes_sent": self.bytes_sent,
            "spoiled": dict(self.spoiled),
        }

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
        if tag.unit_id == _BROADCAST and not self.framing.refuses_strangers:
            return "unit id 0 is RTU's broadcast, which nobody answers"
        address = locate(syntax, tag.conn, tag.address, tag.type)
        areas = self._units.setdefault(tag.unit_id, {})
        area = areas.setdefault(address.area, Area(bits=address.area in _BIT_AREAS))
        refusal = area.claim(tag, address)
        if refusal is None:
            self.tags.append(tag)
        return refusal

    def answer(self, request: bytes, step: int) -> bytes:
        """A sealed reply to a request, from the unit id on; empty if nobody answers."""
        answer = self._answers.get(request)
        if answer is None:
            if len(self._answers) >= ANSWERS_MAX:
                self._answers.clear()
            answer = self._answers[request] = self._compile(request)
        answer.asked += 1
        self.requests += 1
        self.registers += answer.registers
        self.bytes_received += self._request_bytes + len(request)
        reply = answer.at(step)
        if reply:
            self.errors += answer.cells is None
            self.bytes_sent += self._reply_bytes + len(reply)
        return reply

    def asked(self, request: bytes) -> int:
        """How often a request (from the unit id on) has come; forgotten with `ANSWERS_MAX`."""
        answer = self._answers.get(request)
        return 0 if answer is None else answer.asked

    def _compile(self, request: bytes) -> _Answer:
        unit_id, function = request[0], request[1]
        areas = self._units.get(unit_id)
        if areas is None:
            if self.framing.refuses_strangers:
                return self._refuse(request, _NO_RESPONSE)
            return _Answer(b"")
        if function not in AREAS:
            return self._refuse(request, _ILLEGAL_FUNCTION)
        name = AREAS[function]
        bits = name in _BIT_AREAS
        if len(request) != 6:
            return self._refuse(request, _ILLEGAL_VALUE)
        start, count = struct.unpack_from(">HH", request, 2)
        if not 1 <= count <= (_BITS_MAX if bits else _REGISTERS_MAX):
            return self._refuse(request, _ILLEGAL_VALUE)
        area = areas.get(name)
        if area is None or not area.covers(start, count):
            return self._refuse(request, _ILLEGAL_ADDRESS)
        size = (count + 7) // 8 if bits else 2 * count
        body = bytes((unit_id, function, size))
        return _Answer(
            head=self.framing.head(len(body) + size) + body,
            cells=area.range(start, count),
            checksum=self.framing.checksum,
            registers=0 if bits else count,
        )

    def _refuse(self, request: bytes, code: int) -> _Answer:
        """An exception reply."""
        return _Answer(self.framing.seal(bytes((request[0], request[1] | ERROR_BIT, code))))

    def pause(self) -> None:
        """Go mute: accept connections and requests, answer nothing, now or later."""
        self.muted = True

    def resume(self) -> None:
        """Answer again what arrives from now on."""
        self.muted = False


class SocketListener(Listener):
    """A listening socket."""

    def __init__(self, host: str, port: int, framing: Framing, now_ms: Callable[[], int]) -> None:
        super().__init__(framing, now_ms, host=host, port=port)
        self._server: asyncio.Server | None = None

    @property
    def place(self) -> dict[str, object]:
        """Host and port."""
        return {"host": self.host, "port": self.port}

    async def start(self) -> None:
        """Listen. Raises ``TransientError`` if the address is taken or not this machine's."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Client(self, self._clients),
                self.host,
                self.port,
                backlog=BACKLOG_CONNECTIONS,
            )
        except OSError as error:
            raise TransientError(
                f"cannot listen on {self.host}:{self.port} for {self.conns[0]}: {reason_of(error)}",
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

    def drop(self) -> None:
        """Close all client connections at once; new ones are welcome."""
        for client in list(self._clients):
            client.abort()
