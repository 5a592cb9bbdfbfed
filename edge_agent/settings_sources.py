"""Where settings are written: TOML file, environment, command line; names, files and places.

What the keys mean is no business of this module: it looks names up in a table, turns text into
values, fetches secrets from their files and remembers where each value came from.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property, partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

ENV_PREFIX = "EDGE_AGENT__"

FILE_BYTES_MAX = 1_000_000
"""A settings file with every key has 5 kB; a larger one is another file by mistake."""

SECRET_BYTES_MAX = 65_536
"""Tokens and passwords have hundreds of bytes; a larger file is another one by mistake."""

LOCATED_LINES_MAX = 500
"""Finding the line of a problem costs one parse for each line above it, so not for ever."""

SHOWN_CHARS_MAX = 80
"""Of a wrong value; enough to recognise it."""


class Problems:
    """What is wrong so far, in the order in which it was found."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self.incomplete: set[str] = set()
        """Sections where a value that was given could not be had; rules about several keys wait."""

    def add(self, place: str, text: str) -> None:
        """Note one; the same problem is noted once."""
        line = f"{place}: {text}"
        if line not in self._lines:
            self._lines.append(line)

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __str__(self) -> str:
        if len(self._lines) == 1:
            return self._lines[0]
        return "\n  ".join([f"{len(self._lines)} problems in the settings:", *self._lines])


@dataclass(frozen=True, slots=True)
class Entry:
    """One value as somebody wrote it."""

    value: object
    place: Callable[[], str]
    folder: Path
    """What a relative path counts from."""
    is_text: bool = False
    """Whether it came as text and must be turned into what its key asks for."""
    names_file: bool = False
    """Whether the value is the name of the file that holds the secret."""


@dataclass(frozen=True, slots=True)
class Key:
    """A name under which a setting may be given."""

    section: str
    name: str
    field: FieldInfo
    names_file: bool = False


@dataclass(frozen=True, slots=True)
class KeyTable:
    """All names there are: section to key to field."""

    fields: Mapping[str, Mapping[str, FieldInfo]]
    keys: dict[str, dict[str, Key]] = field(init=False)

    def __post_init__(self) -> None:
        keys: dict[str, dict[str, Key]] = {}
        for section, fields in self.fields.items():
            keys[section] = {name: Key(section, name, info) for name, info in fields.items()}
            keys[section] |= {
                f"{name}_file": Key(section, name, info, names_file=True)
                for name, info in fields.items()
                if is_secret(info)
            }
        object.__setattr__(self, "keys", keys)

    def variables(self) -> dict[str, Key]:
        """Every key by the name of its environment variable."""
        return {
            f"{ENV_PREFIX}{section}__{name}".upper(): key
            for section, keys in self.keys.items()
            for name, key in keys.items()
        }


UNKNOWN_SECRET = SecretStr("")
"""Of a secret that is set, but in a file that only the program it belongs to may read."""


def collect(
    table: KeyTable,
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    problems: Problems,
    own: Container[str],
) -> dict[str, dict[str, Entry]]:
    """All values by section and key, converted, the later source winning; secrets are fetched.

    In sections that are not ``own``, a secret's file that can't be read is no problem: the value is
    then `UNKNOWN_SECRET`.
    """
    winners: dict[tuple[str, str], tuple[Key, Entry]] = {}
    sources = (
        _from_toml(table, path, problems) if path is not None else iter(()),
        _from_environment(table, environ, problems),
        _from_overrides(table, overrides, problems),
    )
    for source in sources:
        given: dict[tuple[str, str], tuple[Key, Entry]] = {}
        for key, entry in source:
            other = given.get((key.section, key.name))
            if other is not None:
                problems.add(entry.place(), f"{other[1].place()} says the same; give one of them")
            given[key.section, key.name] = key, entry
        winners |= given
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    credentials_folder = Path(credentials) if credentials else None
    entries: dict[str, dict[str, Entry]] = {}
    for key, entry in winners.values():
        try:
            value = _value(key, entry, credentials_folder)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and key.section not in own:
                entries.setdefault(key.section, {})[key.name] = replace(entry, value=UNKNOWN_SECRET)
                continue
            problems.add(entry.place(), _in_words(error))
            problems.incomplete.add(key.section)
        else:
            entries.setdefault(key.section, {})[key.name] = replace(entry, value=value)
    return entries


