"""Which series came in by MQTT, and a sink that does not publish them again.

The broker has their messages: `Unpublished`, around the MQTT sink, counts them as delivered already
and hands on the others, so that the journal's books balance as ever.

Which series they are must survive a restart, since the journal may hold some for a sink that was
away. The journal's own tables stay as they are: the book is a small file beside it, and a series
stands in it, durably, before its first sample is in the journal. A series that the running map
polls is not one of them, whatever the book says.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from edge_agent.errors import RejectedRow, RejectedRows, TransientError
from edge_agent.model import Batch, Series
from edge_agent.sinks.base import JournalIdentity, Sink

INGESTED_FILE: Final = "ingested.jsonl"

Key = tuple[str, str, str]
"""Site, device and tag, as `model.Tag.key`."""


class Ingested:
    """The book of series that came in by MQTT: what the MQTT sink must not publish.

    ``polled`` are the keys of the running map; they are never in it. The file has one JSON list a
    line; a line that a crash cut short is left out, its series had no sample yet.
    """

    def __init__(self, path: Path, polled: Container[Key]) -> None:
        self._path = path
        self._polled = polled
        self.series: set[Series] = set()
        """All that were ever written down, polled ones included."""
        self._ends_well = True

    def __len__(self) -> int:
        return len(self.series)

    def __contains__(self, series: object) -> bool:
        return series in self.series and not self._is_polled(series)

    def _is_polled(self, series: object) -> bool:
        return (
            isinstance(series, Series) and (series.site, series.device, series.tag) in self._polled
        )

    def load(self) -> None:
        """Read the file, if there is one. Raises ``TransientError``."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransientError(f"{self._path}: cannot be read: {error.strerror}") from error
        self._ends_well = data.endswith(b"\n") or not data
        for line in data.splitlines():
            try:
                names = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(names, list) and len(names) == len(Series._fields):
                self.series.add(Series(*map(str, names)))

    def add(self, new: Sequence[Series]) -> None:
        """Write series down; they are on the disk when this returns. Raises ``TransientError``."""
        if not new:
            return
        lines = b"".join(orjson.dumps(list(series)) + b"\n" for series in new)
        try:
            with self._path.open("ab") as file:
                file.write(lines if self._ends_well else b"\n" + lines)
                self._ends_well = False  # until it is known
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TransientError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._ends_well = True
        self.series.update(new)


class Unpublished:
    """A sink that is not handed what came from its destination.

    Ingested samples count as delivered before (``duplicates``); all else is the sink's own.
    """

    def __init__(self, sink: Sink, ingested: Ingested) -> None:
        self.name = sink.name
        self._sink = sink
        self._ingested = ingested
        self._hidden: set[int] = set()
        self._shown: set[int] = set()

    async def open(self, journal: JournalIdentity) -> None:
        """As the sink's own. Ids mean something within one journal only."""
        self._hidden.clear()
        self._shown.clear()
        await self._sink.open(journal)

    async def deliver(self, batches: Sequence[Batch]) -> int:
        """As the sink's own, without the ingested samples."""
        parts = [self._part(batch) for batch in batches]
        left_out = sum(map(len, batches)) - sum(len(part.batch) for part in parts)
        places = {part.batch.sequence: part.places for part in parts}
        published = [part.batch for part in parts if len(part.batch)]
        if not published:
            return left_out
        try:
            had = await self._sink.deliver(published)
        except RejectedRows as refusal:
            rows = [_placed(row, places[row.sequence]) for row in refusal.rows]
            raise RejectedRows(rows, duplicates=refusal.duplicates + left_out) from refusal
        return had + left_out

    def look_again(self) -> None:
        """Another map polls other series."""
        self._hidden.clear()
        self._shown.clear()

    async def close(self) -> None:
        """As the sink's own."""
        await self._sink.close()

    def _part(self, batch: Batch) -> _Part:
        """What of a batch is to be published."""
        if not self._ingested:
            return _Part(batch, None)
        ids = set(batch.series_ids)
        for series_id in ids - self._hidden - self._shown:
            known = self._hidden if batch.series[series_id] in self._ingested else self._shown
            known.add(series_id)
        if self._hidden.isdisjoint(ids):
            return _Part(batch, None)
        places = [place for place, id_ in enumerate(batch.series_ids) if id_ not in self._hidden]
        return _Part(_picked(batch, places), places)


class _Part(NamedTuple):
    """Some samples of a batch, and where they stand in it; None if it is the whole batch."""

    batch: Batch
    places: Sequence[int] | None


def _placed(row: RejectedRow, places: Sequence[int] | None) -> RejectedRow:
    return row if places is None else replace(row, index=places[row.index])


def _picked(batch: Batch, places: Sequence[int]) -> Batch:
    """The samples at these places, which rise, with their times."""
    runs: list[tuple[int, int]] = []
    end = first = 0
    for ts_ms, count in batch.runs:
        end += count
        last = bisect_left(places, end, first)
        if last > first:
            runs.append((ts_ms, last - first))
        first = last
    return replace(
        batch,
        runs=runs,
        series_ids=array("I", [batch.series_ids[place] for place in places]),
        values=array("d", [batch.values[place] for place in places]),
    )
