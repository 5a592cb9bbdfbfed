"""What a Modbus connection is asked for, and whether it can keep up: requests, bytes, time. Pure.

Time is a model. A connection does one thing at a time; a request occupies it for

* TCP: the round trip. Bytes are free there: 260 of them take 21 us at 100 Mbit/s.
* a serial line: its own and its reply's characters, 3.5 characters of silence, and the time that
  the device takes to answer, which is what ``round_trip_s`` means there. A character has a start
  bit, 8 bits of data, the parity bit unless there is none, and the stop bits.
* ``pause_ms`` on top of either; with ``close_after_scan`` one more round trip a scan.

The cycle of a scan class is the longest time from its tick to the end of its scan. Of several
scans that are due the one with the shortest period goes on, block by block (`schedule.py`): that is
fixed-priority scheduling with blocks that are not interrupted, and the cycle R of class i is the
smallest solution of

    R = (longest block of the slower classes) + C_i + sum over faster classes j: ceil(R / T_j) C_j

with work C and period T (Joseph and Pandya, Finding Response Times in a Real-Time System, 1986).
A class whose R is longer than its period leaves ticks out: *impossible*. Its *row that breaks it*
is found by planning the connection's rows from the top of the map down to it: without this row and
those below, the connection keeps up.

Sources: Modbus Application Protocol 1.1b3, 6.1 to 6.4; Modbus over Serial Line 1.02, 2.5.1; Modbus
Messaging on TCP/IP 1.0b, 3.1.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from edge_agent.model import AddressSyntax, Tag
from edge_agent.planner import Block, Connection, ScanClass, plan

ROUND_TRIP_S: Final = 0.005
"""Where nobody measured it: a PLC on a switched network answers in 1 to 10 ms."""
TIGHT_ABOVE: Final = 0.7
"""Share of the period that a cycle may take: a retry or a slow reply must still fit behind it."""

REQUEST_PDU_BYTES: Final = 5
REPLY_HEAD_BYTES: Final = 2
MBAP_BYTES: Final = 7
RTU_BYTES: Final = 3
"""Unit id and CRC around a PDU."""

BAUD_DEFAULT: Final = 19_200
PARITY_DEFAULT: Final = "E"
STOP_BITS_DEFAULT: Final = 1.0
SILENCE_CHARACTERS: Final = 3.5
SILENCE_S_MIN: Final = 0.00175
"""Above 19,200 baud the silence between frames stays at this."""

_BIT_AREAS: Final = frozenset({"coil", "discrete"})

Syntax = Callable[[str], type[AddressSyntax]]


class Verdict(StrEnum):
    """Whether a connection can do what the map asks."""

    FITS = "fits"
    TIGHT = "tight"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Wire:
    """How a Modbus connection carries requests.

    ``character_s`` and ``silence_s`` are 0 where there is no serial line. ``pause_s`` follows each
    request; with ``reconnects`` each scan has a connection of its own.
    """

    frame_bytes: int
    """Of a frame beside its PDU."""
    character_s: float = 0.0
    silence_s: float = 0.0
    pause_s: float = 0.0
    reconnects: bool = False

    @property
    def serial(self) -> bool:
        """Whether it is a serial line."""
        return self.character_s > 0


@dataclass(frozen=True, slots=True)
class ClassForecast:
    """One scan class; all but ``period_ms`` and ``cycle_s`` per scan.

    ``wanted`` are registers that the map names, ``read`` those that are read for it; coils and
    discrete inputs are counted apart, as bits. ``work_s`` is how long a scan occupies the
    connection, ``wire_s`` the part of it that bytes or round trips take on the way.
    """

    period_ms: int
    tags: int
    requests: int
    registers_wanted: int
    registers_read: int
    bits_wanted: int
    bits_read: int
    bytes_sent: int
    bytes_received: int
    wire_s: float
    work_s: float
    cycle_s: float

    @property
    def verdict(self) -> Verdict:
        """The cycle against the period."""
        share = self.cycle_s * 1000 / self.period_ms
        if share > 1:
            return Verdict.IMPOSSIBLE
        return Verdict.TIGHT if share > TIGHT_ABOVE else Verdict.FITS


@dataclass(frozen=True, slots=True)
class ConnectionForecast:
    """One connection. ``classes`` is empty for a protocol of whose requests nothing is known.

    ``rows_per_s`` is an upper bound: a deadband, a subscription and a failed request make it less.
    """

    protocol: str
    conn: str
    tags: int
    rows_per_s: Fraction
    round_trip_s: float
    classes: tuple[ClassForecast, ...] = ()
    breaks: Tag | None = None
    """The row that breaks it, where it is impossible."""

    def per_s(self, figure: Callable[[ClassForecast], int]) -> Fraction:
        """A figure of its classes' scans, per second."""
        return sum(
            (Fraction(figure(one) * 1000, one.period_ms) for one in self.classes), Fraction()
        )

    @property
    def requests_per_s(self) -> Fraction:
        """Requests that are sent; exact."""
        return self.per_s(lambda one: one.requests)

    @property
    def on_wire(self) -> float:
        """Share of the time in which something is on its way."""
        return sum(one.wire_s * 1000 / one.period_ms for one in self.classes)

    @property
    def busy(self) -> float:
        """Share of the time in which the connection is occupied; above 1 it can't be."""
        return sum(one.work_s * 1000 / one.period_ms for one in self.classes)

    @property
    def verdict(self) -> Verdict | None:
        """That of its worst scan class; None where nothing is known."""
        verdicts = {one.verdict for one in self.classes}
        return next((worst for worst in reversed(Verdict) if worst in verdicts), None)

    @property
    def decisive(self) -> ClassForecast | None:
        """The scan class that makes the verdict: the first impossible one, else the tightest."""
        for one in self.classes:
            if one.verdict is Verdict.IMPOSSIBLE:
                return one
        return max(self.classes, key=lambda one: one.cycle_s / one.period_ms, default=None)


