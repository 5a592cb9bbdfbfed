"""Faults of simulated PLCs: which, where, when; from a TOML file, and repeatable.

A fault has a *kind* (what goes wrong), a *where* (connection, unit, area, range of cells; what is
not given is everywhere) and a *when* (seconds since the start of the simulator: from `from_s` on,
for `for_s`, again each `every_s`), and hits a request with its `probability`.

=================  ===========================================================================
kind               what the client sees
=================  ===========================================================================
delay              the reply comes `delay_ms` later, and so does all that follows it
jitter             the same by a random time up to `jitter_ms`
silence            no reply to this request, now or later
exception          exception `code` instead of values
wrong_transaction  the reply carries a transaction id that is off by `shift`
half_frame         half of the reply; `then` "nothing", "close" or, `rest_ms` later, "rest"
close              the connection is closed instead of an answer
dead               the unit is gone: no reply, or exception `code` as a gateway would send it
=================  ===========================================================================

Delays add up. Of the other kinds the first one in the file that hits decides.

Repeatable
----------
Chance is not a stream of numbers, in which one request more or less would shift all that follow.
Whether a fault hits is a hash of seed, fault, listener, the request's bytes and how often this same
request has come: the n-th reading of a range meets the same faults in every run, whatever other
clients or scan classes ask in between, and however often they reconnect. Time decides only whether
a fault is on.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge_agent.errors import ConfigError

FILE_BYTES_MAX: Final = 1_000_000
"""Thousands of faults; more would be looked through with each request."""
SECONDS_MAX: Final = 31_536_000
"""A year: longer than any simulator runs."""
DELAY_MS_MAX: Final = 600_000
"""Ten minutes: longer than any driver waits."""
SEED_MAX: Final = 2**63 - 1
"""TOML's largest integer."""
REST_MS: Final = 100.0

_AREAS: Final = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
_CELLS: Final = 65_536
_ERROR_BIT: Final = 0x80


class Kind(StrEnum):
    """What goes wrong."""

    DELAY = "delay"
    JITTER = "jitter"
    SILENCE = "silence"
    EXCEPTION = "exception"
    WRONG_TRANSACTION = "wrong_transaction"
    HALF_FRAME = "half_frame"
    CLOSE = "close"
    DEAD = "dead"


class Then(StrEnum):
    """What follows half a frame."""

    NOTHING = "nothing"
    CLOSE = "close"
    REST = "rest"


@dataclass(frozen=True, slots=True)
class Fault:
    """One `[[fault]]` of the file; its keys are these names, but for ``number`` and ``cells``.

    ``number`` is its place in the file, from 1; ``unit`` and ``cells`` (`range` in the file) are
    None where any will do.
    """

    number: int
    kind: Kind
    conn: str | None = None
    unit: frozenset[int] | None = None
    area: str | None = None
    cells: range | None = None
    from_s: float = 0.0
    for_s: float = math.inf
    every_s: float | None = None
    probability: float = 1.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    code: int | None = None
    shift: int = 1
    then: Then = Then.NOTHING
    rest_ms: float = REST_MS

    def on(self, at_s: float) -> bool:
        """Whether it is on, so many seconds after the start."""
        since_s = at_s - self.from_s
        if since_s < 0:
            return False
        return (since_s if self.every_s is None else since_s % self.every_s) < self.for_s

    def concerns(self, request: bytes) -> bool:
        """Whether a request, from the unit id on, reads something that this fault is about."""
        if self.unit is not None and request[0] not in self.unit:
            return False
        if self.area is None and self.cells is None:
            return True
        area = _AREAS.get(request[1])
        if area is None or len(request) != 6 or self.area not in {None, area}:
            return False
        if self.cells is None:
            return True
        start, count = int.from_bytes(request[2:4]), int.from_bytes(request[4:6])
        return start < self.cells.stop and self.cells.start < start + count


