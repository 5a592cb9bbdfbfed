"""What the agent publishes does not come back by ingest: whole agents and a real Mosquitto."""

from __future__ import annotations

import asyncio
import errno
import threading
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest

from edge_agent.clock import epoch_ms
from edge_agent.errors import TransientError
from edge_agent.files import append_durably
from edge_agent.journal import Journal
from edge_agent.model import Series, Tag
from edge_agent.pipeline import ingested
from edge_agent.pipeline.ingested import (
    INGESTED_FILE,
    NEVER_OURS,
    Ingested,
    Since,
    Unpublished,
)
from edge_agent.planner import Connection
from edge_agent.reload.difference import PlanDifference
from edge_agent.sinks import Destination
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.memory import MemorySink
from edge_agent.status.figures import AgentStatus, IngestStatus, SinkStatus
from tests.integration.test_agent import Rig, make_tag, running
from tests.integration.test_ingest import KEEP_ALL, message
from tests.integration.test_ingest import Rig as IngestRig
from tests.integration.test_ingest import running as taking_in
from tests.integration.test_mqtt_sink import marked, publish_marked
from tests.integration.test_reload import TAGS, applied, write
from tests.journals import journal_at
from tests.servers import Mosquitto
from tests.waiting import until

GONE = [make_tag(f"T{n}", 10 + n, "sim://gone") for n in range(20)]
OUTAGE_S = 1.0
STORM_S = 1.5
"""A storm shows within a tenth of it."""


def overrides(broker: Mosquitto) -> dict[str, object]:
    return {
        "mqtt.url": broker.url,
        "mqtt.ingest_topics": ["plc/+/+/+"],
        "agent.shutdown_timeout_s": 1,
    }


def ingest_of(status: AgentStatus) -> IngestStatus:
    assert status["ingest"] is not None
    return status["ingest"]


def mqtt_of(status: AgentStatus) -> SinkStatus:
    [found] = [sink for sink in status["sinks"] if sink["name"] == "mqtt"]
    return found


async def is_taking_in(rig: Rig) -> AgentStatus:
    return await rig.until(lambda s: bool(s["ingest"] and s["ingest"]["connected"]))


async def is_delivered(rig: Rig) -> None:
    """Everything that the journal has is with the broker, and has come back."""
    await rig.until(lambda s: all(sink["pending"] < 20 for sink in s["sinks"]))
    await asyncio.sleep(STORM_S)


class Ear:
    """Hears what is published, each message with who has published it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes, str | None]] = []

    async def listen(self, client: aiomqtt.Client) -> None:
        async for one in client.messages:
            assert isinstance(one.payload, bytes)
            self.heard.append((one.topic.value, one.payload, marked(one)))

    def times(self, topic: str) -> Counter[bytes]:
        """How often each message of a topic was heard."""
        return Counter(payload for heard, payload, _ in self.heard if heard == topic)


@asynccontextmanager
async def listening(port: int) -> AsyncIterator[Ear]:
    ear = Ear()
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("plc/#", qos=1)
        task = asyncio.create_task(ear.listen(client))
        yield ear
        task.cancel()
        await asyncio.wait([task])


async def publish(port: int, *messages: tuple[str, str]) -> None:
    for topic, payload in messages:
        await publish_marked(port, topic, payload, None)


@asynccontextmanager
async def taking_part(folder: Path, tags: Sequence[Tag], broker: Mosquitto) -> AsyncIterator[Rig]:
    """An agent that hears what others publish, and itself."""
    async with running(folder, tags, overrides=overrides(broker)) as rig:
        await is_taking_in(rig)
        yield rig


async def stores(rig: Rig, broker: Mosquitto, *messages: tuple[str, str]) -> None:
    """Another publisher's messages are taken in."""
    before = ingest_of(await rig.agent.report.status())["samples"]
    await publish(broker.port, *messages)
    await rig.until(lambda s: ingest_of(s)["samples"] == before + len(messages))


async def goes_away(broker: Mosquitto) -> None:
    """Long enough for samples to wait for it."""
    broker.stop()
    await asyncio.sleep(OUTAGE_S)


