"""Foreign publishers: messages taken in, against a real Mosquitto and a real journal.

As a program (``python -m tests.integration.test_ingest PORT FOLDER``) it is a journal and an
`Ingest` that run until they are killed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import uvloop

from edge_agent import address_map, protocols
from edge_agent.agent import Agent
from edge_agent.clock import epoch_ms
from edge_agent.errors import JournalError, RejectedRow, RejectedRows
from edge_agent.journal import Journal
from edge_agent.model import Batch, Series, Tag, TagKey, ValueType
from edge_agent.pipeline import ingest as ingest_module
from edge_agent.pipeline import ingest_decoder
from edge_agent.pipeline.ingest import Ingest, from_settings
from edge_agent.pipeline.ingested import INGESTED_FILE, Ingested, Since, Unpublished
from edge_agent.protocols.mqtt_link import Link, Message, Take
from edge_agent.protocols.mqtt_syntax import MqttConn, parse_conn
from edge_agent.settings import MqttSettings, load_settings
from edge_agent.sinks import Destination
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.memory import MemorySink
from tests.journals import Sample, drained, journal_at
from tests.servers import Mosquitto
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
KEEP_ALL = "allow_anonymous true\nmax_queued_messages 0\n"
POLLED = {TagKey("A1", "PUMP01", "PRESS")}
TOPICS = ["plc/+/+/+"]
KILLS = 5


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that no test waits for."""
    monkeypatch.setattr(ingest_module, "BACKOFF_FIRST_S", 0.02)
    monkeypatch.setattr(ingest_module, "BACKOFF_MAX_S", 0.05)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto", KEEP_ALL) as server:
        yield server


def message(device: str, tag: str, value: Any, ts_ms: int = 0, **other: Any) -> tuple[str, str]:
    """Topic and payload, as a foreign publisher writes them."""
    moment = datetime.fromtimestamp((ts_ms or epoch_ms()) / 1000, UTC)
    keys = {
        "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "site": "A1", "line": "L9", "device": device, "tag": tag, "value": value, "unit": "bar",
    }  # fmt: skip
    return f"plc/A1/{device}/{tag}", json.dumps(keys | other, ensure_ascii=False)


def numbered(numbers: Iterable[int]) -> list[tuple[str, str]]:
    """Messages that no two are alike: number n has the value n, and a time of its own."""
    start_ms = epoch_ms() - 60_000
    return [message(f"F{n % 7}", f"T{n % 3}", n, start_ms + n) for n in numbers]


async def publish(
    port: int, messages: Iterable[tuple[str, str | bytes]], *, qos: int = 1, retain: bool = False
) -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for topic, payload in messages:
            await client.publish(topic, payload, qos=qos, retain=retain)


class Rig:
    """An `Ingest` on a journal, both running."""

    def __init__(
        self, port: int, folder: Path, book: Ingested | None = None, **options: Any
    ) -> None:
        self.journal = journal_at(
            folder / "journal.db", bytes_max=200_000_000, commit_interval_s=0.05, **options
        )
        if book is None:
            book = Ingested(folder / INGESTED_FILE, POLLED)
        self.book = book
        self.ingest = Ingest(
            parse_conn(f"mqtt://127.0.0.1:{port}"),
            TOPICS,
            self.journal,
            self.book,
            agent_id="edge-1",
            password=None,
            now_ms=epoch_ms,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *, commits: bool = True) -> None:
        await self.journal.open(["a"])
        self.book.load()
        self._tasks = [asyncio.create_task(self.ingest.run())]
        if commits:
            self._tasks.append(asyncio.create_task(self.journal.run()))
        await self.connected()

    async def end(self) -> list[Sample]:
        """An orderly end; everything that the journal holds."""
        self.ingest.stop()
        async with asyncio.timeout(WAIT_S):
            await self._tasks[0]
        for task in self._tasks[1:]:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.journal.flush()
        samples = await drained(self.journal)
        await self.journal.close()
        return samples

    async def connected(self) -> None:
        await until(lambda: self.ingest.connected, "connected", within_s=WAIT_S)

    async def disconnected(self) -> None:
        await until(lambda: self.ingest.error is not None, "disconnected", within_s=WAIT_S)

    async def arrived(self, count: int) -> None:
        """So many messages have come, or more."""
        counters = self.ingest.counters
        await until(lambda: counters.messages >= count, f"{count} messages", within_s=WAIT_S)

    async def taken(self, count: int) -> None:
        """So many samples were handed to the journal."""
        counters = self.ingest.counters
        await until(lambda: counters.samples == count, f"{count} samples", within_s=WAIT_S)

    async def repeated(self, count: int) -> None:
        """So many messages were known."""
        counters = self.ingest.counters
        await until(lambda: counters.repeated == count, f"{count} repetitions", within_s=WAIT_S)

    async def settled(self) -> None:
        """Everything that has arrived is acknowledged."""
        await until(lambda: not self.ingest.waiting, "nothing that waits", within_s=WAIT_S)


