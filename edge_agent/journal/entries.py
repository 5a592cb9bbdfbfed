"""The journal's entries and series as tables. Nothing here commits."""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import itemgetter

from edge_agent.errors import JournalError
from edge_agent.journal import entry as codec
from edge_agent.journal.books import Span, joined
from edge_agent.model import Batch, Series

SCHEMA = """
CREATE TABLE series (id INTEGER PRIMARY KEY, site TEXT NOT NULL, line TEXT NOT NULL,
    device TEXT NOT NULL, tag TEXT NOT NULL, unit TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE entry (sequence INTEGER PRIMARY KEY, first_ts_ms INTEGER NOT NULL,
    last_ts_ms INTEGER NOT NULL, samples INTEGER NOT NULL, thinned INTEGER NOT NULL,
    sinks TEXT, checksum INTEGER NOT NULL, data BLOB NOT NULL);
"""

MEANT_FOR = "(sinks IS NULL OR instr(',' || sinks || ',', ',' || ? || ','))"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: its batch, the only sinks it is meant for (None: all), how often it was thinned."""

    batch: Batch
    sinks: str | None
    thinned: int

    def meant_for(self, sink: str) -> bool:
        """Whether a sink is to have it."""
        return self.sinks is None or sink in self.sinks.split(",")


@dataclass(slots=True)
class Entries:
    """Both tables; ``series`` mirrors the second one and is shared with every batch."""

    connection: sqlite3.Connection
    series: dict[int, Series] = field(default_factory=dict)

    def load(self) -> None:
        """Read the series. Raises ``JournalError`` if one does not match its checksum."""
        for id_, *names, checksum in self.connection.execute("SELECT * FROM series"):
            if codec.row_checksum(id_, *names) != checksum:
                raise JournalError(f"series {id_} is damaged")
            self.series[id_] = Series(*names)

    def add_series(self, series: Iterable[tuple[int, Series]]) -> None:
        """Write series that are not there yet."""
        for id_, names in series:
            self.connection.execute(
                "INSERT OR IGNORE INTO series VALUES (?, ?, ?, ?, ?, ?, ?)",
                (id_, *names, codec.row_checksum(id_, *names)),
            )
            self.series[id_] = names

    def insert(self, batch: Batch, sinks: str | None = None, thinned: int = 0) -> None:
        """Append a batch under its sequence."""
        data = codec.encode(batch)
        row = (batch.sequence, batch.first_ts_ms, batch.last_ts_ms, len(batch), thinned, sinks)
        self.connection.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, codec.checksum(*row, data), data),
        )

    def delete(self, sequence: int) -> None:
        """Remove one entry."""
        self.connection.execute("DELETE FROM entry WHERE sequence = ?", (sequence,))

    def delete_up_to(self, sequence: int) -> None:
        """Remove every entry up to this one."""
        self.connection.execute("DELETE FROM entry WHERE sequence <= ?", (sequence,))

    def select(self, clause: str, parameters: tuple[object, ...], limit: int) -> list[Entry]:
        """The first entries that fit, in sequence order.

        Raises ``JournalError`` at one that does not match its checksum.
        """
        rows = self.connection.execute(
            f"SELECT * FROM entry WHERE {clause} ORDER BY sequence LIMIT ?",  # noqa: S608
            (*parameters, limit),
        )
        return [self._decoded(row) for row in rows]

    def take(self, sink: str, after: int, samples_max: int, entries_max: int) -> list[Batch]:
        """The next batches for a sink, at least one if there is any."""
        rows = self.connection.execute(
            f"SELECT * FROM entry WHERE sequence > ? AND {MEANT_FOR} "  # noqa: S608
            "ORDER BY sequence LIMIT ?",
            (after, sink, entries_max),
        )
        batches: list[Batch] = []
        samples = 0
        for row in rows:
            samples += row[3]
            if batches and samples > samples_max:
                break
            batches.append(self._decoded(row).batch)
        return batches

    def pending(self, sink: str, after: int) -> int:
        """Samples after a sequence that a sink is to have, counted row by row."""
        row = self.connection.execute(
            "SELECT coalesce(sum(samples), 0) FROM entry "  # noqa: S608
            f"WHERE sequence > ? AND {MEANT_FOR}",
            (after, sink),
        ).fetchone()
        return int(row[0])

    def least_thinned(self, clause: str, parameters: tuple[object, ...]) -> int | None:
        """The lowest thinning level among the entries that fit."""
        row = self.connection.execute(
            f"SELECT min(thinned) FROM entry WHERE {clause}",  # noqa: S608
            parameters,
        ).fetchone()
        level: int | None = row[0]
        return level

    def sequences(self) -> list[int]:
        """Every entry's number."""
        rows = self.connection.execute("SELECT sequence FROM entry ORDER BY sequence")
        return [sequence for (sequence,) in rows]

    def _decoded(self, row: tuple[int, int, int, int, int, str | None, int, bytes]) -> Entry:
        sequence, first_ts_ms, last_ts_ms, samples, thinned, sinks, checksum, data = row
        columns = (sequence, first_ts_ms, last_ts_ms, samples, thinned, sinks)
        if codec.checksum(*columns, data) != checksum:
            raise JournalError(f"entry {sequence} is damaged")
        return Entry(codec.decode(sequence, data, self.series), sinks, thinned)


