"""What lies between two address maps: rows, and what of the running plan they touch. Pure.

The plan command shows it and the agent carries it out: both have it from here, so that a reload
does what was shown before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from edge_agent.model import Series, Tag
from edge_agent.planner import Connection

_COLUMNS = tuple(field.name for field in fields(Tag))


@dataclass(frozen=True, slots=True)
class Change:
    """One row that both maps have. ``columns`` are those that differ: name to (before, after)."""

    before: Tag
    after: Tag

    @property
    def columns(self) -> Mapping[str, tuple[object, object]]:
        """The columns that differ."""
        pairs = ((name, getattr(self.before, name), getattr(self.after, name)) for name in _COLUMNS)
        return {name: (before, after) for name, before, after in pairs if before != after}


@dataclass(frozen=True, slots=True)
class Difference:
    """Rows by `Tag.key`, in the order of the map that has them."""

    added: tuple[Tag, ...]
    removed: tuple[Tag, ...]
    changed: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @property
    def summary(self) -> str:
        """For logs: how many rows."""
        return f"{len(self.added)} added, {len(self.changed)} changed, {len(self.removed)} removed"

    @property
    def series_begun(self) -> tuple[Series, ...]:
        """Identities under which samples are stored from now on."""
        return (
            *(tag.series for tag in self.added),
            *(one.after.series for one in self.changed if one.before.series != one.after.series),
        )

    @property
    def series_ended(self) -> tuple[Series, ...]:
        """Those that get no samples any more; what is stored of them stays."""
        return (
            *(tag.series for tag in self.removed),
            *(one.before.series for one in self.changed if one.before.series != one.after.series),
        )


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """Connections by protocol and `conn`.

    Those that are ``kept`` are not touched at all. ``changed`` go on with another plan: (before,
    after). Another `conn` is another connection, if only an option of it differs.
    """

    kept: tuple[Connection, ...]
    changed: tuple[tuple[Connection, Connection], ...]
    begun: tuple[Connection, ...]
    ended: tuple[Connection, ...]


def difference(before: Iterable[Tag], after: Iterable[Tag]) -> Difference:
    """What another map changes, row by row. A renamed tag is one removed and one added."""
    old = {tag.key: tag for tag in before}
    new = {tag.key: tag for tag in after}
    return Difference(
        added=tuple(tag for key, tag in new.items() if key not in old),
        removed=tuple(tag for key, tag in old.items() if key not in new),
        changed=tuple(
            Change(old[key], tag) for key, tag in new.items() if key in old and old[key] != tag
        ),
    )


def plan_difference(before: Sequence[Connection], after: Sequence[Connection]) -> PlanDifference:
    """What becomes of each connection."""
    old = {(each.protocol, each.conn): each for each in before}
    new = {(each.protocol, each.conn): each for each in after}
    both = [(old[key], each) for key, each in new.items() if key in old]
    return PlanDifference(
        kept=tuple(each for had, each in both if had == each),
        changed=tuple((had, each) for had, each in both if had != each),
        begun=tuple(each for key, each in new.items() if key not in old),
        ended=tuple(each for key, each in old.items() if key not in new),
    )
