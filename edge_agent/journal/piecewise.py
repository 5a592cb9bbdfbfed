"""A file that the disk can read only in part.

A memory card that dies answers some reads with EIO, and so does a bus that was disturbed for a
moment. So each piece is tried again after a pause; what stays unreadable is left out.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import TransientError

log = logging.getLogger(__name__)

PIECE_BYTES = 4096
"""What the kernel reads at once: a page of its cache."""
READ_TRIES = 3
READ_INTERVAL_S = 1.0
"""A USB adapter or a card that was reset answers again by then; kernel and card retry as well."""
HOLES = "-holes"
"""Ends the name of a copy that has zeros in the pieces that could not be read."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What link(2) answers where a file can't have a second name."""

Alive = Callable[[], bool | None]
"""Called after each failed read, which may have taken seconds; true: give it up."""


@dataclass(frozen=True, slots=True)
class Readable:
    """A file's bytes, with zeros in the pieces that could not be read, and which those are."""

    data: bytes
    holes: frozenset[int] = frozenset()


def read(path: Path, alive: Alive = lambda: None) -> Readable:
    """Read a file as far as the disk can; nothing if there is none.

    Raises ``TransientError`` if it is given up, ``OSError`` for all but EIO.
    """
    pieces: dict[int, bytes] = {}
    try:
        size, failed = _each_piece(path, pieces.__setitem__, alive)
    except FileNotFoundError:
        return Readable(b"")
    for number in failed:
        pieces[number] = bytes(min(PIECE_BYTES, size - number * PIECE_BYTES))
    return Readable(b"".join(map(pieces.__getitem__, range(len(pieces)))), frozenset(failed))


def keep(source: Path, target: Path, alive: Alive) -> None:
    """Give a file a second name that outlives its first; durable.

    It is a copy, or the file itself where that can't be read: a later try may be able to. On a file
    system without second names (vfat, exFAT) it is a copy then too, with zeros in the pieces that
    can't be read, and its name says so: `HOLES` follows.
    Raises ``OSError`` and ``TransientError``, as `read` does; then nothing is left of it.
    """
    try:
        _made(target, lambda: shutil.copyfile(source, target))
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    else:
        return
    try:
        _made(target, lambda: os.link(source, target))
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        target = target.with_name(target.name + HOLES)
        _made(target, lambda: _copy(source, target, alive))
        log.warning("%s: there are zeros for what is unreadable", target)


def _made(target: Path, make: Callable[[], object]) -> None:
    try:
        make()
        with target.open("rb") as stream:
            os.fsync(stream.fileno())
    except (OSError, TransientError):
        target.unlink(missing_ok=True)
        raise


def _copy(source: Path, target: Path, alive: Alive) -> None:
    with target.open("wb") as stream:

        def take(number: int, piece: bytes) -> None:
            stream.seek(number * PIECE_BYTES)
            stream.write(piece)

        size, _ = _each_piece(source, take, alive)
        stream.truncate(size)


def _each_piece(
    path: Path, take: Callable[[int, bytes], object], alive: Alive
) -> tuple[int, Sequence[int]]:
    """Read all pieces that can be read; returns the file's size, and which pieces can't."""
    file = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(file).st_size
        failed: Sequence[int] = range(-(-size // PIECE_BYTES))
        for attempt in range(READ_TRIES):
            if attempt and failed:
                time.sleep(READ_INTERVAL_S)
            tried, failed = failed, []
            for number in tried:
                piece = _piece(file, number, alive)
                if piece is None:
                    failed.append(number)
                else:
                    take(number, piece)
    finally:
        os.close(file)
    return size, failed


def _piece(file: int, number: int, alive: Alive) -> bytes | None:
    """Try one piece."""
    try:
        return os.pread(file, PIECE_BYTES, number * PIECE_BYTES)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        if alive():
            raise TransientError("reading it is given up") from error
        return None
