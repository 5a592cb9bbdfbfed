"""What a full journal does: count pages, and make room by the policy. Nothing here commits."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from edge_agent.journal.books import Books, Span, joined
from edge_agent.journal.entries import Entries, Entry, spans_of, thin
from edge_agent.model import Batch

PAGE_BYTES = 4096
BALLAST_BYTES = 8_000_000
"""Twice the WAL: what a checkpoint and a DELETE may need on a full disk."""
COMMIT_BYTES = 1_000_000
"""More than a commit writes: a disk that has so much beside the ballast's room is not full."""
RECLAIM_FRACTION = 256
"""A reclaim frees 1/256 of the file: long enough to be rare, short enough not to be felt."""
RECLAIM_PAGES_MIN = 32
"""Half of it holds one commit of `ENTRIES_PER_COMMIT_MAX` full entries."""
DROP_ENTRIES_PER_STEP = 32
THIN_ENTRIES_PER_STEP = 256
THIN_LEVEL_MAX = 6
"""Every 64th sample is left: beyond that a trend is no longer one, and dropping is honest."""


def free_bytes(folder: Path) -> int:
    """What the disk has left for this user."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def drop_ballast(path: Path) -> bool:
    """Free the room of a journal's ballast; False if that has been done."""
    try:
        _ballast(path).unlink()
    except FileNotFoundError:
        return False
    return True


def _ballast(path: Path) -> Path:
    return path.with_suffix(".ballast")


class Policy(StrEnum):
    """What a full journal does."""

    DROP_OLDEST = "drop_oldest"
    THIN = "thin"
    STOP = "stop"


