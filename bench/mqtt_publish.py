"""CPU of one MQTT message: rendering, QoS 1 publish and the broker's answer.

    python -m bench.mqtt_publish [--messages 100000] [--rounds 5] [--batch 5000]
                                 [--receive-max 20] [--json]

A real Mosquitto with its default settings (receive maximum 20); nobody subscribes, so that the
broker is as fast as it can be and does not hide what the sink costs. CPU is this process's own,
user and system, by getrusage. The claim: at most 6 us per message, at the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from array import array
from pathlib import Path
from statistics import median

import uvloop

from edge_agent.model import Batch, Series
from edge_agent.settings import Broker
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.message import MessageRenderer
from edge_agent.sinks.mqtt import MqttSink
from tests.servers import Mosquitto

CPU_US_MAX = 6.0
MOSQUITTO_RECEIVE_MAX = 20
TAGS = 500
TAGS_PER_SCAN = 100
FIRST_TS_MS = 1_755_432_000_000

SERIES = {
    n: Series("A1", "LINE01", f"PUMP{n // 10:04}", f"PRESSURE{n % 10}", "mbar") for n in range(TAGS)
}


def batch_of(sequence: int, size: int) -> Batch:
    """Scans of 100 tags each, one after the other."""
    scans = range(0, size, TAGS_PER_SCAN)
    return Batch(
        sequence=sequence,
        runs=[(FIRST_TS_MS + n, min(TAGS_PER_SCAN, size - n)) for n in scans],
        series_ids=array("I", [n % TAGS for n in range(size)]),
        values=array("d", [12.3 + n / 8 for n in range(size)]),
        series=SERIES,
    )


def cpu_s() -> float:
    """CPU time that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rendering_us(batch: Batch) -> float:
    """CPU of rendering alone, per message."""
    renderer = MessageRenderer()
    rounds = 40
    start = cpu_s()
    for _ in range(rounds):
        for _messages in renderer.render(batch):
            pass
    return (cpu_s() - start) / (rounds * len(batch)) * 1e6


async def publish(port: int, messages: int, rounds: int, size: int) -> dict[str, float]:
    """Deliver ``messages`` samples in batches of ``size``, ``rounds`` times."""
    sink = MqttSink(agent_id="bench", broker=Broker("127.0.0.1", port))
    await sink.open(JournalIdentity("bench", "bench"))
    batch = batch_of(0, size)
    await sink.deliver([batch])  # caches are filled at start, not per message
    count = max(1, messages // size)
    cpu_us, rates = [], []
    for _ in range(rounds):
        cpu_start, start = cpu_s(), time.perf_counter()
        for _ in range(count):
            await sink.deliver([batch])
        cpu_us.append((cpu_s() - cpu_start) / (count * size) * 1e6)
        rates.append(count * size / (time.perf_counter() - start))
    await sink.close()
    return {
        "messages": count * size * rounds,
        "cpu_us_per_message": round(median(cpu_us), 2),
        "cpu_us_per_message_best": round(min(cpu_us), 2),
        "messages_per_s": round(median(rates)),
    }


def main() -> int:
    """Print the figures; 1 if the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=100_000, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=5_000, help="samples per batch")
    parser.add_argument("--receive-max", type=int, default=MOSQUITTO_RECEIVE_MAX)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    config = "allow_anonymous true\n"
    if arguments.receive_max != MOSQUITTO_RECEIVE_MAX:
        config += f"max_inflight_messages {arguments.receive_max}\n"
    batch = batch_of(0, arguments.batch)
    payloads = [payload for part in MessageRenderer().render(batch) for payload in part.payloads]
    with (
        tempfile.TemporaryDirectory() as folder,
        Mosquitto(Path(folder) / "mosquitto", config) as broker,
    ):
        figures = uvloop.run(
            publish(broker.port, arguments.messages, arguments.rounds, arguments.batch)
        )
    figures |= {
        "rendering_us_per_message": round(rendering_us(batch), 2),
        "payload_bytes": round(sum(map(len, payloads)) / len(payloads)),
        "batch": arguments.batch,
        "receive_max": arguments.receive_max,
        "cpu_us_max": CPU_US_MAX,
    }
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            print(f"{name:28} {figure:>10,}")
    return 0 if figures["cpu_us_per_message"] <= CPU_US_MAX else 1


if __name__ == "__main__":
    raise SystemExit(main())
