"""Faults of the simulated PLCs: as a bare socket sees them, and as the agent's driver does."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import address_map, protocols
from edge_agent.agent import Agent
from edge_agent.cli.main import main
from edge_agent.clock import epoch_ms
from edge_agent.errors import ConfigError, DeviceError, TransientError
from edge_agent.model import Tag, ValueType
from edge_agent.planner import Block, plan
from edge_agent.protocols.modbus import ModbusDriver
from edge_agent.settings import load_settings
from edge_agent.simulator import ModbusSimulator, matches, rebind
from edge_agent.simulator.client import OUTBOX_PIECES_MAX
from edge_agent.simulator.fault_file import load, parse
from edge_agent.simulator.faults import TCP, TRANSPORTS, Kind, Then
from edge_agent.sinks import Destination
from edge_agent.sinks.memory import MemorySink
from tests.integration.test_simulator import (
    TIMEOUT_S,
    both_loops,
    connected,
    frame,
    make_tag,
    read_request,
    receive,
)
from tests.waiting import until

EXAMPLE = Path(__file__).parents[2] / "examples/faults.toml"
WAIT_S = 30.0
OF_TCP = {kind for kind, those in TRANSPORTS.items() if TCP in those}
SILENT_S = 0.1
"""Nothing is believed to come after this time: what comes on loopback comes within 1 ms."""


class Seconds:
    """The simulator's monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def plant(units: Sequence[int] = (1, 2), conn: str = "tcp://10.0.0.5:502") -> list[Tag]:
    """Twenty registers and a few coils in each unit."""
    tags = [make_tag(f"hr:{cell}", conn=conn, unit_id=unit) for unit in units for cell in range(20)]
    tags += [
        make_tag(f"co:{cell}", ValueType.BOOL, conn=conn, unit_id=unit)
        for unit in units
        for cell in range(8)
    ]
    return [replace(tag, tag=tag.address.replace(":", ""), period_ms=200) for tag in tags]


@asynccontextmanager
async def faulty(
    toml: str, *, seconds: Seconds | None = None, tags: Sequence[Tag] | None = None
) -> AsyncIterator[ModbusSimulator]:
    """A simulator with faults, on a free port; its time stands still unless somebody moves it."""
    async with ModbusSimulator(
        plant() if tags is None else tags,
        syntax=protocols.load,
        host="127.0.0.1",
        port=0,
        faults=parse(toml),
        monotonic=seconds or Seconds(),
    ) as simulator:
        yield simulator


def ask(
    transaction: int, start: int = 0, count: int = 1, unit_id: int = 1, function: int = 3
) -> bytes:
    return frame(transaction, read_request(start, count, function), unit_id)


