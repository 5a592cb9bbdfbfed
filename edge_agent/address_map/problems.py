"""What is wrong with an address map: every problem at once, each with its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.errors import ConfigError
from edge_agent.text.counts import counted

VALUE_CHARS_SHOWN = 80
"""A message stays one readable line, also when an unclosed quote has swallowed half the file."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct.

    ``line`` is the physical line of the file, or the row number of a workbook; ``None`` means the
    file as a whole. ``value`` is what was found, shortened if it is very long. ``message`` says
    what is allowed and, where that can be known, what to write instead.
    """

    line: int | None
    column: str | None
    value: str | None
    message: str

    def __str__(self) -> str:
        place = [] if self.line is None else [f"line {self.line}"]
        if self.column is not None:
            plain = self.column.isprintable()
            place.append(f"column {self.column if plain else repr(self.column)}")
        if self.value and not self.message.startswith(repr(self.value)):
            place.append(repr(self.value))
        return f"{', '.join(place)}: {self.message}" if place else self.message

    def as_dict(self) -> dict[str, int | str | None]:
        """The same as plain data, for ``--json``: line, column, value, message."""
        return asdict(self)


class MapError(ConfigError):
    """An address map that must not be used. ``problems`` holds all of them, in file order."""

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        count = counted(len(self.problems), "problem")
        super().__init__("\n  ".join([f"{path}: {count}", *map(str, self.problems)]))


class UnreadableFileError(Exception):
    """The file as a whole is no table.

    `table.read` and `workbook.read_rows` raise it, for those who read a table themselves; who loads
    a map gets a ``MapError``.
    """

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(line, None, None, message)


def shown(value: str) -> str:
    """A value as a message shows it: whole, or its beginning."""
    if len(value) <= VALUE_CHARS_SHOWN:
        return value
    return value[: VALUE_CHARS_SHOWN - 1] + "…"
