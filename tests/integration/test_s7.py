"""S7 against python-snap7's own server, and bad input on the way from it."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest

from edge_agent.errors import DeviceError, RefusedError, TransientError
from edge_agent.model import ByteOrder, Tag, ValueType
from edge_agent.planner import Block, plan
from edge_agent.protocols import conformance
from edge_agent.protocols.conformance import Check, Rig, ServerCheck
from edge_agent.protocols.s7 import S7Driver
from tests import spoiled_replies
from tests.chaos import Proxy, Spoil, Step, cut_after, mute, once, passing, replacing, saying
from tests.s7_server import S7Server
from tests.servers import free_port
from tests.spoiled_replies import (
    FAIL_S_MAX,
    PATIENCE_S,
    READ_S_MAX,
    Dialogue,
    give_up,
    name_of,
    read,
    torn,
)
from tests.tags import plain_tag
from tests.waiting import until

pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("no_traceback"),
]

T = ValueType
FIRST = [float(100 + i) for i in range(20)]
SECOND = [float(-200 - i) for i in range(20)]

MIXED = struct.pack(
    ">BbBhHiIqQefd4s2s", 0b1000_0001, -5, 250, -1234, 54321, -(2**31), 2**32 - 1, -(2**53), 2**53,
    0.5, -12.25, 1e-300, bytes.fromhex("12345678"), bytes.fromhex("9876"),
)  # fmt: skip
"""Every type, without any alignment; the first value is eight bits."""

AREAS = {
    "DB1": struct.pack(">20h60x20h", *map(int, FIRST + SECOND)),
    "DB2": MIXED,
    "DB3": bytes(range(256)) * 4,
    "DB4": struct.pack(">f", 1.5) + bytes.fromhex("7f800000 7fc00000 ffffffff 12"),
    "M": bytes([0, 0b0100_0000, 1, 44]),
    "I": bytes([0b0000_0010, 7]),
    "Q": bytes([9, 0xFF, 0xFE]),
}  # fmt: skip
READABLE = [
    ("DB2.DBX0.0", T.BOOL, 1),
    ("DB2.0.7", T.BOOL, 1),
    ("DB2.0.6", T.BOOL, 0),
    ("DB2.DBB1", T.INT8, -5),
    ("DB2.2", T.UINT8, 250),
    ("DB2.DBW3", T.INT16, -1234),
    ("DB2.5", T.UINT16, 54321),
    ("DB2.DBD7", T.INT32, -(2**31)),
    ("DB2.DBD11", T.UINT32, 2**32 - 1),
    ("DB2.15", T.INT64, -(2**53)),
    ("DB2.23", T.UINT64, 2**53),
    ("DB2.DBW31", T.FLOAT16, 0.5),
    ("DB2.DBD33", T.FLOAT32, -12.25),
    ("DB2.37", T.FLOAT64, 1e-300),
    ("DB2.DBD45", T.BCD32, 12345678),
    ("DB2.DBW49", T.BCD16, 9876),
    ("DB2.45", T.UINT8, 0x12),  # a byte of the BCD32
    ("%DB1.DBW0", T.INT16, 100),
    ("M1.6", T.BOOL, 1),
    ("M1.5", T.BOOL, 0),
    ("MW2", T.UINT16, 300),
    ("I0.1", T.BOOL, 1),
    ("E0.0", T.BOOL, 0),
    ("IB1", T.UINT8, 7),
    ("Q0.3", T.BOOL, 1),
    ("AW1", T.INT16, -2),
]


def s7_rig(conn: str) -> Rig:
    return Rig(
        driver=S7Driver,
        conn=conn,
        readable=READABLE,
        unreadable=("DB77.DBW0", T.INT16),
        bad_conns=["", "host", "tcp://h", "s7://", "s7://h:99999", "s7://h?slot=32"],
        bad_addresses=["", "1", "x", "DB1", "DB0.DBX0.0", "DB1.DBX0.8", "M65536.0", "40001"],
        name="s7",
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S7Server]:
    with S7Server(tmp_path_factory.mktemp("s7"), AREAS) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[S7Server]:
    """One that a test may kill."""
    with S7Server(tmp_path, AREAS) as running:
        yield running


@pytest.mark.parametrize("check", conformance.CHECKS, ids=conformance.name_of)
async def test_the_driver_keeps_the_contract(check: Check, server: S7Server) -> None:
    """Everything that every driver does."""
    await check(s7_rig(server.conn))


@pytest.mark.parametrize("check", conformance.SERVER_CHECKS, ids=conformance.name_of)
async def test_the_driver_keeps_the_contract_while_the_cpu_is_away(
    check: ServerCheck, own_server: S7Server
) -> None:
    """Paused, killed and back."""
    await check(s7_rig(own_server.conn), own_server)


@pytest.fixture
async def driver(proxy: Proxy) -> AsyncIterator[S7Driver]:
    connected = S7Driver(f"s7://127.0.0.1:{proxy.port}", now_ms=lambda: 0)
    await connected.connect()
    yield connected
    await connected.close()


def tag(address: str, value_type: ValueType = T.INT16) -> Tag:
    return plain_tag(address, protocol="s7", conn="s7://h", address=address, type=value_type)


def blocks(tags: Sequence[Tag]) -> tuple[Block, ...]:
    [connection] = plan(tags, lambda _: S7Driver)
    return connection.scan_classes[0].blocks


def block(first: int, count: int, db: int = 1) -> Block:
    [only] = blocks([tag(f"DB{db}.DBW{first + 2 * i}") for i in range(count)])
    return only


A = block(0, 20)
B = block(100, 20)
REPLY_BYTES = 7 + 18 + 40
"""TPKT and COTP, headers of the PDU, 20 words."""


# -- values -------------------------------------------------------------------------------------


async def test_byte_orders_hold_at_odd_bytes(server: S7Server) -> None:
    """The map's byte order works for S7 as it does for Modbus, wherever the value begins."""
    data = bytes(range(256))
    wanted = [
        (first, order, value_type)
        for first in (1, 8, 33)
        for order in ByteOrder
        for value_type in (T.INT16, T.UINT32, T.UINT64)
    ]
    tags = [
        replace(tag(f"DB3.{first}", kind), byte_order=order, tag=f"{first}/{order}/{kind}")
        for first, order, kind in wanted
    ]
    sizes = {T.INT16: 2, T.UINT32: 4, T.UINT64: 8}
    expected = {
        named.tag: int.from_bytes(
            in_order(data[first : first + sizes[kind]], order), signed=kind is T.INT16
        )
        for named, (first, order, kind) in zip(tags, wanted, strict=True)
    }
    driver = S7Driver(server.conn, now_ms=lambda: 0)
    await driver.connect()
    [only] = blocks(tags)
    values = await read(driver, only)
    assert {named.tag: value for named, value in zip(only.tags, values, strict=True)} == expected
    await driver.close()


