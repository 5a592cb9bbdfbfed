"""Topics as tags: the MQTT driver against a real Mosquitto, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any, Self, cast

import aiomqtt
import pytest

from edge_agent.errors import DeviceError, TransientError
from edge_agent.journal import Journal
from edge_agent.model import Tag, ValueType
from edge_agent.pipeline.poller import ConnectionPoller
from edge_agent.planner import Block, plan
from edge_agent.protocols import conformance, mqtt_link
from edge_agent.protocols import mqtt as mqtt_module
from edge_agent.protocols.base import Driver
from edge_agent.protocols.mqtt import MqttDriver
from tests.journals import opened, traced
from tests.servers import Mosquitto, free_port
from tests.tags import plain_tag
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

NOW_MS = conformance.NOW_MS
NOW_TEXT = "2025-08-17T12:00:00.123Z"
WAIT_S = 10.0
SOON_S = 0.5
ALL = "allow_anonymous true\nmax_queued_messages 0\n"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto", ALL) as server:
        yield server


def make_tag(
    name: str, address: str, value_type: ValueType = ValueType.FLOAT64, **other: Any
) -> Tag:
    fields = {"protocol": "mqtt", "conn": "mqtt://b", "period_ms": 200}
    fields |= {"site": "S", "unit": ""} | other  # not as `message` has it
    return plain_tag(name, address=address, type=value_type, **fields)


def syntax(_: str) -> type[Driver]:
    return cast("type[Driver]", MqttDriver)


def blocks_of(*tags: Tag) -> list[Block]:
    [connection] = plan(tags, syntax)
    return [block for scan_class in connection.scan_classes for block in scan_class.blocks]


def block_of(*addresses: str, value_type: ValueType = ValueType.FLOAT64) -> Block:
    """One block, whose tags are called as their addresses."""
    [block] = blocks_of(*(make_tag(text, text, value_type) for text in addresses))
    return block


def message(value: Any, ts: str = NOW_TEXT, **other: Any) -> str:
    """A seven-key message."""
    keys = {"ts": ts, "site": "A1", "line": "L1", "device": "P1", "tag": "T", "value": value}
    return json.dumps(keys | {"unit": "bar"} | other)


async def publish(port: int, *messages: tuple[str, str | bytes], retain: bool = False) -> None:
    """One after the other, each confirmed by the broker."""
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for topic, payload in messages:
            await client.publish(topic, payload, qos=1, retain=retain)


@asynccontextmanager
async def connected(port: int, options: str = "") -> AsyncIterator[MqttDriver]:
    driver = MqttDriver(f"mqtt://127.0.0.1:{port}{options}", now_ms=lambda: NOW_MS)
    await driver.connect()
    try:
        yield driver
    finally:
        await driver.close()


Samples = list[tuple[str, int, float]]


async def read(driver: MqttDriver, block: Block, count: int = 0) -> Samples:
    """What has arrived, at least so many: (tag, ms, value)."""
    found: Samples = []
    async with asyncio.timeout(WAIT_S):
        while True:
            for reply in await driver.read(block):
                assert reply.positions is not None
                found += [
                    (block.tags[place].tag, reply.ts_ms, value)
                    for place, value in zip(reply.positions, reply.values, strict=True)
                ]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)


async def lost(driver: MqttDriver, block: Block) -> str:
    """The error with which a read fails, soon."""
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                await driver.read(block)
            except TransientError as error:
                return str(error)
            await asyncio.sleep(0.01)


# What every driver does.


class Plant(Mosquitto):
    """A broker that has its retained messages whenever it has been started."""

    retained: Mapping[str, str] = {
        "a": message(7),
        "b/c": message(-2.5),
        "b/flag": message(True),
        "b/text": message("open"),
        "압력/1": message("12.5"),
    }

    def start(self) -> Self:
        super().start()
        with ThreadPoolExecutor(1) as thread:  # where no event loop runs
            publishing = publish(self.port, *self.retained.items(), retain=True)
            thread.submit(asyncio.run, publishing).result()
        return self


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    with Plant(tmp_path / "plant", ALL) as server:
        yield server


def rig_of(plant: Plant) -> conformance.Rig:
    return conformance.Rig(
        driver=cast("type[Driver]", MqttDriver),
        conn=f"mqtt://127.0.0.1:{plant.port}",
        readable=[
            ("a", ValueType.UINT16, 7),
            ("b/c", ValueType.FLOAT64, -2.5),
            ("b/flag", ValueType.BOOL, 1),
            ("b/c#value", ValueType.FLOAT32, -2.5),
            ("압력/1", ValueType.FLOAT32, 12.5),
        ],
        unreadable=("b/text", ValueType.FLOAT64),
        bad_conns=["", "host", "tcp://h", "mqtt://", "mqtt://h:99999", "mqtt://h?speed=1"],
        bad_addresses=["", "#", "a/#", "a/+/b", "+", "#a", "a#", "$share/g/a", "a#b..c"],
        subscribes=True,
        name="mqtt",
    )


@pytest.mark.parametrize("check", conformance.CHECKS, ids=conformance.name_of)
async def test_the_drivers_contract(check: conformance.Check, plant: Plant) -> None:
    """The same suite as every driver."""
    await check(rig_of(plant))


@pytest.mark.parametrize("check", conformance.SERVER_CHECKS, ids=conformance.name_of)
async def test_the_drivers_contract_when_the_broker_dies(
    check: conformance.ServerCheck, plant: Plant
) -> None:
    """The same suite as every driver."""
    await check(rig_of(plant), plant)


# What a message is worth.


async def test_all_messages_come_once_and_oldest_first(broker: Mosquitto) -> None:
    """A read gives everything since the last one, in order, each under its tag."""
    block = block_of("f/a", "f/b")
    async with connected(broker.port) as driver:
        assert await read(driver, block) == []
        sent = [(f"f/{'ab'[n % 2]}", str(n)) for n in range(300)]
        await publish(broker.port, *sent)
        expected = [(topic, NOW_MS, float(text)) for topic, text in sent]
        assert await read(driver, block, 300) == expected
        assert await read(driver, block) == []


async def test_messages_of_one_moment_share_a_reply(broker: Mosquitto) -> None:
    """The poller's work is per reply; a time of its own begins a new one."""
    block = block_of("f/a")
    async with connected(broker.port) as driver:
        await driver.read(block)
        stamped = message(3, "2025-08-17T11:00:00Z")
        await publish(broker.port, ("f/a", "1"), ("f/a", "2"), ("f/a", stamped), ("f/a", "4"))
        await until(lambda: driver.counters.messages == 4)
        replies = await driver.read(block)
        assert [list(reply.values) for reply in replies] == [[1, 2], [3], [4]]
        assert [reply.ts_ms for reply in replies] == [NOW_MS, NOW_MS - 3_600_123, NOW_MS]


