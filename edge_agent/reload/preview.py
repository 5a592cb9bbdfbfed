"""What another address map will change, before it does: rows, connections, load and database. Pure.

The plain structure that `edge-agent plan --against` prints, and that the dashboard shows before an
upload is applied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypedDict

from edge_agent.bus_load import ROUND_TRIP_S, Verdict
from edge_agent.forecast import Forecast, forecast
from edge_agent.model import AddressSyntax, Series, Tag
from edge_agent.planner import Connection, plan
from edge_agent.reload.difference import Difference, difference, plan_difference
from edge_agent.settings import Settings

DAY_S: Final = 86_400

Syntax = Callable[[str], type[AddressSyntax]]


class Load(TypedDict):
    """What a map costs: requests of all connections, and at most so many rows."""

    tags: int
    connections: int
    requests_per_s: float
    rows_per_day: int
    journal_hours: float | None
    verdict: str | None


class ChangedRow(TypedDict):
    """One row that both maps have; ``columns`` that differ: name to [before, after], as text."""

    key: str
    columns: dict[str, list[str]]


class Rows(TypedDict):
    """Rows by site/device/tag, in map order."""

    added: list[str]
    changed: list[ChangedRow]
    removed: list[str]


class Preview(TypedDict):
    """Everything. ``connections`` are by `conn`: kept, changed, begun, ended.

    ``series_begun`` and ``series_ended`` are identities in journal and databases: what is stored of
    those that end stays.
    """

    rows: Rows
    connections: dict[str, list[str]]
    series_begun: list[str]
    series_ended: list[str]
    before: Load
    after: Load


def preview(
    before: Sequence[Tag],
    after: Sequence[Tag],
    syntax: Syntax,
    settings: Settings,
    *,
    round_trip_s: float = ROUND_TRIP_S,
    round_trips_s: Mapping[str, float] | None = None,
) -> Preview:
    """What ``after`` changes; both are valid maps' tags. Raises what `planner.plan` raises.

    Round trips are as in `forecast`.
    """

    def load(tags: Sequence[Tag], planned: Sequence[Connection]) -> Load:
        return _load(
            tags,
            forecast(
                tags,
                syntax,
                planned=planned,
                journal=settings.journal,
                postgres=settings.postgres,
                commit_interval_s=settings.agent.commit_interval_ms / 1000,
                round_trip_s=round_trip_s,
                round_trips_s=round_trips_s,
            ),
        )

    plans = plan(before, syntax), plan(after, syntax)
    found = difference(before, after)
    touched = plan_difference(*plans)
    return Preview(
        rows=_rows(found),
        connections={
            "kept": [each.conn for each in touched.kept],
            "changed": [each.conn for _, each in touched.changed],
            "begun": [each.conn for each in touched.begun],
            "ended": [each.conn for each in touched.ended],
        },
        series_begun=[_series(series) for series in found.series_begun],
        series_ended=[_series(series) for series in found.series_ended],
        before=load(before, plans[0]),
        after=load(after, plans[1]),
    )


def is_possible(found: Mapping[str, Any]) -> bool:
    """Whether the new map can be kept up with."""
    return bool(found["after"]["verdict"] != Verdict.IMPOSSIBLE)


def _rows(found: Difference) -> Rows:
    return Rows(
        added=["/".join(tag.key) for tag in found.added],
        changed=[
            ChangedRow(
                key="/".join(change.after.key),
                columns={
                    name: [_text(before), _text(after)]
                    for name, (before, after) in change.columns.items()
                },
            )
            for change in found.changed
        ],
        removed=["/".join(tag.key) for tag in found.removed],
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _series(series: Series) -> str:
    unit = f" [{series.unit}]" if series.unit else ""
    return f"{series.site}/{series.device}/{series.tag}{unit}"


def _load(tags: Sequence[Tag], found: Forecast) -> Load:
    hours = found.journal.hours
    return Load(
        tags=len(tags),
        connections=len(found.connections),
        requests_per_s=float(sum(one.requests_per_s for one in found.connections if one.classes)),
        rows_per_day=round(found.rows_per_s * DAY_S),
        journal_hours=hours if math.isfinite(hours) else None,
        verdict=None if found.verdict is None else found.verdict.value,
    )
