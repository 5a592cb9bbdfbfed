"""YAML of people's hands: bounded in size and depth, and an error that names the place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from edge_agent.errors import ConfigError

BYTES_MAX: Final = 8 * 1024 * 1024
"""A card of `dashboard.yaml` takes about 150 bytes: some 50,000 of them."""
DEPTH_MAX: Final = 16
"""`dashboard.yaml` is four deep."""


def load_yaml(text: str, where: str, load: Callable[[str], Any] | None = None) -> Any:
    """What a text says; ``load`` is another loader than the one that gives plain data.

    ``where`` names the file in errors. Raises ``ConfigError``: too large, too deep, anchors and
    aliases (a few of them could stand for millions of values), or no YAML.
    """
    if len(text.encode(errors="replace")) > BYTES_MAX:
        raise ConfigError(f"{where} is larger than {BYTES_MAX} bytes; delete it to begin anew")
    try:
        _check_shape(text, where)
        return (load or YAML(typ="safe", pure=True).load)(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "somewhere" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"
        raise ConfigError(
            f"{where}, {place}: {error.problem or error.context}; correct it, or delete the file"
            " to begin anew"
        ) from error
    except (YAMLError, ValueError) as error:
        raise ConfigError(
            f"{where} is not YAML: {error}; correct it, or delete the file to begin anew"
        ) from error


def load_with_lines(text: str, where: str) -> Any:
    """The same, with mappings that `line_of` knows the lines of."""
    return load_yaml(text, where, YAML(typ="rt", pure=True).load)


def line_of(mapping: Any, key: object) -> int | None:
    """On which line a key of a mapping of `load_with_lines` stands; None where nobody knows."""
    places = getattr(getattr(mapping, "lc", None), "data", None) or {}
    return places[key][0] + 1 if key in places else None


def read_text(path: Path) -> str:
    """A file's text. Raises ``ConfigError`` for one that is too large or not UTF-8, ``OSError``."""
    with path.open("rb") as file:
        data = file.read(BYTES_MAX + 1)
    if len(data) > BYTES_MAX:
        raise ConfigError(f"{path} is larger than {BYTES_MAX} bytes; delete it to begin anew")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from error


def _check_shape(text: str, where: str) -> None:
    depth = 0
    for event in YAML(typ="rt", pure=True).parse(text):
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            line = event.start_mark.line + 1
            raise ConfigError(f"{where}, line {line}: anchors and aliases are not allowed here")
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                line = event.start_mark.line + 1
                raise ConfigError(f"{where}, line {line}: nested deeper than {DEPTH_MAX} levels")
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            depth -= 1
