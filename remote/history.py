"""Rows from the edge's plc_raw into the remote's, for any time that both keep.

The time asked for is copied portion by portion, oldest first. A portion is a piece of an hour, or
a whole one where rows are few. Its rows go into a staging table at the remote and from there into
plc_raw as far as they are not there yet; the note of how far that has got (plc_backfill) is
written in the same transaction. So:

* Doing it twice adds nothing, and rows that the subscription brings meanwhile do no harm.
* Killed at any moment, the next run goes on behind the last portion that committed.
* Memory is bounded by a few chunks, the staging table by about ROWS_PER_PORTION.

Each UTC day that got rows is brought up to date in plc_1m and plc_1h when it is through
(plc_refresh), and that is noted too: a day copied just before a kill is refreshed by the next run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import asyncpg

from edge_agent.errors import ConfigError, TransientError
from edge_agent.postgres.connection import transaction
from edge_agent.postgres.sql_files import queries
from edge_agent.progress_bar import Show
from remote.copying import Throttle, rows_of, stage
from remote.ends import End
from remote.hours import DAY, HOUR, Span, ceiling, day_number, floor, joined, shown, split
from remote.portions import ROWS_PER_PORTION, Copied, Job, Portions, midnight

THROTTLED_PORTION_S = 60
"""With a throttle a portion is smaller: about this long at the rate that is allowed."""
ATTEMPTS_MAX = 3
"""The subscription may write the same rows at the same time in another order. Of two transactions
that then wait for each other, the server ends one."""
LOOK_TIMEOUT_S = 300.0
"""For one short look per day, 1,100 days at most."""
INSERT_TIMEOUT_S = 1_800.0
"""A portion takes half a minute on a small server; rows that meet compressed chunks take longer."""
REFRESH_TIMEOUT_S = 7_200.0
"""A day of 5,000 samples/s is 432 million rows to aggregate."""
REFRESH_ATTEMPTS_MAX = 20
REFRESH_PAUSE_S = 3.0
"""A job of the server's is through with its minute after some seconds, once an hour after more."""
INCLUSIVE = timedelta(microseconds=1)
"""plc_refresh takes the minute or hour of its second time too."""
DAYS_BACK_MAX = timedelta(days=1_100)
"""plc_raw takes nothing older than 1,100 days (plc_make_partitions)."""

T = TypeVar("T")


async def require_setup(edge: End, remote: End) -> None:
    """Raise ``ConfigError`` unless both have the schema, and the remote what repairs need."""
    if edge.flavour is None:
        raise ConfigError(
            f"{edge}: the schema is not applied",
            hint="run `edge-agent db init --dsn OWNER_DSN` on it",
        )
    if remote.flavour is None or not await remote.fetchval("repair_ready"):
        raise ConfigError(f"{remote}: it is not set up yet", hint="run `edge-remote setup`")


async def plan(
    edge: End,
    remote: End,
    name: str,
    first: datetime | None,
    last: datetime | None,
    *,
    restart: bool = False,
) -> Job:
    """Find out what there is to do; changes nothing.

    Without ``first`` it begins at the first day that both sides keep, without ``last`` it ends
    now, by the edge's clock. Raises ``ConfigError`` for a time that the remote would not keep.
    """
    now: datetime = await edge.fetchval("repair_now")
    last = last or now
    keeps = await remote.fetchrow("repair_keeps")
    start = first or max(keeps["kept_from"], floor(now, DAY) - DAYS_BACK_MAX)
    if start >= last:
        raise ConfigError(
            f"--from {shown(start)} is not before --to {shown(last)}", hint="exchange them"
        )
    with edge.errors("look which days have rows"):
        rows = await edge.connection.fetch(
            queries()["repair_days"], start, last, timeout=LOOK_TIMEOUT_S
        )
    days = tuple(row["day"] for row in rows)
    if first is None and days:
        start = midnight(days[0])
    await _check_kept(remote, days, start, keeps)
    before = await remote.fetchrow("backfill_unfinished", name, start)
    if before is None or restart:
        return Job(name, start, last, start, start, days)
    return Job(name, before["first"], last, before["done_until"], before["refreshed_until"], days)


async def _check_kept(
    remote: End, days: Sequence[date], start: datetime, keeps: Mapping[str, Any]
) -> None:
    """Raise ``ConfigError`` if the remote refuses one of these days, or would drop it again."""
    if not days:
        return
    ends = sorted({day_number(days[0]), day_number(days[-1])})
    with remote.errors("look which days it takes"):
        await remote.connection.execute("BEGIN")
        try:
            # The rule stands in the function alone; what it makes is undone.
            refused = await remote.connection.fetchval(queries()["repair_make_partitions"], ends)
        finally:
            await remote.connection.execute("ROLLBACK")
    if refused:
        raise ConfigError(
            f"{remote}: plc_make_partitions refuses the day {_day(refused[0])}; allowed: from"
            " 1,100 days before today to 7 days ahead, by the remote's clock",
            hint="choose --from and --to so that this day is left out",
        )
    kept_from: datetime = keeps["kept_from"]
    if (oldest := max(start, midnight(days[0]))) < kept_from:
        raise ConfigError(
            f"{remote} keeps plc_raw for {keeps['raw_days']} days: rows from {shown(oldest)} on"
            f" would be dropped again; allowed: --from {kept_from.date()} or later",
            hint="or raise raw_days of [postgres] and run `edge-agent db init` on the remote",
        )


