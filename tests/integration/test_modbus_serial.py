"""Modbus RTU on serial lines and through TCP.

Lines are pseudo terminals. On most of them a device of this test's own, `RtuDevice`, spoils what it
says; test_modbus_servers.py has the servers that this project did not write.
"""

from __future__ import annotations

import asyncio
import os
import random
import termios
import time
import tty
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest
from pymodbus.framer.rtu import FramerRTU

from edge_agent.errors import DeviceError, TransientError
from edge_agent.model import ValueType
from edge_agent.planner import Block
from edge_agent.protocols.modbus import ModbusDriver
from edge_agent.protocols.modbus_rtu import LATE_S_MAX, Unanswered, checksum, fence_for
from edge_agent.protocols.modbus_wire import Request
from tests.chaos import Spoil, Step, cut_after, halves, late, mute, once, passing, saying
from tests.integration.test_drivers import CELLS, modbus_rig
from tests.libmodbus_server import LibmodbusLine, SerialLine, compile_server
from tests.waiting import until

pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("no_traceback"),
]

READ_S_MAX = 5.0
FAIL_S_MAX = 0.5
TIMEOUT_MS = 250
"""Of a device that must not answer: long enough for one that does, on a busy machine."""


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_server(tmp_path_factory.mktemp("libmodbus"))


# Real lines.


def block(first: int, count: int, *, unit_id: int = 1, area: str = "hr", step: int = 1) -> Block:
    rig = modbus_rig("tcp://h")
    value_type = ValueType.UINT16 if area in {"hr", "ir"} else ValueType.BOOL
    tags = [rig.tag(f"t{i}", f"{area}:{first + i * step}", value_type) for i in range(count)]
    [only] = rig.blocks(tags)
    return Block(unit_id, only.area, only.start, only.count, only.tags, only.addresses)


async def read(driver: ModbusDriver, wanted: Block, *, within_s: float = READ_S_MAX) -> list[float]:
    async with asyncio.timeout(within_s):
        [reply] = await driver.read(wanted)
    return list(reply.values)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[SerialLine]:
    with SerialLine(tmp_path / "line") as running:
        yield running


async def test_a_port_that_vanishes(line: SerialLine, binary: Path, tmp_path: Path) -> None:
    """The waiting read fails at once, connect too, and all works after the port's return."""
    driver = ModbusDriver(line.conn, now_ms=lambda: 0)
    await driver.connect()
    waiting = asyncio.create_task(read(driver, block(0, 5)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    started = time.monotonic()
    line.stop()
    with pytest.raises(TransientError, match=f"rtu://{line.near}: the port is gone"):
        await waiting
    with pytest.raises(TransientError, match="the port is gone"):
        await read(driver, block(0, 5))
    await driver.close()
    with pytest.raises(TransientError, match=f"rtu://{line.near}: No such file"):
        await driver.connect()
    assert time.monotonic() - started < FAIL_S_MAX
    line.start()
    with LibmodbusLine(tmp_path / "server", binary, line, CELLS):
        await driver.connect()
        assert await read(driver, block(0, 5)) == CELLS["holding"][0]
        await driver.close()


async def test_a_port_that_vanishes_between_reads(line: SerialLine) -> None:
    """The next read says so without waiting for its timeout."""
    driver = ModbusDriver(line.conn, now_ms=lambda: 0)
    await driver.connect()
    line.kill()
    started = time.monotonic()
    with pytest.raises(TransientError, match="the port is gone"):
        await read(driver, block(0, 5))
    assert time.monotonic() - started < FAIL_S_MAX
    await driver.close()


async def test_two_masters_on_one_line(line: SerialLine) -> None:
    """A port that is in use is refused, and free again after close."""
    first = ModbusDriver(line.conn, now_ms=lambda: 0)
    second = ModbusDriver(f"{line.conn}&timeout_ms=500", now_ms=lambda: 0)
    await first.connect()
    with pytest.raises(TransientError, match="in use by another connection or program"):
        await second.connect()
    await first.close()
    await second.connect()
    await second.close()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/dev/null", "not a serial port"),
        (__file__, "not a serial port"),
        ("/nowhere/ttyUSB0", "No such file"),
        ("/dev", "Is a directory"),
    ],
)
async def test_what_is_no_serial_port(path: str, message: str) -> None:
    """Each is a TransientError that names the path: an adapter may be plugged in later."""
    driver = ModbusDriver(f"rtu://{path}", now_ms=lambda: 0)
    with pytest.raises(TransientError, match=f"rtu://{path}: {message}"):
        await driver.connect()