async def comes_back(broker: Mosquitto, rig: Rig) -> None:
    """And gets what has waited for it."""
    broker.start()
    await is_taking_in(rig)
    await is_delivered(rig)


@pytest.mark.parametrize("is_down", [False, True], ids=["broker up", "broker down"])
async def test_a_tag_that_leaves_the_map_does_not_come_back(tmp_path: Path, is_down: bool) -> None:
    """Its last samples, and those that waited for the broker, are published once, and that's it."""
    with Mosquitto(tmp_path / "broker", KEEP_ALL) as broker:
        async with taking_part(tmp_path, [*TAGS, *GONE], broker) as rig:
            await stores(rig, broker, message("OTHER", "X", 1))
            if is_down:
                await is_delivered(rig)
                await goes_away(broker)
            write(rig, TAGS)
            await applied(rig, 2)
            if is_down:
                await comes_back(broker, rig)
            else:
                await is_delivered(rig)
            async with listening(broker.port) as ear:
                await asyncio.sleep(STORM_S)
                status = await rig.agent.report.status()
    assert ingest_of(status)["samples"] == 1
    assert ingest_of(status)["series"] == 1
    assert ingest_of(status)["own"] > len(GONE)
    assert not [topic for topic, _, _ in ear.heard if "/T" in topic and "TEMP" not in topic]


async def test_nor_after_a_restart_with_a_smaller_map(tmp_path: Path) -> None:
    """The journal still has samples of the tag for the broker, which has kept our session."""
    with Mosquitto(tmp_path / "broker", f"{KEEP_ALL}persistence true\n") as broker:
        async with taking_part(tmp_path, [*TAGS, *GONE], broker) as rig:
            await stores(rig, broker, message("OTHER", "X", 1))
            await is_delivered(rig)
            await goes_away(broker)
            assert mqtt_of(await rig.stop())["pending"] > len(GONE)
        async with running(tmp_path, TAGS, overrides=overrides(broker)) as rig:
            await comes_back(broker, rig)
            status = await rig.agent.report.status()
    assert ingest_of(status)["samples"] == 0
    assert ingest_of(status)["series"] == 1
    assert ingest_of(status)["own"] > len(GONE)


async def test_a_tag_that_another_publisher_takes_over(tmp_path: Path) -> None:
    """Its messages are stored and not published again, although we have published that tag."""
    with Mosquitto(tmp_path / "broker", KEEP_ALL) as broker:
        async with taking_part(tmp_path, [*TAGS, *GONE], broker) as rig:
            await stores(rig, broker, message("OTHER", "X", 1))
            await is_delivered(rig)
            await goes_away(broker)
            write(rig, TAGS)
            await applied(rig, 2)
            await comes_back(broker, rig)
            theirs = [message("PUMP01", "T1", n, line="L1") for n in range(5)]
            async with listening(broker.port) as ear:
                await stores(rig, broker, *theirs)
                await is_delivered(rig)
            assert ear.times("plc/A1/PUMP01/T1") == {text.encode(): 1 for _, text in theirs}
            status = await rig.agent.report.status()
    assert ingest_of(status)["samples"] == 6
    assert ingest_of(status)["series"] == 2


async def test_a_mark_alone_does_not_make_a_message_our_own(tmp_path: Path) -> None:
    """Another agent's is foreign, and so is what a flow makes of our values with our mark on it."""
    with Mosquitto(tmp_path / "broker", KEEP_ALL) as broker:
        async with taking_part(tmp_path, TAGS, broker) as rig:
            for n in range(3):
                topic, payload = message("PUMP01", "MEAN", n)
                await publish_marked(broker.port, topic, payload, "test")
            topic, payload = message("PUMP02", "PRESS", 1, epoch_ms())
            await publish_marked(broker.port, topic, payload, "edge-2")
            await rig.until(lambda s: ingest_of(s)["samples"] == 4)
            await is_delivered(rig)
            status = await rig.agent.report.status()
    assert ingest_of(status)["samples"] == 4
    assert ingest_of(status)["series"] == 2


# Who publishes a tag changes.


