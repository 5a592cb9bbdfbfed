"""`edge-remote reconcile`: find every difference of the last hours, and repair it.

Run hourly by a timer. How it compares, and why rows that arrive meanwhile are no false alarm,
stands in remote/comparison.py.

Exit code 0: both are equal, or have been made so. 1: something is left (rows that only the remote
has, without `--delete-extra`; any difference with `--dry-run`).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge_agent.command_line import print_json, whole
from edge_agent.progress_bar import Show, progress
from edge_agent.settings import Settings
from remote.comparison import Comparison, Difference, Rows, Task
from remote.ends import End, both, clock_problem, clock_skew_s, refuse
from remote.history import lock, refresh, require_setup
from remote.hours import HOUR, Span, shown, split
from remote.sums import devices

HOURS_DEFAULT = 3
"""An hourly timer that was late by an hour, or failed once, misses nothing."""
HOURS_MAX = 1_100 * 24
"""plc_raw takes nothing older."""
SETTLED_S = 60
"""Younger rows may still be on their way; replication needs less than two seconds as a rule."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reconcile found: ``rows`` of the edge's ``devices`` were compared."""

    window: Span
    devices: int
    rows: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    repaired: bool

    @property
    def total(self) -> Rows:
        """All differences together."""
        return sum((each.rows for each in self.differences), Rows())

    @property
    def left(self) -> int:
        """Rows that are still not the same."""
        total = self.total
        extra = total.extra - total.deleted
        return extra if self.repaired else extra + total.missing + total.different


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--hours",
        type=whole(1, HOURS_MAX),
        default=HOURS_DEFAULT,
        metavar="N",
        help=f"how far back; the hour that this falls into is whole (default: {HOURS_DEFAULT})",
    )
    parser.add_argument(
        "--delete-extra",
        action="store_true",
        help="delete rows at the remote that the edge does not have",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Compare and repair, or with `--dry-run` compare only."""
    outcome = asyncio.run(_run(options, settings))
    if options.json:
        print_json(document(outcome))
    else:
        print_outcome(outcome)
    return 1 if outcome.left else 0


async def _run(options: argparse.Namespace, settings: Settings) -> Outcome:
    name = settings.remote.name
    task = Task(slot=f"plc_{name}", repair=not options.dry_run, delete_extra=options.delete_extra)
    async with both(settings) as (edge, remote):
        await require_setup(edge, remote)
        window = Span(*await edge.fetchrow("reconcile_window", options.hours, SETTLED_S))
        with progress("reconcile") as show:
            return await reconcile(edge, remote, window, name, task, show)


async def reconcile(
    edge: End, remote: End, window: Span, name: str, task: Task, show: Show
) -> Outcome:
    """Compare the window hour by hour, repair, and refresh what was repaired.

    Raises ``ConfigError`` if the clocks of the two servers are too far apart, ``TransientError``
    for everything else; what was repaired until then stays, and the next run does the rest.
    """
    if problem := clock_problem(await clock_skew_s(edge, remote)):
        refuse([problem])
    await lock(remote, f"reconcile of {name}")
    notes = []
    kept = await remote.fetchrow("repair_keeps")
    if window.first < kept["kept_from"]:
        notes.append(
            f"the remote keeps plc_raw for {kept['raw_days']} days (raw_days of [postgres] there):"
            f" compared from {shown(kept['kept_from'])} on"
        )
        window = Span(min(kept["kept_from"], window.last), window.last)
    comparison = Comparison(edge, remote, await devices(edge, window), task)
    differences: list[Difference] = []
    try:
        for hour in split(window, HOUR):
            differences += await comparison.hour(hour)
            done = (hour.last - window.first) / (window.last - window.first)
            show(done, f"up to {shown(hour.last)}: {len(differences)} differences")
    finally:
        if not remote.connection.is_closed():
            await refresh(remote, comparison.touched)
    if comparison.unreceived:
        notes.append(
            f"slot {task.slot}: the remote did not catch up while it was compared, so rows on their"
            " way count as missing: `edge-remote status` tells why"
        )
    return Outcome(
        window,
        len(comparison.known),
        comparison.rows,
        tuple(differences),
        tuple(notes),
        repaired=task.repair,
    )


def document(outcome: Outcome) -> dict[str, Any]:
    """For programs."""
    total = outcome.total
    return {
        "first": outcome.window.first,
        "last": outcome.window.last,
        "devices": outcome.devices,
        "rows": outcome.rows,
        "missing": total.missing,
        "different": total.different,
        "extra": total.extra,
        "deleted": total.deleted,
        "repaired": outcome.repaired,
        "left": outcome.left,
        "notes": outcome.notes,
        "differences": outcome.differences,
    }


def print_outcome(outcome: Outcome, console: Console | None = None) -> None:
    """What differed, if anything did, then notes, then one line.

    Differences are a table on a terminal; in a file or a pipe a line each, however long.
    """
    console = console or Console(soft_wrap=True, highlight=False)
    if outcome.differences and console.is_terminal:
        console.print(_table(outcome.differences, repaired=outcome.repaired))
    else:
        for line in _lines(outcome.differences, repaired=outcome.repaired):
            console.print(line, markup=False)
    for note in outcome.notes:
        console.print(f"note: {note}", markup=False)
    verdict = _verdict(outcome.total, repaired=outcome.repaired) or "equal"
    looked = f"{outcome.devices} devices, {outcome.rows:,} rows at the edge"
    console.print(f"{outcome.window}: {looked}: {verdict}", markup=False)
    if outcome.total.extra > outcome.total.deleted:
        console.print("look at the extra rows, then `reconcile --delete-extra`", markup=False)


def _lines(differences: Sequence[Difference], *, repaired: bool) -> Iterator[str]:
    for each in differences:
        rows = f"{each.edge_rows:,} rows at the edge, {each.remote_rows:,} at the remote"
        verdict = _verdict(each.rows, repaired=repaired)
        yield f"{shown(each.hour)} {each.site}/{each.device}: {rows}: {verdict}"


def _table(differences: Sequence[Difference], *, repaired: bool) -> Table:
    table = Table(title="differences", title_justify="left", expand=False)
    for name in ("hour", "site", "device"):
        table.add_column(name, no_wrap=True)
    for name in ("edge", "remote"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for each in differences:
        table.add_row(
            shown(each.hour),
            Text(each.site),
            Text(each.device),
            f"{each.edge_rows:,}",
            f"{each.remote_rows:,}",
            _verdict(each.rows, repaired=repaired),
        )
    return table


def _verdict(rows: Rows, *, repaired: bool) -> str:
    parts = []
    if rows.missing:
        parts.append(f"{rows.missing:,} missing" + (", inserted" if repaired else ""))
    if rows.different:
        parts.append(f"{rows.different:,} different" + (", set to the edge's" if repaired else ""))
    if rows.deleted:
        parts.append(f"{rows.deleted:,} extra, deleted")
    if left := rows.extra - rows.deleted:
        parts.append(f"{left:,} extra, left alone")
    return "; ".join(parts)
