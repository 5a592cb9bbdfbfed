"""Bad input on a Modbus connection: a clear error or a bad tag, and the next read works.

pymodbus's server answers; a proxy in between spoils what it says.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack

import pytest

from edge_agent.errors import DeviceError, RefusedError, SilentUnitError, TransientError
from edge_agent.model import ValueType
from edge_agent.planner import Block, plan
from edge_agent.protocols import load
from edge_agent.protocols.modbus import ModbusDriver
from edge_agent.protocols.modbus_mbap import MbapWire
from tests import spoiled_replies
from tests.chaos import Proxy, Spoil, Step, mute, passing, replacing, saying
from tests.modbus_server import PymodbusServer
from tests.spoiled_replies import READ_S_MAX, Dialogue, give_up, name_of, read, torn
from tests.tags import plain_tag

pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("no_traceback"),
]

FIRST = [100 + i for i in range(20)]
SECOND = [200 + i for i in range(20)]
REPLY_BYTES = 9 + 2 * len(FIRST)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PymodbusServer]:
    cells = {"holding": {0: FIRST, 100: SECOND}, "coil": {0: [1, 0] * 8}}
    with PymodbusServer(tmp_path_factory.mktemp("modbus"), {1: cells, 2: cells}) as running:
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
        plain_tag(f"t{i}", unit_id=unit_id, address=f"{area}:{first + i * step}", type=value_type)
        for i in range(count)
    ]
    [connection] = plan(tags, load)
    [only] = connection.scan_classes[0].blocks
    return only


A = block(0, 20)
B = block(100, 20)


@pytest.fixture
def talk(driver: ModbusDriver, proxy: Proxy) -> Dialogue:
    return Dialogue(driver, proxy, (A, FIRST), (B, SECOND))


@pytest.mark.parametrize("check", spoiled_replies.CHECKS, ids=name_of)
async def test_replies_that_do_not_come_as_they_should(
    check: spoiled_replies.Check, talk: Dialogue
) -> None:
    """What the check of that name says."""
    await check(talk)


TORN: dict[spoiled_replies.TornCheck, list[int]] = {
    spoiled_replies.check_two_halves: [1, 5, 6, 7, 8, 9, 10, 20, REPLY_BYTES - 1],
    spoiled_replies.check_second_half_comes_late: [1, 6, 7, 8, 9, 20, REPLY_BYTES - 1],
    spoiled_replies.check_second_half_never_comes: [1, 8, 9, 20, REPLY_BYTES - 1],
    spoiled_replies.check_cut_in_the_middle: [0, 1, 6, 7, 8, 9, 20, REPLY_BYTES - 1],
}


@pytest.mark.parametrize(("check", "at"), torn(TORN), ids=name_of)
async def test_replies_that_are_torn(
    check: spoiled_replies.TornCheck, talk: Dialogue, at: int
) -> None:
    """What the check of that name says, whatever had come by then."""
    await check(talk, at)


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


async def test_refused_until_it_listens_again(driver: ModbusDriver, talk: Dialogue) -> None:
    """connect() fails while nobody listens and succeeds when somebody does."""
    await talk.proxy.refuse()
    for _ in range(3):
        with pytest.raises(TransientError, match="Connection refused"):
            await driver.connect()
    await talk.proxy.accept()
    await driver.connect()
    await talk.works()


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
async def test_wrong_transaction_id(talk: Dialogue, ahead: int) -> None:
    """A reply to something that was never asked ends the connection, naming both ids."""
    talk.proxy.spoil = lambda chunk: [(chunk[1] + ahead).to_bytes(2, "big") + chunk[2:]]
    with pytest.raises(TransientError, match=f"transaction {1 + ahead} answered, 1 was asked"):
        await talk.read_first()
    await talk.works_after_reconnect()


async def test_transaction_id_zero(talk: Dialogue) -> None:
    """An id of 0 fits no request; it is not taken for a wild card."""
    talk.proxy.spoil = replacing(0, b"\0\0")
    with pytest.raises(TransientError, match="transaction 0 answered"):
        await talk.read_first()
    await talk.works_after_reconnect()


async def test_transaction_ids_wrap_around(driver: ModbusDriver, talk: Dialogue) -> None:
    """After the last id comes the first, and replies still find their requests."""
    assert isinstance(driver._wire, MbapWire)
    driver._wire.last_id = 65_533
    for _ in range(4):
        await talk.works()
    assert driver._wire.last_id == 6


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
async def test_not_modbus(talk: Dialogue, spoil: Spoil) -> None:
    """Bytes that are no Modbus TCP frame end the connection; the error shows them."""
    talk.proxy.spoil = spoil
    with pytest.raises(TransientError, match=r"not a Modbus TCP reply: it begins with [0-9a-f ]+$"):
        await talk.read_first()
    await talk.works_after_reconnect()


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
async def test_exception_reply(talk: Dialogue, code: int, name: str) -> None:
    """A refusal is a DeviceError with the code's name, the unit and the range; nothing closes."""
    talk.proxy.spoil = exception(code)
    with pytest.raises(DeviceError, match=f"unit 1: holding 0 to 19: exception {code} {name}"):
        await talk.read_first()
    talk.proxy.spoil = passing
    await talk.works()
    assert talk.proxy.connections == 1


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


