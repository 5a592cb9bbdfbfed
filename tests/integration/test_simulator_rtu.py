"""The simulator's Modbus RTU, on serial lines and through TCP: answers and faults.

Asked by pymodbus, by the agent's driver, and by a bare client that can do what a proper one does
not. Checksums are pymodbus's.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import serial  # type: ignore[import-untyped]
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.framer import FramerType
from pymodbus.framer.rtu import FramerRTU

from edge_agent import address_map, protocols
from edge_agent.clock import epoch_ms
from edge_agent.errors import ConfigError, DeviceError, TransientError
from edge_agent.model import Tag
from edge_agent.planner import Block, plan
from edge_agent.protocols.modbus import ModbusDriver
from edge_agent.simulator import ModbusSimulator, matches, raw_at, rebind, sample_at
from edge_agent.simulator.fault_file import parse
from edge_agent.simulator.faults import RTU, RTU_TCP, TRANSPORTS, Kind, Then
from edge_agent.simulator.framing import RTU_SILENCE_S
from tests.integration.test_simulator import (
    NOON,
    REGISTERS,
    TIMEOUT_S,
    Clock,
    a_tag_of_each_kind,
    both_loops,
    make_tag,
    number_of,
    read_request,
)
from tests.integration.test_simulator_faults import (
    CHANCE,
    Seconds,
    plant,
    read_all,
    read_through,
)
from tests.libmodbus_server import SerialLine
from tests.servers import free_port
from tests.waiting import until

SILENT_S = 0.15
"""Nothing is believed to come after this time: what comes at all comes within a few ms."""
SLOW_S = 0.1
"""A delay that can be told from a busy machine's own."""


@pytest.fixture(params=[RTU, RTU_TCP])
def conn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A connection of the map that nobody listens on yet."""
    if request.param == RTU:
        return f"rtu://{tmp_path}/line?baudrate=115200&parity=N&timeout_ms=100"
    return f"rtu+tcp://127.0.0.1:{free_port()}?timeout_ms=100"


@pytest.fixture
def line(tmp_path: Path) -> Iterator[SerialLine]:
    """Two pseudo terminals that are joined: ports that exist."""
    with SerialLine(tmp_path / "line") as running:
        yield running


@asynccontextmanager
async def faulty(
    conn: str,
    toml: str = "",
    *,
    seconds: Seconds | None = None,
    tags: Sequence[Tag] | None = None,
) -> AsyncIterator[ModbusSimulator]:
    """A simulator, perhaps with faults; its time stands still unless somebody moves it."""
    async with ModbusSimulator(
        plant(conn=conn) if tags is None else tags,
        syntax=protocols.load,
        faults=parse(toml) if toml else None,
        monotonic=seconds or Seconds(),
    ) as simulator:
        yield simulator


# -- a bare client -----------------------------------------------------------------------------


@dataclass
class Bare:
    """Both ends of a connection, as bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter | None
    descriptor: int = -1

    def write(self, data: bytes) -> None:
        if self.writer is None:
            assert os.write(self.descriptor, data) == len(data)
        else:
            self.writer.write(data)

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.readexactly(size)

    async def receive(self) -> tuple[int, bytes]:
        """One reply with a right checksum: unit id and PDU."""
        head = await self.read(3)
        frame = head + await self.read(2 if head[1] & 0x80 else head[2] + 2)
        assert frame[-2:] == checksum(frame[:-2]), frame.hex(" ")
        return frame[0], frame[1:-2]

    async def nothing(self) -> bool:
        """Whether nothing comes."""
        try:
            async with asyncio.timeout(SILENT_S):
                await self.reader.readexactly(1)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def bare(simulator: ModbusSimulator, index: int = 0) -> AsyncIterator[Bare]:
    """Connected to one of a simulator's listeners."""
    listener = simulator.connections[index]
    if "path" not in listener.place:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        try:
            yield Bare(reader, writer)
        finally:
            writer.transport.abort()
        return
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    with serial.Serial(str(listener.place["path"]), 115_200, timeout=0) as port:
        descriptor: int = port.fileno()

        def readable() -> None:
            reader.feed_data(os.read(descriptor, 4_096))

        loop.add_reader(descriptor, readable)
        try:
            yield Bare(reader, None, descriptor)
        finally:
            loop.remove_reader(descriptor)


