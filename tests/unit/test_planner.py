"""Tags into connections, scan classes and blocks."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import Address, AddressSyntax, Limits, Tag, ValueType
from edge_agent.planner import Block, Connection, plan
from edge_agent.protocols import load
from tests.tags import plain_tag
from tests.telegraf import FILL_DEFAULT, max_insert

TESTCASES = Path(__file__).parent.parent / "testcases"


def tag(name: str, address: str, **changes: object) -> Tag:
    usual = {"protocol": "toy", "conn": "toy:10:20", "type": ValueType.INT16}
    return plain_tag(name, address=address, **usual | changes)


class Toy:
    """Addresses ``area:offset:width``, connections ``toy:gap_max:span_max``."""

    @staticmethod
    def parse_conn(conn: str) -> Limits:
        _, gap_max, span_max = conn.split(":")
        return Limits(int(span_max), int(gap_max))

    @staticmethod
    def parse_address(address: str, value_type: ValueType) -> Address:
        area, offset, width = address.split(":")
        return Address(area, int(offset), int(width))

    @staticmethod
    def limits(conn: str, area: str) -> Limits:
        return Toy.parse_conn(conn)


def toy(protocol: str) -> type[Toy]:
    return Toy


def blocks(tags: Sequence[Tag]) -> list[Block]:
    return [
        block
        for connection in plan(tags, toy)
        for scan_class in connection.scan_classes
        for block in scan_class.blocks
    ]


def spans(tags: Sequence[Tag]) -> list[tuple[int, int]]:
    return [(block.start, block.count) for block in blocks(tags)]


def test_nothing_to_plan() -> None:
    """No tags, no connections."""
    assert plan([], toy) == ()


def test_gap_is_read_along_up_to_the_limit() -> None:
    """10 unwanted cells are cheaper than a request; 11 are not."""
    assert spans([tag("a", "r:0:1"), tag("b", "r:11:1")]) == [(0, 12)]
    assert spans([tag("a", "r:0:1"), tag("b", "r:12:1")]) == [(0, 1), (12, 1)]


def test_gap_zero_still_joins_neighbours() -> None:
    """With gap_max 0 a block holds only cells that a tag names."""
    conn = "toy:0:20"
    tags = [
        tag("a", "r:0:2", conn=conn),
        tag("b", "r:2:1", conn=conn),
        tag("c", "r:4:1", conn=conn),
    ]
    assert spans(tags) == [(0, 3), (4, 1)]


def test_gap_counts_from_the_furthest_cell() -> None:
    """A short value inside a long one does not make the gap look wider."""
    assert spans([tag("a", "r:0:8"), tag("b", "r:1:1"), tag("c", "r:18:1")]) == [(0, 19)]


def test_a_value_is_never_split() -> None:
    """A value that would run over the limit opens the next block."""
    assert spans([tag(f"t{i}", f"r:{i * 4}:4") for i in range(6)]) == [(0, 20), (20, 4)]
    assert spans([tag("a", "r:0:1"), tag("b", "r:18:4")]) == [(0, 1), (18, 4)]


def test_blocks_never_cross_units_areas_or_scan_classes() -> None:
    """Neighbouring cells of another unit, area or period are another request."""
    tags = [
        tag("a", "r:0:1"),
        tag("b", "r:1:1", unit_id=2),
        tag("c", "s:1:1"),
        tag("d", "r:1:1", period_ms=500),
    ]
    assert sorted((b.unit_id, b.area, b.start, b.count) for b in blocks(tags)) == [
        (1, "r", 0, 1),
        (1, "r", 1, 1),
        (1, "s", 1, 1),
        (2, "r", 1, 1),
    ]


def test_connections_in_map_order_and_scan_classes_fastest_first() -> None:
    """What is read how often over which connection."""
    tags = [
        tag("a", "r:0:1", conn="toy:1:9", period_ms=1000),
        tag("b", "r:0:1", conn="toy:0:9", period_ms=200),
        tag("c", "r:1:1", conn="toy:1:9", period_ms=200),
    ]
    first, second = plan(tags, toy)
    assert (first.protocol, first.conn, second.conn) == ("toy", "toy:1:9", "toy:0:9")
    assert [(c.period_ms, c.tag_count) for c in first.scan_classes] == [(200, 1), (1000, 1)]


def test_tags_on_the_same_cell_share_a_block() -> None:
    """Two tags may read one register, for example under two types."""
    [block] = blocks([tag("a", "r:5:2"), tag("b", "r:5:1"), tag("c", "r:5:2")])
    assert (block.start, block.count) == (5, 2)
    assert [member.tag for member in block.tags] == ["b", "a", "c"]
    assert block.addresses == (Address("r", 5, 1), Address("r", 5, 2), Address("r", 5, 2))


def test_a_value_wider_than_a_request_is_an_error() -> None:
    """A connection that allows 2 cells a request can't read a value of 4; the error says so."""
    with pytest.raises(ValueError, match=r"INT16 takes 4 cells, but toy:10:2 allows 2 a request"):
        plan([tag("wide", "r:0:4", conn="toy:10:2")], toy)


