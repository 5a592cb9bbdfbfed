"""The PLC simulator against clients that it shares nothing with: pymodbus's and the agent's own."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from pathlib import Path

import pytest
from pymodbus.client import AsyncModbusTcpClient

from edge_agent import protocols
from edge_agent.errors import ConfigError, TransientError
from edge_agent.model import ByteOrder, Tag, ValueType
from edge_agent.planner import plan
from edge_agent.simulator import ModbusSimulator, matches, raw_at, rebind, sample_at, simulate
from edge_agent.simulator.listener import ANSWERS_MAX
from tests.servers import free_port
from tests.tags import plain_tag

TIMEOUT_S = 5.0
both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
NOON = 1_755_432_000_000

REGISTERS = {
    ValueType.INT64: 4, ValueType.UINT64: 4, ValueType.FLOAT64: 4,
    ValueType.INT32: 2, ValueType.UINT32: 2, ValueType.FLOAT32: 2, ValueType.BCD32: 2,
}  # fmt: skip


class Clock:
    """The plant's time, moved by hand."""

    def __init__(self) -> None:
        self.ms = NOON

    def __call__(self) -> int:
        return self.ms


def make_tag(
    address: str,
    value_type: ValueType = ValueType.INT16,
    byte_order: ByteOrder = ByteOrder.ABCD,
    *,
    conn: str = "tcp://10.0.0.5:502",
    unit_id: int = 1,
    protocol: str = "modbus",
) -> Tag:
    return plain_tag(
        f"{conn} {address}",
        device=f"PLC{unit_id}",
        protocol=protocol,
        conn=conn,
        unit_id=unit_id,
        address=address,
        type=value_type,
        scale=0.5,
        offset=-3.0,
        period_ms=500,
        byte_order=byte_order,
    )


def a_tag_of_each_kind(conn: str = "tcp://10.0.0.5:502") -> list[Tag]:
    """Every type in every byte order, in both register areas of two units, and bits of all kinds.

    Values lie three registers apart.
    """
    tags = []
    for unit_id in (1, 7):
        for area in ("hr", "ir"):
            offset = 10 * unit_id
            for value_type in ValueType:
                for order in ByteOrder if value_type is not ValueType.BOOL else [ByteOrder.ABCD]:
                    address = f"{area}:{offset}"
                    tags.append(make_tag(address, value_type, order, conn=conn, unit_id=unit_id))
                    offset += REGISTERS.get(value_type, 1) + 3
            tags += [
                make_tag(f"{area}:{offset}.{bit}", ValueType.BOOL, conn=conn, unit_id=unit_id)
                for bit in (0, 3, 8, 15)
            ]
        for area in ("co", "di"):
            tags += [
                make_tag(f"{area}:{cell}", ValueType.BOOL, conn=conn, unit_id=unit_id)
                for cell in (5, 6, 7, 12, 13, 40, 300)
            ]
    return tags


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def simulator(clock: Clock) -> AsyncIterator[ModbusSimulator]:
    tags = a_tag_of_each_kind()
    async with ModbusSimulator(
        tags, syntax=protocols.load, now_ms=clock, host="127.0.0.1", port=0
    ) as simulator:
        yield simulator


@pytest.fixture
async def client(simulator: ModbusSimulator) -> AsyncIterator[AsyncModbusTcpClient]:
    client = AsyncModbusTcpClient(
        "127.0.0.1", port=simulator.connections[0].port, timeout=TIMEOUT_S, retries=0
    )
    assert await client.connect()
    yield client
    client.close()


