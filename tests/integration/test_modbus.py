"""Bad input on a Modbus connection: a clear error or a bad tag, and the next read works.

pymodbus's server answers; a proxy in between spoils what it says.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack

import pytest

from edge_agent.errors import DeviceError, RefusedError, SilentUnitError, TransientError
from edge_agent.model import Tag, ValueType
from edge_agent.planner import Block, plan
from edge_agent.protocols import load
from edge_agent.protocols.modbus import ModbusDriver
from edge_agent.protocols.modbus_mbap import MbapWire
from tests.chaos import (
    Proxy,
    Spoil,
    Step,
    cut_after,
    halves,
    late,
    mute,
    once,
    passing,
    replacing,
    saying,
)
from tests.modbus_server import PymodbusServer

pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("no_traceback"),
]

PATIENCE_S = 0.05
"""When a read is given up that must not succeed."""
READ_S_MAX = 5.0
"""When a read is given up that must: generous, for a busy machine."""
FAIL_S_MAX = 0.5

FIRST = [100 + i for i in range(20)]
SECOND = [200 + i for i in range(20)]
REPLY_BYTES = 9 + 2 * len(FIRST)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PymodbusServer]:
    cells = {"holding": {0: FIRST, 100: SECOND}, "coil": {0: [1, 0] * 8}}
    with PymodbusServer(tmp_path_factory.mktemp("modbus"), {1: cells, 2: cells}) as running:
        yield running


@pytest.fixture
async def proxy(server: PymodbusServer) -> AsyncIterator[Proxy]:
    async with Proxy(server.port) as running:
        yield running


@pytest.fixture
async def driver(proxy: Proxy) -> AsyncIterator[ModbusDriver]:
    connected = ModbusDriver(f"tcp://127.0.0.1:{proxy.port}", now_ms=lambda: 0)
    await connected.connect()
    yield connected
    await connected.close()


def block(first: int, count: int, *, step: int = 1, unit_id: int = 1, area: str = "hr") -> Block:
    value_type = ValueType.UINT16 if area == "hr" else ValueType.BOOL
    tags = [
        Tag(
            site="S", line="L", device="D", tag=f"t{i}", protocol="modbus", conn="tcp://h",
            unit_id=unit_id, address=f"{area}:{first + i * step}", type=value_type, scale=1.0,
            offset=0.0, period_ms=1000, unit="",
        )
        for i in range(count)
    ]  # fmt: skip
    [connection] = plan(tags, load)
    [only] = connection.scan_classes[0].blocks
    return only


A = block(0, 20)
B = block(100, 20)


async def read(driver: ModbusDriver, wanted: Block, *, within_s: float = READ_S_MAX) -> list[float]:
    async with asyncio.timeout(within_s):
        [reply] = await driver.read(wanted)
    return list(reply.values)


async def give_up(driver: ModbusDriver, wanted: Block) -> None:
    """A read that gets no reply in time, as the poller cancels it."""
    with pytest.raises(TimeoutError):
        await read(driver, wanted, within_s=PATIENCE_S)


async def assert_works(driver: ModbusDriver) -> None:
    assert await read(driver, A) == FIRST
    assert await read(driver, B) == SECOND


async def assert_works_after_reconnect(proxy: Proxy, driver: ModbusDriver) -> None:
    proxy.spoil = passing
    with pytest.raises(TransientError):
        await read(driver, A)
    await driver.connect()
    await assert_works(driver)


async def test_mute_server(proxy: Proxy, driver: ModbusDriver) -> None:
    """A server that accepts and says nothing costs its timeout; then the connection works on."""
    proxy.spoil = mute
    for _ in range(3):
        await give_up(driver, A)
    proxy.spoil = passing
    await assert_works(driver)


async def test_mute_server_does_not_delay_another_connection(
    proxy: Proxy, driver: ModbusDriver, server: PymodbusServer
) -> None:
    """While one device keeps silent, the reads of another take what they always take."""
    neighbour = ModbusDriver(server.conn, now_ms=lambda: 0)
    await neighbour.connect()
    proxy.spoil = mute
    silent = asyncio.create_task(give_up(driver, A))
    reads = 0
    while not silent.done():
        assert await read(neighbour, A) == FIRST
        reads += 1
    await silent
    assert reads > 1
    await neighbour.close()


async def test_late_reply_is_not_the_next_ones(proxy: Proxy, driver: ModbusDriver) -> None:
    """The reply to a read that was given up never becomes the values of a later one."""
    release = asyncio.Event()
    proxy.spoil = once(late(release))
    await give_up(driver, A)
    release.set()
    assert await read(driver, B) == SECOND
    await assert_works(driver)


async def test_many_late_replies_at_once(proxy: Proxy, driver: ModbusDriver) -> None:
    """A device that wakes up and answers everything in one burst is in step again."""
    held: list[bytes] = []

    def hold(chunk: bytes) -> Sequence[Step]:
        held.append(chunk)
        return [] if len(held) < 20 else [b"".join(held)]

    proxy.spoil = hold
    for count in range(1, 20):
        task = asyncio.create_task(driver.read(A))
        async with asyncio.timeout(READ_S_MAX):
            while len(held) < count:
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await read(driver, B) == SECOND
    proxy.spoil = passing
    await assert_works(driver)


@pytest.mark.parametrize("at", [1, 5, 6, 7, 8, 9, 10, 20, REPLY_BYTES - 1])
async def test_reply_in_two_halves(proxy: Proxy, driver: ModbusDriver, at: int) -> None:
    """Where a reply is torn apart makes no difference."""
    proxy.spoil = halves(at, 0.005)
    await assert_works(driver)


@pytest.mark.parametrize("at", [1, 6, 7, 8, 9, 20, REPLY_BYTES - 1])
async def test_second_half_comes_after_the_read_was_given_up(
    proxy: Proxy, driver: ModbusDriver, at: int
) -> None:
    """Half a reply stays half of its own reply, and the next one is read from where it begins."""
    release = asyncio.Event()
    proxy.spoil = once(halves(at, release))
    await give_up(driver, A)
    asyncio.get_running_loop().call_later(0.01, release.set)  # the next request is out by then
    assert await read(driver, B) == SECOND
    await assert_works(driver)


@pytest.mark.parametrize("at", [1, 8, 9, 20, REPLY_BYTES - 1])
async def test_second_half_never_comes(proxy: Proxy, driver: ModbusDriver, at: int) -> None:
    """Bytes of two replies are never mixed into values: the connection ends or goes on, in step."""
    proxy.spoil = once(lambda chunk: [chunk[:at]])
    await give_up(driver, A)
    for _ in range(5):
        try:
            assert await read(driver, B, within_s=PATIENCE_S) == SECOND
        except TimeoutError:
            continue
        except TransientError:
            await driver.connect()
    await assert_works(driver)


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 9, 20, REPLY_BYTES - 1])
async def test_cut_in_the_middle_of_a_reply(proxy: Proxy, driver: ModbusDriver, count: int) -> None:
    """A connection that ends fails the waiting read at once, however much had come."""
    proxy.spoil = cut_after(count)
    started = time.monotonic()
    with pytest.raises(TransientError, match="closed by the device"):
        await read(driver, A)
    assert time.monotonic() - started < FAIL_S_MAX
    await assert_works_after_reconnect(proxy, driver)


async def test_reset(proxy: Proxy, driver: ModbusDriver) -> None:
    """A connection that is reset says so."""
    proxy.spoil = mute
    waiting = asyncio.create_task(read(driver, A))
    await asyncio.sleep(0.02)
    proxy.cut()
    with pytest.raises(TransientError, match=f"127.0.0.1:{proxy.port}: "):
        await waiting
    await assert_works_after_reconnect(proxy, driver)


async def test_refused_until_it_listens_again(proxy: Proxy, driver: ModbusDriver) -> None:
    """connect() fails while nobody listens and succeeds when somebody does."""
    await proxy.refuse()
    for _ in range(3):
        with pytest.raises(TransientError, match="Connection refused"):
            await driver.connect()
    await proxy.accept()
    await driver.connect()
    await assert_works(driver)


async def test_connect_that_nobody_answers() -> None:
    """Connecting keeps to timeout_ms where the answer to the first packet never comes."""
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        for _ in range(4):  # the queue of those not yet accepted is full: the kernel drops more
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        driver = ModbusDriver(f"tcp://127.0.0.1:{port}?timeout_ms=50", now_ms=lambda: 0)
        with pytest.raises(TransientError, match=f"127.0.0.1:{port}: no connection within 0.05 s"):
            async with asyncio.timeout(READ_S_MAX):
                await driver.connect()


@pytest.mark.parametrize("ahead", [1, 7, 30_000])
async def test_wrong_transaction_id(proxy: Proxy, driver: ModbusDriver, ahead: int) -> None:
    """A reply to something that was never asked ends the connection, naming both ids."""
    proxy.spoil = lambda chunk: [(chunk[1] + ahead).to_bytes(2, "big") + chunk[2:]]
    with pytest.raises(TransientError, match=f"transaction {1 + ahead} answered, 1 was asked"):
        await read(driver, A)
    await assert_works_after_reconnect(proxy, driver)


async def test_transaction_id_zero(proxy: Proxy, driver: ModbusDriver) -> None:
    """An id of 0 fits no request; it is not taken for a wild card."""
    proxy.spoil = replacing(0, b"\0\0")
    with pytest.raises(TransientError, match="transaction 0 answered"):
        await read(driver, A)
    await assert_works_after_reconnect(proxy, driver)


async def test_transaction_ids_wrap_around(driver: ModbusDriver) -> None:
    """After the last id comes the first, and replies still find their requests."""
    assert isinstance(driver._wire, MbapWire)
    driver._wire.last_id = 65_533
    for _ in range(4):
        await assert_works(driver)
    assert driver._wire.last_id == 6


async def test_repeated_reply(proxy: Proxy, driver: ModbusDriver) -> None:
    """A gateway that says everything twice is read once."""
    proxy.spoil = lambda chunk: [chunk + chunk]
    for _ in range(3):
        await assert_works(driver)


@pytest.mark.parametrize(
    "spoil",
    [
        saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        saying(b"\xff" * 40),
        saying(b"\0" * 300),
        replacing(2, b"\0\1"),  # another protocol id
        replacing(4, b"\0\0"),  # length
        replacing(4, b"\0\2"),
        replacing(4, b"\0\xff"),
        replacing(4, b"\xff\xff"),
    ],
)
async def test_not_modbus(proxy: Proxy, driver: ModbusDriver, spoil: Spoil) -> None:
    """Bytes that are no Modbus TCP frame end the connection; the error shows them."""
    proxy.spoil = spoil
    with pytest.raises(TransientError, match=r"not a Modbus TCP reply: it begins with [0-9a-f ]+$"):
        await read(driver, A)
    await assert_works_after_reconnect(proxy, driver)


async def test_bytes_that_nobody_asked_for(proxy: Proxy, driver: ModbusDriver) -> None:
    """A banner before the first request ends the connection; the next read says why."""
    proxy.spoil = lambda chunk: [chunk, b"login: "]
    assert await read(driver, A) == FIRST
    await asyncio.sleep(0.02)
    with pytest.raises(TransientError, match="not a Modbus TCP reply"):
        await read(driver, A)


def exception(code: int) -> Spoil:
    """An exception reply to whatever was asked."""
    return lambda chunk: [chunk[:4] + bytes([0, 3, chunk[6], chunk[7] | 0x80, code])]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (1, "ILLEGAL_FUNCTION"),
        (2, "ILLEGAL_ADDRESS"),
        (3, "ILLEGAL_VALUE"),
        (4, "DEVICE_FAILURE"),
        (5, "ACKNOWLEDGE"),
        (6, "DEVICE_BUSY"),
        (10, "GATEWAY_PATH_UNAVIABLE"),
        (11, "GATEWAY_NO_RESPONSE"),
        (0, "unknown"),
        (200, "unknown"),
    ],
)
async def test_exception_reply(proxy: Proxy, driver: ModbusDriver, code: int, name: str) -> None:
    """A refusal is a DeviceError with the code's name, the unit and the range; nothing closes."""
    proxy.spoil = exception(code)
    with pytest.raises(DeviceError, match=f"unit 1: holding 0 to 19: exception {code} {name}"):
        await read(driver, A)
    proxy.spoil = passing
    await assert_works(driver)
    assert proxy.connections == 1


