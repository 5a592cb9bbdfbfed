"""`edge-agent reload`: apply what is in the map's file now, and say what came of it."""

from __future__ import annotations

import argparse

from edge_agent.cli.options import add_json
from edge_agent.command_line import DONE, WRONG_INPUT, print_json
from edge_agent.control_client import ControlClient, RefusedMapError
from edge_agent.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_json(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Ask the running agent; a wrong map is exit code 2."""
    return apply("/map/reload", settings, as_json=options.json)


def apply(route: str, settings: Settings, *, as_json: bool) -> int:
    """Have the running agent apply a map, and say what came of it.

    Raises as `ControlClient.post`; as JSON the problems of a map are told, and nothing is raised.
    """
    try:
        done = ControlClient(settings.agent.data_dir).post(route)
    except RefusedMapError as error:
        if not (as_json and error.problems):
            raise
        print_json({"ok": False, "problems": error.problems, "count": error.count})
        return WRONG_INPUT
    if as_json:
        print_json({"ok": True, **done, "problems": []})
    else:
        print(outcome(done))
    return DONE


def outcome(done: dict[str, object]) -> str:
    """What became of a map, in a line."""
    if not done["changed"] and done["written"]:
        return "the file is written; no row differs from the running map"
    if not done["changed"]:
        return "nothing has changed: the running map is what the file says"
    kept = "not kept, see the agent's log" if done["version"] is None else f"{done['version']}"
    return f"applied: {done['summary']}; version {kept}"