def checksum(data: bytes) -> bytes:
    """Of a frame without it, by pymodbus."""
    return FramerRTU.compute_CRC(data).to_bytes(2, "big")


def sealed(pdu: bytes, unit_id: int = 1) -> bytes:
    body = bytes((unit_id,)) + pdu
    return body + checksum(body)


def ask(start: int = 0, count: int = 1, *, unit_id: int = 1, function: int = 3) -> bytes:
    return sealed(read_request(start, count, function), unit_id)


# -- it answers --------------------------------------------------------------------------------


def pymodbus_client(conn: str) -> AsyncModbusSerialClient | AsyncModbusTcpClient:
    place = conn.partition("?")[0]
    if place.startswith("rtu://"):
        return AsyncModbusSerialClient(
            place.removeprefix("rtu://"), baudrate=115_200, timeout=TIMEOUT_S, retries=0
        )
    port = int(place.rpartition(":")[2])
    return AsyncModbusTcpClient(
        "127.0.0.1", port=port, framer=FramerType.RTU, timeout=TIMEOUT_S, retries=0
    )


async def test_pymodbus_reads_every_kind(conn: str) -> None:
    """Each value alone, in registers of two units, and their bits; a write is refused."""
    clock = Clock()
    tags = a_tag_of_each_kind(conn)
    async with ModbusSimulator(tags, syntax=protocols.load, now_ms=clock) as simulator:
        client = pymodbus_client(conn)
        assert await client.connect()
        for tag in tags:
            area, _, cell = tag.address.partition(":")
            offset, _, bit = cell.partition(".")
            read = {
                "hr": client.read_holding_registers, "ir": client.read_input_registers,
                "co": client.read_coils, "di": client.read_discrete_inputs,
            }[area]  # fmt: skip
            count = REGISTERS.get(tag.type, 1)
            reply = await read(int(offset), count=count, device_id=tag.unit_id)
            assert not reply.isError(), (tag, reply)
            if area in {"co", "di"}:
                raw: float = reply.bits[0]
            elif bit:
                raw = reply.registers[0] >> int(bit) & 1
            else:
                raw = number_of(reply.registers, tag)
            assert raw == raw_at(tag, NOON), tag
        listener = simulator.connections[0]
        assert (listener.requests, listener.errors) == (len(tags), 0)
        for refused in (
            await client.write_register(10, 1),
            await client.write_coil(5, True),
            await client.write_registers(10, [1, 2]),
        ):
            assert refused.exception_code == 1
        client.close()


@both_loops
async def test_the_agents_driver_reads_what_the_plant_had(conn: str) -> None:
    """The planner's blocks, the driver and its decoder give exactly `sample_at` for every tag."""
    clock = Clock()
    tags = a_tag_of_each_kind(conn.replace("timeout_ms=100", "timeout_ms=2000"))
    async with ModbusSimulator(tags, syntax=protocols.load, now_ms=clock) as simulator:
        (connection,) = plan(tags, protocols.load)
        driver = ModbusDriver(connection.conn, now_ms=clock)
        await driver.connect()
        try:
            for clock.ms in (NOON, NOON + 50, NOON + 77_777):
                seen = 0
                for block in connection.scan_classes[0].blocks:
                    (reply,) = await driver.read(block)
                    for tag, raw in zip(block.tags, reply.values, strict=True):
                        assert raw * tag.scale + tag.offset == sample_at(tag, reply.ts_ms), tag
                        seen += 1
                assert seen == len(tags)
        finally:
            await driver.close()
        listener = simulator.connections[0]
        assert listener.errors == 0
        assert listener.requests == 3 * len(connection.scan_classes[0].blocks)


@both_loops
async def test_nobody_answers_for_a_unit_that_is_not_there(conn: str) -> None:
    """Nor for the broadcast; the next request is answered, and the counters say what came."""
    async with faulty(conn) as simulator, bare(simulator) as client:
        client.write(ask(unit_id=9))
        client.write(ask(unit_id=0))
        assert await client.nothing()
        client.write(ask(count=2, unit_id=2))
        assert (await client.receive())[1][:2] == b"\x03\x04"
        listener = simulator.connections[0]
        assert (listener.requests, listener.errors) == (3, 0)
        assert (listener.bytes_received, listener.bytes_sent) == (24, 9)


