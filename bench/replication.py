"""How fresh the remote is, what a row costs on either side, and how fast a backlog lands.

    python -m bench.replication [--rate 5000] [--seconds 60] [--outage 60] [--flavour postgres]
                                [--json]

Two servers with default settings (fsync on, background jobs running), connected by `edge-remote
setup`; the agent's own sink writes five batches a second into the edge, `edge-remote serve` does
the remote's upkeep. Claim: at 5,000 rows/s the newest row that a query sees at the remote is less
than 2 s old in 99 of 100 looks, one each 0.1 s.

The age is the row's own: it includes the 0.2 s between two batches. CPU is that of all processes
of a server; WAL is all that the server wrote meanwhile. Then the remote is stopped; what it lacks
when it answers again, and what still comes, lands at `catch_up_rows_per_s`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.databases import cluster_cpu_s, installed_flavours, machine, versions
from tests.acceptance.replication_rig import Ages, End, Rig, servers

WARM_UP_S = 5.0
FRESH_S = 1.0
CATCH_UP_TIMEOUT_S = 600.0


def steady(rig: Rig, seconds: float) -> dict[str, Any]:
    """Ages, CPU and WAL of a stretch in which nothing goes wrong."""
    ends = {"edge": rig.edge, "remote": rig.remote}
    rows = rig.edge.rows()
    before = {side: _usage(end) for side, end in ends.items()}
    with Ages(rig.remote.dsn) as ages:
        time.sleep(seconds)
    after = {side: _usage(end) for side, end in ends.items()}
    rows = rig.edge.rows() - rows
    figures: dict[str, Any] = {
        "rows_per_s": round(rows / seconds),
        "looks": len(ages.seconds),
        "age_median_s": round(ages.percentile(0.5), 3),
        "age_p99_s": round(ages.percentile(0.99), 3),
        "age_max_s": round(ages.percentile(1.0), 3),
    }
    for side in ends:
        cpu_s, wal = (now - then for now, then in zip(after[side], before[side], strict=True))
        figures[f"{side}_cpu_us_per_row"] = round(cpu_s / rows * 1e6, 1)
        figures[f"{side}_wal_bytes_per_row"] = round(wal / rows)
    return figures


def _usage(end: End) -> tuple[float, int]:
    wal = end.value("SELECT (pg_current_wal_lsn() - '0/0')::int8")
    return cluster_cpu_s(end.server), int(wal)


def catch_up(rig: Rig, rate: int, outage_s: float) -> dict[str, Any]:
    """Stop the remote, start it, and wait until its newest row is fresh."""
    server = rig.sides.remote
    server.stop()
    time.sleep(outage_s)
    server.start()
    answered = time.monotonic()
    missing = rig.edge.rows() - rig.remote.rows()
    behind_s = rig.age_s()
    # The subscription begins some seconds after the server: what it lacks grows until then.
    while rig.age_s() > behind_s - FRESH_S:
        behind_s = max(behind_s, rig.age_s())
        _not_too_long(answered)
    began = time.monotonic()
    while rig.age_s() > FRESH_S:
        time.sleep(0.05)
        _not_too_long(answered)
    ended = time.monotonic()
    landed = missing + rate * (ended - answered)
    return {
        "outage_s": outage_s,
        "backlog_rows": missing,
        "began_after_s": round(began - answered, 1),
        "caught_up_after_s": round(ended - answered, 1),
        "catch_up_rows_per_s": round(landed / (ended - began)),
    }


def _not_too_long(since: float) -> None:
    if time.monotonic() - since > CATCH_UP_TIMEOUT_S:
        raise TimeoutError("the remote does not catch up")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Both parts on one pair of servers; at the end both sides hold the same rows."""
    (folder / "rig").mkdir()
    with servers(folder, options.flavour) as sides, Rig(sides, folder / "rig") as rig:
        rig.edge_remote("setup")
        with rig.serving(), rig.writing(options.rate) as writer:
            rig.wait_flowing()
            time.sleep(WARM_UP_S)
            figures = {"flavour": options.flavour, "rate": options.rate, "seconds": options.seconds}
            figures |= steady(rig, options.seconds)
            if options.outage:
                figures |= catch_up(rig, options.rate, options.outage)
            said = writer.stop()
        assert rig.check_equal() == said["rows"]
        figures |= {"rows_equal_at_the_end": said["rows"]}
        figures |= {"server": versions(sides.edge, options.flavour), "machine": machine()}
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--outage", type=float, default=60, help="seconds; 0 for none")
    parser.add_argument("--flavour", choices=installed_flavours(), default="postgres")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder:
        figures = measure(Path(folder), options)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            print(f"{name:26}{figure:>16}")


if __name__ == "__main__":
    main()
