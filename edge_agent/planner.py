"""From tags to connections, scan classes and blocks. Pure: the same tags give the same plan.

A block is one request: a contiguous range of cells that covers one or more tags. Tags are merged
in address order while the gap between them is at most `gap_max` cells and the whole range at most
`span_max`; a value is never split, and a block never crosses a unit, an area or a scan class.
Reading a few unwanted registers costs microseconds, a further request a round trip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge_agent.model import Address, AddressSyntax, Limits, Tag, locate


@dataclass(frozen=True, slots=True)
class Block:
    """One request: cells ``start`` to ``start + count - 1`` of an area of a unit.

    ``addresses[i]`` is where ``tags[i]`` lies, counted from the area's first cell.
    """

    unit_id: int
    area: str
    start: int
    count: int
    tags: tuple[Tag, ...]
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class ScanClass:
    """The tags of one connection that share a period, as the blocks that read them."""

    period_ms: int
    blocks: tuple[Block, ...]

    @property
    def tag_count(self) -> int:
        """How many tags one scan reads."""
        return sum(len(block.tags) for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Connection:
    """One socket or serial line and all that is read over it, shortest period first."""

    protocol: str
    conn: str
    scan_classes: tuple[ScanClass, ...]


def plan(
    tags: Iterable[Tag], syntax: Callable[[str], type[AddressSyntax]]
) -> tuple[Connection, ...]:
    """Plan the scans of a valid map's tags.

    ``syntax`` gives a protocol's address syntax by name. Connections come in map order. Raises
    ``ValueError`` if a tag's address is not valid on its connection, which `address_map` has
    checked before.
    """
    by_connection: dict[tuple[str, str], list[Tag]] = defaultdict(list)
    for tag in tags:
        by_connection[tag.protocol, tag.conn].append(tag)
    return tuple(
        _plan_connection(protocol, conn, members, syntax(protocol))
        for (protocol, conn), members in by_connection.items()
    )


def _plan_connection(
    protocol: str, conn: str, tags: list[Tag], syntax: type[AddressSyntax]
) -> Connection:
    by_class: dict[int, dict[tuple[int, str], list[tuple[Address, Tag]]]] = {}
    for tag in tags:
        address = locate(syntax, conn, tag.address, tag.type)
        ranges = by_class.setdefault(tag.period_ms, {})
        ranges.setdefault((tag.unit_id, address.area), []).append((address, tag))
    scan_classes = []
    for period_ms in sorted(by_class):
        blocks: list[Block] = []
        for (unit_id, area), members in by_class[period_ms].items():
            blocks += _merge(unit_id, area, members, syntax.limits(conn, area))
        scan_classes.append(ScanClass(period_ms, tuple(blocks)))
    return Connection(protocol, conn, tuple(scan_classes))


def _merge(
    unit_id: int, area: str, members: list[tuple[Address, Tag]], limits: Limits
) -> list[Block]:
    """Cover the members' cells with as few blocks as the limits allow, in address order."""
    members = sorted(members, key=lambda member: (member[0].offset, member[0].width))
    blocks: list[Block] = []
    taken: list[tuple[Address, Tag]] = []
    start = end = 0
    for address, tag in members:
        new_end = max(end, address.offset + address.width)
        if taken and (address.offset - end > limits.gap_max or new_end - start > limits.span_max):
            blocks.append(_block(unit_id, area, start, end, taken))
            taken = []
        if not taken:
            start, new_end = address.offset, address.offset + address.width
        taken.append((address, tag))
        end = new_end
    if taken:
        blocks.append(_block(unit_id, area, start, end, taken))
    return blocks


def _block(
    unit_id: int, area: str, start: int, end: int, members: list[tuple[Address, Tag]]
) -> Block:
    return Block(
        unit_id=unit_id,
        area=area,
        start=start,
        count=end - start,
        tags=tuple(tag for _, tag in members),
        addresses=tuple(address for address, _ in members),
    )