@pytest.mark.parametrize(
    ("request_pdu", "reply"),
    [
        (read_request(60_000, 1), b"\x83\x02"),
        (read_request(0, 126), b"\x83\x03"),
        (read_request(0, 1, function=6), b"\x86\x01"),
        (bytes.fromhex("10 0000 0001 02 0007"), b"\x90\x01"),
        (bytes.fromhex("07"), b"\x87\x01"),
        (bytes.fromhex("2b 0e 01 00"), b"\xab\x01"),
    ],
)
async def test_exceptions(conn: str, request_pdu: bytes, reply: bytes) -> None:
    """As with Modbus TCP; a request of a length that only silence shows is answered too."""
    async with faulty(conn) as simulator, bare(simulator) as client:
        client.write(sealed(request_pdu))
        assert await client.receive() == (1, reply)
        assert simulator.connections[0].errors == 1


@both_loops
@pytest.mark.parametrize(
    "noise",
    [
        b"\x00", b"\xff\xff\xff", bytes(range(40)), ask()[:7], ask(unit_id=7)[:3],
        ask()[:-1] + bytes((ask()[-1] ^ 1,)), bytes(300),
    ],
    ids=["0", "1s", "40", "half", "3", "wrong checksum", "300"],
)  # fmt: skip
async def test_noise_before_a_request_is_got_over(conn: str, noise: bytes) -> None:
    """Without a pause between the two, and behind the request before."""
    async with faulty(conn) as simulator, bare(simulator) as client:
        client.write(ask() + noise + ask(count=3))
        assert (await client.receive())[1][:2] == b"\x03\x02"
        assert (await client.receive())[1][:2] == b"\x03\x06"
        assert await client.nothing()
        assert simulator.connections[0].requests == 2
        assert simulator.connections[0].errors >= 1


@both_loops
async def test_half_a_request_is_forgotten_after_silence(conn: str) -> None:
    """Its other half is noise then; a request that comes byte by byte is one all the same."""
    async with faulty(conn) as simulator, bare(simulator) as client:
        for byte in ask(count=2):
            client.write(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await client.receive())[1][:2] == b"\x03\x04"
        client.write(ask()[:5])
        await asyncio.sleep(3 * RTU_SILENCE_S)
        assert simulator.connections[0].errors == 1
        client.write(ask()[5:])
        await asyncio.sleep(3 * RTU_SILENCE_S)
        assert simulator.connections[0].errors == 2
        client.write(ask(count=4))
        assert (await client.receive())[1][:2] == b"\x03\x08"
        assert simulator.connections[0].requests == 2


async def test_a_paused_line_is_mute(conn: str) -> None:
    """As with Modbus TCP."""
    async with faulty(conn) as simulator, bare(simulator) as client:
        simulator.pause()
        client.write(ask())
        assert await client.nothing()
        simulator.resume()
        if conn.startswith("rtu:"):
            simulator.drop()  # a line has no connection to lose
        client.write(ask())
        assert (await client.receive())[1][:2] == b"\x03\x02"


async def test_what_nobody_takes_is_lost(tmp_path: Path) -> None:
    """A line's receiver that does not read costs no memory, and the line goes on after it."""
    conn = f"rtu://{tmp_path}/line?parity=N"
    async with faulty(conn) as simulator:
        listener = simulator.connections[0]
        with serial.Serial(str(tmp_path / "line"), 115_200, timeout=0) as port:
            for sent in range(1, 3_001):
                port.write(ask(count=20))
                if sent % 50 == 0:
                    await until(lambda sent=sent: listener.requests >= sent, every_s=0)  # type: ignore[misc]
            assert listener.bytes_sent == 3_000 * 45
            assert port.in_waiting < 20_000
        async with bare(simulator) as client:
            client.write(ask())
            assert (await client.receive())[1][:2] == b"\x03\x02"


# -- lines -------------------------------------------------------------------------------------


