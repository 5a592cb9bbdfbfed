"""The journal's books: per sink a cursor and its counters, the ledger and the quarantine.

All of it happens inside the transaction of whoever calls; nothing here commits.

The books in a full journal
---------------------------
Only a cursor that moves and an entry that is dropped make room, and both must be written down in
the books, which takes room: thousands of refused samples, or a loss of thousands of tags, may not
fit. What the books say must never keep a full journal from being drained. Therefore whoever makes
room first moves cursors and deletes entries, and has the books written last, from the pages that
this has freed. If they still don't fit, the transaction is repeated with ``brief`` books: one row
of the ledger per sink and reason, for losses as well as for refused samples. The counts are exact
either way. New entries leave ``BOOKS_PAGES`` to the books, so that such a row fits even where
nothing could be freed, since another sink still waits for every entry.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edge_agent.errors import JournalError
from edge_agent.journal.entry import row_checksum

LEDGER_GAP_MS = 300_000
"""Losses of a tag that follow each other so closely are one row: one outage, one line."""
LEDGER_ROWS_MAX = 200_000
LEDGER_DAMAGED = "journal damaged: the ledger's row is gone"
QUARANTINE_ROWS_MAX = 100_000
BOOKS_PAGES = 8
"""What new entries leave free: one row of the ledger per sink, with the splits of its trees."""
BYTES_PER_LEDGER_ROW = 512
BYTES_PER_QUARANTINE_ROW = 2048
"""Bounds for small journals: each book may fill a small part of the file, never all of it."""

SCHEMA = """
CREATE TABLE cursor (id INTEGER PRIMARY KEY, sink TEXT NOT NULL UNIQUE, sequence INTEGER NOT NULL,
    base INTEGER NOT NULL, delivered INTEGER NOT NULL, duplicates INTEGER NOT NULL,
    quarantined INTEGER NOT NULL, lost INTEGER NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE ledger (id INTEGER PRIMARY KEY, sink TEXT NOT NULL, series_id INTEGER,
    first_ts_ms INTEGER, last_ts_ms INTEGER, samples INTEGER NOT NULL, reason TEXT NOT NULL,
    checksum INTEGER NOT NULL);
CREATE INDEX ledger_key ON ledger (sink, series_id, reason);
CREATE TABLE quarantine (id INTEGER PRIMARY KEY, sink TEXT NOT NULL, series_id INTEGER NOT NULL,
    ts_ms INTEGER NOT NULL, value REAL NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL);
"""

Span = tuple[int | None, int | None, int]
"""First time, last time (ms since 1970 UTC; None if unknown) and number of some samples."""


class NoRoomError(Exception):
    """What a transaction writes would leave too little to the books; it is rolled back."""


@dataclass(frozen=True, slots=True)
class SinkTotals:
    """One sink's cursor and its counters, in samples.

    ``taken - base = delivered + pending + quarantined + lost``; duplicates are part of delivered.
    """

    sink: str
    sequence: int = 0
    base: int = 0
    delivered: int = 0
    duplicates: int = 0
    quarantined: int = 0
    lost: int = 0

    @property
    def accounted(self) -> int:
        """Samples that are no longer pending."""
        return self.base + self.delivered + self.quarantined + self.lost

    def after(self, ack: Acknowledgement) -> SinkTotals:
        """The totals once an acknowledgement is applied."""
        return replace(
            self,
            sequence=ack.sequence,
            delivered=self.delivered + ack.delivered,
            duplicates=self.duplicates + ack.duplicates,
            quarantined=self.quarantined + len(ack.rejected),
        )


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One sample that a sink refused for good."""

    series_id: int
    ts_ms: int
    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A sink has taken everything after ``previous`` up to ``sequence``; counts in samples.

    Applied only while the cursor still stands at ``previous``, so a repetition changes nothing.
    """

    sink: str
    previous: int
    sequence: int
    delivered: int
    duplicates: int = 0
    rejected: tuple[Quarantined, ...] = ()

    def followed_by(self, later: Acknowledgement) -> Acknowledgement:
        """Both in one."""
        return replace(
            later,
            previous=self.previous,
            delivered=self.delivered + later.delivered,
            duplicates=self.duplicates + later.duplicates,
            rejected=self.rejected + later.rejected,
        )


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """Samples that a sink will never get; ``series_id`` is None where the tag is not known."""

    sink: str
    series_id: int | None
    first_ts_ms: int | None
    last_ts_ms: int | None
    samples: int
    reason: str

    @property
    def columns(self) -> tuple[str, int | None, int | None, int | None, int, str]:
        """As they stand in the table, without id and checksum."""
        return (*self.key, *self.span, self.reason)

    @property
    def key(self) -> tuple[str, int | None]:
        """Whose loss it is."""
        return (self.sink, self.series_id)

    @property
    def span(self) -> Span:
        """When, and how many."""
        return (self.first_ts_ms, self.last_ts_ms, self.samples)


@dataclass(slots=True)
class Books:
    """The three tables, and a mirror of the cursors in memory."""

    connection: sqlite3.Connection
    bytes_max: int
    now_ms: Callable[[], int]
    totals: dict[str, SinkTotals] = field(default_factory=dict)
    quarantine_rows: int = 0
    brief: bool = False
    """Whether there is no room for more than one row per sink and reason."""

    def load(self) -> None:
        """Read the cursors, and look at every other row.

        Raises ``JournalError`` if one does not match its checksum. Whoever looks at the totals from
        another thread sees the old ones or the new ones.
        """
        found: dict[str, SinkTotals] = {}
        for _, *columns, checksum in self.connection.execute("SELECT * FROM cursor"):
            if row_checksum(*columns) != checksum:
                raise JournalError(f"the cursor of {columns[0]!r} is damaged")
            totals = SinkTotals(*columns)
            found[totals.sink] = totals
        self.totals = found
        self.quarantine_rows = len(self.quarantine())
        self.ledger()

    def write(self, totals: SinkTotals) -> None:
        """Replace one sink's row."""
        columns = (
            totals.sink,
            totals.sequence,
            totals.base,
            totals.delivered,
            totals.duplicates,
            totals.quarantined,
            totals.lost,
        )
        self.connection.execute(
            "INSERT INTO cursor (sink, sequence, base, delivered, duplicates, quarantined, lost, "
            "checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sink) DO UPDATE SET "
            "sequence = excluded.sequence, base = excluded.base, delivered = excluded.delivered, "
            "duplicates = excluded.duplicates, quarantined = excluded.quarantined, "
            "lost = excluded.lost, checksum = excluded.checksum",
            (*columns, row_checksum(*columns)),
        )
        self.totals[totals.sink] = totals

    def advance(self, ack: Acknowledgement) -> bool:
        """Move a cursor and count; `refuse` is to follow. False if that has been done before."""
        totals = self.totals[ack.sink]
        if totals.sequence != ack.previous:
            return False
        self.write(totals.after(ack))
        return True

    # -- ledger ---------------------------------------------------------------------------------

    def lose(self, losses: Mapping[tuple[str, int | None], Span], reason: str) -> None:
        """Write losses per (sink, series) down, and count them for the sink.

        With more tags than the ledger may have rows, or room, they are only told per sink.
        """
        if self.brief:
            losses = _per_sink(losses)
        fresh: dict[tuple[str, int | None], Span] = {}
        lost: dict[str, int] = {}
        for (sink, series_id), (first, last, samples) in losses.items():
            lost[sink] = lost.get(sink, 0) + samples
            if not self._widened(LedgerRow(sink, series_id, first, last, samples, reason)):
                fresh[sink, series_id] = (first, last, samples)
        if fresh and not self._ledger_holds(len(fresh)):
            fresh = _per_sink(fresh)
        for (sink, series_id), (first, last, samples) in fresh.items():
            row = LedgerRow(sink, series_id, first, last, samples, reason)
            if series_id is not None or not self._widened(row):
                self.insert_losses([row])
        for sink, samples in lost.items():
            totals = self.totals[sink]
            self.write(replace(totals, lost=totals.lost + samples))

    def _widened(self, loss: LedgerRow) -> bool:
        """Add a loss to the tag's newest row that it follows or overlaps, if there is one."""
        if loss.first_ts_ms is None or loss.last_ts_ms is None:
            return False
        near = self.connection.execute(
            "SELECT * FROM ledger WHERE sink = ? AND series_id IS ? AND reason = ? "
            "AND last_ts_ms >= ? AND first_ts_ms <= ? ORDER BY id DESC LIMIT 1",
            (
                *loss.key,
                loss.reason,
                loss.first_ts_ms - LEDGER_GAP_MS,
                loss.last_ts_ms + LEDGER_GAP_MS,
            ),
        ).fetchone()
        if near is None:
            return False
        first, last, samples = joined(ledger_row(near).span, loss.span)
        row = replace(loss, first_ts_ms=first, last_ts_ms=last, samples=samples)
        self.connection.execute(
            "UPDATE ledger SET first_ts_ms = ?, last_ts_ms = ?, samples = ?, checksum = ? "
            "WHERE id = ?",
            (*row.span, row_checksum(*row.columns), near[0]),
        )
        return True

    def insert_losses(self, rows: Iterable[LedgerRow]) -> None:
        """Append rows to the ledger as they are."""
        self.connection.executemany(
            "INSERT INTO ledger (sink, series_id, first_ts_ms, last_ts_ms, samples, reason, "
            "checksum) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(*row.columns, row_checksum(*row.columns)) for row in rows],
        )

    def ledger(self) -> list[LedgerRow]:
        """Every loss, oldest first. Raises ``JournalError`` at a damaged row."""
        rows = self.connection.execute("SELECT * FROM ledger ORDER BY id")
        return [ledger_row(row) for row in rows]

    def newest_losses(self, rows_max: int) -> list[LedgerRow]:
        """The losses noted last, newest first. Raises ``JournalError`` at a damaged row."""
        rows = self.connection.execute("SELECT * FROM ledger ORDER BY id DESC LIMIT ?", (rows_max,))
        return [ledger_row(row) for row in rows]

    def _ledger_holds(self, more: int) -> bool:
        """Whether there may be so many more rows; merges them per tag, and if need be per sink."""
        rows_max = min(LEDGER_ROWS_MAX, self.bytes_max // BYTES_PER_LEDGER_ROW)
        for merge in (_MERGE_BY_TAG, _MERGE_BY_SINK):
            rows = self.connection.execute("SELECT count(*) FROM ledger").fetchone()[0]
            if rows + more <= rows_max:
                return True
            merged = [LedgerRow(*row) for row in self.connection.execute(merge)]
            self.connection.execute("DELETE FROM ledger")
            self.insert_losses(merged)
        return len(merged) + more <= rows_max

    # -- quarantine -----------------------------------------------------------------------------

    def refuse(self, sink: str, samples: Sequence[Quarantined]) -> None:
        """Write down what a sink has refused, which `advance` has counted as quarantined.

        What the quarantine can't hold stands in the ledger: the oldest of it, or all if brief.
        """
        rows_max = min(QUARANTINE_ROWS_MAX, self.bytes_max // BYTES_PER_QUARANTINE_ROW)
        kept = samples[len(samples) :] if self.brief else samples[-rows_max:]
        self._bound_quarantine(rows_max - len(kept))
        surplus = samples[: len(samples) - len(kept)]
        self._give_up((sink, sample.series_id, sample.ts_ms) for sample in surplus)
        self.insert_quarantined(sink, kept)

    def insert_quarantined(self, sink: str, samples: Sequence[Quarantined]) -> None:
        """Keep refused samples with the reason."""
        at_ms = self.now_ms()
        rows = [(sink, s.series_id, s.ts_ms, s.value + 0.0, s.reason, at_ms) for s in samples]
        self.connection.executemany(
            "INSERT INTO quarantine (sink, series_id, ts_ms, value, reason, at_ms, checksum) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(*row, row_checksum(*row)) for row in rows],
        )
        self.quarantine_rows += len(samples)

    def quarantine(self) -> list[tuple[str, Quarantined]]:
        """Every quarantined sample with its sink, oldest first.

        Raises ``JournalError`` at a damaged row.
        """
        rows = self.connection.execute("SELECT * FROM quarantine ORDER BY id")
        return [quarantine_row(row) for row in rows]

    def take_quarantined(self, sink: str) -> list[tuple[int, int, float]]:
        """Remove a sink's quarantined samples; each is (ts_ms, series id, value)."""
        rows = [
            (sample.ts_ms, sample.series_id, sample.value)
            for owner, sample in self.quarantine()
            if owner == sink
        ]
        if rows:
            self.connection.execute("DELETE FROM quarantine WHERE sink = ?", (sink,))
            self.quarantine_rows -= len(rows)
            totals = self.totals[sink]
            self.write(replace(totals, quarantined=totals.quarantined - len(rows)))
        return rows

    def _bound_quarantine(self, rows_max: int) -> None:
        """Move the oldest rows to the ledger when there are more than these."""
        if self.quarantine_rows <= rows_max:
            return
        surplus = self.quarantine_rows - rows_max + rows_max // 10
        rows = self.connection.execute(
            "SELECT id, sink, series_id, ts_ms FROM quarantine ORDER BY id LIMIT ?", (surplus,)
        ).fetchall()
        self.connection.execute("DELETE FROM quarantine WHERE id <= ?", (rows[-1][0],))
        self.quarantine_rows -= len(rows)
        self._give_up((sink, series_id, ts_ms) for _, sink, series_id, ts_ms in rows)

    def _give_up(self, samples: Iterable[tuple[str, int, int]]) -> None:
        """Count samples as lost that were counted as quarantined: (sink, series id, ts_ms)."""
        losses: dict[tuple[str, int | None], Span] = {}
        for sink, series_id, ts_ms in samples:
            losses[sink, series_id] = joined(losses.get((sink, series_id)), (ts_ms, ts_ms, 1))
            totals = self.totals[sink]
            self.totals[sink] = replace(totals, quarantined=totals.quarantined - 1)
        self.lose(losses, "quarantine full")

    # -- after a recovery -----------------------------------------------------------------------

    def reconcile(self) -> None:
        """Make each sink's counters agree with the rows of both books that could be recovered.

        A quarantined sample whose row is gone is no longer accounted for; a loss whose row is
        gone gets a new one, without tag and time.
        """
        rows_of = "SELECT coalesce(sum(samples), 0) FROM ledger WHERE sink = ?"
        kept_of = "SELECT count(*) FROM quarantine WHERE sink = ?"
        for sink, totals in list(self.totals.items()):
            (written,) = self.connection.execute(rows_of, (sink,)).fetchone()
            (kept,) = self.connection.execute(kept_of, (sink,)).fetchone()
            if written < totals.lost:
                missing = totals.lost - written
                self.insert_losses([LedgerRow(sink, None, None, None, missing, LEDGER_DAMAGED)])
            self.write(replace(totals, quarantined=kept, lost=max(written, totals.lost)))


_MERGE_BY_TAG = (
    "SELECT sink, series_id, min(first_ts_ms), max(last_ts_ms), sum(samples), reason "
    "FROM ledger GROUP BY sink, series_id, reason"
)
_MERGE_BY_SINK = (
    "SELECT sink, NULL, min(first_ts_ms), max(last_ts_ms), sum(samples), reason "
    "FROM ledger GROUP BY sink, reason"
)


def ledger_row(row: Sequence[Any]) -> LedgerRow:
    """A row of the table. Raises ``JournalError`` if it does not match its checksum."""
    id_, *columns, checksum = row
    if row_checksum(*columns) != checksum:
        raise JournalError(f"ledger row {id_} is damaged")
    return LedgerRow(*columns)


def quarantine_row(row: Sequence[Any]) -> tuple[str, Quarantined]:
    """A row of the table. Raises ``JournalError`` if it does not match its checksum."""
    id_, *columns, checksum = row
    if row_checksum(*columns) != checksum:
        raise JournalError(f"quarantine row {id_} is damaged")
    sink, *sample, _ = columns
    return sink, Quarantined(*sample)


def _per_sink(
    losses: Mapping[tuple[str, int | None], Span],
) -> dict[tuple[str, int | None], Span]:
    merged: dict[tuple[str, int | None], Span] = {}
    for (sink, _), span in losses.items():
        merged[sink, None] = joined(merged.get((sink, None)), span)
    return merged


def joined(one: Span | None, other: Span) -> Span:
    """Both spans in one."""
    if one is None:
        return other
    firsts = [first for first in (one[0], other[0]) if first is not None]
    lasts = [last for last in (one[1], other[1]) if last is not None]
    return (min(firsts, default=None), max(lasts, default=None), one[2] + other[2])
