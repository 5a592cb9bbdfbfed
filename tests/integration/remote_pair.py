"""What the tests of `edge-remote` share: two clusters, a fresh pair of databases, a look at both.

A test names the flavours that it holds for with ``@pytest.mark.parametrize("pair", PAIRS,
indirect=True)`` (or FLAVOUR_PAIRS, without the mixed ones) and gets a `Pair`: an edge with the
schema applied and a remote that is empty. Whatever the test does, no slot of its database is left.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from edge_agent.postgres import database
from remote.cli import main
from tests.servers import Postgres, timescale_installed

CATCH_UP_TIMEOUT_S = 30.0
"""A subscription tries again 5 s after an error."""
POLL_S = 0.05

SETTINGS = (
    "fsync=off",
    "wal_level=logical",
    "max_wal_senders=20",
    "max_replication_slots=20",
    "max_logical_replication_workers=20",
    "max_worker_processes=60",
    "wal_retrieve_retry_interval=500ms",
)

TIMESCALE = (
    pytest.mark.timescale,
    pytest.mark.skipif(
        not timescale_installed(),
        reason="TimescaleDB is not installed: replication is not tested with it",
    ),
)

CHECKSUM = """
SELECT count(*), coalesce(sum(hash_record_extended(
    ROW(ts, site, line, device, tag, value, unit), 0)::numeric), 0)