def in_order(raw: bytes, order: ByteOrder) -> bytes:
    """The bytes with the most significant one first."""
    if order in {ByteOrder.DCBA, ByteOrder.CDAB}:
        raw = raw[::-1]
    if order in {ByteOrder.ABCD, ByteOrder.DCBA}:
        return raw
    return b"".join(raw[at + 1 : at + 2] + raw[at : at + 1] for at in range(0, len(raw), 2))


@pytest.mark.parametrize("order", list(ByteOrder))
async def test_a_byte_and_a_bit_have_no_byte_order(driver: S7Driver, order: ByteOrder) -> None:
    """Whatever the map says of it, they are read where they stand."""
    [only] = blocks(
        [
            replace(tag(address, kind), byte_order=order)
            for address, kind in [("DB2.0.7", T.BOOL), ("DB2.DBB1", T.INT8), ("DB2.2", T.UINT8)]
        ]
    )
    assert await read(driver, only) == [1, -5, 250]


async def test_what_is_no_number_is_bad_alone(driver: S7Driver) -> None:
    """An infinity, a NaN and BCD with a digit above 9 are NaN; their neighbours are values."""
    [only] = blocks([tag(f"DB4.DBD{at}", T.FLOAT32) for at in (0, 4, 8)])
    first, *others = await read(driver, only)
    assert first == 1.5
    assert all(map(isnan, others))
    [bcd] = blocks([tag("DB4.DBW12", T.BCD16), tag("DB4.DBB16", T.UINT8)])
    spoilt, whole = await read(driver, bcd)
    assert isnan(spoilt)
    assert whole == 0x12


