"""Packed hours: each is what its minute rows are, whoever wrote, expired, shed or crashed."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.clock import HOUR_MS, MINUTE_MS
from edge_agent.model import Batch, Series
from edge_agent.sinks.store import StoreSink
from edge_agent.store import fold, layout, packing, upkeep
from edge_agent.store.layout import Minutes, bucket_of, series_id_of
from edge_agent.store.reader import Bucket, StoreReader
from tests.batches import NOON_MS, BatchMaker, Sample, make_series
from tests.unit.test_store import EVER, JOURNAL, Clock, memory_folder, query

PRESS, TEMP, FLOW = make_series("PRESS"), make_series("TEMP"), make_series("FLOW", "PUMP02")


def without_packing(path: Path) -> None:
    """Make of a store what a version that knows no packed hours leaves."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        found = "SELECT type, name FROM sqlite_master WHERE type = ? OR name LIKE '%packed'"
        for kind, name in db.execute(found, ("trigger",)).fetchall():
            db.execute(f"DROP {kind} {name}")


def packed_hours(path: Path) -> dict[int, Minutes]:
    """Every packed hour by its slot."""
    rows = query(path, "SELECT slot, data FROM packed ORDER BY slot")
    return {slot: layout.unpack_minutes(bucket_of(slot), data) for slot, data in rows}  # type: ignore[arg-type, misc]


def assert_invariants(path: Path) -> None:
    """What the design promises to hold after every commit."""
    minutes: dict[int, list[tuple[object, ...]]] = defaultdict(list)
    for slot, *columns in query(path, "SELECT * FROM minute ORDER BY slot"):
        avg, least, greatest, last, _, samples = columns
        number = bucket_of(slot)  # type: ignore[arg-type]
        key = layout.hour_slot_of(slot)  # type: ignore[arg-type]
        minutes[key].append((number, avg, least, greatest, last, samples))
    packed = packed_hours(path)
    for slot, found in packed.items():
        assert list(zip(*found, strict=True)) == minutes[slot]
    unpacked = {slot for (slot,) in query(path, "SELECT slot FROM unpacked")}
    assert not unpacked & packed.keys()
    hours: dict[object, object] = dict(query(path, "SELECT slot, samples FROM hour"))  # type: ignore[arg-type]
    assert minutes.keys() <= hours.keys()
    whole = {slot for slot, rows in minutes.items() if sum(row[-1] for row in rows) == hours[slot]}  # type: ignore[misc]
    assert whole <= unpacked | packed.keys()
    slices = {slot for (slot,) in query(path, "SELECT slot FROM raw")}
    assert slices <= {slot for (slot,) in query(path, "SELECT slot FROM minute")}


def assert_read_as_it_stands(path: Path) -> None:
    """The reader's minutes are the minute rows, wherever it takes them from."""
    reader = StoreReader(path)
    for number, series in query(path, "SELECT id, tag FROM series"):
        rows = query(
            path,
            "SELECT (slot >> 24) * 60000, avg, min, max, last, samples FROM minute"
            f" WHERE slot & 16777215 = {number} ORDER BY slot",
        )
        (found,) = (known for known in reader.series() if known.tag == series)
        assert reader.minutes(found, *EVER) == [Bucket(*row) for row in rows]  # type: ignore[arg-type]


# The model: after each commit of any of these, the invariants hold.

samples = st.tuples(
    st.sampled_from([PRESS, TEMP, FLOW]),
    st.builds(
        lambda hour, minute, ms: NOON_MS + hour * HOUR_MS + minute * MINUTE_MS + ms,
        st.integers(-2, 2),
        st.sampled_from([0, 1, 59]),
        st.sampled_from([0, 1, 59_999]),
    ),
    st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, 1.0, 0.1, 1e308])),
)
events = ["maintain", "an hour later", "crash", "shed", "the clock jumps ahead", "older version"]
actions = st.lists(
    st.one_of(
        st.lists(samples, min_size=1, max_size=8),
        st.sampled_from(["maintain", *events, "newer version"]),
    ),
    min_size=5,
    max_size=25,
)


