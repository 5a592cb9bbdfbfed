"""Of which devices something stands at the broker, kept across restarts in one small file.

A device that leaves the map while the agent is down would otherwise be told as it was for ever. The
file is written before a device is told of for the first time, and again when it was taken back, so
that a crash in between costs a message too many. A file that is lost, damaged or can't be written
costs that such a device stays.

    [["A1", "PUMP01"], ["A1", "탱크07"]]
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Final

import orjson

from edge_agent.files import SmallFile

log = logging.getLogger(__name__)

DEVICES_FILE: Final = "devices.json"

Device = tuple[str, str]
"""Site and name."""


class ToldDevices:
    """The devices that a sink has been told of and that were not taken back."""

    def __init__(self, path: Path) -> None:
        self._file = SmallFile(path, "which devices are told of is not kept for a restart")
        self._devices = _load(path)

    def without(self, present: Collection[Device]) -> list[Device]:
        """Those that are to be taken back if these are all there are; sorted."""
        return sorted(self._devices.difference(present))

    def add(self, devices: Collection[Device]) -> None:
        """They are about to be told of."""
        self._change(self._devices.union(devices))

    def remove(self, devices: Collection[Device]) -> None:
        """They were taken back."""
        self._change(self._devices.difference(devices))

    def _change(self, devices: frozenset[Device]) -> None:
        if devices == self._devices:
            return
        self._devices = devices
        self._file.write(orjson.dumps(sorted(devices)))


def _load(path: Path) -> frozenset[Device]:
    try:
        names = orjson.loads(path.read_bytes())
        return frozenset((str(site), str(device)) for site, device in names)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s can't be used, what is told stays as it is: %s", path, error)
    return frozenset()
