"""The MQTT sink against a real Mosquitto, and against a broker of ours that misbehaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiomqtt
import mqtt5
import pytest
import uvloop
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.errors import RejectedRows, TransientError
from edge_agent.model import Batch, Series
from edge_agent.settings import Broker
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.message import ORIGIN, MessageRenderer
from edge_agent.sinks.mqtt import WITHHOLD_S, MqttSink
from tests.servers import Mosquitto, free_port

JOURNAL = JournalIdentity("edge-1", "journal-1")
STATUS = "edge-agent/edge-1/status"
PATIENCE_S = 20.0
# Mosquitto drops what waits for a slow subscriber beyond 1,000 messages; these tests count them.
KEEP_ALL = "max_queued_messages 0\n"
SERIES = {
    **{n: Series("A1", "L1", f"PUMP{n:02}", "PRESS", "bar") for n in range(1, 10)},
    10: Series("평택", "1라인", "펌프 01", '압력 "A"', "℃"),
}


def batch_of(sequence: int, size: int, series_ids: Sequence[int] = tuple(SERIES)) -> Batch:
    """Samples of all series in turn, ten to a time, each with a value of its own."""
    first_ts_ms = 1_755_432_000_000 + sequence * 60_000
    runs = [(first_ts_ms + n, min(10, size - n)) for n in range(0, size, 10)]
    return Batch(
        sequence=sequence,
        runs=runs,
        series_ids=array("I", [series_ids[n % len(series_ids)] for n in range(size)]),
        values=array("d", [sequence * 1_000_000 + n + 0.5 for n in range(size)]),
        series=SERIES,
    )


def messages_of(*batches: Batch) -> list[tuple[str, bytes]]:
    """What a subscriber has to receive."""
    return [
        (topic.decode(), payload)
        for batch in batches
        for part in MessageRenderer().render(batch)
        for topic, payload in zip(part.topics, part.payloads, strict=True)
    ]


def by_topic(messages: Sequence[tuple[str, bytes]]) -> dict[str, list[bytes]]:
    """Messages per topic, in order."""
    grouped: dict[str, list[bytes]] = defaultdict(list)
    for topic, payload in messages:
        grouped[topic].append(payload)
    return grouped


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto", "allow_anonymous true\n" + KEEP_ALL) as server:
        yield server


def at(port: int, *, tls: bool = False) -> Broker:
    """A broker of this machine."""
    return Broker("127.0.0.1", port, tls)


@asynccontextmanager
async def opened(
    port: int, *, ack_timeout_s: float = 10.0, is_marked: bool = False
) -> AsyncIterator[MqttSink]:
    """A sink, open, and closed in the end."""
    sink = MqttSink(
        agent_id="edge-1",
        broker=at(port),
        ack_timeout_s=ack_timeout_s,
        is_marked=is_marked,
    )
    try:
        await sink.open(JOURNAL)
        yield sink
    finally:
        await sink.close()


Receive = Callable[[int], Awaitable[list[tuple[str, bytes]]]]


@asynccontextmanager
async def subscribed(port: int, topic: str) -> AsyncIterator[Receive]:
    """A subscriber; what it yields waits for that many messages."""
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe(topic, qos=1)

        async def receive(count: int) -> list[tuple[str, bytes]]:
            received: list[tuple[str, bytes]] = []
            async with asyncio.timeout(PATIENCE_S):
                while len(received) < count:
                    message = await anext(client.messages)
                    assert isinstance(message.payload, bytes)
                    received.append((str(message.topic), message.payload))
            return received

        yield receive


@pytest.mark.parametrize("receive_max", [1, 20, 1_000])
async def test_a_subscriber_receives_what_was_handed_over(tmp_path: Path, receive_max: int) -> None:
    """Bytes and order per tag, over several batches, with Korean names, in a window of any size."""
    batches = [batch_of(1, 2_345), batch_of(2, 1), batch_of(3, 777)]
    config = f"allow_anonymous true\n{KEEP_ALL}max_inflight_messages {receive_max}\n"
    with Mosquitto(tmp_path / "mosquitto", config) as broker:
        async with subscribed(broker.port, "plc/#") as receive, opened(broker.port) as sink:
            assert await sink.deliver(batches) == 0
            expected = messages_of(*batches)
            received = await receive(len(expected))
    assert by_topic(received) == by_topic(expected)
    assert 'plc/평택/펌프 01/압력 "A"' in by_topic(received)


async def test_a_huge_backlog_arrives_whole(broker: Mosquitto) -> None:
    """50,000 messages in one call, none twice."""
    batches = [batch_of(sequence, 5_000) for sequence in range(10)]
    async with subscribed(broker.port, "plc/#") as receive, opened(broker.port) as sink:
        delivery = asyncio.create_task(sink.deliver(batches))
        received = await receive(50_000)
        assert await delivery == 0
    assert by_topic(received) == by_topic(messages_of(*batches))


def test_it_runs_on_uvloop(broker: Mosquitto) -> None:
    """The agent's event loop; its sockets are not Python's."""

    async def deliver() -> int:
        async with opened(broker.port) as sink:
            return await sink.deliver([batch_of(1, 3_000)])

    assert uvloop.run(deliver()) == 0


async def test_nothing_to_deliver_is_delivered(broker: Mosquitto) -> None:
    """No batch needs no broker's word."""
    async with opened(broker.port) as sink:
        assert await sink.deliver([]) == 0