async def nothing(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes."""
    try:
        async with asyncio.timeout(SILENT_S):
            await reader.readexactly(1)
    except TimeoutError:
        return True
    return False


# -- each kind, seen by a bare socket ----------------------------------------------------------


@both_loops
async def test_a_delay_holds_up_its_own_connection_in_order() -> None:
    """Replies come late and in the order of the requests; another client waits for nobody."""
    toml = '[[fault]]\nkind="delay"\ndelay_ms=150\nrange="0-9"'
    async with (
        faulty(toml) as simulator,
        connected(simulator) as (reader, writer),
        connected(simulator) as (other_reader, other_writer),
    ):
        started = asyncio.get_running_loop().time()
        writer.write(ask(1) + ask(2, 15) + ask(3))
        other_writer.write(ask(9, 15))
        assert (await receive(other_reader))[0] == 9
        assert asyncio.get_running_loop().time() - started < 0.15
        assert [(await receive(reader))[0] for _ in range(3)] == [1, 2, 3]
        assert asyncio.get_running_loop().time() - started >= 0.298  # a loop's clock is coarse
        assert simulator.connections[0].spoiled == {"delay": 2}


@both_loops
async def test_jitter_stays_below_its_bound() -> None:
    """Every reply comes, some later than others, all in order."""
    toml = '[[fault]]\nkind="jitter"\njitter_ms=20'
    async with faulty(toml) as simulator, connected(simulator) as (reader, writer):
        writer.write(b"".join(ask(at) for at in range(30)))
        assert [(await receive(reader))[0] for _ in range(30)] == list(range(30))
        faults = simulator.connections[0].faults
        assert faults is not None
        effects = [faults.effect(ask(0)[6:], nth) for nth in range(1, 200)]
        delays = [effect.delay_ms for effect in effects if effect is not None]
        assert len(delays) == 199
        assert 0 <= min(delays) < 2
        assert 18 < max(delays) < 20


@both_loops
async def test_silence_concerns_the_cells_that_it_names() -> None:
    """A request that touches one of them is never answered, the next one is."""
    toml = '[[fault]]\nkind="silence"\narea="holding"\nrange="5-7"\nunit=1'
    async with faulty(toml) as simulator, connected(simulator) as (reader, writer):
        for start, count in ((5, 1), (7, 3), (0, 6), (0, 20)):
            writer.write(ask(1, start, count))
        assert await nothing(reader)
        answered = [ask(2, 0, 5), ask(3, 8, 4), ask(4, 5, 3, unit_id=2), ask(5, 5, 3, function=1)]
        writer.write(b"".join(answered))
        assert [(await receive(reader))[0] for _ in answered] == [2, 3, 4, 5]
        assert simulator.connections[0].spoiled == {"silence": 4}
        assert simulator.connections[0].requests == 8


async def test_exceptions_by_range() -> None:
    """The code of the file, for its range; the first fault that hits decides."""
    toml = """
        [[fault]]
        kind = "exception"
        code = 4
        area = "holding"
        range = "3"
        [[fault]]
        kind = "exception"
        code = 6
        unit = [2]
        area = "holding"
    """
    async with faulty(toml) as simulator, connected(simulator) as (reader, writer):
        for unit_id, start, pdu in (
            (1, 2, None), (1, 3, b"\x83\x04"), (2, 3, b"\x83\x04"), (2, 2, b"\x83\x06"),
        ):  # fmt: skip
            writer.write(ask(7, start, unit_id=unit_id))
            transaction, found = await receive(reader)
            assert transaction == 7
            assert found == pdu if pdu else found[:2] == b"\x03\x02"


@pytest.mark.parametrize(("shift", "expected"), [(1, 8), (-1, 6), (-32_768, 32_775)])
async def test_a_wrong_transaction_id(shift: int, expected: int) -> None:
    """Shifted as the file says, and the rest of the reply is right."""
    toml = f'[[fault]]\nkind="wrong_transaction"\nshift={shift}\nunit=1'
    async with faulty(toml) as simulator, connected(simulator) as (reader, writer):
        writer.write(ask(7))
        assert (await receive(reader))[0] == expected
        writer.write(ask(7, unit_id=2))
        assert (await receive(reader))[0] == 7


async def test_a_wrong_unit() -> None:
    """The reply carries another unit id, and is right otherwise."""
    toml = '[[fault]]\nkind="wrong_unit"\nshift=-2\nunit=1'
    async with faulty(toml) as simulator, connected(simulator) as (reader, writer):
        writer.write(ask(7) + ask(8, unit_id=2))
        async with asyncio.timeout(TIMEOUT_S):
            assert (await reader.readexactly(11))[:9] == bytes.fromhex("0007 0000 0005 ff 03 02")
        assert (await receive(reader))[0] == 8


@both_loops
@pytest.mark.parametrize("then", list(Then))
async def test_half_a_frame(then: Then) -> None:
    """Its first half; then nothing, the end, or the other half."""
    toml = f'[[fault]]\nkind="half_frame"\nthen="{then}"\nfor_s=1'
    if then is Then.REST:
        toml += "\nrest_ms=50"
    seconds = Seconds()
    async with (
        faulty(toml, seconds=seconds) as simulator,
        connected(simulator) as (reader, writer),
    ):
        writer.write(ask(7, 0, 20))
        whole = 9 + 40
        async with asyncio.timeout(TIMEOUT_S):
            first = await reader.readexactly(whole // 2)
        assert first[:9] == bytes.fromhex("0007 0000 002b 01 03 28")
        if then is Then.CLOSE:
            async with asyncio.timeout(TIMEOUT_S):
                assert await reader.read() == b""
            return
        if then is Then.REST:
            async with asyncio.timeout(TIMEOUT_S):
                await reader.readexactly(whole - whole // 2)
        assert await nothing(reader)
        seconds.now = 2
        writer.write(ask(8))
        assert (await receive(reader))[0] == 8


@both_loops
async def test_a_closed_connection_is_open_to_the_next() -> None:
    """What was answered before arrives; then the end. A new connection meets the same."""
    toml = '[[fault]]\nkind="close"\nrange="3"\n[[fault]]\nkind="delay"\ndelay_ms=20'
    async with faulty(toml) as simulator:
        for _ in range(3):
            async with connected(simulator) as (reader, writer):
                writer.write(ask(1) + ask(2, 3) + ask(3))
                assert (await receive(reader))[0] == 1
                async with asyncio.timeout(TIMEOUT_S):
                    assert await reader.read() == b""
        assert simulator.connections[0].spoiled["close"] == 3


@both_loops
@pytest.mark.parametrize("code", [None, 11])
async def test_a_unit_dies_and_returns_at_its_times(code: int | None) -> None:
    """From 10 s on for 5 s, each minute; the other unit of the connection notices nothing."""
    toml = '[[fault]]\nkind="dead"\nunit=2\nfrom_s=10\nfor_s=5\nevery_s=60'
    seconds = Seconds()
    async with (
        faulty(toml + (f"\ncode={code}" if code else ""), seconds=seconds) as simulator,
        connected(simulator) as (reader, writer),
    ):
        for at_s, dead in (
            (0, False), (9.99, False), (10, True), (14.99, True), (15, False), (69, False),
            (70, True), (75, False), (3_611, True), (3_616, False),
        ):  # fmt: skip
            seconds.now = at_s
            writer.write(ask(1, unit_id=2) + ask(2, function=1, unit_id=2) + ask(3, unit_id=1))
            expected = [1, 2, 3] if code or not dead else [3]
            replies = [await receive(reader) for _ in expected]
            assert [transaction for transaction, _ in replies] == expected
            refused = [pdu for _, pdu in replies if pdu[0] & 0x80]
            assert refused == ([b"\x83\x0b", b"\x81\x0b"] if code and dead else [])


async def test_a_fault_of_one_connection_leaves_the_others_alone() -> None:
    """`conn` names it as the map does; options after `?` tell no PLC from another."""
    tags = plant([1], "tcp://10.0.0.5:502?gap_max=0") + plant([1], "tcp://10.0.0.6:502")
    toml = '[[fault]]\nkind="exception"\ncode=4\nconn="tcp://10.0.0.5:502"'
    async with faulty(toml, tags=tags) as simulator:
        replies = []
        for index in range(2):
            async with connected(simulator, index) as (reader, writer):
                writer.write(ask(1))
                replies.append((await receive(reader))[1])
    assert replies[0] == b"\x83\x04"
    assert replies[1][:2] == b"\x03\x02"


@both_loops
async def test_a_full_outbox_is_read_on_once_it_is_empty() -> None:
    """Every request of a flood is answered, in order, though reading stopped in between."""
    count = 3 * OUTBOX_PIECES_MAX
    toml = '[[fault]]\nkind="jitter"\njitter_ms=0.02'
    async with faulty(toml) as simulator, connected(simulator) as (reader, writer):
        for at in range(count):
            writer.write(ask(at))
            if at % 500 == 0:
                await writer.drain()
        assert [(await receive(reader))[0] for _ in range(count)] == list(range(count))
        assert simulator.connections[0].requests == count


@both_loops
async def test_waiting_replies_do_not_fill_the_memory() -> None:
    """A client that asks faster than a delay lets it have replies is not read from."""
    count = 100_000
    toml = '[[fault]]\nkind="delay"\ndelay_ms=60_000'
    async with faulty(toml) as simulator, connected(simulator) as (_reader, writer):
        listener = simulator.connections[0]
        writer.write(ask(0) * count)
        seen = -1
        while listener.requests != seen or seen == 0:
            seen = listener.requests
            await asyncio.sleep(0.1)
        assert OUTBOX_PIECES_MAX <= seen < count // 3  # one read of a socket may bring 22,000


# -- repeatable --------------------------------------------------------------------------------

CHANCE = """
    [[fault]]
    kind = "exception"
    code = 4
    probability = 0.2
    [[fault]]
    kind = "exception"
    code = 6
    probability = 0.2
"""


async def outcomes(toml: str, requests: Sequence[bytes], clients: int = 1) -> list[bytes]:
    """The PDUs of the replies to some requests, spread over one or more clients."""
    async with faulty(toml) as simulator:
        found = []
        for part in range(clients):
            async with connected(simulator) as (reader, writer):
                share = len(requests) // clients
                writer.write(b"".join(requests[part * share : (part + 1) * share]))
                found += [(await receive(reader))[1][:2] for _ in range(share)]
        return found


async def test_the_same_seed_gives_the_same_faults() -> None:
    """Over two runs, and over reconnects; another seed gives others, the odds are the file's."""
    requests = [ask(at, at % 3) for at in range(600)]
    first = await outcomes(f"seed = 7\n{CHANCE}", requests)
    assert await outcomes(f"seed = 7\n{CHANCE}", requests) == first
    assert await outcomes(f"seed = 7\n{CHANCE}", requests, clients=4) == first
    assert await outcomes(f"seed = 8\n{CHANCE}", requests) != first
    assert 80 < first.count(b"\x83\x04") < 160  # 120 are expected
    assert 56 < first.count(b"\x83\x06") < 136  # 96: the first fault goes first


async def test_what_others_ask_changes_no_fault() -> None:
    """The nth reading of a range meets the same, whatever is asked in between."""
    toml = f"seed = 7\n{CHANCE}"
    alone = await outcomes(toml, [ask(at, 2) for at in range(200)])
    mixed = await outcomes(toml, [ask(at, at % 4) for at in range(800)])
    assert mixed[2::4] == alone
    assert mixed[1::4] != alone  # another range has faults of its own


# -- the agent's driver ------------------------------------------------------------------------

KINDS = {
    "delay": 'kind="delay"\ndelay_ms=40',
    "delay past the timeout": 'kind="delay"\ndelay_ms=250',
    "jitter": 'kind="jitter"\njitter_ms=60',
    "silence": 'kind="silence"',
    "exception": 'kind="exception"\ncode=4',
    "wrong transaction, never asked": 'kind="wrong_transaction"\nshift=1',
    "wrong transaction, the one before": 'kind="wrong_transaction"\nshift=-1',
    "wrong unit": 'kind="wrong_unit"',
    "half a frame": 'kind="half_frame"',
    "half a frame and the end": 'kind="half_frame"\nthen="close"',
    "half a frame, the rest later": 'kind="half_frame"\nthen="rest"\nrest_ms=30',
    "half a frame, the rest too late": 'kind="half_frame"\nthen="rest"\nrest_ms=250',
    "close": 'kind="close"',
    "dead": 'kind="dead"\nunit=[1, 2]',
    "dead behind a gateway": 'kind="dead"\nunit=[1, 2]\ncode=11',
}
HARMLESS = {"delay", "jitter", "half a frame, the rest later"}
"""The driver gets every value all the same."""
READS = 12


async def read_all(driver: ModbusDriver, blocks: Sequence[Block]) -> tuple[int, int]:
    """Read as the poller does; right values and failures. A wrong value fails the test."""
    good = failed = 0
    for _ in range(READS):
        for block in blocks:
            try:
                async with asyncio.timeout(driver.timeout_s + 1):
                    (reply,) = await driver.read(block)
            except (DeviceError, TimeoutError):
                failed += 1
            except TransientError:
                failed += 1
                await driver.connect()
            else:
                for tag, raw in zip(block.tags, reply.values, strict=True):
                    value = raw * tag.scale + tag.offset
                    assert matches(tag, reply.ts_ms, value, late_ms=1_000), (tag, value)
                good += 1
    return good, failed


async def read_through(
    simulator: ModbusSimulator,
    seconds: Seconds,
    tags: Sequence[Tag],
    name: str,
    until_well: Callable[[ModbusDriver, Sequence[Block]], Awaitable[None]] | None = None,
) -> None:
    """Read during a fault of 10 s and after it.

    ``until_well`` waits, on a new connection, for what may still be on its way from the fault.
    """
    (connection,) = plan(tags, protocols.load)
    blocks = connection.scan_classes[0].blocks
    driver = ModbusDriver(connection.conn, now_ms=epoch_ms)
    await driver.connect()
    try:
        good, failed = await read_all(driver, blocks)
        assert (failed == 0) == (name in HARMLESS)
        assert (good == 0) == ("dead" in name)
        assert simulator.connections[0].spoiled
        seconds.now = 20
        if failed:
            await driver.close()
            # Nothing is late by design any more: what a busy machine delays is none of it.
            patient = re.sub(r"timeout_ms=\d+", "timeout_ms=2000", connection.conn)
            driver = ModbusDriver(patient, now_ms=epoch_ms)
            await driver.connect()
            if until_well is not None:
                await until_well(driver, blocks)
        assert await read_all(driver, blocks) == (READS * len(blocks), 0)
    finally:
        await driver.close()


@pytest.mark.parametrize("name", list(KINDS))
async def test_the_driver_never_gives_a_wrong_value(name: str) -> None:
    """Right values or a classed error while the fault is on; right values once it is over."""
    assert {Kind(text.split('"')[1]) for text in KINDS.values()} == OF_TCP
    tags = rebind(plant(conn="tcp://127.0.0.1:502?timeout_ms=100"))
    seconds = Seconds()
    odds = "" if "dead" in name else "probability=0.5\n"
    async with ModbusSimulator(
        tags,
        syntax=protocols.load,
        faults=parse(f"[[fault]]\n{KINDS[name]}\n{odds}for_s=10"),
        monotonic=seconds,
    ) as simulator:
        await read_through(simulator, seconds, tags, name)


async def test_a_unit_that_dies_costs_only_its_tags(tmp_path: Path) -> None:
    """The other unit's tags stay good and new; the dead one's are bad until it is back."""
    tags = rebind(plant(conn="tcp://127.0.0.1:502?timeout_ms=50"))
    path = tmp_path / "address_map.csv"
    address_map.write(path, tags)
    overrides = {"agent.data_dir": str(tmp_path / "data"), "agent.http": ""}
    agent = Agent(load_settings(None, {}, overrides), address_map.load(path, protocols.load))
    sink = MemorySink()
    agent.destinations = [Destination(sink)]
    seconds = Seconds()
    toml = '[[fault]]\nkind="dead"\nunit=2\nfrom_s=10\nfor_s=10'
    task = asyncio.create_task(agent.run(handle_signals=False))

    async def the_second_is(quality: str, *, others: int) -> None:
        """Wait for unit 2's tags to be so; unit 1's must be good, with so many new samples."""
        before = sum(1 for series, _, _ in sink.samples if series.device == "PLC1")
        async with asyncio.timeout(WAIT_S):
            while True:
                await asyncio.sleep(0.02)
                assert not task.done()
                found = {
                    device["device"]: {tag["quality"] for tag in device["tags"]}
                    for device in (await agent.report.status())["devices"]
                }
                assert quality == "first" or found["PLC1"] == {"good"}
                now = sum(1 for series, _, _ in sink.samples if series.device == "PLC1")
                wanted = "good" if quality == "first" else quality
                if found == {"PLC1": {"good"}, "PLC2": {wanted}} and now - before >= others:
                    return

    try:
        async with ModbusSimulator(
            tags, syntax=protocols.load, faults=parse(toml), monotonic=seconds
        ) as simulator:
            await until(lambda: agent.pollers, within_s=WAIT_S)
            await the_second_is("first", others=len(tags))
            seconds.now = 15
            await the_second_is("bad", others=5 * len(tags) // 2)
            assert simulator.connections[0].spoiled["dead"] >= 1
            seconds.now = 25
            await the_second_is("good", others=0)
            agent.stop()
            async with asyncio.timeout(WAIT_S):
                await task
    finally:
        agent.stop()
        await asyncio.wait([task], timeout=WAIT_S)
    by_key = {(tag.device, tag.tag): tag for tag in tags}
    assert sink.samples
    for series, ts_ms, value in sink.samples:
        assert matches(by_key[series.device, series.tag], ts_ms, value)


# -- the file ----------------------------------------------------------------------------------


def test_the_example_has_one_of_each_kind() -> None:
    """It is what the documents point at; those that Modbus TCP has not are comments."""
    faults = load(EXAMPLE)
    assert {fault.kind for fault in faults.faults} == OF_TCP
    ModbusSimulator(plant(), syntax=protocols.load, faults=faults)
    all_of_them = parse(re.sub(r"(?m)^#(?=[\[a-z])", "", EXAMPLE.read_text()))
    assert {fault.kind for fault in all_of_them.faults} == set(Kind)
    assert faults.seed == 1
    dead = faults.faults[-1]
    assert (dead.unit, dead.code, dead.from_s, dead.for_s) == (frozenset({1}), 11, 20, 15)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[[fault]", "not TOML"),
        ("a = " + "[" * 5_000, "not TOML"),
        ("speed = 1", "key speed: unknown; allowed: seed, [[fault]]"),
        ("seed = -1", "key seed: found -1; allowed: whole numbers from 0"),
        ("seed = true", "key seed: found True"),
        ("fault = 1", "write each fault as [[fault]]"),
        ("[fault]\nkind='close'", "write each fault as [[fault]]"),
        ("[[fault]]", "fault 1, key kind: found nothing; allowed: delay, jitter, silence"),
        ("[[fault]]\nkind=['close']", "fault 1, key kind: found ['close']; allowed: delay"),
        ("[[fault]]\nkind='slow'", "fault 1, key kind: found 'slow'; allowed: delay"),
        ("[[fault]]\nkind='close'\nwen=1", "fault 1, key wen: unknown; allowed: kind, conn, unit"),
        ("[[fault]]\nkind='close'\ncode=1", "fault 1, key code: not for a close fault"),
        (
            "[[fault]]\nkind='delay'",
            "key delay_ms: missing, a delay fault needs it; allowed: above 0",
        ),
        ("[[fault]]\nkind='delay'\ndelay_ms=0", "key delay_ms: found 0; allowed: above 0"),
        ("[[fault]]\nkind='delay'\ndelay_ms=nan", "key delay_ms: found nan; allowed: above 0"),
        ("[[fault]]\nkind='delay'\ndelay_ms=true", "key delay_ms: found True"),
        ("[[fault]]\nkind='jitter'", "key jitter_ms: missing, a jitter fault needs it"),
        (
            "[[fault]]\nkind='exception'",
            "key code: missing, an exception fault needs it; allowed: an ex",
        ),
        ("[[fault]]\nkind='exception'\ncode=256", "key code: found 256; allowed: an exception"),
        ("[[fault]]\nkind='wrong_transaction'\nshift=0", "key shift: found 0; allowed: -32768"),
        (
            "[[fault]]\nkind='wrong_unit'\nshift=256",
            "key shift: found 256; allowed: no multiple of",
        ),
        ("[[fault]]\nkind='half_frame'\nthen='more'", "allowed: nothing, close, rest"),
        ("[[fault]]\nkind='half_frame'\nthen=[]", "allowed: nothing, close, rest"),
        (
            "[[fault]]\nkind='dead'",
            "key unit: missing, a dead fault needs it; allowed: a unit id from 0 to 255",
        ),
        ("[[fault]]\nkind='dead'\nunit=1\nrange='1'", "key range: not for a dead fault"),
        ("[[fault]]\nkind='dead'\nunit=256", "key unit: found 256"),
        ("[[fault]]\nkind='dead'\nunit=[]", "key unit: found []"),
        ("[[fault]]\nkind='close'\narea='hr'", "allowed: coil, discrete, holding, input"),
        ("[[fault]]\nkind='close'\nrange='9-1'", "key range: found '9-1'; allowed: cells"),
        ("[[fault]]\nkind='close'\nrange='0-65536'", "key range: found '0-65536'"),
        ("[[fault]]\nkind='close'\nrange=7", "key range: found 7"),
        (
            "[[fault]]\nkind='close'\nconn='plc'",
            "key conn: found 'plc'; allowed: a conn of the map",
        ),
        ("[[fault]]\nkind='close'\nfrom_s=-1", "key from_s: found -1; allowed: 0 to"),
        ("[[fault]]\nkind='close'\nfor_s=0", "key for_s: found 0; allowed: above 0"),
        ("[[fault]]\nkind='close'\nevery_s=5", "key every_s: found 5; allowed: longer than for_s"),
        ("[[fault]]\nkind='close'\nfor_s=5\nevery_s=5", "key every_s: found 5"),
        ("[[fault]]\nkind='close'\nprobability=1.1", "key probability: found 1.1; allowed: above"),
        ("[[fault]]\nkind='close'\nfrom_s=1979-05-27", "key from_s: found datetime.date"),
    ],
)
def test_a_wrong_file_is_told_by_key(tmp_path: Path, toml: str, message: str) -> None:
    """Place, what was found and what is allowed; never a traceback."""
    path = tmp_path / "faults.toml"
    path.write_text(toml)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Not one after the other; and a file that can't be read is one too."""
    path = tmp_path / "faults.toml"
    path.write_text("seed='x'\n[[fault]]\nkind='close'\ncode=1\nfor_s=0\n[[fault]]\nkind='x'")
    with pytest.raises(ConfigError, match="4 problems"):
        load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8, at byte 0"):
        load(path)
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="directory"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("kind='close'\nconn='tcp://10.0.0.9:502'", "allowed: of the map: tcp://10.0.0.5:502"),
        ("kind='dead'\nunit=[8, 9]", "key unit: found [8, 9]; allowed: of the map: 1, 2"),
    ],
)
def test_a_fault_that_can_hit_nothing_is_refused(toml: str, message: str) -> None:
    """A connection or unit that the map does not have is a typing error."""
    with pytest.raises(ConfigError) as caught:
        ModbusSimulator(plant(), syntax=protocols.load, faults=parse(f"[[fault]]\n{toml}"))
    assert message in str(caught.value)


