"""Every transport against servers that this project did not write.

libmodbus, pymodbus and the npm package modbus-serial, over TCP, on serial lines (pairs of pseudo
terminals) and behind a gateway that passes the bytes of a line on. What is particular to one of
them is a test of the driver.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.errors import RefusedError, TransientError
from edge_agent.model import ByteOrder, Tag, ValueType
from edge_agent.protocols import conformance
from edge_agent.protocols.conformance import Check, Rig, ServerCheck
from edge_agent.protocols.modbus import ModbusDriver
from tests.integration.test_drivers import CELLS, modbus_rig
from tests.integration.test_modbus_serial import TIMEOUT_MS, block, read
from tests.libmodbus_server import (
    LibmodbusLine,
    LibmodbusServer,
    PymodbusRtu,
    SerialGateway,
    SerialLine,
    compile_server,
)
from tests.modbus_server import Areas
from tests.node_modbus_server import SILENCE_MS, ModbusSerialServer
from tests.servers import Server

pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("no_traceback"),
]

BAD_CONNS = ["rtu://", "rtu:///dev/x?parity=X", "rtu+tcp://h", "rtu+tcp://h:1?parity=N"]
QUICK_MS = 10
"""Silence that ends a frame for modbus-serial where a test is not about it."""
SETTLE_S = 0.06
"""After a request that was cancelled, so that it is no part of the next one's frame."""

VALUES: Mapping[ValueType, tuple[bytes, float]] = {
    ValueType.INT8: (b"\0\xfe", -2),
    ValueType.UINT8: (b"\0\xfe", 254),
    ValueType.INT16: (struct.pack(">h", -2), -2),
    ValueType.UINT16: (struct.pack(">H", 65_534), 65_534),
    ValueType.INT32: (struct.pack(">i", -70_000), -70_000),
    ValueType.UINT32: (struct.pack(">I", 4_000_000_000), 4_000_000_000),
    ValueType.INT64: (struct.pack(">q", -(2**40) - 3), -(2**40) - 3),
    ValueType.UINT64: (struct.pack(">Q", 2**52 + 1), 2**52 + 1),
    ValueType.FLOAT16: (struct.pack(">e", 1.5), 1.5),
    ValueType.FLOAT32: (struct.pack(">f", 12.625), 12.625),
    ValueType.FLOAT64: (struct.pack(">d", -0.1), -0.1),
    ValueType.BCD16: (b"\x12\x34", 1_234),
    ValueType.BCD32: (b"\x12\x34\x56\x78", 12_345_678),
}
"""Each type with its bytes, most significant first, and what they mean."""


def ordered(data: bytes, order: ByteOrder) -> list[int]:
    """The registers in which bytes stand that were given most significant first."""
    registers = [data[i : i + 2] for i in range(0, len(data), 2)]
    if order in {ByteOrder.CDAB, ByteOrder.DCBA}:
        registers.reverse()
    if order in {ByteOrder.BADC, ByteOrder.DCBA}:
        registers = [bytes(reversed(register)) for register in registers]
    return [int.from_bytes(register, "big") for register in registers]


FIRST = {"hr": 100, "ir": 300}
"""Where in an area the typed values begin."""
TYPED = [
    (value_type, order, ordered(data, order), value)
    for order in ByteOrder
    for value_type, (data, value) in VALUES.items()
]
REGISTERS = [cell for _, _, registers, _ in TYPED for cell in registers]
MANY = [(cell * 523) & 0xFFFF for cell in range(125)]
BITS = [cell % 3 == 0 or cell % 7 == 0 for cell in range(797)]
LAST = list(range(1_000, 1_010))
UNIT: Areas = {
    "holding": {**CELLS["holding"], FIRST["hr"]: REGISTERS, 500: MANY, 990: LAST},
    "input": {**CELLS["input"], FIRST["ir"]: REGISTERS},
    "coil": {**CELLS["coil"], 200: BITS},
    "discrete": {**CELLS["discrete"], 200: BITS},
}
"""libmodbus has 1,000 cells in each area, 0 where no range covers them; elsewhere that is exception
2."""
OTHER_UNIT: Areas = {"holding": {0: [9, 8, 7, 6, 5]}}
UNITS: Mapping[int, Areas] = {1: UNIT, 7: OTHER_UNIT}

LIBMODBUS = ["tcp libmodbus", "rtu libmodbus", "rtu+tcp libmodbus"]
MODBUS_SERIAL = ["tcp modbus-serial", "rtu modbus-serial", "rtu+tcp modbus-serial"]
PYMODBUS = ["rtu pymodbus", "rtu+tcp pymodbus"]


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_server(tmp_path_factory.mktemp("libmodbus"))


