"""The words of the product as types: tag, address, series, batch.

Everything here is immutable and free of I/O. On the hot path samples stay in columns: there is
no object per sample.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class ValueType(StrEnum):
    """How a raw value is laid out in the PLC's memory."""

    BOOL = "BOOL"
    INT8 = "INT8"
    UINT8 = "UINT8"
    INT16 = "INT16"
    UINT16 = "UINT16"
    INT32 = "INT32"
    UINT32 = "UINT32"
    INT64 = "INT64"
    UINT64 = "UINT64"
    FLOAT16 = "FLOAT16"
    FLOAT32 = "FLOAT32"
    FLOAT64 = "FLOAT64"
    BCD16 = "BCD16"
    BCD32 = "BCD32"


class ByteOrder(StrEnum):
    """Order of a value's bytes on the wire; A is the most significant one.

    For 16-bit types the map may say AB (= ABCD) or BA (= BADC).
    """

    ABCD = "ABCD"
    DCBA = "DCBA"
    BADC = "BADC"
    CDAB = "CDAB"


@dataclass(frozen=True, slots=True)
class Tag:
    """One row of the address map. Field names and units are the columns' own."""

    site: str
    line: str
    device: str
    tag: str
    protocol: str
    conn: str
    unit_id: int
    address: str
    type: ValueType
    scale: float
    offset: float
    period_ms: int
    unit: str
    hi: float | None = None
    lo: float | None = None
    byte_order: ByteOrder = ByteOrder.ABCD
    deadband: float = 0.0
    precision: int | None = None
    heartbeat_ms: int | None = None
    description: str = ""

    @property
    def series(self) -> Series:
        """The identity under which this tag's samples are stored."""
        return Series(self.site, self.line, self.device, self.tag, self.unit)

    @property
    def key(self) -> TagKey:
        """What must be unique in a map: topic and primary key are built from it."""
        return TagKey(self.site, self.device, self.tag)


class TagKey(NamedTuple):
    """What is unique in a plant."""

    site: str
    device: str
    tag: str


class Series(NamedTuple):
    """What stays the same from sample to sample of a tag, and what every sink labels it with."""

    site: str
    line: str
    device: str
    tag: str
    unit: str

    @property
    def key(self) -> TagKey:
        """The tag that it is of: a tag that changes its line or unit begins another series."""
        return TagKey(self.site, self.device, self.tag)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a raw value lies: ``width`` cells from ``offset`` in an ``area`` of a device's memory.

    A cell is whatever the protocol counts in: a register, a coil, a byte, a node. Blocks never
    cross areas. ``bit`` (0 = least significant) picks one bit out of the cell.
    """

    area: str
    offset: int
    width: int = 1
    bit: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask of an area, in cells.

    A ``gap_max`` of -1: only values that share a cell share a request.
    """

    span_max: int
    gap_max: int


@dataclass(frozen=True, slots=True)
class LineTiming:
    """What a request and its reply take on a connection that carries one at a time.

    Bytes are those of the protocol's own frames, without what is below them (TCP, IP, TLS); times
    are in seconds. A request takes ``request_bytes``; its reply takes ``reply_bytes``, and
    ``cell_bits`` for each cell, or one bit in the areas of ``bit_areas``, in whole bytes.

    On a serial line a byte takes ``character_s``, and a frame ends with ``silence_s``; elsewhere
    bytes are free, and both are 0. ``pause_s`` lies between a reply and the next request. Where
    each scan has a connection of its own, connecting takes ``connect_round_trips`` and
    ``connect_pause_s`` on top; both are 0 where the connection is kept.
    """

    cell: str
    """What one cell is called, such as "register"; with an s, what several are."""
    cell_bits: int
    request_bytes: int
    reply_bytes: int
    bit_areas: frozenset[str] = frozenset()
    character_s: float = 0.0
    silence_s: float = 0.0
    pause_s: float = 0.0
    connect_round_trips: int = 0
    connect_pause_s: float = 0.0


class AddressSyntax(Protocol):
    """The part of a driver that needs no connection: what `conn` and `address` mean.

    Each method raises ``ValueError`` with a text that says what is allowed.

    Two are optional, static too. ``locate(conn, address, value_type)`` has the result of
    `parse_address`, where what an address means depends on the (valid) connection.
    ``timing(conn)`` gives a valid connection's `LineTiming`, or None where nobody knows it: for who
    reads each block by one request, whose cost is known before it is sent. Call the functions
    `locate` and `timing_of` below, which know of both.
    """

    @staticmethod
    def parse_conn(conn: str) -> object:
        """Check a `conn` cell; the result is the driver's own."""

    @staticmethod
    def parse_address(address: str, value_type: ValueType) -> Address:
        """Locate an `address` cell's value."""

    @staticmethod
    def limits(conn: str, area: str) -> Limits:
        """Bounds of one request on this connection and area."""


def locate(syntax: type[AddressSyntax], conn: str, address: str, value_type: ValueType) -> Address:
    """Locate an `address` cell's value on a valid connection.

    Raises ``ValueError``, also if the value is wider than one request may be there.
    """
    own: Callable[[str, str, ValueType], Address] | None = getattr(syntax, "locate", None)
    if own is not None:
        found = own(conn, address, value_type)
    else:
        found = syntax.parse_address(address, value_type)
    span_max = syntax.limits(conn, found.area).span_max
    if found.width > span_max:
        raise ValueError(
            f"{value_type} takes {found.width} cells, but {conn} allows {span_max} a request"
        )
    return found


def timing_of(syntax: type[AddressSyntax], conn: str) -> LineTiming | None:
    """What requests take on a valid connection; None where nobody knows."""
    own: Callable[[str], LineTiming | None] | None = getattr(syntax, "timing", None)
    return None if own is None else own(conn)


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one journal entry: what a sink is handed.

    ``series_ids`` (uint32) and ``values`` (float64) are columns of equal length, in the order in
    which the samples were read. ``runs`` says which of them share a time: each ``(ts_ms, count)``
    covers the next ``count`` samples; ``ts_ms`` is milliseconds since 1970 UTC. ``series`` maps
    an id to its series; it is shared and only grows. Values are finite, never NaN.
    """

    sequence: int
    runs: Sequence[tuple[int, int]]
    series_ids: array[int]
    values: array[float]
    series: Mapping[int, Series]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def first_ts_ms(self) -> int:
        """Earliest sample time."""
        return min(ts_ms for ts_ms, _ in self.runs)

    @property
    def last_ts_ms(self) -> int:
        """Latest sample time."""
        return max(ts_ms for ts_ms, _ in self.runs)
