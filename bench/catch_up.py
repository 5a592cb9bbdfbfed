"""How fast a backlog drains: the database is stopped for a minute at 5,000 samples/s.

Claims: the backlog drains at five times the live rate or better, and live data stays under 2 s old
in MQTT meanwhile. The drain rate is that of the backlog alone; live rows come on top.

Usage: python -m bench.catch_up [--rate 5000] [--outage 60] [--json]
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
from typing import Any

from bench.plant import Plant, make_tags

WARM_UP_S = 8.0
DRAIN_TIMEOUT_S = 300.0


def measure(rate: int, outage_s: float, folder: Path) -> dict[str, Any]:
    """Stop the database, start it again, and watch the backlog."""
    with Plant(folder, make_tags(rate)) as plant:
        assert plant.database is not None
        assert plant.broker is not None
        time.sleep(WARM_UP_S)
        plant.database.stop()
        time.sleep(outage_s)
        plant.database.start()
        backlog = _pending(plant)
        while _pending(plant) >= backlog:
            backlog = max(backlog, _pending(plant))
            time.sleep(0.05)
        subscriber = subprocess.Popen(
            [sys.executable, "-m", "bench.subscriber", str(plant.broker.port), "plc/#"],
            stdout=subprocess.PIPE,
        )
        started, first = time.monotonic(), _pending(plant)
        while (left := _pending(plant)) > rate:
            if time.monotonic() - started > DRAIN_TIMEOUT_S:
                raise TimeoutError("the backlog does not drain")
            time.sleep(0.05)
        drain_s = time.monotonic() - started
        subscriber.send_signal(signal.SIGTERM)
        ages = json.loads(subscriber.communicate()[0].splitlines()[-1])
        exit_code = plant.stop_agent()
        rows = plant.rows()
    return {
        "rate": rate,
        "outage_s": outage_s,
        "backlog": backlog,
        "drain_s": round(drain_s, 2),
        "backlog_drained_per_s": round((first - left) / drain_s),
        "times_the_live_rate": round((first - left) / drain_s / rate, 1),
        "mqtt_meanwhile": ages,
        "rows": rows,
        "exit_code": exit_code,
    }


def _pending(plant: Plant) -> int:
    status = plant.status()
    assert status is not None
    return int(next(sink["pending"] for sink in status["sinks"] if sink["name"] == "postgres"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--outage", type=float, default=60)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder:
        figures = measure(options.rate, options.outage, Path(folder))
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
