"""One process at a time holds a journal."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from edge_agent.errors import ConfigError, TransientError


def lock(path: Path) -> IO[bytes]:
    """Hold a journal for this process alone, as long as the returned file is open.

    Makes its folder. Raises ``ConfigError`` if another process holds it, a folder stands at
    ``path`` or a file where its folder should be, ``TransientError`` if the disk refuses.
    """
    folder = path.parent
    try:
        if path.is_dir():
            raise ConfigError(
                f"{path} is a folder; the journal is a file", hint="choose another path"
            )
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.with_suffix(".lock").open("wb")
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{folder} can't be the data folder: a file stands there, or on the way to it",
            hint="choose a folder with --data-dir, or data_dir of [agent]",
        ) from error
    except OSError as error:
        raise TransientError(
            f"{path}: {error.strerror}",
            hint="the data folder (--data-dir) must be one that the agent's user may write",
        ) from error
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise ConfigError(
            f"{path} is in use by a running agent",
            hint="stop the agent first, or choose another --data-dir",
        ) from error
    return stream
