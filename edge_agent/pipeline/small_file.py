"""A small file whose loss costs little: replaced as a whole, at once, and without fsync."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)


class SmallFile:
    """Writes one file. ``loss`` is what the log says while it can't be written, once."""

    def __init__(self, path: Path, loss: str) -> None:
        self._path = path
        self._loss = loss
        self._is_broken = False

    def write(self, data: bytes) -> None:
        """Put it in the place of what was there. Never raises."""
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(self._path)
        except OSError as error:
            if not self._is_broken:
                log.warning("%s: %s", self._loss, error)
            self._is_broken = True
        else:
            self._is_broken = False
