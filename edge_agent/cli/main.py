"""`edge-agent`: parse the command line, run one command, turn errors into exit codes.

Exit codes: 0 done, 1 failed at run time, 2 the input is wrong. Data goes to standard output, logs
and errors to standard error. Without a command it is the daemon.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from edge_agent import __version__, address_map, logs, protocols
from edge_agent.agent import Agent
from edge_agent.cli import check, db, demo, journal, simulate, status
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.settings import Settings, load_settings

DONE, FAILED, WRONG_INPUT = 0, 1, 2

COMMANDS = {
    "check": check,
    "simulate": simulate,
    "demo": demo,
    "status": status,
    "journal": journal,
    "db": db,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = _settings(options)
        logs.setup(settings.agent.log_format, settings.agent.log_level)
        if options.command is None:
            return _daemon(options, settings)
        return int(COMMANDS[options.command].run(options, settings))
    except EdgeAgentError as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return WRONG_INPUT if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does: nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _daemon(options: argparse.Namespace, settings: Settings) -> int:
    if options.map is None:
        raise ConfigError(
            "no address map given", hint="edge-agent --map address_map.csv, or edge-agent --help"
        )
    loaded = address_map.load(options.map, protocols.load)

    async def run() -> None:
        await Agent(settings, loaded).run()

    uvloop.run(run())
    return DONE


def _settings(options: argparse.Namespace) -> Settings:
    overrides: dict[str, object] = {}
    if options.data_dir is not None:
        overrides["agent.data_dir"] = str(options.data_dir)
    if options.http is not None:
        overrides["agent.http"] = options.http
    return load_settings(options.config, os.environ, overrides)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-agent",
        description="Poll PLCs by an address map and deliver every sample. "
        "Without a command: the daemon.",
    )
    parser.add_argument("--version", action="version", version=f"edge-agent {__version__}")
    parser.add_argument("--map", type=Path, metavar="FILE", help="address map (.csv or .xlsx)")
    _common(parser, default=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, module in COMMANDS.items():
        _, _, summary = (module.__doc__ or "").partition("\n")[0].partition(": ")
        command = commands.add_parser(name, help=summary, description=summary)
        # Suppressed, so that what stands before the command is not forgotten.
        _common(command, default=argparse.SUPPRESS)
        module.arguments(command)
    return parser


def _common(parser: argparse.ArgumentParser, default: str | None) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
