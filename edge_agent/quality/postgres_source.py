"""Samples out of PostgreSQL, with TimescaleDB or without, at the edge or at the remote.

It asks with the rights of `viewer` and by statements that are the same on both flavours; it never
writes. One connection, one question at a time: a plant's database has better things to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from edge_agent.clock import MINUTE_MS
from edge_agent.errors import TransientError
from edge_agent.model import TagKey
from edge_agent.postgres.columns import ascending, times_ms, unpacked
from edge_agent.postgres.connection import Dsn, connect, disconnect, translated_errors
from edge_agent.postgres.sql_files import queries
from edge_agent.quality.collect import Columns, Kept
from edge_agent.quality.figures import Minutes

CALL_TIMEOUT_S: Final = 60.0
"""An hour of thirty tags takes 0.1 s from memory, a day of minutes from a cold disk some seconds;
the first question to compressed chunks pays for decompressing them."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class PostgresSource:
    """The database at ``dsn``. Raises ``ConfigError`` for a wrong one."""

    def __init__(self, name: str, dsn: str) -> None:
        self.name = name
        self._dsn = Dsn(dsn)
        self._connection: Any = None

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            with suppress(TimeoutError):
                await disconnect(self._connection)
            self._connection = None

    async def tags(self, start_ms: int, end_ms: int) -> set[TagKey]:
        """Every tag that has samples in the hours that the range touches."""
        ((ready,),) = await self._fetch("minutes_ready")
        until = min(ready, _time(end_ms))
        return {TagKey(*row) for row in await self._fetch("dashboard_tags", _time(start_ms), until)}

    async def kept(self, start_ms: int) -> Kept:
        """What a range can be judged by: what the next retention may drop counts as gone."""
        ((samples_from, minutes_from),) = await self._fetch("dashboard_kept")
        ((begins,),) = await self._fetch("quality_begins", _time(start_ms))
        begins_ms = 0 if begins is None else _ms(begins) + MINUTE_MS
        return Kept(_ms(samples_from), max(begins_ms, _ms(minutes_from)))

    async def samples(
        self, site: str, device: str, tags: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Columns]:
        """Every sample in the range."""
        rows = await self._fetch(
            "quality_samples", site, device, list(tags), _time(start_ms), _time(end_ms)
        )
        found: dict[str, Columns] = {}
        for tag, times, values in rows:
            ordered, column = ascending(times_ms(times), unpacked("d", values))
            found[tag] = ordered, column
        return found

    async def minutes(
        self, site: str, device: str, tags: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Minutes]:
        """Every minute that starts in the range and has samples."""
        rows = await self._fetch(
            "quality_minutes", site, device, list(tags), _time(start_ms), _time(end_ms)
        )
        return {
            tag: Minutes(
                *ascending(
                    times_ms(starts),
                    unpacked("q", samples),
                    unpacked("d", least),
                    unpacked("d", greatest),
                )
            )
            for tag, starts, samples, least, greatest in rows
        }

    async def _fetch(self, query: str, *arguments: object) -> list[Any]:
        try:
            with translated_errors(self._dsn, "quality"):
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    connection = await self._opened()
                    return list(await connection.fetch(queries()[query], *arguments))
        except TransientError as error:
            if getattr(error.__cause__, "sqlstate", None) != "42501":
                raise
            hint = (
                "run `edge-agent db init --dsn OWNER_DSN`, then"
                f" `GRANT viewer TO {self._dsn.user or 'USER'}`; the agent's own role `ingest` may"
                " only write"
            )
            raise TransientError(str(error), hint=hint) from error

    async def _opened(self) -> Any:
        if self._connection is None:
            self._connection = await connect(
                self._dsn, "edge-agent quality", command_timeout_s=CALL_TIMEOUT_S
            )
            await self._connection.execute(queries()["quality_session"])
        return self._connection


def _time(ms: int) -> datetime:
    return _EPOCH + ms * _MILLISECOND


def _ms(time_: datetime) -> int:
    return (time_ - _EPOCH) // _MILLISECOND
