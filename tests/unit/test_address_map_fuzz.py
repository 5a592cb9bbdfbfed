"""Whatever the file: a map, or problems that a person can read. Never anything else."""

from __future__ import annotations

import csv
import io
import json
import string
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import openpyxl
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.utils.cell import get_column_letter

from edge_agent.address_map import (
    COLUMNS,
    REQUIRED_COLUMNS,
    AddressMap,
    MapError,
    Problem,
    load,
    write,
)
from edge_agent.address_map.cells import (
    NAME_CHARS_MAX,
    PERIOD_MS_MAX,
    PERIOD_MS_MIN,
    PRECISION_DIGITS_MAX,
    UNIT_ID_MAX,
)
from edge_agent.model import ByteOrder, Tag, ValueType
from tests.unit.test_address_map import VALUES, small_syntax, text

slow_is_fine = settings(deadline=None, max_examples=200)

A_MAP = text(
    {"device": "펌프 1", "unit": "°C", "description": 'quoted "text", with\na line break'},
    {"device": "P2", "type": "BOOL", "unit": "", "enabled": "no"},
)


def check_form(problems: Sequence[Problem]) -> None:
    """Some problems, in file order, each of them one line that can be printed and stored."""
    assert problems
    for problem in problems:
        assert problem.message
        assert len(str(problem).splitlines()) == 1
        assert len(problem.value or "") <= 80
        json.dumps(problem.as_dict())
    numbers = [problem.line or 0 for problem in problems]
    assert numbers == sorted(numbers)


def load_bytes(data: bytes) -> AddressMap | MapError:
    """What `load` says to a file with these bytes, after a look at the form of its answer."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "address_map.csv"
        path.write_bytes(data)
        try:
            loaded = load(path, small_syntax)
        except MapError as error:
            check_form(error.problems)
            return error
        assert loaded.tags or loaded.disabled
        assert len({tag.key for tag in loaded.tags}) == len(loaded.tags)
        return loaded


@slow_is_fine
@given(
    st.binary(max_size=2000), st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"PK\x03\x04"])
)
def test_any_bytes(data: bytes, start: bytes) -> None:
    """Bytes of any kind are no map."""
    assert isinstance(load_bytes(start + data), MapError)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with some bytes overwritten, put in, or taken out."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 20))
        data[at : at + length] = draw(st.binary(max_size=8) | st.sampled_from([b'"', b",", b"\n"]))
    return bytes(data)


@slow_is_fine
@given(st.data(), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp949"]))
def test_damaged_csv(data: st.DataObject, encoding: str) -> None:
    """A map that lost or gained some bytes on its way gives a map or problems."""
    load_bytes(data.draw(damaged(A_MAP.encode(encoding))))


def _a_workbook() -> bytes:
    book = openpyxl.Workbook()
    for cells in ([*REQUIRED_COLUMNS], [*VALUES.values()], ["A1", "L1", 1.5, True]):
        book.worksheets[0].append(cells)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


A_WORKBOOK = _a_workbook()


@slow_is_fine
@given(damaged(A_WORKBOOK))
def test_damaged_workbook(data: bytes) -> None:
    """A workbook that lost or gained some bytes on its way gives a map or problems."""
    load_bytes(data)


cell_text = st.one_of(
    st.text(max_size=8),
    st.sampled_from([*VALUES.values(), *ValueType, *ByteOrder, "0,1", "nan", "-0", "1e400", "$"]),
    st.floats().map(str),
    st.integers().map(str),
)


@slow_is_fine
@given(
    header=st.lists(st.sampled_from([*COLUMNS, "Period", ""]), min_size=1, max_size=24),
    rows=st.lists(st.lists(cell_text, max_size=24), max_size=5),
    delimiter=st.sampled_from(",;\t"),
)
def test_any_cells(header: list[str], rows: list[list[str]], delimiter: str) -> None:
    """Any text in any cell, under any header, gives a map or problems."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([header, *rows])
    load_bytes(out.getvalue().encode("utf-8", "replace"))


@st.composite
def ranges(draw: st.DrawFn) -> str:
    """Some cells in a rectangle, as `A1:B2`."""
    columns, rows = (sorted(draw(st.tuples(st.integers(1, n), st.integers(1, n)))) for n in (20, 8))
    letters = [get_column_letter(column) for column in columns]
    return f"{letters[0]}{rows[0]}:{letters[1]}{rows[1]}"