async def test_a_pseudo_terminal_lasts_as_long_as_the_simulator(tmp_path: Path) -> None:
    """The link is removed at the end, a second stop does nothing, a new start makes another."""
    path = tmp_path / "line"
    path.symlink_to(tmp_path / "nowhere")  # what a killed process leaves
    simulator = ModbusSimulator(plant(conn=f"rtu://{path}?parity=N"), syntax=protocols.load)
    for _ in range(2):
        await simulator.start()
        assert path.readlink().parent == Path("/dev/pts")
        for _ in range(2):  # who opens it after another has closed it
            async with bare(simulator) as client:
                client.write(ask())
                assert (await client.receive())[1][:2] == b"\x03\x02"
        await simulator.stop()
        await simulator.stop()
        assert not path.is_symlink()
        assert simulator.connections[0].clients == 0


async def test_what_has_replaced_the_link_is_left_alone(tmp_path: Path) -> None:
    """Only the link that was made is removed."""
    path = tmp_path / "line"
    async with faulty(f"rtu://{path}?parity=N"):
        path.unlink()
        path.write_text("somebody's")
    assert path.read_text() == "somebody's"


async def test_a_port_that_exists_is_opened_and_stays(line: SerialLine) -> None:
    """With the settings of its `conn`, and locked; the agent reads through the other end."""
    far = f"rtu://{line.far}?baudrate=9600&parity=N&stopbits=2&timeout_ms=2000"
    tags = plant(conn=far)
    async with faulty(far, tags=tags) as simulator:
        with pytest.raises(TransientError, match=r"cannot listen on rtu://.*lock") as caught:
            await ModbusSimulator(tags, syntax=protocols.load).start()
        assert "parity=N" in caught.value.hint
        with line.far.open("rb", buffering=0) as port:
            settings = termios.tcgetattr(port)
        assert settings[4] == settings[5] == termios.B9600
        assert settings[2] & termios.CSTOPB
        (connection,) = plan(tags, protocols.load)
        driver = ModbusDriver(f"rtu://{line.near}?parity=N", now_ms=epoch_ms)
        await driver.connect()
        try:
            assert await read_all(driver, connection.scan_classes[0].blocks) == (48, 0)
        finally:
            await driver.close()
        assert simulator.connections[0].requests == 48
    assert line.far.exists()


async def test_a_port_that_is_pulled_out_is_no_end(tmp_path: Path, line: SerialLine) -> None:
    """The others answer on, and stopping works."""
    tags = plant(conn=f"rtu://{line.far}?parity=N") + plant(conn=f"rtu://{tmp_path}/b?parity=N")
    async with faulty("", tags=tags) as simulator:
        assert [one.clients for one in simulator.connections] == [1, 1]
        line.stop()
        await until(lambda: not simulator.connections[0].clients)
        async with bare(simulator, 1) as client:
            client.write(ask())
            assert (await client.receive())[1][:2] == b"\x03\x02"


async def test_a_file_is_no_line(tmp_path: Path) -> None:
    """Neither is it touched; lines that were open by then are closed again."""
    (tmp_path / "b").write_text("x")
    tags = [make_tag("40001", conn=f"rtu://{tmp_path}/{name}?parity=N") for name in ("a", "b")]
    with pytest.raises(TransientError, match=f"cannot listen on rtu://{tmp_path}/b"):
        await ModbusSimulator(tags, syntax=protocols.load).start()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_text() == "x"


def test_lines_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    """No folder, no parity, the broadcast; what can be had is served all the same."""
    conns = [f"rtu://{tmp_path}/no/line?parity=N", f"rtu://{tmp_path}/a", f"rtu://{tmp_path}/b"]
    tags = [make_tag("40001", conn=conn) for conn in conns[:2]]
    tags.append(make_tag("40001", conn=f"{conns[2]}?parity=N", unit_id=0))
    tags.append(make_tag("40001", conn=f"{conns[2]}?parity=N", unit_id=5))
    tags.append(make_tag("40001", conn="tcp+tls://10.0.0.5"))
    simulator = ModbusSimulator(tags, syntax=protocols.load)
    assert [one.unit_ids for one in simulator.connections] == [[5]]
    assert [tag for tag, _ in simulator.unserved] == [*tags[:3], tags[4]]
    reasons = [reason for _, reason in simulator.unserved]
    assert f"{tmp_path}/no is not a folder that this user may write to" in reasons[0]
    assert "write parity=N into the conn" in reasons[1]
    assert "broadcast" in reasons[2]
    assert "rtu:///PATH" in reasons[3]


