"""History out of the embedded store, by one thread of its own.

A call that is cancelled while it waits for the thread is never begun; one that runs is finished,
or ended by SQLite at its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from dashboard.data.base import (
    Buckets,
    Check,
    Kept,
    Minutes,
    Newest,
    Row,
    Samples,
    is_by_hours,
)
from edge_agent.clock import HOUR_MS
from edge_agent.errors import TransientError
from edge_agent.model import Series, TagKey
from edge_agent.store.reader import StoreReader
from edge_agent.store.search import Table

CALL_TIMEOUT_S: Final = 10.0
"""Seven days of five tags take 0.1 s from memory and some seconds from a cold memory card."""

_FILES = ("", "-wal")
_NEVER_MS: Final = 1 << 60
"""Later than any sample."""

Result = TypeVar("Result")


class StoreHistory:
    """The store at ``path``, which need not be there yet, and may be replaced at any time."""

    name = "store"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-history")
        self._reader = StoreReader(path, timeout_s=CALL_TIMEOUT_S)  # the thread's alone

    async def close(self) -> None:
        """Nothing that waits is begun any more. Never raises."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def minutes(
        self, start_ms: int, end_ms: int, tags: Collection[TagKey] | None = None
    ) -> Mapping[TagKey, Minutes]:
        """One-minute averages of these tags, or of all."""
        found = await self._run(lambda: self._reader.averages(start_ms, end_ms, tags))
        return {TagKey(*name): Minutes(*columns) for name, columns in found.items()}

    async def newest(self, since_ms: int) -> list[Newest]:
        """The newest sample, not older than ``since_ms``, of every tag that has one."""
        found: dict[TagKey, Newest] = {}
        for series, ts_ms, value in await self._run(self._reader.latest):
            key = series.key
            if ts_ms >= since_ms and (key not in found or ts_ms >= found[key].ts_ms):
                found[key] = Newest(series, ts_ms, value)
        return list(found.values())

    async def buckets(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int, step_ms: int
    ) -> Mapping[str, Buckets]:
        """Aggregates of one device's tags, averages weighted by samples."""
        table: Table = "hour" if is_by_hours(step_ms) else "minute"
        found = await self._run(
            lambda: self._reader.steps(table, site, device, tags, start_ms, end_ms, step_ms)
        )
        return {
            tag: Buckets(steps.starts_ms, steps.averages, steps.lowest, steps.highest, steps.parts)
            for tag, steps in found.items()
        }

    async def samples(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Samples]:
        """Every sample of one device's tags in the range."""
        found = await self._run(lambda: self._reader.samples(site, device, tags, start_ms, end_ms))
        return {tag: Samples(*columns) for tag, columns in found.items()}

    async def counts(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> Mapping[str, int]:
        """How many samples the minutes of a range have."""
        found = await self._run(
            lambda: self._reader.steps("minute", site, device, tags, start_ms, end_ms, HOUR_MS)
        )
        return {tag: sum(steps.samples) for tag, steps in found.items()}

    async def kept(self) -> Kept:
        """Since when there are samples and minutes."""
        oldest = await self._run(self._reader.oldest)
        hour_ms, minute_ms, raw_ms = oldest.hour_ms, oldest.minute_ms, oldest.raw_ms
        if hour_ms is None:
            return Kept(0, 0)  # all there is is still in the tail
        has_all_minutes = minute_ms is not None and minute_ms < hour_ms + HOUR_MS
        has_all_samples = has_all_minutes and raw_ms == minute_ms
        return Kept(
            0 if has_all_samples else raw_ms if raw_ms is not None else _NEVER_MS,
            0 if has_all_minutes else minute_ms if minute_ms is not None else _NEVER_MS,
        )

    async def seen(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> set[str]:
        """Which of these tags have samples in any of the hours that begin in the range."""
        found = await self._run(
            lambda: self._reader.steps("hour", site, device, tags, start_ms, end_ms, HOUR_MS)
        )
        return set(found)

    async def series(self, site: str, device: str, tags: Sequence[str]) -> Mapping[str, Series]:
        """Line and unit of one device's tags, as the newest sample of each has them."""
        wanted = set(tags)
        newest = await self._run(lambda: self._reader.latest(site=site, device=device))
        newest.sort(key=lambda sample: sample.ts_ms)
        return {row.series.tag: row.series for row in newest if row.series.tag in wanted}

    async def rows(self, site: str, device: str, tags: Sequence[str], limit: int) -> list[Row]:
        """The newest samples of these tags together, newest first."""
        found = await self._run(lambda: self._reader.newest_samples(site, device, tags, limit))
        return [Row(ts_ms, tag, value) for ts_ms, tag, value in found]

    async def health(self) -> list[Check]:
        """Sizes, and since when there is what."""
        return await self._run(self._health)

    def _health(self) -> list[Check]:
        oldest = self._reader.oldest()
        checks = []
        for suffix in _FILES:
            file = self._path.with_name(self._path.name + suffix)
            if file.exists():
                checks.append(Check("file_bytes", file.name, float(file.stat().st_size), None))
        for table, start_ms in zip(("raw", "minute", "hour"), oldest, strict=True):
            if start_ms is not None:
                checks.append(Check("oldest_ms", table, float(start_ms), None))
        return checks

    async def _run(self, job: Callable[[], Result]) -> Result:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._thread, job)
        except TimeoutError as error:
            raise TransientError(
                f"store {self._path}: no answer within {CALL_TIMEOUT_S:g} s",
                hint="is its disk busy? ask for a shorter range, or for fewer tags",
            ) from error
