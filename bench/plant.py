"""A whole plant on loopback for benchmarks: simulated PLCs, servers, and the agent as a process."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import asyncpg

from edge_agent import address_map
from edge_agent.model import Tag
from edge_agent.postgres import database
from edge_agent.simulator import rebind
from tests.influx_server import Influx
from tests.plant import Agent, Simulator, Usage, make_tags
from tests.servers import Mosquitto, Postgres

__all__ = ["Plant", "Usage", "make_tags"]


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
    agent: Agent = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tags = rebind(self.tags)
        map_path = self.folder / "address_map.csv"
        address_map.write(map_path, self.tags)
        self.agent = Agent(self.folder, map_path)
        try:
            self.agent.configure([self.settings, *self._start_servers()])
            self._stack.enter_context(Simulator(self.folder / "plc", self.tags))
            self._stack.enter_context(self.agent)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_servers(self) -> list[str]:
        """Start what is wanted; the sections that make the agent use it."""
        sections = []
        if self.mqtt:
            self.broker = self._stack.enter_context(Mosquitto(self.folder / "mosquitto"))
            sections.append(f'[mqtt]\nurl = "{self.broker.url}"')
        if self.postgres:
            self.database = self._stack.enter_context(Postgres(self.folder / "postgres"))
            asyncio.run(_prepare_database(self.database))
            sections.append(f'[postgres]\ndsn = "{self.database.dsn("agent")}"')
        if self.influx:
            self.influxdb = self._stack.enter_context(Influx(self.folder / "influx"))
            sections.append(
                f'[influx]\nurl = "{self.influxdb.url}"\ntoken = "{self.influxdb.token}"\n'
                f'org = "{self.influxdb.org}"\nbucket = "{self.influxdb.bucket}"'
            )
        return sections

    def stop_agent(self, sig: signal.Signals = signal.SIGTERM) -> int | None:
        """End the daemon; its exit code."""
        self.agent.stop(sig)
        return self.agent.exit_code

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self.agent.pid

    def status(self) -> dict[str, Any] | None:
        """What the daemon says of itself; None while it does not answer."""
        return self.agent.status()

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
