"""`edge-dashboard`: serve the pages, or say who may look.

Exit codes: 0 done, 1 failed at run time, 2 the input is wrong. Data goes to standard output, logs
and errors to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dashboard.auth import command as user
from edge_agent import __version__, logs
from edge_agent.command_line import DONE, exit_code, prepare_output
from edge_agent.settings import Settings, load_settings

OWN_SECTIONS = ("agent", "dashboard")
"""Of the settings; of the others it looks only at what is set."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    prepare_output()
    options = parser().parse_args(arguments)

    def work() -> int:
        settings = _settings(options)
        logs.setup(settings.agent.log_format, settings.agent.log_level)
        if options.command == "user":
            return user.run(options, settings)
        return _serve(settings)

    return exit_code("edge-dashboard", work)


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(
        prog="edge-dashboard",
        description="The dashboard: a card per device, a page per device, the agent's own state.",
    )
    top.add_argument("--version", action="version", version=f"edge-dashboard {__version__}")
    top.add_argument("--config", type=Path, metavar="FILE", help="settings (docs/settings.md)")
    top.add_argument("--data-dir", type=Path, metavar="FOLDER", help="where the store is")
    top.add_argument("--host", help="the address to listen on (default: dashboard.host)")
    top.add_argument("--port", help="the port to listen on (default: dashboard.port)")
    top.add_argument(
        "--source",
        help="where samples are read: store, edge or remote (default: dashboard.source)",
    )
    top.add_argument(
        "--agent-url",
        metavar="URL",
        help="where the agent answers about itself (default: dashboard.agent_url)",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    summary = "who may look: add, list, remove, password"
    user.arguments(commands.add_parser("user", help=summary, description=summary))
    return top


def _serve(settings: Settings) -> int:
    from dashboard.serve import serve

    # Not uvloop: granian does the I/O, so it would bring 4 MB and no speed.
    asyncio.run(serve(settings))
    return DONE


def _settings(options: argparse.Namespace) -> Settings:
    given = {
        "agent.data_dir": None if options.data_dir is None else str(options.data_dir),
        "dashboard.host": options.host,
        "dashboard.port": options.port,
        "dashboard.source": options.source,
        "dashboard.agent_url": options.agent_url,
    }
    overrides: dict[str, object] = {key: value for key, value in given.items() if value is not None}
    return load_settings(options.config, os.environ, overrides, own=OWN_SECTIONS)


if __name__ == "__main__":
    sys.exit(main())
