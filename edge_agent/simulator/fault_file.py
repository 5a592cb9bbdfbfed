"""The file of faults: TOML, each key with its bounds, all problems told at once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge_agent.errors import ConfigError
from edge_agent.simulator.faults import AREAS, Fault, Faults, Kind, Then, problem
from edge_agent.text.counts import counted

FILE_BYTES_MAX: Final = 1_000_000
"""Thousands of faults; more would be looked through with each request."""
SECONDS_MAX: Final = 31_536_000
"""A year: longer than any simulator runs."""
DELAY_MS_MAX: Final = 600_000
"""Ten minutes: longer than any driver waits."""
SEED_MAX: Final = 2**63 - 1
"""TOML's largest integer."""

_CELLS: Final = 65_536
_UNIT_IDS: Final = 256
_HINT: Final = "examples/faults.toml has one fault of each kind"


def load(path: Path) -> Faults:
    """Read a file of faults. Raises ``ConfigError`` with every problem, one a line."""
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{path}: {reason}", hint=_HINT) from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: more than {FILE_BYTES_MAX:,} bytes", hint=_HINT)
    try:
        return parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8, at byte {error.start}", hint=_HINT) from error
    except ConfigError as error:
        lines = str(error).splitlines()
        raise ConfigError(
            "\n  ".join([f"{path}: {counted(len(lines), 'problem')}", *lines])
            if len(lines) > 1
            else f"{path}: {lines[0]}",
            hint=_HINT,
        ) from error


