"""What each stage of the data path costs, in CPU microseconds of the agent's process per sample.

Reading and normalizing are measured here, against simulated PLCs in a process of their own; the
other stages by the scripts that belong to them, each against its real server.

Usage: python -m bench.stages [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.plant import make_tags
from edge_agent import address_map, protocols
from edge_agent.clock import epoch_ms
from edge_agent.normalize import Normalizer
from edge_agent.planner import Connection, plan

TAGS = 500
ROUNDS = 400
SCRIPTS = {
    "journal: append and commit": ("bench.journal", "append_commit_us"),
    "journal: read from disk": ("bench.journal", "read_disk_us"),
    "mqtt: render and publish, PUBACK checked": ("bench.mqtt_publish", "cpu_us_per_message"),
    "postgres: render and COPY, cursor": ("bench.postgres_copy", "agent_us"),
    "influx: render and write": ("bench.influx_write", "cpu_us_per_sample"),
    "store: append and fold": ("bench.store_write", "us_per_sample"),
}


def measure() -> dict[str, float]:
    """Every stage, in the order in which a sample passes it."""
    with tempfile.TemporaryDirectory() as folder:
        stages = _read_and_normalize(Path(folder))
    for stage, (module, key) in SCRIPTS.items():
        output = subprocess.run(
            [sys.executable, "-m", module, "--json"], check=True, capture_output=True
        ).stdout
        stages[stage] = float(json.loads(output.splitlines()[-1])[key])
    return stages


def _read_and_normalize(folder: Path) -> dict[str, float]:
    path = folder / "address_map.csv"
    address_map.write(path, make_tags(TAGS))
    simulator = subprocess.Popen(
        [sys.executable, "-m", "edge_agent.simulator", str(path)], stdout=subprocess.PIPE
    )
    try:
        assert simulator.stdout is not None
        simulator.stdout.readline()
        (connection,) = plan(address_map.load(path, protocols.load).tags, protocols.load)
        return uvloop.run(_rounds(connection))
    finally:
        simulator.terminate()
        simulator.communicate()


async def _rounds(connection: Connection) -> dict[str, float]:
    (scan_class,) = connection.scan_classes
    driver = protocols.load(connection.protocol)(connection.conn, now_ms=epoch_ms)
    normalizers = [Normalizer(block.tags) for block in scan_class.blocks]
    await driver.connect()
    reading = normalizing = 0.0
    for _ in range(ROUNDS):
        started = time.process_time()
        replies: list[Any] = []
        for block in scan_class.blocks:
            async with asyncio.timeout(driver.timeout_s):
                replies += await driver.read(block)
        read = time.process_time()
        for normalize, reply in zip(normalizers, replies, strict=True):
            normalize(reply.ts_ms, reply.values)
        normalizing += time.process_time() - read
        reading += read - started
    await driver.close()
    samples = ROUNDS * scan_class.tag_count
    return {
        f"read: Modbus, {scan_class.tag_count // len(scan_class.blocks)} tags a request": (
            reading / samples * 1e6
        ),
        "normalize: scale, offset, precision": normalizing / samples * 1e6,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    stages = measure()
    if options.json:
        print(json.dumps(stages))
        return
    for stage, cost_us in stages.items():
        print(f"{stage:45} {cost_us:6.2f}")
    whole = sum(stages.values()) - stages["store: append and fold"]
    print(f"{'all, without the store':45} {whole:6.2f}")


if __name__ == "__main__":
    main()
