"""`edge-agent check`: report every problem of an address map; exit code 2 if there is any."""

from __future__ import annotations

import argparse

from edge_agent import protocols
from edge_agent.cli.options import add_json, add_map, load_map_or_tell
from edge_agent.command_line import DONE, WRONG_INPUT, print_json
from edge_agent.planner import plan
from edge_agent.settings import Settings
from edge_agent.text.counts import counted


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_map(parser)
    add_json(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001
    """Check one file."""
    found = load_map_or_tell(options)
    if found is None:
        return WRONG_INPUT
    connections = plan(found.tags, protocols.load)
    devices = {(tag.site, tag.device) for tag in found.tags}
    facts = {
        "ok": True,
        "tags": len(found.tags),
        "disabled": found.disabled,
        "devices": len(devices),
        "connections": len(connections),
        "sha256": found.sha256,
        "problems": [],
    }
    if options.json:
        print_json(facts)
    else:
        print(
            f"{options.map}: valid; {counted(len(found.tags), 'tag')} of"
            f" {counted(len(devices), 'device')} on"
            f" {counted(len(connections), 'connection')}, {found.disabled:,} disabled"
        )
    return DONE