# A device that spoils what it says.


def value_of(unit_id: int, area: int, cell: int) -> int:
    """Cells differ from their neighbours, and between units and functions."""
    return (unit_id * 9973 + area * 4099 + cell * 7 + cell // 100) & 0xFFFF


def crc(data: bytes) -> bytes:
    """pymodbus's checksum: not the one under test."""
    return FramerRTU.compute_CRC(data).to_bytes(2, "big")


def reply_to(request: bytes) -> bytes:
    """What a healthy device with 1,000 cells in each area says."""
    unit_id, function = request[0], request[1]
    first, count = (int.from_bytes(request[i : i + 2], "big") for i in (2, 4))
    if first + count > 1000:
        body = bytes([unit_id, function | 0x80, 2])
    elif function in {1, 2}:
        bits = sum((value_of(unit_id, function, first + i) & 1) << i for i in range(count))
        body = bytes([unit_id, function, (count + 7) // 8]) + bits.to_bytes(
            (count + 7) // 8, "little"
        )
    else:
        cells = b"".join(
            value_of(unit_id, function, first + i).to_bytes(2, "big") for i in range(count)
        )
        body = bytes([unit_id, function, 2 * count]) + cells
    return body + crc(body)


def values_of(wanted: Block) -> list[float]:
    function = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}[wanted.area]
    mask = 1 if function in {1, 2} else 0xFFFF
    return [value_of(wanted.unit_id, function, a.offset) & mask for a in wanted.addresses]


class RtuDevice:
    """Answers requests in their order, each as ``spoil`` says; checks what a master must keep."""

    conn: str

    def __init__(self) -> None:
        self.spoil: Spoil = passing
        self.requests: list[bytes] = []
        self.asked_at: deque[float] = deque(maxlen=100)
        self.said_at = 0.0
        self._pending = bytearray()
        self._replies: asyncio.Queue[bytes] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def heard(self, data: bytes) -> None:
        self._pending += data
        while len(self._pending) >= 8:
            request = bytes(self._pending[:8])
            del self._pending[:8]
            assert crc(request[:6]) == request[6:]
            self.requests.append(request)
            self.asked_at.append(time.monotonic())
            self._replies.put_nowait(reply_to(request))

    async def _answer(self) -> None:
        while True:
            reply = await self._replies.get()
            for step in self.spoil(reply):
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, bytes):
                    self.say(step)
                    self.said_at = time.monotonic()
                else:
                    self.cut()

    def say(self, data: bytes) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._answer())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class PtyDevice(RtuDevice):
    """On a pseudo terminal."""

    async def __aenter__(self) -> Self:
        self.open()
        return await super().__aenter__()

    def open(self) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.conn = f"rtu://{os.ttyname(self.slave)}?baudrate=115200&parity=N"
        asyncio.get_running_loop().add_reader(
            self.master, lambda: self.heard(os.read(self.master, 4096))
        )

    def say(self, data: bytes) -> None:
        os.write(self.master, data)

    def cut(self) -> None:
        if self.master >= 0:
            asyncio.get_running_loop().remove_reader(self.master)
            os.close(self.master)
            os.close(self.slave)
            self.master = -1

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        self.cut()


