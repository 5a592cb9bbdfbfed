"""What a map will cost before it runs: bus load, rows, journal, disk. Pure.

Requests are counted, not estimated: they are the blocks of the planner's plan, and the poller
sends one request a block and scan. Over any whole number of scans they are therefore exactly what
a PLC counts, unless requests fail or ticks are left out. Rates are `Fraction`s, so that no rounding
stands between the two.

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

Of protocols other than Modbus only rows are told: what an OPC UA server or an MQTT publisher sends
follows from its values, and nobody knows them beforehand.

Sources: Modbus Application Protocol 1.1b3, 6.1 to 6.4; Modbus over Serial Line 1.02, 2.5.1; Modbus
Messaging on TCP/IP 1.0b, 3.1.3; SQLite's file format, 1.6, for the bytes of a journal entry.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from edge_agent.model import AddressSyntax, Tag
from edge_agent.planner import Block, Connection, ScanClass, plan
from edge_agent.settings import JournalSettings, PostgresSettings

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

DISK_DAYS: Final = (1, 7, 90)
RAW_BYTES: Final = 174.0
"""A row of plc_raw with its indexes: 142 to 174 were measured, see bench/README.md."""
RAW_BYTES_COMPRESSED: Final = 8.7
ROLLUP_BYTES: Final = 251.0
"""A row of plc_1m or plc_1h with its indexes: 195 in *postgres*, 251 in *timescale*."""
ROLLUP_BYTES_COMPRESSED: Final = 38.5

_DAY_S: Final = 86_400
_BIT_AREAS: Final = frozenset({"coil", "discrete"})

_PAGE_BYTES: Final = 4_096
_PAGE_HEAD_BYTES: Final = 8
_ENTRY_HEAD_BYTES: Final = 12
_ENTRY_ROW_BYTES: Final = 42
"""An entry's other columns and its row's header, in SQLite's encoding."""
_COLUMN_BYTES: Final = 12
"""Of a sample as of a run: see journal/entry.py."""
_ENTRY_SAMPLES_MAX: Final = 5_000
_ROOM_SHARE: Final = Fraction(254, 256)
"""A journal makes room before its last two 256ths are used (journal/room.py)."""

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


@dataclass(frozen=True, slots=True)
class JournalForecast:
    """The queue on disk while nobody takes anything out of it."""

    bytes_max: int
    bytes_per_row: float
    hours: float
    """Until it is full; infinite without rows."""


@dataclass(frozen=True, slots=True)
class DiskForecast:
    """The database after so many days: bytes of plc_raw, plc_1m and plc_1h with their indexes."""

    days: int
    plain_bytes: int
    compressed_bytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """A whole map."""

    connections: tuple[ConnectionForecast, ...]
    journal: JournalForecast
    disk: tuple[DiskForecast, ...]
    thinned_tags: int
    """Tags with a deadband or a heartbeat, which give fewer rows than are counted here."""

    @property
    def rows_per_s(self) -> Fraction:
        """At most."""
        return sum((one.rows_per_s for one in self.connections), Fraction())

    @property
    def verdict(self) -> Verdict | None:
        """That of the worst connection."""
        verdicts = {one.verdict for one in self.connections}
        return next((worst for worst in reversed(Verdict) if worst in verdicts), None)


def forecast(
    tags: Sequence[Tag],
    syntax: Syntax,
    *,
    journal: JournalSettings,
    postgres: PostgresSettings,
    commit_interval_s: float,
    round_trip_s: float = ROUND_TRIP_S,
    round_trips_s: Mapping[str, float] | None = None,
) -> Forecast:
    """Forecast a valid map's load.

    ``round_trips_s`` are those that were measured, by `conn`; ``round_trip_s`` is for the others.
    Raises what `planner.plan` raises.
    """
    measured = round_trips_s or {}
    by_connection: dict[tuple[str, str], list[Tag]] = {}
    for tag in tags:
        by_connection.setdefault((tag.protocol, tag.conn), []).append(tag)
    connections = tuple(
        _connection(
            connection,
            by_connection[connection.protocol, connection.conn],
            syntax,
            measured.get(connection.conn, round_trip_s),
        )
        for connection in plan(tags, syntax)
    )
    return Forecast(
        connections,
        _journal(connections, journal.bytes_max, commit_interval_s),
        tuple(_disk(tags, postgres, days) for days in DISK_DAYS),
        sum(tag.deadband > 0 or tag.heartbeat_ms is not None for tag in tags),
    )


