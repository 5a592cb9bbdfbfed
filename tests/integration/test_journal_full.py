"""A full journal: each policy keeps the file's size and its books, and can be drained."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import pytest

from edge_agent.journal import Journal, Policy
from edge_agent.journal import journal as journal_module
from edge_agent.journal.books import BYTES_PER_LEDGER_ROW, LEDGER_GAP_MS, Quarantined
from edge_agent.journal.entries import samples_of
from edge_agent.journal.room import THIN_LEVEL_MAX
from edge_agent.model import Series
from tests.filesystems import tmpfs
from tests.journals import (
    SERIES,
    Feed,
    abandon,
    accepts,
    balance_faults,
    balanced,
    commit,
    copied,
    counted,
    drained,
    journal_file,
    loss_per_series,
    on_full_disk,
    opened,
    traced,
)

BYTES_MAX = 1_000_000
WAL_BYTES_MAX = 6_000_000


async def _fed(journal: Journal, feed: Feed, samples: int, step: int = 2000) -> None:
    """Commit so many samples, and hold the file to its size after each commit."""
    for _ in range(samples // step):
        feed.fill(journal, step)
        assert await commit(journal)
        assert journal.path.stat().st_size <= journal.bytes_max
        log = journal.path.with_name("journal.db-wal")
        assert log.stat().st_size <= WAL_BYTES_MAX


async def test_drop_oldest_keeps_the_newest(tmp_path: Path) -> None:
    """What is left is the newest part without a gap; the rest stands in the ledger, tag by tag."""
    journal, feed = await opened(tmp_path / "journal.db", bytes_max=BYTES_MAX), Feed()
    await _fed(journal, feed, 400_000)
    await balanced(journal)
    losses = loss_per_series(journal._file, "a")
    found = await drained(journal)
    assert found == feed.samples[-len(found) :]
    assert len(found) * 12 > BYTES_MAX // 3
    assert losses == counted(feed.samples[: -len(found)])
    first, *_ = journal._file.ledger()
    assert first.first_ts_ms == feed.samples[0].ts_ms
    assert first.reason == "journal full: oldest dropped"
    await balanced(journal)
    await journal.close()


async def test_thin_halves_the_rate_from_the_oldest(tmp_path: Path) -> None:
    """Old samples get sparser step by step, every tag stays, and the newest keep their rate."""
    journal, feed = (
        await opened(tmp_path / "journal.db", bytes_max=BYTES_MAX, policy=Policy.THIN),
        Feed(),
    )
    await _fed(journal, feed, 400_000)
    await balanced(journal)
    levels = [entry.thinned for entry in journal._file.export()]
    assert levels == sorted(levels, reverse=True), "the oldest must be the thinnest"
    assert max(levels) > 1
    losses = loss_per_series(journal._file, "a")
    found = await drained(journal)
    kept = counted(found)
    assert set(kept) == set(SERIES)
    assert max(kept.values()) - min(kept.values()) <= len(levels)
    assert losses == counted(feed.samples) - kept
    assert found[-2000:] == feed.samples[-2000:]
    everything = {sample.value for sample in feed.samples}
    assert all(sample.value in everything for sample in found)
    # Thinning keeps a longer past than dropping does.
    past = feed.samples[-1].ts_ms - found[0].ts_ms
    assert past > 1.5 * (len(found) / len(SERIES)) * 200
    await balanced(journal)
    await journal.close()


async def test_thin_drops_at_last(tmp_path: Path) -> None:
    """Beyond every 64th sample a trend is none: then the oldest entries are dropped."""
    journal, feed = (
        await opened(tmp_path / "journal.db", bytes_max=BYTES_MAX, policy=Policy.THIN),
        Feed(),
    )
    for _ in range(700):
        feed.fill(journal, 5000)
        assert await commit(journal)
        if any("dropped" in row.reason for row in journal._file.ledger()):
            break
    assert any("dropped" in row.reason for row in journal._file.ledger())
    assert max(entry.thinned for entry in journal._file.export()) == THIN_LEVEL_MAX
    await balanced(journal)
    await journal.close()


async def test_stop_refuses_nothing_that_was_read(tmp_path: Path) -> None:
    """`accepting` turns false while there is still room; draining turns it true again."""
    path = tmp_path / "journal.db"
    journal, feed = await opened(path, bytes_max=BYTES_MAX, policy=Policy.STOP), Feed()
    while journal.accepting:
        feed.fill(journal, 4000)
        assert await commit(journal), "refused before it stopped accepting"
    assert journal.full
    feed.fill(journal, 4000)  # what was being read at that moment
    assert await commit(journal)
    await journal.close()

    journal = await opened(path, bytes_max=BYTES_MAX, policy=Policy.STOP)
    assert not accepts(journal), "full is full, also after a restart"
    found = await drained(journal)
    assert await commit(journal)
    assert accepts(journal)
    assert found == feed.samples
    assert journal._file.ledger() == []
    await balanced(journal)
    await journal.close()


async def test_stop_can_be_drained_when_nothing_more_fits(tmp_path: Path) -> None:
    """Acknowledgements make room in the very commit that waits for it: no deadlock."""
    journal, feed = (
        await opened(tmp_path / "journal.db", bytes_max=BYTES_MAX, policy=Policy.STOP),
        Feed(),
    )
    while await commit(journal):
        feed.fill(journal, 3000)
    assert journal.uncommitted
    found = await drained(journal)
    assert journal.uncommitted == 0
    assert found + await drained(journal) == feed.samples
    await balanced(journal)
    await journal.close()


# -- books that do not fit ------------------------------------------------------------------------

REASON = "값이 잘못됨 " * 30


async def _refused(journal: Journal, reason: str = REASON, sink: str = "a") -> int:
    """The sink gives its next batch up, as after too many faults; returns its samples."""
    (batch,) = await journal.read(sink, samples_max=1)
    samples = [
        Quarantined(series_id, ts_ms, value, reason)
        for ts_ms, series_id, value in samples_of(batch)
    ]
    journal.acknowledge(sink, [batch], rejected=samples)
    return len(samples)


def _settles(journal: Journal, sink: str = "a") -> bool:
    """Whether what the sink has acknowledged is durable."""
    return journal.settled(sink) == journal.position(sink)


async def _filled(journal: Journal, feed: Feed, step: int, *, backlog: int = 0) -> None:
    """To its limit, with so many entries more in memory."""
    while await commit(journal):
        feed.fill(journal, step)
    for _ in range(backlog):
        feed.fill(journal, step)
        await commit(journal)
    assert not accepts(journal)
    assert not on_full_disk(journal)


@pytest.mark.parametrize(
    ("bytes_max", "step"), [(BYTES_MAX, 5000), (4_000_000, 5000), (4_000_000, 20_000)]
)
@pytest.mark.parametrize("backlog", [0, 20])
async def test_stop_goes_on_after_a_batch_that_is_given_up(
    tmp_path: Path, bytes_max: int, step: int, backlog: int
) -> None:
    """Its quarantine takes more room than the batch held, and nothing else makes any: the sink is
    parked until it is durable, and then all the rest drains."""
    path = tmp_path / "journal.db"
    journal = await opened(path, bytes_max=bytes_max, policy=Policy.STOP)
    feed = Feed()
    await _filled(journal, feed, step, backlog=backlog)
    refused = await _refused(journal)
    await commit(journal)
    assert _settles(journal)
    await balanced(journal)
    totals = journal.totals()["a"]
    assert totals.quarantined + totals.lost == refused
    # A kill here: the batches in memory are gone, the books of the rest are whole.
    file = journal_file(copied(path, tmp_path / "killed"), bytes_max=bytes_max)
    file.room.active = frozenset("a")
    assert balance_faults(file) == []
    assert file.totals["a"] == totals
    file.close()

    found = []
    for _ in range(100):
        found += traced(batches := await journal.read("a", samples_max=20_000))
        if batches:
            journal.acknowledge("a", batches)
        elif not journal.uncommitted:
            break
        await commit(journal)
    assert await commit(journal)
    assert found == feed.samples[refused:]
    assert accepts(journal)
    await balanced(journal)
    await journal.close()


async def test_a_given_up_batch_that_frees_nothing_is_written_in_brief(tmp_path: Path) -> None:
    """Another sink still waits for every entry of a full journal: one row says how many."""
    journal = await opened(
        tmp_path / "journal.db", ("a", "dead"), bytes_max=BYTES_MAX, policy=Policy.STOP
    )
    feed = Feed()
    while await commit(journal):
        for _ in range(5):
            feed.scan(journal, step_ms=2 * LEDGER_GAP_MS)  # no two losses share a row
    total = 0
    for _ in range(90):
        total += await _refused(journal)
        await commit(journal)
        assert _settles(journal)
        await balanced(journal)
    totals = journal.totals()["a"]
    assert totals.quarantined + totals.lost == total
    rows = journal._file.ledger()
    assert {(row.sink, row.reason) for row in rows} == {("a", "quarantine full")}
    assert sum(row.samples for row in rows) == totals.lost > 0
    assert journal.path.stat().st_size <= BYTES_MAX
    await journal.close()


async def test_what_waits_in_memory_does_not_keep_acknowledgements_from_the_disk(
    tmp_path: Path,
) -> None:
    """It fits only after many of them: they go first, with their quarantine whole."""
    journal = await opened(tmp_path / "journal.db", bytes_max=BYTES_MAX, policy=Policy.STOP)
    feed = Feed()
    await _filled(journal, feed, 200, backlog=200)
    refused = await _refused(journal, "no")
    assert not await commit(journal)
    assert _settles(journal)
    assert journal.totals()["a"].quarantined == refused
    assert journal._file.ledger() == []
    await balanced(journal)
    await journal.close()


@pytest.mark.parametrize("policy", [Policy.DROP_OLDEST, Policy.THIN])
async def test_a_small_journal_of_many_tags_drops(tmp_path: Path, policy: Policy) -> None:
    """A loss of 5,000 tags takes more room than is made at a time: then it stands per sink."""
    journal = await opened(tmp_path / "journal.db", bytes_max=4_000_000, policy=policy)
    series = [Series("A1", "L1", "D", f"T{n}", "") for n in range(5000)]
    ids = array("I", [journal.intern(names) for names in series]).tobytes()
    for n in range(120):
        journal.append(1_000 * n, ids, [n + tag / 7 for tag in range(5000)])
        assert await commit(journal), n
    assert journal.taken == 120 * 5000
    assert journal.totals()["a"].lost > 0
    await balanced(journal)
    assert journal.path.stat().st_size <= 4_000_000
    await journal.close()


async def test_a_full_journal_can_be_discarded(tmp_path: Path) -> None:
    """What is given up makes room for the ledger that says so."""
    journal = await opened(
        tmp_path / "journal.db", ("a", "b"), bytes_max=BYTES_MAX, policy=Policy.STOP
    )
    series = [Series("A1", "L1", "D", f"T{n}", "") for n in range(1500)]
    ids = array("I", [journal.intern(names) for names in series]).tobytes()
    n = 0
    while await commit(journal):
        journal.append(1_000 * n, ids, [n + tag / 7 for tag in range(1500)])
        n += 1
    file = journal._file
    for sink in ("a", "b"):
        pending = file.pending(sink)
        assert await journal._in_thread(file.discard, sink, "given up") == pending > 0
        assert file.totals[sink].lost == pending
    await balanced(journal)
    assert await commit(journal)
    await journal.close()


@pytest.mark.parametrize("policy", [Policy.DROP_OLDEST, Policy.THIN])
async def test_claimed_entries_are_left_alone(tmp_path: Path, policy: Policy) -> None:
    """What a sink has in its hands can't end both delivered and in the ledger."""
    journal, feed = (
        await opened(tmp_path / "journal.db", ("a", "b"), bytes_max=BYTES_MAX, policy=policy),
        Feed(),
    )
    await _fed(journal, feed, 20_000)
    claimed = await journal.read("a", samples_max=8_000)
    before = traced(claimed)
    await _fed(journal, feed, 200_000)
    sequences = {entry.batch.sequence: entry.thinned for entry in journal._file.export()}
    assert [sequences.get(batch.sequence) for batch in claimed] == [0] * len(claimed)
    journal.acknowledge("a", claimed)
    found = before + await drained(journal, "a")
    assert len({sample.value for sample in found}) == len(found)
    assert loss_per_series(journal._file, "a") == counted(feed.samples) - counted(found)
    await balanced(journal)
    await journal.close()