def _from_toml(table: KeyTable, path: Path, problems: Problems) -> Iterator[tuple[Key, Entry]]:
    try:
        text = _read(path, FILE_BYTES_MAX)
        toml = _Toml(path.name, text)
        document = tomllib.loads(text)
    except OSError as error:
        problems.add(str(path), error.strerror or str(error))
        return
    except RecursionError:
        problems.add(str(path), "nested too deeply")
        return
    except ValueError as error:
        problems.add(*_syntax_problem(path, error))
        return
    for section, content in document.items():
        if section not in table.keys:
            problems.add(toml.place(section), _unknown("section", section, table.keys))
        elif not isinstance(content, dict):
            problems.add(
                toml.place(section), f"must be a section: write [{section}] above its keys"
            )
        else:
            for name, value in content.items():
                if name in table.keys[section]:
                    key = table.keys[section][name]
                    place = partial(toml.place, section, name)
                    folder = path.parent
                    yield key, Entry(value, place, folder, names_file=key.names_file)
                else:
                    text = _unknown("key", name, table.keys[section]) + _elsewhere(table, name)
                    problems.add(toml.place(section, name), text)


def _from_environment(
    table: KeyTable, environ: Mapping[str, str], problems: Problems
) -> Iterator[tuple[Key, Entry]]:
    known = table.variables()
    for name, value in environ.items():
        if name in known:
            key = known[name]
            place = partial(str, name)
            yield key, Entry(value, place, Path(), is_text=True, names_file=key.names_file)
        elif name.startswith(ENV_PREFIX):
            problems.add(name, _unknown_variable(name, known))


def _from_overrides(
    table: KeyTable, overrides: Mapping[str, object], problems: Problems
) -> Iterator[tuple[Key, Entry]]:
    known = {f"{s}.{name}": key for s, keys in table.keys.items() for name, key in keys.items()}
    for name, value in overrides.items():
        if name in known:
            key = known[name]
            place = partial("command line, {}".format, name)
            is_text = isinstance(value, str)
            yield key, Entry(value, place, Path(), is_text, key.names_file)
        else:
            problems.add(f"command line, {name}", _unknown("setting", name, known))


@dataclass
class _Toml:
    """A settings file's text, for saying where in it something stands."""

    name: str
    text: str

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        """Line on which each section's and each key's statement ends.

        tomllib tells no places. But the first lines of a file, as far as they parse, hold exactly
        the keys that were written there.
        """
        found: dict[tuple[str, ...], int] = {}
        lines = self.text.split("\n")[:LOCATED_LINES_MAX]
        for number in range(1, len(lines) + 1):
            try:
                document = tomllib.loads("\n".join(lines[:number]))
            except (ValueError, RecursionError):
                continue  # in the middle of a statement
            for section, content in document.items():
                found.setdefault((section,), number)
                for key in content if isinstance(content, dict) else ():
                    found.setdefault((section, key), number)
        return found

    def place(self, section: str, key: str = "") -> str:
        """`edge-agent.toml, line 3, [mqtt] url`; without the line if the file is very long."""
        line = self._lines.get((section, key) if key else (section,))
        where = f"{self.name}, line {line}" if line else self.name
        names = [name if name.isprintable() else repr(name) for name in (section, key)]
        return f"{where}, [{names[0]}] {names[1]}".rstrip()


def _syntax_problem(path: Path, error: ValueError) -> tuple[str, str]:
    """Place and text of a file that is no TOML."""
    if isinstance(error, UnicodeDecodeError):
        return str(path), f"not UTF-8 at byte {error.start}; save it as UTF-8"
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
    if match is None:
        return str(path), str(error)
    if match[2] is None:
        return f"{path}, at its end", match[1]
    return f"{path}, line {match[2]}, column {match[3]}", match[1]


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1)
    if near:
        return f"unknown {what}; did you mean {near[0]}?"
    return f"unknown {what}; known: {', '.join(sorted(known))}"


def _unknown_variable(name: str, known: Iterable[str]) -> str:
    # Compared without the prefix, since with it all of them look alike.
    tails = [variable.removeprefix(ENV_PREFIX) for variable in known]
    near = get_close_matches(name.removeprefix(ENV_PREFIX).upper(), tails, n=1)
    form = f"the form is {ENV_PREFIX}SECTION__KEY, like {ENV_PREFIX}MQTT__URL"
    return f"unknown variable; {f'did you mean {ENV_PREFIX}{near[0]}?' if near else form}"