def connection_forecast(
    connection: Connection, tags: Sequence[Tag], syntax: Syntax, round_trip_s: float
) -> ConnectionForecast:
    """Forecast one connection of a plan; ``tags`` are its own, in map order."""
    rows_per_s = sum((Fraction(1000, tag.period_ms) for tag in tags), Fraction())
    result = ConnectionForecast(
        connection.protocol,
        connection.conn,
        len(tags),
        rows_per_s,
        round_trip_s,
        _classes(connection, round_trip_s),
    )
    if result.verdict is not Verdict.IMPOSSIBLE:
        return result
    breaks = _breaking(tags, syntax, round_trip_s)
    return ConnectionForecast(
        result.protocol, result.conn, result.tags, rows_per_s, round_trip_s, result.classes, breaks
    )


def _breaking(tags: Sequence[Tag], syntax: Syntax, round_trip_s: float) -> Tag:
    """The first row in map order with which the rows so far are impossible.

    A further row may also join two blocks and make it easier, so there may be several such rows;
    the search keeps "possible before, impossible with it" and ends at one of them.
    """
    possible, impossible = 0, len(tags)
    while impossible - possible > 1:
        middle = (possible + impossible) // 2
        (connection,) = plan(tags[:middle], syntax)
        if any(one.verdict is Verdict.IMPOSSIBLE for one in _classes(connection, round_trip_s)):
            impossible = middle
        else:
            possible = middle
    return tags[impossible - 1]


def _classes(connection: Connection, round_trip_s: float) -> tuple[ClassForecast, ...]:
    if connection.protocol != "modbus":
        return ()
    wire = wire_of(connection.conn)
    times = [
        [request_s(block, wire, round_trip_s) for block in scan_class.blocks]
        for scan_class in connection.scan_classes
    ]
    extra_s = round_trip_s if wire.reconnects else 0.0
    cycles = cycles_s(
        [
            (scan_class.period_ms / 1000, [work_s for _, work_s in requests], extra_s)
            for scan_class, requests in zip(connection.scan_classes, times, strict=True)
        ]
    )
    return tuple(
        _class(scan_class, wire, requests, extra_s, cycle_s)
        for scan_class, requests, cycle_s in zip(
            connection.scan_classes, times, cycles, strict=True
        )
    )


