"""Thirty minutes at 5,000 samples/s: rate, loss, CPU, memory, journal size and lag.

Usage: python -m bench.soak [--rate 5000] [--minutes 30]
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.pipeline import RowProbe, journal_books
from bench.plant import Plant, Usage, make_tags

WARM_UP_S = 10.0
REPORT_S = 300.0


def main() -> None:
    """Run, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-agent-soak-") as name:
        soak(options.rate, options.minutes * 60, Path(name))


def soak(rate: int, seconds: float, folder: Path) -> None:
    """One plant, watched every five minutes."""
    print("| minute | samples/s | CPU us/sample | RSS MB | journal MB | bad | overruns |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with Plant(folder, make_tags(rate)) as plant:
        assert plant.broker is not None
        subscriber = subprocess.Popen(
            [sys.executable, "-m", "bench.subscriber", str(plant.broker.port), "plc/#"],
            stdout=subprocess.PIPE,
        )
        assert subscriber.stdout is not None
        subscriber.stdout.readline()
        time.sleep(WARM_UP_S)
        probe = RowProbe(plant)
        probe.start()
        started = time.monotonic()
        while (elapsed := time.monotonic() - started) < seconds:
            _interval(plant, min(REPORT_S, seconds - elapsed), started)
        probe.stopped.set()
        probe.join()
        exit_code = plant.stop_agent()
        rows = plant.rows()
        subscriber.send_signal(signal.SIGTERM)
        messages = json.loads(subscriber.stdout.read())
        subscriber.wait(20)
        subscriber.stdout.close()
    books = journal_books(folder / "data")
    ages = sorted(probe.ages_ms)
    print(f"\ntaken {books['taken']:,}; rows in plc_raw {rows:,}; exit code {exit_code}")
    for sink in books["sinks"]:
        print(f"{sink['sink']}: delivered {sink['delivered']:,}, lost {sink['lost']}")
    print(f"subscriber: {messages}")
    print("row visible ms:", {p: round(ages[int(len(ages) * p / 100)]) for p in (50, 95, 99)})


def _interval(plant: Plant, seconds: float, started: float) -> None:
    before, usage = plant.status(), Usage.of(plant.pid)
    begun = time.monotonic()
    time.sleep(seconds)
    after, usage_after = plant.status(), Usage.of(plant.pid)
    assert before is not None
    assert after is not None
    elapsed = time.monotonic() - begun
    taken = after["journal"]["taken"] - before["journal"]["taken"]
    rows = after["connections"]
    print(
        f"| {(time.monotonic() - started) / 60:.0f} | {taken / elapsed:,.0f} "
        f"| {(usage_after.cpu_s - usage.cpu_s) / taken * 1e6:.2f} | {usage_after.rss_mb:.1f} "
        f"| {after['journal']['bytes_used'] / 1e6:.1f} | {sum(r['bad'] for r in rows)} "
        f"| {sum(r['overruns'] for r in rows)} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
