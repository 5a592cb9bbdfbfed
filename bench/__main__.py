"""`python -m bench`: every figure of bench/README.md but the soak's, one JSON line each."""

from __future__ import annotations

import subprocess
import sys

from bench.databases import installed_flavours

RUNS: tuple[tuple[str, ...], ...] = (
    ("bench.stages", "--json"),
    ("bench.pipeline", "--rate", "5000", "--seconds", "60", "--json"),
    ("bench.pipeline", "--rate", "25000", "--seconds", "60", "--json"),
    ("bench.catch_up", "--json"),
    ("bench.mqtt_in", "--json"),
    ("bench.opcua_in", "--json"),
    ("bench.dashboard", "--json"),
    *(
        (module, "--flavour", flavour, "--json")
        for module in ("bench.queries", "bench.ingest", "bench.replication")
        for flavour in installed_flavours()
    ),
)


def main() -> int:
    """Run them one after the other; the worst exit code."""
    worst = 0
    for module, *arguments in RUNS:
        print(f"# python -m {module} {' '.join(arguments)}", flush=True)
        worst = max(worst, subprocess.call([sys.executable, "-m", module, *arguments]))
    return worst


if __name__ == "__main__":
    sys.exit(main())
