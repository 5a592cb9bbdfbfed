"""What `edge-agent probe` found: as text, as tables on a terminal, and as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge_agent.cli.tables import aligned
from edge_agent.model import ByteOrder, Tag, ValueType
from edge_agent.probe.cells import Change
from edge_agent.probe.interpretations import (
    ORDERS,
    Interpretation,
    Setting,
    limits,
    setting_of,
    shown_order,
    shown_value,
)
from edge_agent.probe.row import Row
from edge_agent.probe.scan import Span, UnitScan
from edge_agent.text.counts import counted

REGISTERS_PER_LINE: Final = 8
BITS_PER_LINE: Final = 16
_HEADS: Final = {ByteOrder.ABCD: "ABCD or AB", ByteOrder.BADC: "BADC or BA"}
_INSIDE, _OWN, _BEST = " *", " <", " !"
LEGEND: Final = "* inside lo..hi   < the map's own setting   ! the most plausible one, if another"


def own(tag: Tag, found: Sequence[Interpretation]) -> Interpretation:
    """The interpretation under the map's own setting."""
    return next(
        interpretation for interpretation in found if interpretation.setting == setting_of(tag)
    )


def rows(console: Console, found: Sequence[Row]) -> None:
    """Every row: its registers, its interpretations, and the verdict."""
    for row in found:
        console.print(Text(_head(row), "bold"))
        if row.error:
            console.print(Text(f"  not read: {row.error}", "red"))
        elif row.verdict is None:
            console.print(f"  {shown_value(row.value)} {row.tag.unit}".rstrip())
        else:
            if console.is_terminal:
                console.print(_table(row))
            else:
                console.print("\n".join(_lines(row)))
            console.print(Text(f"  {_verdict(row)}", _style(row)))
    if any(row.verdict for row in found):
        console.print(Text(LEGEND, "dim"))


def _head(row: Row) -> str:
    tag = row.tag
    parts = [f"{tag.device}/{tag.tag}", tag.conn, f"unit {tag.unit_id}", tag.address]
    if row.registers:
        parts.append("registers " + " ".join(f"{one:04X}" for one in row.registers))
    if tag.lo is not None or tag.hi is not None:
        parts.append(f"limits {limits(tag)} {tag.unit}".rstrip())
    return "  ".join(parts)


def _grid(row: Row) -> list[tuple[ValueType, list[str]]]:
    """Each type with its interpretations by byte order, marked."""
    by_setting = {interpretation.setting: interpretation for interpretation in row.found}
    best = row.verdict.best if row.verdict else None
    grid = []
    for value_type in dict.fromkeys(interpretation.setting.type for interpretation in row.found):
        cells = []
        for order in ORDERS:
            setting = Setting(value_type, order)
            interpretation = by_setting.get(setting)
            cells.append(_cell(row.tag, interpretation, best) if interpretation else "")
        grid.append((value_type, cells))
    return grid


def _cell(tag: Tag, interpretation: Interpretation, best: Setting | None) -> str:
    text = "-" if interpretation.value is None else shown_value(interpretation.value)
    if interpretation.inside:
        text += _INSIDE
    if interpretation.setting == setting_of(tag):
        text += _OWN
    elif interpretation.setting == best:
        text += _BEST
    return text


def _lines(row: Row) -> list[str]:
    """The grid for a pipe: fixed columns."""
    heads = ["type", *(_HEADS.get(order, str(order)) for order in ORDERS)]
    grid = [[str(value_type), *cells] for value_type, cells in _grid(row)]
    return [f"  {line}" for line in aligned(heads, grid)]


def _table(row: Row) -> Table:
    table = Table("type", *(_HEADS.get(order, str(order)) for order in ORDERS), expand=False)
    for value_type, cells in _grid(row):
        table.add_row(str(value_type), *(Text(cell, _cell_style(cell)) for cell in cells))
    return table


def _cell_style(cell: str) -> str:
    colour = "green" if _INSIDE in cell else "default"
    return f"bold {colour}" if cell.endswith((_OWN, _BEST)) else colour


def _verdict(row: Row) -> str:
    assert row.verdict is not None
    verdict, own_setting = row.verdict, setting_of(row.tag)
    if verdict.clear:
        return f"{verdict.best} is most plausible: {verdict.why}"
    if verdict.best != own_setting:
        return f"not clear, perhaps {verdict.best}: {verdict.why}"
    return f"{own_setting} stays: {verdict.why}"


def _style(row: Row) -> str:
    assert row.verdict is not None
    if row.verdict.clear:
        return "bold yellow"
    return "green" if own(row.tag, row.found).grade == 2 else ""


def row_dict(row: Row) -> dict[str, Any]:
    """One row for programs; interpretations that are no number have the value null."""
    tag, verdict = row.tag, row.verdict
    return {
        "site": tag.site,
        "device": tag.device,
        "tag": tag.tag,
        "conn": tag.conn,
        "unit_id": tag.unit_id,
        "address": tag.address,
        "type": str(tag.type),
        "byte_order": str(tag.byte_order),
        "value": row.value,
        "error": row.error or None,
        "registers": [f"{one:04X}" for one in row.registers],
        "interpretations": [_interpretation_dict(interpretation) for interpretation in row.found],
        "best": None if verdict is None else _setting_dict(verdict.best),
        "clear": verdict is not None and verdict.clear,
        "why": None if verdict is None else verdict.why,
        "not_written": row.not_written or None,
    }


