"""From an importer's rows to tags that make a valid map together. Pure.

Names are made valid and distinct, periods are brought into bounds, and what the map's own check
refuses after that is left out with the check's words: so whatever is returned can be written, and
is read back as the same tags.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from edge_agent.address_map.cells import (
    NAME_CHARS_MAX,
    PERIOD_MS_MAX,
    PERIOD_MS_MIN,
    PRECISION_DIGITS_MAX,
    TEXT_CHARS_MAX,
)
from edge_agent.address_map.check import Checked, check
from edge_agent.address_map.row import Syntaxes
from edge_agent.address_map.table import read
from edge_agent.address_map.writer import to_csv
from edge_agent.errors import ConfigError
from edge_agent.importers.base import Defaults, Finding, Found, Outcome, Place, Row, printable
from edge_agent.importers.names import DistinctNames, numbered, valid_name
from edge_agent.model import AddressSyntax, Tag

SITE_DEFAULT: Final = "SITE"
LINE_DEFAULT: Final = "LINE"
DEVICE_DEFAULT: Final = "DEVICE"
PERIOD_MS_DEFAULT: Final = 1_000
"""Where neither the file nor the command line says anything."""

NAMES_SHOWN_MAX: Final = 20
"""Of devices in an error; an export may have hundreds."""

THE_FILE: Final = Place("the file")
"""The place of what is missing in the file as a whole."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What came out of a file: ``tags`` make a valid map unless there are none."""

    kind: str
    tags: Sequence[Tag]
    findings: Sequence[Finding]


def assemble(
    kind: str, found: Found, defaults: Defaults, syntax: Callable[[str], type[AddressSyntax]]
) -> Imported:
    """Make tags of the rows; ``syntax`` gives a protocol's address syntax, as for the map."""
    _check_names(found, defaults)
    _report_defaults(found, defaults)
    names = _Names(found, defaults)
    tags = []
    for row in found.rows:
        found.about = row
        tags.append(_tag(row, defaults, names, found))
    found.about = None
    rows = list(found.rows)
    refused = _refused(tags, syntax)
    while refused:
        for at, reason in refused.items():
            found.findings.append(_left_out(rows[at], reason))
        rows = [row for at, row in enumerate(rows) if at not in refused]
        tags = [tag for at, tag in enumerate(tags) if at not in refused]
        refused = _refused(tags, syntax)
    _report_unused(found, defaults, tags)
    findings = sorted(found.findings, key=lambda finding: finding.number)
    return Imported(kind, tuple(tags), tuple(findings))


def _check_names(found: Found, defaults: Defaults) -> None:
    """Refuse connections for devices that the file has not got. Raises ``ConfigError``."""
    known = found.devices | dict.fromkeys(row.device for row in found.rows if row.device)
    unknown = [name for name in defaults.conns if name not in known]
    if not unknown:
        return
    shown = ", ".join(printable(name) for name in [*known][:NAMES_SHOWN_MAX])
    more = len(known) - NAMES_SHOWN_MAX
    are = "is" if len(known) == 1 else "are"
    there = f"there {are} {shown}" if known else "its rows name no devices"
    raise ConfigError(
        f"no device {', '.join(unknown)} in the file; {there}"
        + (f" and {more:,} more" if more > 0 else ""),
        hint="--conn NAME=CONN calls a device as the file does; --conn CONN is for all others",
    )


def _report_defaults(found: Found, defaults: Defaults) -> None:
    """Say once what neither the file nor the command line says."""
    own = {
        "site": SITE_DEFAULT,
        "line": LINE_DEFAULT,
        "device": defaults.file_name or DEVICE_DEFAULT,
        "period_ms": PERIOD_MS_DEFAULT,
    }
    for column, value in own.items():
        missing = sum(getattr(row, column) in (None, "") for row in found.rows)
        if missing and getattr(defaults, column) in (None, ""):
            rows = "1 row" if missing == 1 else f"{missing:,} rows"
            option = column.replace("_", "-")
            found.assumed(THE_FILE, column, f"{value} for {rows}; --{option} says otherwise")


def _report_unused(found: Found, defaults: Defaults, tags: Sequence[Tag]) -> None:
    """Say which connections of the command line stand in no row."""
    used = {tag.conn for tag in tags}
    given = {"--conn": defaults.conn} if defaults.conn else {}
    given |= {f"--conn {device}": conn for device, conn in defaults.conns.items()}
    for option, conn in given.items():
        if used and conn not in used:
            reason = "no row took it: the file says another"
            found.left_out(Place(option), conn, reason)


def _left_out(row: Row, reason: str) -> Finding:
    plain = Place(printable(row.place.path), row.place.line)
    return Finding(row.number, plain, printable(row.tag), Outcome.LEFT_OUT, printable(reason, 400))


# -- one row -----------------------------------------------------------------------------------


