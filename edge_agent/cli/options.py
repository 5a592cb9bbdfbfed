"""Options that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import orjson

from edge_agent import address_map, protocols
from edge_agent.address_map import AddressMap, MapError
from edge_agent.errors import ConfigError


def add_common(parser: argparse.ArgumentParser, default: str | None = argparse.SUPPRESS) -> None:
    """Declare what every command takes: where the settings are, and what goes before them.

    Commands leave the default away, so that what stands before them is not forgotten.
    """
    parser.add_argument(
        "--config", type=Path, default=default, metavar="FILE", help="settings (docs/settings.md)"
    )
    parser.add_argument(
        "--data-dir", type=Path, default=default, metavar="FOLDER", help="for journal and store"
    )
    parser.add_argument(
        "--http",
        default=default,
        metavar="HOST:PORT",
        help='where the agent answers about itself; "" for nowhere',
    )


def add_map(parser: argparse.ArgumentParser, default: str | None = argparse.SUPPRESS) -> None:
    """Declare `--map`; it may stand before the command too."""
    parser.add_argument(
        "--map", type=Path, default=default, metavar="FILE", help="address map (.csv or .xlsx)"
    )


def load_map(options: argparse.Namespace) -> AddressMap:
    """The map that the command line names. Raises ``ConfigError`` if it is wrong or not given."""
    if options.map is None:
        raise ConfigError(
            "no address map given", hint="edge-agent --map address_map.csv, or edge-agent --help"
        )
    return address_map.load(options.map, protocols.load)


def load_map_or_tell(options: argparse.Namespace) -> AddressMap | None:
    """The same; a wrong map is told, with ``options.json`` as JSON, and there is None.

    The exit code is then ``WRONG_INPUT``. Raises ``ConfigError`` if no map is given.
    """
    try:
        return load_map(options)
    except MapError as error:
        if options.json:
            problems = [problem.as_dict() for problem in error.problems]
            print(orjson.dumps({"ok": False, "problems": problems}).decode())
        else:
            print(error, file=sys.stderr)
        return None
