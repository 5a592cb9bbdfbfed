"""`edge-agent map`: every map that was applied: list, show, compare, go back to one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console

from edge_agent import address_map, protocols
from edge_agent.cli.options import add_actions, add_json
from edge_agent.cli.plan_against import show_rows
from edge_agent.cli.reload import apply
from edge_agent.cli.tables import aligned, clock
from edge_agent.command_line import DONE, print_json, whole
from edge_agent.errors import ConfigError
from edge_agent.model import Tag
from edge_agent.reload.map_versions import MapVersions, Version
from edge_agent.reload.preview import preview
from edge_agent.settings import Settings

SUMMARIES: Final = {
    "history": "all versions, oldest first",
    "show": "a version's file, to the byte, to standard output",
    "diff": "what lies between two versions",
    "rollback": "write a version into the map's file and apply it",
}
HASH_SHOWN: Final = 12
VERSION_MAX: Final = 999_999_999
"""Applied one a second, these are thirty years of maps."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and what each takes."""
    actions = add_actions(parser, SUMMARIES)
    version = whole(1, VERSION_MAX, "the number of a version; `edge-agent map history` lists them")
    for name in ("show", "diff", "rollback"):
        actions[name].add_argument(
            "version", type=version, metavar="N", help="its number in `edge-agent map history`"
        )
    actions["diff"].add_argument(
        "other", type=version, nargs="?", metavar="M", help="the newer one (default: the newest)"
    )
    for name in ("history", "diff", "rollback"):
        add_json(actions[name])


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Do one action. Only `rollback` needs a running agent."""
    if options.action == "rollback":
        return apply(f"/map/rollback/{options.version}", settings, as_json=options.json)
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
        print_json({"versions": [asdict(version) for version in versions]})
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
        print_json(found)
    else:
        show_rows(Console(highlight=False, markup=False, soft_wrap=True), found)


def _tags(versions: MapVersions, number: int) -> Sequence[Tag]:
    path = Path(f"version {number}")
    return address_map.parse(path, versions.data(number), protocols.load).tags
