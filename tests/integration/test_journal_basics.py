"""A journal in ordinary life: taken, handed out, acknowledged, reopened."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import ConfigError, TransientError
from edge_agent.journal import Quarantined
from edge_agent.journal.books import Acknowledgement
from edge_agent.journal.entries import batch_of
from edge_agent.journal.file import JournalFile
from tests.journals import (
    SERIES,
    Feed,
    abandon,
    balance_faults,
    balanced,
    commit,
    drained,
    journal_at,
    journal_file,
    opened,
    traced,
)


async def test_nothing_is_handed_out_before_its_commit(tmp_path: Path) -> None:
    """A sink sees a sample only when the commit that holds it has returned."""
    journal, feed = await opened(tmp_path / "journal.db"), Feed()
    feed.scan(journal)
    assert await journal.read("a", samples_max=1000) == []
    assert (journal.taken, journal.uncommitted) == (0, 40)
    assert await commit(journal)
    assert (journal.taken, journal.uncommitted) == (40, 0)
    assert traced(await journal.read("a", samples_max=1000)) == feed.samples
    await journal.close()


async def test_a_series_is_known_after_a_restart_however_late_its_first_sample(
    tmp_path: Path,
) -> None:
    """Commits that find nothing to write, as before a PLC's first answer, forget no series."""
    journal, feed = await opened(tmp_path / "journal.db"), Feed()
    for series in SERIES:
        journal.intern(series)
    assert await commit(journal)
    assert await commit(journal)
    feed.scan(journal)
    assert await commit(journal)
    await journal.close()
    journal = await opened(tmp_path / "journal.db")
    assert await drained(journal, "a") == feed.samples
    await journal.close()


async def test_sinks_go_each_at_its_own_pace(tmp_path: Path) -> None:
    """One sink's acknowledgement moves no other sink's cursor."""
    journal, feed = await opened(tmp_path / "journal.db", ("a", "b")), Feed()
    for _ in range(5):
        feed.fill(journal, 1000)
        assert await commit(journal)
        await drained(journal, "a")
    assert await drained(journal, "b") == feed.samples
    await balanced(journal)
    assert journal.totals()["b"].delivered == 5000
    await journal.close()


async def test_a_failed_delivery_is_handed_out_again(tmp_path: Path) -> None:
    """After release the same batches come again, from memory and from disk alike."""
    journal, feed = await opened(tmp_path / "journal.db"), Feed()
    feed.fill(journal, 1000)
    assert await commit(journal)
    first = await journal.read("a", samples_max=10)
    journal.release("a")
    journal._cache.clear()
    second = await journal.read("a", samples_max=10)
    assert traced(first) == traced(second) == feed.samples
    await journal.close()


async def test_acknowledged_samples_stay_acknowledged_after_close(tmp_path: Path) -> None:
    """A closed journal opened again hands out the rest, exactly."""
    path, feed = tmp_path / "journal.db", Feed()
    journal = await opened(path)
    for _ in range(4):
        feed.fill(journal, 1000)
        assert await commit(journal)
    journal.acknowledge("a", await journal.read("a", samples_max=1500))
    identity = journal.journal_id
    await journal.close()
    journal = await opened(path)
    assert journal.journal_id == identity
    assert await drained(journal) == feed.samples[1000:]
    await balanced(journal)
    await journal.close()


async def test_rejected_samples_go_to_quarantine_and_can_be_replayed(tmp_path: Path) -> None:
    """What a sink refuses is kept with its reason, and handed to that sink alone on replay."""
    path, feed = tmp_path / "journal.db", Feed()
    journal = await opened(path, ("a", "b"))
    feed.scan(journal)
    assert await commit(journal)
    batches = await journal.read("a", samples_max=1000)
    refused = Quarantined(batches[0].series_ids[3], batches[0].runs[0][0], 4.0, "거부: 권한 없음")
    journal.acknowledge("a", batches, rejected=[refused])
    assert await drained(journal, "b") == feed.samples
    await balanced(journal)
    await journal.close()
    file = journal_file(path)
    assert file.quarantine() == [("a", refused)]
    file.configure(["a", "b"])
    assert file.replay("a") == 1
    file.close()
    journal = await opened(path, ("a", "b"))
    assert await drained(journal, "b") == []
    assert await drained(journal, "a") == [feed.samples[3]]
    await balanced(journal)
    assert journal.totals()["a"].quarantined == 0
    await journal.close()


