"""A disk that can't read parts of a file: EIO for every process that is started so.

The reads of that process, SQLite's too, go through a small C library that the tests compile; what
it writes, maps and renames goes to the disk as ever.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class FailingDisk:
    """The library that is it."""

    library: Path

    @classmethod
    def compiled(cls, folder: Path) -> FailingDisk:
        """Compile it into a folder."""
        library = folder / "unreadable.so"
        subprocess.run(
            ["gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"],
            check=True,
        )
        return cls(library)

    def environment(self, times: int = 0) -> dict[str, str]:
        """For a process that is to have it: ``UNREADABLE_INODE`` and ``UNREADABLE_PIECES`` say what
        can't be read, also when they are set later; after so many ``times`` all is well, 0: never.
        """
        return os.environ | {"LD_PRELOAD": str(self.library), "UNREADABLE_TIMES": str(times)}
