"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from edge_agent import address_map, protocols
from edge_agent.address_map import AddressMap, MapError
from edge_agent.cli.words import Once
from edge_agent.command_line import print_json
from edge_agent.errors import ConfigError
from edge_agent.model import Tag
from edge_agent.output_file import check_not_input, check_output, unwritable


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
    """Declare `--map`; it may stand before the command too.

    ``options.takes_map`` says of a command that it was called for it.
    """
    parser.set_defaults(takes_map=True)
    parser.add_argument(
        "--map",
        action=Once,
        type=Path,
        default=default,
        metavar="FILE",
        help="address map (.csv or .xlsx)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare `--json`."""
    parser.add_argument("--json", action="store_true", help="as one line of JSON, for programs")


def add_actions(
    parser: argparse.ArgumentParser, actions: Mapping[str, str]
) -> dict[str, argparse.ArgumentParser]:
    """Declare what a command can do, and what each is for; options of all may stand behind it."""
    choices = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    found = {}
    for name, summary in actions.items():
        found[name] = choices.add_parser(name, help=summary, description=summary)
        add_common(found[name])
    return found


def add_out(parser: argparse.ArgumentParser) -> None:
    """Declare `--out` and `--force`, for what writes a map."""
    parser.add_argument(
        "--out",
        action=Once,
        type=Path,
        required=True,
        metavar="FILE",
        help="the map to write (.csv)",
    )
    parser.add_argument("--force", action="store_true", help="replace it if it is there")


def inputs_of(options: argparse.Namespace, output: str = "out") -> list[Path]:
    """The files that the command line names, other than the output: no command may write to one."""
    return [
        value for name, value in vars(options).items() if isinstance(value, Path) and name != output
    ]


def check_free(options: argparse.Namespace) -> None:
    """Refuse a name that no map has or where none can be written, a file that is read, and one
    that is there already. Raises ``ConfigError``.
    """
    path: Path = options.out
    if path.suffix.lower() != ".csv":
        raise ConfigError(f"--out {path}: a map is written as .csv")
    check_not_input(path, inputs_of(options))
    check_output(path)
    if path.exists() and not options.force:
        raise ConfigError(
            f"{path} is there already", hint="another --out, or --force to replace it"
        )


def write_map(options: argparse.Namespace, tags: Iterable[Tag]) -> None:
    """Write the new map, unless a file has come there meanwhile."""
    check_free(options)
    try:
        address_map.write(options.out, tags)
    except OSError as error:
        raise unwritable(options.out, error) from error


def command_words(options: argparse.Namespace) -> str:
    """How the command that runs is called, for hints."""
    return " ".join(filter(None, ("edge-agent", options.command)))


def load_map(options: argparse.Namespace) -> AddressMap:
    """The map that the command line names. Raises ``ConfigError`` if it is wrong or not given."""
    if options.map is None:
        raise ConfigError(
            "no address map given", hint=f"{command_words(options)} --map address_map.csv"
        )
    return address_map.load(options.map, protocols.load)


def load_map_or_tell(options: argparse.Namespace) -> AddressMap | None:
    """The same; with ``options.json`` a wrong map is told as JSON, and there is None.

    The exit code is then ``WRONG_INPUT``. Raises ``ConfigError`` as `load_map` does otherwise.
    """
    try:
        return load_map(options)
    except MapError as error:
        if not options.json:
            raise
        problems = [problem.as_dict() for problem in error.problems]
        print_json({"ok": False, "problems": problems})
        return None
