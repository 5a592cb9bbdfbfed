"""The contract of `edge_agent.sinks.base.Sink`, held by every sink against its real destination."""

from __future__ import annotations

import asyncio
import math
import struct
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest

from edge_agent.errors import TransientError
from edge_agent.model import Batch, Series
from edge_agent.sinks.base import JournalIdentity, Sink
from tests.batches import BatchMaker, Sample, make_series, samples_of
from tests.integration.sink_harnesses import HARNESSES, Harness
from tests.waiting import until

JOURNAL = JournalIdentity("agent", "journal-1")
START_MS = time.time_ns() // 1_000_000_000 * 1000 - 3_600_000
"""An hour ago: a time that every destination takes."""
OPEN_TIMEOUT_S = 5.0
DELIVER_TIMEOUT_S = 40.0

PRESS, TEMP = make_series("PRESS"), make_series("TEMP", unit="°C")


@pytest.fixture(scope="module", params=HARNESSES)
def destination(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Harness]:
    made = HARNESSES[request.param](tmp_path_factory.mktemp(request.param))
    yield made
    made.shut_down()


@pytest.fixture
async def harness(destination: Harness) -> AsyncIterator[Harness]:
    async with destination.fresh():
        yield destination


@asynccontextmanager
async def opened(sink: Sink, journal: JournalIdentity = JOURNAL) -> AsyncIterator[Sink]:
    """The sink, open within the block."""
    await sink.open(journal)
    try:
        yield sink
    finally:
        await sink.close()


async def deliver(sink: Sink, batches: Sequence[Batch], *, is_new: bool = True) -> None:
    """Deliver; if nothing of it was handed before, the destination had none of it."""
    async with asyncio.timeout(DELIVER_TIMEOUT_S):
        already_there = await sink.deliver(batches)
    assert 0 <= already_there <= (0 if is_new else sum(map(len, batches)))


def by_series(samples: Sequence[Sample]) -> dict[Series, list[tuple[int, bytes]]]:
    """Per series, times and values bit by bit, in the order they are in."""
    found: dict[Series, list[tuple[int, bytes]]] = defaultdict(list)
    for series, ts_ms, value in samples:
        found[series].append((ts_ms, struct.pack("d", value)))
    return found


async def assert_arrived(
    harness: Harness, batches: Sequence[Batch], *, after_failure: bool = False
) -> None:
    """All samples are there, in order per tag, with their values; repeats only if declared."""
    expected, found = samples_of(batches), await harness.received()
    if not harness.keeps_sign_of_zero:
        expected, found = (
            [(series, ts_ms, value + 0.0) for series, ts_ms, value in samples]
            for samples in (expected, found)
        )
    wanted, arrived = by_series(expected), by_series(found)
    if after_failure and harness.repeats_after_failure:
        # A repeat starts over from where nothing was confirmed: what counts is that each sample
        # came, and that every first arrival was in order.
        arrived = {series: list(dict.fromkeys(column)) for series, column in arrived.items()}
    assert arrived == wanted


def scans(
    make: BatchMaker, first: int, count: int, tags: Sequence[Series] = (PRESS, TEMP)
) -> Batch:
    """A batch of scans numbered from ``first``; no two of a tag's samples are equal."""
    return make(
        (series, START_MS + scan * 10, scan + place / 7)
        for scan in range(first, first + count)
        for place, series in enumerate(tags)
    )


async def test_delivers(harness: Harness) -> None:
    """Several batches in one call, then more in another: all there, in order."""
    make = BatchMaker()
    batches = [scans(make, n * 5, 5) for n in range(6)]
    async with opened(harness.make_sink()) as sink:
        await deliver(sink, batches[:4])
        await deliver(sink, batches[4:])
    await assert_arrived(harness, batches)


async def test_nothing_to_deliver_is_no_error(harness: Harness) -> None:
    """An empty list is delivered at once."""
    async with opened(harness.make_sink()) as sink:
        await deliver(sink, [])
        await deliver(sink, [])
    assert await harness.received() == []


async def test_values_arrive_bit_by_bit(harness: Harness) -> None:
    """Tiny, huge, negative zero, integers, and what decimal fractions make of binary ones."""
    values = [0.0, -0.0, 1.0, -1.0, 0.1, 0.1 + 0.2, 1 / 3, 5e-324, 2.2250738585072014e-308]
    values += [math.ldexp(1 - 2**-53, 1024), -1e308, 2.0**53, 2.0**64, 1e15 + 0.3, 65535.0, 1e-7]
    batch = BatchMaker()((PRESS, START_MS + n, value) for n, value in enumerate(values))
    async with opened(harness.make_sink()) as sink:
        await deliver(sink, [batch])
    await assert_arrived(harness, [batch])


async def test_names_arrive_as_they_are(harness: Harness) -> None:
    """Korean, spaces, quotes, every format's separators; no line, no unit."""
    texts = ["압력 1", 'a"b', "a'b", "a,b=c d", "a\\b", "x{y}%s$1", "ß–é", "🙂", "a|b;c&d"]
    tags = [Series("공장", "L 1", "펌프" + text, text, "℃" + text) for text in texts]
    tags += [Series("A1", "", "DEV", "no line", "bar"), Series("A1", "L1", "DEV", "no unit", "")]
    batch = scans(BatchMaker(), 0, 3, tags)
    async with opened(harness.make_sink()) as sink:
        await deliver(sink, [batch])
    await assert_arrived(harness, [batch])


