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
from edge_agent.command_line import DONE, exit_code
from edge_agent.simulator import fault_file
from edge_agent.simulator.plant import Plant, told

PROGRAM = "python -m edge_agent.simulator"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="PLCs that answer for a map.")
    parser.add_argument("map", type=Path, help="address map (.csv or .xlsx)")
    parser.add_argument("--host", help="listen here instead of on the hosts of the map")
    parser.add_argument("--port", type=int, help="first port, instead of those of the map; 0: any")
    parser.add_argument("--faults", type=Path, help="what goes wrong, where and when (.toml)")
    options = parser.parse_args(arguments)
    return exit_code(
        PROGRAM,
        lambda: answer(options.map, host=options.host, port=options.port, faults=options.faults),
    )


def answer(path: Path, *, host: str | None, port: int | None, faults: Path | None) -> int:
    """Answer for a map until SIGTERM or SIGINT. Raises ``ConfigError`` and ``TransientError``."""
    plant = Plant(
        address_map.load(path, protocols.load).tags,
        syntax=protocols.load,
        host=host,
        port=port,
        faults=None if faults is None else fault_file.load(faults),
    )
    for line in told(plant.unserved):
        print(line, file=sys.stderr)
    uvloop.run(_run(plant))
    return DONE


async def _run(plant: Plant) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with plant:
        print(json.dumps({"listening": plant.describe()}), flush=True)
        await stopped.wait()
        print(json.dumps({"counted": plant.counted()}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
