"""Folds closed minutes: from the tail into slices, minutes, hours and latest.

Synchronous, on the writer's own connection and thread, in steps: a generator that yields where no
transaction is open, so that deliveries run in between. Dropping it there, or the process, loses
nothing; the package's docstring says why.
"""

from __future__ import annotations

import logging
import sqlite3
from array import array
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Final, NamedTuple

from edge_agent.clock import MINUTE_MS
from edge_agent.store.database import (
    Retention,
    read_slices,
    read_summaries,
    transaction,
)
from edge_agent.store.layout import (
    MINUTES_PER_HOUR,
    DamagedBlob,
    Slice,
    Summary,
    ascending,
    bucket_of,
    combine,
    hour_slot_of,
    merge,
    pack_slice,
    series_id_of,
    slot_of,
    summarise,
    unpack_slice,
    unpack_tail,
    without,
)

log = logging.getLogger(__name__)

CLOSING_GRACE_MS: Final = 3_000
"""How long after its end a minute stays open: the journal's commit and the delivery take time, and
a batch that comes later costs a second write of its slices."""
SLICES_PER_STEP: Final = 400
SAMPLES_PER_STEP: Final = 30_000
"""About 10 ms of a PC's core, 45 ms of a Pi's. Each step that writes costs one fsync."""
SAMPLES_PER_FOLD_MAX: Final = 2_000_000
"""Grouped samples lie in memory at 10 bytes each: 20 MB. A minute at 25,000/s is 1.5 million."""