@slow_is_fine
@given(
    above=st.lists(st.lists(st.sampled_from(["Unit", "pumps", ""]), max_size=3), max_size=3),
    rows=st.lists(st.sampled_from([[*VALUES.values()], ["=A1"] * 15, ["=1"], ["A1"] * 17, []])),
    merged=st.lists(ranges(), max_size=3),
    sheet=st.sampled_from([0, 1]),
)
def test_any_workbook(
    above: list[list[str]], rows: list[list[str]], merged: list[str], sheet: int
) -> None:
    """Titles, formulas without values, merged cells that overlap, a cover: a map or problems."""
    book = openpyxl.Workbook()
    book.create_sheet("second")
    for cells in (*above, [*REQUIRED_COLUMNS], *rows):
        book.worksheets[sheet].append(cells)
    for cells_merged in merged:
        book.worksheets[0].merge_cells(cells_merged)
    out = io.BytesIO()
    book.save(out)
    load_bytes(out.getvalue())


@slow_is_fine
@given(cells=st.fixed_dictionaries(dict.fromkeys(COLUMNS, cell_text)))
def test_one_wrong_row_leaves_its_neighbours_alone(cells: dict[str, str]) -> None:
    """A row of any cells is blamed on its own line only."""
    answer = load_bytes(text({"tag": "first"}, cells, {"tag": "last"}).encode("utf-8", "replace"))
    if isinstance(answer, MapError):
        last = 1 + len(text({"tag": "first"}, cells).splitlines())
        for problem in answer.problems:
            conflict = "stands on line" in problem.message or "belongs to line" in problem.message
            assert conflict or (problem.line is not None and 3 <= problem.line < last)


# --- writing

_letters = string.ascii_letters + string.digits + "가나다펌프압력 ._-°µ,;\"'=𝄞"
names = st.text(_letters, min_size=1, max_size=12).filter(lambda name: name == name.strip())
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def tags(draw: st.DrawFn) -> Tag:
    period_ms = draw(st.integers(PERIOD_MS_MIN, PERIOD_MS_MAX))
    limits = draw(st.lists(numbers, min_size=2, max_size=2, unique=True).map(sorted))
    device = draw(names)
    return Tag(
        site=draw(names),
        line=f"line of {device}",
        device=device,
        tag=draw(names),
        protocol=draw(names),
        conn=draw(names),
        unit_id=draw(st.integers(0, UNIT_ID_MAX)),
        address=draw(names),
        type=draw(st.sampled_from(ValueType)),
        scale=draw(numbers.filter(bool)),
        offset=draw(numbers),
        period_ms=period_ms,
        unit=draw(names | st.just("")),
        hi=draw(st.sampled_from([limits[1], None])),
        lo=draw(st.sampled_from([limits[0], None])),
        byte_order=draw(st.sampled_from(ByteOrder)),
        deadband=draw(st.floats(0, 1e9)),
        precision=draw(st.none() | st.integers(0, PRECISION_DIGITS_MAX)),
        heartbeat_ms=draw(st.none() | st.integers(period_ms, PERIOD_MS_MAX)),
        description=draw(st.text(_letters, max_size=NAME_CHARS_MAX).map(str.split).map(" ".join)),
    )


@slow_is_fine
@given(st.lists(tags(), min_size=1, max_size=5, unique_by=lambda tag: tag.key))
def test_what_is_written_is_read_back(some: list[Tag]) -> None:
    """write() and load() are inverse to each other, float by float."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "address_map.csv"
        write(path, some)
        assert load(path).tags == tuple(some)


@slow_is_fine
@given(tags(), st.sampled_from([*REQUIRED_COLUMNS, "description"]), st.text(max_size=10))
def test_what_cannot_be_read_back_is_not_written(tag: Tag, column: str, value: str) -> None:
    """Any text in a tag's field is either written faithfully or refused."""
    fields = {name: getattr(tag, name) for name in Tag.__slots__}
    if isinstance(fields[column], str) and column != "type":
        fields[column] = value
    wanted = Tag(**fields)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "address_map.csv"
        try:
            write(path, [wanted])
        except MapError:
            assert not path.exists()
        else:
            assert load(path).tags == (wanted,)
