"""The gap that a lost slot leaves: where it begins, and what fills it."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

from edge_agent.postgres.sql_files import queries
from edge_agent.progress_bar import progress
from remote import history
from remote.comparison import Comparison, Task
from remote.copying import Throttle, copy
from remote.ends import End
from remote.hours import HOUR, MINUTE, Span, floor, shown
from remote.reconcile import SETTLED_S, Outcome, reconcile
from remote.steps import Step
from remote.subscription import find_slot, subscription_name
from remote.sums import devices
from remote.waiting import until

COMMON_HOURS = 3
"""So many hours in a row that are equal, and there the gap is taken to begin."""
RECEIVE_TIMEOUT_S = 30.0
"""A subscription's worker is started within 5 s as a rule."""


async def common_until(edge: End, remote: End, name: str) -> datetime:
    """The end of the newest COMMON_HOURS hours in a row that are equal; hours without rows at the
    edge are passed over. Where there are none: the first day that both keep."""
    job = await history.plan(edge, remote, name, None, None)
    now = job.last
    window = Span(job.first, now)
    comparison = Comparison(
        edge, remote, await devices(edge, window), Task(slot=subscription_name(name), repair=False)
    )
    equal, start, gap_from = 0, floor(now, HOUR), floor(now, HOUR)
    with progress("look for the gap") as show:
        while start + HOUR > window.first and equal < COMMON_HOURS:
            same = await comparison.same(Span(start, min(start + HOUR, now)))
            equal = equal + 1 if same else equal if same is None else 0
            gap_from = start if same is False else gap_from
            show((now - start) / (now - window.first), f"back to {shown(start)}")
            start -= HOUR
    return gap_from


class Filling:
    """What brings the rows that the lost slot did not; ``outcome`` is the last comparison's.

    ``outbox_until`` is how far the outbox was copied by a resync that was cut short.
    """

    def __init__(
        self,
        edge: End,
        remote: End,
        name: str,
        gap_from: datetime,
        outbox_until: datetime,
        throttle: Throttle | None,
        outbox_hours: int,
    ) -> None:
        self._edge = edge
        self._remote = remote
        self._name = name
        self._outbox_until = outbox_until
        self._gap_from = gap_from
        self._throttle = throttle
        self._outbox_hours = outbox_hours
        self._outbox_from: datetime | None = None
        self.outcome: Outcome | None = None

    def steps(self) -> list[Step]:
        """In order; each may be done again."""
        return [
            Step(
                where=self._remote,
                what="Copy the edge's outbox, hour by hour",
                sql=queries()["repair_rows_of_outbox"],
                act=self._copy_outbox,
            ),
            Step(
                where=self._remote,
                what=f"Backfill from {shown(self._gap_from)} to the outbox's oldest hour",
                sql=queries()["repair_rows"],
                act=self._backfill,
            ),
            Step(
                where=self._remote,
                what=f"Reconcile from {shown(self._gap_from)} on",
                act=self._reconcile,
            ),
            Step(
                where=self._remote,
                what="Note that it is done",
                sql=queries()["resync_end"],
                arguments=(self._name,),
            ),
        ]

    async def _copy_outbox(self) -> None:
        """Through the landing table, whose trigger takes rows of any day."""
        hours = [
            row["hour"]
            for row in await self._edge.fetch("resync_outbox_hours", self._outbox_hours + 1)
        ]
        self._outbox_from = hours[0] if hours else None
        rows = 0
        with progress("copy the outbox") as show:
            for done, hour in enumerate(hours, 1):
                if hour + HOUR > self._outbox_until:
                    rows += await history.attempted(
                        self._remote, "copy the outbox", partial(self._copy_hour, hour)
                    )
                show(done / len(hours), f"up to {shown(hour + HOUR)}: {rows:,} rows")

    async def _copy_hour(self, hour: datetime) -> int:
        rows = await copy(
            self._edge,
            self._remote,
            "public",
            "plc_outbox",
            queries()["repair_rows_of_outbox"],
            hour,
            hour + HOUR,
            throttle=self._throttle,
        )
        # The hour that runs gets more rows: it is copied again by the next resync.
        now = await self._edge.fetchval("repair_now")
        await self._remote.fetch("resync_outbox_copied", self._name, min(hour + HOUR, now))
        return rows

    async def _backfill(self) -> None:
        last = self._outbox_from or await self._edge.fetchval("repair_now")
        if self._gap_from < last:
            job = await history.plan(self._edge, self._remote, self._name, self._gap_from, last)
            with progress("backfill") as show:
                await history.backfill(self._edge, self._remote, job, self._throttle, show)

    async def _reconcile(self) -> None:
        await until(self._receives, RECEIVE_TIMEOUT_S)
        now = await self._edge.fetchval("repair_now")
        window = Span(
            self._gap_from, max(now - timedelta(seconds=SETTLED_S), self._gap_from + MINUTE)
        )
        task = Task(slot=subscription_name(self._name))
        with progress("reconcile") as show:
            self.outcome = await reconcile(self._edge, self._remote, window, self._name, task, show)

    async def _receives(self) -> bool:
        slot = await find_slot(self._edge, self._name)
        return slot is not None and slot.active_pid is not None
