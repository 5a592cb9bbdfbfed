"""The journal's blob and checksums: what is read is what was written, or an error."""

from __future__ import annotations

import math
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import JournalError
from edge_agent.journal import entry as codec
from edge_agent.journal import wal
from edge_agent.model import Batch, Series

SERIES = {n: Series("A1", "L1", "PUMP01", f"T{n}", "bar") for n in (*range(1, 50), 2**32 - 1)}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.integers(-(2**63), 2**63 - 1)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Any batch that a journal may be asked to hold."""
    runs = draw(st.lists(st.tuples(TIMES, st.integers(1, 6)), min_size=1, max_size=6))
    samples = sum(count for _, count in runs)
    ids = draw(st.lists(st.sampled_from(sorted(SERIES)), min_size=samples, max_size=samples))
    values = draw(st.lists(FINITE, min_size=samples, max_size=samples))
    return Batch(draw(st.integers(1, 2**63 - 1)), runs, array("I", ids), array("d", values), SERIES)


@given(batches())
def test_round_trip(batch: Batch) -> None:
    """Times, ids and values come back exactly, the sign of a zero included."""
    decoded = codec.decode(batch.sequence, codec.encode(batch), SERIES)
    assert decoded == batch
    assert [math.copysign(1, v) for v in decoded.values] == [
        math.copysign(1, v) for v in batch.values
    ]


def test_size() -> None:
    """12 bytes for a sample, 12 for a run, 12 for the head: what the forecast counts with."""
    batch = Batch(1, [(1, 100), (2, 100)], array("I", [1] * 200), array("d", [1.0] * 200), SERIES)
    assert len(codec.encode(batch)) == 12 + 2 * 12 + 200 * 12


@given(batches(), st.data())
def test_a_cut_or_longer_blob_is_an_error(batch: Batch, data: st.DataObject) -> None:
    """A blob that does not hold what its head says is never half read."""
    blob = codec.encode(batch)
    cut = data.draw(st.integers(0, len(blob) - 1))
    for wrong in (blob[:cut], blob + b"\0"):
        with pytest.raises(JournalError):
            codec.decode(1, wrong, SERIES)


@given(st.binary(max_size=200))
def test_garbage_is_an_error(data: bytes) -> None:
    """Whatever the bytes are: an error of our own, or a batch that fits them."""
    for blob in (data, b"EAJ1" + data):
        try:
            batch = codec.decode(1, blob, SERIES)
        except JournalError:
            continue
        assert codec.encode(batch) == blob


def test_an_unknown_series_is_an_error() -> None:
    """A sample whose tag nobody knows can't be delivered to anybody."""
    batch = Batch(1, [(1, 1)], array("I", [777]), array("d", [1.0]), SERIES)
    with pytest.raises(JournalError, match="contradict"):
        codec.decode(1, codec.encode(batch), SERIES)


def test_the_checksum_finds_every_single_flipped_bit() -> None:
    """In the blob and in each of the row's other columns, one after the other."""
    batch = Batch(7, [(1000, 2), (1200, 1)], array("I", [1, 2, 1]), array("d", [1, 2, 3]), SERIES)
    data = codec.encode(batch)
    numbers, sinks = (7, 1000, 1200, 3, 0), "mqtt"
    sound = codec.checksum(*numbers, sinks, data)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert codec.checksum(*numbers, sinks, bytes(flipped)) != sound
    for column in range(len(numbers)):
        for bit in range(63):
            row = list(numbers)
            row[column] ^= 1 << bit
            assert codec.checksum(row[0], row[1], row[2], row[3], row[4], sinks, data) != sound
    for bit in range(8 * len(sinks)):
        text = bytearray(sinks.encode())
        text[bit // 8] ^= 1 << bit % 8
        if text.isascii():
            assert codec.checksum(*numbers, text.decode(), data) != sound
    assert codec.checksum(*numbers, None, data) != sound


def test_a_row_s_checksum_depends_on_every_column_and_its_place() -> None:
    """Neighbouring columns can't exchange characters unseen."""
    sound = codec.row_checksum("ab", "c", 12, 3)
    for other in (("a", "bc", 12, 3), ("ab", "c", 1, 23), ("c", "ab", 12, 3), ("ab", "c", 12)):
        assert codec.row_checksum(*other) != sound


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_any_bytes_can_be_looked_at_as_a_wal(data: bytes, frames: int) -> None:
    """A damaged WAL is read without an error, whatever it holds."""
    index = b"\0" * 16 + frames.to_bytes(4, "little") + b"\0" * 28
    page_bytes = 16
    list(wal.commits(data, page_bytes))
    wal.damaged(data, page_bytes, index)


def test_a_hidden_end_of_a_commit_hides_no_version_of_a_page() -> None:
    """Where frames are missing, a page that comes again begins another commit."""

    def frame(page: int, text: bytes, pages_after_commit: int = 0) -> bytes:
        return struct.pack(">II8s8x", page, pages_after_commit, b"the salt") + text

    hole = bytes(wal.FRAME_HEADER_BYTES + 4)
    frames = [frame(5, b"old1"), frame(6, b"old2"), hole, frame(5, b"new1"), frame(7, b"new2", 7)]
    data = bytes(wal.HEADER_BYTES) + b"".join(frames)
    older, newer = {5: b"old1", 6: b"old2"}, {5: b"new1", 7: b"new2"}
    assert list(wal.commits(data, 4, has_holes=True)) == [(3, older), (5, newer)]
    assert list(wal.commits(data, 4)) == [(5, older | newer)]
