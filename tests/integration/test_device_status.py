"""How each device is, on `plc-status/{site}/{device}`: whole agent, Mosquitto and PLC servers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from edge_agent import address_map
from edge_agent.status.figures import SinkStatus
from tests.integration.test_agent import Rig, make_tag, running
from tests.modbus_server import PymodbusServer
from tests.servers import Mosquitto
from tests.waiting import until

WAIT_S = 15.0
PUMP01 = "plc-status/A1/PUMP01"
Status = dict[str, Any]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as started:
        yield started


@pytest.fixture
def plc(tmp_path: Path) -> Iterator[PymodbusServer]:
    """Ten registers; a tag that lies behind them is refused."""
    with PymodbusServer(tmp_path / "plc", {1: {"holding": {0: list(range(10))}}}) as started:
        yield started


@asynccontextmanager
async def agent(folder: Path, broker: Mosquitto, plc: PymodbusServer) -> AsyncIterator[Rig]:
    """PUMP01 on the PLC, 탱크07 simulated, with a tag that can't be read."""
    pump = [
        make_tag(name, conn=plc.conn, protocol="modbus", address=f"hr:{place * 2}")
        for place, name in enumerate(("P", "T"))
    ]
    tank = [
        make_tag("수위", device="탱크07", line="L2"),
        make_tag("BAD", device="탱크07", line="L2", address="60000"),
    ]
    overrides = {"mqtt.url": broker.url, "store.enabled": False}
    async with running(folder, [*pump, *tank], overrides=overrides) as rig:
        yield rig


class Watcher:
    """What a subscriber that came now is told, and what it is told later."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self.seen: list[tuple[str, Status]] = []

    async def until(self, device: str, condition: Callable[[Status], bool]) -> Status:
        async with asyncio.timeout(WAIT_S):
            while True:
                for topic, status in self.seen:
                    if topic.endswith(f"/{device}") and condition(status):
                        return status
                message = await anext(self._client.messages)
                assert isinstance(message.payload, bytes)
                self.seen.append((str(message.topic), json.loads(message.payload)))


@asynccontextmanager
async def watching(broker: Mosquitto) -> AsyncIterator[Watcher]:
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe("plc-status/#", qos=1)
        yield Watcher(client)


async def test_a_plc_that_goes_away_is_said_and_its_return_too(
    tmp_path: Path, broker: Mosquitto, plc: PymodbusServer
) -> None:
    """With the reason and since when; the other device is not touched."""
    async with agent(tmp_path / "agent", broker, plc), watching(broker) as watcher:
        began = int(time.time() * 1000)
        good = await watcher.until("PUMP01", lambda status: status["quality"] == "good")
        assert good == {
            "site": "A1", "line": "L1", "device": "PUMP01", "quality": "good",
            "since_ms": good["since_ms"], "tags": 2, "tags_good": 2, "problem": None,
        }  # fmt: skip
        tank = await watcher.until("탱크07", lambda status: status["quality"] == "bad")
        assert (tank["tags"], tank["tags_good"]) == (2, 1)
        assert "can't be read" in tank["problem"]
        plc.stop()
        stale = await watcher.until("PUMP01", lambda status: status["quality"] == "stale")
        while stale["problem"] in (None, "not read yet", "not connected yet"):
            watcher.seen.clear()
            stale = await watcher.until("PUMP01", lambda status: status["quality"] == "stale")
        assert "127.0.0.1" in stale["problem"]
        assert began <= stale["since_ms"] <= int(time.time() * 1000)
        watcher.seen.clear()
        plc.start()
        await watcher.until("PUMP01", lambda status: status["quality"] == "good")
        assert not [topic for topic, _ in watcher.seen if topic.endswith("탱크07")]


async def test_who_comes_later_is_told_too(
    tmp_path: Path, broker: Mosquitto, plc: PymodbusServer
) -> None:
    """Retained; and a broker that has forgotten everything is told anew."""
    async with agent(tmp_path / "agent", broker, plc):
        async with watching(broker) as watcher:
            await watcher.until("PUMP01", lambda status: status["quality"] == "good")
        async with watching(broker) as watcher:
            first = await watcher.until("PUMP01", lambda status: True)
            assert first["quality"] == "good"
        broker.stop()
        broker.start()
        async with watching(broker) as watcher:
            await watcher.until("PUMP01", lambda status: status == first)
            await watcher.until("탱크07", lambda status: status["quality"] == "bad")


async def delivering(rig: Rig) -> SinkStatus:
    """The sink's figures after some samples more."""
    [sink] = (await rig.agent.report.status())["sinks"]
    wanted = sink["delivered"] + 40
    return (await rig.until(lambda status: status["sinks"][0]["delivered"] >= wanted))["sinks"][0]


