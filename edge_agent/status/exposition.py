"""The agent's figures for Prometheus, made from its status and counters when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from edge_agent.metrics import Histogram
from edge_agent.pipeline.delivery import DeliveryRunner
from edge_agent.pipeline.poller import ConnectionPoller
from edge_agent.pipeline.reader import Quality
from edge_agent.prometheus import scrape_text
from edge_agent.status.figures import AgentStatus, MapStatus

METRICS = {
    "edge_agent_up_seconds": "Seconds since the agent started.",
    "edge_agent_tags": "Tags by the quality of their newest value.",
    "edge_agent_task_restarts": "Tasks that failed unexpectedly and were started again.",
    "edge_agent_map_valid": "Whether the running address map is what its file says.",
    "edge_agent_map_version": "Version of the running address map; absent while it is not kept.",
    "edge_agent_map_reloads": "Changed address maps by what came of them.",
    "edge_agent_connection_up": "Whether a connection is up.",
    "edge_agent_scans": "Scans done.",
    "edge_agent_scan_overruns": "Ticks left out because the scan before them was still running.",
    "edge_agent_scan_late_seconds": "Start of a scan after its tick.",
    "edge_agent_requests": "Requests sent to a connection.",
    "edge_agent_request_seconds": "Time from a request to its reply.",
    "edge_agent_request_errors": "Failed requests by kind.",
    "edge_agent_samples_read": "Samples read and handed to the journal.",
    "edge_agent_samples_suppressed": "Good values that a deadband kept back.",
    "edge_agent_values_bad": "Values that could not be read or were not finite.",
    "edge_agent_reading_paused_seconds": "Time without reading because the journal was full.",
    "edge_agent_ingest_up": "Whether messages of other publishers are taken in.",
    "edge_agent_ingest_messages": "Messages of other publishers that arrived by MQTT.",
    "edge_agent_ingest_samples": "Messages handed to the journal as samples.",
    "edge_agent_ingest_left_out_messages": "Messages that became no sample, by kind.",
    "edge_agent_ingest_waiting_messages": "Messages that arrived and are not durable yet.",
    "edge_agent_ingest_series": "Series of other publishers that were ever taken in.",
    "edge_agent_ingest_series_max": "Series past which new ones are left out.",
    "edge_agent_samples_taken": "Samples made durable in the journal, since it was first made.",
    "edge_agent_journal_bytes": "Bytes of the journal in use.",
    "edge_agent_journal_bytes_max": "Hard limit of the journal.",
    "edge_agent_journal_uncommitted_samples": "Samples in memory that are not durable yet.",
    "edge_agent_journal_full": "Whether the journal is full and reading is paused.",
    "edge_agent_journal_disk_full": "Whether the disk is full.",
    "edge_agent_journal_salvages": "Damaged journal files that were replaced.",
    "edge_agent_sink_up": "Whether a sink is connected.",
    "edge_agent_sink_delivered_samples": "Samples delivered, since the sink's first day.",
    "edge_agent_sink_duplicate_samples": "Delivered samples that the destination already had.",
    "edge_agent_sink_quarantined_samples": "Samples refused for good, kept in quarantine.",
    "edge_agent_sink_lost_samples": "Samples in the loss ledger.",
    "edge_agent_sink_pending_samples": "Samples in the journal that wait for a sink.",
    "edge_agent_sink_oldest_seconds": "Age of the oldest sample that waits for a sink.",
    "edge_agent_sink_failures": "Failed attempts by kind.",
    "edge_agent_sink_delivery_seconds": "Time that a hand-over to a sink took.",
    "edge_agent_sink_lag_seconds": "Age of samples when a sink had taken them.",
    "edge_agent_upkeep_up": "Whether the last round of a destination's upkeep worked.",
    "edge_agent_database_age_seconds": "Age of what the database said of itself.",
    "edge_agent_database_check": "What the database says of itself; absent while nothing is known.",
    "edge_agent_database_problems": "Problems that the database has, by check.",
}
"""Every metric, without the `_total` that counters carry. docs/operations.md lists them too."""


def exposition(
    status: AgentStatus, pollers: Sequence[ConnectionPoller], runners: Sequence[DeliveryRunner]
) -> bytes:
    """The text that Prometheus scrapes; histograms are those of the pollers and runners."""
    return scrape_text(_families(status, pollers, runners))


def _families(
    status: AgentStatus, pollers: Sequence[ConnectionPoller], runners: Sequence[DeliveryRunner]
) -> Iterator[Metric]:
    yield _gauge("up_seconds", {(): status["agent"]["uptime_s"]})
    yield _counter("task_restarts", {(): status["agent"]["restarts"]})
    yield from _map(status["map"])
    qualities = dict.fromkeys([(quality.value,) for quality in Quality], 0)
    for poller in pollers:
        for readers in poller.readers:
            for reader in readers:
                for quality in Quality:
                    qualities[quality.value,] += reader.qualities.count(quality)
    yield _gauge("tags", qualities, "quality")
    yield from _connections(status, pollers)
    yield from _ingest(status)
    yield from _journal(status)
    yield from _sinks(status, runners)
    yield from _upkeep(status)


def _connections(status: AgentStatus, pollers: Sequence[ConnectionPoller]) -> Iterator[Metric]:
    rows = status["connections"]
    yield _gauge("connection_up", {(row["conn"],): row["connected"] for row in rows}, "conn")
    yield _counter("scans", {(row["conn"],): row["scans"] for row in rows}, "conn")
    yield _counter("scan_overruns", {(row["conn"],): row["overruns"] for row in rows}, "conn")
    yield _counter("requests", {(row["conn"],): row["requests"] for row in rows}, "conn")
    yield _counter("samples_read", {(row["conn"],): row["samples"] for row in rows}, "conn")
    yield _counter(
        "samples_suppressed", {(row["conn"],): row["suppressed"] for row in rows}, "conn"
    )
    yield _counter("values_bad", {(row["conn"],): row["bad"] for row in rows}, "conn")
    yield _counter(
        "reading_paused_seconds", {(row["conn"],): row["paused_s"] for row in rows}, "conn"
    )
    errors = {(row["conn"], kind): count for row in rows for kind, count in row["errors"].items()}
    yield _counter("request_errors", errors, "conn", "kind")
    yield _histogram("scan_late_seconds", {p.name: p.counters.late for p in pollers}, "conn")
    yield _histogram("request_seconds", {p.name: p.counters.request_time for p in pollers}, "conn")


LEFT_OUT = ("own", "repeated", "not_understood", "over_series_max", "overflowed")
"""Why a message becomes no sample."""


def _ingest(status: AgentStatus) -> Iterator[Metric]:
    """Names without figures where it is off."""
    row: Mapping[str, Any] = status["ingest"] or {}
    yield _gauge("ingest_up", {(): row["connected"]} if row else {})
    yield _counter("ingest_messages", {(): row["messages"]} if row else {})
    yield _counter("ingest_samples", {(): row["samples"]} if row else {})
    left_out = {(kind,): row[kind] for kind in LEFT_OUT if row}
    yield _counter("ingest_left_out_messages", left_out, "kind")
    yield _gauge("ingest_waiting_messages", {(): row["waiting"]} if row else {})
    yield _gauge("ingest_series", {(): row["series"]} if row else {})
    yield _gauge("ingest_series_max", {(): row["series_max"]} if row else {})


def _journal(status: AgentStatus) -> Iterator[Metric]:
    journal = status["journal"]
    yield _counter("samples_taken", {(): journal["taken"]})
    yield _gauge("journal_bytes", {(): journal["bytes_used"]})
    yield _gauge("journal_bytes_max", {(): journal["bytes_max"]})
    yield _gauge("journal_uncommitted_samples", {(): journal["uncommitted"]})
    yield _gauge("journal_full", {(): journal["full"]})
    yield _gauge("journal_disk_full", {(): journal["disk_full"]})
    yield _counter("journal_salvages", {(): journal["salvages"]})


def _sinks(status: AgentStatus, runners: Sequence[DeliveryRunner]) -> Iterator[Metric]:
    rows = status["sinks"]
    yield _gauge("sink_up", {(row["name"],): row["connected"] for row in rows}, "sink")
    yield _counter("sink_delivered_samples", {(r["name"],): r["delivered"] for r in rows}, "sink")
    yield _counter("sink_duplicate_samples", {(r["name"],): r["duplicates"] for r in rows}, "sink")
    yield _gauge("sink_quarantined_samples", {(r["name"],): r["quarantined"] for r in rows}, "sink")
    yield _counter("sink_lost_samples", {(r["name"],): r["lost"] for r in rows}, "sink")
    yield _gauge("sink_pending_samples", {(r["name"],): r["pending"] for r in rows}, "sink")
    yield _gauge("sink_oldest_seconds", {(r["name"],): r["lag_s"] for r in rows}, "sink")
    failures = {(r["name"], kind): count for r in rows for kind, count in r["failures"].items()}
    yield _counter("sink_failures", failures, "sink", "kind")
    yield _histogram(
        "sink_delivery_seconds", {r.sink.name: r.counters.delivery_time for r in runners}, "sink"
    )
    yield _histogram("sink_lag_seconds", {r.sink.name: r.counters.lag for r in runners}, "sink")


def _upkeep(status: AgentStatus) -> Iterator[Metric]:
    chores = status["upkeep"]
    yield _gauge("upkeep_up", {(chore["name"],): not chore["error"] for chore in chores}, "sink")
    ages = {(c["name"],): age for c in chores if (age := c["health_age_s"]) is not None}
    yield _gauge("database_age_seconds", ages, "sink")
    checks = [check for chore in chores for check in chore["checks"]]
    values = {(check["check"], check["object"]): check["value"] for check in checks}
    yield _gauge("database_check", values, "check", "object")
    problems = dict.fromkeys([(check["check"],) for check in checks], 0)
    for check in checks:
        problems[check["check"],] += check["problem"] is not None
    yield _gauge("database_problems", problems, "check")


Values = Mapping[Any, float]
"""By the values of its labels."""


def _map(status: MapStatus) -> Iterator[Metric]:
    yield _gauge("map_valid", {(): status["error"] is None})
    if status["version"] is not None:
        yield _gauge("map_version", {(): status["version"]})
    results = {("applied",): status["applied"], ("refused",): status["refused"]}
    yield _counter("map_reloads", results, "result")


def _gauge(name: str, values: Values, *labels: str) -> Metric:
    family = GaugeMetricFamily(f"edge_agent_{name}", METRICS[f"edge_agent_{name}"], labels=labels)
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family


def _counter(name: str, values: Values, *labels: str) -> Metric:
    family = CounterMetricFamily(f"edge_agent_{name}", METRICS[f"edge_agent_{name}"], labels=labels)
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family


def _histogram(name: str, values: Mapping[str, Histogram], label: str) -> Metric:
    family = HistogramMetricFamily(
        f"edge_agent_{name}", METRICS[f"edge_agent_{name}"], labels=[label]
    )
    for key, histogram in values.items():
        seen = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
            seen += count
            buckets.append((str(bound), float(seen)))
        family.add_metric([key], buckets=buckets, sum_value=histogram.sum)
    return family
