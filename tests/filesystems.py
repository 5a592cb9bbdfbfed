"""Small file systems of their own for tests that fill a disk or take its power away.

They need the right to mount; where that is missing the test is skipped and says so.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A mounted file system."""

    path: Path

    def remount(self, mode: str) -> None:
        """Make it read-only (``ro``) or writable (``rw``)."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)

    @property
    def free_bytes(self) -> int:
        """Room that is left."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Somebody else's file takes all the room but this."""
        with (self.path / "other").open("ab") as stream:
            size = stream.tell() + self.free_bytes - leave_bytes
            if size > stream.tell():
                os.posix_fallocate(stream.fileno(), 0, size)

    def clear(self) -> None:
        """Somebody deletes it."""
        (self.path / "other").unlink()


@contextlib.contextmanager
def tmpfs(path: Path, size: str) -> Iterator[Disk]:
    """A small disk in memory; skips the test where mounting is not permitted."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
