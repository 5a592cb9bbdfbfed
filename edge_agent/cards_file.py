"""The cards file, `dashboard.yaml`: what may stand in it, for who writes it and for who shows it.

`edge-agent generate` refuses a file with a problem in it; the dashboard tells the problems and
shows the rest. What the map has not got, a main tag or a device, is no problem of the file: it was
there when somebody wrote it, and may come back. `unknown_names` tells it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from edge_agent.errors import ConfigError
from edge_agent.text.counts import counted
from edge_agent.text.yaml_text import line_of

FORM_VERSION: Final = 1
"""Of the file's form."""
TITLE_CHARS_MAX: Final = 200
"""A card shows so much of a title; a name of the map has at most 128."""
SHOWN_CHARS_MAX: Final = 60
"""Of a wrong value; enough to recognise it."""
NEAR_MAX: Final = 20
"""Unknown names with a name like them: to find one among 3,000 devices takes some 20 ms."""
_SECTIONS: Final = ("version", "groups", "cards")
_KEYS: Final = ("title", "group", "main", "gauge")
_ENDS: Final = ("lo", "hi")


@dataclass(frozen=True, slots=True)
class Card:
    """What the file says of one device; None and "" leave it as it would be without the file."""

    title: str = ""
    main: str | None = None
    lo: float | None = None
    hi: float | None = None


@dataclass(frozen=True, slots=True)
class CardsProblem:
    """One thing to correct: ``key`` is its path in the file, as `cards.A1/PUMP01.main`."""

    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        line = "" if self.line is None else f"line {self.line}, "
        return f"{line}{self.key}: {self.message}"

    def as_dict(self) -> dict[str, int | str | None]:
        """The same as plain data, for ``--json``."""
        return {"line": self.line, "key": self.key, "message": self.message}


