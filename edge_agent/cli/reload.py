"""`edge-agent reload`: apply what is in the map's file now, and say what came of it."""

from __future__ import annotations

import argparse

from edge_agent.command_line import DONE
from edge_agent.control_client import ControlClient
from edge_agent.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """It has none of its own."""
    del parser


def run(_: argparse.Namespace, settings: Settings) -> int:
    """Ask the running agent; a wrong map is exit code 2."""
    print(outcome(ControlClient(settings.agent.data_dir).post("/map/reload")))
    return DONE


def outcome(done: dict[str, object]) -> str:
    """What became of a map, in a line."""
    if not done["changed"] and done["written"]:
        return "the file is written; no row differs from the running map"
    if not done["changed"]:
        return "nothing has changed: the running map is what the file says"
    kept = "not kept, see the agent's log" if done["version"] is None else f"{done['version']}"
    return f"applied: {done['summary']}; version {kept}"
