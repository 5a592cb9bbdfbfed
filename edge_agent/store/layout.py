"""What the bytes of the store mean: schema, slots, blobs, summaries. Pure; no I/O.

Numbers in blobs are little-endian, which is the native order of every machine this runs on.
"""

from __future__ import annotations

import math
import operator
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Any, Final, NamedTuple

from edge_agent.clock import HOUR_MS, MINUTE_MS

APPLICATION_ID = 0x45_44_47_45
"""`EDGE`: marks the file as ours, for `file` and for us."""
FORMAT = 1
"""``PRAGMA user_version``; grows with every change of this module's layout that a version which
does not know it would spoil or misread. `PACKED_SCHEMA` came later and is none."""

MINUTES_PER_HOUR = HOUR_MS // MINUTE_MS
SERIES_ID_BITS = 24
"""Sixteen million series; the other 39 bits of a slot hold minutes for ever."""
SERIES_ID_MAX = (1 << SERIES_ID_BITS) - 1

SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE state (
    store_id TEXT NOT NULL,
    fold_tail_id INTEGER NOT NULL DEFAULT 0,
    fold_slices_done INTEGER
);
INSERT INTO state (store_id) VALUES (lower(hex(randomblob(8))));
CREATE TABLE series (
    id INTEGER PRIMARY KEY CHECK (id <= {SERIES_ID_MAX}),
    site TEXT NOT NULL, line TEXT NOT NULL, device TEXT NOT NULL, tag TEXT NOT NULL,
    unit TEXT NOT NULL,
    UNIQUE (site, device, tag, line, unit)
);
CREATE TABLE cursor (
    agent_id TEXT NOT NULL, journal_id TEXT NOT NULL, sequence INTEGER NOT NULL,
    PRIMARY KEY (agent_id, journal_id)
) WITHOUT ROWID;
CREATE TABLE tail (
    id INTEGER PRIMARY KEY,
    first_ts_ms INTEGER NOT NULL, last_ts_ms INTEGER NOT NULL, samples INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE raw (slot INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE minute (
    slot INTEGER PRIMARY KEY, avg REAL NOT NULL, min REAL NOT NULL, max REAL NOT NULL,
    last REAL NOT NULL, last_ms INTEGER NOT NULL, samples INTEGER NOT NULL
);
CREATE TABLE hour (
    slot INTEGER PRIMARY KEY, avg REAL NOT NULL, min REAL NOT NULL, max REAL NOT NULL,
    last REAL NOT NULL, last_ms INTEGER NOT NULL, samples INTEGER NOT NULL
);
CREATE TABLE latest (
    series_id INTEGER PRIMARY KEY, ts_ms INTEGER NOT NULL, value REAL NOT NULL
);
"""  # noqa: S608

_HOUR_OF: Final = {
    row: f"(({row}.slot >> {SERIES_ID_BITS}) / {MINUTES_PER_HOUR} << {SERIES_ID_BITS})"
    f" | ({row}.slot & {SERIES_ID_MAX})"
    for row in ("NEW", "OLD")
}
_NOTED: Final = f"EXISTS (SELECT 1 FROM unpacked WHERE slot = {_HOUR_OF['NEW']})"  # noqa: S608
_UNPACK: Final = f"""
    DELETE FROM packed WHERE slot = {_HOUR_OF["NEW"]};
    INSERT INTO unpacked VALUES ({_HOUR_OF["NEW"]});
"""  # noqa: S608
PACKED_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS packed (slot INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS unpacked (slot INTEGER PRIMARY KEY);
CREATE TRIGGER IF NOT EXISTS minute_inserted AFTER INSERT ON minute WHEN NOT {_NOTED}
BEGIN {_UNPACK} END;
CREATE TRIGGER IF NOT EXISTS minute_updated AFTER UPDATE ON minute
BEGIN
    DELETE FROM packed WHERE slot IN ({_HOUR_OF["OLD"]}, {_HOUR_OF["NEW"]});
    INSERT INTO unpacked SELECT {_HOUR_OF["NEW"]} WHERE NOT {_NOTED};
END;
CREATE TRIGGER IF NOT EXISTS minute_deleted AFTER DELETE ON minute
BEGIN DELETE FROM packed WHERE slot = {_HOUR_OF["OLD"]}; END;
"""  # noqa: S608
"""The tables of packed hours, and the triggers that keep them true whoever writes a minute row: a
version of the agent that does not know them, too. For a file that may have them already."""


class DamagedBlob(ValueError):  # noqa: N818  (it names the thing)
    """A blob's checksum or length is wrong."""


class Summary(NamedTuple):
    """What a bucket's samples of one series come down to.

    ``last_ms`` is the time of the last sample, in milliseconds after the bucket's start.
    """

    avg: float
    min: float
    max: float
    last: float
    last_ms: int
    samples: int


def slot_of(bucket: int, series_id: int) -> int:
    """Key of a series' row in a bucket: ``bucket`` is the minute's or hour's number since 1970."""
    return bucket << SERIES_ID_BITS | series_id


def bucket_of(slot: int) -> int:
    """The minute's or hour's number of a slot."""
    return slot >> SERIES_ID_BITS


def series_id_of(slot: int) -> int:
    """The series of a slot."""
    return slot & SERIES_ID_MAX


def hour_slot_of(slot: int) -> int:
    """Key of the hour that a minute's slot belongs to."""
    return slot_of(bucket_of(slot) // MINUTES_PER_HOUR, series_id_of(slot))


# Every blob starts with the checksum (CRC-32) of all that follows.

_CHECKSUM = Struct("<I")


def _sealed(body: bytes) -> bytes:
    return _CHECKSUM.pack(zlib.crc32(body)) + body


def _unsealed(blob: bytes) -> memoryview:
    body = memoryview(blob)[_CHECKSUM.size :]
    if len(blob) <= _CHECKSUM.size or _CHECKSUM.unpack_from(blob) != (zlib.crc32(body),):
        raise DamagedBlob(f"{len(blob)} bytes with a wrong checksum")
    return body


# Tail: number of runs, number of samples; then times, counts, series ids, values.

_TAIL_HEAD = Struct("<II")


class TailBatch(NamedTuple):
    """One batch of the tail; the columns are those of `model.Batch`, the ids are the store's."""

    ts_ms: array[int]
    counts: array[int]
    series_ids: array[int]
    values: array[float]

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Of each run: its time, where it starts, and where the next one does."""
        start = 0
        for ts_ms, count in zip(self.ts_ms, self.counts, strict=True):
            yield ts_ms, start, start + count
            start += count


def pack_tail(
    runs: Sequence[tuple[int, int]], series_ids: array[int], values: array[float]
) -> bytes:
    """Blob of one batch: 12 bytes a sample, 12 a run."""
    times, counts = zip(*runs, strict=True)
    return _sealed(
        b"".join(
            (
                _TAIL_HEAD.pack(len(runs), len(values)),
                array("q", times).tobytes(),
                array("I", counts).tobytes(),
                series_ids.tobytes(),
                values.tobytes(),
            )
        )
    )


def unpack_tail(blob: bytes) -> TailBatch:
    """Columns of one batch. Raises ``DamagedBlob``."""
    body = _unsealed(blob)
    run_count, sample_count = _TAIL_HEAD.unpack_from(body)
    counts_at = _TAIL_HEAD.size + 8 * run_count
    ids_at = counts_at + 4 * run_count
    values_at = ids_at + 4 * sample_count
    return TailBatch(
        array("q", bytes(body[_TAIL_HEAD.size : counts_at])),
        array("I", bytes(body[counts_at:ids_at])),
        array("I", bytes(body[ids_at:values_at])),
        array("d", bytes(body[values_at:])),
    )


# Slice: kind of values (one byte); then times (uint16, milliseconds after the minute), values.

_CONSTANT, _FLOAT32, _FLOAT64 = b"c", b"f", b"d"


class Slice(NamedTuple):
    """Samples of one series in one minute: milliseconds after its start (uint16), and values."""

    offsets_ms: array[int]
    values: array[float]


def pack_slice(part: Slice) -> bytes:
    """Blob of a slice, each value bit by bit: constant, as float32 where that is exact, or whole.

    Most raw values are integers or float32; this halves the store's largest table.
    """
    kind, values = _compressed(part.values)
    return _sealed(kind + part.offsets_ms.tobytes() + values)


def _compressed(column: array[float]) -> tuple[bytes, bytes]:
    """Kind and bytes of a column of values."""
    values = column.tobytes()
    if values == values[:8] * len(column):
        return _CONSTANT, values[:8]
    if array("d", singles := array("f", column)) == column:
        return _FLOAT32, singles.tobytes()
    return _FLOAT64, values


def unpack_slice(blob: bytes) -> Slice:
    """Samples of a slice. Raises ``DamagedBlob``."""
    body = bytes(_unsealed(blob))
    kind, columns = body[:1], body[1:]
    if kind == _CONSTANT:
        count = (len(columns) - 8) // 2
        values = array("d", columns[2 * count :]) * count
    else:
        count = len(columns) // (6 if kind == _FLOAT32 else 10)
        values = array("d", array(kind.decode(), columns[2 * count :]))
    return Slice(array("H", columns[: 2 * count]), values)


# Packed hour: one bit for each minute that the hour has (uint64, the lowest is its first); then the
# columns, each with its kind (one byte): averages, least, greatest, last, counts.

_MINUTES_HEAD = Struct("<Q")
_WHOLE_HOUR: Final = (1 << MINUTES_PER_HOUR) - 1
_COUNTS: Final = "BHIQ"
"""Kinds of a column of counts, the smallest first: unsigned, of 1, 2, 4 and 8 bytes."""


class Minutes(NamedTuple):
    """Minutes of one series that have samples, as columns by time; numbers count from 1970."""

    numbers: array[int]
    averages: array[float]
    least: array[float]
    greatest: array[float]
    last: array[float]
    samples: array[int]


def no_minutes() -> Minutes:
    """Empty columns, to be extended."""
    return Minutes(array("q"), array("d"), array("d"), array("d"), array("d"), array("Q"))


def minutes_of(rows: Iterable[tuple[Any, ...]]) -> Minutes:
    """Columns of at least one row: slot, avg, min, max, last, samples; of one series, by time."""
    slots, averages, least, greatest, last, samples = zip(*rows, strict=True)
    return Minutes(
        array("q", map(bucket_of, slots)),
        array("d", averages),
        array("d", least),
        array("d", greatest),
        array("d", last),
        array("Q", samples),
    )


def pack_minutes(minutes: Minutes) -> bytes:
    """Blob of the minutes of one hour, bit by bit as `pack_slice` does it.

    A minute of float32 samples takes 21 bytes, of others 33: two whole hours fit into a page.
    """
    first = minutes.numbers[0] // MINUTES_PER_HOUR * MINUTES_PER_HOUR
    bits = sum(1 << number - first for number in minutes.numbers)
    return _sealed(
        b"".join(
            (
                _MINUTES_HEAD.pack(bits),
                *map(_packed_values, minutes[1:-1]),
                _packed_counts(minutes.samples),
            )
        )
    )


def unpack_minutes(hour: int, blob: bytes) -> Minutes:
    """Minutes of a packed hour, whose number it is. Raises ``DamagedBlob``."""
    body = _unsealed(blob)
    (bits,) = _MINUTES_HEAD.unpack_from(body)
    first = hour * MINUTES_PER_HOUR
    numbers = array("q", range(first, first + MINUTES_PER_HOUR))
    if bits != _WHOLE_HOUR:
        numbers = array("q", (number for n, number in enumerate(numbers) if bits >> n & 1))
    columns: list[array[Any]] = []
    at = _MINUTES_HEAD.size
    for code in "ddddQ":
        kind, is_constant = chr(body[at]), body[at] == _CONSTANT[0]
        packed = array(code if is_constant else kind)
        end = at + 1 + packed.itemsize * (1 if is_constant else len(numbers))
        packed.frombytes(body[at + 1 : end])
        columns.append(packed * len(numbers) if is_constant else array(code, packed))
        at = end
    return Minutes(numbers, *columns)


def _packed_values(column: array[float]) -> bytes:
    kind, values = _compressed(column)
    return kind + values


def _packed_counts(column: array[int]) -> bytes:
    if min(column) == max(column):
        return _CONSTANT + array("Q", column[:1]).tobytes()
    code = next(c for c in _COUNTS if max(column) < 256 ** array(c).itemsize)
    return code.encode() + array(code, column).tobytes()


def ascending(part: Slice) -> Slice:
    """The same samples by time, each time once: of equal times the one that stands last."""
    offsets = part.offsets_ms
    if all(map(operator.lt, offsets, offsets[1:])):
        return part
    latest = dict(zip(offsets, part.values, strict=True))
    times = sorted(latest)
    return Slice(array("H", times), array("d", map(latest.__getitem__, times)))


def merge(old: Slice, new: Slice) -> Slice:
    """Both slices' samples by time; of equal times the new one."""
    return ascending(Slice(old.offsets_ms + new.offsets_ms, old.values + new.values))


def without(part: Slice, offsets_ms: set[int]) -> Slice:
    """The samples whose time is not among these."""
    kept = [pair for pair in zip(*part, strict=True) if pair[0] not in offsets_ms]
    return Slice(array("H", [ms for ms, _ in kept]), array("d", [value for _, value in kept]))


def summarise(part: Slice) -> Summary:
    """Summary of a slice in ascending order that has at least one sample."""
    offsets, values = part
    least, greatest = min(values), max(values)
    avg = sum(values) / len(values)
    if not math.isfinite(avg):  # the sum of huge values overflows, their average does not
        avg = 2 * math.fsum(value / len(values) / 2 for value in values)
    # A rounded average may lie a hair outside; a chart's band would not contain its line.
    avg = min(max(avg, least), greatest)
    return Summary(avg, least, greatest, values[-1], offsets[-1], len(values))


def combine(left: Summary, right: Summary) -> Summary:
    """Summary of two disjoint sets of samples of the same bucket; on a tie right is the later."""
    samples = left.samples + right.samples
    later = right if right.last_ms >= left.last_ms else left
    least, greatest = min(left.min, right.min), max(left.max, right.max)
    # Weights first: the products of huge values and counts would overflow.
    avg = left.avg * (left.samples / samples) + right.avg * (right.samples / samples)
    avg = min(max(avg, least), greatest)
    return Summary(avg, least, greatest, later.last, later.last_ms, samples)