def _setting_dict(setting: Setting) -> dict[str, str]:
    return {"type": str(setting.type), "byte_order": shown_order(setting)}


def _interpretation_dict(interpretation: Interpretation) -> dict[str, Any]:
    return {
        **_setting_dict(interpretation.setting),
        "value": interpretation.value,
        "inside": interpretation.inside,
        "fault": interpretation.fault or None,
    }


def changes_list(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Changed cells for programs."""
    return [
        {
            "line": change.line,
            "site": change.tag.site,
            "device": change.tag.device,
            "tag": change.tag.tag,
            "column": change.column,
            "before": change.before,
            "after": change.after,
        }
        for change in changes
    ]


def written(path: Path, found: Sequence[Row], changes: Sequence[Change]) -> None:
    """What `--write` changed, and what it left alone for want of clearness."""
    count = counted(len(changes), "cell") if changes else "nothing"
    print(f"{path}: {count} changed")
    for one in changes:
        name = f"{one.tag.device}/{one.tag.tag}"
        print(f"  line {one.line}, {name}: {one.column} {one.before or 'empty'} -> {one.after}")
    for row in found:
        name = f"{row.tag.device}/{row.tag.tag}"
        if row.not_written:
            print(f"  {name} left alone: {row.not_written}")
        elif row.verdict and not row.verdict.clear and own(row.tag, row.found).grade < 2:
            print(f"  {name} left alone: {row.verdict.why}")


# -- a scan ------------------------------------------------------------------------------------


def scan(console: Console, scans: Sequence[UnitScan], requests: int) -> None:
    """Each unit that said anything: what answers, with its values, and what was not asked."""
    for one in scans:
        if not one.spoke and len(scans) > 1 and not one.given_up.startswith("not asked"):
            continue  # told in one line below
        cells = sum(span.cells for span, _ in one.found)
        refused = sum(span.cells for span in one.missing)
        console.print(Text(_answers(one.unit_id, cells, refused), "bold"))
        if one.found and console.is_terminal:
            console.print(_dump_table(one))
        elif one.found:
            console.print("\n".join(_dump(one)))
        if one.given_up:
            left = ", ".join(map(str, one.left))
            console.print(Text(f"  nothing is known of {left}: {one.given_up}", "yellow"))
    quiet = [one for one in scans if not one.spoke]
    if quiet and len(scans) > 1:
        units = ", ".join(_runs([one.unit_id for one in quiet]))
        reason = quiet[0].given_up or next(iter(quiet[0].refusals.values()), "")
        console.print(Text(f"nothing from unit {units}: {reason}", "dim"))
    console.print(Text(counted(requests, "request"), "dim"))


def _answers(unit_id: int, cells: int, refused: int) -> str:
    answer = "answers" if cells == 1 else "answer"
    does = "does" if refused == 1 else "do"
    return f"unit {unit_id}: {counted(cells, 'cell')} {answer}, {refused:,} {does} not"


def _dump(one: UnitScan) -> list[str]:
    """Ranges, and below each its raw values, some to a line, with the address of the first one."""
    return [
        line
        for span, values in one.found
        for line in (
            f"  {span}",
            *(f"    {address:<9} {text}" for address, text in _dump_rows(span, values)),
        )
    ]


def _dump_table(one: UnitScan) -> Table:
    table = Table("range", "from", "raw values", expand=False)
    for span, values in one.found:
        for place, (address, text) in enumerate(_dump_rows(span, values)):
            table.add_row("" if place else str(span), address, text)
    return table


def _dump_rows(span: Span, values: Sequence[int]) -> list[tuple[str, str]]:
    bits = span.prefix in {"co", "di"}
    per_line = BITS_PER_LINE if bits else REGISTERS_PER_LINE
    rows = []
    for at in range(0, len(values), per_line):
        part = values[at : at + per_line]
        text = " ".join(str(one) if bits else f"{one:04X}" for one in part)
        rows.append((f"{span.prefix}:{span.start + at}", text))
    return rows


def _runs(units: Sequence[int]) -> list[str]:
    """Unit ids, ascending ones together: 1-4, 7."""
    runs: list[list[int]] = []
    for unit in sorted(units):
        if runs and runs[-1][-1] == unit - 1:
            runs[-1].append(unit)
        else:
            runs.append([unit])
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]


def scan_dict(conn: str, scans: Sequence[UnitScan], requests: int) -> Mapping[str, Any]:
    """A scan for programs; raw values are numbers."""
    return {
        "conn": conn,
        "requests": requests,
        "units": [
            {
                "unit_id": one.unit_id,
                "answers": one.spoke,
                "found": [
                    {"range": str(span), "start": span.start, "values": values}
                    for span, values in one.found
                ],
                "missing": [str(span) for span in one.missing],
                "unknown": [str(span) for span in one.left],
                "given_up": one.given_up or None,
            }
            for one in scans
        ],
    }
