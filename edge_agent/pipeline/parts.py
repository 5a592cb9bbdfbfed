"""What a block comes down to on a device that has not got all of its cells. Pure.

A request that touches one cell which the device does not have is refused as a whole, and with it
all of the block's tags. Which cell it was, the device does not say. So a refused part is halved,
and its halves are asked for in the same scan, until what is refused is a single tag: a *hole*. Two
halves that are both read although the whole was refused mean that the cells between them are what
the device refuses, or that the whole was too long for it: a *cut*. Tags between holes and cuts are
one request again from the next scan on; if that one is refused, it is halved in turn.

One scan makes at most `REQUESTS_MAX` requests more than it has parts, so that a long search on a
slow line does not hold up its neighbours; what is left over is a part that the next scan goes on
with. Where nothing at all can be read the first tag is still asked for, as a sign of life.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.planner import Block

REQUESTS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Gaps:
    """What is known of a block, by its tags' places.

    ``holes`` are tags that the device refuses; a cut ``p`` lies between the tags ``p - 1`` and
    ``p``, which no request may join.
    """

    holes: frozenset[int] = frozenset()
    cuts: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.holes or self.cuts)


NO_GAPS: Final = Gaps()


@dataclass(frozen=True, slots=True)
class Part:
    """One request: the tags of a whole block from place ``first`` to before ``end``."""

    first: int
    end: int
    block: Block


def part_of(whole: Block, first: int, end: int) -> Part:
    """A part with the cells of its own tags only."""
    if first == 0 and end == len(whole.tags):
        return Part(first, end, whole)
    addresses = whole.addresses[first:end]
    start = min(address.offset for address in addresses)
    stop = max(address.offset + address.width for address in addresses)
    tags = whole.tags[first:end]
    return Part(first, end, Block(whole.unit_id, whole.area, start, stop - start, tags, addresses))


def parts_of(whole: Block, gaps: Gaps, left_over: Sequence[Part] = ()) -> tuple[Part, ...]:
    """The requests that read what can be read; ``left_over`` stays as it is, for a next search."""
    size = len(whole.tags)
    apart = {place: part for part in left_over for place in range(part.first, part.end)}
    parts = list(left_over)
    for first, end in _runs(size, gaps, apart.keys()):
        parts.append(part_of(whole, first, end))
    if not parts:
        parts.append(part_of(whole, 0, 1))
    return tuple(sorted(parts, key=lambda part: part.first))


def _runs(size: int, gaps: Gaps, apart: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The places between holes, cuts and what is kept apart, as ranges."""
    left_out = gaps.holes | set(apart)
    first = 0
    for place in range(size + 1):
        ends = place == size or place in left_out
        if first < place and (ends or place in gaps.cuts):
            yield first, place
            first = place
        if ends:
            first = place + 1


class Search:
    """One scan of a block: which part is next, and what the answers mean.

    Each part that `next` gives is either `took` or `refused` before the next one.
    """

    def __init__(self, whole: Block, parts: Sequence[Part], known: Gaps) -> None:
        """``known`` is what stays true of tags that are not asked for."""
        self.left_over: list[Part] = []
        """What was refused, and is to be halved in the next scan."""
        self._whole = whole
        self._waiting = deque(parts)
        self._known = known
        self._budget = REQUESTS_MAX
        self._holes: set[int] = set()
        self._read: set[tuple[int, int]] = set()
        self._halved: list[tuple[int, int, int]] = []

    def next(self) -> Part | None:
        """What to ask for now; None at the end of the scan."""
        return self._waiting.popleft() if self._waiting else None

    def took(self, part: Part) -> None:
        """It was read."""
        self._read.add((part.first, part.end))

    def refused(self, part: Part) -> None:
        """The device has not got all of its cells."""
        if part.end - part.first == 1:
            self._holes.add(part.first)
        elif self._budget < 2:
            self.left_over.append(part)
        else:
            self._budget -= 2
            middle = (part.first + part.end) // 2
            self._halved.append((part.first, middle, part.end))
            self._waiting.extendleft(
                (part_of(self._whole, middle, part.end), part_of(self._whole, part.first, middle))
            )

    @property
    def was_refused(self) -> bool:
        """Whether any part of this scan was refused."""
        return bool(self._holes or self._halved or self.left_over)

    def gaps(self) -> Gaps:
        """What is known at the end of the scan."""
        cuts = {
            middle
            for first, middle, end in self._halved
            if (first, middle) in self._read and (middle, end) in self._read
        }
        read = {place for first, end in self._read for place in range(first, end)}
        return Gaps((self._known.holes - read) | self._holes, self._known.cuts | cuts)