async def test_what_memory_hands_out_is_not_dropped_from_disk(tmp_path: Path) -> None:
    """A sink that keeps up reads from memory while another lets the journal fill."""
    journal, feed = (
        await opened(tmp_path / "journal.db", ("fast", "dead"), bytes_max=BYTES_MAX),
        Feed(),
    )
    found = []
    for _ in range(150):
        feed.fill(journal, 2000)
        assert await commit(journal)
        batches = await journal.read("fast", samples_max=10_000)
        found += traced(batches)
        journal.acknowledge("fast", batches)
    assert await commit(journal)
    assert found == feed.samples
    assert journal.totals()["fast"].lost == 0
    assert journal.totals()["dead"].lost > 0
    await balanced(journal)
    await journal.close()


async def test_full_journal_with_everything_claimed_refuses(tmp_path: Path) -> None:
    """Nothing may be dropped then: samples wait in memory until a sink gives something back."""
    journal, feed = await opened(tmp_path / "journal.db", bytes_max=BYTES_MAX), Feed()
    await _fed(journal, feed, 30_000)
    claimed = await journal.read("a", samples_max=10**6)
    for _ in range(60):
        feed.fill(journal, 2000)
        if not await commit(journal):
            break
        batches = await journal.read("a", samples_max=10**6)
        assert batches[0].sequence == claimed[0].sequence
    assert not await commit(journal)
    waiting = journal.uncommitted
    assert waiting > 0
    journal.release("a")
    assert await commit(journal)
    assert journal.uncommitted == 0
    found = await drained(journal)
    assert found == feed.samples[-len(found) :]
    await balanced(journal)
    await journal.close()


