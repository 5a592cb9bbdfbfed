"""Tags as the text of a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from edge_agent.address_map.columns import COLUMNS
from edge_agent.model import ByteOrder, Tag

WRITTEN_COLUMNS = tuple(column for column in COLUMNS if column != "enabled")
"""Tags come from enabled rows only, so there is nothing to say in that column."""


def to_csv(tags: Iterable[Tag]) -> bytes:
    """A map's bytes: UTF-8 with the byte order mark that makes Excel show Korean."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(WRITTEN_COLUMNS)
    for tag in tags:
        writer.writerow([_cell(column, getattr(tag, column)) for column in WRITTEN_COLUMNS])
    return text.getvalue().encode("utf-8-sig", "replace")


def to_records(tags: Iterable[Tag]) -> Iterator[dict[str, str]]:
    """The same rows as plain data, one at a time: each column by name, as text."""
    for tag in tags:
        yield {column: _cell(column, getattr(tag, column)) for column in WRITTEN_COLUMNS}


def _cell(column: str, value: object) -> str:
    if value is None or value is ByteOrder.ABCD or (column == "deadband" and value == 0):
        return ""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)