async def test_small_batches_do_not_wait_for_delayed_acknowledgements(broker: Mosquitto) -> None:
    """Send-and-wait against a default Mosquitto takes 45 ms per 20 messages: 4.5 s for these."""
    async with opened(broker.port) as sink:
        started = time.monotonic()
        await sink.deliver([batch_of(1, 2_000)])
        assert time.monotonic() - started < 2


async def test_a_denied_topic_is_rejected_and_the_rest_arrives(tmp_path: Path) -> None:
    """Guarantee 4: the broker's ACL denies one tag; exactly its rows come back, with the reason."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite plc/A1/#\ntopic deny plc/A1/PUMP03/PRESS\n")
    acl.chmod(0o700)
    batches = [batch_of(5, 100, [1, 2, 3]), batch_of(6, 50, [3, 1])]
    config = f"allow_anonymous true\nacl_file {acl}\n"
    with Mosquitto(tmp_path / "mosquitto", config) as broker:
        async with subscribed(broker.port, "plc/#") as receive, opened(broker.port) as sink:
            with pytest.raises(RejectedRows) as caught:
                await sink.deliver(batches)
            expected = [message for message in messages_of(*batches) if "PUMP03" not in message[0]]
            assert by_topic(await receive(len(expected))) == by_topic(expected)
            assert await sink.deliver([batch_of(7, 10, [1])]) == 0
    rows = [
        (batch.sequence, index)
        for batch in batches
        for index, series_id in enumerate(batch.series_ids)
        if series_id == 3
    ]
    assert [(row.sequence, row.index) for row in caught.value.rows] == rows
    assert {row.reason for row in caught.value.rows} == {"broker: not authorized (135)"}


async def test_a_broker_that_hangs_up_over_a_denied_topic(tmp_path: Path) -> None:
    """Mosquitto without a queue limit refuses and then ends the connection, PUBACKs and all.

    Two lost connections tell which topic it is; then its rows are rejected, all others arrive, and
    later batches need no further connection. After a while the topic is tried again.
    """
    now_s = 0.0
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite #\ntopic deny plc/A1/PUMP03/PRESS\n")
    acl.chmod(0o700)
    batches = [batch_of(5, 400, [1, 2, 3, 10]), batch_of(6, 400, [10, 3, 2, 1])]
    config = f"allow_anonymous true\nacl_file {acl}\nmax_queued_messages 0\n"
    with Mosquitto(tmp_path / "mosquitto", config) as broker:
        sink = MqttSink(agent_id="edge-1", broker=at(broker.port), monotonic=lambda: now_s)
        async with subscribed(broker.port, "plc/#") as receive:
            for _ in range(2):
                await sink.open(JOURNAL)
                with pytest.raises(TransientError):
                    await sink.deliver(batches)
            await sink.open(JOURNAL)
            with pytest.raises(RejectedRows) as caught:
                await sink.deliver(batches)
            assert len(caught.value.rows) == 200
            assert {row.reason for row in caught.value.rows} == {"broker: not authorized (135)"}
            with pytest.raises(RejectedRows) as again:
                await sink.deliver([batch_of(7, 100, [1, 3])])
            assert len(again.value.rows) == 50
            wanted = [m for m in messages_of(*batches) if "PUMP03" not in m[0]]
            received = by_topic(await receive(len(wanted) + 50))
            for topic, payloads in by_topic(wanted).items():
                assert set(payloads) <= set(received[topic])
        now_s = WITHHOLD_S + 1.0
        acl.write_text("topic readwrite #\n")
        os.kill(broker.pid, signal.SIGHUP)
        await asyncio.sleep(0.2)
        assert await sink.deliver([batch_of(8, 100, [1, 3])]) == 0
        await sink.close()


async def test_a_message_over_the_brokers_limits_is_rejected(tmp_path: Path) -> None:
    """Announced (packet size) or not (message size): that row is refused, the others arrive."""
    small = batch_of(1, 2, [1])
    limit = len(messages_of(small)[0][1]) + 5
    batch = batch_of(1, 40, [1, 10, 2])
    for setting, reason in [
        (f"max_packet_size {limit + 50}", "packet too large: "),
        (f"message_size_limit {limit}", "broker: packet too large (149)"),
    ]:
        config = f"allow_anonymous true\n{setting}\n"
        with Mosquitto(tmp_path / setting.replace(" ", "-"), config) as broker:
            async with opened(broker.port) as sink:
                with pytest.raises(RejectedRows) as caught:
                    await sink.deliver([batch])
        assert [row.index for row in caught.value.rows] == list(range(1, 40, 3))
        assert all(row.reason.startswith(reason) for row in caught.value.rows)


async def test_a_name_that_is_no_topic_does_not_stop_the_others(broker: Mosquitto) -> None:
    """Mosquitto would end the connection over a wildcard, again at every attempt."""
    series = {1: SERIES[1], 2: SERIES[2]._replace(tag="PRESS+#")}
    batch = Batch(1, [(0, 4)], array("I", [1, 2, 1, 2]), array("d", [1, 2, 3, 4]), series)
    async with opened(broker.port) as sink:
        with pytest.raises(RejectedRows) as caught:
            await sink.deliver([batch])
    assert [row.index for row in caught.value.rows] == [1, 3]


async def test_a_killed_broker_is_noticed_at_once(broker: Mosquitto) -> None:
    """SIGKILL in the middle of a delivery; when it is back, the same sink goes on."""
    batches = [batch_of(sequence, 5_000) for sequence in range(20)]
    async with opened(broker.port) as sink:
        delivery = asyncio.create_task(sink.deliver(batches))
        await asyncio.sleep(0.1)
        assert not delivery.done()
        broker.kill()
        killed_at = time.monotonic()
        with pytest.raises(TransientError, match="connection lost"):
            await delivery
        assert time.monotonic() - killed_at < 1
        with pytest.raises(TransientError, match="cannot connect"):
            await sink.open(JOURNAL)
        broker.start()
        await sink.open(JOURNAL)
        assert 0 < await sink.deliver(batches) < 100_000


async def test_a_broker_that_shuts_down_between_deliveries_is_noticed(broker: Mosquitto) -> None:
    """The next delivery fails at once instead of waiting for an answer."""
    async with opened(broker.port) as sink:
        broker.stop()
        with pytest.raises(TransientError, match="connection lost: closed by the broker"):
            await sink.deliver([batch_of(1, 10)])


async def test_two_agents_of_one_name_are_told(broker: Mosquitto) -> None:
    """The broker hangs up on the first one; the hint names what may be the matter."""
    async with opened(broker.port) as first, opened(broker.port) as second:
        assert await second.deliver([batch_of(1, 10)]) == 0
        with pytest.raises(TransientError, match=r"connection lost|session taken over") as caught:
            await first.deliver([batch_of(1, 10)])
        assert "agent_id" in caught.value.hint


async def test_a_frozen_broker_is_given_up_after_the_ack_timeout(broker: Mosquitto) -> None:
    """SIGSTOP: the connection stands and no PUBACK comes. Closing does not wait for it either."""
    async with opened(broker.port, ack_timeout_s=0.4) as sink:
        with broker.paused():
            started = time.monotonic()
            with pytest.raises(TransientError, match=r"no PUBACK within 0\.4 s, 20 messages"):
                await sink.deliver([batch_of(1, 1_000)])
            await sink.close()
            assert 0.4 <= time.monotonic() - started < 1.5


async def test_closing_towards_a_frozen_broker_is_bounded(broker: Mosquitto) -> None:
    """Shutdown has little time."""
    async with opened(broker.port) as sink:
        with broker.paused():
            started = time.monotonic()
            await sink.close()
            assert time.monotonic() - started < 4


async def test_a_cancelled_delivery_sends_no_more_and_closes_politely(broker: Mosquitto) -> None:
    """After a cancellation the status still says `stopped`, and a new open delivers the rest."""
    batches = [batch_of(sequence, 5_000) for sequence in range(4)]
    async with subscribed(broker.port, STATUS) as receive, opened(broker.port) as sink:
        delivery = asyncio.create_task(sink.deliver(batches))
        await asyncio.sleep(0.05)
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
        with pytest.raises(TransientError, match="cut short"):
            await sink.deliver(batches)
        await sink.open(JOURNAL)
        assert await sink.deliver(batches) > 0
        await sink.close()
        statuses = [json.loads(payload) for _, payload in await receive(4)]
    assert [status["status"] for status in statuses] == ["online", "offline"] * 2


async def test_status_tells_a_stop_from_a_lost_connection(broker: Mosquitto) -> None:
    """Retained: online while open, offline/stopped after close, the last will after a cut."""

    async def retained() -> dict[str, str]:
        async with subscribed(broker.port, STATUS) as receive:
            ((_, payload),) = await receive(1)
        status: dict[str, str] = json.loads(payload)
        return status

    sink = MqttSink(agent_id="edge-1", broker=at(broker.port), version="9.8.7")
    await sink.open(JOURNAL)
    online = {"status": "online", "agent": "edge-1", "version": "9.8.7"}
    assert await retained() == online
    await sink.close()
    await sink.close()
    assert await retained() == online | {"status": "offline", "reason": "stopped"}
    async with subscribed(broker.port, STATUS) as receive:
        await sink.open(JOURNAL)
        assert sink._publisher is not None
        assert sink._publisher._transport is not None
        sink._publisher._transport.abort()
        last = (await receive(3))[-1][1]
    assert json.loads(last) == online | {"status": "offline", "reason": "connection lost"}
    with pytest.raises(TransientError, match="connection lost"):
        await sink.deliver([batch_of(1, 1)])
    await sink.close()


def marked(message: aiomqtt.Message) -> str | None:
    """The agent that has published a message."""
    pairs: dict[str, str] = dict(getattr(message.properties, "UserProperty", ()))
    return pairs.get(ORIGIN)


async def publish_marked(port: int, topic: str, payload: str, agent_id: str | None) -> None:
    """Publish as an agent does, or as one without the property does."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if agent_id is not None:
        properties.UserProperty = (ORIGIN, agent_id)
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.publish(topic, payload, qos=1, properties=properties)


