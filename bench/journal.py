"""CPU of the journal per sample: append and commit, read from memory, read from disk; and bytes.

Usage: python -m bench.journal [--samples 1000000] [--json]

Entries of 1,000 samples, ten scans of 100 tags each, `synchronous=FULL`, one sink. CPU is this
process's own, user and system, both threads, by getrusage. The claim: at most 2 us per sample for
append and commit, at most 0.5 us for either read, at most 16 bytes per sample on disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import tempfile
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path

from edge_agent.journal import Journal
from edge_agent.model import Series

TAGS = 100
SCANS_PER_ENTRY = 10
SAMPLES_PER_ENTRY = TAGS * SCANS_PER_ENTRY
FIRST_TS_MS = 1_755_432_000_000
CLAIMS = {
    "append_commit_us": 2.0,
    "read_memory_us": 0.5,
    "read_disk_us": 0.5,
    "bytes_per_sample": 16.0,
}


def cpu_s() -> float:
    """CPU time that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(folder: Path, samples: int) -> dict[str, float]:
    """Fill a journal, then read it; figures per sample."""
    journal = Journal(folder / "journal.db", bytes_max=1_000_000_000, ballast_bytes=0)
    await journal.open(["bench"])
    series = [Series("A1", "L1", "PUMP", f"T{n}", "") for n in range(TAGS)]
    ids = array("I", [journal.intern(names) for names in series])
    series_ids = ids.tobytes()
    values = [12.3 + n / 8 for n in range(TAGS)]
    entries = samples // SAMPLES_PER_ENTRY
    samples = entries * SAMPLES_PER_ENTRY

    async def fill() -> None:
        for entry in range(entries):
            for scan in range(SCANS_PER_ENTRY):
                journal.append(FIRST_TS_MS + entry * 2000 + scan * 200, series_ids, values)
            await journal.flush()

    async def drain() -> None:
        while batches := await journal.read("bench", samples_max=5_000):
            journal.acknowledge("bench", batches)

    figures = {"append_commit_us": await cost_us(fill, samples)}
    bytes_used = await journal.bytes_used()
    await journal.close()
    journal = Journal(folder / "journal.db", bytes_max=1_000_000_000, ballast_bytes=0)
    await journal.open(["bench"])  # Nothing of it is in memory now.
    figures["read_disk_us"] = await cost_us(drain, samples)
    await journal.flush()
    figures["read_memory_us"] = await from_memory(journal, series_ids, values)
    await journal.close()
    return figures | {
        "bytes_per_sample": round(bytes_used / samples, 2),
        "samples": samples,
        "samples_per_entry": SAMPLES_PER_ENTRY,
    }


async def from_memory(journal: Journal, series_ids: bytes, values: list[float]) -> float:
    """The reading and acknowledging part of a sink that keeps up."""
    rounds, spent = 200, 0.0
    for number in range(rounds):
        for scan in range(SCANS_PER_ENTRY):
            journal.append(FIRST_TS_MS + number * 2000 + scan * 200, series_ids, values)
        await journal.flush()
        start = cpu_s()
        batches = await journal.read("bench", samples_max=5_000)
        journal.acknowledge("bench", batches)
        spent += cpu_s() - start
    return round(spent / (rounds * SAMPLES_PER_ENTRY) * 1e6, 3)


async def cost_us(work: Callable[[], Awaitable[None]], samples: int) -> float:
    """CPU per sample."""
    start = cpu_s()
    await work()
    return round((cpu_s() - start) / samples * 1e6, 3)


def main() -> int:
    """Print the figures; 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder), arguments.samples))
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            limit = f"  (at most {CLAIMS[name]:g})" if name in CLAIMS else ""
            print(f"{name:20} {figure:>12,}{limit}")
    return int(any(figures[name] > most for name, most in CLAIMS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