def parse(text: str) -> Faults:
    """Faults from TOML. Raises ``ConfigError`` with every problem, one a line."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError("not TOML: nested too deeply") from error
    problems = [
        f"key {key if key.isprintable() else repr(key)}: unknown; allowed: seed, [[fault]]"
        for key in document
        if key not in {"seed", "fault"}
    ]
    seed = document.get("seed", 0)
    if not _is_whole(seed) or not 0 <= seed <= SEED_MAX:
        problems.append(f"key seed: found {seed!r}; allowed: whole numbers from 0")
    entries = document.get("fault", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        problems.append("key fault: write each fault as [[fault]], with two brackets")
        entries = []
    faults = []
    for number, entry in enumerate(entries, 1):
        found = list(_problems(number, entry))
        problems += found
        if not found:
            faults.append(_fault(number, entry))
    if problems:
        raise ConfigError("\n".join(problems))
    return Faults(tuple(faults), seed)


@dataclass(frozen=True, slots=True)
class _Key:
    """What a key of a fault may hold: in words, and as a test."""

    allowed: str
    fits: Callable[[object], bool]
    kinds: frozenset[Kind] = field(default=frozenset(Kind))
    required_by: frozenset[Kind] = frozenset()


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(least: float, most: float, *, above: bool = False) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return least <= value <= most and not (above and value == least)

    return fits


def _whole(least: int, most: int, *, but: int | None = None) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        return _is_whole(value) and _number(least, most)(value) and value != but

    return fits


def _is_unit(value: object) -> bool:
    one = _whole(0, 255)
    return one(value) or (isinstance(value, list) and bool(value) and all(map(one, value)))


def _is_range(value: object) -> bool:
    return isinstance(value, str) and _range(value) is not None


def _range(text: str) -> range | None:
    """ "7" or "0-99", counted from 0; None if it is neither."""
    first, dash, last = text.replace(" ", "").partition("-")
    ends = [first, last if dash else first]
    if not all(end.isascii() and end.isdecimal() and len(end) <= 5 for end in ends):
        return None
    cells = range(int(ends[0]), int(ends[1]) + 1)
    return cells if len(cells) > 0 and cells.stop <= _CELLS else None


def _is_conn(value: object) -> bool:
    try:
        return isinstance(value, str) and urlsplit(value).scheme != ""
    except ValueError:
        return False


def _is_status(value: object) -> bool:
    return isinstance(value, str) and value.isidentifier()


def _is_address(value: object) -> bool:
    def one(text: object) -> bool:
        return isinstance(text, str) and text != ""

    return one(value) or (isinstance(value, list) and bool(value) and all(map(one, value)))


_BY_CELLS: Final = frozenset(Kind) - {Kind.DEAD, Kind.BAD_STATUS, Kind.RESTART}
"""Kinds that a range of cells can be given for."""

_SECONDS = f"0 to {SECONDS_MAX:,} seconds"
_ABOVE_0 = f"above 0, up to {SECONDS_MAX:,} seconds"
_MILLISECONDS = f"above 0, up to {DELAY_MS_MAX:,} ms"

_KEYS: Final[Mapping[str, _Key]] = {
    "conn": _Key('a conn of the map, such as "tcp://10.0.0.5:502"', _is_conn),
    "unit": _Key(
        "a unit id from 0 to 255, or a list of them",
        _is_unit,
        frozenset(Kind) - {Kind.BAD_STATUS, Kind.RESTART},
        frozenset({Kind.DEAD}),
    ),
    "area": _Key(
        ", ".join(AREAS.values()),
        lambda value: value in AREAS.values(),
        _BY_CELLS,
    ),
    "range": _Key(
        f'cells counted from 0, such as "7" or "0-99", up to {_CELLS - 1}',
        _is_range,
        _BY_CELLS,
    ),
    "from_s": _Key(_SECONDS, _number(0, SECONDS_MAX)),
    "for_s": _Key(_ABOVE_0, _number(0, SECONDS_MAX, above=True)),
    "every_s": _Key(_ABOVE_0, _number(0, SECONDS_MAX, above=True)),
    "probability": _Key(
        "above 0, up to 1", _number(0, 1, above=True), frozenset(Kind) - {Kind.DEAD, Kind.RESTART}
    ),
    "delay_ms": _Key(
        _MILLISECONDS,
        _number(0, DELAY_MS_MAX, above=True),
        frozenset({Kind.DELAY}),
        frozenset({Kind.DELAY}),
    ),
    "jitter_ms": _Key(
        _MILLISECONDS,
        _number(0, DELAY_MS_MAX, above=True),
        frozenset({Kind.JITTER}),
        frozenset({Kind.JITTER}),
    ),
    "code": _Key(
        "an exception code from 1 to 255, such as 2, 4, 6 or 11",
        _whole(1, 255),
        frozenset({Kind.EXCEPTION, Kind.DEAD}),
        frozenset({Kind.EXCEPTION}),
    ),
    "shift": _Key(
        "-32768 to 32767, not 0",
        _whole(-32_768, 32_767, but=0),
        frozenset({Kind.WRONG_TRANSACTION, Kind.WRONG_UNIT}),
    ),
    "then": _Key(", ".join(Then), lambda value: value in tuple(Then), frozenset({Kind.HALF_FRAME})),
    "rest_ms": _Key(
        _MILLISECONDS, _number(0, DELAY_MS_MAX, above=True), frozenset({Kind.HALF_FRAME})
    ),
    "status": _Key(
        "the name of a status code, such as BadSensorFailure or UncertainLastUsableValue",
        _is_status,
        frozenset({Kind.BAD_STATUS}),
        frozenset({Kind.BAD_STATUS}),
    ),
    "address": _Key(
        'a node id of the map, such as "ns=2;s=Pump.Speed" or "ns=2;s=Pump.*", or a list of them',
        _is_address,
        frozenset({Kind.BAD_STATUS}),
    ),
}


def _problems(number: int, entry: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with one fault, each with its key and what is allowed."""
    name = entry.get("kind")
    if name not in tuple(Kind):
        yield problem(number, "kind", name, ", ".join(Kind))
        return
    kind = Kind(str(name))
    article = "an" if kind is Kind.EXCEPTION else "a"
    its = [name for name, key in _KEYS.items() if kind in key.kinds]
    for name, value in entry.items():
        if name == "kind":
            continue
        if name not in its:
            what = f"not for {article} {kind} fault" if name in _KEYS else "unknown"
            shown = name if name.isprintable() else repr(name)
            yield f"fault {number}, key {shown}: {what}; allowed: kind, {', '.join(its)}"
        elif not _KEYS[name].fits(value):
            yield problem(number, name, value, _KEYS[name].allowed)
    for name in its:
        if kind in _KEYS[name].required_by and name not in entry:
            what = f"missing, {article} {kind} fault needs it"
            yield f"fault {number}, key {name}: {what}; allowed: {_KEYS[name].allowed}"
    shift = entry.get("shift")
    if kind is Kind.WRONG_UNIT and isinstance(shift, int) and shift % _UNIT_IDS == 0:
        yield problem(number, "shift", shift, f"no multiple of {_UNIT_IDS}, as unit ids are bytes")
    for_s, every_s = entry.get("for_s"), entry.get("every_s")
    if every_s is not None and (
        not isinstance(for_s, int | float)
        or (isinstance(every_s, int | float) and for_s >= every_s)
    ):
        yield problem(number, "every_s", every_s, "longer than for_s, which must be given too")


def _fault(number: int, entry: Mapping[str, object]) -> Fault:
    """A fault from an entry that has no problem."""
    known = {one.name for one in fields(Fault)}
    values: dict[str, object] = {key: value for key, value in entry.items() if key in known}
    values["kind"] = Kind(str(entry["kind"]))
    unit = entry.get("unit")
    if unit is not None:
        values["unit"] = frozenset(unit if isinstance(unit, list) else [unit])
    address = entry.get("address")
    if address is not None:
        values["addresses"] = tuple(address if isinstance(address, list) else [address])
    if "range" in entry:
        values["cells"] = _range(str(entry["range"]))
    if "then" in entry:
        values["then"] = Then(str(entry["then"]))
    return Fault(number, **values)  # type: ignore[arg-type]