@dataclass(frozen=True, slots=True)
class Effect:
    """What happens to one reply: it is late, and perhaps worse. ``kinds`` are the faults in it."""

    delay_ms: float = 0.0
    outcome: Fault | None = None
    kinds: tuple[Kind, ...] = ()


Piece = tuple[float, bytes | None]
"""Milliseconds after the piece before it, and bytes to send; None closes the connection."""


def pieces(effect: Effect, reply: bytes) -> Sequence[Piece]:
    """What is sent in place of a reply, which is a whole frame."""
    fault, delay_ms = effect.outcome, effect.delay_ms
    if fault is None:
        return [(delay_ms, reply)]
    if fault.kind is Kind.CLOSE:
        return [(delay_ms, None)]
    if fault.code is not None:
        refusal = bytes((0, 3, reply[6], reply[7] | _ERROR_BIT, fault.code))
        return [(delay_ms, reply[:4] + refusal)]
    if fault.kind is Kind.WRONG_TRANSACTION:
        transaction = (int.from_bytes(reply[:2]) + fault.shift) & 0xFFFF
        return [(delay_ms, transaction.to_bytes(2) + reply[2:])]
    if fault.kind is Kind.HALF_FRAME:
        half = len(reply) // 2
        rest: dict[Then, list[Piece]] = {
            Then.NOTHING: [],
            Then.CLOSE: [(0.0, None)],
            Then.REST: [(fault.rest_ms, reply[half:])],
        }
        return [(delay_ms, reply[:half]), *rest[fault.then]]
    return []


@dataclass(frozen=True, slots=True)
class Faults:
    """All faults of a file, and the seed of their chance."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0

    def at_listener(self, place: int, conns: Sequence[str]) -> ListenerFaults | None:
        """Those of one listener; None if it has none. ``place`` is its place in map order."""
        names = set(map(_plain, conns))
        faults = [one for one in self.faults if one.conn is None or _plain(one.conn) in names]
        return ListenerFaults(faults, f"{self.seed}/{place}") if faults else None

    def check(self, units: Mapping[str, Sequence[int]]) -> None:
        """Refuse faults that can hit nothing; ``units`` are those behind each `conn`.

        Raises ``ConfigError``.
        """
        known: dict[str, set[int]] = {}
        for name, numbers in units.items():
            known.setdefault(_plain(name), set()).update(numbers)
        problems = []
        for fault in self.faults:
            conn = None if fault.conn is None else _plain(fault.conn)
            if conn is not None and conn not in known:
                allowed = ", ".join(known)
                problems.append(
                    _problem(fault.number, "conn", fault.conn, f"of the map: {allowed}")
                )
                continue
            there = known[conn] if conn is not None else set().union(*known.values())
            if fault.unit is not None and not fault.unit & there:
                allowed = ", ".join(map(str, sorted(there)))
                found = sorted(fault.unit)
                problems.append(_problem(fault.number, "unit", found, f"of the map: {allowed}"))
        if problems:
            raise ConfigError("\n".join(problems))


@dataclass(slots=True)
class ListenerFaults:
    """The faults of one listener; ``now_s`` is the time since the simulator's start."""

    faults: Sequence[Fault]
    key: str
    now_s: Callable[[], float] = lambda: 0.0

    def effect(self, request: bytes, nth: int) -> Effect | None:
        """What happens to the reply to a request that comes for the nth time; None if nothing."""
        at_s = self.now_s()
        delay_ms, outcome = 0.0, None
        kinds: list[Kind] = []
        for fault in self.faults:
            if not fault.on(at_s) or not fault.concerns(request):
                continue
            if (
                fault.probability < 1
                and self._chance(fault, request, nth, "hit") >= fault.probability
            ):
                continue
            if fault.kind is Kind.DELAY:
                delay_ms += fault.delay_ms
            elif fault.kind is Kind.JITTER:
                delay_ms += fault.jitter_ms * self._chance(fault, request, nth, "jitter")
            elif outcome is None:
                outcome = fault
            else:
                continue
            kinds.append(fault.kind)
        return Effect(delay_ms, outcome, tuple(kinds)) if kinds else None

    def _chance(self, fault: Fault, request: bytes, nth: int, what: str) -> float:
        """From 0 to below 1."""
        text = f"{self.key}/{fault.number}/{request.hex()}/{nth}/{what}"
        return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48


