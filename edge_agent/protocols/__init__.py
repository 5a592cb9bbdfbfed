"""Protocols by the name that stands in the map's `protocol` column.

Ours are listed here and loaded by name when a map needs them, so that an unused library costs
neither memory nor start-up time. Others register in the entry-point group
`edge_agent.protocols`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, cast

from edge_agent.errors import ConfigError

if TYPE_CHECKING:
    from edge_agent.protocols.base import Driver

ENTRY_POINT_GROUP = "edge_agent.protocols"

_OURS = {
    "modbus": "edge_agent.protocols.modbus:ModbusDriver",
    "s7": "edge_agent.protocols.s7:S7Driver",
    "opcua": "edge_agent.protocols.opcua:OpcuaDriver",
    "mqtt": "edge_agent.protocols.mqtt:MqttDriver",
    "simulated": "edge_agent.protocols.simulated:SimulatedDriver",
}


def names() -> list[str]:
    """Every protocol that a map may name, sorted."""
    return sorted({*_OURS, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


@cache
def load(name: str) -> type[Driver]:
    """The driver class of a protocol.

    Raises ``ConfigError`` for a name that nobody offers, and for a package that can't be imported.
    """
    if name in _OURS:
        module, _, attribute = _OURS[name].partition(":")
        return cast("type[Driver]", getattr(import_module(module), attribute))
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            return _load_from_package(point)
    raise ConfigError(f"unknown protocol {name!r}; allowed: {', '.join(names())}")


def _load_from_package(point: EntryPoint) -> type[Driver]:
    try:
        return cast("type[Driver]", point.load())
    except Exception as error:
        package = point.dist.name if point.dist is not None else point.value
        raise ConfigError(
            f"protocol {point.name!r} can't be loaded from package {package}:"
            f" {type(error).__name__}: {error}"
        ) from error