async def test_a_tag_of_another_publisher_that_was_ours_for_a_while(tmp_path: Path) -> None:
    """What we polled, and what waited for the broker when it left the map, is published by us.

    It does not come back as the other's either.
    """
    with Mosquitto(tmp_path / "broker", KEEP_ALL) as broker:
        async with taking_part(tmp_path, TAGS, broker) as rig:
            await stores(rig, broker, message("PUMP01", "T1", 1, line="L1"))
            await is_delivered(rig)
            write(rig, [*TAGS, *GONE])
            await applied(rig, 2)
            await is_delivered(rig)
            await goes_away(broker)
            write(rig, TAGS)
            await applied(rig, 3)
            await comes_back(broker, rig)
            status = await rig.agent.report.status()
    assert mqtt_of(status)["duplicates"] == 1, "the other's one"
    assert ingest_of(status)["samples"] == 1
    assert ingest_of(status)["own"] > len(GONE)


async def test_the_same_if_the_map_changed_while_the_agent_was_down(tmp_path: Path) -> None:
    """The row came with one restart, and was gone with the next."""
    with Mosquitto(tmp_path / "broker", f"{KEEP_ALL}persistence true\n") as broker:
        async with taking_part(tmp_path, TAGS, broker) as rig:
            await stores(rig, broker, message("PUMP01", "T1", 1, line="L1"))
            await is_delivered(rig)
        async with taking_part(tmp_path, [*TAGS, *GONE], broker) as rig:
            await is_delivered(rig)
            await goes_away(broker)
            assert mqtt_of(await rig.stop())["pending"] > len(GONE)
        async with running(tmp_path, TAGS, overrides=overrides(broker)) as rig:
            await comes_back(broker, rig)
            status = await rig.agent.report.status()
    assert mqtt_of(status)["duplicates"] == 1, "the other's one"
    assert ingest_of(status)["samples"] == 0
    assert ingest_of(status)["own"] > len(GONE)


T1 = Series("A1", "L1", "PUMP01", "T1", "bar")


async def published(journal: Journal, book: Ingested, sink: str = "a") -> list[float]:
    """What a sink is handed of all that the journal has for it."""
    inner = MemorySink()
    unpublished = Unpublished(inner, book)
    await unpublished.open(JournalIdentity("e", journal.journal_id))
    batches = await journal.read(sink, samples_max=1_000)
    hidden = await unpublished.deliver(batches)
    assert hidden + len(inner.samples) == sum(map(len, batches))
    return [value for _, _, value in inner.samples]


async def test_each_time_that_a_tag_was_ours_is_published(tmp_path: Path) -> None:
    """Also of the second time, also in a book that is read again, and as soon as the book says so.

    Where ours and the other's wait together, as before the last change, both are.
    """
    journal = journal_at(tmp_path / "journal.db")
    await journal.open(["a"])
    book = Ingested(tmp_path / INGESTED_FILE)
    ids = array("I", [journal.intern(T1)]).tobytes()
    book.add([T1])
    journal.append(1, ids, [-1.0])
    await journal.flush()
    assert await published(journal, book) == []
    running_sink = Unpublished(MemorySink(), book)
    await running_sink.open(JournalIdentity("e", journal.journal_id))
    assert await running_sink.deliver(await journal.read("a", samples_max=1_000)) == 1
    journal.acknowledge("a", await journal.read("a", samples_max=1_000))
    for period in (1.0, 2.0):
        book.polls([T1.key])
        book.note_polled()
        journal.append(2, ids, [period])
        book.polls_only(())
        await journal.flush()
        assert book.since(T1) is None
        assert await running_sink.deliver(await journal.read("a", samples_max=1_000)) == 0
        again = Ingested(tmp_path / INGESTED_FILE)
        again.load()
        assert (await published(journal, book))[-1] == (await published(journal, again))[-1]
        assert (await published(journal, again))[-1] == period
        journal.append(3, ids, [period + 0.5])
        book.add([T1], {T1: Since(journal.journal_id, journal.begin_entry())})
        journal.append(4, ids, [-period])
        await journal.flush()
        assert await running_sink.deliver(await journal.read("a", samples_max=1_000)) == 1
    assert await published(journal, book) == [1.0, 1.5, -1.0, 2.0, 2.5]
    await journal.close()


