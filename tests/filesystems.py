"""Small file systems of their own for tests that fill a disk or take its power away.

They need the right to mount; where that is missing the test is skipped and says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

EXT4_IOC_SHUTDOWN = 0x8004587D
"""``_IOR('X', 125, __u32)``, linux/fs/ext4/ext4.h."""
EXT4_GOING_FLAGS_NOLOGFLUSH = 2
"""As if the power had failed."""


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


@dataclass(frozen=True)
class Ext4(Disk):
    """A disk whose power can fail: what was not flushed to its image is gone."""

    image: Path

    def mount(self) -> str:
        """Attach it; returns why not, or nothing."""
        mounted = subprocess.run(
            ["mount", "-o", "loop", str(self.image), str(self.path)],
            capture_output=True,
            text=True,
            check=False,
        )
        return mounted.stderr.strip() if mounted.returncode else ""

    def lose_power(self) -> None:
        """From now on nothing reaches the disk, the file system's own log included."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("=I", EXT4_GOING_FLAGS_NOLOGFLUSH))
        finally:
            os.close(folder)

    def restore_power(self) -> None:
        """Mount it again: the file system recovers from what its log holds."""
        subprocess.run(["umount", str(self.path)], check=True)
        refusal = self.mount()
        assert not refusal, refusal


@contextlib.contextmanager
def ext4(path: Path, megabytes: int) -> Iterator[Ext4]:
    """A disk in an image file; skips the test where loop mounts are not permitted."""
    image = path.with_suffix(".img")
    with image.open("wb") as stream:
        stream.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    path.mkdir()
    disk = Ext4(path, image)
    refusal = disk.mount()
    if refusal:
        pytest.skip(f"loop mounts are not permitted here: {refusal}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
