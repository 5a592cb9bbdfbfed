"""A PLC that needs no network: values are a pure function of unit, cell and time.

For demonstrations and for the conformance suite. `conn` is ``sim://`` and any name, `address` a
cell from 0 to 65535, one per value. Cells from ``UNREADABLE_FROM`` on refuse to be read, so that a
demonstration can show a bad tag.
"""

from __future__ import annotations

from math import pi, sin
from typing import Final

from edge_agent.errors import RefusedError, TransientError
from edge_agent.model import Address, Limits, ValueType
from edge_agent.planner import Block
from edge_agent.protocols.base import Reply, WallClock

CELLS: Final = 65_536
UNREADABLE_FROM: Final = 60_000

AREA: Final = "cell"
SPAN_MAX: Final = 1_000
"""Cells a block; a scan of many tags then takes several reads, as a real one does."""

LOWEST, HIGHEST = 0.0, 100.0
"""Every value lies between these, so that each type can hold it."""
CYCLE_S_MIN: Final = 20
CYCLES: Final = 41
"""Cell n swings in 20 s + (n mod 41) s: neighbours differ, and something moves on every screen."""


def signal(unit_id: int, cell: int, value_type: ValueType, ts_ms: int) -> float:
    """The raw value of a cell at a time: a sine from 0 to 100; BOOL is 1 in its upper half."""
    cycle_ms = (CYCLE_S_MIN + cell % CYCLES) * 1000
    phase = 2 * pi * ((ts_ms % cycle_ms) / cycle_ms + unit_id / 7)
    value = LOWEST + (HIGHEST - LOWEST) * (1 + sin(phase)) / 2
    if value_type is ValueType.BOOL:
        return float(value >= (LOWEST + HIGHEST) / 2)
    if value_type in {ValueType.FLOAT16, ValueType.FLOAT32, ValueType.FLOAT64}:
        return value
    return float(round(value))


class SimulatedDriver:
    """Answers at once and for ever, once it is connected."""

    def __init__(self, conn: str, *, now_ms: WallClock) -> None:
        self.timeout_s = 1.0
        self._conn = self.parse_conn(conn)
        self._now_ms = now_ms
        self._connected = False

    @staticmethod
    def parse_conn(conn: str) -> str:
        """Check ``sim://NAME``; the result is the cell itself."""
        if not conn.startswith("sim://"):
            raise ValueError(f"{conn!r} is not a simulated connection; expected sim://NAME")
        return conn

    @staticmethod
    def parse_address(address: str, value_type: ValueType) -> Address:  # noqa: ARG004
        """Parse a cell's number. Every type takes one cell."""
        if not (address.isascii() and address.isdecimal()) or int(address) >= CELLS:
            raise ValueError(f"{address!r} is not a cell; allowed: 0 to {CELLS - 1}")
        return Address(AREA, int(address))

    @staticmethod
    def limits(conn: str, area: str) -> Limits:  # noqa: ARG004
        """The same everywhere."""
        return Limits(SPAN_MAX, SPAN_MAX)

    async def connect(self) -> None:
        """Succeeds."""
        self._connected = True

    async def read(self, block: Block) -> tuple[Reply]:
        """The block's values now."""
        if not self._connected:
            raise TransientError(f"{self._conn}: not connected")
        if block.start + block.count > UNREADABLE_FROM:
            raise RefusedError(
                f"{self._conn} unit {block.unit_id}: cells from {UNREADABLE_FROM} can't be read"
            )
        ts_ms = self._now_ms()
        values = [
            signal(block.unit_id, address.offset, tag.type, ts_ms)
            for tag, address in zip(block.tags, block.addresses, strict=True)
        ]
        return (Reply(ts_ms, values),)

    async def close(self) -> None:
        """Nothing is held."""
        self._connected = False
