"""Every address map that was applied, on its way into a database that keeps them.

The versions beside the journal are what counts (reload/map_versions.py); this takes them along, in
order, as long as the database is there. How far it has come is a number in a small file. The newest
one is handed over at each start again, in case that it is another database now: what that has it
does not take twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import orjson

from edge_agent import address_map
from edge_agent.address_map import AddressMap
from edge_agent.address_map.writer import to_records
from edge_agent.errors import ConfigError, TransientError
from edge_agent.files import SmallFile
from edge_agent.reload.map_versions import FOLDER, MapVersions

log = logging.getLogger(__name__)

RECORDED_FILE: Final = "recorded"
INTERVAL_S: Final = 5.0
ROWS_PER_PIECE: Final = 50
"""About a millisecond of work."""
PIECE_PAUSE_S: Final = 0.004
"""Nobody waits for it: 25,000 rows take two seconds, and the event loop hardly notices."""

Record = Callable[[str, str, bytes], Awaitable[None]]
"""Hash, author, and rows as a JSON array; raises ``TransientError``."""


class MapRecorder:
    """Hands versions to a database."""

    def __init__(
        self,
        versions: MapVersions,
        record: Record,
        data_dir: Path,
        running: Callable[[], AddressMap | None] = lambda: None,
    ) -> None:
        """``running`` is a map that need not be read again if it is the version wanted."""
        self.recorded: int | None = None
        """The newest version that the database has; None before the first round."""
        self._versions = versions
        self._record = record
        self._path = data_dir / FOLDER / RECORDED_FILE
        self._file = SmallFile(self._path, "which versions the database has is not kept")
        self._running = running
        self._failing = False

    async def run(self) -> None:
        """Go on for ever. Ends only by cancellation."""
        while True:
            await self.round()
            await asyncio.sleep(INTERVAL_S)

    async def round(self) -> None:
        """Hand over what is new; what can't be now is in the next round."""
        newest = self._versions.newest
        if newest is None:
            return
        if self.recorded is None:
            self.recorded = min(_number_in(self._path), newest.version - 1)
        for version in self._versions.all:
            if version.version > self.recorded:
                try:
                    rows = await asyncio.to_thread(self._rows, version.version)
                    await self._record(version.sha256, version.author, rows)
                except ConfigError as error:
                    log.warning("version of the map not recorded: %s", error)
                except (OSError, TransientError) as error:
                    self._failed(error)
                    return
                self.recorded = version.version
        self._failing = False
        self._keep(self.recorded)

    def _rows(self, version: int) -> bytes:
        running = self._running()
        if running is None or running.sha256 != self._versions.get(version).sha256:
            running = address_map.parse(self._path, self._versions.data(version), None)
        rows = bytearray()
        for number, row in enumerate(to_records(running.tags)):
            rows += b"," + orjson.dumps(row)
            if number % ROWS_PER_PIECE == 0:
                time.sleep(PIECE_PAUSE_S)  # in a thread: the event loop has its turn
        rows[:1] = b"["
        return bytes(rows) + b"]"

    def _failed(self, error: Exception) -> None:
        level = logging.DEBUG if self._failing else logging.WARNING
        log.log(level, "the map's version is not in the database yet: %s", error)
        self._failing = True

    def _keep(self, recorded: int) -> None:
        if recorded != _number_in(self._path):  # else it is handed over once more
            self._file.write(b"%d\n" % recorded)


def _number_in(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
