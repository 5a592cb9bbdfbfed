"""How the replication of one edge stands: looked at from both ends, and judged.

An end that can't be reached is a problem like others: what the other one knows is still said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_agent.errors import TransientError
from edge_agent.postgres.health import HealthCheck, read_health
from edge_agent.settings import Settings
from remote import checks
from remote.ends import (
    End,
    Label,
    clock_problem,
    clock_skew_s,
    connected,
    same_server,
    unfit,
)
from remote.subscription import (
    Slot,
    Subscription,
    find_slot,
    find_subscription,
    subscription_name,
)

RATE_LOOK_S = 1.0
"""Between two looks at the edge's WAL position: enough to tell its rate."""
LAG_MAX_S = 60.0
"""At rest it is below a second; a bulk load or a copy may take this long."""
NEWEST_TAGS = 50
"""Of so many tags the newest rows are compared; one alone might be deleted or be another's."""
RAW_LOOKS = (timedelta(seconds=10), timedelta(minutes=1), timedelta(minutes=10))
"""How far back to look in plc_raw, where each step costs; further back plc_1m says where."""
MINUTE_LOOKS = tuple(timedelta(days=days) for days in (1, 7, 31, 400))
AHEAD = timedelta(days=7)
"""Rows may be this far ahead of the clock (sql/015_settings.sql)."""
LOOK_TIMEOUT_S = 10.0
"""For each statement: what takes longer is a problem to be said, not to be waited for."""


@dataclass(slots=True)
class ReplicationStatus:
    """One edge's replication. What could not be looked at, or does not apply, is None.

    ``lag_s`` is how long rows take to the remote, or while none flow, how much newer the edge's
    newest row is. ``wal_budget_hours`` is how long the remote may stay away until the slot is
    lost, at the WAL rate of just now. Error counts are those since the subscription was made.
    ``problems`` say what is wrong, each with what to do.
    """

    name: str
    looked_at: datetime
    edge_up: bool = False
    remote_up: bool = False
    slot_active: bool | None = None
    wal_status: str | None = None
    lag_s: float | None = None
    lag_bytes: int | None = None
    wal_bytes_per_s: float | None = None
    wal_budget_bytes: int | None = None
    wal_budget_hours: float | None = None
    enabled: bool | None = None
    copied: bool | None = None
    worker_pid: int | None = None
    apply_errors: int | None = None
    sync_errors: int | None = None
    refused_rows: int | None = None
    edge_newest: datetime | None = None
    remote_newest: datetime | None = None
    clock_skew_s: float | None = None
    edge_health: tuple[HealthCheck, ...] = ()
    remote_health: tuple[HealthCheck, ...] = ()
    problems: list[str] = field(default_factory=list)


async def look(settings: Settings) -> ReplicationStatus:
    """Look at both ends once; takes a little more than a second. Raises ``ConfigError``."""
    name = settings.remote.name
    status = ReplicationStatus(name, datetime.now(UTC))
    subscription = slot = None
    async with AsyncExitStack() as stack:
        edge = await _reach(stack, settings, "edge", status)
        remote = await _reach(stack, settings, "remote", status)
        status.edge_up, status.remote_up = edge is not None, remote is not None
        if remote:
            with _noted(status):
                subscription = await find_subscription(remote, name)
                await _look_at_remote(remote, subscription, status)
        if edge:
            with _noted(status):
                slot = await find_slot(edge, name)
                await _look_at_edge(edge, slot, status)
        if edge and remote:
            with _noted(status):
                await _look_at_both(edge, remote, status)
                status.problems += _pair_problems(edge, remote, name, subscription, slot)
    status.problems += judged(status)
    return status


@contextmanager
def _noted(status: ReplicationStatus) -> Iterator[None]:
    """A look that fails is a problem; the others are still taken."""
    try:
        yield
    except TransientError as error:
        status.problems.append(_said(error))


async def _reach(
    stack: AsyncExitStack, settings: Settings, label: Label, status: ReplicationStatus
) -> End | None:
    """One end, if there is anything to look at."""
    try:
        end = await stack.enter_async_context(connected(settings, label, LOOK_TIMEOUT_S))
    except TransientError as error:
        status.problems.append(_said(error))
        return None
    problems = unfit(end)
    if not problems and end.flavour is None:
        command = "edge-agent db init" if label == "edge" else "edge-remote setup"
        problems = [f"{end}: the schema is not applied: run `{command}`"]
    status.problems += problems
    return None if problems else end


def _said(error: TransientError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)


async def _look_at_remote(
    remote: End, subscription: Subscription | None, status: ReplicationStatus
) -> None:
    with remote.errors("plc_health"):
        status.remote_health = await read_health(remote.connection)
    status.problems += await checks.subscription_traps(remote)
    if not (await remote.fetchrow("remote_objects"))["has_trigger"]:
        status.problems.append(
            f"{remote}: the landing table or its trigger is missing: run `edge-remote setup`"
        )
        return
    status.refused_rows = await remote.fetchval("refused_rows")
    if subscription is None:
        return
    status.enabled = subscription.enabled
    status.copied = subscription.copied
    status.worker_pid = subscription.worker_pid
    errors = await remote.fetchrow("subscription_errors", subscription.oid)
    if errors is not None:
        status.apply_errors, status.sync_errors = errors["apply_errors"], errors["sync_errors"]