async def test_illegal_address_of_the_server(driver: ModbusDriver, talk: Dialogue) -> None:
    """The real server's own refusal, of a cell it has not and of a gap that runs over its end."""
    with pytest.raises(DeviceError, match="holding 500: exception 2 ILLEGAL_ADDRESS"):
        await read(driver, block(500, 1))
    with pytest.raises(DeviceError, match="holding 19 to 21: exception 2"):
        await read(driver, block(19, 2, step=2))
    await talk.works()


async def test_another_unit_answers(talk: Dialogue) -> None:
    """Values of one unit are never stored as another's."""
    talk.proxy.spoil = replacing(6, b"\x02")
    with pytest.raises(DeviceError, match="unit 1: holding 0 to 19: unit 2 answered"):
        await talk.read_first()
    talk.proxy.spoil = passing
    await talk.works()


async def test_another_function_answers(talk: Dialogue) -> None:
    """Input registers are not holding registers."""
    talk.proxy.spoil = replacing(7, b"\x04")
    with pytest.raises(DeviceError, match="function 4 answered, 3 was asked"):
        await talk.read_first()
    talk.proxy.spoil = passing
    await talk.works()


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
    driver: ModbusDriver, talk: Dialogue, spoil: Spoil, wanted: Block, size: int
) -> None:
    """More or fewer bytes than were asked for are no values; the error has the numbers."""
    talk.proxy.spoil = spoil
    with pytest.raises(DeviceError, match=rf"bytes of data, said to be \d+, expected {size}"):
        await read(driver, wanted)
    talk.proxy.spoil = passing
    await talk.works()


async def test_units_behind_one_connection(driver: ModbusDriver, talk: Dialogue) -> None:
    """A gateway's units are told apart; one that refuses leaves the others."""
    with pytest.raises(DeviceError, match="unit 9: holding 0 to 19: exception"):
        await read(driver, block(0, 20, unit_id=9))
    assert await read(driver, block(0, 20, unit_id=2)) == FIRST
    await talk.works()


async def test_random_bytes(driver: ModbusDriver, talk: Dialogue) -> None:
    """Whatever comes, a read ends with values, TimeoutError, DeviceError or TransientError."""
    source = random.Random(20250817)

    def spoiled(chunk: bytes) -> Sequence[Step]:
        data = bytearray(chunk)
        for _ in range(source.randrange(4)):
            data[source.randrange(min(len(data), 12))] = source.randrange(256)
        end = source.randrange(len(data) + 1) if source.random() < 0.2 else len(data)
        return [bytes(data[:end])]

    talk.proxy.spoil = spoiled
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
    talk.proxy.spoil = passing
    await driver.connect()
    await talk.works()
