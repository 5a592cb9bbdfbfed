"""The journal's file: one SQLite database, synchronous, used by one thread at a time.

The design is in the package's docstring. Every change is one transaction, and what is refused for
lack of room has changed nothing: then `commit` and `discard` go on in smaller ones, each of which
leaves books that balance. Errors: ``JournalError`` when the file is damaged,
``TransientError`` when the disk refuses.
"""

from __future__ import annotations

import contextlib
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edge_agent.clock import epoch_ms
from edge_agent.errors import ConfigError, JournalError, TransientError
from edge_agent.journal import opening
from edge_agent.journal.books import (
    BOOKS_PAGES,
    Acknowledgement,
    Books,
    LedgerRow,
    NoRoomError,
    Quarantined,
    SinkTotals,
)
from edge_agent.journal.entries import MEANT_FOR, Entries, Entry, batch_of, spans_of
from edge_agent.journal.entry import row_checksum
from edge_agent.journal.opening import FORMAT
from edge_agent.journal.progress import Progress
from edge_agent.journal.room import (
    BALLAST_BYTES,
    PAGE_BYTES,
    Policy,
    Room,
    drop_ballast,
    free_bytes,
)
from edge_agent.model import Batch, Series
from edge_agent.sqlite import code_of

BYTES_MIN = 1_000_000
SEQUENCES_PER_OPENING = 1 << 32
"""More than one opening ever uses, so that a file whose newest commits were lost never gives a
sequence out twice. 2 billion openings are left."""
OPENING_BYTES = 1_000_000
"""What opening takes of a disk: the WAL's index, and a few pages in the WAL and the file."""
OPERATIONS_PER_ADVANCE = 1_000
"""Of SQLite's virtual machine: a walk through 250 entries, a second or two on the slowest disk."""
DISCARD_ENTRIES_PER_STEP = 256
EXPORT_ENTRIES_PER_STEP = 64


Reach = Callable[[float], None]
"""Is told which share of a long walk through the entries is done, 0 to 1."""


