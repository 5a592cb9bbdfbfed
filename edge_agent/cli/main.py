"""`edge-agent`: parse the command line, run one command, turn errors into exit codes.

Exit codes: 0 done, 1 failed at run time, 2 the input is wrong. Data goes to standard output, logs
and errors to standard error. Without a command it is the daemon.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Any, NoReturn

from edge_agent import __version__, logs
from edge_agent.cli.options import add_common, add_map, command_words, load_map
from edge_agent.command_line import DONE, exit_code, prepare_output
from edge_agent.settings import Settings, load_settings

COMMANDS = {
    "check": "report every problem of an address map; exit code 2 if there is any",
    "plan": "what a map will cost before it runs: bus load, rows, journal, disk",
    "generate": "files for other programs, made from an address map",
    "reload": "apply what is in the map's file now, and say what came of it",
    "map": "every map that was applied: list, show, compare, go back to one",
    "probe": "read rows once under every type and byte order, or find what answers",
    "browse": "an address map of what an OPC UA server has",
    "import": "an address map out of the configuration of another system",
    "simulate": "PLCs that answer for an address map, until it is stopped",
    "demo": "simulated PLCs, agent, broker, embedded store and dashboard, all at once",
    "status": "where is my data? One line, then each stage with count, age and lag",
    "quality": "how good the data of each tag is, or what is suspicious in a map",
    "journal": "look into the journal, check it, and put quarantined samples back",
    "db": "apply the schema to a database, or say how it stands",
}
"""Each has a module of its name in this package, which is loaded when the command is used.

One whose name is a word of Python has an underscore behind it: `import_.py`.
"""

OF_THE_RUNNING_MAP = {"map", "reload", "status"}
"""Commands that ask the agent, and so take no map."""
MAP_SUFFIXES = {".csv", ".xlsx"}

OWN_SECTIONS = ("agent", "journal", "mqtt", "postgres", "influx", "store")
"""Of the settings; the others are those of `edge-remote` and `edge-dashboard`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    prepare_output()
    options = _options(words)

    def work() -> int:
        settings = _settings(options)
        logs.setup(settings.agent.log_format, settings.agent.log_level)
        run = _daemon if options.command is None else _module(options.command).run
        return int(run(options, settings))

    return exit_code("edge-agent", work)


def _options(words: Sequence[str]) -> argparse.Namespace:
    """What the words say; ends with exit code 2 and a sentence if they are wrong."""
    parser = _parser(words)
    options, unknown = parser.parse_known_args(words)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{_advice(options, unknown)}")
    return options


def _advice(options: argparse.Namespace, unknown: Sequence[str]) -> str:
    """What to say to words that nobody understood, if they are about a map."""
    if options.command in OF_THE_RUNNING_MAP and any(map(_is_about_a_map, unknown)):
        return (
            f"; {command_words(options)} is about the map that the agent runs, and takes no other:"
            " edge-agent plan --map FILE --against running compares one with it"
        )
    if options.command and options.takes_map and not unknown[0].startswith("-"):
        named = f"{command_words(options)} --map {shlex.quote(unknown[0])}"
        return f"; an address map is named with --map: {named}"
    return ""


def _is_about_a_map(word: str) -> bool:
    return word == "--map" or Path(word).suffix.lower() in MAP_SUFFIXES


class _Parser(argparse.ArgumentParser):
    """Says of a word that is no command what may have been meant."""

    def error(self, message: str) -> NoReturn:
        if wrong := re.match(r"argument COMMAND: invalid choice: '([^']*)'", message):
            [word] = wrong.groups()
            near = get_close_matches(word, COMMANDS, 1)
            if _is_about_a_map(word):
                message += f"; to run a map: edge-agent --map {shlex.quote(word)}"
            elif near:
                message += f"; did you mean {near[0]}?"
        super().error(message)


def _daemon(options: argparse.Namespace, settings: Settings) -> int:
    import uvloop

    from edge_agent import heap
    from edge_agent.agent import Agent

    heap.keep_small()
    loaded = load_map(options)

    async def run() -> None:
        await Agent(settings, loaded).run()

    uvloop.run(run())
    return DONE


def _module(command: str) -> Any:
    return import_module(f"edge_agent.cli.{command}{'_' * iskeyword(command)}")


def _settings(options: argparse.Namespace) -> Settings:
    overrides: dict[str, object] = {}
    if options.data_dir is not None:
        overrides["agent.data_dir"] = str(options.data_dir)
    if options.http is not None:
        overrides["agent.http"] = options.http
    return load_settings(options.config, os.environ, overrides, own=OWN_SECTIONS)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these words; only commands that stand among them have options."""
    parser = _Parser(
        prog="edge-agent",
        description="Poll PLCs by an address map and deliver every sample. "
        "Without a command: the daemon.",
    )
    parser.add_argument("--version", action="version", version=f"edge-agent {__version__}")
    add_map(parser, default=None)
    parser.set_defaults(takes_map=False)
    add_common(parser, default=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        add_common(command)
        if name in words:
            _module(name).arguments(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
