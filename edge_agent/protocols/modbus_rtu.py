"""The framing of Modbus RTU: unit, PDU and a checksum, on a serial line or through TCP.

RTU has no transaction ids and no lengths, so two questions are hard: where a frame begins and ends,
and which request it answers.

**Frames.** The specification tells frames apart by silence: 3.5 characters between them. Behind a
USB adapter, a gateway and an operating system's scheduler there is silence within frames too, so a
frame is cut by what it says itself: an exception reply has 5 bytes, any other one as many as its
byte count says, and the checksum decides. Silence is used where it is sure:

* A request goes out only after the line was silent for 3.5 characters. What is left of an
  incomplete frame is discarded then.
* What can't be the beginning of a reply to anything that was asked (another unit, another
  function), and what fails the checksum, is noise. Noise is discarded until the line is silent, and
  then the wait for the reply goes on: a converter that turns its driver off often sends a stray
  byte. If the timeout passes meanwhile, the error shows what came. A reply to the request itself
  whose checksum is wrong ends the wait at once.

**Late replies.** A reply that comes after its request was given up looks like the reply to a later
request of the same unit, function and size. Such a value must never be stored, and no length of
silence proves that it will not come. What proves it is an order: a unit answers what it was asked
in the order in which it was asked. So `Unanswered` keeps the requests that nothing came for, and:

* A reply belongs to the oldest of them that it fits. With it, this one and all of the same unit
  that are older are settled. It counts as a value only if that one is the request that waits.
* A request is not sent while an older one of the same look is unsettled. A *fence* goes before it:
  the same cells, one fewer (of a single one: two), whose reply has another size. Its reply settles
  everything before it. A unit that is silent is sent the fence instead of the request, so that it
  costs no more than before; the first scan after its return has one request more.
* An exception reply has no size, and a reply may have one that nobody asked for. It settles only
  the oldest of its unit and function. It is reported for the request that waits, since no value
  comes of it, but that request may stay unsettled.
* What is older than ``LATE_S_MAX`` is forgotten: a unit that answers later than that is read
  wrongly once, and a unit that never answers fences is read again after it.

On a serial line they outlive a reconnect: it is still the same line, with the same units.

Sources: Modbus over Serial Line 1.02, sections 2.4.1, 2.5.1.1 (silence) and 6.2.2 (checksum).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from struct import Struct
from typing import Final

from edge_agent.protocols.base import WallClock
from edge_agent.protocols.modbus_syntax import CELLS, ModbusConn
from edge_agent.protocols.modbus_wire import (
    ERROR_BIT,
    SHOWN_BYTES_MAX,
    Answer,
    Channel,
    DamagedReplyError,
    Request,
    Wire,
)

SILENT_CHARACTERS: Final = 3.5
SILENCE_S_MIN: Final = 0.00175
"""Above 19,200 baud silence is this long, whatever the rate: section 2.5.1.1."""
SILENCE_TCP_S: Final = 0.01
"""Through TCP the gateway keeps the line's silence; this lets the rest of what came arrive, and is
waited for only after something went wrong."""
LATE_S_MAX: Final = 60.0
"""How old a request may be whose reply is still looked out for; no master waits so long."""
FENCES_MAX: Final = 3
"""Fences of one read. One is enough unless a unit answers several of them with exceptions."""
FRAME_BYTES_MAX: Final = 256
NOISE_BYTES_MAX: Final = FRAME_BYTES_MAX
"""Bytes of noise kept, for the error's text."""

_CRC_BYTES: Final = 2
FRAMING_BYTES: Final = 1 + _CRC_BYTES
"""Unit id and checksum around a PDU."""
_EXCEPTION_BYTES: Final = 5
_OVERHEAD_BYTES: Final = 5
"""Unit, function, byte count and checksum around a reply's data."""
_MORE: Final = 0
_NOISE: Final = -1
_PDU: Final = Struct(">BHH")
_BIT_FUNCTIONS: Final = frozenset({1, 2})
_BITS_PER_BYTE: Final = 8


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def checksum(data: bytes | bytearray) -> bytes:
    """The two bytes that end a frame: CRC-16, low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc.to_bytes(_CRC_BYTES, "little")


def is_sound(frame: bytes | bytearray) -> bool:
    """Whether a frame's checksum is right."""
    return len(frame) > _CRC_BYTES and checksum(frame[:-_CRC_BYTES]) == frame[-_CRC_BYTES:]


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A request that nothing has come for yet."""

    unit_id: int
    function: int
    size_bytes: int
    at: float

    def is_of(self, unit_id: int, body: bytes) -> bool:
        """Whether a reply's unit and function are this request's."""
        return unit_id == self.unit_id and body[0] & ~ERROR_BIT == self.function

    def fits(self, unit_id: int, body: bytes) -> bool:
        """Whether a reply (function, byte count, data) has this request's size too."""
        return (unit_id, body[0], body[1]) == (self.unit_id, self.function, self.size_bytes)


