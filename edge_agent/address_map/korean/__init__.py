"""The problems of a map in Korean, for whoever shows them to people who read Korean.

`to_korean` takes a problem's message. `catalogue.py` says how it is found, `files.py`, `rows.py`
and `protocols.py` have the texts, by where a message comes from. tests/unit/test_korean.py holds
them complete: a message in the code without an entry, or an entry without a message, fails it.

No particle of Korean (을/를, 이/가, (으)로) stands behind a value, of which nobody knows the sound.
"""

from __future__ import annotations

from typing import Final

from edge_agent.address_map.korean.catalogue import Catalogue, Entry, part
from edge_agent.address_map.korean.files import FILES, OF_THE_SYSTEM
from edge_agent.address_map.korean.protocols import PROTOCOLS
from edge_agent.address_map.korean.rows import ROWS

__all__ = ["ENTRIES", "OF_THE_SYSTEM", "Catalogue", "Entry", "part", "to_korean"]

ENTRIES: Final[tuple[Entry, ...]] = (*FILES, *ROWS, *PROTOCOLS)
"""All of them."""

_CATALOGUE: Final = Catalogue(ENTRIES)


def to_korean(message: str) -> str | None:
    """The Korean of a problem's message; None for one of a driver of somebody else."""
    return _CATALOGUE.korean(message)
