"""Texts in English with what they are in Korean, and how a message finds its own.

The English message is the identity, as a msgid of gettext is: code makes it and knows nothing of
Korean. An entry is a pair of templates, the English one as the f-string in the code has it:

    "{address!r} is out of range; {allowed!t}"    "범위를 벗어난 주소입니다: {address}. {allowed}"

* ``{name}`` is a value and comes out as it went in.
* ``{name!r}`` is a value in the quotes that Python puts around it, and comes out in them.
* ``{name!t}`` is a text with an entry of its own, a `part`. Where it has none it stays English.

A part is never a message, nor a message a part: a value that reads like one is left as it is.

Messages hold values out of files, so whatever text may come: no template is tried at more than
linear cost. A value ends where what follows it in the template stands for the first time, and no
other end is tried (atomic groups); a quoted one ends with its quote. If a value repeats the words
that surround it, the worst is that all or the rest of the message stays English.

An entry without words of its own, as ``"{conn!r}: {error}; {expected!t}"``, counts only where all
its ``!t`` have an entry: anything would match it otherwise.

What a driver or a sink says is put together at run time, of a place, a reason and what to do:

    "postgres postgresql://u@h/db: connect: Connection refused; is PostgreSQL running, and ..."

No template could be written for each of them. `Pieces` cuts such a text at every ``: `` and ``; ``,
and each piece is a message of its own. One that has no entry stays as it is between the others:
places, and what a server says in its own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

CACHED_MAX: Final = 4_096
"""A page shows 1,000 problems and asks for them again; with their parts, some megabytes."""

PLACE: Final = re.compile(r"\{(\w+)(!\w)?\}")
"""A placeholder: its name, and its kind."""
JOINT: Final = re.compile("(: |; )")
"""What stands between the pieces of a text that is put together at run time."""
JOINTS_MAX: Final = 40
"""A text that others made may be long. Behind these it stays as it is."""

_QUOTED: Final = r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\""""


class Entry(NamedTuple):
    """A template of a message, or of a part of one, and what it is in Korean."""

    english: str
    korean: str
    is_part: bool = False


def part(english: str, korean: str) -> Entry:
    """An entry for what stands inside of messages."""
    return Entry(english, korean, is_part=True)


class Catalogue:
    """Finds the Korean of a message; the most specific template first."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        ordered = sorted(entries, key=lambda entry: -len(PLACE.sub("", entry.english)))
        self._messages = [_template(entry) for entry in ordered if not entry.is_part]
        self._parts = [_template(entry) for entry in ordered if entry.is_part]
        self._find = lru_cache(CACHED_MAX)(self._find_anew)

    def korean(self, message: str) -> str | None:
        """What a message is in Korean; None if no entry is about it."""
        return self._find(message, is_part=False)

    def _find_anew(self, text: str, *, is_part: bool) -> str | None:
        for template in self._parts if is_part else self._messages:
            if template.mark not in text:  # many times as fast as to try the pattern
                continue
            found = template.pattern.fullmatch(text)
            if found is None:
                continue
            values = found.groupdict("")
            known = {name: self._find(values[name], is_part=True) for name in template.texts}
            if template.has_words or (known and None not in known.values()):
                return template.filled({**values, **{n: k for n, k in known.items() if k}})
        return None


class Pieces:
    """Finds the Korean of a text that is put together of messages."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._catalogue = Catalogue(entries)

    def korean(self, text: str) -> str | None:
        """The text with the Korean of its pieces; None if no piece has any."""
        pieces = JOINT.split(text, JOINTS_MAX)
        known = [self._catalogue.korean(piece) for piece in pieces[::2]]
        if not any(known):
            return None
        pieces[::2] = [own or piece for own, piece in zip(known, pieces[::2], strict=True)]
        return "".join(pieces)


@dataclass(frozen=True, slots=True)
class _Template:
    """An entry, compiled. ``mark`` is its longest piece: no text without it can match."""

    pattern: re.Pattern[str]
    korean: str
    mark: str
    texts: frozenset[str]
    has_words: bool

    def filled(self, values: dict[str, str]) -> str:
        return PLACE.sub(lambda place: values[place[1]], self.korean)


def _template(entry: Entry) -> _Template:
    pieces = PLACE.split(entry.english)  # text, name, kind, text, name, kind, ..., text
    literals, names, kinds = pieces[::3], pieces[1::3], pieces[2::3]
    pattern = re.escape(literals[0])
    for place, (name, kind, after) in enumerate(zip(names, kinds, literals[1:], strict=True), 1):
        end = re.escape(after)
        if kind == "!r":
            pattern += f"(?P<{name}>{_QUOTED}){end}"
        elif place < len(names):
            pattern += f"(?>(?P<{name}>.*?){end})"
        else:
            pattern += f"(?P<{name}>.*){end}"
    return _Template(
        pattern=re.compile(pattern, re.DOTALL),
        korean=entry.korean,
        mark=max(literals, key=len),
        texts=frozenset(n for n, kind in zip(names, kinds, strict=True) if kind == "!t"),
        has_words=bool(re.search("[A-Za-z]", "".join(literals))),
    )
