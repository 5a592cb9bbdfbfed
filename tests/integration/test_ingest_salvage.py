"""Whose waiting samples are, of a series that another publisher took over, in another journal."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterable
from pathlib import Path

import pytest

from edge_agent.errors import JournalError, TransientError
from edge_agent.journal import Journal, salvage
from edge_agent.journal.file import JournalFile
from edge_agent.pipeline.ingested import INGESTED_FILE, Ingested, Since
from edge_agent.protocols.mqtt_link import Link
from tests.integration.test_agent import make_tag, running
from tests.integration.test_ingest import Rig, numbered, publish, values_of
from tests.integration.test_ingest_own import T1, published
from tests.journals import abandon, balanced, commit, copied, drained, opened
from tests.servers import Mosquitto
from tests.waiting import until


def read_book(folder: Path) -> Ingested:
    book = Ingested(folder / INGESTED_FILE, set())
    book.load()
    return book


async def append(journal: Journal, *values: float) -> None:
    for value in values:
        journal.append(1, array("I", [journal.intern(T1)]).tobytes(), [value])
        assert await commit(journal)


async def taken_over(folder: Path) -> Journal:
    """Two samples of ours, then the other's two, each in an entry, and none is delivered.

    In the journal's third opening: by then its numbers are higher than a new one's.
    """
    for _ in range(2):
        await (await opened(folder / "journal.db")).close()
    journal, book = await opened(folder / "journal.db"), read_book(folder)
    await append(journal, 1.0, 2.0)
    book.add([T1], {T1: Since(journal.journal_id, journal.begin_entry())})
    await append(journal, -1.0, -2.0)
    return journal


async def test_a_salvage_does_not_change_whose_samples_are(tmp_path: Path) -> None:
    """Ours are published and the other's are not, by an agent that starts with a damaged file, and
    by the next one; what the other publishes from then on is its own too."""
    journal = await taken_over(tmp_path)
    known = journal.journal_id
    path = copied(journal.path, tmp_path / "killed")
    abandon(journal)
    (tmp_path / INGESTED_FILE).rename(path.with_name(INGESTED_FILE))
    with path.open("r+b") as stream:
        stream.write(b"\0" * 4096)
    log = path.with_name("journal.db-wal")
    log.write_bytes(log.read_bytes()[:32] + b"\1" + log.read_bytes()[33:])
    for start in range(3):
        journal, book = await opened(path), read_book(path.parent)
        assert journal.salvages == (start == 0)
        assert journal.journal_id != known
        book.continue_in(journal.journal_id, journal.next_sequence)
        assert await published(journal, book) == [1.0, 2.0]
        await append(journal, -3.0)
        assert await published(journal, book) == [1.0, 2.0]
        await balanced(journal)
        await journal.close()
    since = read_book(path.parent).since(T1)
    assert since is not None
    assert since.journal_id == journal.journal_id


async def test_nor_does_one_of_a_running_journal(tmp_path: Path) -> None:
    """Without a word to the book: entries keep their numbers, later ones have higher ones."""
    journal, book = await taken_over(tmp_path), read_book(tmp_path)
    assert await published(journal, book) == [1.0, 2.0]
    await journal._recover(JournalError("as when damaged"), journal._file)
    assert journal.salvages == 1
    await append(journal, -3.0)
    assert await published(journal, book) == [1.0, 2.0]
    await drained(journal)  # so that no entry tells how far the numbers were
    await journal._recover(JournalError("as when damaged"), journal._file)
    await append(journal, -4.0)
    assert await published(journal, book) == []
    await journal.close()


async def test_in_a_new_journal_all_is_the_other_s(tmp_path: Path) -> None:
    """It begins with low numbers: the one in the book says nothing there."""
    journal = await taken_over(tmp_path)
    await journal.close()
    for file in tmp_path.glob("journal.*"):
        file.unlink()
    journal, book = await opened(tmp_path / "journal.db"), read_book(tmp_path)
    since = book.since(T1)
    assert since is not None
    assert since.sequence > journal.next_sequence
    book.continue_in(journal.journal_id, journal.next_sequence)
    await append(journal, -3.0)
    assert await published(journal, book) == []
    assert await published(journal, read_book(tmp_path)) == []
    await journal.close()


async def test_a_book_that_the_disk_refuses_goes_on_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and written with the next change."""
    book = read_book(tmp_path)
    book.add([T1], {T1: Since("another", 9)})
    path = tmp_path / INGESTED_FILE
    kept = path.rename(tmp_path / "kept")
    path.mkdir()
    book.continue_in("this", 5)
    assert book.since(T1) == Since("this", 5)
    assert "is not kept" in caplog.text
    path.rmdir()
    kept.rename(path)
    book.add([T1._replace(tag="T2")])
    assert read_book(tmp_path).since(T1) == Since("this", 5)


async def test_the_agent_tells_the_book_of_its_journal(tmp_path: Path) -> None:
    """Before anything is taken: the journal is another one than that in the book."""
    folder = tmp_path / "data"
    folder.mkdir()
    book = read_book(folder)
    book.add([T1], {T1: Since("another", 1 << 60)})
    async with running(tmp_path, [make_tag("PRESS")]) as rig:
        since = rig.agent.ingested.since(T1)
        assert since is not None
        assert since.journal_id == rig.agent.journal.journal_id
        assert since.sequence < 1 << 60
    assert read_book(folder).since(T1) == since


async def test_the_same_file_opened_again_numbers_anew_what_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses a salvage, then the file that was taken for damaged can be opened: its id is
    the old one, but what waits in memory has higher numbers. None of the old ones is due when a
    part of it is committed: the broker keeps all, and delivers it again."""
    acknowledged: list[int] = []
    acknowledge, write = Link.acknowledge, JournalFile.commit

    def noted(link: Link, packet_ids: Iterable[int]) -> None:
        ids = list(packet_ids)
        acknowledged.extend(ids)
        acknowledge(link, ids)

    def refused(*_: object) -> str:
        raise TransientError("no room")

    def one_only(file: JournalFile, *what: object) -> None:
        monkeypatch.setattr(JournalFile, "commit", refused)
        write(file, *what)  # type: ignore[arg-type]

    monkeypatch.setattr(Link, "acknowledge", noted)
    with Mosquitto(tmp_path / "broker") as broker:
        rig = Rig(broker.port, tmp_path)
        await rig.start(commits=False)
        for n in range(6):
            await publish(broker.port, numbered([n]))
            await rig.taken(n + 1)
            rig.journal.begin_entry()
        known = rig.journal.journal_id
        with monkeypatch.context() as patch:
            patch.setattr(salvage, "replace", refused)
            await rig.journal._recover(JournalError("as when damaged"), rig.journal._file)
        monkeypatch.setattr(JournalFile, "commit", one_only)
        assert not await commit(rig.journal)
        assert rig.journal.journal_id == known
        assert rig.journal.uncommitted == 2
        await until(lambda: bool(acknowledged) or rig.ingest.error is not None)
        await rig.taken(6 + 6)  # none is taken for one that is there already
        assert not acknowledged
        monkeypatch.setattr(JournalFile, "commit", write)
        rig._tasks.append(asyncio.create_task(rig.journal.run()))
        await rig.settled()
        assert len(acknowledged) == 6
        assert set(values_of(await rig.end())) == set(range(6))
