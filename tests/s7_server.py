"""python-snap7's own server as a process: an S7 CPU that this project did not write.

A data block that is not listed does not exist; bytes beyond an area's end are out of range.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from snap7.server import Server as Snap7Server
from snap7.type import SrvArea

from tests.servers import Server

AREAS = {"I": SrvArea.PE, "Q": SrvArea.PA, "M": SrvArea.MK}


class S7Server(Server):
    """Constant bytes by area: "M", "I", "Q" and data blocks such as "DB1"."""

    def __init__(self, folder: Path, areas: Mapping[str, bytes]) -> None:
        super().__init__(folder)
        self.areas = areas

    def command(self) -> list[str]:
        path = self.folder / "areas.json"
        path.write_text(json.dumps({name: data.hex() for name, data in self.areas.items()}))
        root = Path(__file__).parent.parent
        # The server's working folder is its own, the package is imported from here.
        return [
            "env", f"PYTHONPATH={root}", sys.executable, "-m", __name__, str(self.port), str(path)
        ]  # fmt: skip

    @property
    def conn(self) -> str:
        """Address for a map's `conn` column."""
        return f"s7://127.0.0.1:{self.port}"


def serve(port: int, areas: Mapping[str, str]) -> None:
    """Serve until the process is ended."""
    server = Snap7Server(log=False)
    server.host = "127.0.0.1"
    for name, data in areas.items():
        area = AREAS.get(name, SrvArea.DB)
        number = 0 if name in AREAS else int(name.removeprefix("DB"))
        server.register_area(area, number, bytearray.fromhex(data))
    server.start(port)
    signal.pause()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    serve(int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
