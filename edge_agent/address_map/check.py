"""From a table to tags: every row against the rules, and the rows against each other."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from edge_agent.address_map.columns import COLUMNS
from edge_agent.address_map.problems import Problem, shown
from edge_agent.address_map.row import RowModel, Syntaxes, problems_of
from edge_agent.address_map.table import Row, Table
from edge_agent.model import Tag

KEY = ("site", "device", "tag")
"""What names a tag once and for all: topic and primary key are built from it."""


@dataclass(slots=True)
class Checked:
    """What came out of a table: ``tags`` of the enabled rows, ``lines[i]`` is that of ``tags[i]``.

    ``problems`` are in file order; only if there are none do the tags mean anything.
    """

    tags: list[Tag] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    disabled: int = 0
    problems: list[Problem] = field(default_factory=list)


def check(table: Table, syntaxes: Syntaxes | None) -> Checked:
    """Check every row; ``syntaxes`` as for `RowModel`."""
    checked = Checked(problems=list(table.problems))
    if table.index and not table.rows and not table.problems:
        message = "the file has a header and no rows; add one row per tag"
        checked.problems.append(Problem(None, None, None, message))
    absent = frozenset(COLUMNS) - set(table.index)
    seen = _Seen()
    for row in table.rows:
        cells = _filled_cells(row, table.index)
        unreadable = {
            column: row.unreadable[at] for column, at in table.index.items() if at in row.unreadable
        }
        problems = [
            Problem(row.line, column, shown(cells.pop(column, "")), message)
            for column, message in unreadable.items()
        ]
        try:
            model = RowModel.model_validate(cells, context=syntaxes)
        except ValidationError as error:
            problems += (
                Problem(row.line, column, shown(cells.get(column, "")), message)
                for column, message in problems_of(error)
                if column not in absent and column not in unreadable
            )
        else:
            if model.enabled:
                checked.tags.append(model.to_tag())
                checked.lines.append(row.line)
            else:
                checked.disabled += 1
        problems += seen.conflicts(row.line, cells, {problem.column for problem in problems})
        checked.problems += problems
    # Those of the reader come first so far; an equal line keeps the order found.
    checked.problems.sort(key=lambda problem: problem.line or 0)
    return checked


def _filled_cells(row: Row, index: Mapping[str, int]) -> dict[str, str]:
    """The cells that hold more than spaces; an empty one takes the column's default."""
    return {column: row.cells[at] for column, at in index.items() if row.cells[at].strip()}


class _Seen:
    """What earlier rows have taken, and on which line."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, ...], int] = {}
        self._lines: dict[tuple[str, str], tuple[str, int]] = {}

    def conflicts(
        self, at: int, cells: Mapping[str, str], wrong: set[str | None]
    ) -> Iterator[Problem]:
        """Problems of a row beside the rows before it; cells in ``wrong`` columns don't count."""

        def good(*columns: str) -> bool:
            return all(column in cells and column not in wrong for column in columns)

        def name(column: str) -> str:
            return unicodedata.normalize("NFC", cells[column]).strip()

        if good("site", "device", "line"):
            device = (name("site"), name("device"))
            line = name("line")
            first_line, first_at = self._lines.setdefault(device, (line, at))
            if line != first_line:
                yield Problem(
                    at,
                    "line",
                    shown(line),
                    f"device {'/'.join(device)} belongs to line {first_line!r} since line"
                    f" {first_at} of the file; a device belongs to one line; write {first_line!r}",
                )
        if good(*KEY):
            key = tuple(map(name, KEY))
            first_at = self._keys.setdefault(key, at)
            if first_at != at:
                yield Problem(
                    at,
                    "tag",
                    shown(key[-1]),
                    f"{'/'.join(key)} stands on line {first_at} already; site, device and tag"
                    " together must be unique; rename or delete one of the two",
                )
