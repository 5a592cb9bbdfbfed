"""Maps as people make them in Excel: titles, notes, merged cells, formulas, another sheet."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from zipfile import ZipFile

import openpyxl
import pytest

from edge_agent.address_map import MapError, parse, workbook
from tests.unit.test_address_map import NO_CHANGE, REQUIRED, TAG, VALUES, text

Cell = str | float | None
File = Callable[[Sequence[Sequence[Cell]]], bytes]


def a_csv(rows: Sequence[Sequence[Cell]]) -> bytes:
    """A file as a text editor has it: no quotes."""
    return "\n".join(",".join(str(cell or "") for cell in row) for row in rows).encode()


def an_xlsx(rows: Sequence[Sequence[Cell]], merged: Sequence[str] = ()) -> bytes:
    return book_of({"Sheet1": rows}, merged)


def book_of(sheets: Mapping[str, Sequence[Sequence[Cell]]], merged: Sequence[str] = ()) -> bytes:
    """A workbook with these sheets; cells of the first are merged."""
    book = openpyxl.Workbook()
    for index, (title, rows) in enumerate(sheets.items()):
        sheet = book.create_sheet(title, index)
        for row in rows:
            sheet.append(row)
    for cells in merged:
        book.worksheets[0].merge_cells(cells)
    del book["Sheet" if "Sheet" in book.sheetnames else book.sheetnames[-1]]
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def changed_xml(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The workbook with another XML of its first sheet."""
    out = io.BytesIO()
    with ZipFile(io.BytesIO(data)) as source, ZipFile(out, "w") as target:
        for name in source.namelist():
            xml = source.read(name)
            new = change(xml) if name == "xl/worksheets/sheet1.xml" else xml
            assert (new != xml) == (name == "xl/worksheets/sheet1.xml")
            target.writestr(name, new)
    return out.getvalue()


def problems(data: bytes) -> list[str]:
    with pytest.raises(MapError) as caught:
        parse(Path("map"), data, None)
    return [str(problem) for problem in caught.value.problems]


def row(**cells: Cell) -> list[Cell]:
    """A row of the map, with other cells by column."""
    return list({**VALUES, **cells}.values())


KINDS = pytest.mark.parametrize("file", [a_csv, an_xlsx], ids=["csv", "xlsx"])
HEADER: list[Cell] = list(VALUES)


# --- the header


@KINDS
def test_column_names_in_any_case(file: File) -> None:
    """Excel has no opinion on capitals, and no two columns differ by them alone."""
    for header in (map(str.upper, VALUES), map(str.title, VALUES)):
        assert parse(Path("map"), file([list(header), row()]), None).tags == (TAG,)


@KINDS
def test_two_columns_that_differ_in_case_are_the_same(file: File) -> None:
    """As they are for Excel; the one that stands second is named as it is written."""
    assert problems(file([[*HEADER, "LO"], [*row(), "1"]])) == [
        "line 1, column LO: the column stands twice, as number 15 and 16; delete one of them"
    ]


@KINDS
@pytest.mark.parametrize("above", [["Address list, hall 3"], ["Site", "A1", "Line", "L1"]])
def test_a_title_above_the_header(file: File, above: list[Cell]) -> None:
    """Where the header stands is said, and the rows below it are checked at once."""
    found = problems(file([above, [], HEADER, row(scale="x")]))
    assert found[0].startswith("line 1, ")
    assert found[0].endswith(": the header stands in line 3; delete the lines above it")
    assert found[1:] == ["line 4, column scale, 'x': not a number with a decimal point"]


@KINDS
def test_words_in_a_title_are_no_header(file: File) -> None:
    """The row that names the most columns is the header; a row that repeats it is a row."""
    assert parse(Path("map"), file([HEADER, row(device="unit", tag="type")]), None).tags
    assert "this is no header; the first" in problems(file([["hello"], ["unit", "tag"]]))[0]
    twice = problems(file([HEADER, row(), HEADER]))
    assert all(problem.startswith("line 3, column ") for problem in twice)


def test_a_title_before_semicolons() -> None:
    """The delimiter is found in the header, wherever it stands."""
    data = f"Address list, hall 3\n{text(NO_CHANGE, delimiter=';')}".encode()
    assert problems(data) == [
        "line 1, 'Address list, hall 3': the header stands in line 2; delete the lines above it"
    ]


