"""History out of PostgreSQL, with TimescaleDB or without, at the edge or at the remote.

It asks with the rights of `viewer` and by the statements of sql/queries.sql, which are the same on
both flavours; it never writes. Connections are opened when they are needed, and one whose call has
failed is given up: the next call finds out by itself whether the server is back.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from dashboard.data.base import (
    Buckets,
    Check,
    Kept,
    Minutes,
    Newest,
    Row,
    Samples,
    is_by_hours,
)
from edge_agent.errors import TransientError
from edge_agent.model import Series, TagKey
from edge_agent.postgres.columns import ascending, times_ms, unpacked
from edge_agent.postgres.connection import Dsn, connect, disconnect, translated_errors
from edge_agent.postgres.health import read_health
from edge_agent.postgres.sql_files import queries

CONNECTIONS_MAX: Final = 3
"""A page asks for two things at a time; a plant's database has better things to do."""
CALL_TIMEOUT_S: Final = 10.0
"""From waiting for a connection to the last row. Years of twenty tags take some seconds."""
TAGS_AGE_MAX_S: Final = 60.0
"""How long the list of tags is good for. A new tag has its first minute only by then."""
CLOCK_ERROR_MAX: Final = timedelta(minutes=10)
"""How far ahead of this machine's clock the newest sample is looked for; partitions are made for
days ahead, and each would be looked at for every tag."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


class PostgresHistory:
    """The database at ``dsn``. Raises ``ConfigError`` for a wrong one."""

    def __init__(
        self, name: str, dsn: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._dsn = Dsn(dsn)
        self._monotonic = monotonic
        self._idle: list[Any] = []
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)
        self._is_closed = False
        self._tags: list[TagKey] = []
        self._tags_since_ms = 0
        self._tags_at_s = float("-inf")

    async def close(self) -> None:
        """Close the connections that nobody uses, and each other one after its call."""
        self._is_closed = True
        while self._idle:
            await disconnect(self._idle.pop())

    async def minutes(
        self, start_ms: int, end_ms: int, tags: Collection[TagKey] | None = None
    ) -> Mapping[TagKey, Minutes]:
        """One-minute averages of these tags, or of all, as far as they need not be computed."""
        async with self._connection("minutes") as connection:
            ready = await connection.fetchval(queries()["minutes_ready"])
            end = min(ready, _time(end_ms))
            rows = await connection.fetch(queries()["card_minutes"], _time(start_ms), end)
        # Most tags have the same minutes, so they share one array of them.
        known: dict[bytes, array[int]] = {}
        found = {}
        for *key, buckets, averages in rows:
            if tags is not None and TagKey(*key) not in tags:
                continue
            if buckets not in known:
                known[buckets] = times_ms(buckets)
            found[TagKey(*key)] = Minutes(*ascending(known[buckets], _floats(averages)))
        return found

    async def newest(self, since_ms: int) -> list[Newest]:
        """The newest sample, not older than ``since_ms``, of every tag that has one.

        A new tag is found within `TAGS_AGE_MAX_S` of its first minute.
        """
        async with self._connection("newest") as connection:
            tags = await self._known_tags(connection, since_ms)
            if not tags:
                return []
            sites, devices, names = map(list, zip(*tags, strict=True))
            until = datetime.now(UTC) + CLOCK_ERROR_MAX
            rows = await connection.fetch(
                queries()["card_latest"], sites, devices, names, _time(since_ms), until
            )
        return [
            Newest(Series(site, line, device, tag, unit), _ms(ts), value)
            for site, line, device, tag, ts, value, unit in rows
        ]

    async def buckets(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int, step_ms: int
    ) -> Mapping[str, Buckets]:
        """Aggregates of one device's tags. Minutes (hours) of a bucket weigh the same: their
        counts would have to be looked up in the table, the rest stands in its index."""
        rows = await self._fetch(
            "device_hour_steps" if is_by_hours(step_ms) else "device_minute_steps",
            *(site, device, list(tags), _time(start_ms), _time(end_ms)),
            timedelta(milliseconds=step_ms),
        )
        return {row[0]: _buckets(*row[1:]) for row in rows}

    async def samples(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Samples]:
        """Every sample of one device's tags in the range."""
        rows = await self._fetch(
            "device_samples", site, device, list(tags), _time(start_ms), _time(end_ms)
        )
        return {
            tag: Samples(*ascending(times_ms(times), _floats(values)))
            for tag, times, values in rows
        }

    async def counts(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> Mapping[str, int]:
        """How many samples the minutes of a range have."""
        rows = await self._fetch(
            "device_counts", site, device, list(tags), _time(start_ms), _time(end_ms)
        )
        return {tag: int(samples) for tag, samples in rows}

    async def kept(self) -> Kept:
        """Since when there are samples and minutes, by the database's own settings."""
        ((samples_from, minutes_from),) = await self._fetch("dashboard_kept")
        return Kept(_ms(samples_from), _ms(minutes_from))

    async def seen(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> set[str]:
        """Which of these tags have samples in any of the hours that begin in the range."""
        rows = await self._fetch(
            "device_seen", site, device, list(tags), _time(start_ms), _time(end_ms)
        )
        return {tag for (tag,) in rows}

    async def series(self, site: str, device: str, tags: Sequence[str]) -> Mapping[str, Series]:
        """Line and unit of one device's tags, as the newest sample of each has them."""
        rows = await self._fetch("device_series", site, device, list(tags))
        return {tag: Series(site, line, device, tag, unit) for tag, line, unit in rows}

    async def rows(self, site: str, device: str, tags: Sequence[str], limit: int) -> list[Row]:
        """The newest samples of these tags together, newest first."""
        rows = await self._fetch("device_rows", site, device, list(tags), limit)
        return [Row(_ms(ts), tag, value) for ts, tag, value in rows]

    async def health(self) -> list[Check]:
        """What the database says of itself."""
        async with self._connection("health") as connection:
            found = await read_health(connection)
        return [Check(each.check, each.object, each.value, each.problem) for each in found]

    async def _known_tags(self, connection: Any, since_ms: int) -> list[TagKey]:
        """The tags that have samples since then, a minute old at most."""
        is_old = self._monotonic() - self._tags_at_s >= TAGS_AGE_MAX_S
        if is_old or since_ms < self._tags_since_ms:
            ready = await connection.fetchval(queries()["minutes_ready"])
            rows = await connection.fetch(queries()["dashboard_tags"], _time(since_ms), ready)
            self._tags = [TagKey(*row) for row in rows]
            self._tags_since_ms = since_ms
            self._tags_at_s = self._monotonic()
        return self._tags

    async def _fetch(self, query: str, *arguments: object) -> list[Any]:
        async with self._connection(query) as connection:
            return list(await connection.fetch(queries()[query], *arguments))

    @asynccontextmanager
    async def _connection(self, doing: str) -> AsyncIterator[Any]:
        """A connection for one call; kept for the next one if all went well."""
        try:
            with translated_errors(self._dsn, doing):
                async with asyncio.timeout(CALL_TIMEOUT_S), self._places:
                    connection = await self._opened()
                    try:
                        yield connection
                    except BaseException:
                        connection.terminate()
                        raise
                    if self._is_closed:
                        await disconnect(connection)
                    else:
                        self._idle.append(connection)
        except TransientError as error:
            if getattr(error.__cause__, "sqlstate", None) != "42501":
                raise
            hint = (
                "run `edge-agent db init --dsn OWNER_DSN`, then"
                f" `GRANT viewer TO {self._dsn.user or 'USER'}`"
            )
            raise TransientError(str(error), hint=hint) from error

    async def _opened(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        connection = await connect(self._dsn, "edge-dashboard", command_timeout_s=CALL_TIMEOUT_S)
        try:
            await connection.execute(queries()["dashboard_session"])
        except BaseException:
            connection.terminate()
            raise
        return connection


def _time(ms: int) -> datetime:
    """A time that PostgreSQL and Python both know; what lies beyond is as good as the limit."""
    try:
        return _EPOCH + ms * _MILLISECOND
    except OverflowError:
        return _FIRST if ms < 0 else _LAST


def _ms(time_: datetime) -> int:
    return (time_ - _EPOCH) // _MILLISECOND


def _floats(data: bytes) -> array[float]:
    return unpacked("d", data)


def _buckets(times: bytes, averages: bytes, lowest: bytes, highest: bytes, parts: bytes) -> Buckets:
    bands = map(_floats, (averages, lowest, highest))
    columns = ascending(times_ms(times), *bands, unpacked("q", parts))
    # A rounded average may lie a hair outside; a chart's band would not contain its line.
    columns[1][:] = array("d", map(min, map(max, columns[1], columns[2]), columns[3]))
    return Buckets(*columns)
