"""The asyncio side of the journal: collect, commit in groups, hand out, acknowledge.

State changes here are synchronous and belong to the event loop; the file belongs to one worker
thread. Only `Room.claimed` and `Room.cached_from` are shared: the loop sets them, the thread reads
them, and either order of the two is safe.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from edge_agent.clock import epoch_ms
from edge_agent.errors import JournalError, TransientError
from edge_agent.journal.books import Acknowledgement, LedgerRow, Quarantined, SinkTotals
from edge_agent.journal.entries import next_batches
from edge_agent.journal.file import JournalFile
from edge_agent.journal.lock import lock
from edge_agent.journal.opener import Opened, Opener
from edge_agent.journal.progress import Progress
from edge_agent.journal.room import BALLAST_BYTES, Policy
from edge_agent.journal.worker import Worker, to_the_end
from edge_agent.model import Batch, Series
from edge_agent.waiting import happens

log = logging.getLogger(__name__)

SAMPLES_PER_ENTRY_MAX = 5_000
"""60 KB: small beside the smallest journal's room, large enough to make a row's cost vanish."""
ENTRIES_PER_COMMIT_MAX = 4
PENDING_SAMPLES_MAX = 1_000_000
"""12 MB: what may wait in memory while the disk refuses or a salvage runs, 200 s at 5,000/s."""
CACHED_SAMPLES_MAX = 100_000
"""The newest entries, kept decoded for sinks that keep up: some seconds, about 1.2 MB."""
CACHE_FRACTION = 128
"""A small journal's cache is at most a tenth of it, since cached entries are never dropped."""
RETRY_INTERVAL_S = 1.0
"""Pause after the disk refused a commit."""

T = TypeVar("T")


