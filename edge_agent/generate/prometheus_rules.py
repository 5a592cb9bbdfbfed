"""`prometheus-rules.yml`: alerts on the agent's metrics, and on each connection of the map.

A connection has rules of its own, because only the map knows that it must be there and how often it
is scanned: a metric that is absent raises no alert by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from edge_agent.generate.quoting import prometheus_text, promql_string
from edge_agent.generate.subject import Rendered, Subject, per_second
from edge_agent.generate.templating import render
from edge_agent.planner import Connection
from edge_agent.protocols.modbus_syntax import parse_conn

SCANS_PART_MIN: Final = 0.9
"""Fewer of the scans that the map asks for are an alert."""
UNCOMMITTED_S: Final = 10
DEVICES_NAMED_MAX: Final = 10
"""Of a connection, in the text of an alert."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule: it fires once ``expression`` has held for ``wait``."""

    name: str
    expression: str
    wait: str
    severity: str
    summary: str
    """With Prometheus' own expressions in double braces, like ``conn``."""
    conn: str | None = None
    """A label, so that rules of one name are told apart."""


def render_rules(subject: Subject) -> Rendered:
    """The rules file."""
    groups = [("edge-agent", list(_agent(subject)))]
    for connection in subject.connections:
        conn = prometheus_text(connection.conn)
        alerts = [replace(alert, conn=conn) for alert in _connection(connection)]
        groups.append((f"edge-agent {connection.conn}", alerts))
    return Rendered(render("prometheus-rules.yml", header=subject.header, groups=groups))


_OF_THE_AGENT: Final = (
    ("Absent", "absent(edge_agent_up_seconds)", "1m", "critical", "edge-agent does not answer"),
    (
        "TagsNotGood",
        'edge_agent_tags{quality=~"bad|stale"} > 0',
        "5m",
        "warning",
        "{{ $value }} tags are {{ $labels.quality }}",
    ),
    (
        "TaskRestarts",
        "increase(edge_agent_task_restarts_total[10m]) > 0",
        "0m",
        "warning",
        "a task failed unexpectedly and was started again; its log line is worth a report",
    ),
    (
        "MapNotApplied",
        "edge_agent_map_valid == 0",
        "1m",
        "warning",
        "the address map in the file is wrong and was not applied: edge-agent status says where",
    ),
    (
        "JournalFills",
        "edge_agent_journal_bytes > 0.8 * edge_agent_journal_bytes_max",
        "5m",
        "warning",
        "the journal is {{ $value | humanize1024 }}B large: a sink takes nothing",
    ),
    (
        "JournalFull",
        "edge_agent_journal_full == 1",
        "0m",
        "critical",
        "the journal is full: PLCs are not read",
    ),
    (
        "DiskFull",
        "edge_agent_journal_disk_full == 1",
        "0m",
        "critical",
        "the disk of the journal is full",
    ),
    (
        "JournalSalvaged",
        "increase(edge_agent_journal_salvages_total[1h]) > 0",
        "0m",
        "critical",
        "a damaged journal was replaced: look at the disk",
    ),
    (
        "ReadingPaused",
        "sum without (conn) (increase(edge_agent_reading_paused_seconds_total[5m])) > 0",
        "0m",
        "critical",
        "PLCs were not read because the journal took no more",
    ),
    (
        "SinkDown",
        "edge_agent_sink_up == 0",
        "2m",
        "critical",
        "{{ $labels.sink }} is not connected; samples wait in the journal",
    ),
    (
        "SinkBehind",
        "edge_agent_sink_oldest_seconds > 60",
        "5m",
        "warning",
        "{{ $labels.sink }} is {{ $value | humanizeDuration }} behind",
    ),
    (
        "SamplesRefused",
        "edge_agent_sink_quarantined_samples > 0",
        "0m",
        "warning",
        "{{ $labels.sink }} has refused {{ $value }} samples for good",
    ),
    (
        "SamplesLost",
        "increase(edge_agent_sink_lost_samples_total[10m]) > 0",
        "0m",
        "critical",
        "samples for {{ $labels.sink }} are lost; edge-agent journal export ledger shows them",
    ),
    (
        "SinkFault",
        'increase(edge_agent_sink_failures_total{kind="fault"}[10m]) > 0',
        "0m",
        "warning",
        "{{ $labels.sink }} failed in a way that nobody foresaw; its log line is worth a report",
    ),
    (
        "UpkeepDown",
        "edge_agent_upkeep_up == 0",
        "5m",
        "warning",
        "{{ $labels.sink }} has no upkeep",
    ),
    (
        "DatabaseProblem",
        "edge_agent_database_problems > 0",
        "5m",
        "warning",
        "the database has a problem with {{ $labels.check }}; edge-agent status says which",
    ),
    (
        "IngestDown",
        "edge_agent_ingest_up == 0",
        "2m",
        "critical",
        "messages of other publishers are not taken in",
    ),
)
"""Name, expression, how long, severity, summary: those of docs/operations.md."""


