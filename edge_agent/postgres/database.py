"""The database's own needs: its schema (`db init`, `db status`) and its upkeep.

The schema is the numbered files of `sql/`, each idempotent; the table schema_version says which
of them were applied and with which content. It has two flavours with the same tables, columns and
functions, and a database keeps the one that it was given first. Upkeep is what the plain *postgres*
flavour does not do by itself: roll up, make partitions ahead, drop what is old. With *timescale*
the same calls find little to do, because the server's background jobs do it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from edge_agent.postgres.connection import (
    Dsn,
    check_server,
    connect,
    disconnect,
    transaction,
    translated_errors,
)
from edge_agent.postgres.flavours import check_flavour, choose_flavour
from edge_agent.postgres.health import HealthCheck, read_health
from edge_agent.postgres.sql_files import SchemaFile, queries, schema_files
from edge_agent.settings import PostgresSettings

SCHEMA_LOCK_TIMEOUT_S = 10
"""`db init` on a busy database gives up rather than queue every writer behind itself."""
DAYS_AHEAD = 3
"""A weekend without upkeep still finds its partitions; the sink makes what is missing anyway."""
ROLLUP_MINUTES_MAX = 10
"""Minutes per call: at 5,000 samples/s on a Raspberry Pi about 15 s of work, one transaction."""
ROLLUP_BUDGET_S = 40.0
"""Upkeep runs each minute and leaves the server time to breathe."""
UPKEEP_COMMAND_TIMEOUT_S = 120.0
"""A call that takes longer is asked for fewer minutes the next time."""

DATABASE_SETTINGS = (
    "chunk_days",
    "compress_days",
    "raw_days",
    "minute_days",
    "refresh_minute_days",
    "refresh_hour_days",
)
"""Keys of [postgres] that the database keeps for itself: `ingest` may not change them."""

FileState = Literal["applied", "changed", "missing"]


@dataclass(frozen=True, slots=True)
class FileStatus:
    """One file of `sql/`: applied as it is, applied with other content, or not at all."""

    name: str
    state: FileState


@dataclass(frozen=True, slots=True)
class InitReport:
    """What `db init` did: names of the files it applied, and of those that already were.

    ``reason`` says why it is this flavour.
    """

    flavour: str
    reason: str
    applied: tuple[str, ...]
    unchanged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """What `db status` says. Everything after ``files`` is None or empty until the schema is there.

    ``settings`` are the database's own, ``differing`` those of them that the settings file says
    otherwise. ``partitions`` are chunks in the *timescale* flavour; ``days_ahead`` counts those
    ready after today, ``dirty_minutes`` the minutes that wait for a rollup (both None in the
    *timescale* flavour), ``rows_estimate`` comes from the server's statistics.
    """

    server_version: str
    flavour: str
    files: tuple[FileStatus, ...]
    settings: Mapping[str, int] = field(default_factory=dict)
    differing: Mapping[str, int] = field(default_factory=dict)
    health: tuple[HealthCheck, ...] = ()
    partitions: int | None = None
    oldest_day: date | None = None
    newest_day: date | None = None
    days_ahead: int | None = None
    rows_estimate: int | None = None
    dirty_minutes: int | None = None
    dirty_oldest: datetime | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, each with what to do; empty if all is well."""
        found = [
            f"{file.name} is {file.state}: run `edge-agent db init --dsn OWNER_DSN`"
            for file in self.files
            if file.state != "applied"
        ]
        found += [
            f"{key} is {self.settings[key]} in the database and {wanted} in the settings: "
            "run `edge-agent db init --dsn OWNER_DSN`"
            for key, wanted in self.differing.items()
        ]
        found += [check.problem for check in self.health if check.problem is not None]
        return tuple(found)


async def init(
    dsn: str,
    *,
    flavour: str = "auto",
    settings: PostgresSettings | None = None,
    again: bool = False,
) -> InitReport:
    """Apply the files of `sql/` that are missing or changed, all of them if ``again``.

    ``flavour`` *auto* is the one that the database has; in a new one *timescale* if the server
    offers TimescaleDB, else *postgres*. The `DATABASE_SETTINGS` of ``settings`` are written and
    take effect; without settings the database keeps those it has.
    The dsn's role must own the database and be allowed to create roles. One transaction, under a
    lock: it takes place whole or not at all, and two at once do it once. Raises ``ConfigError``
    for a wrong dsn or a flavour that can't be had, ``TransientError`` for everything else.
    """
    address = Dsn(dsn)
    check_flavour(flavour)
    with translated_errors(address, "db init"):
        connection = await connect(address, "edge-agent db init")
        try:
            async with transaction(connection):
                await check_server(connection)
                await connection.execute(f"SET LOCAL lock_timeout = '{SCHEMA_LOCK_TIMEOUT_S}s'")
                await connection.execute(queries()["schema_lock"])
                recorded = await recorded_files(connection)
                facts = await connection.fetchrow(queries()["timescale_facts"])
                chosen, reason = choose_flavour(flavour, recorded, facts)
                files = schema_files(chosen)
                states = {f.name: _state(f, recorded.get(f.name)) for f in files}
                wanted = [f for f in files if again or states[f.name] != "applied"]
                for file in wanted:
                    with translated_errors(address, file.name):
                        await apply_file(connection, file)
                await _apply_settings(connection, settings)
                await connection.execute(queries()["partitions_ahead"], DAYS_AHEAD)
        finally:
            await disconnect(connection)
    applied = tuple(file.name for file in wanted)
    unchanged = tuple(f.name for f in files if f.name not in applied)
    return InitReport(chosen, reason, applied, unchanged)


