"""What the agent says of itself: every part's figures as one plain structure.

`/status` serves it as JSON, `edge-agent status` prints it, and `verdict.py` judges it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from edge_agent.journal import Journal, LedgerRow
from edge_agent.model import Series, Tag
from edge_agent.normalize import digits_of
from edge_agent.pipeline.delivery import DeliveryRunner
from edge_agent.pipeline.poller import ConnectionPoller
from edge_agent.pipeline.reader import BlockReader, Quality
from edge_agent.pipeline.upkeep import UpkeepRunner
from edge_agent.postgres.health import HealthCheck
from edge_agent.reload.reloader import Reloader

if TYPE_CHECKING:
    from edge_agent.pipeline.ingest import Ingest, NotUnderstood

MAP_PROBLEMS_MAX = 100
"""More are not told at once; `edge-agent check` has all."""
HEALTH_FRESH_S = 300.0
"""Upkeep reads it each minute, and may work for some of it. Older figures are not shown."""


class TagStatus(TypedDict):
    """One tag's newest value; ``ts_ms`` is that of the newest good one.

    ``position`` is the tag's place in the columns of `LiveValues`; ``digits`` after the point are
    all that its values have, None for those that can have any.
    """

    position: int
    tag: str
    description: str
    value: float | None
    unit: str
    ts_ms: int | None
    quality: str
    error: str | None
    hi: float | None
    lo: float | None
    digits: int | None
    period_ms: int


class LiveValues(TypedDict):
    """The newest values of all tags as columns, for who asks often.

    What stays the same from call to call is in `TagStatus`. ``layout`` changes when positions do.
    ``values`` are NaN where bad (null in JSON), ``ts_ms`` those of the newest good ones;
    ``qualities`` has one letter per tag: g(ood), b(ad), s(tale).
    """

    layout: str
    now_ms: int
    well: bool
    verdict: str
    verdict_ko: str
    values: list[float]
    ts_ms: list[int | None]
    qualities: str


class DeviceStatus(TypedDict):
    """One device and its tags in map order."""

    site: str
    line: str
    device: str
    conn: str
    tags: list[TagStatus]


class BadTag(TypedDict):
    """A tag that is not good, and why."""

    site: str
    device: str
    tag: str
    quality: str
    error: str | None


class ConnectionStatus(TypedDict):
    """One connection. Counts since the start; times in seconds.

    ``bad_tag`` is one that is bad, or else stale; None while all are good.
    """

    conn: str
    protocol: str
    connected: bool
    error: str | None
    tags: int
    tags_good: int
    bad_tag: BadTag | None
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
    """One sink; samples, since its first day: taken = delivered + pending + quarantined + lost.

    ``refused`` are those that went to quarantine since the start of the agent.
    """

    name: str
    connected: bool
    error: str | None
    error_since_ms: int | None
    delivered: int
    duplicates: int
    pending: int
    quarantined: int
    refused: int
    lost: int
    sequence: int
    lag_s: float
    lag_p99_s: float | None
    failures: dict[str, int]


class CheckStatus(TypedDict):
    """One figure of a database; the unit of ``value`` ends the name of the ``check``."""

    check: str
    object: str
    value: float
    problem: str | None


class UpkeepStatus(TypedDict):
    """One destination's chore: why it fails, for how long, and what the database said of itself.

    ``health_age_s`` is None and ``checks`` is empty where nothing was said, or not lately.
    """

    name: str
    error: str | None
    failing_s: float
    health_age_s: float | None
    checks: list[CheckStatus]


class NotUnderstoodStatus(TypedDict):
    """A message that was not understood; of its payload the beginning."""

    ts_ms: int
    topic: str
    problem: str
    payload: str


class IngestStatus(TypedDict):
    """Messages of other publishers, taken in by MQTT; counts since the start.

    Those that became no sample are ``own`` (polled or published by us), ``repeated`` (known),
    ``not_understood``, ``over_series_max`` and ``overflowed``. ``waiting`` are not in a commit yet.
    ``refused`` are the topics whose subscription the broker refuses, with its reason.
    """

    broker: str
    topics: list[str]
    connected: bool
    error: str | None
    error_since_ms: int | None
    refused: dict[str, str]
    connects: int
    messages: int
    samples: int
    own: int
    repeated: int
    not_understood: int
    over_series_max: int
    overflowed: int
    waiting: int
    series: int
    series_max: int
    last_not_understood: NotUnderstoodStatus | None


class MapStatus(TypedDict):
    """The running address map, and whether the file is it.

    ``version`` is None where it could not be kept. ``error``, since ``error_since_ms``, says why
    the file was not applied; ``problems`` are those of its rows, at most ``MAP_PROBLEMS_MAX``.
    Counts since the start.
    """

    path: str
    sha256: str
    version: int | None
    error: str | None
    error_since_ms: int | None
    problems: list[dict[str, int | str | None]]
    applied: int
    refused: int


class Loss(TypedDict):
    """One row of the loss ledger. What is not known is None."""

    sink: str
    site: str | None
    device: str | None
    tag: str | None
    first_ts_ms: int | None
    last_ts_ms: int | None
    samples: int
    reason: str


class AgentStatus(TypedDict):
    """Everything. ``ingest`` is None where it is off.

    ``verdict``, ``problems`` and ``notices`` stand a second time, in Korean, under names with _ko.
    """

    agent: dict[str, Any]
    verdict: str
    verdict_ko: str
    well: bool
    devices: list[DeviceStatus]
    connections: list[ConnectionStatus]
    ingest: IngestStatus | None
    map: MapStatus
    journal: JournalStatus
    sinks: list[SinkStatus]
    upkeep: list[UpkeepStatus]
    problems: list[str]
    problems_ko: list[str]
    notices: list[str]
    notices_ko: list[str]


def devices_of(pollers: Iterable[ConnectionPoller]) -> Iterator[DeviceStatus]:
    """Every device with the newest value of its tags, made one at a time."""
    places: dict[tuple[str, str], list[tuple[str, BlockReader, int, int]]] = {}
    position = 0
    for name, reader in _readers(pollers):
        for place, tag in enumerate(reader.block.tags):
            found = places.setdefault((tag.site, tag.device), [])
            found.append((name, reader, place, position))
            position += 1
    for found in places.values():
        conn, reader, place, _ = found[0]
        tag = reader.block.tags[place]
        tags = [_tag_status(reader, place, position) for _, reader, place, position in found]
        yield DeviceStatus(site=tag.site, line=tag.line, device=tag.device, conn=conn, tags=tags)


def columns_of(
    pollers: Iterable[ConnectionPoller],
) -> tuple[list[float], list[int | None], str]:
    """Value, time and quality of every tag, by its position: see `LiveValues`."""
    values: list[float] = []
    ts_ms: list[int | None] = []
    qualities: list[str] = []
    for _, reader in _readers(pollers):
        values += reader.values
        ts_ms += reader.ts_ms
        qualities += [quality[0] for quality in reader.qualities]
    return values, ts_ms, "".join(qualities)


def _readers(pollers: Iterable[ConnectionPoller]) -> Iterator[tuple[str, BlockReader]]:
    """Every block reader with its connection's name; their tags in this order have positions."""
    for poller in pollers:
        for readers in poller.readers:
            for reader in readers:
                yield poller.name, reader


