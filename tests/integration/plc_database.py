"""What the PostgreSQL tests share: a cluster with login roles, a fresh database per test, rows."""

from __future__ import annotations

import asyncio
import itertools
import time
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest

from edge_agent.model import Batch, Series
from edge_agent.postgres import database
from tests.servers import Postgres, timescale_installed

WITHOUT_TIMESCALE = pytest.mark.skipif(
    not timescale_installed(),
    reason="TimescaleDB is not installed: the timescale flavour is not tested",
)
"""Together with the marker `timescale`."""
FLAVOURS = [
    pytest.param("postgres"),
    pytest.param("timescale", marks=[pytest.mark.timescale, WITHOUT_TIMESCALE]),
]
"""For `params=` or `parametrize`: what is promised for both flavours is tested on both."""

SERIES = {
    1: Series("A1", "L1", "PUMP01", "PRESS", "bar"),
    2: Series("A1", "L1", "PUMP01", "온도", "°C"),
    3: Series("A1", "", "FAN02", "RPM", ""),
}


class Cluster:
    """A running cluster: `agent` is in ingest, `reader` in viewer, `stranger` in nothing.

    `guarded` needs the password "s3cret/word"; everybody else is trusted. A fresh database has the
    schema of this flavour; with *timescale* the background jobs run only if ``settings`` has
    TIMESCALE_WORKERS.
    """

    def __init__(
        self, folder: Path, flavour: str = "postgres", settings: Sequence[str] = ()
    ) -> None:
        self.flavour = flavour
        self.server = Postgres(
            folder, settings=["fsync=off", *settings], timescale=flavour == "timescale"
        )
        hba = folder / "data" / "pg_hba.conf"
        hba.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
        self.server.start()
        self._numbers = itertools.count(1)
        asyncio.run(self._prepare())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    async def _prepare(self) -> None:
        async with self.connected(self.server.dsn()) as connection:
            await connection.execute("CREATE DATABASE template_plc ENCODING 'UTF8'")
        await database.init(self.server.dsn(database="template_plc"), flavour=self.flavour)
        async with self.connected(self.server.dsn()) as connection:
            await connection.execute(
                "CREATE ROLE agent LOGIN IN ROLE ingest; CREATE ROLE reader LOGIN IN ROLE viewer;"
                "CREATE ROLE stranger LOGIN;"
                "CREATE ROLE guarded LOGIN PASSWORD 's3cret/word' IN ROLE ingest"
            )
            # A database that somebody is connected to can't be copied, TimescaleDB's workers
            # included.
            await connection.execute("ALTER DATABASE template_plc ALLOW_CONNECTIONS false")
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = 'template_plc'"
            )

    async def fresh(self) -> str:
        """Name of a new database with the schema applied."""
        name = f"plc_{next(self._numbers)}"
        async with self.connected(self.server.dsn()) as connection:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE template_plc")
            # A database's own grants and settings are not copied with it.
            await connection.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
            await connection.execute(f"GRANT TEMPORARY ON DATABASE {name} TO ingest")
            if self.flavour == "timescale":
                await connection.execute(
                    f"ALTER DATABASE {name}"
                    " SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0"
                )
        if self.flavour == "timescale":
            async with self.connected(self.server.dsn(database=name)) as connection:
                # The template's own jobs were cut off, which counts as a crash.
                await connection.execute("DELETE FROM _timescaledb_internal.bgw_job_stat")
                await connection.fetch("SELECT _timescaledb_functions.start_background_workers()")
        return name

    @staticmethod
    @asynccontextmanager
    async def connected(dsn: str) -> AsyncIterator[Any]:
        """A plain connection, closed at the end."""
        connection = await asyncpg.connect(dsn, statement_cache_size=0)
        try:
            yield connection
        finally:
            await connection.close()