MOVE = "and sheet 'PLC' has one; move that sheet before all others, hidden ones too"


@pytest.mark.parametrize(
    ("first", "place"),
    [
        ([], ""),
        ([["Plant 3"], ["Site", "Seoul"]], "line 1, 'Plant 3': "),
        ([["Site", "Seoul"]], "line 1, 'Site, Seoul': "),
    ],
)
def test_the_header_is_on_another_sheet(first: list[list[Cell]], place: str) -> None:
    """It is named, also where a word on the cover is a column's name; a cover is no map."""
    sheets: dict[str, list[list[Cell]]] = {
        "Cover": first,
        "Notes": [["nothing"]],
        "PLC": [["Title"], HEADER, row()],
    }
    assert problems(book_of(sheets)) == [f"{place}the first sheet has no header, {MOVE}"]
    sheets["PLC"] = [["Unit", "bar"]]
    assert "PLC" not in problems(book_of(sheets))[0]


# --- rows that are too long


@KINDS
def test_a_note_beside_a_row(file: File) -> None:
    """What has no column is named, and nobody is told of decimal commas."""
    found = problems(file([HEADER, [*row(), "", "checked by Kim", 3], row(tag="B")]))
    delimiter = "," if file is a_csv else "\\t"
    advice = "; text with commas stands in quotes" if file is a_csv else ""
    assert len(found) == 1
    assert found[0].startswith("line 2, ")
    assert found[0].endswith(
        ": the row has 18 cells, the header has 15; no column name stands above"
        f" 'checked by Kim{delimiter}3'; delete it, or move it to a column description{advice}"
    )


@pytest.mark.parametrize(
    "cells",
    [
        {"scale": "0,1"},
        {"scale": "0,1", "hi": "12,5"},
        {"scale": "0,1", "offset": "", "unit": "", "hi": "", "lo": ""},
        {"offset": "-0,5"},
        {"type": "REAL", "scale": ".5", "offset": "-0,5"},
        {"hi": "12,5"},
        {"lo": "0,5"},
        {"hi": "1,200"},
        {"period_ms": "1,000"},
        {"scale": "0,1", "lo": "2,checked by Kim"},
    ],
)
def test_a_comma_within_a_number(cells: Mapping[str, Cell]) -> None:
    """Whichever cell it is that a comma without quotes has split."""
    (found,) = problems(a_csv([HEADER, row(**cells)]))
    assert "a comma within a number splits its cell in two: write 0.1 or 1200, and" in found


@pytest.mark.parametrize(
    "cells",
    [
        {"lo": "0,checked by Kim"},
        {"unit": "m3/h, gross"},
        {"conn": "tcp://10.0.0.5:502,spare"},
        {"conn": "tcp://10.0.0.5:502,spare", "scale": "1", "offset": "0"},
        {"hi": "", "lo": ",5 bar at most"},
    ],
)
def test_other_commas(cells: Mapping[str, Cell]) -> None:
    """Text with a comma is not called a number."""
    (found,) = problems(a_csv([HEADER, row(**cells)]))
    assert "a comma within a number" not in found
    assert found.endswith("text with commas stands in quotes")


# --- cells that show what the file has no value for

FORMULA = (
    "the file holds a formula here and not its value; open the workbook in Excel and save it, or"
    " paste the value in place of the formula"
)


def test_formulas_without_values() -> None:
    """As programs write them that compute nothing. A default is not the value that Excel shows."""
    rows = [HEADER, row(device='="PUMP"&"01"', scale="=1/10", hi="=1+"), row(tag="B")]
    assert problems(an_xlsx(rows)) == [
        f"line 2, column device: {FORMULA}",
        f"line 2, column scale: {FORMULA}",
        f"line 2, column hi: {FORMULA}",
    ]


def test_a_row_of_formulas_is_a_row() -> None:
    """It has no value at all, and is not skipped as a blank one."""
    formulas: list[Cell] = ["=A2"] * len(HEADER)
    found = problems(an_xlsx([HEADER, row(), formulas]))
    assert found == [f"line 3, column {name}: {FORMULA}" for name in HEADER]