async def status(
    dsn: str, *, flavour: str = "auto", settings: PostgresSettings | None = None
) -> DatabaseStatus:
    """Look at the schema and the upkeep's backlog, with the owner's dsn; changes nothing.

    What ``settings`` says otherwise than the database is a problem. Raises ``ConfigError`` for a
    wrong dsn or flavour, ``TransientError`` for everything else.
    """
    address = Dsn(dsn)
    check_flavour(flavour)
    with translated_errors(address, "db status"):
        connection = await connect(address, "edge-agent db status")
        try:
            async with transaction(connection):
                version = (await connection.fetchrow(queries()["server_facts"]))["version"]
                recorded = await recorded_files(connection)
                facts = await connection.fetchrow(queries()["timescale_facts"])
                chosen, _ = choose_flavour(flavour, recorded, facts)
                files = tuple(
                    FileStatus(file.name, _state(file, recorded.get(file.name)))
                    for file in schema_files(chosen)
                )
                if any(file.state == "missing" for file in files):
                    return DatabaseStatus(version, chosen, files)
                has = dict(await connection.fetchrow(queries()["settings_read"]))
                counted = await connection.fetchrow(queries()["status"])
                health = await read_health(connection)
        finally:
            await disconnect(connection)
    wanted = _database_settings(settings) if settings is not None else {}
    differing = {key: value for key, value in wanted.items() if has[key] != value}
    return DatabaseStatus(version, chosen, files, has, differing, health, **counted)


async def _apply_settings(connection: Any, settings: PostgresSettings | None) -> None:
    await connection.execute(queries()["owner_role"])
    if settings is not None:
        await connection.execute(
            queries()["settings_write"], *_database_settings(settings).values()
        )
    await connection.execute(queries()["settings_apply"])
    await connection.execute("RESET ROLE")


def _database_settings(settings: PostgresSettings) -> dict[str, int]:
    """By name, in the order of `DATABASE_SETTINGS`."""
    return {key: getattr(settings, key) for key in DATABASE_SETTINGS}


@dataclass(frozen=True, slots=True)
class UpkeepReport:
    """What one round of upkeep did, and ``minutes_left``: touched minutes not rolled up yet.

    ``health`` is what the database says of itself after it.
    """

    minutes_left: int
    partitions_dropped: int
    minutes_deleted: int
    health: tuple[HealthCheck, ...] = ()


class Upkeep:
    """The minutely chores, with the rights of `ingest`.

    Each round has a connection of its own and takes no lock that a writer waits for, except
    retention's, for at most 0.1 s. How long rows are kept is the database's own setting. Raises
    ``ConfigError`` for a wrong dsn.
    """

    def __init__(
        self,
        *,
        agent_id: str,
        dsn: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dsn = Dsn(dsn)
        self._agent_id = agent_id
        self._application_name = f"edge-agent {agent_id} upkeep"
        self._monotonic = monotonic
        self._minutes_max = ROLLUP_MINUTES_MAX

    async def run(self) -> UpkeepReport:
        """One round; to be called about each minute. Raises ``TransientError``."""
        with translated_errors(self._dsn, "upkeep"):
            connection = await connect(
                self._dsn, self._application_name, command_timeout_s=UPKEEP_COMMAND_TIMEOUT_S
            )
            try:
                left = await self._roll_up(connection)
                await _in_transaction(connection, "partitions_ahead", DAYS_AHEAD)
                old = await _in_transaction(connection, "retention")
                health = await read_health(connection)
            finally:
                await disconnect(connection)
        return UpkeepReport(left, old["partitions_dropped"], old["minutes_deleted"], health)

    async def record_map(self, sha256: str, author: str, rows: bytes) -> None:
        """Record a map that was applied; once more does nothing. ``rows`` are a JSON array.

        Raises ``TransientError``.
        """
        with translated_errors(self._dsn, "record the address map"):
            connection = await connect(
                self._dsn, self._application_name, command_timeout_s=UPKEEP_COMMAND_TIMEOUT_S
            )
            try:
                await _in_transaction(
                    connection, "map_record", sha256, author, self._agent_id, rows.decode()
                )
            finally:
                await disconnect(connection)

    async def _roll_up(self, connection: Any) -> int:
        """Work the backlog off until it no longer shrinks or the time is up; returns the rest."""
        deadline = self._monotonic() + ROLLUP_BUDGET_S
        left: int | None = None
        while True:
            before = left
            try:
                left = int((await _in_transaction(connection, "rollup", self._minutes_max))[0])
            except TimeoutError:
                self._minutes_max = max(1, self._minutes_max // 2)
                raise
            stuck = before is not None and left >= before
            if left == 0 or stuck or self._monotonic() > deadline:
                return left


async def _in_transaction(connection: Any, query: str, *arguments: object) -> Any:
    async with transaction(connection):
        return await connection.fetchrow(queries()[query], *arguments)


async def apply_file(connection: Any, file: SchemaFile) -> None:
    """Apply a file and record it, in the caller's transaction."""
    await connection.execute(file.text)
    await connection.execute("RESET ROLE")
    await connection.execute(queries()["schema_record"], file.name, file.sha256)


async def recorded_files(connection: Any) -> dict[str, str]:
    """SHA-256 of every file that was applied, by name."""
    if not await connection.fetchval(queries()["schema_exists"]):
        return {}
    return dict(await connection.fetch(queries()["schema_applied"]))


def _state(file: SchemaFile, recorded: str | None) -> FileState:
    if recorded is None:
        return "missing"
    return "applied" if recorded == file.sha256 else "changed"
