"""Names that other systems gave, as names that the address map takes. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import chain

from edge_agent.address_map.cells import NAME_CHARS_MAX, name


def valid_name(text: str) -> str:
    """The nearest name that the map takes; empty if nothing is left of the text.

    What a topic may not have, and what nobody sees, becomes an underscore.
    """
    made = unicodedata.normalize("NFC", text)
    made = re.sub(r"[/+#]|[^\S ]", "_", made)
    made = "".join(c if c.isprintable() else "_" for c in made)
    made = made.strip().lstrip("$").strip()[:NAME_CHARS_MAX].strip()
    try:
        return name(made) if made else ""
    except ValueError:  # a sign that is printable and yet not for names, or a $ behind a space
        return re.sub(r"[^\w. -]", "_", made)


def numbered(text: str) -> Iterator[str]:
    """The name with _2, _3 and so on, never longer than a name may be."""
    number = 2
    while True:
        ending = f"_{number}"
        yield f"{text[: NAME_CHARS_MAX - len(ending)]}{ending}"
        number += 1


class DistinctNames:
    """Names that are given once each: a tag's within its device, for example."""

    def __init__(self) -> None:
        self._taken: set[tuple[object, str]] = set()
        self._numbered: dict[tuple[object, str], Iterator[str]] = {}

    def take(self, scope: object, wanted: str, *others: str) -> str:
        """The first of the names that is free within the scope, or the wanted one with a number."""
        # Each number is tried once: a hundred thousand tags may have the same name.
        more = self._numbered.setdefault((scope, wanted), numbered(wanted))
        candidates = chain([wanted], others, more)
        made = next(one for one in candidates if (scope, one) not in self._taken)
        self._taken.add((scope, made))
        return made
