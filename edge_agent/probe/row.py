"""One row of a map, and what its device gave for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_agent.model import Tag
from edge_agent.probe.interpretations import Interpretation, Verdict


@dataclass(slots=True)
class Row:
    """What one row gave. ``registers`` stay empty where there is no choice of settings."""

    tag: Tag
    registers: list[int] = field(default_factory=list)
    value: float | None = None
    found: list[Interpretation] = field(default_factory=list)
    verdict: Verdict | None = None
    error: str = ""
    not_written: str = ""