@asynccontextmanager
async def running(
    port: int, folder: Path, book: Ingested | None = None, **options: Any
) -> AsyncIterator[Rig]:
    rig = Rig(port, folder, book, **options)
    await rig.start()
    yield rig


def values_of(samples: Sequence[Sample]) -> list[float]:
    return [sample.value for sample in samples]


# What is taken in.


async def test_foreign_messages_are_stored_like_polled_tags(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """Names, unit, time and value are the message's, in the order in which they came."""
    async with running(broker.port, tmp_path) as rig:
        now_ms = epoch_ms()
        await publish(
            broker.port,
            [
                message("FAN01", "SPEED", 1450, now_ms, unit="rpm"),
                message("FAN01", "ON", True, now_ms + 1, unit=""),
                message("송풍기 1", "압력", -0.5, now_ms - 5_000, unit="℃"),
            ],
        )
        await rig.arrived(3)
        await rig.settled()
        assert await rig.end() == [
            Sample(now_ms, Series("A1", "L9", "FAN01", "SPEED", "rpm"), 1450),
            Sample(now_ms + 1, Series("A1", "L9", "FAN01", "ON", ""), 1),
            Sample(now_ms - 5_000, Series("A1", "L9", "송풍기 1", "압력", "℃"), -0.5),
        ]


async def test_what_the_running_map_polls_is_not_taken_in(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """Neither by its topic nor under another one, whatever its line and unit are."""
    async with running(broker.port, tmp_path) as rig:
        own = message("PUMP01", "PRESS", 1)
        disguised = ("plc/other/topic/here", message("PUMP01", "PRESS", 2, line="L1", unit="Pa")[1])
        await publish(broker.port, [own, disguised, message("PUMP01", "TEMP", 3)])
        await rig.arrived(3)
        await rig.settled()
        assert rig.ingest.counters.own == 2
        assert values_of(await rig.end()) == [3]
        assert Series("A1", "L1", "PUMP01", "PRESS", "Pa") not in rig.book


BAD = [
    b"",
    b"hm",
    b"12.5",
    b"[]",
    b"\xff\xfe",
    b'{"value": 1}',
    *(
        json.dumps(json.loads(message("X", "T", 1)[1]) | change).encode()
        for change in (
            {"extra": 1},
            {"value": None},
            {"value": "1"},
            {"ts": "now"},
            {"ts": 1_755_432_000},
            {"ts": "2199-01-01T00:00:00Z"},
            {"ts": "1970-01-01T00:00:00Z"},
            {"site": ""},
            {"site": "a/b"},
            {"device": "+"},
            {"tag": "#"},
            {"tag": 5},
            {"line": " "},
            {"line": "a\x07b"},
            {"unit": None},
            {"unit": "x" * 129},
            {"device": "d" * 129},
            {"device": " d"},
            {"device": "$d"},
        )
    ),
    message("X", "T", 1)[1].replace('"value": 1', '"value": NaN').encode(),
    message("X", "T", 1)[1].replace('"value": 1', '"value": 1e999').encode(),
]


async def test_what_is_not_understood_is_counted_and_said_once_per_topic(
    broker: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """None of it is stored, all of it is acknowledged, and the next message is taken."""
    async with running(broker.port, tmp_path) as rig:
        bad = [(f"plc/A1/X/{'ab'[n % 2]}", payload) for n, payload in enumerate(BAD)]
        await publish(broker.port, [*bad, message("GOOD", "T", 7)])
        await rig.arrived(len(BAD) + 1)
        await rig.settled()
        assert rig.ingest.counters.not_understood == len(BAD)
        assert values_of(await rig.end()) == [7]
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == 2
    assert "topic plc/A1/X/a: message not understood: the payload is empty" in said[0]


async def test_series_are_bounded(
    broker: Mosquitto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A publisher that invents names fills neither journal nor book; known series go on."""
    monkeypatch.setattr(ingest_decoder, "SERIES_MAX", 5)
    monkeypatch.setattr(ingest_module, "PER_TURN_MAX", 1)
    async with running(broker.port, tmp_path) as rig:
        await publish(broker.port, [message(f"D{n}", "T", n) for n in range(30)])
        await publish(broker.port, [message("D1", "T", 100)])
        await rig.arrived(31)
        await rig.settled()
        assert rig.ingest.counters.over_series_max == 25
        assert len(rig.book) == 5
        assert values_of(await rig.end()) == [0, 1, 2, 3, 4, 100]
    assert len([r for r in caplog.records if "more than 5 series" in r.getMessage()]) == 1


async def test_a_retained_message_comes_with_the_first_session_only(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """It is the newest one that its publisher wrote before we came; later ones we had."""
    await publish(broker.port, [message("R", "T", 1)], retain=True)
    rig = Rig(broker.port, tmp_path)
    await rig.start()
    await rig.arrived(1)
    await rig.settled()
    assert values_of(await rig.end()) == [1]
    async with running(broker.port, tmp_path) as rig:
        await publish(broker.port, [message("R", "T", 2)])
        await rig.arrived(1)
        await rig.settled()
        assert values_of(await rig.end()) == [2]


# What is acknowledged.


async def test_nothing_is_acknowledged_before_the_commit(broker: Mosquitto, tmp_path: Path) -> None:
    """A message that was handed to a journal that did not commit comes again; then no more."""
    sent = numbered(range(15))
    rig = Rig(broker.port, tmp_path / "first")
    (tmp_path / "first").mkdir()
    await rig.start(commits=False)
    await publish(broker.port, sent)
    await rig.taken(15)
    assert rig.ingest.waiting == 15
    rig._tasks[0].cancel()  # killed: the journal never commits
    await asyncio.wait(rig._tasks)
    rig.journal._values = array("d")
    rig.journal._runs, rig.journal._series_ids = [], array("I")
    await rig.journal.close()

    async with running(broker.port, tmp_path) as again:
        await again.arrived(15)
        await again.settled()
        assert values_of(await again.end()) == list(range(15))
    async with running(broker.port, tmp_path) as third:
        await publish(broker.port, numbered([99]))
        await third.arrived(1)
        assert values_of(await third.end()) == [99]


async def test_an_orderly_end_leaves_nothing_to_repeat(broker: Mosquitto, tmp_path: Path) -> None:
    """What was taken is committed and acknowledged; what came meanwhile waits at the broker."""
    async with running(broker.port, tmp_path) as rig:
        publishing = asyncio.create_task(publish(broker.port, numbered(range(400))))
        await rig.arrived(50)
        first = values_of(await rig.end())
        await publishing
    async with running(broker.port, tmp_path) as rig:
        await rig.taken(400 - len(first))
        await rig.settled()
        assert first + values_of(await rig.end()) == list(range(400))


async def test_a_broker_that_seems_to_wait_gets_its_acknowledgements_at_once(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """With as many messages unanswered as the smallest window has, a commit is asked for."""
    rig = Rig(broker.port, tmp_path)
    rig.journal.commit_interval_s = 10 * WAIT_S
    await rig.start()
    await publish(broker.port, numbered(range(ingest_module.WINDOW_FIRST)))
    await rig.arrived(ingest_module.WINDOW_FIRST)
    await rig.settled()
    assert rig.journal.last_sequence > 0
    assert values_of(await rig.end()) == list(range(ingest_module.WINDOW_FIRST))


async def test_a_lost_connection_repeats_nothing(tmp_path: Path) -> None:
    """What the broker delivers again after its restart is known, and is in the journal once."""
    config = f"{KEEP_ALL}persistence true\npersistence_location {tmp_path}/\n"
    with Mosquitto(tmp_path / "mosquitto", config) as server:
        rig = Rig(server.port, tmp_path)
        await rig.start(commits=False)
        await publish(server.port, numbered(range(12)))
        await rig.taken(12)
        server.stop()
        await rig.disconnected()
        assert rig.ingest.error is not None
        assert "ended the connection" in rig.ingest.error
        server.start()
        await rig.repeated(12)
        assert rig.ingest.waiting == 12
        rig._tasks.append(asyncio.create_task(rig.journal.run()))
        await rig.settled()
        assert values_of(await rig.end()) == list(range(12))


async def test_a_connection_lost_twice_repeats_nothing(tmp_path: Path) -> None:
    """What the first loss left is known still where a second one comes before its repetition.

    Only once: who publishes the same anew publishes further samples.
    """
    config = f"{KEEP_ALL}persistence true\npersistence_location {tmp_path}/\n"
    with Mosquitto(tmp_path / "mosquitto", config) as server:
        rig = Rig(server.port, tmp_path)
        await rig.start(commits=False)
        sent = numbered(range(12))
        await publish(server.port, sent)
        await rig.taken(12)
        rig.ingest._begin()
        rig.ingest._begin()
        server.stop()
        await rig.disconnected()
        server.start()
        await rig.repeated(12)
        rig._tasks.append(asyncio.create_task(rig.journal.run()))
        await rig.settled()
        await publish(server.port, sent)
        await rig.taken(24)
        assert values_of(await rig.end()) == [*range(12), *range(12)]


async def test_a_journal_replaced_before_the_repetition_holds_nothing_up(tmp_path: Path) -> None:
    """Numbers of the damaged one mean nothing: what comes again is taken in, and acknowledged."""
    config = f"{KEEP_ALL}persistence true\npersistence_location {tmp_path}/\n"
    with Mosquitto(tmp_path / "mosquitto", config) as server:
        first = Rig(server.port, tmp_path)  # numbers grow, so that the new journal's are smaller
        await first.start()
        for n in range(10):
            await publish(server.port, numbered([1_000 + n]))
            await first.taken(n + 1)
            await first.settled()
        await first.end()
        rig = Rig(server.port, tmp_path)
        await rig.start(commits=False)
        await publish(server.port, numbered(range(12)))
        await rig.taken(12)
        server.stop()
        await rig.disconnected()
        known = rig.journal.journal_id
        await rig.journal._recover(JournalError("a damaged page"), rig.journal._file)
        assert rig.journal.journal_id != known
        rig._tasks.append(asyncio.create_task(rig.journal.run()))
        server.start()
        await rig.connected()
        await publish(server.port, numbered(range(12, 20)))
        await rig.arrived(12 + 12 + 8)
        await rig.settled()
        assert set(values_of(await rig.end())) >= set(range(20))


async def test_nothing_is_acknowledged_by_the_numbers_of_another_journal(
    broker: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was replaced under a running session may have higher ones; all of it comes again."""
    acknowledged: list[int] = []
    acknowledge = Link.acknowledge

    def noted(link: Link, packet_ids: Iterable[int]) -> None:
        ids = list(packet_ids)
        acknowledged.extend(ids)
        acknowledge(link, ids)

    monkeypatch.setattr(Link, "acknowledge", noted)
    rig = Rig(broker.port, tmp_path)
    await rig.start(commits=False)
    await publish(broker.port, numbered(range(5)))
    await rig.taken(5)
    rig.journal._last_sequence = rig.journal.next_sequence + 1_000
    rig.ingest._generation -= 1
    rig.ingest._wake.set()
    await rig.disconnected()
    rig.journal._last_sequence = 0
    assert not acknowledged
    await rig.arrived(5 + 5)
    rig._tasks.append(asyncio.create_task(rig.journal.run()))
    await rig.settled()
    assert len(acknowledged) == 5
    assert set(values_of(await rig.end())) == set(range(5))


async def test_what_arrives_on_a_connection_that_ends_is_not_taken_for_the_next_one(
    broker: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its packet ids mean other messages there. It comes again; QoS 0 does not, and is kept."""
    taken: list[Callable[[Message], None]] = []
    open_link = Link.open

    async def opened(conn: MqttConn, take: Take, **options: Any) -> Link:
        taken.append(take)
        return await open_link(conn, take, **options)

    close_link = Link.close

    async def closed(link: Link) -> None:
        await close_link(link)
        taken[-1](Message("plc/A1/F/T", message("F", "T", 1)[1].encode(), 1, False, 7, None))

    monkeypatch.setattr(Link, "open", opened)
    monkeypatch.setattr(Link, "close", closed)
    rig = Rig(broker.port, tmp_path)
    await rig.start()
    with monkeypatch.context() as full:
        full.setattr(ingest_module, "ARRIVED_MAX", 0)
        taken[0](Message("plc/A1/F/T", message("F", "T", 0)[1].encode(), 1, False, 6, None))
    await until(lambda: rig.ingest.counters.connects == 2)
    taken[0](Message("plc/A1/F/T", message("F", "T", 2)[1].encode(), 1, False, 8, None))
    taken[0](Message("plc/A1/F/T", message("F", "T", 3)[1].encode(), 0, False, 0, None))
    await rig.taken(1)
    await rig.settled()
    assert values_of(await rig.end()) == [3]


async def test_a_journal_that_takes_nothing_holds_the_broker_back(
    broker: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't be taken stays at the broker, and comes when there is room again."""
    accepting = True
    monkeypatch.setattr(Journal, "accepting", property(lambda _: accepting))
    monkeypatch.setattr(ingest_module, "IDLE_WAIT_S", 0.02)
    monkeypatch.setattr(ingest_module, "RECEIVE_MAX", 20)
    async with running(broker.port, tmp_path) as rig:
        accepting = False
        await publish(broker.port, numbered(range(300)))
        await rig.arrived(20)
        assert rig.ingest.counters.samples == 0
        assert rig.ingest.counters.messages == 20
        accepting = True
        await rig.taken(300)
        await rig.settled()
        assert values_of(await rig.end()) == list(range(300))


async def test_messages_of_qos_0_are_taken_and_bounded(
    broker: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody holds them back: past the bound they are dropped and counted."""
    accepting = True
    monkeypatch.setattr(Journal, "accepting", property(lambda _: accepting))
    monkeypatch.setattr(ingest_module, "IDLE_WAIT_S", 0.02)
    monkeypatch.setattr(ingest_module, "ARRIVED_MAX", 10)
    async with running(broker.port, tmp_path) as rig:
        accepting = False
        await publish(broker.port, numbered(range(15)), qos=0)
        await rig.arrived(15)
        accepting = True
        await rig.taken(10)
        assert rig.ingest.counters.overflowed == 5
        assert values_of(await rig.end()) == list(range(10))


async def test_killed_at_any_moment_no_acknowledged_message_is_lost(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """kill -9, again and again, while others publish: every message ends in the journal."""
    program = [
        *(sys.executable, "-m", "tests.integration.test_ingest", str(broker.port), str(tmp_path))
    ]
    publisher: _Publisher | None = None
    for kill in range(KILLS):
        process = await asyncio.to_thread(_started, program)
        if publisher is None:  # its session exists now, so the broker keeps what comes
            publisher = _Publisher(broker.port)
        await asyncio.sleep(0.15 + 0.07 * kill)
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.communicate)
    assert publisher is not None
    sent = await publisher.end()
    async with running(broker.port, tmp_path) as rig:
        await publish(broker.port, [message("END", "T", -1)])
        await until(lambda: Series("A1", "L9", "END", "T", "bar") in rig.book)
        await rig.settled()
        found = values_of(await rig.end())
    assert sent > 1_000
    assert set(found) == {-1, *range(sent)}
    assert len(found) < 2 * sent, "a kill repeats what was on its way, not everything"


class _Publisher:
    """Publishes numbered messages, one each millisecond or two, until its end."""

    def __init__(self, port: int) -> None:
        self._ending = asyncio.Event()
        self._task = asyncio.create_task(self._run(port))

    async def _run(self, port: int) -> int:
        start_ms, n = epoch_ms() - 60_000, 0
        async with aiomqtt.Client("127.0.0.1", port) as client:
            while not self._ending.is_set():
                topic, payload = message(f"F{n % 7}", f"T{n % 3}", n, start_ms + n)
                await client.publish(topic, payload, qos=1)
                await asyncio.sleep(0.001)
                n += 1
        return n

    async def end(self) -> int:
        """How many were published."""
        self._ending.set()
        return await self._task


def _started(program: Sequence[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "connected\n"
    return process


# The broker's side.


async def test_a_refused_login_is_told_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once per outage, with the settings to check, never the password; it goes on by itself."""
    users = tmp_path / "users"
    make = ["mosquitto_passwd", "-b", "-c", str(users), "edge"]
    subprocess.run([*make, "other"], check=True)
    users.chmod(0o644)
    config = f"allow_anonymous false\npassword_file {users}\n"
    with Mosquitto(tmp_path / "mosquitto", config) as server:
        journal = journal_at(tmp_path / "journal.db")
        await journal.open(["a"])
        settings = MqttSettings.model_validate(
            {
                "url": server.url,
                "username": "edge",
                "password": "s3cret",
                "ingest_topics": tuple(TOPICS),
            }
        )
        book = Ingested(tmp_path / INGESTED_FILE, POLLED)
        ingest = from_settings(settings, journal, book, agent_id="edge-1", now_ms=epoch_ms)
        running = asyncio.create_task(ingest.run())
        await until(lambda: "Not authorized" in (ingest.error or ""))
        assert "[mqtt]" in str(ingest.error)
        assert "conn" not in str(ingest.error)
        await until(lambda: ingest._failures > 3)
        subprocess.run([*make, "s3cret"], check=True)
        server.stop()
        server.start()
        await until(lambda: ingest.connected)
        ingest.stop()
        await running
        await journal.close()
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "s3cret" not in caplog.text


async def test_a_file_that_cannot_be_loaded_is_told_with_its_settings(tmp_path: Path) -> None:
    """No `conn` names it here, so it is looked for in [mqtt]; and it may come yet."""
    file = tmp_path / "empty.pem"
    file.touch()
    settings = MqttSettings(url="mqtts://127.0.0.1:1", ca_file=file, ingest_topics=tuple(TOPICS))
    journal = journal_at(tmp_path / "journal.db")
    await journal.open(["a"])
    book = Ingested(tmp_path / INGESTED_FILE)
    ingest = from_settings(settings, journal, book, agent_id="e", now_ms=epoch_ms)
    running = asyncio.create_task(ingest.run())
    await until(lambda: "cannot load a file" in (ingest.error or ""))
    assert "ca_file, cert_file and key_file of [mqtt]" in str(ingest.error)
    assert "`conn`" not in str(ingest.error)
    ingest.stop()
    await running
    await journal.close()


async def test_ingest_is_off_unless_topics_are_set(tmp_path: Path) -> None:
    """Without `ingest_topics`, or without a broker, there is no task."""
    url, topics = {"mqtt.url": "mqtt://b"}, {"mqtt.ingest_topics": ["a"]}
    map_path = tmp_path / "address_map.csv"
    address_map.write(map_path, [make_tag()])
    found = address_map.load(map_path, protocols.load)

    def made(overrides: dict[str, object]) -> Ingest | None:
        settings = load_settings(None, {}, {"agent.data_dir": str(tmp_path), **overrides})
        return Agent(settings, found)._make_ingest()

    assert made({**url}) is None
    assert made({**topics}) is None
    ingest = made({**url, **topics})
    assert ingest is not None
    assert ingest.broker == "mqtt://b:1883"


# Not published again.

INGESTED = Series("A1", "L9", "FAN01", "SPEED", "rpm")
OURS = Series("A1", "L1", "PUMP01", "PRESS", "bar")


async def test_the_book_survives_a_restart_and_a_torn_line(tmp_path: Path) -> None:
    """What was added is there again; a line that a crash cut short hurts no other."""
    path = tmp_path / INGESTED_FILE
    book = Ingested(path, POLLED)
    book.load()
    book.add([INGESTED])
    with path.open("ab") as file:
        file.write(b'["A1","L')
    again = Ingested(path, POLLED)
    again.load()
    assert INGESTED in again
    later = INGESTED._replace(tag="후속")
    again.add([later, OURS])
    third = Ingested(path, POLLED)
    third.load()
    assert {INGESTED, later} <= third.series
    assert INGESTED in third
    assert OURS not in third, "the running map polls it"
    assert len(third) == 3


def batch_of(sequence: int, *series_ids: int) -> Batch:
    """Samples with their place as value, two to a time."""
    size = len(series_ids)
    return Batch(
        sequence,
        [(1_000 + n, min(2, size - n)) for n in range(0, size, 2)],
        array("I", series_ids),
        array("d", [float(n) for n in range(size)]),
        {1: OURS, 2: INGESTED, 3: OURS._replace(tag="TEMP")},
    )


async def test_ingested_samples_count_as_delivered_and_are_not_handed_on(tmp_path: Path) -> None:
    """The others come with their times; refused rows stand where they stood in the batch."""
    book = Ingested(tmp_path / INGESTED_FILE, POLLED)
    inner = MemorySink()
    sink = Unpublished(inner, book)
    await sink.open(JournalIdentity("e", "j"))
    assert await sink.deliver([batch_of(1, 1, 2, 3)]) == 0
    assert len(inner.samples) == 3
    book.add([INGESTED])
    await sink.open(JournalIdentity("e", "j"))
    inner.samples.clear()
    assert await sink.deliver([batch_of(2, 2, 2), batch_of(3, 1, 2, 2, 3, 1), batch_of(4, 1)]) == 4
    temperature = OURS._replace(tag="TEMP")
    assert inner.samples == [
        (OURS, 1_000, 0.0), (temperature, 1_002, 3.0), (OURS, 1_004, 4.0), (OURS, 1_000, 0.0)
    ]  # fmt: skip
    assert await sink.deliver([batch_of(5, 2)]) == 1
    inner.rejects = {temperature: "too warm"}
    with pytest.raises(RejectedRows) as refusal:
        await sink.deliver([batch_of(6, 2, 2, 1, 3)])
    assert refusal.value.rows == (RejectedRow(6, 3, "too warm"),)
    assert refusal.value.duplicates == 2
    await sink.close()


async def test_what_was_ours_before_another_publisher_took_it_over_is_published(
    tmp_path: Path,
) -> None:
    """By the entry: earlier ones wait for the broker still. The book grows while the sink runs.

    So it is in a salvaged journal, which has another name and the same numbers.
    """
    path = tmp_path / INGESTED_FILE
    book, inner = Ingested(path, POLLED), MemorySink()
    sink = Unpublished(inner, book)
    await sink.open(JournalIdentity("e", "j"))
    assert await sink.deliver([batch_of(1, 2)]) == 0
    book.add([INGESTED], {INGESTED: Since("j", 7)})
    assert await sink.deliver([batch_of(6, 2), batch_of(7, 2, 1), batch_of(8, 2)]) == 2
    assert [series for series, _, _ in inner.samples] == [INGESTED, INGESTED, OURS]

    again = Ingested(path, POLLED)
    again.load()
    inner = MemorySink()
    sink = Unpublished(inner, again)
    await sink.open(JournalIdentity("e", "j"))
    assert await sink.deliver([batch_of(6, 2), batch_of(7, 2)]) == 1
    assert len(inner.samples) == 1
    await sink.open(JournalIdentity("e", "salvaged"))
    assert await sink.deliver([batch_of(6, 2), batch_of(7, 2)]) == 1


@pytest.mark.parametrize(
    "line", [b"5", b"[]", b'["A1","L9","F","T","b","j",-1.5]', b'["A1",5]', b"{}"]
)
async def test_a_line_of_the_book_that_is_none_hurts_no_other(tmp_path: Path, line: bytes) -> None:
    """Somebody may have edited it: names alone count, as in a book of an older version."""
    path = tmp_path / INGESTED_FILE
    path.write_bytes(line + b"\n" + b'["A1","L9","FAN01","SPEED","rpm"]\n')
    book = Ingested(path, POLLED)
    book.load()
    assert book.since(INGESTED) == Since("", 0)
    assert len(book) == 1 + line.startswith(b'["A1","L9"')


async def test_a_series_that_the_journal_had_before_is_the_others_from_now_on(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """A new one has never been ours."""
    async with running(broker.port, tmp_path) as rig:
        known = Series("A1", "L9", "FAN01", "ON", "bar")
        rig.journal.append(epoch_ms(), array("I", [rig.journal.intern(known)]).tobytes(), [1.0])
        await rig.journal.flush()
        due = Since(rig.journal.journal_id, rig.journal.next_sequence)
        await publish(broker.port, [message("FAN01", "ON", 2), message("FAN01", "NEW", 3)])
        await rig.arrived(2)
        await rig.settled()
        await rig.end()
        assert rig.book.since(known) == due
        assert rig.book.since(known._replace(tag="NEW")) == Since("", 0)


def make_tag() -> Tag:
    return Tag(
        site="A1", line="L1", device="PUMP01", tag="PRESS", protocol="simulated", conn="sim://a",
        unit_id=1, address="1", type=ValueType.FLOAT32, scale=1.0, offset=0.0, period_ms=200,
        unit="bar",
    )  # fmt: skip


async def test_in_the_whole_agent_foreign_samples_are_stored_and_published_once(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """A subscriber sees each foreign message once, ours too, and every sink has both."""
    map_path = tmp_path / "address_map.csv"
    address_map.write(map_path, [make_tag()])
    overrides = {
        "agent.data_dir": str(tmp_path / "data"), "agent.http": "", "mqtt.url": broker.url
    }  # fmt: skip
    settings = load_settings(None, {}, overrides)
    (tmp_path / "data").mkdir()
    agent = Agent(settings, address_map.load(map_path, protocols.load))
    book = agent.ingested
    [mqtt] = [target for target in agent.destinations if target.sink.name == "mqtt"]
    memory = MemorySink()
    agent.destinations = [Destination(Unpublished(mqtt.sink, book)), Destination(memory)]
    taking_in = settings.mqtt.model_copy(update={"ingest_topics": tuple(TOPICS)})
    ingest = from_settings(taking_in, agent.journal, book, agent_id="edge-1", now_ms=epoch_ms)
    seen: list[tuple[str, bytes]] = []
    async with aiomqtt.Client("127.0.0.1", broker.port) as subscriber:
        await subscriber.subscribe("plc/#", qos=1)

        async def listen() -> None:
            async for heard in subscriber.messages:
                seen.append((heard.topic.value, heard.payload))  # noqa: PERF401

        listening = asyncio.create_task(listen())
        whole = asyncio.create_task(agent.run(handle_signals=False))
        await until(lambda: bool(agent.pollers))
        taking = asyncio.create_task(ingest.run())
        await until(lambda: ingest.connected)
        foreign = numbered(range(50))
        await publish(broker.port, foreign)
        await until(lambda: ingest.counters.samples == 50 and ingest.counters.own >= 3)
        ingest.stop()
        await taking
        agent.stop()
        await whole
        await until(lambda: len(seen) >= 50 + ingest.counters.own)
        listening.cancel()
        await asyncio.wait([listening])
    published = [topic for topic, _ in seen]
    assert [pair for pair in seen if pair[0] != "plc/A1/PUMP01/PRESS"] == [
        (topic, payload.encode()) for topic, payload in foreign
    ]
    assert published.count("plc/A1/PUMP01/PRESS") >= 3
    stored = [value for series, _, value in memory.samples if series.line == "L9"]
    assert stored == list(range(50))
    assert len(memory.samples) > 50
    assert agent.last_status is not None
    [books] = [sink for sink in agent.last_status["sinks"] if sink["name"] == "mqtt"]
    assert books["duplicates"] >= 50


async def _program(port: int, folder: Path) -> None:
    rig = Rig(port, folder)
    await rig.start()
    print("connected", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_program(int(sys.argv[1]), Path(sys.argv[2])))
