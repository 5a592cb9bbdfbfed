"""The database's own needs: its schema (`db init`, `db status`) and its upkeep.

The schema is the numbered files of `sql/`, each idempotent; the table schema_version says which
of them were applied and with which content. Upkeep is what the plain *postgres* flavour does not
do by itself: roll up, make partitions ahead, drop what is old.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from edge_agent.postgres import (
    Dsn,
    check_server,
    connect,
    disconnect,
    transaction,
    translated_errors,
)
from edge_agent.sql_files import SchemaFile, queries, schema_files

SCHEMA_LOCK_TIMEOUT_S = 10
"""`db init` on a busy database gives up rather than queue every writer behind itself."""
DAYS_AHEAD = 3
"""A weekend without upkeep still finds its partitions; the sink makes what is missing anyway."""
DIRTY_MINUTES_MAX = 60
"""More touched minutes than this wait only if upkeep does not run or can't keep up."""
ROLLUP_MINUTES_MAX = 10
"""Minutes per call: at 5,000 samples/s on a Raspberry Pi about 15 s of work, one transaction."""
ROLLUP_BUDGET_S = 40.0
"""Upkeep runs each minute and leaves the server time to breathe."""
UPKEEP_COMMAND_TIMEOUT_S = 120.0
"""A call that takes longer is asked for fewer minutes the next time."""

FileState = Literal["applied", "changed", "missing"]


@dataclass(frozen=True, slots=True)
class FileStatus:
    """One file of `sql/`: applied as it is, applied with other content, or not at all."""

    name: str
    state: FileState


@dataclass(frozen=True, slots=True)
class InitReport:
    """What `db init` did: names of the files it applied, and of those that already were."""

    applied: tuple[str, ...]
    unchanged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """What `db status` says. Everything after ``files`` is None until the schema is there.

    ``days_ahead`` counts the partitions ready after today, ``dirty_minutes`` the minutes that wait
    for a rollup, ``rows_estimate`` comes from the server's statistics.
    """

    server_version: str
    flavour: str
    files: tuple[FileStatus, ...]
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
        if self.days_ahead == 0:
            found.append("no partition ahead: is the agent running, and its postgres dsn right?")
        if (self.dirty_minutes or 0) > DIRTY_MINUTES_MAX:
            found.append(
                f"{self.dirty_minutes} minutes wait for their rollup: is the agent running?"
            )
        return tuple(found)


async def init(dsn: str, *, flavour: str = "postgres", again: bool = False) -> InitReport:
    """Apply the files of `sql/` that are missing or changed, all of them if ``again``.

    The dsn's role must own the database and be allowed to create roles. One transaction, under a
    lock: it takes place whole or not at all, and two at once do it once. Raises ``ConfigError``
    for a wrong dsn or flavour, ``TransientError`` for everything else.
    """
    address, files = Dsn(dsn), schema_files(flavour)
    with translated_errors(address, "db init"):
        connection = await connect(address, "edge-agent db init")
        try:
            async with transaction(connection):
                await check_server(connection)
                await connection.execute(f"SET LOCAL lock_timeout = '{SCHEMA_LOCK_TIMEOUT_S}s'")
                await connection.execute(queries()["schema_lock"])
                states = await _file_states(connection, files)
                wanted = [f for f in files if again or states[f.name] != "applied"]
                for file in wanted:
                    with translated_errors(address, file.name):
                        await connection.execute(file.text)
                    await connection.execute("RESET ROLE")
                for file in wanted:
                    await connection.execute(queries()["schema_record"], file.name, file.sha256)
                await connection.execute(queries()["partitions_ahead"], DAYS_AHEAD)
        finally:
            await disconnect(connection)
    applied = tuple(file.name for file in wanted)
    return InitReport(applied, tuple(f.name for f in files if f.name not in applied))


async def status(dsn: str, *, flavour: str = "postgres") -> DatabaseStatus:
    """Look at the schema and the upkeep's backlog, with the owner's dsn; changes nothing.

    Raises ``ConfigError`` for a wrong dsn or flavour, ``TransientError`` for everything else.
    """
    address, files = Dsn(dsn), schema_files(flavour)
    with translated_errors(address, "db status"):
        connection = await connect(address, "edge-agent db status")
        try:
            async with transaction(connection):
                version = (await connection.fetchrow(queries()["server_facts"]))["version"]
                states = await _file_states(connection, files)
                found = tuple(FileStatus(name, state) for name, state in states.items())
                if "missing" in states.values():
                    return DatabaseStatus(version, flavour, found)
                partitions = await connection.fetchrow(queries()["status_partitions"])
                dirty = await connection.fetchrow(queries()["status_dirty"])
        finally:
            await disconnect(connection)
    return DatabaseStatus(
        version,
        flavour,
        found,
        **partitions,
        dirty_minutes=dirty["minutes"],
        dirty_oldest=dirty["oldest"],
    )


@dataclass(frozen=True, slots=True)
class UpkeepReport:
    """What one round of upkeep did, and ``minutes_left``: touched minutes not rolled up yet."""

    minutes_left: int
    partitions_dropped: int
    minutes_deleted: int


class Upkeep:
    """The minutely chores of the *postgres* flavour, with the rights of `ingest`.

    Each round has a connection of its own and takes no lock that a writer waits for, except
    retention's, for at most 0.1 s. ``raw_days`` and ``minute_days`` are how long plc_raw and plc_1m
    keep their rows (UTC days, at least 1); plc_1h keeps them for ever. Raises ``ConfigError`` for
    a wrong dsn.
    """

    def __init__(
        self,
        *,
        agent_id: str,
        dsn: str,
        raw_days: int = 90,
        minute_days: int = 400,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dsn = Dsn(dsn)
        self._application_name = f"edge-agent {agent_id} upkeep"
        self._raw_days = raw_days
        self._minute_days = minute_days
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
                old = await _in_transaction(
                    connection, "retention", self._raw_days, self._minute_days
                )
            finally:
                await disconnect(connection)
        return UpkeepReport(left, old["partitions_dropped"], old["minutes_deleted"])

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


async def _file_states(connection: Any, files: Sequence[SchemaFile]) -> dict[str, FileState]:
    """State of each file by name, in the files' order."""
    recorded: dict[str, str] = {}
    if await connection.fetchval(queries()["schema_exists"]):
        recorded = dict(await connection.fetch(queries()["schema_applied"]))
    return {file.name: _state(file, recorded.get(file.name)) for file in files}


def _state(file: SchemaFile, recorded: str | None) -> FileState:
    if recorded is None:
        return "missing"
    return "applied" if recorded == file.sha256 else "changed"