async def test_quarantine_keeps_a_negative_zero_and_whole_numbers(tmp_path: Path) -> None:
    """SQLite stores 2.0 as 2 and -0.0 as 0: their checksums must hold all the same."""
    file = journal_file(tmp_path / "journal.db")
    samples = [Quarantined(1, 1, value, "r") for value in (-0.0, 2.0, 1e300, -7.25, 2.0**60)]
    with file._transaction():
        file.books.insert_quarantined("a", samples)
    assert [sample for _, sample in file.quarantine()] == samples
    file.close()


async def test_a_new_sink_begins_with_the_oldest_kept_entry(tmp_path: Path) -> None:
    """A sink that is configured later gets what is still there; its base says what came before."""
    path, feed = tmp_path / "journal.db", Feed()
    journal = await opened(path)
    for _ in range(2):
        feed.fill(journal, 1000)
        assert await commit(journal)
    journal.acknowledge("a", await journal.read("a", samples_max=1000))
    await journal.close()
    journal = await opened(path, ("a", "b"))
    assert journal.totals()["b"].base == 1000
    assert await drained(journal, "b") == feed.samples[1000:]
    await balanced(journal)
    await journal.close()


async def test_a_sink_that_returns_finds_its_gap_in_the_ledger(tmp_path: Path) -> None:
    """What was deleted while a sink was not configured is counted as lost to it."""
    path, feed = tmp_path / "journal.db", Feed()
    journal = await opened(path, ("a", "b"))
    feed.fill(journal, 1000)
    await journal.close()
    journal = await opened(path, ("a",))
    feed.fill(journal, 1000)
    assert await commit(journal)
    await drained(journal, "a")
    await journal.close()
    journal = await opened(path, ("a", "b"))
    await balanced(journal)
    assert journal.totals()["b"].lost == 2000
    (row,) = journal._file.ledger()
    assert (row.sink, row.samples, row.reason) == ("b", 2000, "sink not configured")
    await journal.close()


async def test_sequences_are_never_given_out_twice(tmp_path: Path) -> None:
    """Should the WAL be lost with commits in it, new entries still get numbers of their own.

    A destination keeps the last sequence it has taken and skips what is not newer.
    """
    path, feed = tmp_path / "journal.db", Feed()
    journal = await opened(path)
    feed.scan(journal)
    assert await commit(journal)
    (batch,) = await journal.read("a", samples_max=1000)
    copy = tmp_path / "copy" / "journal.db"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    await journal.close()
    journal = await opened(copy)
    assert journal.taken == 0
    feed.scan(journal)
    assert await commit(journal)
    (newer,) = await journal.read("a", samples_max=1000)
    assert newer.sequence > batch.sequence
    await journal.close()


async def test_only_one_process_holds_a_journal(tmp_path: Path) -> None:
    """The second one gets an error that says what to do, and harms nothing."""
    journal = await opened(tmp_path / "journal.db")
    with pytest.raises(ConfigError, match="in use"):
        await opened(tmp_path / "journal.db")
    await journal.close()
    await (await opened(tmp_path / "journal.db")).close()


async def test_run_commits_within_the_interval(tmp_path: Path) -> None:
    """`run` makes samples durable once per interval, and wakes who waits."""
    journal, feed = await opened(tmp_path / "journal.db", commit_interval_s=0.01), Feed()
    task = asyncio.create_task(journal.run())
    feed.scan(journal)
    await journal.wait(5)
    assert journal.taken == 40
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await journal.close()


