"""The files of `sql/`: what `db init` applies, and the named queries.

In a checkout the folder is `sql/`, in an installed package `edge_agent/sql/`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

FLAVOURS = ("postgres", "timescale")
"""Each has a folder of its own within `sql/`; other folders are for remotes."""

_PACKAGE = Path(__file__).resolve().parents[1]
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """One numbered file: ``name`` is its path within `sql/`, ``sha256`` that of its content."""

    name: str
    text: str
    sha256: str


def folder() -> Path:
    """Where the files lie."""
    installed = _PACKAGE / "sql"
    return installed if installed.is_dir() else _PACKAGE.parent / "sql"


@cache
def queries() -> MappingProxyType[str, str]:
    """The statements of queries.sql by name."""
    _, *parts = _NAME.split((folder() / "queries.sql").read_text(encoding="utf-8"))
    return MappingProxyType(
        {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}
    )


def schema_files(flavour: str) -> tuple[SchemaFile, ...]:
    """The files of one of `FLAVOURS` in the order of their numbers, the common ones among them."""
    return files_of("", flavour)


def files_of(*folders: str) -> tuple[SchemaFile, ...]:
    """The files of these folders of `sql/` ("" is its top) in the order of their numbers."""
    root = folder()
    paths = [path for name in folders for path in (root / name).glob("[0-9]*.sql")]
    return tuple(
        SchemaFile(
            name=path.relative_to(root).as_posix(),
            text=path.read_text(encoding="utf-8"),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(paths, key=lambda path: path.name)
    )
