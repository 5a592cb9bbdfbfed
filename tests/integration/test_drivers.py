"""What every driver does: the checks of `edge_agent.protocols.conformance` over ours.

Drivers that have a server are tried against one that this project did not write, as a process that
is stopped and killed. S7 runs them in test_s7.py, on the same server as its other tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.model import ValueType
from edge_agent.protocols import conformance, load
from edge_agent.protocols.conformance import NOW_MS, Check, Rig, ServerCheck
from edge_agent.protocols.simulated import signal as simulated_signal
from tests.modbus_server import PymodbusServer

# uvloop's transports differ from asyncio's in what they raise and when; the agent runs on uvloop.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

CELLS = {
    "holding": {0: [7, 0x4148, 0x0000, 0xFFFE, 0b1000]},
    "input": {4: [1234]},
    "coil": {0: [0, 1, 1, 0, 0, 0, 0, 0, 0, 1]},
    "discrete": {7: [1]},
}


def modbus_rig(conn: str) -> Rig:
    return Rig(
        driver=load("modbus"),
        conn=conn,
        readable=[
            ("40001", ValueType.UINT16, 7),
            ("40004", ValueType.INT16, -2),
            ("40002", ValueType.FLOAT32, 12.5),
            ("hr:4.3", ValueType.BOOL, 1),
            ("hr:4.2", ValueType.BOOL, 0),
            ("30005", ValueType.UINT16, 1234),
            ("00010", ValueType.BOOL, 1),
            ("00001", ValueType.BOOL, 0),
            ("di:7", ValueType.BOOL, 1),
        ],
        unreadable=("49000", ValueType.INT16),
        bad_conns=["", "host", "http://h", "tcp://", "tcp://h:99999", "tcp://h?speed=1"],
        bad_addresses=["", "1", "x", "50001", "40000", "hr:65536", "40001.16"],
        name="modbus",
    )


def simulated_rig() -> Rig:
    types = [ValueType.FLOAT32, ValueType.INT16, ValueType.BOOL, ValueType.UINT8]
    return Rig(
        driver=load("simulated"),
        conn="sim://plant",
        readable=[
            (str(cell), value_type, simulated_signal(1, cell, value_type, NOW_MS))
            for cell, value_type in zip([9, 3, 7, 4], types, strict=True)
        ],
        unreadable=("60000", ValueType.INT16),
        bad_conns=["", "simulated", "tcp://h"],
        bad_addresses=["", "x", "-1", "65536", "1.5"],
        name="simulated",
    )


@pytest.fixture(scope="module")
def modbus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PymodbusServer]:
    with PymodbusServer(tmp_path_factory.mktemp("modbus"), {1: CELLS}) as server:
        yield server


@pytest.fixture(params=["modbus", "simulated"])
def rig(request: pytest.FixtureRequest) -> Rig:
    if request.param == "modbus":
        server: PymodbusServer = request.getfixturevalue("modbus_server")
        return modbus_rig(server.conn)
    return simulated_rig()


@pytest.mark.parametrize("check", conformance.CHECKS, ids=conformance.name_of)
async def test_every_driver_keeps_the_contract(rig: Rig, check: Check) -> None:
    """What the check of that name says."""
    await check(rig)


@pytest.mark.parametrize("check", conformance.SERVER_CHECKS, ids=conformance.name_of)
async def test_every_driver_keeps_the_contract_while_its_device_is_away(
    check: ServerCheck, tmp_path: Path
) -> None:
    """Paused, killed and back."""
    with PymodbusServer(tmp_path, {1: CELLS}) as server:
        await check(modbus_rig(server.conn), server)
