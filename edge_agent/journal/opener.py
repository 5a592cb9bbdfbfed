"""Opens a journal's file, or what a salvage makes of a damaged one. Used by the journal's thread.

A file may also be opened after another one of a running journal, whose last commit may stand in it
or not. So it is told what is in memory, and says what of that the file has: that must not be
written to it once more, and a salvage that does not find it has not lost it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import JournalError
from edge_agent.journal import salvage
from edge_agent.journal.file import JournalFile
from edge_agent.journal.progress import Progress

log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """A file, ready for its sinks, and the sequences of what it has of the entries in memory."""

    file: JournalFile
    held: set[int]


@dataclass(slots=True)
class Opener:
    """Opens one journal. ``in_memory`` has the samples of each entry in memory, by sequence.

    Errors: ``ConfigError`` as of the file, ``TransientError`` if the disk refuses.
    """

    path: Path
    open_file: salvage.OpenFile
    progress: Progress
    sinks: tuple[str, ...] = ()
    salvages: int = 0

    def open(self, in_memory: Mapping[int, int]) -> Opened:
        """The file; a damaged one is set aside and salvaged."""
        with self.progress.doing("opening the journal"):
            salvage.finish(self.path)
            try:
                file = self.open_file(self.path)
                return self._ready(file, in_memory)
            except JournalError as error:
                return self.salvage(error, in_memory)

    def salvage(self, error: JournalError, in_memory: Mapping[int, int]) -> Opened:
        """Set the damaged file aside and go on with what can be recovered of it.

        Its connection must still be open: closing it would fold its WAL into it.
        """
        log.error("journal damaged: %s; setting it aside and recovering what it holds", error)
        with self.progress.doing("recovering the journal"):
            reach = self.progress.reach
            report = salvage.replace(self.path, self.open_file, self.sinks, reach, in_memory)
            self.salvages += 1
            log.error("journal recovered: %s", report)
            return self._ready(self.open_file(self.path), in_memory)

    def _ready(self, file: JournalFile, in_memory: Mapping[int, int]) -> Opened:
        held = salvage.held(file, in_memory, self.sinks)
        file.configure(self.sinks)
        return Opened(file, held)