def _tag_status(reader: BlockReader, place: int, position: int) -> TagStatus:
    tag, value = reader.block.tags[place], reader.values[place]
    return TagStatus(
        position=position,
        tag=tag.tag,
        description=tag.description,
        value=None if math.isnan(value) else value,
        unit=tag.unit,
        ts_ms=reader.ts_ms[place],
        quality=reader.qualities[place].value,
        error=reader.problem(place),
        hi=tag.hi,
        lo=tag.lo,
        digits=_digits(tag),
        period_ms=tag.period_ms,
    )


def _digits(tag: Tag) -> int | None:
    """Whole raw values that are scaled by whole numbers stay whole."""
    digits = digits_of(tag)
    return 0 if digits is None and not tag.type.startswith("FLOAT") else digits


def connection_status(poller: ConnectionPoller) -> ConnectionStatus:
    """One connection's figures."""
    counters = poller.counters
    readers = [reader for readers in poller.readers for reader in readers]
    return ConnectionStatus(
        conn=poller.name,
        protocol=poller.connection.protocol,
        connected=poller.connected,
        error=poller.error,
        tags=sum(len(reader.qualities) for reader in readers),
        tags_good=sum(reader.qualities.count(Quality.GOOD) for reader in readers),
        bad_tag=_bad_tag(readers),
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


def _bad_tag(readers: Sequence[BlockReader]) -> BadTag | None:
    """The first one that is bad, or else the first one that is stale."""
    for quality in (Quality.BAD, Quality.STALE):
        for reader in readers:
            if quality in reader.qualities:
                place = reader.qualities.index(quality)
                tag = reader.block.tags[place]
                return BadTag(
                    site=tag.site,
                    device=tag.device,
                    tag=tag.tag,
                    quality=quality.value,
                    error=reader.problem(place),
                )
    return None


def ingest_status(ingest: Ingest) -> IngestStatus:
    """The figures of what others publish."""
    counters, last = ingest.counters, ingest.last_not_understood
    return IngestStatus(
        broker=ingest.broker,
        topics=list(ingest.topics),
        connected=ingest.connected,
        error=ingest.error,
        error_since_ms=ingest.error_since_ms,
        refused=dict(ingest.refused),
        connects=counters.connects,
        messages=counters.messages,
        samples=counters.samples,
        own=counters.own,
        repeated=counters.repeated,
        not_understood=counters.not_understood,
        over_series_max=counters.over_series_max,
        overflowed=counters.overflowed,
        waiting=ingest.waiting,
        series=ingest.series,
        series_max=ingest.series_max,
        last_not_understood=None if last is None else _not_understood(last),
    )


def _not_understood(last: NotUnderstood) -> NotUnderstoodStatus:
    return NotUnderstoodStatus(
        ts_ms=last.ts_ms, topic=last.topic, problem=last.problem, payload=last.payload
    )


def map_status(reloader: Reloader) -> MapStatus:
    """The figures of the running map."""
    refused, newest = reloader.refused, reloader.versions.newest
    running = reloader.running
    kept = newest is not None and newest.sha256 == running.sha256
    return MapStatus(
        path=str(running.path),
        sha256=running.sha256,
        version=newest.version if kept and newest is not None else None,
        error=None if refused is None else refused.text,
        error_since_ms=None if refused is None else refused.since_ms,
        problems=[]
        if refused is None
        else [problem.as_dict() for problem in refused.problems[:MAP_PROBLEMS_MAX]],
        applied=reloader.results["applied"],
        refused=reloader.results["refused"],
    )


def loss(row: LedgerRow, series: Series | None) -> Loss:
    """One row of the ledger."""
    return Loss(
        sink=row.sink,
        site=series and series.site,
        device=series and series.device,
        tag=series and series.tag,
        first_ts_ms=row.first_ts_ms,
        last_ts_ms=row.last_ts_ms,
        samples=row.samples,
        reason=row.reason,
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
        refused=runner.counters.rejected,
        lost=totals.lost,
        sequence=totals.sequence,
        lag_s=max(now_ms - oldest, 0) / 1000 if oldest is not None and pending else 0.0,
        lag_p99_s=_finite(runner.counters.lag.quantile(0.99)),
        failures=dict(runner.counters.failures),
    )


def upkeep_status(runner: UpkeepRunner) -> UpkeepStatus:
    """One chore's figures. What the database said too long ago is as good as nothing."""
    age_s = runner.health_age_s
    fresh = age_s is not None and age_s <= HEALTH_FRESH_S
    return UpkeepStatus(
        name=runner.name,
        error=runner.error,
        failing_s=runner.failing_s,
        health_age_s=age_s if fresh else None,
        checks=[_check_status(check) for check in runner.health] if fresh else [],
    )


def _check_status(check: HealthCheck) -> CheckStatus:
    return CheckStatus(
        check=check.check, object=check.object, value=check.value, problem=check.problem
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