def _tag(row: Row, defaults: Defaults, names: _Names, found: Found) -> Tag:
    site, line, device = names.where(row)
    hi, lo = row.hi, row.lo
    if hi is not None and lo is not None and hi <= lo:
        found.in_part(row.place, row.tag, f"its limits: {hi:g} is not above {lo:g}")
        hi = lo = None
    return Tag(
        site=site,
        line=line,
        device=device,
        tag=names.distinct(row, site, device),
        protocol=row.protocol,
        conn=row.conn,
        unit_id=_first(row.unit_id, defaults.unit_id, 1),
        address=row.address,
        type=row.type,
        scale=row.scale,
        offset=row.offset,
        period_ms=_period_ms(row, defaults, found),
        unit=_label(row.unit),
        hi=hi,
        lo=lo,
        byte_order=row.byte_order,
        deadband=row.deadband,
        precision=_precision(row, found),
        description=_plain(row.description)[:TEXT_CHARS_MAX].strip(),
    )


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def _period_ms(row: Row, defaults: Defaults, found: Found) -> int:
    if row.period_ms is None:
        return _first(defaults.period_ms, PERIOD_MS_DEFAULT)
    period_ms = min(max(row.period_ms, PERIOD_MS_MIN), PERIOD_MS_MAX)
    if not math.isclose(period_ms, row.period_ms):
        found.changed(
            row.place,
            row.tag,
            f"its period of {row.period_ms:g} ms is now {period_ms:g};"
            f" allowed: {PERIOD_MS_MIN} to {PERIOD_MS_MAX}",
        )
    return round(period_ms)


def _precision(row: Row, found: Found) -> int | None:
    if row.precision is None or 0 <= row.precision <= PRECISION_DIGITS_MAX:
        return row.precision
    found.in_part(
        row.place, row.tag, f"{row.precision} digits; allowed: 0 to {PRECISION_DIGITS_MAX}"
    )
    return None


def _plain(text: str) -> str:
    """A text without characters that a cell refuses, brought to the composed form."""
    composed = unicodedata.normalize("NFC", text)
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in composed)).strip()


def _label(text: str) -> str:
    return _plain(text)[:NAME_CHARS_MAX].strip()


# -- names -------------------------------------------------------------------------------------


class _Names:
    """Names that the map takes: valid, and distinct within a device."""

    def __init__(self, found: Found, defaults: Defaults) -> None:
        self._found = found
        self._site = defaults.site or SITE_DEFAULT
        self._line = defaults.line or LINE_DEFAULT
        self._device = defaults.device or defaults.file_name or DEVICE_DEFAULT
        self._known: dict[tuple[str, str], str] = {}
        self._tags = DistinctNames()
        self._lines: dict[tuple[str, str], str] = {}
        self._devices: dict[tuple[str, str, str], str] = {}
        self._said: dict[tuple[str, str], str] = {}
        for row in found.rows:
            if row.line:
                self._said.setdefault((row.site, row.device), row.line)

    def where(self, row: Row) -> tuple[str, str, str]:
        """Site, line and device of a row.

        Where it does not say its line, another row of its device may.
        """
        site = self.valid(row, "site", row.site or self._site)
        said = row.line or self._said.get((row.site, row.device), "")
        line = _label(said) or _label(self._line) or LINE_DEFAULT
        device = self.valid(row, "device", row.device or self._device)
        return site, line, self._distinct_device(row, site, line, device)

    def valid(self, row: Row, column: str, text: str) -> str:
        """A name with nothing in it that a topic may not have; a change is reported.

        That of a site or device is, in its first row.
        """
        first = (column, text) not in self._known
        if first:
            self._known[column, text] = valid_name(text) or column.upper()
        made = self._known[column, text]
        if made != unicodedata.normalize("NFC", text) and (first or column == "tag"):
            self._found.changed(
                row.place, row.tag, f"{column} {printable(text)!r} is not a name: {made}"
            )
        return made

    def _distinct_device(self, row: Row, site: str, line: str, device: str) -> str:
        """A device's name: where two lines have the same one, the second one's is longer."""
        first = self._lines.setdefault((site, device), line)
        if line == first:
            return device
        key = (site, line, device)
        if key not in self._devices:
            longer = valid_name(f"{line}_{device}")
            self._devices[key] = next(
                one
                for one in chain([longer], numbered(longer))
                if self._lines.setdefault((site, one), line) == line
            )
        made = self._devices[key]
        self._found.changed(
            row.place, row.tag, f"its device {device} is now {made}: line {first!r} has one too"
        )
        return made

    def distinct(self, row: Row, site: str, device: str) -> str:
        """The tag's name, a longer one or one with a number, so that no other tag has it."""
        wanted = self.valid(row, "tag", row.tag)
        longer = valid_name(row.long_tag)
        made = self._tags.take((site, device), wanted, *([longer] if longer else []))
        if made != wanted:
            self._found.changed(
                row.place, row.tag, f"is called {made}: {device} has another tag {wanted}"
            )
        return made


# -- the map's own check -----------------------------------------------------------------------


def _refused(tags: Sequence[Tag], syntax: Callable[[str], type[AddressSyntax]]) -> dict[int, str]:
    """Why the map would refuse a tag, or read it back as another one, by its index."""
    if not tags:
        return {}
    checked = check(read(to_csv(tags)), Syntaxes(syntax))
    refused: dict[int, str] = {}
    for problem in checked.problems:
        # Cells hold no line breaks, so a row is one line, and the first stands below the header.
        at = (problem.line or 2) - 2
        refused.setdefault(max(at, 0), str(replace(problem, line=None)))
    return refused or _altered(tags, checked)


def _altered(tags: Sequence[Tag], checked: Checked) -> dict[int, str]:
    return {
        at: "the map would not read it back as it is"
        for at, (tag, back) in enumerate(zip(tags, checked.tags, strict=True))
        if tag != back
    }
