"""How requests and replies lie among the bytes: Modbus TCP's frames and RTU's.

Both carry a unit id and a PDU. What is here knows of nothing else: what is asked and answered is
`listener.py`'s.

Modbus TCP says how long a frame is; bytes that are none of its frames can't be got over.

RTU has only a checksum and silence. Requests of functions 1 to 6 have 8 bytes, so they need no
silence; any other request is what stands between two silences. What has a wrong checksum is got
over byte by byte until something has a right one: noise before a request costs nothing, and half a
request is forgotten when nothing follows it. Through TCP the same holds.

What a fault does to a reply's bytes (`pieces`) is here too. The checksum is this module's own,
so that a test which compares it with the agent's compares two opinions.

Sources: Modbus Messaging on TCP/IP 1.0b, section 3.1.3; Modbus over Serial Line 1.02, sections
2.5.1 and 6.2.2.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

from edge_agent.simulator.faults import Effect, Kind, Then

RTU_SILENCE_S: Final = 0.05
"""What ends an RTU frame of unknown length. The 3.5 characters of the specification are shorter
than what a USB adapter (16 ms) or a busy machine's scheduler puts between two bytes."""
SILENCE_CHARACTERS: Final = 3.5

ERROR_BIT: Final = 0x80

_FRAME: Final = struct.Struct(">HH")  # protocol id (0) and length, behind the transaction id
_TRANSACTION_BYTES: Final = 2
_PREFIX_BYTES: Final = 6  # transaction id, protocol id, length; the length counts what follows
_LENGTH_MIN, _LENGTH_MAX = 2, 254  # unit id and function code; unit id and the longest PDU

_CRC_BYTES: Final = 2
_RTU_BYTES_MIN, _RTU_BYTES_MAX = 4, 256  # unit, function and checksum; section 2.5.1
_FIXED: Final = range(1, 7)  # functions whose request has two 16-bit fields
_FIXED_BYTES: Final = 8

Frames = list[tuple[bytes, bytes]]
"""Requests from the unit id on, each behind what its reply must begin with."""

Piece = tuple[float, bytes | None]
"""Milliseconds after the piece before it, and bytes to send; None closes the connection."""


class Framing(ABC):
    """One of the two. ``request_bytes`` and ``reply_bytes`` are what is counted beside the rest."""

    request_bytes: int
    """Around a request, which is from the unit id to the end of the PDU."""
    reply_bytes: int
    """Before a sealed reply: what the request decided."""
    silence_s: float = 0.0
    """How long nothing must have come before `cut` is told so; 0: it need not be."""
    strict: bool
    """Whether bytes that are no frame end the connection."""
    refuses_strangers: bool
    """Whether a request for a unit that is not there is refused; else nobody answers it."""
    checksum: Callable[[bytes], bytes] | None = None
    """What a reply ends with."""

    @abstractmethod
    def cut(self, data: bytes, silent: bool) -> tuple[Frames, bytes, int]:
        """Frames, the beginning of one more, and how often there was something else.

        ``silent`` says that nothing more has come for ``silence_s``.
        """

    @abstractmethod
    def head(self, size: int) -> bytes:
        """What stands before unit id and PDU of a reply, which together have ``size`` bytes."""

    @abstractmethod
    def body(self, frame: bytes) -> bytes:
        """Unit id and PDU of a whole frame."""

    def seal(self, body: bytes) -> bytes:
        """A reply, but for what the request decides, from unit id and PDU."""
        frame = self.head(len(body)) + body
        return frame if self.checksum is None else frame + self.checksum(frame)

    def replace(self, frame: bytes, body: bytes) -> bytes:
        """The same frame around another unit id and PDU."""
        return frame[: self.reply_bytes] + self.seal(body)


