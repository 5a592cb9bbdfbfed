"""A disk that can't read parts of the journal's WAL, as a memory card that dies.

The reads of a process of its own fail, SQLite's too (`tests/unreadable.py`); the files are then
looked at in the test's process, to which all of them are readable.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from edge_agent.errors import JournalError, TransientError
from edge_agent.journal import Quarantined, pages, piecewise, salvage
from edge_agent.journal.file import JournalFile
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
def unreadable_wal(*pieces: int) -> Iterator[None]:
    """In this process: neither those pieces of a WAL can be read nor a WAL be copied."""
    pread, copyfile = os.pread, shutil.copyfile

    def failing_pread(file: int, size: int, at: int) -> bytes:
        name = Path(f"/proc/self/fd/{file}").readlink().name
        if name.endswith("-wal") and at // PIECE_BYTES in pieces:
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


async def test_a_file_system_without_hard_links_keeps_a_copy_with_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On vfat and exFAT a WAL that can't be read can't have a second name: the recovery goes on,
    and the copy's name says that it is not whole."""
    path, samples = await killed(tmp_path, commits=1)
    log = bytearray(wal_of(path).read_bytes())

    def refused(*_: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    last = len(log) // PIECE_BYTES
    with unreadable_wal(2, last):
        journal = await opened(path, SINKS)
    found = await drained(journal)
    await balanced(journal)
    await journal.close()
    assert set(found) <= set(samples)
    assert len(samples) - len(found) <= TAKEN
    (copy,) = path.parent.glob("*.damaged-*-wal-holes")
    log[2 * PIECE_BYTES : 3 * PIECE_BYTES] = bytes(PIECE_BYTES)
    log[last * PIECE_BYTES :] = bytes(len(log) - last * PIECE_BYTES)
    assert copy.read_bytes() == log
    assert not list(path.parent.glob("*.damaged-*-wal"))


async def test_a_copy_with_zeros_that_the_disk_refuses_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for it: the recovery is refused, its files stand as before, and the next one is
    through."""
    path, _ = await killed(tmp_path, commits=1)
    before = wal_of(path).read_bytes()

    def refused(*_: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def full(_: Path, copy: Path, __: piecewise.Alive) -> None:
        copy.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", refused)
    with unreadable_wal(2):
        with monkeypatch.context() as patch:
            patch.setattr(piecewise, "_copy", full)
            with pytest.raises(TransientError, match="No space left"):
                await opened(path, SINKS)
        assert set_aside(path) == []
        assert wal_of(path).read_bytes() == before
        journal = await opened(path, SINKS)
    assert journal.salvages == 1
    await journal.close()


async def test_every_version_of_a_page_that_can_be_read_is_looked_at(tmp_path: Path) -> None:
    """Whichever two pieces of the WAL are unreadable, also where that hides the end of a commit,
    and the next one has the same pages anew."""
    path, _ = await killed(tmp_path, 5)
    log = wal_of(path).read_bytes()
    starts = range(32, len(log) - 4119, 4120)
    present = [at for at in starts if log[at + 8 : at + 16] == log[16:24]]
    pieces = range(-(-len(log) // PIECE_BYTES))
    assert len(pieces) > 20
    for holes in itertools.combinations(pieces, 2):
        with unreadable_wal(*holes), contextlib.closing(Pages(path)) as found:
            assert found.wal_holes == 2
            shown = {found.page(number) for number in itertools.chain(*found.numbers)}
        for at in present:
            touched = range(at // PIECE_BYTES, (at + 4119) // PIECE_BYTES + 1)
            if not {0, *touched} & set(holes):
                assert log[at + 24 : at + 4120] in shown, (holes, at)


@contextlib.contextmanager
def failing_file(fails: Callable[[int, int], bool]) -> Iterator[Counter[int]]:
    """In this process: which reads of a journal's file fail, by their number from 0 and by the page
    from 1. Gives how often each page failed."""
    pread, reads, failures = os.pread, itertools.count(), Counter[int]()

    def failing(file: int, size: int, at: int) -> bytes:
        if Path(f"/proc/self/fd/{file}").readlink().name == "journal.db":
            page = at // PIECE_BYTES + 1
            if fails(next(reads), page):
                failures[page] += 1
                raise OSError(errno.EIO, "Input/output error")
        return pread(file, size, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piecewise, "READ_INTERVAL_S", 0.0)
        patch.setattr(os, "pread", failing)
        yield failures


@contextlib.contextmanager
def copying() -> Iterator[list[int]]:
    """Not empty once a recovery has looked at all pages."""
    begun: list[int] = []
    restore = JournalFile.restore_books

    def noted(*arguments: object, **options: object) -> None:
        begun.append(1)
        restore(*arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JournalFile, "restore_books", noted)
        yield begun


def recovered(path: Path) -> str:
    """Recover a journal as one that runs does it; returns the report."""
    return salvage.replace(path, journal_file, SINKS, lambda _: None)


@pytest.mark.parametrize("hole", [None, 7], ids=["whole WAL", "hole in it"])
@pytest.mark.parametrize("drains", [False, True], ids=["new pages", "pages that were free"])
@pytest.mark.parametrize("first", [0, 1, 3, 6, 14])
async def test_a_disturbance_during_a_recovery_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, drains: bool, hole: int | None
) -> None:
    """No page of the file can be read from some moment on, and again after two pauses: whether it
    were those of the free list, of the books or of entries, all are had, and none is taken twice.
    """
    path, _ = await killed(tmp_path, 6, drains=drains)
    undisturbed = copied(path, tmp_path / "undisturbed")
    pauses: list[float] = []
    with unreadable_wal(hole) if hole else contextlib.nullcontext():
        recovered(undisturbed)
        monkeypatch.setattr(time, "sleep", pauses.append)
        at_first = 2 if hole else 0  # of the WAL

        def fails(read: int, _: int) -> bool:
            return read >= first and len(pauses) < at_first + 2

        with failing_file(fails) as failures:
            recovered(path)
    assert failures
    assert kept_and_lost(path) == kept_and_lost(undisturbed)


async def delivered(path: Path, commits: int = 1) -> int:
    """A journal of which nothing is pending; returns its newest sequence."""
    journal, feed = await opened(path, SINKS), Feed()
    for _ in range(commits):
        feed.fill(journal, TAKEN)
        assert await commit(journal)
    for sink in SINKS:
        assert await drained(journal, sink) == feed.samples
    newest = journal.last_sequence
    await journal.close()
    return newest


async def test_a_disturbance_does_not_hide_which_pages_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row is taken from one of them: what stands there was deleted."""
    path = tmp_path / "journal.db"
    await delivered(path, commits=20)
    pauses: list[float] = []
    looked_at: set[int] = set()
    cells = Pages.cells

    def noted(found: Pages, number: int) -> list[int]:
        looked_at.add(number)
        return cells(found, number)

    monkeypatch.setattr(Pages, "cells", noted)
    monkeypatch.setattr(time, "sleep", pauses.append)
    with (
        failing_file(lambda *_: len(pauses) < 2) as failures,
        contextlib.closing(Pages(path)) as found,
    ):
        salvage.scan(found, lambda _: None)
        assert len(found.free()) > 20
        assert not looked_at & found.free()
    assert looked_at
    assert failures


async def test_a_disturbance_while_entries_are_copied_costs_nothing(tmp_path: Path) -> None:
    """They are read a second time then: each page has its tries there too."""
    path, samples = await killed(tmp_path, taken=2_000)
    with (
        copying() as begun,
        failing_file(lambda _, page: bool(begun) and failures[page] < 2) as failures,
    ):
        recovered(path)
    assert len(failures) > 10
    assert kept_and_lost(path) == (samples, 0)


async def test_what_stays_unreadable_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page has three tries in all, each with a sign of life, wherever the disk dies. Pauses are
    counted: on a disk that dies entry by entry they come to an end too."""
    path, samples = await killed(tmp_path, 8, taken=2_000)
    pauses: list[float] = []
    monkeypatch.setattr(pages, "PAUSES_MAX", 5)
    monkeypatch.setattr(time, "sleep", pauses.append)
    signs: list[float] = []
    with copying() as begun, failing_file(lambda _, page: bool(begun) and page > 30) as failures:
        salvage.replace(path, journal_file, SINKS, signs.append)
    assert len(pauses) == 5
    assert max(failures.values()) == piecewise.READ_TRIES
    assert len(signs) > failures.total() > 5
    assert signs == sorted(signs)
    kept, lost = kept_and_lost(path)
    assert set(kept) < set(samples)
    assert 0 < len(kept) == len(samples) - lost


async def test_a_page_that_stays_unreadable_has_three_tries(tmp_path: Path) -> None:
    """However often rows lead there, and however often it is looked at."""
    path, samples = await killed(tmp_path, 8)
    with unreadable_wal(7), failing_file(lambda _, page: page > 12) as failures:
        recovered(path)
    assert len(failures) > 5
    assert set(failures.values()) == {piecewise.READ_TRIES}
    assert set(kept_and_lost(path)[0]) < set(samples)


async def test_a_recovery_that_is_given_up_ends_between_two_failed_reads(tmp_path: Path) -> None:
    """A stop does not wait until a dying disk has had all of its tries."""
    path, _ = await killed(tmp_path)

    def reach(_: float) -> None:
        if failures:
            raise TransientError("given up")

    with (
        failing_file(lambda _, page: page > 5) as failures,
        pytest.raises(TransientError, match="given up"),
    ):
        salvage.replace(path, journal_file, SINKS, reach)
    assert failures.total() == 1
    assert set_aside(path) == []


async def test_sequences_go_on_where_the_state_is_unreadable(tmp_path: Path) -> None:
    """And nothing is pending: the cursors tell how far they had come."""
    path = tmp_path / "journal.db"
    newest = await delivered(path)
    data = bytearray(path.read_bytes())
    file = journal_file(path)
    at = data.rindex(file.journal_id.encode()) // PIECE_BYTES * PIECE_BYTES
    file.close()
    data[at : at + PIECE_BYTES] = bytes(PIECE_BYTES)
    path.write_bytes(data)
    assert "none lost" in recovered(path)
    file = journal_file(path)
    assert file.sequence >= newest
    file.close()


async def test_an_older_state_does_not_take_sequences_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start begins a new range although nothing was taken: of two states with the same count, the
    one in the WAL and the one in the file, the higher sequence counts."""
    path = tmp_path / "live" / "journal.db"
    await delivered(path)
    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "fold", lambda _: None)
        journal = await opened(path, SINKS)
    copy, in_use = copied(path, tmp_path / "copy"), journal._file.sequence
    await journal.close()
    with wal_of(copy).open("ab") as stream:
        stream.write(bytes(PIECE_BYTES))
    with unreadable_wal(wal_of(copy).stat().st_size // PIECE_BYTES):
        recovered(copy)
    file = journal_file(copy)
    assert file.sequence >= in_use
    file.close()


async def test_a_damaged_page_number_does_not_prolong_a_recovery(tmp_path: Path) -> None:
    """A frame of the WAL that claims to be page two billion makes them no more than there are."""
    path, samples = await killed(tmp_path, commits=1)
    log = bytearray(wal_of(path).read_bytes())
    log[32] = 0x7F
    wal_of(path).write_bytes(log)
    with contextlib.closing(Pages(path)) as found:
        assert found.count < 100
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
