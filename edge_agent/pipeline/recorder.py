"""Why was this value bad at 14:03? The last exchanges of a block, as they were on the wire.

Of each block the newest `EXCHANGES_KEPT` are in memory. When tags turn from good to bad these are
set aside, with the tags' names, for the newest `INCIDENTS_KEPT` such moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.protocols.base import Frames

EXCHANGES_KEPT: Final = 2
"""The one that failed, and the one before it, which did not."""
INCIDENTS_KEPT: Final = 4


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, what came back, and what was wrong with it; ``ts_ms`` is when it ended."""

    ts_ms: int
    frames: Frames
    error: str | None


@dataclass(frozen=True, slots=True)
class Incident:
    """Tags that turned from good to bad, and the exchanges that led to it, oldest first."""

    ts_ms: int
    tags: tuple[str, ...]
    exchanges: tuple[Exchange, ...]


class Recorder:
    """One block's exchanges and incidents, oldest first."""

    def __init__(self) -> None:
        self.exchanges: tuple[Exchange, ...] = ()
        self.incidents: tuple[Incident, ...] = ()

    def exchanged(self, ts_ms: int, frames: Frames, error: str | None) -> None:
        """A request ended."""
        kept = self.exchanges[1 - EXCHANGES_KEPT :]
        self.exchanges = (*kept, Exchange(ts_ms, frames, error))

    def went_bad(self, ts_ms: int, tags: Sequence[str]) -> Incident | None:
        """Tags turned from good to bad; None if their driver shows no frames."""
        if not self.exchanges:
            return None
        incident = Incident(ts_ms, tuple(tags), self.exchanges)
        self.incidents = (*self.incidents[1 - INCIDENTS_KEPT :], incident)
        return incident
