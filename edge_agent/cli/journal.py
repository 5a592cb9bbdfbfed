"""`edge-agent journal`: look into the journal, check it, and put quarantined samples back.

`status`, `check` and `export` read, also while the agent runs. `replay` and `trim` change the
file and need the agent to be stopped.
"""

from __future__ import annotations

import argparse
import csv
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, TextIO

from rich.console import Console

from edge_agent.cli.options import add_actions, add_json
from edge_agent.command_line import DONE, FAILED, print_json
from edge_agent.errors import ConfigError
from edge_agent.journal import Policy
from edge_agent.journal.entries import samples_of
from edge_agent.journal.file import JournalFile
from edge_agent.journal.lock import lock
from edge_agent.progress_bar import Show, progress
from edge_agent.settings import Settings
from edge_agent.text.counts import counted

SUMMARIES = {
    "status": "what is in it, per sink",
    "check": "verify every page, checksum and sum; exit code 1 if one is wrong",
    "export": "write what it holds as CSV to standard output",
    "replay": "deliver a sink's quarantined samples once more",
    "trim": "give up all that waits for a sink; it goes to the loss ledger",
}
WHAT = ("samples", "quarantine", "ledger")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    actions = add_actions(parser, SUMMARIES)
    actions["export"].add_argument(
        "what",
        nargs="?",
        choices=WHAT,
        default=WHAT[0],
        metavar="|".join(WHAT),
        help="what waits for a sink, what one has refused for good, or what one will never get"
        f" (default: {WHAT[0]})",
    )
    for name in ("replay", "trim"):
        actions[name].add_argument(
            "--sink", required=True, help="its name, as in `edge-agent journal status`"
        )
    actions["trim"].add_argument(
        "--yes", action="store_true", help="do it; without it only say how many samples there are"
    )
    for name, action in actions.items():
        if name != "export":
            add_json(action)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Do one action on the journal in `data_dir`."""
    path = settings.agent.journal_path
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
        print_json(facts)
        return DONE
    print(f"{file.path}: {counted(file.taken, 'sample')} taken of {len(file.series):,} series")
    print(f"{file.bytes_used / 1e6:,.1f} of {file.bytes_max / 1e6:,.0f} MB in use")
    for row in sinks:
        print(
            f"{row['sink']:10} delivered {row['delivered']:,}, waiting {row['pending']:,}, "
            f"quarantined {row['quarantined']:,}, lost {row['lost']:,}"
        )
    return DONE


def _check(file: JournalFile, options: argparse.Namespace) -> int:
    with progress("journal check") as show:
        show(None, "every page")
        faults = file.check(lambda share: show(share, "every entry"))
    if options.json:
        facts = {"ok": not faults, "path": str(file.path), "taken": file.taken, "faults": faults}
        print_json(facts)
    elif faults:
        print("\n".join(faults))
    else:
        are = "is" if file.taken == 1 else "are"
        print(f"{file.path}: sound; {counted(file.taken, 'sample')} {are} accounted for")
    return FAILED if faults else DONE


def _export(file: JournalFile, options: argparse.Namespace) -> int:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    with _progress_beside(sys.stdout) as show:
        header, rows = {"samples": _samples, "quarantine": _quarantine, "ledger": _ledger}[
            options.what
        ](file, show)
        writer.writerow(header)
        writer.writerows(rows)
    return DONE


def _progress_beside(output: TextIO) -> AbstractContextManager[Show]:
    """A bar where the rows go to a file; lines beside a pipe, whose reader may need the terminal.

    On a terminal the rows themselves show that it gets on.
    """
    if output.isatty():
        return nullcontext(lambda *_: None)
    try:
        is_file = stat.S_ISREG(os.fstat(output.fileno()).st_mode)
    except OSError:
        is_file = False
    console = Console(file=sys.stderr, force_terminal=None if is_file else False)
    return progress("journal export", console)


_SERIES = ("site", "line", "device", "tag", "unit")
Rows = tuple[tuple[str, ...], Iterable[tuple[object, ...]]]


def _samples(file: JournalFile, show: Show) -> Rows:
    return ("sequence", "sinks", "ts_ms", *_SERIES, "value"), (
        (entry.batch.sequence, entry.sinks or "", ts_ms, *file.series[series_id], value)
        for entry in file.export(reach=lambda share: show(share, "of the entries"))
        for ts_ms, series_id, value in samples_of(entry.batch)
    )


def _quarantine(file: JournalFile, _: Show) -> Rows:
    return ("sink", "ts_ms", *_SERIES, "value", "reason"), (
        (sink, row.ts_ms, *file.series[row.series_id], row.value, row.reason)
        for sink, row in file.quarantine()
    )


def _ledger(file: JournalFile, _: Show) -> Rows:
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
    text = f"{counted(samples, 'sample')} will be delivered to {options.sink} again"
    if not samples:
        text = f"nothing of {options.sink} is in quarantine"
    return _tell(options, samples, text)


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
    text = f"{counted(samples, 'sample')} given up for {sink}; `journal export ledger` shows them"
    return _tell(options, samples, text)


def _tell(options: argparse.Namespace, samples: int, text: str) -> int:
    """Say of how many samples of a sink something was done."""
    if options.json:
        print_json({"ok": True, "sink": options.sink, "samples": samples})
    else:
        print(text)
    return DONE


_ACTIONS = {
    "status": _status,
    "check": _check,
    "export": _export,
    "replay": _replay,
    "trim": _trim,
}
