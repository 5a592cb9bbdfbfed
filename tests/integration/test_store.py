"""The embedded store among other processes and on a disk that is full."""

from __future__ import annotations

import asyncio
import errno
import itertools
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from edge_agent.clock import HOUR_MS, MINUTE_MS
from edge_agent.errors import TransientError
from edge_agent.model import Batch
from edge_agent.sinks import store as store_sink
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.store import StoreSink
from edge_agent.store import database, fold
from edge_agent.store.reader import StoreReader
from tests.batches import NOON_MS, BatchMaker, make_series

JOURNAL = JournalIdentity("agent", "journal-1")
TAGS = [make_series(f"T{n}") for n in range(20)]
BATCH_MS = 5_000
SCANS_PER_BATCH = 10
BATCHES = 600
EVER = (0, 1 << 45)


def batches() -> Iterator[Batch]:
    """Always the same: one scan of all tags each half second; the value is the scan's number."""
    make = BatchMaker()
    for number in range(BATCHES):
        start_ms = NOON_MS + number * BATCH_MS
        yield make(
            (series, start_ms + scan * BATCH_MS // SCANS_PER_BATCH, float(number * 10 + scan))
            for scan in range(SCANS_PER_BATCH)
            for series in TAGS
        )


async def deliver_all(path: Path, raw_hours: float, report: Connection | None) -> None:
    """Deliver every batch and maintain in between, on a clock that the samples drive."""
    now_ms = NOON_MS
    sink = StoreSink(path, raw_hours=raw_hours, now_ms=lambda: now_ms, elapsed_ms=lambda: 0)
    await sink.open(JOURNAL)
    for batch in batches():
        await sink.deliver([batch])
        if report is not None:
            report.send(batch.sequence)
        now_ms = batch.last_ts_ms + 500
        if batch.sequence % 3 == 0:
            await sink.maintain()
    now_ms += HOUR_MS
    await sink.maintain()
    await sink.close()


def writer_process(path: Path, raw_hours: float, report: Connection) -> None:
    """What runs in the process that is killed."""
    fold.SLICES_PER_STEP = 4  # type: ignore[misc]  # so that a kill often falls into a fold
    asyncio.run(deliver_all(path, raw_hours, report))


def start_writer(path: Path, raw_hours: float) -> tuple[int, Connection]:
    """Process id of a writer, and where it reports each sequence number that was delivered."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=writer_process, args=(path, raw_hours, send), daemon=True)
    process.start()
    send.close()
    assert process.pid is not None
    return process.pid, receive


def test_kill_9_at_any_moment_takes_every_sample_exactly_once(tmp_path: Path) -> None:
    """Killed while delivering and folding, and everything handed again: each sample counts once.

    Without raw slices a minute's count is by weight, so that a sample folded twice would show.
    """
    path = tmp_path / "store.db"
    rng = random.Random(1)
    acknowledged = 0
    for _ in range(4):
        pid, report = start_writer(path, raw_hours=0)
        with closing(report):
            for _ in range(acknowledged + rng.randrange(20, 120)):
                sequence = report.recv()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert sequence > acknowledged
            acknowledged = sequence
        assert len(StoreReader(path).latest()) == len(TAGS)
    asyncio.run(deliver_all(path, 0, None))
    reader = StoreReader(path)
    per_minute = MINUTE_MS // BATCH_MS * SCANS_PER_BATCH
    for series in TAGS:
        rows = reader.minutes(series, *EVER)
        assert [row.samples for row in rows] == [per_minute] * (BATCHES * BATCH_MS // MINUTE_MS)
        assert [row.last for row in rows] == [
            float(n * per_minute - 1) for n in range(1, len(rows) + 1)
        ]
        assert reader.hours(series, *EVER)[0].samples == BATCHES * SCANS_PER_BATCH


def test_reading_while_another_process_writes(tmp_path: Path) -> None:
    """A reader sees at any time all that is acknowledged, without gaps; then a clean end."""
    path = tmp_path / "store.db"
    pid, report = start_writer(path, raw_hours=24)
    reader = StoreReader(path)
    rng = random.Random(1)
    looks = 0
    with closing(report):
        for sequence in iter(report.recv, BATCHES):
            if sequence % 12:
                continue
            looks += 1
            series = rng.choice(TAGS)
            _, values = reader.raw(series, *EVER)
            assert values.tolist() == [float(n) for n in range(len(values))]
            assert len(values) >= sequence * SCANS_PER_BATCH
            newest = reader.latest()
            assert len(newest) == len(TAGS)
            assert min(row.value for row in newest) >= len(values) - 1
            minutes = reader.minutes(series, *EVER)
            assert [row.samples for row in minutes[:-1]] == [120] * len(minutes[:-1])
        os.waitpid(pid, 0)
    assert looks > 20
    assert len(reader.raw(TAGS[0], *EVER)[0]) == BATCHES * SCANS_PER_BATCH
    assert sum(row.samples for row in reader.hours(TAGS[0], *EVER)) == BATCHES * SCANS_PER_BATCH


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_delays_and_loses_nothing(small_disk: Path) -> None:
    """Deliveries fail with a hint while the disk is full, and go on when there is room again."""
    path = small_disk / "store.db"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    now_ms = NOON_MS
    sink = StoreSink(path, now_ms=lambda: now_ms, elapsed_ms=lambda: 0)
    await sink.open(JOURNAL)
    make, rng = BatchMaker(), random.Random(1)
    handed: list[Batch] = []
    failure: TransientError | None = None
    for number in itertools.count():
        start_ms = NOON_MS + number * MINUTE_MS
        handed.append(make((TAGS[0], start_ms + n, rng.random()) for n in range(2_000)))
        try:
            await sink.deliver(handed[-1:])
            now_ms = start_ms + 2 * MINUTE_MS
            await sink.maintain()
        except TransientError as error:
            failure = error
            break
    assert "full" in str(failure)
    assert failure is not None
    assert "free some disk space" in failure.hint
    assert len(handed) > 5
    with pytest.raises(TransientError):
        await sink.deliver([make([(TAGS[0], now_ms, 0.0)] * 200_000)])  # it stays full
    await sink.close()
    ballast.unlink()
    await sink.open(JOURNAL)
    await sink.deliver(handed)
    await sink.maintain()
    await sink.close()
    times, _ = StoreReader(path).raw(TAGS[0], *EVER)
    assert len(times) == 2_000 * len(handed)
    assert not list(small_disk.glob("*.damaged-*"))


# A folder that this reader can't write

READS_READ_ONLY = """
import sys
from pathlib import Path
from edge_agent.errors import TransientError
from edge_agent.store.reader import StoreReader
from edge_agent.store.search import find_samples

path = Path(sys.argv[1])
reader = StoreReader(path)
try:
    path.with_name("x").touch()
except OSError as error:
    print("read-only" if error.errno == 30 else error, flush=True)
for line in sys.stdin:
    looks = 0

    def read(db):
        global looks
        looks += 1
        if line == "pause\\n" and looks == 1:
            # What it may have seen in pages of two times.
            reader._series[99] = reader._series[1]._replace(tag="torn")
            print("reading", flush=True)
            sys.stdin.readline()
        ids = {number: series.tag for number, series in reader._series.items()}
        return find_samples(db, ids, 0, 1 << 45)

    try:
        found = reader._read(read)
        print(looks, {tag: len(samples) for tag, samples in found.items()}, flush=True)
    except TransientError as error:
        print(error, flush=True)
"""


class ReadOnly:
    """A reader of a store in a mount namespace of its own, where its folder is read-only."""

    def __init__(self, path: Path) -> None:
        folder = shlex.quote(str(path.parent))
        mount = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
        self._process = subprocess.Popen(
            [
                *("unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"),
                *(sys.executable, "-c", READS_READ_ONLY, str(path)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "read-only\n":
            _, said = self._process.communicate()
            pytest.skip(f"a mount namespace is not permitted here: {said.strip()}")

    def ask(self, line: str = "read") -> str:
        """What it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().rstrip("\n")

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[ReadOnly]:
    reader = ReadOnly(tmp_path / "store.db")
    yield reader
    reader.close()


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[StoreSink]:
    """Of the store that `read_only` reads; open, and a batch of twelve samples in it."""
    sink = StoreSink(tmp_path / "store.db", now_ms=lambda: NOON_MS, elapsed_ms=lambda: 0)
    await sink.open(JOURNAL)
    await deliver(sink, 1)
    yield sink
    await sink.close()


async def deliver(sink: StoreSink, number: int) -> None:
    """Batch of this number: twelve samples of one tag."""
    make = BatchMaker()
    batches = [
        make((TAGS[0], NOON_MS + n, float(n)) for n in range(k * 12, k * 12 + 12))
        for k in range(number)
    ]
    await sink.deliver(batches[-1:])


async def test_a_read_only_folder_is_read_while_the_agent_runs_and_when_it_does_not(
    sink: StoreSink, read_only: ReadOnly
) -> None:
    """SQLite alone refuses the file of an agent that has stopped; what it has then is all there."""
    assert read_only.ask() == "1 {'T0': 12}"
    await sink.close()
    assert read_only.ask() == "1 {'T0': 12}"
    await sink.open(JOURNAL)
    await deliver(sink, 2)
    assert read_only.ask() == "1 {'T0': 24}"
    await sink.close()
    assert read_only.ask() == "1 {'T0': 24}"


@pytest.mark.parametrize("then_stops", [False, True])
async def test_what_changes_while_a_read_only_folder_is_read_is_read_again(
    sink: StoreSink, read_only: ReadOnly, then_stops: bool
) -> None:
    """Without a lock and without a log SQLite notices nothing: a log that has come, or a file that
    is no longer the same, tells. Nothing of what was read before is remembered."""
    await sink.close()
    assert read_only.ask("pause") == "reading"
    await sink.open(JOURNAL)
    await deliver(sink, 2)
    if then_stops:
        await sink.close()
    assert read_only.ask("go on") == "2 {'T0': 24}"


async def test_a_read_only_folder_with_the_log_of_a_crash_waits_for_the_agent(
    sink: StoreSink, read_only: ReadOnly, tmp_path: Path
) -> None:
    """What stands in the log alone is not left out: the reader says that it can't read."""
    log = (tmp_path / "store.db-wal").read_bytes()
    await sink.close()
    (tmp_path / "store.db-wal").write_bytes(log)
    assert "can't be read: unable to open database file" in read_only.ask()
    await sink.open(JOURNAL)
    assert read_only.ask() == "1 {'T0': 12}"


async def test_a_log_is_written_again_before_its_cursor_is_believed(
    sink: StoreSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be what the kernel shows after a failed fsync, and the disk never got: a batch that is
    skipped because of it would be gone with the power."""
    for number in range(2, 40):
        await deliver(sink, number)
    log = (tmp_path / "store.db-wal").read_bytes()
    await sink.close()
    (tmp_path / "store.db-wal").write_bytes(log)
    monkeypatch.setattr(database, "REWRITTEN_BYTES", 100_000)
    assert len(log) > 2 * database.REWRITTEN_BYTES
    written = 0
    pwrite = os.pwrite

    def counted(file: int, data: bytes, at: int) -> int:
        nonlocal written
        written += len(data)
        return pwrite(file, data, at)

    monkeypatch.setattr(os, "pwrite", counted)
    sink = StoreSink(tmp_path / "store.db", now_ms=lambda: NOON_MS, elapsed_ms=lambda: 0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _refused)
        with pytest.raises(TransientError, match="Input/output error"):
            await sink.open(JOURNAL)
    assert written == len(log)
    assert (tmp_path / "store.db-wal").read_bytes() == log
    await sink.open(JOURNAL)
    await deliver(sink, 40)
    found = StoreReader(tmp_path / "store.db").samples(
        TAGS[0].site, TAGS[0].device, [TAGS[0].tag], *EVER
    )
    assert list(found[TAGS[0].tag][1]) == [float(n) for n in range(40 * 12)]
    await sink.close()


async def test_a_log_is_written_again_once_and_after_an_i_o_error(
    sink: StoreSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each opening: while the disk is full there are four a minute, of 4 MB each."""
    secured = 0

    def secure(path: Path) -> None:
        nonlocal secured
        secured += 1
        database.secure_wal(path)

    monkeypatch.setattr(store_sink, "secure_wal", secure)
    await sink.open(JOURNAL)
    with raised(sink, sqlite3.SQLITE_FULL, "database or disk is full"):
        await deliver(sink, 2)
    await sink.open(JOURNAL)
    with raised(sink, sqlite3.SQLITE_IOERR_SHMSIZE, "disk I/O error"):
        await deliver(sink, 2)
    await sink.open(JOURNAL)
    assert secured == 0
    with raised(sink, sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error"):
        await deliver(sink, 2)
    for _ in range(2):
        await sink.open(JOURNAL)
        assert secured == 1
    (tmp_path / "other.db").touch()
    (tmp_path / "other.db").rename(tmp_path / "store.db")
    with pytest.raises(TransientError, match="replaced"):
        await deliver(sink, 2)
    await sink.open(JOURNAL)
    assert secured == 2


@contextmanager
def raised(sink: StoreSink, code: int, text: str) -> Iterator[None]:
    """The next commit fails with this of SQLite's codes."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code

    class Refusing:
        in_transaction = False

        def __init__(self, db: sqlite3.Connection) -> None:
            self.close = db.close

        def execute(self, *_: object) -> None:
            raise error

    sink._db = Refusing(sink._db)  # type: ignore[assignment,arg-type]
    with pytest.raises(TransientError, match=text):
        yield


async def test_a_foreign_database_keeps_its_log(tmp_path: Path) -> None:
    """Another program's database in the store's place is refused before its log is written again,
    and the log is not folded either."""
    path, log = tmp_path / "store.db", tmp_path / "store.db-wal"
    with closing(sqlite3.connect(tmp_path / "live.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE precious (x)")
        for suffix in ("", "-wal"):
            shutil.copyfile(tmp_path / f"live.db{suffix}", tmp_path / f"store.db{suffix}")
    before = path.read_bytes(), log.read_bytes(), log.stat().st_mtime_ns
    sink = StoreSink(path)
    for _ in range(2):
        with pytest.raises(TransientError, match="not a store of format 1"):
            await sink.open(JOURNAL)
    await sink.close()
    assert (path.read_bytes(), log.read_bytes(), log.stat().st_mtime_ns) == before


def _refused(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")
