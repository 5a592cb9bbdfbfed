"""A text in both languages, made at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self


class Bilingual(NamedTuple):
    """The same thing said in English and in Korean.

    Who composes sentences out of figures writes both side by side, so that neither says more than
    the other and nobody can leave one out.
    """

    english: str
    korean: str

    @classmethod
    def joined(cls, joint: str, texts: Iterable[Self]) -> Self:
        """All of them, with ``joint`` between them in both languages."""
        found = list(texts)
        return cls(
            joint.join(text.english for text in found), joint.join(text.korean for text in found)
        )
