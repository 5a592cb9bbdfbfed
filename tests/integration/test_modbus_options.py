"""What the options of a Modbus `conn` do on the wire: pauses, repetitions, single requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.errors import DeviceError, TransientError
from edge_agent.model import ValueType
from edge_agent.planner import Block
from edge_agent.protocols import conformance
from edge_agent.protocols.base import Frames
from edge_agent.protocols.conformance import Rig
from edge_agent.protocols.modbus import ModbusDriver
from tests.chaos import Proxy, Spoil, Step, late, mute, passing
from tests.integration.test_drivers import CELLS, modbus_rig
from tests.integration.test_modbus_serial import PtyDevice, block, reply_to, values_of
from tests.libmodbus_server import LibmodbusServer, compile_server

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

READ_S_MAX = 5.0
FIRST = CELLS["holding"][0]
A = block(0, 5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibmodbusServer]:
    folder: Path = tmp_path_factory.mktemp("libmodbus")
    with LibmodbusServer(folder / "server", compile_server(folder), CELLS) as running:
        yield running


async def connected(proxy: Proxy, options: str) -> ModbusDriver:
    driver = ModbusDriver(f"tcp://127.0.0.1:{proxy.port}?{options}", now_ms=lambda: 0)
    await driver.connect()
    return driver


async def read(driver: ModbusDriver, wanted: Block) -> list[float]:
    """As the poller reads: until the driver's own timeout."""
    async with asyncio.timeout(driver.timeout_s):
        [reply] = await driver.read(wanted)
    return list(reply.values)


def counting(spoils: Sequence[Spoil]) -> tuple[Spoil, Callable[[], int]]:
    """Each reply is spoiled by the next one, the last for ever; and how many replies there were."""
    count = 0

    def spoil(chunk: bytes) -> Sequence[Step]:
        nonlocal count
        count += 1
        return spoils[min(count, len(spoils)) - 1](chunk)

    return spoil, lambda: count


def exception(chunk: bytes) -> Sequence[Step]:
    return [chunk[:4] + bytes([0, 3, chunk[6], chunk[7] | 0x80, 6])]


async def test_pause_between_requests(proxy: Proxy) -> None:
    """pause_ms passes between a reply and the next request, but not before the first."""
    driver = await connected(proxy, "pause_ms=300")
    started = time.monotonic()
    assert await read(driver, A) == FIRST
    assert time.monotonic() - started < 0.3
    for _ in range(2):
        assert await read(driver, A) == FIRST
    assert time.monotonic() - started >= 2 * 0.3
    await driver.close()


async def test_pause_after_a_request_without_answer(proxy: Proxy) -> None:
    """A device is not asked sooner because it has not answered."""
    driver = await connected(proxy, "pause_ms=300&timeout_ms=250")
    proxy.spoil = mute
    with pytest.raises(TimeoutError):
        await read(driver, A)
    proxy.spoil = passing
    started = time.monotonic()
    assert await read(driver, A) == FIRST
    assert time.monotonic() - started >= 0.29
    await driver.close()


async def test_pause_after_connect(proxy: Proxy) -> None:
    """connect returns at once and the first read waits, so that nobody's timeout is touched."""
    started = time.monotonic()
    driver = await connected(proxy, "pause_after_connect_ms=400&timeout_ms=500")
    assert time.monotonic() - started < 0.4
    assert driver.timeout_s == pytest.approx(0.9)
    assert await read(driver, A) == FIRST
    assert time.monotonic() - started >= 0.4
    started = time.monotonic()
    assert await read(driver, A) == FIRST
    assert time.monotonic() - started < 0.4
    await driver.close()


async def test_a_connection_that_ends_in_a_pause(proxy: Proxy) -> None:
    """The read after the pause says that it has ended; close does not wait for the pause."""
    driver = await connected(proxy, "pause_after_connect_ms=100")
    reading = asyncio.create_task(read(driver, A))
    await asyncio.sleep(0.02)
    proxy.cut()
    with pytest.raises(TransientError):
        await reading
    await driver.close()