# What holds for any map.


@st.composite
def maps(draw: st.DrawFn, offset_max: int = 80, size_max: int = 30) -> list[Tag]:
    limits = f"toy:{draw(st.integers(0, 12))}:{draw(st.integers(4, 30))}"
    return [
        tag(
            f"t{i}",
            f"{draw(st.sampled_from('rs'))}:{draw(st.integers(0, offset_max))}"
            f":{draw(st.sampled_from([1, 1, 2, 4]))}",
            conn=limits,
            unit_id=draw(st.integers(1, 2)),
            period_ms=draw(st.sampled_from([200, 1000])),
        )
        for i in range(draw(st.integers(0, size_max)))
    ]


@given(maps())
def test_any_plan_covers_each_tag_once_within_the_limits(tags: list[Tag]) -> None:
    """Every tag whole in exactly one block; span and gaps within limits, no cell for nothing."""
    placed = []
    for connection in plan(tags, toy):
        for scan_class in connection.scan_classes:
            for block in scan_class.blocks:
                limits = Toy.limits(connection.conn, block.area)
                assert block.count <= limits.span_max
                assert len(block.tags) == len(block.addresses)
                covered = set()
                for member, address in zip(block.tags, block.addresses, strict=True):
                    assert address == Toy.parse_address(member.address, member.type)
                    assert (member.unit_id, address.area) == (block.unit_id, block.area)
                    assert member.period_ms == scan_class.period_ms
                    assert block.start <= address.offset
                    assert address.offset + address.width <= block.start + block.count
                    covered |= set(range(address.offset, address.offset + address.width))
                    placed.append(member.tag)
                assert gap(covered) <= limits.gap_max
                assert {block.start, block.start + block.count - 1} <= covered
    assert sorted(placed) == sorted(member.tag for member in tags)


def gap(covered: set[int]) -> int:
    """The widest run of cells between covered ones."""
    cells = sorted(covered)
    return max((after - before - 1 for before, after in pairwise(cells)), default=0)


@given(st.data())
def test_the_blocks_do_not_depend_on_the_order_of_rows(data: st.DataObject) -> None:
    """The same tags give the same requests; sorting the file changes nothing on the bus."""
    tags = data.draw(maps())
    shuffled = data.draw(st.permutations(tags))
    assert plan(tags, toy) == plan(list(tags), toy)
    assert requests(tags) == requests(shuffled)


def requests(tags: Sequence[Tag]) -> list[tuple[int, str, int, int, list[str]]]:
    return sorted(
        (block.unit_id, block.area, block.start, block.count, sorted(t.tag for t in block.tags))
        for block in blocks(tags)
    )


@given(st.data())
def test_no_plan_has_fewer_blocks(data: st.DataObject) -> None:
    """The number of blocks is the least that any way of sharing out the tags could have."""
    limits = Limits(span_max=data.draw(st.integers(4, 12)), gap_max=data.draw(st.integers(0, 5)))
    width = st.sampled_from([1, 2, 4])
    places = data.draw(st.lists(st.tuples(st.integers(0, 25), width), min_size=1, max_size=7))
    conn = f"toy:{limits.gap_max}:{limits.span_max}"
    tags = [tag(f"t{i}", f"r:{o}:{w}", conn=conn) for i, (o, w) in enumerate(places)]
    assert len(blocks(tags)) == fewest_blocks(tuple(places), limits)


def fewest_blocks(places: tuple[tuple[int, int], ...], limits: Limits) -> int:
    """Brute force over every partition into valid blocks."""

    def valid(group: tuple[tuple[int, int], ...]) -> bool:
        covered = {cell for offset, width in group for cell in range(offset, offset + width)}
        return max(covered) - min(covered) < limits.span_max and gap(covered) <= limits.gap_max

    @cache
    def fewest(left: tuple[tuple[int, int], ...]) -> int:
        if not left:
            return 0
        first, rest = left[0], left[1:]
        return min(
            1 + fewest(tuple(rest[i] for i in range(len(rest)) if i not in chosen))
            for size in range(len(rest) + 1)
            for chosen in combinations(range(len(rest)), size)
            if valid((first, *(rest[i] for i in chosen)))
        )

    return fewest(places)


# Whole maps: a folder each, address_map.csv and what is read for it.