async def play(path: Path, script: Sequence[list[Sample] | str]) -> None:
    """Do what the script says with a store that forgets minutes after four hours."""
    clock, make = Clock(), BatchMaker()
    with ExitStack() as version:

        async def reopened(sink: StoreSink | None) -> StoreSink:
            if sink is not None:
                await sink.close()
            sink = clock.open_store(path, raw_hours=2, minute_days=4 / 24)
            await sink.open(JOURNAL)
            return sink

        async def maintain(sink: StoreSink, steps: int = 1000) -> None:
            for _ in range(steps):
                if not await sink._run(sink._step):
                    break
                assert_invariants(path)

        sink = await reopened(None)
        for action in script:
            if isinstance(action, list):
                await sink.deliver([make(action)])
            elif action == "maintain":
                clock.advance(MINUTE_MS)
                await maintain(sink)
            elif action == "an hour later":
                clock.advance(HOUR_MS)
            elif action == "the clock jumps ahead":
                clock.now_ms += 2 * HOUR_MS
                await maintain(sink)
                clock.now_ms -= 2 * HOUR_MS
            elif action == "crash":
                clock.advance(10 * MINUTE_MS)
                await maintain(sink, steps=3)
                sink = await reopened(sink)
            elif action == "shed":
                with patch.object(upkeep, "SHED_ABOVE", 0), patch.object(upkeep, "SHED_TO", 0):
                    await maintain(sink, steps=4)
                sink = await reopened(sink)
            elif (
                action == "older version"
            ):  # it folds, expires and sheds as ever, and packs nothing
                version.enter_context(patch.object(packing.Packing, "work", lambda *_: iter(())))
            else:
                version.close()
            assert_invariants(path)
        version.close()
        clock.advance(HOUR_MS)
        await maintain(sink)
        await sink.close()
    closed = (clock.now_ms - packing.PACKING_GRACE_MS) // HOUR_MS
    assert all(bucket_of(slot) >= closed for (slot,) in query(path, "SELECT slot FROM unpacked"))  # type: ignore[arg-type]
    assert_read_as_it_stands(path)


@given(actions)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_packed_hour_is_its_minute_rows(script: list[list[Sample] | str]) -> None:
    """Late, repeated, crashed between two steps, expired, shed, folded by an older version or under
    a wrong clock: after every commit a packed hour equals its rows, bit by bit; in the end every
    closed hour is packed."""
    with (
        memory_folder() as folder,
        patch.object(fold, "SLICES_PER_STEP", 2),
        patch.object(packing, "HOURS_PER_STEP", 2),
        patch.object(upkeep, "ROWS_PER_STEP", 3),
    ):
        asyncio.run(play(Path(folder) / "store.db", script))


# When it packs, and how much at a time


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def scans(make: BatchMaker, hours: int, series: Sequence[Series]) -> Iterator[Batch]:
    """A sample every ten minutes."""
    for n in range(0, hours * HOUR_MS, 10 * MINUTE_MS):
        yield make((one, NOON_MS + n, float(n)) for one in series)


async def write(path: Path, clock: Clock, make: BatchMaker) -> StoreSink:
    """An open store of two hours that are over, folded and packed."""
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    await sink.deliver(list(scans(make, 2, [PRESS, TEMP])))
    clock.advance(2 * HOUR_MS + packing.PACKING_GRACE_MS)
    await sink.maintain()
    return sink


async def test_an_hour_is_packed_when_it_has_been_over_for_a_while(path: Path) -> None:
    """What comes a little late costs no second blob."""
    clock, make = Clock(), BatchMaker()
    sink = await write(path, clock, make)
    assert len(packed_hours(path)) == 4
    await sink.deliver([make([(PRESS, clock.now_ms, 1.0)])])
    clock.advance(HOUR_MS - 1)
    await sink.maintain()
    assert len(packed_hours(path)) == 4
    clock.advance(1)
    await sink.maintain()
    assert len(packed_hours(path)) == 5
    await sink.close()


