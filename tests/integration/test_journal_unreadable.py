"""A disk that can't read parts of the journal's WAL, as a memory card that dies.

The reads of a process of its own fail, SQLite's too (`tests/unreadable.py`); the files are then
looked at in the test's process, to which all of them are readable.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edge_agent.errors import JournalError
from edge_agent.journal import Quarantined, piecewise
from edge_agent.journal.pages import Pages
from edge_agent.journal.piecewise import PIECE_BYTES
from tests.integration import test_journal_recovery as recovery
from tests.journals import (
    Feed,
    Sample,
    balance_faults,
    balanced,
    commit,
    copied,
    drained,
    journal_file,
    kept_for,
    opened,
    set_aside,
)
from tests.unreadable import FailingDisk

ROOT = Path(__file__).parents[2]
SINKS = ("a", "b")
TAKEN = 400
"""Samples of a commit: one entry of some pages."""
OPEN = """
import asyncio, json, os, sys
from pathlib import Path
from edge_agent.journal import piecewise
from tests.journals import opened

async def look(path, pieces):
    os.environ["UNREADABLE_INODE"] = str(os.stat(path + "-wal").st_ino)
    os.environ["UNREADABLE_PIECES"] = ",".join(map(str, pieces))
    journal = await opened(Path(path), ("a", "b"))
    await journal.close()
    return journal.salvages

piecewise.READ_INTERVAL_S = 0.01
print(json.dumps([asyncio.run(look(*each)) for each in json.loads(sys.argv[1])]))
"""
WHILE_IT_RUNS = """
import asyncio, json, os, sys
from pathlib import Path
from edge_agent.journal import piecewise
from tests.journals import Feed, balanced, commit, drained, opened

