"""A commit of which nobody knows whether it stands, and a file that is replaced before it is known.

What it was to write is in memory still: it is neither lost with the file nor taken twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edge_agent.errors import JournalError, TransientError
from edge_agent.journal import Journal, salvage
from edge_agent.journal.entries import picked
from edge_agent.journal.file import JournalFile
from edge_agent.journal.salvage import Found, Recovered
from tests.journals import SERIES, Feed, balanced, commit, drained, journal_file, opened

BATCHES = 3
SAMPLES = len(SERIES)


async def filled(path: Path) -> tuple[Journal, Feed]:
    """One entry that is durable, and three that wait in memory, of one commit."""
    journal, feed = await opened(path), Feed()
    feed.scan(journal)
    assert await commit(journal)
    for _ in range(BATCHES):
        feed.scan(journal)
        journal.begin_entry()
    return journal, feed


def stands_unsure(patch: pytest.MonkeyPatch, *, known: bool) -> None:
    """The next commit stands, but its fsync fails, and so does the look at the file after it:
    in a page behind the state row, which is ``known`` then, or before it."""
    left, write = [True], JournalFile.commit

    def unsure(file: JournalFile, *what: Sequence[object]) -> None:
        before = file.sequence
        write(file, *what)  # type: ignore[arg-type]
        if left:
            left.clear()
            if not known:
                file.sequence = before
            raise JournalError("as when damaged")

    patch.setattr(JournalFile, "commit", unsure)


def reads_only(patch: pytest.MonkeyPatch, entries: int, samples: int) -> None:
    """A salvage finds so many entries, and of another one after them so many samples."""
    read = Found.entries

    def short(found: Found) -> Iterator[Recovered]:
        for place, (batch, sinks) in enumerate(read(found)):
            if place < entries:
                yield batch, sinks
            elif place == entries and samples:
                yield picked(batch, [n < samples for n in range(len(batch))]), sinks

    patch.setattr(Found, "entries", short)


async def comes_out_once(journal: Journal, feed: Feed, *, in_order: bool = True) -> None:
    """All that was ever appended, and the books tell of no loss."""
    assert await commit(journal)
    found = await drained(journal)
    assert (found if in_order else sorted(found)) == feed.samples
    assert journal.taken == len(feed.samples)
    assert journal.totals()["a"].lost == 0
    await balanced(journal)
    assert await journal._in_thread(journal._file.check) == []
    await journal.close()


@pytest.mark.parametrize("known", [True, False], ids=["known", "not known"])
async def test_what_the_salvage_finds_is_not_taken_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Whether or not the file had seen that its commit stands before it was found to be damaged."""
    journal, feed = await filled(tmp_path / "journal.db")
    stands_unsure(monkeypatch, known=known)
    assert await commit(journal)
    assert journal.salvages == 1
    assert journal.uncommitted == 0
    await comes_out_once(journal, feed)


@pytest.mark.parametrize("known", [True, False], ids=["known", "not known"])
@pytest.mark.parametrize(
    ("found", "of_the_next"),
    [(1, 0), (2, 0), (2, 5), (1, SAMPLES - 1), (0, 0)],
    ids=["none", "one", "one and a part", "a part", "not even the durable one"],
)
async def test_what_the_salvage_does_not_find_is_committed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool, found: int, of_the_next: int
) -> None:
    """Its page can't be read: memory has it whole. The ledger has what memory has not."""
    journal, feed = await filled(tmp_path / "journal.db")
    stands_unsure(monkeypatch, known=known)
    reads_only(monkeypatch, found, of_the_next)
    assert await commit(journal)
    assert journal.salvages == 1
    assert journal.uncommitted == (BATCHES + 1 - max(found, 1)) * SAMPLES
    if found:
        await comes_out_once(journal, feed)
        return
    assert await commit(journal)
    assert await drained(journal) == feed.samples[SAMPLES:]
    assert (journal.taken, journal.totals()["a"].lost) == (len(feed.samples), SAMPLES)
    await balanced(journal)
    await journal.close()


@pytest.mark.parametrize("known", [True, False], ids=["known", "not known"])
@pytest.mark.parametrize("broken", [False, True], ids=["sound", "broken"])
async def test_the_same_file_opened_again_is_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool, broken: bool
) -> None:
    """The disk refuses the new file, and lets the old one be opened: what stands there is not taken
    twice. One of its entries that is broken makes it be salvaged after all."""
    journal, feed = await filled(tmp_path / "journal.db")
    stands_unsure(monkeypatch, known=known)

    def refused(*_: object) -> str:
        raise TransientError("no room for a new file")

    with monkeypatch.context() as patch:
        patch.setattr(salvage, "replace", refused)
        assert not await commit(journal)
    before = journal.journal_id
    if broken:
        file = journal_file(journal.path)
        with file._transaction():
            file._connection.execute(
                "UPDATE entry SET data = zeroblob(length(data)) WHERE sequence = ?",
                (file.newest - 1,),
            )
        file.close()
    assert await commit(journal)
    assert (journal.journal_id == before) == (not broken)
    assert journal.salvages == broken
    await comes_out_once(journal, feed, in_order=not broken)  # a later one stands already


async def test_what_a_sink_has_taken_meanwhile_is_not_handed_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entries stand and are read, and the commit that deletes them stands unsurely too."""
    journal, feed = await filled(tmp_path / "journal.db")

    def refused(*_: object) -> str:
        raise TransientError("not now")

    write = JournalFile.commit
    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "commit", lambda *what: refused(write(*what)))
        assert not await commit(journal)
    journal._cache.clear()
    batches = await journal.read("a", samples_max=10**6)
    assert len(batches) == 1 + BATCHES
    journal.acknowledge("a", batches)
    stands_unsure(monkeypatch, known=True)
    with monkeypatch.context() as patch:
        patch.setattr(salvage, "replace", refused)
        assert not await commit(journal)
    assert await commit(journal)
    assert journal.uncommitted == 0
    assert await drained(journal) == []
    assert (journal.taken, journal.totals()["a"].delivered) == (len(feed.samples),) * 2
    await balanced(journal)
    await journal.close()


async def test_what_a_commit_beside_it_makes_durable_is_not_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read finds the damage while the commit is on its way: what the salvage does not find of it
    is lost, and stands in the ledger."""
    journal, feed = await filled(tmp_path / "journal.db")
    journal._cache.clear()

    def damaged(*_: object, **__: object) -> None:
        raise JournalError("as when damaged")

    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "read", damaged)
        reads_only(patch, 1, 0)
        batches, committed = await asyncio.gather(journal.read("a", samples_max=1), commit(journal))
    assert (batches, committed, journal.salvages) == ([], True, 1)
    assert journal.uncommitted == 0
    assert await drained(journal) == feed.samples[:SAMPLES]
    assert (journal.taken, journal.totals()["a"].lost) == (len(feed.samples), BATCHES * SAMPLES)
    await balanced(journal)
    await journal.close()


async def test_what_was_never_written_hides_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file does not count it as taken: what is missing of the rest stands in the ledger."""
    journal, feed = await filled(tmp_path / "journal.db")
    reads_only(monkeypatch, 0, 0)
    await journal._recover(JournalError("as when damaged"), journal._file)
    assert journal.uncommitted == BATCHES * SAMPLES
    assert (journal.taken, journal.totals()["a"].lost) == (SAMPLES, SAMPLES)
    monkeypatch.undo()
    assert await commit(journal)
    assert await drained(journal) == feed.samples[SAMPLES:]
    assert journal.taken == len(feed.samples)
    await balanced(journal)
    await journal.close()
