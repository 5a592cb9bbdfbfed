"""Files that are written whole: what each way costs, and what a power cut leaves of it.

`replace_file`    the old file or the new one. Two fsyncs.
`append_durably`  the old lines, and the new ones or a part of them. One fsync.
`SmallFile`       the old file, the new one or an empty one, for what may be lost. No fsync.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from pathlib import Path

log = logging.getLogger(__name__)


def replace_file(
    path: Path, data: bytes, *, mode: int | None = None, owner: tuple[int, int] | None = None
) -> None:
    """Put ``data`` in the place of a file so that a power cut leaves the old or the new one.

    A link is followed, an old file's permissions are kept unless there is a ``mode``. ``owner`` is
    a user's and a group's number. Raises ``OSError``.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with open(os.open(temporary, flags, 0o666 if mode is None else mode), "wb") as file:  # noqa: PTH123
            if mode is not None:
                os.fchmod(file.fileno(), mode)  # whatever the umask takes away
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is None and path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_durably(path: Path, lines: bytes) -> None:
    """Add whole lines to a file, which is made if it is not there.

    They are on the disk when this returns. A line that a crash cut short does not swallow the
    first of them: it gets an end of its own, and its reader leaves it out. Raises ``OSError``.
    """
    with path.open("a+b") as file:
        is_new = not file.tell()
        if not is_new:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                lines = b"\n" + lines
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in it survive a power cut. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SmallFile:
    """A small file whose loss costs little. ``loss`` is what the log says while it can't be
    written, once."""

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