class Mbap(Framing):
    """Modbus TCP."""

    request_bytes = _PREFIX_BYTES
    reply_bytes = _TRANSACTION_BYTES
    strict = True
    refuses_strangers = True

    def cut(self, data: bytes, silent: bool) -> tuple[Frames, bytes, int]:  # noqa: ARG002
        frames: Frames = []
        start, received = 0, len(data)
        while received - start >= _PREFIX_BYTES:
            protocol_id, length = _FRAME.unpack_from(data, start + _TRANSACTION_BYTES)
            if protocol_id != 0 or not _LENGTH_MIN <= length <= _LENGTH_MAX:
                return frames, b"", 1
            body = start + _PREFIX_BYTES
            end = body + length
            if end > received:
                break
            frames.append((data[start : start + _TRANSACTION_BYTES], data[body:end]))
            start = end
        return frames, data[start:], 0

    def head(self, size: int) -> bytes:
        return _FRAME.pack(0, size)

    def body(self, frame: bytes) -> bytes:
        return frame[_PREFIX_BYTES:]


class Rtu(Framing):
    """RTU. ``character_s`` is the time of one byte on a serial line, 0 through TCP."""

    request_bytes = _CRC_BYTES
    reply_bytes = 0
    strict = False
    refuses_strangers = False

    def __init__(self, character_s: float = 0.0) -> None:
        self.silence_s = max(RTU_SILENCE_S, SILENCE_CHARACTERS * character_s)
        self.checksum = crc16

    def cut(self, data: bytes, silent: bool) -> tuple[Frames, bytes, int]:
        frames: Frames = []
        start, errors, skipping = 0, 0, False
        while (left := len(data) - start) >= _RTU_BYTES_MIN:
            fixed = data[start + 1] in _FIXED
            size = _FIXED_BYTES if fixed else left
            if not silent and (left < size if fixed else left <= _RTU_BYTES_MAX):
                break  # there may be more to come
            frame = data[start : start + size]
            if size <= left and size <= _RTU_BYTES_MAX and _is_sound(frame):
                frames.append((b"", frame[:-_CRC_BYTES]))
                start += size
                skipping = False
            else:
                start += 1
                errors += not skipping
                skipping = True
        rest = data[start:]
        if silent and rest:
            errors += not skipping
            rest = b""
        return frames, rest, errors

    def head(self, size: int) -> bytes:  # noqa: ARG002
        return b""

    def body(self, frame: bytes) -> bytes:
        return frame[:-_CRC_BYTES]


def _crc_table() -> tuple[int, ...]:
    table = list(range(256))
    for _ in range(8):
        table = [crc >> 1 ^ 0xA001 * (crc & 1) for crc in table]
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc16(data: bytes) -> bytes:
    """RTU's checksum, as it stands at a frame's end: low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc.to_bytes(_CRC_BYTES, "little")


def _is_sound(frame: bytes) -> bool:
    return crc16(frame[:-_CRC_BYTES]) == frame[-_CRC_BYTES:]


def pieces(effect: Effect, reply: bytes, framing: Framing) -> Sequence[Piece]:
    """What is sent in place of a reply, which is a whole frame."""
    fault, delay_ms = effect.outcome, effect.delay_ms
    if fault is None:
        return [(delay_ms, reply)]
    if fault.kind is Kind.CLOSE:
        return [(delay_ms, None)]
    if fault.code is not None:
        unit_id, function = framing.body(reply)[:2]
        refusal = bytes((unit_id, function | ERROR_BIT, fault.code))
        return [(delay_ms, framing.replace(reply, refusal))]
    if fault.kind is Kind.WRONG_TRANSACTION:
        transaction = (int.from_bytes(reply[:_TRANSACTION_BYTES]) + fault.shift) & 0xFFFF
        return [(delay_ms, transaction.to_bytes(_TRANSACTION_BYTES) + reply[_TRANSACTION_BYTES:])]
    if fault.kind is Kind.WRONG_UNIT:
        body = framing.body(reply)
        other = bytes(((body[0] + fault.shift) & 0xFF,))
        return [(delay_ms, framing.replace(reply, other + body[1:]))]
    if fault.kind is Kind.BAD_CRC:
        bit = int(effect.chance * 8 * len(reply))
        damaged = bytearray(reply)
        damaged[bit // 8] ^= 1 << bit % 8
        return [(delay_ms, bytes(damaged))]
    if fault.kind is Kind.HALF_FRAME:
        half = len(reply) // 2
        rest: dict[Then, list[Piece]] = {
            Then.NOTHING: [],
            Then.CLOSE: [(0.0, None)],
            Then.REST: [(fault.rest_ms, reply[half:])],
        }
        return [(delay_ms, reply[:half]), *rest[fault.then]]
    return []