FROM public.plc_raw
"""


def _param(edge: str, remote: str) -> Any:
    marks = TIMESCALE if "timescale" in (edge, remote) else ()
    return pytest.param((edge, remote), marks=marks, id=f"{edge}-{remote}")


FLAVOUR_PAIRS = [_param("postgres", "postgres"), _param("timescale", "timescale")]
PAIRS = [*FLAVOUR_PAIRS, _param("postgres", "timescale"), _param("timescale", "postgres")]


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    output: str
    errors: str

    @property
    def said(self) -> dict[str, Any]:
        """Its JSON."""
        found: dict[str, Any] = json.loads(self.output)
        return found


@dataclass
class Side:
    """One database of a pair."""

    server: Postgres
    name: str

    @property
    def dsn(self) -> str:
        """Address for the superuser."""
        return self.server.dsn(database=self.name)

    @asynccontextmanager
    async def connected(self, user: str = "postgres") -> AsyncIterator[Any]:
        """A connection, closed at the end."""
        connection = await asyncpg.connect(
            self.server.dsn(user, self.name), statement_cache_size=0, timeout=10
        )
        try:
            yield connection
        finally:
            await connection.close()

    async def query(self, sql: str, *arguments: object) -> list[Any]:
        """Rows of a statement."""
        async with self.connected() as connection:
            return list(await connection.fetch(sql, *arguments))

    async def roll_up(self) -> None:
        """Bring plc_1m and plc_1h up to date, as upkeep or the policies do."""
        if await self.value("SELECT flavour FROM plc_settings") == "postgres":
            while await self.value("SELECT plc_rollup(1000)"):
                pass
        else:
            for view in ("plc_1m", "plc_1h"):
                await self.execute(f"CALL refresh_continuous_aggregate('{view}', NULL, NULL)")

    async def rolled_up(self) -> list[list[tuple[Any, ...]]]:
        """What plc_1m and plc_1h hold; means without the digits that depend on the order."""
        columns = (
            "bucket, site, line, device, tag, unit, round(avg_value::numeric, 9), min_value,"
            " max_value, last_value, samples"
        )
        return [
            [
                tuple(row)
                for row in await self.query(f"SELECT {columns} FROM {view} ORDER BY 1, 2, 4, 5")
            ]
            for view in ("plc_1m", "plc_1h")
        ]

    async def value(self, sql: str, *arguments: object) -> Any:
        """The one value of a statement."""
        async with self.connected() as connection:
            return await connection.fetchval(sql, *arguments)

    async def execute(self, sql: str) -> None:
        """Run statements, outside a transaction block if it is one."""
        async with self.connected() as connection:
            await connection.execute(sql)

    async def checksum(self) -> tuple[int, int]:
        """Count and checksum of plc_raw, whatever the order."""
        count, checksum = (await self.query(CHECKSUM))[0]
        return int(count), int(checksum)

    def log(self) -> str:
        """What the server has logged."""
        return (self.server.folder / "server.log").read_text(errors="replace")


@dataclass
class Pair:
    """An edge and a remote, and `edge-remote` on them."""

    edge: Side
    remote: Side
    name: str
    folder: Path
    flavours: tuple[str, str]
    settings: dict[str, str | int] = field(default_factory=dict)
    """Further keys of [remote], and others for those that are set anyway."""

    @property
    def config(self) -> Path:
        """The settings file, as it is now."""
        path = self.folder / f"{self.name}.toml"
        given: dict[str, str | int] = {
            "name": self.name,
            "edge_dsn": self.edge.dsn,
            "remote_dsn": self.remote.dsn,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in (given | self.settings).items()]
        flavour = f'[postgres]\nflavour = "{self.flavours[1]}"\n'
        path.write_text(flavour + "[remote]\n" + "\n".join(lines) + "\n")
        return path

    async def run(self, *words: str) -> Outcome:
        """`edge-remote` with these words, in this process."""
        return await asyncio.to_thread(call, "--config", str(self.config), *words)

    async def setup(self, *words: str) -> Outcome:
        """`edge-remote setup`, which must succeed."""
        done = await self.run("setup", *words)
        assert done.code == 0, done
        return done

    async def write(self, rows: int = 100, *, minutes_ago: int = 5, site: str = "A1") -> None:
        """Insert rows at the edge, a second apart, in the order of time."""
        await self.edge.execute(insert_sql(rows, minutes_ago, site))

    async def wait_equal(self, timeout_s: float = CATCH_UP_TIMEOUT_S) -> int:
        """Wait until plc_raw is the same on both sides; returns the number of rows."""

        async def equal() -> bool:
            return await self.edge.checksum() == await self.remote.checksum()

        await self.wait(equal, "equal sides", timeout_s)
        return (await self.edge.checksum())[0]

    async def wait(
        self,
        condition: Callable[[], Awaitable[bool]],
        what: str,
        timeout_s: float = CATCH_UP_TIMEOUT_S,
    ) -> None:
        """Poll; a failure shows what both servers said last."""
        deadline = time.monotonic() + timeout_s
        while not await condition():
            if time.monotonic() > deadline:
                counts = [(await side.checksum())[0] for side in (self.edge, self.remote)]
                logs = "\n".join(side.log()[-2000:] for side in (self.edge, self.remote))
                raise AssertionError(f"{what}: not within {timeout_s:g} s, {counts}\n{logs}")
            await asyncio.sleep(POLL_S)


def call(*words: str) -> Outcome:
    """`edge-remote` in this process, in a thread of its own."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            code = main(words)
        except SystemExit as ended:  # of argparse: words that nobody understands
            code = int(ended.code or 0)
    return Outcome(code, output.getvalue(), errors.getvalue())


def insert_sql(rows: int, minutes_ago: int = 5, site: str = "A1") -> str:
    """Rows that begin so many minutes ago, whatever day that was, its partition first."""
    return (
        "SELECT plc_make_partitions(ARRAY(SELECT DISTINCT floor(extract(epoch FROM now()"
        f" - interval '{minutes_ago} minutes' + n * interval '1 second') / 86400)::bigint"
        f" FROM generate_series(1, {rows}) AS n)); "
        "INSERT INTO public.plc_raw (ts, site, line, device, tag, value, unit) "
        f"SELECT date_trunc('second', now()) - interval '{minutes_ago} minutes'"
        f" + n * interval '1 second', '{site}', 'L1', 'PUMP' || n % 3, '온도' || n % 5, n / 3.0,"
        f" '°C' FROM generate_series(1, {rows}) AS n"
    )


