from __future__ import annotations

import csv
import io
import json
import os
import re
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from zipfile import ZipFile

import openpyxl
import pytest

from edge_agent import address_map, protocols
from edge_agent.address_map import COLUMNS_VERSION, MapError, Problem, load, write
from edge_agent.address_map.cells import ALLOWED, ENABLED, NAME_CHARS_MAX, TEXT_CHARS_MAX
from edge_agent.errors import ConfigError
from edge_agent.model import Address, AddressSyntax, ByteOrder, Limits, Tag, ValueType
from tests.tags import plain_tag

ROOT = Path(__file__).parents[2]
VALUES = {
    "site": "A1",
    "line": "L1",
    "device": "PUMP01",
    "tag": "PRESS",
    "protocol": "modbus",
    "conn": "tcp://10.0.0.5:502",
    "unit_id": "1",
    "address": "40001",
    "type": "FLOAT32",
    "scale": "0.1",
    "offset": "-5",
    "period_ms": "1000",
    "unit": "bar",
    "hi": "10",
    "lo": "0",
}
REQUIRED = list(VALUES)
OPTIONAL = ["byte_order", "deadband", "precision", "heartbeat_ms", "enabled", "description"]
TAG = plain_tag(address="40001", scale=0.1, offset=-5.0, hi=10.0, lo=0.0)

Cell = str | float | bool | datetime | None
Write = Callable[[str | bytes], Path]
NO_CHANGE: Mapping[str, str] = {}


class SmallSyntax:
    """An address syntax of five lines: `conn` begins with tcp://, `address` is a number."""

    @staticmethod
    def parse_conn(conn: str) -> object:
        if not conn.startswith("tcp://"):
            raise ValueError("expected tcp://HOST:PORT")
        return conn

    @staticmethod
    def parse_address(address: str, value_type: ValueType) -> Address:
        if not address.isdecimal():
            raise ValueError(f"expected a number for {value_type}")
        return Address("cells", int(address))

    @staticmethod
    def limits(conn: str, area: str) -> Limits:
        return Limits(1, 0)


def small_syntax(name: str) -> type[AddressSyntax]:
    if name != "modbus":
        raise ConfigError(f"unknown protocol {name!r}; allowed: modbus")
    return SmallSyntax


