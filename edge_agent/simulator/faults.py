"""Faults of simulated PLCs: which, where, when; and repeatable. `fault_file.py` reads them.

A fault has a *kind* (what goes wrong), a *where* (connection, unit, area, range of cells, or nodes
by `address`; what is not given is everywhere) and a *when* (seconds since the start of the
simulator: from `from_s` on, for `for_s`, again each `every_s`), and hits a request with its
`probability`.

=================  ===========================================================================
kind               what the client sees
=================  ===========================================================================
delay              the reply comes `delay_ms` later, and so does all that follows it
jitter             the same by a random time up to `jitter_ms`
silence            no reply to this request, now or later
exception          exception `code` instead of values
wrong_transaction  the reply carries a transaction id that is off by `shift`
wrong_unit         the reply carries a unit id that is off by `shift`
bad_crc            one bit of the reply is flipped, any one, so that its checksum is wrong
half_frame         half of the reply; `then` "nothing", "close" or, `rest_ms` later, "rest"
close              the connection is closed instead of an answer
dead               the unit is gone: no reply, or exception `code` as a gateway would send it
bad_status         OPC UA: the value carries `status`, and is null if that is a bad one
restart            OPC UA: the server is gone, and comes back without sessions and subscriptions
=================  ===========================================================================

Delays add up. Of the other kinds the first one in the file that hits decides.

Not every connection can do every kind: `TRANSPORTS` says which. A fault with a `conn` that can't
do it is refused; one without a `conn` is about all connections that can do it, and refused where
none can.

Repeatable
----------
Chance is not a stream of numbers, in which one request more or less would shift all that follow.
Whether a fault hits is a hash of seed, fault, listener, the request's bytes and how often this same
request has come: the n-th reading of a range meets the same faults in every run, whatever other
clients or scan classes ask in between, and however often they reconnect. Time decides only whether
a fault is on. Of OPC UA it is a node's nth step since the start that meets the same faults, and the
nth reply of its kind, as requests carry times and differ in each run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Final

from edge_agent.errors import ConfigError

REST_MS: Final = 100.0
AREAS: Final = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
"""What a request reads, by its function code."""


class Kind(StrEnum):
    """What goes wrong."""

    DELAY = "delay"
    JITTER = "jitter"
    SILENCE = "silence"
    EXCEPTION = "exception"
    WRONG_TRANSACTION = "wrong_transaction"
    WRONG_UNIT = "wrong_unit"
    BAD_CRC = "bad_crc"
    HALF_FRAME = "half_frame"
    CLOSE = "close"
    DEAD = "dead"
    BAD_STATUS = "bad_status"
    RESTART = "restart"


class Then(StrEnum):
    """What follows half a frame."""

    NOTHING = "nothing"
    CLOSE = "close"
    REST = "rest"


TCP: Final = "tcp"
RTU: Final = "rtu"
RTU_TCP: Final = "rtu+tcp"
OPC_TCP: Final = "opc.tcp"
_SOCKETS: Final = frozenset({TCP, RTU_TCP, OPC_TCP})
_MODBUS: Final = frozenset({TCP, RTU, RTU_TCP})
_OPCUA: Final = frozenset({OPC_TCP})

TRANSPORTS: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.DELAY: _MODBUS | _OPCUA,
    Kind.JITTER: _MODBUS | _OPCUA,
    Kind.SILENCE: _MODBUS | _OPCUA,
    Kind.EXCEPTION: _MODBUS,
    Kind.WRONG_TRANSACTION: frozenset({TCP}),
    Kind.WRONG_UNIT: _MODBUS,
    Kind.BAD_CRC: frozenset({RTU, RTU_TCP}),
    Kind.HALF_FRAME: _MODBUS,
    Kind.CLOSE: _SOCKETS,
    Kind.DEAD: _MODBUS,
    Kind.BAD_STATUS: _OPCUA,
    Kind.RESTART: _OPCUA,
}
"""The schemes of the connections that can do a kind. Half a frame and "close" needs both kinds."""

_INSTEAD: Final[Mapping[Kind, str]] = {
    Kind.WRONG_TRANSACTION: "RTU has no transaction ids: use wrong_unit",
    Kind.BAD_CRC: "Modbus TCP has no checksum of its own: use wrong_transaction",
    Kind.CLOSE: "a serial line can't be closed by a unit: use silence, or dead",
    Kind.BAD_STATUS: "Modbus has no status beside a value: use exception",
    Kind.RESTART: "a Modbus device keeps no sessions: use close, silence or dead",
}
"""Why a connection can't do a kind, and what comes closest."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One `[[fault]]` of the file; its keys are these names, but for ``number`` and two more.

    ``number`` is its place in the file, from 1; ``unit``, ``cells`` (`range` in the file) and
    ``addresses`` (`address`: patterns of a map's cells) are None where any will do.
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
    status: str | None = None
    addresses: tuple[str, ...] | None = None

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
        area = AREAS.get(request[1])
        if area is None or len(request) != 6 or self.area not in {None, area}:
            return False
        if self.cells is None:
            return True
        start, count = int.from_bytes(request[2:4]), int.from_bytes(request[4:6])
        return start < self.cells.stop and self.cells.start < start + count

    def names(self, conn: str) -> bool:
        """Whether it is about a connection, as far as the file says."""
        return self.conn is None or plain(self.conn) == plain(conn)

    def can_hit(self, conn: str) -> bool:
        """Whether a connection can do it."""
        scheme = _scheme(conn)
        return (
            scheme in TRANSPORTS[self.kind]
            and (self.then is not Then.CLOSE or scheme in TRANSPORTS[Kind.CLOSE])
            and (scheme != OPC_TCP or self.by_cells is None)
        )

    def chooses(self, address: str) -> bool:
        """Whether it is about a node; a pattern with brackets also means itself."""
        return self.addresses is None or any(
            address == pattern or fnmatchcase(address, pattern) for pattern in self.addresses
        )

    @property
    def by_cells(self) -> str | None:
        """The first of its keys that only a protocol with units and cells knows."""
        keys = {"unit": self.unit, "area": self.area, "range": self.cells}
        return next((key for key, value in keys.items() if value is not None), None)


@dataclass(frozen=True, slots=True)
class Effect:
    """What happens to one reply: it is late, and perhaps worse. ``kinds`` are the faults in it.

    ``chance``, from 0 to below 1, is for what the outcome leaves open.
    """

    delay_ms: float = 0.0
    outcome: Fault | None = None
    kinds: tuple[Kind, ...] = ()
    chance: float = 0.0


@dataclass(frozen=True, slots=True)
class Faults:
    """All faults of a file, and the seed of their chance."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0

    def at_listener(self, place: int, conns: Sequence[str]) -> ListenerFaults | None:
        """Those of one listener; None if it has none. ``place`` is its place in map order."""
        faults = [
            one
            for one in self.faults
            if any(one.names(conn) and one.can_hit(conn) for conn in conns)
        ]
        return ListenerFaults(faults, f"{self.seed}/{place}") if faults else None

    def check(self, units: Mapping[str, Sequence[int]]) -> None:
        """Refuse faults that can hit nothing; ``units`` are those behind each `conn`.

        Raises ``ConfigError``.
        """
        problems = [line for fault in self.faults for line in _misses(fault, units)]
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
        delay_ms, outcome, chance = 0.0, None, 0.0
        kinds: list[Kind] = []
        for fault in self.faults:
            if not fault.on(at_s) or not fault.concerns(request):
                continue
            if not self.hits(fault, request, nth):
                continue
            if fault.kind is Kind.DELAY:
                delay_ms += fault.delay_ms
            elif fault.kind is Kind.JITTER:
                delay_ms += fault.jitter_ms * self._chance(fault, request, nth, "jitter")
            elif outcome is None:
                outcome = fault
                if fault.kind is Kind.BAD_CRC:
                    chance = self._chance(fault, request, nth, "bit")
            else:
                continue
            kinds.append(fault.kind)
        return Effect(delay_ms, outcome, tuple(kinds), chance) if kinds else None

    def hits(self, fault: Fault, request: bytes, nth: int) -> bool:
        """Whether a fault that is on hits, by its probability."""
        return (
            fault.probability >= 1 or self._chance(fault, request, nth, "hit") < fault.probability
        )

    def _chance(self, fault: Fault, request: bytes, nth: int, what: str) -> float:
        """From 0 to below 1."""
        text = f"{self.key}/{fault.number}/{request.hex()}/{nth}/{what}"
        return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48


def plain(conn: str) -> str:
    """A `conn` without its options, and without differences that make no other connection."""
    name = conn.partition("?")[0].rstrip("/")
    scheme, _, place = name.partition(":")
    # The path of a serial line is a file's.
    return f"{RTU}:{place}" if scheme.lower() == RTU else name.lower()


def problem(number: int, key: str, found: object, allowed: str) -> str:
    """What is wrong with a key of a fault, in one line."""
    shown = "nothing" if found is None else repr(found)[:80]
    return f"fault {number}, key {key}: found {shown}; allowed: {allowed}"


def _scheme(conn: str) -> str:
    return conn.partition(":")[0].lower()


def _misses(fault: Fault, units: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """Why a fault can hit nothing."""
    about = [conn for conn in units if fault.names(conn)]
    if not about:
        allowed = ", ".join(dict.fromkeys(map(plain, units)))
        yield problem(fault.number, "conn", fault.conn, f"of the map: {allowed}")
        return
    able = [conn for conn in about if fault.can_hit(conn)]
    if not able:
        yield _unable(fault, about)
        return
    there = {number for conn in able for number in units[conn]}
    if fault.unit is not None and not fault.unit & there:
        allowed = ", ".join(map(str, sorted(there)))
        yield problem(fault.number, "unit", sorted(fault.unit), f"of the map: {allowed}")


def _unable(fault: Fault, conns: Sequence[str]) -> str:
    """That none of the connections that a fault is about can do it, and what to do."""
    schemes = {_scheme(conn) for conn in conns}
    if fault.by_cells is not None and schemes & TRANSPORTS[fault.kind] == _OPCUA:
        return (
            f"fault {fault.number}, key {fault.by_cells}: OPC UA has nodes, which have no"
            f" {fault.by_cells}; allowed: leave it out, or use kind bad_status with address"
        )
    where = "the connections of the map" if fault.conn is None else fault.conn
    if not schemes & TRANSPORTS[fault.kind]:
        key, found, what = "kind", str(fault.kind), fault.kind
        possible = [str(kind) for kind, those in TRANSPORTS.items() if schemes & those]
    else:
        key, found, what = "then", str(fault.then), Kind.CLOSE
        possible = [str(then) for then in Then if then is not Then.CLOSE]
    allowed = f"for {where}: {', '.join(possible)}"
    reason = _INSTEAD.get(what)
    return problem(fault.number, key, found, f"{allowed} ({reason})" if reason else allowed)