class TcpDevice(RtuDevice):
    """Behind a gateway that passes frames on as they are."""

    async def __aenter__(self) -> Self:
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.conn = f"rtu+tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}?gap_max=0"
        return await super().__aenter__()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(OSError):
            while data := await reader.read(4096):
                self.heard(data)
        writer.close()

    def say(self, data: bytes) -> None:
        self._writers[-1].write(data)

    def cut(self) -> None:
        for writer in self._writers:
            writer.close()

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        self._server.close()
        self.cut()
        await asyncio.sleep(0)


@pytest.fixture(params=[PtyDevice, TcpDevice])
async def device(request: pytest.FixtureRequest) -> AsyncIterator[RtuDevice]:
    async with request.param() as running:
        yield running


@pytest.fixture
async def driver(device: RtuDevice) -> AsyncIterator[ModbusDriver]:
    connected = ModbusDriver(f"{device.conn}&timeout_ms={TIMEOUT_MS}", now_ms=lambda: 0)
    await connected.connect()
    yield connected
    await connected.close()


A = block(0, 20)
B = block(200, 20)
"""Replies to A and B look alike but for their values."""
ONE = block(40, 1)
COILS = block(0, 16, area="co")
REPLY_BYTES = 5 + 2 * 20
ALL = [A, B, ONE, COILS, block(5, 3, area="ir"), block(0, 20, unit_id=2)]


async def assert_works(driver: ModbusDriver) -> None:
    for wanted in ALL:
        assert await read(driver, wanted) == values_of(wanted)


async def no_answer(driver: ModbusDriver, wanted: Block) -> None:
    with pytest.raises(TimeoutError):
        await read(driver, wanted)


async def test_one_request_for_each_read(device: RtuDevice, driver: ModbusDriver) -> None:
    """While all goes well nothing else is sent."""
    for _ in range(3):
        await assert_works(driver)
    assert len(device.requests) == 3 * len(ALL)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 20, REPLY_BYTES - 2, REPLY_BYTES - 1])
async def test_a_reply_in_two_parts(device: RtuDevice, driver: ModbusDriver, at: int) -> None:
    """USB adapters and gateways tear replies apart; the parts are one reply."""
    device.spoil = halves(at, 0.02)
    assert await read(driver, A) == values_of(A)
    assert await read(driver, B) == values_of(B)


async def test_byte_by_byte(device: RtuDevice, driver: ModbusDriver) -> None:
    """So is one that comes in single bytes."""

    def bytewise(chunk: bytes) -> Sequence[Step]:
        return [step for byte in chunk for step in (bytes([byte]), 0.0005)]

    device.spoil = bytewise
    assert await read(driver, ONE) == values_of(ONE)


async def test_a_late_reply_while_nobody_waits(device: RtuDevice, driver: ModbusDriver) -> None:
    """It settles its own request, and the next read needs no fence."""
    release = asyncio.Event()
    device.spoil = once(late(release))
    await no_answer(driver, A)
    release.set()
    await until(lambda: device.said_at > 0, "the late reply")
    await asyncio.sleep(0.02)
    assert await read(driver, B) == values_of(B)
    assert len(device.requests) == 2
    await assert_works(driver)


@pytest.mark.parametrize("wanted", [B, A, block(60, 20), ONE, block(0, 9), COILS])
async def test_a_late_reply_is_not_the_next_ones(
    device: RtuDevice, driver: ModbusDriver, wanted: Block
) -> None:
    """The reply to A comes while another request waits, whose own looks the same or does not."""
    release = asyncio.Event()
    device.spoil = once(late(release))
    await no_answer(driver, A)
    asyncio.get_running_loop().call_later(0.02, release.set)
    assert await read(driver, wanted) == values_of(wanted)
    await assert_works(driver)


@pytest.mark.parametrize("wanted", [ONE, COILS, block(3, 1, area="co"), block(999, 1)])
async def test_late_replies_of_any_size(
    device: RtuDevice, driver: ModbusDriver, wanted: Block
) -> None:
    """A request of a single cell has its fence too, even of an area's last cell."""
    other = Block(
        1, wanted.area, 500, wanted.count, wanted.tags,
        tuple(type(a)(a.area, a.offset - wanted.start + 500, a.width, a.bit)
              for a in wanted.addresses),
    )  # fmt: skip
    release = asyncio.Event()
    device.spoil = once(late(release))
    await no_answer(driver, other)
    asyncio.get_running_loop().call_later(0.02, release.set)
    assert await read(driver, wanted) == values_of(wanted)
    await assert_works(driver)


