"""Whether a comma within a number has split a cell in two. Pure.

``0,1`` or ``1,200`` without quotes in a file of commas becomes two cells, and every cell after it
stands one column too far right. So the row is looked at as it is and with two neighbouring whole
numbers joined again: a comma it was if more cells then hold what their columns allow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edge_agent.address_map.cells import PERIOD_MS_MIN

_SIGNS: Mapping[str, str] = {
    **dict.fromkeys(("scale", "offset", "hi", "lo", "deadband"), "."),
    **dict.fromkeys(("period_ms", "heartbeat_ms"), ""),
}
"""What the comma in a cell stands for, by column; in whole numbers it only groups digits."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,15}")
_DIGITS = re.compile(r"[0-9]{1,15}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def is_split(cells: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a row that is longer than its header, which names these columns, is so by a comma."""
    width = len(names)
    as_it_is = _fitting(cells[:width], names)
    for at, name in enumerate(names):
        before, after = cells[at].strip(), cells[at + 1].strip()
        if name in _SIGNS and _WHOLE.fullmatch(before) and _DIGITS.fullmatch(after):
            number = f"{before}{_SIGNS[name]}{after}"
            fitting = _fitting([*cells[:at], number, *cells[at + 2 : width + 1]], names)
            # Right of the last column stands nothing that could fit better.
            if fitting > as_it_is or (fitting == as_it_is and at == width - 1):
                return True
        if not _fits(before, name):
            return False  # what went wrong did so further left
    return False


def _fitting(cells: Sequence[str], names: Sequence[str]) -> int:
    """How many cells hold what their columns allow, of those in which a number or none belongs."""
    return sum(_fits(cell.strip(), name) for cell, name in zip(cells, names, strict=True))


def _fits(cell: str, name: str) -> bool:
    is_number = bool(_NUMBER.fullmatch(cell[:32]))
    if name == "period_ms":
        return is_number and float(cell[:32]) >= PERIOD_MS_MIN
    if name in ("type", "unit", "byte_order", "description"):
        return not is_number
    return is_number or not cell if name in _SIGNS else True
