"""What every input of Telegraf has: tags that say where it is, its interval, its filters. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from edge_agent.importers.base import Found, Place, duration_ms, text

SITE_TAGS: Final = ("site", "plant", "factory")
LINE_TAGS: Final = ("line", "production_line", "area")
DEVICE_TAGS: Final = ("device", "machine", "equipment")
TAG_TAGS: Final = ("tag",)
UNIT_TAGS: Final = ("unit", "units")
"""Names of Telegraf's tags that fill the columns site, line, device, tag and unit."""

_FILTERS: Final = frozenset(
    {
        *("namepass", "namedrop", "fieldpass", "fielddrop", "fieldinclude", "fieldexclude"),
        *("tagpass", "tagdrop", "metricpass"),
    }
)


@dataclass(frozen=True, slots=True)
class Labels:
    """What tags say of a field's site, line, device, tag and unit; empty where they say nothing."""

    site: str = ""
    line: str = ""
    device: str = ""
    tag: str = ""
    unit: str = ""

    @classmethod
    def of(cls, tags: Mapping[str, object], outer: Labels, place: Place, found: Found) -> Labels:
        """The labels of a table of tags within another one; tags without a column are reported."""
        values = {key.lower(): text(value) for key, value in tags.items()}

        def first(names: tuple[str, ...], otherwise: str) -> str:
            return next((values[name] for name in names if values.get(name)), otherwise)

        known = {*SITE_TAGS, *LINE_TAGS, *DEVICE_TAGS, *TAG_TAGS, *UNIT_TAGS}
        unknown = sorted(values.keys() - known)
        if unknown:
            found.in_part(place, ", ".join(unknown), "a map has no column for these tags")
        return cls(
            first(SITE_TAGS, outer.site),
            first(LINE_TAGS, outer.line),
            first(DEVICE_TAGS, outer.device),
            first(TAG_TAGS, outer.tag),
            first(UNIT_TAGS, outer.unit),
        )

    def named(self, device: str) -> Labels:
        """The same with this device, unless tags say another one."""
        return self if self.device else replace(self, device=device)


def interval_ms(value: object) -> float | None:
    """An interval in milliseconds; ``None`` if it is not given, or none that can be read."""
    return duration_ms(value) or None


def report_processors(processors: Mapping[str, object], found: Found) -> None:
    """Say that values come as they are read, whatever a configuration computes of them later."""
    for kind in sorted(processors):
        reason = "not applied; a factor or an addend of it belongs into scale and offset"
        found.in_part(Place(f"processors.{kind}"), kind, reason)


def report_filters(section: Mapping[str, object], place: Place, found: Found) -> None:
    """Say that filters are not applied: what they drop stands in the map."""
    for key in sorted(section.keys() & _FILTERS):
        found.in_part(place, key, "filters are not applied; delete the rows that nobody wants")
