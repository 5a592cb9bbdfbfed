"""What simulated PLCs of every protocol have in common: where they listen, start, stop and faults.

A protocol is simulated by a subclass of `Simulator` with the constructor's arguments of
`ModbusSimulator`, and a function `rebind` beside it; `plant.py` names it.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

from edge_agent.errors import ConfigError, TransientError
from edge_agent.model import AddressSyntax, Tag

PORT_MAX: Final = 65_535
LOOPBACK: Final = "127.0.0.1"

Syntax = Callable[[str], type[AddressSyntax]]
"""A protocol's address syntax by its name, as `edge_agent.protocols.load` gives it."""


class Connection(Protocol):
    """One simulated connection: a port, or a serial line."""

    @property
    def host(self) -> str:
        """Where it listens; empty for a serial line."""

    @property
    def port(self) -> int:
        """Likewise; 0 for a serial line, and before the start where any will do."""

    conns: list[str]
    """The map's names for it."""

    async def start(self) -> None:
        """Listen. Raises ``TransientError`` if it can't."""

    async def stop(self) -> None:
        """Stop listening and drop all clients; may be called in any state, also twice."""

    def describe(self) -> dict[str, object]:
        """What listens where, ready for JSON."""

    def counted(self) -> dict[str, object]:
        """What was counted since the start, ready for JSON."""


AnyConnection = TypeVar("AnyConnection", bound=Connection)


class Running(ABC):
    """An asynchronous context manager that starts and stops."""

    @abstractmethod
    async def start(self) -> None:
        """Listen everywhere. Raises ``TransientError``; then it listens nowhere."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop listening and drop all clients; a later start uses the same ports again."""

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


class Simulator(Running, Generic[AnyConnection]):
    """All PLCs of a map that speak one protocol.

    ``connections`` are where it answers, in map order; ``unserved`` holds the tags that nobody
    answers for, each with its reason.
    """

    connections: tuple[AnyConnection, ...]
    unserved: tuple[tuple[Tag, str], ...]

    def __init__(
        self,
        connections: Iterable[AnyConnection],
        unserved: Iterable[tuple[Tag, str]],
        monotonic: Callable[[], float],
    ) -> None:
        """Raises ``ConfigError`` if two connections would share a port."""
        self.connections = tuple(connections)
        self.unserved = tuple(unserved)
        self._monotonic = monotonic
        self.begin()
        check_ports(self.connections)

    def begin(self) -> None:
        """Count the faults' seconds from now on."""
        self._began_at = self._monotonic()

    def seconds(self) -> float:
        """Since then."""
        return self._monotonic() - self._began_at

    async def start(self) -> None:
        self.begin()
        try:
            for connection in self.connections:
                await connection.start()
        except TransientError:
            await self.stop()
            raise

    async def stop(self) -> None:
        await asyncio.gather(*(connection.stop() for connection in self.connections))


def check_ports(connections: Sequence[Connection]) -> None:
    """Refuse ports that do not exist or that two connections would share: ``ConfigError``."""
    taken: dict[tuple[str, int], str] = {}
    for one in connections:
        conn = one.conns[0]
        other = taken.setdefault((one.host, one.port), conn)
        if not 0 <= one.port <= PORT_MAX:
            raise ConfigError(
                f"{conn} would listen on port {one.port}; allowed: up to {PORT_MAX}; choose another"
                " first port"
            )
        if one.port != 0 and other != conn:
            raise ConfigError(
                f"{other} and {conn} would both listen on {one.host}:{one.port};"
                " give a first port as well"
            )


def free_port(probes: ExitStack, first_port: int) -> int:
    """A loopback port from ``first_port`` on that nobody has; ``probes`` holds it until closed."""
    for port in range(first_port, PORT_MAX + 1):
        probe = probes.enter_context(socket.socket())
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            continue
        return int(probe.getsockname()[1])
    raise ConfigError(f"no free port on {LOOPBACK} from {first_port} to {PORT_MAX}")
