"""Sink `memory`: keeps what it was handed, and fails on demand.

A real sink for tests of whatever stands before it; it grows without bound and is gone with the
process. Guarantee: exactly once while it lives, like the store: batches at or below the cursor of
their journal are skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from edge_agent.errors import RejectedRow, RejectedRows, TransientError
from edge_agent.model import Batch, Series
from edge_agent.sinks.base import JournalIdentity


class MemorySink:
    """Set the public attributes at any time; the next thing done obeys them.

    ``is_down``: nothing opens, and what is being delivered fails. ``delay_s``: how long a delivery
    takes. ``loses_acknowledgement``: a delivery is kept, and then fails. ``rejects``: why the
    samples of a series are refused for good.
    """

    name = "memory"

    def __init__(self) -> None:
        self.is_down = False
        self.delay_s = 0.0
        self.loses_acknowledgement = False
        self.rejects: dict[Series, str] = {}
        self.samples: list[tuple[Series, int, float]] = []
        """Series, time in ms and value of every sample kept, in order of arrival."""
        self._cursors: dict[JournalIdentity, int] = {}
        self._journal: JournalIdentity | None = None

    async def open(self, journal: JournalIdentity) -> None:
        """Raises ``TransientError`` while the sink is down."""
        self._journal = None
        self._check_up()
        self._journal = journal

    async def deliver(self, batches: Sequence[Batch]) -> int:
        """Keep all samples at once, or none. Raises ``TransientError`` or ``RejectedRows``."""
        if self._journal is None:
            raise TransientError("memory sink is not open")
        self._check_up()
        await asyncio.sleep(self.delay_s)
        self._check_up()
        rejected = self._keep(batches, self._journal)
        if self.loses_acknowledgement:
            raise TransientError("memory sink has kept the batches and lost the acknowledgement")
        if rejected:
            raise RejectedRows(rejected)
        return 0

    async def close(self) -> None:
        """What was kept stays."""
        self._journal = None

    def _check_up(self) -> None:
        if self.is_down:
            self._journal = None
            raise TransientError("memory sink is down")

    def _keep(self, batches: Sequence[Batch], journal: JournalIdentity) -> list[RejectedRow]:
        rejected = []
        cursor = self._cursors.get(journal, -1)
        for batch in batches:
            times = [ts_ms for ts_ms, count in batch.runs for _ in range(count)]
            columns = zip(batch.series_ids, times, batch.values, strict=True)
            for index, (series_id, ts_ms, value) in enumerate(columns):
                series = batch.series[series_id]
                if series in self.rejects:
                    rejected.append(RejectedRow(batch.sequence, index, self.rejects[series]))
                elif batch.sequence > cursor:
                    self.samples.append((series, ts_ms, value))
        if batches:
            self._cursors[journal] = max(cursor, batches[-1].sequence)
        return rejected
