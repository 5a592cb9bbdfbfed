"""`edge-agent plan`: what a map will cost before it runs: bus load, rows, journal, disk."""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import uvloop
from rich.console import Console

from edge_agent import protocols
from edge_agent.address_map import AddressMap
from edge_agent.address_map.check import check
from edge_agent.address_map.problems import UnreadableFileError
from edge_agent.address_map.row import Syntaxes
from edge_agent.address_map.table import read
from edge_agent.bus_load import (
    ROUND_TRIP_S,
    ClassForecast,
    ConnectionForecast,
    Verdict,
    line_s,
)
from edge_agent.cli.options import add_json, add_map, load_map_or_tell
from edge_agent.cli.plan_against import run_against
from edge_agent.cli.tables import Grid
from edge_agent.command_line import DONE, FAILED, WRONG_INPUT, print_json
from edge_agent.errors import DeviceError, EdgeAgentError, contained
from edge_agent.forecast import Forecast, forecast
from edge_agent.model import LineTiming, Tag, timing_of
from edge_agent.planner import Connection, plan
from edge_agent.protocols.base import Driver
from edge_agent.settings import Settings
from edge_agent.text.counts import counted

ROUND_TRIP_MS_MAX: Final = 60_000
"""As long as a driver may wait for a reply."""
MEASURE_REQUESTS: Final = 5
"""The median of so many is taken: the first one often pays for an address resolution."""
MEASURE_TIMEOUT_S: Final = 10.0
"""For connecting and all requests of a connection."""
DAY_S: Final = 86_400
_STYLES: Final = {Verdict.FITS: "green", Verdict.TIGHT: "yellow", Verdict.IMPOSSIBLE: "bold red"}