async def run(path):
    journal, feed = await opened(Path(path)), Feed()
    for _ in range(4):
        feed.fill(journal, 400)
        assert await commit(journal)
    log = os.stat(path + "-wal")
    os.environ["UNREADABLE_PIECES"] = str(log.st_size // 4096 // 2)
    os.environ["UNREADABLE_INODE"] = str(log.st_ino)
    journal._cache.clear()
    journal._file._connection.execute("PRAGMA shrink_memory")
    feed.scan(journal)
    await journal.read("a", samples_max=10**6)
    assert await commit(journal)
    assert journal.salvages == 1
    found = await drained(journal)
    await balanced(journal)
    totals = journal.totals()["a"]
    await journal.close()
    assert set(found) <= set(feed.samples)
    return [len(feed.samples), len(found), totals.lost, feed.samples[-1] == found[-1]]

piecewise.READ_INTERVAL_S = 0.01
print(json.dumps(asyncio.run(run(sys.argv[1]))))
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> FailingDisk:
    return FailingDisk.compiled(tmp_path_factory.mktemp("library"))


async def killed(
    folder: Path, commits: int = 4, *, taken: int = TAKEN, drains: bool = False
) -> tuple[Path, list[Sample]]:
    """A journal as kill -9 leaves it, and what waits for sink `a`.

    Some commits are in the file, as many in the WAL. ``drains``: three times as many are in the
    file and delivered, so that those in the WAL are on pages that were free. One sample is in
    sink `b`'s quarantine.
    """
    journal, feed = await opened(folder / "live" / "journal.db", SINKS), Feed()
    for _ in range(3 * commits if drains else commits):
        feed.fill(journal, taken)
        assert await commit(journal)
    batches = await journal.read("b", samples_max=10**6)
    refused = Quarantined(batches[0].series_ids[0], batches[0].first_ts_ms, 1.0, "refused")
    journal.acknowledge("b", batches, rejected=[refused])
    delivered = await drained(journal) if drains else []
    assert await commit(journal)
    await journal._in_thread(journal._file.fold)
    for _ in range(commits):
        feed.fill(journal, taken)
        assert await commit(journal)
    path = copied(journal.path, folder / "killed")
    await journal.close()
    return path, feed.samples[len(delivered) :]


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def run(disk: FailingDisk, script: str, argument: str, times: int = 0) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", script, argument],
        env=disk.environment(times),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


def kept_and_lost(path: Path) -> tuple[list[Sample], int]:
    """What a journal holds for sink `a`, and what its ledger has; the books balance."""
    file = journal_file(path)
    file.configure(SINKS)
    assert balance_faults(file) == []
    assert file.check() == []
    assert file.totals["b"].quarantined == 1
    kept, lost = kept_for(file, "a"), file.totals["a"].lost
    file.close()
    return kept, lost


@pytest.mark.parametrize(
    ("taken", "drains"), [(TAKEN, False), (160, True)], ids=["new pages", "pages that were free"]
)
async def test_one_unreadable_piece_costs_one_entry_at_most(
    disk: FailingDisk, tmp_path: Path, taken: int, drains: bool
) -> None:
    """Wherever it lies in the WAL the journal opens. No more samples are gone than an entry has,
    each in the ledger, but where it was the only trace of the newest commit; and the files are kept
    as they are, so that who reads them elsewhere gets all."""
    path, samples = await killed(tmp_path, 6, taken=taken, drains=drains)
    pieces = range(-(-wal_of(path).stat().st_size // PIECE_BYTES))
    folders = [shutil.copytree(path.parent, tmp_path / f"{piece}") for piece in pieces]
    cases = [[str(folder / path.name), [piece]] for piece, folder in enumerate(folders)]
    assert run(disk, OPEN, json.dumps(cases)) == [1] * len(pieces)
    untold = whole = 0
    for folder in folders:
        kept, lost = kept_and_lost(folder / path.name)
        assert kept == sorted(set(kept))
        assert set(kept) <= set(samples)
        if not drains:
            assert kept[: TAKEN * 6] == samples[: TAKEN * 6]  # in the file
        missing = len(samples) - len(kept)
        assert missing <= taken
        assert lost in (0, missing)
        untold += missing != lost
        whole += not missing
        (damaged,) = set_aside(folder / path.name)
        assert damaged.read_bytes() == path.read_bytes()
        assert wal_of(damaged).read_bytes() == wal_of(path).read_bytes()
    assert untold <= 1
    assert len(pieces) > 10
    assert whole > len(pieces) // 4

    elsewhere = tmp_path / "elsewhere" / path.name
    elsewhere.parent.mkdir()
    shutil.copyfile(damaged, elsewhere)
    shutil.copyfile(wal_of(damaged), wal_of(elsewhere))
    journal = await opened(elsewhere, SINKS)
    assert await drained(journal) == samples
    await journal.close()


@pytest.mark.parametrize("first", [0, 1, 9, 14])
async def test_what_lies_before_a_larger_hole_is_kept(
    disk: FailingDisk, tmp_path: Path, first: int
) -> None:
    """Every commit before it; it goes to the end of the WAL, and once has its header too."""
    path, samples = await killed(tmp_path)
    log = wal_of(path).read_bytes()
    pieces = list(range(first, -(-len(log) // PIECE_BYTES)))
    assert run(disk, OPEN, json.dumps([[str(path), pieces]])) == [1]
    frames = range(32, first * PIECE_BYTES - 4119, 4120)
    commits = sum(log[at + 4 : at + 8] != bytes(4) for at in frames)
    assert commits == {0: 0, 1: 0, 9: 1, 14: 2}[first]
    kept, _ = kept_and_lost(path)
    assert kept == samples[: len(kept)]
    assert len(kept) >= TAKEN * (4 + commits)


async def test_frames_of_an_older_generation_do_not_hide_what_the_file_has(
    disk: FailingDisk, tmp_path: Path
) -> None:
    """They stay behind those of a WAL that SQLite has begun anew; with its head unreadable nobody
    knows that they are out of date."""
    journal, feed = await opened(tmp_path / "live" / "journal.db"), Feed()

    async def begin_wal_anew() -> None:
        await journal._in_thread(
            lambda: journal._file._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        )

    for _ in range(6):
        feed.fill(journal, 5 * TAKEN)
        assert await commit(journal)
    await begin_wal_anew()
    journal.acknowledge("a", await journal.read("a", samples_max=25 * TAKEN))
    for _ in range(2):  # on their pages
        feed.fill(journal, 5 * TAKEN)
        assert await commit(journal)
    await begin_wal_anew()
    feed.scan(journal)
    assert await commit(journal)
    path = copied(journal.path, tmp_path / "killed")
    await journal.close()
    log = wal_of(path).read_bytes()
    frames = range(32, len(log) - 4119, 4120)
    oldest = log[frames[-1] + 8 : frames[-1] + 16]
    head = next(at for at in frames if log[at + 8 : at + 16] == oldest)
    assert 10 * 4120 < head < frames[-1] - 5 * 4120
    pieces = list(range(head // PIECE_BYTES))
    assert run(disk, OPEN, json.dumps([[str(path), pieces]])) == [1]
    file = journal_file(path)
    assert kept_for(file, "a") == feed.samples[25 * TAKEN : 40 * TAKEN]
    file.close()


async def test_a_disturbed_bus_costs_nothing(disk: FailingDisk, tmp_path: Path) -> None:
    """What can be read a moment later is read again: no salvage, and nothing is set aside."""
    path, samples = await killed(tmp_path)
    assert run(disk, OPEN, json.dumps([[str(path), [3, 5]]]), times=3) == [0]
    assert set_aside(path) == []
    assert kept_and_lost(path) == (samples, 0)


def test_a_journal_that_runs_goes_on(disk: FailingDisk, tmp_path: Path) -> None:
    """The disk fails while samples are read and taken: a new file with all but one entry, which the
    ledger has, and what waited in memory."""
    taken, found, lost, newest = run(disk, WHILE_IT_RUNS, str(tmp_path / "journal.db"))
    assert newest
    assert taken == found + lost
    assert lost <= TAKEN


@contextlib.contextmanager
def unreadable_wal(piece: int) -> Iterator[None]:
    """In this process: neither that piece of a WAL can be read nor a WAL be copied."""
    pread, copyfile = os.pread, shutil.copyfile

    def failing_pread(file: int, size: int, at: int) -> bytes:
        name = Path(f"/proc/self/fd/{file}").readlink().name
        if name.endswith("-wal") and at == piece * PIECE_BYTES:
            raise OSError(errno.EIO, "Input/output error")
        return pread(file, size, at)

    def failing_copyfile(source: Path, copy: Path) -> Path:
        if source.name.endswith("-wal"):
            raise OSError(errno.EIO, "Input/output error")
        return copyfile(source, copy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piecewise, "READ_INTERVAL_S", 0.0)
        patch.setattr(os, "pread", failing_pread)
        patch.setattr(shutil, "copyfile", failing_copyfile)
        yield


@pytest.mark.parametrize("stays", [True, False], ids=["stays", "passes"])
@pytest.mark.parametrize("done_first", [False, True], ids=["before", "after"])
async def test_crash_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done_first: bool, stays: bool
) -> None:
    """As with any damage; also around the step that gives the WAL, which can't be copied, another
    name. Should the next start be able to read it, before it is set aside, nothing is lost."""
    path, samples = await killed(tmp_path, commits=1)
    monkeypatch.setattr(recovery, "STEPS", [*recovery.STEPS, (os, "link")])
    links = 0
    for step in range(recovery.INTERRUPTIONS_MAX):
        folder, after = tmp_path / f"{step}", tmp_path / f"{step}-after"
        shutil.copytree(path.parent, folder)
        with unreadable_wal(2), monkeypatch.context() as patch:
            interruption = recovery.Interruption(patch, recovery.Crash())
            interruption.done_first, interruption.left = done_first, step
            try:
                journal = await opened(folder / path.name, SINKS)
            except recovery.Crash:
                interruption.left = -1
            else:
                interruption.left = -1
                await journal.close()
        if not interruption.happened:
            break
        shutil.copytree(folder, after)
        links += len(list(after.glob("*.damaged-*-wal"))) > len(set_aside(after / path.name))
        with unreadable_wal(2) if stays else contextlib.nullcontext():
            journal = await opened(after / path.name, SINKS)
        found = await drained(journal)
        await balanced(journal)
        await journal.close()
        assert set(found) <= set(samples)
        assert len(samples) - len(found) <= TAKEN
        damaged = set_aside(after / path.name)
        assert damaged or not stays
        assert damaged or found == samples
        for each in damaged:
            assert each.read_bytes() == path.read_bytes()
            assert wal_of(each).read_bytes() == wal_of(path).read_bytes()
    assert links
    assert 10 < step < recovery.INTERRUPTIONS_MAX - 1


async def test_a_damaged_page_number_does_not_prolong_a_recovery(tmp_path: Path) -> None:
    """A frame of the WAL that claims to be page two billion makes them no more than there are."""
    path, samples = await killed(tmp_path, commits=1)
    log = bytearray(wal_of(path).read_bytes())
    log[32] = 0x7F
    wal_of(path).write_bytes(log)
    with contextlib.closing(Pages(path)) as pages:
        assert pages.count < 100
    journal = await opened(path, SINKS)
    assert journal.salvages == 1
    assert await drained(journal) == samples
    await journal.close()


def test_other_refusals_are_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only EIO says that the disk can't read: what may not be read is not damaged."""
    log = tmp_path / "journal.db-wal"
    log.write_bytes(b"\1" * 5000)
    assert piecewise.read(log) == piecewise.Readable(b"\1" * 5000)
    assert piecewise.read(tmp_path / "none").data == b""

    def refused(*_: Sequence[int]) -> bytes:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "pread", refused)
    with pytest.raises(OSError, match="Permission denied"):
        piecewise.read(log)


async def test_who_only_looks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A WAL that can't be read is neither written over nor set aside by `journal check`."""
    path, _ = await killed(tmp_path, commits=1)
    monkeypatch.setattr(piecewise, "READ_INTERVAL_S", 0.0)
    before = wal_of(path).read_bytes()

    def refused(*_: Sequence[int]) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", refused)
    with pytest.raises(JournalError, match="the disk can't read its WAL"):
        journal_file(path)
    assert wal_of(path).read_bytes() == before
    assert set_aside(path) == []
