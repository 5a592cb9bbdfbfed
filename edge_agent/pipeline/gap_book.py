"""What devices were found to refuse, kept across restarts in one small file.

It saves the search at each start, nothing else: a file that is lost, damaged or can't be written
costs a few requests, and what is wrong with it is said once. Cells are kept, not tags: they stay
true when the map changes.

    {"tcp://10.0.0.5:502": {"1/holding": {"holes": [[40, 2]], "cuts": [[99, 200]]}}}

A hole is the offset and width of a tag, a cut the offsets of the tags on its two sides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import orjson

from edge_agent.files import SmallFile
from edge_agent.pipeline.parts import NO_GAPS, Gaps
from edge_agent.planner import Block

log = logging.getLogger(__name__)

GAPS_FILE: Final = "gaps.json"

_Pairs = set[tuple[int, int]]
_Area = dict[str, _Pairs]
_HOLES, _CUTS = "holes", "cuts"


class GapBook:
    """The gaps of all blocks; without a path it is kept in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self._areas: dict[tuple[str, str], _Area] = {}
        self._file: SmallFile | None = None
        if path is not None:
            self._file = SmallFile(path, "what devices refuse is not kept for the next start")
            self._load(path)

    def of(self, conn: str, block: Block) -> Gaps:
        """What is known of a block."""
        area = self._areas.get((conn, _area(block)))
        if area is None:
            return NO_GAPS
        holes, cuts = _holes(block), _cuts(block)
        return Gaps(
            frozenset(place for place, hole in enumerate(holes) if hole in area[_HOLES]),
            frozenset(place for place, cut in enumerate(cuts, 1) if cut in area[_CUTS]),
        )

    def learn(self, conn: str, block: Block, gaps: Gaps) -> None:
        """Replace what is known of a block, and write the file if that is something new."""
        if gaps == self.of(conn, block):
            return
        holes, cuts = _holes(block), _cuts(block)
        area = self._areas.setdefault((conn, _area(block)), {_HOLES: set(), _CUTS: set()})
        area[_HOLES] = (area[_HOLES] - set(holes)) | {holes[place] for place in gaps.holes}
        area[_CUTS] = (area[_CUTS] - set(cuts)) | {cuts[place - 1] for place in gaps.cuts}
        if not any(area.values()):
            del self._areas[conn, _area(block)]
        self._write()

    def _load(self, path: Path) -> None:
        try:
            self._areas = dict(_parsed(orjson.loads(path.read_bytes())))
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            log.warning("%s can't be used, devices are asked anew: %s", path, error)

    def _write(self) -> None:
        if self._file is None:
            return
        document: dict[str, dict[str, dict[str, list[tuple[int, int]]]]] = {}
        for (conn, name), area in sorted(self._areas.items()):
            document.setdefault(conn, {})[name] = {key: sorted(area[key]) for key in area}
        self._file.write(orjson.dumps(document))


def _parsed(document: Any) -> Iterable[tuple[tuple[str, str], _Area]]:
    for conn, areas in document.items():
        for name, area in areas.items():
            pairs = {
                key: {(int(one), int(other)) for one, other in area[key]} for key in (_HOLES, _CUTS)
            }
            yield (conn, name), pairs


def _area(block: Block) -> str:
    return f"{block.unit_id}/{block.area}"


def _holes(block: Block) -> list[tuple[int, int]]:
    return [(address.offset, address.width) for address in block.addresses]


def _cuts(block: Block) -> list[tuple[int, int]]:
    offsets = [address.offset for address in block.addresses]
    return list(pairwise(offsets))
