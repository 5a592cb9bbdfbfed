"""What a connection is asked for, and whether it can keep up: requests, bytes, time. Pure.

Time is a model, and what it is made of is the driver's to say (`LineTiming`); of a protocol that
says nothing, nothing is known here. A connection does one thing at a time; a request occupies it
for

* TCP: the round trip. Bytes are free there: 960 of them take 77 us at 100 Mbit/s.
* a serial line: its own and its reply's characters, the silence that ends a frame, and the time
  that the device takes to answer, which is what ``round_trip_s`` means there.
* the pause that the connection wants, in which the silence passes too; where each scan has a
  connection of its own, what connecting takes comes on top of the scan.

The cycle of a scan class is the longest time from its tick to the end of its scan. Of several
scans that are due the one with the shortest period goes on, block by block (`schedule.py`): that is
fixed-priority scheduling with blocks that are not interrupted, and the cycle R of class i is the
smallest solution of

    R = (longest block of the slower classes) + C_i + sum over faster classes j: ceil(R / T_j) C_j

with work C and period T (Joseph and Pandya, Finding Response Times in a Real-Time System, 1986).
A class whose R is longer than its period leaves ticks out: *impossible*. Its *row that breaks it*
is found by planning the connection's rows from the top of the map down to it: without this row and
those below, the connection keeps up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Final

from edge_agent.model import AddressSyntax, LineTiming, Tag, timing_of
from edge_agent.planner import Block, Connection, ScanClass, plan

ROUND_TRIP_S: Final = 0.005
"""Where nobody measured it: a PLC on a switched network answers in 1 to 10 ms."""
TIGHT_ABOVE: Final = 0.7
"""Share of the period that a cycle may take: a retry or a slow reply must still fit behind it."""
_ROUNDING: Final = 1e-9
"""Share of a period that is a rounding error: forty times 5 ms are 200 ms."""

Syntax = Callable[[str], type[AddressSyntax]]


class Verdict(StrEnum):
    """Whether a connection can do what the map asks."""

    FITS = "fits"
    TIGHT = "tight"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class ClassForecast:
    """One scan class; all but ``period_ms`` and ``cycle_s`` per scan.

    ``wanted`` are cells that the map names, ``read`` those that are read for it; those of areas of
    bits are counted apart. ``work_s`` is how long a scan occupies the
    connection, ``wire_s`` the part of it that bytes or round trips take on the way.
    """

    period_ms: int
    tags: int
    requests: int
    cells_wanted: int
    cells_read: int
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
        if share > 1 + _ROUNDING:
            return Verdict.IMPOSSIBLE
        return Verdict.TIGHT if share > TIGHT_ABOVE + _ROUNDING else Verdict.FITS


@dataclass(frozen=True, slots=True)
class ConnectionForecast:
    """One connection. ``classes`` is empty where its driver tells nothing of its requests.

    ``rows_per_s`` is an upper bound: a deadband, a subscription and a failed request make it less.
    """

    protocol: str
    conn: str
    tags: int
    rows_per_s: Fraction
    round_trip_s: float
    cell: str = ""
    """What is counted in ``cells_wanted`` and ``cells_read``, such as "register"."""
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
    result = ConnectionForecast(
        connection.protocol,
        connection.conn,
        len(tags),
        sum((Fraction(1000, tag.period_ms) for tag in tags), Fraction()),
        round_trip_s,
    )
    timing = timing_of(syntax(connection.protocol), connection.conn)
    if timing is None:
        return result
    result = replace(result, cell=timing.cell, classes=_classes(connection, timing, round_trip_s))
    if result.verdict is not Verdict.IMPOSSIBLE:
        return result
    return replace(result, breaks=_breaking(tags, syntax, timing, round_trip_s))


def _breaking(tags: Sequence[Tag], syntax: Syntax, timing: LineTiming, round_trip_s: float) -> Tag:
    """The first row in map order with which the rows so far are impossible.

    A further row may also join two blocks and make it easier, so there may be several such rows;
    the search keeps "possible before, impossible with it" and ends at one of them.
    """
    possible, impossible = 0, len(tags)
    while impossible - possible > 1:
        middle = (possible + impossible) // 2
        (connection,) = plan(tags[:middle], syntax)
        classes = _classes(connection, timing, round_trip_s)
        if any(one.verdict is Verdict.IMPOSSIBLE for one in classes):
            impossible = middle
        else:
            possible = middle
    return tags[impossible - 1]


def _classes(
    connection: Connection, timing: LineTiming, round_trip_s: float
) -> tuple[ClassForecast, ...]:
    times = [
        [request_s(block, timing, round_trip_s) for block in scan_class.blocks]
        for scan_class in connection.scan_classes
    ]
    connect_s = timing.connect_round_trips * round_trip_s
    extra_s = connect_s + timing.connect_pause_s
    cycles = cycles_s(
        [
            (scan_class.period_ms / 1000, [work_s for _, work_s in requests], extra_s)
            for scan_class, requests in zip(connection.scan_classes, times, strict=True)
        ]
    )
    return tuple(
        _class(
            scan_class,
            timing,
            wire_s=sum(wire_s for wire_s, _ in requests) + connect_s,
            work_s=sum(work_s for _, work_s in requests) + extra_s,
            cycle_s=cycle_s,
        )
        for scan_class, requests, cycle_s in zip(
            connection.scan_classes, times, cycles, strict=True
        )
    )


def _class(
    scan_class: ScanClass, timing: LineTiming, *, wire_s: float, work_s: float, cycle_s: float
) -> ClassForecast:
    frames = [frame_bytes(block, timing) for block in scan_class.blocks]
    bits = [block for block in scan_class.blocks if block.area in timing.bit_areas]
    cells = [block for block in scan_class.blocks if block.area not in timing.bit_areas]
    return ClassForecast(
        period_ms=scan_class.period_ms,
        tags=scan_class.tag_count,
        requests=len(scan_class.blocks),
        cells_wanted=sum(map(_wanted, cells)),
        cells_read=sum(block.count for block in cells),
        bits_wanted=sum(map(_wanted, bits)),
        bits_read=sum(block.count for block in bits),
        bytes_sent=sum(sent for sent, _ in frames),
        bytes_received=sum(received for _, received in frames),
        wire_s=wire_s,
        work_s=work_s,
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
        while before < cycle <= period_s * (1 + _ROUNDING):
            before = cycle
            cycle = own + sum(_ticks(cycle, period) * time for period, time in faster)
        cycles.append(cycle)
    return cycles


def _ticks(span_s: float, period_s: float) -> int:
    """Ticks of a period within a span that begins with one; a rounding error is none."""
    return max(math.ceil(span_s / period_s - _ROUNDING), 1)


# -- one request -------------------------------------------------------------------------------


def frame_bytes(block: Block, timing: LineTiming) -> tuple[int, int]:
    """Bytes of a block's request and of its reply."""
    bits = block.count * (1 if block.area in timing.bit_areas else timing.cell_bits)
    return timing.request_bytes, timing.reply_bytes + (bits + 7) // 8


def request_s(block: Block, timing: LineTiming, round_trip_s: float) -> tuple[float, float]:
    """How long a block's request is on the wire, and how long it occupies the connection."""
    # A device waits for the end of the request's frame, which only the silence shows.
    work_s = line_s(block, timing) + max(round_trip_s, timing.silence_s)
    if not timing.character_s:
        return round_trip_s, work_s
    return sum(frame_bytes(block, timing)) * timing.character_s + timing.silence_s, work_s


def line_s(block: Block, timing: LineTiming) -> float:
    """What a block's request takes beside the round trip: characters, and the wait before it."""
    characters_s = sum(frame_bytes(block, timing)) * timing.character_s
    return characters_s + max(timing.silence_s, timing.pause_s)