async def test_a_commit_that_is_cancelled_forgets_no_acknowledgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a sink acknowledges while the last commit runs, as at the agent's end, is booked too."""
    journal, feed = await opened(tmp_path / "journal.db", commit_interval_s=0.01), Feed()
    for _ in range(2):
        feed.scan(journal)
        assert await commit(journal)
    first, second = await journal.read("a", samples_max=1000)
    writes, may_end = threading.Event(), threading.Event()
    written = journal._file.commit

    def slow(*given: Any) -> None:
        written(*given)
        writes.set()
        assert may_end.wait(10)

    monkeypatch.setattr(journal._file, "commit", slow)
    journal.acknowledge("a", [first])
    task = asyncio.create_task(journal.run())
    assert await asyncio.to_thread(writes.wait, 10)
    journal.acknowledge("a", [second])
    task.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await journal.close()
    reopened = await opened(tmp_path / "journal.db")
    assert reopened.totals()["a"].delivered == 80
    assert reopened.position("a") == second.sequence
    await reopened.close()


async def test_an_acknowledgement_is_settled_once_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before, and not while the disk refuses: until then the batch may be handed out again."""
    journal, feed = await opened(tmp_path / "journal.db"), Feed()
    for _ in range(2):
        feed.scan(journal)
        assert await commit(journal)
    before = journal.position("a")
    first, second = await journal.read("a", samples_max=1000)
    journal.acknowledge("a", [first])
    assert (journal.position("a"), journal.settled("a")) == (first.sequence, before)

    def refused(*_: Any) -> None:
        raise TransientError("disk full")

    monkeypatch.setattr(journal._file, "commit", refused)
    assert not await commit(journal)
    assert journal.settled("a") == before
    monkeypatch.undo()
    assert await commit(journal)
    assert journal.settled("a") == first.sequence
    journal.acknowledge("a", [second])
    abandon(journal)
    reopened = await opened(tmp_path / "journal.db")
    assert reopened.settled("a") == reopened.position("a") == first.sequence
    await reopened.close()


async def test_an_acknowledgement_after_a_refusal_that_was_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may refuse and have written all the same: what is acknowledged later counts, once."""
    journal, feed = await opened(tmp_path / "journal.db", ("a", "b")), Feed()
    for _ in range(3):
        feed.scan(journal)
        assert await commit(journal)
    first, second, third = await journal.read("a", samples_max=1000)
    written = journal._file.commit

    def refused_all_the_same(*given: Any) -> None:
        written(*given)
        raise TransientError("disk full")

    monkeypatch.setattr(journal._file, "commit", refused_all_the_same)
    for batch in (first, second):
        journal.acknowledge("a", [batch])
        assert not await commit(journal)
    monkeypatch.undo()
    journal.acknowledge("a", [third])
    assert journal.totals()["a"].delivered == 120
    assert await commit(journal)
    assert journal.totals()["a"].delivered == 120
    assert journal._file.totals["a"].sequence == journal.position("a") == third.sequence
    assert balance_faults(journal._file) == []
    await journal.close()


