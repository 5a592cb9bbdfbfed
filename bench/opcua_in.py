"""CPU of one value that comes in by OPC UA: subscribed to, and polled.

    python -m bench.opcua_in [--nodes 5000] [--period-ms 1000] [--seconds 10]
                             [--type Double] [--sealed] [--json]

A real server in a process of its own (node-opcua, which this project did not write) sets all nodes
to the next whole number each period. `protocols/opcua.py` is read each period, as the poller does:
*subscribe* is a monitored item per node, *poll* asks for all of them. The driver's CPU is this
process's own, user and system, by getrusage, once every node has been heard of; *sealed* adds
Basic256Sha256, SignAndEncrypt. The claim: at 5,000 values a second at most 25 us each, and none is
missing. Subscribed to, each node's numbers have no gap, and repetitions do not count; polled, each
scan has a good value of each node, which may be the one before. Nor is the server in the way: at
least `VALUES_PART_MIN` of the values that are due come.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import cast

import uvloop

from bench.mqtt_publish import cpu_s
from edge_agent.clock import epoch_ms
from edge_agent.model import Tag, ValueType
from edge_agent.planner import Block, plan
from edge_agent.protocols.base import Driver, Reply
from edge_agent.protocols.opcua import OpcuaDriver
from tests.opcua_server import NAMESPACE, NodeOpcuaServer, Ticking, identity

CPU_US_MAX = 25.0
VALUES_PART_MIN = 0.95
"""Of the values that are due: the server's timer drifts by a few milliseconds a second."""
WARM_UP_S = 30.0


@dataclass
class Scans:
    """What was read, kept as it came: it is looked at after the clocks have stopped."""

    replies: list[Reply] = field(default_factory=list)

    def by_node(self, nodes: int) -> list[list[float]]:
        """Each node's values, oldest first."""
        values: list[list[float]] = [[] for _ in range(nodes)]
        for reply in self.replies:
            places = range(nodes) if reply.positions is None else reply.positions
            for place, value in zip(places, reply.values, strict=True):
                values[place].append(value)
        return values


def block_of(conn: str, nodes: int, period_ms: int) -> Block:
    """One tag for each node."""
    tags = [
        Tag(
            site="A1", line="L1", device="D", tag=f"T{n}", protocol="opcua", conn=conn, unit_id=1,
            address=f"nsu={NAMESPACE};s=Tick.{n}", type=ValueType.FLOAT64, scale=1.0, offset=0.0,
            period_ms=period_ms, unit="",
        )
        for n in range(nodes)
    ]  # fmt: skip
    [connection] = plan(tags, lambda _: cast("type[Driver]", OpcuaDriver))
    [block] = connection.scan_classes[0].blocks
    return block


async def read(conn: str, mode: str, nodes: int, period_ms: int, seconds: int) -> dict[str, float]:
    """Read for ``seconds``, a read each period."""
    driver = OpcuaDriver(conn, now_ms=epoch_ms)
    block = block_of(conn, nodes, period_ms)
    await driver.connect()
    known: set[int] = set()
    deadline = time.monotonic() + WARM_UP_S
    while len(known) < nodes:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {len(known)} of {nodes} nodes within {WARM_UP_S:g} s")
        for reply in await driver.read(block):
            known.update(range(nodes) if reply.positions is None else reply.positions)
        await asyncio.sleep(period_ms / 1000)
    await driver.read(block)
    scans, before_s, started = Scans(), cpu_s(), time.monotonic()
    for scan in range(1, seconds * 1000 // period_ms + 1):
        await asyncio.sleep(max(started + scan * period_ms / 1000 - time.monotonic(), 0))
        scans.replies += await driver.read(block)
    used_s, took_s = cpu_s() - before_s, time.monotonic() - started
    await driver.close()
    values = scans.by_node(nodes)
    if mode == "poll":
        count = sum(not math.isnan(value) for node in values for value in node)
        missing = seconds * 1000 // period_ms * nodes - count
    else:
        steps = [after - before for node in values for before, after in pairwise(node)]
        count = sum(step != 0 for step in steps) + nodes
        missing = sum(step not in (0, 1) for step in steps)
    return {
        "values": count,
        "missing": missing,
        "values_per_s": round(count / took_s),
        "cpu_us_per_value": round(used_s / max(count, 1) * 1e6, 1),
    }


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Both modes at one server."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        query = "sampling_ms=0&timeout_ms=30000"
        ours = identity(folder, "edge-agent")
        if arguments.sealed:
            query += "&security=Basic256Sha256&security_mode=SignAndEncrypt"
            query += f"&certificate={ours.certificate}&key={ours.key}"
        ticking = Ticking(arguments.nodes, arguments.period_ms, arguments.type)
        theirs = identity(folder, "server")
        with NodeOpcuaServer(folder / "server", identity=theirs, ticking=ticking) as server:
            for mode in ("subscribe", "poll"):
                conn = f"{server.conn}?mode={mode}&{query}"
                work = read(conn, mode, arguments.nodes, arguments.period_ms, arguments.seconds)
                found[mode] = uvloop.run(work)
    return found


def main() -> int:
    """Print the figures; 1 if the claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--period-ms", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--type", default="Double", help="the nodes' type, as OPC UA calls it")
    parser.add_argument("--sealed", action="store_true", help="signed and encrypted")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    found = measure(arguments)
    if arguments.json:
        print(json.dumps({**found, "load_before": round(load, 2)}))
    else:
        for mode, row in found.items():
            for what, figure in row.items():
                print(f"{mode:10} {what:18} {figure:>10,}")
    due_per_s = arguments.nodes * 1000 / arguments.period_ms
    kept = all(
        row["missing"] == 0
        and row["values_per_s"] >= due_per_s * VALUES_PART_MIN
        and row["cpu_us_per_value"] <= CPU_US_MAX
        for row in found.values()
    )
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
