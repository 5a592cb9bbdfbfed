"""Changing the users file, as a whole: a power cut leaves the old or the new one."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dashboard.auth.users import SECRET_BYTES, UsersFile, load
from edge_agent.errors import ConfigError
from edge_agent.files import replace_file


def change(path: Path, edit: Callable[[UsersFile], UsersFile]) -> None:
    """Replace the file by what ``edit`` makes of it; a file that is missing is made.

    Two changes at a time wait for each other. If ``edit`` raises, nothing is written. Raises
    ``ConfigError`` if the file is wrong or can't be written.
    """
    path = path.resolve()
    try:
        with _locked(path.parent):
            if path.exists():
                before = load(path)
            else:
                before = UsersFile(secrets.token_bytes(SECRET_BYTES), {})
            _replace(path, edit(before).text().encode())
    except OSError as error:
        raise ConfigError(
            f"{path}: the users file can't be written: {error.strerror}",
            hint="run the command as the user that edge-dashboard runs as, or as root",
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other changes."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    """Put ``data`` in the file's place, readable by its owner only. Raises ``OSError``."""
    owner = path.stat() if path.exists() else path.parent.stat()
    as_root = os.geteuid() == 0
    if path.exists() and owner.st_uid != os.geteuid() and not as_root:
        raise PermissionError(errno.EPERM, "it belongs to another user")
    # `sudo edge-dashboard user add` must leave a file that the service can read.
    replace_file(path, data, mode=0o600, owner=(owner.st_uid, owner.st_gid) if as_root else None)
