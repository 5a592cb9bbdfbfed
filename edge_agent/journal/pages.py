"""A SQLite file's pages, and the rows on them, read without SQLite's help.

Nothing that they say is believed before it was looked at: a damaged page yields no rows, never an
error. Where a part of the WAL can't be read, a row may be whole only in a page's older version, and
nobody knows which pages that part had: all versions are shown then, and no free list is believed.
What the disk can't read is left out at first, and may be asked for again after `try_again`.

Source for the page and record layout: "Database File Format", sections 1.5, 1.6 and 2.1.
"""

from __future__ import annotations

import logging
import os
import struct
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edge_agent.errors import TransientError
from edge_agent.journal import piecewise, wal
from edge_agent.journal.room import PAGE_BYTES
from edge_agent.sqlite import beside

log = logging.getLogger(__name__)

OLDER = 1 << 40
"""Page numbers from here on, beyond every file, are older versions: first the file's pages as they
are without the WAL, then at twice this those of the WAL that it has anew."""
PAUSES_MAX = 60
"""Of a recovery, each `piecewise.READ_INTERVAL_S`: a disk that dies while it is copied ends it."""
_LEAF = 0x0D
_MAGIC = b"SQLite format 3\x00"
_INT_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_LOCAL_MAX = PAGE_BYTES - 35
_LOCAL_MIN = (PAGE_BYTES - 12) * 32 // 255 - 23

Value = None | int | float | str | bytes


class Pages:
    """The pages of a database file as its WAL leaves them."""

    def __init__(self, path: Path, alive: piecewise.Alive = lambda: None) -> None:
        self.unreadable: set[int] = set()
        """Numbers of the pages that the disk could not read."""
        self.missed = 0
        """How often one of them was asked for that it may read after a pause."""
        self._failures: Counter[int] = Counter()
        self._pauses = 0
        self._alive = alive
        self._newer: dict[int, bytes] = {}
        self._outdated: list[bytes] = []
        log = piecewise.read(beside(path, "-wal"), alive)
        self.wal_holes = len(log.holes)
        """Pieces of the WAL that the disk could not read, each of ``PIECE_BYTES``."""
        self._main = os.open(path, os.O_RDONLY)
        self._in_file = os.fstat(self._main).st_size // PAGE_BYTES
        for _, pages in wal.commits(log.data, PAGE_BYTES, has_holes=bool(log.holes)):
            if log.holes:
                self._outdated += [self._newer[page] for page in pages if page in self._newer]
            self._newer |= pages
        # A damaged frame may claim to be any page: up to the largest there may be billions of none.
        self._beyond = sorted(page for page in self._newer if page > self._in_file)
        self.count = self._in_file + len(self._beyond)

    @property
    def numbers(self) -> list[Sequence[int]]:
        """Of all pages that are to be looked at, the newest versions first."""
        newest = [range(1, self._in_file + 1), self._beyond]
        if not self.wal_holes:
            return newest
        outdated = range(2 * OLDER, 2 * OLDER + len(self._outdated))
        return [*newest, range(OLDER + 1, OLDER + self._in_file + 1), outdated]

    def close(self) -> None:
        """Release the file."""
        os.close(self._main)

    def page(self, number: int) -> bytes:
        """One page, counted from 1; empty if it is beyond the file or the disk can't read it."""
        version, number = divmod(number, OLDER)
        if version == 2:
            return self._outdated[number]
        newer = None if version else self._newer.get(number)
        if newer is not None:
            return newer
        if not 1 <= number <= self._in_file:
            return b""
        if number not in self.unreadable:
            try:
                data = os.pread(self._main, PAGE_BYTES, (number - 1) * PAGE_BYTES)
            except OSError as error:
                self._note_failure(number, error)
            else:
                return data if len(data) == PAGE_BYTES else b""
        self.missed += self._has_tries(number)
        return b""

    def try_again(self) -> bool:
        """Wait until what the disk could not read may be asked for again; false: it is given up.

        Each page has ``READ_TRIES``, and a recovery ``PAUSES_MAX``.
        """
        again = {number for number in self.unreadable if self._has_tries(number)}
        if not again or self._pauses == PAUSES_MAX:
            return False
        self._pauses += 1
        time.sleep(piecewise.READ_INTERVAL_S)
        self.unreadable -= again
        return True

    def _note_failure(self, number: int, error: OSError) -> None:
        if not self._failures:
            log.warning("journal recovery: page %d: %s", number, error.strerror)
        self._failures[number] += 1
        self.unreadable.add(number)
        if self._alive():
            raise TransientError("reading it is given up") from error

    def _has_tries(self, number: int) -> bool:
        return self._failures[number] < piecewise.READ_TRIES

    def free(self) -> set[int]:
        """Numbers of the pages on the free list, as far as it can be followed and believed."""
        first = self.page(1)
        free: set[int] = set()
        if first[:16] != _MAGIC or self.wal_holes:
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
        head = 100 if page.startswith(_MAGIC) else 0
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
            payload = self._payload(page, at, size, OLDER * (number // OLDER == 1))
            columns = _record(payload)
        except (IndexError, ValueError, struct.error):
            return None
        return [rowid, *columns[1:]] if columns and columns[0] is None else None

    def _payload(self, page: bytes, at: int, size: int, base: int) -> bytes:
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
            page = self.page(base + overflow)
            (overflow,) = struct.unpack_from(">I", page)
            parts.append(page[4 : 4 + missing])
            missing -= PAGE_BYTES - 4
        return b"".join(parts)


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
