"""Modbus PLCs that answer for an address map, one listener per host and port.

What a tag reads follows from `signals` alone, so whoever knows the map and the time knows the
answer.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from edge_agent.errors import ConfigError, TransientError
from edge_agent.model import AddressSyntax, Tag
from edge_agent.simulator.faults import Faults
from edge_agent.simulator.listener import Listener

PROTOCOL: Final = "modbus"
DEFAULT_PORT: Final = 502
PORT_MAX: Final = 65_535
LOOPBACK: Final = "127.0.0.1"

Syntax = Callable[[str], type[AddressSyntax]]
"""A protocol's address syntax by its name, as `edge_agent.protocols.load` gives it."""


def wall_clock_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


class ModbusSimulator:
    """All PLCs of a map; an asynchronous context manager that starts and stops them.

    ``host`` and ``port`` replace what the map says: the first listener takes ``port``, the next
    one the port after it, in map order; with ``port=0`` each takes a free one. ``now_ms`` is the
    plant's time. ``unserved`` holds the tags that no listener answers for, each with its reason:
    another protocol or transport, or cells that an earlier tag has. ``faults`` count their seconds
    from the start on, by ``monotonic``.

    Raises ``ConfigError`` if no tag can be served, two listeners would share a port or a fault is
    about a connection or unit that the map does not have, and
    ``ValueError`` for an address that is not valid, which `address_map` has checked before.
    """

    def __init__(
        self,
        tags: Sequence[Tag],
        *,
        syntax: Syntax,
        now_ms: Callable[[], int] = wall_clock_ms,
        host: str | None = None,
        port: int | None = None,
        faults: Faults | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.unserved: tuple[tuple[Tag, str], ...]
        by_place: dict[tuple[str, int], Listener] = {}
        unserved = []
        for tag in tags:
            place = _place(tag)
            if isinstance(place, str):
                unserved.append((tag, place))
                continue
            if place not in by_place:
                listen_port = place[1] if port is None else port and port + len(by_place)
                by_place[place] = Listener(host or place[0], listen_port, now_ms)
            refusal = by_place[place].add(tag, syntax(PROTOCOL))
            if refusal is not None:
                unserved.append((tag, refusal))
        self.connections = tuple(by_place.values())
        self.unserved = tuple(unserved)
        self._monotonic = monotonic
        self._started_at = monotonic()
        self._check()
        if faults is not None:
            self._spoil(faults)

    def _spoil(self, faults: Faults) -> None:
        faults.check({conn: one.unit_ids for one in self.connections for conn in one.conns})
        for place, listener in enumerate(self.connections):
            listener.faults = faults.at_listener(place, listener.conns)
            if listener.faults is not None:
                listener.faults.now_s = lambda: self._monotonic() - self._started_at

    def _check(self) -> None:
        if not self.connections:
            raise ConfigError(
                f"no tag to simulate: the map needs rows with protocol {PROTOCOL} and a conn like"
                " tcp://10.0.0.5:502"
            )
        taken: dict[tuple[str, int], str] = {}
        for listener in self.connections:
            other = taken.setdefault((listener.host, listener.port), listener.conns[0])
            if not 0 <= listener.port <= PORT_MAX:
                raise ConfigError(
                    f"{listener.conns[0]} would listen on port {listener.port}; allowed: up to"
                    f" {PORT_MAX}; choose another first port"
                )
            if listener.port != 0 and other != listener.conns[0]:
                raise ConfigError(
                    f"{other} and {listener.conns[0]} would both listen on"
                    f" {listener.host}:{listener.port}; give a first port as well"
                )

    async def start(self) -> None:
        """Listen on every connection. Raises ``TransientError``; then none listens."""
        self._started_at = self._monotonic()
        try:
            for listener in self.connections:
                await listener.start()
        except TransientError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening and drop all clients; a later start uses the same ports again."""
        for listener in self.connections:
            await listener.stop()

    def pause(self) -> None:
        """Go mute: accept connections and requests, answer nothing, now or later."""
        for listener in self.connections:
            listener.pause()

    def resume(self) -> None:
        """Answer again what arrives from now on."""
        for listener in self.connections:
            listener.resume()

    def drop(self) -> None:
        """Close all client connections at once; new ones are welcome."""
        for listener in self.connections:
            listener.drop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.stop()


async def simulate(
    tags: Sequence[Tag],
    syntax: Syntax,
    *,
    now_ms: Callable[[], int] = wall_clock_ms,
    host: str | None = None,
    port: int | None = None,
    faults: Faults | None = None,
) -> ModbusSimulator:
    """Start the PLCs of a map; the caller stops them. Raises as `ModbusSimulator` does."""
    simulator = ModbusSimulator(
        tags, syntax=syntax, now_ms=now_ms, host=host, port=port, faults=faults
    )
    await simulator.start()
    return simulator


def rebind(tags: Sequence[Tag], first_port: int = 0) -> list[Tag]:
    """The same tags with their Modbus TCP connections moved to free ports of loopback.

    Ports count up from ``first_port``, leaving out those in use; with 0 the system chooses.
    Options of the `conn` are kept, and connections that shared a port still do. Raises
    ``ConfigError`` if the ports run out.
    """
    places = dict.fromkeys(place for place in map(_place, tags) if not isinstance(place, str))
    with ExitStack() as probes:  # all held until the last is found, so that they differ
        ports = {place: _free_port(probes, first_port) for place in places}
    return [_moved(tag, ports) for tag in tags]


def _moved(tag: Tag, ports: Mapping[tuple[str, int], int]) -> Tag:
    place = _place(tag)
    if isinstance(place, str):
        return tag
    conn = urlsplit(tag.conn)._replace(netloc=f"{LOOPBACK}:{ports[place]}")
    return replace(tag, conn=conn.geturl())


def _free_port(probes: ExitStack, first_port: int) -> int:
    for port in range(first_port, PORT_MAX + 1):
        probe = probes.enter_context(socket.socket())
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            continue
        return int(probe.getsockname()[1])
    raise ConfigError(f"no free port on {LOOPBACK} from {first_port} to {PORT_MAX}")


def _place(tag: Tag) -> tuple[str, int] | str:
    """Host and port of a tag's connection; or why it cannot be simulated."""
    if tag.protocol != PROTOCOL:
        return f"protocol {tag.protocol} is not simulated; {PROTOCOL} is"
    parts = urlsplit(tag.conn)
    if parts.scheme != "tcp" or not parts.hostname:
        return f"{tag.conn} is not simulated; tcp://HOST:PORT is"
    return parts.hostname, DEFAULT_PORT if parts.port is None else parts.port