def _plain(conn: str) -> str:
    """A `conn` without its options."""
    return conn.partition("?")[0].rstrip("/").lower()


# -- the file ----------------------------------------------------------------------------------


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
            "\n  ".join([f"{path}: {len(lines)} problems", *lines])
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


_HINT: Final = "examples/faults.toml has one fault of each kind"


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


_SECONDS = f"0 to {SECONDS_MAX:,} seconds"
_ABOVE_0 = f"above 0, up to {SECONDS_MAX:,} seconds"
_MILLISECONDS = f"above 0, up to {DELAY_MS_MAX:,} ms"

_KEYS: Final[Mapping[str, _Key]] = {
    "conn": _Key('a conn of the map, such as "tcp://10.0.0.5:502"', _is_conn),
    "unit": _Key(
        "a unit id from 0 to 255, or a list of them", _is_unit, required_by=frozenset({Kind.DEAD})
    ),
    "area": _Key(
        ", ".join(_AREAS.values()),
        lambda value: value in _AREAS.values(),
        frozenset(Kind) - {Kind.DEAD},
    ),
    "range": _Key(
        f'cells counted from 0, such as "7" or "0-99", up to {_CELLS - 1}',
        _is_range,
        frozenset(Kind) - {Kind.DEAD},
    ),
    "from_s": _Key(_SECONDS, _number(0, SECONDS_MAX)),
    "for_s": _Key(_ABOVE_0, _number(0, SECONDS_MAX, above=True)),
    "every_s": _Key(_ABOVE_0, _number(0, SECONDS_MAX, above=True)),
    "probability": _Key(
        "above 0, up to 1", _number(0, 1, above=True), frozenset(Kind) - {Kind.DEAD}
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
        frozenset({Kind.WRONG_TRANSACTION}),
    ),
    "then": _Key(", ".join(Then), lambda value: value in tuple(Then), frozenset({Kind.HALF_FRAME})),
    "rest_ms": _Key(
        _MILLISECONDS, _number(0, DELAY_MS_MAX, above=True), frozenset({Kind.HALF_FRAME})
    ),
}


def _problems(number: int, entry: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with one fault, each with its key and what is allowed."""
    name = entry.get("kind")
    if name not in tuple(Kind):
        yield _problem(number, "kind", name, ", ".join(Kind))
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
            yield _problem(number, name, value, _KEYS[name].allowed)
    for name in its:
        if kind in _KEYS[name].required_by and name not in entry:
            what = f"missing, {article} {kind} fault needs it"
            yield f"fault {number}, key {name}: {what}; allowed: {_KEYS[name].allowed}"
    for_s, every_s = entry.get("for_s"), entry.get("every_s")
    if every_s is not None and (
        not isinstance(for_s, int | float)
        or (isinstance(every_s, int | float) and for_s >= every_s)
    ):
        yield _problem(number, "every_s", every_s, "longer than for_s, which must be given too")


def _problem(number: int, key: str, found: object, allowed: str) -> str:
    shown = "nothing" if found is None else repr(found)[:80]
    return f"fault {number}, key {key}: found {shown}; allowed: {allowed}"


def _fault(number: int, entry: Mapping[str, object]) -> Fault:
    """A fault from an entry that has no problem."""
    known = {one.name for one in fields(Fault)}
    values: dict[str, object] = {key: value for key, value in entry.items() if key in known}
    values["kind"] = Kind(str(entry["kind"]))
    unit = entry.get("unit")
    if unit is not None:
        values["unit"] = frozenset(unit if isinstance(unit, list) else [unit])
    if "range" in entry:
        values["cells"] = _range(str(entry["range"]))
    if "then" in entry:
        values["then"] = Then(str(entry["then"]))
    return Fault(number, **values)  # type: ignore[arg-type]