class Unanswered:
    """The requests of one line that nothing has come for, oldest first."""

    def __init__(self) -> None:
        self._sent: list[_Sent] = []

    def add(self, request: Request, now: float) -> _Sent:
        """Remember a request that goes out now."""
        if self._sent:
            self._sent = [sent for sent in self._sent if now - sent.at < LATE_S_MAX]
        sent = _Sent(request.unit_id, request.function, request.size_bytes, now)
        self._sent.append(sent)
        return sent

    def holds(self, request: Request, now: float) -> bool:
        """Whether a reply may still come that looks like this request's."""
        return any(
            sent.unit_id == request.unit_id
            and sent.function == request.function
            and sent.size_bytes == request.size_bytes
            and now - sent.at < LATE_S_MAX
            for sent in self._sent
        )

    def settle(self, unit_id: int, body: bytes) -> _Sent | None:
        """The oldest request that a reply fits; it and the unit's older ones are done with."""
        candidates = [sent for sent in self._sent if sent.is_of(unit_id, body)]
        fitting = [sent for sent in candidates if sent.fits(unit_id, body)]
        found = next(iter(fitting or candidates), None)
        if found is not None:
            end = self._sent.index(found)
            self._sent = [
                sent
                for place, sent in enumerate(self._sent)
                if place > end or sent.unit_id != unit_id
            ]
        return found

    def expects(self, unit_id: int, function: int | None = None) -> bool:
        """Whether a reply of a unit, and with a function code, may come."""
        return any(
            sent.unit_id == unit_id and function in {None, sent.function} for sent in self._sent
        )


