"""CPU of one message that comes in by MQTT: as a tag of the map, and as an ingested sample.

    python -m bench.mqtt_in [--rate 5000] [--seconds 10] [--json]

A real Mosquitto with its default settings and a publisher in a process of its own (this product's
sink: seven-key messages, QoS 1, 500 topics, ``rate`` a second). *driver*: `protocols/mqtt.py`, read
each 200 ms as the poller does. *ingest*: `pipeline/ingest.py` with a real journal, committed each
200 ms, and each message acknowledged after its commit. CPU is this process's own, user and system,
by getrusage. The claim: at 5,000 messages a second none is missing, and the last is there
half a second after it was published; at most 110 us for the driver, 140 us for ingest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

from bench.mqtt_publish import SERIES, TAGS, cpu_s
from edge_agent.clock import epoch_ms
from edge_agent.journal import Journal
from edge_agent.model import Batch, Tag, ValueType
from edge_agent.pipeline.ingest import Ingest
from edge_agent.pipeline.ingested import INGESTED_FILE, Ingested
from edge_agent.planner import plan
from edge_agent.protocols.base import Driver
from edge_agent.protocols.mqtt import MqttDriver
from edge_agent.protocols.mqtt_syntax import parse_conn
from edge_agent.settings import Broker
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.mqtt import MqttSink
from tests.servers import Mosquitto

DRIVER_US_MAX = 110.0
INGEST_US_MAX = 140.0
LAST_S_MAX = 0.5
READ_INTERVAL_S = 0.2
PUBLISH_INTERVAL_S = 0.005
GIVE_UP_S = 10.0


async def publish(port: int, rate: int, seconds: int) -> None:
    """Publish at an even rate, each message with the time at which it leaves."""
    sink = MqttSink(agent_id="bench", broker=Broker("127.0.0.1", port))
    await sink.open(JournalIdentity("bench", "journal"))
    started, sent, sequence = time.monotonic(), 0, 0
    while sent < rate * seconds:
        due = min(int((time.monotonic() - started) * rate), rate * seconds) - sent
        if due > 0:
            ids = array("I", [(sent + n) % TAGS for n in range(due)])
            values = array("d", [float(sent + n) for n in range(due)])
            await sink.deliver([Batch(sequence, [(epoch_ms(), due)], ids, values, SERIES)])
            sent, sequence = sent + due, sequence + 1
        await asyncio.sleep(PUBLISH_INTERVAL_S)
    await sink.close()


@dataclass(frozen=True)
class Run:
    """What one subscriber is measured by."""

    port: int
    rate: int
    seconds: int

    async def measure(self, received: Callable[[], Awaitable[int]]) -> dict[str, float]:
        """Let the publisher run; ``received`` gives how many messages there are by now."""
        wanted = self.rate * self.seconds
        words = ["--publish", str(self.port), "--rate", str(self.rate)]
        command = [sys.executable, "-m", "bench.mqtt_in", *words, "--seconds", str(self.seconds)]
        before_s, started = cpu_s(), time.monotonic()
        with subprocess.Popen(command) as publisher:
            while publisher.poll() is None:
                await asyncio.sleep(READ_INTERVAL_S)
                if await received() == 0:
                    started = time.monotonic()
        ended = time.monotonic()
        while (count := await received()) < wanted and time.monotonic() < ended + GIVE_UP_S:
            await asyncio.sleep(READ_INTERVAL_S / 10)
        return {
            "messages": count,
            "missing": wanted - count,
            "messages_per_s": round(count / (ended - started)),
            "cpu_us_per_message": round((cpu_s() - before_s) / max(count, 1) * 1e6, 1),
            "last_after_s": round(time.monotonic() - ended, 2),
        }


async def drive(run: Run) -> dict[str, float]:
    """Every topic a tag."""
    tags = [
        Tag(
            site=series.site, line=series.line, device=series.device, tag=series.tag,
            protocol="mqtt", conn="mqtt://b", unit_id=1,
            address=f"plc/{series.site}/{series.device}/{series.tag}", type=ValueType.FLOAT64,
            scale=1.0, offset=0.0, period_ms=200, unit=series.unit,
        )
        for series in SERIES.values()
    ]  # fmt: skip
    driver = MqttDriver(f"mqtt://127.0.0.1:{run.port}", now_ms=epoch_ms)
    [connection] = plan(tags, lambda _: cast("type[Driver]", MqttDriver))
    [block] = connection.scan_classes[0].blocks
    await driver.connect()
    await driver.read(block)
    count = 0

    async def received() -> int:
        nonlocal count
        count += sum(len(reply.values) for reply in await driver.read(block))
        return count

    figures = await run.measure(received)
    await driver.close()
    return figures


async def take_in(run: Run, folder: Path) -> dict[str, float]:
    """Every message a sample in the journal."""
    journal = Journal(folder / "journal.db", bytes_max=1_000_000_000)
    await journal.open([])
    book = Ingested(folder / INGESTED_FILE)
    ingest = Ingest(
        parse_conn(f"mqtt://127.0.0.1:{run.port}"), ["plc/+/+/+"], journal, book,
        agent_id="bench", password=None, now_ms=epoch_ms,
    )  # fmt: skip
    committing = asyncio.create_task(journal.run())
    taking = asyncio.create_task(ingest.run())
    while not ingest.connected:
        await asyncio.sleep(READ_INTERVAL_S)

    async def received() -> int:
        return journal.taken

    commits = journal.commits
    figures = await run.measure(received)
    figures["commits_per_s"] = round((journal.commits - commits) / run.seconds, 1)
    ingest.stop()
    await taking
    committing.cancel()
    await asyncio.wait([committing])
    await journal.close()
    return figures


def measure(rate: int, seconds: int) -> dict[str, dict[str, float]]:
    """Both, each with a broker of its own."""
    figures = {}
    for name in ("driver", "ingest"):
        with (
            tempfile.TemporaryDirectory() as folder,
            Mosquitto(Path(folder) / "mosquitto") as broker,
        ):
            run = Run(broker.port, rate, seconds)
            work = drive(run) if name == "driver" else take_in(run, Path(folder))
            figures[name] = uvloop.run(work)
    return figures


def main() -> int:
    """Print the figures; 1 if the claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=int, default=5_000, help="messages a second")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--publish", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.publish is not None:
        uvloop.run(publish(arguments.publish, arguments.rate, arguments.seconds))
        return 0
    figures = measure(arguments.rate, arguments.seconds)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, row in figures.items():
            for what, figure in row.items():
                print(f"{name:8} {what:20} {figure:>10,}")
    limits = {"driver": DRIVER_US_MAX, "ingest": INGEST_US_MAX}
    kept = all(
        row["missing"] == 0
        and row["last_after_s"] <= LAST_S_MAX
        and row["cpu_us_per_message"] <= limits[name]
        for name, row in figures.items()
    )
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
