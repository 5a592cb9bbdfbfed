"""Power loss: the file system is shut down under the journal, and nothing cached reaches the disk.

ext4's shutdown ioctl without a flush of its log does to a mounted image what a cut cable does to
an SD card: what was not fsync'ed is gone.
"""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.journals import balance_faults, journal_file, kept_for

IMAGE_MB = 128
CUTS = 5
EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), fs/ext4/ext4.h
NO_LOG_FLUSH = (2).to_bytes(4, sys.byteorder)
ROOT = Path(__file__).parents[2]


class Card:
    """An ext4 file system in an image file, whose power can be cut."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "card.img"
        self.path = folder / "card"
        self.path.mkdir()
        with self.image.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, IMAGE_MB << 20)

    def format(self) -> None:
        """Make the file system; skips the test where that, or mounting it, is not possible."""
        made = subprocess.run(["mkfs.ext4", "-q", str(self.image)], capture_output=True, text=True)
        mounted = subprocess.run(self._mount, capture_output=True, text=True)
        if made.returncode or mounted.returncode:
            pytest.skip(f"an ext4 image can't be mounted here: {made.stderr}{mounted.stderr}")

    @property
    def _mount(self) -> list[str]:
        return ["mount", "-o", "loop", str(self.image), str(self.path)]

    def cut(self) -> None:
        """Take the power away: nothing that is still cached is written."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(folder)

    def restore(self) -> None:
        """Power is back: mounted anew, with its log replayed."""
        self.remove()
        subprocess.run(self._mount, check=True)

    def remove(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", str(self.path)], check=True)


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Card]:
    """A formatted, mounted card."""
    card = Card(tmp_path)
    card.format()
    try:
        yield card
    finally:
        card.remove()


def test_power_is_cut_while_samples_are_taken(card: Card) -> None:
    """Whatever a commit returned for is there after the power came back, exactly once."""
    path, chance, reported = card.path / "journal.db", random.Random(3), 0
    for _ in range(CUTS):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.journal_writer", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            text=True,
        )
        assert process.stdout is not None
        try:
            assert int(process.stdout.readline()) >= reported, "taken samples are gone"
            time.sleep(chance.uniform(0.2, 0.6))
            card.cut()
        finally:
            process.kill()
            lines = process.stdout.read().splitlines()
            process.stdout.close()
            process.wait()
        reported = max([reported, *(int(line) for line in lines if line)])
        card.restore()
    with closing(journal_file(path, bytes_max=100_000_000)) as file:
        file.configure(["a", "b"])
        assert file.taken >= reported > 0
        assert [s.value for s in kept_for(file, "b")] == [float(n + 1) for n in range(file.taken)]
        assert balance_faults(file) == []
        assert file.check() == []
    assert not list(card.path.glob("*.damaged*")), "a power cut is no damage"
