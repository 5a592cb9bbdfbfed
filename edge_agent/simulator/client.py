"""One client of a listener: its bytes become requests, and replies go out in order and on time.

With faults (`faults.py`) each reply goes through the client's outbox, which keeps their order: a
reply that is late holds up those behind it on its connection, as in a PLC that does one thing at a
time. Other connections notice nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Protocol, cast

from edge_agent.simulator.faults import ListenerFaults
from edge_agent.simulator.framing import Framing, pieces
from edge_agent.simulator.signals import STEP_MS

OUTBOX_PIECES_MAX: Final = 1_000
"""Replies of a client that wait for their time; until they are gone it is not read from."""

_RESOLUTION_S = 0.001


class Plc(Protocol):
    """Who answers; `listener.py` has it."""

    framing: Framing
    faults: ListenerFaults | None
    now_ms: Callable[[], int]
    muted: bool
    errors: int
    spoiled: Counter[str]

    def answer(self, request: bytes, step: int) -> bytes:
        """A sealed reply to a request, from the unit id on; empty if nobody answers."""

    def asked(self, request: bytes) -> int:
        """How often a request has come."""


class Client(asyncio.Protocol):
    """One client's connection; a serial line is one too. It is in ``clients`` while it lasts."""

    _transport: asyncio.Transport

    def __init__(self, plc: Plc, clients: set[Client]) -> None:
        self._plc = plc
        self._framing = plc.framing
        self._clients = clients
        self._rest = b""  # the beginning of a frame: shorter than any frame may be
        self._outbox: _Outbox | None = None
        self._blocked = False
        self._loop = asyncio.get_running_loop()
        self._silence: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._clients.add(self)
        if self._plc.faults is not None:
            self._outbox = _Outbox(self._transport, self._read_on)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._clients.discard(self)
        if self._outbox is not None:
            self._outbox.stop()
        self._hear()
        self.closed.set_result(None)

    def abort(self) -> None:
        """Close the connection at once."""
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
        if self._rest:
            self._hear()
            data = self._rest + data
        self._take(data)
        if self._rest and self._framing.silence_s:
            self._silence = self._loop.call_later(self._framing.silence_s, self._be_silent)

    def _be_silent(self) -> None:
        self._silence = None
        self._take(self._rest, True)

    def _hear(self) -> None:
        """End the silence, if it was one."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _take(self, data: bytes, silent: bool = False) -> None:
        plc, outbox = self._plc, self._outbox
        frames, self._rest, errors = self._framing.cut(data, silent)
        replies: list[bytes] = []
        if not plc.muted:
            step = plc.now_ms() // STEP_MS
            for begin, request in frames:
                reply = plc.answer(request, step)
                if not reply:
                    continue
                if outbox is None:
                    replies += (begin, reply)
                else:
                    self._spoil(outbox, request, begin + reply)
        if replies:
            self._transport.write(b"".join(replies))
        if errors:
            plc.errors += errors
            if self._framing.strict:
                self._end()

    def _end(self) -> None:
        """Close the connection behind what is still to be sent."""
        if self._outbox is None:
            self._transport.close()
        else:
            self._outbox.put(0.0, None)

    def _spoil(self, outbox: _Outbox, request: bytes, reply: bytes) -> None:
        """Send a reply as the faults want it."""
        plc = self._plc
        faults = plc.faults
        effect = None if faults is None else faults.effect(request, plc.asked(request))
        if effect is None:
            outbox.put(0.0, reply)
            return
        plc.spoiled.update(effect.kinds)
        for delay_ms, piece in pieces(effect, reply, self._framing):
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