class Database:
    """One test's database: its addresses, and what is in it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.owner_dsn = self.dsn("postgres")

    def dsn(self, user: str = "agent") -> str:
        """Address for a login role."""
        return self.cluster.server.dsn(user, self.name)

    async def query(self, sql: str, *arguments: object, user: str = "postgres") -> list[Any]:
        """Rows of a statement."""
        async with self.cluster.connected(self.dsn(user)) as connection:
            return list(await connection.fetch(sql, *arguments))

    async def execute(self, sql: str, user: str = "postgres") -> None:
        """Run statements."""
        async with self.cluster.connected(self.dsn(user)) as connection:
            await connection.execute(sql)

    async def rows(self) -> dict[tuple[int, str, str, str], float]:
        """plc_raw as {(ts_ms, site, device, tag): value}; the key makes a double impossible."""
        found = await self.query(
            "SELECT (extract(epoch FROM ts) * 1000)::bigint, site, device, tag, value FROM plc_raw"
        )
        return {tuple(row[:4]): row[4] for row in found}


def now_ms() -> int:
    """The wall clock's time."""
    return time.time_ns() // 1_000_000


def batch(
    sequence: int,
    samples: Sequence[tuple[int, int, float]],
    series: dict[int, Series] | None = None,
) -> Batch:
    """A batch of (ts_ms, series id, value) samples, one run per change of time."""
    runs = [
        (ts_ms, len(list(group)))
        for ts_ms, group in itertools.groupby(samples, key=lambda sample: sample[0])
    ]
    return Batch(
        sequence=sequence,
        runs=runs,
        series_ids=array("I", [series_id for _, series_id, _ in samples]),
        values=array("d", [value for _, _, value in samples]),
        series=series or SERIES,
    )


def scans(sequence: int, start_ms: int, count: int, period_ms: int = 200) -> Batch:
    """A batch of whole scans over all series; no two values are equal."""
    return batch(
        sequence,
        [
            (start_ms + scan * period_ms, series_id, sequence * 1000 + scan + series_id / 10)
            for scan in range(count)
            for series_id in SERIES
        ],
    )


def expected_rows(batches: Sequence[Batch]) -> dict[tuple[int, str, str, str], float]:
    """What `Database.rows` must give for these batches; the first value of a key stays."""
    found: dict[tuple[int, str, str, str], float] = {}
    for each in batches:
        times = itertools.chain.from_iterable([ts_ms] * count for ts_ms, count in each.runs)
        for ts_ms, series_id, value in zip(times, each.series_ids, each.values, strict=True):
            one = each.series[series_id]
            found.setdefault((ts_ms, one.site, one.device, one.tag), value)
    return found


class CuttingProxy:
    """A TCP proxy that cuts or stalls the one connection it carries, on the byte.

    ``sent`` and ``received`` count the bytes forwarded to and from the server since `arm`.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.sent = self.received = 0
        self._sent_max: float = float("inf")
        self._received_max: float = float("inf")
        self.stalled = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def arm(self, sent: float = float("inf"), received: float = float("inf")) -> None:
        """Count from 0, and cut after so many bytes in one or the other direction."""
        self.sent = self.received = 0
        self._sent_max, self._received_max = sent, received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, far_writer}
        await asyncio.gather(
            self._pump(reader, far_writer, self._count_sent),
            self._pump(far_reader, writer, self._count_received),
            return_exceptions=True,
        )
        for each in (writer, far_writer):
            each.close()
            self._writers.discard(each)
        self._tasks.discard(task)

    def _count_sent(self, length: int) -> tuple[int, bool]:
        allowed = int(min(length, self._sent_max - self.sent))
        self.sent += allowed
        return allowed, self.sent >= self._sent_max

    def _count_received(self, length: int) -> tuple[int, bool]:
        allowed = int(min(length, self._received_max - self.received))
        self.received += allowed
        return allowed, self.received >= self._received_max

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: Callable[[int], tuple[int, bool]],
    ) -> None:
        while data := await reader.read(65536):
            while self.stalled:
                await asyncio.sleep(0.01)
            allowed, cut = count(len(data))
            writer.write(data[:allowed])
            await writer.drain()
            if cut:
                await asyncio.sleep(0)  # what was forwarded leaves before the end does
                self._cut()
                return
        writer.close()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.close()