async def _look_at_edge(edge: End, slot: Slot | None, status: ReplicationStatus) -> None:
    with edge.errors("plc_health"):
        status.edge_health = await read_health(edge.connection)
    status.problems += await checks.publication_traps(edge)
    objects = await edge.fetchrow("edge_objects")
    if not (objects["has_trigger"] and objects["has_publication"]):
        status.problems.append(
            f"{edge}: the outbox, its trigger or its publication is missing: run "
            "`edge-remote setup`"
        )
    elif not await edge.fetchval("outbox_ahead"):
        status.problems.append(
            f"{edge}: the outbox has no partition for the next hour: is the agent running, and is "
            "its postgres.dsn set? It does the outbox's upkeep"
        )
    before = await edge.fetchval("edge_wal_bytes")
    await asyncio.sleep(RATE_LOOK_S)
    rate = (await edge.fetchval("edge_wal_bytes") - before) / RATE_LOOK_S
    status.wal_bytes_per_s = rate
    if (await edge.fetchrow("edge_limits"))["wal_keep_mb"] == -1:
        status.problems.append(
            f"{edge}: max_slot_wal_keep_size has no limit, so an absent remote would fill its "
            "disk: run `edge-remote setup`"
        )
    if slot is None:
        return
    status.slot_active = slot.active_pid is not None
    status.wal_status, status.lag_bytes = slot.wal_status, slot.lag_bytes
    status.wal_budget_bytes = slot.safe_wal_bytes
    if slot.safe_wal_bytes is not None and rate > 0:
        status.wal_budget_hours = slot.safe_wal_bytes / rate / 3600
    sender = slot.active_pid and await edge.fetchrow("sender_state", slot.active_pid)
    if sender and sender["state"] == "streaming":
        status.lag_s = sender["lag_s"]


async def _look_at_both(edge: End, remote: End, status: ReplicationStatus) -> None:
    status.problems += same_server(edge, remote)
    status.clock_skew_s = await clock_skew_s(edge, remote)
    if (problem := clock_problem(status.clock_skew_s)) is not None:
        status.problems.append(problem)
    rows = await newest_rows(edge)
    if not rows:
        return
    status.edge_newest = max(row["ts"] for row in rows)
    tags = [[row[key] for row in rows] for key in ("site", "device", "tag")]
    status.remote_newest = await remote.fetchval("newest_of", *tags)
    if status.lag_s is None and status.remote_newest is not None:
        behind = status.edge_newest - status.remote_newest
        status.lag_s = max(0.0, behind.total_seconds())


async def newest_rows(edge: End) -> list[Any]:
    """The edge's newest rows (ts, site, device, tag), a few; never by reading a whole table."""
    now = datetime.fromtimestamp(await edge.fetchval("end_clock"), UTC)
    for back in RAW_LOOKS:
        rows = await edge.fetch("newest_rows", now - back, now + AHEAD, NEWEST_TAGS)
        if rows:
            return rows
    for back in MINUTE_LOOKS:
        minute = await edge.fetchval("newest_minute", now - back)
        if minute is not None:
            end = minute + timedelta(minutes=1)
            return await edge.fetch("newest_rows", minute, end, NEWEST_TAGS)
    return []


def _pair_problems(
    edge: End, remote: End, name: str, subscription: Subscription | None, slot: Slot | None
) -> Iterator[str]:
    own = subscription_name(name)
    if subscription is None and slot is None:
        yield f"{edge} does not replicate to {remote} as {name}: run `edge-remote setup`"
    elif subscription is None:
        yield (
            f"{edge} keeps WAL for the slot {own}, but {remote} has no such subscription: run "
            "`edge-remote teardown`, then `edge-remote setup`"
        )
    elif subscription.never_ran:
        yield f"{remote}: the subscription {own} was never started: run `edge-remote setup`"
    elif slot is None:
        yield f"{edge}: the slot {own} is gone, rows have been missed: run `edge-remote resync`"
    elif slot.lost:
        yield checks.lost_slot_problem(slot)
    elif not subscription.enabled:
        yield (f"{remote}: the subscription {own} is disabled: `ALTER SUBSCRIPTION {own} ENABLE`")
    elif subscription.worker_pid is None or slot.active_pid is None:
        yield (
            f"{remote}: the subscription {own} is not connected to {edge}: the log of the "
            "remote's server says why; it tries again each 5 s"
        )


def judged(status: ReplicationStatus) -> list[str]:
    """What is wrong with these figures; pure."""
    found: list[str] = []
    hours = status.wal_budget_hours
    left = (
        "" if hours is None else f", and its slot is lost in {hours:.1f} hours at the present rate"
    )
    if status.slot_active is False and status.wal_status not in (None, "lost"):
        found.append(f"the edge keeps WAL for a remote that is away{left}")
    elif status.wal_status == "unreserved":
        found.append("the edge's WAL limit is spent: the slot will be lost at any moment")
    if status.lag_s is not None and status.lag_s > LAG_MAX_S:
        found.append(f"the remote is {status.lag_s:.0f} s behind the edge")
    if status.copied is False and status.sync_errors:
        found.append(
            f"the copy of the outbox has failed {status.sync_errors} times: the log of the "
            "remote's server says why"
        )
    if status.refused_rows:
        found.append(
            f"the remote could not take {status.refused_rows} rows or more, most often because a "
            "clock was wrong: see plc_refused there, and delete what you have looked at"
        )
    return found + list(_health_problems(status))


def _health_problems(status: ReplicationStatus) -> Iterator[str]:
    sides: Sequence[tuple[str, Sequence[HealthCheck]]] = (
        ("edge", status.edge_health),
        ("remote", status.remote_health),
    )
    for label, health in sides:
        for check in health:
            if check.problem is not None:
                yield f"{label}: {check.problem}"
