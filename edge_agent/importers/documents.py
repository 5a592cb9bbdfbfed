"""From a file's bytes to a document: text, JSON, TOML, or a table of a CSV file or workbook. Pure.

Files of other systems are untrusted: they may be of any size below the caller's bound, in any
encoding, nested to any depth. Whatever is wrong with a whole file is a ``ConfigError``.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from edge_agent.address_map import workbook
from edge_agent.address_map.problems import UnreadableFileError
from edge_agent.errors import ConfigError

ZIP: Final = b"PK\x03\x04"
"""How a workbook begins."""
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
HEADER_LINES_MAX: Final = 20
"""A header stands on the first line that is not blank; some tools write a title above it."""


def decode(data: bytes) -> str:
    """The text of a file: UTF-8, UTF-16 with a byte order mark, CP949, or Windows-1252."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.removeprefix(mark).decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # As the map's reader does: Korean text has two such bytes side by side in nearly every word
        if re.search(rb"[\x80-\xff]{2}", data):
            try:
                return data.decode("cp949")
            except UnicodeDecodeError:
                pass
        return data.decode("cp1252", "replace")


def parse_json(data: bytes) -> object:
    """A JSON document. Raises ``ConfigError`` with line and column."""
    try:
        return orjson.loads(decode(data))
    except orjson.JSONDecodeError as error:
        raise ConfigError(
            f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        ) from error


def parse_toml(data: bytes) -> dict[str, object]:
    """A TOML document. Raises ``ConfigError``, with line and column where they are known."""
    try:
        return tomllib.loads(decode(data))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError("not TOML that can be read: nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"not TOML that can be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a table. ``line`` is the line of the file or the row of the sheet."""

    line: int
    cells: Sequence[str]


def read_records(data: bytes) -> Iterator[Record]:
    """The records of a CSV file or of a workbook's first sheet that are not blank."""
    return _sheet(data) if data.startswith(ZIP) else _csv(decode(data))


def _sheet(data: bytes) -> Iterator[Record]:
    try:
        rows = workbook.read_rows(data)
    except UnreadableFileError as error:
        raise ConfigError(str(error)) from error
    for line, values in workbook.numbered(rows):
        yield Record(line, workbook.texts(values)[0])


def _csv(text: str) -> Iterator[Record]:
    header = next((line for line in text.splitlines()[:HEADER_LINES_MAX] if line.strip()), "")
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield Record(line, cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise ConfigError(f"line {line}: not CSV: {error}") from error


@dataclass(slots=True)
class Sheet:
    """A table whose columns are known by name. ``columns`` is a column's place, by its key."""

    columns: dict[str, int]
    records: list[Record]

    def cell(self, record: Record, column: str) -> str:
        """A cell without spaces around it; empty if the table or the record has not got it."""
        at = self.columns.get(column)
        return "" if at is None or at >= len(record.cells) else record.cells[at].strip()

    def place_of(self, column: str) -> str:
        """A column as a spreadsheet names it: A, B, ... AA."""
        at, letters = self.columns.get(column, 0) + 1, ""
        while at:
            at, letter = divmod(at - 1, 26)
            letters = chr(ord("A") + letter) + letters
        return letters


def column_key(name: str) -> str:
    """A column's name with capitals, spaces, dots and underscores away: `Eng. Units` = engunits."""
    return re.sub(r"[\s._]+", "", name).lower()


def tag_sheet(data: bytes, wanted: frozenset[str], what: str) -> Sheet:
    """The table of a tag export, which has all of these columns.

    ``what`` says in words whose export was expected, and which columns. Raises ``ConfigError``.
    """
    sheet = find_sheet(data, wanted)
    if sheet is None:
        raise ConfigError(f"not a tag export of {what}")
    return sheet


def find_sheet(data: bytes, wanted: frozenset[str]) -> Sheet | None:
    """The table below the first line that has all of these columns; ``None`` if none has."""
    records = read_records(data)
    for _ in range(HEADER_LINES_MAX):
        header = next(records, None)
        if header is None:
            return None
        columns: dict[str, int] = {}
        for at, name in enumerate(header.cells):
            columns.setdefault(column_key(name), at)
        if wanted <= columns.keys():
            return Sheet(columns, list(records))
    return None
