"""Every address map that was applied, kept beside the journal, so that each can be had back.

One folder: `versions.jsonl` has a line per version, and beside it lies each version's file to the
byte, named by its number. A line is written when its file is on the disk, so that a power cut
leaves a version whole or absent. A line that was cut short is left out; a damaged file is found by
its hash when somebody asks for it. ``VERSIONS_MAX`` are kept; the database, where there is one, has
them all (`admin.address_map_version`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import orjson

from edge_agent.errors import ConfigError, TransientError
from edge_agent.files import append_durably, replace_file

FOLDER: Final = "maps"
INDEX: Final = "versions.jsonl"
VERSIONS_MAX: Final = 500
"""A map of 10,000 rows has 1.5 MB: 750 MB at most, and 25 MB for a common one of 300 rows."""


@dataclass(frozen=True, slots=True)
class Version:
    """One map that was applied.

    ``sha256`` is that of the file; ``how`` says what led to it: start, file, upload, rollback to N.
    The counts of rows are those of the difference to the version before.
    """

    version: int
    sha256: str
    applied_at_ms: int
    author: str
    how: str
    tags: int
    columns_version: int
    added: int = 0
    changed: int = 0
    removed: int = 0


class MapVersions:
    """The versions of one agent, oldest first. Without `load` it has none."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER
        self._index = self._folder / INDEX
        self._versions: dict[int, Version] = {}
        self.is_known = True
        """Whether all that is on the disk is known; else nothing may be added to it."""

    def load(self) -> None:
        """Read the list. Raises ``TransientError`` if it is there and can't be read."""
        self.is_known = False
        try:
            data = self._index.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise TransientError(f"{self._index}: can't be read: {error.strerror}") from error
        self.is_known = True
        found = (_parsed(line) for line in data.splitlines())
        self._versions = {one.version: one for one in found if one is not None}

    @property
    def all(self) -> list[Version]:
        """Oldest first."""
        return [one for _, one in sorted(self._versions.items())]

    @property
    def newest(self) -> Version | None:
        """The last one that was applied."""
        return self._versions[max(self._versions)] if self._versions else None

    def get(self, number: int) -> Version:
        """One version. Raises ``ConfigError`` if there is no such one."""
        try:
            return self._versions[number]
        except KeyError:
            text = f"there is no version {number} of the map; there are {self._range()}"
            if len(self._versions) == 1:
                only = min(self._versions)
                text = f"there is no version {number} of the map; there is only version {only}"
            raise ConfigError(text, hint="edge-agent map history") from None

    def data(self, number: int) -> bytes:
        """A version's file. Raises ``ConfigError`` if there is none, or if it is damaged."""
        version = self.get(number)
        path = self._path(number)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"version {number}: {path}: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != version.sha256:
            raise ConfigError(f"version {number}: {path} was changed or is damaged")
        return data

    def add(self, version: Version, data: bytes) -> None:
        """Keep a version for good; the oldest beyond ``VERSIONS_MAX`` goes.

        It is on the disk when this returns. Raises ``TransientError``, also if what is there is
        not known or has this number: it is not overwritten.
        """
        if not self.is_known or version.version in self._versions:
            raise TransientError(f"{self._folder}: version {version.version} may be there already")
        kept = [*self.all, version][-VERSIONS_MAX:]
        gone = self._versions.keys() - {one.version for one in kept}
        try:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            replace_file(self._path(version.version), data)
            if gone:
                replace_file(self._index, b"".join(map(_line, kept)))
            else:
                append_durably(self._index, _line(version))
        except OSError as error:
            raise TransientError(f"{self._folder}: can't be written: {error.strerror}") from error
        self._versions = {one.version: one for one in kept}
        for number in gone:
            self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.map"

    def _range(self) -> str:
        if not self._versions:
            return "none"
        return f"{min(self._versions)} to {max(self._versions)}"


def _line(version: Version) -> bytes:
    return orjson.dumps(asdict(version)) + b"\n"


_FIELDS: Final[Mapping[str, type]] = {
    field.name: str if field.type == "str" else int for field in fields(Version)
}


def _parsed(line: bytes) -> Version | None:
    """A line as it was written; None for one that was cut short."""
    try:
        found: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or not _is_whole(found.items()):
        return None
    return Version(**found)


def _is_whole(items: Iterable[tuple[str, object]]) -> bool:
    given = dict(items)
    return given.keys() == _FIELDS.keys() and all(
        isinstance(given[name], kind) for name, kind in _FIELDS.items()
    )
