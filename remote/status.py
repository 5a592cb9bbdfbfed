"""`edge-remote status`: how the replication of one edge stands."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from collections.abc import Iterator
from datetime import datetime

import orjson
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge_agent.settings import Settings
from remote.state import ReplicationStatus, look

NAME_WIDTH = len("subscription")
"""The longest name of a fact."""
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
        show(status, Console(highlight=False))
    return 1 if status.problems else 0


def show(status: ReplicationStatus, console: Console) -> None:
    """A table on a terminal; in a file or a pipe a line for each fact, however long."""
    if console.is_terminal:
        console.print(table(status))
        return
    for name, text in facts(status):
        console.print(f"{name:{NAME_WIDTH}}  {text}", soft_wrap=True, markup=False)


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
    """The facts on a terminal."""
    grid = Table.grid(padding=(0, 2))
    for name, text in facts(status):
        grid.add_row(Text(name, "bold red" if name == "problem" else ""), Text(text))
    return grid


def facts(status: ReplicationStatus) -> Iterator[tuple[str, str]]:
    """The status for people, each fact under its name."""
    count = len(status.problems)
    verdict = f"{count} problem{'s' if count > 1 else ''}" if count else "replicates"
    yield "edge", f"{status.name}: {verdict}"
    yield "lag", f"{_seconds(status.lag_s)}, {_bytes(status.lag_bytes)}"
    active = _word(status.slot_active, "active", "not active")
    yield "slot", f"{active}, WAL {status.wal_status or 'unknown'}"
    hours = status.wal_budget_hours
    yield (
        "WAL budget",
        f"{_bytes(status.wal_budget_bytes)}"
        + (f", {hours:.1f} hours at {_bytes(status.wal_bytes_per_s)}/s" if hours else ""),
    )
    enabled = _word(status.enabled, "enabled", "disabled")
    copied = _word(status.copied, "copied", "copying")
    yield "subscription", f"{enabled}, worker {status.worker_pid or 'none'}, {copied}"
    apply, copy = _number(status.apply_errors), _number(status.sync_errors)
    refused = _number(status.refused_rows)
    yield "errors", f"apply {apply}, copy {copy}, rows refused {refused}"
    yield "newest row", f"edge {_time(status.edge_newest)}"
    yield "", f"remote {_time(status.remote_newest)}"
    yield "clock", _clock(status.clock_skew_s)
    yield from (("problem", problem) for problem in status.problems)


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