async def test_a_device_that_has_left_the_map_is_forgotten(
    tmp_path: Path, broker: Mosquitto, plc: PymodbusServer
) -> None:
    """Its retained message is removed; who comes later hears of the others only."""
    async with agent(tmp_path / "agent", broker, plc) as rig:
        async with watching(broker) as watcher:
            await watcher.until("PUMP01", lambda status: status["quality"] == "good")
            await watcher.until("탱크07", lambda status: True)
        left = [tag for tag in rig.agent.address_map.tags if tag.device == "PUMP01"]
        address_map.write(rig.agent.address_map.path, left)
        await rig.until(lambda status: status["agent"]["tags"] == len(left))
        await until_retained(broker, lambda topics: topics == [PUMP01])


async def test_a_device_that_left_while_the_agent_was_down_is_forgotten(
    tmp_path: Path, broker: Mosquitto, plc: PymodbusServer
) -> None:
    """The next start takes its retained message back, and another one has nothing to do."""
    folder = tmp_path / "agent"
    async with agent(folder, broker, plc), watching(broker) as watcher:
        await watcher.until("PUMP01", lambda status: True)
        await watcher.until("탱크07", lambda status: True)
    overrides = {"mqtt.url": broker.url, "store.enabled": False}
    for _ in range(2):
        async with running(folder, [make_tag("P")], overrides=overrides) as rig:
            await delivering(rig)
            await until_retained(broker, lambda topics: topics == [PUMP01])
    assert json.loads((rig.agent.settings.agent.data_dir / "devices.json").read_bytes()) == [
        ["A1", "PUMP01"]
    ]


async def test_a_device_that_another_agent_took_back_is_told_again(
    tmp_path: Path, broker: Mosquitto, plc: PymodbusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that had it before, was down when it moved, and starts after it was told here."""
    monkeypatch.setattr("edge_agent.pipeline.device_reporter.ROUNDS_PER_REPETITION", 2)
    async with agent(tmp_path / "agent", broker, plc), watching(broker) as watcher:
        await watcher.until("PUMP01", lambda status: status["quality"] == "good")
        async with aiomqtt.Client("127.0.0.1", broker.port) as other:
            await other.publish(PUMP01, b"", qos=1, retain=True)
        await until_retained(broker, lambda topics: PUMP01 in topics)


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[1]", b'[["A1"]]', b"\xff\0"])
async def test_a_damaged_list_of_devices_costs_nothing_else(
    tmp_path: Path, broker: Mosquitto, plc: PymodbusServer, content: bytes
) -> None:
    """The agent starts, tells, and writes a whole one."""
    folder = tmp_path / "agent"
    async with agent(folder, broker, plc) as rig:
        data_dir = rig.agent.settings.agent.data_dir
    (data_dir / "devices.json").write_bytes(content)
    async with agent(folder, broker, plc), watching(broker) as watcher:
        await watcher.until("탱크07", lambda status: True)
    assert len(json.loads((data_dir / "devices.json").read_bytes())) == 2


async def retained(broker: Mosquitto) -> list[str]:
    """The topics that somebody who comes now is told."""
    found = []
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe("plc-status/#", qos=1)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    found.append(str((await anext(client.messages)).topic))
    return found


async def until_retained(broker: Mosquitto, so: Callable[[list[str]], bool]) -> None:
    """Wait until the topics that are retained are so."""

    async def are_so() -> bool:
        return so(await retained(broker))

    await until(are_so, "the topics that are retained", within_s=WAIT_S, every_s=0.1)


@pytest.mark.parametrize("queue", ["", "max_queued_messages 0\n"], ids=["says so", "hangs up"])
async def test_a_broker_that_forbids_it_still_gets_all_samples(
    tmp_path: Path, plc: PymodbusServer, caplog: pytest.LogCaptureFixture, queue: str
) -> None:
    """Said once; no sample is refused, and the connection is not lost over it again and again."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite plc/#\ntopic write edge-agent/#\n")
    acl.chmod(0o700)
    config = f"allow_anonymous true\nacl_file {acl}\n{queue}"
    with Mosquitto(tmp_path / "mosquitto", config) as strict:
        async with agent(tmp_path / "agent", strict, plc) as rig:
            await rig.until(lambda status: "device status refused" in caplog.text)
            before = await delivering(rig)
            after = await delivering(rig)
            assert after["quarantined"] == 0
            assert after["failures"] == before["failures"]
    assert caplog.text.count("device status refused") == 1
