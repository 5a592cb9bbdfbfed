"""pymodbus's own server as a process: a Modbus TCP server that this project did not write.

A cell that no range covers answers exception 2 (illegal address), a unit that is not listed
exception 4.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from tests.servers import Server

Areas = Mapping[str, Mapping[int, Sequence[int]]]
"""Per area ("coil", "discrete", "holding", "input") the cells of each range, by first offset."""

ORDER = ("coil", "discrete", "holding", "input")


class PymodbusServer(Server):
    """Units by id, each with its areas; constant values."""

    def __init__(self, folder: Path, units: Mapping[int, Areas]) -> None:
        super().__init__(folder)
        self.units = units

    def command(self) -> Sequence[str]:
        path = self.folder / "units.json"
        path.write_text(json.dumps(self.units))
        root = Path(__file__).parent.parent
        # The server's working folder is its own, the package is imported from here.
        return [
            "env",
            f"PYTHONPATH={root}",
            sys.executable,
            "-m",
            __name__,
            str(self.port),
            str(path),
        ]

    @property
    def conn(self) -> str:
        """Address for a map's `conn` column."""
        return f"tcp://127.0.0.1:{self.port}"


def device(unit_id: int, areas: Areas) -> SimDevice:
    """One unit; an area that is not given has one cell far away, as pymodbus wants no empty one."""

    def ranges(area: str) -> list[SimData]:
        bits = area in {"coil", "discrete"}
        return [
            SimData(
                int(start),
                values=[bool(cell) for cell in cells] if bits else list(cells),
                datatype=DataType.BITS if bits else DataType.REGISTERS,
            )
            for start, cells in areas.get(area, {65_504: [0] * 16}).items()
        ]

    coils, discrete, holding, inputs = (ranges(area) for area in ORDER)
    return SimDevice(unit_id, simdata=(coils, discrete, holding, inputs))


async def serve(port: int, units: Mapping[str, Areas]) -> None:
    """Serve until the process is ended."""
    devices = [device(int(unit_id), areas) for unit_id, areas in units.items()]
    await ModbusTcpServer(devices, address=("127.0.0.1", port)).serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())))