async def test_a_missing_data_block_is_a_device_error_with_advice(
    driver: S7Driver, talk: Dialogue
) -> None:
    """The error names the place and what to look at; the connection is kept."""
    with pytest.raises(DeviceError, match=r"DB77 bytes 0 to 3: Object does not exist") as missing:
        await read(driver, block(0, 2, db=77))
    assert "must be in the CPU" in missing.value.hint
    assert not isinstance(missing.value, RefusedError)  # none of its cells is there
    with pytest.raises(RefusedError, match=r"DB1 bytes 138 to 141: Invalid address \(0x05\)"):
        await read(driver, block(138, 2))
    await talk.works()
    assert talk.proxy.connections == 1


async def test_the_last_exchange_is_kept(proxy: Proxy, driver: S7Driver) -> None:
    """Request and reply as they were on the wire, of reads that failed and found nothing too."""
    reply = await raw_reply(proxy, driver)
    assert driver.frames is not None
    assert driver.frames.request.hex(" ").startswith("03 00 00 1f 02 f0 80 32 01 00 00 00 02")
    assert driver.frames.reply == reply
    proxy.spoil = replacing(21, b"\x05")
    with pytest.raises(DeviceError):
        await read(driver, A)
    assert driver.frames.reply == reply[:12] + b"\3" + reply[13:21] + b"\x05" + reply[22:]
    proxy.spoil = fragments
    await read(driver, A)
    assert len(driver.frames.reply) == REPLY_BYTES + 3 * 7
    proxy.spoil = mute
    await give_up(driver, A)
    assert driver.frames.request[12] == 5
    assert driver.frames.reply == b""
    proxy.spoil = saying(b"what?")
    with pytest.raises(TransientError):
        await read(driver, A)
    assert driver.frames.reply == b"what?"
    proxy.spoil = passing
    await driver.connect()
    proxy.spoil = replacing(7, b"\x33")
    with pytest.raises(TransientError):
        await read(driver, A)
    assert driver.frames.reply[:8] == b"\3\0\0\x41\2\xf0\x80\x33"
    assert len(driver.frames.reply) == REPLY_BYTES


# -- the PDU ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pdu", [240, 480])
async def test_a_request_fits_the_pdu_of_the_map(server: S7Server, pdu: int) -> None:
    """The planner's blocks are as large as the PDU's data, and each is one job."""
    driver = S7Driver(f"{server.conn}?pdu={pdu}", now_ms=lambda: 0)
    words = [
        replace(tag(f"DB3.DBW{at}", T.UINT16), conn=f"s7://h?pdu={pdu}") for at in range(0, 1024, 2)
    ]
    await driver.connect()
    planned = blocks(words)
    assert max(each.count for each in planned) == pdu - 18
    values = [value for each in planned for value in await read(driver, each)]
    assert values == [(at % 256) * 256 + (at + 1) % 256 for at in range(0, 1024, 2)]
    assert all(len(driver._prepared[id(each)].parts) == 1 for each in planned)
    await driver.close()


async def test_a_cpu_that_grants_less_is_read_by_more_jobs(server: S7Server) -> None:
    """snap7's server grants 480; blocks planned for 960 are cut between their values."""
    driver = S7Driver(f"{server.conn}?pdu=960", now_ms=lambda: 0)
    await driver.connect()
    every_third = [
        replace(tag(f"DB3.{at}", T.UINT32), conn="s7://h?pdu=960") for at in range(0, 937, 3)
    ]
    [wide] = blocks(every_third)
    assert wide.count == 940
    data = AREAS["DB3"]
    expected = [int.from_bytes(data[at : at + 4]) for at in range(0, 937, 3)]
    assert await read(driver, wide) == expected
    parts = driver._prepared[id(wide)].parts
    assert [part.count <= 462 for part in parts] == [True] * 3
    await driver.close()


