"""`edge-agent plan --against`: what another map would change, before it does."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from edge_agent import address_map, protocols
from edge_agent.command_line import DONE, FAILED, print_json
from edge_agent.control_client import ControlClient
from edge_agent.errors import ConfigError
from edge_agent.model import Tag
from edge_agent.reload.preview import Load, Preview, is_possible, preview
from edge_agent.settings import Settings
from edge_agent.text.counts import counted

RUNNING: Final = "running"
ROWS_SHOWN_MAX: Final = 40
"""Of each kind; --json has all."""


def run_against(
    options: argparse.Namespace,
    settings: Settings,
    after: address_map.AddressMap,
    round_trips_s: Mapping[str, float],
) -> int:
    """Compare with the running map or with a file; exit code 1 if the new one is impossible."""
    before = _before(options.against, settings)
    found = preview(
        before,
        after.tags,
        protocols.load,
        settings,
        round_trip_s=options.round_trip_ms / 1000,
        round_trips_s=round_trips_s,
    )
    if options.json:
        print_json({"ok": True, "sha256": after.sha256, **found, "problems": []})
    else:
        console = Console(highlight=False, markup=False, soft_wrap=True)
        show_rows(console, found)
        _show_touched(console, found)
        _show_load(console, found["before"], found["after"])
    return DONE if is_possible(found) else FAILED


def _before(against: str, settings: Settings) -> Sequence[Tag]:
    """The tags of the map that is compared with."""
    if against != RUNNING:
        if not Path(against).exists():
            raise ConfigError(
                f"--against {against}: there is no such file",
                hint=f"another map's file, or: --against {RUNNING}",
            )
        return address_map.load(Path(against), protocols.load).tags
    data = ControlClient(settings.agent.data_dir).get_bytes("/map/file")
    return address_map.parse(Path("the running map"), data, protocols.load).tags


def show_rows(console: Console, found: Preview) -> None:
    """Rows that come, go and change, with what changes in them."""
    rows = found["rows"]
    if not any(rows.values()):
        console.print("no row differs")
    _show_some(console, [f"+ {key}" for key in rows["added"]], "green")
    _show_some(console, [f"- {key}" for key in rows["removed"]], "red")
    changed = []
    for row in rows["changed"]:
        columns = (
            f"{name} {before or '(empty)'} > {after or '(empty)'}"
            for name, (before, after) in row["columns"].items()
        )
        changed.append(f"~ {row['key']}: {', '.join(columns)}")
    _show_some(console, changed, "yellow")


def _show_some(console: Console, lines: Sequence[str], style: str) -> None:
    for line in lines[:ROWS_SHOWN_MAX]:
        console.print(line, style=style)
    if len(lines) > ROWS_SHOWN_MAX:
        console.print(f"  and {len(lines) - ROWS_SHOWN_MAX:,} more (--json has all)", style=style)


_WORDS: Final = {
    "kept": "not touched",
    "changed": "read by another plan, not closed",
    "begun": "new",
    "ended": "closed",
}


def _show_touched(console: Console, found: Preview) -> None:
    for kind, words in _WORDS.items():
        conns = found["connections"][kind]
        if conns:
            named = "" if kind == "kept" else ": " + ", ".join(conns[:ROWS_SHOWN_MAX])
            more = len(conns) - ROWS_SHOWN_MAX
            if named and more > 0:
                named += f" and {more:,} more"
            console.print(f"{counted(len(conns), 'connection')} {words}{named}")
    ended = "series {} gets no more samples; what is stored of it stays"
    _show_some(console, list(map(ended.format, found["series_ended"])), "")


def _show_load(console: Console, before: Load, after: Load) -> None:
    for name, noun, plural in (
        ("tags", "tag", "tags"),
        ("requests_per_s", "request/s", "requests/s"),
        ("rows_per_day", "row/day", "rows/day"),
    ):
        old, new = before[name], after[name]  # type: ignore[literal-required]
        text = f"{old:,.10g} > {new:,.10g}" if old != new else f"{new:,.10g}"
        console.print(f"{text} {noun if new == 1 else plural}")
    if after["journal_hours"] is not None:
        console.print(f"journal: full after {after['journal_hours']:,.1f} h without any sink")
    if after["verdict"] is not None:
        console.print(f"verdict: {after['verdict']}")