def test_formulas_with_values() -> None:
    """What a formula computed is its value; so is the empty text, which Excel shows as nothing."""

    def computed(xml: bytes) -> bytes:
        xml = xml.replace(b'<c r="J2"><f>1/10</f><v />', b'<c r="J2"><f>1/10</f><v>0.1</v>')
        return xml.replace(b'<c r="M2"><f>""</f><v />', b'<c r="M2" t="str"><f>""</f><v></v>')

    data = changed_xml(an_xlsx([HEADER, row(scale="=1/10", unit='=""')]), computed)
    (tag,) = parse(Path("map"), data, None).tags
    assert (tag.scale, tag.unit) == (0.1, "")


def test_cells_without_places() -> None:
    """Some programs write no cell's place, and a prefix before each element's name."""

    def other(xml: bytes) -> bytes:
        for name in (b"A", b"J", b"M"):
            for number in (b"1", b"2"):
                xml = xml.replace(b'<c r="' + name + number + b'"', b"<c")
        xml = xml.replace(b"<f>", b"<x:f>").replace(b"</f>", b"</x:f>")
        namespace = b'="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
        return xml.replace(b"xmlns" + namespace, b"xmlns" + namespace + b" xmlns:x" + namespace)

    data = changed_xml(an_xlsx([HEADER, row(scale="=1/10", unit='=""')]), other)
    assert problems(data) == [f"line 2, column {name}: {FORMULA}" for name in ("scale", "unit")]


def merged_with(place: str) -> str:
    return f"the cell is merged with {place}; unmerge them and write the value into each"


def test_merged_cells() -> None:
    """Excel shows one value for all; the file has it for the first. None takes its default."""
    rows = [HEADER, row(), row(tag="B"), row(tag="C")]
    assert problems(an_xlsx(rows, ["B2:B3", "J2:J4"])) == [
        f"line 3, column line: {merged_with('B2')}",
        f"line 3, column scale: {merged_with('J2')}",
        f"line 4, column scale: {merged_with('J2')}",
    ]
    side_by_side = [HEADER, row(hi=None, lo="1"), row(tag="B", hi="2")]
    assert problems(an_xlsx(side_by_side, ["N3:O3"])) == [f"line 3, column lo: {merged_with('N3')}"]
    formula = [HEADER, row(line="=1"), row(tag="B")]
    assert problems(an_xlsx(formula, ["B2:B3"])) == [
        f"line 2, column line: {FORMULA}",
        f"line 3, column line: {merged_with('B2')}",
    ]


def test_merged_cells_that_show_nothing() -> None:
    """A merged title above, a merged range without a value, one beside and one below the map."""
    rows = [HEADER, row(hi=None, lo=None), row(tag="B", hi=None, lo=None)]
    assert parse(Path("map"), an_xlsx(rows, ["N2:O3", "R1:S5", "A9:B12"]), None).tags
    titled = problems(an_xlsx([["Pumps"], *rows], ["A1:O1"]))
    assert titled == ["line 1, 'Pumps': the header stands in line 2; delete the lines above it"]


def test_merged_cells_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range over the whole sheet costs no more than the rows that are there, and no more cells
    are told of than a bound says."""

    def whole(xml: bytes) -> bytes:
        return xml.replace(b"B2:B3", b"A2:XFD1048576")

    rows: list[list[Cell]] = [HEADER, row(line=None, hi=None), row(tag="B", lo=None)]
    data = changed_xml(an_xlsx(rows, ["B2:B3"]), whole)
    assert problems(data) == [
        f"line 2, column line: {merged_with('A2')}",
        f"line 2, column hi: {merged_with('A2')}",
        f"line 3, column line: {merged_with('A2')}",
        f"line 3, column lo: {merged_with('A2')}",
    ]
    monkeypatch.setattr(workbook, "CELLS_TOLD_MAX", 14)
    reason = merged_with("A2")
    assert workbook.read_sheet(data).valueless == {2: {1: reason, 13: reason}}
    many = an_xlsx([HEADER, *[["=1"] * 15] * 9])
    assert sum(map(len, workbook.read_sheet(many).valueless.values())) == 15


def test_what_marks_a_sheet_is_found_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it lies across two reads of the file."""
    data = an_xlsx([HEADER, row(), row(tag="B")], ["B2:B3"])
    for size in (1, 7, 64, 1 << 20):
        monkeypatch.setattr(workbook, "_SCANNED_BYTES", size)
        assert workbook.read_sheet(data).valueless == {3: {1: merged_with("B2")}}


def test_required_columns_are_the_header() -> None:
    """These tests write the columns in the order of the map's own."""
    assert HEADER == REQUIRED
