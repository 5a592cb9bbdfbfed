"""What the store's reader finds for several tags at once, against a plain model of the samples."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import tempfile
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.clock import HOUR_MS, MINUTE_MS
from edge_agent.errors import TransientError
from edge_agent.model import Series
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.store import StoreSink
from edge_agent.store import search
from edge_agent.store.reader import StoreReader
from edge_agent.store.search import BUCKET_MS
from tests.batches import NOON_MS, BatchMaker, make_series

EVER = (0, 1 << 45)
HERE = ("A1", "PUMP01")
FILLERS = [make_series(f"F{n}", "PUMP02") for n in range(2 * search.GAP_MAX)]
A, B, C = make_series("A"), make_series("B"), make_series("C")
OTHER_UNIT, OTHER_LINE = A._replace(unit="kPa"), B._replace(line="L2")
ALL = [A, *FILLERS[:1], B, *FILLERS[1:], C, OTHER_UNIT, OTHER_LINE]
"""In the order of their ids: neighbours, a small gap, a large one, and tags that have two."""

samples = st.lists(
    st.tuples(
        st.sampled_from([A, OTHER_UNIT, B, OTHER_LINE, C, *FILLERS[:2]]),
        st.one_of(st.integers(0, 3 * HOUR_MS - 1), st.integers(0, 9 * MINUTE_MS)).map(
            lambda ms: NOON_MS + ms // 7_000 * 7_000
        ),
        st.one_of(st.floats(-1e3, 1e3), st.sampled_from([0.0, 1e308, -1e308])),
    ),
    max_size=60,
    unique_by=lambda sample: (sample[0].device, sample[0].tag, sample[1]),
)
tags_asked = st.lists(st.sampled_from(["A", "B", "C", "NONE"]), unique=True)


async def write(path: Path, folded: list[tuple[Series, int, float]], late_from: int) -> None:
    """Series first, so that their ids are known; what comes ``late`` stays in the tail."""
    now_ms = NOON_MS
    make = BatchMaker()
    sink = StoreSink(path, raw_hours=100, now_ms=lambda: now_ms, elapsed_ms=lambda: 0)
    await sink.open(JournalIdentity("agent", "journal-1"))
    await sink.deliver([make((series, 0, 0.0) for series in ALL)])
    await sink.deliver([make(folded[:late_from])])
    now_ms += 5 * HOUR_MS
    await sink.maintain()
    await sink.deliver([make(folded[late_from:])])
    await sink.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for table in ("raw", "minute", "hour"):
            db.execute(f"DELETE FROM {table} WHERE slot < 1000 << 24")  # the series' own samples


def unpack(path: Path, kinds: set[int]) -> None:
    """Of each series other hours: those whose number plus the series' id is, modulo 4, one of these
    have no blob any more."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for kind in kinds:
            db.execute("DELETE FROM packed WHERE ((slot >> 24) + slot) % 4 = ?", (kind,))