class Clusters:
    """The two servers of a module, with a template database for each flavour of edge."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        self.edge, self.remote = (self._cluster(folder / label) for label in ("edge", "remote"))
        self._templates: set[str] = set()

    @staticmethod
    def _cluster(folder: Path) -> Postgres:
        server = Postgres(folder, SETTINGS, timescale=timescale_installed())
        hba = folder / "data" / "pg_hba.conf"
        hba.write_text("host all +rep 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
        return server.start()

    async def pair(self, flavours: tuple[str, str], folder: Path) -> Pair:
        """Two new databases: the edge's has the schema, the remote's has nothing."""
        name = f"t{next(self._numbers)}"
        template = f"template_{flavours[0]}"
        admin = Side(self.edge, "postgres")
        if template not in self._templates:
            await admin.execute(f"CREATE DATABASE {template} ENCODING 'UTF8' TEMPLATE template0")
            await database.init(self.edge.dsn(database=template), flavour=flavours[0])
            await admin.execute(
                "DO $$ BEGIN CREATE ROLE agent LOGIN IN ROLE ingest;"
                " EXCEPTION WHEN duplicate_object THEN NULL; END $$"
            )
            self._templates.add(template)
        await admin.execute(f"CREATE DATABASE edge_{name} TEMPLATE {template}")
        await Side(self.remote, "postgres").execute(
            f"CREATE DATABASE remote_{name} ENCODING 'UTF8' TEMPLATE template0"
        )
        edge, remote = Side(self.edge, f"edge_{name}"), Side(self.remote, f"remote_{name}")
        return Pair(edge, remote, name, folder, flavours)

    async def another_edge(self, pair: Pair, folder: Path) -> Pair:
        """A second edge for the remote of a pair; it is to be cleared before that one."""
        second = await self.pair(pair.flavours, folder)
        await Side(self.remote, "postgres").execute(f"DROP DATABASE {second.remote.name}")
        return replace(second, remote=pair.remote)

    async def clear(self, pair: Pair) -> None:
        """Take a pair off the servers, in whatever state a test has left it."""
        for row in await pair.remote.query(
            "SELECT subname FROM pg_subscription JOIN pg_database AS d ON d.oid = subdbid"
            " WHERE datname = current_database()"
        ):
            for change in ("DISABLE", "SET (slot_name = NONE)"):
                await pair.remote.execute(f'ALTER SUBSCRIPTION "{row[0]}" {change}')
            await pair.remote.execute(f'DROP SUBSCRIPTION "{row[0]}"')
        await Side(self.remote, "postgres").execute(f"DROP DATABASE {pair.remote.name} (FORCE)")
        await drop_slots(pair.edge)
        await Side(self.edge, "postgres").execute(f"DROP DATABASE {pair.edge.name} (FORCE)")

    def stop(self) -> None:
        """End both servers."""
        for server in (self.edge, self.remote):
            server.stop()


async def drop_slots(edge: Side) -> None:
    """Leave no slot of this database."""
    mine = "FROM pg_replication_slots WHERE database = current_database()"
    for _ in range(200):
        if not await edge.query(
            f"SELECT pg_terminate_backend(active_pid) {mine} AND active_pid IS NOT NULL"
        ):
            break
        await asyncio.sleep(POLL_S)
    await edge.query(f"SELECT pg_drop_replication_slot(slot_name) {mine}")


_running: list[Clusters] = []


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """Both servers, for all tests of a run: each module that imports this fixture gets the same."""
    if not _running:
        _running.append(Clusters(tmp_path_factory.mktemp("remote")))
    yield _running[0]
    _running[0].stop()


@pytest.fixture
async def pair(
    request: pytest.FixtureRequest, clusters: Clusters, tmp_path: Path
) -> AsyncIterator[Pair]:
    """A pair in the flavours of the parameter; *postgres* on both sides without one."""
    flavours: tuple[str, str] = getattr(request, "param", ("postgres", "postgres"))
    found = await clusters.pair(flavours, tmp_path)
    yield found
    await clusters.clear(found)


def words_of(steps: Sequence[dict[str, str]]) -> str:
    """All that a list of steps shows."""
    return "\n".join(f"{step['where']} {step['what']} {step['sql']}" for step in steps)


class FastClockPostgres(Postgres):
    """A server whose clock is 30 s ahead of everybody's.

    Not by the command `faketime`: that one stays between, and would leave the server behind.
    """

    def command(self) -> Sequence[str]:
        (library, *_) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
        return ["env", f"LD_PRELOAD={library}", "FAKETIME=+30s", *super().command()]