def batch_of(
    sequence: int, rows: Iterable[tuple[int, int, float]], series: Mapping[int, Series]
) -> Batch:
    """A batch of samples, each given as ``(ts_ms, series_id, value)``."""
    runs: list[tuple[int, int]] = []
    series_ids, values = array("I"), array("d")
    for ts_ms, series_id, value in rows:
        if runs and runs[-1][0] == ts_ms:
            runs[-1] = (ts_ms, runs[-1][1] + 1)
        else:
            runs.append((ts_ms, 1))
        series_ids.append(series_id)
        values.append(value)
    return Batch(sequence, runs, series_ids, values, series)


def samples_of(batch: Batch) -> Iterable[tuple[int, int, float]]:
    """A batch's samples one by one, each ``(ts_ms, series_id, value)``. Not for the hot path."""
    at = 0
    for ts_ms, count in batch.runs:
        for index in range(at, at + count):
            yield ts_ms, batch.series_ids[index], batch.values[index]
        at += count


def scans_of(batch: Batch) -> Iterable[tuple[int, array[int]]]:
    """The series ids of each of a batch's runs, with the run's time."""
    at = 0
    for ts_ms, count in batch.runs:
        yield ts_ms, batch.series_ids[at : at + count]
        at += count


def spans_of(batches: Iterable[Batch]) -> dict[int, Span]:
    """Per series: first time, last time and number of samples."""
    spans: dict[int, Span] = {}
    for batch in batches:
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        scans = sorted(scans_of(batch), key=itemgetter(0))
        for ts_ms, series_ids in scans:
            last.update(dict.fromkeys(series_ids, ts_ms))
        for ts_ms, series_ids in reversed(scans):
            first.update(dict.fromkeys(series_ids, ts_ms))
        for id_, samples in Counter(batch.series_ids).items():
            spans[id_] = joined(spans.get(id_), (first[id_], last[id_], samples))
    return spans


def thin(batch: Batch, keep_next: dict[int, bool]) -> tuple[Batch, Batch]:
    """Split a batch into every second sample of each series, and the others.

    ``keep_next`` remembers per series whether the next sample is kept, from batch to batch.
    """
    keeps: list[bool] = []
    for series_id in batch.series_ids:
        keep = keep_next.get(series_id, True)
        keep_next[series_id] = not keep
        keeps.append(keep)
    return picked(batch, keeps), picked(batch, [not keep for keep in keeps])


def picked(batch: Batch, picks: Sequence[bool]) -> Batch:
    """The samples of a batch that are marked."""
    runs: list[tuple[int, int]] = []
    at = 0
    for ts_ms, count in batch.runs:
        if picked := sum(picks[at : at + count]):
            runs.append((ts_ms, picked))
        at += count
    return Batch(
        batch.sequence,
        runs,
        array("I", compress(batch.series_ids, picks)),
        array("d", compress(batch.values, picks)),
        batch.series,
    )


def next_batches(
    batches: Iterable[Batch], after: int, samples_max: int, entries_max: int
) -> list[Batch]:
    """Those after a sequence, at least one if there is any, within the bounds."""
    found: list[Batch] = []
    samples = 0
    for batch in batches:
        if batch.sequence <= after:
            continue
        samples += len(batch)
        if found and (samples > samples_max or len(found) >= entries_max):
            break
        found.append(batch)
    return found
