"""The first sheet of an Excel workbook as rows of text.

Excel shows more than a file has values for: a formula that no spreadsheet program has computed
yet, and the cells beside the one that holds the value of a merged range. Both are empty in the
file. `read_sheet` tells which they are, so that nobody takes them for cells that were left empty.
"""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import product
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final

from edge_agent.address_map.problems import UnreadableFileError

if TYPE_CHECKING:
    from openpyxl import Workbook

UNPACKED_BYTES_MAX = 256 * 1024 * 1024
"""A workbook of 100,000 rows unpacks to about 100 MB; a zip bomb to anything."""

ROWS_MAX = 1_048_576
"""Excel's own limit; a damaged row number must not make us walk through a billion empty rows."""

INTEGER_FLOAT_MAX = 1e15
"""Up to here Excel shows every digit of a whole number; beyond, the shortest float text is used."""

CELLS_TOLD_MAX = 100_000
"""Of formulas, and of merged cells, looked at for a value: one a row of the largest map. A file may
name any number of them, and nobody corrects more."""

SHEETS_LOOKED_AT_MAX = 20
"""For a header, where the first sheet has none; a workbook of more is not a map with a cover."""

_SCANNED_BYTES: Final = 1 << 20
_MARK_BYTES_MAX: Final = 64
_MARK: Final = re.compile(rb"<(?:\w+:)?(?:f|mergeCell)[\s/>]")
"""How a formula and a merged range begin in a sheet's XML."""

_NOTHING: Final[Mapping[int, Any]] = MappingProxyType({})
_NO_VALUE: Final = (
    "the file holds a formula here and not its value; open the workbook in Excel and save it, or"
    " paste the value in place of the formula"
)

_FORMULA_ERRORS = {"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!"}

