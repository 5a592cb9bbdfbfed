"""An edge and a remote, two real PostgreSQL servers, with the real `edge-remote` between them.

The command runs as a process, as a user runs it, on settings in a file. The writer is a process
of its own too, and so is `edge-remote serve` where a test wants it. At the end `Rig.check_equal`
holds the rows of both sides against each other, by count and by checksum.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import asyncpg

from tests.acceptance.namespaces import FarPostgres, Namespace
from tests.servers import TIMESCALE_WORKERS, Postgres, Server, free_port

RATE = 5_000
"""Rows a second, what issue 3 asks for."""
COMMAND_TIMEOUT_S = 180.0
CATCH_UP_TIMEOUT_S = 150.0
"""TCP tries again 51 s after it lost a link that was down for 30 s; the rest is a busy machine."""
WRITER_STOP_TIMEOUT_S = 90.0
POLL_S = 0.2
SAMPLE_S = 0.1
CONNECT_TIMEOUT_S = 5.0
LOG_CHARS = 3_000

ROOT = Path(__file__).parents[2]

_CHECKSUM = """
SELECT count(*), coalesce(sum(hash_record_extended(
    ROW(ts, site, line, device, tag, value, unit), 0)::numeric), 0)
FROM public.plc_raw WHERE ts <= $1
"""
_NEWEST_AGE = """
SELECT extract(epoch FROM clock_timestamp() - max(ts))::float8 FROM public.plc_raw
WHERE (site, device, tag) = ('A1', 'PUMP000', 'T00001') AND ts > now() - interval '10 minutes'
"""
_FOREVER = "infinity"

_numbers = itertools.count(1)


@dataclass
class Sides:
    """The two servers, which several tests share; each test has databases of its own on them."""

    edge: Postgres
    remote: Postgres
    flavour: str


@contextmanager
def servers(folder: Path, flavour: str) -> Iterator[Sides]:
    """Both servers, running; background jobs too."""
    more = settings(flavour)
    timescale = flavour == "timescale"
    with (
        Postgres(folder / "edge", more, timescale=timescale) as edge,
        Postgres(folder / "remote", more, timescale=timescale) as remote,
    ):
        make_agent(edge)
        yield Sides(edge, remote, flavour)


@contextmanager
def far_edge(folder: Path, sides: Sides, space: Namespace) -> Iterator[Sides]:
    """The same remote with another edge, in a namespace."""
    more = settings(sides.flavour)
    with FarPostgres(folder, space, more, timescale=sides.flavour == "timescale") as edge:
        make_agent(edge)
        yield Sides(edge, sides.remote, sides.flavour)


def settings(flavour: str) -> list[str]:
    """What a server needs beyond its defaults, for either side."""
    return ["wal_level=logical", *(TIMESCALE_WORKERS if flavour == "timescale" else ())]


def make_agent(edge: Postgres) -> None:
    """The login role that the writer uses: no more than `ingest`."""
    End(edge, "postgres").execute(
        "CREATE ROLE ingest NOLOGIN; CREATE ROLE agent IN ROLE ingest LOGIN"
    )


@dataclass
class End:
    """One test's database on one of the servers."""

    server: Postgres
    database: str

    @property
    def dsn(self) -> str:
        """Address for the superuser."""
        return self.server.dsn(database=self.database)

    def query(self, sql: str, *arguments: object) -> list[Any]:
        """Rows of a statement, or none for several statements without arguments."""
        return asyncio.run(_query(self.dsn, sql, *arguments))

    def value(self, sql: str, *arguments: object) -> Any:
        """The one value of a statement."""
        return self.query(sql, *arguments)[0][0]

    def execute(self, sql: str) -> None:
        """Statements outside a transaction block, one by one."""
        asyncio.run(_execute(self.dsn, sql))

    def checksum(self, until: str = _FOREVER) -> tuple[int, int]:
        """Count and checksum of plc_raw's rows up to a time; the order does not matter."""
        count, checksum = self.query(_CHECKSUM.replace("$1", f"'{until}'::timestamptz"))[0]
        return int(count), int(checksum)

    def rows(self) -> int:
        """How many rows plc_raw holds."""
        return int(self.value("SELECT count(*) FROM public.plc_raw"))


async def _query(dsn: str, sql: str, *arguments: object) -> list[Any]:
    connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
    try:
        return list(await connection.fetch(sql, *arguments, timeout=COMMAND_TIMEOUT_S))
    finally:
        await connection.close()


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
    try:
        await connection.execute(sql, timeout=COMMAND_TIMEOUT_S)
    finally:
        await connection.close()