async def test_a_smaller_limit_than_before(tmp_path: Path) -> None:
    """With `bytes_max` lowered the journal opens, makes room and balances."""
    path = tmp_path / "journal.db"
    journal, feed = await opened(path, bytes_max=4_000_000), Feed()
    await _fed(journal, feed, 200_000)
    await journal.close()
    size = path.stat().st_size
    journal = await opened(path, bytes_max=BYTES_MAX)
    for _ in range(20):
        feed.fill(journal, 2000)
        assert await commit(journal)
    assert await journal.bytes_used() <= BYTES_MAX
    assert path.stat().st_size <= size
    await balanced(journal)
    assert (await drained(journal))[-40_000:] == feed.samples[-40_000:]
    await journal.close()


async def test_many_tags_in_a_small_ledger(tmp_path: Path) -> None:
    """A ledger past its bound merges rows; the number of samples stays exact."""
    journal = await opened(tmp_path / "journal.db", ("a", "b", "c"), bytes_max=BYTES_MAX)
    series = [Series("A1", "L1", "D", f"T{n}", "") for n in range(1500)]
    ids = array("I", [journal.intern(names) for names in series])
    for n in range(300):
        journal.append(1_000_000 * n, ids.tobytes(), [float(n)] * len(series))
        assert await commit(journal)
        assert journal.path.stat().st_size <= BYTES_MAX
    assert len(journal._file.ledger()) <= BYTES_MAX // BYTES_PER_LEDGER_ROW
    await balanced(journal)
    await journal.close()


