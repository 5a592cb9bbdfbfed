"""The memory sink fails as it is told to; the contract itself is in tests/integration."""

from __future__ import annotations

import asyncio

import pytest

from edge_agent.errors import RejectedRow, RejectedRows, TransientError
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.memory import MemorySink
from tests.batches import NOON_MS, BatchMaker, make_series

JOURNAL = JournalIdentity("agent", "journal-1")
PRESS, TEMP = make_series("PRESS"), make_series("TEMP")


async def test_rejected_series_are_named_and_the_rest_is_kept() -> None:
    """Each rejected row carries its place and the reason, also when the batch comes again."""
    sink = MemorySink()
    sink.rejects[TEMP] = "not allowed"
    batch = BatchMaker()([(PRESS, NOON_MS, 1.0), (TEMP, NOON_MS, 2.0), (PRESS, NOON_MS + 1, 3.0)])
    await sink.open(JOURNAL)
    for _ in range(2):
        with pytest.raises(RejectedRows) as caught:
            await sink.deliver([batch])
        assert caught.value.rows == (RejectedRow(1, 1, "not allowed"),)
    assert sink.samples == [(PRESS, NOON_MS, 1.0), (PRESS, NOON_MS + 1, 3.0)]


async def test_a_lost_acknowledgement_keeps_the_samples_once() -> None:
    """The delivery fails after it has taken place; the repeat adds nothing."""
    sink = MemorySink()
    sink.loses_acknowledgement = True
    batch = BatchMaker()([(PRESS, NOON_MS, 1.0)])
    await sink.open(JOURNAL)
    with pytest.raises(TransientError):
        await sink.deliver([batch])
    sink.loses_acknowledgement = False
    await sink.open(JOURNAL)
    assert await sink.deliver([batch]) == 0
    assert len(sink.samples) == 1


async def test_going_down_under_a_slow_delivery_keeps_nothing_of_it() -> None:
    """All of a delivery's samples, or none."""
    sink = MemorySink()
    await sink.open(JOURNAL)
    sink.delay_s = 0.001
    delivering = asyncio.create_task(sink.deliver([BatchMaker()([(PRESS, NOON_MS, 1.0)])]))
    await asyncio.sleep(0)
    sink.is_down = True
    with pytest.raises(TransientError):
        await delivering
    assert sink.samples == []