class CardsError(ConfigError):
    """A file that must not be used; ``problems`` holds all of them, in file order."""

    def __init__(self, where: str, problems: Collection[CardsProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "\n  ".join([f"{where}: {counted(len(problems), 'problem')}", *map(str, problems)]),
            hint="correct it, or delete the file to begin anew; docs/generate.md has its form",
        )


@dataclass(frozen=True, slots=True)
class CardsFile:
    """The cards by SITE/DEVICE in the file's order, without what is wrong, and all problems."""

    cards: Mapping[str, Card]
    problems: tuple[CardsProblem, ...]


def read_cards(document: object) -> CardsFile:
    """Check what `yaml_text.load_with_lines` gave; any document is allowed."""
    reader = _Reader()
    cards = reader.file(document)
    return CardsFile(cards, tuple(sorted(reader.problems, key=lambda one: one.line or 0)))


def unknown_names(cards: Mapping[str, Card], tags: Mapping[str, Collection[str]]) -> Iterator[str]:
    """What cards name and nobody has got; ``tags`` are those that there are, by SITE/DEVICE.

    The first ``NEAR_MAX`` have a name that is like them.
    """
    told = 0
    for key, card in cards.items():
        if key not in tags:
            near = _near(key, tags) if told < NEAR_MAX else ""
            yield f"cards.{_cut(key)}: there is no such device{near}"
        elif card.main is not None and card.main not in tags[key]:
            near = _near(card.main, tags[key]) if told < NEAR_MAX else ""
            yield f"cards.{_cut(key)}.main: the device has no tag {_shown(card.main)}{near}"
        else:
            continue
        told += 1


class _Reader:
    """Reads values and notes problems."""

    def __init__(self) -> None:
        self.problems: list[CardsProblem] = []

    def file(self, document: object) -> dict[str, Card]:
        if not isinstance(document, Mapping):
            self._note(
                None, "the file", f"must be a mapping with version: {FORM_VERSION} and cards"
            )
            return {}
        self._unknown(document, "", _SECTIONS)
        if "version" not in document:
            self._note(None, "version", f"is missing; write version: {FORM_VERSION}")
        elif (found := document["version"]) != FORM_VERSION or isinstance(found, bool):
            self._wrong(document, "version", "version", f"{FORM_VERSION}")
        groups = self._mapping(document, "groups", "groups", "a mapping of names to titles") or {}
        for name in groups:
            self._text(groups, name, f"groups.{name}")
        if document.get("cards") is None:
            self._note(None, "cards", "is missing; write cards: {} for none")
        cards = self._mapping(document, "cards", "cards", "a mapping of SITE/DEVICE to cards") or {}
        return {str(key): self._card(cards, key) for key in cards if self._is_name(cards, key)}

    def _card(self, cards: Mapping[Any, Any], key: object) -> Card:
        path = f"cards.{key}"
        card = self._mapping(cards, key, path, f"a mapping with {', '.join(_KEYS)}")
        if card is None:
            return Card()
        self._unknown(card, path, _KEYS)
        self._text(card, "group", f"{path}.group")
        lo, hi = self._gauge(card, f"{path}.gauge")
        return Card(
            title=self._text(card, "title", f"{path}.title") or "",
            main=self._text(card, "main", f"{path}.main"),
            lo=lo,
            hi=hi,
        )

    def _gauge(self, card: Mapping[Any, Any], path: str) -> tuple[float | None, float | None]:
        gauge = self._mapping(card, "gauge", path, "a mapping with lo and hi")
        if gauge is None:
            return None, None
        self._unknown(gauge, path, _ENDS)
        lo, hi = (self._number(gauge, end, f"{path}.{end}") for end in _ENDS)
        if lo is not None and hi is not None and lo >= hi:
            self._note(
                line_of(gauge, "hi"), f"{path}.hi", f"{hi:g} is not above lo, {lo:g}; exchange them"
            )
            return None, None
        return lo, hi

    def _mapping(
        self, parent: Mapping[Any, Any], key: object, path: str, allowed: str
    ) -> Mapping[Any, Any] | None:
        found = parent.get(key)
        if found is None or isinstance(found, Mapping):
            return found
        self._wrong(parent, key, path, allowed)
        return None

    def _text(self, parent: Mapping[Any, Any], key: str, path: str) -> str | None:
        found = parent.get(key)
        if found is None:
            return None
        if _is_text(found):
            return str(found)
        quoted = "; put it in quotes" if isinstance(found, int | float) else ""
        self._wrong(parent, key, path, f"a text{quoted}")
        return None

    def _number(self, parent: Mapping[Any, Any], key: str, path: str) -> float | None:
        found = parent.get(key)
        if found is None:
            return None
        number = _finite(found)
        if number is None:
            self._wrong(parent, key, path, "a number, or null for none")
        return number

    def _is_name(self, cards: Mapping[Any, Any], key: object) -> bool:
        if _is_text(key):
            return True
        self._note(line_of(cards, key), f"cards.{_shown(key)}", "allowed: SITE/DEVICE as a text")
        return False

    def _unknown(self, found: Mapping[Any, Any], path: str, known: tuple[str, ...]) -> None:
        for key in found:
            if key not in known:
                name = f"{path}.{key}" if path else str(key)
                near = get_close_matches(str(key), known, 1)
                advice = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(known)}"
                self._note(line_of(found, key), name[: 2 * TITLE_CHARS_MAX], f"unknown; {advice}")

    def _wrong(self, parent: Mapping[Any, Any], key: object, path: str, allowed: str) -> None:
        self._note(line_of(parent, key), path, f"found {_shown(parent[key])}; allowed: {allowed}")

    def _note(self, line: int | None, key: str, message: str) -> None:
        plain = key if key.isprintable() else repr(key)
        self.problems.append(CardsProblem(line, plain, message))


def _is_text(found: object) -> bool:
    """A text, or a whole number without quotes: `main: 101`.

    Numbers written in another way (`007`, `0x1F`, `1.50`) have types of their own, or would come
    out as another text.
    """
    return isinstance(found, str) or type(found) is int


def _finite(found: object) -> float | None:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        number = float(found)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _shown(found: object) -> str:
    if isinstance(found, Mapping):
        return "a mapping"
    if isinstance(found, list):
        return "a list"
    try:
        return _cut(str(found) if isinstance(found, int | float) else repr(str(found)))
    except ValueError:  # Python writes no decimal number of more than 4,300 digits
        return "a number"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}..."


def _near(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name[:TITLE_CHARS_MAX], known, 1)
    return f"; did you mean {near[0]}?" if near else ""
