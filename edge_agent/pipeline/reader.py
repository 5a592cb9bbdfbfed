"""One block's way from reply to journal, and what is known of its tags."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

from edge_agent.journal import Journal
from edge_agent.metrics import ConnectionCounters
from edge_agent.normalize import Normalizer
from edge_agent.pipeline.parts import NO_GAPS, Gaps, Part, Search, parts_of
from edge_agent.pipeline.patience import PAUSE_MAX_S, AnswerTime, Pauses
from edge_agent.pipeline.recorder import Recorder
from edge_agent.planner import Block
from edge_agent.protocols.base import Reply

NOT_READ: Final = "not read yet"
RETRY_S: Final = 600.0
"""How often the whole block is tried again, for a device that has got its cells meanwhile."""
REFUSED_BEFORE: Final = "the device refused this address before; it is tried again soon"


class Quality(StrEnum):
    """What can be said of a tag's newest value."""

    GOOD = "good"
    BAD = "bad"
    """Its last request failed, or the value was not a number."""
    STALE = "stale"
    """Its connection is down, or it has never been read."""


class BlockReader:
    """A block with the newest values of its tags."""

    def __init__(self, block: Block, journal: Journal, gaps: Gaps = NO_GAPS) -> None:
        self.block = block
        self.values: list[float] = [math.nan] * len(block.tags)
        """Newest value per tag, NaN where bad."""
        self.ts_ms: list[int | None] = [None] * len(block.tags)
        """Time of the newest good value per tag."""
        self.qualities: list[Quality] = [Quality.STALE] * len(block.tags)
        self.error: str | None = NOT_READ
        """Why the last request failed; None if it did not."""
        self.failing_since: float | None = None
        """Monotonic time of the first of the failures that this block is in; None if in none."""
        self.pauses = Pauses(block.tags[0].period_ms / 1000, PAUSE_MAX_S)
        self.answer_time = AnswerTime()
        self.recorder = Recorder()
        self.turned_bad: set[int] = set()
        """Places that were good and are bad, since somebody cleared this."""
        self.gaps = gaps
        self.refusals: dict[int, str] = {}
        """What the device said to each of the tags that it refuses, by place."""
        self._parts = parts_of(block, gaps)
        self._retry_at: float | None = None
        self._journal = journal
        self._normalize = Normalizer(block.tags)
        self._ids = array("I", [journal.intern(tag.series) for tag in block.tags])
        self._ids_bytes = self._ids.tobytes()

    def adopt(self, before: BlockReader, places: Iterable[tuple[int, int]]) -> None:
        """Go on for tags that another block read, as (place here, place there)."""
        for place, old in places:
            self.values[place] = before.values[old]
            self.ts_ms[place] = before.ts_ms[old]
            self.qualities[place] = before.qualities[old]
            self._normalize.adopt(place, before._normalize, old)
        self.error = before.error
        self.answer_time = before.answer_time

    # -- what to ask for -----------------------------------------------------------------------

    def search(self, now: float) -> Search:
        """A scan of what can be read; now and then of everything."""
        if self.gaps and self._retry_at is None:
            self._retry_at = now + RETRY_S
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            return Search(self.block, parts_of(self.block, NO_GAPS), NO_GAPS)
        return Search(self.block, self._parts, self.gaps)

    def learn(self, search: Search, counters: ConnectionCounters) -> bool:
        """The scan ended. Returns whether something else is known of the device now."""
        self.pauses.answered()
        if not self.gaps and not search.was_refused:
            if len(self._parts) > 1:  # what was left over is read now
                self._parts = parts_of(self.block, NO_GAPS)
            self.refusals.clear()
            return False  # all was read, as nearly always
        before, self.gaps = self.gaps, search.gaps()
        self._parts = parts_of(self.block, self.gaps, search.left_over)
        out = set(self.gaps.holes)
        for part in search.left_over:
            out.update(range(part.first, part.end))
        for place in out:
            self.values[place] = math.nan
            self._set_bad(place)
        self.refusals = {place: self.refusals.get(place, REFUSED_BEFORE) for place in out}
        counters.bad += len(out)
        return self.gaps != before

    # -- what came of it -----------------------------------------------------------------------

    def take(self, reply: Reply, counters: ConnectionCounters) -> None:
        """Normalize a reply, remember its values, and hand the good ones to the journal."""
        result = self._normalize(reply.ts_ms, reply.values, reply.positions)
        self.error = None
        if reply.positions is None and not result.bad:
            self.values = list(result.all_values)
            self.ts_ms = [reply.ts_ms] * len(self.values)
            self.qualities = [Quality.GOOD] * len(self.values)
        else:
            self._remember(reply, result.all_values)
        if result.positions is None:
            ids = self._ids_bytes
        else:
            ids = array("I", [self._ids[place] for place in result.positions]).tobytes()
        if ids:
            self._journal.append(reply.ts_ms, ids, result.values)
        counters.samples += len(result.values)
        counters.bad += len(result.bad)
        counters.suppressed += len(result.all_values) - len(result.values) - len(result.bad)

    def _remember(self, reply: Reply, all_values: Sequence[float]) -> None:
        places = range(len(all_values)) if reply.positions is None else reply.positions
        for place, value in zip(places, all_values, strict=True):
            self.values[place] = value
            if math.isnan(value):
                self._set_bad(place)
            else:
                self.qualities[place] = Quality.GOOD
                self.ts_ms[place] = reply.ts_ms

    def refuse(self, part: Part, error: str) -> None:
        """What the device said to a part; `learn` tells what it means."""
        self.refusals.update(dict.fromkeys(range(part.first, part.end), error))

    def fail(self, error: str, counters: ConnectionCounters) -> None:
        """The block could not be read: its tags are bad."""
        self.error = error
        self.refusals.clear()
        self.values = [math.nan] * len(self.values)
        for place in range(len(self.values)):
            self._set_bad(place)
        counters.bad += len(self.values)

    def lose(self, error: str) -> None:
        """The connection is down: what was read last is shown, but said to be old."""
        self.error = error
        self.qualities = [Quality.STALE] * len(self.values)
        self.pauses.answered()

    def _set_bad(self, place: int) -> None:
        if self.qualities[place] is Quality.GOOD:
            self.turned_bad.add(place)
        self.qualities[place] = Quality.BAD

    def problem(self, place: int) -> str | None:
        """Why a tag's newest value is not good; None if it is."""
        match self.qualities[place]:
            case Quality.GOOD:
                return None
            case Quality.BAD:
                return self.refusals.get(place) or self.error or "not a finite number"
            case Quality.STALE:
                return self.error or NOT_READ


def placed(reply: Reply, part: Part, whole: Block) -> Reply:
    """A part's reply as one of the whole block."""
    if part.block is whole:
        return reply
    places = range(part.end - part.first) if reply.positions is None else reply.positions
    return Reply(reply.ts_ms, reply.values, [part.first + place for place in places])


def place_of(block: Block) -> str:
    """A block as logs name it."""
    last = block.start + block.count - 1
    return f"unit {block.unit_id} {block.area} {block.start}..{last}"
