"""From a file's bytes to a header and rows of text, whatever Excel made of them.

What a file is, its first bytes say; its name is not asked. Problems of single rows are collected,
so that one bad row never hides the next.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice

from edge_agent.address_map import workbook
from edge_agent.address_map.columns import COLUMNS, REQUIRED_COLUMNS
from edge_agent.address_map.problems import Problem, UnreadableFileError, shown
from edge_agent.address_map.split import is_split

DELIMITERS = (",", ";", "\t")
"""Excel writes a comma; where that is the decimal sign, a semicolon; as "Unicode Text", a tab."""

NAME_LIKENESS_MIN = 0.6
"""From here on difflib finds the column that a misspelt name means, and seldom a wrong one."""

HEADER_ROWS_MAX = 20
"""How far down a header is looked for: below a title, who wrote it, a legend."""

HEADER_NAMES_MIN = 4
"""So many columns a header names that does not stand at the top. A title or a row of data may hold
a word or two that are names of columns."""

NULL_BYTES_SHARE_MAX = 0.1
"""Text has none; a damaged line has some, which its cells report; UTF-16 has one in two bytes."""

_ZIP = b"PK\x03\x04"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": ("utf-8", "UTF-8"),
    b"\xff\xfe": ("utf-16-le", "UTF-16"),
    b"\xfe\xff": ("utf-16-be", "UTF-16"),
}
_BLANK = " \t\r\n\v\f\xa0\u3000,;"
_SEPARATOR_HINT = re.compile(r'"?sep=([,;\t])"?\s*')
_LINE_END = re.compile(r"\r\n?|\n")
_COLUMNS = frozenset(COLUMNS)
_HEADER = f"the first line must name the columns: {','.join(REQUIRED_COLUMNS)}"
_SAVE_AS = "in Excel, save it as 'CSV UTF-8 (Comma delimited) (*.csv)'"


@dataclass(frozen=True, slots=True)
class Row:
    """One record that is not blank. ``unreadable`` says by cell index why a cell has no text."""

    line: int
    cells: list[str]
    unreadable: Mapping[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class Table:
    """A file's rows. ``index`` is the position of each known column's cell in every row."""

    index: dict[str, int] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read(data: bytes) -> Table:
    """Read a whole file. Raises ``UnreadableFileError`` if it is neither text nor a workbook."""
    if data.startswith(_ZIP):
        return _read_workbook(data)
    if data.startswith(_OLE):
        raise UnreadableFileError(
            "this is an Excel 97-2003 workbook (.xls) or one with a password;"
            " save it without a password as 'Excel Workbook (*.xlsx)' or 'CSV UTF-8 (*.csv)'"
        )
    return _read_csv(_decode(data))


def _decode(data: bytes) -> str:
    """The text of a CSV file: UTF-8, UTF-16 with a byte order mark, or CP949."""
    for mark, (encoding, public_name) in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            promise = f"{public_name}, which its byte order mark promises"
            return _decode_as(data.removeprefix(mark), encoding, promise)
    if data.count(b"\0") > len(data) * NULL_BYTES_SHARE_MAX:
        raise UnreadableFileError(
            "this is not a text file, or it is UTF-16 without a byte order mark; allowed: UTF-8,"
            f" UTF-16 with a byte order mark, CP949 and .xlsx; {_SAVE_AS}"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        valid_utf8_bytes = error.start
    if not re.search(rb"[\x80-\xff]{2}", data):
        # Korean text has such neighbours in nearly every word. The "°C" of a Western Excel has
        # not, and CP949 would take it for a Hangul syllable without complaint.
        raise UnreadableFileError(
            "the file is in a Western encoding (Windows-1252 or the like), as Excel's plain 'CSV'"
            f" writes it; {_SAVE_AS}",
            line=_line_after(data[:valid_utf8_bytes].decode("utf-8")),
        )
    return _decode_as(
        data, "cp949", "UTF-8, UTF-16 with a byte order mark, or CP949", valid_utf8_bytes
    )


def _decode_as(data: bytes, encoding: str, promise: str, valid_utf8_bytes: int = 0) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        # Whichever encoding was meant, its first wrong byte is the one further down.
        if valid_utf8_bytes > error.start:
            start, before = valid_utf8_bytes, data[:valid_utf8_bytes].decode("utf-8")
        else:
            start, before = error.start, data[: error.start].decode(encoding, "ignore")
        raise UnreadableFileError(
            f"the file is not {promise}: it can't be read from the bytes"
            f" {data[start : start + 4].hex(' ')} on; {_SAVE_AS}",
            line=_line_after(before),
        ) from error


def _line_after(before: str) -> int:
    return len(_LINE_END.findall(before)) + 1


def _read_csv(text: str) -> Table:
    # newline="" ends a line at \n, \r\n and \r, and keeps the ends for quoted cells.
    lines = list(io.StringIO(text, newline=""))
    first, delimiter = _dialect(lines)
    records, problems = _records(lines, first, delimiter)
    at = _header_at(records)
    table = _table(records, at, problems)
    if table.index:
        names = _names(records[at])
        columns_max = len(records[at].cells)
        for record in records[at + 1 :]:
            count = len(record.cells)
            if (
                count < len(names)
                or (count > len(names) and len(_without_empty_end(record.cells)) > len(names))
                or (count > columns_max and delimiter == "," and is_split(record.cells, names))
            ):
                table.problems.append(_wrong_length(record, names, delimiter))
            else:
                table.rows.append(record)
    return table


def _dialect(lines: Sequence[str]) -> tuple[int, str]:
    """Index of the first line that counts, and the delimiter: the one that finds most columns."""
    if lines and (hint := _SEPARATOR_HINT.fullmatch(lines[0])):
        return 1, hint[1]
    heads = list(islice((line for line in lines if line.strip(_BLANK)), HEADER_ROWS_MAX))

    def columns_found(delimiter: str) -> tuple[int, int]:
        rows = [[name.strip(' "\r\n') for name in line.split(delimiter)] for line in heads]
        return max(((_columns_in(names), len(names)) for names in rows), default=(0, 0))

    return 0, max(DELIMITERS, key=columns_found)


def _records(lines: Sequence[str], first: int, delimiter: str) -> tuple[list[Row], list[Problem]]:
    """Every record that is not blank, with the line on which it begins.

    After a record whose quotes are wrong, reading goes on with the line after its first one.
    """
    records: list[Row] = []
    problems: list[Problem] = []
    texts: dict[str, str] = {}  # the same text is kept once: a third of the memory
    while first < len(lines):
        reader = csv.reader(islice(lines, first, None), delimiter=delimiter, strict=True)
        lines_read = 0
        try:
            for cells in reader:
                if any(cell.strip(_BLANK) for cell in cells):
                    shared = [texts.setdefault(cell, cell) for cell in cells]
                    records.append(Row(first + lines_read + 1, shared))
                lines_read = reader.line_num
        except csv.Error as error:
            first += lines_read + 1
            text = shown(lines[first - 1].strip())
            problems.append(Problem(first, None, text, _quote_problem(error)))
        else:
            break
    return records, problems


def _quote_problem(error: csv.Error) -> str:
    if "field limit" in str(error):
        return (
            f"a cell is longer than {csv.field_size_limit()} characters; most likely a quote that"
            " opens here is never closed"
        )
    return (
        "the quotes do not pair up; a cell that holds a quote is written in quotes with that"
        ' quote doubled: "2"" pipe"'
    )


def _wrong_length(record: Row, names: Sequence[str], delimiter: str) -> Problem:
    count, width = len(record.cells), len(names)
    beyond = shown(delimiter.join(cell.strip() for cell in record.cells[width:] if cell.strip()))
    if count < width:
        advice = f"an empty cell needs its separator {delimiter!r} too"
    elif delimiter == "," and is_split(record.cells, names):
        advice = (
            "a comma within a number splits its cell in two: write 0.1 or 1200, and put text with"
            " commas in quotes"
        )
    elif delimiter == ",":
        advice = (
            f"no column name stands above {beyond!r}; delete it, or move it to a column"
            " description; text with commas stands in quotes"
        )
    else:
        advice = (
            f"no column name stands above {beyond!r}; delete it, or move it to a column description"
        )
    cells = "1 cell" if count == 1 else f"{count} cells"
    message = f"the row has {cells}, the header has {width}; {advice}"
    return Problem(record.line, None, shown(delimiter.join(record.cells)), message)


def _read_workbook(data: bytes) -> Table:
    sheet = workbook.read_sheet(data)
    rows = list(workbook.numbered(sheet.rows, sheet.valueless))
    heads = [Row(number, workbook.texts(values)[0]) for number, values in rows[:HEADER_ROWS_MAX]]
    at = _header_at(heads)
    if not heads or _columns_in(heads[at].cells) < HEADER_NAMES_MIN:
        elsewhere = _header_elsewhere(data, heads)
        if elsewhere is not None:
            return Table(problems=[elsewhere])
    table = _table(heads, at, [])
    if table.index:
        names = _names(heads[at])
        for number, values in rows[at + 1 :]:
            cells, unreadable = workbook.texts(values, names)
            if len(_without_empty_end(cells)) > len(names):
                table.problems.append(_wrong_length(Row(number, cells), names, "\t"))
                continue
            cells += [""] * (len(names) - len(cells))  # the file stores no empty end
            if number in sheet.valueless:
                unreadable |= sheet.valueless[number]
            table.rows.append(Row(number, cells, unreadable))
    return table


def _header_elsewhere(data: bytes, heads: Sequence[Row]) -> Problem | None:
    """Another sheet has the header that the first one lacks."""
    try:
        sheets = workbook.other_sheets(data, HEADER_ROWS_MAX)
    except UnreadableFileError:  # none that could be moved to the front
        return None
    line, found = (heads[0].line, _shown_row(heads[0])) if heads else (None, None)
    for title, rows in sheets:
        if any(_columns_in(workbook.texts(values)[0]) >= HEADER_NAMES_MIN for values in rows):
            message = (
                f"the first sheet has no header, and sheet {shown(title)!r} has one; move that"
                " sheet before all others, hidden ones too"
            )
            return Problem(line, None, found, message)
    return None


def _columns_in(cells: Sequence[str]) -> int:
    """How many columns a row names. Capitals don't matter: no two columns differ by them alone."""
    return len(_COLUMNS.intersection([cell.strip().lower() for cell in cells]))