def number_of(registers: Sequence[int], tag: Tag) -> float:
    """A raw value by pymodbus's converter, which knows word orders but not swapped bytes."""
    words = list(registers)
    if tag.byte_order in (ByteOrder.BADC, ByteOrder.DCBA):
        words = [word >> 8 | (word & 0xFF) << 8 for word in words]
    last_first = tag.byte_order in (ByteOrder.CDAB, ByteOrder.DCBA)
    match tag.type:
        case ValueType.BOOL:
            assert words[0] in (0, 1)
            return words[0]
        case ValueType.UINT8:
            return words[0]
        case ValueType.INT8:
            assert 0 <= words[0] <= 0xFF
            return words[0] - 256 if words[0] > 127 else words[0]
        case ValueType.FLOAT16:
            return float(struct.unpack("<e", words[0].to_bytes(2, "little"))[0])
        case ValueType.BCD16 | ValueType.BCD32:
            return int("".join(f"{word:04x}" for word in (words[::-1] if last_first else words)))
        case _:
            number = AsyncModbusTcpClient.convert_from_registers(
                words,
                AsyncModbusTcpClient.DATATYPE[tag.type.value],
                word_order="little" if last_first else "big",
            )
            assert isinstance(number, int | float)
            return number


async def test_pymodbus_reads_every_type_in_every_byte_order(
    simulator: ModbusSimulator, client: AsyncModbusTcpClient, clock: Clock
) -> None:
    """Each value alone, in holding and input registers of two units, at several times."""
    tags = [tag for tag in simulator.connections[0].tags if tag.address[:2] in ("hr", "ir")]
    for clock.ms in (NOON, NOON + 50, NOON + 77_777):
        for tag in tags:
            offset, _, bit = tag.address[3:].partition(".")
            read = (
                client.read_holding_registers
                if tag.address.startswith("hr")
                else client.read_input_registers
            )
            count = REGISTERS.get(tag.type, 1)
            reply = await read(int(offset), count=count, device_id=tag.unit_id)
            assert not reply.isError(), (tag, reply)
            if bit:
                raw: float = reply.registers[0] >> int(bit) & 1
            else:
                raw = number_of(reply.registers, tag)
            assert raw == raw_at(tag, clock.ms), tag


async def test_pymodbus_reads_coils_and_discrete_inputs(
    simulator: ModbusSimulator, client: AsyncModbusTcpClient, clock: Clock
) -> None:
    """All bits in one request; those between the tags are off."""
    for clock.ms in (NOON, NOON + 2_000, NOON + 4_000):
        for unit_id in (1, 7):
            for area, read in (("co", client.read_coils), ("di", client.read_discrete_inputs)):
                reply = await read(5, count=296, device_id=unit_id)
                assert not reply.isError()
                expected = [False] * 296
                for tag in simulator.connections[0].tags:
                    if tag.unit_id == unit_id and tag.address.startswith(area):
                        expected[int(tag.address[3:]) - 5] = bool(raw_at(tag, clock.ms))
                assert reply.bits[:296] == expected


async def test_any_range_reads_as_the_same_range_of_single_registers(
    client: AsyncModbusTcpClient,
) -> None:
    """A range may begin and end in the middle of a value; gaps between tags read as zero."""
    whole: list[int] = []
    for offset in range(10, 260):
        reply = await client.read_holding_registers(offset, count=1)
        assert not reply.isError()
        whole += reply.registers
    for count in (1, 2, 3, 7, 125):
        for start in range(0, 250 - count, 5):
            reply = await client.read_holding_registers(10 + start, count=count)
            assert reply.registers == whole[start : start + count]
    assert whole[1:4] == [0, 0, 0]  # behind the BOOL at 10


@both_loops
async def test_the_agents_driver_reads_what_the_plant_had(clock: Clock) -> None:
    """The planner's blocks, the driver and its decoder give exactly `sample_at` for every tag."""
    tags = rebind(a_tag_of_each_kind())
    simulator = await simulate(tags, protocols.load, now_ms=clock)
    (connection,) = plan(tags, protocols.load)
    driver = protocols.load(connection.protocol)(connection.conn, now_ms=clock)
    try:
        await driver.connect()
        for clock.ms in (NOON, NOON + 50, NOON + 77_777):
            seen = 0
            for block in connection.scan_classes[0].blocks:
                (reply,) = await driver.read(block)
                for tag, raw in zip(block.tags, reply.values, strict=True):
                    assert raw * tag.scale + tag.offset == sample_at(tag, reply.ts_ms), tag
                    assert matches(tag, reply.ts_ms + 400, raw * tag.scale + tag.offset)
                    seen += 1
            assert seen == len(tags)
    finally:
        await driver.close()
        await simulator.stop()


