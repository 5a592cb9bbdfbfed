"""`edge-agent generate`: files for other programs, made from an address map."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from edge_agent.cards_file import CardsError
from edge_agent.cli.options import add_json, add_map, inputs_of, load_map_or_tell
from edge_agent.cli.words import place
from edge_agent.command_line import DONE, FAILED, WRONG_INPUT, print_json
from edge_agent.generate.files import Outcome, prepare, write
from edge_agent.generate.renderers import DASHBOARD
from edge_agent.generate.subject import Subject, not_carried
from edge_agent.output_file import check_not_input, check_output_folder
from edge_agent.settings import Settings

LINES_MAX: Final = 20
"""Of conflicts, and of unknown names; --json has all."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_map(parser)
    parser.add_argument(
        "--out",
        type=place,
        default=Path("generated"),
        metavar="FOLDER",
        help="where the files go (default: %(default)s)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit code 1 if a file would change",
    )
    add_json(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Write the files that change, or only say which."""
    found = load_map_or_tell(options)
    if found is None:
        return WRONG_INPUT
    if not options.check:
        check_output_folder(options.out)
    try:
        outcome = prepare(Subject(found, settings), options.out)
    except CardsError as error:
        if not options.json:
            raise
        problems = [{"file": DASHBOARD, **problem.as_dict()} for problem in error.problems]
        print_json({"ok": False, "problems": problems})
        return WRONG_INPUT
    if not options.check:
        for file in outcome.files:
            if file.changed:
                check_not_input(options.out / file.name, inputs_of(options))
        write(outcome, options.out)
    if options.json:
        print_json(_as_dict(outcome, check=options.check))
    else:
        _show(outcome, options.out, check=options.check)
    stale = options.check and any(file.changed for file in outcome.files)
    return FAILED if stale else DONE


def _state(*, changed: bool, check: bool) -> str:
    if not changed:
        return "unchanged"
    return "differs" if check else "written"


def _as_dict(outcome: Outcome, *, check: bool) -> dict[str, Any]:
    return {
        "ok": not (check and any(file.changed for file in outcome.files)),
        "files": [
            {"name": file.name, "state": _state(changed=file.changed, check=check)}
            for file in outcome.files
        ],
        "conflicts": outcome.conflicts,
        "unknown": outcome.unknown,
        "left_out": {
            name: [
                {
                    "site": one.tag.site,
                    "device": one.tag.device,
                    "tag": one.tag.tag,
                    "reason": one.reason,
                }
                for one in left_out
            ]
            for name, left_out in outcome.left_out.items()
        },
        "problems": [],
    }


def _show(outcome: Outcome, folder: Path, *, check: bool) -> None:
    for file in outcome.files:
        print(f"{_state(changed=file.changed, check=check):10} {file.name}")
    for name, left_out in outcome.left_out.items():
        print(f"{name}: {not_carried(len(left_out))}; it names them")
    for lines in (outcome.conflicts, outcome.unknown):
        for line in lines[:LINES_MAX]:
            print(f"edge-agent: {folder / DASHBOARD}: {line}", file=sys.stderr)
        if len(lines) > LINES_MAX:
            print(f"  and {len(lines) - LINES_MAX:,} more (--json has all)", file=sys.stderr)
