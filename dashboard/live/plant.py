"""What a look at the plant found: devices and tags, and the newest value of each tag.

Tags have a position, their place in every column here. Positions mean something only together
with a `Layout`, which is replaced as a whole when the address map changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard.data.base import Newest
from edge_agent.model import TagKey

GOOD, BAD = "g", "b"
"""Qualities, as the agent's `/values` tells them; the third one is "s", for stale."""


@dataclass(frozen=True, slots=True)
class LiveTag:
    """What stays the same of a tag from look to look; limits are None where there is none."""

    key: TagKey
    unit: str = ""
    description: str = ""
    hi: float | None = None
    lo: float | None = None
    digits: int | None = None
    period_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One card: where it is, its tags' positions in map order, and the one that the gauge shows."""

    site: str
    line: str
    device: str
    positions: tuple[int, ...]
    main: int
    title: str = ""
    """What the card is headed with, if not the device's name."""
    gauge: tuple[float, float] | None = None
    """Ends of the gauge, if not around the main tag's limits."""


@dataclass(frozen=True, slots=True)
class Layout:
    """All devices and tags. Two layouts with one ``name`` are the same."""

    name: str
    devices: tuple[Device, ...]
    tags: tuple[LiveTag, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """One look: columns by position. ``values`` are None where bad; ``now_ms`` is the looked-at
    side's clock, by which the age of a value counts."""

    layout: Layout
    now_ms: int
    values: Sequence[float | None]
    ts_ms: Sequence[int | None]
    qualities: str
    well: bool = True
    verdict: str = ""
    verdict_ko: str = ""


EMPTY = Layout("", (), ())
"""Before the first look."""


def main_of(positions: Sequence[int], tags: Sequence[LiveTag]) -> int:
    """The tag that a card shows large: the first one with both limits, with one, or of all."""

    def limits(position: int) -> int:
        tag = tags[position]
        return (tag.hi is not None) + (tag.lo is not None)

    return max(positions, key=limits)  # the first of equals


def layout_of_status(status: Mapping[str, Any]) -> Layout:
    """The layout that an agent's `/status` tells."""
    count = sum(len(device["tags"]) for device in status["devices"])
    tags: list[LiveTag | None] = [None] * count
    for device in status["devices"]:
        for tag in device["tags"]:
            tags[tag["position"]] = LiveTag(
                key=TagKey(device["site"], device["device"], tag["tag"]),
                unit=tag["unit"],
                description=tag["description"],
                hi=tag["hi"],
                lo=tag["lo"],
                digits=tag["digits"],
                period_ms=tag["period_ms"],
            )
    known = tuple(tag for tag in tags if tag is not None)
    devices = tuple(
        _device(
            (device["site"], device["line"], device["device"]),
            tuple(tag["position"] for tag in device["tags"]),
            known,
        )
        for device in status["devices"]
    )
    return Layout(status["agent"]["layout"], devices, known)


def look_of_values(layout: Layout, live: Mapping[str, Any]) -> Look:
    """What an agent's `/values` tells. Raises ``IndexError`` if it does not fit the layout."""
    values, ts_ms, qualities = live["values"], live["ts_ms"], live["qualities"]
    if {len(values), len(ts_ms), len(qualities)} != {len(layout.tags)}:
        raise IndexError("columns of another length than the layout")
    return Look(
        layout=layout,
        now_ms=live["now_ms"],
        values=values,
        ts_ms=ts_ms,
        qualities=qualities,
        well=live["well"],
        verdict=live["verdict"],
        verdict_ko=live["verdict_ko"],
    )


def look_of_newest(newest: Iterable[Newest], now_ms: int) -> Look:
    """What a history knows, without limits and periods; every value is as old as its time says."""
    found = list(newest)
    keys = [n.series.key for n in found]
    tags = tuple(
        LiveTag(key=key, unit=one.series.unit) for key, one in zip(keys, found, strict=True)
    )
    places: dict[tuple[str, str, str], list[int]] = {}
    for position, one in enumerate(found):
        place = (one.series.site, one.series.line, one.series.device)
        places.setdefault(place, []).append(position)
    devices = tuple(_device(place, tuple(own), tags) for place, own in places.items())
    return Look(
        layout=Layout(f"history-{hash((devices, tags)):x}", devices, tags),
        now_ms=now_ms,
        values=[one.value for one in found],
        ts_ms=[one.ts_ms for one in found],
        qualities=GOOD * len(found),
    )


def _device(
    place: tuple[str, str, str], positions: tuple[int, ...], tags: Sequence[LiveTag]
) -> Device:
    site, line, device = place
    return Device(site, line, device, positions, main_of(positions, tags))