async def test_read_waits_for_nothing(broker: Mosquitto) -> None:
    """Without messages a read returns at once, and empty."""
    block = block_of("f/a")
    async with connected(broker.port) as driver:
        await driver.read(block)
        started = time.monotonic()
        for _ in range(100):
            assert await driver.read(block) == []
        assert time.monotonic() - started < SOON_S


async def test_a_seven_key_message_brings_its_own_time(broker: Mosquitto) -> None:
    """Its value and its ts count, whatever topic it comes on."""
    block = block_of("f/a")
    async with connected(broker.port) as driver:
        await driver.read(block)
        await publish(broker.port, ("f/a", message(12.25, "2025-08-17T13:59:59.500+02:00")))
        assert await read(driver, block, 1) == [("f/a", NOW_MS - 623, 12.25)]


async def test_one_topic_for_several_tags_and_periods(broker: Mosquitto) -> None:
    """Every tag gets its part of the payload, in whichever block it is, by one subscription."""
    broker.stop()
    broker.config += "log_type subscribe\n"
    broker.start()
    first, second = blocks_of(
        make_tag("x", "f/a#data.x"),
        make_tag("y", "f/a#/data/y"),
        make_tag("slow x", "f/a#data.x", period_ms=5_000),
    )
    async with connected(broker.port) as driver:
        await driver.read(first)
        await driver.read(second)
        await publish(broker.port, ("f/a", '{"data": {"x": 1, "y": false}}'))
        assert await read(driver, first, 2) == [("x", NOW_MS, 1), ("y", NOW_MS, 0)]
        assert await read(driver, second, 1) == [("slow x", NOW_MS, 1)]
        assert await read(driver, first) == []


