"""Recover a damaged journal: read its rows without SQLite's help, build a new file from them.

SQLite gives up at the first page that does not fit. The rows are still there: every page of a
table says by itself how many rows it holds, so this module visits all pages, takes the rows whose
shape and checksum are a journal's, and leaves the rest. Pages in the WAL replace those in the
file; pages on the free list are left out, since their rows were deleted.

Source for the page, record and WAL layout: "Database File Format", sections 1.5, 1.6, 2.1 and 4.
"""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.errors import JournalError
from edge_agent.journal import entry as codec
from edge_agent.journal.books import LedgerRow, Quarantined, SinkTotals
from edge_agent.journal.file import FORMAT, JournalFile
from edge_agent.journal.room import PAGE_BYTES
from edge_agent.model import Batch, Series

log = logging.getLogger(__name__)

ENTRIES_PER_STEP = 32
_LEAF = 0x0D
_MAGIC = b"SQLite format 3\x00"
_INT_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_LOCAL_MAX = PAGE_BYTES - 35
_LOCAL_MIN = (PAGE_BYTES - 12) * 32 // 255 - 23

Value = None | int | float | str | bytes
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
    places: dict[int, tuple[int, int]] = field(default_factory=dict)

    def entries(self) -> Iterator[tuple[Batch, str | None]]:
        """Every entry that is whole, in sequence order, with the sinks it is meant for."""
        for sequence in sorted(self.places):
            page, at = self.places[sequence]
            row = self.pages.row(page, at)
            if row is None:
                continue
            data = row[7]
            assert isinstance(data, bytes)
            sinks = row[5] if isinstance(row[5], str) else None
            try:
                yield codec.decode(sequence, data, self.series), sinks
            except JournalError as error:
                log.warning("journal recovery: %s", error)


