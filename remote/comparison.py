"""Finds where the two plc_raw differ, and repairs it: the edge is right.

From coarse to fine, so that what is equal costs one pass over it on each server and no network:

1. Per hour and device, count and checksum on both sides (the servers compute them at once).
2. Where they differ, the same per minute.
3. Where those differ, the edge's rows go into a staging table at the remote and are compared one
   by one: *missing* rows are inserted, *different* ones get the edge's values, *extra* ones are
   deleted if that was asked for. One transaction.

Rows arrive while this runs, so nothing is believed before the third step, and there it is exact:

* A row is missing only if it is still not there after the subscription has applied everything
  that the edge had written when the row was read (or nobody receives).
* A row is extra only if the edge, asked again, does not have it and has an older row of the same
  device. What is older than that may be another edge's, or dropped there by retention.

Only devices that the edge has are looked at, so that edges share a remote without meeting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from edge_agent.postgres.sql_files import queries
from remote.copying import rows_of, stage, together
from remote.ends import End
from remote.history import INSERT_TIMEOUT_S, attempted, insert_staged, make_partition
from remote.hours import DAY, MINUTE, Span, day_number, joined
from remote.sums import (
    NOTHING,
    SUM_TIMEOUT_S,
    Device,
    Sum,
    device_sums,
    differing,
    minute_sums,
)

ARRIVAL_TIMEOUT_S = 10.0
"""For what the edge has written to be applied. Far below the 30 s after which the remote ends a
transaction that does nothing."""
ARRIVAL_POLL_S = 0.1
EXTRA_ROWS_PER_LOOK = 5_000
"""So many keys are in memory at once."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the edge that the remote lacks, has with other values, or has too many.

    ``deleted`` of the extra ones are no longer there.
    """

    missing: int = 0
    different: int = 0
    extra: int = 0
    deleted: int = 0

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            self.missing + other.missing,
            self.different + other.different,
            self.extra + other.extra,
            self.deleted + other.deleted,
        )

    def __bool__(self) -> bool:
        return self != Rows()


@dataclass(frozen=True, slots=True)
class Difference:
    """What one device's hour turned out to be: rows on both sides as first counted, and which."""

    hour: datetime
    site: str
    device: str
    edge_rows: int
    remote_rows: int
    rows: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be done about differences. ``slot`` is the subscription's, on the edge."""

    slot: str
    repair: bool = True
    delete_extra: bool = False