def _header_at(records: Sequence[Row]) -> int:
    """Index of the header: the first record, unless one below it is a header and it is not."""
    heads = [_columns_in(record.cells) for record in records[:HEADER_ROWS_MAX]] or [0]
    at = heads.index(max(heads))
    return at if heads[at] >= HEADER_NAMES_MIN else 0


def _names(header: Row) -> list[str]:
    return [name.strip().lower() for name in _without_empty_end(header.cells)]


def _shown_row(record: Row) -> str:
    return shown(", ".join(cell.strip() for cell in _without_empty_end(record.cells)))


def _table(records: Sequence[Row], at: int, problems: list[Problem]) -> Table:
    """A table without rows yet; the header is ``records[at]``.

    Its index stays empty if there is no header to go by.
    """
    table = Table(problems=problems)
    if not records:
        if not problems:
            problems.append(Problem(None, None, None, f"the file is empty; {_HEADER}"))
        return table
    header = records[at]
    found = _shown_row(records[0])
    if not _columns_in(header.cells):
        if not any(problem.line and problem.line < header.line for problem in problems):
            problems.append(Problem(header.line, None, found, f"this is no header; {_HEADER}"))
        return table
    if at:
        message = f"the header stands in line {header.line}; delete the lines above it"
        problems.append(Problem(records[0].line, None, found, message))
    for position, name in enumerate(_names(header)):
        if name in table.index:
            first, second = table.index[name] + 1, position + 1
            message = f"the column stands twice, as number {first} and {second}; delete one of them"
            problems.append(Problem(header.line, header.cells[position].strip(), None, message))
        elif name in COLUMNS:
            table.index[name] = position
    _check_names(header, table)
    return table