async def test_what_is_not_understood_is_bad_and_said_once_per_topic(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """NaN where a value is missing; the topic's other tags and its next messages are taken."""
    block = block_of("f/a#x", "f/a#y", "f/b")
    async with connected(broker.port) as driver:
        await driver.read(block)
        await publish(
            broker.port,
            ("f/a", '{"x": 1, "y": "open"}'),
            ("f/a", b"\xff\x00{"),
            ("f/a", '{"x": 2}'),
            ("f/b", ""),
            ("f/b", "NaN"),
            ("f/b", "1,5"),
            ("f/b", "[1]"),
            ("f/b", message(1, "yesterday")),
            ("f/b", "3"),
        )
        found = await read(driver, block, 12)
        values: dict[str, list[float | None]] = {"f/a#x": [], "f/a#y": [], "f/b": []}
        for tag, ts_ms, value in found:
            assert ts_ms == NOW_MS
            values[tag].append(None if isnan(value) else value)
        assert values["f/a#x"] == [1, None, 2]
        assert values["f/a#y"] == [None, None, None]
        assert values["f/b"] == [None] * 5 + [3]
        assert driver.counters.not_understood == 8
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == 2
    assert "topic f/a: not understood: expected a number, true or false, found text" in said[0]
    assert "topic f/b: not understood: the payload is empty" in said[1]


async def test_a_retained_message_counts_only_with_a_time_of_its_own(broker: Mosquitto) -> None:
    """A value of unknown age is left out; a later live one counts."""
    await publish(broker.port, ("f/old", "1"), ("f/bad", "open"), retain=True)
    await publish(broker.port, ("f/new", message(2, "2025-08-17T12:00:00Z")), retain=True)
    block = block_of("f/old", "f/bad", "f/new")
    async with connected(broker.port) as driver:
        assert await read(driver, block, 1) == [("f/new", NOW_MS - 123, 2)]
        await publish(broker.port, ("f/old", "3"), retain=True)
        assert await read(driver, block, 1) == [("f/old", NOW_MS, 3)]
        await driver.connect()
        assert await read(driver, block, 1) == [("f/new", NOW_MS - 123, 2)]
        await publish(broker.port, ("f/new", message(4, "2025-08-17T12:00:00.100Z")))
        await read(driver, block, 1)
        await driver.connect()
        await driver.read(block)
        await publish(broker.port, ("f/old", "5"))
        assert await read(driver, block, 1) == [("f/old", NOW_MS, 5)]


async def test_a_second_block_gets_what_is_retained_too(broker: Mosquitto) -> None:
    """Tags of two periods on one topic both begin with its retained message."""
    await publish(broker.port, ("f/a", message(2)), retain=True)
    fast, slow = blocks_of(make_tag("fast", "f/a"), make_tag("slow", "f/a", period_ms=5_000))
    async with connected(broker.port) as driver:
        await read(driver, fast, 1)
        assert await read(driver, slow, 1) == [("slow", NOW_MS, 2)]


async def test_a_bool_is_zero_or_one(broker: Mosquitto) -> None:
    """Nothing else becomes true."""
    block = block_of("f/a", value_type=ValueType.BOOL)
    async with connected(broker.port) as driver:
        await driver.read(block)
        await publish(broker.port, *(("f/a", text) for text in ("true", "0", "1.0", "2")))
        values = [value for _, _, value in await read(driver, block, 4)]
        assert values[:3] == [1, 0, 1]
        assert isnan(values[3])


async def test_what_nobody_fetches_is_bounded(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest are dropped, counted, and that is said once."""
    monkeypatch.setattr(mqtt_module, "WAITING_MAX", 10)
    block = block_of("f/a")
    async with connected(broker.port) as driver:
        await driver.read(block)
        await publish(broker.port, *(("f/a", str(n)) for n in range(25)))
        await until(lambda: driver.counters.messages == 25)
        assert [value for _, _, value in await read(driver, block)] == list(range(15, 25))
        assert driver.counters.overflowed == 15
    assert len([r for r in caplog.records if "the oldest are dropped" in r.getMessage()]) == 1


# The broker's side.


DENIED = {
    "defaultACLAccess": {
        "publishClientSend": True,
        "publishClientReceive": True,
        "subscribe": True,
        "unsubscribe": True,
    },
    "clients": [],
    "groups": [{"groupname": "everybody", "roles": [{"rolename": "limited"}]}],
    "roles": [
        {
            "rolename": "limited",
            "acls": [{"acltype": "subscribePattern", "topic": "secret/#", "allow": False}],
        }
    ],
    "anonymousGroup": "everybody",
}


@pytest.fixture
def choosy(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that refuses subscriptions to ``secret/#``, and says so."""
    [plugin] = Path("/usr/lib").glob("*/mosquitto_dynamic_security.so")
    rights = tmp_path / "rights.json"
    rights.write_text(json.dumps(DENIED))
    config = f"plugin {plugin}\nplugin_opt_config_file {rights}\nallow_anonymous true\n"
    with Mosquitto(tmp_path / "mosquitto", config) as server:
        yield server


async def test_a_refused_topic_costs_its_own_tags_only(
    choosy: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """NaN beside good ones; a DeviceError with the reason where nothing else is in the block."""
    mixed = block_of("f/a", "secret/b")
    [alone] = blocks_of(make_tag("alone", "secret/c", period_ms=5_000))
    async with connected(choosy.port) as driver:
        [(tag, _, value)] = await read(driver, mixed)
        assert (tag, isnan(value)) == ("secret/b", True)
        for _ in range(2):
            with pytest.raises(DeviceError, match=r"topic secret/c: .*refuses.*Not authorized"):
                await driver.read(alone)
        await publish(choosy.port, ("f/a", "1"), ("secret/b", "2"))
        assert await read(driver, mixed, 1) == [("f/a", NOW_MS, 1)]
        assert driver.counters.refused == 2
    assert len([r for r in caplog.records if "refuses the subscription" in r.getMessage()]) == 2


async def test_a_topic_that_is_allowed_later_is_read(
    choosy: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused topic is asked for again after a while, without a reconnect."""
    block = block_of("secret/b")
    async with connected(choosy.port) as driver:
        with pytest.raises(DeviceError):
            await driver.read(block)
        monkeypatch.setattr(mqtt_module, "REFUSED_RETRY_S", 0.0)
        await driver.connect()
        for asked in (2, 3, 4):
            with pytest.raises(DeviceError):
                await driver.read(block)
            assert driver.counters.refused == asked


async def test_nobody_listens() -> None:
    """A refused connection is a TransientError that names the place, at once."""
    conn = f"mqtt://127.0.0.1:{free_port()}"
    driver = MqttDriver(conn, now_ms=lambda: NOW_MS)
    started = time.monotonic()
    with pytest.raises(TransientError, match=f"{conn}: Connection refused"):
        await driver.connect()
    assert time.monotonic() - started < SOON_S
    await driver.close()


async def test_a_mute_broker_is_given_up_in_time_and_for_good(broker: Mosquitto) -> None:
    """No answer to CONNECT: an error within the time; woken up, the broker keeps no client."""
    with broker.paused():
        driver = MqttDriver(
            f"mqtt://127.0.0.1:{broker.port}?timeout_ms=200&client_id=mute", now_ms=lambda: NOW_MS
        )
        started = time.monotonic()
        with pytest.raises(TransientError, match=r"no answer within 0\.2 s"):
            await driver.connect()
        assert time.monotonic() - started < 2 * SOON_S
        with pytest.raises(TransientError, match="not connected"):
            await driver.read(block_of("f/a"))
        cancelled = asyncio.create_task(driver.connect())
        await asyncio.sleep(0.05)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    await until(lambda: not mqtt_link._background)
    await driver.connect()
    assert await driver.read(block_of("f/a")) == []
    await driver.close()


async def test_the_first_read_of_a_dead_broker_fails_at_once(broker: Mosquitto) -> None:
    """Killed while the answer to SUBSCRIBE is due: a TransientError, not a timeout."""
    block = block_of("f/a")
    async with connected(broker.port) as driver:
        broker.pause()
        reading = asyncio.create_task(driver.read(block))
        await asyncio.sleep(0.05)
        assert not reading.done()
        broker.kill()
        with pytest.raises(TransientError, match="ended the connection"):
            async with asyncio.timeout(SOON_S):
                await reading
        assert "ended the connection" in await lost(driver, block)


async def test_what_had_arrived_survives_a_reconnect(broker: Mosquitto) -> None:
    """Values that were not fetched when the broker died are fetched after it."""
    block = block_of("f/a")
    async with connected(broker.port) as driver:
        await driver.read(block)
        await publish(broker.port, ("f/a", "1"))
        await until(lambda: driver.counters.messages == 1)
        broker.kill()
        async with asyncio.timeout(WAIT_S):
            await asyncio.shield(cast("mqtt_link.Link", driver._link)._watch)
        with pytest.raises(TransientError):
            await driver.read(block)
        broker.start()
        await driver.connect()
        await publish(broker.port, ("f/a", "2"))
        assert [value for _, _, value in await read(driver, block, 1)] == [1]
        await publish(broker.port, ("f/a", "3"))
        assert [value for _, _, value in await read(driver, block, 1)] == [3]


async def test_login_with_a_password_from_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The right one is let in; a wrong one is an error with a hint and without the password."""
    users = tmp_path / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "edge", "s3cret"], check=True)
    users.chmod(0o644)
    config = f"allow_anonymous false\npassword_file {users}\n"
    good, wrong = tmp_path / "good", tmp_path / "wrong"
    good.write_text("s3cret\n")
    wrong.write_text("0ther\n")
    with Mosquitto(tmp_path / "mosquitto", config) as server:
        async with connected(server.port, f"?user=edge&password_file={good}") as driver:
            assert await driver.read(block_of("f/a")) == []
        for file, what in ((wrong, "Not authorized"), (tmp_path / "none", "cannot load a file")):
            with pytest.raises(TransientError, match=what) as refused:
                async with connected(server.port, f"?user=edge&password_file={file}"):
                    pass
            assert "password_file" in refused.value.hint
            assert "0ther" not in str(refused.value)
    assert "s3cret" not in caplog.text


@pytest.fixture
def tls_broker(tmp_path: Path, certificates: Path) -> Iterator[Mosquitto]:
    config = (
        f"cafile {certificates}/ca.pem\ncertfile {certificates}/right.pem\n"
        f"keyfile {certificates}/right.key\nrequire_certificate true\nallow_anonymous true\n"
    )
    with Mosquitto(tmp_path / "mosquitto", config) as server:
        yield server


def tls_conn(port: int, folder: Path, ca: str) -> str:
    own = f"cert={folder}/certified.pem&key={folder}/certified.key"
    return f"mqtts://127.0.0.1:{port}?ca={folder}/{ca}.pem&{own}"


async def test_tls_with_a_client_certificate(tls_broker: Mosquitto, certificates: Path) -> None:
    """Through TLS as without: everything, in order."""
    port, folder = tls_broker.port, certificates
    driver = MqttDriver(tls_conn(port, folder, "ca"), now_ms=lambda: NOW_MS)
    await driver.connect()
    block = block_of("f/a")
    await driver.read(block)
    own = f"{folder}/certified"
    tls = aiomqtt.TLSParameters(f"{folder}/ca.pem", f"{own}.pem", f"{own}.key")
    async with aiomqtt.Client("127.0.0.1", port, tls_params=tls) as client:
        for n in range(50):
            await client.publish("f/a", str(n), qos=1)
    assert [value for _, _, value in await read(driver, block, 50)] == list(range(50))
    await driver.close()


async def test_tls_with_a_broker_that_cannot_be_trusted(
    tls_broker: Mosquitto, certificates: Path
) -> None:
    """A certificate of another authority is refused, with the reason, and no socket stays open."""
    conn = tls_conn(tls_broker.port, certificates, "other-ca")
    driver = MqttDriver(conn, now_ms=lambda: NOW_MS)
    open_files = 0
    for attempt in range(4):
        with pytest.raises(TransientError, match="certificate verify failed"):
            await driver.connect()
        if attempt == 0:
            open_files = len(list(Path("/proc/self/fd").iterdir()))
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_files
    await driver.close()


# In the agent's pipeline.


async def test_poller_and_journal_take_every_message_through_a_restart(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """What is published while there is a connection is in the journal, in order, once."""
    journal = await opened(tmp_path / "journal.db", bytes_max=50_000_000)
    tags = [
        make_tag(f"T{n}", f"plant/{n}", conn=f"mqtt://127.0.0.1:{broker.port}") for n in range(5)
    ]
    [connection] = plan(tags, syntax)
    poller = ConnectionPoller(
        connection, cast("type[Driver]", MqttDriver), journal,
        phase=0.0, now_ms=lambda: NOW_MS, monotonic=time.monotonic,
    )  # fmt: skip
    running = asyncio.create_task(poller.run())
    for begin in (0, 1_000):
        await until(lambda: poller.connected)
        sent = [(f"plant/{n % 5}", str(n)) for n in range(begin, begin + 1_000)]
        await publish(broker.port, *sent)
        await until(lambda end=begin + 1_000: poller.counters.samples == end)  # type: ignore[misc]
        if begin == 0:
            broker.kill()
            await until(lambda: not poller.connected)
            broker.start()
    poller.stop()
    await running
    samples = await _all_of(journal)
    assert samples == [(f"T{n % 5}", float(n)) for n in range(2_000)]
    assert poller.counters.disconnects == 1


async def _all_of(journal: Journal) -> Sequence[tuple[str, float]]:
    await journal.flush()
    batches = await journal.read("a", samples_max=10_000)
    found = [(sample.series.tag, sample.value) for sample in traced(batches)]
    await journal.close()
    return found


async def test_a_block_that_is_forgotten(broker: Mosquitto) -> None:
    """Another one takes over before, so that nothing is missing; what only it had is unsubscribed.

    As when the map changes under a running connection.
    """
    async with connected(broker.port) as driver:
        old = blocks_of(make_tag("A", "f/a"), make_tag("B", "f/b"))[0]
        new = blocks_of(make_tag("A", "f/a"), make_tag("C", "f/c"))[0]
        await driver.read(old)
        await publish(broker.port, ("f/a", "1"), ("f/b", "2"))
        await until_messages(driver, 2)
        await driver.read(new)
        assert {value for reply in await driver.read(old) for value in reply.values} == {1.0, 2.0}
        await driver.forget(old)
        await publish(broker.port, ("f/b", "3"), ("f/a", "4"), ("f/c", "5"))
        assert [value for _, _, value in await read(driver, new, 2)] == [4.0, 5.0]
        assert driver.counters.messages == 4, "f/b is not sent any more"


async def test_a_map_that_changes_while_there_is_no_connection_loses_nothing_that_had_arrived(
    broker: Mosquitto,
) -> None:
    """Tags that stay have their values, in whichever blocks they are now; those that left do not.

    Back in the first map's blocks, under the running connection, they are read as before.
    """
    fast, slow = make_tag("FAST", "f/fast"), make_tag("SLOW", "f/slow")
    gone, added = make_tag("GONE", "f/fast"), make_tag("ADDED", "f/added")
    moved = replace(slow, period_ms=1_000)
    async with connected(broker.port) as driver:
        [before] = blocks_of(fast, slow, gone)
        await driver.read(before)
        await publish(broker.port, ("f/fast", "1"), ("f/slow", "2"), ("f/fast", "3"))
        await until_messages(driver, 3)
        await driver.close()
        await driver.connect()
        first, second = blocks_of(fast, added, moved)
        assert [(tag, value) for tag, _, value in await read(driver, first)] == [
            ("FAST", 1.0), ("FAST", 3.0)
        ]  # fmt: skip
        await publish(broker.port, ("f/fast", "4"), ("f/added", "5"))
        assert [value for _, _, value in await read(driver, first, 2)] == [4.0, 5.0]
        assert [(tag, value) for tag, _, value in await read(driver, second)] == [("SLOW", 2.0)]
        [again] = blocks_of(fast, slow, gone)
        await driver.read(again)
        for left in (first, second):
            await driver.read(left)
            await driver.forget(left)
        await publish(broker.port, ("f/fast", "7"), ("f/slow", "8"))
        found = [(tag, value) for tag, _, value in await read(driver, again, 3)]
        assert found == [("FAST", 7.0), ("GONE", 7.0), ("SLOW", 8.0)]
        assert driver.counters.overflowed == 0


async def until_messages(driver: MqttDriver, count: int) -> None:
    """Wait until the driver has seen so many."""
    await until(lambda: driver.counters.messages >= count, f"{count} messages")
