"""Modbus TCP through TLS, against pymodbus's TLS server with certificates of an authority."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edge_agent.errors import TransientError
from edge_agent.protocols import conformance
from edge_agent.protocols.conformance import Check, Rig, ServerCheck
from edge_agent.protocols.modbus import ModbusDriver
from tests.integration.test_drivers import CELLS, modbus_rig
from tests.modbus_server import PymodbusServer

pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("no_traceback"),
]

FAIL_S_MAX = 2.0
"""Handshakes take their time on a busy machine."""

PROGRAM = """
import asyncio, json, ssl, sys
from pathlib import Path
from pymodbus.server import ModbusTlsServer
from tests.modbus_server import device

async def serve(port, units, folder, name, wants_certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(f"{folder}/{name}.pem", f"{folder}/{name}.key")
    if wants_certificate == "True":
        context.load_verify_locations(f"{folder}/ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    devices = [device(int(unit), areas) for unit, areas in json.loads(units).items()]
    server = ModbusTlsServer(devices, address=("127.0.0.1", int(port)), sslctx=context)
    await server.serve_forever()

asyncio.run(serve(*sys.argv[1:]))
"""


class TlsServer(PymodbusServer):
    """pymodbus's server with one of the authority's certificates."""

    def __init__(
        self, folder: Path, certificates: Path, name: str = "right", *, wants: bool = False
    ) -> None:
        super().__init__(folder, {1: CELLS})
        self._arguments = [str(certificates), name, str(wants)]

    def command(self) -> Sequence[str]:
        root = Path(__file__).parents[2]
        program = ["env", f"PYTHONPATH={root}", sys.executable, "-c", PROGRAM]
        return [*program, str(self.port), json.dumps(self.units), *self._arguments]

    @property
    def conn(self) -> str:
        return f"tcp+tls://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, certificates: Path
) -> Iterator[dict[str, TlsServer]]:
    """One per certificate, and one that asks for the client's."""
    folder = tmp_path_factory.mktemp("servers")
    running = {
        "right": TlsServer(folder / "right", certificates),
        "elsewhere": TlsServer(folder / "elsewhere", certificates, "elsewhere"),
        "expired": TlsServer(folder / "expired", certificates, "expired"),
        "asking": TlsServer(folder / "asking", certificates, wants=True),
    }
    try:
        for server in running.values():
            server.start()
        yield running
    finally:
        for server in running.values():
            server.stop()


@pytest.fixture
def rig(servers: dict[str, TlsServer], certificates: Path) -> Rig:
    return modbus_rig(f"{servers['right'].conn}?ca={certificates}/ca.pem")


@pytest.mark.parametrize("check", conformance.CHECKS, ids=conformance.name_of)
async def test_tls_keeps_the_contract(rig: Rig, check: Check) -> None:
    """What the check of that name says."""
    await check(rig)


@pytest.mark.parametrize("check", conformance.SERVER_CHECKS, ids=conformance.name_of)
async def test_a_server_that_is_away(
    check: ServerCheck, tmp_path: Path, certificates: Path
) -> None:
    """Paused, killed and back."""
    with TlsServer(tmp_path, certificates) as server:
        await check(modbus_rig(f"{server.conn}?ca={certificates}/ca.pem"), server)


async def reads(conn: str) -> None:
    """Connect and read everything."""
    await conformance.check_values_stand_in_the_order_of_the_blocks_tags(modbus_rig(conn))


async def refused(conn: str, message: str) -> TransientError:
    """Connect or the first read fails, with a message that names the place."""
    with pytest.raises(TransientError, match=message) as caught:
        await reads(conn)
    assert str(caught.value).startswith(conn.partition("?")[0] + ": ")
    return caught.value


async def test_the_certificate_is_checked_by_default(servers: dict[str, TlsServer]) -> None:
    """An authority that the system does not know is refused; the hint says what to do."""
    error = await refused(servers["right"].conn, "its certificate is refused: unable to get local")
    assert "?ca=/path" in error.hint


@pytest.mark.parametrize(
    ("server", "options", "message"),
    [
        ("right", "?ca={}/other-ca.pem", "its certificate is refused: "),
        ("elsewhere", "?ca={}/ca.pem", "its certificate is refused: IP address mismatch"),
        ("expired", "?ca={}/ca.pem", "its certificate is refused: certificate has expired"),
        ("elsewhere", "?verify=ca", "its certificate is refused: unable to get local"),
        ("expired", "?ca={}/ca.pem&verify=ca", "its certificate is refused: certificate has exp"),
        ("right", "?ca={}/missing.pem", "cannot load the TLS files: No such file"),
        ("right", "?ca={}/ca.key", "cannot load the TLS files: "),
        ("right", "?ca={0}/ca.pem&cert={0}/missing.pem", "cannot load the TLS files: No such"),
        ("asking", "?ca={0}/ca.pem&cert={0}/certified.pem&key={0}/ca.key", "key values mismatch"),
        ("asking", "?ca={0}/ca.pem&cert={0}/certified.pem&key={0}/locked.key", "cannot load the"),
        ("asking", "?ca={}/ca.pem", r"TLS: |closed by the device|Connection reset"),
    ],
)
async def test_what_is_refused(
    servers: dict[str, TlsServer], certificates: Path, server: str, options: str, message: str
) -> None:
    """Each has a reason of its own, and none of them waits for a terminal or a timeout."""
    started = time.monotonic()
    await refused(servers[server].conn + options.format(certificates), message)
    assert time.monotonic() - started < FAIL_S_MAX


@pytest.mark.parametrize(
    ("server", "options"),
    [
        ("right", "?ca={}/ca.pem"),
        ("right", "?ca={}/ca.pem&verify=full"),
        ("elsewhere", "?ca={}/ca.pem&verify=ca"),
        ("right", "?verify=none"),
        ("expired", "?verify=none"),
        ("asking", "?ca={0}/ca.pem&cert={0}/certified.pem&key={0}/certified.key"),
    ],
)
async def test_what_is_taken(
    servers: dict[str, TlsServer], certificates: Path, server: str, options: str
) -> None:
    """The name need not fit with verify=ca, nothing with verify=none; a client's certificate."""
    await reads(servers[server].conn + options.format(certificates))


async def test_a_key_in_the_certificates_file(
    servers: dict[str, TlsServer], certificates: Path, tmp_path: Path
) -> None:
    """`cert` alone may hold both."""
    both = tmp_path / "both.pem"
    texts = [(certificates / f"certified.{end}").read_text() for end in ("pem", "key")]
    both.write_text("".join(texts))
    await reads(f"{servers['asking'].conn}?ca={certificates}/ca.pem&cert={both}")


async def test_a_server_without_tls(tmp_path: Path) -> None:
    """Plain Modbus TCP on that port is a TransientError, soon."""
    with PymodbusServer(tmp_path, {1: CELLS}) as server:
        conn = f"tcp+tls://127.0.0.1:{server.port}?verify=none&timeout_ms=500"
        await refused(conn, r"TLS: |no connection within 0\.5 s|closed by the device|reset")


async def test_a_mute_server_does_not_hold_close_up(tmp_path: Path, certificates: Path) -> None:
    """TLS says farewell and waits for the other side's; the driver does not."""
    with TlsServer(tmp_path, certificates) as server:
        driver = ModbusDriver(f"{server.conn}?ca={certificates}/ca.pem", now_ms=lambda: 0)
        await driver.connect()
        server.pause()
        started = time.monotonic()
        await driver.close()
        assert time.monotonic() - started < FAIL_S_MAX
        with pytest.raises(TransientError, match="no connection within"):
            await driver.connect()
        server.resume()
