"""What an importer yields: rows as far as the file says them, and findings about the rest. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from edge_agent.address_map.problems import shown
from edge_agent.errors import ConfigError
from edge_agent.model import ByteOrder, ValueType
from edge_agent.text import durations

ENTRIES_MAX: Final = 250_000
"""Rows and findings of one file, more than any agent polls. A few nested types of Ignition that
contain each other several times would make any number of them."""

DEPTH_MAX: Final = 64
"""Folders within folders, types within types, nodes along a wire; people stop at ten."""


class Outcome(StrEnum):
    """What became of something in the file."""

    LEFT_OUT = "left out"
    IN_PART = "in part"
    CHANGED = "changed"
    ASSUMED = "assumed"


OUTCOMES: Final[Mapping[Outcome, str]] = {
    Outcome.LEFT_OUT: "no row was made of it",
    Outcome.IN_PART: "a row was made, without this property",
    Outcome.CHANGED: "it stands in the map, but not as it was",
    Outcome.ASSUMED: "the file does not say it; check it",
}
"""The outcomes in words, for the report's legend."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: ``line`` if the format has lines, and a path, id or cell."""

    path: str
    line: int | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f"line {self.line}"
        return ", ".join(filter(None, (line, self.path)))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was not carried over as it stands, and why."""

    number: int
    place: Place
    what: str
    outcome: Outcome
    reason: str

    def as_dict(self) -> dict[str, int | str | None]:
        """The same as plain data, for ``--json``."""
        return {
            "line": self.place.line,
            "place": self.place.path,
            "what": self.what,
            "outcome": self.outcome,
            "reason": self.reason,
        }


@dataclass(slots=True, kw_only=True)
class Row:
    """A row of the map to be; an empty text and ``None`` mean that the file does not say it.

    ``long_tag`` is what to call the tag where another of its device has the same name.
    """

    place: Place
    tag: str
    protocol: str
    conn: str
    address: str
    type: ValueType
    site: str = ""
    line: str = ""
    device: str = ""
    long_tag: str = ""
    unit_id: int | None = None
    scale: float = 1.0
    offset: float = 0.0
    period_ms: float | None = None
    unit: str = ""
    hi: float | None = None
    lo: float | None = None
    byte_order: ByteOrder = ByteOrder.ABCD
    deadband: float = 0.0
    precision: int | None = None
    description: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the command line says for where the file says nothing; empty where it says nothing too.

    ``conns`` are connections by the name that a device has in the file; ``conn`` is for all others.
    ``file_name`` is what to call a device of which nobody says a name.
    """

    site: str = ""
    line: str = ""
    device: str = ""
    file_name: str = ""
    conn: str = ""
    conns: Mapping[str, str] = field(default_factory=dict)
    unit_id: int | None = None
    period_ms: int | None = None

    def conn_of(self, *names: str) -> str:
        """The connection of a device by the first of its names that has one; else empty."""
        return next((self.conns[name] for name in names if name in self.conns), self.conn)


class Found:
    """Collects an importer's rows and findings in file order."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.findings: list[Finding] = []
        self.about: Row | None = None
        """The row that findings are about, so that they stand where the row does."""
        self.devices: dict[str, None] = {}
        """What the command line may call the file's devices, in file order."""
        self._number = 0

    def add(self, row: Row) -> None:
        """Take a row. Raises ``ConfigError`` if the file gives too many."""
        row.number = self._next()
        self.rows.append(row)

    def named(self, *devices: str) -> None:
        """Note names of the file by which `--conn NAME=CONN` finds a device, but empty ones."""
        self.devices.update(dict.fromkeys(filter(None, devices)))

    def left_out(self, place: Place, what: object, reason: str) -> None:
        """Report something of which no row was made."""
        self._report(place, what, Outcome.LEFT_OUT, reason)

    def in_part(self, place: Place, what: object, reason: str) -> None:
        """Report a property that is missing in the row."""
        self._report(place, what, Outcome.IN_PART, reason)

    def changed(self, place: Place, what: object, reason: str) -> None:
        """Report what stands in the map otherwise."""
        self._report(place, what, Outcome.CHANGED, reason)

    def assumed(self, place: Place, what: object, reason: str) -> None:
        """Report what the file does not say."""
        self._report(place, what, Outcome.ASSUMED, reason)

    def _report(self, place: Place, what: object, outcome: Outcome, reason: str) -> None:
        plain = Place(printable(place.path), place.line)
        number = self._next() if self.about is None else self.about.number
        self.findings.append(
            Finding(number, plain, printable(what), outcome, printable(reason, 400))
        )

    def _next(self) -> int:
        self._number += 1
        if self._number > ENTRIES_MAX:
            raise ConfigError(
                f"the file gives more than {ENTRIES_MAX:,} rows; export it in parts",
                hint="one device, folder or flow at a time",
            )
        return self._number


def printable(value: object, chars_max: int = 0) -> str:
    """A value out of an untrusted file as one line that a terminal can show."""
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:1_000])
    return text[:chars_max] if chars_max else shown(text)


# -- values of untyped documents ---------------------------------------------------------------


def table(value: object) -> Mapping[str, object]:
    """A mapping, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def tables(value: object) -> list[Mapping[str, object]]:
    """A list of mappings; a single mapping is a list of one, anything else is left away."""
    if isinstance(value, dict):
        return [value]
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def text(value: object) -> str:
    """A text or a number as text without spaces around it; anything else is empty."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return ""


_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
NUMBER_CHARS_MAX: Final = 400
"""Python refuses to read thousands of digits."""


def number(value: object) -> float | None:
    """A finite number, also written as text; else ``None``."""
    plain = text(value)
    if len(plain) > NUMBER_CHARS_MAX or not _NUMBER.fullmatch(plain):
        return None
    found = float(plain)
    return found if math.isfinite(found) else None


def whole(value: object) -> int | None:
    """A whole number below 2**63, also written as text or as ``1.0``; else ``None``."""
    found = number(value)
    if found is None or not found.is_integer() or abs(found) >= 2**63:
        return None
    return int(found)


def is_true(value: object) -> bool:
    """A true value, also written as text."""
    return value is True or text(value).lower() in {"true", "1", "yes"}


def duration_ms(value: object) -> float | None:
    """A duration such as ``1m30s``, or a number of seconds, in milliseconds; else ``None``."""
    plain = text(value)
    seconds = number(plain)
    if seconds is not None:
        return seconds * 1_000
    with suppress(ValueError):
        return durations.duration_ms(plain)
    return None
