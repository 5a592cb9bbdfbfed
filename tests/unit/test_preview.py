"""What another map will change: rows, connections, and what each of the two maps costs."""

from __future__ import annotations

from dataclasses import replace

from edge_agent.forecast import forecast
from edge_agent.protocols import load
from edge_agent.reload.preview import preview
from edge_agent.settings import load_settings
from tests.plant import make_tags

BEFORE = make_tags(40, per_connection=20)
AFTER = [replace(tag, period_ms=250) for tag in make_tags(60, per_connection=20)]


def test_the_loads_are_those_of_the_maps_alone() -> None:
    """Rows, requests and verdict are what the forecast of each map says."""
    settings = load_settings(None, {}, {})
    found = preview(BEFORE, AFTER, load, settings)
    for tags, shown in ((BEFORE, found["before"]), (AFTER, found["after"])):
        alone = forecast(
            tags,
            load,
            journal=settings.journal,
            postgres=settings.postgres,
            commit_interval_s=settings.agent.commit_interval_ms / 1000,
        )
        requests_per_s = float(sum(one.requests_per_s for one in alone.connections))
        assert shown["tags"] == len(tags)
        assert shown["connections"] == len(alone.connections)
        assert shown["requests_per_s"] == requests_per_s > 0
        assert shown["rows_per_day"] == round(alone.rows_per_s * 86_400)
        assert shown["verdict"] == alone.verdict


def test_connections_of_both_maps_are_told_apart() -> None:
    """Those that both have go on with another plan; the third begins."""
    found = preview(BEFORE, AFTER, load, load_settings(None, {}, {}))
    first, second, third = dict.fromkeys(tag.conn for tag in AFTER)
    assert found["connections"] == {
        "kept": [],
        "changed": [first, second],
        "begun": [third],
        "ended": [],
    }
    assert len(found["rows"]["added"]) == 20
    assert len(found["rows"]["changed"]) == 40
