"""The problems of a map in Korean, for whoever shows them to people who read Korean.

`to_korean` takes a problem's message, `file_in_korean` makes the sentence about a whole file.
`text/catalogue.py` says how a message is found, `files.py`, `rows.py` and `protocols.py` have the
texts, by where a message comes from. tests/unit/test_korean.py holds them complete: a message in
the code without an entry, or an entry without a message, fails it.

No particle of Korean (을/를, 이/가, (으)로) stands behind a value, of which nobody knows the sound.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edge_agent.address_map.korean.files import FILES, OF_THE_SYSTEM
from edge_agent.address_map.korean.protocols import PROTOCOLS
from edge_agent.address_map.korean.rows import ROWS
from edge_agent.text.catalogue import Catalogue, Entry

__all__ = ["ENTRIES", "OF_THE_SYSTEM", "file_in_korean", "to_korean"]

ENTRIES: Final[tuple[Entry, ...]] = (*FILES, *ROWS, *PROTOCOLS)
"""All of them."""

_CATALOGUE: Final = Catalogue(ENTRIES)
_MORE: Final = re.compile(r" \(and ([0-9]+) more: (.+)\)")
"""The end of the agent's sentence about a file of many problems (edge_agent/reload/reloader.py)."""


def to_korean(message: str) -> str | None:
    """The Korean of a problem's message; None for one of a driver of somebody else."""
    return _CATALOGUE.korean(message)


def file_in_korean(path: str, problems: Sequence[Mapping[str, Any]], english: str) -> str | None:
    """The sentence about a file that is refused, by the first of its problems as plain data.

    None where that one has no Korean, and for a file that was refused without problems.
    """
    message = to_korean(problems[0]["message"]) if problems else None
    if message is None:
        return None
    problem = problems[0]
    line, column, value = problem["line"], problem["column"], problem["value"]
    place = [] if line is None else [f"{line}행"]
    if column is not None:
        place.append(f"{column} 열")
    if value and not problem["message"].startswith(repr(value)):
        place.append(repr(value))
    more = _MORE.search(english)
    others = f" (외 {more[1]}건: {more[2]})" if more else ""
    return ": ".join(filter(None, (path, ", ".join(place), message))) + others
