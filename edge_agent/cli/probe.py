"""`edge-agent probe`: read rows once under every type and byte order, or find what answers."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console

from edge_agent import protocols
from edge_agent.cli import probe_show as show
from edge_agent.cli.options import add_json, add_map, load_map_or_tell
from edge_agent.cli.probe_words import spans, units
from edge_agent.clock import epoch_ms
from edge_agent.command_line import DONE, FAILED, WRONG_INPUT, print_json, whole
from edge_agent.errors import (
    ConfigError,
    DeviceError,
    EdgeAgentError,
    RefusedError,
    SilentUnitError,
    TransientError,
    contained,
)
from edge_agent.files import replace_file
from edge_agent.model import Address, Tag, ValueType, locate
from edge_agent.output_file import check_output, unwritable
from edge_agent.planner import Block, plan
from edge_agent.probe import cells
from edge_agent.probe.interpretations import Setting, interpretations, judge, scaled
from edge_agent.probe.row import Row
from edge_agent.probe.scan import Span, UnitScan
from edge_agent.progress_bar import counting, progress
from edge_agent.protocols.base import Driver, Reply
from edge_agent.protocols.modbus_syntax import PREFIXES
from edge_agent.settings import Settings
from edge_agent.text.selection import FORMS, UnknownNameError, selected

REQUESTS_MAX: Final = 5_000
"""One unit's area of 200 cells with holes everywhere takes 400; with the pause, about a minute."""
REQUESTS_LIMIT: Final = 1_000_000
PAUSE_MS: Final = 10
"""A scan must leave room for whoever else polls this device."""
PAUSE_MS_MAX: Final = 10_000
ARRIVAL_TIMEOUT_S: Final = 5.0
"""How long a subscribing protocol has for a row's first value."""
ARRIVAL_PAUSE_S: Final = 0.05
_HINT_WRITE: Final = "the new file is made beside the old one, so the folder must be writable too"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_map(parser)
    parser.add_argument(
        "what",
        nargs="*",
        metavar="DEVICE[/TAG]",
        help="rows of the map to read, also SITE/DEVICE[/TAG], all without; or one connection to"
        " scan, tcp://HOST:PORT",
    )
    parser.add_argument(
        "--write", action="store_true", help="put clearly better settings into the map (.csv only)"
    )
    parser.add_argument("--scan", metavar="RANGE", help="which cells to try: hr:0-200,co:0-15")
    parser.add_argument(
        "--unit",
        type=units,
        metavar="UNITS",
        help="units to scan: 1, 1-247 or 1,3,7 (default: 1)",
    )
    parser.add_argument(
        "--requests-max",
        type=whole(1, REQUESTS_LIMIT),
        default=REQUESTS_MAX,
        metavar="N",
        help="a scan ends after so many requests (default: %(default)s)",
    )
    parser.add_argument(
        "--pause-ms",
        type=whole(0, PAUSE_MS_MAX),
        default=PAUSE_MS,
        metavar="MS",
        help="between two requests of a scan (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001
    """Probe rows, or scan a connection; exit code 1 if a row can't be read or nothing answers."""
    conns = [word for word in options.what if "://" in word]
    if options.scan is None and not conns:
        if options.unit is not None:
            raise ConfigError(
                "--unit is for --scan: each row of a map has its own unit_id", hint="leave it out"
            )
        return _probe(options)
    if len(conns) != 1 or len(options.what) != 1:
        raise ConfigError(
            "a scan takes one connection and no rows of a map",
            hint="edge-agent probe tcp://10.0.0.5:502 --unit 1 --scan hr:0-200",
        )
    if options.scan is None:
        raise ConfigError(
            f"which cells of {conns[0]} are to be tried?",
            hint=f"edge-agent probe {conns[0]} --unit 1 --scan hr:0-200",
        )
    if options.write:
        raise ConfigError("--write is for rows of a map; a scan has none", hint="leave it out")
    return _scan(conns[0], options)


# -- rows of a map -----------------------------------------------------------------------------


def _probe(options: argparse.Namespace) -> int:
    loaded = load_map_or_tell(options)
    if loaded is None:
        return WRONG_INPUT
    path: Path = options.map
    data = _bytes(path)
    if options.write and data.startswith(cells.ZIP):
        raise ConfigError(
            f"{path}: --write can't change single cells of a workbook (.xlsx)",
            hint="save the sheet as 'CSV UTF-8 (*.csv)', or leave --write out and type them in",
        )
    if options.write:
        check_output(path, _HINT_WRITE)
    tags = _chosen(loaded.tags, options.what, path)
    with progress("probe") as tell:
        reach, numbers = counting(tell, len(tags), "rows"), count(1)
        rows = uvloop.run(_read_all(tags, lambda: reach(next(numbers))))
    _judge(rows, loaded.tags)
    changes = _write(path, data, rows) if options.write else []
    if options.json:
        facts = {
            "ok": not any(row.error for row in rows),
            "rows": list(map(show.row_dict, rows)),
            "changes": show.changes_list(changes),
        }
        print_json(facts)
    else:
        show.rows(Console(highlight=False, markup=False, soft_wrap=True), rows)
        if options.write:
            show.written(path, rows, changes)
    return FAILED if any(row.error for row in rows) else DONE


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the file can't be read: {error.strerror}") from error


def _chosen(tags: Sequence[Tag], words: Sequence[str], path: Path) -> list[Tag]:
    """The rows that the words name (`selection`), in map order; all of them without a word."""
    command = ("edge-agent", "probe", "--map", str(path))
    if not words:
        return list(tags)
    try:
        return selected(tags, words, lambda tag: tag.key)
    except UnknownNameError as error:
        raise ConfigError(
            f"the map has no enabled row {error.word!r}; expected {FORMS}",
            hint=shlex.join([*command, error.near]) if error.near else "",
        ) from error


async def _read_all(tags: Sequence[Tag], done: Callable[[], None]) -> list[Row]:
    """Read every row; connections at once, the rows of each one after the other."""
    rows = [Row(tag) for tag in tags]
    by_conn: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_conn.setdefault((row.tag.protocol, row.tag.conn), []).append(row)
    async with asyncio.TaskGroup() as group:
        for members in by_conn.values():
            group.create_task(_read_rows(members, done))
    return rows


async def _read_rows(rows: Sequence[Row], done: Callable[[], None]) -> None:
    """Read the rows of one connection; a unit that is silent once is not asked again."""
    first = rows[0].tag
    link = _Link(protocols.load(first.protocol)(first.conn, now_ms=epoch_ms))
    silent: dict[int, str] = {}
    try:
        for row in rows:
            row.error = silent.get(row.tag.unit_id, "")
            if not row.error:
                try:
                    await _read_row(link, row)
                except (SilentUnitError, TimeoutError) as error:
                    row.error = silent[row.tag.unit_id] = str(error)
                except EdgeAgentError as error:
                    row.error = str(error)
            done()
    finally:
        await link.close()


async def _read_row(link: _Link, row: Row) -> None:
    """Registers and every interpretation of a Modbus row; of any other row the value."""
    tag = row.tag
    [connection] = plan([tag], protocols.load)
    [block] = connection.scan_classes[0].blocks
    address = block.addresses[0]
    if tag.protocol != "modbus" or address.area in {"coil", "discrete"} or address.bit is not None:
        row.value = scaled(tag, await link.value(block))
        if row.value is None:
            row.error = "the device answers, but not with a number"
        return
    span = Span(PREFIXES[address.area], address.offset, address.width)
    if address.width == 1 and link.span_max(tag.conn, span.prefix) > 1:
        row.registers = await link.registers_or_none(tag, span._replace(cells=2))
    if not row.registers:
        row.registers = await link.registers(tag, span)
    row.found = interpretations(tag, row.registers)
    row.value = show.own(row.tag, row.found).value


def _judge(rows: Iterable[Row], tags: Iterable[Tag]) -> None:
    """Judge what was read; a row whose next register is another row's can't be of two registers."""
    taken = {
        (tag.conn, tag.unit_id, address.area, address.offset)
        for tag in tags
        if tag.protocol == "modbus"
        for address in (_address_of(tag),)
    }
    for row in rows:
        if row.found:
            tag, address = row.tag, _address_of(row.tag)
            after = address.offset + address.width
            is_free = (tag.conn, tag.unit_id, address.area, after) not in taken
            row.verdict = judge(tag, row.found, may_widen=is_free)


def _address_of(tag: Tag) -> Address:
    return locate(protocols.load(tag.protocol), tag.conn, tag.address, tag.type)


def _write(path: Path, data: bytes, rows: Sequence[Row]) -> list[cells.Change]:
    """Put clear verdicts into the file. Raises ``EdgeAgentError``, and then nothing is changed."""
    wanted: dict[tuple[str, str, str], Setting] = {}
    for row in rows:
        if row.verdict is not None and row.verdict.clear:
            row.not_written = cells.can_be_written(data, row.tag, row.verdict.best)
            if not row.not_written:
                wanted[row.tag.key] = row.verdict.best
    if not wanted:
        return []
    changed, changes = cells.rewrite(data, wanted)
    if _bytes(path) != data:
        raise ConfigError(f"{path} was changed meanwhile and is left as it is", hint="probe again")
    try:
        replace_file(path, changed)
    except OSError as error:
        raise unwritable(path, error, _HINT_WRITE) from error
    return changes


# -- a scan ------------------------------------------------------------------------------------


def _scan(conn: str, options: argparse.Namespace) -> int:
    syntax = protocols.load("modbus")
    try:
        syntax.parse_conn(conn)
    except ValueError as error:
        raise ConfigError(f"a scan needs a Modbus connection: {error}") from error
    wanted = spans(options.scan, conn)
    link = _Link(syntax(conn, now_ms=epoch_ms))
    unit_ids = options.unit or (1,)
    scans = [
        UnitScan.over(
            unit_id,
            wanted,
            lambda prefix: link.span_max(conn, prefix),
            alone=len(unit_ids) == 1,
        )
        for unit_id in unit_ids
    ]
    cells_asked = sum(span.cells for span in wanted)
    scanner = _Scanner(conn, link, options.requests_max, options.pause_ms / 1000)
    problem: EdgeAgentError | None = None
    try:
        with progress("scan") as tell:
            scanner.report = counting(tell, cells_asked * len(scans), "cells")
            problem = uvloop.run(scanner.run(scans))
    except KeyboardInterrupt:
        # What was found so far was worth the time it took.
        for scan in scans:
            scan.give_up(None, "interrupted")
        problem = EdgeAgentError("interrupted; what was found before stands above")
    if options.json:
        print_json(show.scan_dict(conn, scans, scanner.requests))
    else:
        show.scan(Console(highlight=False, markup=False, soft_wrap=True), scans, scanner.requests)
    if problem is not None:
        raise problem
    return DONE if any(scan.answers for scan in scans) else FAILED


@dataclass(slots=True)
class _Scanner:
    """Asks what the scans want to know, within a bound and with pauses."""

    conn: str
    link: _Link
    requests_max: int
    pause_s: float
    requests: int = 0
    report: Callable[[int], None] = lambda _: None

    async def run(self, scans: Sequence[UnitScan]) -> EdgeAgentError | None:
        """Scan unit by unit; returns the error that ended it early, if one did."""
        try:
            await self.link.connect()
            for scan in scans:
                while (span := scan.next()) is not None:
                    await self._step(scan, span)
                    self.report(sum(scan.known for scan in scans))
        except TransientError as error:
            for scan in scans:
                scan.give_up(None, str(error))
            return error
        finally:
            await self.link.close()
        return None

    async def _step(self, scan: UnitScan, span: Span) -> None:
        if self.requests >= self.requests_max:
            scan.give_up(span, f"not asked: --requests-max {self.requests_max} is used up")
            return
        if self.requests:
            await asyncio.sleep(self.pause_s)
        self.requests += 1
        try:
            block = raw_block(self.conn, scan.unit_id, span)
            values = await self.link.read(block)
            scan.answered(span, [int(value) for value in values])
        except asyncio.CancelledError:
            scan.give_up(span, "interrupted")
            raise
        except RefusedError as error:
            scan.refused(span, str(error))
        except SilentUnitError as error:
            scan.give_up(span, str(error))
        except TimeoutError as error:
            scan.silent(span, str(error))
        except DeviceError as error:
            scan.failed(span, str(error))
        except TransientError as error:
            # Some devices close the connection instead of refusing. Raises if it stays closed.
            scan.failed(span, str(error))
            await self.link.connect()


# -- reading -----------------------------------------------------------------------------------


class _Link:
    """A driver with its clock: every wait is bounded, every error is one of ours or a timeout."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._connected = False

    async def connect(self) -> None:
        """One attempt. Raises ``TransientError``."""
        self._connected = False
        with contained("connect"):
            await self._driver.connect()
        self._connected = True

    async def close(self) -> None:
        """Give the connection back."""
        await self._driver.close()

    def span_max(self, conn: str, prefix: str) -> int:
        """Cells that one request may read of a Modbus area."""
        area = locate(type(self._driver), conn, f"{prefix}:0", _type_of(prefix)).area
        return self._driver.limits(conn, area).span_max

    async def read(self, block: Block) -> Sequence[float]:
        """A block's raw values in tag order. Raises as a driver does, and ``TimeoutError``."""
        replies = await self._ask(block)
        return replies[-1].values if replies else ()

    async def _ask(self, block: Block) -> Sequence[Reply]:
        try:
            if not self._connected:
                await self.connect()
            with contained("read"):
                async with asyncio.timeout(self._driver.timeout_s):
                    return await self._driver.read(block)
        except TransientError:
            self._connected = False
            raise
        except TimeoutError as error:
            text = str(error) or f"no answer within {self._driver.timeout_s:g} s"
            raise TimeoutError(text) from error

    async def value(self, block: Block) -> float:
        """The raw value of a block of one tag; waits for a subscribing protocol's first one."""
        deadline = time.monotonic() + ARRIVAL_TIMEOUT_S
        while True:
            for reply in reversed(await self._ask(block)):
                if len(reply.values):
                    return reply.values[-1]
            if time.monotonic() > deadline:
                raise DeviceError(f"no value has arrived within {ARRIVAL_TIMEOUT_S:g} s")
            await asyncio.sleep(ARRIVAL_PAUSE_S)

    async def registers(self, tag: Tag, span: Span) -> list[int]:
        """Registers of a tag's unit, as they came."""
        block = raw_block(tag.conn, tag.unit_id, span)
        return [int(value) for value in await self.read(block)]

    async def registers_or_none(self, tag: Tag, span: Span) -> list[int]:
        """The same; none where the device refuses them, or the area ends before them."""
        try:
            return await self.registers(tag, span)
        except SilentUnitError:
            raise
        except (DeviceError, ValueError):
            return []


def raw_block(conn: str, unit_id: int, span: Span) -> Block:
    """One request for raw cells. Raises ``ValueError`` beyond the end of the area."""
    value_type = _type_of(span.prefix)
    tag = Tag(
        "-", "-", "-", "-", "modbus", conn, unit_id, "", value_type, 1.0, 0.0, 1000, ""
    )  # fmt: skip
    tags = tuple(
        replace(tag, address=f"{span.prefix}:{span.start + place}") for place in range(span.cells)
    )
    addresses = tuple(map(_address_of, tags))
    return Block(unit_id, addresses[0].area, span.start, span.cells, tags, addresses)


def _type_of(prefix: str) -> ValueType:
    return ValueType.BOOL if prefix in {"co", "di"} else ValueType.UINT16