async def test_a_disk_that_refuses_for_long_lets_nothing_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sinks go on with what is in the journal; what they acknowledge is one for each of them."""
    journal, feed = await opened(tmp_path / "journal.db", ("a", "b")), Feed()
    for _ in range(6):
        feed.scan(journal)
        assert await commit(journal)
    batches = {sink: await journal.read(sink, samples_max=1000) for sink in ("a", "b")}
    times = iter(range(6))
    written = journal._file.commit

    def refused(*given: Any) -> None:
        if next(times) == 2:
            written(*given)  # this one stands all the same
        raise TransientError("I/O error")

    monkeypatch.setattr(journal._file, "commit", refused)
    for at in range(6):
        for sink, read in batches.items():
            journal.acknowledge(sink, [read[at]])
        assert not await commit(journal)
        assert len(journal._tried) <= 2
        assert {totals.delivered for totals in journal.totals().values()} == {40 * (at + 1)}
    monkeypatch.undo()
    assert await commit(journal)
    assert [journal._file.totals[sink].delivered for sink in ("a", "b")] == [240, 240]
    assert balance_faults(journal._file) == []
    await journal.close()


async def test_who_cancels_a_commit_twice_still_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C twice does: the file must not be closed under it."""
    journal, feed = await opened(tmp_path / "journal.db"), Feed()
    feed.scan(journal)
    writes, may_end = threading.Event(), threading.Event()
    written = journal._file.commit

    def slow(*given: Any) -> None:
        writes.set()
        assert may_end.wait(10)
        written(*given)

    monkeypatch.setattr(journal._file, "commit", slow)
    task = asyncio.create_task(journal.flush())
    assert await asyncio.to_thread(writes.wait, 10)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal.taken == 40
    await journal.close()


async def test_its_size_is_told_while_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at the agent then needs its other figures most."""
    journal = await opened(tmp_path / "journal.db")
    before = await journal.bytes_used()
    assert before > 0

    def refused(_: object) -> int:
        raise TransientError("I/O error")

    monkeypatch.setattr(JournalFile, "bytes_used", property(refused))
    assert await journal.bytes_used() == before
    monkeypatch.undo()
    await journal.close()


async def test_columns_of_different_length_are_refused(tmp_path: Path) -> None:
    """One wrong call must not shift every later sample to another tag."""
    journal = await opened(tmp_path / "journal.db")
    with pytest.raises(ValueError, match="series ids"):
        journal.append(1, b"\0" * 4, [1.0, 2.0])
    journal.append(1, b"", [])
    assert journal.uncommitted == 0
    await journal.close()


async def test_batches_of_a_replaced_file_are_not_acknowledged(tmp_path: Path) -> None:
    """Their sequence means another entry in the new file: the cursor must not move."""
    journal, feed = await opened(tmp_path / "journal.db"), Feed()
    feed.scan(journal)
    assert await commit(journal)
    batches = await journal.read("a", samples_max=1000)
    journal.acknowledge("a", [replace(batches[0], series={}, sequence=1 << 40)])
    assert journal.position("a") < batches[0].sequence
    await journal.close()


def test_a_journal_that_is_too_small_is_refused(tmp_path: Path) -> None:
    """The message says what is allowed."""
    with pytest.raises(ConfigError, match="at least 1000000"):
        journal_file(tmp_path / "journal.db", bytes_max=999_999)


async def test_opening_can_be_tried_again(tmp_path: Path) -> None:
    """A journal whose opening failed holds no lock."""
    path = tmp_path / "journal.db"
    path.mkdir()
    journal = journal_at(path)
    with pytest.raises(ConfigError, match="is a folder"):
        await journal.open(["a"])
    path.rmdir()
    await journal.open(["a"])
    await journal.close()


def test_the_same_commit_again_changes_nothing(tmp_path: Path) -> None:
    """After a refusal the caller repeats it; what had been written all the same is not doubled."""
    file = journal_file(tmp_path / "journal.db")
    file.configure(["a"])
    series = list(enumerate(SERIES[:2], start=1))
    batch = batch_of(file.sequence + 1, [(1, 1, 1.0), (1, 2, 2.0)], dict(series))
    for _ in range(2):
        file.commit([batch], series, [])
    assert (file.taken, file.pending("a")) == (2, 2)
    acknowledgement = Acknowledgement("a", file.totals["a"].sequence, batch.sequence, 2)
    for _ in range(2):
        file.commit([], [], [acknowledgement])
    assert file.totals["a"].delivered == 2
    assert balance_faults(file) == []
    file.close()