def text(*rows: Mapping[str, str], delimiter: str = ",", columns: list[str] | None = None) -> str:
    """A map's text: one row per argument, which says what differs from VALUES."""
    changed = {column for row in rows for column in row if column in OPTIONAL}
    columns = columns or [*REQUIRED, *sorted(changed)]
    out = io.StringIO()
    writer = csv.DictWriter(
        out, columns, restval="", delimiter=delimiter, lineterminator="\n", extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows({**VALUES, **row} for row in rows)
    return out.getvalue()


@pytest.fixture
def put(tmp_path: Path) -> Write:
    """Writes a file and gives its path."""

    def put(content: str | bytes) -> Path:
        path = tmp_path / "address_map.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return put


def problems(path: Path, syntax: Callable[[str], type[AddressSyntax]] | None = None) -> list[str]:
    with pytest.raises(MapError) as caught:
        load(path, syntax)
    return [str(problem) for problem in caught.value.problems]


# --- what a valid map gives


def test_a_row_becomes_a_tag(put: Write) -> None:
    """Cells arrive in the tag's fields, with the optional columns at their defaults."""
    loaded = load(put(text(NO_CHANGE)))
    assert loaded.tags == (TAG,)
    assert loaded.disabled == 0


def test_optional_columns(put: Write) -> None:
    """Every optional column reaches the tag; a heartbeat may be as short as the period."""
    row = {
        "byte_order": "CDAB",
        "deadband": "0.5",
        "precision": "2",
        "heartbeat_ms": "1000",
        "enabled": "yes",
        "description": "토출 압력",
    }
    tag = load(put(text(row))).tags[0]
    assert tag.byte_order is ByteOrder.CDAB
    assert (tag.deadband, tag.precision, tag.heartbeat_ms) == (0.5, 2, 1000)
    assert tag.description == "토출 압력"


def test_empty_cells_take_defaults(put: Write) -> None:
    """unit_id 1, scale 1, offset 0, no limits, no unit; optional cells likewise."""
    empty = dict.fromkeys(["unit_id", "scale", "offset", "unit", "hi", "lo", *OPTIONAL], "")
    tag = load(put(text(empty))).tags[0]
    assert (tag.unit_id, tag.scale, tag.offset, tag.unit, tag.hi, tag.lo) == (
        1,
        1,
        0,
        "",
        None,
        None,
    )
    assert (tag.byte_order, tag.deadband, tag.precision) == (ByteOrder.ABCD, 0, None)
    assert (tag.heartbeat_ms, tag.description) == (None, "")


def test_column_order_is_free(put: Write) -> None:
    """Columns are found by name."""
    assert load(put(text(NO_CHANGE, columns=REQUIRED[::-1]))).tags == (TAG,)


def test_sha256_is_of_the_bytes(put: Write) -> None:
    """The checksum names the file as it lies on disk, so that a copy can be recognised."""
    first = load(put(text(NO_CHANGE)))
    again = load(put("\ufeff" + text(NO_CHANGE)))
    assert first.tags == again.tags
    assert first.sha256 != again.sha256
    assert re.fullmatch("[0-9a-f]{64}", first.sha256)


@pytest.mark.parametrize("word", [*ENABLED, "TRUE", "No"])
def test_enabled_words(put: Write, word: str) -> None:
    """Yes and no in the ways in which Excel and people say them; disabled rows are counted."""
    loaded = load(put(text({"enabled": word}, {"tag": "OTHER"})))
    enabled = ENABLED[word.lower()]
    assert len(loaded.tags) == 1 + enabled
    assert loaded.disabled == 1 - enabled


def test_a_disabled_row_is_checked_like_the_others(put: Write) -> None:
    """Switching a row on can't make a valid map invalid."""
    assert problems(put(text({"enabled": "no", "period_ms": "1"}, {"enabled": "no"}))) == [
        (
            "line 2, column period_ms, '1': below 200; allowed: a whole number of milliseconds from"
            " 200 to 86400000"
        ),
        (
            "line 3, column tag, 'PRESS': A1/PUMP01/PRESS stands on line 2 already; site, device"
            " and tag together must be unique; rename or delete one of the two"
        ),
    ]


@pytest.mark.parametrize(
    ("value_type", "short", "order"),
    [
        *((t, "AB", "ABCD") for t in ("BOOL", "INT8", "UINT8", "INT16", "UINT16", "BCD16")),
        *((t, "BA", "BADC") for t in ("BOOL", "INT8", "UINT8", "INT16", "UINT16", "FLOAT16")),
        ("FLOAT32", "dcba", "DCBA"),
        ("FLOAT64", "BADC", "BADC"),
    ],
)
def test_byte_orders(put: Write, value_type: str, short: str, order: str) -> None:
    """AB and BA are the short words for types of one register; case does not matter."""
    tag = load(put(text({"type": value_type.lower(), "byte_order": short}))).tags[0]
    assert tag.type.value == value_type
    assert tag.byte_order.value == order


def test_names_are_composed(put: Write) -> None:
    """A name from macOS (NFD) and the same name from Windows (NFC) are one name."""
    composed = unicodedata.normalize("NFC", "펌프1")
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    assert load(put(text({"device": decomposed}))).tags[0].device == composed
    twice = problems(put(text({"device": composed}, {"device": decomposed})))
    assert twice[0].startswith("line 3, column tag, 'PRESS': A1/펌프1/PRESS stands on line 2")


def test_korean_names(put: Write) -> None:
    """Site, line, device, tag and unit may be Korean."""
    row = {"site": "1공장", "line": "가 라인", "device": "보일러", "tag": "증기 압력", "unit": "도"}
    tag = load(put(text(row))).tags[0]
    assert tag.series == ("1공장", "가 라인", "보일러", "증기 압력", "도")


def test_spaces_around_cells(put: Write) -> None:
    """Spaces nobody sees do no harm where they mean nothing; in names they are an error."""
    spaced = {
        column: f" {value} "
        for column, value in VALUES.items()
        if column not in ("site", "device", "tag")
    }
    assert load(put(text(spaced))).tags == (TAG,)


# --- files as Excel makes them

ENCODINGS = {
    "utf-8": lambda t: t.encode(),
    "utf-8-bom": lambda t: t.encode("utf-8-sig"),
    "utf-16-le": lambda t: b"\xff\xfe" + t.encode("utf-16-le"),
    "utf-16-be": lambda t: b"\xfe\xff" + t.encode("utf-16-be"),
    "cp949": lambda t: t.encode("cp949"),
}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_encodings_and_delimiters(
    put: Write, encode: Callable[[str], bytes], delimiter: str, line_end: str
) -> None:
    """Every encoding, delimiter and line end gives the same tags."""
    row = {"device": "보일러 똠", "unit": "°C", "description": "a, b; c"}
    content = text(row, delimiter=delimiter).replace("\n", line_end)
    tag = load(put(encode(content))).tags[0]
    assert (tag.device, tag.unit, tag.description) == ("보일러 똠", "°C", "a, b; c")


def test_separator_line(put: Write) -> None:
    """Excel's own first line ``sep=;`` is obeyed and is not the header."""
    assert load(put("sep=;\n" + text(NO_CHANGE, delimiter=";"))).tags == (TAG,)


def test_blank_lines_are_skipped(put: Write) -> None:
    """Empty lines and lines of delimiters count as lines of the file and as nothing else."""
    header, row = text({"period_ms": "1"}).splitlines()
    content = f"\n,,,\n{header},,\n\n{',' * 14}\n   \n{row},,\n\n"
    assert problems(put(content))[0].startswith("line 7, column period_ms, '1'")


def test_lines_are_physical_lines(put: Write) -> None:
    """A quoted line break is two lines of the file; a row is named by the first of its lines."""
    content = text({"description": "two\nlines"}, {"period_ms": "7", "tag": "B"})
    assert problems(put(content))[0].startswith("line 4, column period_ms, '7'")
    assert load(put(text({"description": "two\r\n lines"}))).tags[0].description == "two lines"


def workbook(path: Path, *rows: Sequence[Cell]) -> Path:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for number, row in enumerate(rows, start=1):
        for column, value in enumerate(row, start=1):
            if value is not None:
                sheet.cell(number, column, value)
    book.save(path)
    return path


def test_workbook(tmp_path: Path) -> None:
    """Numbers come as Excel stores them, empty rows count as rows, the first sheet is read."""
    numbers: list[Cell] = [
        "A1", "L1", "PUMP01", "PRESS", "modbus", "tcp://10.0.0.5:502",
        1.0, 40001, "FLOAT32", 0.1, -5, 1000.0, "bar", 10, 0, True,
    ]  # fmt: skip
    path = workbook(tmp_path / "map.xlsx", [], [*REQUIRED, "enabled"], [], numbers)
    assert load(path).tags == (TAG,)
    numbers[3], numbers[11] = 7, 100
    path = workbook(tmp_path / "map.xlsx", [], [*REQUIRED, "enabled"], [], numbers)
    assert problems(path)[0].startswith("line 4, column period_ms, '100': below 200")


def test_workbook_cells_that_excel_has_changed(tmp_path: Path) -> None:
    """A date, a formula error and a bit address that lost its zero are errors, not guesses."""
    row: list[Cell] = list(VALUES.values())
    row[3], row[7], row[12] = datetime(2025, 3, 1), 40001.1, "#N/A"  # noqa: DTZ001
    path = workbook(tmp_path / "map.xlsx", [*REQUIRED], row, [*VALUES.values(), "beyond"])
    assert problems(path) == [
        (
            "line 2, column tag, '2025-03-01 00:00:00': Excel has turned this cell into a date or"
            " time; format the column as Text and write the value again"
        ),
        (
            "line 2, column address, '40001.1': a number cell can't tell 40001.1 from 40001.10;"
            " format the column as Text and write the address again"
        ),
        (
            "line 2, column unit, '#N/A': the formula in this cell has an error; write the value"
            " itself"
        ),
        (
            f"line 3, {chr(9).join(VALUES.values())[:79] + '…'!r}: the row has 16 cells, the"
            " header has 15; no column name stands above 'beyond'; delete it, or move it to a"
            " column description"
        ),
    ]


def test_workbook_with_a_wrong_extent(tmp_path: Path) -> None:
    """Some programs store an extent that is too small; the rows beyond it are read all the same."""
    good = workbook(tmp_path / "good.xlsx", [*REQUIRED], [*VALUES.values()])
    path = tmp_path / "map.xlsx"
    with ZipFile(good) as source, ZipFile(path, "w") as target:
        for name in source.namelist():
            wrong = re.sub(rb'ref="A1:[A-Z]+2"', b'ref="A1:A1"', source.read(name))
            assert (wrong != source.read(name)) == (name == "xl/worksheets/sheet1.xml")
            target.writestr(name, wrong)
    assert load(path).tags == (TAG,)


def test_workbook_name_is_not_asked(tmp_path: Path) -> None:
    """What a file is, its bytes say: a workbook called .csv and a CSV called .xlsx both load."""
    book = workbook(tmp_path / "map.xlsx", [*REQUIRED], [*VALUES.values()])
    renamed = book.rename(tmp_path / "map.csv")
    assert load(renamed).tags == (TAG,)
    book.write_text(text(NO_CHANGE))
    assert load(book).tags == (TAG,)


def test_damaged_and_foreign_workbooks(tmp_path: Path) -> None:
    """What begins like a workbook and is none says what to save instead."""
    path = workbook(tmp_path / "map.xlsx", [*REQUIRED], [*VALUES.values()])
    path.write_bytes(path.read_bytes()[:-200])
    assert "not a readable Excel workbook" in problems(path)[0]
    with ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    assert "not a readable Excel workbook" in problems(path)[0]
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500))
    assert "Excel 97-2003 workbook (.xls) or one with a password" in problems(path)[0]


