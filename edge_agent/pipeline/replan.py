"""From one plan of a connection to the next while it is being read.

Nothing that both plans have is begun anew: a block that stays the same keeps its reader with all
that it knows; a tag that lies in another block keeps its newest value, its quality and what its
deadband compares with; a scan class keeps its grid, and what its running scan has read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge_agent.model import Tag
from edge_agent.pipeline.reader import BlockReader
from edge_agent.planner import Block, Connection

Place = tuple[int, int]
"""Scan class and block."""


@dataclass(frozen=True, slots=True)
class Replanned:
    """The readers of the new plan, by scan class and block.

    ``stood`` says in which blocks of the old plan the tags of each block were; one that has a tag
    which was nowhere is not in it. ``fresh`` are readers that are new, ``left`` those of the old
    plan that are no longer needed.
    """

    readers: list[list[BlockReader]]
    stood: Mapping[Place, Sequence[Place]]
    fresh: Sequence[BlockReader]
    left: Sequence[BlockReader]


def replanned(
    before: Sequence[Sequence[BlockReader]],
    connection: Connection,
    make: Callable[[Block], BlockReader],
) -> Replanned:
    """Make readers for a plan out of those of the plan before; ``make`` makes a new one."""
    known = _places_of(before)
    same = {id(reader): False for readers in before for reader in readers}
    readers: list[list[BlockReader]] = []
    stood: dict[Place, Sequence[Place]] = {}
    fresh: list[BlockReader] = []
    for index, scan_class in enumerate(connection.scan_classes):
        readers.append([])
        for number, block in enumerate(scan_class.blocks):
            found = [known.get(tag) for tag in block.tags]
            where = {(at[0], at[1]) for at in found if at is not None}
            if None not in found:
                stood[index, number] = sorted(where)
            reader = _same(before, where, block)
            if reader is None:
                reader = make(block)
                _adopt(reader, before, found)
                fresh.append(reader)
            same[id(reader)] = True
            readers[-1].append(reader)
    left = [reader for each in before for reader in each if not same[id(reader)]]
    return Replanned(readers, stood, fresh, left)


def _places_of(before: Sequence[Sequence[BlockReader]]) -> Mapping[Tag, tuple[int, int, int]]:
    return {
        tag: (index, number, place)
        for index, readers in enumerate(before)
        for number, reader in enumerate(readers)
        for place, tag in enumerate(reader.block.tags)
    }


def _same(
    before: Sequence[Sequence[BlockReader]], where: set[Place], block: Block
) -> BlockReader | None:
    """The reader of the very same block, if there is one."""
    if len(where) != 1:
        return None
    [(index, number)] = where
    reader = before[index][number]
    return reader if reader.block == block else None


def _adopt(
    reader: BlockReader,
    before: Sequence[Sequence[BlockReader]],
    found: Sequence[tuple[int, int, int] | None],
) -> None:
    by_reader: dict[Place, list[tuple[int, int]]] = defaultdict(list)
    for place, at in enumerate(found):
        if at is not None:
            index, number, old = at
            by_reader[index, number].append((place, old))
    for (index, number), places in by_reader.items():
        reader.adopt(before[index][number], places)
