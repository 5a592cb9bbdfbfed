"""OPC UA servers that answer for an address map, one per host and port.

What a tag reads follows from `signals` alone, as with Modbus. asyncua is imported with this module:
`plant.py` loads it when a map needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge_agent.clock import epoch_ms
from edge_agent.errors import ConfigError
from edge_agent.model import Tag
from edge_agent.protocols.opcua_syntax import OpcuaConn, parse_conn
from edge_agent.simulator.base import LOOPBACK, Simulator, Syntax, free_port
from edge_agent.simulator.faults import Faults, Kind, problem
from edge_agent.simulator.opcua_listener import OpcuaListener
from edge_agent.simulator.opcua_values import STATUSES

PROTOCOL: Final = "opcua"
NEAR_MAX: Final = 3
"""Names shown for one that is unknown."""

_COMMON: Final = ("BadSensorFailure", "BadNotConnected", "UncertainLastUsableValue")


class OpcuaSimulator(Simulator[OpcuaListener]):
    """All OPC UA servers of a map; an asynchronous context manager that starts and stops them.

    Its arguments are those of `ModbusSimulator`, and mean the same. ``unserved`` holds the tags
    that no server answers for, each with its reason: another protocol, a connection with security
    or a user, a node of namespace 0, or one that an earlier tag has.

    Raises ``ConfigError`` if no tag can be served, two servers would share a port, or a fault is
    about something that the map does not have, and ``ValueError`` for a `conn` or an address that
    is not valid, which `address_map` has checked before.
    """

    def __init__(
        self,
        tags: Sequence[Tag],
        *,
        syntax: Syntax | None = None,  # noqa: ARG002  (node ids have a syntax of their own)
        now_ms: Callable[[], int] = epoch_ms,
        host: str | None = None,
        port: int | None = None,
        faults: Faults | None = None,
        elsewhere: Mapping[str, Sequence[int]] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        by_place: dict[tuple[str, int], OpcuaListener] = {}
        unserved = []
        for tag in tags:
            conn = _served(tag)
            if isinstance(conn, str):
                unserved.append((tag, conn))
                continue
            place = (conn.host, conn.port)
            server = by_place.get(place)
            if server is None:
                listen_port = conn.port if port is None else port and port + len(by_place)
                server = OpcuaListener(host or conn.host, listen_port, now_ms)
            refusal = server.add(tag)
            if refusal is None:
                by_place[place] = server
            else:
                unserved.append((tag, refusal))
        if not by_place and not elsewhere:
            raise ConfigError(
                f"no tag to simulate: the map needs rows with protocol {PROTOCOL} and a conn like"
                " opc.tcp://10.0.0.7:4840"
            )
        super().__init__(by_place.values(), unserved, monotonic)
        if faults is not None:
            self._spoil(faults, elsewhere or {})

    def _spoil(self, faults: Faults, elsewhere: Mapping[str, Sequence[int]]) -> None:
        problems = list(_status_problems(faults, self.connections))
        try:
            faults.check({**elsewhere, **self.units})
        except ConfigError as error:
            problems.append(str(error))
        if problems:
            raise ConfigError("\n".join(problems))
        for place, server in enumerate(self.connections):
            of_server = faults.at_listener(place, server.conns)
            if of_server is not None:
                of_server.now_s = self.seconds
            server.spoil(of_server)

    @property
    def units(self) -> dict[str, list[int]]:
        """The connections that answer; OPC UA has no units."""
        return {conn: [] for server in self.connections for conn in server.conns}


def rebind(tags: Sequence[Tag], first_port: int = 0, *, folder: Path | None = None) -> list[Tag]:  # noqa: ARG001
    """The same tags with their OPC UA connections moved to free ports of loopback.

    As `modbus_server.rebind` does it; ports that stand in any `conn` are left out.
    """
    conns = {tag.conn: conn for tag in tags if not isinstance(conn := _served(tag), str)}
    taken = {urlsplit(tag.conn).port for tag in tags}
    netlocs: dict[tuple[str, int], str] = {}
    with ExitStack() as probes:
        for conn in conns.values():
            if (conn.host, conn.port) not in netlocs:
                port = free_port(probes, first_port)
                while port in taken:
                    port = free_port(probes, first_port)
                netlocs[conn.host, conn.port] = f"{LOOPBACK}:{port}"
    moved = {
        text: urlsplit(text)._replace(netloc=netlocs[conn.host, conn.port]).geturl()
        for text, conn in conns.items()
    }
    return [replace(tag, conn=moved.get(tag.conn, tag.conn)) for tag in tags]


def _served(tag: Tag) -> OpcuaConn | str:
    """A tag's connection; or why it cannot be simulated."""
    if tag.protocol != PROTOCOL:
        return f"protocol {tag.protocol} is not simulated; {PROTOCOL} is"
    conn = parse_conn(tag.conn)
    if conn.security != "None":
        return f"{conn}: security={conn.security} is not simulated; leave it out"
    if conn.user is not None or conn.user_certificate is not None:
        return f"{conn}: users are not simulated; leave the login out"
    return conn


def _status_problems(faults: Faults, servers: Sequence[OpcuaListener]) -> Iterator[str]:
    """What is wrong with faults that only OPC UA knows."""
    for fault in faults.faults:
        if fault.kind is not Kind.BAD_STATUS:
            continue
        if fault.status not in STATUSES:
            near = get_close_matches(str(fault.status), STATUSES, n=NEAR_MAX, cutoff=0.5)
            allowed = f"a status that is bad or uncertain, such as {_shown(near or _COMMON)}"
            yield problem(fault.number, "status", fault.status, allowed)
        addresses = [
            tag.address
            for server in servers
            if any(map(fault.names, server.conns))
            for tag in server.tags
        ]
        for pattern in fault.addresses or ():
            if addresses and not any(
                replace(fault, addresses=(pattern,)).chooses(a) for a in addresses
            ):
                near = get_close_matches(pattern, addresses, n=NEAR_MAX, cutoff=0.5)
                allowed = f"node ids of the map, such as {_shown(near or addresses[:NEAR_MAX])}"
                yield problem(fault.number, "address", pattern, allowed)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names)
