"""What `edge-remote serve` tells Prometheus, made from the newest look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from edge_agent.prometheus import scrape_text
from remote.state import ReplicationStatus

METRICS = {
    "edge_remote_up": "Whether an end could be reached.",
    "edge_remote_problems": "Problems that `edge-remote status` names.",
    "edge_remote_look_timestamp_seconds": "When both ends were last looked at.",
    "edge_remote_lag_seconds": "How long rows take from the edge to the remote.",
    "edge_remote_lag_bytes": "WAL that the remote has not confirmed.",
    "edge_remote_slot_active": "Whether the remote is connected to its slot.",
    "edge_remote_slot_lost": "Whether the slot is lost: run `edge-remote resync`.",
    "edge_remote_wal_bytes_per_second": "WAL that the edge writes.",
    "edge_remote_wal_budget_bytes": "WAL that may still be written until the slot is lost.",
    "edge_remote_wal_budget_hours": "How long that lasts at the present rate.",
    "edge_remote_subscription_enabled": "Whether the subscription is enabled.",
    "edge_remote_subscription_worker": "Whether the subscription's worker runs.",
    "edge_remote_copied": "Whether the first copy of the outbox is through.",
    "edge_remote_apply_errors": "Errors of the subscription's worker.",
    "edge_remote_sync_errors": "Errors of the first copy.",
    "edge_remote_refused_rows": "Rows in plc_refused, counted up to 1,000.",
    "edge_remote_newest_row_timestamp_seconds": "Time of the newest row at an end.",
    "edge_remote_clock_skew_seconds": "How far the edge's clock is ahead of the remote's.",
    "edge_remote_health": "What plc_health() of an end says; the check names the unit.",
    "edge_remote_health_problem": "Whether that is a problem.",
    "edge_remote_rollup_minutes_left": "Minutes not rolled up yet at the remote.",
    "edge_remote_failures": "Rounds that failed, by what was to be done.",
}
"""Every metric, without the `_total` that counters carry. docs/remote.md lists them too."""


def exposition(
    status: ReplicationStatus | None, failures: Mapping[str, int], minutes_left: int | None
) -> bytes:
    """The text that Prometheus scrapes; what is not known is left out."""
    return scrape_text(_families(status, failures, minutes_left))


def _families(
    status: ReplicationStatus | None, failures: Mapping[str, int], minutes_left: int | None
) -> Iterator[Metric]:
    family = CounterMetricFamily(
        "edge_remote_failures", METRICS["edge_remote_failures"], labels=["chore"]
    )
    for chore, count in failures.items():
        family.add_metric([chore], float(count))
    yield family
    yield from _gauge("rollup_minutes_left", minutes_left)
    if status is not None:
        yield from _replication(status)
        yield from _ends(status)


def _replication(status: ReplicationStatus) -> Iterator[Metric]:
    """What belongs to the edge of this name."""
    lost = None if status.wal_status is None else status.wal_status == "lost"
    works = None if status.enabled is None else status.worker_pid is not None
    values = {
        "problems": len(status.problems),
        "look_timestamp_seconds": status.looked_at.timestamp(),
        "lag_seconds": status.lag_s,
        "lag_bytes": status.lag_bytes,
        "slot_active": status.slot_active,
        "slot_lost": lost,
        "wal_bytes_per_second": status.wal_bytes_per_s,
        "wal_budget_bytes": status.wal_budget_bytes,
        "wal_budget_hours": status.wal_budget_hours,
        "subscription_enabled": status.enabled,
        "subscription_worker": works,
        "copied": status.copied,
        "apply_errors": status.apply_errors,
        "sync_errors": status.sync_errors,
        "refused_rows": status.refused_rows,
        "clock_skew_seconds": status.clock_skew_s,
    }
    for name, value in values.items():
        yield from _gauge(name, value, {"name": status.name})


def _ends(status: ReplicationStatus) -> Iterator[Metric]:
    """What belongs to one of the two."""
    up = _family("up", "name", "end")
    newest = _family("newest_row_timestamp_seconds", "name", "end")
    health = _family("health", "name", "end", "check", "object")
    problem = _family("health_problem", "name", "end", "check", "object")
    for end, reached, row, checks in (
        ("edge", status.edge_up, status.edge_newest, status.edge_health),
        ("remote", status.remote_up, status.remote_newest, status.remote_health),
    ):
        up.add_metric([status.name, end], float(reached))
        if row is not None:
            newest.add_metric([status.name, end], row.timestamp())
        for check in checks:
            labels = [status.name, end, check.check, check.object]
            health.add_metric(labels, check.value)
            problem.add_metric(labels, float(check.problem is not None))
    yield from (up, newest, health, problem)


def _family(name: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        f"edge_remote_{name}", METRICS[f"edge_remote_{name}"], labels=list(labels)
    )


def _gauge(
    name: str, value: float | None, labels: Mapping[str, str] | None = None
) -> Iterator[Metric]:
    if value is not None:
        labels = labels or {}
        family = _family(name, *labels)
        family.add_metric(list(labels.values()), float(value))
        yield family