# What openpyxl lets through from zipfile, zlib and ElementTree when a workbook is damaged. It has
# no exception of its own for that.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet's rows from row 1 on, as Excel stores their cells.

    ``valueless`` says, by row number and cell index, why a cell shows something in Excel and is
    empty in the file.
    """

    rows: list[Sequence[object]]
    valueless: Mapping[int, Mapping[int, str]] = field(default_factory=dict)


def read_sheet(data: bytes) -> Sheet:
    """The first sheet. Formulas give the value that was last computed.

    Raises ``UnreadableFileError``.
    """
    with _opened(data) as book:
        if not book.worksheets:
            raise UnreadableFileError("the workbook has no sheet with cells")
        rows = _rows(book, 0, ROWS_MAX)
        return Sheet(rows, _valueless(book, rows))


def read_rows(data: bytes) -> list[Sequence[object]]:
    """The rows of `read_sheet` alone."""
    return read_sheet(data).rows


def other_sheets(data: bytes, rows_max: int) -> list[tuple[str, list[Sequence[object]]]]:
    """Name and first rows of the sheets after the first. Raises ``UnreadableFileError``."""
    with _opened(data) as book:
        titles = [sheet.title for sheet in book.worksheets[:SHEETS_LOOKED_AT_MAX]]
        return [
            (title, _rows(book, index, rows_max)) for index, title in enumerate(titles) if index
        ]


@contextmanager
def _opened(data: bytes) -> Iterator[Workbook]:
    """The workbook; whatever its damage makes openpyxl raise becomes ``UnreadableFileError``."""
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
        if unpacked_bytes > UNPACKED_BYTES_MAX:
            raise UnreadableFileError(
                f"the workbook unpacks to {unpacked_bytes} bytes, allowed are {UNPACKED_BYTES_MAX};"
                " save the sheet with the map as a workbook of its own"
            )
        with warnings.catch_warnings():
            # openpyxl warns of styles and extensions that it skips; none of them holds a value.
            warnings.simplefilter("ignore")
            book = load_workbook(BytesIO(data), read_only=True, data_only=True)
            try:
                yield book
            finally:
                book.close()
    except (*_DAMAGE, InvalidFileException) as error:
        raise UnreadableFileError(
            "this is not a readable Excel workbook; open it in Excel and save it again as"
            " 'CSV UTF-8 (*.csv)' or 'Excel Workbook (*.xlsx)'"
        ) from error


def _rows(book: Workbook, index: int, rows_max: int) -> list[Sequence[object]]:
    sheet = book.worksheets[index]
    sheet.reset_dimensions()  # the stored extent is often wrong; the cells are not
    return list(sheet.iter_rows(max_row=rows_max, values_only=True))


def _valueless(book: Workbook, rows: Sequence[Sequence[object]]) -> dict[int, dict[int, str]]:
    """What `Sheet` says of the first sheet, of at most CELLS_TOLD_MAX cells."""
    sheet: Any = book.worksheets[0]
    # openpyxl gives a sheet's XML to nobody, and what it makes of it has neither of the two.
    with sheet._get_source() as xml:  # noqa: SLF001
        if not _has_mark(xml):
            return {}
    with sheet._get_source() as xml:  # noqa: SLF001
        formulas, merged = _marked(xml)
    found: dict[int, dict[int, str]] = {}
    for number, index in formulas:
        found.setdefault(number, {})[index] = _NO_VALUE
    _add_merged(found, merged, rows)
    return found


def _has_mark(xml: IO[bytes]) -> bool:
    """Whether a sheet has a formula or a merged range at all. Most maps have neither."""
    seen = b""
    while chunk := xml.read(_SCANNED_BYTES):
        seen = seen[-_MARK_BYTES_MAX:] + chunk
        if _MARK.search(seen):
            return True
    return False


def _marked(xml: IO[bytes]) -> tuple[list[tuple[int, int]], list[str]]:
    """Row number and cell index of the formulas that have no value, and all merged ranges."""
    from openpyxl.xml.functions import iterparse

    formulas: list[tuple[int, int]] = []
    merged: list[str] = []
    number = 0
    for _, element in iterparse(xml):
        kind = element.tag.rpartition("}")[2]
        if kind == "row":
            number = int(element.get("r", number + 1))
            if len(formulas) < CELLS_TOLD_MAX:
                formulas += ((number, index) for index in _formulas_in(element))
            element.clear()
        elif kind == "mergeCell" and len(merged) < CELLS_TOLD_MAX:
            merged.append(element.get("ref"))
            element.clear()
    return formulas, merged


def _formulas_in(row: Any) -> Iterator[int]:
    """Indexes of the cells of a row element whose formula has no value."""
    from openpyxl.utils.cell import coordinate_to_tuple

    index = -1
    for cell in row:
        place = cell.get("r")
        index = index + 1 if place is None else coordinate_to_tuple(place)[1] - 1
        held = {part.tag.rpartition("}")[2]: part.text for part in cell}
        # A formula may have computed an empty text: that is a value, stored as such.
        is_empty_text = cell.get("t") == "str" and "v" in held
        if "f" in held and not held.get("v") and not is_empty_text:
            yield index


def _add_merged(
    found: dict[int, dict[int, str]], merged: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    """Add the cells that lie under the shown value of a merged range, as far as there are rows."""
    from openpyxl.utils.cell import get_column_letter, range_boundaries

    width = max(map(len, rows), default=0)
    left = CELLS_TOLD_MAX
    for ref in merged:
        first_column, first_row, last_column, last_row = (at or 0 for at in range_boundaries(ref))
        if not first_column or not first_row:  # of no rows or columns in particular: not Excel's
            continue
        columns = range(first_column - 1, min(last_column, width))
        numbers = range(first_row, min(last_row, len(rows)) + 1)
        if not columns or not numbers or not _shows(found, rows, first_row, columns[0]):
            continue
        place = f"{get_column_letter(first_column)}{first_row}"
        reason = f"the cell is merged with {place}; unmerge them and write the value into each"
        for number, index in product(numbers, columns):
            if not _shows(found, rows, number, index):
                found.setdefault(number, {})[index] = reason
            left -= 1
            if not left:
                return


def _shows(
    found: Mapping[int, Mapping[int, str]],
    rows: Sequence[Sequence[object]],
    number: int,
    index: int,
) -> bool:
    """Whether Excel shows anything in a cell."""
    values = rows[number - 1]
    held = index < len(values) and not _is_blank(values[index])
    return held or index in found.get(number, {})


def texts(
    values: Sequence[object], columns: Sequence[str] = ()
) -> tuple[list[str], dict[int, str]]:
    """A row's cells as text, and by cell index why a cell can't be taken as text."""
    cells: list[str] = []
    unreadable: dict[int, str] = {}
    for index, value in enumerate(values):
        text = _text(value)
        cells.append(text)
        reason = _unreadable(value, text, columns[index] if index < len(columns) else "")
        if reason:
            unreadable[index] = reason
    return cells, unreadable


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < INTEGER_FLOAT_MAX:
        return str(int(value))
    return str(value)


def _unreadable(value: object, text: str, column: str) -> str:
    if isinstance(value, str):
        if value in _FORMULA_ERRORS:
            return "the formula in this cell has an error; write the value itself"
        return ""
    if value is not None and not isinstance(value, bool | int | float):
        return (
            "Excel has turned this cell into a date or time; format the column as Text"
            " and write the value again"
        )
    if column == "address" and isinstance(value, float) and text.endswith(".1"):
        # 40001.10, bit 10, typed into a number cell is stored as 40001.1, bit 1.
        return (
            f"a number cell can't tell {text} from {text}0; format the column as Text"
            " and write the address again"
        )
    return ""


def numbered(
    rows: Sequence[Sequence[object]], valueless: Mapping[int, Mapping[int, str]] = _NOTHING
) -> Iterator[tuple[int, Sequence[object]]]:
    """The rows that hold something, with the row number Excel shows.

    Of those that hold nothing but ``valueless`` cells, as in `Sheet`, the rows of formulas count.
    """
    for number, values in enumerate(rows, start=1):
        if not all(map(_is_blank, values)) or _NO_VALUE in valueless.get(number, _NOTHING).values():
            yield number, values


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
