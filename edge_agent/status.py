"""What the agent says of itself: every part's figures, and one line that says where data stops.

`report` collects, `verdict` judges. Both work on the same plain structure, which `/status` serves
as JSON and `edge-agent status` prints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from edge_agent.journal import Journal
from edge_agent.pipeline.delivery import DeliveryRunner
from edge_agent.pipeline.poller import BlockReader, ConnectionPoller, Quality

LAG_WARNING_S = 30.0
"""A sink that is further behind than this is said to be catching up."""


class TagStatus(TypedDict):
    """One tag's newest value; ``ts_ms`` is that of the newest good one."""

    tag: str
    value: float | None
    unit: str
    ts_ms: int | None
    quality: str
    error: str | None
    hi: float | None
    lo: float | None
    period_ms: int


class DeviceStatus(TypedDict):
    """One device and its tags in map order."""

    site: str
    line: str
    device: str
    conn: str
    tags: list[TagStatus]


class ConnectionStatus(TypedDict):
    """One connection. Counts since the start; times in seconds."""

    conn: str
    protocol: str
    connected: bool
    error: str | None
    tags: int
    scans: int
    overruns: int
    requests: int
    samples: int
    suppressed: int
    bad: int
    errors: dict[str, int]
    connects: int
    paused_s: float
    late_p99_s: float | None
    request_p99_s: float | None


class JournalStatus(TypedDict):
    """The queue on disk; samples and bytes."""

    journal_id: str
    taken: int
    uncommitted: int
    bytes_used: int
    bytes_max: int
    full: bool
    disk_full: bool
    commits: int
    commit_failures: int
    salvages: int
    last_sequence: int


class SinkStatus(TypedDict):
    """One sink; samples, since its first day: taken = delivered + pending + quarantined + lost."""

    name: str
    connected: bool
    error: str | None
    error_since_ms: int | None
    delivered: int
    duplicates: int
    pending: int
    quarantined: int
    lost: int
    sequence: int
    lag_s: float
    lag_p99_s: float | None
    failures: dict[str, int]


class AgentStatus(TypedDict):
    """Everything."""

    agent: dict[str, Any]
    verdict: str
    well: bool
    devices: list[DeviceStatus]
    connections: list[ConnectionStatus]
    journal: JournalStatus
    sinks: list[SinkStatus]


def devices_of(pollers: Iterable[ConnectionPoller]) -> list[DeviceStatus]:
    """Every device with the newest value of its tags."""
    found: dict[tuple[str, str], DeviceStatus] = {}
    for poller in pollers:
        for readers in poller.readers:
            for reader in readers:
                _add_tags(found, poller.name, reader)
    return list(found.values())


def _add_tags(found: dict[tuple[str, str], DeviceStatus], conn: str, reader: BlockReader) -> None:
    for place, tag in enumerate(reader.block.tags):
        device = found.get((tag.site, tag.device))
        if device is None:
            device = found[tag.site, tag.device] = DeviceStatus(
                site=tag.site, line=tag.line, device=tag.device, conn=conn, tags=[]
            )
        value = reader.values[place]
        quality = reader.quality(place)
        error = reader.error
        if quality is Quality.BAD and error is None:
            error = "not a finite number"
        device["tags"].append(
            TagStatus(
                tag=tag.tag,
                value=None if math.isnan(value) else value,
                unit=tag.unit,
                ts_ms=reader.ts_ms[place],
                quality=quality.value,
                error=error,
                hi=tag.hi,
                lo=tag.lo,
                period_ms=tag.period_ms,
            )
        )


def connection_status(poller: ConnectionPoller) -> ConnectionStatus:
    """One connection's figures."""
    counters = poller.counters
    return ConnectionStatus(
        conn=poller.name,
        protocol=poller.connection.protocol,
        connected=poller.connected,
        error=poller.error,
        tags=sum(scan_class.tag_count for scan_class in poller.connection.scan_classes),
        scans=counters.scans,
        overruns=poller.schedule.overruns,
        requests=counters.requests,
        samples=counters.samples,
        suppressed=counters.suppressed,
        bad=counters.bad,
        errors=dict(counters.errors),
        connects=counters.connects,
        paused_s=counters.paused_s,
        late_p99_s=_finite(counters.late.quantile(0.99)),
        request_p99_s=_finite(counters.request_time.quantile(0.99)),
    )


def journal_status(journal: Journal, bytes_used: int) -> JournalStatus:
    """The journal's figures."""
    return JournalStatus(
        journal_id=journal.journal_id,
        taken=journal.taken,
        uncommitted=journal.uncommitted,
        bytes_used=bytes_used,
        bytes_max=journal.bytes_max,
        full=journal.full,
        disk_full=journal.disk_full,
        commits=journal.commits,
        commit_failures=journal.commit_failures,
        salvages=journal.salvages,
        last_sequence=journal.last_sequence,
    )


def sink_status(runner: DeliveryRunner, journal: Journal, now_ms: int) -> SinkStatus:
    """One sink's figures. What is not delivered, quarantined or lost is pending."""
    totals = journal.totals()[runner.sink.name]
    oldest = runner.oldest_ts_ms
    pending = journal.taken - totals.accounted
    return SinkStatus(
        name=runner.sink.name,
        connected=runner.connected,
        error=runner.error,
        error_since_ms=runner.error_since_ms,
        delivered=totals.delivered,
        duplicates=totals.duplicates,
        pending=pending,
        quarantined=totals.quarantined,
        lost=totals.lost,
        sequence=totals.sequence,
        lag_s=max(now_ms - oldest, 0) / 1000 if oldest is not None and pending else 0.0,
        lag_p99_s=_finite(runner.counters.lag.quantile(0.99)),
        failures=dict(runner.counters.failures),
    )


def verdict(
    connections: Sequence[ConnectionStatus],
    journal: JournalStatus,
    sinks: Sequence[SinkStatus],
    now_ms: int,
) -> tuple[bool, str]:
    """Whether all is well, and one line that says where the data stops if it is not."""
    down = [connection for connection in connections if not connection["connected"]]
    failing = [sink for sink in sinks if sink["error"]]
    behind = [sink for sink in sinks if sink["lag_s"] > LAG_WARNING_S and not sink["error"]]
    if journal["disk_full"] or journal["commit_failures"]:
        return False, "Data stops at the journal: the disk refuses to write; free some space"
    if journal["full"]:
        return False, "Data stops at the journal: it is full, reading of the PLCs is paused"
    if failing:
        return False, "Data stops at " + "; ".join(_failing(sink, now_ms) for sink in failing)
    if connections and len(down) == len(connections):
        return False, f"Data stops at the PLCs: no connection is up; {down[0]['error']}"
    if down:
        names = ", ".join(connection["conn"] for connection in down)
        return False, f"Data stops at {names}: {down[0]['error']}"
    if behind:
        sink = behind[0]
        return False, f"{sink['name']} is catching up: {sink['lag_s']:.0f} s behind"
    tags = sum(connection["tags"] for connection in connections)
    return True, f"All well: {tags} tags on {_count(len(connections), 'connection')} flow to " + (
        ", ".join(sink["name"] for sink in sinks) or "no sink"
    )


def _failing(sink: Mapping[str, Any], now_ms: int) -> str:
    down_s = (now_ms - (sink["error_since_ms"] or now_ms)) / 1000
    return (
        f"{sink['name']} for {down_s:.0f} s ({sink['pending']} samples wait in the journal): "
        f"{sink['error']}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