def granting(size: int) -> Spoil:
    """A setup reply with another PDU size."""
    return lambda chunk: [chunk[:-2] + size.to_bytes(2)] if len(chunk) == 27 else [chunk]


@pytest.mark.parametrize("granted", [26, 64, 112])
async def test_small_pdus(driver: S7Driver, talk: Dialogue, granted: int) -> None:
    """However small the PDU that is granted this time: no value is torn, none is lost."""
    await talk.works()
    talk.proxy.spoil = granting(granted)
    await driver.connect()
    await talk.works()
    assert len(driver._prepared[id(A)].parts) == -(-40 // (granted - 18 & ~1))


async def test_values_within_others_are_cut_whole(proxy: Proxy, driver: S7Driver) -> None:
    """A byte or word inside a longer value does not end the job before that value's end."""
    proxy.spoil = granting(26)
    await driver.connect()
    wanted = [("DB3.0", T.UINT64), ("DB3.1", T.UINT8), ("DB3.6", T.UINT32), ("DB3.7", T.UINT16)]
    [only] = blocks([tag(*each) for each in wanted])
    values = await read(driver, only)
    assert values == [0x0001020304050607, 1, 0x06070809, 0x0708]
    parts = driver._prepared[id(only)].parts
    assert [(part.start, part.count) for part in parts] == [(0, 8), (6, 4)]


async def test_a_pdu_that_holds_no_value(proxy: Proxy, driver: S7Driver) -> None:
    """A grant that can't be worked with is said; nothing divides by it or loops."""
    for size in (0, 25):
        proxy.spoil = granting(size)
        with pytest.raises(TransientError, match=f"allows PDUs of {size} bytes only"):
            await driver.connect()


# -- connecting ---------------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    """A refused connection is a TransientError that names the place, at once."""
    conn = f"s7://127.0.0.1:{free_port()}"
    driver = S7Driver(conn, now_ms=lambda: 0)
    started = time.monotonic()
    with pytest.raises(TransientError, match=f"{conn}: Connection refused"):
        await driver.connect()
    assert time.monotonic() - started < FAIL_S_MAX
    await driver.close()


async def test_silence_while_connecting(proxy: Proxy) -> None:
    """A device that takes the connection and says nothing costs timeout_ms; nothing stays open."""
    proxy.spoil = mute
    driver = S7Driver(f"s7://127.0.0.1:{proxy.port}?timeout_ms=50", now_ms=lambda: 0)
    with pytest.raises(TransientError, match=r"no connection within 0\.05 s"):
        await driver.connect()
    await until(lambda: not proxy._open, "no open connection", within_s=READ_S_MAX)
    with pytest.raises(TransientError, match="not connected"):
        await driver.read(A)


async def test_a_cpu_that_refuses(driver: S7Driver, talk: Dialogue) -> None:
    """Wrong rack or slot: the CPU disconnects or closes, and the hint says what to look at."""
    for spoil, message in [
        (saying(bytes.fromhex("0300000b06800001000000")), "disconnected by the device"),
        (cut_after(0), "closed by the device"),
    ]:
        talk.proxy.spoil = spoil
        with pytest.raises(TransientError, match=message) as refused:
            await driver.connect()
        assert "rack and slot" in refused.value.hint
    talk.proxy.spoil = passing
    await driver.connect()
    await talk.works()


async def test_rack_and_slot_reach_the_cpu() -> None:
    """They stand in the called TSAP of the first frame, after the kind of connection."""
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(await reader.readexactly(22))
        writer.close()

    listener = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    driver = S7Driver(f"s7://127.0.0.1:{port}?rack=1&slot=3", now_ms=lambda: 0)
    with pytest.raises(TransientError, match="closed by the device"):
        await driver.connect()
    assert (await seen).hex() == "0300001611e00000000100c1020100c2020123c0010a"
    listener.close()


# -- replies that are late, torn, cut or wrong --------------------------------------------------


@pytest.fixture
def talk(driver: S7Driver, proxy: Proxy) -> Dialogue:
    return Dialogue(driver, proxy, (A, FIRST), (B, SECOND), (TransientError, DeviceError))


@pytest.mark.parametrize("check", spoiled_replies.CHECKS, ids=name_of)
async def test_replies_that_do_not_come_as_they_should(
    check: spoiled_replies.Check, talk: Dialogue
) -> None:
    """What the check of that name says."""
    await check(talk)


TORN: dict[spoiled_replies.TornCheck, list[int]] = {
    spoiled_replies.check_two_halves: [1, 3, 4, 5, 7, 8, 12, 25, REPLY_BYTES - 1],
    spoiled_replies.check_second_half_comes_late: [1, 4, 7, 12, REPLY_BYTES - 1],
    spoiled_replies.check_second_half_never_comes: [1, 4, 7, 25, REPLY_BYTES - 1],
    spoiled_replies.check_cut_in_the_middle: [0, 1, 4, 7, 25, REPLY_BYTES - 1],
}


@pytest.mark.parametrize(("check", "at"), torn(TORN), ids=name_of)
async def test_replies_that_are_torn(
    check: spoiled_replies.TornCheck, talk: Dialogue, at: int
) -> None:
    """What the check of that name says, whatever had come by then."""
    await check(talk, at)


def fragments(chunk: bytes) -> Sequence[Step]:
    """A reply in TPDUs of 16 bytes of data each, as a CPU with a small TPDU size sends it."""
    pdu = chunk[7:]
    pieces = [pdu[at : at + 16] for at in range(0, len(pdu), 16)]
    return [
        struct.pack(">BBHBBB", 3, 0, 7 + len(piece), 2, 0xF0, 0x80 if last else 0) + piece
        for number, piece in enumerate(pieces, 1)
        for last in [number == len(pieces)]
    ]


async def test_a_pdu_in_several_tpdus(talk: Dialogue) -> None:
    """What the CPU sends in parts is put together."""
    talk.proxy.spoil = fragments
    await talk.works()


async def test_a_pdu_that_never_ends(talk: Dialogue) -> None:
    """Parts without a last one fill no memory."""
    talk.proxy.spoil = lambda chunk: (
        [struct.pack(">BBHBBB", 3, 0, 207, 2, 0xF0, 0) + bytes(200)] * 9
    )
    with pytest.raises(TransientError, match="a PDU of more than 960 bytes"):
        await talk.read_first()
    await talk.works_after_reconnect()


@pytest.mark.parametrize("ahead", [1, 7, 30_000])
async def test_the_reply_of_a_job_that_was_never_asked(talk: Dialogue, ahead: int) -> None:
    """Another reference than any that was sent ends the connection, naming both."""
    talk.proxy.spoil = replacing(11, (2 + ahead).to_bytes(2))
    with pytest.raises(TransientError, match=f"job {2 + ahead} answered, 2 was asked"):
        await talk.read_first()
    await talk.works_after_reconnect()


async def test_references_wrap_around(driver: S7Driver, talk: Dialogue) -> None:
    """After the last reference comes the first, and replies still find their jobs."""
    assert driver._wire is not None
    driver._wire._jobs.sequence = 65_533
    for _ in range(4):
        await talk.works()
    assert driver._wire._jobs.sequence < 10


@pytest.mark.parametrize(
    "spoil",
    [
        saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        saying(b"\xff" * 40),
        saying(b"\0" * 300),
        replacing(0, b"\2"),  # version
        replacing(2, b"\0\6"),  # length
        replacing(2, b"\xff\xff"),
        replacing(4, b"\3"),  # header of the TPDU
        replacing(5, b"\x70"),  # kind of TPDU
        replacing(5, b"\xd0"),  # a second confirmation
        replacing(7, b"\x33"),  # not S7
        replacing(8, b"\1"),  # a job, not a reply
        replacing(8, b"\7"),  # something that a CPU says by itself
        saying(bytes.fromhex("0300000702f080")),  # an empty PDU
    ],
)
async def test_not_a_reply(talk: Dialogue, spoil: Spoil) -> None:
    """Bytes after which nothing can be told apart end the connection; the error shows them."""
    talk.proxy.spoil = spoil
    with pytest.raises(TransientError, match=r"begins with [0-9a-f ]*$"):
        await talk.read_first()
    await talk.works_after_reconnect()


async def test_bytes_that_nobody_asked_for(proxy: Proxy, driver: S7Driver) -> None:
    """A banner after a reply ends the connection; the next read says why."""
    proxy.spoil = lambda chunk: [chunk, b"login: "]
    assert await read(driver, A) == FIRST
    await until(
        lambda: driver._wire is None or driver._wire._ended is not None, within_s=READ_S_MAX
    )
    with pytest.raises(TransientError, match="not ISO on TCP"):
        await read(driver, A)


def other_length(change: int) -> Spoil:
    """A well-formed reply of more or fewer bytes."""

    def spoil(chunk: bytes) -> Sequence[Step]:
        data = (chunk[25:] + bytes(8))[: len(chunk) - 25 + change]
        sizes = struct.pack(">H", 18 + 7 + len(data)), struct.pack(">H", 4 + len(data))
        head = chunk[:2] + sizes[0] + chunk[4:15] + sizes[1] + chunk[17:23]
        return [head + struct.pack(">H", len(data) * 8) + data]

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        other_length(-2),
        other_length(2),
        other_length(-40),
        replacing(23, b"\0\0"),  # bits in the item's header
        replacing(23, b"\xff\xff"),
        replacing(22, b"\x99"),  # transport size
        replacing(19, b"\5"),  # function: a write
        replacing(20, b"\2"),  # two items
        replacing(15, b"\0\1"),  # bytes of data
        replacing(13, b"\0\xff"),  # bytes of parameters
        replacing(13, b"\0\0"),
        replacing(17, b"\x81\x04"),  # error in the header
        replacing(21, b"\x03"),  # access not allowed
        replacing(21, b"\x77"),  # a code that nobody knows
    ],
)
async def test_a_reply_without_the_values_costs_its_block(
    proxy: Proxy, driver: S7Driver, talk: Dialogue, spoil: Spoil
) -> None:
    """A reply to this job that does not hold what was asked for is no value; nothing closes."""
    assert [len(chunk) for chunk in [await raw_reply(proxy, driver)]] == [REPLY_BYTES]
    talk.proxy.spoil = spoil
    with pytest.raises(DeviceError, match="DB1 bytes 0 to 39: "):
        await talk.read_first()
    talk.proxy.spoil = passing
    await talk.works()
    assert talk.proxy.connections == 1


