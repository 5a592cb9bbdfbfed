"""`edge-agent journal`: look into the journal, check it, and put quarantined samples back.

`status`, `check` and `export` read, also while the agent runs. `replay` and `trim` change the
file and need the agent to be stopped.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from contextlib import closing, nullcontext
from typing import Any

import orjson

from edge_agent.agent import JOURNAL_FILE
from edge_agent.cli.options import add_common
from edge_agent.errors import ConfigError
from edge_agent.journal import Policy
from edge_agent.journal.entries import samples_of
from edge_agent.journal.file import JournalFile, lock
from edge_agent.settings import Settings
from edge_agent.text.counts import counted

WHAT = ("samples", "quarantine", "ledger")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    status = actions.add_parser("status", help="what is in it, per sink")
    status.add_argument("--json", action="store_true", help="for programs")
    actions.add_parser("check", help="verify every page, checksum and sum; exit code 1 if wrong")
    export = actions.add_parser("export", help="write what it holds as CSV to standard output")
    export.add_argument("what", nargs="?", choices=WHAT, default="samples")
    replay = actions.add_parser("replay", help="deliver a sink's quarantined samples once more")
    replay.add_argument("--sink", required=True)
    trim = actions.add_parser(
        "trim", help="give up all that waits for a sink; it goes to the loss ledger"
    )
    trim.add_argument("--sink", required=True)
    trim.add_argument("--yes", action="store_true", help="really")
    for action in actions.choices.values():
        add_common(action)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Do one action on the journal in `data_dir`."""
    path = settings.agent.data_dir / JOURNAL_FILE
    if not path.exists():
        raise ConfigError(f"{path}: there is no journal", hint="--data-dir tells where it is")
    writing = options.action in ("replay", "trim")
    with lock(path) if writing else nullcontext():
        file = JournalFile(
            path,
            bytes_max=settings.journal.bytes_max,
            policy=Policy(settings.journal.policy),
            read_only=not writing,
        )
        with closing(file):
            if writing:
                file.configure(file.totals)
            return int(_ACTIONS[options.action](file, options))


def _status(file: JournalFile, options: argparse.Namespace) -> int:
    sinks = [
        {
            "sink": totals.sink,
            "base": totals.base,
            "delivered": totals.delivered,
            "pending": file.pending(totals.sink),
            "quarantined": totals.quarantined,
            "lost": totals.lost,
            "duplicates": totals.duplicates,
            "sequence": totals.sequence,
        }
        for totals in file.totals.values()
    ]
    facts: dict[str, Any] = {
        "path": str(file.path),
        "journal_id": file.journal_id,
        "taken": file.taken,
        "sequence": file.sequence,
        "series": len(file.series),
        "bytes_used": file.bytes_used,
        "bytes_max": file.bytes_max,
        "sinks": sinks,
    }
    if options.json:
        print(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
        return 0
    print(f"{file.path}: {counted(file.taken, 'sample')} taken of {len(file.series):,} series")
    print(f"{file.bytes_used / 1e6:,.1f} of {file.bytes_max / 1e6:,.0f} MB in use")
    for row in sinks:
        print(
            f"{row['sink']:10} delivered {row['delivered']:,}, waiting {row['pending']:,}, "
            f"quarantined {row['quarantined']:,}, lost {row['lost']:,}"
        )
    return 0


def _check(file: JournalFile, options: argparse.Namespace) -> int:  # noqa: ARG001
    faults = file.check()
    for fault in faults:
        print(fault)
    if not faults:
        are = "is" if file.taken == 1 else "are"
        print(f"{file.path}: sound; {counted(file.taken, 'sample')} {are} accounted for")
    return 1 if faults else 0


def _export(file: JournalFile, options: argparse.Namespace) -> int:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    header, rows = {"samples": _samples, "quarantine": _quarantine, "ledger": _ledger}[
        options.what
    ](file)
    writer.writerow(header)
    writer.writerows(rows)
    return 0


_SERIES = ("site", "line", "device", "tag", "unit")
Rows = tuple[tuple[str, ...], Iterable[tuple[object, ...]]]


def _samples(file: JournalFile) -> Rows:
    return ("sequence", "sinks", "ts_ms", *_SERIES, "value"), (
        (entry.batch.sequence, entry.sinks or "", ts_ms, *file.series[series_id], value)
        for entry in file.export()
        for ts_ms, series_id, value in samples_of(entry.batch)
    )


def _quarantine(file: JournalFile) -> Rows:
    return ("sink", "ts_ms", *_SERIES, "value", "reason"), (
        (sink, row.ts_ms, *file.series[row.series_id], row.value, row.reason)
        for sink, row in file.quarantine()
    )


def _ledger(file: JournalFile) -> Rows:
    unknown = ("",) * len(_SERIES)
    return ("sink", *_SERIES, "first_ts_ms", "last_ts_ms", "samples", "reason"), (
        (
            row.sink,
            *(unknown if row.series_id is None else file.series[row.series_id]),
            row.first_ts_ms,
            row.last_ts_ms,
            row.samples,
            row.reason,
        )
        for row in file.ledger()
    )


def _known(file: JournalFile, sink: str) -> str:
    if sink not in file.totals:
        known = ", ".join(sorted(file.totals)) or "none"
        raise ConfigError(f"--sink {sink}: no such sink in this journal; known: {known}")
    return sink


def _replay(file: JournalFile, options: argparse.Namespace) -> int:
    samples = file.replay(_known(file, options.sink))
    print(f"{counted(samples, 'sample')} will be delivered to {options.sink} again")
    return 0


def _trim(file: JournalFile, options: argparse.Namespace) -> int:
    sink = _known(file, options.sink)
    if not options.yes:
        pending = file.pending(sink)
        wait = "waits" if pending == 1 else "wait"
        raise ConfigError(
            f"{counted(pending, 'sample')} that {wait} for {sink} would be given up",
            hint="repeat with --yes if that is meant; `journal export` saves them first",
        )
    samples = file.discard(sink, "trimmed by hand")
    print(f"{counted(samples, 'sample')} given up for {sink}; `journal export ledger` shows them")
    return 0


_ACTIONS = {
    "status": _status,
    "check": _check,
    "export": _export,
    "replay": _replay,
    "trim": _trim,
}