class Writer:
    """`replication_writer` as a process."""

    def __init__(self, folder: Path, dsn: str, rate: int, space: Namespace | None) -> None:
        words = [sys.executable, "-m", "tests.acceptance.replication_writer", dsn]
        words += ["--rate", str(rate)]
        self._log = (folder / "writer.log").open("a+b")
        self._process = subprocess.Popen(
            space.command(words) if space else words,
            stdout=subprocess.PIPE,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n", self.log()

    def log(self) -> str:
        """What it complained about."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-LOG_CHARS:]

    def stop(self) -> dict[str, Any]:
        """Have it deliver what waits, and end; what it says: rows, and the longest wait."""
        self._process.send_signal(signal.SIGTERM)
        try:
            output, _ = self._process.communicate(timeout=WRITER_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the writer did not end: {self.log()}") from None
        assert self._process.returncode == 0, self.log()
        said: dict[str, Any] = json.loads(output)
        return said

    def kill(self) -> None:
        """Whatever it is doing."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()


class Ages(threading.Thread):
    """Looks at the remote each 0.1 s: how old is the newest row that a query sees there?

    Looks that a slow answer made late are counted as well, each with the age that it would have
    seen: `seconds` has one entry for each 0.1 s.
    """

    def __init__(self, dsn: str) -> None:
        super().__init__(name="ages", daemon=True)
        self._dsn = dsn
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self.seconds: list[float] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        if self._error is not None:
            raise self._error

    def run(self) -> None:
        """The thread's body."""
        try:
            asyncio.run(self._look())
        except BaseException as error:  # noqa: BLE001  (it is raised where the thread is joined)
            self._error = error

    async def _look(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=CONNECT_TIMEOUT_S)
        start = time.monotonic()
        while not self._ended.is_set():
            # Somewhere within its tenth of a second: the writer keeps time too, and would always
            # be met at the same distance from its last batch.
            due = start + (len(self.seconds) + random.random()) * SAMPLE_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            age_s = await connection.fetchval(_NEWEST_AGE)
            missed = int((time.monotonic() - due) / SAMPLE_S)
            seen = float("inf") if age_s is None else age_s
            self.seconds += [max(0.0, seen - n * SAMPLE_S) for n in range(missed, -1, -1)]
        await connection.close()

    def percentile(self, share: float) -> float:
        """The age that this share of the looks did not exceed, in seconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Serve(Server):
    """`edge-remote serve`, which does the remote's upkeep."""

    def __init__(self, folder: Path, command: Callable[..., list[str]]) -> None:
        super().__init__(folder)
        self._words = command

    def command(self) -> Sequence[str]:
        """As systemd runs it."""
        return self._words("serve", "--http", f"127.0.0.1:{self.port}")


@dataclass
class Rig:
    """One test's databases, settings and processes."""

    sides: Sides
    folder: Path
    space: Namespace | None = None
    name: str = field(init=False)
    edge: End = field(init=False)
    remote: End = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.name = f"t{os.getpid()}_{next(_numbers)}"
        self.edge = End(self.sides.edge, f"edge_{self.name}")
        self.remote = End(self.sides.remote, f"remote_{self.name}")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._clear)
            for end in (self.edge, self.remote):
                admin = End(end.server, "postgres")
                admin.execute(f"CREATE DATABASE {end.database} ENCODING 'UTF8' TEMPLATE template0")
            self.config_path.write_text(
                f'[postgres]\nflavour = "{self.sides.flavour}"\n'
                f'[remote]\nname = "{self.name}"\nedge_dsn = "{self.edge.dsn}"\n'
                f'remote_dsn = "{self.remote.dsn}"\nhttp = "127.0.0.1:{free_port()}"\n'
            )
            self.command("edge-agent", "db", "init", "--dsn", self.edge.dsn)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def config_path(self) -> Path:
        """The settings file of all commands."""
        return self.folder / "edge-agent.toml"

    # -- driving it -----------------------------------------------------------------------------

    def words(self, program: str, *words: str) -> list[str]:
        """The command line of one of the product's programs on this rig's settings."""
        path = str(Path(sys.executable).with_name(program))
        return [path, "--config", str(self.config_path), *words]

    def command(
        self, program: str, *words: str, exit_code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run it, and hold it to this exit code; never a traceback."""
        done = subprocess.run(
            self.words(program, *words),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
        said = f"{program} {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == exit_code, said
        assert "Traceback" not in done.stderr, said
        return done

    def edge_remote(self, *words: str, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
        """`edge-remote` with these words."""
        return self.command("edge-remote", *words, exit_code=exit_code)

    def status(self, exit_code: int = 0) -> dict[str, Any]:
        """`edge-remote status --json`."""
        said: dict[str, Any] = json.loads(
            self.edge_remote("status", "--json", exit_code=exit_code).stdout
        )
        return said

    def problems(self) -> list[str]:
        """What status complains about; its exit code must agree."""
        done = subprocess.run(
            self.words("edge-remote", "status", "--json"),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
        found: list[str] = json.loads(done.stdout)["problems"]
        assert done.returncode == (1 if found else 0), done.stderr
        return found

    @contextmanager
    def serving(self) -> Iterator[None]:
        """`edge-remote serve` runs beside it."""
        folder = self.folder / "serve"
        with Serve(folder, lambda *words: self.words("edge-remote", *words)):
            yield

    @contextmanager
    def writing(self, rate: int = RATE) -> Iterator[Writer]:
        """A writer at the edge; stop it within, or it is killed."""
        server = self.edge.server
        near = server.local_dsn if isinstance(server, FarPostgres) else server.dsn
        dsn = near("agent", self.edge.database)
        writer = Writer(self.folder, dsn, rate, self.space)
        try:
            yield writer
        finally:
            writer.kill()

    def write_history(self, rows: int, minutes: int, site: str = "H1") -> None:
        """Rows of a site of its own, evenly over the past minutes up to two minutes ago."""
        self.edge.execute(days_sql(minutes))
        self.edge.execute(
            "INSERT INTO public.plc_raw (ts, site, line, device, tag, value, unit) "
            f"SELECT date_trunc('milliseconds', now()) - interval '2 minutes' "
            f"- n * interval '{(minutes - 2) * 60_000_000 // rows} us', '{site}', 'L1', "
            f"'PUMP' || n % 20, 'T' || n % 7, random() * 1e6, 'bar' "
            f"FROM generate_series(1, {rows}) AS n"
        )

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Poll until it holds; a failure shows what both servers have to say."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {timeout_s:g} s\n{self.logs()}")
            time.sleep(POLL_S)

    def wait_flowing(self) -> None:
        """Wait until rows of the writer are seen at the remote, and are fresh."""
        self.wait(lambda: self.age_s() < 1.0, "fresh rows at the remote", CATCH_UP_TIMEOUT_S)

    def age_s(self) -> float:
        """Age of the newest row of the writer at the remote; infinite without one."""
        age_s = self.remote.value(_NEWEST_AGE)
        return float("inf") if age_s is None else float(age_s)

    def subscription_worker(self) -> int:
        """Process id of the subscriber's worker at the remote."""
        pid = self.remote.value(
            "SELECT pid FROM pg_stat_subscription WHERE subname = $1 AND relid IS NULL",
            f"plc_{self.name}",
        )
        assert pid is not None, "no worker runs"
        return int(pid)

    def has_another_worker_than(self, pid: int) -> bool:
        """Whether a new one runs; False also while the remote's server is not to be reached."""
        try:
            return self.subscription_worker() != pid
        except (AssertionError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    # -- reading it -----------------------------------------------------------------------------

    def check_equal(self, timeout_s: float = CATCH_UP_TIMEOUT_S) -> int:
        """Once nobody writes: both sides come to hold the same rows; how many they are."""
        rows = self.edge.rows()
        self.wait(lambda: self.remote.rows() >= rows, f"{rows} rows at the remote", timeout_s)
        self.check_equal_now()
        return rows

    def check_equal_now(self, until: str = _FOREVER) -> int:
        """Both sides hold the same rows up to a time; how many they are."""
        edge, remote = self.edge.checksum(until), self.remote.checksum(until)
        assert edge == remote, f"edge {edge}, remote {remote}\n{self.logs()}"
        assert edge[0] > 0, "no row at all"
        return edge[0]

    def slots(self) -> list[str]:
        """The slots on this rig's edge database."""
        found = self.edge.query(
            "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
        )
        return [row[0] for row in found]

    def logs(self) -> str:
        """The last words of both servers."""
        tails = [
            f"-- {side}\n{(server.folder / 'server.log').read_text(errors='replace')[-LOG_CHARS:]}"
            for side, server in (("edge", self.sides.edge), ("remote", self.sides.remote))
        ]
        return "\n".join(tails)

    def _clear(self) -> None:
        """Take everything of this test off the servers, however it ended."""
        for end in (self.remote, self.edge):
            if not end.server.ready():
                continue
            if end is self.remote and end.database in _databases(end.server):
                for row in end.query(
                    "SELECT subname FROM pg_subscription JOIN pg_database AS d ON d.oid = subdbid "
                    "WHERE datname = current_database()"
                ):
                    for change in ("DISABLE", "SET (slot_name = NONE)"):
                        end.execute(f'ALTER SUBSCRIPTION "{row[0]}" {change}')
                    end.execute(f'DROP SUBSCRIPTION "{row[0]}"')
            admin = End(end.server, "postgres")
            for row in admin.query(
                "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = $1",
                end.database,
            ):
                self._drop_slot(admin, row[0])
            admin.execute(f"DROP DATABASE IF EXISTS {end.database} WITH (FORCE)")

    def _drop_slot(self, admin: End, slot: str) -> None:
        active = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1"
        admin.query(
            f"SELECT pg_terminate_backend(pid) FROM ({active}) AS s (pid) WHERE pid > 0", slot
        )
        self.wait(lambda: admin.value(active, slot) is None, f"slot {slot} is free", 20)
        admin.query("SELECT pg_drop_replication_slot($1)", slot)


def _databases(server: Postgres) -> list[str]:
    return [row[0] for row in End(server, "postgres").query("SELECT datname FROM pg_database")]


def days_sql(minutes: int) -> str:
    """Have the partitions of the last minutes made, as the agent does before it writes."""
    return (
        "SELECT plc_make_partitions(ARRAY(SELECT generate_series("
        f"floor(extract(epoch FROM now() - interval '{minutes} minutes') / 86400)::int8,"
        " floor(extract(epoch FROM now()) / 86400)::int8)))"
    )