async def backfill(
    edge: End, remote: End, job: Job, throttle: Throttle | None, show: Show
) -> Copied:
    """Do the job, from where it stands to its end.

    Raises ``TransientError``, also where another backfill of the same name is at work; what has
    been copied until then stays, and the next run goes on from there.
    """
    await lock(remote, f"backfill of {job.name}")
    wanted = ROWS_PER_PORTION
    if throttle is not None:
        wanted = min(wanted, throttle.rows_per_second * THROTTLED_PORTION_S)
    portions, copied = Portions(job, wanted), Copied()
    key = (job.name, job.first)
    with remote.errors("note the beginning"):
        await remote.connection.execute(
            queries()["backfill_begin"], *key, job.last, job.copy_from, job.refresh_from
        )
    touched = [Span(job.refresh_from, job.copy_from)] if job.refresh_from < job.copy_from else []
    made: set[int] = set()
    while (portion := portions.next()) is not None:
        day_start = floor(portion.first, DAY)
        if touched and touched[-1].last <= day_start:
            await _refresh(remote, key, touched, until=day_start)
        if (day := day_number(day_start.date())) not in made:
            await make_partition(remote, day)
            made.add(day)
        rows, new = await _copy(edge, remote, key, portion, throttle)
        portions.learn(portion, rows)
        copied.rows, copied.new = copied.rows + rows, copied.new + new
        if new:
            touched.append(portion)
        done = (portion.last - job.first) / (job.last - job.first)
        show(done, f"up to {shown(portion.last)}: {copied.rows:,} rows, {copied.new:,} new")
    with remote.errors("note the end"):
        await remote.connection.execute(queries()["backfill_done"], *key, job.last)
    await _refresh(remote, key, touched, until=job.last)
    return copied


async def _copy(
    edge: End, remote: End, key: tuple[str, datetime], portion: Span, throttle: Throttle | None
) -> tuple[int, int]:
    """Copy a portion and note it, in one transaction; rows read, and rows that were new."""

    async def work() -> tuple[int, int]:
        rows = await stage(
            edge,
            remote,
            queries()["repair_rows"],
            portion.first,
            portion.last,
            throttle=throttle,
        )
        new = await insert_staged(remote) if rows else 0
        await remote.connection.execute(queries()["backfill_done"], *key, portion.last)
        return rows, new

    return await attempted(remote, f"copy {portion}", work)


async def insert_staged(remote: End) -> int:
    """Insert what plc_raw does not have yet of the staged rows; returns how many."""
    status = await remote.connection.execute(queries()["repair_insert"], timeout=INSERT_TIMEOUT_S)
    return rows_of(status)


async def make_partition(remote: End, day: int) -> None:
    """Have a day's partition made, in a transaction of its own: others wait for it to end."""
    with remote.errors("make a partition"):
        async with transaction(remote.connection):
            await remote.connection.fetchval(queries()["repair_make_partitions"], [day])


async def _refresh(
    remote: End, key: tuple[str, datetime], touched: list[Span], until: datetime
) -> None:
    await refresh(remote, touched)
    touched.clear()
    with remote.errors("note the refresh"):
        await remote.connection.execute(queries()["backfill_refreshed"], *key, until)


async def refresh(remote: End, touched: Sequence[Span]) -> None:
    """Bring plc_1m and plc_1h up to date where rows have changed: whole hours, a day at a time."""
    if not touched:
        return
    whole = [Span(floor(span.first, HOUR), ceiling(span.last, HOUR)) for span in touched]
    for stretch in joined(whole):
        for piece in split(stretch, DAY):
            await _refresh_piece(remote, piece)


async def _refresh_piece(remote: End, piece: Span) -> None:
    """The server refuses where a job refreshes the same rows at this moment: then try again."""
    with remote.errors(f"refresh plc_1m and plc_1h, {piece}"):
        for _ in range(REFRESH_ATTEMPTS_MAX - 1):
            with suppress(asyncpg.LockNotAvailableError):
                await _call_refresh(remote, piece)
                return
            await asyncio.sleep(REFRESH_PAUSE_S)
        await _call_refresh(remote, piece)


async def _call_refresh(remote: End, piece: Span) -> None:
    await remote.connection.execute(
        queries()["repair_refresh"], piece.first, piece.last - INCLUSIVE, timeout=REFRESH_TIMEOUT_S
    )


async def lock(remote: End, what: str) -> None:
    """Be the only one that does this, until the connection ends. Raises ``TransientError``."""
    with remote.errors("lock"):
        alone = await remote.connection.fetchval(queries()["repair_lock"], f"edge-remote {what}")
    if not alone:
        raise TransientError(
            f"{remote.dsn}: another {what} is at work",
            hint="wait for it to end; one that was killed is gone within half a minute",
        )


async def attempted(remote: End, doing: str, work: Callable[[], Awaitable[T]]) -> T:
    """One transaction of the remote's, again if the server ends it to solve a deadlock."""
    with remote.errors(doing):
        for _ in range(ATTEMPTS_MAX - 1):
            with suppress(asyncpg.DeadlockDetectedError):
                async with transaction(remote.connection):
                    return await work()
        async with transaction(remote.connection):
            return await work()


def _day(number: int) -> date:
    return date(1970, 1, 1) + timedelta(days=number)