# -- the disk is full before the journal is -------------------------------------------------------


@pytest.mark.parametrize("policy", list(Policy))
async def test_disk_full(tmp_path: Path, policy: Policy) -> None:
    """The ballast is given up, the policy applies; with room again both come back."""
    with tmpfs(tmp_path / "disk", "24m") as disk:
        journal, feed = (
            await opened(
                disk.path / "journal.db",
                bytes_max=100_000_000,
                ballast_bytes=8_000_000,
                policy=policy,
            ),
            Feed(),
        )
        ballast = disk.path / "journal.ballast"
        assert ballast.stat().st_size == 8_000_000
        await _some(journal, feed, 60_000)
        disk.fill()
        await _some(journal, feed, 400_000)
        assert on_full_disk(journal)
        assert not ballast.exists()
        assert accepts(journal) is (policy is not Policy.STOP)
        await balanced(journal)
        if policy is Policy.STOP:
            assert journal.totals()["a"].lost == 0
        disk.clear()
        assert await commit(journal)
        assert not on_full_disk(journal)
        assert accepts(journal)
        assert ballast.stat().st_size == 8_000_000
        await _some(journal, feed, 40_000)
        await balanced(journal)
        assert journal.taken == len(feed.samples)
        lost = loss_per_series(journal._file, "a")
        found = await drained(journal)
        assert lost == counted(feed.samples) - counted(found)
        await journal.close()


