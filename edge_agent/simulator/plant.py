"""All simulated PLCs of a map, whatever they speak.

`_SIMULATORS` names the simulator of each protocol (`base.py`); it is imported when a map needs it,
so that an unused library costs nothing. A new one goes there, and its kinds of faults into
`faults.TRANSPORTS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from edge_agent.clock import epoch_ms
from edge_agent.errors import ConfigError, TransientError
from edge_agent.model import Tag
from edge_agent.simulator.base import Connection, Running, Simulator, Syntax, check_ports
from edge_agent.simulator.faults import Faults
from edge_agent.text.counts import counted

_SIMULATORS: Final[Mapping[str, str]] = {
    "modbus": "edge_agent.simulator.modbus_server:ModbusSimulator",
    "opcua": "edge_agent.simulator.opcua_server:OpcuaSimulator",
}
"""By the map's `protocol`; first ports are given out in this order."""


DRIVERS_OWN: Final = "simulated"
"""The protocol whose driver makes its values itself: nobody has to answer for it."""
NAMES_TOLD_MAX: Final = 3
REASONS_TOLD_MAX: Final = 10
"""A map in which more is wrong is for other PLCs; the counts say how much is left."""

Unserved = Sequence[tuple[Tag, str]]
"""Tags that nobody answers for, each with its reason."""


class Plant(Running):
    """All PLCs of a map; an asynchronous context manager that starts and stops them.

    ``host`` and ``port`` replace what the map says: Modbus takes ports from ``port`` on, in map
    order, and OPC UA those after them; with ``port=0`` each takes a free one. ``unserved`` holds
    the tags that nobody answers for, each with its reason.

    Raises ``ConfigError`` if no tag can be served, two connections would share a port or a fault
    can hit nothing: with the problems of all protocols.
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
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        by_protocol: dict[str, list[Tag]] = {}
        for tag in tags:
            by_protocol.setdefault(tag.protocol, []).append(tag)
        simulated = {name: by_protocol.pop(name) for name in _SIMULATORS if name in by_protocol}
        unserved = [
            (tag, _not_simulated(name))
            for name, others in by_protocol.items()
            if name != DRIVERS_OWN
            for tag in others
        ]
        self.simulators: dict[str, Simulator[Any]] = {}
        problems: dict[str, None] = {}
        for name, its in simulated.items():
            elsewhere = [tag for other in simulated if other != name for tag in simulated[other]]
            try:
                self.simulators[name] = _load(name)(
                    its,
                    syntax=syntax,
                    now_ms=now_ms,
                    host=host,
                    port=port and port + sum(one.port != 0 for one in self.connections),
                    faults=faults,
                    elsewhere=_units(elsewhere),
                    monotonic=monotonic,
                )
            except ConfigError as error:
                problems.update(dict.fromkeys(str(error).splitlines()))
        if problems:
            raise ConfigError("\n".join(problems))
        for simulator in self.simulators.values():
            unserved += simulator.unserved
        self.unserved: tuple[tuple[Tag, str], ...] = tuple(unserved)
        if not self.connections:
            raise ConfigError(
                "no tag to simulate: the map needs rows with protocol modbus and a conn like"
                " tcp://10.0.0.5:502, or opcua and opc.tcp://10.0.0.7:4840"
            )
        check_ports(self.connections)

    @property
    def connections(self) -> list[Connection]:
        """Where somebody answers, by protocol and in map order."""
        return [one for simulator in self.simulators.values() for one in simulator.connections]

    def describe(self) -> list[dict[str, object]]:
        """What listens where, ready for JSON."""
        return [
            {"protocol": name, **one.describe()}
            for name, simulator in self.simulators.items()
            for one in simulator.connections
        ]

    def counted(self) -> list[dict[str, object]]:
        """What each connection counted since its start, ready for JSON."""
        return [
            {"protocol": name, **one.counted()}
            for name, simulator in self.simulators.items()
            for one in simulator.connections
        ]

    async def start(self) -> None:
        """Listen everywhere. Raises ``TransientError``; then nobody listens."""
        try:
            # An OPC UA server takes a second to build, in which nobody else would be answered.
            for simulator in reversed(self.simulators.values()):
                await simulator.start()
            for simulator in self.simulators.values():
                simulator.begin()
        except TransientError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening; a later start uses the same ports again."""
        for simulator in self.simulators.values():
            await simulator.stop()


