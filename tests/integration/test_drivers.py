"""What every driver does: one suite over all of them.

Drivers that have a server are tried against one that this project did not write, as a process that
is stopped and killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import pytest

from edge_agent.errors import DeviceError, TransientError
from edge_agent.model import Tag, ValueType
from edge_agent.planner import Block, plan
from edge_agent.protocols import load
from edge_agent.protocols.base import Driver
from edge_agent.protocols.simulated import signal as simulated_signal
from tests.modbus_server import PymodbusServer
from tests.servers import Server, free_port

# uvloop's transports differ from asyncio's in what they raise and when; the agent runs on uvloop.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

NOW_MS = 1_755_432_000_123
FAIL_S_MAX = 0.5
"""How soon a dead connection must be noticed."""
SETTLE_S = 0.03
"""pymodbus's server forgets a request that reaches it in one segment with another."""


@dataclass(frozen=True)
class Rig:
    """What the suite needs to know of a driver."""

    protocol: str
    conn: str
    readable: Sequence[tuple[str, ValueType, float]]
    """Addresses and types with the raw values that stand there."""
    unreadable: str
    bad_conns: Sequence[str]
    bad_addresses: Sequence[str]

    def driver(self) -> Driver:
        return load(self.protocol)(self.conn, now_ms=lambda: NOW_MS)

    def tags(self) -> list[Tag]:
        return [
            self.tag(f"t{i}", address, value_type)
            for i, (address, value_type, _) in enumerate(self.readable)
        ]

    def tag(self, name: str, address: str, value_type: ValueType = ValueType.INT16) -> Tag:
        return Tag(
            site="S", line="L", device="D", tag=name, protocol=self.protocol, conn=self.conn,
            unit_id=1, address=address, type=value_type, scale=1.0, offset=0.0, period_ms=1000,
            unit="",
        )  # fmt: skip

    def blocks(self, tags: Sequence[Tag] | None = None) -> tuple[Block, ...]:
        [connection] = plan(self.tags() if tags is None else tags, load)
        return connection.scan_classes[0].blocks


CELLS = {
    "holding": {0: [7, 0x4148, 0x0000, 0xFFFE, 0b1000]},
    "input": {4: [1234]},
    "coil": {0: [0, 1, 1, 0, 0, 0, 0, 0, 0, 1]},
    "discrete": {7: [1]},
}


def modbus_rig(conn: str) -> Rig:
    return Rig(
        protocol="modbus",
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
        unreadable="49000",
        bad_conns=["", "host", "http://h", "tcp://", "tcp://h:99999", "tcp://h?speed=1"],
        bad_addresses=["", "1", "x", "50001", "40000", "hr:65536", "40001.16"],
    )


