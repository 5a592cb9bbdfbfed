"""`edge-agent simulate`: PLCs that answer for an address map, until it is stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_agent.cli.options import add_map
from edge_agent.command_line import whole
from edge_agent.errors import ConfigError
from edge_agent.settings import Settings
from edge_agent.simulator import __main__ as simulator

PORT_MAX = 65_535


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_map(parser)
    parser.add_argument("--host", type=_host, help="listen here instead of on the hosts of the map")
    parser.add_argument(
        "--port", type=whole(0, PORT_MAX), help="first port, instead of those of the map; 0: any"
    )
    parser.add_argument(
        "--faults",
        type=Path,
        metavar="FILE",
        help="what goes wrong, where and when (examples/faults.toml)",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001
    """Answer until SIGTERM or Ctrl-C."""
    if options.map is None:
        raise ConfigError("no address map given", hint="edge-agent simulate --map address_map.csv")
    return simulator.answer(
        options.map, host=options.host, port=options.port, faults=options.faults
    )


def _host(text: str) -> str:
    try:
        text.encode("idna")
    except UnicodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no name that a host can have") from error
    return text
