"""Recover a damaged journal: read its rows without SQLite's help, build a new file from them.

SQLite gives up at the first page that does not fit. The rows are still there: every page of a
table says by itself how many rows it holds, so this module visits all pages, takes the rows whose
shape and checksum are a journal's, and leaves the rest. Pages in the WAL replace those in the
file; pages on the free list are left out, since their rows were deleted (`pages.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edge_agent.clock import epoch_ms
from edge_agent.errors import JournalError, TransientError
from edge_agent.files import sync_folder
from edge_agent.journal import entry as codec
from edge_agent.journal import piecewise
from edge_agent.journal.books import (
    LedgerRow,
    Quarantined,
    SinkTotals,
    ledger_row,
    quarantine_row,
)
from edge_agent.journal.entries import picked
from edge_agent.journal.file import JournalFile
from edge_agent.journal.opening import FORMAT
from edge_agent.journal.pages import OLDER, Pages, Value
from edge_agent.journal.progress import Reach, Reached
from edge_agent.journal.room import PAGE_BYTES, Policy, free_bytes
from edge_agent.model import Batch, Series
from edge_agent.sqlite import beside, name_for_damaged

log = logging.getLogger(__name__)

BYTES_PER_STEP = 8_000_000
"""What one transaction adds to the new file: each waits for the disk, and is in memory twice."""
SCAN_SHARE = 0.25
"""Of a recovery's time: looking at every page. The rest copies entries."""
ITEMS_PER_REACH = 64
REACH_INTERVAL_S = 1.0
"""Signs of life, after so many pages or entries, or so long: a page that a bad card does not read
is tried again by the kernel and the card, which takes up to seconds each."""
SPARE_BYTES = 2_000_000
"""Left on a full disk for the books of the new file, and for opening it."""
_THINNED = 1 << 60
"""Above any place in a file; below it, a packed place says how often its entry was thinned."""

Recovered = tuple[Batch, str | None]
OpenFile = Callable[[Path], JournalFile]
Place = tuple[int, int | None]
"""A page, and where on it a row begins; None: all of its rows."""
NOTHING: Mapping[int, int] = MappingProxyType({})
"""No entry that is in memory."""


@dataclass(slots=True)
class Found:
    """What a damaged file still holds. Entries are read when they are asked for."""

    pages: Pages
    journal_id: str | None = None
    taken: int | None = None
    taken_up_to: int = 0
    """The entry up to which it counts them."""
    sequence: int = 0
    series: dict[int, Series] = field(default_factory=dict)
    totals: dict[str, SinkTotals] = field(default_factory=dict)
    ledger: list[LedgerRow] = field(default_factory=list)
    quarantine: list[tuple[str, Quarantined]] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    """Per sequence where it lies, packed by `_place`: of small entries there may be millions."""
    booked: set[tuple[str, Value]] = field(default_factory=set)
    """Ids of the books' rows, for `is_news`."""

    def is_news(self, book: str, row_id: Value, page: int) -> bool:
        """Whether a book's row is not known yet, where it stands in an older version of a page."""
        if page >= OLDER and (book, row_id) in self.booked:
            return False
        self.booked.add((book, row_id))
        return True

    @property
    def last_sequence(self) -> int:
        """The highest that is known to have been given out."""
        cursors = (totals.sequence for totals in self.totals.values())
        return max(self.sequence, *self.places, *cursors, 0)

    def entries(self) -> Iterator[tuple[Batch, str | None]]:
        """Every entry that is whole, in sequence order, with the sinks it is meant for.

        Samples whose series is not readable any more are left out: nobody could say whose they are.
        """
        nameless = 0
        for sequence in sorted(self.places):
            place = divmod(self.places[sequence] % _THINNED, PAGE_BYTES)
            while (row := self.pages.row(*place)) is None and self.pages.try_again():
                pass
            if row is None:
                continue
            data = row[7]
            assert isinstance(data, bytes)
            sinks = row[5] if isinstance(row[5], str) else None
            try:
                whole = codec.unpack(sequence, data, self.series)
            except JournalError as error:
                log.warning("journal recovery: %s", error)
                continue
            named = _named(whole)
            nameless += len(whole) - len(named)
            if len(named):
                yield named, sinks
        if nameless:
            log.warning("journal recovery: %d samples of tags whose names are damaged", nameless)