async def raw_reply(proxy: Proxy, driver: S7Driver) -> bytes:
    """One reply as it is on the wire."""
    seen: list[bytes] = []

    def note(chunk: bytes) -> Sequence[Step]:
        seen.append(chunk)
        return [chunk]

    proxy.spoil = note
    await read(driver, A)
    return seen[0]


@pytest.mark.parametrize("code", [0x03, 0x8104])
async def test_access_that_the_cpu_forbids_has_advice(
    proxy: Proxy, driver: S7Driver, code: int
) -> None:
    """The most frequent obstacle of an S7-1200 or 1500, in both of its forms, is named."""
    proxy.spoil = replacing(21, bytes([code])) if code < 256 else replacing(17, code.to_bytes(2))
    with pytest.raises(DeviceError) as refused:
        await read(driver, A)
    assert "PUT/GET" in refused.value.hint


async def test_random_damage_never_invents_a_value(driver: S7Driver, talk: Dialogue) -> None:
    """Any byte of the headers changed: the right values, a bad block, silence or a new connection.

    Bytes of the data itself have no checksum but TCP's.
    """
    chance = random.Random(7)
    for _ in range(150):
        at, new = chance.randrange(25), bytes([chance.randrange(256)])
        talk.proxy.spoil = once(replacing(at, new))
        try:
            assert await read(driver, A, within_s=PATIENCE_S) == FIRST
        except (TimeoutError, DeviceError):
            pass
        except TransientError:
            await driver.connect()
        talk.proxy.spoil = passing
        await driver.connect()
    await talk.works()