async def test_many_late_replies_in_one_burst(device: RtuDevice, driver: ModbusDriver) -> None:
    """A device that wakes up and answers all it was ever asked is read right at once."""
    release = asyncio.Event()
    device.spoil = once(late(release))
    for wanted in (A, B, ONE, A, B):
        await no_answer(driver, wanted)
    asyncio.get_running_loop().call_later(0.01, release.set)
    assert await read(driver, B) == values_of(B)
    await assert_works(driver)


async def test_a_silent_unit_is_asked_once_a_read(device: RtuDevice, driver: ModbusDriver) -> None:
    """Its fences take the place of its requests; on its return one read has two."""
    device.spoil = mute
    for _ in range(4):
        await no_answer(driver, A)
    assert len(device.requests) == 4
    device.spoil = passing
    assert await read(driver, A) == values_of(A)
    assert len(device.requests) == 6
    assert await read(driver, A) == values_of(A)
    assert len(device.requests) == 7


async def test_a_reply_that_is_late_across_a_reconnect(driver: ModbusDriver) -> None:
    """A serial line is the same line after it was opened again."""
    async with PtyDevice() as device:
        line = ModbusDriver(f"{device.conn}&timeout_ms={TIMEOUT_MS}", now_ms=lambda: 0)
        await line.connect()
        release = asyncio.Event()
        device.spoil = once(late(release))
        await no_answer(line, A)
        await line.connect()
        asyncio.get_running_loop().call_later(0.02, release.set)
        assert await read(line, B) == values_of(B)
        await line.close()


@pytest.mark.parametrize("at", [1, 2, 3, 20, REPLY_BYTES - 1])
async def test_the_second_half_comes_during_the_next_request(
    device: RtuDevice, driver: ModbusDriver, at: int
) -> None:
    """Half a frame is never part of a value, and the line is in step again soon."""
    release = asyncio.Event()
    device.spoil = once(halves(at, release))
    with pytest.raises(DeviceError, match=f"no valid reply, but {at} bytes that begin with 01"):
        await read(driver, A)
    asyncio.get_running_loop().call_later(0.01, release.set)
    with suppress(TimeoutError, DeviceError):
        assert await read(driver, B) == values_of(B)
    await assert_works(driver)


@pytest.mark.parametrize("place", [0, 1, 2, 3, 20, REPLY_BYTES - 2, REPLY_BYTES - 1])
async def test_a_wrong_bit(device: RtuDevice, driver: ModbusDriver, place: int) -> None:
    """Wherever a bit is wrong, the reply is no value; the next read works."""
    device.spoil = lambda chunk: [chunk[:place] + bytes([chunk[place] ^ 0x10]) + chunk[place + 1 :]]
    with pytest.raises(DeviceError, match=r"checksum is wrong|no valid reply"):
        await read(driver, A)
    device.spoil = passing
    await assert_works(driver)


async def test_a_wrong_checksum_is_told_at_once(device: RtuDevice, driver: ModbusDriver) -> None:
    """The reply was there: there is nothing to wait for."""
    patient = ModbusDriver(f"{device.conn}&timeout_ms=5000", now_ms=lambda: 0)
    await driver.close()
    await patient.connect()
    device.spoil = lambda chunk: [chunk[:-1] + bytes([chunk[-1] ^ 1])]
    started = time.monotonic()
    with pytest.raises(DeviceError, match="checksum is wrong: it begins with 01 03 28"):
        await read(patient, A)
    assert time.monotonic() - started < FAIL_S_MAX
    await patient.close()