def test_ports_are_counted_for_sockets_only(tmp_path: Path) -> None:
    """A first port goes to the first socket; RTU and Modbus TCP do not share one."""
    conns = ["tcp://10.0.0.5:502", f"rtu://{tmp_path}/a?parity=N", "rtu+tcp://10.0.0.5:4001"]
    tags = [make_tag("40001", conn=conn) for conn in conns]
    simulator = ModbusSimulator(tags, syntax=protocols.load, host="127.0.0.1", port=5020)
    assert [one.place for one in simulator.connections] == [
        {"host": "127.0.0.1", "port": 5020},
        {"path": f"{tmp_path}/a"},
        {"host": "127.0.0.1", "port": 5021},
    ]
    tags[2] = replace(tags[2], conn="rtu+tcp://10.0.0.5:502")
    with pytest.raises(ConfigError, match=r"both listen on 10\.0\.0\.5:502"):
        ModbusSimulator(tags, syntax=protocols.load)


def test_rebind_moves_lines_into_a_folder(tmp_path: Path) -> None:
    """With parity N and their other options; without a folder they stay."""
    conns = [
        "rtu:///dev/ttyUSB0?baudrate=9600&parity=E", "rtu:///dev/ttyUSB1",
        "rtu:///dev/ttyUSB0?baudrate=9600", "rtu+tcp://10.0.0.5:4001?gap_max=0",
        "tcp+tls://10.0.0.5",
    ]  # fmt: skip
    tags = [make_tag("40001", conn=conn) for conn in conns]
    moved = [tag.conn for tag in rebind(tags, folder=tmp_path / "a b")]
    folder = f"{tmp_path}/a%20b"
    assert moved[0] == moved[2] == f"rtu://{folder}/line-1?baudrate=9600&parity=N"
    assert moved[1] == f"rtu://{folder}/line-2?parity=N"
    assert moved[3].startswith("rtu+tcp://127.0.0.1:")
    assert moved[3].endswith("?gap_max=0")
    assert moved[4] == conns[4]
    assert [tag.conn for tag in rebind(tags)][:3] == conns[:3]


# -- each kind of fault, seen by a bare client -------------------------------------------------


@both_loops
async def test_a_delay_and_a_jitter(conn: str) -> None:
    """Replies come late and in the order of the requests."""
    toml = f'[[fault]]\nkind="delay"\ndelay_ms={SLOW_S * 1000}\narea="holding"\nrange="0-9"\n'
    toml += '[[fault]]\nkind="jitter"\njitter_ms=20\narea="coil"'
    async with faulty(conn, toml) as simulator, bare(simulator) as client:
        started = asyncio.get_running_loop().time()
        client.write(ask(count=1) + ask(15, 2) + ask(0, 3, function=1))
        assert [(await client.receive())[1][1] for _ in range(3)] == [2, 4, 1]
        assert asyncio.get_running_loop().time() - started >= SLOW_S - 0.002
        assert simulator.connections[0].spoiled == {"delay": 1, "jitter": 1}


@both_loops
async def test_silence_and_a_dead_unit(conn: str) -> None:
    """No reply to the cells of the one and to anything of the other, until it is back."""
    toml = '[[fault]]\nkind="silence"\narea="holding"\nrange="5-7"\nunit=1\n'
    toml += '[[fault]]\nkind="dead"\nunit=2\nfrom_s=10\nfor_s=5'
    seconds = Seconds()
    async with faulty(conn, toml, seconds=seconds) as simulator, bare(simulator) as client:
        client.write(ask(0, 6))
        assert await client.nothing()
        client.write(ask(0, 5) + ask(0, 6, unit_id=2))
        assert [(await client.receive())[0] for _ in range(2)] == [1, 2]
        seconds.now = 12
        client.write(ask(unit_id=2) + ask(unit_id=2, function=1))
        assert await client.nothing()
        seconds.now = 15
        client.write(ask(unit_id=2))
        assert (await client.receive())[0] == 2
        assert simulator.connections[0].spoiled == {"silence": 1, "dead": 2}


