"""A journal entry's blob: packed columns, little endian.

    magic    4 bytes  b"EAJ1"
    runs     uint32
    samples  uint32
    ts_ms    int64   x runs      milliseconds since 1970 UTC
    count    uint32  x runs      samples that share ts_ms
    series   uint32  x samples
    value    float64 x samples

12 bytes per sample and 12 per run. The checksum is a CRC-32 over the row's other columns and the
blob, so that neither can change unseen.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Mapping

from edge_agent.errors import JournalError
from edge_agent.model import Batch, Series

_HEADER = struct.Struct("<4sII")
_ROW = struct.Struct("<qqqqq")
_MAGIC = b"EAJ1"
BYTES_PER_SAMPLE = 12

assert array("I").itemsize == 4, "the journal's columns need a 32-bit unsigned int"
_SWAP = sys.byteorder == "big"


def encode(batch: Batch) -> bytes:
    """Pack a batch's columns."""
    columns = (
        array("q", [ts_ms for ts_ms, _ in batch.runs]),
        array("I", [count for _, count in batch.runs]),
        batch.series_ids,
        batch.values,
    )
    return b"".join(
        (_HEADER.pack(_MAGIC, len(batch.runs), len(batch)), *(_to_bytes(c) for c in columns))
    )


def decode(sequence: int, data: bytes, series: Mapping[int, Series]) -> Batch:
    """Unpack a blob. Raises ``JournalError`` if it is not one, or names an unknown series."""
    batch = unpack(sequence, data, series)
    if not series.keys() >= set(batch.series_ids):
        raise JournalError(f"entry {sequence}: its columns contradict each other")
    return batch


def unpack(sequence: int, data: bytes, series: Mapping[int, Series]) -> Batch:
    """Unpack a blob whose series need not all be known. Raises ``JournalError`` if it is not one.

    For a recovery: who takes the batch must leave out what it can't name.
    """
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise JournalError(f"entry {sequence}: not a journal entry")
    _, run_count, samples = _HEADER.unpack_from(data)
    if len(data) != _HEADER.size + run_count * 12 + samples * BYTES_PER_SAMPLE:
        raise JournalError(f"entry {sequence}: {len(data)} bytes do not hold what it says")
    at = _HEADER.size
    times = _from_bytes("q", data, at, run_count)
    counts = _from_bytes("I", data, at := at + run_count * 8, run_count)
    series_ids = _from_bytes("I", data, at := at + run_count * 4, samples)
    values = _from_float_bytes(data, at + samples * 4)
    if sum(counts) != samples:
        raise JournalError(f"entry {sequence}: its columns contradict each other")
    runs = list(zip(times, counts, strict=True))
    return Batch(sequence, runs, series_ids, values, series)


def checksum(
    sequence: int,
    first_ts_ms: int,
    last_ts_ms: int,
    samples: int,
    thinned: int,
    sinks: str | None,
    data: bytes,
) -> int:
    """CRC-32 of an entry row."""
    row = _ROW.pack(sequence, first_ts_ms, last_ts_ms, samples, thinned) + (sinks or "").encode()
    return zlib.crc32(data, zlib.crc32(row))


def row_checksum(*columns: object) -> int:
    """CRC-32 of a small row of text and integers."""
    return zlib.crc32("\x1f".join(map(str, columns)).encode())


def _to_bytes(column: array[int] | array[float]) -> bytes:
    if _SWAP:
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _from_bytes(code: str, data: bytes, at: int, count: int) -> array[int]:
    column: array[int] = array(code)
    column.frombytes(data[at : at + count * column.itemsize])
    if _SWAP:
        column.byteswap()
    return column


def _from_float_bytes(data: bytes, at: int) -> array[float]:
    column = array("d")
    column.frombytes(data[at:])
    if _SWAP:
        column.byteswap()
    return column