def test_zip_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workbook that unpacks to more than the limit is refused before it is unpacked."""
    path = workbook(tmp_path / "map.xlsx", [*REQUIRED], [*VALUES.values()])
    monkeypatch.setattr("edge_agent.address_map.workbook.UNPACKED_BYTES_MAX", 1000)
    assert re.search("unpacks to [0-9]+ bytes, allowed are 1000", problems(path)[0])


# --- files that are no map


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty; the first line must name the columns: site,line,"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"\n,,,\n;;\n", "the file is empty"),
        (b"hello\nworld\n", "line 1, 'hello': this is no header; the first line must name"),
        (b"\x00\x01\x02\x03" * 300, "this is not a text file"),
        (b"\x89PNG\r\n\x1a\n\xff\xd8\xfe\x80\x81", "the file is not UTF-8, UTF-16"),
        (text(NO_CHANGE).encode("utf-16-le"), "or it is UTF-16 without a byte order mark"),
        (text({"unit": "°C"}).encode("cp1252"), "line 2: the file is in a Western encoding"),
        (text({"unit": "도"}).encode() + b"\xff\xff", "line 3: the file is not UTF-8, UTF-16"),
        (b"\xef\xbb\xbfsite\n\n\xb0\xa1", "line 3: the file is not UTF-8, which its byte order"),
        (b"\xff\xfes\x00\n", "line 1: the file is not UTF-16, which its byte order mark"),
        (",".join(REQUIRED).encode(), "the file has a header and no rows; add one row per tag"),
    ],
)
def test_not_a_map(put: Write, content: bytes, said: str) -> None:
    """One problem for the file as a whole, with what to do; no row is guessed at."""
    found = problems(put(content))
    assert len(found) == 1
    assert said in found[0]


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    """A missing file, a folder and a pipe are named as such; nothing waits for a pipe's writer."""
    os.mkfifo(tmp_path / "pipe")
    assert problems(tmp_path / "none.csv") == ["there is no such file; check the path"]
    assert problems(tmp_path) == ["this is a folder; name the file in it"]
    assert problems(tmp_path / "pipe") == ["this is not a regular file; name a .csv or .xlsx file"]
    assert problems(Path("a\0b"))[0].startswith("the file can't be read: embedded null byte")
    assert problems(tmp_path / "none.csv" / "below") == ["there is no such file; check the path"]


