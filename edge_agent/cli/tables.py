"""How commands show things: tables, plain columns for a file or a pipe, times, an agent's status.

A column is as wide as its cells look, not as they are long: a Korean sign takes two places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import repeat
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

TAGS_SHOWN_MAX = 4
BORDER_WIDTH = 3
"""A line and two spaces for each column."""
FOLD_WIDTH_MIN = 4
"""A narrower column can't be read."""
STATE_WIDTH_MIN = len("delivering")
"""The longest word that every state is or begins with."""
_STYLES = {"good": "green", "bad": "bold red", "stale": "dim"}
_RANKS = {"bad": 0, "stale": 1, "good": 2}


@dataclass(slots=True)
class Rates:
    """Turns counters into rates, from one status to the next."""

    _before: dict[str, tuple[float, float]] = field(default_factory=dict)

    def rate(self, name: str, count: float, now_s: float) -> float | None:
        """Per second since the last call under this name; None at the first."""
        before = self._before.get(name)
        self._before[name] = (count, now_s)
        if before is None or now_s <= before[1]:
            return None
        return (count - before[0]) / (now_s - before[1])


def aligned(
    columns: Sequence[str], rows: Sequence[Sequence[str]], rights: Sequence[bool] = ()
) -> Iterator[str]:
    """A table as lines, its names first: words in columns, on the right where it says so."""
    widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            _padded(cell, width, right=right)
            for cell, width, right in zip(row, widths, rights or repeat(False), strict=False)
        ]
        yield "  ".join(cells).rstrip()