FOLDERS = sorted(TESTCASES.glob("plan_*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_testcase(folder: Path) -> None:
    """The requests for a map are those in its expected.json."""
    planned = [
        {
            "conn": connection.conn,
            "scan_classes": [
                {
                    "period_ms": scan_class.period_ms,
                    "blocks": [
                        {
                            "unit_id": block.unit_id,
                            "area": block.area,
                            "start": block.start,
                            "count": block.count,
                            "tags": [member.tag for member in block.tags],
                        }
                        for block in scan_class.blocks
                    ],
                }
                for scan_class in connection.scan_classes
            ],
        }
        for connection in plan(tags_of(folder), load)
    ]
    assert planned == json.loads((folder / "expected.json").read_text())


def tags_of(folder: Path) -> list[Tag]:
    with (folder / "address_map.csv").open(encoding="utf-8", newline="") as file:
        return [from_row(row) for row in csv.DictReader(file)]


def from_row(row: dict[str, str]) -> Tag:
    """A row of a map that needs none of address_map's leniency."""
    return Tag(
        site=row["site"], line=row["line"], device=row["device"], tag=row["tag"],
        protocol=row["protocol"], conn=row["conn"], unit_id=int(row["unit_id"]),
        address=row["address"], type=ValueType(row["type"]), scale=float(row["scale"]),
        offset=float(row["offset"]), period_ms=int(row["period_ms"]), unit=row["unit"],
    )  # fmt: skip


# Beside Telegraf's best, its optimization "max_insert" (tests/telegraf.py).


class Counts(NamedTuple):
    """Requests of one scan of everything."""

    ours: int
    """With the map's own options: `gap_max` is 50 where it states none."""
    same: int
    """Telegraf's with the same gap."""
    ours_50: int
    """With `gap_max=50`."""
    telegraf_50: int
    """With its default, 50."""


COUNTS = {
    "plan_125_registers_not_split": Counts(2, 2, 2, 2),
    "plan_device_that_allows_eight_registers": Counts(3, 3, 2, 2),
    "plan_five_and_six_digit_addresses": Counts(3, 3, 3, 3),
    "plan_gap_of_ten_and_eleven": Counts(4, 4, 2, 4),
    "plan_numbers_that_count_from_0": Counts(4, 4, 4, 4),
    "plan_power_meter": Counts(3, 3, 3, 3),
    "plan_pump_station": Counts(6, 6, 6, 6),
    "plan_status_bits_of_one_register": Counts(1, 1, 1, 1),
}
"""Only a map that states a smaller `gap_max` has more requests than with Telegraf's default."""


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_no_more_requests_than_telegrafs_best(folder: Path) -> None:
    """With the same gap, our default and theirs."""
    tags = tags_of(folder)
    wide = [with_gap(member, FILL_DEFAULT) for member in tags]
    counts = Counts(
        requests_of(plan(tags, load)),
        telegrafs_of(plan(tags, load)),
        requests_of(plan(wide, load)),
        telegrafs_of(plan(wide, load), FILL_DEFAULT),
    )
    assert counts == COUNTS[folder.name]
    assert counts.ours <= counts.same
    assert counts.ours_50 <= counts.telegraf_50


@given(maps(), st.integers(0, 2))
def test_no_map_has_more_requests_than_with_telegraf(tags: list[Tag], less: int) -> None:
    """Whatever overlaps; a smaller gap of theirs only makes their requests more."""
    planned = plan(tags, toy)
    limits = Toy.parse_conn(planned[0].conn) if planned else Limits(1, 0)
    fill = max(limits.gap_max - less, 0)
    assert requests_of(planned) <= telegrafs_of(planned, fill, toy)


def with_gap(member: Tag, gap_max: int) -> Tag:
    """The tag with another `gap_max`, whether it states one or not."""
    address, _, query = member.conn.partition("?")
    options = [option for option in query.split("&") if option and "gap_max" not in option]
    return replace(member, conn=f"{address}?{'&'.join([*options, f'gap_max={gap_max}'])}")


def requests_of(planned: Sequence[Connection]) -> int:
    return sum(len(scan_class.blocks) for c in planned for scan_class in c.scan_classes)


def telegrafs_of(
    planned: Sequence[Connection],
    fill: int | None = None,
    syntax: Callable[[str], type[AddressSyntax]] = load,
) -> int:
    """Telegraf's requests for the same values; ``fill`` is ours where none is given."""
    total = 0
    for connection in planned:
        for scan_class in connection.scan_classes:
            fields: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
            for block in scan_class.blocks:
                fields[block.unit_id, block.area] += [(a.offset, a.width) for a in block.addresses]
            for (_, area), members in fields.items():
                limits = syntax(connection.protocol).limits(connection.conn, area)
                gap = limits.gap_max if fill is None else fill
                total += len(max_insert(members, fill=gap, size_max=limits.span_max))
    return total