@pytest.mark.parametrize(
    ("code", "kind"), [(2, RefusedError), (11, SilentUnitError), (4, DeviceError)]
)
async def test_what_an_exception_means_to_the_poller(
    proxy: Proxy, driver: ModbusDriver, code: int, kind: type[DeviceError]
) -> None:
    """A hole in the map is searched for, a unit behind a gateway is left alone, others wait."""
    proxy.spoil = exception(code)
    with pytest.raises(DeviceError) as caught:
        await read(driver, A)
    assert type(caught.value) is kind


async def test_illegal_address_of_the_server(driver: ModbusDriver) -> None:
    """The real server's own refusal, of a cell it has not and of a gap that runs over its end."""
    with pytest.raises(DeviceError, match="holding 500: exception 2 ILLEGAL_ADDRESS"):
        await read(driver, block(500, 1))
    with pytest.raises(DeviceError, match="holding 19 to 21: exception 2"):
        await read(driver, block(19, 2, step=2))
    await assert_works(driver)


async def test_another_unit_answers(proxy: Proxy, driver: ModbusDriver) -> None:
    """Values of one unit are never stored as another's."""
    proxy.spoil = replacing(6, b"\x02")
    with pytest.raises(DeviceError, match="unit 1: holding 0 to 19: unit 2 answered"):
        await read(driver, A)
    proxy.spoil = passing
    await assert_works(driver)