@dataclass(slots=True)
class Measured:
    """Round trips in seconds by `conn`, why there is none, and what a `conn` should say instead."""

    round_trips_s: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    hints: dict[str, str] = field(default_factory=dict)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_map(parser)
    add_json(parser)
    parser.add_argument(
        "--round-trip-ms",
        type=_round_trip_ms,
        default=ROUND_TRIP_S * 1000,
        metavar="MS",
        help="from a request to its reply; on a serial line, how long a device takes to answer"
        " (default: %(default)g)",
    )
    parser.add_argument(
        "--against",
        metavar="running|FILE",
        help="what this map would change in the running agent, or beside another map",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="ask each Modbus and S7 connection and take the round trip that it has",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Forecast one map; exit code 1 if it is impossible, or could not be measured."""
    found = load_map_or_tell(options)
    if found is None:
        return WRONG_INPUT
    measured = Measured()
    if options.measure:
        measured = uvloop.run(measure(plan(found.tags, protocols.load)))
    for conn, problem in measured.errors.items():
        print(
            f"edge-agent: {conn} could not be measured, so {options.round_trip_ms:g} ms are"
            f" assumed: {problem.removeprefix(f'{conn}: ')}",
            file=sys.stderr,
        )
    for conn, hint in measured.hints.items():
        print(f"edge-agent: {conn}: {hint}", file=sys.stderr)
    if options.against is not None:
        code = run_against(options, settings, found, measured.round_trips_s)
        return FAILED if measured.errors else code
    result = forecast(
        found.tags,
        protocols.load,
        journal=settings.journal,
        postgres=settings.postgres,
        commit_interval_s=settings.agent.commit_interval_ms / 1000,
        round_trip_s=options.round_trip_ms / 1000,
        round_trips_s=measured.round_trips_s,
    )
    lines = _lines(found) if result.verdict is Verdict.IMPOSSIBLE else {}
    if options.json:
        print_json(as_dict(result, found, measured, lines))
    else:
        _show(result, found, measured, lines)
    failed = result.verdict is Verdict.IMPOSSIBLE or measured.errors
    return FAILED if failed else DONE


def _round_trip_ms(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= ROUND_TRIP_MS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: 0 to {ROUND_TRIP_MS_MAX}")
    return number


def _lines(found: AddressMap) -> Mapping[tuple[str, str, str], int]:
    """On which line of the file each tag stands; empty if the file has changed since."""
    try:
        checked = check(read(Path(found.path).read_bytes()), Syntaxes(protocols.load))
    except (OSError, UnreadableFileError):
        return {}
    if checked.problems or tuple(checked.tags) != found.tags:
        return {}
    return {tag.key: line for tag, line in zip(checked.tags, checked.lines, strict=True)}


# -- measuring ---------------------------------------------------------------------------------


async def measure(connections: Sequence[Connection]) -> Measured:
    """Ask the first block of each connection a few times, all connections at once.

    Only where a driver tells what requests take beside the device's own time, which is what is
    left when that is taken off: characters on a serial line, pauses.
    """
    measured = Measured()

    async def one(connection: Connection, timing: LineTiming) -> None:
        driver = protocols.load(connection.protocol)(connection.conn, now_ms=lambda: 0)
        try:
            with contained("measure"):
                async with asyncio.timeout(MEASURE_TIMEOUT_S):
                    measured.round_trips_s[connection.conn] = await _ask(connection, driver, timing)
            if hint := getattr(driver, "hint", ""):
                measured.hints[connection.conn] = hint
        except TimeoutError:
            measured.errors[connection.conn] = "no answer in time"
        except EdgeAgentError as error:
            measured.errors[connection.conn] = str(error)
        finally:
            await driver.close()

    async with asyncio.TaskGroup() as group:
        for connection in connections:
            timing = timing_of(protocols.load(connection.protocol), connection.conn)
            if timing is not None:
                group.create_task(one(connection, timing))
    return measured


async def _ask(connection: Connection, driver: Driver, timing: LineTiming) -> float:
    """The median time of a few requests, in seconds; an exception reply is a reply as well."""
    block = connection.scan_classes[0].blocks[0]
    await driver.connect()
    times = []
    for _ in range(MEASURE_REQUESTS):
        started = time.perf_counter()
        try:
            async with asyncio.timeout(driver.timeout_s):
                await driver.read(block)
        except DeviceError:
            pass
        times.append(time.perf_counter() - started)
    return max(statistics.median(times) - line_s(block, timing), 0.0)


# -- JSON --------------------------------------------------------------------------------------


def as_dict(
    result: Forecast,
    found: AddressMap,
    measured: Measured,
    lines: Mapping[tuple[str, str, str], int],
) -> dict[str, Any]:
    """A forecast as plain data; times in ms."""
    return {
        "ok": True,
        "sha256": found.sha256,
        "verdict": result.verdict,
        "tags": len(found.tags),
        "thinned_tags": result.thinned_tags,
        "rows_per_s": float(result.rows_per_s),
        "rows_per_day": round(result.rows_per_s * DAY_S),
        "connections": [
            _connection_dict(one, one.conn in measured.round_trips_s, lines)
            for one in result.connections
        ],
        "journal": {
            "bytes_max": result.journal.bytes_max,
            "bytes_per_row": result.journal.bytes_per_row,
            "hours_until_full": result.journal.hours,
        },
        "database": [
            {
                "days": disk.days,
                "plain_bytes": disk.plain_bytes,
                "compressed_bytes": disk.compressed_bytes,
            }
            for disk in result.disk
        ],
        "problems": [],
    }


def _connection_dict(
    one: ConnectionForecast, measured: bool, lines: Mapping[tuple[str, str, str], int]
) -> dict[str, Any]:
    common = {
        "conn": one.conn,
        "protocol": one.protocol,
        "tags": one.tags,
        "rows_per_day": round(one.rows_per_s * DAY_S),
        "verdict": one.verdict,
    }
    if not one.classes:
        return common
    return common | {
        "breaks": None if one.breaks is None else _row_dict(one.breaks, lines),
        "round_trip_ms": one.round_trip_s * 1000,
        "measured": measured,
        "requests_per_s": float(one.requests_per_s),
        "bytes_sent_per_s": float(one.per_s(lambda c: c.bytes_sent)),
        "bytes_received_per_s": float(one.per_s(lambda c: c.bytes_received)),
        "cell": one.cell,
        "cells_wanted_per_s": float(one.per_s(lambda c: c.cells_wanted)),
        "cells_read_per_s": float(one.per_s(lambda c: c.cells_read)),
        "busy": one.busy,
        "scan_classes": [_class_dict(scan_class) for scan_class in one.classes],
    }


def _class_dict(one: ClassForecast) -> dict[str, Any]:
    return {
        "period_ms": one.period_ms,
        "tags": one.tags,
        "requests": one.requests,
        "cells_wanted": one.cells_wanted,
        "cells_read": one.cells_read,
        "bits_wanted": one.bits_wanted,
        "bits_read": one.bits_read,
        "bytes_sent": one.bytes_sent,
        "bytes_received": one.bytes_received,
        "wire_ms": one.wire_s * 1000,
        "work_ms": one.work_s * 1000,
        "cycle_ms": one.cycle_s * 1000,
        "verdict": one.verdict,
    }


def _row_dict(tag: Tag, lines: Mapping[tuple[str, str, str], int]) -> dict[str, Any]:
    return {
        "line": lines.get(tag.key),
        "site": tag.site,
        "device": tag.device,
        "tag": tag.tag,
        "address": tag.address,
        "period_ms": tag.period_ms,
    }


# -- text --------------------------------------------------------------------------------------


def _show(
    result: Forecast,
    found: AddressMap,
    measured: Measured,
    lines: Mapping[tuple[str, str, str], int],
) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    connections = [_Shown(one, one.conn in measured.round_trips_s) for one in result.connections]
    load = Grid("load", _LOAD_COLUMNS, frozenset(_LOAD_COLUMNS[1:]))
    time_ = Grid("time", _TIME_COLUMNS, frozenset(_TIME_COLUMNS[1:-1]), _TIME_WIDTHS_MIN)
    for shown in connections:
        load.add(*shown.load())
        if shown.one.classes:
            time_.add(*shown.time(), style=shown.style)
    load.show(console)
    if time_.rows:
        time_.show(console)
    for one in result.connections:
        if one.breaks is not None:
            console.print(_why(one, one.breaks, lines), style="bold red")
    if any(one.classes for one in result.connections):
        cells = _cells(result.connections)
        console.print(f"wanted, read: {cells}; ?: assumed, --measure asks the PLC")
    thinned = result.thinned_tags
    console.print(
        f"{counted(len(found.tags), 'tag')}, at most {_per_day(result.rows_per_s)} rows a day"
        + (f"; {_fewer(thinned)}" if thinned else "")
    )
    journal = result.journal
    console.print(
        f"journal: {journal.bytes_max / 1e6:,.0f} MB are full after {journal.hours:,.1f} h in which"
        f" nobody takes anything, at {journal.bytes_per_row:.1f} bytes a row"
        if math.isfinite(journal.hours)
        else "journal: no row is written to it"
    )
    columns = ("after days", "GB", "GB compressed")
    database = Grid("database", columns, frozenset(columns[1:]))
    for disk in result.disk:
        plain, compressed = _gigabytes(disk.plain_bytes), _gigabytes(disk.compressed_bytes)
        database.add(f"{disk.days}", plain, compressed)
    database.show(console)


_LOAD_COLUMNS: Final = (
    "connection",
    "tags",
    "rows/day",
    "requests/s",
    "bytes/s",
    "wanted/s",
    "read/s",
)
_TIME_COLUMNS: Final = (
    "connection",
    "round trip",
    "on wire",
    "busy",
    "cycle",
    "of period",
    "verdict",
)
_TIME_WIDTHS_MIN: Final = {"verdict": max(map(len, Verdict))}


@dataclass(frozen=True, slots=True)
class _Shown:
    """A connection as rows of the tables."""

    one: ConnectionForecast
    measured: bool

    @property
    def style(self) -> str:
        return "" if self.one.verdict is None else _STYLES[self.one.verdict]

    def load(self) -> Sequence[str]:
        one = self.one
        plain = (one.conn, f"{one.tags:,}", _per_day(one.rows_per_s))
        if not one.classes:
            return (*plain, "", "", "", "")
        size = one.per_s(lambda c: c.bytes_sent + c.bytes_received)
        return (
            *plain,
            f"{float(one.requests_per_s):,.2f}",
            f"{float(size):,.0f}",
            f"{float(one.per_s(lambda c: c.cells_wanted)):,.0f}",
            f"{float(one.per_s(lambda c: c.cells_read)):,.0f}",
        )

    def time(self) -> Sequence[str]:
        one, decisive = self.one, self.one.decisive
        assert decisive is not None
        assert one.verdict is not None
        return (
            one.conn,
            f"{one.round_trip_s * 1000:,.1f} ms{'' if self.measured else ' ?'}",
            f"{one.on_wire:.0%}",
            f"{one.busy:.0%}",
            f"{decisive.cycle_s * 1000:,.0f} ms",
            f"{decisive.period_ms:,} ms",
            one.verdict,
        )


def _cells(connections: Sequence[ConnectionForecast]) -> str:
    """What is counted, and of which protocol where it is not the same of all."""
    cells = {one.protocol: f"{one.cell}s" for one in connections if one.classes}
    if len(set(cells.values())) == 1:
        return next(iter(cells.values()))
    return ", ".join(f"{cell} ({protocol})" for protocol, cell in cells.items())


def _why(one: ConnectionForecast, tag: Tag, lines: Mapping[tuple[str, str, str], int]) -> str:
    """The sentence about a row that breaks its connection."""
    line = lines.get(tag.key)
    place = "" if line is None else f"line {line}, "
    late = one.decisive
    assert late is not None
    return (
        f"{one.conn}: impossible from {'/'.join(tag.key)} on ({place}{tag.address}, every"
        f" {tag.period_ms:,} ms); the rows above it fit. With all rows the scan of"
        f" {late.period_ms:,} ms takes {late.cycle_s * 1000:,.0f} ms or more: give tags a longer"
        " period_ms, or spread them over more connections"
    )


def _fewer(thinned: int) -> str:
    have, give = ("has", "gives") if thinned == 1 else ("have", "give")
    return f"{counted(thinned, 'tag')} {have} a deadband or a heartbeat and {give} fewer"


def _per_day(rows_per_s: Fraction) -> str:
    return f"{round(rows_per_s * DAY_S):,}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.2f}"
