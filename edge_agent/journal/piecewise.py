"""A file that the disk can read only in part.

A memory card that dies answers some reads with EIO, and so does a bus that was disturbed for a
moment. So each piece is tried again after a pause; what stays unreadable is left out.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import TransientError

PIECE_BYTES = 4096
"""What the kernel reads at once: a page of its cache."""
READ_TRIES = 3
READ_INTERVAL_S = 1.0
"""A USB adapter or a card that was reset answers again by then; kernel and card retry as well."""

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
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return Readable(b"")
    try:
        size = os.fstat(file).st_size
        pieces = [b""] * -(-size // PIECE_BYTES)
        failed: Iterable[int] = range(len(pieces))
        for attempt in range(READ_TRIES):
            if attempt:
                time.sleep(READ_INTERVAL_S)
            failed = [number for number in failed if not _read(file, number, pieces, alive)]
            if not failed:
                break
    finally:
        os.close(file)
    for number in failed:
        pieces[number] = bytes(min(PIECE_BYTES, size - number * PIECE_BYTES))
    return Readable(b"".join(pieces), frozenset(failed))


def _read(file: int, number: int, pieces: list[bytes], alive: Alive) -> bool:
    """Try one piece."""
    try:
        pieces[number] = os.pread(file, PIECE_BYTES, number * PIECE_BYTES)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        if alive():
            raise TransientError("reading it is given up") from error
        return False
    return True