async def test_another_function_answers(proxy: Proxy, driver: ModbusDriver) -> None:
    """Input registers are not holding registers."""
    proxy.spoil = replacing(7, b"\x04")
    with pytest.raises(DeviceError, match="function 4 answered, 3 was asked"):
        await read(driver, A)
    proxy.spoil = passing
    await assert_works(driver)


def shortened(chunk: bytes) -> Sequence[Step]:
    """A well-formed reply of one register less."""
    return [chunk[:4] + bytes([0, chunk[5] - 2]) + chunk[6:8] + bytes([chunk[8] - 2]) + chunk[9:-2]]


def lengthened(chunk: bytes) -> Sequence[Step]:
    """A well-formed reply of one register more."""
    head = chunk[:4] + bytes([0, chunk[5] + 2]) + chunk[6:8] + bytes([chunk[8] + 2])
    return [head + chunk[9:] + b"\0\0"]


@pytest.mark.parametrize("spoil", [shortened, lengthened, replacing(8, b"\x27")])
@pytest.mark.parametrize(("wanted", "size"), [(A, 40), (block(0, 16, area="co"), 2)])
async def test_reply_of_another_length(
    proxy: Proxy, driver: ModbusDriver, spoil: Spoil, wanted: Block, size: int
) -> None:
    """More or fewer bytes than were asked for are no values; the error has the numbers."""
    proxy.spoil = spoil
    with pytest.raises(DeviceError, match=rf"bytes of data, said to be \d+, expected {size}"):
        await read(driver, wanted)
    proxy.spoil = passing
    await assert_works(driver)