@dataclass(slots=True)
class Room:
    """The pages of one journal file."""

    path: Path
    connection: sqlite3.Connection
    entries: Entries
    books: Books
    policy: Policy
    pages_allowed: int
    ballast_bytes: int
    pages_max: int = 0
    disk_full: bool = False
    active: frozenset[str] = frozenset()
    claimed: dict[str, int] = field(default_factory=dict)
    """Per sink, the highest sequence handed to it."""
    cached_from: int = 1 << 62
    """Entries from here on may be handed out from memory at any time."""

    def limit(self, pages: int) -> None:
        """Set the hard limit of the file; SQLite refuses to grow past it."""
        self.pages_max = pages
        self.connection.execute(f"PRAGMA max_page_count = {pages}")

    @property
    def bytes_max(self) -> int:
        """The hard limit that holds now."""
        return self.pages_max * PAGE_BYTES

    @property
    def used(self) -> int:
        """Pages that hold something."""
        run = self.connection.execute
        pages: int = run("PRAGMA page_count").fetchone()[0]
        free: int = run("PRAGMA freelist_count").fetchone()[0]
        return pages - free

    @property
    def low_water(self) -> int:
        """Free pages below which room is made."""
        return 2 * max(self.pages_max // RECLAIM_FRACTION, RECLAIM_PAGES_MIN)

    @property
    def free(self) -> int:
        """Pages that may still be filled."""
        return self.pages_max - self.used

    @property
    def low(self) -> bool:
        """Whether room is to be made now."""
        return self.free < self.low_water

    def reclaim(self) -> None:
        """Free pages by the policy, or as many as may be given up."""
        wanted = self.low_water + self.low_water // 2
        while self.free < wanted:
            if self.policy is Policy.THIN and self._thin(wanted):
                continue
            if not self._drop(wanted):
                break

    # -- the disk -------------------------------------------------------------------------------

    @property
    def is_limited(self) -> bool:
        """Whether a write found no room for the journal's own limit, and not for the disk's."""
        spare = free_bytes(self.path.parent)
        return self.free < self.low_water // 2 or spare > self.ballast_bytes + COMMIT_BYTES

    def give_up_ballast(self) -> bool:
        """The disk is full: free the ballast, and let the present size be the limit."""
        self.disk_full = True
        if not self.drop_ballast():
            return False
        self.limit_to_disk()
        return True

    def limit_to_disk(self) -> None:
        """Without its ballast a journal grows only as long as that much room is left."""
        self.disk_full = True
        pages = self.connection.execute("PRAGMA page_count").fetchone()[0]
        spare = max(free_bytes(self.path.parent) - self.ballast_bytes, 0) // PAGE_BYTES
        self.limit(min(max(pages + spare, 4 * RECLAIM_PAGES_MIN), self.pages_allowed))

    def drop_ballast(self) -> bool:
        """Free the ballast's room on the disk; False if that has been done."""
        return drop_ballast(self.path)

    def restore_ballast(self) -> bool:
        """Lay the ballast down if the disk has room for it twice, and lift the limit again."""
        ballast = self._ballast
        if not ballast.exists():
            if free_bytes(self.path.parent) < 2 * self.ballast_bytes:
                return False
            try:
                with ballast.open("wb") as stream:
                    os.posix_fallocate(stream.fileno(), 0, max(self.ballast_bytes, 1))
            except OSError:
                ballast.unlink(missing_ok=True)
                return False
        if self.disk_full:
            self.disk_full = False
            self.limit(self.pages_allowed)
        return True

    @property
    def _ballast(self) -> Path:
        return _ballast(self.path)

    # -- the policies ---------------------------------------------------------------------------

    def _unclaimed(self) -> tuple[str, tuple[int, ...]]:
        """SQL and parameters for the entries that no sink has in its hands."""
        clause, bounds = "sequence < ?", [self.cached_from]
        for sink in sorted(self.active):
            acknowledged = self.books.totals[sink].sequence
            if self.claimed.get(sink, 0) > acknowledged:
                clause += " AND NOT (sequence > ? AND sequence <= ?)"
                bounds += (acknowledged, self.claimed[sink])
        return clause, tuple(bounds)

    def _waiting_sinks(self, entry: Entry) -> tuple[str, ...]:
        return tuple(
            sink
            for sink in sorted(self.active)
            if self.books.totals[sink].sequence < entry.batch.sequence and entry.meant_for(sink)
        )

    def _drop(self, wanted: int) -> bool:
        """Delete the oldest unclaimed entries; each sample goes to the ledger per waiting sink."""
        clause, bounds = self._unclaimed()
        entries = self.entries.select(clause, bounds, DROP_ENTRIES_PER_STEP)
        waiting: dict[tuple[str, ...], list[Batch]] = {}
        for entry in entries:
            waiting.setdefault(self._waiting_sinks(entry), []).append(entry.batch)
            self.entries.delete(entry.batch.sequence)
            if self.free >= wanted:
                break
        self._lose(waiting, "journal full: oldest dropped")
        return bool(entries)

    def _thin(self, wanted: int) -> bool:
        """Halve the rate of the least thinned, oldest unclaimed entries."""
        clause, bounds = self._unclaimed()
        level = self.entries.least_thinned(clause, bounds)
        if level is None or level >= THIN_LEVEL_MAX:
            return False
        entries = self.entries.select(
            f"{clause} AND thinned = ?", (*bounds, level), THIN_ENTRIES_PER_STEP
        )
        keep_next: dict[int, bool] = {}
        waiting: dict[tuple[str, ...], list[Batch]] = {}
        for entry in entries:
            kept, dropped = thin(entry.batch, keep_next)
            if len(dropped):
                waiting.setdefault(self._waiting_sinks(entry), []).append(dropped)
            self.entries.delete(entry.batch.sequence)
            if len(kept):
                self.entries.insert(kept, entry.sinks, level + 1)
            if self.free >= wanted:
                break
        self._lose(waiting, "journal full: thinned")
        return True

    def _lose(self, waiting: Mapping[tuple[str, ...], list[Batch]], reason: str) -> None:
        losses: dict[tuple[str, int | None], Span] = {}
        for sinks, batches in waiting.items():
            spans = spans_of(batches) if sinks else {}
            for sink in sinks:
                for series_id, span in spans.items():
                    losses[sink, series_id] = joined(losses.get((sink, series_id)), span)
        self.books.lose(losses, reason)