async def test_exceptions_by_range_and_of_a_dead_unit(conn: str) -> None:
    """With a right checksum."""
    toml = '[[fault]]\nkind="exception"\ncode=4\nrange="3"\n'
    toml += '[[fault]]\nkind="dead"\nunit=2\ncode=11'
    async with faulty(conn, toml) as simulator, bare(simulator) as client:
        client.write(ask(3) + ask(4, unit_id=2, function=1) + ask(4))
        assert await client.receive() == (1, b"\x83\x04")
        assert await client.receive() == (2, b"\x81\x0b")
        assert (await client.receive())[1][:2] == b"\x03\x02"


@pytest.mark.parametrize(("shift", "expected"), [(1, 2), (-2, 255), (255, 0)])
async def test_a_wrong_unit(conn: str, shift: int, expected: int) -> None:
    """Off by the shift, and the rest of the reply, its checksum too, is right."""
    toml = f'[[fault]]\nkind="wrong_unit"\nshift={shift}\nunit=1'
    async with faulty(conn, toml) as simulator, bare(simulator) as client:
        client.write(ask() + ask(unit_id=2))
        unit_id, pdu = await client.receive()
        assert (unit_id, pdu[:2]) == (expected, b"\x03\x02")
        assert (await client.receive())[0] == 2


async def test_a_bad_checksum(conn: str) -> None:
    """One bit of the frame is flipped, wherever it is; the same ones in each run."""
    toml = 'seed=3\n[[fault]]\nkind="bad_crc"\nunit=1'
    runs = []
    for _ in range(2):
        flipped = []
        async with faulty(conn, toml) as simulator, bare(simulator) as client:
            for _ in range(40):
                client.write(ask())
                frame = await client.read(7)
                assert not is_sound(frame)
                flipped += [bit for bit in range(56) if is_sound(with_bit_flipped(frame, bit))]
            client.write(ask(unit_id=2))
            assert (await client.receive())[0] == 2
            assert simulator.connections[0].spoiled == {"bad_crc": 40}
        assert len(flipped) == 40
        runs.append(flipped)
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 20