@pytest.fixture(scope="module")
def conns(tmp_path_factory: pytest.TempPathFactory, binary: Path) -> Iterator[dict[str, str]]:
    """Servers that run as long as this module's tests, by transport and name."""
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as running:
        started = running.enter_context

        def on_lines(name: str, serve: Callable[[Path, SerialLine], Server]) -> dict[str, str]:
            """On a line, and on another one behind a gateway."""
            own = started(SerialLine(folder / f"{name}-line"))
            shared = started(SerialLine(folder / f"{name}-gateway-line"))
            started(serve(folder / f"{name}-rtu", own))
            started(serve(folder / f"{name}-gateway-rtu", shared))
            gateway = started(SerialGateway(folder / f"{name}-gateway", shared))
            return {f"rtu {name}": own.conn, f"rtu+tcp {name}": gateway.conn}

        line = started(SerialLine(folder / "pymodbus-line"))
        yield {
            "tcp libmodbus": started(LibmodbusServer(folder / "a", binary, UNIT)).conn,
            "tcp modbus-serial": started(ModbusSerialServer(folder / "b", UNITS)).conn,
            **on_lines("libmodbus", lambda path, line: LibmodbusLine(path, binary, line, UNIT)),
            **on_lines(
                "modbus-serial",
                lambda path, line: ModbusSerialServer(path, UNITS, line, silence_ms=QUICK_MS),
            ),
            "rtu pymodbus": started(PymodbusRtu(folder / "c", {1: CELLS}, line)).conn,
            # Its own RTU over TCP, without a line.
            "rtu+tcp pymodbus": started(PymodbusRtu(folder / "d", {1: CELLS})).conn,
        }


def rtu_rig(conn: str) -> Rig:
    rig = modbus_rig(conn)
    return replace(rig, bad_conns=[*rig.bad_conns, *BAD_CONNS])


@asynccontextmanager
async def connected(conn: str) -> AsyncIterator[ModbusDriver]:
    driver = ModbusDriver(conn, now_ms=lambda: 0)
    await driver.connect()
    try:
        yield driver
    finally:
        await driver.close()


def with_timeout(conn: str, timeout_ms: int = TIMEOUT_MS) -> str:
    return f"{conn}{'&' if '?' in conn else '?'}timeout_ms={timeout_ms}"


# The conformance suite.


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, id=f"{name}-{conformance.name_of(check)}")
        for name in ["tcp libmodbus", "rtu libmodbus", *MODBUS_SERIAL, *PYMODBUS]
        for check in conformance.CHECKS
        # The gateway serves one connection at a time.
        if (name, check) != ("rtu+tcp modbus-serial", conformance.check_two_drivers_do_not_meet)
    ],
)
async def test_every_transport_keeps_the_contract(
    conns: dict[str, str], name: str, check: Check
) -> None:
    """What the check of that name says; but a serial port is opened once at a time."""
    rig = rtu_rig(conns[name])
    if name in MODBUS_SERIAL:
        rig = replace(rig, settle_s=SETTLE_S)
    if name.startswith("rtu ") and check is conformance.check_two_drivers_do_not_meet:
        with pytest.raises(TransientError, match="in use by another connection"):
            await check(rig)
    else:
        await check(rig)


@pytest.mark.parametrize("check", conformance.SERVER_CHECKS, ids=conformance.name_of)
@pytest.mark.parametrize("kind", [PymodbusRtu, ModbusSerialServer])
async def test_a_server_that_is_away(
    kind: type[PymodbusRtu | ModbusSerialServer], check: ServerCheck, tmp_path: Path
) -> None:
    """Paused, killed and back."""
    with kind(tmp_path, {1: CELLS}) as server:
        await check(rtu_rig(server.conn), server)


# Values and refusals.


def typed_tags(area: str) -> Iterator[tuple[Tag, float]]:
    """Tags of every type in every byte order, with what they must read."""
    rig = modbus_rig("tcp://h")
    cell = FIRST[area]
    for place, (value_type, order, registers, value) in enumerate(TYPED):
        tag = rig.tag(f"t{place}", f"{area}:{cell}", value_type)
        yield replace(tag, byte_order=order), value
        cell += len(registers)


@pytest.mark.parametrize("area", ["hr", "ir"])
@pytest.mark.parametrize("name", [*LIBMODBUS, *MODBUS_SERIAL])
async def test_every_type_in_every_byte_order(conns: dict[str, str], name: str, area: str) -> None:
    """A register is what the server says it is, whatever is made of it."""
    expected = {tag.tag: value for tag, value in typed_tags(area)}
    blocks = modbus_rig("tcp://h").blocks([tag for tag, _ in typed_tags(area)])
    async with connected(conns[name]) as driver:
        values: dict[str, float] = {}
        for wanted in blocks:
            read_now = await read(driver, wanted)
            values.update(zip((tag.tag for tag in wanted.tags), read_now, strict=True))
        assert values == expected