@pytest.mark.parametrize("is_marked", [True, False], ids=["marked", "plain"])
async def test_every_message_says_which_agent_has_published_it(
    broker: Mosquitto, is_marked: bool
) -> None:
    """Samples, a device's status, and each word of the agent's own status, the last will too.

    Without the mark nothing has a user property, which would cost each subscriber.
    """
    found: list[tuple[str, str | None]] = []
    client = aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5)
    async with client, opened(broker.port, is_marked=is_marked) as sink:
        await client.subscribe("#", qos=1)

        async def heard(count: int) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while len(found) < count:
                    message = await anext(client.messages)
                    found.append((message.topic.value, marked(message)))

        await heard(1)
        await sink.deliver([batch_of(1, 10)])
        await heard(11)
        await sink.tell([], [("A1", "PUMP01")])
        await heard(12)
        await sink.close()
        await heard(13)
        await sink.open(JOURNAL)
        await heard(14)
        assert sink._publisher is not None
        sink._publisher._abort()
        await heard(15)
    assert {origin for _, origin in found} == {"edge-1" if is_marked else None}
    assert [topic for topic, _ in found].count(STATUS) == 4
    assert len({topic for topic, _ in found}) == 12


async def test_a_wrong_password_is_told_with_what_to_check(tmp_path: Path) -> None:
    """The hint names the settings; the password stands neither in the text nor in the hint."""
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "agent", "right"], check=True)
    passwords.chmod(0o700)
    with Mosquitto(tmp_path / "mosquitto", f"password_file {passwords}\n") as broker:
        sink = MqttSink(agent_id="a", broker=at(broker.port), username="agent", password="wr0ng")
        with pytest.raises(TransientError, match=r"not authorized \(135\)") as caught:
            await sink.open(JOURNAL)
        await sink.close()
        assert "username, password" in caught.value.hint
        assert "wr0ng" not in f"{caught.value}{caught.value.hint}{sink!r}"
        sink = MqttSink(agent_id="a", broker=at(broker.port), username="agent", password="right")
        await sink.open(JOURNAL)
        assert await sink.deliver([batch_of(1, 30)]) == 0
        await sink.close()