@given(
    samples,
    st.integers(0, 60),
    st.sets(st.integers(0, 3)),
    tags_asked,
    st.sampled_from([1, 5, 7, 60, 120]),
    st.integers(1, 50),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_it_finds_what_was_written(
    written: list[tuple[Series, int, float]],
    late_from: int,
    unpacked: set[int],
    tags: list[str],
    step_minutes: int,
    limit: int,
) -> None:
    """Whatever the ids, the gaps between them, the lines and units of a tag, and what is folded and
    packed."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        path = Path(folder) / "store.db"
        asyncio.run(write(path, written, late_from))
        unpack(path, unpacked)
        reader = StoreReader(path)
        mine = [
            (ts_ms, series.tag, value)
            for series, ts_ms, value in written
            if series.device == "PUMP01" and series.tag in tags
        ]
        found = reader.samples(*HERE, tags, *EVER)
        pairs = {
            (ts_ms, tag, value)
            for tag, columns in found.items()
            for ts_ms, value in zip(*columns, strict=True)
        }
        assert pairs == set(mine)
        assert all(columns[0].tolist() == sorted(columns[0]) for columns in found.values())
        assert reader.newest_samples(*HERE, tags, limit) == sorted(mine, reverse=True)[:limit]

        folded = written[:late_from]
        for table, part_ms, step_ms in (
            ("minute", MINUTE_MS, step_minutes * MINUTE_MS),
            ("hour", HOUR_MS, 2 * HOUR_MS),
        ):
            groups: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)
            for series, ts_ms, value in folded:
                if series.device == "PUMP01" and series.tag in tags:
                    groups[series.tag, ts_ms // step_ms * step_ms].append((ts_ms, value))
            steps = reader.steps(table, *HERE, tags, *EVER, step_ms)  # type: ignore[arg-type]
            rows = {
                (tag, start_ms): row
                for tag, columns in steps.items()
                for start_ms, *row in zip(*columns, strict=True)
            }
            assert rows.keys() == groups.keys()
            for key, group in groups.items():
                values = [value for _, value in group]
                average, lowest, highest, count, parts = rows[key]
                wanted = math.fsum(value / len(values) for value in values)
                scale = max(map(abs, values))
                assert average == pytest.approx(wanted, rel=1e-9, abs=1e-9 * scale + 1e-9)
                assert (lowest, highest, count) == (min(values), max(values), len(values))
                minutes = len({ts_ms // part_ms for ts_ms, _ in group})
                # Two units of one tag in one part may count it twice.
                assert minutes <= parts <= min(2 * minutes, step_ms // part_ms)

        averages = reader.averages(*EVER)
        assert averages.keys() == {(s.site, s.device, s.tag) for s, _, _ in folded}
        for (_, device, tag), (times, _) in averages.items():
            starts = {t // MINUTE_MS for s, t, _ in folded if (s.device, s.tag) == (device, tag)}
            assert times.tolist() == [minute * MINUTE_MS for minute in sorted(starts)]


def test_neighbours_are_sought_together() -> None:
    """A gap that is cheaper to read over than to seek anew does not end a run."""
    gap = search.GAP_MAX
    assert search._runs([1, 2, 3, 3 + gap, 4 + 2 * gap, 9 + 9 * gap]) == [
        [1, 3 + gap],
        [4 + 2 * gap, 4 + 2 * gap],
        [9 + 9 * gap, 9 + 9 * gap],
    ]
    assert search._runs([]) == []


def test_neighbouring_hours_of_the_same_series_are_read_together() -> None:
    """And only those: the next hour may lack the blobs of other series."""
    hours = {7: [1, 2], 8: [1, 2], 9: [2], 11: [2], 12: [1, 2]}
    assert list(search._spans(hours)) == [
        (7, 9, [1, 2]),
        (9, 10, [2]),
        (11, 12, [2]),
        (12, 13, [1, 2]),
    ]
    assert list(search._spans({})) == []


def test_of_a_repeated_time_the_later_value_counts(tmp_path: Path) -> None:
    """It may still be in the tail, when the earlier one has been folded long ago."""
    path = tmp_path / "store.db"
    asyncio.run(write(path, [(A, NOON_MS, 1.0), (A, NOON_MS + 1, 2.0), (A, NOON_MS, 3.0)], 2))
    reader = StoreReader(path)
    assert reader.samples(*HERE, ["A"], *EVER)["A"][1].tolist() == [3.0, 2.0]
    assert reader.newest_samples(*HERE, ["A"], 5) == [
        (NOON_MS + 1, "A", 2.0),
        (NOON_MS, "A", 3.0),
    ]


def test_a_damaged_slice_or_batch_costs_only_itself(tmp_path: Path) -> None:
    """The rest of the range is answered."""
    path = tmp_path / "store.db"
    written = [(A, NOON_MS + n * MINUTE_MS, float(n)) for n in range(6)]
    asyncio.run(write(path, written, 4))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE raw SET data = zeroblob(20) WHERE slot = (SELECT min(slot) FROM raw)")
        db.execute("UPDATE tail SET data = zeroblob(20)")
    reader = StoreReader(path)
    assert reader.samples(*HERE, ["A"], *EVER)["A"][1].tolist() == [1.0, 2.0, 3.0]
    assert [row[2] for row in reader.newest_samples(*HERE, ["A"], 2)] == [3.0, 2.0]


def test_a_reader_gives_up_at_its_deadline(tmp_path: Path) -> None:
    """Instead of reading on for somebody who has left long ago."""
    path = tmp_path / "store.db"
    asyncio.run(write(path, [(A, NOON_MS, 1.0)], 1))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("INSERT INTO hour VALUES (?, 1, 1, 1, 1, 0, 1)", (1 << 60,))
    for table in BUCKET_MS:
        with pytest.raises(TransientError, match="no answer within"):
            StoreReader(path, timeout_s=0.05).steps(table, *HERE, ["A"], *EVER, HOUR_MS)


def test_where_each_table_begins(tmp_path: Path) -> None:
    """None for what is empty; the tail counts for none of them."""
    path = tmp_path / "store.db"
    asyncio.run(write(path, [(A, NOON_MS + 90 * MINUTE_MS + 5, 1.0)], 0))
    assert StoreReader(path).oldest() == (None, None, None)
    path.unlink()
    asyncio.run(write(path, [(A, NOON_MS + 90 * MINUTE_MS + 5, 1.0)], 1))
    minute_ms = NOON_MS + 90 * MINUTE_MS
    assert StoreReader(path).oldest() == (minute_ms, minute_ms, NOON_MS + HOUR_MS)