def with_bit_flipped(frame: bytes, bit: int) -> bytes:
    return bytes(byte ^ (place == bit // 8) << bit % 8 for place, byte in enumerate(frame))


def is_sound(frame: bytes) -> bool:
    return frame[-2:] == checksum(frame[:-2])


@both_loops
@pytest.mark.parametrize("then", list(Then))
async def test_half_a_frame(conn: str, then: Then) -> None:
    """Its first half; then nothing, the end, or the other half."""
    toml = f'[[fault]]\nkind="half_frame"\nthen="{then}"\nfor_s=1'
    if then is Then.REST:
        toml += "\nrest_ms=50"
    if then is Then.CLOSE and conn.startswith("rtu:"):
        pytest.skip("a line has no connection to close: test_faults_of_other_transports")
    seconds = Seconds()
    async with faulty(conn, toml, seconds=seconds) as simulator, bare(simulator) as client:
        client.write(ask(0, 20))
        whole = 5 + 40
        first = await client.read(whole // 2)
        assert first[:3] == bytes.fromhex("01 03 28")
        if then is Then.CLOSE:
            async with asyncio.timeout(TIMEOUT_S):
                assert await client.reader.read() == b""
            return
        if then is Then.REST:
            first += await client.read(whole - whole // 2)
            assert is_sound(first)
        assert await client.nothing()
        seconds.now = 2
        client.write(ask())
        assert (await client.receive())[0] == 1


@both_loops
async def test_a_closed_connection_is_open_to_the_next() -> None:
    """Through TCP only."""
    conn = f"rtu+tcp://127.0.0.1:{free_port()}"
    async with faulty(conn, '[[fault]]\nkind="close"\nrange="3"') as simulator:
        for _ in range(3):
            async with bare(simulator) as client:
                client.write(ask() + ask(3))
                assert (await client.receive())[0] == 1
                async with asyncio.timeout(TIMEOUT_S):
                    assert await client.reader.read() == b""
        assert simulator.connections[0].spoiled == {"close": 3}


async def test_the_same_seed_gives_the_same_faults(conn: str) -> None:
    """Over two runs on a line or port of its own; another seed gives others."""
    runs = []
    for seed in (7, 7, 8):
        async with faulty(conn, f"seed={seed}\n{CHANCE}") as simulator, bare(simulator) as client:
            found = []
            for at in range(150):
                client.write(ask(at % 3))
                found.append((await client.receive())[1][:2])
        runs.append(found)
    assert runs[0] == runs[1] != runs[2]
    assert 15 < runs[0].count(b"\x83\x04") < 50  # 30 are expected


# -- which fault goes where --------------------------------------------------------------------

LINE, GATEWAY, PLC = "rtu:///LINE?parity=N", "rtu+tcp://10.0.0.5:4001", "tcp://10.0.0.5:502"


@pytest.mark.parametrize(
    ("toml", "conns", "message"),
    [
        (
            "kind='close'\nconn='rtu:///LINE'", [LINE, PLC],
            "found 'close'; allowed: for rtu:///LINE: delay, jitter, silence, exception,",
        ),
        (
            "kind='close'", [LINE],
            "half_frame, dead (a serial line can't be closed by a unit: use silence, or dead)",
        ),
        (
            "kind='half_frame'\nthen='close'\nconn='rtu:///LINE'", [LINE, PLC],
            "key then: found 'close'; allowed: for rtu:///LINE: nothing, rest (a serial line",
        ),
        ("kind='wrong_transaction'", [LINE, GATEWAY], "RTU has no transaction ids: use wrong_unit"),
        (f"kind='bad_crc'\nconn='{PLC}'", [PLC, GATEWAY], "Modbus TCP has no checksum of its own"),
        ("kind='bad_crc'", [PLC], "(Modbus TCP has no checksum of its own: use wrong_transaction)"),
        ("kind='bad_crc'\nunit=3", [PLC, GATEWAY], "key unit: found [3]; allowed: of the map: 2"),
        ("kind='silence'\nconn='rtu:///line'", [LINE], "allowed: of the map: rtu:///LINE"),
    ],
)  # fmt: skip
def test_faults_of_other_transports(
    tmp_path: Path, toml: str, conns: Sequence[str], message: str
) -> None:
    """What a connection can't do is refused with what it can, and what comes closest."""
    units = {PLC: 1, GATEWAY: 2, LINE: 1}
    tags = [
        make_tag("40001", conn=conn.replace("/LINE", f"{tmp_path}/LINE"), unit_id=units[conn])
        for conn in conns
    ]
    with pytest.raises(ConfigError) as caught:
        ModbusSimulator(
            tags,
            syntax=protocols.load,
            faults=parse(f"[[fault]]\n{toml.replace('/LINE', f'{tmp_path}/LINE')}"),
        )
    assert message in str(caught.value).replace(str(tmp_path), "")
    assert str(caught.value).startswith("fault 1, ")


def test_a_fault_without_conn_is_about_those_that_can_do_it(tmp_path: Path) -> None:
    """The others have none of it; also where somebody else answers for the one that can."""
    conns = [f"rtu://{tmp_path}/a?parity=N", GATEWAY, PLC]
    tags = [make_tag("40001", conn=conn) for conn in conns]
    toml = "\n".join(
        f"[[fault]]\nkind='{kind}'"
        for kind in ("close", "wrong_transaction", "bad_crc", "wrong_unit")
    )
    simulator = ModbusSimulator(tags, syntax=protocols.load, faults=parse(toml))
    found = [
        [str(fault.kind) for fault in one.faults.faults]
        for one in simulator.connections
        if one.faults is not None
    ]
    assert found == [
        ["bad_crc", "wrong_unit"],
        ["close", "bad_crc", "wrong_unit"],
        ["close", "wrong_transaction", "wrong_unit"],
    ]
    elsewhere = {PLC: [7]}
    toml = f"[[fault]]\nkind='wrong_transaction'\nunit=7\n[[fault]]\nkind='close'\nconn='{PLC}'"
    alone = ModbusSimulator(
        tags[:1], syntax=protocols.load, faults=parse(toml), elsewhere=elsewhere
    )
    assert [one.faults for one in alone.connections] == [None]


# -- the agent's driver ------------------------------------------------------------------------

KINDS = {
    "delay": 'kind="delay"\ndelay_ms=40',
    "delay past the timeout": 'kind="delay"\ndelay_ms=250',
    "jitter": 'kind="jitter"\njitter_ms=40',
    "silence": 'kind="silence"',
    "exception": 'kind="exception"\ncode=4',
    "wrong unit, the other": 'kind="wrong_unit"\nshift=1\nunit=1',
    "wrong unit, nobody's": 'kind="wrong_unit"\nshift=9',
    "bad checksum": 'kind="bad_crc"',
    "half a frame": 'kind="half_frame"',
    "half a frame and the end": 'kind="half_frame"\nthen="close"',
    "half a frame, the rest later": 'kind="half_frame"\nthen="rest"\nrest_ms=30',
    "half a frame, the rest too late": 'kind="half_frame"\nthen="rest"\nrest_ms=250',
    "close": 'kind="close"',
    "dead": 'kind="dead"\nunit=[1, 2]',
    "dead behind a gateway": 'kind="dead"\nunit=[1, 2]\ncode=11',
}
SOCKETS_ONLY = {"close", "half a frame and the end"}
AGAIN_S_MAX = 20.0
"""Late replies of a line come one after the other, and no sooner for a reconnect."""


async def until_good(driver: ModbusDriver, blocks: Sequence[Block]) -> None:
    """Read until a scan has no failure."""
    async with asyncio.timeout(AGAIN_S_MAX):
        while True:
            try:
                for block in blocks:
                    await driver.read(block)
            except (DeviceError, TimeoutError):
                continue
            except TransientError:
                await driver.connect()
                continue
            return


@pytest.mark.parametrize("name", list(KINDS))
async def test_the_driver_never_gives_a_wrong_value(conn: str, name: str) -> None:
    """Right values or a classed error while the fault is on; right values once it is over."""
    scheme = conn.partition(":")[0]
    able = {kind for kind, those in TRANSPORTS.items() if scheme in those}
    assert {Kind(text.split('"')[1]) for text in KINDS.values()} == able | {Kind.CLOSE}
    if scheme == RTU and name in SOCKETS_ONLY:
        pytest.skip("a line has no connection to close: test_faults_of_other_transports")
    tags = plant(conn=conn)
    seconds = Seconds()
    odds = "" if "dead" in name else "probability=0.5\n"
    toml = f"[[fault]]\n{KINDS[name]}\n{odds}for_s=10"
    async with faulty(conn, toml, seconds=seconds, tags=tags) as simulator:
        await read_through(simulator, seconds, tags, name, until_good)


# -- as a process ------------------------------------------------------------------------------


async def test_it_runs_as_a_process(tmp_path: Path) -> None:
    """It says which path it listens on and what it counted there, and removes the link."""
    path, faults = tmp_path / "address_map.csv", tmp_path / "faults.toml"
    conns = [f"rtu://{tmp_path}/line?parity=N", "rtu+tcp://10.0.0.5:4001"]
    tags = [make_tag(f"hr:{at}", conn=conn) for conn in conns for at in range(5)]
    named = [replace(tag, device=f"P{len(tag.conn)}", tag=f"T{at}") for at, tag in enumerate(tags)]
    address_map.write(path, named)
    faults.write_text("[[fault]]\nkind='exception'\ncode=4\nrange='4'")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge_agent.simulator", str(path), f"--faults={faults}",
        "--host=127.0.0.1", "--port=0", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            listening = json.loads(await process.stdout.readline())["listening"]
        assert [entry.get("path") for entry in listening] == [f"{tmp_path}/line", None]
        with serial.Serial(listening[0]["path"], 115_200, timeout=TIMEOUT_S) as port:
            port.write(ask(0, 4) + ask(4))
            reply = await asyncio.to_thread(port.read, 13 + 5)
        assert (reply[:3], reply[13:16]) == (b"\x01\x03\x08", b"\x01\x83\x04")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S):
            counted = json.loads(await process.stdout.readline())["counted"]
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert counted[0] == {
        "protocol": "modbus", "conns": [conns[0]], "requests": 2, "registers": 5, "errors": 0,
        "bytes_received": 16, "bytes_sent": 13 + 7, "spoiled": {"exception": 1},
    }  # fmt: skip
    assert not (tmp_path / "line").is_symlink()
    value = struct.unpack_from(">h", reply, 3)[0] * named[0].scale + named[0].offset
    assert matches(named[0], epoch_ms(), value, late_ms=10_000)