def rebind(tags: Sequence[Tag], first_port: int = 0, *, folder: Path | None = None) -> list[Tag]:
    """The same tags with their connections moved to free ports of loopback.

    Ports count up from ``first_port``, leaving out those in use; with 0 the system chooses.
    Connections that shared a port still do, and options of the `conn` are kept. Serial lines move
    into ``folder`` if there is one; what is not simulated stays. Raises ``ConfigError`` if the
    ports run out.
    """
    moved = list(tags)
    for protocol in _SIMULATORS:
        if any(tag.protocol == protocol for tag in tags):
            moved = _module(protocol).rebind(moved, first_port, folder=folder)
    return moved


def safe(tags: Sequence[Tag], syntax: Syntax, folder: Path) -> tuple[list[Tag], Unserved]:
    """The tags for which simulated PLCs answer, moved as `rebind` does, and all others.

    None of the former leads to a PLC that the map names. Raises ``ConfigError`` as `Plant` does.
    """
    moved = rebind(tags, folder=folder)
    simulated = [tag for tag in moved if tag.protocol in _SIMULATORS]
    refused = dict(Plant(moved, syntax=syntax).unserved) if simulated else {}
    kept, unserved = [], []
    for tag, after in zip(tags, moved, strict=True):
        if tag.protocol == DRIVERS_OWN:
            kept.append(tag)
        elif after in refused:
            unserved.append((tag, refused[after]))
        elif tag.protocol not in _SIMULATORS:
            unserved.append((tag, _not_simulated(tag.protocol)))
        elif after.conn == tag.conn:
            unserved.append((tag, f"{tag.conn} can't be moved to this machine"))
        else:
            kept.append(after)
    return kept, unserved


def told(unserved: Unserved) -> list[str]:
    """A line for each reason: how many rows it is true of, which are the first, and why."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for tag, reason in unserved:
        by_reason.setdefault((tag.protocol, reason), []).append("/".join(tag.key))
    lines = []
    for (protocol, reason), names in [*by_reason.items()][:REASONS_TOLD_MAX]:
        more = len(names) - NAMES_TOLD_MAX
        first = ", ".join(names[:NAMES_TOLD_MAX]) + (f" and {more:,} more" if more > 0 else "")
        rows = counted(len(names), "row")
        lines.append(f"not simulated: {rows} of {protocol} ({first}): {reason}")
    if len(by_reason) > REASONS_TOLD_MAX:
        others = [*by_reason.values()][REASONS_TOLD_MAX:]
        lines.append(f"not simulated: {sum(map(len, others)):,} more, for other reasons")
    return lines


def _not_simulated(protocol: str) -> str:
    return f"protocol {protocol} is not simulated; {' and '.join(_SIMULATORS)} are"


def _load(protocol: str) -> Callable[..., Simulator[Any]]:
    simulator: Callable[..., Simulator[Any]] = getattr(
        _module(protocol), _SIMULATORS[protocol].partition(":")[2]
    )
    return simulator


def _module(protocol: str) -> Any:
    return import_module(_SIMULATORS[protocol].partition(":")[0])


def _units(tags: Iterable[Tag]) -> dict[str, list[int]]:
    """Unit ids by `conn`, as a check of faults needs them."""
    units: dict[str, set[int]] = {}
    for tag in tags:
        units.setdefault(tag.conn, set()).add(tag.unit_id)
    return {conn: sorted(numbers) for conn, numbers in units.items()}
