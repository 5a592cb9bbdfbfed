"""Samples out of the embedded store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from edge_agent.clock import HOUR_MS, MINUTE_MS
from edge_agent.model import TagKey
from edge_agent.quality.collect import Columns, Kept
from edge_agent.quality.figures import Minutes
from edge_agent.store.reader import StoreReader

CALL_TIMEOUT_S: Final = 60.0
"""An hour of a hundred tags takes 0.1 s from memory and some seconds from a cold memory card."""
NEVER_MS: Final = 1 << 60
"""Later than any sample."""


class StoreSource:
    """The store file at ``path``. It is read in this thread: nobody else waits for it."""

    name = "store"

    def __init__(self, path: Path) -> None:
        self._reader = StoreReader(path, timeout_s=CALL_TIMEOUT_S)

    async def close(self) -> None:
        """Nothing is open between calls."""

    async def tags(self, start_ms: int, end_ms: int) -> set[TagKey]:
        """Every tag that has samples in the hours that the range touches."""
        series = {one.key for one in self._reader.series()}
        newest = self._reader.latest()
        live = {one.series.key for one in newest if start_ms <= one.ts_ms < end_ms}
        devices = {(key.site, key.device) for key in series - live}
        first_ms = start_ms // HOUR_MS * HOUR_MS
        for site, device in sorted(devices):
            names = {key.tag for key in series - live if (key.site, key.device) == (site, device)}
            found = self._reader.steps("hour", site, device, names, first_ms, end_ms, HOUR_MS)
            live |= {TagKey(site, device, tag) for tag in found}
        return live

    async def kept(self, start_ms: int) -> Kept:
        """What a range can be judged by."""
        oldest = self._reader.oldest()
        if oldest.minute_ms is None:
            return Kept(0, 0)  # all there is has yet to be folded
        raw_ms = NEVER_MS if oldest.raw_ms is None else oldest.raw_ms
        # The minute in which it begins is no whole one.
        begins_ms = oldest.minute_ms + MINUTE_MS if oldest.minute_ms > start_ms else 0
        return Kept(raw_ms if raw_ms > oldest.minute_ms else 0, begins_ms)

    async def samples(
        self, site: str, device: str, tags: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Columns]:
        """Every sample in the range."""
        return self._reader.samples(site, device, tags, start_ms, end_ms)

    async def minutes(
        self, site: str, device: str, tags: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Minutes]:
        """Every minute that starts in the range and has samples."""
        found = self._reader.steps("minute", site, device, tags, start_ms, end_ms, MINUTE_MS)
        return {
            tag: Minutes(steps.starts_ms, steps.samples, steps.lowest, steps.highest)
            for tag, steps in found.items()
        }