class Pace:
    """Says how far it is now and then, and not each time."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._items = 0
        self._reached_at = time.monotonic()

    def step(self, share: float) -> None:
        """One more page or entry is done, and this share of all the work."""
        self._items += 1
        now = time.monotonic()
        if self._items % ITEMS_PER_REACH == 0 or now - self._reached_at >= REACH_INTERVAL_S:
            self._reached_at = now
            self._reach(share)


def scan(pages: Pages, reach: Reach) -> Found:
    """Visit every page of a damaged file and its WAL.

    What the disk can't read at once is tried again before older versions are looked at.
    """
    found, pace = Found(pages), Pace(reach)
    free = pages.free()
    while pages.try_again():
        free = pages.free()
    visits, share = sum(map(len, pages.numbers)), 0.0
    for numbers in pages.numbers:
        missed: list[Place] = []
        for number in numbers:
            share += SCAN_SHARE / visits
            pace.step(share)
            if number not in free:
                missed += _look_at(found, number)
        while missed and pages.try_again():
            again, missed = missed, []
            for place in again:
                pace.step(share)
                missed += _look_at(found, *place)
    return found


def _look_at(found: Found, number: int, row_at: int | None = None) -> Iterator[Place]:
    """Take a page's rows, or one; yields what was missing because the disk did not read it."""
    pages = found.pages
    missed = pages.missed
    cells = pages.cells(number) if row_at is None else [row_at]
    if pages.missed > missed:
        yield number, None
    for at in cells:
        missed = pages.missed
        row = pages.row(number, at)
        if row is not None:
            _sort_in(found, row, number, at)
        elif pages.missed > missed:
            yield number, at


def _sort_in(found: Found, row: list[Value], page: int, at: int) -> None:
    """Recognise a row by the types of its columns and, where it has one, by its checksum."""
    shape = "".join(_letter(value) for value in row)
    match shape:
        case "iiiiinib" | "iiiiitib":
            _place(found, row, page, at)
        case "ittttti" if codec.row_checksum(*row[:-1]) == row[-1]:
            found.series[row[0]] = Series(*row[1:6])  # type: ignore[index,arg-type]
        case "itiiiiiii" if codec.row_checksum(*row[1:-1]) == row[-1]:
            totals = SinkTotals(*row[1:-1])  # type: ignore[arg-type]
            known = found.totals.get(totals.sink)
            if known is None or known.sequence < totals.sequence:
                found.totals[totals.sink] = totals
        case "iitiii" if row[1] == FORMAT and codec.row_checksum(*row[1:-1]) == row[-1]:
            _, _, journal_id, sequence, taken, _ = row
            if (taken, sequence) >= (found.taken or 0, found.taken_up_to):
                found.journal_id, found.taken = journal_id, taken  # type: ignore[assignment]
                found.taken_up_to = sequence  # type: ignore[assignment]
            found.sequence = max(found.sequence, sequence)  # type: ignore[type-var,assignment]
        case "itiiiiti" | "itniiiti" | "itnnniti":
            with contextlib.suppress(JournalError):
                loss = ledger_row(row)
                if found.is_news("ledger", row[0], page):
                    found.ledger.append(loss)
        case "itiiftii" | "itiiitii":
            row[4] = float(row[4])  # type: ignore[arg-type]  # SQLite stores 2.0 as 2
            with contextlib.suppress(JournalError):
                refused = quarantine_row(row)
                if found.is_news("quarantine", row[0], page):
                    found.quarantine.append(refused)


def _place(found: Found, row: list[Any], page: int, at: int) -> None:
    """Note where an entry lies."""
    sequence, first, last, samples, thinned, sinks, checksum, data = row
    if codec.checksum(sequence, first, last, samples, thinned, sinks, data) != checksum:
        return
    # Two versions of an entry are seen only without the free list: the thinner one is the newer.
    known = found.places.get(sequence)
    if known is None or known // _THINNED <= thinned:
        found.places[sequence] = thinned * _THINNED + page * PAGE_BYTES + at


