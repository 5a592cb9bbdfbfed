"""Waiting for a server to get somewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

POLL_S = 0.2


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float) -> bool:
    """Ask again and again; False if it does not hold within the time."""
    deadline_s = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(POLL_S)
    return True