class Pages:
    """The pages of a database file as its WAL leaves them."""

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        with path.open("rb") as stream:
            self._main: mmap.mmap | bytes = (
                mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            )
        wal = path.with_name(path.name + "-wal")
        self._newer = _wal_pages(wal.read_bytes()) if wal.exists() else {}
        self.count = max(size // PAGE_BYTES, *self._newer, 0)

    def page(self, number: int) -> bytes:
        """One page, counted from 1; empty if the file does not reach so far."""
        newer = self._newer.get(number)
        if newer is not None:
            return newer
        data = self._main[(number - 1) * PAGE_BYTES : number * PAGE_BYTES]
        return data if len(data) == PAGE_BYTES else b""

    def free(self) -> set[int]:
        """Numbers of the pages on the free list, as far as it can be followed."""
        first = self.page(1)
        free: set[int] = set()
        if first[:16] != _MAGIC:
            return free
        (trunk,) = struct.unpack_from(">I", first, 32)
        while trunk and trunk not in free and (page := self.page(trunk)):
            free.add(trunk)
            trunk, leaves = struct.unpack_from(">II", page)
            free.update(struct.unpack_from(f">{min(leaves, PAGE_BYTES // 4 - 2)}I", page, 8))
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


def scan(path: Path) -> Found:
    """Visit every page of a damaged file and its WAL."""
    found = Found(Pages(path))
    free = found.pages.free()
    for number in range(1, found.pages.count + 1):
        if number not in free:
            for at in found.pages.cells(number):
                row = found.pages.row(number, at)
                if row is not None:
                    _sort_in(found, row, number, at)
    return found


def _sort_in(found: Found, row: list[Value], page: int, at: int) -> None:
    """Recognise a row by the types of its columns and, where it has one, by its checksum."""
    shape = "".join(_letter(value) for value in row)
    match shape:
        case "iiiiinib" | "iiiiitib":
            sequence, first, last, samples, thinned, sinks, checksum, data = row
            columns = (sequence, first, last, samples, thinned, sinks, data)
            if codec.checksum(*columns) == checksum:  # type: ignore[arg-type]
                found.places[sequence] = (page, at)  # type: ignore[index]
        case "ittttti" if codec.row_checksum(*row[:-1]) == row[-1]:
            found.series[row[0]] = Series(*row[1:6])  # type: ignore[index,arg-type]
        case "itiiiiiii" if codec.row_checksum(*row[1:-1]) == row[-1]:
            totals = SinkTotals(*row[1:-1])  # type: ignore[arg-type]
            known = found.totals.get(totals.sink)
            if known is None or known.sequence < totals.sequence:
                found.totals[totals.sink] = totals
        case "iitiii" if row[1] == FORMAT and codec.row_checksum(*row[1:-1]) == row[-1]:
            found.journal_id, found.taken = row[2], row[4]  # type: ignore[assignment]
        case "itiiiit" | "itniiit" | "itnnnit":
            found.ledger.append(LedgerRow(*row[1:]))  # type: ignore[arg-type]
        case "itiifti" | "itiiiti":
            _, sink, series_id, ts_ms, value, reason, _ = row
            sample = Quarantined(series_id, ts_ms, float(value), reason)  # type: ignore[arg-type]
            found.quarantine.append((sink, sample))  # type: ignore[arg-type]


def replace(path: Path, open_file: OpenFile, sinks: Iterable[str]) -> str:
    """Build a new journal from what a damaged one still holds, and put it in its place.

    The damaged file and its WAL are kept beside it. Returns what was recovered and lost, in words.
    A crash at any moment is mended by `finish`.
    """
    fresh_path = _fresh(path)
    _remove(fresh_path)
    found = scan(path)
    fresh = open_file(fresh_path)
    fresh.room.active = frozenset(sinks)
    recovered, lost = _carry_over(found, fresh)
    fresh.close()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    kept = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    wal = path.with_name(path.name + "-wal")
    if wal.exists():
        shutil.copyfile(wal, kept.with_name(kept.name + "-wal"))
    path.rename(kept)
    finish(path)
    losses = ", ".join(f"{sink} lost {samples}" for sink, samples in lost.items()) or "none lost"
    return f"{recovered} pending samples recovered; {losses}; the damaged file is {kept}"


def finish(path: Path) -> None:
    """Bring an interrupted replacement to its end: the new file in place, or gone."""
    fresh = _fresh(path)
    if path.exists():
        _remove(fresh)
    elif fresh.exists():
        # The damaged file's WAL must not be taken for the new file's.
        _remove(path)
        fresh.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _carry_over(found: Found, fresh: JournalFile) -> tuple[int, dict[str, int]]:
    """Copy books and pending entries; returns the samples of the latter, and losses per sink."""
    known = sorted({*found.totals, *fresh.room.active})
    fresh.restore_books(
        taken=found.taken or 0,
        totals=[found.totals.get(sink, SinkTotals(sink)) for sink in known],
        ledger=found.ledger,
        quarantine=[row for row in found.quarantine if row[1].series_id in found.series],
    )
    waiting: list[tuple[Batch, str | None]] = []
    samples = 0
    for batch, sinks in found.entries():
        names = [
            sink
            for sink in known
            if (sinks is None or sink in sinks.split(","))
            and batch.sequence > found.totals.get(sink, SinkTotals(sink)).sequence
        ]
        if not names:
            continue
        samples += len(batch)
        waiting.append((batch, None if names == known else ",".join(names)))
        if len(waiting) >= ENTRIES_PER_STEP:
            fresh.restore_entries(waiting, found.series.items())
            waiting = []
    fresh.restore_entries(waiting, found.series.items())
    lost = fresh.balance(found.taken, set(known) - found.totals.keys())
    return samples, lost


def _fresh(path: Path) -> Path:
    return path.with_suffix(".new")


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _wal_pages(data: bytes) -> dict[int, bytes]:
    """The newest version of each page in a WAL's present generation."""
    pages: dict[int, bytes] = {}
    uncommitted: dict[int, bytes] = {}
    if len(data) < 32:
        return pages
    salts = data[16:24]
    for at in range(32, len(data) - 24 - PAGE_BYTES + 1, 24 + PAGE_BYTES):
        number, pages_after_commit = struct.unpack_from(">II", data, at)
        if data[at + 8 : at + 16] != salts:
            break
        uncommitted[number] = data[at + 24 : at + 24 + PAGE_BYTES]
        if pages_after_commit:
            pages.update(uncommitted)
            uncommitted.clear()
    return pages


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
