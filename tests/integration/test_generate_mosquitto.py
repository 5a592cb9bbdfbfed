"""The generated `mosquitto.conf` and `acl` in a real Mosquitto."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import pytest

from edge_agent.generate.mosquitto import FOLDER, render_acl, render_conf
from tests.integration.generated import NASTY_DEVICE, NASTY_TAG, make_subject, nasty_tags
from tests.servers import Mosquitto

PASSWORD = "s3cret"
USERS = ("edge user", "reader", "telegraf", "nobody")
TIMEOUT_S = 20


class GeneratedMosquitto(Mosquitto):
    """With the generated files; of them only the port and the folders are other ones."""

    def __init__(self, folder: Path, map_folder: Path) -> None:
        super().__init__(folder)
        settings = {"mqtt.url": f"mqtt://127.0.0.1:{self.port}", "mqtt.username": USERS[0]}
        subject = make_subject(map_folder, nasty_tags(), settings)
        conf = render_conf(subject).text
        listener = f"listener {self.port}\n"
        assert listener in conf
        (folder / "acl").write_text(render_acl(subject).text)
        (folder / "acl").chmod(0o600)
        self.config = (
            conf.replace(listener, "")
            .replace(FOLDER, str(folder))
            .replace("/var/lib/mosquitto/", f"{folder}/")
        )
        passwords = folder / "passwd"
        passwords.touch(mode=0o600)
        for user in USERS:
            subprocess.run(
                ["mosquitto_passwd", "-b", str(passwords), user, PASSWORD],
                check=True,
                capture_output=True,
            )

    def client(self, user: str | None) -> aiomqtt.Client:
        """A client that logs in."""
        password = None if user is None else PASSWORD
        return aiomqtt.Client("127.0.0.1", self.port, username=user, password=password)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[GeneratedMosquitto]:
    """Running."""
    with GeneratedMosquitto(tmp_path / "broker", tmp_path) as made:
        yield made


async def seen(broker: GeneratedMosquitto, published: list[tuple[str, str]]) -> list[str]:
    """The topics that `reader` gets of those that (user, topic) publishes."""
    last = "plc/A1/PUMP01/LAST"
    topics: list[str] = []
    async with (
        asyncio.timeout(TIMEOUT_S),
        broker.client("reader") as reader,
        broker.client(USERS[0]) as agent,
    ):
        for topic in ("plc/#", "plc-status/#", "edge-agent/+/status"):
            await reader.subscribe(topic, qos=1)
        for user, topic in published:
            async with broker.client(user) as client:
                await client.publish(topic, b"1", qos=1)
        await agent.publish(last, b"1", qos=1)  # what the broker let through comes before it
        async for message in reader.messages:
            if str(message.topic) == last:
                return topics
            topics.append(str(message.topic))
    raise AssertionError


async def test_the_agent_publishes_its_own_topics_and_no_others(
    broker: GeneratedMosquitto,
) -> None:
    """Its devices' tags and status, whatever they are called; no other device, agent or level."""
    own = [
        "plc/A1/PUMP01/PRESS",
        f"plc/A1/{NASTY_DEVICE}/{NASTY_TAG}",
        "plc/B2/OPC/A",
        "plc-status/A1/GATE",
        f"plc-status/A1/{NASTY_DEVICE}",
        "edge-agent/edge-01/status",
    ]
    foreign = [
        "plc/A1/OTHER/PRESS",
        "plc/B2/PUMP01/PRESS",
        "plc/A1/PUMP01/PRESS/more",
        "plc-status/A1/OTHER",
        "edge-agent/edge-02/status",
    ]
    mixed = [topic for pair in zip(foreign, own, strict=False) for topic in pair] + own[-1:]
    assert await seen(broker, [(USERS[0], topic) for topic in mixed]) == own


@pytest.mark.parametrize("user", ["reader", "telegraf", "nobody"])
async def test_who_may_read_may_not_write(broker: GeneratedMosquitto, user: str) -> None:
    """Nothing of theirs arrives."""
    topics = ["plc/A1/PUMP01/PRESS", "plc-status/A1/PUMP01", "edge-agent/edge-01/status"]
    assert await seen(broker, [(user, topic) for topic in topics]) == []


@pytest.mark.parametrize(("user", "reads"), [("telegraf", True), ("nobody", False)])
async def test_who_is_not_named_reads_nothing(
    broker: GeneratedMosquitto, user: str, reads: bool
) -> None:
    """Telegraf gets what the agent publishes, a user that the file does not name gets nothing."""
    async with (
        asyncio.timeout(TIMEOUT_S),
        broker.client(user) as reader,
        broker.client(USERS[0]) as agent,
    ):
        await reader.subscribe("plc/#", qos=1)
        await agent.publish("plc/A1/PUMP01/PRESS", b"1", qos=1)
        try:
            async with asyncio.timeout(TIMEOUT_S / 2 if reads else 1.5):
                await anext(reader.messages)
        except TimeoutError:
            assert not reads
        else:
            assert reads


async def test_nobody_connects_without_a_password(broker: GeneratedMosquitto) -> None:
    """Anonymous clients are refused."""
    with pytest.raises(aiomqtt.MqttError, match=r"(?i)not auth"):
        async with asyncio.timeout(TIMEOUT_S), broker.client(None):
            pass