def _agent(subject: Subject) -> Iterator[Alert]:
    for name, expression, wait, severity, summary in _OF_THE_AGENT:
        yield Alert(f"EdgeAgent{name}", expression, wait, severity, summary)
    waiting_max = max(1, round(UNCOMMITTED_S * per_second(tag.period_ms for tag in subject.tags)))
    yield Alert(
        "EdgeAgentNotCommitted",
        f"edge_agent_journal_uncommitted_samples > {waiting_max}",
        "1m",
        "critical",
        f"{UNCOMMITTED_S} s of this map's samples are in memory and not on the disk",
    )


def _connection(connection: Connection) -> Iterator[Alert]:
    label = "{conn=" + promql_string(connection.conn) + "}"
    shown = prometheus_text(f"{connection.conn} ({_devices(connection)})")
    scans_per_s = per_second(one.period_ms for one in connection.scan_classes)
    yield Alert(
        "EdgeAgentConnectionDown",
        f"edge_agent_connection_up{label} == 0 or absent(edge_agent_connection_up{label})",
        "1m",
        "critical",
        f"{shown} does not answer",
    )
    yield Alert(
        "EdgeAgentScansMissing",
        f"rate(edge_agent_scans_total{label}[5m]) < {scans_per_s * SCANS_PART_MIN:.6g}",
        "5m",
        "warning",
        f"{shown}: fewer than {SCANS_PART_MIN:.0%} of {scans_per_s:.6g} scans a second",
    )
    yield Alert(
        "EdgeAgentScanOverruns",
        f"increase(edge_agent_scan_overruns_total{label}[5m]) > 0",
        "5m",
        "warning",
        f"{shown} is too slow for its shortest period of {_shortest_ms(connection)} ms",
    )
    yield Alert(
        "EdgeAgentRequestErrors",
        f"sum by (conn, kind) (rate(edge_agent_request_errors_total{label}[5m])) > 0",
        "5m",
        "warning",
        f"{shown}: requests fail ({{{{ $labels.kind }}}})",
    )
    yield Alert(
        "EdgeAgentBadValues",
        f"rate(edge_agent_values_bad_total{label}[5m]) > 0",
        "5m",
        "warning",
        f"{shown}: values can't be had",
    )
    if connection.protocol == "modbus":
        limit_s = parse_conn(connection.conn).timeout_ms / 2000
        buckets = f"rate(edge_agent_request_seconds_bucket{label}[5m])"
        yield Alert(
            "EdgeAgentSlowReplies",
            f"histogram_quantile(0.99, sum by (conn, le) ({buckets})) > {limit_s:g}",
            "5m",
            "warning",
            f"{shown}: replies take more than half of timeout_ms",
        )


def _shortest_ms(connection: Connection) -> int:
    return min(one.period_ms for one in connection.scan_classes)


def _devices(connection: Connection) -> str:
    """The devices behind a connection, as text of an annotation."""
    names = sorted(
        {
            f"{tag.site}/{tag.device}"
            for one in connection.scan_classes
            for block in one.blocks
            for tag in block.tags
        }
    )
    more = len(names) - DEVICES_NAMED_MAX
    return ", ".join(names[:DEVICES_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