async def test_a_book_that_the_disk_refuses_has_it_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is ours by now holds at once, is told, and is written with the next change."""
    path = tmp_path / INGESTED_FILE
    book = Ingested(path)
    book.add([T1])
    old = path.read_bytes()
    path.unlink()
    path.mkdir()
    book.polls([T1.key])
    book.note_polled()
    book.polls_only(())
    assert book.since(T1) is None
    assert "is not kept" in caplog.text
    path.rmdir()
    path.write_bytes(old)
    book.add([T1._replace(tag="T2")])
    again = Ingested(path)
    again.load()
    assert again.since(T1) is None
    assert again.since(T1._replace(tag="T2")) == Since()
    assert again.series == {T1, T1._replace(tag="T2")}


async def test_what_the_disk_refused_and_has_all_the_same_becomes_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An fsync that fails may leave the other's line behind; then the map begins to poll the tag.

    After a restart without that row, what we polled of it and still waits is published.
    """
    book = Ingested(tmp_path / INGESTED_FILE)

    def unsure(path: Path, lines: bytes) -> None:
        append_durably(path, lines)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(ingested, "append_durably", unsure)
        with pytest.raises(TransientError, match="Input/output error"):
            book.add([T1])
    assert T1 not in book
    book.polls([T1.key])
    book.note_polled()
    again = Ingested(tmp_path / INGESTED_FILE)
    again.load()
    assert again.series == {T1}
    assert again.since(T1) is None


async def test_what_the_map_polls_by_now_is_written_down_as_ours(tmp_path: Path) -> None:
    """A message had come just before: the book does not say the other's of a row of the map."""
    book = Ingested(tmp_path / INGESTED_FILE, [T1.key])
    book.add([T1])
    book.polls_only(())
    for one in (book, Ingested(tmp_path / INGESTED_FILE)):
        one.load()
        assert one.since(T1) is None
        assert T1 in one.series


async def test_what_the_map_begins_to_poll_while_the_book_is_written_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written down after the other's: the disk is slow, and the event loop does not wait."""
    book = Ingested(tmp_path / INGESTED_FILE)
    noting = threading.Thread(target=book.note_polled)

    def slowly(path: Path, lines: bytes) -> None:
        monkeypatch.undo()
        book.polls([T1.key])
        noting.start()
        noting.join(0.1)
        append_durably(path, lines)

    monkeypatch.setattr(ingested, "append_durably", slowly)
    book.add([T1])
    noting.join()
    book.polls_only(())
    for one in (book, Ingested(tmp_path / INGESTED_FILE)):
        one.load()
        assert one.since(T1) is None


async def test_a_sink_that_runs_goes_by_what_the_map_polls_now(tmp_path: Path) -> None:
    """At once, also if nothing of it is written down."""
    journal = journal_at(tmp_path / "journal.db")
    await journal.open(["a"])
    book = Ingested(tmp_path / INGESTED_FILE)
    book.add([T1])
    journal.append(1, array("I", [journal.intern(T1)]).tobytes(), [1.0])
    await journal.flush()
    batches = await journal.read("a", samples_max=1_000)
    sink = Unpublished(MemorySink(), book)
    await sink.open(JournalIdentity("e", journal.journal_id))
    assert await sink.deliver(batches) == 1
    book.polls([T1.key])
    assert await sink.deliver(batches) == 0
    book.polls_only([T1._replace(tag="T2").key])
    assert await sink.deliver(batches) == 1
    await journal.close()


async def test_each_change_of_the_book_is_another_one(tmp_path: Path) -> None:
    """Whoever keeps the one before sees it; a number could be counted up by two threads at once."""
    book = Ingested(tmp_path / INGESTED_FILE)
    seen = [book.changes]
    changes: list[Callable[[], None]] = [
        lambda: book.add([T1]),
        lambda: book.polls([T1.key]),
        book.note_polled,
        lambda: book.polls_only(()),
    ]
    for change in changes:
        change()
        assert all(book.changes is not before for before in seen)
        seen.append(book.changes)