@pytest.mark.parametrize("stray", [b"\0", b"\xff", b"\0\0\xff", b"\x09\x03"])
async def test_stray_bytes_before_a_reply(
    device: RtuDevice, driver: ModbusDriver, stray: bytes
) -> None:
    """What a converter says as it turns round is skipped, if silence follows it."""
    device.spoil = lambda chunk: [stray, 0.02, chunk]
    await assert_works(driver)


async def test_noise_ends_with_silence() -> None:
    """Its last byte may look like the beginning of a reply; the reply comes after silence."""
    async with PtyDevice() as device:
        slow = device.conn.replace("115200", "1200")
        driver = ModbusDriver(slow, now_ms=lambda: 0)
        await driver.connect()
        device.spoil = lambda chunk: [b"\0", 0.003, b"\1", 0.06, chunk]
        assert await read(driver, A) == values_of(A)
        await driver.close()


async def test_noise_between_requests(device: RtuDevice, driver: ModbusDriver) -> None:
    """What nobody asked for is dropped."""
    for _ in range(3):
        device.say(os.urandom(30))
        await asyncio.sleep(0.02)
        await assert_works(driver)


async def test_a_line_that_is_never_silent() -> None:
    """Nothing is sent into it, and the error says why."""
    async with PtyDevice() as device:
        slow = device.conn.replace("115200", "1200") + f"&timeout_ms={TIMEOUT_MS}"
        driver = ModbusDriver(slow, now_ms=lambda: 0)
        await driver.connect()

        async def babble() -> None:
            while True:
                device.say(b"\x55")
                await asyncio.sleep(0.003)

        task = asyncio.create_task(babble())
        await asyncio.sleep(0.02)
        with pytest.raises(DeviceError, match="never silent"):
            await read(driver, A)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert device.requests == []
        assert await read(driver, A) == values_of(A)
        await driver.close()


def rebuilt(change: Callable[[bytearray], None]) -> Spoil:
    """A sound frame of other contents."""

    def spoil(chunk: bytes) -> Sequence[Step]:
        body = bytearray(chunk[:-2])
        change(body)
        return [bytes(body) + crc(bytes(body))]

    return spoil


def another_unit(body: bytearray) -> None:
    body[0] = 7


def another_function(body: bytearray) -> None:
    body[1] = 4


def one_register_fewer(body: bytearray) -> None:
    body[2] -= 2
    del body[-2:]


def one_register_more(body: bytearray) -> None:
    body[2] += 2
    body += b"\0\1"


def exception(code: int) -> Callable[[bytearray], None]:
    def change(body: bytearray) -> None:
        body[1:] = bytes([body[1] | 0x80, code])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_unit, "unit 1: holding 0 to 19: unit 7 answered"),
        (another_function, "function 4 answered, 3 was asked"),
        (one_register_fewer, "38 bytes of data, said to be 38, expected 40"),
        (one_register_more, "42 bytes of data, said to be 42, expected 40"),
        (exception(2), "exception 2 ILLEGAL_ADDRESS"),
        (exception(11), "exception 11 GATEWAY_NO_RESPONSE"),
        (exception(200), "exception 200 unknown"),
    ],
)
async def test_sound_frames_that_are_not_the_reply(
    device: RtuDevice, driver: ModbusDriver, change: Callable[[bytearray], None], message: str
) -> None:
    """Unit, function, size and exceptions are told; the connection is kept and works on."""
    device.spoil = rebuilt(change)
    for _ in range(3):
        with pytest.raises(DeviceError, match=message):
            await read(driver, A)
    device.spoil = passing
    await assert_works(driver)


@pytest.mark.parametrize(
    "junk", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 300, b"\x01" * 300]
)
async def test_not_modbus(device: RtuDevice, driver: ModbusDriver, junk: bytes) -> None:
    """Whatever comes instead of a reply is an error that shows its beginning."""
    device.spoil = saying(junk)
    with pytest.raises(DeviceError, match=rf"bytes that begin with {junk[:3].hex(' ')}"):
        await read(driver, A)
    device.spoil = passing
    await asyncio.sleep(0.02)
    await assert_works(driver)