class Fold:
    """Folding of one open store."""

    def __init__(self, db: sqlite3.Connection, retention: Retention) -> None:
        self._db = db
        self._retention = retention
        # What had been in the tail at the last closing of a minute, and at the one before.
        self._closing_ms = 0
        self._newest_at_closing = 0
        self._overdue_tail_id = 0

    def work(self, now_ms: int) -> Iterator[None]:
        """Fold all that is due at a time of the wall clock, one step per item."""
        while (upto := self._foldable(now_ms)) is not None:
            yield from self._fold(upto, now_ms)

    def _foldable(self, now_ms: int) -> int | None:
        """Last tail id of the prefix to fold now, or None. A fold under way goes first."""
        tail_id, under_way = self._db.execute(
            "SELECT fold_tail_id, fold_slices_done FROM state"
        ).fetchone()
        if under_way is not None:
            return int(tail_id)
        closing_ms = (now_ms - CLOSING_GRACE_MS) // MINUTE_MS * MINUTE_MS
        if closing_ms != self._closing_ms:
            (newest,) = self._db.execute("SELECT coalesce(max(id), 0) FROM tail").fetchone()
            self._closing_ms = closing_ms
            self._overdue_tail_id, self._newest_at_closing = self._newest_at_closing, newest
        upto, total = None, 0
        rows = self._db.execute("SELECT id, last_ts_ms, samples FROM tail ORDER BY id")
        for tail_id, last_ts_ms, samples in rows:
            total += samples
            is_open = last_ts_ms >= closing_ms and tail_id > self._overdue_tail_id
            if is_open or (upto is not None and total > SAMPLES_PER_FOLD_MAX):
                break
            upto = tail_id
        rows.close()
        return upto

    def _fold(self, upto: int, now_ms: int) -> Iterator[None]:
        groups: dict[int, Slice] = {}
        yield from self._group(upto, groups)
        slots = sorted(groups)
        (done,) = self._db.execute("SELECT coalesce(fold_slices_done, 0) FROM state").fetchone()
        while True:
            step: dict[int, Slice] = {}
            samples = 0
            for slot in slots[done : done + SLICES_PER_STEP]:
                step[slot] = ascending(groups.pop(slot))
                samples += len(step[slot].values)
                if samples >= SAMPLES_PER_STEP:
                    break
            done += len(step)
            with transaction(self._db):
                self._write(step, now_ms)
                is_last = done >= len(slots)
                if is_last:
                    self._db.execute("DELETE FROM tail WHERE id <= ?", (upto,))
                self._db.execute(
                    "UPDATE state SET fold_tail_id = ?, fold_slices_done = ?",
                    (upto, None if is_last else done),
                )
            yield
            if is_last:
                return

    def _group(self, upto: int, groups: dict[int, Slice]) -> Iterator[None]:
        """Sort the tail up to ``upto`` into one slice per slot, in order of arrival."""
        tail_id, grouped = 0, 0
        while row := self._db.execute(
            "SELECT id, data FROM tail WHERE id > ? AND id <= ? ORDER BY id LIMIT 1",
            (tail_id, upto),
        ).fetchone():
            tail_id, blob = row
            try:
                batch = unpack_tail(blob)
            except DamagedBlob as error:
                log.error(  # noqa: TRY400  (the trace says nothing more)
                    "store: batch %d of the tail is damaged and left out: %s", tail_id, error
                )
                continue
            for ts_ms, start, end in batch.runs():
                minute, offset_ms = divmod(ts_ms, MINUTE_MS)
                base = slot_of(minute, 0)
                samples = zip(batch.series_ids[start:end], batch.values[start:end], strict=True)
                for series_id, value in samples:
                    try:
                        offsets_ms, values = groups[base + series_id]
                    except KeyError:
                        offsets_ms, values = groups[base + series_id] = Slice(
                            array("H"), array("d")
                        )
                    offsets_ms.append(offset_ms)
                    values.append(value)
            grouped += len(batch.values)
            if grouped >= SAMPLES_PER_STEP:
                grouped = 0
                yield

    def _write(self, slices: dict[int, Slice], now_ms: int) -> None:
        """Bring raw, minute, hour and latest up to date with new samples, per slot ascending."""
        raw_from, minute_from = self._retention.kept_from(now_ms)
        minutes = read_summaries(self._db, "minute", slices)
        known = self._read_slices(minutes)
        raw_rows: list[tuple[int, bytes]] = []
        minute_rows: list[tuple[float, ...]] = []
        gained: list[tuple[int, Summary]] = []
        changed: list[int] = []
        for slot, new in slices.items():
            if slot in minutes:
                merged = _merge(minutes[slot], known.get(slot), new)
            else:
                summary = summarise(new)
                merged = _Merged(new, summary, summary, False)
            if merged.gained is not None:
                gained.append((slot, merged.gained))
            if merged.is_changed:
                changed.append(slot)
            # What is old is not written only to expire; what is there is kept up to date.
            if slot in known or bucket_of(slot) >= raw_from:
                raw_rows.append((slot, pack_slice(merged.part)))
            if slot in minutes or bucket_of(slot) >= minute_from:
                minute_rows.append((slot, *merged.summary))
        self._db.executemany("INSERT OR REPLACE INTO raw VALUES (?, ?)", raw_rows)
        self._db.executemany(
            "INSERT OR REPLACE INTO minute VALUES (?, ?, ?, ?, ?, ?, ?)", minute_rows
        )
        self._write_hours(gained, changed)
        self._write_latest(slices)

    def _read_slices(self, slots: Iterable[int]) -> dict[int, Slice]:
        """The slices that are there already. A damaged one counts as expired."""
        found: dict[int, Slice] = {}
        for slot, blob in read_slices(self._db, slots):
            try:
                found[slot] = unpack_slice(blob)
            except DamagedBlob as error:
                log.error(  # noqa: TRY400
                    "store: raw slice %d is damaged and left out: %s", slot, error
                )
        return found

    def _write_hours(self, gained: list[tuple[int, Summary]], changed: list[int]) -> None:
        changed_keys = {hour_slot_of(slot) for slot in changed}
        gained_keys = [hour_slot_of(slot) for slot, _ in gained]
        hours = read_summaries(self._db, "hour", changed_keys.union(gained_keys))
        for (slot, summary), key in zip(gained, gained_keys, strict=True):
            summary = _within_hour(slot, summary)
            hours[key] = combine(hours[key], summary) if key in hours else summary
        for key in changed_keys:
            first = bucket_of(key) * MINUTES_PER_HOUR
            slots = [slot_of(first + n, series_id_of(key)) for n in range(MINUTES_PER_HOUR)]
            minutes = read_summaries(self._db, "minute", slots)
            anew = reduce(combine, (_within_hour(*item) for item in minutes.items()))
            # Fewer samples: minutes of this hour are gone, and the hour knows more than they do.
            if anew.samples == hours[key].samples:
                hours[key] = anew
        self._db.executemany(
            "INSERT OR REPLACE INTO hour VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(key, *summary) for key, summary in hours.items()],
        )

    def _write_latest(self, slices: dict[int, Slice]) -> None:
        self._db.executemany(
            "INSERT INTO latest VALUES (?, ?, ?) ON CONFLICT (series_id) DO UPDATE "
            "SET ts_ms = excluded.ts_ms, value = excluded.value WHERE excluded.ts_ms >= ts_ms",
            [
                (
                    series_id_of(slot),
                    bucket_of(slot) * MINUTE_MS + part.offsets_ms[-1],
                    part.values[-1],
                )
                for slot, part in slices.items()
            ],
        )


class _Merged(NamedTuple):
    """What becomes of a minute: its slice, its row, what is new to its hour."""

    part: Slice
    summary: Summary
    gained: Summary | None
    is_changed: bool


def _merge(old: Summary, known: Slice | None, new: Slice) -> _Merged:
    """Add samples to a minute that has its row already; ``known`` is its slice, if it has one."""
    if known is None or len(known.values) < old.samples:
        # The row counts samples that are no longer there: by weight is all that can be done.
        part = new if known is None else merge(known, new)
        gained = summarise(new)
        return _Merged(part, combine(old, gained), gained, False)
    added = without(new, set(known.offsets_ms))
    part = merge(known, new)
    return _Merged(
        part,
        summarise(part),
        summarise(added) if added.values else None,
        len(added.values) < len(new.values),
    )


def _within_hour(slot: int, summary: Summary) -> Summary:
    """A minute's summary, its last time counted from the start of the hour."""
    offset_ms = bucket_of(slot) % MINUTES_PER_HOUR * MINUTE_MS
    return summary._replace(last_ms=offset_ms + summary.last_ms)