@pytest.mark.parametrize("name", [*LIBMODBUS, *MODBUS_SERIAL])
async def test_the_largest_requests(conns: dict[str, str], name: str) -> None:
    """125 registers, and hundreds of bits, whose last byte is not full."""
    async with connected(conns[name]) as driver:
        assert await read(driver, block(500, 125)) == MANY
        for area in ("co", "di"):
            assert await read(driver, block(200, len(BITS), area=area)) == BITS
            assert await read(driver, block(203, 5, area=area)) == BITS[3:8]


@pytest.mark.parametrize("name", [*LIBMODBUS, *MODBUS_SERIAL])
async def test_illegal_address(conns: dict[str, str], name: str) -> None:
    """Of a cell that is not there, alone or behind others; what is there is read as before."""
    async with connected(conns[name]) as driver:
        for _ in range(2):
            with pytest.raises(RefusedError, match="holding 1000: exception 2 ILLEGAL_ADDRESS"):
                await read(driver, block(1000, 1))
            with pytest.raises(RefusedError, match="holding 990 to 1000: exception 2"):
                await read(driver, block(990, 11))
            with pytest.raises(RefusedError, match="coil 1000 to 1015: exception 2"):
                await read(driver, block(1000, 16, area="co"))
            assert await read(driver, block(990, 10)) == LAST


# Units.


@pytest.mark.parametrize("name", MODBUS_SERIAL)
async def test_units_of_one_connection(conns: dict[str, str], name: str) -> None:
    """Each has its own values and its own holes."""
    async with connected(conns[name]) as driver:
        for _ in range(2):
            assert await read(driver, block(0, 5)) == CELLS["holding"][0]
            assert await read(driver, block(0, 5, unit_id=7)) == OTHER_UNIT["holding"][0]
            with pytest.raises(RefusedError, match="unit 7: input 4: exception 2"):
                await read(driver, block(4, 1, unit_id=7, area="ir"))


@pytest.mark.parametrize("name", ["tcp modbus-serial", "rtu modbus-serial"])
async def test_a_unit_that_is_not_there(conns: dict[str, str], name: str) -> None:
    """It costs its timeout, and the others are read at the first attempt."""
    async with connected(with_timeout(conns[name])) as driver:
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"unit 2: holding 0 to 4: no answer within 0"):
                await read(driver, block(0, 5, unit_id=2))
            assert await read(driver, block(0, 5)) == CELLS["holding"][0]
            assert await read(driver, block(0, 5, unit_id=7)) == OTHER_UNIT["holding"][0]


async def test_a_silent_unit_leaves_its_neighbour_on_the_line(conns: dict[str, str]) -> None:
    """It costs its timeout, and the other is read each time.

    libmodbus takes what follows a request to another unit for that unit's reply, and drops it:
    hence a repetition.
    """
    async with connected(f"{with_timeout(conns['rtu libmodbus'])}&retries=1") as driver:
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"unit 2: holding 0 to 4: no answer within 0"):
                await read(driver, block(0, 5, unit_id=2))
            assert await read(driver, block(0, 5)) == CELLS["holding"][0]


# What is particular to modbus-serial.


@pytest.fixture
def slow_line(tmp_path: Path) -> Iterator[SerialLine]:
    """A line whose server waits for as much silence as it does by default."""
    with (
        SerialLine(tmp_path / "line") as line,
        ModbusSerialServer(tmp_path / "server", UNITS, line),
    ):
        yield line


async def give_up_soon(driver: ModbusDriver) -> None:
    """A read that is cancelled while the server still waits for silence."""
    waiting = asyncio.create_task(read(driver, block(0, 5)))
    await asyncio.sleep(SILENCE_MS / 1000 / 3)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_two_requests_that_it_takes_for_one(slow_line: SerialLine) -> None:
    """Soon after a request that was given up another is lost with it, and no later one."""
    async with connected(with_timeout(slow_line.conn)) as driver:
        for _ in range(2):
            await give_up_soon(driver)
            with pytest.raises(TimeoutError, match="holding 990 to 994: no answer"):
                await read(driver, block(990, 5))
            assert await read(driver, block(990, 5)) == LAST[:5]
            assert await read(driver, block(0, 5)) == CELLS["holding"][0]


async def test_pause_ms_keeps_its_requests_apart(slow_line: SerialLine) -> None:
    """With a pause longer than its silence, a request that was given up costs no other one."""
    async with connected(f"{slow_line.conn}&pause_ms={4 * SILENCE_MS}") as driver:
        for _ in range(2):
            await give_up_soon(driver)
            assert await read(driver, block(990, 5)) == LAST[:5]
            assert await read(driver, block(0, 5)) == CELLS["holding"][0]
