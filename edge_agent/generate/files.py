"""The generated files on the disk: what would change, and writing it.

Everything is rendered before anything is written. A file is replaced as a whole (the old one or the
new one, never half), and only if its content changes. One that somebody else has written is not
replaced: `--out` may name a folder with other things in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.cards_file import unknown_names
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.files import replace_file
from edge_agent.generate.cards import render_with
from edge_agent.generate.merge import Edited, merge
from edge_agent.generate.renderers import DASHBOARD, RENDERERS
from edge_agent.generate.subject import MARK, LeftOut, Subject
from edge_agent.output_file import HINT_FOLDER, unwritable
from edge_agent.text.yaml_text import read_text

LAST: Final = f".generated/{DASHBOARD}"
"""What `dashboard.yaml` was before anybody edited it."""
MARK_BYTES: Final = 4096
"""A generated file says what it is within so many bytes."""


@dataclass(frozen=True, slots=True)
class File:
    """One file: ``name`` within the folder, its new content, and whether that is another one."""

    name: str
    data: bytes
    changed: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """All files, in the order in which they are written, and what is worth telling.

    ``conflicts`` is what was kept in `dashboard.yaml` although the map has changed, ``unknown``
    what cards name and the map has not got.
    """

    files: tuple[File, ...]
    conflicts: tuple[str, ...]
    unknown: tuple[str, ...]
    left_out: dict[str, tuple[LeftOut, ...]]


def prepare(subject: Subject, folder: Path) -> Outcome:
    """Render all files and compare them with a folder, which need not exist; writes nothing.

    Raises ``ConfigError`` if a file there is somebody else's or an edited one can't be read,
    ``EdgeAgentError`` if the folder can't.
    """
    texts: dict[str, str] = {}
    left_out: dict[str, tuple[LeftOut, ...]] = {}
    for name, renderer in RENDERERS.items():
        rendered = renderer(subject)
        texts[name] = rendered.text
        if rendered.left_out:
            left_out[name] = rendered.left_out
    conflicts: Sequence[str] = ()
    unknown: Iterable[str] = ()
    text, last = _text(folder / DASHBOARD), _text(folder / LAST)
    texts[LAST] = texts[DASHBOARD]
    if text is not None and text != last:
        edited = Edited(text, str(folder / DASHBOARD))
        mains = {key: card.main for key, card in edited.cards.items() if card.main is not None}
        fresh = render_with(subject, mains).text
        merged = merge(last, edited, fresh, str(folder / LAST))
        texts[DASHBOARD], conflicts = merged.text, merged.conflicts
        unknown = unknown_names(merged.cards, _tags_of(subject))
    files = [_compared(folder, name, text) for name, text in texts.items()]
    return Outcome(tuple(files), tuple(conflicts), tuple(unknown), left_out)


def write(outcome: Outcome, folder: Path) -> None:
    """Write what has changed. Raises ``EdgeAgentError``, ``ConfigError`` for a wrong folder."""
    for file in outcome.files:
        if file.changed:
            path = folder / file.name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, file.data)
            except OSError as error:
                raise unwritable(path, error, HINT_FOLDER) from error


def _compared(folder: Path, name: str, text: str) -> File:
    data = text.encode()
    path = folder / name
    before = _bytes(path, len(data) + MARK_BYTES)
    if before is not None and name != DASHBOARD and MARK.encode() not in before[:MARK_BYTES]:
        raise ConfigError(
            f"{path} was not written by edge-agent generate, and is left alone",
            hint="choose another folder with --out, or move the file away",
        )
    return File(name, data, before != data)


def _tags_of(subject: Subject) -> dict[str, set[str]]:
    return {"/".join(key): {tag.tag for tag in tags} for key, tags in subject.devices.items()}


def _text(path: Path) -> str | None:
    """A file that people may edit; None if it is not there."""
    try:
        return read_text(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def _bytes(path: Path, bytes_max: int) -> bytes | None:
    """The first bytes of a file; None if it is not there."""
    try:
        with path.open("rb") as file:
            return file.read(bytes_max)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> EdgeAgentError:
    """Why a file that is there can't be read."""
    if isinstance(error, NotADirectoryError):
        return ConfigError(f"{path.parent} is not a folder", hint="name a folder with --out")
    return EdgeAgentError(f"{path} can't be read: {error.strerror}")
