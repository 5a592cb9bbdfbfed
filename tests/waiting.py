"""Waiting for what others do in their own time; `wait_until` of `servers.py` is for who blocks."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from contextlib import suppress

WITHIN_S = 10.0
EVERY_S = 0.001


async def until(
    condition: Callable[[], object],
    what: str = "",
    *,
    within_s: float = WITHIN_S,
    every_s: float = EVERY_S,
) -> None:
    """Let others work until something is so, or can be awaited and is so then.

    ``what`` is for who reads of a failure; where there is none, the condition stands there as
    the test has it.
    """
    deadline = time.monotonic() + within_s
    while not await _holds(condition, deadline - time.monotonic()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s:g} s: {what or _source(condition)}")
        await asyncio.sleep(every_s)


async def _holds(condition: Callable[[], object], within_s: float) -> bool:
    found = condition()
    if not inspect.isawaitable(found):
        return bool(found)
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            return bool(await found)
    return False


def _source(condition: Callable[[], object]) -> str:
    return inspect.getsource(condition).strip()