def _elsewhere(table: KeyTable, name: str) -> str:
    homes = [f"[{section}]" for section, keys in table.keys.items() if name in keys]
    return f" (it belongs to {' or '.join(homes)})" if homes else ""


def _value(key: Key, entry: Entry, credentials: Path | None) -> object:
    """The value that a key gets. Raises ``OSError`` and ``ValueError`` for a secret's file."""
    value = entry.value
    if entry.names_file:
        if not isinstance(value, str) or not value:
            raise ValueError("must be the name of a file")
        secret = _read(_find(value, entry.folder, credentials), SECRET_BYTES_MAX).rstrip("\r\n")
        if not secret:
            raise ValueError(f"the file {shown(value)} is empty")
        return SecretStr(secret)
    if value == "" and key.field.default is None:
        return None  # so that a variable can take back what the file says
    kinds = _kinds(key.field)
    if entry.is_text and isinstance(value, str):
        value = _from_text(value, kinds)
    if isinstance(value, str | Path) and value and Path in kinds:
        is_file = key.name.endswith("_file")
        return _find(str(value), entry.folder, credentials if is_file else None)
    if isinstance(value, list) and tuple in kinds:
        return tuple(value)
    return SecretStr(value) if isinstance(value, str) and SecretStr in kinds else value


def _from_text(text: str, kinds: frozenset[type]) -> object:
    """What a text from the environment would be in TOML; as it stands if it must be text."""
    if kinds & {SecretStr, Path} or kinds <= {str, type(None)}:
        return text
    try:
        value = tomllib.loads(f"value = {text.lower() if bool in kinds else text}")
    except (ValueError, RecursionError):
        value = {}
    if value.keys() == {"value"}:
        return value["value"]
    if tuple in kinds:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _find(name: str, folder: Path, credentials: Path | None) -> Path:
    """Where a file is; absolute, so that nobody's change of the working folder moves it."""
    if credentials is not None and not Path(name).is_absolute():
        credential = credentials / name
        if credential.is_file():
            return credential.absolute()
    return (folder / name).absolute()


def _read(path: Path, bytes_max: int) -> str:
    # A pipe or a device could keep us waiting, or never end.
    if path.exists() and not path.is_file():
        raise OSError(0, "not a regular file", str(path))
    with path.open("rb") as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise OSError(0, f"larger than {bytes_max} bytes; is it the right file?", str(path))
    return content.decode("utf-8-sig")


def _in_words(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, UnicodeDecodeError):
        return "the file is not UTF-8 text"
    return str(error)


def is_secret(field: FieldInfo) -> bool:
    """Whether a value must never be shown."""
    return SecretStr in _kinds(field)


def shown(value: object, field: FieldInfo | None = None) -> str:
    """A value for an error message: short, and without a password, whatever it stands in."""
    if isinstance(value, SecretStr) or (field is not None and is_secret(field)):
        return "a secret (not shown)"
    text = json.dumps(value, ensure_ascii=False, default=str)  # nearly how TOML writes it
    text = re.sub(r"//.*@", "//***@", text)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}..."


def allowed(field: FieldInfo) -> str:
    """What a field takes, as far as its type says it."""
    choices = [
        "true, false" if choice is bool else ", ".join(map(shown, get_args(choice)))
        for choice in _alternatives(field.annotation)
        if choice is bool or get_origin(choice) is Literal
    ]
    if choices:
        return ", ".join(choices)
    kinds = _kinds(field)
    limits: dict[str, Any] = {}
    for rule in field.metadata:
        limits |= {name: getattr(rule, name) for name in ("ge", "le") if hasattr(rule, name)}
    span = f" from {limits['ge']} to {limits['le']}" if limits else ""
    for kind, words in ((int, "a whole number"), (float, "a number"), (tuple, "a list of texts")):
        if kind in kinds:
            return words + span
    return "a path" if Path in kinds else "text"


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, and of the unions in it."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for member in get_args(annotation) for kind in _alternatives(member)]
    return [annotation]


def _kinds(field: FieldInfo) -> frozenset[type]:
    """The types of a field's values; a literal counts as text, `tuple[str, ...]` as tuple."""
    return frozenset(
        str if get_origin(kind) is Literal else get_origin(kind) or kind
        for kind in _alternatives(field.annotation)
    )