async def test_packing_goes_in_bounded_steps_and_rounds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that neither deliveries nor the next fold wait for the top of an hour."""
    monkeypatch.setattr(packing, "HOURS_PER_STEP", 2)
    monkeypatch.setattr(packing, "HOURS_PER_ROUND_MAX", 6)
    clock = Clock()
    sink = clock.open_store(path)
    await sink.open(JOURNAL)
    tags = [make_series(f"T{n}") for n in range(5)]
    await sink.deliver(list(scans(BatchMaker(), 2, tags)))
    clock.advance(4 * HOUR_MS)
    counts = [0]
    while await sink._run(sink._step):
        counts.append(len(packed_hours(path)))
    assert max(after - before for before, after in itertools.pairwise(counts)) == 2
    assert counts[-1] == 5  # a step stays within one hour: two, two and one
    await sink.maintain()
    await sink.maintain()
    assert len(packed_hours(path)) == 10
    assert query(path, "SELECT count(*) FROM unpacked") == [(0,)]
    await sink.close()


async def test_an_hour_whose_minutes_are_gone_is_not_packed(path: Path) -> None:
    """Nor does it stay in the list for ever."""
    clock, make = Clock(), BatchMaker()
    sink = await write(path, clock, make)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE minute SET samples = 9")
        assert packed_hours(path) == {}
        db.execute("DELETE FROM minute WHERE slot & 16777215 = 1")
    assert query(path, "SELECT count(*) FROM unpacked") == [(4,)]
    await sink.maintain()
    await sink.close()
    assert {series_id_of(slot) for slot in packed_hours(path)} == {2}
    assert query(path, "SELECT count(*) FROM unpacked") == [(0,)]


async def test_late_samples_unpack_their_hour_until_it_is_packed_anew(path: Path) -> None:
    """By the transaction that changes the minute; the hour's other series keep their blobs."""
    clock, make = Clock(), BatchMaker()
    sink = await write(path, clock, make)
    before = packed_hours(path)
    await sink.deliver([make([(PRESS, NOON_MS + 1, 5.0), (PRESS, NOON_MS + MINUTE_MS, 6.0)])])
    clock.advance(MINUTE_MS + fold.CLOSING_GRACE_MS)
    assert await sink._run(sink._step)
    changed = {slot for slot in before if slot not in packed_hours(path)}
    assert [(bucket_of(slot), series_id_of(slot)) for slot in changed] == [(NOON_MS // HOUR_MS, 1)]
    assert_read_as_it_stands(path)
    await sink.maintain()
    await sink.close()
    (slot,) = changed
    after = packed_hours(path)
    assert after.keys() == before.keys()
    assert after[slot].samples.tolist() == [2, 1, 1, 1, 1, 1, 1]
    assert_invariants(path)


# What it is for, and files without it


async def test_closed_hours_are_read_from_their_blobs(path: Path) -> None:
    """All but the ends of the range costs no look at minute rows."""
    clock, make = Clock(), BatchMaker()
    sink = await write(path, clock, make)
    await sink.close()
    reader = StoreReader(path)
    asked = (NOON_MS + 15 * MINUTE_MS, NOON_MS + HOUR_MS + 31 * MINUTE_MS)
    minutes = reader.minutes(PRESS, *asked)
    steps = reader.steps("minute", "A1", "PUMP01", ["PRESS", "TEMP"], *asked, 7 * MINUTE_MS)
    assert [row.start_ms for row in minutes] == [
        NOON_MS + n * MINUTE_MS for n in (20, 30, 40, 50, 60, 70, 80, 90)
    ]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TRIGGER minute_deleted")
        db.execute("DELETE FROM minute")
    assert reader.minutes(PRESS, *asked) == minutes
    found = reader.steps("minute", "A1", "PUMP01", ["PRESS", "TEMP"], *asked, 7 * MINUTE_MS)
    assert found == steps
    assert sum(found["TEMP"].parts) == 8


async def test_a_damaged_blob_costs_nothing(path: Path) -> None:
    """The rows of its minutes are there; a late sample writes it anew."""
    clock, make = Clock(), BatchMaker()
    sink = await write(path, clock, make)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE packed SET data = zeroblob(100)")
    assert_read_as_it_stands(path)
    late = [(series, NOON_MS + hour * HOUR_MS, 1.0) for series in (PRESS, TEMP) for hour in (0, 1)]
    await sink.deliver([make(late)])
    clock.advance(MINUTE_MS + fold.CLOSING_GRACE_MS)
    await sink.maintain()
    await sink.close()
    assert len(packed_hours(path)) == 4
    assert_invariants(path)


async def test_a_store_of_an_older_version_goes_on(path: Path) -> None:
    """Its hours are read from their rows as ever; new ones, and those that change, are packed."""
    clock, make = Clock(), BatchMaker()
    sink = await write(path, clock, make)
    await sink.close()
    without_packing(path)
    assert_read_as_it_stands(path)
    await sink.open(JOURNAL)
    assert packed_hours(path) == {}
    assert_read_as_it_stands(path)
    await sink.deliver([make([(PRESS, NOON_MS, 5.0), (PRESS, NOON_MS + 2 * HOUR_MS, 6.0)])])
    clock.advance(2 * HOUR_MS)
    await sink.maintain()
    await sink.close()
    assert [bucket_of(slot) * HOUR_MS for slot in packed_hours(path)] == [
        NOON_MS,
        NOON_MS + 2 * HOUR_MS,
    ]
    assert_read_as_it_stands(path)


# The bytes

finite = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324]),
)
hours = (
    st.one_of(st.just(range(60)), st.sets(st.integers(0, 59), min_size=1).map(sorted))
    .flatmap(
        lambda numbers: st.tuples(
            st.just(array("q", (60 * 480_000 + number for number in numbers))),
            *(
                st.one_of(
                    st.lists(finite, min_size=len(numbers), max_size=len(numbers)),
                    finite.map(lambda value: [value] * len(numbers)),
                ).map(lambda values: array("d", values))
                for _ in range(4)
            ),
            st.lists(
                st.sampled_from([1, 60, 255, 256, 65_536, 1 << 33]),
                min_size=len(numbers),
                max_size=len(numbers),
            ).map(lambda counts: array("Q", counts)),
        )
    )
    .map(lambda columns: Minutes(*columns))
)