@pytest.fixture
def tls_broker(tmp_path: Path, certificates: Path) -> Iterator[Mosquitto]:
    config = (
        f"cafile {certificates}/ca.pem\ncertfile {certificates}/right.pem\n"
        f"keyfile {certificates}/right.key\nrequire_certificate true\n"
        "use_identity_as_username true\nallow_anonymous false\nmax_inflight_messages 1000\n"
    )
    with Mosquitto(tmp_path / "mosquitto", config) as server:
        yield server


async def test_tls_with_a_client_certificate(tls_broker: Mosquitto, certificates: Path) -> None:
    """The window works through TLS as it does without."""
    sink = MqttSink(
        agent_id="edge-1",
        broker=at(tls_broker.port, tls=True),
        ca_file=certificates / "ca.pem",
        cert_file=certificates / "certified.pem",
        key_file=certificates / "certified.key",
    )
    await sink.open(JOURNAL)
    assert await sink.deliver([batch_of(1, 2_000)]) == 0
    await sink.close()


async def test_tls_that_fails_is_told_for_what_it_is(
    tls_broker: Mosquitto, certificates: Path, tmp_path: Path
) -> None:
    """No certificate, an unknown authority, a missing file, an encrypted key: never a hang."""
    ca_file = certificates / "ca.pem"
    (tmp_path / "empty.pem").touch()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ca_file": ca_file}, "certificate required|connection lost|cannot connect"),
        ({}, "certificate verify failed"),
        ({"ca_file": tmp_path / "absent.pem"}, "cannot load the TLS files.*No such file"),
        ({"ca_file": tmp_path / "empty.pem"}, "cannot load the TLS files"),
        (
            {
                "ca_file": ca_file,
                "cert_file": certificates / "certified.pem",
                "key_file": certificates / "locked.key",
            },
            "cannot load the TLS files",
        ),
    ]
    for files, text in cases:
        sink = MqttSink(agent_id="e", broker=at(tls_broker.port, tls=True), **files)
        with pytest.raises(TransientError, match=text):
            await sink.open(JOURNAL)
        await sink.close()