class Comparison:
    """Compares hour by hour; keeps what it has learned on the way.

    ``touched`` are the spans whose rows were changed at the remote: the caller refreshes them.
    ``rows`` counts the edge's rows compared. ``unreceived`` says that nobody received from the
    slot when rows were missing. Methods raise ``TransientError``.
    """

    def __init__(self, edge: End, remote: End, known: Iterable[Device], task: Task) -> None:
        self._edge = edge
        self._remote = remote
        self._task = task
        self._made: set[int] = set()
        self.known = set(known)
        self.touched: list[Span] = []
        self.rows = 0
        self.unreceived = False

    async def hour(self, span: Span) -> list[Difference]:
        """Compare an hour, or a part of one, and repair it; what was found, by device."""
        at_edge, at_remote = await self._sums(span)
        self.rows += sum(each.rows for each in at_edge.values())
        found = []
        for device in differing(at_edge, at_remote):
            here, there = at_edge.get(device, NOTHING), at_remote.get(device, NOTHING)
            rows = Rows()
            for piece in await self._minutes(span, device, there):
                rows += await self._piece(piece, device)
            if rows:
                found.append(Difference(span.first, *device, here.rows, there.rows, rows))
        return found

    async def same(self, span: Span) -> bool | None:
        """Whether an hour is equal by its sums, without a closer look; None if the edge has no
        rows there."""
        at_edge, at_remote = await self._sums(span)
        return not differing(at_edge, at_remote) if at_edge else None

    async def _sums(self, span: Span) -> tuple[dict[Device, Sum], dict[Device, Sum]]:
        """Both sides at the same time. A device is asked for from the first hour that has it."""
        known = sorted(self.known)
        sites, names = [site for site, _ in known], [name for _, name in known]
        async with together() as group:
            edge = group.create_task(device_sums(self._edge, "reconcile_edge", span))
            remote = group.create_task(
                device_sums(self._remote, "reconcile_remote", span, sites, names)
            )
        at_edge, at_remote = edge.result(), remote.result()
        if fresh := sorted(at_edge.keys() - self.known):
            self.known |= set(fresh)
            at_remote |= await device_sums(
                self._remote,
                "reconcile_remote",
                span,
                [site for site, _ in fresh],
                [name for _, name in fresh],
            )
        return at_edge, at_remote

    async def _minutes(self, span: Span, device: Device, there: Sum) -> list[Span]:
        """The parts of an hour that differ for a device; all of it if the remote has nothing."""
        if there == NOTHING:
            return [span]
        async with together() as group:
            edge = group.create_task(minute_sums(self._edge, span, device))
            remote = group.create_task(minute_sums(self._remote, span, device))
        starts = differing(edge.result(), remote.result())
        return [
            Span(max(piece.first, span.first), min(piece.last, span.last))
            for piece in joined(Span(start, start + MINUTE) for start in starts)
        ]

    async def _piece(self, span: Span, device: Device) -> Rows:
        """Compare row by row and repair, in one transaction."""
        day = day_number(span.first.date())
        if self._task.repair and day not in self._made:
            await make_partition(self._remote, day)
            self._made.add(day)

        async def work() -> Rows:
            return await self._compare(span, device)

        rows = await attempted(self._remote, f"compare {' '.join(device)}, {span}", work)
        if self._task.repair and (rows.missing or rows.different or rows.deleted):
            self.touched.append(span)
        return rows

    async def _compare(self, span: Span, device: Device) -> Rows:
        where = (span.first, span.last, *device)
        await stage(self._edge, self._remote, queries()["repair_rows_of_device"], *where)
        counted = await self._remote.connection.fetchrow(
            queries()["reconcile_count"], *where, timeout=SUM_TIMEOUT_S
        )
        if counted["missing"] and not self.unreceived:
            self.unreceived = not await self._arrived()
            counted = await self._remote.connection.fetchrow(
                queries()["reconcile_count"], *where, timeout=SUM_TIMEOUT_S
            )
        rows = Rows(counted["missing"], counted["different"])
        if self._task.repair and rows.missing:
            rows = replace(rows, missing=await insert_staged(self._remote))
        if self._task.repair and rows.different:
            await self._remote.connection.execute(
                queries()["reconcile_correct"], *where, timeout=INSERT_TIMEOUT_S
            )
        return rows + await self._extra(span, device) if counted["extra"] else rows

    async def _extra(self, span: Span, device: Device) -> Rows:
        """Find the rows that the edge really does not have, and delete them if that is asked."""
        after: tuple[str, datetime] = ("", span.first - DAY)
        extra = deleted = 0
        while True:
            suspects = await self._remote.connection.fetch(
                queries()["reconcile_extra"],
                *(span.first, span.last, *device),
                *after,
                EXTRA_ROWS_PER_LOOK,
                timeout=SUM_TIMEOUT_S,
            )
            if not suspects:
                return Rows(extra=extra, deleted=deleted)
            after = tuple(suspects[-1])
            absent = await self._edge.fetch(
                "reconcile_absent",
                *device,
                [row["tag"] for row in suspects],
                [row["ts"] for row in suspects],
            )
            extra += len(absent)
            if absent and self._task.repair and self._task.delete_extra:
                status = await self._remote.connection.execute(
                    queries()["reconcile_delete"],
                    *device,
                    [row["tag"] for row in absent],
                    [row["ts"] for row in absent],
                    span.first,
                    span.last,
                    timeout=INSERT_TIMEOUT_S,
                )
                deleted += rows_of(status)

    async def _arrived(self) -> bool:
        """Wait until the remote has applied what the edge has written up to now.

        False if nobody receives, or it takes longer than ARRIVAL_TIMEOUT_S: then rows that are on
        their way count as missing, and come again as duplicates, which is harmless.
        """
        position = await self._edge.fetchval("reconcile_position")
        deadline_s = time.monotonic() + ARRIVAL_TIMEOUT_S
        while time.monotonic() < deadline_s:
            arrived = await self._edge.fetchval("reconcile_arrived", self._task.slot, position)
            if arrived is None:
                return False
            if arrived:
                return True
            await asyncio.sleep(ARRIVAL_POLL_S)
        return False