async def _some(journal: Journal, feed: Feed, samples: int) -> None:
    """Feed as a poller does: only while the journal accepts."""
    for _ in range(samples // 2000):
        if journal.accepting:
            feed.fill(journal, 2000)
        await commit(journal)


async def test_disk_full_without_ballast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits are refused, samples wait up to the bound, and all are taken once there is room."""
    monkeypatch.setattr(journal_module, "PENDING_SAMPLES_MAX", 100_000)
    with tmpfs(tmp_path / "disk", "24m") as disk:
        journal, feed = (
            await opened(disk.path / "journal.db", bytes_max=100_000_000),
            Feed(),
        )
        await _some(journal, feed, 40_000)
        (disk.path / "journal.ballast").unlink()
        disk.fill()
        await _some(journal, feed, 1_000_000)
        assert not accepts(journal)
        assert not await commit(journal)
        assert 100_000 <= journal.uncommitted < 110_000
        assert journal.taken + journal.uncommitted == len(feed.samples)
        disk.clear()
        await journal.flush()
        assert journal.uncommitted == 0
        assert accepts(journal)
        assert await drained(journal) == feed.samples
        await balanced(journal)
        await journal.close()


async def test_crash_and_restart_on_a_full_disk(tmp_path: Path) -> None:
    """The agent is killed while the disk is full: it starts again by itself, with nothing lost."""
    with tmpfs(tmp_path / "disk", "24m") as disk:
        path = disk.path / "journal.db"
        options: dict[str, Any] = {"bytes_max": 100_000_000, "ballast_bytes": 8_000_000}
        journal, feed = await opened(path, **options), Feed()
        await _some(journal, feed, 60_000)
        abandon(journal)
        disk.fill()
        journal = await opened(path, **options)
        assert journal.taken == 60_000
        await _some(journal, feed, 100_000)
        await balanced(journal)
        found = await drained(journal)
        assert found == feed.samples[-len(found) :]
        await journal.close()


async def test_salvage_on_a_full_disk(tmp_path: Path) -> None:
    """A damaged file and no room for its recovery: what fits is recovered, the rest is in both
    the damaged file and the ledger, and the agent starts. With room again, it is delivered."""
    with tmpfs(tmp_path / "disk", "24m") as disk:
        path = disk.path / "journal.db"
        options: dict[str, Any] = {"bytes_max": 100_000_000, "ballast_bytes": 8_000_000}
        journal, feed = await opened(path, **options), Feed()
        await _some(journal, feed, 600_000)
        await journal.close()
        with path.open("r+b") as stream:
            stream.write(b"\0" * 4096)
        disk.fill(leave_bytes=100_000)
        journal = await opened(path, **options)
        assert journal.salvages == 1
        await balanced(journal)
        disk.clear()
        found = await drained(journal)
        first = feed.samples.index(found[0])  # the policy may have dropped the oldest since
        assert found == feed.samples[first : first + len(found)]
        assert len(found) > 100_000
        lost = journal.totals()["a"].lost
        assert lost + len(found) == len(feed.samples)
        reasons = {row.reason for row in journal._file.ledger()}
        assert {"journal damaged"} <= reasons <= {"journal damaged", "journal full: oldest dropped"}
        await journal.close()
