"""The address map: one file that says what is read, how often, and what it is called.

`load` gives the tags of a file, or every problem of it at once; `write` makes a file that `load`
reads back to the same tags. docs/address-map.md says the same to the people who write maps.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.address_map.check import check
from edge_agent.address_map.columns import (
    COLUMNS,
    COLUMNS_VERSION,
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
)
from edge_agent.address_map.problems import MapError, Problem, UnreadableFileError, shown
from edge_agent.address_map.row import Syntaxes
from edge_agent.address_map.table import read
from edge_agent.address_map.writer import WRITTEN_COLUMNS, to_csv
from edge_agent.files import replace_file
from edge_agent.model import AddressSyntax, Tag

__all__ = [
    "COLUMNS",
    "COLUMNS_VERSION",
    "FILE_BYTES_MAX",
    "OPTIONAL_COLUMNS",
    "REQUIRED_COLUMNS",
    "AddressMap",
    "MapError",
    "Problem",
    "load",
    "parse",
    "read_bytes",
    "write",
]

FILE_BYTES_MAX = 16 * 1024 * 1024
"""A row takes about 150 bytes, so this is some 100,000 tags; no Pi polls as many. A running agent
reads whatever is put in its map's place: what is no map at all must not take its memory."""


@dataclass(frozen=True, slots=True)
class AddressMap:
    """A valid map: ``tags`` of the enabled rows in map order, ``disabled`` counts the others.

    ``sha256`` is that of the file's bytes, as hexadecimal text: the same file, the same map.
    """

    path: Path
    tags: tuple[Tag, ...]
    disabled: int
    sha256: str


def load(path: Path, syntax: Callable[[str], type[AddressSyntax]] | None = None) -> AddressMap:
    """Read and check a map; disabled rows are checked like the others.

    ``syntax`` gives a protocol's address syntax by name and raises ``ConfigError`` for a protocol
    that nobody offers; without it the cells of `protocol`, `conn` and `address` may hold any
    text. Raises ``MapError`` with every problem of the file.
    """
    return parse(path, read_bytes(path), syntax)


def read_bytes(path: Path) -> bytes:
    """A map's file. Raises ``MapError`` if it can't be read, or is larger than any map."""
    try:
        return _bytes_of(path)
    except UnreadableFileError as error:
        raise MapError(path, [error.problem]) from error


def parse(
    path: Path, data: bytes, syntax: Callable[[str], type[AddressSyntax]] | None
) -> AddressMap:
    """Check what was read from ``path``, or is to be written there; the rest as for `load`."""
    try:
        checked = check(read(data), None if syntax is None else Syntaxes(syntax))
    except UnreadableFileError as error:
        raise MapError(path, [error.problem]) from error
    if checked.problems:
        raise MapError(path, checked.problems)
    return AddressMap(path, tuple(checked.tags), checked.disabled, hashlib.sha256(data).hexdigest())


def write(path: Path, tags: Iterable[Tag]) -> None:
    """Write a map that `load` reads back to the same tags, in place of the old file if any.

    The new file is complete and on disk before it takes the name: a power cut leaves the old map
    or the new one. Raises ``MapError``, and leaves the old file alone, if a tag breaks a rule or
    would be read back differently (a name that is not in Unicode's composed form, for example);
    ``OSError`` if the file can't be written.
    """
    tags = tuple(tags)
    data = to_csv(tags)
    checked = check(read(data), None)
    problems = checked.problems or [
        Problem(line, column, shown(str(getattr(tag, column))), f"would be read back as {back!r}")
        for line, tag, tag_back in zip(checked.lines, tags, checked.tags, strict=True)
        if tag != tag_back
        for column in WRITTEN_COLUMNS
        if (back := getattr(tag_back, column)) != getattr(tag, column)
    ]
    if problems:
        raise MapError(path, problems)
    replace_file(path, data)


def _bytes_of(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableFileError("this is a folder; name the file in it")
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFileError("this is not a regular file; name a .csv or .xlsx file")
        if status.st_size > FILE_BYTES_MAX:
            raise UnreadableFileError(
                f"the file has {status.st_size} bytes, allowed are {FILE_BYTES_MAX}"
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UnreadableFileError("there is no such file; check the path") from error
    except (OSError, ValueError) as error:
        # ValueError: a path with a null byte.
        reason = getattr(error, "strerror", None) or error
        raise UnreadableFileError(f"the file can't be read: {reason}") from error
