"""Servers of the npm package modbus-serial: Modbus TCP, and RTU on a serial line.

A cell that no range covers answers exception 2 (illegal address); a unit that is not listed is
silent. What else is particular to them:

* On a line a frame ends with ``silence_ms`` of silence, whatever the rate. So each reply is late by
  as much, and two requests within it are one frame that nothing answers. A request's checksum is
  not looked at.
* A request of 126 or 127 registers is answered too; one of more is exception 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.libmodbus_server import SerialLine
from tests.modbus_server import Areas
from tests.npm import NodeServer

SILENCE_MS = 30
"""What it takes unless it is told."""


class ModbusSerialServer(NodeServer):
    """Units by id, each with its areas; constant values. With a line on its far end, else TCP."""

    scripts = Path(__file__).parent / "node_modbus"

    def __init__(
        self,
        folder: Path,
        units: Mapping[int, Areas],
        line: SerialLine | None = None,
        *,
        silence_ms: int = SILENCE_MS,
    ) -> None:
        super().__init__(folder)
        self.silence_ms = silence_ms
        self.units = units
        self.line = line

    def options(self) -> Mapping[str, Any]:
        path = None if self.line is None else str(self.line.far)
        return {
            "port": self.port,
            "path": path,
            "units": self.units,
            "silence_ms": self.silence_ms,
        }

    @property
    def conn(self) -> str:
        """For a map's `conn` column."""
        return f"tcp://127.0.0.1:{self.port}" if self.line is None else self.line.conn
