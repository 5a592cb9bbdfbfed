"""The journal's thread, and work that ends even if nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """One thread, which does one thing after the other: the file belongs to it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="journal")

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """Do it in the thread, to the end even if the caller is cancelled."""
        loop = asyncio.get_running_loop()
        return await to_the_end(loop.run_in_executor(self._pool, call, *arguments))

    def end(self) -> None:
        """After what is running."""
        self._pool.shutdown()


async def to_the_end(work: Awaitable[T]) -> T:
    """Await it; a caller that is cancelled meanwhile stays so, and waits all the same."""
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError):  # once more: it is known by now
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # nobody is left who could be told
        raise
