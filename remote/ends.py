"""The two databases that `edge-remote` stands between, and what it must know about each.

An `End` is one connection with the owner's rights. Its statements are the named ones of
sql/queries.sql; its errors are `ConfigError` and `TransientError`, and begin with the end's label.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from edge_agent.errors import ConfigError, TransientError
from edge_agent.postgres.connection import (
    COMMAND_TIMEOUT_S,
    Dsn,
    connect,
    disconnect,
    transaction,
    translated_errors,
)
from edge_agent.postgres.sql_files import queries
from edge_agent.settings import Settings

Label = Literal["edge", "remote"]

SERVER_VERSION_MIN = 15
"""The first that counts the errors of a subscription (pg_stat_subscription_stats)."""
CLOCK_SKEW_MAX_S = 5.0
"""More than this and lag, reconcile's upper limit and the rule for days mean different times."""
CLOCK_LOOKS = 3
"""The quickest answer of so many tells the time best."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says about itself and about whom it talks to."""

    version: str
    version_num: int
    encoding: str
    database: str
    user: str
    superuser: bool
    wal_level: str
    started_at: datetime
    """To the microsecond: two ends that agree in it are one server."""


class End:
    """One open connection to a database; ``label`` says which of the two it is.

    ``flavour`` is "timescale" or "postgres", or None where the schema is not applied.
    """

    def __init__(
        self, label: Label, dsn: Dsn, connection: Any, facts: Facts, flavour: str | None
    ) -> None:
        self.label: Label = label
        self.dsn = dsn
        self.connection = connection
        self.facts = facts
        self.flavour = flavour

    def __repr__(self) -> str:
        return f"{self.label} {self.dsn!r}"

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        """All rows of a named query."""
        with self.errors(query):
            return list(await self.connection.fetch(queries()[query], *arguments))

    async def fetchrow(self, query: str, *arguments: object) -> Any:
        """The first row of a named query, or None."""
        with self.errors(query):
            return await self.connection.fetchrow(queries()[query], *arguments)

    async def fetchval(self, query: str, *arguments: object) -> Any:
        """The first column of the first row of a named query, or None."""
        with self.errors(query):
            return await self.connection.fetchval(queries()[query], *arguments)

    async def execute(self, sql: str, *arguments: object, doing: str = "execute") -> None:
        """Run SQL that is not a named query; several statements if there are no arguments."""
        with self.errors(doing):
            await self.connection.execute(sql, *arguments)

    @asynccontextmanager
    async def transaction(self, doing: str) -> AsyncIterator[None]:
        """Commit at the end, roll back on an error; for calls on ``connection`` as well."""
        with self.errors(doing):
            async with transaction(self.connection):
                yield

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Translate the library's errors into ``TransientError``, led by the label."""
        with labelled(self.label), translated_errors(self.dsn, doing):
            yield


@contextmanager
def labelled(label: Label) -> Iterator[None]:
    """Put the end's label before the message of our own errors."""
    try:
        yield
    except (TransientError, ConfigError) as error:
        text = str(error)
        if text.startswith(f"{label}: "):
            raise
        raise type(error)(f"{label}: {text}", hint=error.hint) from error


def address(settings: Settings, label: Label) -> Dsn:
    """The dsn of an end. Raises ``ConfigError`` if it is not set or can't be one."""
    given = settings.remote
    secret = given.edge_dsn if label == "edge" else given.remote_dsn
    if secret is None:
        raise ConfigError(
            f"{label}: no database given",
            hint=f"set remote.{label}_dsn, or --{label}-dsn postgresql://owner@host/database",
        )
    with labelled(label):
        return Dsn(secret.get_secret_value())