def _padded(cell: str, width: int, *, right: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if right else cell + space


def clock(ts_ms: int, timespec: str = "seconds") -> str:
    """A time (ms since 1970 UTC) as people here read it, with its offset."""
    return datetime.fromtimestamp(ts_ms / 1000).astimezone().isoformat(" ", timespec)


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells in columns, before it is known where they are shown. ``numbers`` stand on the right.

    On a narrow terminal a number stays whole, and every other cell goes on in the next line.
    Columns with a ``widths_min`` then have what the others leave, and at least that. Where it is
    too narrow even so, there are no lines: the rows stand as in a pipe.
    """

    title: str
    columns: Sequence[str]
    numbers: frozenset[str]
    widths_min: Mapping[str, int] = field(default_factory=dict)
    rows: list[Sequence[str | Text]] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)

    def add(self, *cells: str | Text, style: str = "") -> None:
        """One more row."""
        self.rows.append(cells)
        self.styles.append(style)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(options.max_width)
        table = Table(title=self.title, title_justify="left", expand=False)
        for column in self.columns:
            if column in self.numbers:
                table.add_column(column, justify="right", no_wrap=True)
            else:
                table.add_column(column, overflow="fold", width=widths.get(column))
        for row, style in zip(self.rows, self.styles, strict=True):
            # As text: in a plain string `[fe80::1]` would be markup.
            cells = (Text(cell) if isinstance(cell, str) else cell for cell in row)
            table.add_row(*cells, style=style)
        yield table

    def _widths(self, width_max: int) -> Mapping[str, int]:
        """Of columns with a ``widths_min`` where not everything fits side by side."""
        whole, least = self._whole(), self._least()
        room = self._room(width_max)
        if sum(whole.values()) <= room or sum(least.values()) > room:
            return {}
        others = sum(width for name, width in whole.items() if name not in self.widths_min)
        return {name: max(least[name], room - others) for name in self.widths_min}

    def _whole(self) -> dict[str, int]:
        """How wide each column is where nothing goes on in the next line."""
        columns = zip(self.columns, *self.rows, strict=True)
        return {column[0]: max(cell_len(str(cell)) for cell in column) for column in columns}

    def _least(self) -> dict[str, int]:
        """How wide each column must be so that it can be read."""
        return {
            name: width
            if name in self.numbers
            else min(width, self.widths_min.get(name, FOLD_WIDTH_MIN))
            for name, width in self._whole().items()
        }

    def _room(self, width_max: int) -> int:
        """What the table's lines leave to its cells."""
        return width_max - BORDER_WIDTH * len(self.columns) - 1

    def show(self, console: Console) -> None:
        """A table with lines on a terminal; in a file or a pipe words in columns."""
        if console.is_terminal and sum(self._least().values()) <= self._room(console.width):
            console.print(self, soft_wrap=False)
            return
        rows = [[str(cell) for cell in row] for row in self.rows]
        lines = aligned(self.columns, rows, [name in self.numbers for name in self.columns])
        for line, style in zip(lines, ("", *self.styles), strict=True):
            console.print(line, style=style, soft_wrap=True, markup=False)


def stages(status: Mapping[str, Any], rates: Rates | None) -> Grid:
    """Scans, ingest, journal and each sink: count, rate, lag, errors.

    Without ``rates`` there is no column of them.
    """
    per_s = () if rates is None else ("per s",)
    numbers = ("samples", *per_s, "waiting", "lag", "lost", "errors")
    widths_min = {"state": STATE_WIDTH_MIN}
    grid = Grid("stages", ("stage", *numbers, "state"), frozenset(numbers), widths_min)
    now_s = status["agent"]["now_ms"] / 1000

    def rate(name: str, count: float) -> tuple[str, ...]:
        if rates is None:
            return ()
        value = rates.rate(name, count, now_s)
        return ("" if value is None else f"{value:,.0f}",)

    for row in status["connections"]:
        why = (row["error"] or "").removeprefix(f"{row['conn']}: ")
        state = Text("connected", "green") if row["connected"] else Text(why, "red")
        errors = sum(row["errors"].values())
        late = row["late_p99_s"]
        grid.add(
            row["conn"],
            f"{row['samples']:,}",
            *rate(row["conn"], row["samples"]),
            "",
            "" if late is None else f"{late * 1000:.0f} ms late",
            "",
            f"{errors:,}",
            state,
        )
    if (row := status["ingest"]) is not None:
        state = Text("connected", "green") if row["connected"] else Text(row["error"] or "", "red")
        grid.add(
            "ingest",
            f"{row['samples']:,}",
            *rate("ingest", row["samples"]),
            f"{row['waiting']:,}",
            "",
            f"{row['over_series_max'] + row['overflowed']:,}",
            f"{row['not_understood']:,}",
            state,
        )
    journal = status["journal"]
    full = "disk full" if journal["disk_full"] else "full" if journal["full"] else ""
    used = f"{journal['bytes_used'] / 1e6:,.1f} of {journal['bytes_max'] / 1e6:,.0f} MB"
    grid.add(
        "journal",
        f"{journal['taken']:,}",
        *rate("journal", journal["taken"]),
        f"{journal['uncommitted']:,}",
        "",
        "",
        f"{journal['commit_failures']:,}",
        Text(full or used, "red" if full else "green"),
    )
    for row in status["sinks"]:
        state = Text(row["error"], "red") if row["error"] else Text("delivering", "green")
        lost = row["lost"] + row["quarantined"]
        grid.add(
            f"→ {row['name']}",
            f"{row['delivered']:,}",
            *rate(row["name"], row["delivered"]),
            f"{row['pending']:,}",
            f"{row['lag_s']:.1f} s",
            f"{lost:,}",
            f"{sum(row['failures'].values()):,}",
            state,
        )
    return grid


def devices(status: Mapping[str, Any]) -> Grid:
    """Each device with its newest values and the age of the newest one; bad tags come first."""
    grid = Grid("devices", ("device", "age", "newest values"), frozenset({"age"}))
    now_ms = status["agent"]["now_ms"]
    for device in status["devices"]:
        times = [tag["ts_ms"] for tag in device["tags"] if tag["ts_ms"] is not None]
        age = f"{max(now_ms - max(times), 0) / 1000:.1f} s" if times else "never"
        values = Text()
        tags = sorted(device["tags"], key=lambda tag: _RANKS[tag["quality"]])
        for tag in tags[:TAGS_SHOWN_MAX]:
            values.append(f"{tag['tag']} ", "dim")
            values.append(_value(tag), _style(tag))
            values.append("  ")
        more = len(tags) - TAGS_SHOWN_MAX
        if more > 0:
            values.append(f"+{more}", "dim")
        place = " ".join(filter(None, (device["site"], device["line"], device["device"])))
        grid.add(place, age, values)
    return grid


def everything(status: Mapping[str, Any], rates: Rates, footer: str) -> Group:
    """The live picture of the demo."""
    style = "green" if status["well"] else "bold red"
    return Group(
        Text(status["verdict"], style),
        devices(status),
        stages(status, rates),
        Text(footer, "dim"),
    )


def _value(tag: Mapping[str, Any]) -> str:
    if tag["value"] is None:
        return str(tag["quality"])
    return f"{tag['value']:.6g} {tag['unit']}".rstrip()


def _style(tag: Mapping[str, Any]) -> str:
    value = tag["value"]
    if value is not None and (
        (tag["hi"] is not None and value > tag["hi"])
        or (tag["lo"] is not None and value < tag["lo"])
    ):
        return "bold yellow"
    return _STYLES[tag["quality"]]
