"""Journals for tests: samples whose value says which they are, and checks that the books balance.

Every sample gets a value of its own, so that whatever a journal hands out can be traced back to
what was appended, and a repetition is seen.
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.journal import Journal, Policy
from edge_agent.journal.entries import samples_of
from edge_agent.journal.file import JournalFile
from edge_agent.model import Batch, Series

FIRST_TS_MS = 1_755_432_000_000
SERIES = [Series("A1", "L1", f"PUMP{n:02}", "압력", "bar") for n in range(40)]


class Sample(NamedTuple):
    """One sample as a test knows it."""

    ts_ms: int
    series: Series
    value: float


class Feed:
    """Appends samples to a journal and remembers every one, in order."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._next_value = itertools.count(1)
        self._ts_ms = FIRST_TS_MS

    def scan(self, journal: Journal, tags: int = len(SERIES), *, step_ms: int = 200) -> None:
        """One scan of the first tags."""
        self._ts_ms += step_ms
        values = [float(next(self._next_value)) for _ in range(tags)]
        ids = array("I", [journal.intern(series) for series in SERIES[:tags]])
        journal.append(self._ts_ms, ids.tobytes(), values)
        self.samples += [
            Sample(self._ts_ms, series, value)
            for series, value in zip(SERIES, values, strict=False)
        ]

    def forget_after(self, samples: int) -> None:
        """What a crash took with it: later samples get the same values again."""
        del self.samples[samples:]
        self._next_value = itertools.count(samples + 1)

    def fill(self, journal: Journal, samples: int) -> None:
        """Scans of all tags, at least so many samples."""
        for _ in range(-(-samples // len(SERIES))):
            self.scan(journal)


def journal_at(path: Path, **options: Any) -> Journal:
    """A small journal without ballast."""
    return Journal(path, **({"bytes_max": 4_000_000, "ballast_bytes": 0} | options))


async def opened(path: Path, sinks: Iterable[str] = ("a",), **options: Any) -> Journal:
    """The same, open."""
    journal = journal_at(path, **options)
    await journal.open(sinks)
    return journal


def abandon(journal: Journal) -> None:
    """What is left of a process that was killed: nothing is written any more."""
    journal._worker.end()
    journal._lock.close()
    journal._file._connection.close()


async def commit(journal: Journal) -> bool:
    """One commit, as `Journal.run` does it."""
    return await journal._commit()


def traced(batches: Iterable[Batch]) -> list[Sample]:
    """What batches hold, in order."""
    return [
        Sample(ts_ms, batch.series[series_id], value)
        for batch in batches
        for ts_ms, series_id, value in samples_of(batch)
    ]


async def drained(
    journal: Journal, sink: str = "a", *, samples_max: int = 20_000, rounds: int = 10_000
) -> list[Sample]:
    """Read and acknowledge until nothing is left, and commit the acknowledgements.

    Where the file is replaced on the way, what the new one hands out.
    """
    journal_id = ""
    for _ in range(rounds):
        if journal.journal_id != journal_id:
            found: list[Sample] = []
            sequence, journal_id = -1, journal.journal_id
        batches = await journal.read(sink, samples_max=samples_max)
        for batch in batches:
            assert batch.sequence > sequence
            sequence = batch.sequence
        found += traced(batches)
        if batches:
            journal.acknowledge(sink, batches)
        elif journal.position(sink) >= journal.last_sequence:
            assert await commit(journal)
            if journal.journal_id == journal_id:
                return found
    raise AssertionError(f"{sink} is not drained after {rounds} rounds")


def kept_for(file: JournalFile, sink: str) -> list[Sample]:
    """What is pending for a sink, read entry by entry."""
    after = file.totals[sink].sequence
    return traced(
        entry.batch for entry in file.export(after) if entry.sinks is None or entry.meant_for(sink)
    )


def balance_faults(file: JournalFile) -> list[str]:
    """Where the books of an open file do not add up; empty if they do."""
    faults = []
    ledger: Counter[str] = Counter()
    for row in file.ledger():
        ledger[row.sink] += row.samples
        assert row.samples > 0
    quarantined = Counter(sink for sink, _ in file.quarantine())
    for sink in sorted(file.room.active):
        totals = file.totals[sink]
        pending = file.pending(sink)
        if file.taken - totals.base != (
            totals.delivered + pending + totals.quarantined + totals.lost
        ):
            faults.append(f"{sink}: taken {file.taken}, pending {pending}, {totals}")
        if ledger[sink] != totals.lost:
            faults.append(f"{sink}: ledger {ledger[sink]}, lost {totals.lost}")
        if quarantined[sink] != totals.quarantined:
            faults.append(f"{sink}: quarantine {quarantined[sink]}, counted {totals.quarantined}")
        if min(totals.base, totals.delivered, totals.lost, totals.duplicates) < 0:
            faults.append(f"{sink}: {totals}")
    return faults


async def balanced(journal: Journal) -> None:
    """Fail unless the books of an open journal add up."""
    faults = await journal._in_thread(balance_faults, journal._file)
    assert not faults


def loss_per_series(file: JournalFile, sink: str) -> Counter[Series | None]:
    """What the ledger says per series; None where it does not know."""
    losses: Counter[Series | None] = Counter()
    for row in file.ledger():
        if row.sink == sink:
            losses[None if row.series_id is None else file.series[row.series_id]] += row.samples
    return losses


def counted(samples: Iterable[Sample]) -> Counter[Series | None]:
    """Samples per series."""
    return Counter(sample.series for sample in samples)


def journal_file(path: Path, **options: Any) -> JournalFile:
    """The file alone, for looking into it."""
    defaults: dict[str, Any] = {
        "bytes_max": 4_000_000,
        "ballast_bytes": 0,
        "policy": Policy.DROP_OLDEST,
    }
    return JournalFile(path, **(defaults | options))


def accepts(journal: Journal) -> bool:
    """Whether pollers may read now."""
    return journal.accepting


def on_full_disk(journal: Journal) -> bool:
    """Whether the journal says that the disk is full."""
    return journal.disk_full


def copied(journal: Path, folder: Path) -> Path:
    """The journal's file and WAL as they are at this moment, elsewhere."""
    folder.mkdir(parents=True)
    for suffix in ("", "-wal"):
        source = journal.with_name(journal.name + suffix)
        if source.exists():
            (folder / source.name).write_bytes(source.read_bytes())
    return folder / journal.name


def set_aside(path: Path) -> Sequence[Path]:
    """Damaged files that are kept beside a journal, without their WALs."""
    return sorted(
        p for p in path.parent.glob(f"{path.name}.damaged-*") if not p.name.endswith("-wal")
    )