def held(file: JournalFile, in_memory: Mapping[int, int], sinks: Iterable[str]) -> set[int]:
    """Which of the entries in memory a file has, or has had and all its sinks have taken.

    Raises ``JournalError`` at one that is damaged.
    """
    if not in_memory:
        return set()
    cursors = (file.totals[sink].sequence for sink in sinks if sink in file.totals)
    settled = min(cursors, default=0)
    kept = {entry.batch.sequence for entry in file.export(min(in_memory) - 1)}
    return {sequence for sequence in in_memory if sequence <= settled or sequence in kept}


def replace(
    path: Path,
    open_file: OpenFile,
    sinks: Iterable[str],
    reach: Reach,
    in_memory: Mapping[int, int] = NOTHING,
) -> str:
    """Build a new journal from what a damaged one still holds, and put it in its place.

    The damaged file and its WAL are kept beside it. Returns what was recovered and lost, in words.
    A crash at any moment is mended by `finish`: the damaged file stays what it is until the new one
    is whole, so that another attempt begins anew and finds the same.

    ``in_memory`` has the samples of each entry that the caller has whole, by sequence: what is not
    recovered of these the caller will commit anew, and it is not counted as taken.

    Raises ``TransientError`` if the disk refuses, or ``reach`` does: then nothing is replaced.
    """
    reach = Reached(reach)
    with _translated(path):
        path.touch()  # All that is left of it may be its WAL.
        fresh_path = _fresh(path)
        _remove(fresh_path)
        with contextlib.closing(Pages(path, reach.again)) as pages:
            if pages.wal_holes:
                kilobytes = pages.wal_holes * piecewise.PIECE_BYTES // 1_000
                log.warning(
                    "journal recovery: %d kB of the WAL are unreadable; a commit that stood only"
                    " there is not in the ledger either",
                    kilobytes,
                )
            log.info("journal recovery: %d MB to go through", pages.count * PAGE_BYTES // 1_000_000)
            found = scan(pages, reach)
            recovered, lost = _rebuild(found, open_file, fresh_path, sinks, reach, in_memory)
            if pages.unreadable:
                log.warning("journal recovery: %d pages are unreadable", len(pages.unreadable))
        kept = name_for_damaged(path, epoch_ms())
        if beside(path, "-wal").exists():
            piecewise.keep(beside(path, "-wal"), beside(kept, "-wal"), reach.again)
        sync_folder(path.parent)
        path.rename(kept)
    finish(path)
    losses = ", ".join(f"{sink} lost {samples}" for sink, samples in lost.items()) or "none lost"
    return f"{recovered} pending samples recovered; {losses}; the damaged file is {kept}"


def finish(path: Path) -> None:
    """Bring an interrupted replacement to its end: the new file in place, or gone.

    Raises ``TransientError`` if the disk refuses.
    """
    fresh = _fresh(path)
    with _translated(path):
        if path.exists():
            _remove(fresh)
        elif fresh.exists():
            # The damaged file's WAL must not be taken for the new file's.
            _remove(path)
            fresh.rename(path)
            sync_folder(path.parent)


def _rebuild(
    found: Found,
    open_file: OpenFile,
    path: Path,
    sinks: Iterable[str],
    reach: Reach,
    in_memory: Mapping[int, int],
) -> tuple[int, dict[str, int]]:
    """Write the new file; returns the samples that were recovered, and losses per sink."""
    fresh = open_file(path)
    try:
        fresh.room.active = frozenset(sinks)
        pages = fresh.room.pages_allowed  # A full disk is watched step by step.
        if fresh.policy is Policy.STOP:
            pages = max(pages, 2 * found.pages.count)  # It drops nothing, be its limit lower now.
        fresh.room.limit(pages)
        return _carry_over(found, fresh, reach, in_memory)
    finally:
        fresh.close()


def _carry_over(
    found: Found, fresh: JournalFile, reach: Reach, in_memory: Mapping[int, int]
) -> tuple[int, dict[str, int]]:
    """Copy books and pending entries; returns the samples of the latter, and losses per sink."""
    known = sorted({*found.totals, *fresh.room.active})
    fresh.restore_books(
        taken=found.taken or 0,
        sequence=found.last_sequence,
        totals=[found.totals.get(sink, SinkTotals(sink)) for sink in known],
        ledger=[_with_known_series(row, found.series) for row in found.ledger],
        quarantine=[row for row in found.quarantine if row[1].series_id in found.series],
        series=found.series.items(),
    )
    samples = 0
    for step, share in _steps(found, known, Pace(reach), in_memory):
        fitting = _fitting(fresh, step)
        fresh.restore_entries(fitting)
        samples += sum(len(batch) for batch, _ in fitting)
        if len(fitting) < len(step):
            log.warning("journal recovery: the disk is full, the rest stays in the damaged file")
            break
        reach(SCAN_SHARE + (1 - SCAN_SHARE) * share)
    taken = found.taken
    if taken is not None:
        anew = in_memory.keys() - held(fresh, in_memory, known)
        taken -= sum(in_memory[sequence] for sequence in anew if sequence <= found.taken_up_to)
    lost = fresh.balance(taken, set(known) - found.totals.keys())
    return samples, lost


def _steps(
    found: Found, known: list[str], pace: Pace, in_memory: Mapping[int, int]
) -> Iterator[tuple[list[Recovered], float]]:
    """The pending entries, a transaction's worth at a time, each with the sinks it waits for.

    With each step the share of all entries that have been looked at.
    """
    step: list[Recovered] = []
    step_bytes = 0
    cursors = {sink: found.totals.get(sink, SinkTotals(sink)).sequence for sink in known}
    for number, (batch, sinks) in enumerate(found.entries(), start=1):
        pace.step(SCAN_SHARE + (1 - SCAN_SHARE) * number / len(found.places))
        step_bytes += _room_of(batch)
        names = [
            sink
            for sink in known
            if (sinks is None or sink in sinks.split(",")) and batch.sequence > cursors[sink]
        ]
        whole = len(batch) >= in_memory.get(batch.sequence, 0)
        if names and whole:
            step.append((batch, None if names == known else ",".join(names)))
        if step_bytes >= BYTES_PER_STEP:
            yield step, number / len(found.places)
            step, step_bytes = [], 0
    yield step, 1.0


def _room_of(batch: Batch) -> int:
    """The bytes of an entry's pages, of which the last is rarely full."""
    return codec.BYTES_PER_SAMPLE * (len(batch) + len(batch.runs)) + PAGE_BYTES


def _named(batch: Batch) -> Batch:
    """The samples of a batch whose series are known."""
    if batch.series.keys() >= set(batch.series_ids):
        return batch
    return picked(batch, [series_id in batch.series for series_id in batch.series_ids])


def _fitting(fresh: JournalFile, step: list[Recovered]) -> list[Recovered]:
    """As much of a step as the disk has room for; the ballast is given up for it."""
    while step:
        needed = sum(_room_of(batch) for batch, _ in step) + SPARE_BYTES
        if free_bytes(fresh.path.parent) >= needed:
            break
        if not fresh.room.drop_ballast():
            step = step[: len(step) // 2]
    return step


def _with_known_series(row: LedgerRow, series: Mapping[int, Series]) -> LedgerRow:
    """A number whose series is lost will name another one."""
    return row if row.series_id in series else dataclasses.replace(row, series_id=None)


def _fresh(path: Path) -> Path:
    return path.with_suffix(".new")


def _remove(path: Path) -> None:
    """Delete a file and what SQLite has left beside it.

    Its rollback journal, which the new file has until its first opening is through, would be rolled
    back into the next file of that name.
    """
    for suffix in ("", "-wal", "-shm", "-journal"):
        beside(path, suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError(f"{path}: recovery: {error.strerror}") from error
    except JournalError as error:  # of the new file
        raise TransientError(f"the disk does not keep what it is given: {error}") from error


def _letter(value: Value) -> str:
    kinds: dict[type, str] = {int: "i", float: "f", str: "t", bytes: "b"}
    return kinds.get(type(value), "n")
