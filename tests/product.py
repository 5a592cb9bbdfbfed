"""The modules that are installed, for tests of how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PRODUCT: Final = sorted(
    path
    for package in ("edge_agent", "remote", "dashboard")
    for path in (ROOT / package).rglob("*.py")
    if ".web" not in path.parts
)


def relative(path: Path) -> str:
    """A file's name within the project."""
    return str(path.relative_to(ROOT))
