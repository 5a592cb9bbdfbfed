"""`edge-remote`: parse the command line, run one command, turn errors into exit codes.

Exit codes: 0 done, 1 failed at run time or something is wrong, 2 the input is wrong. Data goes to
standard output, logs and errors to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from edge_agent import __version__, logs
from edge_agent.command_line import exit_code, prepare_output
from edge_agent.settings import Settings, load_settings

COMMANDS = {
    "setup": "make rows flow from an edge to the remote; run again, it does nothing",
    "status": "how replication stands; exit code 1 if anything is wrong",
    "serve": "the remote's upkeep each minute, and /metrics and /healthz, until it is stopped",
    "resync": "begin again after a lost slot, without losing a row",
    "backfill": "copy history from the edge into the remote",
    "reconcile": "compare both sides hour by hour and repair what differs",
    "teardown": "end replication and leave nothing behind; the rows stay",
}
"""Each has a module of its name in this package, which is loaded when the command is used."""

OWN_SECTIONS = ("agent", "postgres", "remote")
"""Of the settings; the others are those of the agent and of the dashboard."""

_OVERRIDES = ("edge_dsn", "remote_dsn", "name", "http")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    prepare_output()
    options = parser(words).parse_args(words)

    def work() -> int:
        settings = _settings(options)
        logs.setup(settings.agent.log_format, settings.agent.log_level)
        return int(_module(options.command).run(options, settings))

    return exit_code("edge-remote", work)


def parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these words; only commands that stand among them have options."""
    parser = argparse.ArgumentParser(
        prog="edge-remote",
        description="Replicate an edge database to a remote one, watch over it, and repair it.",
    )
    parser.add_argument("--version", action="version", version=f"edge-remote {__version__}")
    _common(parser, before=True)
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", required=True
    )
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        _common(command, before=False)
        if name in words:
            _module(name).arguments(command)
    return parser


def _common(parser: argparse.ArgumentParser, *, before: bool) -> None:
    """Options that stand before or behind the command.

    Behind it they have no default, so that what stands before is not forgotten.
    """
    unset = None if before else argparse.SUPPRESS
    flag = False if before else argparse.SUPPRESS
    parser.add_argument(
        "--config", type=Path, default=unset, metavar="FILE", help="settings (docs/settings.md)"
    )
    parser.add_argument(
        "--edge-dsn",
        default=unset,
        metavar="DSN",
        help="the edge's database (default: remote.edge_dsn)",
    )
    parser.add_argument(
        "--remote-dsn",
        default=unset,
        metavar="DSN",
        help="the remote's database (default: remote.remote_dsn)",
    )
    parser.add_argument("--name", default=unset, help="which edge this is (default: remote.name)")
    parser.add_argument(
        "--json", action="store_true", default=flag, help="as one line of JSON, for programs"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        default=flag,
        help="only say what would be done",
    )


def _module(command: str) -> Any:
    return import_module(f"remote.{command}")


def _settings(options: argparse.Namespace) -> Settings:
    overrides: dict[str, object] = {
        f"remote.{key}": value
        for key in _OVERRIDES
        if (value := getattr(options, key, None)) is not None
    }
    return load_settings(options.config, os.environ, overrides, own=OWN_SECTIONS)


if __name__ == "__main__":
    sys.exit(main())
