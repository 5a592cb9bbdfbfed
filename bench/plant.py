"""A whole plant on loopback for benchmarks: simulated PLCs, servers, and the agent as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import asyncpg

from edge_agent import address_map, database
from edge_agent.model import ByteOrder, Tag, ValueType
from edge_agent.simulator import rebind
from tests.influx_server import Influx
from tests.servers import Mosquitto, Postgres, free_port, wait_until

TAGS_PER_CONNECTION = 500
TAGS_PER_DEVICE = 25
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def make_tags(count: int, period_ms: int = 1000) -> list[Tag]:
    """A plausible mix: three FLOAT32 to one scaled INT16, 25 tags a device, 500 a connection."""
    tags = []
    for index in range(count):
        connection, place = divmod(index, TAGS_PER_CONNECTION)
        device = index // TAGS_PER_DEVICE
        whole = index % 4 == 3
        tags.append(
            Tag(
                site="A1",
                line=f"L{connection % 8 + 1}",
                device=f"PUMP{device:04d}",
                tag=f"T{index % TAGS_PER_DEVICE:02d}_PRESS",
                protocol="modbus",
                conn=f"tcp://127.0.0.1:{1 + connection}",
                unit_id=1,
                address=f"hr:{place * 2}",
                type=ValueType.INT16 if whole else ValueType.FLOAT32,
                scale=0.1 if whole else 1.0,
                offset=0.0,
                period_ms=period_ms,
                unit="bar",
                hi=100.0,
                lo=0.0,
                byte_order=ByteOrder.ABCD,
                precision=None if whole else 3,
            )
        )
    return rebind(tags)


@dataclass(slots=True)
class Usage:
    """A process's CPU seconds so far and resident memory in MB."""

    cpu_s: float
    rss_mb: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read /proc."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
        status = Path(f"/proc/{pid}/status").read_text()
        rss_kb = next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
        return cls(cpu_s, rss_kb / 1000)


@dataclass(slots=True)
class Plant:
    """Everything around and including one agent; entered, it runs."""

    folder: Path
    tags: list[Tag]
    mqtt: bool = True
    postgres: bool = True
    influx: bool = True
    settings: str = ""
    broker: Mosquitto | None = None
    database: Postgres | None = None
    influxdb: Influx | None = None
    http_port: int = field(default_factory=free_port)
    _stack: ExitStack = field(default_factory=ExitStack)
    _simulators: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _agent: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        address_map.write(self.map_path, self.tags)
        try:
            self._start_servers()
            self._start_simulator()
            self.start_agent()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_agent()
        for process in self._simulators:
            process.terminate()
            process.wait(20)
            assert process.stdout is not None
            process.stdout.close()
        self._stack.close()

    @property
    def map_path(self) -> Path:
        """The map that the agent polls."""
        return self.folder / "address_map.csv"

    def _start_servers(self) -> None:
        config = [f'[agent]\nid = "bench"\nhttp = "127.0.0.1:{self.http_port}"', self.settings]
        if self.mqtt:
            self.broker = self._stack.enter_context(Mosquitto(self.folder / "mosquitto"))
            config.append(f'[mqtt]\nurl = "{self.broker.url}"')
        if self.postgres:
            self.database = self._stack.enter_context(Postgres(self.folder / "postgres"))
            asyncio.run(_prepare_database(self.database))
            config.append(f'[postgres]\ndsn = "{self.database.dsn("agent")}"')
        if self.influx:
            self.influxdb = self._stack.enter_context(Influx(self.folder / "influx"))
            config.append(
                f'[influx]\nurl = "{self.influxdb.url}"\ntoken = "{self.influxdb.token}"\n'
                f'org = "{self.influxdb.org}"\nbucket = "{self.influxdb.bucket}"'
            )
        (self.folder / "edge-agent.toml").write_text("\n".join(config))

    def _start_simulator(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_agent.simulator", str(self.map_path)],
            stdout=subprocess.PIPE,
        )
        self._simulators.append(process)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the simulator did not start")

    def start_agent(self) -> None:
        """Start the daemon as a user would."""
        log = self._stack.enter_context((self.folder / "agent.log").open("ab"))
        self._agent = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("edge-agent")),
                "--map",
                str(self.map_path),
                "--config",
                str(self.folder / "edge-agent.toml"),
                "--data-dir",
                str(self.folder / "data"),
            ],
            stderr=log,
            stdout=log,
        )
        wait_until(lambda: self.status() is not None, "the agent's /status")

    def stop_agent(self, sig: signal.Signals = signal.SIGTERM) -> int | None:
        """End the daemon; its exit code."""
        process, self._agent = self._agent, None
        if process is None:
            return None
        process.send_signal(sig)
        return process.wait(60)

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._agent is not None, "not running"
        return self._agent.pid

    def status(self) -> dict[str, Any] | None:
        """What the daemon says of itself; None while it does not answer."""
        try:
            url = f"http://127.0.0.1:{self.http_port}/status"
            with urllib.request.urlopen(url, timeout=10) as reply:
                status: dict[str, Any] = json.load(reply)
        except OSError:
            return None
        return status

    def rows(self) -> int:
        """Rows of plc_raw, counted."""
        assert self.database is not None
        dsn = self.database.dsn()

        async def count() -> int:
            connection = await asyncpg.connect(dsn)
            try:
                return int(await connection.fetchval("SELECT count(*) FROM plc_raw"))
            finally:
                await connection.close()

        return asyncio.run(count())


async def _prepare_database(server: Postgres) -> None:
    await database.init(server.dsn())
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute("CREATE ROLE agent LOGIN; GRANT ingest TO agent")
    finally:
        await connection.close()


def settle(plant: Plant, timeout_s: float = 120.0) -> dict[str, Any]:
    """Wait until every sink of a stopped plant's journal has everything; the last status."""
    deadline = time.monotonic() + timeout_s
    while True:
        status = plant.status()
        if status and all(sink["pending"] == 0 for sink in status["sinks"]):
            return status
        if time.monotonic() > deadline:
            raise TimeoutError("the sinks did not catch up")
        time.sleep(0.2)
