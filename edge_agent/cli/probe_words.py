"""What `edge-agent probe` takes on its command line: ranges of cells, units."""

from __future__ import annotations

import argparse
import re
from typing import Final

from edge_agent import protocols
from edge_agent.address_map.cells import UNIT_ID_MAX
from edge_agent.errors import ConfigError
from edge_agent.model import ValueType, locate
from edge_agent.probe.scan import Span
from edge_agent.protocols.modbus_syntax import PREFIXES

_RANGE: Final = re.compile(r"(?P<first>(?:(?P<prefix>[a-z]{2}):)?[0-9]+)(?:-(?P<last>[0-9]+))?")


def spans(text: str, conn: str) -> tuple[Span, ...]:
    """``hr:0-200,co:5`` or ``40001-40200``, counted as `conn` counts, as spans."""
    return tuple(_span(part, conn) for part in text.split(","))


def _span(text: str, conn: str) -> Span:
    match = _RANGE.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigError(
            f"--scan: {text!r} is no range;"
            " expected hr:0-200, with hr, ir, co or di, or 40001-40200"
        )
    first = match["first"]
    last = match["last"] or first
    if match["prefix"] and match["last"]:
        last = f"{match['prefix']}:{match['last']}"
    begin, end = _locate(first, conn), _locate(last, conn)
    if begin[0] != end[0] or end[1] < begin[1]:
        raise ConfigError(
            f"--scan: {text!r}: a range ends in the area in which it begins, and not before it"
        )
    return Span(begin[0], begin[1], end[1] - begin[1] + 1)


def _locate(address: str, conn: str) -> tuple[str, int]:
    """Prefix and offset of an address, whatever lies there."""
    syntax = protocols.load("modbus")
    try:
        found = locate(syntax, conn, address, ValueType.UINT16)
    except ValueError:
        try:
            found = locate(syntax, conn, address, ValueType.BOOL)
        except ValueError as error:
            raise ConfigError(f"--scan: {error}") from error
    return PREFIXES[found.area], found.offset


def units(text: str) -> tuple[int, ...]:
    """``1-247`` or ``1,3,7`` as unit ids, each once, in the order given."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,3})(?:-([0-9]{1,3}))?\s*", part)
        first = int(match[1]) if match else 1
        last = int(match[2] or first) if match else 0
        if not first <= last <= UNIT_ID_MAX:
            raise argparse.ArgumentTypeError(
                f"{part!r}; expected a unit from 0 to {UNIT_ID_MAX}, or a range as in 1-247"
            )
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))