def test_too_large(put: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is asked before the bytes are read."""
    monkeypatch.setattr(address_map, "FILE_BYTES_MAX", 10)
    assert "allowed are 10" in problems(put(text(NO_CHANGE)))[0]


# --- the header


def test_header_problems(put: Write) -> None:
    """Unknown, misspelt, missing, repeated and nameless columns, and the rows all the same."""
    header = (
        "site,line,device,tag,protocol,conn,Unit ID,address,type,scale,offset,periodms,unit,hi"
        ",hi,,xyz"
    )
    row = "A1,L1,PUMP01,a/b,modbus,tcp://10.0.0.5,1,40001,FLOAT32,1,0,1000,bar,10,0,,"
    known = f"known columns: {', '.join([*REQUIRED, *OPTIONAL])}"
    assert problems(put(f"{header}\n{row}\n")) == [
        "line 1, column hi: the column stands twice, as number 14 and 15; delete one of them",
        "line 1, column Unit ID: unknown column; write unit_id",
        "line 1, column periodms: unknown column; write period_ms",
        f"line 1: column number 16 has no name; name it or delete it; {known}",
        f"line 1, column xyz: unknown column; {known}",
        (
            "line 1, column lo: the column is missing; add it to the header (lowest normal value,"
            " in the value's unit; empty means no limit)"
        ),
        "line 2, column tag, 'a/b': '/' is not allowed in a name; write a-b",
    ]


def test_every_column_is_needed(put: Write) -> None:
    """Without its column a required value is missing once, not once per row."""
    for column in REQUIRED:
        rest = [name for name in REQUIRED if name != column]
        found = problems(put(text(NO_CHANGE, {"tag": "B"}, columns=rest)))
        assert (
            len([line for line in found if f"column {column}: the column is missing" in line]) == 1
        )
        assert len(found) == 1 or column == "tag"


# --- rows


@pytest.mark.parametrize(
    "column", sorted(set(REQUIRED) - {"unit_id", "scale", "offset", "unit", "hi", "lo"})
)
def test_cells_that_must_not_be_empty(put: Write, column: str) -> None:
    """An empty cell, or one of spaces, is an error that says what belongs there."""
    for value in ("", "  "):
        assert problems(put(text({column: value}))) == [
            f"line 2, column {column}: the cell is empty; write {ALLOWED[column]}"
        ]


LIMIT = "a number with a decimal point, or empty for no limit"
CELLS = [
    ("site", "A1 ", "a name has no space before or after it; write A1"),
    ("device", " 펌프", "a name has no space before or after it; write 펌프"),
    ("tag", "a+b", "'+' is not allowed in a name; write a-b"),
    ("tag", "#", "'#' is not allowed in a name"),
    ("tag", "$SYS", "a name does not begin with $, which MQTT keeps to itself; write SYS"),
    ("tag", "a\x07b", "the control character U+0007 is not allowed in a name; write a-b"),
    ("tag", "a\0b", "the control character U+0000 is not allowed in a name; write a-b"),
    ("tag", "a\u200bb", "the invisible character U+200B is not allowed in a name; write a-b"),
    ("tag", "a\U0002ffff", "the invisible character U+2FFFF is not allowed in a name; write a-"),
    (
        "tag",
        "\ufffd\ufffd",
        "U+FFFD, which stands for a character lost in a conversion, is not allowed in a name",
    ),
    ("tag", "x" * 129, "129 characters long; allowed are 128"),
    ("line", "x" * 129, "129 characters long; allowed are 128"),
    ("line", "a\tb", "the control character U+0009 is not allowed here; delete it"),
    ("unit", "a\nb", "the control character U+000A is not allowed here; delete it"),
    ("unit", "x" * 129, "129 characters long; allowed are 128"),
    ("conn", "x" * 1025, "1025 characters long; allowed are 1024"),
    ("description", "a\x1bb", "the control character U+001B is not allowed here; delete it"),
    ("description", "x" * 2000, "2000 characters long; allowed are 1024"),
    ("unit_id", "256", "above 255; allowed: a whole number from 0 to 255, or empty for 1"),
    ("unit_id", "-1", "below 0; allowed: a whole number from 0 to 255, or empty for 1"),
    ("unit_id", "1.5", "not a whole number"),
    ("unit_id", "one", "not a whole number"),
    ("unit_id", "9" * 5000, "not a whole number"),
    ("unit_id", "１", "not a whole number; write 1"),
    ("type", "REAL", f"not a type; write FLOAT32; allowed: {', '.join(ValueType)}"),
    ("type", "FLAOT32", f"not a type; write FLOAT32; allowed: {', '.join(ValueType)}"),
    ("type", "?", f"not a type; allowed: {', '.join(ValueType)}"),
    ("scale", "0,1", "not a number with a decimal point; write 0.1"),
    ("scale", "-0,25", "not a number with a decimal point; write -0.25"),
    ("scale", "1.234,5", "not a number with a decimal point; write 1234.5"),
    ("scale", "1,234.5", "not a number with a decimal point; write 1234.5"),
    ("scale", "1,234,567", "not a number with a decimal point; write 1234567"),
    ("scale", "1,200,000", "not a number with a decimal point; write 1200000"),
    ("scale", "1,200.0", "not a number with a decimal point; write 1200.0"),
    ("scale", "0,125", "not a number with a decimal point; write 0.125"),
    ("scale", "12,34", "not a number with a decimal point; write 12.34"),
    ("scale", "0,200.5", "not a number with a decimal point"),
    *(
        (
            column,
            cell,
            f"not a number with a decimal point; write {both} if the comma is a decimal sign",
        )
        for column, cell, both in (
            ("hi", "1,200", "1200, or 1.2"),
            ("lo", "-1,200", "-1200, or -1.2"),
            ("scale", "1,000", "1000, or 1"),
            ("offset", "123,456", "123456, or 123.456"),
            ("deadband", " 1,200 ", "1200, or 1.2"),
        )
    ),
    ("period_ms", "1,200", "not a whole number; write 1200"),
    ("period_ms", "1,200,000", "not a whole number; write 1200000"),
    ("period_ms", "0,125", "not a whole number"),
    ("scale", "−5", "not a number with a decimal point; write -5"),
    ("scale", "0.1bar", "not a number with a decimal point; write 0.1"),
    ("scale", "1_000", "not a number with a decimal point"),
    ("scale", "0x10", "not a number with a decimal point"),
    ("scale", "0", "a scale of 0 makes every value the same; write 1 for no scaling"),
    ("scale", "nan", "not a number with a decimal point"),
    ("offset", "inf", "not a number with a decimal point"),
    ("offset", "-Infinity", "not a number with a decimal point"),
    ("offset", "1e999", "too large; allowed: a number with a decimal point, or empty for 0"),
    ("period_ms", "199", f"below 200; allowed: {ALLOWED['period_ms']}"),
    ("period_ms", "86400001", f"above 86400000; allowed: {ALLOWED['period_ms']}"),
    ("period_ms", "500ms", "not a whole number; write 500"),
    ("period_ms", "0.5", "not a whole number"),
    ("hi", "0", "not above lo, which is 0"),
    ("hi", "-1", "not above lo, which is 0; exchange the two"),
    ("hi", "high", "not a number with a decimal point"),
    ("lo", "1e999", f"too large; allowed: {LIMIT}"),
    ("byte_order", "AB", "FLOAT32 has more than two bytes; write one of ABCD, DCBA, BADC, CDAB"),
    ("byte_order", "BA", "FLOAT32 has more than two bytes; write one of ABCD, DCBA, BADC, CDAB"),
    ("byte_order", "little", f"allowed: {ALLOWED['byte_order']}"),
    ("deadband", "-0.1", f"below 0; allowed: {ALLOWED['deadband']}"),
    ("deadband", "nan", "not a number with a decimal point"),
    ("precision", "13", f"above 12; allowed: {ALLOWED['precision']}"),
    ("precision", "-1", f"below 0; allowed: {ALLOWED['precision']}"),
    (
        "heartbeat_ms",
        "999",
        "below period_ms, which is 1000; write 1000 or more, or leave the cell empty",
    ),
    ("heartbeat_ms", "-1", f"below 200; allowed: {ALLOWED['heartbeat_ms']}"),
    ("heartbeat_ms", "86400001", f"above 86400000; allowed: {ALLOWED['heartbeat_ms']}"),
    (
        "enabled",
        "maybe",
        "allowed: true, 1, yes, y, 예, false, 0, no, n, 아니오, 아니요, or empty for true",
    ),
]


@pytest.mark.parametrize(
    ("column", "value", "message"), CELLS, ids=[f"{c}-{v[:12]!r}" for c, v, _ in CELLS]
)
def test_a_wrong_cell(put: Write, column: str, value: str, message: str) -> None:
    """Line, column, value, what is allowed, and what to write instead where that is known."""
    with pytest.raises(MapError) as caught:
        load(put(text({column: value})))
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.message) == (2, column, message)
    assert problem.value == (value if len(value) <= 80 else value[:79] + "…")


@pytest.mark.parametrize("column", ["scale", "offset", "hi", "deadband"])
def test_decimal_comma_in_a_semicolon_file(put: Write, column: str) -> None:
    """Where Excel's decimal sign is the comma, `0,1` stands there without quotes."""
    content = text({column: "0,1"}, delimiter=";")
    assert ";0,1" in content
    assert problems(put(content))[0].endswith("write 0.1")


def test_all_problems_of_a_row_at_once(put: Write) -> None:
    """One wrong cell hides no other, also where cells are compared with each other."""
    row = {
        "site": "A/1", "unit_id": "x", "scale": "0", "period_ms": "", "lo": "9", "hi": "1",
        "byte_order": "AB", "heartbeat_ms": "100", "conn": "udp://x", "address": "A",
    }  # fmt: skip
    found = problems(put(text(row, {**row, "protocol": "nobus"})), small_syntax)
    assert [line.split(":")[0].split(", ")[1] for line in found] == [
        f"column {name}"
        for wrong in (["conn"], ["protocol"])
        for name in sorted(
            ["site", "unit_id", "scale", "period_ms", "hi", "byte_order", "heartbeat_ms", *wrong]
            + (["address"] if wrong == ["conn"] else []),
            key=["site", "protocol", "conn", "unit_id", "address", "scale", "period_ms", "hi",
                 "byte_order", "heartbeat_ms"].index,
        )
    ]  # fmt: skip


def test_protocol_checks(put: Write) -> None:
    """The protocol's own text becomes the problem; without a syntax nothing of it is checked."""
    path = put(
        text(
            {"tag": "A", "protocol": "nobus"},
            {"tag": "B", "conn": "udp://x"},
            {"tag": "C", "conn": "udp://x"},
            {"tag": "D", "address": "forty"},
        )
    )
    assert problems(path, small_syntax) == [
        "line 2, column protocol, 'nobus': unknown protocol 'nobus'; allowed: modbus",
        "line 3, column conn, 'udp://x': expected tcp://HOST:PORT",
        "line 4, column conn, 'udp://x': expected tcp://HOST:PORT",
        "line 5, column address, 'forty': expected a number for FLOAT32",
    ]
    assert len(load(path).tags) == 4


class CountedSyntax(SmallSyntax):
    """What an address means depends on the connection: it names the first one."""

    @staticmethod
    def locate(conn: str, address: str, value_type: ValueType) -> Address:
        where = SmallSyntax.parse_address(address, value_type)
        first = int(conn.removeprefix("tcp://"))
        if where.offset < first:
            raise ValueError(f"expected {first} or more")
        return Address(where.area, where.offset - first)


def test_an_address_is_checked_on_its_connection(put: Write) -> None:
    """Connections of one protocol may count differently; a wrong one is not asked."""
    path = put(
        text(
            {"tag": "A", "conn": "tcp://1", "address": "0"},
            {"tag": "B", "conn": "tcp://0", "address": "0"},
            {"tag": "C", "conn": "udp://1", "address": "0"},
            {"tag": "D", "conn": "udp://1", "address": "zero"},
        )
    )
    assert problems(path, lambda _: CountedSyntax) == [
        "line 2, column address, '0': expected 1 or more",
        "line 4, column conn, 'udp://1': expected tcp://HOST:PORT",
        "line 5, column conn, 'udp://1': expected tcp://HOST:PORT",
        "line 5, column address, 'zero': expected a number for FLOAT32",
    ]


def test_row_length(put: Write) -> None:
    """Too few and too many cells, with the advice that fits; other rows are checked on."""
    content = text(NO_CHANGE, {"tag": "B"}, {"tag": "C", "type": "X"}).splitlines()
    content[1] += ",5"
    content[2] = "A1,L1,PUMP01"
    found = problems(put("\n".join(content)))
    assert found[0].startswith("line 2, 'A1,L1,PUMP01,PRESS,modbus,")
    assert found[0].endswith(
        ": the row has 16 cells, the header has 15; a comma within a number splits its cell in"
        " two: write 0.1 or 1200, and put text with commas in quotes"
    )
    assert found[1] == (
        "line 3, 'A1,L1,PUMP01': the row has 3 cells, the header has 15; an empty cell needs its"
        " separator ',' too"
    )
    assert found[2].startswith("line 4, column type, 'X'")
    semicolons = text(NO_CHANGE, delimiter=";").rstrip() + ";x"
    assert problems(put(semicolons))[0].endswith(
        "no column name stands above 'x'; delete it, or move it to a column description"
    )
    assert ": the row has 1 cell, the header has 15; " in problems(put(text(NO_CHANGE) + "A1\n"))[0]


def test_quotes_that_do_not_pair_up(put: Write) -> None:
    """A broken quote costs its own line; the rows after it are still checked."""
    lines = text(NO_CHANGE, {"tag": "B"}, {"tag": "C", "period_ms": "1"}).splitlines()
    lines[1] = '"A1' + lines[1][2:]
    lines[2] = '"A1"x' + lines[2][2:]
    found = problems(put("\n".join(lines)))
    advice = (
        "the quotes do not pair up; a cell that holds a quote is written in quotes with that quote"
        ' doubled: "2"" pipe"'
    )
    assert [line[:6] for line in found] == ["line 2", "line 3", "line 4"]
    assert found[0].endswith(advice)
    assert found[1].endswith(advice)
    assert "column period_ms" in found[2]
    swallowed = problems(put(text(NO_CHANGE) + '"' + "x,\n" * 50_000))
    assert "line 3, '\"x,': a cell is longer than 131072 characters; most likely" in swallowed[0]


def test_broken_quote_in_the_header(put: Write) -> None:
    """The row after a broken header is not blamed for being no header."""
    found = problems(put('"site,line\n' + text(NO_CHANGE).splitlines()[1]))
    assert len(found) == 1
    assert found[0].startswith("line 1, '\"site,line': the quotes do not pair up")


def test_duplicates(put: Write) -> None:
    """site, device and tag name a tag; another line or address does not make it another tag."""
    other = {"address": "40009", "site": "A2"}
    found = problems(put(text(NO_CHANGE, other, {"address": "40003"}, {"device": "P2"}, NO_CHANGE)))
    assert [line.partition(";")[0] for line in found] == [
        "line 4, column tag, 'PRESS': A1/PUMP01/PRESS stands on line 2 already",
        "line 6, column tag, 'PRESS': A1/PUMP01/PRESS stands on line 2 already",
    ]


def test_a_wrong_row_still_counts_as_a_duplicate(put: Write) -> None:
    """The first check of a map shows duplicates of rows that are wrong elsewhere too."""
    found = problems(put(text({"scale": "x"}, {"scale": "y"}, {"tag": "a/b"}, {"tag": "a/b"})))
    assert [line.split(":")[0] for line in found] == [
        "line 2, column scale, 'x'",
        "line 3, column scale, 'y'",
        "line 3, column tag, 'PRESS'",
        "line 4, column tag, 'a/b'",
        "line 5, column tag, 'a/b'",
    ]


def test_a_device_belongs_to_one_line(put: Write) -> None:
    """Two lines for one device of a site are an error; two sites may use the same name."""
    found = problems(put(text(NO_CHANGE, {"tag": "B", "line": "L2"}, {"site": "A2", "line": "L3"})))
    assert found == [
        (
            "line 3, column line, 'L2': device A1/PUMP01 belongs to line 'L1' since line 2 of the"
            " file; a device belongs to one line; write 'L1'"
        )
    ]


# --- how problems are reported


def test_map_error(put: Write) -> None:
    """The error is a ConfigError whose text lists every problem; each is also plain data."""
    path = put(text({"scale": "0,1"}, {"tag": "B", "hi": "x"}))
    with pytest.raises(ConfigError) as caught:
        load(path)
    error = caught.value
    assert isinstance(error, MapError)
    assert error.path == path
    assert str(error) == (
        f"{path}: 2 problems\n"
        "  line 2, column scale, '0,1': not a number with a decimal point; write 0.1\n"
        "  line 3, column hi, 'x': not a number with a decimal point"
    )
    assert json.loads(json.dumps(error.problems[0].as_dict())) == {
        "line": 2,
        "column": "scale",
        "value": "0,1",
        "message": "not a number with a decimal point; write 0.1",
    }


def test_problem_is_one_line() -> None:
    """A value or a column name with a line break does not break the report's lines."""
    assert str(Problem(1, "a\nb", None, "unknown")) == "line 1, column 'a\\nb': unknown"
    assert str(Problem(3, "unit", "a\nb", "no")) == "line 3, column unit, 'a\\nb': no"
    assert str(Problem(None, None, None, "the file is empty")) == "the file is empty"


# --- writing


def test_write_keeps_the_old_file(tmp_path: Path) -> None:
    """Tags that load() would refuse or change are refused, and the old map stays as it was."""
    path = tmp_path / "map.csv"
    write(path, [TAG])
    before = path.read_bytes()
    wrong_and_said: list[tuple[Mapping[str, object], str]] = [
        ({"tag": "a/b"}, "line 2, column tag, 'a/b': '/' is not allowed"),
        ({"description": "two  spaces"}, "would be read back as 'two spaces'"),
        ({"device": unicodedata.normalize("NFD", "펌프")}, "would be read back as '펌프'"),
        ({"unit": "\ud800"}, "would be read back as '?'"),
        ({"hi": -1.0}, "line 2, column hi, '-1': not above lo"),
    ]
    for wrong, said in wrong_and_said:
        with pytest.raises(MapError, match=re.escape(said)):
            write(path, [changed(wrong)])
    with pytest.raises(MapError, match="a header and no rows"):
        write(path, [])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["map.csv"]


def changed(fields: Mapping[str, object]) -> Tag:
    values = {name: getattr(TAG, name) for name in Tag.__slots__}
    return Tag(**{**values, **fields})


def test_write_follows_links_and_keeps_permissions(tmp_path: Path) -> None:
    """A map that is a link to elsewhere stays one, and who may read it does not change."""
    target = tmp_path / "elsewhere.csv"
    target.write_text("old")
    target.chmod(0o640)
    link = tmp_path / "map.csv"
    link.symlink_to(target)
    write(link, [TAG])
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert load(link).tags == (TAG,)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, the old map stays and no temporary file is left behind."""

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "map.csv"
    write(path, [TAG])
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write(path, [changed({"tag": "OTHER"})])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["map.csv"]


def test_write_is_durable_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents, then the name, then the folder: a power cut leaves the old map or the new one."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "contents")  # noqa: PTH112
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        steps.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write(tmp_path / "map.csv", [TAG])
    assert steps == ["contents", "name", "folder"]


# --- what the product promises elsewhere


def test_longest_topic_fits() -> None:
    """Names of the greatest length keep a topic below MQTT's 65,535 bytes."""
    topic = f"plc/{'/'.join(['𝄞' * NAME_CHARS_MAX] * 3)}"
    assert len(topic.encode()) < 65_535
    assert NAME_CHARS_MAX < TEXT_CHARS_MAX


def test_documentation_names_every_column() -> None:
    """docs/address-map.md has a row for each column, each type and each byte order."""
    page = (ROOT / "docs" / "address-map.md").read_text(encoding="utf-8")
    for column in (*address_map.REQUIRED_COLUMNS, *address_map.OPTIONAL_COLUMNS):
        assert f"\n| `{column}` |" in page, column
    for word in (*ValueType, *ByteOrder, "AB", "BA"):
        assert re.search(rf"\b{word}\b", page), word
    assert [*address_map.REQUIRED_COLUMNS] == REQUIRED
    assert [*address_map.OPTIONAL_COLUMNS] == OPTIONAL
    assert set(ALLOWED) == set(address_map.COLUMNS)


def test_documentation_shows_real_output(put: Write) -> None:
    """The page's example map loads, and its error listings are what a test case expects."""
    page = (ROOT / "docs" / "address-map.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (example,) = [block for kind, block in blocks if kind == "csv"]
    assert len(load(put(example), protocols.load).tags) == 2
    real = {file.read_text(encoding="utf-8") for file in ROOT.glob("tests/testcases/*/error.txt")}
    listings = [block for kind, block in blocks if not kind and block.startswith("line ")]
    assert len(listings) == 5
    assert set(listings) <= real


def test_demo_map() -> None:
    """The demo's plant: 8 devices on two connections, and addresses that Modbus understands."""
    demo = load(ROOT / "examples" / "demo" / "address_map.csv", protocols.load)
    assert len({(tag.site, tag.device) for tag in demo.tags}) == 8
    assert {tag.conn for tag in demo.tags} == {"tcp://127.0.0.1:1502", "tcp://127.0.0.1:1503"}
    assert {tag.period_ms for tag in demo.tags} == {200, 500, 1000, 5000}
    assert {tag.type.value for tag in demo.tags} >= {"FLOAT32", "INT16", "UINT32", "BOOL"}
    assert 55 <= len(demo.tags) <= 65
    assert all(tag.description for tag in demo.tags)


@pytest.mark.parametrize(
    ("syntax", "conn"),
    [
        (small_syntax, "tcp://h"),
        (protocols.load, "tcp://h"),
        (protocols.load, "tcp://h?zero_based=true"),
    ],
    ids=["small", "modbus", "modbus zero-based"],
)
def test_ten_thousand_rows(
    tmp_path: Path, syntax: Callable[[str], type[AddressSyntax]], conn: str
) -> None:
    """A map of 10,000 tags with every column filled is loaded in under 2 s of CPU."""
    row = {"conn": conn, "byte_order": "CDAB", "deadband": "0.5", "precision": "2",
           "heartbeat_ms": "60000", "enabled": "true", "description": "펌프 토출 압력"}  # fmt: skip
    rows = [
        {**row, "device": f"P{n // 50}", "tag": f"T{n}", "address": str(400_001 + n)}
        for n in range(10_000)
    ]
    path = tmp_path / "map.csv"
    path.write_text(text(*rows))
    start = time.process_time()
    loaded = load(path, syntax)
    assert time.process_time() - start < 2
    assert len(loaded.tags) == 10_000


def test_files_of_the_first_set_of_columns_keep_working(tmp_path: Path) -> None:
    """Written out here, so that nobody renames or requires one without noticing."""
    required = (
        "site,line,device,tag,protocol,conn,unit_id,address,type,scale,offset,period_ms,unit,hi,lo"
    )
    path = tmp_path / "map.csv"
    path.write_text(
        f"{required}\n"
        "A1,L1,PUMP01,PRESS,modbus,tcp://10.0.0.5:502,1,hr:0,INT16,0.1,0,200,bar,9.5,1\n"
    )
    [tag] = load(path).tags
    assert (tag.key, tag.scale, tag.hi, tag.lo) == (("A1", "PUMP01", "PRESS"), 0.1, 9.5, 1.0)
    path.write_text(
        f"{required},byte_order,deadband,precision,heartbeat_ms,enabled,description\n"
        "A1,L1,P,T,modbus,c,1,hr:0,INT16,,,200,,,,BADC,0.5,2,60000,yes,text\n"
    )
    [tag] = load(path).tags
    assert (tag.byte_order, tag.deadband, tag.precision) == (ByteOrder.BADC, 0.5, 2)
    assert (tag.heartbeat_ms, tag.description) == (60_000, "text")
    assert COLUMNS_VERSION == 1, "a new set of columns: add a test like this one for it"