async def test_units_behind_one_connection(driver: ModbusDriver) -> None:
    """A gateway's units are told apart; one that refuses leaves the others."""
    with pytest.raises(DeviceError, match="unit 9: holding 0 to 19: exception"):
        await read(driver, block(0, 20, unit_id=9))
    assert await read(driver, block(0, 20, unit_id=2)) == FIRST
    await assert_works(driver)


async def test_random_bytes(proxy: Proxy, driver: ModbusDriver) -> None:
    """Whatever comes, a read ends with values, TimeoutError, DeviceError or TransientError."""
    source = random.Random(20250817)

    def spoiled(chunk: bytes) -> Sequence[Step]:
        data = bytearray(chunk)
        for _ in range(source.randrange(4)):
            data[source.randrange(min(len(data), 12))] = source.randrange(256)
        end = source.randrange(len(data) + 1) if source.random() < 0.2 else len(data)
        return [bytes(data[:end])]

    proxy.spoil = spoiled
    seen = set()
    for _ in range(400):
        try:
            async with asyncio.timeout(0.01):
                await driver.read(A)
            seen.add("values")
        except (TimeoutError, DeviceError) as error:
            seen.add(type(error).__name__)
        except TransientError as error:
            seen.add(type(error).__name__)
            await driver.connect()
    assert seen == {"values", "TimeoutError", "DeviceError", "TransientError"}
    proxy.spoil = passing
    await driver.connect()
    await assert_works(driver)