def _class(
    scan_class: ScanClass,
    wire: Wire,
    requests: Sequence[tuple[float, float]],
    extra_s: float,
    cycle_s: float,
) -> ClassForecast:
    frames = [frame_bytes(block, wire) for block in scan_class.blocks]
    bits = [block for block in scan_class.blocks if block.area in _BIT_AREAS]
    registers = [block for block in scan_class.blocks if block.area not in _BIT_AREAS]
    return ClassForecast(
        period_ms=scan_class.period_ms,
        tags=scan_class.tag_count,
        requests=len(scan_class.blocks),
        registers_wanted=sum(map(_wanted, registers)),
        registers_read=sum(block.count for block in registers),
        bits_wanted=sum(map(_wanted, bits)),
        bits_read=sum(block.count for block in bits),
        bytes_sent=sum(sent for sent, _ in frames),
        bytes_received=sum(received for _, received in frames),
        wire_s=sum(wire_s for wire_s, _ in requests) + extra_s,
        work_s=sum(work_s for _, work_s in requests) + extra_s,
        cycle_s=cycle_s,
    )


def _wanted(block: Block) -> int:
    """Cells of a block that its tags name; two that share one want it once."""
    return len(
        {
            cell
            for address in block.addresses
            for cell in range(address.offset, address.offset + address.width)
        }
    )


def cycles_s(classes: Sequence[tuple[float, Sequence[float], float]]) -> list[float]:
    """The cycle of each class; the first solution beyond the period where none is within it.

    ``classes`` are (period in s, time of each block in s, further time of a scan in s), shortest
    period first.
    """
    work = [sum(blocks) + extra for _, blocks, extra in classes]
    cycles = []
    for index, (period_s, _, _) in enumerate(classes):
        slower = [time for _, blocks, _ in classes[index + 1 :] for time in blocks]
        own = max(slower, default=0.0) + work[index]
        faster = [(period, work[place]) for place, (period, _, _) in enumerate(classes[:index])]
        cycle, before = own, -1.0
        while before < cycle <= period_s:
            before = cycle
            cycle = own + sum(_ticks(cycle, period) * time for period, time in faster)
        cycles.append(cycle)
    return cycles


def _ticks(span_s: float, period_s: float) -> int:
    """Ticks of a period within a span that begins with one; a rounding error is none."""
    return max(math.ceil(span_s / period_s - 1e-9), 1)


# -- one request -------------------------------------------------------------------------------


def wire_of(conn: str) -> Wire:
    """How a Modbus `conn` carries requests.

    What an option's value can't be is the driver's to say: here it counts as not given.
    """
    parts = urlsplit(conn)
    options = dict(parse_qsl(parts.query))
    pause_s = _number(options, "pause_ms", 0.0) / 1000
    reconnects = options.get("close_after_scan", "").lower() in {"1", "true", "yes", "on"}
    if parts.scheme == "rtu":
        baud = _number(options, "baudrate", BAUD_DEFAULT) or BAUD_DEFAULT
        parity = options.get("parity", PARITY_DEFAULT).upper() not in {"N", "NONE"}
        bits = 1 + 8 + parity + _number(options, "stopbits", STOP_BITS_DEFAULT)
        character_s = bits / baud
        slow = baud <= BAUD_DEFAULT
        silence_s = SILENCE_CHARACTERS * character_s if slow else SILENCE_S_MIN
        return Wire(RTU_BYTES, character_s, silence_s, pause_s, reconnects)
    frame_bytes = RTU_BYTES if parts.scheme.startswith("rtu") else MBAP_BYTES
    return Wire(frame_bytes, pause_s=pause_s, reconnects=reconnects)


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    try:
        number = float(options.get(name, default))
    except ValueError:
        return default
    return number if math.isfinite(number) and number >= 0 else default


def frame_bytes(block: Block, wire: Wire) -> tuple[int, int]:
    """Bytes of a block's request and of its reply, without those of TCP and IP."""
    data = (block.count + 7) // 8 if block.area in _BIT_AREAS else 2 * block.count
    return wire.frame_bytes + REQUEST_PDU_BYTES, wire.frame_bytes + REPLY_HEAD_BYTES + data


def request_s(block: Block, wire: Wire, round_trip_s: float) -> tuple[float, float]:
    """How long a block's request is on the wire, and how long it occupies the connection."""
    if not wire.serial:
        return round_trip_s, round_trip_s + wire.pause_s
    sent, received = frame_bytes(block, wire)
    wire_s = (sent + received) * wire.character_s + wire.silence_s
    # A device waits for the end of the request's frame, which only the silence shows.
    return wire_s, wire_s + max(round_trip_s, wire.silence_s) + wire.pause_s
