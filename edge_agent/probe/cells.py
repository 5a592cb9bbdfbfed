"""Other settings in the cells of a map's CSV file, and no other byte changed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from edge_agent.address_map.cells import TYPES_OF_ONE_REGISTER
from edge_agent.address_map.check import check
from edge_agent.address_map.table import DELIMITERS, read
from edge_agent.errors import ConfigError
from edge_agent.model import Tag
from edge_agent.probe.interpretations import SHORT_NAMES, Setting, setting_of, shown_order

ZIP: Final = b"PK\x03\x04"
"""How a workbook begins."""


@dataclass(frozen=True, slots=True)
class Change:
    """One cell that became another; ``line`` is where its row begins."""

    line: int
    tag: Tag
    column: str
    before: str
    after: str


class _Cell(NamedTuple):
    """A cell's characters in the file's text, without its quotes."""

    start: int
    end: int
    text: str


_MARKS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_LINE_END: Final = re.compile(r"\r\n?|\n")


def rewrite(
    data: bytes, wanted: Mapping[tuple[str, str, str], Setting]
) -> tuple[bytes, list[Change]]:
    """A CSV file with other settings in the rows of these keys (site, device, tag), no byte else.

    Raises ``ConfigError`` if the file is a workbook, or can't be changed without more.
    """
    if data.startswith(ZIP):
        raise ConfigError(
            "a workbook can't be changed in single cells",
            hint="save the sheet as 'CSV UTF-8 (*.csv)', or type the new settings into it",
        )
    mark, encoding, text = _text_of(data)
    table = read(data)
    before = check(table, None)
    records = _matching(text, {row.line: row.cells for row in table.rows})
    edits: list[tuple[int, int, str]] = []
    changes: list[Change] = []
    expected = list(before.tags)
    for at, (line, tag) in enumerate(zip(before.lines, before.tags, strict=True)):
        if tag.key not in wanted:
            continue
        setting = wanted[tag.key]
        for column, after in _new_cells(tag, setting, records[line], table.index).items():
            cell = records[line][table.index[column]]
            edits.append(_edit(cell, after))
            changes.append(Change(line, tag, column, cell.text.strip(), after))
        order = tag.byte_order
        if setting_of(replace(tag, type=setting.type)) != setting:
            order = setting.byte_order
        expected[at] = replace(tag, type=setting.type, byte_order=order)
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    result = mark + text.encode(encoding)
    after_all = check(read(result), None)
    if after_all.problems or after_all.tags != expected:
        raise ConfigError("the changed map would not read back as meant; it was left as it is")
    return result, changes


def can_be_written(data: bytes, tag: Tag, setting: Setting) -> str:
    """Why a setting can't be put into this file; empty if it can."""
    own = setting_of(replace(tag, type=setting.type))
    if own != setting and "byte_order" not in read(data).index:
        return (
            "the map has no column byte_order; add one, whose empty cells mean ABCD, and probe"
            " again"
        )
    return ""


def _text_of(data: bytes) -> tuple[bytes, str, str]:
    """Byte order mark, encoding and text of a file that `read` accepts."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return mark, encoding, data.removeprefix(mark).decode(encoding)
    try:
        return b"", "utf-8", data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("cp949")
    if text.encode("cp949") != data:
        raise ConfigError(
            "the file holds characters of CP949 that can't be written back byte for byte",
            hint="save it as 'CSV UTF-8 (*.csv)'",
        )
    return b"", "cp949", text


def _matching(text: str, rows: Mapping[int, Sequence[str]]) -> Mapping[int, Sequence[_Cell]]:
    """The records of a text by line, split so that they are the rows that the reader saw."""
    for delimiter in DELIMITERS:
        records = dict(_records(text, delimiter))
        if all(
            line in records and [cell.text for cell in records[line]] == list(cells)
            for line, cells in rows.items()
        ):
            return records
    raise ConfigError("the cells of this file can't be told apart with certainty; it was left")


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[_Cell]]]:
    """Line and cells of each record; ends where quotes do not pair up."""
    plain = re.compile(f"[^{delimiter}\r\n]*")
    quoted = re.compile(r'"((?:[^"]|"")*)"')
    position, line, first = 0, 1, 1
    cells: list[_Cell] = []
    while position < len(text) or cells:
        if match := quoted.match(text, position):
            cells.append(_Cell(match.start(1), match.end(1), match[1].replace('""', '"')))
            line += len(_LINE_END.findall(match[1]))
        elif match := plain.match(text, position):
            cells.append(_Cell(match.start(), match.end(), match[0]))
        position = match.end() if match else len(text)
        if text.startswith(delimiter, position):
            position += 1
            continue
        end = _LINE_END.match(text, position)
        if end is None and position < len(text):
            return
        yield first, cells
        cells, line = [], line + 1
        first, position = line, end.end() if end else len(text)


def _new_cells(
    tag: Tag, setting: Setting, record: Sequence[_Cell], index: Mapping[str, int]
) -> dict[str, str]:
    """By column, the cells of a row that have to be others."""
    new: dict[str, str] = {}
    if setting.type != tag.type:
        new["type"] = str(setting.type)
    now = record[index["byte_order"]].text.strip().upper() if "byte_order" in index else ""
    same = setting_of(replace(tag, type=setting.type)) == setting
    too_short = now in SHORT_NAMES.values() and setting.type not in TYPES_OF_ONE_REGISTER
    if not same or too_short:
        new["byte_order"] = shown_order(setting)
    return new


def _edit(cell: _Cell, after: str) -> tuple[int, int, str]:
    """Start, end and new text; spaces around the old text are kept."""
    inner = cell.text.strip()
    start = cell.start + len(cell.text) - len(cell.text.lstrip()) if inner else cell.start
    return (start, start + len(inner), after) if inner else (cell.start, cell.end, after)