class Journal:
    """The queue between pollers and sinks. See the package's docstring for what it promises."""

    def __init__(
        self,
        path: Path,
        *,
        bytes_max: int,
        policy: Policy = Policy.DROP_OLDEST,
        commit_interval_s: float = 0.2,
        now_ms: Callable[[], int] = epoch_ms,
        ballast_bytes: int = BALLAST_BYTES,
    ) -> None:
        self.path = path
        self.commit_interval_s = commit_interval_s
        self.commits = 0
        self.commit_failures = 0
        self.generation = 0
        """Another one as soon as what is not durable yet has other numbers: with each new file,
        and as the same one is opened again."""
        self.beat_at = 0.0
        """Loop time of the newest sign of life, for the watchdog; 0 if there was none.

        The committer's, or that of an opening or a recovery, which keep the committer waiting.
        """
        self.progress = Progress(self._beat)
        """How far an opening or a recovery is."""
        open_file = partial(
            JournalFile,
            bytes_max=bytes_max,
            policy=policy,
            now_ms=now_ms,
            ballast_bytes=ballast_bytes,
            progress=self.progress,
        )
        self._opener = Opener(path, open_file, self.progress)
        self._worker = Worker()
        self._file: JournalFile
        self._replacement: Opened | None = None
        self._usable = True
        """False while the file is known to be damaged and the disk refuses a new one."""
        self._sinks: tuple[str, ...] = ()
        self._ids: dict[Series, int] = {}
        self._new_series: list[tuple[int, Series]] = []
        self._runs: list[tuple[int, int]] = []
        self._series_ids = array("I")
        self._values = array("d")
        self._next_id = 1
        self._next_sequence = 1
        self._unwritten: list[Batch] = []
        self._acknowledgements: dict[str, Acknowledgement] = {}
        self._tried: list[Acknowledgement] = []
        """Handed to the file with a commit that has not succeeded. It may have them all the same,
        so nothing is joined to them: the file ignores whole what begins before its cursor."""
        self._bytes_used = 0
        self._cursors: dict[str, int] = {}
        self._settled: dict[str, int] = {}
        self._cache: deque[Batch] = deque()
        self._cached_samples = 0
        self._committing = asyncio.Lock()
        self._recovering = asyncio.Lock()
        self._last_sequence = 0
        self._committed = asyncio.Event()
        self._crowded = asyncio.Event()

    # -- life -----------------------------------------------------------------------------------

    async def open(self, sinks: Iterable[str]) -> None:
        """Open the file for these sinks; a damaged one is set aside and salvaged.

        Raises ``ConfigError`` if another process holds it and ``TransientError`` if the disk
        refuses.
        """
        self._sinks = self._opener.sinks = tuple(sinks)
        self._lock = lock(self.path)
        try:
            self._adopt((await self._in_thread(self._opener.open, {})).file)
        except BaseException:
            self._lock.close()
            raise

    def _beat(self) -> None:
        """Called by the loop and by the thread: whoever is last writes the newest time."""
        self.beat_at = time.monotonic()  # the clock of asyncio's loops, from any thread

    def _adopt(self, file: JournalFile) -> None:
        """Go on with this file, and take over its numbering.

        Series keep the numbers they have in memory: pollers hold them.
        """
        self._file = file
        self._ids |= {series: id_ for id_, series in file.series.items()}
        self._new_series = [(id_, series) for series, id_ in self._ids.items()]
        file.series.update(self._new_series)
        self._next_id = max(file.series, default=0) + 1
        self._next_sequence = file.sequence + 1
        self._last_sequence = file.newest
        self._settled = {sink: file.totals[sink].sequence for sink in self._sinks}
        self._cursors = dict(self._settled)
        # What is committed from now on is in the cache.
        file.room.cached_from = self._next_sequence

    async def flush(self) -> None:
        """Commit what has been collected, as far as the disk allows."""
        while await self._commit():
            if not self.uncommitted:
                return
        log.error("journal: %d samples read but not taken", self.uncommitted)

    async def close(self) -> None:
        """Commit what is left, as far as the disk allows, and release the file."""
        try:
            await self.flush()
        finally:
            await self._in_thread(self._file.close)
            self._worker.end()
            self._lock.close()

    async def run(self) -> None:
        """Commit once per interval, or sooner when a commit's worth has gathered."""
        while True:
            await happens(self._crowded, self.commit_interval_s)
            self._crowded.clear()
            self._beat()
            if not await self._commit():
                await asyncio.sleep(RETRY_INTERVAL_S)

    # -- the pollers' side ----------------------------------------------------------------------

    @property
    def accepting(self) -> bool:
        """Whether pollers may read now: false while the journal is full or the disk refuses."""
        return not self._file.full and self.uncommitted < PENDING_SAMPLES_MAX

    @property
    def uncommitted(self) -> int:
        """Samples in memory that are not durable yet."""
        return len(self._values) + sum(map(len, self._unwritten))

    def intern(self, series: Series) -> int:
        """The number under which a series stands in this journal."""
        known = self._ids.get(series)
        if known is None:
            known = self._ids[series] = self._next_id
            self._next_id += 1
            self._new_series.append((known, series))
            self._file.series[known] = series
        return known

    def knows(self, series: Series) -> bool:
        """Whether a series has a number here: without one it has no sample in the file."""
        return series in self._ids

    def append(self, ts_ms: int, series_ids: bytes, values: Sequence[float]) -> None:
        """Add samples that share a time. They are taken once the next commit returns.

        ``series_ids`` are native uint32 (from `intern`), one for each of the finite ``values``.
        """
        if len(series_ids) != 4 * len(values):
            raise ValueError(f"{len(series_ids)} bytes of series ids for {len(values)} values")
        if not values:
            return
        self._runs.append((ts_ms, len(values)))
        self._series_ids.frombytes(series_ids)
        self._values.extend(values)
        if len(self._values) >= SAMPLES_PER_ENTRY_MAX:
            self._seal()
            self._crowded.set()

    def commit_soon(self) -> None:
        """Ask for a commit now, not at the interval's end: somebody waits for it."""
        self._crowded.set()

    def _seal(self) -> None:
        """Close the columns collected so far into the next batch."""
        if self._runs:
            self._unwritten.append(
                Batch(
                    self._next_sequence,
                    self._runs,
                    self._series_ids,
                    self._values,
                    self._file.series,
                )
            )
            self._next_sequence += 1
            self._runs, self._series_ids, self._values = [], array("I"), array("d")

    # -- commit ---------------------------------------------------------------------------------

    async def _commit(self) -> bool:
        """Make everything collected durable. False if the disk refuses; nothing is forgotten.

        To the end even if the caller is cancelled: the books in memory would not know what the
        file knows.
        """
        return await to_the_end(self._commit_collected())

    async def _commit_collected(self) -> bool:
        async with self._committing:
            if not self._usable:
                await self._recover(None, self._file)
            self._seal()
            self._gather()
            while self._usable:
                file = self._file
                batches = self._unwritten[:ENTRIES_PER_COMMIT_MAX]
                series = list(self._new_series)
                if batches or series or self._tried or file.full or self.disk_full:
                    try:
                        await self._in_thread(file.commit, batches, series, list(self._tried))
                    except TransientError as error:
                        if not file.is_unsure:  # They may have been written all the same.
                            self._settled = {s: file.totals[s].sequence for s in self._sinks}
                        self._report_refusal(error)
                        return False
                    except JournalError as error:
                        await self._recover(error, file)
                        return self._usable
                self._report_recovery()
                self.commits += 1
                self._settle(batches, len(series))
                if not self._unwritten:
                    return True
            return False

    def _gather(self) -> None:
        """Join what sinks have acknowledged, but to nothing that the file may hold already."""
        if self._file.is_unsure:
            return  # the next commit begins with a look at what it holds
        waiting: dict[str, Acknowledgement] = {}
        for each in (*self._tried, *self._acknowledgements.values()):
            if each.previous >= self._file.totals[each.sink].sequence:
                before = waiting.get(each.sink)
                waiting[each.sink] = each if before is None else before.followed_by(each)
        self._tried = list(waiting.values())
        self._acknowledgements.clear()

    def _settle(self, batches: list[Batch], series: int) -> None:
        """After a commit: forget what is on disk, show the batches to the sinks."""
        del self._new_series[:series]
        del self._unwritten[: len(batches)]
        self._tried.clear()
        self._settled = {sink: self._file.totals[sink].sequence for sink in self._sinks}
        for batch in batches:
            self._cache.append(batch)
            self._cached_samples += len(batch)
        self._trim_cache()
        if batches:
            self._last_sequence = batches[-1].sequence
            self._announce()

    def _trim_cache(self) -> None:
        """Keep what sinks that keep up will read next, and leave the rest to the policy."""
        samples_max = min(CACHED_SAMPLES_MAX, self._file.room.bytes_max // CACHE_FRACTION)
        while self._cached_samples > samples_max and len(self._cache) > 1:
            self._cached_samples -= len(self._cache.popleft())
        if self._cache:
            self._file.room.cached_from = self._cache[0].sequence

    async def _recover(self, error: JournalError | None, damaged: JournalFile) -> None:
        """Go on with a new file; None if an earlier attempt was refused by the disk.

        Not beside a commit, which may make durable what is taken to be in memory only.
        """
        async with self._recovering:
            if self._file is not damaged:
                return
            self._usable = False
            in_memory = {batch.sequence: len(batch) for batch in self._unwritten}
            try:
                await self._in_thread(self._reopen, error, damaged, in_memory)
            except TransientError as refusal:
                self._report_refusal(refusal)
            finally:
                if self._replacement is not None:
                    self._adopt_replacement(*self._replacement)

    def _reopen(
        self, error: JournalError | None, damaged: JournalFile, in_memory: dict[int, int]
    ) -> None:
        opener = self._opener
        try:
            self._replacement = (
                opener.open(in_memory) if error is None else opener.salvage(error, in_memory)
            )
        finally:
            damaged.close()  # It may have been renamed: nothing must be written to it any more.

    def _adopt_replacement(self, file: JournalFile, held: set[int]) -> None:
        """What is not in the file is kept and numbered anew; acknowledgements are not kept."""
        waiting = [batch for batch in self._unwritten if batch.sequence not in held]
        self._adopt(file)
        self.generation += 1
        self._replacement, self._usable = None, True
        self._acknowledgements.clear()
        self._tried.clear()
        self._cache.clear()
        self._cached_samples = 0
        self._unwritten = []
        for batch in waiting:
            self._unwritten.append(replace(batch, sequence=self._next_sequence, series=file.series))
            self._next_sequence += 1
        self._announce()

    def _announce(self) -> None:
        self._committed.set()
        self._committed = asyncio.Event()

    # -- the sinks' side ------------------------------------------------------------------------

    @property
    def journal_id(self) -> str:
        """Random per file: changes when a damaged file was replaced."""
        return self._file.journal_id

    @property
    def last_sequence(self) -> int:
        """The newest entry that is durable; 0 if there has been none."""
        return self._last_sequence

    @property
    def next_sequence(self) -> int:
        """The entry that will hold what is appended next: durable once `last_sequence` is there."""
        return self._next_sequence

    def begin_entry(self) -> int:
        """Begin an entry, and return it: it holds nothing that was appended before."""
        self._seal()
        return self._next_sequence

    def position(self, sink: str) -> int:
        """The sequence up to which a sink has acknowledged."""
        return self._cursors[sink]

    def settled(self, sink: str) -> int:
        """The same, as far as it is durable: up to here nothing is ever handed out again."""
        return self._settled[sink]

    async def read(self, sink: str, *, samples_max: int, entries_max: int = 1_000) -> list[Batch]:
        """The batches that a sink is to be handed next; empty if it has everything.

        They are claimed: kept from the full journal's policy until `acknowledge` or `release`.
        """
        after, file = self._cursors[sink], self._file
        if self._cache and self._cache[0].sequence <= after + 1:
            batches = next_batches(self._cache, after, samples_max, entries_max)
            if batches:
                file.room.claimed[sink] = batches[-1].sequence
            return batches
        last = self.last_sequence
        if after >= last or not self._usable:
            return []
        try:
            batches = await self._in_thread(
                partial(file.read, sink, after, samples_max=samples_max, entries_max=entries_max)
            )
        except JournalError as error:
            async with self._committing:
                await self._recover(error, file)
            return []
        except TransientError as error:
            log.warning("journal cannot be read now: %s", error)
            return []
        if self._file is not file:
            return []  # A new one has come meanwhile: it hands them out again.
        if not batches:
            # What there is, is meant for other sinks, or was dropped.
            self._advance(Acknowledgement(sink, previous=after, sequence=last, delivered=0))
        return batches

    def acknowledge(
        self,
        sink: str,
        batches: Sequence[Batch],
        *,
        duplicates: int = 0,
        rejected: Sequence[Quarantined] = (),
    ) -> None:
        """A sink has taken these batches, but for the rejected samples.

        Written with the next commit; a crash before it hands the same batches out again. Batches
        of a file that has been replaced since are ignored: the new file hands them out again.
        """
        if batches[-1].series is not self._file.series:
            return
        self._advance(
            Acknowledgement(
                sink=sink,
                previous=self._cursors[sink],
                sequence=batches[-1].sequence,
                delivered=sum(map(len, batches)) - len(rejected),
                duplicates=duplicates,
                rejected=tuple(rejected),
            )
        )

    def _advance(self, fresh: Acknowledgement) -> None:
        sink = fresh.sink
        waiting = self._acknowledgements.get(sink)
        self._acknowledgements[sink] = fresh if waiting is None else waiting.followed_by(fresh)
        self._cursors[sink] = fresh.sequence

    def release(self, sink: str) -> None:
        """A delivery failed: the policy may have those batches again if it needs room."""
        self._file.room.claimed[sink] = self._cursors[sink]

    async def wait(self, timeout_s: float) -> None:
        """Wait for the next commit that holds samples, at most so long."""
        await happens(self._committed, timeout_s)

    # -- books ----------------------------------------------------------------------------------

    @property
    def salvages(self) -> int:
        """How often a damaged file was replaced since `open`."""
        return self._opener.salvages

    @property
    def taken(self) -> int:
        """Samples taken since the journal was first made."""
        return self._file.taken

    @property
    def bytes_max(self) -> int:
        """Hard limit of the file."""
        return self._file.bytes_max

    @property
    def full(self) -> bool:
        """Whether the policy `stop` keeps the pollers from reading."""
        return self._file.full

    @property
    def disk_full(self) -> bool:
        """Whether the disk ran out before the journal did."""
        return self._file.room.disk_full

    def totals(self) -> dict[str, SinkTotals]:
        """Per configured sink its counters, acknowledgements not yet written included."""
        known = {sink: self._file.totals[sink] for sink in self._sinks}
        for waiting in (*self._tried, *self._acknowledgements.values()):
            if known[waiting.sink].sequence == waiting.previous:
                known[waiting.sink] = known[waiting.sink].after(waiting)
        return known

    async def bytes_used(self) -> int:
        """Bytes of the file that hold something; what it was last while that can't be asked."""
        if self._usable:  # else the thread is busy with a recovery
            with suppress(TransientError):
                self._bytes_used = await self._in_thread(lambda: self._file.bytes_used)
        return self._bytes_used

    async def newest_losses(self, rows_max: int) -> list[tuple[LedgerRow, Series | None]]:
        """The losses noted last, newest first, with the series where it is known.

        Raises ``JournalError`` if the ledger can't be read, ``TransientError`` if not now.
        """
        if not self._usable:
            raise TransientError("the journal is being recovered; its ledger can be read after it")
        rows = await self._in_thread(lambda: self._file.newest_losses(rows_max))
        return [
            (row, None if row.series_id is None else self._file.series.get(row.series_id))
            for row in rows
        ]

    # -- helpers --------------------------------------------------------------------------------

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await self._worker.run(call, *arguments)

    def _report_refusal(self, error: TransientError) -> None:
        self.commit_failures += 1
        self._trim_cache()  # A full disk may have lowered the limit.
        level = logging.ERROR if self.commit_failures == 1 else logging.DEBUG
        log.log(level, "journal cannot commit, samples wait in memory: %s", error)

    def _report_recovery(self) -> None:
        if self.commit_failures:
            log.info("journal commits again after %d refusals", self.commit_failures)
            self.commit_failures = 0
