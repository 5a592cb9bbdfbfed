"""What becomes of readers when a connection's plan changes."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace
from typing import Any, cast

import pytest

from edge_agent import protocols
from edge_agent.journal import Journal
from edge_agent.metrics import ConnectionCounters
from edge_agent.model import Series, Tag, ValueType
from edge_agent.pipeline.reader import BlockReader, Quality
from edge_agent.pipeline.replan import replanned
from edge_agent.planner import Block, Connection, plan
from edge_agent.protocols.base import Reply
from tests.tags import plain_tag


class Taken:
    """Keeps what readers hand over; as much of a journal as they need."""

    def __init__(self) -> None:
        self.names: list[Series] = []
        self.values: list[tuple[str, float]] = []

    def intern(self, series: Series) -> int:
        if series not in self.names:
            self.names.append(series)
        return self.names.index(series)

    def append(self, _: int, ids: bytes, values: list[float]) -> None:
        found = array("I", ids)
        self.values += [
            (self.names[at].tag, value) for at, value in zip(found, values, strict=True)
        ]


def make(place: int, period_ms: int = 1000, **other: object) -> Tag:
    fields = {"address": f"hr:{place}", "type": ValueType.INT16, "period_ms": period_ms}
    return plain_tag(f"T{place}", **fields | other)


def planned(*tags: Tag) -> Connection:
    [connection] = plan(tags, protocols.load)
    return connection


class Rig:
    """The readers of a plan, and of the next."""

    def __init__(self, *tags: Tag) -> None:
        self.journal = Taken()
        self.readers = [
            [self.make(block) for block in scan_class.blocks]
            for scan_class in planned(*tags).scan_classes
        ]

    def make(self, block: Block) -> BlockReader:
        return BlockReader(block, cast("Journal", self.journal))

    def read(self, value: float = 7.0) -> None:
        for readers in self.readers:
            for reader in readers:
                reader.take(Reply(1_000, [value] * len(reader.block.tags)), ConnectionCounters())


def test_a_block_that_stays_the_same_keeps_its_reader() -> None:
    """Whatever happens beside it, before it in the plan too."""
    rig = Rig(make(100), make(500))
    kept = rig.readers[0][1]
    made = replanned(rig.readers, planned(make(0), make(500), make(900)), rig.make)
    assert made.readers[0][1] is kept
    assert [reader.block.start for reader in made.fresh] == [0, 900]
    assert [reader.block.start for reader in made.left] == [100]
    assert made.stood == {(0, 1): [(0, 1)]}


def test_a_tag_in_another_block_keeps_what_is_known_of_it() -> None:
    """Value, time and quality; the tag beside it is new and was not read yet."""
    rig = Rig(make(0), make(1))
    rig.read(7.0)
    made = replanned(rig.readers, planned(make(0), make(1), make(2)), rig.make)
    [[reader]] = made.readers
    assert reader.values[:2] == [7.0, 7.0]
    assert math.isnan(reader.values[2])
    assert reader.ts_ms == [1_000, 1_000, None]
    assert reader.qualities == [Quality.GOOD, Quality.GOOD, Quality.STALE]
    assert made.stood == {}


@pytest.mark.parametrize("change", [{"scale": 0.1}, {"unit": "Pa"}, {"hi": 3.0}])
def test_a_tag_that_was_changed_is_read_anew(change: dict[str, Any]) -> None:
    """An old value in a new unit would be wrong."""
    rig = Rig(make(0), make(1))
    rig.read(7.0)
    [[reader]] = replanned(rig.readers, planned(make(0), make(1, **change)), rig.make).readers
    assert reader.qualities == [Quality.GOOD, Quality.STALE]
    assert math.isnan(reader.values[1])


def test_a_removed_tag_leaves_a_smaller_block_that_was_read() -> None:
    """All its tags were in one block before."""
    rig = Rig(make(0), make(1), make(2))
    rig.read()
    made = replanned(rig.readers, planned(make(0), make(2)), rig.make)
    [[reader]] = made.readers
    assert reader.qualities == [Quality.GOOD] * 2
    assert made.stood == {(0, 0): [(0, 0)]}
    assert len(made.left) == 1


def test_a_deadband_compares_with_the_value_that_was_reported() -> None:
    """A plan that changes beside it reports nothing anew."""
    steady = make(0, deadband=1.0)
    rig = Rig(steady, make(1))
    rig.read(7.0)
    rig.readers = replanned(rig.readers, planned(steady, make(1), make(2)), rig.make).readers
    rig.journal.values.clear()
    rig.read(7.5)
    assert rig.journal.values == [("T1", 7.5), ("T2", 7.5)]


def test_a_tag_with_another_period_moves_to_another_class() -> None:
    """It is another tag: what it had is read anew, what is beside it goes on."""
    rig = Rig(make(0), make(1))
    rig.read(7.0)
    moved = replace(make(1), period_ms=200)
    made = replanned(rig.readers, planned(make(0), moved), rig.make)
    [[fast], [slow]] = made.readers
    assert fast.qualities == [Quality.STALE]
    assert slow.qualities == [Quality.GOOD]