def simulated_rig() -> Rig:
    types = [ValueType.FLOAT32, ValueType.INT16, ValueType.BOOL, ValueType.UINT8]
    return Rig(
        protocol="simulated",
        conn="sim://plant",
        readable=[
            (str(cell), value_type, simulated_signal(1, cell, value_type, NOW_MS))
            for cell, value_type in zip([9, 3, 7, 4], types, strict=True)
        ],
        unreadable="60000",
        bad_conns=["", "simulated", "tcp://h"],
        bad_addresses=["", "x", "-1", "65536", "1.5"],
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


@dataclass(frozen=True)
class ServedRig:
    """A rig and the process behind it, which a test may stop and kill."""

    rig: Rig
    server: Server


@pytest.fixture(params=["modbus"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServedRig]:
    makers: dict[str, Callable[[], tuple[Rig, Server]]] = {"modbus": lambda: modbus_pair(tmp_path)}
    rig, server = makers[request.param]()
    with server:
        yield ServedRig(rig, server)


def modbus_pair(folder: Path) -> tuple[Rig, Server]:
    server = PymodbusServer(folder, {1: CELLS})
    return modbus_rig(server.conn), server


@asynccontextmanager
async def connected(rig: Rig) -> AsyncIterator[Driver]:
    driver = rig.driver()
    await driver.connect()
    try:
        yield driver
    finally:
        await driver.close()


async def values(driver: Driver, block: Block) -> list[float]:
    """One read's values in the order of the block's tags."""
    async with asyncio.timeout(5):
        [reply] = await driver.read(block)
    assert reply.ts_ms == NOW_MS
    assert reply.positions is None
    assert len(reply.values) == len(block.tags)
    return list(reply.values)


async def assert_all_values(rig: Rig, driver: Driver) -> None:
    expected = {f"t{i}": value for i, (_, _, value) in enumerate(rig.readable)}
    for block in rig.blocks():
        assert await values(driver, block) == [expected[tag.tag] for tag in block.tags]


async def test_values_stand_in_the_order_of_the_blocks_tags(rig: Rig) -> None:
    """Every reply has one value per tag, in the block's order, and the time of its arrival."""
    async with connected(rig) as driver:
        await assert_all_values(rig, driver)
        await assert_all_values(rig, driver)


async def test_one_tag_alone(rig: Rig) -> None:
    """A block of one tag is a sequence of one value."""
    async with connected(rig) as driver:
        for i, (address, value_type, value) in enumerate(rig.readable):
            [block] = rig.blocks([rig.tag(f"t{i}", address, value_type)])
            assert await values(driver, block) == [value]


async def test_read_needs_a_connection(rig: Rig) -> None:
    """Before connect and after close, read is a TransientError: connect, then try again."""
    driver = rig.driver()
    block = rig.blocks()[0]
    with pytest.raises(TransientError, match="not connected"):
        await driver.read(block)
    await driver.connect()
    await driver.close()
    with pytest.raises(TransientError, match="not connected"):
        await driver.read(block)


async def test_close_in_any_state(rig: Rig) -> None:
    """Close never raises: before connect, after it, and twice."""
    driver = rig.driver()
    await driver.close()
    await driver.connect()
    await driver.close()
    await driver.close()


async def test_connect_again_after_close(rig: Rig) -> None:
    """A closed driver can be connected again, many times, also without the close."""
    driver = rig.driver()
    for _ in range(5):
        await driver.connect()
        await assert_all_values(rig, driver)
        await driver.close()
    await driver.connect()
    await driver.connect()
    await assert_all_values(rig, driver)
    await driver.close()


async def test_unreadable_address_costs_its_own_block_only(rig: Rig) -> None:
    """What can't be read is a DeviceError or NaN, and every other block is read as before."""
    [unreadable] = rig.blocks([rig.tag("bad", rig.unreadable)])
    async with connected(rig) as driver:
        for _ in range(3):
            with suppress(DeviceError):
                [value] = await values(driver, unreadable)
                assert isnan(value)
            await assert_all_values(rig, driver)


async def test_cancel_and_go_on(rig: Rig) -> None:
    """A read that is cancelled at any point leaves the driver usable and in step."""
    blocks = rig.blocks()
    async with connected(rig) as driver:
        for turns in range(8):
            task = asyncio.create_task(driver.read(blocks[turns % len(blocks)]))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(SETTLE_S)
            await assert_all_values(rig, driver)


async def test_timeout_is_a_sensible_time(rig: Rig) -> None:
    """The poller's timeout comes from the driver."""
    assert 0 < rig.driver().timeout_s <= 60


async def test_bad_cells_are_value_errors(rig: Rig) -> None:
    """A wrong `conn` or `address` is a ValueError with a text, for the map's report."""
    syntax = load(rig.protocol)
    for conn in rig.bad_conns:
        with pytest.raises(ValueError, match=r"\w+"):
            syntax.parse_conn(conn)
        with pytest.raises(ValueError, match=r"\w+"):
            syntax(conn, now_ms=lambda: NOW_MS)
    for address in rig.bad_addresses:
        with pytest.raises(ValueError, match=r"\w+"):
            syntax.parse_address(address, ValueType.UINT16)


# With a server that can die.


async def fails_transiently(reading: asyncio.Task[object]) -> None:
    """The read fails with a TransientError, and soon."""
    started = time.monotonic()
    with pytest.raises(TransientError):
        async with asyncio.timeout(5):
            await reading
    assert time.monotonic() - started < FAIL_S_MAX


def reading(driver: Driver, block: Block) -> asyncio.Task[object]:
    return asyncio.create_task(driver.read(block))


async def test_server_killed_while_a_read_waits(served: ServedRig) -> None:
    """A connection that drops fails the waiting read at once, not after its timeout."""
    block = served.rig.blocks()[0]
    async with connected(served.rig) as driver:
        os.kill(served.server.pid, signal.SIGSTOP)
        task = reading(driver, block)
        await asyncio.sleep(0.05)
        assert not task.done()
        served.server.stop(signal.SIGKILL)
        await fails_transiently(task)
        await fails_transiently(reading(driver, block))


async def test_server_killed_between_reads(served: ServedRig) -> None:
    """The next read fails at once; so does connect, until the server is back."""
    block = served.rig.blocks()[0]
    async with connected(served.rig) as driver:
        await assert_all_values(served.rig, driver)
        served.server.stop(signal.SIGKILL)
        await fails_transiently(reading(driver, block))
        await driver.close()
        with pytest.raises(TransientError, match="refused"):
            await driver.connect()
        served.server.start()
        await driver.connect()
        await assert_all_values(served.rig, driver)


async def test_mute_server_and_cancelled_reads(served: ServedRig) -> None:
    """Replies to reads that were given up are not taken for the replies to later ones."""
    blocks = served.rig.blocks()
    async with connected(served.rig) as driver:
        os.kill(served.server.pid, signal.SIGSTOP)
        for block in blocks:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await driver.read(block)
        os.kill(served.server.pid, signal.SIGCONT)
        await asyncio.sleep(SETTLE_S)
        await assert_all_values(served.rig, driver)


async def test_nobody_listens() -> None:
    """A refused connection is a TransientError that names the place, at once."""
    conn = f"tcp://127.0.0.1:{free_port()}"
    driver = modbus_rig(conn).driver()
    started = time.monotonic()
    with pytest.raises(TransientError, match=f"{conn}: Connection refused"):
        await driver.connect()
    assert time.monotonic() - started < FAIL_S_MAX
    await driver.close()