@pytest.mark.parametrize(
    ("unit_id", "start", "count", "code"),
    [
        (1, 9, 1, 2),  # before the first tag
        (1, 10, 1, 0),
        (1, 279, 2, 2),  # behind the last
        (1, 60_000, 1, 2),
        (1, 65_535, 125, 2),
        (9, 10, 1, 11),  # nobody's unit id
    ],
)
async def test_cells_that_do_not_exist_are_refused(
    client: AsyncModbusTcpClient, unit_id: int, start: int, count: int, code: int
) -> None:
    """Exception 2 outside of what the unit's tags span, 11 for an unknown unit; the link stays."""
    last = 10 + sum(
        (REGISTERS.get(kind, 1) + 3) * (1 if kind is ValueType.BOOL else 4) for kind in ValueType
    )
    if start == 279:
        start = last
    reply = await client.read_holding_registers(start, count=count, device_id=unit_id)
    assert reply.isError() == (code != 0)
    if code:
        assert reply.exception_code == code
    assert not (await client.read_holding_registers(last, count=1)).isError()


async def test_writing_is_refused(simulator: ModbusSimulator, client: AsyncModbusTcpClient) -> None:
    """Exception 1: nothing writes to PLCs, not even to simulated ones."""
    for reply in (
        await client.write_register(10, 1),
        await client.write_coil(5, True),
        await client.write_registers(10, [1, 2]),
        await client.write_coils(5, [True]),
    ):
        assert reply.exception_code == 1
    assert simulator.connections[0].errors == 4


@asynccontextmanager
async def connected(
    simulator: ModbusSimulator, index: int = 0
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare client, for what a proper one does not do."""
    port = simulator.connections[index].port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def frame(transaction: int, pdu: bytes, unit_id: int = 1) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit_id) + pdu


def read_request(start: int, count: int, function: int = 3) -> bytes:
    return struct.pack(">BHH", function, start, count)


async def receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One reply: transaction id and PDU."""
    async with asyncio.timeout(TIMEOUT_S):
        head = await reader.readexactly(7)
        transaction, protocol_id, length, _ = struct.unpack(">HHHB", head)
        assert protocol_id == 0
        return transaction, await reader.readexactly(length - 1)


@pytest.mark.parametrize("count", [0, 126, 65_535])
async def test_a_quantity_out_of_bounds_is_refused(simulator: ModbusSimulator, count: int) -> None:
    """Exception 3 for no register or more than 125 (2,000 bits), and for a wrong size."""
    async with connected(simulator) as (reader, writer):
        writer.write(frame(1, read_request(10, count)))
        assert await receive(reader) == (1, b"\x83\x03")
        writer.write(frame(2, read_request(5, 2_001 if count else 0, function=1)))
        assert await receive(reader) == (2, b"\x81\x03")
        for pdu in (b"\x04\x00", read_request(10, 1, function=4) + b"\x00"):
            writer.write(frame(3, pdu))
            assert await receive(reader) == (3, b"\x84\x03")


@both_loops
async def test_pipelined_requests_are_answered_in_order(simulator: ModbusSimulator) -> None:
    """Hundreds of requests in one write, and the same bytes one by one, give the same replies."""
    async with connected(simulator) as (reader, writer):
        requests = [frame(at, read_request(10 + at % 100, 1 + at % 9)) for at in range(500)]
        writer.write(b"".join(requests))
        at_once = [await receive(reader) for _ in requests]
        assert [transaction for transaction, _ in at_once] == list(range(500))
        assert all(len(pdu) == 2 + 2 * (1 + at % 9) for at, pdu in at_once)
        for request in requests[:30]:
            for byte in request:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
        assert [await receive(reader) for _ in requests[:30]] == at_once[:30]


@both_loops
@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes.fromhex("0001 0001 0006 01 03 000a 0001"),  # protocol id 1
        bytes.fromhex("0001 0000 0000 01 03 000a 0001"),  # length 0
        bytes.fromhex("0001 0000 0001 01"),  # a unit id and no function
        bytes.fromhex("0001 0000 00ff 01 03"),  # longer than any request
    ],
)
async def test_a_malformed_frame_closes_that_connection_only(
    simulator: ModbusSimulator, client: AsyncModbusTcpClient, junk: bytes
) -> None:
    """What came before it is answered; other clients notice nothing."""
    async with connected(simulator) as (reader, writer):
        writer.write(frame(9, read_request(10, 1)) + junk)
        assert (await receive(reader))[0] == 9
        async with asyncio.timeout(TIMEOUT_S):
            assert await reader.read() == b""
    assert simulator.connections[0].errors == 1
    assert not (await client.read_holding_registers(10, count=1)).isError()


