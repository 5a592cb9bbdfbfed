"""Count and checksum of plc_raw by device, or of a device by minute; which devices there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from edge_agent.postgres.sql_files import queries
from remote.ends import End
from remote.hours import DAY, Span, ceiling, floor

SUM_TIMEOUT_S = 1_800.0
"""One hour of 5,000 samples/s is 18 million rows: see docs/remote.md for what they cost."""

Device = tuple[str, str]
"""Site and device."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Count and checksum of a set of rows; equal for equal sets, in whatever order they come."""

    rows: int
    checksum: int


NOTHING = Sum(0, 0)


Key = TypeVar("Key", Device, datetime)


def differing(edge: Mapping[Key, Sum], remote: Mapping[Key, Sum]) -> list[Key]:
    """Keys whose sums are not the same on both sides, in order."""
    return sorted(
        key
        for key in edge.keys() | remote.keys()
        if edge.get(key, NOTHING) != remote.get(key, NOTHING)
    )


async def devices(edge: End, window: Span) -> set[Device]:
    """The devices that the edge has rows of, from the day before the window to its last day."""
    whole = Span(floor(window.first, DAY) - DAY, ceiling(window.last, DAY))
    async with edge.transaction("look which devices it has"):
        await edge.connection.fetchrow(queries()["reconcile_by_index"])
        found = await edge.connection.fetch(
            queries()["reconcile_devices"], whole.first, whole.last, timeout=SUM_TIMEOUT_S
        )
    return {(row["site"], row["device"]) for row in found}


async def device_sums(end: End, query: str, span: Span, *arguments: object) -> dict[Device, Sum]:
    """Sums by device; ``query`` is reconcile_edge, or reconcile_remote with sites and devices."""
    with end.errors(f"sum up {span}"):
        rows = await end.connection.fetch(
            queries()[query], span.first, span.last, *arguments, timeout=SUM_TIMEOUT_S
        )
    return {
        (row["site"], row["device"]): Sum(row["row_count"], int(row["checksum"])) for row in rows
    }


async def minute_sums(end: End, span: Span, device: Device) -> dict[datetime, Sum]:
    """One device's sums by minute."""
    with end.errors(f"sum up the minutes of {' '.join(device)}, {span}"):
        rows = await end.connection.fetch(
            queries()["reconcile_minutes"], span.first, span.last, *device, timeout=SUM_TIMEOUT_S
        )
    return {row["minute"]: Sum(row["row_count"], int(row["checksum"])) for row in rows}
