"""What is legal in a map, and probably a mistake. Pure.

Few checks, each of which has cost somebody a day: whoever is told fifty harmless things reads none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from edge_agent.bus_load import Verdict as Load
from edge_agent.forecast import Forecast
from edge_agent.model import Address, AddressSyntax, Tag, ValueType, locate
from edge_agent.quality.judge import Finding, Verdict
from edge_agent.text.counts import counted

STEPS_FEW: Final = 20
"""An integer that can take no more values between its limits shows steps, not a measurement: most
often its scale is missing."""
NAMES_SHOWN: Final = 5
"""Of the rows that a sentence is about."""

_FLOATS: Final = (ValueType.FLOAT16, ValueType.FLOAT32, ValueType.FLOAT64)
_RANGES: Final = {
    ValueType.INT8: (-(2**7), 2**7 - 1),
    ValueType.UINT8: (0, 2**8 - 1),
    ValueType.INT16: (-(2**15), 2**15 - 1),
    ValueType.UINT16: (0, 2**16 - 1),
    ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.UINT32: (0, 2**32 - 1),
    ValueType.BCD16: (0, 9_999),
    ValueType.BCD32: (0, 99_999_999),
}

Syntax = Callable[[str], type[AddressSyntax]]


class _Place(NamedTuple):
    """Where a tag lies."""

    address: Address
    tag: Tag


def map_findings(tags: Sequence[Tag], syntax: Syntax, load: Forecast) -> list[Finding]:
    """Everything suspicious in a valid map; what can't work first.

    ``load`` is the map's own forecast.
    """
    return [
        *_about_load(load),
        *_about_addresses(tags, syntax),
        *_about_integers(tags),
        *_about_deadbands(tags),
        *_about_units(tags),
        *_about_limits(tags),
    ]


def _about_load(load: Forecast) -> Iterator[Finding]:
    for connection in load.connections:
        for one in connection.classes:
            if one.verdict is Load.FITS:
                continue
            verdict = Verdict.BAD if one.verdict is Load.IMPOSSIBLE else Verdict.LOOK
            yield Finding(
                "period",
                verdict,
                f"{connection.conn}: {counted(one.tags, 'tag')} each {one.period_ms:,} ms, but"
                f" {'its' if one.tags == 1 else 'their'} scan takes {one.cycle_s * 1000:,.0f} ms;"
                " `edge-agent plan` has the details.",
            )


def _about_addresses(tags: Sequence[Tag], syntax: Syntax) -> Iterator[Finding]:
    """Tags that read the same, and tags that share some of their cells."""
    areas: dict[tuple[str, str, int, str], list[_Place]] = defaultdict(list)
    for tag in tags:
        address = locate(syntax(tag.protocol), tag.conn, tag.address, tag.type)
        areas[tag.protocol, tag.conn, tag.unit_id, address.area].append(_Place(address, tag))
    for places in areas.values():
        same: dict[tuple[object, ...], list[Tag]] = defaultdict(list)
        for address, tag in places:
            same[address, tag.type, tag.byte_order].append(tag)
        for twins in same.values():
            if len(twins) > 1:
                yield Finding(
                    "address",
                    Verdict.LOOK,
                    f"{_names(twins)} read the same value: {twins[0].conn}, unit"
                    f" {twins[0].unit_id}, {twins[0].address}, {twins[0].type}.",
                )
        yield from _overlapping(places)


def _overlapping(places: Sequence[_Place]) -> Iterator[Finding]:
    """A value that begins inside another one: an address is off by one, or a type too wide. Bits of
    a word that is read as a whole too are usual."""
    values = [place for place in places if place.address.bit is None]
    by_offset = sorted(values, key=lambda place: (place.address.offset, place.address.width))
    for (first, tag), (second, other) in pairwise(by_offset):
        if first.offset < second.offset < first.offset + first.width:
            yield Finding(
                "overlap",
                Verdict.LOOK,
                f"{_names([other])} ({other.address}) begins inside {_names([tag])}"
                f" ({tag.address}, {tag.type}).",
            )


def _about_integers(tags: Sequence[Tag]) -> Iterator[Finding]:
    for tag in tags:
        if tag.type not in _RANGES or tag.lo is None or tag.hi is None:
            continue
        lowest, highest = sorted(raw * tag.scale + tag.offset for raw in _RANGES[tag.type])
        if tag.hi < lowest or tag.lo > highest:
            yield Finding(
                "limits",
                Verdict.LOOK,
                f"{_names([tag])}: {tag.type} with this scale and offset goes from {lowest:g} to"
                f" {highest:g}, never inside {tag.lo:g}..{tag.hi:g}.",
            )
        elif tag.scale == 1 and tag.unit and tag.hi - tag.lo <= STEPS_FEW:
            yield Finding(
                "scale",
                Verdict.LOOK,
                f"{_names([tag])}: {tag.type} with scale 1 has {int(tag.hi - tag.lo) + 1} values"
                f" in {tag.lo:g}..{tag.hi:g} {tag.unit}; is its scale missing, or is it a float?",
            )


def _about_deadbands(tags: Sequence[Tag]) -> Iterator[Finding]:
    for tag in tags:
        if tag.lo is None or tag.hi is None or not tag.deadband:
            continue
        if 2 * tag.deadband >= tag.hi - tag.lo:
            yield Finding(
                "deadband",
                Verdict.LOOK,
                f"{_names([tag])}: a deadband of {tag.deadband:g} hides half of"
                f" {tag.lo:g}..{tag.hi:g}.",
            )


def _about_units(tags: Sequence[Tag]) -> Iterator[Finding]:
    units: dict[str, dict[str, list[Tag]]] = defaultdict(lambda: defaultdict(list))
    for tag in tags:
        units[tag.tag][tag.unit].append(tag)
    for name, by_unit in units.items():
        if len(by_unit) == 1:
            continue
        (usual, rows), *others = sorted(by_unit.items(), key=lambda item: (-len(item[1]), item[0]))
        strange = "; ".join(f"{unit or 'no unit'}: {_names(some)}" for unit, some in others)
        yield Finding(
            "unit",
            Verdict.LOOK,
            f"{name} is in {usual or 'no unit'} in {counted(len(rows), 'row')}, but {strange}.",
        )


def _about_limits(tags: Sequence[Tag]) -> Iterator[Finding]:
    """One sentence a device: a map without limits would otherwise get one a row."""
    analog = [tag for tag in tags if tag.type is not ValueType.BOOL]
    counts = Counter((tag.site, tag.device) for tag in analog)
    bare: dict[tuple[str, str], list[Tag]] = defaultdict(list)
    for tag in analog:
        if tag.lo is None and tag.hi is None and (tag.unit or tag.type in _FLOATS):
            bare[tag.site, tag.device].append(tag)
    for device, some in bare.items():
        have = "has" if len(some) == 1 else "have"
        yield Finding(
            "limits",
            Verdict.LOOK,
            f"{'/'.join(device)}: {len(some):,} of {counted(counts[device], 'analog tag')} {have}"
            f" neither lo nor hi, so nobody notices a wrong value: {_names(some, tag_only=True)}.",
        )


def _names(tags: Sequence[Tag], *, tag_only: bool = False) -> str:
    shown = [tag.tag if tag_only else "/".join(tag.key) for tag in tags[:NAMES_SHOWN]]
    more = len(tags) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")