async def test_noise_on_many_connections_leaves_it_working(
    simulator: ModbusSimulator, client: AsyncModbusTcpClient
) -> None:
    """Random bytes, behind a valid beginning or not, end at worst their own connection."""
    chance = random.Random(7)
    for _ in range(100):
        async with connected(simulator) as (_reader, writer):
            for _ in range(3):
                junk = chance.randbytes(chance.randrange(1, 300))
                writer.write(frame(1, junk[:250]) if chance.random() < 0.5 else junk)
    assert not (await client.read_holding_registers(10, count=1)).isError()


def test_different_requests_do_not_fill_the_memory(simulator: ModbusSimulator) -> None:
    """Somebody who asks for every range there is costs time, not memory for ever."""
    listener = simulator.connections[0]
    for start in range(ANSWERS_MAX // 20 + 20):
        for count in range(1, 21):
            request = b"\x01" + read_request(10 + start, count)
            assert len(listener.answer(request, step=0)) == 7 + 2 * count
    assert len(listener._answers) <= ANSWERS_MAX


@both_loops
async def test_half_a_frame_waits_for_its_other_half(simulator: ModbusSimulator) -> None:
    """A client that stops in the middle of a request harms nobody, not even itself."""
    request = frame(5, read_request(10, 1))
    async with connected(simulator) as (reader, writer):
        writer.write(request[:9])
        async with connected(simulator) as (other_reader, other_writer):
            other_writer.write(request)
            assert (await receive(other_reader))[0] == 5
        writer.write(request[9:])
        assert (await receive(reader))[0] == 5


@both_loops
async def test_a_paused_simulator_accepts_and_stays_mute(simulator: ModbusSimulator) -> None:
    """What is asked while it is paused is never answered; what is asked afterwards is."""
    simulator.pause()
    async with connected(simulator) as (reader, writer):
        writer.write(frame(1, read_request(10, 1)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        simulator.resume()
        writer.write(frame(2, read_request(10, 1)))
        assert (await receive(reader))[0] == 2
        assert simulator.connections[0].requests == 1


@both_loops
async def test_drop_closes_clients_and_welcomes_new_ones(simulator: ModbusSimulator) -> None:
    """As when somebody restarts the PLC's network card."""
    async with connected(simulator) as (reader, writer):
        writer.write(frame(1, read_request(10, 1)))
        await receive(reader)
        assert simulator.connections[0].clients == 1
        simulator.drop()
        async with asyncio.timeout(TIMEOUT_S):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        assert simulator.connections[0].clients == 0
    async with connected(simulator) as (reader, writer):
        writer.write(frame(2, read_request(10, 1)))
        assert (await receive(reader))[0] == 2


@both_loops
async def test_it_can_be_stopped_and_started_on_the_same_port(clock: Clock) -> None:
    """Stopping drops the clients and frees the port; a second stop does nothing."""
    tags = a_tag_of_each_kind()
    simulator = await simulate(tags, protocols.load, now_ms=clock, host="127.0.0.1", port=0)
    port = simulator.connections[0].port
    async with connected(simulator) as (reader, writer):
        writer.write(frame(1, read_request(10, 1)))
        await receive(reader)
        await simulator.stop()
        await simulator.stop()
        assert simulator.connections[0].clients == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
    await simulator.start()
    assert simulator.connections[0].port == port
    async with connected(simulator) as (reader, writer):
        writer.write(frame(1, read_request(10, 1)))
        assert (await receive(reader))[0] == 1
    await simulator.stop()


@both_loops
async def test_a_client_that_does_not_read_is_not_read_from(simulator: ModbusSimulator) -> None:
    """Replies do not pile up in memory: the flood stops, and nothing of it is lost."""
    async with connected(simulator) as (reader, writer):
        listener = simulator.connections[0]
        count = 60_000  # 15 MB of replies: more than both sockets' buffers hold
        writer.write(frame(1, read_request(10, 125)) * count)
        seen = -1
        while listener.requests != seen or seen == 0:
            seen = listener.requests
            await asyncio.sleep(0.1)
        assert 0 < seen < count
        async with asyncio.timeout(TIMEOUT_S):
            await reader.readexactly(count * 259)
        assert listener.requests == count
        assert listener.registers == count * 125


async def test_one_listener_for_each_host_and_port_of_the_map(clock: Clock) -> None:
    """Options of `conn` make no other PLC; each listener answers for its own tags only."""
    tags = [
        make_tag("40001", conn="tcp://10.0.0.5:502"),
        make_tag("40003", conn="tcp://10.0.0.5?gap_max=0", unit_id=2),
        make_tag("40001", conn="tcp://10.0.0.6:502"),
        make_tag("40009", conn="tcp://10.0.0.6:503"),
    ]
    moved = rebind(tags)
    assert [tag.conn.partition("?")[2] for tag in moved] == ["", "gap_max=0", "", ""]
    async with ModbusSimulator(moved, syntax=protocols.load, now_ms=clock) as simulator:
        listeners = simulator.connections
        assert [listener.unit_ids for listener in listeners] == [[1, 2], [1], [1]]
        assert len({listener.port for listener in listeners}) == 3
        assert all(f":{listener.port}" in listener.conns[0] for listener in listeners)
        replies = []
        for index in range(3):
            async with connected(simulator, index) as (reader, writer):
                writer.write(frame(1, read_request(0, 1)))
                replies.append((await receive(reader))[1])
    expected = [raw_at(tag, NOON) for tag in (tags[0], tags[2])]
    assert [struct.unpack(">h", reply[2:])[0] for reply in replies[:2]] == expected
    assert replies[2] == b"\x83\x02"


def test_rebind_changes_the_connection_and_nothing_else() -> None:
    """Connections that cannot be simulated keep theirs; ports count up from the first free one."""
    tags = [*a_tag_of_each_kind(), make_tag("DB1.DBW0", conn="s7://h", protocol="s7")]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        moved = rebind(tags, port)
    assert moved[-1] == tags[-1]
    for before, after in zip(tags[:-1], moved[:-1], strict=True):
        assert after.conn.startswith("tcp://127.0.0.1:")
        assert int(after.conn.rpartition(":")[2]) > port
        for field in fields(Tag):
            if field.name != "conn":
                assert getattr(after, field.name) == getattr(before, field.name)


def test_tags_that_cannot_be_simulated_are_named() -> None:
    """Another protocol, a serial line, and a cell that an earlier tag has: each with its reason."""
    tags = [
        make_tag("40001", ValueType.INT32),
        make_tag("40002"),
        make_tag("40003.1", ValueType.BOOL),
        make_tag("40003.2", ValueType.BOOL),
        make_tag("40003", ValueType.UINT16),
        make_tag("ns=2;s=A", conn="opc.tcp://h:4840", protocol="opcua"),
        make_tag("40001", conn="rtu:///dev/ttyUSB0"),
    ]
    simulator = ModbusSimulator(tags, syntax=protocols.load)
    assert simulator.connections[0].tags == [tags[0], tags[2], tags[3]]
    assert [tag for tag, _ in simulator.unserved] == [tags[1], tags[4], tags[5], tags[6]]
    reasons = [reason for _, reason in simulator.unserved]
    assert reasons[0] == "an earlier tag of the map has 40002 already"
    assert "opcua" in reasons[2]
    assert "rtu:///dev/ttyUSB0" in reasons[3]


def test_numbers_that_count_from_0() -> None:
    """40000 of a zero-based connection and 40001 of another to the same PLC are one register."""
    first = make_tag("40000", conn="tcp://10.0.0.5:502?zero_based=true")
    same, next_one = make_tag("40001"), make_tag("40002")
    simulator = ModbusSimulator([first, same, next_one], syntax=protocols.load)
    assert [tag for tag, _ in simulator.unserved] == [same]
    assert simulator.connections[0].tags == [first, next_one]


def test_a_map_without_modbus_is_refused() -> None:
    """There is nothing to listen on."""
    tags = [make_tag("ns=2;s=A", conn="opc.tcp://h:4840", protocol="opcua")]
    with pytest.raises(ConfigError, match="no tag to simulate"):
        ModbusSimulator(tags, syntax=protocols.load)


def test_two_listeners_on_one_port_are_refused() -> None:
    """One host for all needs a first port too; ports above 65,535 do not exist."""
    tags = [make_tag("40001", conn=f"tcp://10.0.0.{host}:502") for host in (5, 6)]
    with pytest.raises(ConfigError, match=r"both listen on 127\.0\.0\.1:502"):
        ModbusSimulator(tags, syntax=protocols.load, host="127.0.0.1")
    with pytest.raises(ConfigError, match="port 65536"):
        ModbusSimulator(tags, syntax=protocols.load, host="127.0.0.1", port=65_535)


async def test_a_taken_port_is_an_error_with_a_hint() -> None:
    """The listeners that were up by then are closed again."""
    first = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        conns = [f"tcp://127.0.0.1:{port}" for port in (first, taken.getsockname()[1])]
        tags = [make_tag("40001", conn=conn) for conn in conns]
        with pytest.raises(TransientError, match="cannot listen") as caught:
            await simulate(tags, protocols.load)
    assert "--port" in caught.value.hint
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", first)


MAP = """\
site,line,device,tag,protocol,conn,unit_id,address,type,scale,offset,period_ms,unit,hi,lo
A1,L1,PUMP01,PRESS,modbus,tcp://10.0.0.5:502,1,40001,INT16,0.1,0,500,bar,10,0
A1,L1,PUMP02,PRESS,modbus,tcp://10.0.0.6:502,1,40001,INT16,0.1,0,500,bar,10,0
"""


async def test_it_runs_as_a_process(tmp_path: Path) -> None:
    """One JSON line says what listens where; it answers; SIGTERM ends it with exit code 0."""
    path = tmp_path / "address_map.csv"
    path.write_text(MAP)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge_agent.simulator", str(path), "--host=127.0.0.1", "--port=0",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            listening = json.loads(await process.stdout.readline())["listening"]
        assert [entry["conns"] for entry in listening] == [
            ["tcp://10.0.0.5:502"],
            ["tcp://10.0.0.6:502"],
        ]
        for entry in listening:
            reader, writer = await asyncio.open_connection(entry["host"], entry["port"])
            writer.write(frame(1, read_request(0, 1)))
            assert (await receive(reader))[1][:2] == b"\x03\x02"
            writer.close()
            await writer.wait_closed()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_wrong_map_ends_the_process_with_2(tmp_path: Path) -> None:
    """The problems stand on standard error, nothing on standard output."""
    path = tmp_path / "address_map.csv"
    path.write_text(MAP.replace("INT16", "INT17"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge_agent.simulator", str(path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        output, errors = await process.communicate()
    assert (process.returncode, output) == (2, b"")
    assert b"INT17" in errors