@pytest.mark.parametrize("lost", [1, 2])
async def test_retries_after_silence(proxy: Proxy, lost: int) -> None:
    """A request without an answer is repeated within one read."""
    driver = await connected(proxy, "retries=2&timeout_ms=250")
    proxy.spoil, replies = counting([mute] * lost + [passing])
    assert await read(driver, A) == FIRST
    assert replies() == lost + 1
    await driver.close()


async def test_retries_come_to_an_end(proxy: Proxy) -> None:
    """After the last one the read is a timeout that tells how often it asked, in time."""
    driver = await connected(proxy, "retries=2&timeout_ms=60")
    proxy.spoil, replies = counting([mute])
    text = r"unit 1: holding 0 to 4: no answer within 0\.06 s to each of 3 requests"
    with pytest.raises(TimeoutError, match=text):
        async with asyncio.timeout(READ_S_MAX):
            await driver.read(A)
    assert replies() == 3
    assert driver.timeout_s == pytest.approx(3 * 0.06)
    await driver.close()


async def test_an_exception_is_not_repeated(proxy: Proxy) -> None:
    """It is an answer."""
    driver = await connected(proxy, "retries=5")
    proxy.spoil, replies = counting([exception])
    with pytest.raises(DeviceError, match="exception 6 DEVICE_BUSY"):
        await read(driver, A)
    assert replies() == 1
    await driver.close()


async def test_a_late_reply_to_the_first_of_two_requests(proxy: Proxy) -> None:
    """It is dropped, as one to an earlier read is; the repetition's own reply counts."""
    driver = await connected(proxy, "retries=1&timeout_ms=250")
    proxy.spoil, replies = counting([late(0.35), passing])
    assert await read(driver, A) == FIRST
    assert await read(driver, A) == FIRST
    assert replies() == 3
    await driver.close()


async def test_a_damaged_reply_is_repeated() -> None:
    """On a serial line noise is a reason too to ask again."""
    async with PtyDevice() as device:
        driver = ModbusDriver(f"{device.conn}&retries=1", now_ms=lambda: 0)
        await driver.connect()
        device.spoil, replies = counting([lambda chunk: [chunk[:-1] + b"\x55"], passing])
        assert await read(driver, A) == values_of(A)
        assert replies() == 3  # with the fence that says that no reply is late
        await driver.close()


def rig_with(server: LibmodbusServer, options: str) -> Rig:
    return modbus_rig(f"{server.conn}?{options}")


async def test_single_request(server: LibmodbusServer) -> None:
    """Neighbours share no request; bits of one register, which is one value to a device, do."""
    rig = rig_with(server, "single_request=true")
    blocks = rig.all_blocks()
    assert [(b.area, b.start, b.count, len(b.tags)) for b in sorted(blocks, key=lambda b: b.start)
            if b.area == "holding"] == [
        ("holding", 0, 1, 1), ("holding", 1, 2, 1), ("holding", 3, 1, 1), ("holding", 4, 1, 2),
    ]  # fmt: skip
    assert len([b for b in blocks if b.area == "coil"]) == 2
    assert len(rig_with(server, "gap_max=10").all_blocks()) < len(blocks)
    await conformance.check_values_stand_in_the_order_of_the_blocks_tags(rig)


ONE_BASED = ["40001", "400002", "40005.3", "30005", "00010", "10008", "hr:0", "ir:4"]
ZERO_BASED = ["40000", "400001", "40004.3", "30004", "00009", "10007", "hr:0", "ir:4"]


async def test_zero_based_numbers(server: LibmodbusServer) -> None:
    """40000 reads the cell that 40001 reads without the option, in every area; hr:0 stays."""
    found = []
    for options, addresses in {"": ONE_BASED, "zero_based=true": ZERO_BASED}.items():
        rig = rig_with(server, options)
        types = [
            ValueType.BOOL if "." in address or address[0] in "01" else ValueType.UINT16
            for address in addresses
        ]
        cells = zip(addresses, types, strict=True)
        blocks = rig.blocks([rig.tag(f"t{i}", *cell) for i, cell in enumerate(cells)])
        driver = ModbusDriver(rig.conn, now_ms=lambda: 0)
        await driver.connect()
        values = {
            tag.tag: value
            for wanted in blocks
            for tag, value in zip(wanted.tags, await read(driver, wanted), strict=True)
        }
        await driver.close()
        found.append([values[f"t{i}"] for i in range(len(addresses))])
    assert found[0] == found[1] == [7, 0x4148, 1, 1234, 1, 1, 7, 1234]


