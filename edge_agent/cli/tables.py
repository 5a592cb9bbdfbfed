"""An agent's status as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

TAGS_SHOWN_MAX = 4
_STYLES = {"good": "green", "bad": "bold red", "stale": "dim"}


@dataclass(slots=True)
class Rates:
    """Turns counters into rates, from one status to the next."""

    _before: dict[str, tuple[float, float]] = field(default_factory=dict)

    def rate(self, name: str, count: float, now_s: float) -> float | None:
        """Per second since the last call under this name; None at the first."""
        before = self._before.get(name)
        self._before[name] = (count, now_s)
        if before is None or now_s <= before[1]:
            return None
        return (count - before[0]) / (now_s - before[1])


def stages(status: Mapping[str, Any], rates: Rates | None) -> Table:
    """Scans, ingest, journal and each sink: count, rate, lag, errors."""
    table = Table(title="stages", title_justify="left", expand=False)
    for name, justify in (("stage", "left"), ("samples", "right"), ("per s", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("waiting", "lag", "lost", "errors"):
        table.add_column(name, justify="right")
    table.add_column("state")
    now_s = status["agent"]["now_ms"] / 1000

    def rate(name: str, count: float) -> str:
        value = rates.rate(name, count, now_s) if rates else None
        return "" if value is None else f"{value:,.0f}"

    for row in status["connections"]:
        state = Text("connected", "green") if row["connected"] else Text(row["error"] or "", "red")
        errors = sum(row["errors"].values())
        late = row["late_p99_s"]
        table.add_row(
            row["conn"],
            f"{row['samples']:,}",
            rate(row["conn"], row["samples"]),
            "",
            "" if late is None else f"{late * 1000:.0f} ms late",
            "",
            f"{errors:,}",
            state,
        )
    if (row := status["ingest"]) is not None:
        state = Text("connected", "green") if row["connected"] else Text(row["error"] or "", "red")
        table.add_row(
            "ingest",
            f"{row['samples']:,}",
            rate("ingest", row["samples"]),
            f"{row['waiting']:,}",
            "",
            f"{row['over_series_max'] + row['overflowed']:,}",
            f"{row['not_understood']:,}",
            state,
        )
    journal = status["journal"]
    full = "disk full" if journal["disk_full"] else "full" if journal["full"] else ""
    used = f"{journal['bytes_used'] / 1e6:,.1f} of {journal['bytes_max'] / 1e6:,.0f} MB"
    table.add_row(
        "journal",
        f"{journal['taken']:,}",
        rate("journal", journal["taken"]),
        f"{journal['uncommitted']:,}",
        "",
        "",
        f"{journal['commit_failures']:,}",
        Text(full or used, "red" if full else "green"),
    )
    for row in status["sinks"]:
        state = Text(row["error"], "red") if row["error"] else Text("delivering", "green")
        lost = row["lost"] + row["quarantined"]
        table.add_row(
            f"→ {row['name']}",
            f"{row['delivered']:,}",
            rate(row["name"], row["delivered"]),
            f"{row['pending']:,}",
            f"{row['lag_s']:.1f} s",
            f"{lost:,}",
            f"{sum(row['failures'].values()):,}",
            state,
        )
    return table


def devices(status: Mapping[str, Any]) -> Table:
    """Each device with its newest values and the age of the newest one."""
    table = Table(title="devices", title_justify="left", expand=False)
    table.add_column("device")
    table.add_column("age", justify="right")
    table.add_column("newest values")
    now_ms = status["agent"]["now_ms"]
    for device in status["devices"]:
        times = [tag["ts_ms"] for tag in device["tags"] if tag["ts_ms"] is not None]
        age = f"{max(now_ms - max(times), 0) / 1000:.1f} s" if times else "never"
        values = Text()
        for tag in device["tags"][:TAGS_SHOWN_MAX]:
            values.append(f"{tag['tag']} ", "dim")
            values.append(_value(tag), _style(tag))
            values.append("  ")
        more = len(device["tags"]) - TAGS_SHOWN_MAX
        if more > 0:
            values.append(f"+{more}", "dim")
        table.add_row(f"{device['site']} {device['line']} {device['device']}", age, values)
    return table


def everything(status: Mapping[str, Any], rates: Rates, footer: str) -> Group:
    """The live picture of the demo."""
    style = "green" if status["well"] else "bold red"
    return Group(
        Text(status["verdict"], style),
        devices(status),
        stages(status, rates),
        Text(footer, "dim"),
    )


def _value(tag: Mapping[str, Any]) -> str:
    if tag["value"] is None:
        return str(tag["quality"])
    return f"{tag['value']:.6g} {tag['unit']}".rstrip()


def _style(tag: Mapping[str, Any]) -> str:
    value = tag["value"]
    if value is not None and (
        (tag["hi"] is not None and value > tag["hi"])
        or (tag["lo"] is not None and value < tag["lo"])
    ):
        return "bold yellow"
    return _STYLES[tag["quality"]]
