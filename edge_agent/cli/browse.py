"""`edge-agent browse`: an address map of what an OPC UA server has."""

from __future__ import annotations

import argparse
import asyncio
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_agent.address_map.cells import (
    PERIOD_MS_MAX,
    PERIOD_MS_MIN,
    TEXT_CHARS_MAX,
    label,
    name,
)
from edge_agent.cli.options import add_json, add_out, check_free, write_map
from edge_agent.cli.words import Once, cell
from edge_agent.command_line import DONE, print_json, whole
from edge_agent.errors import ConfigError, TransientError
from edge_agent.importers.names import DistinctNames, valid_name
from edge_agent.model import Tag
from edge_agent.progress_bar import progress
from edge_agent.settings import Settings
from edge_agent.text.counts import counted

if TYPE_CHECKING:
    from edge_agent.protocols.opcua_browse import Variable, Walk

NODES_MAX_DEFAULT = 100_000
"""Some minutes of browsing; more than any Pi polls."""
NODES_MAX_MAX = 10_000_000
PERIOD_MS_DEFAULT = 1_000
FOR_COLUMN = "for the column of that name (default: %(default)s)"
TOP_DEVICE = "Objects"
"""Device of variables that belong to no object."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("conn", metavar="CONN", help="for example opc.tcp://10.0.0.5:4840")
    add_out(parser)
    parser.add_argument("--site", action=Once, default="SITE", help=FOR_COLUMN)
    parser.add_argument("--line", action=Once, default="LINE", help=FOR_COLUMN)
    parser.add_argument(
        "--period-ms",
        action=Once,
        type=whole(PERIOD_MS_MIN, PERIOD_MS_MAX),
        default=PERIOD_MS_DEFAULT,
        metavar="MS",
        help=FOR_COLUMN,
    )
    parser.add_argument(
        "--max-nodes",
        action=Once,
        type=whole(1, NODES_MAX_MAX),
        default=NODES_MAX_DEFAULT,
        metavar="N",
        help="stop after so many nodes (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001
    """Walk the server and write the map; exit code 1 if the server has nothing for a map."""
    from edge_agent.protocols import opcua_browse, opcua_syntax

    try:
        opcua_syntax.parse_conn(options.conn)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    site, line = cell("--site", options.site, name), cell("--line", options.line, label)
    check_free(options)
    with progress("browse") as show:

        def tell(visited: int, known: int, found: int) -> None:
            # How many there are nobody knows before the last one.
            show(
                None,
                f"{counted(visited, 'node')} visited, {known - visited:,} more known,"
                f" {counted(found, 'variable')}",
            )

        walk = asyncio.run(
            opcua_browse.walk(options.conn, nodes_max=options.max_nodes, progress=tell)
        )
    tags, left_out = _tags(walk.variables, options, site, line)
    if not tags:
        raise TransientError(f"{options.conn}: no numbers and no Booleans below Objects")
    write_map(options, tags)
    _report(options, walk, len(tags), left_out)
    return DONE


def _report(options: argparse.Namespace, walk: Walk, written: int, left_out: int) -> None:
    if options.json:
        facts = {
            "ok": True,
            "out": str(options.out),
            "rows": written,
            "left_out": left_out,
            "visited": walk.visited,
            "complete": walk.complete,
        }
        print_json(facts)
        return
    visited = counted(walk.visited, "node")
    print(f"{options.out}: {counted(written, 'tag')}; {visited} of {options.conn} visited")
    if left_out:
        print(
            f"{counted(left_out, 'variable')} left out: no cell of a map can hold the node id",
            file=sys.stderr,
        )
    if not walk.complete:
        print(
            f"stopped after {visited}, there are more: use a larger --max-nodes",
            file=sys.stderr,
        )


def _tags(
    variables: Sequence[Variable], options: argparse.Namespace, site: str, line: str
) -> tuple[list[Tag], int]:
    """A tag for each variable that has room in a map, and how many have none."""
    tags = []
    names = DistinctNames()
    for variable in variables:
        address = str(variable.node)
        if len(address) > TEXT_CHARS_MAX or not _is_plain(address):
            continue
        device = valid_name(".".join(variable.path[: variable.objects])) or TOP_DEVICE
        tag = valid_name(".".join(variable.path[variable.objects :])) or "value"
        tags.append(
            Tag(
                site=site,
                line=line,
                device=device,
                tag=names.take(device, tag),
                protocol="opcua",
                conn=options.conn,
                unit_id=1,
                address=address,
                type=variable.type,
                scale=1.0,
                offset=0.0,
                period_ms=options.period_ms,
                unit="",
            )
        )
    return tags, len(variables) - len(tags)


def _is_plain(address: str) -> bool:
    """Whether a cell gives it back as it is."""
    return (
        address.isprintable()
        and address == address.strip()
        and unicodedata.is_normalized("NFC", address)
    )
