"""Waiting that ends by itself."""

from __future__ import annotations

import asyncio

import pytest

from edge_agent.waiting import happens

EVER_S = 3600.0


async def test_an_event_ends_the_wait() -> None:
    """Long before its time."""
    event = asyncio.Event()
    waiting = asyncio.ensure_future(happens(event, EVER_S))
    await asyncio.sleep(0)
    assert not waiting.done()
    event.set()
    async with asyncio.timeout(10):
        assert await waiting


async def test_an_event_that_comes_as_the_time_ends_is_not_missed() -> None:
    """Both are due in the same turn of the loop."""
    loop = asyncio.get_running_loop()
    for _ in range(50):
        event = asyncio.Event()
        end = loop.time() + 0.002
        loop.call_at(end, event.set)
        found = await happens(event, end - loop.time())
        assert found is event.is_set()


async def test_time_ends_the_wait() -> None:
    """Of an event that does not come, be the time over already."""
    for within_s in (0.01, 0.0, -1.0):
        async with asyncio.timeout(10):
            assert not await happens(asyncio.Event(), within_s)


async def test_an_event_that_has_come_needs_no_time() -> None:
    """It is not missed where there is nothing to wait for."""
    event = asyncio.Event()
    event.set()
    for within_s in (EVER_S, 0.0, -1.0):
        assert await happens(event, within_s)


async def test_a_cancelled_wait_is_cancelled() -> None:
    """It does not pass for one whose time was over."""
    waiting = asyncio.ensure_future(happens(asyncio.Event(), EVER_S))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
