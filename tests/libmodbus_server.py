"""Modbus servers that this project did not write, on serial lines and for RTU over TCP.

A serial line is a pair of pseudo terminals by socat, which know no parity. libmodbus serves from a
small C program that the tests compile, pymodbus from a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.modbus_server import Areas, PymodbusServer
from tests.servers import Server

SOURCE = Path(__file__).with_suffix(".c")

PYMODBUS = """
import asyncio, json, sys
from pathlib import Path
from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from tests.modbus_server import device

async def serve(place, path):
    units = json.loads(Path(path).read_text())
    devices = [device(int(unit_id), areas) for unit_id, areas in units.items()]
    if place.isdecimal():
        address = ("127.0.0.1", int(place))
        server = ModbusTcpServer(devices, framer=FramerType.RTU, address=address)
    else:
        server = ModbusSerialServer(
            devices, framer=FramerType.RTU, port=place, baudrate=19200, parity="N"
        )
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(serve(*sys.argv[1:]))
"""


def compile_server(folder: Path) -> Path:
    """The C program, compiled into a folder."""
    binary = folder / "libmodbus_server"
    subprocess.run(
        ["gcc", "-Wall", "-Werror", "-I/usr/include/modbus", SOURCE, "-o", binary, "-lmodbus"],
        check=True,
    )
    return binary


class _Saying(Server):
    """A server that says when it is ready."""

    def start(self) -> Self:
        (self.folder / "server.log").unlink(missing_ok=True)
        super().start()
        return self

    def ready(self) -> bool:
        return "ready" in (self.folder / "server.log").read_text()


class SerialLine(Server):
    """Two devices that are joined as by a cable; both vanish when it is stopped."""

    @property
    def near(self) -> Path:
        """The end for the driver."""
        return self.folder / "ttyNear"

    @property
    def far(self) -> Path:
        """The end for a server."""
        return self.folder / "ttyFar"

    def command(self) -> Sequence[str]:
        ends = [f"pty,raw,echo=0,link={end}" for end in (self.near, self.far)]
        return ["socat", *ends]

    def ready(self) -> bool:
        return self.near.exists() and self.far.exists()

    @property
    def conn(self) -> str:
        """For a map's `conn` column."""
        return f"rtu://{self.near}?baudrate=19200&parity=N"


class SerialGateway(Server):
    """A line's near end behind a TCP port: bytes pass as they are, one connection at a time."""

    def __init__(self, folder: Path, line: SerialLine) -> None:
        super().__init__(folder)
        self.line = line

    def command(self) -> Sequence[str]:
        listen = f"TCP-LISTEN:{self.port},bind=127.0.0.1,reuseaddr,fork,max-children=1"
        return ["socat", "-t", "0", listen, f"{self.line.near},raw,echo=0"]

    @property
    def conn(self) -> str:
        """For a map's `conn` column."""
        return f"rtu+tcp://127.0.0.1:{self.port}"


class LibmodbusLine(_Saying):
    """libmodbus as the one unit on a line; other units are silent."""

    def __init__(
        self, folder: Path, binary: Path, line: SerialLine, areas: Areas, *, unit_id: int = 1
    ) -> None:
        super().__init__(folder)
        self._arguments = [str(binary), "rtu", str(line.far), "19200", "N", "1", str(unit_id)]
        self._arguments += _cells(areas)

    def command(self) -> Sequence[str]:
        return self._arguments


class LibmodbusServer(_Saying):
    """libmodbus as a Modbus TCP server."""

    def __init__(self, folder: Path, binary: Path, areas: Areas) -> None:
        super().__init__(folder)
        self._arguments = [str(binary), "tcp", str(self.port), *_cells(areas)]

    def command(self) -> Sequence[str]:
        return self._arguments

    @property
    def conn(self) -> str:
        """For a map's `conn` column."""
        return f"tcp://127.0.0.1:{self.port}"


class PymodbusRtu(_Saying, PymodbusServer):
    """pymodbus's RTU on a line, or without one through TCP."""

    def __init__(
        self, folder: Path, units: Mapping[int, Areas], line: SerialLine | None = None
    ) -> None:
        super().__init__(folder, units)
        self.line = line

    def command(self) -> Sequence[str]:
        path = self.folder / "units.json"
        path.write_text(json.dumps(self.units))
        place = str(self.port) if self.line is None else str(self.line.far)
        root = Path(__file__).parent.parent
        return ["env", f"PYTHONPATH={root}", sys.executable, "-c", PYMODBUS, place, str(path)]

    @property
    def conn(self) -> str:
        return f"rtu+tcp://127.0.0.1:{self.port}" if self.line is None else self.line.conn


def _cells(areas: Areas) -> list[str]:
    return [
        f"{area}:{first}:{','.join(str(int(cell)) for cell in cells)}"
        for area, ranges in areas.items()
        for first, cells in ranges.items()
    ]
