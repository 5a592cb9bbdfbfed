"""Files that a command writes: whether they can be, before the work begins.

Each is written by `files.replace_file`: a new file takes the place of the old one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edge_agent.errors import ConfigError, EdgeAgentError, TransientError

HINT_FILE: Final = "name a file in a folder that is there and may be written"
HINT_FOLDER: Final = "name a folder that may be written"
_WRONG_PLACE: Final = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
"""Errors of who named the place; others, such as a full disk, are the machine's."""


def check_output(path: Path, hint: str = HINT_FILE) -> None:
    """Refuse a file that can't be written. Links are followed, as `replace_file` does.

    Raises ``ConfigError``.
    """
    try:
        is_folder, folder = path.is_dir(), path.resolve().parent
        is_other = path.exists() and not path.is_file()
    except OSError as error:
        raise unwritable(path, error, hint) from error
    if is_folder:
        raise ConfigError(f"{path} is a folder", hint=hint)
    if is_other:  # such as /dev/null, which a file must not take the place of
        raise ConfigError(f"{path} is not a file", hint=hint)
    if not folder.is_dir():
        raise ConfigError(f"{path} can't be written: there is no folder {folder}", hint=hint)
    _check_rights(path, folder, hint)


def check_not_input(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over a file that is read, by whatever name. Raises ``ConfigError``."""
    for one in inputs:
        try:
            is_same = path.samefile(one)
        except OSError:  # one of them is not there
            continue
        if is_same:
            raise ConfigError(
                f"{path} is a file that this command reads", hint="give the output another name"
            )


def check_output_folder(folder: Path) -> None:
    """Refuse a folder for several files that can't be had; one that is not there is made later.

    Raises ``ConfigError``.
    """
    try:
        there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    except OSError as error:
        raise unwritable(folder, error, HINT_FOLDER) from error
    if not there.is_dir():
        raise ConfigError(f"{there} is not a folder", hint=HINT_FOLDER)
    _check_rights(folder, there, HINT_FOLDER)


def unwritable(path: Path, error: OSError, hint: str = HINT_FILE) -> EdgeAgentError:
    """What to raise when writing has failed: ``ConfigError`` if another place would help."""
    text = f"{path} can't be written: {error.strerror}"
    if error.errno in _WRONG_PLACE:
        return ConfigError(text, hint=hint)
    return TransientError(text, hint="no half file is left; make room, and run it again")


def _check_rights(path: Path, folder: Path, hint: str) -> None:
    # A file is replaced, so it is the folder that counts.
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{path} can't be written: no right to write in {folder}", hint=hint)
