"""How devices and tags are named on a command line: the same words for every command. Pure.

A word is ``DEVICE``, ``SITE/DEVICE``, ``DEVICE/TAG`` or ``SITE/DEVICE/TAG``; no name has a slash in
it. Where a word can be understood in two ways it means both. It may be composed in another way than
the map (some systems type ``각`` as two signs): maps hold NFC, and so do words here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Final, TypeVar

FORMS: Final = "DEVICE, SITE/DEVICE, DEVICE/TAG or SITE/DEVICE/TAG"
"""For messages."""

Key = tuple[str, str, str]
"""Site, device and tag."""
T = TypeVar("T")


class UnknownNameError(ValueError):
    """A word names nothing. ``near`` is a name that there is, much like it or else an example.

    It is empty where there is nothing at all.
    """

    def __init__(self, word: str, near: str) -> None:
        super().__init__(word)
        self.word = word
        self.near = near


def selected(things: Sequence[T], words: Iterable[str], key: Callable[[T], Key]) -> list[T]:
    """Things that the words name, in their order. Raises ``UnknownNameError``."""
    wanted = set(map(normal, words))
    names = {name for thing in things for name in names_of(key(thing))}
    for word in sorted(wanted - names):
        alike = sorted(name for name in names if name.count("/") == word.count("/"))
        near = get_close_matches(word, alike, 1) or [min(names, default="")]
        raise UnknownNameError(word, near[0])
    return [thing for thing in things if wanted.intersection(names_of(key(thing)))]


def normal(word: str) -> str:
    """A word as the map would have it."""
    return unicodedata.normalize("NFC", word)


def names_of(key: Key) -> tuple[str, ...]:
    """Every word (`normal`) that names a tag."""
    site, device, tag = key
    return device, f"{site}/{device}", f"{device}/{tag}", f"{site}/{device}/{tag}"
