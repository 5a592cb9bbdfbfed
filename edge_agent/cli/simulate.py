"""`edge-agent simulate`: PLCs that answer for an address map, until it is stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_agent.settings import Settings
from edge_agent.simulator import __main__ as simulator


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--map", type=Path, required=True, metavar="FILE", help="address map")
    parser.add_argument("--host", help="listen here instead of on the hosts of the map")
    parser.add_argument("--port", type=int, help="first port, instead of those of the map; 0: any")


def run(options: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001
    """Answer until SIGTERM or Ctrl-C."""
    words = [str(options.map)]
    if options.host is not None:
        words += ["--host", options.host]
    if options.port is not None:
        words += ["--port", str(options.port)]
    return simulator.main(words)
