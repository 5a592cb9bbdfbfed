"""What a map will cost before it runs: bus load, rows, journal, disk. Pure.

Requests are counted, not estimated: they are the blocks of the planner's plan, and the poller
sends one request a block and scan. Over any whole number of scans they are therefore exactly what
a PLC counts, unless requests fail or ticks are left out. Rates are `Fraction`s, so that no rounding
stands between the two.

How long a connection is busy with them, and whether it keeps up: `bus_load.py`. Where a driver
tells nothing of its requests only rows are told: what an OPC UA server or an MQTT publisher sends
follows from its values, and nobody knows them beforehand.

Source: SQLite's file format, 1.6, for the bytes of a journal entry.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from edge_agent.bus_load import (
    ROUND_TRIP_S,
    ConnectionForecast,
    Syntax,
    Verdict,
    connection_forecast,
)
from edge_agent.model import Tag
from edge_agent.planner import Connection, plan
from edge_agent.settings import JournalSettings, PostgresSettings

DISK_DAYS: Final = (1, 7, 90)
RAW_BYTES: Final = 174.0
"""A row of plc_raw with its indexes: 142 to 174 were measured, see bench/README.md."""
RAW_BYTES_COMPRESSED: Final = 8.7
ROLLUP_BYTES: Final = 251.0
"""A row of plc_1m or plc_1h with its indexes: 195 in *postgres*, 251 in *timescale*."""
ROLLUP_BYTES_COMPRESSED: Final = 38.5

_DAY_S: Final = 86_400

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
    planned: Sequence[Connection] | None = None,
    journal: JournalSettings,
    postgres: PostgresSettings,
    commit_interval_s: float,
    round_trip_s: float = ROUND_TRIP_S,
    round_trips_s: Mapping[str, float] | None = None,
) -> Forecast:
    """Forecast a valid map's load. ``planned`` is the plan of its tags, where there is one already.

    ``round_trips_s`` are those that were measured, by `conn`; ``round_trip_s`` is for the others.
    Raises what `planner.plan` raises.
    """
    measured = round_trips_s or {}
    by_connection: dict[tuple[str, str], list[Tag]] = {}
    for tag in tags:
        by_connection.setdefault((tag.protocol, tag.conn), []).append(tag)
    connections = tuple(
        connection_forecast(
            connection,
            by_connection[connection.protocol, connection.conn],
            syntax,
            measured.get(connection.conn, round_trip_s),
        )
        for connection in (plan(tags, syntax) if planned is None else planned)
    )
    return Forecast(
        connections,
        _journal(connections, journal.bytes_max, commit_interval_s),
        tuple(_disk(tags, postgres, days) for days in DISK_DAYS),
        sum(tag.deadband > 0 or tag.heartbeat_ms is not None for tag in tags),
    )


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