async def test_a_large_delivery(harness: Harness) -> None:
    """50,000 samples in one call."""
    make = BatchMaker()
    tags = [make_series(f"T{n:03}") for n in range(100)]
    batches = [scans(make, n * 50, 50, tags) for n in range(10)]
    async with opened(harness.make_sink()) as sink:
        await deliver(sink, batches)
    await assert_arrived(harness, batches)


async def test_series_that_appear_later(harness: Harness) -> None:
    """The map of series grows while the sink is open."""
    make = BatchMaker()
    batches = []
    async with opened(harness.make_sink()) as sink:
        for n in range(3):
            tags = [make_series(f"T{k}") for k in range(n + 1)]
            batches.append(scans(make, n * 5, 5, tags))
            await deliver(sink, batches[-1:])
    await assert_arrived(harness, batches)


async def test_a_fresh_journal_with_the_same_numbers_is_not_old_data(harness: Harness) -> None:
    """Sequence numbers and series ids mean something within one journal only."""
    first, second = scans(BatchMaker(), 0, 5, [PRESS]), scans(BatchMaker(), 5, 5, [TEMP])
    assert first.sequence == second.sequence
    assert first.series_ids[0] == second.series_ids[0]
    sink = harness.make_sink()
    async with opened(sink):
        await deliver(sink, [first])
    async with opened(sink, JournalIdentity("agent", "journal-2")):
        await deliver(sink, [second])
    await assert_arrived(harness, [first, second])


async def test_what_is_handed_again_is_taken_again_without_complaint(harness: Harness) -> None:
    """The runner may have lost the acknowledgement; the destination ends up the same."""
    make = BatchMaker()
    batches = [scans(make, n * 5, 5) for n in range(4)]
    sink = harness.make_sink()
    async with opened(sink):
        await deliver(sink, batches[:2])
    async with opened(sink):
        await deliver(sink, batches, is_new=False)
    await assert_arrived(harness, batches, after_failure=True)


async def test_deliver_needs_an_open_sink(harness: Harness) -> None:
    """Before open and after close: TransientError, so that the runner opens."""
    sink = harness.make_sink()
    batch = scans(BatchMaker(), 0, 1)
    with pytest.raises(TransientError):
        await sink.deliver([batch])
    async with opened(sink):
        pass
    with pytest.raises(TransientError):
        await sink.deliver([batch])


async def test_close_in_any_state(harness: Harness) -> None:
    """Never opened, twice, and after the destination has gone: close just returns."""
    sink = harness.make_sink()
    await sink.close()
    await sink.open(JOURNAL)
    await sink.close()
    await sink.close()
    await sink.open(JOURNAL)
    await harness.stop()
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            await sink.close()
    finally:
        await harness.start()


async def test_open_while_the_destination_is_down(harness: Harness) -> None:
    """TransientError soon; once it is up again the same sink opens and delivers."""
    sink = harness.make_sink()
    batch = scans(BatchMaker(), 0, 5)
    await harness.stop()
    try:
        for _ in range(2):
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                with pytest.raises(TransientError):
                    await sink.open(JOURNAL)
            await sink.close()
    finally:
        await harness.start()
    async with opened(sink):
        await deliver(sink, [batch])
    await assert_arrived(harness, [batch])


async def test_the_destination_goes_away_under_deliveries(harness: Harness) -> None:
    """TransientError; after its return the same batches succeed, and nothing is missing."""
    make = BatchMaker()
    handed: list[Batch] = []
    sink = harness.make_sink()

    async def deliver_for_ever() -> None:
        while True:
            handed.append(scans(make, len(handed) * 50, 50))
            await sink.deliver(handed[-1:])
            await asyncio.sleep(0)

    await sink.open(JOURNAL)
    delivering = asyncio.create_task(deliver_for_ever())
    await until(lambda: len(handed) >= 10 or delivering.done(), within_s=DELIVER_TIMEOUT_S)
    await harness.stop()
    try:
        with pytest.raises(TransientError):
            await asyncio.wait_for(delivering, DELIVER_TIMEOUT_S)
        await sink.close()
    finally:
        await harness.start()
    async with opened(sink):
        await deliver(sink, handed[-1:], is_new=False)
        handed.append(scans(make, len(handed) * 50, 50))
        await deliver(sink, handed[-1:])
    await assert_arrived(harness, handed, after_failure=True)


@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.01, 0.03])
async def test_cancelled_in_the_middle(harness: Harness, delay_s: float) -> None:
    """Cancelling is safe: close, open, and the same batches again, nothing is missing or lost."""
    make = BatchMaker()
    tags = [make_series(f"T{n:03}") for n in range(50)]
    batches = [scans(make, n * 20, 20, tags) for n in range(5)]
    sink = harness.make_sink()
    await sink.open(JOURNAL)
    delivering = asyncio.create_task(sink.deliver(batches))
    await asyncio.sleep(delay_s)
    delivering.cancel()
    await asyncio.wait([delivering], timeout=DELIVER_TIMEOUT_S)
    assert delivering.cancelled() or delivering.result() == 0
    await sink.close()
    async with opened(sink):
        await deliver(sink, batches, is_new=False)
    await assert_arrived(harness, batches, after_failure=True)
