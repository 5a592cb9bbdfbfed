"""What a block comes down to on a device that refuses some of its cells."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import Address
from edge_agent.pipeline.gap_book import GapBook
from edge_agent.pipeline.parts import NO_GAPS, REQUESTS_MAX, Gaps, Part, Search, parts_of
from edge_agent.planner import Block
from tests.tags import plain_tag

SCANS_MAX = 40


def block_of(*addresses: tuple[int, int]) -> Block:
    """A block whose tags lie at these offsets, so many cells wide."""
    addresses = tuple(sorted(addresses))
    tags = tuple(
        plain_tag(f"T{place}", protocol="plc", conn="plc://a", address=str(offset))
        for place, (offset, _) in enumerate(addresses)
    )
    start = addresses[0][0]
    end = max(offset + width for offset, width in addresses)
    located = tuple(Address("holding", offset, width) for offset, width in addresses)
    return Block(1, "holding", start, end - start, tags, located)


class Device:
    """It refuses a request that touches one of ``missing``, or has more than ``span_max`` cells."""

    def __init__(self, missing: frozenset[int], span_max: int = 1_000) -> None:
        self.missing = missing
        self.span_max = span_max
        self.requests: list[tuple[int, int]] = []

    def has(self, start: int, count: int) -> bool:
        return count <= self.span_max and not self.missing & set(range(start, start + count))

    def scan(self, block: Block, parts: tuple[Part, ...], gaps: Gaps) -> tuple[Search, set[int]]:
        """One scan as the poller makes it; the places of the tags that were read."""
        search, read = Search(block, parts, gaps), set[int]()
        self.requests.clear()
        while (part := search.next()) is not None:
            self.requests.append((part.block.start, part.block.count))
            if self.has(part.block.start, part.block.count):
                search.took(part)
                read.update(range(part.first, part.end))
            else:
                search.refused(part)
        return search, read


def learned(device: Device, block: Block) -> tuple[set[int], Gaps, int]:
    """Scan until nothing new is learned: what is read then, what is known, and after how many."""
    gaps = NO_GAPS
    parts = parts_of(block, gaps)
    for scans in range(1, SCANS_MAX):
        search, read = device.scan(block, parts, gaps)
        before, gaps = gaps, search.gaps()
        parts = parts_of(block, gaps, search.left_over)
        if gaps == before and not search.left_over:
            return read, gaps, scans
    raise AssertionError("it never ends")


addresses = st.lists(
    st.tuples(st.integers(0, 120), st.integers(1, 4)), min_size=1, max_size=60, unique=True
)


@given(addresses, st.frozensets(st.integers(0, 124), max_size=12), st.integers(4, 125))
def test_every_tag_that_the_device_has_is_read(
    found: list[tuple[int, int]], missing: frozenset[int], span_max: int
) -> None:
    """Whatever it refuses, and however long a request it takes; and no other tag is."""
    block = block_of(*found)
    device = Device(missing, span_max)
    read, gaps, _ = learned(device, block)
    can_be = {
        place
        for place, address in enumerate(block.addresses)
        if device.has(address.offset, address.width)
    }
    assert read == can_be
    assert gaps.holes == set(range(len(block.tags))) - can_be


def test_one_missing_register_costs_one_tag_in_the_very_first_scan() -> None:
    """Of sixty tags, and from the second scan on it costs one request more."""
    block = block_of(*((2 * n, 2) for n in range(60)))
    device = Device(frozenset({2 * 37}))
    search, read = device.scan(block, parts_of(block, NO_GAPS), NO_GAPS)
    assert read == set(range(60)) - {37}
    assert len(device.requests) <= 2 * math.ceil(math.log2(60)) + 1
    gaps = search.gaps()
    assert gaps == Gaps(frozenset({37}))
    device.scan(block, parts_of(block, gaps), gaps)
    assert device.requests == [(0, 74), (76, 44)]


def test_cells_between_tags_that_the_device_has_not_got() -> None:
    """The block is cut there, no tag is lost."""
    block = block_of((0, 1), (1, 1), (2, 1), (10, 1), (11, 1))
    device = Device(frozenset({5}))
    read, gaps, _ = learned(device, block)
    assert read == {0, 1, 2, 3, 4}
    assert gaps == Gaps(cuts=frozenset({3}))
    assert device.requests == [(0, 3), (10, 2)]


def test_a_search_is_bounded_in_each_scan() -> None:
    """However much is missing; the next scan goes on."""
    block = block_of(*((n, 1) for n in range(120)))
    device = Device(frozenset(range(0, 120, 2)))
    search, _ = device.scan(block, parts_of(block, NO_GAPS), NO_GAPS)
    assert len(device.requests) <= REQUESTS_MAX + 1
    assert search.left_over
    read, _, scans = learned(device, block)
    assert read == set(range(1, 120, 2))
    assert scans < 12


def test_where_nothing_is_left_the_first_tag_is_asked_for() -> None:
    """So that somebody notices when the device goes, or gets its cells back."""
    block = block_of((0, 2), (2, 2))
    (part,) = parts_of(block, Gaps(frozenset({0, 1})))
    assert (part.first, part.end, part.block.start, part.block.count) == (0, 1, 0, 2)
    search = Search(block, [part], Gaps(frozenset({0, 1})))
    assert search.next() == part
    search.took(part)
    assert search.gaps() == Gaps(frozenset({1}))


def test_an_untouched_block_is_the_block_itself() -> None:
    """Nothing is copied where nothing is refused."""
    block = block_of((0, 1), (3, 1))
    (part,) = parts_of(block, NO_GAPS)
    assert part.block is block


# -- kept across restarts -----------------------------------------------------------------------


def test_gaps_are_known_after_a_restart(tmp_path: Path) -> None:
    """By cells: also where the map has other tags around them."""
    block = block_of((0, 1), (1, 1), (2, 2), (10, 1))
    gaps = Gaps(frozenset({1}), frozenset({3}))
    GapBook(tmp_path / "gaps.json").learn("tcp://a", block, gaps)
    book = GapBook(tmp_path / "gaps.json")
    assert book.of("tcp://a", block) == gaps
    assert book.of("tcp://b", block) == NO_GAPS
    assert book.of("tcp://a", block_of((1, 1), (2, 2), (10, 1))) == Gaps(
        frozenset({0}), frozenset({2})
    )
    book.learn("tcp://a", block, NO_GAPS)
    assert GapBook(tmp_path / "gaps.json").of("tcp://a", block) == NO_GAPS
    assert (tmp_path / "gaps.json").read_bytes() == b"{}"


def test_what_is_known_of_other_blocks_of_the_area_stays(tmp_path: Path) -> None:
    """Two scan classes read the same area."""
    one, other = block_of((0, 1), (1, 1)), block_of((50, 1), (51, 1))
    book = GapBook(tmp_path / "gaps.json")
    book.learn("tcp://a", one, Gaps(frozenset({0})))
    book.learn("tcp://a", other, Gaps(frozenset({1})))
    book.learn("tcp://a", one, NO_GAPS)
    assert book.of("tcp://a", other) == Gaps(frozenset({1}))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"a": 1}', b'{"a": {"1/x": {"holes": [[1]], "cuts": []}}}', b"\xff"]
)
def test_a_damaged_file_costs_a_search_and_a_warning(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing else, and it is written anew."""
    path = tmp_path / "gaps.json"
    path.write_bytes(content)
    block = block_of((0, 1), (1, 1))
    book = GapBook(path)
    assert book.of("a", block) == NO_GAPS
    assert str(path) in caplog.text
    book.learn("a", block, Gaps(frozenset({1})))
    assert GapBook(path).of("a", block) == Gaps(frozenset({1}))


def test_a_file_that_cant_be_written_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was found is known all the same until the end."""
    caplog.set_level(logging.WARNING)
    book = GapBook(tmp_path / "missing" / "gaps.json")
    block = block_of((0, 1), (1, 1))
    book.learn("a", block, Gaps(frozenset({1})))
    book.learn("a", block, Gaps(frozenset({0})))
    assert book.of("a", block) == Gaps(frozenset({0}))
    assert len(caplog.records) == 1