async def test_the_contract_of_a_zero_based_connection(server: LibmodbusServer) -> None:
    """Cells are good and bad as the connection counts."""
    one_based = rig_with(server, "")
    readable = [
        (address if ":" in address else f"{int(address) - 1:05}", value_type, value)
        for address, value_type, value in one_based.readable
    ]
    bad = [address for address in one_based.bad_addresses if address != "40000"]
    rig = replace(
        rig_with(server, "zero_based=true"),
        readable=readable,
        bad_addresses=[*bad, "465536", "40000.16"],
    )
    await conformance.check_good_cells_are_taken(rig)
    await conformance.check_bad_cells_are_value_errors(rig)
    await conformance.check_garbage_in_cells(rig)
    await conformance.check_values_stand_in_the_order_of_the_blocks_tags(rig)


async def test_limits_of_a_request(server: LibmodbusServer) -> None:
    """registers_max splits; a real server answers each part."""
    rig = rig_with(server, "registers_max=2&bits_max=1")
    tags = [rig.tag(f"t{i}", f"hr:{i}", ValueType.UINT16) for i in range(5)]
    blocks = rig.blocks(tags)
    assert [block.count for block in blocks] == [2, 2, 1]
    driver = rig.new_driver()
    await driver.connect()
    read_values = [value for wanted in blocks for value in (await driver.read(wanted))[0].values]
    assert read_values == FIRST
    await driver.close()


async def test_close_after_scan_is_told_to_the_poller() -> None:
    """The driver's attribute says what its `conn` does."""
    for options, closes in {"": False, "?close_after_scan=true": True}.items():
        assert ModbusDriver(f"tcp://h{options}", now_ms=lambda: 0).close_after_scan is closes


def frames(driver: ModbusDriver) -> Frames:
    assert driver.frames is not None
    return driver.frames


async def test_frames_of_the_newest_exchange(proxy: Proxy) -> None:
    """Request and reply as they were on the wire, also where the reply is none."""
    driver = await connected(proxy, "timeout_ms=250")
    assert driver.frames is None
    await read(driver, A)
    request = bytes.fromhex("000100000006010300000005")
    reply = bytes.fromhex("00010000000d01030a") + b"".join(v.to_bytes(2, "big") for v in FIRST)
    assert frames(driver) == Frames(request, reply)
    proxy.spoil = mute
    with pytest.raises(TimeoutError):
        await read(driver, A)
    assert frames(driver) == Frames(b"\0\2" + request[2:], b"")
    proxy.spoil = exception
    with pytest.raises(DeviceError):
        await read(driver, A)
    assert frames(driver).reply == bytes.fromhex("000300000003018306")
    proxy.spoil = lambda chunk: [b"HTTP/1.1 400"]
    with pytest.raises(TransientError):
        await read(driver, A)
    assert frames(driver).reply == b"HTTP/1.1 400"
    await driver.close()


async def test_frames_of_a_serial_line() -> None:
    """With unit and checksum; a damaged reply is shown as it came."""
    async with PtyDevice() as device:
        driver = ModbusDriver(f"{device.conn}&timeout_ms=250", now_ms=lambda: 0)
        await driver.connect()
        await read(driver, A)
        assert frames(driver) == Frames(device.requests[-1], reply_to(device.requests[-1]))
        device.spoil = lambda chunk: [chunk[:7]]
        with pytest.raises(DeviceError):
            await read(driver, A)
        assert frames(driver) == Frames(device.requests[-1], reply_to(device.requests[-1])[:7])
        await driver.close()
