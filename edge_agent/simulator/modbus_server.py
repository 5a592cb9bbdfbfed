"""Modbus PLCs that answer for an address map, one listener per port or serial line.

What a tag reads follows from `signals` alone, so whoever knows the map and the time knows the
answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from edge_agent.clock import epoch_ms
from edge_agent.errors import ConfigError
from edge_agent.model import Tag
from edge_agent.protocols.modbus_syntax import ModbusConn, Transport, parse_conn
from edge_agent.simulator import serial_line
from edge_agent.simulator.base import LOOPBACK, Simulator, Syntax, free_port
from edge_agent.simulator.faults import Faults
from edge_agent.simulator.framing import Mbap, Rtu
from edge_agent.simulator.listener import Listener, SocketListener

PROTOCOL: Final = "modbus"
_Place = tuple[Transport, str, int]
"""Transport, host and port; or transport, path of a serial line and 0."""


class ModbusSimulator(Simulator[Listener]):
    """All PLCs of a map; an asynchronous context manager that starts and stops them.

    ``host`` and ``port`` replace what the map says: the first listener takes ``port``, the next
    one the port after it, in map order; with ``port=0`` each takes a free one. Serial lines stay
    where they are. ``now_ms`` is the plant's time. ``unserved`` holds the tags that no listener
    answers for, each with its reason: another protocol or transport, a line that can't be had, or
    cells that an earlier tag has. ``faults`` count their seconds from the start on, by
    ``monotonic``; they may also be about connections ``elsewhere``, which others answer for: units
    by `conn`.

    Raises ``ConfigError`` if no tag can be served, two listeners would share a port or a fault is
    about a connection or unit that the map does not have or that can't do it, and ``ValueError``
    for a `conn` or an address that is not valid, which `address_map` has checked before.
    """

    def __init__(
        self,
        tags: Sequence[Tag],
        *,
        syntax: Syntax,
        now_ms: Callable[[], int] = epoch_ms,
        host: str | None = None,
        port: int | None = None,
        faults: Faults | None = None,
        elsewhere: Mapping[str, Sequence[int]] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        by_place: dict[_Place, Listener] = {}
        next_port = port
        unserved = []
        for tag in tags:
            conn = _served(tag)
            if isinstance(conn, str):
                unserved.append((tag, conn))
                continue
            place = _place(conn)
            if place not in by_place:
                if conn.transport is Transport.RTU:
                    by_place[place] = serial_line.SerialListener(conn, now_ms)
                else:
                    framing = Mbap() if conn.transport is Transport.TCP else Rtu()
                    by_place[place] = SocketListener(
                        host or conn.host,
                        conn.port if next_port is None else next_port,
                        framing,
                        now_ms,
                    )
                    next_port = next_port and next_port + 1
            refusal = by_place[place].add(tag, syntax(PROTOCOL))
            if refusal is not None:
                unserved.append((tag, refusal))
        if not by_place and not elsewhere:
            raise ConfigError(
                f"no tag to simulate: the map needs rows with protocol {PROTOCOL} and a conn like"
                " tcp://10.0.0.5:502, rtu+tcp://10.0.0.5:4001 or rtu:///tmp/line1?parity=N"
            )
        super().__init__(by_place.values(), unserved, monotonic)
        if faults is not None:
            self._spoil(faults, elsewhere or {})

    @property
    def units(self) -> dict[str, list[int]]:
        """The units that answer, by `conn`."""
        return {conn: one.unit_ids for one in self.connections for conn in one.conns}

    def _spoil(self, faults: Faults, elsewhere: Mapping[str, Sequence[int]]) -> None:
        faults.check({**self.units, **elsewhere})
        for place, listener in enumerate(self.connections):
            listener.faults = faults.at_listener(place, listener.conns)
            if listener.faults is not None:
                listener.faults.now_s = self.seconds

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


async def simulate(
    tags: Sequence[Tag],
    syntax: Syntax,
    *,
    now_ms: Callable[[], int] = epoch_ms,
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


def rebind(tags: Sequence[Tag], first_port: int = 0, *, folder: Path | None = None) -> list[Tag]:
    """The same tags with their Modbus connections moved to free ports of loopback.

    Ports count up from ``first_port``, leaving out those in use; with 0 the system chooses.
    Connections that shared a port still do, and options of the `conn` are kept. Serial lines move
    into ``folder`` if there is one, with parity N, since pseudo terminals have no other; else they
    stay, as does what is not simulated. Raises ``ConfigError`` if the ports run out.
    """
    conns = {tag.conn: conn for tag in tags if (conn := _simulated(tag)) is not None}
    sockets = [conn for conn in conns.values() if conn.transport is not Transport.RTU]
    lines = [conn for conn in conns.values() if conn.transport is Transport.RTU]
    with ExitStack() as probes:  # all held until the last is found, so that they differ
        netlocs = {
            place: f"{LOOPBACK}:{free_port(probes, first_port)}" for place in _places(sockets)
        }
    paths = (
        {place: folder / f"line-{n}" for n, place in enumerate(_places(lines), 1)} if folder else {}
    )
    return [_moved(tag, conns.get(tag.conn), netlocs, paths) for tag in tags]


def _moved(
    tag: Tag,
    conn: ModbusConn | None,
    netlocs: Mapping[_Place, str],
    paths: Mapping[_Place, Path],
) -> Tag:
    if conn is None or tag.protocol != PROTOCOL:
        return tag
    parts, place = urlsplit(tag.conn), _place(conn)
    if place in netlocs:
        return replace(tag, conn=parts._replace(netloc=netlocs[place]).geturl())
    if place in paths:
        options = [pair for pair in parse_qsl(parts.query) if pair[0] != "parity"]
        query = urlencode([*options, ("parity", "N")])
        return replace(tag, conn=f"rtu://{quote(str(paths[place]))}?{query}")
    return tag


def _places(conns: Iterable[ModbusConn]) -> list[_Place]:
    return list(dict.fromkeys(map(_place, conns)))


def _place(conn: ModbusConn) -> _Place:
    return conn.transport, conn.path or conn.host, conn.port


def _simulated(tag: Tag) -> ModbusConn | None:
    """A tag's connection; None if nobody here answers for such ones."""
    if tag.protocol != PROTOCOL:
        return None
    conn = parse_conn(tag.conn)
    return None if conn.transport is Transport.TLS else conn


def _served(tag: Tag) -> ModbusConn | str:
    """A tag's connection; or why it cannot be simulated."""
    conn = _simulated(tag)
    if conn is not None:
        return (serial_line.refusal(conn) if conn.transport is Transport.RTU else None) or conn
    if tag.protocol != PROTOCOL:
        return f"protocol {tag.protocol} is not simulated; {PROTOCOL} is"
    return f"{tag.conn} is not simulated; tcp://HOST:PORT, rtu+tcp://HOST:PORT and rtu:///PATH are"