def packets_in(data: bytes) -> tuple[list[mqtt5.Packet], bytes]:
    """The whole packets at the head of ``data``, and the rest."""
    packets: list[mqtt5.Packet] = []
    while data:
        try:
            packet, size = mqtt5.read(memoryview(data))
        except IndexError:
            break
        packets.append(packet)
        data = data[size:]
    return packets, data


class FakeBroker:
    """A broker that follows a script: it takes the login and hands each PUBLISH to ``answer``.

    What ``answer`` returns is sent, cut into pieces of 1 to 3 bytes; ``None`` hangs up. ``settle``
    is asked once no more has come for a moment. The status message is answered and not counted.
    """

    MOMENT_S = 0.005

    def __init__(self, connack: bytes | None = None) -> None:
        self.connack = mqtt5.ConnAckPacket(receive_max=3).write() if connack is None else connack
        self.port = free_port()
        self.waiting: list[int] = []
        self.waiting_max = 0
        self.pings = 0
        self.payloads: list[bytes] = []
        self.disconnects = 0
        self.answers_pings = True

    def answer(self, packet: mqtt5.PublishPacket) -> bytes | None:
        """Plain PUBACK, at once."""
        self.waiting.remove(packet.packet_id or 0)
        return mqtt5.PubAckPacket(packet.packet_id or 0).write()

    def settle(self) -> bytes:
        """Answer to what is still unanswered."""
        return b""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Serve connections one after the other."""
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.create_task(self._serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if result is not None and not isinstance(
                result, asyncio.CancelledError | ConnectionError
            ):
                raise result

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = b""
        self.waiting.clear()
        try:
            while True:
                try:
                    moment_s = self.MOMENT_S if self.waiting else None
                    data = await asyncio.wait_for(reader.read(65_536), moment_s)
                except TimeoutError:
                    await self._write_in_pieces(writer, self.settle())
                    continue
                if not data:
                    return
                packets, buffer = packets_in(buffer + data)
                replies = [self._reply(packet) for packet in packets]
                await self._write_in_pieces(writer, b"".join(r for r in replies if r))
                if None in replies:
                    return
        finally:
            writer.close()

    def _reply(self, packet: mqtt5.Packet) -> bytes | None:
        match packet:
            case mqtt5.ConnectPacket():
                return self.connack
            case mqtt5.PublishPacket() if packet.topic.startswith("plc/"):
                self.waiting.append(packet.packet_id or 0)
                self.waiting_max = max(self.waiting_max, len(self.waiting))
                self.payloads.append(packet.payload)
                return self.answer(packet)
            case mqtt5.PublishPacket():
                return mqtt5.PubAckPacket(packet.packet_id).write() if packet.packet_id else b""
            case mqtt5.PingReqPacket():
                self.pings += 1
                return mqtt5.PingRespPacket().write() if self.answers_pings else b""
            case mqtt5.DisconnectPacket():
                self.disconnects += 1
                return None
            case _:
                raise AssertionError(f"unexpected {packet!r}")

    async def _write_in_pieces(self, writer: asyncio.StreamWriter, reply: bytes) -> None:
        at = 0
        while at < len(reply):
            size = 1 + at % 3
            writer.write(reply[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)
            at += size


class OddBroker(FakeBroker):
    """Answers late, the last first, and in every form that a PUBACK has."""

    def answer(self, packet: mqtt5.PublishPacket) -> bytes | None:
        return b""

    def settle(self) -> bytes:
        reply = b"".join(self._puback(packet_id) for packet_id in reversed(self.waiting))
        self.waiting.clear()
        return reply

    def _puback(self, packet_id: int) -> bytes:
        id_bytes = packet_id.to_bytes(2, "big")
        text = mqtt5.PubAckPacket(packet_id, reason_str="no one listens " * 20).write()
        forms = [
            b"\x40\x02" + id_bytes,
            b"\x40\x03" + id_bytes + b"\x00",
            b"\x40\x03" + id_bytes + b"\x10",
            b"\x40\x04" + id_bytes + b"\x10\x00",
            text,
        ]
        return forms[packet_id % len(forms)]


async def test_receive_maximum_is_obeyed_and_used() -> None:
    """Three at once, never four; PUBACKs out of order, cut anywhere, in each form."""
    batch = batch_of(1, 200)
    async with OddBroker().running() as broker, opened(broker.port) as sink:
        assert await sink.deliver([batch]) == 0
    assert broker.payloads == [payload for _, payload in messages_of(batch)]
    assert broker.waiting_max == 3


class CuttingBroker(FakeBroker):
    """Denies every seventh message and hangs up after ``cut_after`` of them."""

    cut_after = 100

    def answer(self, packet: mqtt5.PublishPacket) -> bytes | None:
        if len(self.payloads) == self.cut_after:
            return None
        self.waiting.clear()
        code = 135 if json.loads(packet.payload)["value"] % 7 == 0.5 else 0
        return b"\x40\x03" + (packet.packet_id or 0).to_bytes(2, "big") + bytes([code])


async def test_after_a_cut_the_confirmed_part_is_not_sent_again() -> None:
    """At least once with few duplicates; what was denied before the cut is still told after it."""
    batches = [batch_of(1, 60), batch_of(2, 60), batch_of(3, 60)]
    values = [value for batch in batches for value in batch.values]
    async with CuttingBroker().running() as broker, opened(broker.port) as sink:
        with pytest.raises(TransientError):
            await sink.deliver(batches)
        broker.cut_after = 150
        for _ in range(2):
            await sink.open(JOURNAL)
            try:
                await sink.deliver(batches)
            except TransientError:
                continue
            except RejectedRows as error:
                rejected = error
    times = Counter(json.loads(payload)["value"] for payload in broker.payloads)
    assert set(times) == set(values)
    assert times.total() <= len(values) + 2 * 3  # at most a window per cut
    denied = [
        (batch.sequence, index)
        for batch in batches
        for index, value in enumerate(batch.values)
        if value % 7 == 0.5
    ]
    assert [(row.sequence, row.index) for row in rejected.rows] == denied
    assert 140 <= rejected.duplicates + sum(value % 7 == 0.5 for value in values[:150]) <= 150


@pytest.mark.parametrize("change", ["other journal", "other batches", "thinned out"])
async def test_other_batches_are_sent_whole_after_a_cut(change: str) -> None:
    """What was confirmed counts only for the same batches of the same journal."""
    batch, again = batch_of(2, 120), [batch_of(2, 120)]
    journal = JOURNAL
    if change == "other journal":
        journal = JournalIdentity("edge-1", "journal-2")
    elif change == "other batches":
        again = [batch_of(1, 10), batch]
    else:
        again = [batch_of(2, 90)]
    broker = CuttingBroker()
    async with broker.running(), opened(broker.port) as sink:
        with pytest.raises(TransientError):
            await sink.deliver([batch])
        broker.payloads.clear()
        broker.cut_after = -1
        await sink.open(journal)
        with pytest.raises(RejectedRows) as caught:
            await sink.deliver(again)
    assert broker.payloads == [payload for _, payload in messages_of(*again)]
    assert caught.value.duplicates == 0


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (
            mqtt5.DisconnectPacket(
                reason_code=mqtt5.DisconnectReasonCode.QUOTA_EXCEEDED, reason_str="disk full"
            ).write(),
            r"disconnected us: quota exceeded \(151\): disk full",
        ),
        (mqtt5.PubAckPacket(4).write(), "broke the protocol: PUBACK for packet id 4"),
        (b"\xd0\x01\x00", "broke the protocol"),
        (b"\x00\x00", "broke the protocol"),
        (mqtt5.ConnAckPacket().write(), "broke the protocol: unexpected ConnAckPacket"),
        (mqtt5.PublishPacket("a", b"b").write(), "broke the protocol: unexpected PublishPacket"),
        (None, "connection lost: closed by the broker"),
    ],
)
async def test_a_broker_that_goes_wrong_is_left(reply: bytes | None, text: str) -> None:
    """Its own reason, or what it did, is in the error; the ack time-out is not waited for."""
    broker = FakeBroker()
    broker.answer = lambda packet: reply  # type: ignore[method-assign]
    async with broker.running(), opened(broker.port) as sink:
        with pytest.raises(TransientError, match=text):
            await sink.deliver([batch_of(1, 3)])


@pytest.mark.parametrize(
    ("connack", "text", "hint"),
    [
        (
            mqtt5.ConnAckPacket(max_qos=mqtt5.QoS.AT_MOST_ONCE).write(),
            "takes QoS 0 only",
            "max_qos",
        ),
        (
            mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.SERVER_BUSY).write(),
            r"refused the connection: server busy \(137\)",
            "",
        ),
        (b"\x20\x02\x00\x01", "broke the protocol", "MQTT 5"),  # what MQTT 3.1.1 brokers say
        (b"HTTP/1.1 400 Bad Request\r\n" * 5, "broke the protocol", "MQTT 5"),
    ],
)
async def test_a_broker_that_does_not_suit_is_refused(connack: bytes, text: str, hint: str) -> None:
    """At open, with what to do."""
    async with FakeBroker(connack).running() as broker:
        sink = MqttSink(agent_id="edge-1", broker=at(broker.port))
        with pytest.raises(TransientError, match=text) as caught:
            await sink.open(JOURNAL)
        assert hint in caught.value.hint
        await sink.close()


async def test_idle_connections_are_pinged_and_silence_is_noticed() -> None:
    """By the broker's own keep-alive, here one second; a mute broker is left after 1.5 of it."""
    broker = FakeBroker(mqtt5.ConnAckPacket(server_keep_alive=1).write())
    async with broker.running(), opened(broker.port) as sink:
        await asyncio.sleep(1.8)
        assert broker.pings >= 2
        assert await sink.deliver([batch_of(1, 10)]) == 0
        broker.answers_pings = False
        await asyncio.sleep(2.2)
        with pytest.raises(TransientError, match="silent for 2 s"):
            await sink.deliver([batch_of(1, 10)])


async def test_a_refused_status_topic_does_not_stop_the_samples(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An ACL for plc/# only: a warning, once, and the samples arrive."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite plc/#\n")
    acl.chmod(0o700)
    config = f"allow_anonymous true\nacl_file {acl}\n"
    with Mosquitto(tmp_path / "mosquitto", config) as broker:
        async with opened(broker.port) as sink:
            assert await sink.deliver([batch_of(1, 10)]) == 0
            await sink.open(JOURNAL)
    (record,) = caplog.records
    assert STATUS in record.getMessage()
    assert "not authorized (135)" in record.getMessage()


async def test_a_sink_that_is_not_open_says_so() -> None:
    """Before open, and after close, which may be called in any state."""
    sink = MqttSink(agent_id="edge-1", broker=at(1))
    await sink.close()
    with pytest.raises(TransientError, match="not open"):
        await sink.deliver([batch_of(1, 1)])