def _check_names(header: Row, table: Table) -> None:
    """Report unknown and missing columns; a misspelt one is not reported as missing too."""
    known = f"known columns: {', '.join(COLUMNS)}"
    # A column that stands there already can't be the one that a misspelt name means.
    absent = [name for name in COLUMNS if name not in table.index]
    line = header.line
    for position, cell in enumerate(_without_empty_end(header.cells), start=1):
        name = cell.strip()
        if name.lower() in COLUMNS:
            continue
        if not name:
            message = f"column number {position} has no name; name it or delete it; {known}"
            table.problems.append(Problem(line, None, None, message))
            continue
        plain = re.sub(r"[\s-]+", "_", name.lower())
        nearest = get_close_matches(plain, absent, 1, NAME_LIKENESS_MIN)
        if nearest:
            absent.remove(nearest[0])
        advice = f"write {nearest[0]}" if nearest else known
        table.problems.append(Problem(line, shown(name), None, f"unknown column; {advice}"))
    for name in absent:
        if about := REQUIRED_COLUMNS.get(name):
            message = f"the column is missing; add it to the header ({about})"
            table.problems.append(Problem(line, name, None, message))


def _without_empty_end(cells: Sequence[str]) -> Sequence[str]:
    """Excel fills rows up with empty cells; those at the end mean nothing."""
    end = len(cells)
    while end and not cells[end - 1].strip():
        end -= 1
    return cells[:end]