async def test_exceptions_after_a_lost_reply(device: RtuDevice, driver: ModbusDriver) -> None:
    """Which request an exception belongs to may be open; no value is ever taken for another."""
    device.spoil = mute
    await no_answer(driver, A)
    device.spoil = rebuilt(exception(6))
    for _ in range(4):
        with pytest.raises(DeviceError, match="exception 6 DEVICE_BUSY"):
            await read(driver, B)
    device.spoil = passing
    await assert_works(driver)


async def test_exceptions_after_many_lost_replies(device: RtuDevice, driver: ModbusDriver) -> None:
    """Each settles one request, so some reads say no more than the exception; then all is well."""
    device.spoil = mute
    lost = [block(0, count) for count in range(20, 14, -1)]
    for wanted in lost:
        await no_answer(driver, wanted)
    device.spoil = rebuilt(exception(5))
    asked = len(device.requests)
    with pytest.raises(DeviceError, match="exception 5 ACKNOWLEDGE"):
        await read(driver, lost[-1])
    assert len(device.requests) == asked + 3
    device.spoil = passing
    for wanted in lost:
        assert await read(driver, wanted) == values_of(wanted)


async def test_what_is_too_old_is_forgotten() -> None:
    """A unit that answers no fence is asked again after a while, and nothing grows for ever."""
    unanswered = Unanswered()
    request = Request(1, b"\x03\0\0\0\1", 2)
    for second in range(1000):
        unanswered.add(request, float(second))
    assert unanswered.holds(request, 999 + LATE_S_MAX - 0.1)
    assert not unanswered.holds(request, 999 + LATE_S_MAX)
    assert len(unanswered._sent) <= LATE_S_MAX


async def test_a_connection_that_is_cut(device: RtuDevice, driver: ModbusDriver) -> None:
    """The waiting read fails at once, whatever part of a reply had come."""
    patient = ModbusDriver(f"{device.conn}&timeout_ms=5000", now_ms=lambda: 0)
    await driver.close()
    await patient.connect()
    device.spoil = cut_after(10)
    started = time.monotonic()
    with pytest.raises(TransientError, match=r"closed by the device|the port is gone"):
        await read(patient, A)
    assert time.monotonic() - started < FAIL_S_MAX
    await patient.close()


async def test_reads_cancelled_at_any_time(device: RtuDevice, driver: ModbusDriver) -> None:
    """A read that the caller gives up leaves the line in step."""
    source = random.Random(3)
    for _ in range(60):
        with suppress(TimeoutError):
            async with asyncio.timeout(source.random() * 0.006):
                wanted = source.choice(ALL)
                [reply] = await driver.read(wanted)
                assert list(reply.values) == values_of(wanted)
    await asyncio.sleep(0.02)
    await assert_works(driver)


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_is_spoiled_no_value_is_wrong(device: RtuDevice, seed: int) -> None:
    """Lost, late, torn, noisy and damaged replies in any order: right values, or none."""
    source = random.Random(seed)
    driver = ModbusDriver(f"{device.conn}&timeout_ms=60", now_ms=lambda: 0)
    await driver.connect()

    def spoil(chunk: bytes) -> Sequence[Step]:
        match source.randrange(12):
            case 0:
                return []
            case 1:
                return [source.choice([0.03, 0.08, 0.15]), chunk]
            case 2:
                at = source.randrange(1, len(chunk))
                return [chunk[:at], source.choice([0.005, 0.08]), chunk[at:]]
            case 3:
                return [chunk[: source.randrange(len(chunk))]]
            case 4:
                at = source.randrange(len(chunk))
                return [
                    chunk[:at] + bytes([chunk[at] ^ 1 << source.randrange(8)]) + chunk[at + 1 :]
                ]
            case 5:
                return [source.randbytes(source.randrange(1, 40)), chunk]
            case 6:
                return rebuilt(exception(4))(chunk)
            case _:
                return [chunk]

    device.spoil = spoil
    right = 0
    for _ in range(40):
        wanted = source.choice(ALL)
        try:
            assert await read(driver, wanted) == values_of(wanted)
            right += 1
        except (TimeoutError, DeviceError):
            continue
    assert right > 10
    device.spoil = passing
    await until(device._replies.empty, "the device has said all")
    for wanted in ALL:
        for _ in range(10):
            with suppress(TimeoutError, DeviceError):
                assert await read(driver, wanted) == values_of(wanted)
                break
        else:
            pytest.fail(f"{wanted.area} is not read again")
    await driver.close()


