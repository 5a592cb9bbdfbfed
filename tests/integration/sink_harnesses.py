"""Per sink: its destination, how to read back what has arrived, and how to take it away."""

from __future__ import annotations

import asyncio
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path

import aiomqtt

from edge_agent.model import Series
from edge_agent.settings import Broker
from edge_agent.sinks.base import Sink
from edge_agent.sinks.influx import InfluxSink
from edge_agent.sinks.memory import MemorySink
from edge_agent.sinks.mqtt import MqttSink
from edge_agent.sinks.postgres import PostgresSink
from edge_agent.sinks.store import StoreSink
from edge_agent.store.reader import StoreReader
from tests.batches import Sample
from tests.influx_server import Influx
from tests.integration.plc_database import Cluster, Database
from tests.servers import Mosquitto
from tests.waiting import until


class Harness(ABC):
    """One sink's destination. The server, if any, serves all tests; `fresh` empties it for one."""

    repeats_after_failure = False
    """Whether what is handed again after a failure may arrive twice: the sink's own guarantee."""
    keeps_sign_of_zero = True
    """Whether -0.0 can be told from 0.0 when it is read back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = itertools.count(1)

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[None]:
        """An empty destination, up and running."""
        yield

    @abstractmethod
    def make_sink(self) -> Sink:
        """A sink for the destination."""

    @abstractmethod
    async def received(self) -> list[Sample]:
        """Every sample that has arrived; a series' own in order of arrival or of time."""

    @abstractmethod
    async def stop(self) -> None:
        """Take the destination away, under whatever is going on."""

    @abstractmethod
    async def start(self) -> None:
        """Bring it back with everything it had acknowledged."""

    def shut_down(self) -> None:  # noqa: B027  (some have no server)
        """End the server."""


class MemoryHarness(Harness):
    """No server: the sink itself is told to be down."""

    def make_sink(self) -> MemorySink:
        self._sink = MemorySink()
        return self._sink

    async def received(self) -> list[Sample]:
        return self._sink.samples

    async def stop(self) -> None:
        self._sink.is_down = True

    async def start(self) -> None:
        self._sink.is_down = False


class StoreHarness(Harness):
    """No server: its folder goes away, like a disk that is not mounted."""

    def make_sink(self) -> StoreSink:
        self._data = self.folder / str(next(self.numbers))
        return StoreSink(self._data / "store.db")

    async def received(self) -> list[Sample]:
        reader = StoreReader(self._data / "store.db")
        found: list[Sample] = []
        for series in reader.series():
            columns = reader.raw(series, 0, 1 << 45)
            found += [(series, ts, value) for ts, value in zip(*columns, strict=True)]
        return found

    async def stop(self) -> None:
        if self._data.exists():
            self._data.rename(self._data.with_suffix(".away"))
        self._data.write_text("not a folder")

    async def start(self) -> None:
        self._data.unlink()
        if self._data.with_suffix(".away").exists():
            self._data.with_suffix(".away").rename(self._data)


class PostgresHarness(Harness):
    """PostgreSQL with a fresh database per test."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._cluster = Cluster(folder)

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[None]:
        self._database = Database(self._cluster, await self._cluster.fresh())
        yield

    def make_sink(self) -> PostgresSink:
        return PostgresSink(agent_id="agent", dsn=self._database.dsn())

    async def received(self) -> list[Sample]:
        rows = await self._database.query(
            "SELECT site, line, device, tag, unit, (extract(epoch FROM ts) * 1000)::bigint, value"
            " FROM plc_raw ORDER BY ts"
        )
        return [(Series(*row[:5]), row[5], row[6]) for row in rows]

    async def stop(self) -> None:
        await asyncio.to_thread(self._cluster.server.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self._cluster.server.start)

    def shut_down(self) -> None:
        self._cluster.server.stop()


class InfluxHarness(Harness):
    """InfluxDB with a measurement of its own per test."""

    keeps_sign_of_zero = False  # in the JSON of its answers

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = Influx(folder).start()

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[None]:
        self._measurement = f"m{next(self.numbers)}"
        yield

    def make_sink(self) -> InfluxSink:
        return InfluxSink(
            url=self._server.url,
            token=self._server.token,
            org=self._server.org,
            bucket=self._server.bucket,
            measurement=self._measurement,
        )

    async def received(self) -> list[Sample]:
        statement = f'SELECT value FROM "{self._measurement}" GROUP BY *'
        rows = await asyncio.to_thread(self._server.query, statement)
        return [
            (Series(*(row.get(label, "") for label in Series._fields)), row["time"], row["value"])
            for row in rows
        ]

    async def stop(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)

    def shut_down(self) -> None:
        self._server.stop()


class MqttHarness(Harness):
    """Mosquitto, and a subscriber. What goes away is the wire between sink and broker.

    The broker's own queues are not part of the sink's guarantee, so the broker itself stays up.
    """

    repeats_after_failure = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # A subscriber slower than the sink must not cost messages here, nor Nagle's algorithm time:
        # the sink knows how to live with it, `Wire` does not.
        config = "allow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\n"
        self._server = Mosquitto(folder, config).start()

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[None]:
        self._messages: list[Sample] = []
        self._marks: set[str] = set()
        async with AsyncExitStack() as stack:
            self._wire = Wire(self._server.port)
            await self._wire.start()
            stack.push_async_callback(self._wire.stop)
            self._client = await stack.enter_async_context(
                aiomqtt.Client("127.0.0.1", self._server.port)
            )
            await self._client.subscribe("plc/#", qos=1)
            await self._client.subscribe("mark", qos=1)
            listening = asyncio.create_task(self._listen())
            try:
                yield
            finally:
                listening.cancel()
                await asyncio.wait([listening])

    async def _listen(self) -> None:
        async for message in self._client.messages:
            assert isinstance(message.payload, bytes)
            if str(message.topic) == "mark":
                self._marks.add(message.payload.decode())
                continue
            fields = json.loads(message.payload)
            value, ts = fields.pop("value"), datetime.fromisoformat(fields.pop("ts"))
            self._messages.append((Series(**fields), round(ts.timestamp() * 1000), float(value)))

    def make_sink(self) -> MqttSink:
        return MqttSink(agent_id="agent", broker=Broker("127.0.0.1", self._wire.port))

    async def received(self) -> list[Sample]:
        mark = str(next(self.numbers))
        await self._client.publish("mark", mark, qos=1)
        await until(lambda: mark in self._marks, "all that was published before", within_s=60.0)
        return self._messages

    async def stop(self) -> None:
        await self._wire.stop()

    async def start(self) -> None:
        await self._wire.start()

    def shut_down(self) -> None:
        self._server.stop()


class Wire:
    """A TCP connection through to a port of loopback, that can be cut and mended."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Let connections through, always on the same port."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut all connections, and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        pumps = list(self._pumps)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        for source, target in ((reader, far_writer), (far_reader, writer)):
            pump = asyncio.create_task(self._pump(source, target))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    @staticmethod
    async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        finally:
            target.close()


HARNESSES: dict[str, type[Harness]] = {
    "memory": MemoryHarness,
    "store": StoreHarness,
    "mqtt": MqttHarness,
    "postgres": PostgresHarness,
    "influx": InfluxHarness,
}