# -- as a process ------------------------------------------------------------------------------


async def test_it_runs_as_a_process_and_says_what_it_counted(tmp_path: Path) -> None:
    """`--faults FILE`; a second line of JSON at its end."""
    path, faults = tmp_path / "address_map.csv", tmp_path / "faults.toml"
    address_map.write(path, plant())
    faults.write_text("[[fault]]\nkind='exception'\ncode=4\nunit=2")
    command = [sys.executable, "-m", "edge_agent.simulator", str(path), "--host=127.0.0.1"]
    process = await asyncio.create_subprocess_exec(
        *command, "--port=0", f"--faults={faults}", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            (listening,) = json.loads(await process.stdout.readline())["listening"]
        reader, writer = await asyncio.open_connection(listening["host"], listening["port"])
        writer.write(ask(1, 0, 5) + ask(2, unit_id=2))
        assert [(await receive(reader))[1][:2] for _ in range(2)] == [b"\x03\x0a", b"\x83\x04"]
        writer.close()
        await writer.wait_closed()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S):
            (counted,) = json.loads(await process.stdout.readline())["counted"]
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert counted == {
        "protocol": "modbus",
        "conns": ["tcp://10.0.0.5:502"], "requests": 2, "registers": 6, "errors": 0,
        "bytes_received": 24, "bytes_sent": 19 + 11, "spoiled": {"exception": 1},
    }  # fmt: skip


def test_the_command_takes_a_file_of_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`edge-agent simulate --faults`: a wrong file is exit code 2, and names the key."""
    path, faults = tmp_path / "address_map.csv", tmp_path / "faults.toml"
    address_map.write(path, plant())
    faults.write_text("[[fault]]\nkind='dead'\nunit=77")
    assert main(["simulate", "--map", str(path), "--faults", str(faults)]) == 2
    assert "fault 1, key unit: found [77]; allowed: of the map: 1, 2" in capsys.readouterr().err


async def test_a_wrong_file_of_faults_ends_the_process_with_2(tmp_path: Path) -> None:
    """The problem stands on standard error, nothing on standard output."""
    path, faults = tmp_path / "address_map.csv", tmp_path / "faults.toml"
    address_map.write(path, plant())
    faults.write_text("[[fault]]\nkind='slow'")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge_agent.simulator", str(path), f"--faults={faults}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        output, errors = await process.communicate()
    assert (process.returncode, output) == (2, b"")
    assert b"fault 1, key kind: found 'slow'" in errors
    assert b"examples/faults.toml" in errors