class JournalFile:
    """An open journal file. Raises ``ConfigError`` for a limit or a format it can't work with."""

    def __init__(
        self,
        path: Path,
        *,
        bytes_max: int,
        policy: Policy = Policy.DROP_OLDEST,
        now_ms: Callable[[], int] = epoch_ms,
        ballast_bytes: int = BALLAST_BYTES,
        read_only: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """``read_only`` looks at the file of an agent that may be running, and changes nothing.

        ``progress`` hears of it again and again while SQLite works, from the thread that makes it.
        """
        if bytes_max < BYTES_MIN:
            raise ConfigError(f"journal bytes_max is {bytes_max}; allowed: at least {BYTES_MIN}")
        self.path = path
        self.bytes_max = bytes_max
        self.policy = policy
        self.full = False
        self._connection: sqlite3.Connection
        self.series: dict[int, Series] = {}
        self.journal_id = ""
        self.sequence = 0
        self.taken = 0
        self.newest = 0
        """The newest entry that the file held when it was opened; 0 if there was none."""
        self._read_only = read_only
        self._progress = progress or Progress(lambda: None)
        self._unsure = False
        with self._translated():
            if not read_only and path.exists() and free_bytes(path.parent) < OPENING_BYTES:
                drop_ballast(path)
            self._connect()
            self.entries = Entries(self._connection, self.series)
            self.books = Books(self._connection, bytes_max, now_ms)
            self.room = Room(
                path,
                self._connection,
                self.entries,
                self.books,
                policy,
                bytes_max // PAGE_BYTES,
                ballast_bytes,
            )
            self.room.limit(self.room.pages_allowed)
            self._load()
            if not read_only and not self.room.restore_ballast():
                self.room.limit_to_disk()

    # -- opening --------------------------------------------------------------------------------

    def _connect(self) -> None:
        alive = self._progress.advance
        opening.secure_wal(self.path, read_only=self._read_only, alive=alive)
        self._connection = opening.connect(self.path, read_only=self._read_only)
        self._connection.set_progress_handler(self._progress.advance, OPERATIONS_PER_ADVANCE)
        if not self._read_only:
            opening.make_durable(self._connection)
        if opening.is_empty(self._connection):
            opening.create(self._connection)

    def _load(self) -> None:
        """Read the small tables, verify their checksums, and walk the entries' keys."""
        run = self._connection.execute
        row = run("SELECT format, journal_id, sequence, taken, checksum FROM state").fetchone()
        if row is None or row_checksum(*row[:-1]) != row[-1]:
            raise JournalError("its state row is damaged")
        if row[0] != FORMAT:
            raise ConfigError(
                f"{self.path} has format {row[0]}; this version reads format {FORMAT}",
                hint="start it with the version that wrote it, let it drain, then upgrade",
            )
        _, self.journal_id, self.sequence, self.taken, _ = row
        self.entries.load()
        self.books.load()
        # Touches every page of the entries' tree, not their blobs: finds a truncated file.
        self.newest = max(self.entries.sequences(), default=0)
        if self.newest > self.sequence:
            raise JournalError(f"entry {self.newest} is newer than the journal itself")

    def close(self) -> None:
        """Release the file; the WAL is folded into it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    # -- sinks ----------------------------------------------------------------------------------

    def configure(self, sinks: Iterable[str]) -> None:
        """Say which sinks exist, and begin a new range of sequences.

        A new sink begins with the oldest entry that is kept. One that comes back after it was not
        configured finds its gap in the ledger.
        """
        self.room.active = frozenset(sinks)
        self._write(self._configure)
        self.fold()  # Should the WAL be lost, the range is still never used again.
        self._keep_room()

    def _configure(self) -> None:
        self.sequence += SEQUENCES_PER_OPENING
        for sink in sorted(self.room.active):
            known = self.books.totals.get(sink)
            if known is None:
                kept = self.pending(sink)
                self.books.write(SinkTotals(sink, base=self.taken - kept))
                continue
            missing = self.taken - known.accounted - self.pending(sink)
            if missing > 0:
                self.books.lose({(sink, None): (None, None, missing)}, "sink not configured")

    def fold(self) -> None:
        """Write the WAL into the file, and empty it."""
        with self._translated():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def pending(self, sink: str) -> int:
        """Samples that still wait for a sink, counted entry by entry."""
        totals = self.books.totals.get(sink)
        return self.entries.pending(sink, totals.sequence if totals else 0)

    @property
    def totals(self) -> dict[str, SinkTotals]:
        """Cursor and counters of every sink that was ever configured."""
        return self.books.totals

    # -- the moments of a sample's life ---------------------------------------------------------

    def commit(
        self,
        batches: Sequence[Batch],
        series: Sequence[tuple[int, Series]],
        acknowledgements: Sequence[Acknowledgement],
    ) -> None:
        """Make batches and acknowledgements durable, in one transaction if there is room for all.

        After a ``TransientError`` the caller keeps everything and calls again with the same:
        what had been written all the same is not written twice. `totals` show which
        acknowledgements were, unless `is_unsure`.
        """
        if batches or series or acknowledgements:
            change = partial(self._commit, batches, series, acknowledgements)
            self._write(change, acknowledgements)
        self._keep_room()

    def _commit(
        self,
        batches: Sequence[Batch],
        series: Sequence[tuple[int, Series]],
        acknowledgements: Sequence[Acknowledgement],
    ) -> None:
        self._acknowledge(acknowledgements)
        self.entries.add_series(series)
        for batch in batches:
            if batch.sequence > self.sequence:
                self.entries.insert(batch)
                self.sequence = batch.sequence
                self.taken += len(batch)
        if batches and self.room.free < BOOKS_PAGES:
            raise NoRoomError

    def _acknowledge(self, acknowledgements: Sequence[Acknowledgement]) -> None:
        due = [each for each in acknowledgements if self.books.advance(each)]
        self._trim()  # Before the books: they get the pages that this frees.
        for each in due:
            self.books.refuse(each.sink, each.rejected)

    def read(self, sink: str, after: int, *, samples_max: int, entries_max: int) -> list[Batch]:
        """The next batches for a sink, at least one if there is any, and claim them."""
        with self._translated():
            batches = self.entries.take(sink, after, samples_max, entries_max)
        if batches:
            self.room.claimed[sink] = batches[-1].sequence
        return batches

    def replay(self, sink: str) -> int:
        """Put a sink's quarantined samples back into the queue, for it alone; returns how many."""
        with self._translated(), self._transaction():
            rows = self.books.take_quarantined(sink)
            if rows:
                self.sequence += 1
                self.entries.insert(batch_of(self.sequence, rows, self.series), sink)
        return len(rows)

    def discard(self, sink: str, reason: str) -> int:
        """Give up everything pending for a sink; it stands in the ledger. Returns how many."""
        lost = 0
        while True:
            with self._translated():
                clause = f"sequence > ? AND {MEANT_FOR}"
                cursor = self.totals[sink].sequence
                found = self.entries.select(clause, (cursor, sink), DISCARD_ENTRIES_PER_STEP)
            if not found:
                return lost
            batches = [entry.batch for entry in found]
            if not self._fits_in_brief(partial(self._discard, sink, batches, reason)):
                raise self._no_room
            lost += sum(map(len, batches))

    def _discard(self, sink: str, batches: Sequence[Batch], reason: str) -> None:
        self.books.write(replace(self.totals[sink], sequence=batches[-1].sequence))
        self._trim()
        spans = spans_of(batches)
        self.books.lose({(sink, id_): span for id_, span in spans.items()}, reason)

    # -- salvage --------------------------------------------------------------------------------

    def restore_books(
        self,
        taken: int,
        sequence: int,
        totals: Iterable[SinkTotals],
        ledger: Sequence[LedgerRow],
        quarantine: Iterable[tuple[str, Quarantined]],
        series: Iterable[tuple[int, Series]],
    ) -> None:
        """Carry books and series of a damaged file over into this fresh one; cursors start again.

        From here on it has no WAL: a crash throws it away, so that nothing is to be written twice.
        """
        with self._translated():
            opening.drop_wal(self._connection)
        with self._translated(), self._transaction():
            self.entries.add_series(series)
            self.taken, self.sequence = taken, sequence
            for row in totals:
                self.books.write(replace(row, sequence=0))
            self.books.insert_losses(ledger)
            for sink, sample in quarantine:
                self.books.insert_quarantined(sink, [sample])

    def restore_entries(self, found: Iterable[tuple[Batch, str | None]]) -> None:
        """Append recovered entries, each for all sinks (None) or for the ones named; durable.

        They keep their sequences, which rise.
        """
        with self._translated(), self._transaction():
            for batch, sinks in found:
                self.sequence = max(self.sequence, batch.sequence)
                self.entries.insert(batch, sinks)
                if self.room.low and self.policy is not Policy.STOP:
                    self.room.reclaim()

    def balance(self, taken: int | None, fresh_sinks: Iterable[str]) -> dict[str, int]:
        """Close the books after a recovery; returns what each sink lost, in samples.

        ``taken`` is None where the damaged file did not say it: then nothing is known to be
        missing. ``fresh_sinks`` are those whose counters were not readable: they count from here.
        Entries that the policy had deleted may have come back: then more was taken, not less lost.
        """
        lost: dict[str, int] = {}
        with self._translated(), self._transaction():
            self.books.reconcile()
            standing = {
                sink: totals.accounted + self.pending(sink) for sink, totals in self.totals.items()
            }
            self.taken = max(taken or 0, *standing.values(), 0)
            for sink, totals in list(self.totals.items()):
                missing = self.taken - standing[sink]
                if sink in fresh_sinks:
                    self.books.write(replace(totals, base=totals.base + missing))
                elif missing > 0:
                    self.books.lose({(sink, None): (None, None, missing)}, "journal damaged")
                    lost[sink] = missing
        return lost

    # -- reading the books ----------------------------------------------------------------------

    def ledger(self) -> list[LedgerRow]:
        """Every loss, oldest first."""
        with self._translated():
            return self.books.ledger()

    def newest_losses(self, rows_max: int) -> list[LedgerRow]:
        """The losses noted last, newest first."""
        with self._translated():
            return self.books.newest_losses(rows_max)

    def quarantine(self) -> list[tuple[str, Quarantined]]:
        """Every quarantined sample with its sink, oldest first."""
        with self._translated():
            return self.books.quarantine()

    def export(self, after: int = 0, reach: Reach = lambda _: None) -> Iterator[Entry]:
        """Every entry after a sequence, in short reading transactions."""
        with self._translated():
            sequences = self.entries.sequences()
        while True:
            with self._translated():
                found = self.entries.select("sequence > ?", (after,), EXPORT_ENTRIES_PER_STEP)
            if not found:
                return
            yield from found
            after = found[-1].batch.sequence
            reach(bisect_right(sequences, after) / max(len(sequences), 1))

    def check(self, reach: Reach = lambda _: None) -> list[str]:
        """Every fault that SQLite, the checksums and the books can show; empty if none.

        ``reach`` is told of the walk through the entries, before which SQLite looks at every page.
        """
        with self._translated():
            result = self._connection.execute("PRAGMA integrity_check").fetchall()
            faults = [str(text) for (text,) in result if text != "ok"]
            if opening.stays_wal_damaged(self.path):
                faults.append("its WAL holds frames that SQLite can't read")
            sequences = self.entries.sequences()
            for done, sequence in enumerate(sequences):
                reach(done / len(sequences))
                try:
                    self.entries.select("sequence = ?", (sequence,), 1)
                except JournalError as error:
                    faults.append(str(error))
            for sink, totals in self.totals.items():
                difference = self.taken - totals.accounted - self.pending(sink)
                if difference and sink in (self.room.active or {sink}):
                    faults.append(f"{sink}: {difference} samples are not accounted for")
        return faults

    @property
    def bytes_used(self) -> int:
        """Bytes of the file that hold something."""
        with self._translated():
            return self.room.used * PAGE_BYTES

    # -- room -----------------------------------------------------------------------------------

    def _keep_room(self) -> None:
        """Apply the policy while there is still room to write the change down."""
        with self._translated():
            if self.room.disk_full:
                self.room.restore_ballast()
            low = self.room.low
            self.full = low and self.policy is Policy.STOP
            if low and not self.full and not self._fits_in_brief(self.room.reclaim):
                raise self._no_room

    def _make_room(self) -> None:
        """A write found no room: was it the journal's own limit, or the disk?"""
        with self._translated():
            limited = self.room.is_limited
            if self.room.disk_full and self.room.restore_ballast():
                return  # The disk has room again.
            if not limited and not self.room.give_up_ballast():
                raise TransientError(f"{self.path}: the disk is full")
            if self.policy is Policy.STOP:
                self.full = True
            elif not self._fits_in_brief(self.room.reclaim):
                raise self._no_room

    def _trim(self) -> None:
        """Delete what is pending for nobody."""
        cursors = (self.totals[sink].sequence for sink in self.room.active)
        self.entries.delete_up_to(min(cursors, default=self.sequence))

    # -- transactions ---------------------------------------------------------------------------

    def _write(self, change: Callable[[], None], acks: Sequence[Acknowledgement] = ()) -> None:
        """Make a change in one transaction; without room for it, its acks first, or the policy."""
        acknowledge = partial(self._acknowledge, acks)
        if self._fits(change) or (acks and self._fits(acknowledge) and self._fits(change)):
            return
        self._make_room()
        if not self._fits(change):
            if acks:
                self._fits_in_brief(acknowledge)
            raise self._no_room

    def _fits(self, change: Callable[[], None]) -> bool:
        """Make a change in one transaction. False if there is no room: then nothing is changed."""
        if self._unsure:
            self._reopen()
        try:
            with self._transaction():
                change()
        except NoRoomError:
            return False
        except sqlite3.Error as error:
            if code_of(error) == sqlite3.SQLITE_IOERR:
                self._reopen()
            if code_of(error) != sqlite3.SQLITE_FULL:
                raise opening.classed(self.path, error) from error
            return False
        return True

    def _fits_in_brief(self, change: Callable[[], None]) -> bool:
        """The same, with brief books (`books.py`) if there is no room for more."""
        if self._fits(change):
            return True
        self.books.brief = True
        try:
            return self._fits(change)
        finally:
            self.books.brief = False

    @property
    def _no_room(self) -> TransientError:
        what = "disk" if self.room.disk_full else "journal"
        return TransientError(f"{self.path}: the {what} is full")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, in the file and in what this object mirrors of it."""
        before = self.sequence, self.taken, dict(self.books.totals), self.books.quarantine_rows
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            columns = (FORMAT, self.journal_id, self.sequence, self.taken)
            self._connection.execute(
                "UPDATE state SET sequence = ?, taken = ?, checksum = ?",
                (self.sequence, self.taken, row_checksum(*columns)),
            )
            self._connection.execute("COMMIT")
        except BaseException:
            self.sequence, self.taken, self.books.totals, self.books.quarantine_rows = before
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @property
    def is_unsure(self) -> bool:
        """Whether the last commit may stand or not: the disk has not let it be looked at yet."""
        return self._unsure

    def _reopen(self) -> None:
        """After a failed fsync nobody knows what is on the disk: read it again."""
        self._unsure = True
        self.close()
        with self._progress.doing("reading the journal again"), self._translated():
            self._connect()
            for part in (self.entries, self.books, self.room):
                part.connection = self._connection
            self.room.limit(self.room.pages_max)
            self._load()
        self._unsure = False

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise opening.classed(self.path, error) from error
        except OSError as error:
            raise TransientError(f"{self.path}: {error.strerror}") from error
