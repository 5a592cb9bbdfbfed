"""What every driver does, of OPC UA: both modes, on asyncua's server and on node-opcua."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from edge_agent.model import ValueType
from edge_agent.protocols import conformance
from edge_agent.protocols.base import Driver
from edge_agent.protocols.conformance import Check, Rig, ServerCheck
from edge_agent.protocols.opcua import OpcuaDriver
from tests.opcua_server import AsyncuaServer, NodeOpcuaServer

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

KINDS: dict[str, type[AsyncuaServer | NodeOpcuaServer]] = {
    "asyncua": AsyncuaServer,
    "node-opcua": NodeOpcuaServer,
}
AnyServer = AsyncuaServer | NodeOpcuaServer


def rig_of(server: AnyServer, mode: str) -> Rig:
    return Rig(
        driver=cast("type[Driver]", OpcuaDriver),
        conn=f"{server.conn}?mode={mode}",
        readable=[
            ("ns=2;s=Pump.Pressure", ValueType.FLOAT64, 12.5),
            ("ns=2;s=Pump.Speed", ValueType.INT16, -2),
            ("ns=2;s=Pump.Running", ValueType.BOOL, 1),
        ],
        unreadable=("ns=2;s=Nope", ValueType.INT16),
        bad_conns=["", "opc.tcp://", "tcp://h", "opc.tcp://h?x=1"],
        bad_addresses=["", "x", "i=", "i=4294967296", "ns=65536;i=1"],
        subscribes=mode == "subscribe",
        name="opcua",
    )


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AnyServer]:
    with KINDS[request.param](tmp_path_factory.mktemp("opcua")) as running:
        yield running


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
@pytest.mark.parametrize("check", conformance.CHECKS, ids=conformance.name_of)
async def test_the_drivers_contract(check: Check, mode: str, server: AnyServer) -> None:
    """What the check of that name says."""
    await check(rig_of(server, mode))


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
@pytest.mark.parametrize("check", conformance.SERVER_CHECKS, ids=conformance.name_of)
async def test_the_drivers_contract_while_its_server_is_away(
    check: ServerCheck, mode: str, server: AnyServer
) -> None:
    """Paused, killed and back."""
    try:
        await check(rig_of(server, mode), server)
    finally:
        server.kill()
        server.start()
