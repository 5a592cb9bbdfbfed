"""`edge-remote status`: how the replication of one edge stands."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from datetime import datetime

import orjson
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge_agent.settings import Settings
from remote.state import ReplicationStatus, look

WATCH_INTERVAL_S = 2.0
"""A look takes one second of it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--watch", action="store_true", help="look again and again, until Ctrl-C")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Look, print, and exit with 1 if anything is wrong."""
    if options.watch:
        return _watch(settings, as_json=options.json)
    status = asyncio.run(look(settings))
    if options.json:
        print(line(status))
    else:
        Console(highlight=False).print(table(status))
    return 1 if status.problems else 0


def _watch(settings: Settings, *, as_json: bool) -> int:
    """Ctrl-C ends it; the exit code is that of the last look."""
    last: list[ReplicationStatus] = []
    try:
        asyncio.run(_watch_on(settings, last, as_json=as_json))
    except KeyboardInterrupt:
        return 1 if last and last[0].problems else 0
    return 0


async def _watch_on(settings: Settings, last: list[ReplicationStatus], *, as_json: bool) -> None:
    with Live(console=Console(highlight=False), auto_refresh=False) as screen:
        while True:
            last[:] = [await look(settings)]
            if as_json:
                print(line(last[0]), flush=True)
            else:
                screen.update(table(last[0]), refresh=True)
            await asyncio.sleep(WATCH_INTERVAL_S)


def line(status: ReplicationStatus) -> str:
    """One line with every field of the status; times are ISO 8601 in UTC."""
    return orjson.dumps(dataclasses.asdict(status), option=orjson.OPT_UTC_Z).decode()


def table(status: ReplicationStatus) -> Table:
    """The status for people."""
    grid = Table.grid(padding=(0, 2))
    count = len(status.problems)
    verdict = f"{count} problem{'s' if count > 1 else ''}" if count else "replicates"
    grid.add_row("edge", f"{status.name}: {verdict}")
    grid.add_row("lag", f"{_seconds(status.lag_s)}, {_bytes(status.lag_bytes)}")
    active = _word(status.slot_active, "active", "not active")
    grid.add_row("slot", f"{active}, WAL {status.wal_status or 'unknown'}")
    hours = status.wal_budget_hours
    grid.add_row(
        "WAL budget",
        f"{_bytes(status.wal_budget_bytes)}"
        + (f", {hours:.1f} hours at {_bytes(status.wal_bytes_per_s)}/s" if hours else ""),
    )
    grid.add_row(
        "subscription",
        f"{_word(status.enabled, 'enabled', 'disabled')}, worker {status.worker_pid or 'none'}, "
        f"{_word(status.copied, 'copied', 'copying')}",
    )
    grid.add_row(
        "errors",
        f"apply {_number(status.apply_errors)}, copy {_number(status.sync_errors)}, "
        f"rows refused {_number(status.refused_rows)}",
    )
    grid.add_row("newest row", f"edge {_time(status.edge_newest)}")
    grid.add_row("", f"remote {_time(status.remote_newest)}")
    grid.add_row("clock", _clock(status.clock_skew_s))
    for problem in status.problems:
        grid.add_row(Text("problem", style="bold red"), Text(problem))
    return grid


def _word(value: bool | None, yes: str, no: str) -> str:
    return "unknown" if value is None else yes if value else no


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} s"


def _clock(skew_s: float | None) -> str:
    if skew_s is None:
        return "unknown"
    return f"the edge's is {abs(skew_s):.2f} s {'ahead' if skew_s >= 0 else 'behind'}"


def _bytes(value: float | None) -> str:
    if value is None:
        return "unknown"
    for unit in ("B", "kB", "MB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def _time(value: datetime | None) -> str:
    return "none" if value is None else value.isoformat(timespec="milliseconds")
