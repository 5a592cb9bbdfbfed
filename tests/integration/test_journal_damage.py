"""Damaged journal files: set aside, salvaged as far as their checksums allow, never believed.

Every case must end the same way: the journal opens, the books balance for every sink, and what is
handed out is only what was appended, with its exact value, in order and once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.errors import JournalError
from edge_agent.journal import Journal, Quarantined
from tests.journals import (
    Feed,
    Sample,
    abandon,
    balanced,
    commit,
    copied,
    drained,
    journal_file,
    opened,
    set_aside,
)

ENTRIES = 24
SAMPLES_PER_ENTRY = 360
PAGE_BYTES = 4096
BOOKS_BYTES = 19 * PAGE_BYTES
SINKS = ("a", "b")
FLIP_CASES = 200


@dataclass(frozen=True)
class Original:
    """A sound journal to damage copies of, and all that was ever appended to it."""

    path: Path
    samples: list[Sample]
    acknowledged: int


@dataclass(frozen=True)
class Outcome:
    """What a damaged journal gave back."""

    journal_id: str
    salvages: int
    taken: int
    delivered: dict[str, list[Sample]]
    lost: dict[str, int]


async def _filled(path: Path) -> tuple[Journal, Feed, int]:
    """Two sinks: `a` has acknowledged a quarter, with three samples refused; `b` nothing."""
    journal, feed = await opened(path, SINKS), Feed()
    for _ in range(ENTRIES):
        feed.fill(journal, SAMPLES_PER_ENTRY)
        assert await commit(journal)
    batches = await journal.read("a", samples_max=SAMPLES_PER_ENTRY * ENTRIES // 4)
    refused = [
        Quarantined(
            batches[0].series_ids[n], feed.samples[n].ts_ms, feed.samples[n].value, "refused here"
        )
        for n in range(3)
    ]
    journal.acknowledge("a", batches, rejected=refused)
    assert await commit(journal)
    return journal, feed, sum(map(len, batches))


async def _made(folder: Path) -> tuple[Original, Original]:
    path = folder / "live" / "journal.db"
    journal, feed, acknowledged = await _filled(path)
    crashed = copied(path, folder / "crashed")
    await journal.close()
    closed = copied(path, folder / "closed")
    assert not closed.with_name("journal.db-wal").exists()
    return (
        Original(closed, feed.samples, acknowledged),
        Original(crashed, feed.samples, acknowledged),
    )


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Original, Original]:
    return asyncio.run(_made(tmp_path_factory.mktemp("originals")))


@pytest.fixture
def closed(originals: tuple[Original, Original]) -> Original:
    """One file and no WAL, as an orderly end leaves it."""
    return originals[0]


@pytest.fixture
def crashed(originals: tuple[Original, Original]) -> Original:
    """A file and a WAL with all the entries, as kill -9 leaves them."""
    return originals[1]


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(data)


def flip(path: Path, at: int, bits: int) -> None:
    data = path.read_bytes()
    overwrite(path, at, bytes([data[at] ^ bits]))


def truncate(path: Path, size: int) -> None:
    with path.open("r+b") as stream:
        stream.truncate(size)


async def outcome_of(original: Original, path: Path) -> Outcome:
    """Open a damaged copy, read all of it, and hold it against what was appended."""
    before = path.read_bytes()
    log = wal_of(path).read_bytes() if wal_of(path).exists() else b""
    journal = await opened(path, SINKS)
    salvaged_at_once = journal.salvages > 0
    await balanced(journal)
    delivered = {}
    for sink in SINKS:
        found = await drained(journal, sink, samples_max=1000)
        numbers = [int(sample.value) for sample in found]
        assert all(1 <= number <= len(original.samples) for number in numbers)
        assert found == [original.samples[number - 1] for number in numbers]
        assert numbers == sorted(set(numbers)), "out of order, or twice"
        delivered[sink] = found
    await balanced(journal)
    if salvaged_at_once:
        (kept,) = set_aside(path)
        assert kept.read_bytes() == before
        assert (wal_of(kept).read_bytes() if wal_of(kept).exists() else b"") == log
    else:
        assert len(set_aside(path)) == journal.salvages
    totals = journal.totals()
    outcome = Outcome(
        journal_id=journal.journal_id,
        salvages=journal.salvages,
        taken=journal.taken,
        delivered=delivered,
        lost={sink: totals[sink].lost for sink in SINKS},
    )
    if outcome.taken == len(original.samples) and totals["b"].base == 0:
        # Nothing about the books was lost: then each sample is either handed out or in the ledger.
        assert outcome.lost["b"] + totals["b"].delivered == outcome.taken
    await journal.close()
    journal = await opened(path, SINKS)
    assert journal.salvages == 0, "the recovered journal is not sound"
    await balanced(journal)
    await journal.close()
    return outcome


def whole(original: Original, outcome: Outcome) -> bool:
    """Whether everything that was pending was handed out."""
    return (
        outcome.delivered["b"] == original.samples
        and outcome.delivered["a"] == original.samples[original.acknowledged :]
    )


async def test_an_undamaged_file_is_left_alone(
    closed: Original, crashed: Original, tmp_path: Path
) -> None:
    """After an orderly end and after a crash alike nothing is set aside and nothing is missing."""
    for original in (closed, crashed):
        path = copied(original.path, tmp_path / original.path.parent.name)
        outcome = await outcome_of(original, path)
        assert outcome.salvages == 0
        assert whole(original, outcome)


async def test_truncated_anywhere(closed: Original, tmp_path: Path) -> None:
    """Cut at every page and at odd places: what is left of it is recovered, in proportion."""
    size = closed.path.stat().st_size
    chance = random.Random(1)
    cuts = [*range(0, size, PAGE_BYTES), *(chance.randrange(size) for _ in range(30))]
    for cut in cuts:
        path = copied(closed.path, tmp_path / f"{cut}")
        truncate(path, cut)
        outcome = await outcome_of(closed, path)
        if cut == 0:
            assert outcome.taken == 0  # as new
            continue
        assert outcome.salvages == 1
        recovered = len(outcome.delivered["b"]) / len(closed.samples)
        assert recovered >= (cut - BOOKS_BYTES) / size - 0.03, (
            f"cut at {cut} of {size}: {recovered}"
        )


async def test_single_and_several_flipped_bytes(
    closed: Original, crashed: Original, tmp_path: Path
) -> None:
    """200 random damages to file and WAL: at most a few entries are gone, none is believed."""
    chance = random.Random(2)
    losses = 0.0
    for case in range(FLIP_CASES):
        original = chance.choice((closed, crashed))
        path = copied(original.path, tmp_path / f"{case}")
        target = chance.choice([p for p in (path, wal_of(path)) if p.exists()])
        for _ in range(chance.choice((1, 1, 1, 3, 20))):
            flip(target, chance.randrange(target.stat().st_size), 1 << chance.randrange(8))
        outcome = await outcome_of(original, path)
        losses += 1 - len(outcome.delivered["b"]) / len(original.samples)
    assert losses / FLIP_CASES < 0.1


async def test_a_damaged_series_costs_its_own_samples_only(
    closed: Original, tmp_path: Path
) -> None:
    """One tag's name is not readable any more: all other tags' samples are handed out."""
    path = copied(closed.path, tmp_path / "copy")
    name = closed.samples[7].series.device.encode()
    flip(path, path.read_bytes().index(name), 1)
    outcome = await outcome_of(closed, path)
    assert outcome.salvages == 1
    nameless = closed.samples[7].series
    assert outcome.delivered["b"] == [s for s in closed.samples if s.series != nameless]
    assert outcome.lost["b"] == sum(s.series == nameless for s in closed.samples)


def _zeroed_page_1(path: Path) -> None:
    overwrite(path, 0, b"\0" * PAGE_BYTES)


def _zeroed_state(path: Path) -> None:
    overwrite(path, PAGE_BYTES, b"\0" * PAGE_BYTES)


def _garbage(path: Path) -> None:
    path.write_bytes(random.Random(3).randbytes(50_000))


def _text(path: Path) -> None:
    path.write_text("this is not a journal\n")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _ones(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


def _other_database(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:PAGE_BYTES] = b"\0" * (PAGE_BYTES - 100)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "damage",
    [_zeroed_page_1, _zeroed_state, _garbage, _text, _empty, _ones, _other_database],
)
@pytest.mark.parametrize("with_wal", [False, True])
async def test_gross_damage(
    originals: tuple[Original, Original],
    damage: Callable[[Path], None],
    with_wal: bool,
    tmp_path: Path,
) -> None:
    """Whole pages gone, garbage, another file altogether: it opens and goes on."""
    original = originals[with_wal]
    path = copied(original.path, tmp_path / "copy")
    damage(path)
    outcome = await outcome_of(original, path)
    if with_wal or damage in (_zeroed_page_1, _zeroed_state, _other_database):
        # All entries are in pages that are whole, be it in the WAL.
        assert outcome.delivered["b"] == original.samples


@pytest.mark.parametrize(
    ("damage", "recovered"),
    [
        (lambda path: path.unlink(), 0.0),
        (lambda path: path.write_bytes(b"\0" * path.stat().st_size), 0.0),
        (lambda path: overwrite(path, 0, b"\0" * 32), 1.0),
        (lambda path: flip(path, 18, 1), 1.0),
        (lambda path: flip(path, 32 + 9, 1), 0.9),
        (lambda path: overwrite(path, 32 + 4120 * 12, b"\0" * 4120), 0.9),
        (lambda path: path.write_bytes(b""), 0.0),
    ],
    ids=["missing", "zeroed", "no header", "salt", "first frame", "frame 12", "empty"],
)
async def test_damaged_wal(
    crashed: Original, damage: Callable[[Path], None], recovered: float, tmp_path: Path
) -> None:
    """SQLite drops all that follows a damaged frame in silence; the journal does not."""
    path = copied(crashed.path, tmp_path / "copy")
    damage(wal_of(path))
    outcome = await outcome_of(crashed, path)
    assert len(outcome.delivered["b"]) >= recovered * len(crashed.samples)


async def test_file_gone_but_not_its_wal(crashed: Original, tmp_path: Path) -> None:
    """SQLite would delete such a WAL; what it holds is recovered instead."""
    path = copied(crashed.path, tmp_path / "copy")
    path.unlink()
    journal = await opened(path, SINKS)
    assert await drained(journal, "b") == crashed.samples
    await balanced(journal)
    await journal.close()


async def test_damaged_quarantine_and_ledger_rows_are_not_believed(
    closed: Original, tmp_path: Path
) -> None:
    """A flipped bit in a refused sample: it moves to the ledger, the others stay in quarantine."""
    path = copied(closed.path, tmp_path / "copy")
    data = path.read_bytes()
    at = data.index(b"refused here")
    overwrite(path, at, b"R")
    outcome = await outcome_of(closed, path)
    assert outcome.salvages == 1
    journal = await opened(path, SINKS)
    totals = journal.totals()["a"]
    assert (totals.quarantined, totals.lost) == (2, 1)
    await journal.close()


async def test_damage_while_the_journal_is_open(tmp_path: Path) -> None:
    """Found by a read: a new file, the same series ids, and nothing that was in memory is lost."""
    path = tmp_path / "journal.db"
    journal, feed, _ = await _filled(path)
    ids = {series: journal.intern(series) for series in {s.series for s in feed.samples}}
    await journal._in_thread(
        lambda: journal._file._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    )
    journal._cache.clear()
    journal._file._connection.execute("PRAGMA shrink_memory")
    feed.fill(journal, 800)
    before = journal.journal_id
    middle = path.stat().st_size // 2 // PAGE_BYTES * PAGE_BYTES
    overwrite(path, middle, b"\x5a" * PAGE_BYTES * 4)

    assert await journal.read("b", samples_max=1_000_000) == []
    assert (journal.salvages, journal.uncommitted) == (1, 800)
    assert journal.journal_id != before
    assert {series: journal.intern(series) for series in ids} == ids
    assert await commit(journal)
    found = await drained(journal, "b")
    assert found[-800:] == feed.samples[-800:]
    assert 0.3 * len(feed.samples) < len(found) < len(feed.samples)
    await balanced(journal)
    assert journal.totals()["b"].lost == len(feed.samples) - len(found)
    feed.scan(journal)
    assert await commit(journal)
    assert await drained(journal, "b") == feed.samples[-40:]
    await journal.close()


async def test_damage_found_while_the_policy_makes_room(tmp_path: Path) -> None:
    """The commit that triggers it is durable by then: it is neither lost nor taken twice."""
    path = tmp_path / "journal.db"
    journal, feed = await opened(path, ("a",), bytes_max=1_000_000), Feed()
    while not journal._file.room.low:
        feed.fill(journal, 3000)
        assert await commit(journal)
        if journal.taken == 30_000:
            await journal._in_thread(
                lambda: journal._file._connection.execute(
                    "PRAGMA wal_checkpoint(TRUNCATE)"
                ).fetchall()
            )
            journal._file._connection.execute("PRAGMA shrink_memory")
            overwrite(path, 20 * PAGE_BYTES, b"\x5a" * PAGE_BYTES)
        if journal.salvages:
            break
    assert journal.salvages == 1
    assert journal.taken + journal.uncommitted == len(feed.samples)
    await balanced(journal)
    found = await drained(journal)
    numbers = [sample.value for sample in found]
    assert numbers == sorted(set(numbers))
    assert found[-1] == feed.samples[-1]
    await balanced(journal)
    await journal.close()


async def test_readers_and_the_committer_find_the_damage_together(tmp_path: Path) -> None:
    """Several tasks meet one damaged file at the same time: it is replaced once."""
    path = tmp_path / "journal.db"
    journal, feed, _ = await _filled(path)
    await journal._in_thread(
        lambda: journal._file._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    )
    journal._cache.clear()
    journal._file._connection.execute("PRAGMA shrink_memory")
    overwrite(path, 5 * PAGE_BYTES, b"\x5a" * (path.stat().st_size - 5 * PAGE_BYTES))
    feed.fill(journal, 400)
    await asyncio.gather(
        journal.read("a", samples_max=10**9), commit(journal), journal.read("b", samples_max=10**9)
    )
    assert await commit(journal)
    assert journal.salvages == 1
    assert (await drained(journal, "b"))[-400:] == feed.samples[-400:]
    await balanced(journal)
    await journal.close()


async def test_cancelled_in_the_middle_of_a_salvage(tmp_path: Path) -> None:
    """The agent is stopped while a damaged file is being replaced: nothing in memory is lost."""
    path = tmp_path / "journal.db"
    journal, feed, _ = await _filled(path)
    feed.fill(journal, 400)
    overwrite(path, 0, b"\0" * PAGE_BYTES)
    damaged = journal._file
    from edge_agent.errors import JournalError

    task = asyncio.create_task(journal._recover(JournalError("seen"), damaged))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal._file is not damaged
    await journal.close()
    journal = await opened(path, SINKS)
    assert await drained(journal, "b") == feed.samples
    abandon(journal)


def test_who_only_looks_leaves_the_wal_of_a_file_that_is_gone(
    crashed: Original, tmp_path: Path
) -> None:
    """SQLite would delete it."""
    path = copied(crashed.path, tmp_path / "copy")
    log = wal_of(path).read_bytes()
    path.write_bytes(b"")
    with pytest.raises(JournalError, match="its file is empty"):
        journal_file(path, read_only=True)
    assert wal_of(path).read_bytes() == log


async def test_check_sees_a_damaged_wal(tmp_path: Path) -> None:
    """`journal check` reads what SQLite leaves out without a word: frames after a damaged one."""
    path = tmp_path / "journal.db"
    journal, feed = await opened(path), Feed()
    for _ in range(20):
        feed.fill(journal, 1_000)
        await journal.flush()
    broken = copied(path, tmp_path / "copy")
    await journal.close()
    log = broken.with_name("journal.db-wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 0xFF
    with closing(journal_file(broken, read_only=True)) as file:
        assert file.check() == []
    log.write_bytes(data)
    log.with_name("journal.db-shm").unlink(missing_ok=True)
    with closing(journal_file(broken, read_only=True)) as file:
        assert "its WAL holds frames that SQLite can't read" in file.check()


async def test_a_lost_series_number_names_no_other_tag_later(tmp_path: Path) -> None:
    """The names are gone: old losses then say "unknown", whoever gets the number next."""
    path = tmp_path / "journal.db"
    journal, feed = await opened(path, ("a",), bytes_max=1_000_000), Feed()
    while not journal._file.totals["a"].lost:
        feed.fill(journal, 3000)
        assert await commit(journal)
    await journal.close()
    data = bytearray(path.read_bytes())
    at = data.index(b"PUMP39") // PAGE_BYTES * PAGE_BYTES
    data[at : at + PAGE_BYTES] = b"\0" * PAGE_BYTES
    path.write_bytes(bytes(data))
    journal = await opened(path, ("a",), bytes_max=1_000_000)
    assert journal.salvages == 1
    assert {row.series_id for row in journal._file.ledger()} == {None}
    await balanced(journal)
    assert journal.totals()["a"].lost == len(feed.samples)
    await journal.close()
