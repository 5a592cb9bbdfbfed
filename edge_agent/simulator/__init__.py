"""PLC simulators for an address map, and what every sample of theirs had to be."""

from edge_agent.simulator.listener import Listener
from edge_agent.simulator.modbus_server import ModbusSimulator, simulate
from edge_agent.simulator.plant import Plant, rebind
from edge_agent.simulator.signals import STEP_MS, matches, raw_at, sample_at, value_at

__all__ = [
    "STEP_MS",
    "Listener",
    "ModbusSimulator",
    "Plant",
    "matches",
    "raw_at",
    "rebind",
    "sample_at",
    "simulate",
    "value_at",
]
