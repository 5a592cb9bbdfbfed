"""`grafana-dashboard.json`: a panel per device on `plc_1m`, in a row per line.

For a data source of Grafana's PostgreSQL plugin, chosen at the dashboard's top. Rows but the first
begin collapsed: Grafana asks nothing for a panel that nobody sees.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from edge_agent.generate.quoting import grafana_literal
from edge_agent.generate.subject import Rendered, Subject, stable_id
from edge_agent.model import Tag

SCHEMA_VERSION: Final = 39
"""Grafana 10.4's; newer ones read it and bring it up to date."""
DATA_SOURCE: Final = {"type": "grafana-postgresql-datasource", "uid": "${plc_database}"}
WIDTH: Final = 24
PANEL_WIDTH: Final = 12
PANEL_HEIGHT: Final = 8

Panel = dict[str, Any]


def render_dashboard(subject: Subject) -> Rendered:
    """The dashboard, as Grafana imports it."""
    document = {
        "uid": stable_id("grafana", *sorted({tag.site for tag in subject.tags})),
        "title": "PLC values",
        "description": "\n".join((*subject.header, "The next run replaces this dashboard.")),
        "tags": ["edge-agent"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "plc_database",
                    "label": "Database",
                    "type": "datasource",
                    "query": "grafana-postgresql-datasource",
                    "refresh": 1,
                    "hide": 0,
                }
            ]
        },
        "annotations": {"list": []},
        "links": [],
        "panels": list(_rows(subject)),
    }
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    return Rendered(text + "\n")


def _rows(subject: Subject) -> Iterator[Panel]:
    """A row for each (site, line) with its panels; ids count up."""
    lines: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for key in sorted(subject.devices):
        tags = subject.devices[key]
        lines.setdefault((tags[0].site, tags[0].line), []).append(key)
    number = top = 0
    for place, ((site, line), keys) in enumerate(sorted(lines.items())):
        number += 1
        row = number
        panels = []
        for index, key in enumerate(keys):
            number += 1
            down, right = divmod(index, WIDTH // PANEL_WIDTH)
            position = {
                "x": right * PANEL_WIDTH,
                "y": top + 1 + down * PANEL_HEIGHT,
                "w": PANEL_WIDTH,
                "h": PANEL_HEIGHT,
            }
            tags = sorted(subject.devices[key], key=lambda tag: tag.tag)
            panels.append(_panel(number, position, tags))
        collapsed = place > 0
        yield {
            "id": row,
            "type": "row",
            "title": f"{site} / {line}",
            "collapsed": collapsed,
            "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
            "panels": panels if collapsed else [],
        }
        if not collapsed:
            yield from panels
            top += PANEL_HEIGHT * -(-len(keys) // (WIDTH // PANEL_WIDTH))
        top += 1


def _panel(number: int, position: dict[str, int], tags: Sequence[Tag]) -> Panel:
    """One device: its minutes' averages, each tag with its unit."""
    first = tags[0]
    return {
        "id": number,
        "type": "timeseries",
        "title": first.device,
        "gridPos": position,
        "datasource": DATA_SOURCE,
        "targets": [
            {
                "refId": "A",
                "datasource": DATA_SOURCE,
                "editorMode": "code",
                "rawQuery": True,
                "format": "time_series",
                "rawSql": (
                    'SELECT bucket AS "time", tag AS metric, avg_value AS value\n'
                    f"FROM public.plc_1m\nWHERE site = {grafana_literal(first.site)}"
                    f" AND device = {grafana_literal(first.device)}"
                    " AND $__timeFilter(bucket)\nORDER BY 1, 2"
                ),
            }
        ],
        "fieldConfig": {
            "defaults": {"custom": {"drawStyle": "line", "spanNulls": False, "lineWidth": 1}},
            "overrides": [_override(tag) for tag in tags],
        },
        "options": {
            "legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull"]},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
    }


def _override(tag: Tag) -> dict[str, Any]:
    """A tag's unit, digits and limits; what lies outside of them is red."""
    properties: list[dict[str, Any]] = [
        {"id": "unit", "value": f"suffix:{tag.unit}" if tag.unit else "none"}
    ]
    if tag.precision is not None:
        properties.append({"id": "decimals", "value": tag.precision})
    if tag.lo is not None or tag.hi is not None:
        steps: list[dict[str, Any]] = [
            {"value": None, "color": "green" if tag.lo is None else "red"}
        ]
        if tag.lo is not None:
            steps.append({"value": tag.lo, "color": "green"})
        if tag.hi is not None:
            steps.append({"value": tag.hi, "color": "red"})
        properties.append({"id": "thresholds", "value": {"mode": "absolute", "steps": steps}})
    return {"matcher": {"id": "byName", "options": tag.tag}, "properties": properties}