@given(hours)
@settings(deadline=None)
def test_an_hour_is_packed_bit_by_bit(minutes: Minutes) -> None:
    """Whichever of its minutes it has, and whatever kind each column is."""
    found = layout.unpack_minutes(480_000, layout.pack_minutes(minutes))
    assert [column.tobytes() for column in found] == [column.tobytes() for column in minutes]
    assert [column.typecode for column in found] == [column.typecode for column in minutes]


@given(hours, st.data())
@settings(deadline=None)
def test_a_changed_byte_is_noticed(minutes: Minutes, data: st.DataObject) -> None:
    """No packed hour with a flipped or missing byte is taken for minutes."""
    blob = bytearray(layout.pack_minutes(minutes))
    position = data.draw(st.integers(0, len(blob) - 1))
    blob[position] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(blob), bytes(blob[:position])):
        with pytest.raises(layout.DamagedBlob):
            layout.unpack_minutes(480_000, damaged)


def test_two_hours_of_doubles_fit_into_a_page() -> None:
    """What the number of pages that a chart reads is computed from."""
    numbers = array("q", range(60))
    doubles = array("d", [n * 0.1 for n in range(60)])
    singles = array("d", map(float, range(60)))
    counts = array("Q", [59, 60, 61] * 20)
    rows = Minutes(numbers, doubles, doubles, doubles, doubles, counts)
    assert 2 * (len(layout.pack_minutes(rows)) + 16) < 4096
    rows = Minutes(numbers, doubles, singles, singles, singles, counts)
    assert len(layout.pack_minutes(rows)) < 60 * 22