async def test_silence_before_each_request() -> None:
    """3.5 characters at 1,200 baud are 29 ms; the line is silent so long."""
    async with PtyDevice() as device:
        slow = device.conn.replace("115200", "1200")
        driver = ModbusDriver(slow, now_ms=lambda: 0)
        await driver.connect()
        said_at = 0.0
        for _ in range(4):
            assert await read(driver, ONE) == values_of(ONE)
            assert device.asked_at[-1] - said_at >= 0.028
            said_at = device.said_at
        await driver.close()


async def test_time_on_the_line_is_not_the_devices() -> None:
    """timeout_ms is the device's; what the frames take at the line's rate comes on top."""
    async with PtyDevice() as device:
        slow = device.conn.replace("115200", "300") + "&timeout_ms=50"
        driver = ModbusDriver(slow, now_ms=lambda: 0)
        await driver.connect()
        device.spoil = late(0.3)  # 8 bytes there and 7 back take 0.5 s
        assert await read(driver, ONE) == values_of(ONE)
        assert driver.timeout_s > 1
        await driver.close()


async def test_a_port_that_does_not_send() -> None:
    """Requests do not pile up in front of it: the second one ends the connection."""
    async with PtyDevice() as device:
        driver = ModbusDriver(f"{device.conn}&timeout_ms={TIMEOUT_MS}", now_ms=lambda: 0)
        await driver.connect()
        termios.tcflow(device.slave, termios.TCOOFF)
        await no_answer(driver, A)
        with pytest.raises(TransientError, match="the port does not send"):
            await read(driver, A)
        started = time.monotonic()
        await driver.close()
        assert time.monotonic() - started < FAIL_S_MAX
        assert device.requests == []
        termios.tcflow(device.slave, termios.TCOON)
        await driver.connect()
        assert await read(driver, B) == values_of(B)
        await driver.close()


async def test_another_connection_goes_on_meanwhile(
    device: RtuDevice, driver: ModbusDriver
) -> None:
    """A silent line holds nobody else up."""
    device.spoil = mute
    async with TcpDevice() as other:
        neighbour = ModbusDriver(other.conn, now_ms=lambda: 0)
        await neighbour.connect()
        silent = asyncio.create_task(no_answer(driver, A))
        reads = 0
        while not silent.done():
            assert await read(neighbour, A) == values_of(A)
            reads += 1
        await silent
        assert reads > 5
        await neighbour.close()


async def test_fences_and_checksums() -> None:
    """A fence has another size, lies in the area, and asks for no cell that is not needed."""
    for function in (1, 2, 3, 4):
        for first, count in [(0, 1), (7, 2), (65535, 1), (65528, 8), (0, 9), (3, 16), (0, 125)]:
            pdu = bytes([function]) + first.to_bytes(2, "big") + count.to_bytes(2, "big")
            size = (count + 7) // 8 if function in {1, 2} else 2 * count
            fence = fence_for(Request(1, pdu, size))
            start, cells = (int.from_bytes(fence.pdu[i : i + 2], "big") for i in (1, 3))
            asked = (cells + 7) // 8 if function in {1, 2} else 2 * cells
            assert fence.size_bytes == asked != size
            assert cells >= 1
            assert start + cells <= 65536
            assert cells < count or asked == size + (1 if function in {1, 2} else 2)
            assert checksum(b"\1" + pdu) == crc(b"\1" + pdu)
