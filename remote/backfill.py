"""`edge-remote backfill`: history from the edge's plc_raw into the remote's, by COPY.

For what lies before the subscription was made. How it copies, and why it can be killed and
repeated, stands in remote/history.py.
"""

from __future__ import annotations

import argparse
import asyncio
from datetime import datetime

from edge_agent.command_line import print_json, whole
from edge_agent.progress_bar import progress
from edge_agent.settings import Settings
from remote import history
from remote.copying import ROWS_PER_SECOND_MIN, Throttle
from remote.ends import both
from remote.hours import Span, parse_time, shown
from remote.portions import Job

ROWS_PER_SECOND_MAX = 999_999_999
"""No database sends as many."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--from",
        dest="first",
        metavar="TIME",
        help="begin here (default: with the first day that the edge has rows of)",
    )
    parser.add_argument("--to", dest="last", metavar="TIME", help="end here (default: now)")
    add_throttle(parser)
    parser.add_argument(
        "--restart", action="store_true", help="begin anew where the last one was cut short"
    )


def add_throttle(parser: argparse.ArgumentParser) -> None:
    """Declare `--rows-per-second`."""
    parser.add_argument(
        "--rows-per-second",
        type=whole(ROWS_PER_SECOND_MIN, ROWS_PER_SECOND_MAX),
        metavar="N",
        help="copy no more than that (default: no limit)",
    )


def throttle_of(options: argparse.Namespace) -> Throttle | None:
    """The throttle that `--rows-per-second` asks for."""
    rate: int | None = options.rows_per_second
    return None if rate is None else Throttle(rate)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Copy what is asked for, or with `--dry-run` say what would be copied."""
    throttle = throttle_of(options)
    first = parse_time(options.first, "--from") if options.first else None
    last = parse_time(options.last, "--to") if options.last else None
    return asyncio.run(_run(options, settings, first, last, throttle))


async def _run(
    options: argparse.Namespace,
    settings: Settings,
    first: datetime | None,
    last: datetime | None,
    throttle: Throttle | None,
) -> int:
    async with both(settings) as (edge, remote):
        await history.require_setup(edge, remote)
        job = await history.plan(
            edge, remote, settings.remote.name, first, last, restart=options.restart
        )
        facts: dict[str, object] = {
            "dry_run": options.dry_run,
            "first": job.first,
            "last": job.last,
            "copy_from": job.copy_from,
            "days": job.days,
        }
        if not options.json:
            print(_plan_text(job), flush=True)
        if not options.dry_run:
            with progress("backfill") as show:
                copied = await history.backfill(edge, remote, job, throttle, show)
            facts |= {"rows": copied.rows, "new": copied.new}
            if not options.json:
                print(f"{copied.rows:,} rows read, {copied.new:,} of them were new at the remote")
    if options.json:
        print_json(facts)
    return 0


def _plan_text(job: Job) -> str:
    span = Span(job.first, job.last)
    if not job.days:
        return f"backfill {span}: the edge has no rows there"
    days = f"{len(job.days)} day{'s' if len(job.days) > 1 else ''} with rows"
    text = f"backfill {span}: {days}, {job.days[0]} to {job.days[-1]}"
    if job.resumed:
        text += f"\nthe last one was cut short: going on at {shown(job.copy_from)}"
    return text