class RtuWire(Wire):
    """Modbus RTU on one connection."""

    def __init__(
        self, conn: ModbusConn, channel: Channel, now_ms: WallClock, unanswered: Unanswered
    ) -> None:
        super().__init__(conn, channel, now_ms)
        self._unanswered = unanswered
        self._asked: Request | None = None
        self._sent: _Sent | None = None
        self._behind: Request | None = None
        """What waits behind the fence that is out; None if no fence is."""
        self._serial = conn.character_s > 0
        self._silence_s = silence_s(conn)
        self._active_at = 0.0
        """When a byte was last on the line, as far as is known."""
        self._in_step = False
        """Whether the last thing on the line was the reply that was waited for."""
        self._skipping = False
        self._noise = bytearray()

    async def ask(self, request: Request) -> Answer:
        """Send a request and wait for its reply, after a fence where a late one may come."""
        fences = 0
        while self._unanswered.holds(request, self._loop.time()):
            if fences == FENCES_MAX:
                raise DamagedReplyError("the replies to earlier requests are still outstanding")
            fences += 1
            answer = await self._exchange(fence_for(request), behind=request)
            if fences == FENCES_MAX and answer.pdu[0] & ERROR_BIT:
                return answer  # it says more than that
        return await self._exchange(request)

    async def _exchange(self, request: Request, behind: Request | None = None) -> Answer:
        waiting = await self._turn()
        try:
            await self._be_silent()
            if self._ended is not None:
                raise self._error()
            self._send(request, behind)
            reply_bytes = request.size_bytes + _OVERHEAD_BYTES
            on_the_line_s = (
                self._active_at - self._loop.time() + reply_bytes * self._conn.character_s
            )
            async with asyncio.timeout(self._timeout_s + on_the_line_s):
                answer = await waiting
            self._in_step = not self._received and not self._skipping
        except TimeoutError:
            self.heard = bytes(self._noise or self._received)
            if self.heard:
                raise DamagedReplyError(self._describe(self.heard)) from None
            raise
        else:
            return answer
        finally:
            self._asked = self._sent = self._behind = None
            self._rest()

    def _send(self, request: Request, behind: Request | None) -> None:
        now = self._loop.time()
        frame = bytes([request.unit_id]) + request.pdu
        frame += checksum(frame)
        self._asked, self._behind = request, behind
        self._sent = self._unanswered.add(request, now)
        self._in_step = False
        self._active_at = max(now, now + len(frame) * self._conn.character_s)
        self._write(frame)

    async def _be_silent(self) -> None:
        """Wait for silence on the line, and discard what has come before it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                while self._serial or not self._in_step:
                    silent_at = self._active_at + self._silence_s
                    if self._loop.time() >= silent_at:
                        break
                    await self._until(silent_at)
        except TimeoutError:
            raise DamagedReplyError(
                "the line is never silent; does another master use it?"
            ) from None
        self._received.clear()
        self._noise.clear()
        self._skipping = False

    def received(self, data: bytes) -> None:
        """Cut complete frames from what has arrived, and hand the awaited one over."""
        now = self._loop.time()
        silent = now - self._active_at >= self._silence_s
        self._active_at = now
        self._in_step = False
        if self._skipping and not silent:
            self._keep_noise(data)
            return
        self._skipping = False
        received = self._received
        received += data
        while received and self._ended is None:
            size = self._frame_bytes()
            if size == _MORE or 0 < len(received) < size:
                return
            if size == _NOISE or not is_sound(received[:size]):
                self._spoiled()
                return
            frame = bytes(received[:size])
            del received[:size]
            self._accept(frame)

    def _frame_bytes(self) -> int:
        """The length of the frame that begins what has arrived; or _MORE, or _NOISE."""
        received = self._received
        if not self._unanswered.expects(received[0]):
            return _NOISE
        if len(received) < 2:  # unit and function
            return _MORE
        if not self._unanswered.expects(received[0], received[1] & ~ERROR_BIT):
            return _NOISE
        if received[1] & ERROR_BIT:
            return _EXCEPTION_BYTES
        if len(received) < 3:  # and byte count
            return _MORE
        size = received[2] + _OVERHEAD_BYTES
        return size if size <= FRAME_BYTES_MAX else _NOISE

    def _spoiled(self) -> None:
        """What has arrived is no frame: skip all until the line is silent."""
        heard = bytes(self._received)
        self._received.clear()
        self._keep_noise(heard)
        self._skipping = True
        asked, waiting = self._asked, self._waiting
        if asked is None or waiting is None or waiting.done():
            return
        if heard[:3] == bytes([asked.unit_id, asked.function, asked.size_bytes]):
            self.heard = heard
            shown = heard[:SHOWN_BYTES_MAX].hex(" ")
            waiting.set_exception(
                DamagedReplyError(f"the reply's checksum is wrong: it begins with {shown}")
            )

    def _keep_noise(self, data: bytes) -> None:
        self._noise += data[: NOISE_BYTES_MAX - len(self._noise)]

    def _accept(self, frame: bytes) -> None:
        """What a sound frame means."""
        unit_id, body = frame[0], frame[1:-_CRC_BYTES]
        settled = self._unanswered.settle(unit_id, body)
        asked, waiting = self._asked, self._waiting
        if asked is None or waiting is None or waiting.done():
            return
        if unit_id != asked.unit_id or body[0] & ~ERROR_BIT != asked.function:
            return  # a late one of another unit or function
        odd = settled is None or not settled.fits(unit_id, body)  # an exception, or of no size
        if self._behind is not None:
            done = odd or not self._unanswered.holds(self._behind, self._loop.time())
        else:
            done = odd or settled is self._sent
        if done:
            self.heard = frame
            waiting.set_result(Answer(self._now_ms(), unit_id, body))

    def _describe(self, heard: bytes) -> str:
        """What came instead of a reply."""
        shown = heard[:SHOWN_BYTES_MAX].hex(" ")
        asked = self._asked
        if asked is not None and is_sound(heard):
            if heard[0] != asked.unit_id:
                return f"unit {heard[0]} answered"
            if heard[1] & ~ERROR_BIT != asked.function:
                return f"function {heard[1]} answered, {asked.function} was asked"
        return f"no valid reply, but {len(heard)} bytes that begin with {shown}"


def silence_s(conn: ModbusConn) -> float:
    """How long the line must have been silent before a request."""
    if not conn.character_s:
        return SILENCE_TCP_S
    return max(SILENCE_S_MIN, SILENT_CHARACTERS * conn.character_s)


def fence_for(request: Request) -> Request:
    """A request of cells of the same request, whose reply has another size."""
    function, start, count = _PDU.unpack(request.pdu)
    step = _BITS_PER_BYTE if function in _BIT_FUNCTIONS else 1
    fewer = (count - 1) // step * step
    more = (count - 1) // step * step + step + 1
    cells = fewer or more
    size_bytes = (cells + step - 1) // step if step > 1 else cells * 2
    return Request(
        request.unit_id, _PDU.pack(function, min(start, CELLS - cells), cells), size_bytes
    )
