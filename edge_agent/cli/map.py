"""`edge-agent map`: every map that was applied: list, show, compare, go back to one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console

from edge_agent import address_map, protocols
from edge_agent.cli.options import add_common
from edge_agent.cli.plan_against import show_rows
from edge_agent.cli.reload import outcome
from edge_agent.cli.tables import aligned, clock
from edge_agent.command_line import DONE
from edge_agent.control_client import ControlClient
from edge_agent.errors import ConfigError
from edge_agent.model import Tag
from edge_agent.reload.map_versions import MapVersions, Version
from edge_agent.reload.preview import preview
from edge_agent.settings import Settings

HASH_SHOWN: Final = 12


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and what each takes."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    history = actions.add_parser("history", help="all versions, oldest first")
    history.add_argument("--json", action="store_true", help="everything, for programs")
    show = actions.add_parser("show", help="a version's file, to the byte, to standard output")
    show.add_argument("version", type=int, metavar="N")
    diff = actions.add_parser("diff", help="what lies between two versions")
    diff.add_argument("version", type=int, metavar="N")
    diff.add_argument(
        "other", type=int, nargs="?", metavar="M", help="the newer one (default: the newest)"
    )
    diff.add_argument("--json", action="store_true", help="everything, for programs")
    rollback = actions.add_parser(
        "rollback", help="write a version into the map's file and apply it"
    )
    rollback.add_argument("version", type=int, metavar="N")
    for action in actions.choices.values():
        add_common(action)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Do one action. Only `rollback` needs a running agent."""
    if options.action == "rollback":
        client = ControlClient(settings.agent.data_dir)
        print(outcome(client.post(f"/map/rollback/{options.version}")))
        return DONE
    if not settings.agent.data_dir.is_dir():
        raise ConfigError(
            f"{settings.agent.data_dir}: there is no such folder",
            hint="--data-dir tells where the agent keeps its data",
        )
    versions = MapVersions(settings.agent.data_dir)
    versions.load()
    if options.action == "show":
        sys.stdout.buffer.write(versions.data(options.version))
        sys.stdout.buffer.flush()
    elif options.action == "diff":
        _diff(versions, options.version, options.other, settings, as_json=options.json)
    else:
        _history(versions.all, settings, as_json=options.json)
    return DONE


def _history(versions: Sequence[Version], settings: Settings, *, as_json: bool) -> None:
    if as_json:
        document = {"versions": [asdict(version) for version in versions]}
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    if not versions:
        print(f"no map was applied on {settings.agent.data_dir} yet", file=sys.stderr)
        return
    columns = ("version", "applied", "by", "how", "tags", "+", "~", "-", "sha256")
    rows = [
        (
            *(str(one.version), clock(one.applied_at_ms), one.author, one.how),
            *map(str, (one.tags, one.added, one.changed, one.removed)),
            one.sha256[:HASH_SHOWN],
        )
        for one in versions
    ]
    for line in aligned(columns, rows):
        print(line)


def _diff(
    versions: MapVersions, number: int, other: int | None, settings: Settings, *, as_json: bool
) -> None:
    newest = versions.newest
    if newest is None:
        raise ConfigError(f"no map was applied on {settings.agent.data_dir} yet")
    before = _tags(versions, number)
    after = _tags(versions, newest.version if other is None else other)
    found = preview(before, after, protocols.load, settings)
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        show_rows(Console(highlight=False, markup=False, soft_wrap=True), found)


def _tags(versions: MapVersions, number: int) -> Sequence[Tag]:
    path = Path(f"version {number}")
    return address_map.parse(path, versions.data(number), protocols.load).tags
