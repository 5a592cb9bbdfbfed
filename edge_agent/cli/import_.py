"""`edge-agent import`: an address map out of the configuration of another system."""

from __future__ import annotations

import argparse
import re
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from edge_agent import protocols
from edge_agent.address_map import FILE_BYTES_MAX
from edge_agent.address_map.cells import PERIOD_MS_MAX, PERIOD_MS_MIN, UNIT_ID_MAX, label, name
from edge_agent.cli.options import add_json, add_out, check_free, write_map
from edge_agent.cli.tables import Grid
from edge_agent.cli.words import Once, cell
from edge_agent.command_line import DONE, WRONG_INPUT, print_json, whole
from edge_agent.errors import ConfigError
from edge_agent.importers import KINDS, OUTCOMES, Defaults, Imported, Outcome, convert
from edge_agent.importers.addresses import protocol_of
from edge_agent.settings import Settings
from edge_agent.text.counts import counted

_NAMED_CONN: Final = re.compile(r"(?P<name>[^=?]+?)=(?P<conn>[a-z][a-z0-9+.]*://.*)", re.DOTALL)
_LISTED: Final = "Telegraf TOML, Node-RED flow, Kepware CSV, Neuron Excel, Ignition tag JSON"
_STYLES: Final = {
    Outcome.LEFT_OUT: "red",
    Outcome.IN_PART: "yellow",
    Outcome.CHANGED: "cyan",
    Outcome.ASSUMED: "dim",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help=f"configuration of another system: {_LISTED}"
    )
    add_out(parser)
    parser.add_argument(
        "--from",
        dest="kind",
        action=Once,
        choices=sorted(KINDS),
        metavar="KIND",
        help=f"{', '.join(KINDS)} (default: what the contents look like)",
    )
    parser.add_argument("--site", action=Once, help="of rows for which the file says none")
    parser.add_argument("--line", action=Once, help="of rows for which the file says none")
    parser.add_argument(
        "--device",
        action=Once,
        help="of rows for which the file says none (default: the file's name)",
    )
    parser.add_argument(
        "--conn",
        action="append",
        default=[],
        metavar="[NAME=]CONN",
        help="connection of rows for which the file says none, or of one device of the file;"
        " may be repeated",
    )
    parser.add_argument(
        "--unit-id",
        action=Once,
        type=whole(0, UNIT_ID_MAX),
        metavar="N",
        help="of rows for which the file says none (default: 1)",
    )
    parser.add_argument(
        "--period-ms",
        action=Once,
        type=whole(PERIOD_MS_MIN, PERIOD_MS_MAX),
        metavar="MS",
        help="of rows for which the file says none (default: 1000)",
    )
    add_json(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001
    """Write the map and the report; exit code 2 if nothing could be carried over."""
    check_free(options)
    defaults = _defaults(options)
    try:
        data = _bytes_of(options.file)
        imported = convert(data, defaults, protocols.load, options.kind)
    except ConfigError as error:
        raise ConfigError(f"{options.file}: {error}", hint=error.hint) from error
    if imported.tags:
        write_map(options, imported.tags)
    if options.json:
        print_json(as_dict(imported, options.out))
    else:
        _show(imported, options.file, options.out)
    return DONE if imported.tags else WRONG_INPUT


def as_dict(imported: Imported, out: Path) -> Mapping[str, object]:
    """The report as plain data."""
    return {
        "ok": bool(imported.tags),
        "kind": imported.kind,
        "out": str(out) if imported.tags else None,
        "rows": len(imported.tags),
        "findings": [finding.as_dict() for finding in imported.findings],
    }


def _defaults(options: argparse.Namespace) -> Defaults:
    """What the command line says. Raises ``ConfigError`` for what no map may hold."""
    given: dict[str, str] = {}
    for column, check in (("site", name), ("line", label), ("device", name)):
        text = getattr(options, column)
        if text is None:
            continue
        given[column] = cell(f"--{column}", text, check)
    conns = _conns(options.conn)
    return Defaults(
        **given,
        file_name=options.file.name.partition(".")[0],
        conn=conns.pop("", ""),
        conns=conns,
        unit_id=options.unit_id,
        period_ms=options.period_ms,
    )


def _conns(words: Sequence[str]) -> dict[str, str]:
    """Connections by device, that of all others under ''. Raises ``ConfigError``."""
    conns: dict[str, str] = {}
    for text in words:
        match = _NAMED_CONN.fullmatch(text)
        device, conn = (match["name"], match["conn"]) if match else ("", text)
        if device in conns:
            whose = f"device {device}" if device else "all devices without one of their own"
            raise ConfigError(
                f"--conn {text}: --conn {conns[device]} is given for {whose} already",
                hint="--conn NAME=CONN is for one device of the file",
            )
        conns[device] = _checked(conn)
    return conns


def _checked(conn: str) -> str:
    """A connection that a protocol takes. Raises ``ConfigError``."""
    protocol = protocol_of(conn)
    if not protocol:
        raise ConfigError(
            f"--conn {conn}: allowed are connections of Modbus, OPC UA and S7",
            hint="for example --conn tcp://10.0.0.5:502; docs/address-map.md lists them",
        )
    try:
        protocols.load(protocol).parse_conn(conn)
    except ValueError as error:
        raise ConfigError(f"--conn {error}") from error
    return conn


def _bytes_of(path: Path) -> bytes:
    """A whole file. Raises ``ConfigError``."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("not a file")
        if status.st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{status.st_size:,} bytes; allowed are {FILE_BYTES_MAX:,}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError("there is no such file; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise ConfigError(f"can't be read: {getattr(error, 'strerror', None) or error}") from error


# -- the report --------------------------------------------------------------------------------


def _show(imported: Imported, source: Path, out: Path) -> None:
    """The report on standard error, line by line."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    grid = Grid("", _COLUMNS, frozenset())
    for finding in imported.findings:
        cells = (str(finding.place), finding.what, str(finding.outcome), finding.reason)
        grid.add(*cells, style=_STYLES[finding.outcome])
    if imported.findings:
        grid.show(console)
    counts = Counter(finding.outcome for finding in imported.findings)
    for outcome, meaning in OUTCOMES.items():
        if counts[outcome]:
            console.print(f"{counts[outcome]:,} {outcome}: {meaning}")
    if imported.tags:
        rows = counted(len(imported.tags), "row")
        console.print(f"{out}: {rows} from {source} ({imported.kind})")
    else:
        console.print(f"{source} ({imported.kind}): nothing could be carried over; no map written")


_COLUMNS: Final = ("place", "what", "outcome", "why")
