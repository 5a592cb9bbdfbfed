"""The first sheet of an Excel workbook as rows of text."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO

from edge_agent.address_map.problems import UnreadableFileError

UNPACKED_BYTES_MAX = 256 * 1024 * 1024
"""A workbook of 100,000 rows unpacks to about 100 MB; a zip bomb to anything."""

ROWS_MAX = 1_048_576
"""Excel's own limit; a damaged row number must not make us walk through a billion empty rows."""

INTEGER_FLOAT_MAX = 1e15
"""Up to here Excel shows every digit of a whole number; beyond, the shortest float text is used."""

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


def read_rows(data: bytes) -> list[Sequence[object]]:
    """Every row of the first sheet from row 1 on, as Excel stores its cells.

    Formulas give the value that was last computed. Raises ``UnreadableFileError``.
    """
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
                if not book.worksheets:
                    raise UnreadableFileError("the workbook has no sheet with cells")
                sheet = book.worksheets[0]
                sheet.reset_dimensions()  # the stored extent is often wrong; the cells are not
                return list(sheet.iter_rows(max_row=ROWS_MAX, values_only=True))
            finally:
                book.close()
    except (*_DAMAGE, InvalidFileException) as error:
        raise UnreadableFileError(
            "this is not a readable Excel workbook; open it in Excel and save it again as"
            " 'CSV UTF-8 (*.csv)' or 'Excel Workbook (*.xlsx)'"
        ) from error


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


def numbered(rows: Sequence[Sequence[object]]) -> Iterator[tuple[int, Sequence[object]]]:
    """The rows that hold something, with the row number Excel shows."""
    for number, values in enumerate(rows, start=1):
        if any(
            value is not None and not (isinstance(value, str) and not value.strip())
            for value in values
        ):
            yield number, values