async def test_a_row_is_ours_before_its_first_sample_and_until_its_last(tmp_path: Path) -> None:
    """Durably before: a kill in between would leave it the other's, and hide what we read."""
    old, new = make_tag("OLD", 4), make_tag("T1", 5)
    path = tmp_path / "data" / INGESTED_FILE
    seen: list[str] = []
    async with running(tmp_path, [*TAGS, old], [Destination(MemorySink())]) as rig:
        book, polls = rig.agent.ingested, rig.agent.machinery.polls
        change = polls.change
        book.add([new.series])

        async def changed(connections: Sequence[Connection]) -> PlanDifference:
            found = Ingested(path)
            found.load()
            assert found.since(new.series) is None
            seen.append("before")
            assert book.is_polled(new.key)
            difference = await change(connections)
            assert book.is_polled(old.key)
            seen.append("after")
            return difference

        polls.change = changed  # type: ignore[method-assign]
        write(rig, [*TAGS, new])
        await applied(rig, 2)
        assert seen == ["before", "after"]
        assert not book.is_polled(old.key)


class Meddled(Ingested):
    """Something happens while the book is written for the first time."""

    def meddle(self) -> None:
        """What happens."""

    def add(self, new: Sequence[Series], since: Mapping[Series, Since] = NEVER_OURS) -> None:
        super().add(new, since)
        meddle, self.meddle = self.meddle, lambda: None  # type: ignore[method-assign]
        meddle()


async def test_our_last_samples_in_the_entry_that_collects_are_published(tmp_path: Path) -> None:
    """The other's first one comes before the next commit."""
    with Mosquitto(tmp_path / "broker") as broker:
        rig = IngestRig(broker.port, tmp_path)
        await rig.start(commits=False)
        ids = array("I", [rig.journal.intern(T1)]).tobytes()
        rig.journal.append(1, ids, [1.0])
        await rig.journal.flush()
        rig.journal.append(2, ids, [2.0])
        await publish(broker.port, message("PUMP01", "T1", 99, line="L1"))
        await rig.arrived(1)
        await until(lambda: rig.journal.uncommitted >= 2)
        await rig.journal.flush()
        assert await published(rig.journal, rig.book) == [1.0, 2.0]
        assert [sample.value for sample in await rig.end()] == [1.0, 2.0, 99.0]


@pytest.mark.parametrize("journal_id", ["new", None], ids=["another file", "the same file"])
async def test_a_journal_that_numbers_anew_while_the_book_is_written(
    tmp_path: Path, journal_id: str | None
) -> None:
    """The book has the entry of the journal that goes on, so that ours in it is published."""
    with Mosquitto(tmp_path / "broker") as broker:
        book = Meddled(tmp_path / INGESTED_FILE)
        async with taking_in(broker.port, tmp_path, book) as rig:
            ids = array("I", [rig.journal.intern(T1)]).tobytes()
            rig.journal.append(1, ids, [1.0])
            await rig.journal.flush()
            due = rig.journal.next_sequence + 7
            expected = Since(journal_id or rig.journal.journal_id, due)

            def number_anew() -> None:
                rig.journal._file.journal_id = expected.journal_id
                rig.journal._next_sequence = due
                rig.journal.generation += 1

            book.meddle = number_anew  # type: ignore[method-assign]
            await publish(broker.port, message("PUMP01", "T1", 99, line="L1"))
            await rig.arrived(1)
            await until(lambda: rig.book.since(T1) == expected)
            await rig.end()


async def test_a_row_of_the_map_that_comes_while_the_book_is_written(tmp_path: Path) -> None:
    """The message that was on its way is left out as one of a tag that the map polls."""
    with Mosquitto(tmp_path / "broker") as broker:
        book = Meddled(tmp_path / INGESTED_FILE)
        async with taking_in(broker.port, tmp_path, book) as rig:
            book.meddle = lambda: book.polls([T1.key])  # type: ignore[method-assign]
            await publish(broker.port, message("PUMP01", "T1", 99, line="L1"), message("X", "Y", 1))
            await rig.arrived(2)
            await rig.settled()
            assert [sample.value for sample in await rig.end()] == [1.0]
            assert rig.ingest.counters.own == 1
