"""`python -m edge_agent.simulator MAP`: a process that answers for a map until SIGTERM.

Prints one line of JSON to standard output when it listens and one with what it counted at its end,
problems to standard error. Exit codes: 0 ended by SIGTERM or SIGINT, 1 an address could not be
listened on, 2 the map or the file of faults is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from edge_agent import address_map, protocols
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.simulator import fault_file
from edge_agent.simulator.plant import Plant

SHOWN_UNSERVED_MAX = 10
"""Lines about tags that nobody answers for; a whole map of another protocol says enough so."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.simulator", description="PLCs that answer for a map."
    )
    parser.add_argument("map", type=Path, help="address map (.csv or .xlsx)")
    parser.add_argument("--host", help="listen here instead of on the hosts of the map")
    parser.add_argument("--port", type=int, help="first port, instead of those of the map; 0: any")
    parser.add_argument("--faults", type=Path, help="what goes wrong, where and when (.toml)")
    options = parser.parse_args(arguments)
    try:
        tags = address_map.load(options.map, protocols.load).tags
        plant = Plant(
            tags,
            syntax=protocols.load,
            host=options.host,
            port=options.port,
            faults=None if options.faults is None else fault_file.load(options.faults),
        )
        _report_unserved(plant)
        uvloop.run(_run(plant))
    except EdgeAgentError as error:
        print(f"{error}\n{error.hint}".rstrip(), file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


async def _run(plant: Plant) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with plant:
        print(json.dumps({"listening": plant.describe()}), flush=True)
        await stopped.wait()
        print(json.dumps({"counted": plant.counted()}), flush=True)


def _report_unserved(plant: Plant) -> None:
    unserved = plant.unserved
    for tag, reason in unserved[:SHOWN_UNSERVED_MAX]:
        print(f"not simulated: {'/'.join(tag.key)}: {reason}", file=sys.stderr)
    if len(unserved) > SHOWN_UNSERVED_MAX:
        print(f"... and {len(unserved) - SHOWN_UNSERVED_MAX} more", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
