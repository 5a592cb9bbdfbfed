"""Waiting that ends by itself."""

from __future__ import annotations

import asyncio


async def happens(event: asyncio.Event, within_s: float) -> bool:
    """Wait for an event, at most so long; whether it has come.

    One that is set is found however short the time.
    """
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return event.is_set()  # it may have come in that very moment
