"""Rows of an address map, for tests that care for a few of their columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from edge_agent.model import Tag, ValueType

PLAIN: Final = Tag(
    site="A1",
    line="L1",
    device="PUMP01",
    tag="PRESS",
    protocol="modbus",
    conn="tcp://10.0.0.5:502",
    unit_id=1,
    address="hr:0",
    type=ValueType.FLOAT32,
    scale=1.0,
    offset=0.0,
    period_ms=1000,
    unit="bar",
)


def plain_tag(tag: str = "PRESS", **fields: Any) -> Tag:
    """A row of which nothing is special but the fields that are given."""
    return replace(PLAIN, tag=tag, **fields)