@asynccontextmanager
async def connected(
    settings: Settings, label: Label, command_timeout_s: float = COMMAND_TIMEOUT_S
) -> AsyncIterator[End]:
    """Open one end, without judging it. Raises ``ConfigError`` and ``TransientError``."""
    dsn = address(settings, label)
    with labelled(label), translated_errors(dsn, "connect"):
        connection = await connect(dsn, f"edge-remote {settings.remote.name}", command_timeout_s)
    try:
        with labelled(label), translated_errors(dsn, "look at the server"):
            facts = Facts(**await connection.fetchrow(queries()["end_facts"]))
            flavour = None
            if await connection.fetchval(queries()["end_has_settings"]):
                flavour = await connection.fetchval(queries()["end_flavour"])
        yield End(label, dsn, connection, facts, flavour)
    finally:
        await disconnect(connection)


@asynccontextmanager
async def both(
    settings: Settings, command_timeout_s: float = COMMAND_TIMEOUT_S
) -> AsyncIterator[tuple[End, End]]:
    """Open the edge and the remote, in this order; each statement has ``command_timeout_s``.

    Raises ``ConfigError`` that lists everything that makes this pair unfit for any command, and
    ``TransientError`` if one of them can't be reached.
    """
    async with (
        connected(settings, "edge", command_timeout_s) as edge,
        connected(settings, "remote", command_timeout_s) as remote,
    ):
        refuse([*unfit(edge), *unfit(remote), *same_server(edge, remote)])
        yield edge, remote


def refuse(problems: Sequence[str]) -> None:
    """Raise ``ConfigError`` with all problems, if there are any."""
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigError(f"{len(problems)} problems:{lines}")


def unfit(end: End) -> list[str]:
    """Why this server or login can't be an end at all, each with what to do."""
    facts, found = end.facts, []
    if facts.version_num // 10_000 < SERVER_VERSION_MIN:
        found.append(
            f"{end}: PostgreSQL {facts.version} is too old: it must be {SERVER_VERSION_MIN} or "
            "newer; upgrade this server (pg_upgrade)"
        )
    if facts.encoding != "UTF8":
        found.append(
            f"{end}: the database's encoding is {facts.encoding}, which can't store every name: "
            "create it with ENCODING 'UTF8' TEMPLATE template0"
        )
    if not facts.superuser:
        needs = (
            "roles with REPLICATION and max_slot_wal_keep_size need one"
            if end.label == "edge"
            else "subscriptions need one"
        )
        found.append(
            f"{end}: the role {facts.user} is not a superuser, and {needs}: use another login in "
            f"remote.{end.label}_dsn, or `ALTER ROLE {facts.user} SUPERUSER` on this server"
        )
    return found


def same_server(edge: End, remote: End) -> list[str]:
    """A subscription to its own server would wait for itself for ever."""
    if edge.facts.started_at != remote.facts.started_at:
        return []
    problem = (
        f"{edge} and {remote} are on the same server: remote.edge_dsn and remote.remote_dsn must "
        "name two servers"
    )
    return [problem]


async def clock_skew_s(
    edge: End, remote: End, monotonic: Callable[[], float] = time.monotonic
) -> float:
    """How far the edge's clock is ahead of the remote's, in seconds; negative if it is behind.

    Off by half the quickest round trips at most.
    """
    return await _clock_offset_s(edge, monotonic) - await _clock_offset_s(remote, monotonic)


def clock_problem(skew_s: float) -> str | None:
    """What to say about a skew, if it is too large."""
    if abs(skew_s) <= CLOCK_SKEW_MAX_S:
        return None
    ahead, behind = ("edge", "remote") if skew_s > 0 else ("remote", "edge")
    return (
        f"the clock of the {ahead} is {abs(skew_s):.1f} s ahead of the {behind}'s; at most "
        f"{CLOCK_SKEW_MAX_S:g} s are allowed: run an NTP client on both (`timedatectl`)"
    )


async def _clock_offset_s(end: End, monotonic: Callable[[], float]) -> float:
    """A server's clock less ours, by the answer that came quickest."""
    best = (float("inf"), 0.0)
    for _ in range(CLOCK_LOOKS):
        before = monotonic()
        epoch = await end.fetchval("end_clock")
        after = monotonic()
        best = min(best, (after - before, epoch - (before + after) / 2))
    return best[1]
