"""Whole columns out of PostgreSQL: values that a query put behind each other as bytes. Pure.

A row takes Python microseconds, a column nanoseconds a value. `string_agg(float8send(value), '')`
makes one.
"""

from __future__ import annotations

import operator
import sys
from array import array
from typing import Any, Final

_EPOCH_2000_MS: Final = 946_684_800_000


def unpacked(kind: str, data: bytes) -> array[Any]:
    """A run of int8 ("q") or float8 ("d") as PostgreSQL sends them."""
    values: array[Any] = array(kind)
    values.frombytes(data)
    if sys.byteorder == "little":
        values.byteswap()
    return values


def times_ms(data: bytes) -> array[int]:
    """Milliseconds since 1970 UTC out of `timestamptz_send`: microseconds since 2000."""
    return array("q", [us // 1000 + _EPOCH_2000_MS for us in unpacked("q", data)])


def ascending(times: array[int], *columns: array[Any]) -> tuple[array[Any], ...]:
    """The columns by time."""
    if all(map(operator.le, times, times[1:])):
        return (times, *columns)
    order = sorted(range(len(times)), key=times.__getitem__)
    return tuple(
        array(column.typecode, map(column.__getitem__, order)) for column in (times, *columns)
    )