# -- a connection ------------------------------------------------------------------------------


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


def _connection(
    connection: Connection, tags: Sequence[Tag], syntax: Syntax, round_trip_s: float
) -> ConnectionForecast:
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


# -- journal and disk --------------------------------------------------------------------------


def entry_bytes(samples: float, runs: float) -> float:
    """Bytes of the journal's file that an entry takes; a run is a reply's share of it.

    SQLite keeps a row's first part in a page with others, and what is larger in pages of its own.
    """
    payload = _ENTRY_ROW_BYTES + _ENTRY_HEAD_BYTES + _COLUMN_BYTES * (samples + runs)
    largest = _PAGE_BYTES - 35
    if payload <= largest:
        return _PAGE_BYTES / max((_PAGE_BYTES - _PAGE_HEAD_BYTES) // (payload + 2), 1)
    smallest = (_PAGE_BYTES - 12) * 32 // 255 - 23
    link_bytes = _PAGE_BYTES - 4
    local = smallest + (payload - smallest) % link_bytes
    local = local if local <= largest else smallest
    per_page = max((_PAGE_BYTES - _PAGE_HEAD_BYTES) // (local + 6), 1)
    return _PAGE_BYTES / per_page + _PAGE_BYTES * math.ceil((payload - local) / link_bytes)


def _journal(
    connections: Sequence[ConnectionForecast], bytes_max: int, commit_interval_s: float
) -> JournalForecast:
    rows_per_s = float(sum((one.rows_per_s for one in connections), Fraction()))
    if not rows_per_s:
        return JournalForecast(bytes_max, 0.0, math.inf)
    # What is not read in blocks comes value by value, each with a time of its own.
    scans_per_s = float(
        sum(one.per_s(lambda _: 1) if one.classes else one.rows_per_s for one in connections)
    )
    runs_per_s = float(
        sum(one.requests_per_s if one.classes else one.rows_per_s for one in connections)
    )
    entries_per_s = max(min(1 / commit_interval_s, scans_per_s), rows_per_s / _ENTRY_SAMPLES_MAX)
    entry = entry_bytes(rows_per_s / entries_per_s, runs_per_s / entries_per_s)
    bytes_per_s = entry * entries_per_s
    hours = float(bytes_max * _ROOM_SHARE) / bytes_per_s / 3600
    return JournalForecast(bytes_max, bytes_per_s / rows_per_s, hours)


def _disk(tags: Sequence[Tag], settings: PostgresSettings, days: int) -> DiskForecast:
    periods = Counter(tag.period_ms / 1000 for tag in tags)

    def rows_a_day(bucket_s: float) -> float:
        return sum(count * _DAY_S / max(period_s, bucket_s) for period_s, count in periods.items())

    raw_days = min(days, settings.raw_days)
    minute_days = min(days, settings.minute_days)
    # Chunks are compressed whole, once they end before the day that the setting names.
    raw_open = min(raw_days, settings.compress_days + settings.chunk_days)
    minute_open = min(minute_days, settings.refresh_minute_days + 2)
    raw, minutes, hours = rows_a_day(0), rows_a_day(60), rows_a_day(3600)
    plain = raw * raw_days * RAW_BYTES + (minutes * minute_days + hours * days) * ROLLUP_BYTES
    compressed = (
        raw * (raw_open * RAW_BYTES + (raw_days - raw_open) * RAW_BYTES_COMPRESSED)
        + minutes * minute_open * ROLLUP_BYTES
        + minutes * (minute_days - minute_open) * ROLLUP_BYTES_COMPRESSED
        + hours * days * ROLLUP_BYTES
    )
    return DiskForecast(days, round(plain), round(compressed))
