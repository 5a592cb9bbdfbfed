"""What the agent publishes does not come back by ingest: whole agents and a real Mosquitto."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest

from edge_agent.journal.file import epoch_ms
from edge_agent.status.figures import AgentStatus, IngestStatus
from tests.integration.test_agent import Rig, make_tag, running
from tests.integration.test_ingest import message
from tests.integration.test_mqtt_sink import marked, publish_marked
from tests.integration.test_reload import TAGS, applied, write
from tests.servers import Mosquitto

GONE = [make_tag(f"T{n}", 10 + n, "sim://gone") for n in range(20)]
OUTAGE_S = 1.0
STORM_S = 1.5
"""A storm shows within a tenth of it."""
KEEP_ALL = "allow_anonymous true\nmax_queued_messages 0\n"


def overrides(broker: Mosquitto) -> dict[str, object]:
    return {
        "mqtt.url": broker.url,
        "mqtt.ingest_topics": ["plc/+/+/+"],
        "agent.shutdown_timeout_s": 1,
    }


def ingest_of(status: AgentStatus) -> IngestStatus:
    assert status["ingest"] is not None
    return status["ingest"]


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


@pytest.mark.parametrize("is_down", [False, True], ids=["broker up", "broker down"])
async def test_a_tag_that_leaves_the_map_does_not_come_back(tmp_path: Path, is_down: bool) -> None:
    """Its last samples, and those that waited for the broker, are published once, and that's it."""
    with Mosquitto(tmp_path / "broker", KEEP_ALL) as broker:
        async with running(tmp_path, [*TAGS, *GONE], overrides=overrides(broker)) as rig:
            await is_taking_in(rig)
            await publish(broker.port, message("OTHER", "X", 1))
            await rig.until(lambda s: ingest_of(s)["samples"] == 1)
            if is_down:
                await is_delivered(rig)
                broker.stop()
                await asyncio.sleep(OUTAGE_S)
            write(rig, TAGS)
            await applied(rig, 2)
            if is_down:
                broker.start()
                await is_taking_in(rig)
            await is_delivered(rig)
            async with listening(broker.port) as ear:
                await asyncio.sleep(STORM_S)
                status = await rig.agent.status()
    assert ingest_of(status)["samples"] == 1
    assert ingest_of(status)["series"] == 1
    assert ingest_of(status)["own"] > len(GONE)
    assert not [topic for topic, _, _ in ear.heard if "/T" in topic and "TEMP" not in topic]


async def test_nor_after_a_restart_with_a_smaller_map(tmp_path: Path) -> None:
    """The journal still has samples of the tag for the broker, which has kept our session."""
    with Mosquitto(tmp_path / "broker", f"{KEEP_ALL}persistence true\n") as broker:
        async with running(tmp_path, [*TAGS, *GONE], overrides=overrides(broker)) as rig:
            await is_taking_in(rig)
            await publish(broker.port, message("OTHER", "X", 1))
            await rig.until(lambda s: ingest_of(s)["samples"] == 1)
            await is_delivered(rig)
            broker.stop()
            await asyncio.sleep(OUTAGE_S)
            [mqtt] = [one for one in (await rig.stop())["sinks"] if one["name"] == "mqtt"]
            assert mqtt["pending"] > len(GONE)
        async with running(tmp_path, TAGS, overrides=overrides(broker)) as rig:
            broker.start()
            await is_taking_in(rig)
            await is_delivered(rig)
            status = await rig.agent.status()
    assert ingest_of(status)["samples"] == 0
    assert ingest_of(status)["series"] == 1
    assert ingest_of(status)["own"] > len(GONE)


async def test_a_tag_that_another_publisher_takes_over(tmp_path: Path) -> None:
    """Its messages are stored and not published again, although we have published that tag."""
    with Mosquitto(tmp_path / "broker", KEEP_ALL) as broker:
        async with running(tmp_path, [*TAGS, *GONE], overrides=overrides(broker)) as rig:
            await is_taking_in(rig)
            await publish(broker.port, message("OTHER", "X", 1))
            await rig.until(lambda s: ingest_of(s)["samples"] == 1)
            await is_delivered(rig)
            broker.stop()
            await asyncio.sleep(OUTAGE_S)
            write(rig, TAGS)
            await applied(rig, 2)
            broker.start()
            await is_taking_in(rig)
            await is_delivered(rig)
            theirs = [message("PUMP01", "T1", n, line="L1") for n in range(5)]
            async with listening(broker.port) as ear:
                await publish(broker.port, *theirs)
                await rig.until(lambda s: ingest_of(s)["samples"] == 6)
                await is_delivered(rig)
            assert ear.times("plc/A1/PUMP01/T1") == {text.encode(): 1 for _, text in theirs}
            assert ingest_of(await rig.agent.status())["series"] == 2


async def test_a_mark_alone_does_not_make_a_message_our_own(tmp_path: Path) -> None:
    """Another agent's is foreign, and so is what a flow makes of our values with our mark on it."""
    with Mosquitto(tmp_path / "broker", KEEP_ALL) as broker:
        async with running(tmp_path, TAGS, overrides=overrides(broker)) as rig:
            await is_taking_in(rig)
            for n in range(3):
                topic, payload = message("PUMP01", "MEAN", n)
                await publish_marked(broker.port, topic, payload, "test")
            topic, payload = message("PUMP02", "PRESS", 1, epoch_ms())
            await publish_marked(broker.port, topic, payload, "edge-2")
            await rig.until(lambda s: ingest_of(s)["samples"] == 4)
            await is_delivered(rig)
            status = await rig.agent.status()
    assert ingest_of(status)["samples"] == 4
    assert ingest_of(status)["series"] == 2
