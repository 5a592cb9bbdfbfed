"""Recover a damaged journal: read its rows without SQLite's help, build a new file from them.

SQLite gives up at the first page that does not fit. The rows are still there: every page of a
table says by itself how many rows it holds, so this module visits all pages, takes the rows whose
shape and checksum are a journal's, and leaves the rest. Pages in the WAL replace those in the
file; pages on the free list are left out, since their rows were deleted.

Source for the page, record and WAL layout: "Database File Format", sections 1.5, 1.6, 2.1 and 4.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.errors import JournalError, TransientError
from edge_agent.journal import entry as codec
from edge_agent.journal import wal
from edge_agent.journal.books import (
    LedgerRow,
    Quarantined,
    SinkTotals,
    ledger_row,
    quarantine_row,
)
from edge_agent.journal.entries import picked
from edge_agent.journal.file import FORMAT, JournalFile
from edge_agent.journal.room import PAGE_BYTES, free_bytes
from edge_agent.model import Batch, Series

log = logging.getLogger(__name__)

ENTRIES_PER_STEP = 8
"""Half a megabyte at the most: what a full disk must hold twice, in the WAL and in the file."""
SPARE_BYTES = 2_000_000
"""Left on a full disk for the books of the new file, and for opening it."""
_LEAF = 0x0D
_MAGIC = b"SQLite format 3\x00"
_INT_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_LOCAL_MAX = PAGE_BYTES - 35
_LOCAL_MIN = (PAGE_BYTES - 12) * 32 // 255 - 23

Value = None | int | float | str | bytes
Recovered = tuple[Batch, str | None]
OpenFile = Callable[[Path], JournalFile]


@dataclass(slots=True)
class Found:
    """What a damaged file still holds. Entries are read when they are asked for."""

    pages: Pages
    journal_id: str | None = None
    taken: int | None = None
    series: dict[int, Series] = field(default_factory=dict)
    totals: dict[str, SinkTotals] = field(default_factory=dict)
    ledger: list[LedgerRow] = field(default_factory=list)
    quarantine: list[tuple[str, Quarantined]] = field(default_factory=list)
    places: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def entries(self) -> Iterator[tuple[Batch, str | None]]:
        """Every entry that is whole, in sequence order, with the sinks it is meant for.

        Samples whose series is not readable any more are left out: nobody could say whose they are.
        """
        nameless = 0
        for sequence in sorted(self.places):
            _, page, at = self.places[sequence]
            row = self.pages.row(page, at)
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


class Pages:
    """The pages of a database file as its WAL leaves them."""

    def __init__(self, path: Path) -> None:
        self._newer: dict[int, bytes] = {}
        newer = _beside(path, "-wal")
        if newer.exists():
            for _, pages in wal.commits(newer.read_bytes(), PAGE_BYTES):
                self._newer |= pages
        self._main = os.open(path, os.O_RDONLY)
        self.count = max(os.fstat(self._main).st_size // PAGE_BYTES, *self._newer, 0)

    def close(self) -> None:
        """Release the file."""
        os.close(self._main)

    def page(self, number: int) -> bytes:
        """One page, counted from 1; empty if it is beyond the file or the disk can't read it."""
        newer = self._newer.get(number)
        if newer is not None:
            return newer
        if not 1 <= number <= self.count:
            return b""
        try:
            data = os.pread(self._main, PAGE_BYTES, (number - 1) * PAGE_BYTES)
        except OSError as error:
            log.warning("journal recovery: page %d: %s", number, error.strerror)
            return b""
        return data if len(data) == PAGE_BYTES else b""

    def free(self) -> set[int]:
        """Numbers of the pages on the free list, as far as it can be followed and believed."""
        first = self.page(1)
        free: set[int] = set()
        if first[:16] != _MAGIC:
            return free
        pages, trunk = struct.unpack_from(">II", first, 28)
        while trunk not in free and (page := self.page(trunk)):
            following, leaves = struct.unpack_from(">II", page)
            numbers = struct.unpack_from(f">{min(leaves, PAGE_BYTES // 4 - 2)}I", page, 8)
            if len(numbers) != leaves or any(not 1 < number <= pages for number in numbers):
                break
            free.update(numbers, (trunk,))
            trunk = following
        return free

    def cells(self, number: int) -> list[int]:
        """Where a table leaf's rows begin; empty for any other page."""
        page = self.page(number)
        head = 100 if number == 1 else 0
        if not page or page[head] != _LEAF:
            return []
        (count,) = struct.unpack_from(">H", page, head + 3)
        count = min(count, (PAGE_BYTES - head - 8) // 2)
        return list(struct.unpack_from(f">{count}H", page, head + 8))

    def row(self, number: int, at: int) -> list[Value] | None:
        """One row's columns, its rowid in place of the first; None if it is not whole."""
        try:
            page = self.page(number)
            size, at = _varint(page, at)
            rowid, at = _varint(page, at)
            payload = self._payload(page, at, size)
            columns = _record(payload)
        except (IndexError, ValueError, struct.error):
            return None
        return [rowid, *columns[1:]] if columns and columns[0] is None else None

    def _payload(self, page: bytes, at: int, size: int) -> bytes:
        if size <= _LOCAL_MAX:
            return page[at : at + size]
        local = _LOCAL_MIN + (size - _LOCAL_MIN) % (PAGE_BYTES - 4)
        local = local if local <= _LOCAL_MAX else _LOCAL_MIN
        if size > self.count * PAGE_BYTES:
            raise ValueError("longer than the file")
        parts = [page[at : at + local]]
        (overflow,) = struct.unpack_from(">I", page, at + local)
        missing = size - local
        while missing > 0:
            page = self.page(overflow)
            (overflow,) = struct.unpack_from(">I", page)
            parts.append(page[4 : 4 + missing])
            missing -= PAGE_BYTES - 4
        return b"".join(parts)


def scan(pages: Pages) -> Found:
    """Visit every page of a damaged file and its WAL."""
    found = Found(pages)
    free = pages.free()
    for number in range(1, pages.count + 1):
        if number not in free:
            for at in pages.cells(number):
                row = pages.row(number, at)
                if row is not None:
                    _sort_in(found, row, number, at)
    return found


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
            found.journal_id, found.taken = row[2], row[4]  # type: ignore[assignment]
        case "itiiiiti" | "itniiiti" | "itnnniti":
            with contextlib.suppress(JournalError):
                found.ledger.append(ledger_row(row))
        case "itiiftii" | "itiiitii":
            row[4] = float(row[4])  # type: ignore[arg-type]  # SQLite stores 2.0 as 2
            with contextlib.suppress(JournalError):
                found.quarantine.append(quarantine_row(row))


def _place(found: Found, row: list[Any], page: int, at: int) -> None:
    """Note where an entry lies."""
    sequence, first, last, samples, thinned, sinks, checksum, data = row
    if codec.checksum(sequence, first, last, samples, thinned, sinks, data) != checksum:
        return
    # Two versions of an entry are seen only without the free list: the thinner one is the newer.
    if sequence not in found.places or found.places[sequence][0] <= thinned:
        found.places[sequence] = (thinned, page, at)


def replace(path: Path, open_file: OpenFile, sinks: Iterable[str]) -> str:
    """Build a new journal from what a damaged one still holds, and put it in its place.

    The damaged file and its WAL are kept beside it. Returns what was recovered and lost, in words.
    A crash at any moment is mended by `finish`. Raises ``TransientError`` if the disk refuses:
    then nothing has been replaced.
    """
    with _translated(path):
        path.touch()  # All that is left of it may be its WAL.
        fresh_path = _fresh(path)
        _remove(fresh_path)
        with contextlib.closing(Pages(path)) as pages:
            recovered, lost = _rebuild(scan(pages), open_file, fresh_path, sinks)
        kept = _name_for(path)
        log_path = _beside(path, "-wal")
        if log_path.exists():
            shutil.copyfile(log_path, _beside(kept, "-wal"))
        _sync_folder(path)
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
            _sync_folder(path)


def _rebuild(
    found: Found, open_file: OpenFile, path: Path, sinks: Iterable[str]
) -> tuple[int, dict[str, int]]:
    """Write the new file; returns the samples that were recovered, and losses per sink."""
    fresh = open_file(path)
    try:
        fresh.room.active = frozenset(sinks)
        fresh.room.limit(fresh.room.pages_allowed)  # A full disk is watched step by step.
        recovered, lost = _carry_over(found, fresh)
    finally:
        fresh.close()
    if _beside(path, "-wal").exists():
        raise TransientError(f"{path}: the disk does not take the recovered journal")
    return recovered, lost


def _carry_over(found: Found, fresh: JournalFile) -> tuple[int, dict[str, int]]:
    """Copy books and pending entries; returns the samples of the latter, and losses per sink."""
    known = sorted({*found.totals, *fresh.room.active})
    fresh.restore_books(
        taken=found.taken or 0,
        totals=[found.totals.get(sink, SinkTotals(sink)) for sink in known],
        ledger=[_with_known_series(row, found.series) for row in found.ledger],
        quarantine=[row for row in found.quarantine if row[1].series_id in found.series],
    )
    series = list(found.series.items())
    samples = 0
    for step in _steps(found, known):
        if not _has_room(fresh, step):
            log.warning("journal recovery: the disk is full, the rest stays in the damaged file")
            break
        fresh.restore_entries(step, series)
        samples += sum(len(batch) for batch, _ in step)
    lost = fresh.balance(found.taken, set(known) - found.totals.keys())
    return samples, lost


def _steps(found: Found, known: list[str]) -> Iterator[list[Recovered]]:
    """The pending entries, a transaction's worth at a time, each with the sinks it waits for."""
    step: list[Recovered] = []
    cursors = {sink: found.totals.get(sink, SinkTotals(sink)).sequence for sink in known}
    for batch, sinks in found.entries():
        names = [
            sink
            for sink in known
            if (sinks is None or sink in sinks.split(",")) and batch.sequence > cursors[sink]
        ]
        if names:
            step.append((batch, None if names == known else ",".join(names)))
        if len(step) >= ENTRIES_PER_STEP:
            yield step
            step = []
    yield step


def _named(batch: Batch) -> Batch:
    """The samples of a batch whose series are known."""
    if batch.series.keys() >= set(batch.series_ids):
        return batch
    return picked(batch, [series_id in batch.series for series_id in batch.series_ids])


def _has_room(fresh: JournalFile, step: list[Recovered]) -> bool:
    """Whether the disk holds a step in the WAL and in the file; the ballast is given up for it."""
    samples = sum(len(batch) for batch, _ in step)
    needed = 3 * samples * codec.BYTES_PER_SAMPLE + SPARE_BYTES
    while free_bytes(fresh.path.parent) < needed:
        if not fresh.room.drop_ballast():
            return False
    return True


def _with_known_series(row: LedgerRow, series: Mapping[int, Series]) -> LedgerRow:
    """A number whose series is lost will name another one."""
    return row if row.series_id in series else dataclasses.replace(row, series_id=None)


def _fresh(path: Path) -> Path:
    return path.with_suffix(".new")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        _beside(path, suffix).unlink(missing_ok=True)


def _name_for(path: Path) -> Path:
    """A name for the damaged file that is not taken."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    kept = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    return kept


def _sync_folder(path: Path) -> None:
    """Make renames durable."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError(f"{path}: recovery: {error.strerror}") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    value = value << 8 | data[at + 8]
    return (value - (1 << 64) if value >> 63 else value), at + 9


def _record(payload: bytes) -> list[Value]:
    head_size, at = _varint(payload, 0)
    if not 1 <= head_size <= len(payload):
        raise ValueError("not a record")
    kinds = []
    while at < head_size:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[Value] = []
    for kind in kinds:
        value, at = _column(payload, at, kind)
        values.append(value)
    return values


def _column(payload: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    size = _INT_BYTES.get(kind) or (8 if kind == 7 else (kind - 12) // 2)
    data = payload[at : at + size]
    if kind in (10, 11) or kind < 0 or len(data) != size:
        raise ValueError("not a record")
    if kind in _INT_BYTES:
        return int.from_bytes(data, "big", signed=True), at + size
    if kind == 7:
        (number,) = struct.unpack(">d", data)
        return number, at + size
    return (data.decode() if kind % 2 else data), at + size


def _letter(value: Value) -> str:
    kinds: dict[type, str] = {int: "i", float: "f", str: "t", bytes: "b"}
    return kinds.get(type(value), "n")
