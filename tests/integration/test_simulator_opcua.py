"""Simulated OPC UA servers: as asyncua's client sees them, and as the agent's driver does."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua

from edge_agent import address_map, protocols
from edge_agent.clock import epoch_ms
from edge_agent.errors import ConfigError, EdgeAgentError, TransientError
from edge_agent.model import Tag, ValueType
from edge_agent.planner import Block, plan
from edge_agent.protocols.opcua import OpcuaDriver
from edge_agent.simulator import STEP_MS, Plant, matches, raw_at, rebind
from edge_agent.simulator.fault_file import parse
from edge_agent.simulator.opcua_server import OpcuaSimulator
from edge_agent.simulator.plant import safe, told
from tests.integration.test_simulator import NOON, Clock, make_tag
from tests.integration.test_simulator_faults import Seconds
from tests.servers import free_port
from tests.waiting import until

# The simulator's process runs on uvloop; another loop's transports end in another order.
both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
MODES = ["subscribe", "poll"]

PERIOD_MS = 200
WITHIN_S = 20.0
"""When something is given up that must happen: generous, for a busy machine."""
CONN = "opc.tcp://10.0.0.7:4840/plc"
PUMP = {
    "Speed": ValueType.FLOAT32,
    "Pressure": ValueType.INT16,
    "Running": ValueType.BOOL,
}
VARIANTS = {
    ValueType.BOOL: "Boolean", ValueType.INT8: "SByte", ValueType.UINT8: "Byte",
    ValueType.INT16: "Int16", ValueType.UINT16: "UInt16", ValueType.INT32: "Int32",
    ValueType.UINT32: "UInt32", ValueType.INT64: "Int64", ValueType.UINT64: "UInt64",
    ValueType.FLOAT16: "Float", ValueType.FLOAT32: "Float", ValueType.FLOAT64: "Double",
}  # fmt: skip
BAD, UNCERTAIN = "BadSensorFailure", "UncertainLastUsableValue"


def tag_of(address: str, value_type: ValueType = ValueType.FLOAT32, *, conn: str = CONN) -> Tag:
    name = address.rpartition("=")[2]
    tag = make_tag(address, value_type, conn=conn, protocol="opcua")
    return replace(tag, device="PUMP", tag=name, period_ms=PERIOD_MS)


def pump(conn: str = CONN) -> list[Tag]:
    """Three nodes of a pump and one of a tank."""
    tags = [tag_of(f"ns=2;s=Pump.{name}", kind, conn=conn) for name, kind in PUMP.items()]
    return [*tags, tag_of("ns=2;s=Tank.Level", ValueType.FLOAT64, conn=conn)]


@asynccontextmanager
async def serving(
    toml: str = "",
    *,
    tags: Sequence[Tag] | None = None,
    seconds: Seconds | None = None,
    now_ms: Callable[[], int] = epoch_ms,
) -> AsyncIterator[OpcuaSimulator]:
    """Servers on free ports; the faults' time stands still unless somebody moves it."""
    before = asyncio.all_tasks()
    async with OpcuaSimulator(
        pump() if tags is None else tags,
        now_ms=now_ms,
        host="127.0.0.1",
        port=0,
        faults=parse(toml) if toml else None,
        monotonic=seconds or Seconds(),
    ) as simulator:
        yield simulator
    assert not asyncio.all_tasks() - before, "no task outlives stop()"


def url_of(simulator: OpcuaSimulator, place: int = 0) -> str:
    return f"opc.tcp://127.0.0.1:{simulator.connections[place].port}"


async def values_of(client: Client, tags: Sequence[Tag]) -> list[Any]:
    """Data values, with status and times."""
    nodes = [client.get_node(tag.address) for tag in tags]
    return list(await client.read_attributes(nodes))


def milliseconds(at: datetime) -> int:
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1000)


@dataclass
class Line:
    """The agent's driver with one block, and what it has got."""

    driver: OpcuaDriver
    block: Block
    samples: list[tuple[Tag, int, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @classmethod
    def to(cls, simulator: OpcuaSimulator, mode: str, place: int = 0, options: str = "") -> Line:
        """Not yet connected."""
        server = simulator.connections[place]
        conn = f"opc.tcp://127.0.0.1:{server.port}/plc?mode={mode}{options}"
        tags = [replace(tag, conn=conn) for tag in server.tags]
        [connection] = plan(tags, protocols.load)
        [block] = connection.scan_classes[0].blocks
        return cls(OpcuaDriver(conn, now_ms=epoch_ms), block)

    async def read(self) -> None:
        """One attempt, as the poller makes it: connect anew after a failure."""
        try:
            if self.driver._link is None:
                await self.driver.connect()
            async with asyncio.timeout(self.driver.timeout_s):
                replies = await self.driver.read(self.block)
        except (EdgeAgentError, TimeoutError) as error:
            self.errors.append(str(error))
            await self.driver.close()
            return
        for reply in replies:
            places = range(len(self.block.tags)) if reply.positions is None else reply.positions
            self.samples += [
                (self.block.tags[place], reply.ts_ms, value)
                for place, value in zip(places, reply.values, strict=True)
            ]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Read in the rhythm of the map until something holds."""
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, (self.samples[-10:], self.errors)
            await self.read()
            await asyncio.sleep(PERIOD_MS / 1000)

    def of(self, name: str) -> list[float]:
        return [value for tag, _, value in self.samples if tag.tag == name]

    def newest(self) -> dict[str, float]:
        return {tag.tag: value for tag, _, value in self.samples}

    def check(self) -> None:
        """Every good value was this tag's at its own time, or just before."""
        good = [sample for sample in self.samples if not math.isnan(sample[2])]
        assert good
        for tag, ts_ms, value in good:
            engineering = value * tag.scale + tag.offset
            assert matches(tag, ts_ms, engineering, late_ms=1_500), (tag.tag, ts_ms, value)


@asynccontextmanager
async def driving(
    simulator: OpcuaSimulator, mode: str, place: int = 0, options: str = ""
) -> AsyncIterator[Line]:
    line = Line.to(simulator, mode, place, options)
    try:
        yield line
    finally:
        await line.driver.close()


# -- values ------------------------------------------------------------------------------------


@both_loops
async def test_every_type_reads_as_the_signal_says() -> None:
    """The raw value, as the map's type, with the time of its step; names are those of the map."""
    clock = Clock()
    clock.ms = NOON + 37
    kinds = [kind for kind in ValueType if not kind.startswith("BCD")]
    tags = [tag_of(f"ns=3;s=All.{kind}", kind) for kind in kinds]
    tags += [
        tag_of("ns=1;i=7"),
        tag_of("ns=2;g=09087e75-8e5e-499b-954f-f2a9603db28a"),
        tag_of("ns=2;b=AQID"),
    ]
    async with serving(tags=tags, now_ms=clock) as simulator, Client(url_of(simulator)) as client:
        for _ in range(3):
            for tag, data in zip(tags, await values_of(client, tags), strict=True):
                assert data.StatusCode.is_good()
                assert milliseconds(data.SourceTimestamp) == clock.ms // STEP_MS * STEP_MS
                assert data.Value.VariantType.name == VARIANTS[tag.type]
                assert data.Value.Value == raw_at(tag, clock.ms)
                name = await client.get_node(tag.address).read_browse_name()
                assert name.Name == tag.tag
            clock.ms += 7 * STEP_MS
        devices = [
            await node.read_browse_name() for node in await client.nodes.objects.get_children()
        ]
        assert "PUMP" in {name.Name for name in devices}


async def test_a_namespace_may_be_given_by_its_uri() -> None:
    """It gets the index behind those that are given by number."""
    tags = [tag_of("nsu=http://vendor.com/plc;s=A"), tag_of("ns=4;s=A")]
    async with serving(tags=tags) as simulator, Client(url_of(simulator)) as client:
        assert await client.get_namespace_index("http://vendor.com/plc") == 5
        data = await client.get_node("ns=5;s=A").read_data_value()
        assert data.Value.Value == raw_at(tags[0], milliseconds(data.SourceTimestamp))


async def test_nobody_writes() -> None:
    """Values are those of the signals, whatever a client wants."""
    async with serving() as simulator, Client(url_of(simulator)) as client:
        with pytest.raises(ua.UaStatusCodeError):
            await client.get_node("ns=2;s=Tank.Level").write_value(1.5)


@both_loops
@pytest.mark.parametrize("mode", MODES)
async def test_the_driver_gets_the_signals(mode: str) -> None:
    """A sample a period of each tag, not one a step; what was read is counted."""
    async with serving() as simulator, driving(simulator, mode) as line:
        await line.until(lambda: len(line.newest()) == 4)
        began, known = time.monotonic(), len(line.of("Tank.Level"))
        await line.until(lambda: len(line.of("Tank.Level")) >= known + 10)
        periods = (time.monotonic() - began) * 1000 / PERIOD_MS
        assert len(line.of("Tank.Level")) - known <= periods + 3
        assert not line.errors
        line.check()
        server = simulator.connections[0]
        assert server.sessions == 1
        if mode == "poll":
            assert server.nodes_read >= 4 * 10
            assert server.monitored_items == server.changes == 0
        else:
            assert server.monitored_items == 4
            assert server.changes >= len(set(line.of("Tank.Level"))) - 1
            assert {ts_ms % STEP_MS for _, ts_ms, _ in line.samples[:4]} == {0}


class _Heard:
    """A client's handler of changes."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        self.values.append(data.monitored_item.Value)


async def test_a_client_gets_each_step_if_it_samples_as_fast() -> None:
    """Two clients with sampling intervals of their own: the faster one's holds."""
    tag = tag_of("ns=2;s=Tank.Level", ValueType.FLOAT64)
    async with serving(tags=[tag]) as simulator, Client(url_of(simulator)) as client:
        slow, fast = _Heard(), _Heard()
        node = client.get_node(tag.address)
        first = await client.create_subscription(50, slow)
        await first.subscribe_data_change(node, sampling_interval=1_000)
        await asyncio.sleep(0.5)
        assert len(slow.values) <= 2
        second = await client.create_subscription(50, fast)
        await second.subscribe_data_change(node, queuesize=100, sampling_interval=0)
        await until(lambda: len(fast.values) >= 20)
        for data in fast.values:
            assert data.Value.Value == raw_at(tag, milliseconds(data.SourceTimestamp))
        steps = [milliseconds(data.SourceTimestamp) // STEP_MS for data in fast.values]
        assert steps == sorted(set(steps))
        await second.delete()
        await first.delete()
        told = simulator.connections[0].changes
        await asyncio.sleep(0.2)
        assert simulator.connections[0].changes == told, "nobody is told when nobody listens"


async def test_what_one_client_knows_another_may_not() -> None:
    """A value that is back where it was is a change to who came in between."""
    tag = tag_of("ns=2;s=Pump.Running", ValueType.BOOL)
    clock, hour_ms = Clock(), 3_600_000
    begin, end = [h * hour_ms for h in range(500_000, 500_100) if raw_at(tag, h * hour_ms)][:2]
    between = next(ms for ms in range(begin, end, STEP_MS) if not raw_at(tag, ms))
    clock.ms = begin - STEP_MS
    async with serving(tags=[tag], now_ms=clock) as simulator, Client(url_of(simulator)) as client:
        server, node = simulator.connections[0], client.get_node(tag.address)
        first, second = _Heard(), _Heard()
        subscription = await client.create_subscription(50, first)
        await subscription.subscribe_data_change(node, sampling_interval=hour_ms)
        clock.ms = begin
        await until(lambda: server.changes == 1)
        clock.ms = between
        subscription = await client.create_subscription(50, second)
        await subscription.subscribe_data_change(node, sampling_interval=hour_ms)
        await until(lambda: len(second.values) == 1)
        clock.ms = end
        await until(lambda: len(second.values) == 2)
    assert [data.Value.Value for data in second.values] == [False, True]


# -- bad status --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_bad_values_cost_their_own_tags(mode: str) -> None:
    """From then on until then; the driver sees NaN, and the other nodes' values."""
    toml = (
        f"[[fault]]\nkind='bad_status'\nstatus='{BAD}'\naddress='ns=2;s=Pump.*'\nfrom_s=10\nfor_s=5"
    )
    seconds = Seconds()
    async with serving(toml, seconds=seconds) as simulator, driving(simulator, mode) as line:
        await line.until(lambda: len(line.newest()) == 4)
        assert not any(map(math.isnan, line.newest().values()))
        seconds.now = 10.0
        bad = {f"Pump.{name}" for name in PUMP}
        await line.until(lambda: {n for n, v in line.newest().items() if math.isnan(v)} == bad)
        levels = len(line.of("Tank.Level"))
        await line.until(lambda: len(line.of("Tank.Level")) >= levels + 3)
        assert not any(map(math.isnan, line.of("Tank.Level")))
        seconds.now = 15.0
        await line.until(lambda: not any(map(math.isnan, line.newest().values())))
        assert not line.errors
        line.check()
        assert simulator.connections[0].spoiled["bad_status"] >= 3


async def test_an_uncertain_value_is_still_a_value() -> None:
    """The status is as the file says; a bad one takes the value, an uncertain one does not."""
    toml = (
        f"[[fault]]\nkind='bad_status'\nstatus='{UNCERTAIN}'\naddress=['ns=2;s=Pump.Speed']\n"
        f"[[fault]]\nkind='bad_status'\nstatus='{BAD}'\naddress=['ns=2;s=Pump.[SR]*']\n"
    )
    tags = pump()
    async with serving(toml) as simulator, Client(url_of(simulator)) as client:
        nodes = [client.get_node(tag.address) for tag in tags]
        values = [await node.read_data_value(raise_on_bad_status=False) for node in nodes]
    assert [data.StatusCode.name for data in values] == [UNCERTAIN, "Good", BAD, "Good"]
    assert [data.Value.Value is None for data in values] == [False, False, True, False]
    speed = values[0]
    assert speed.Value.Value == raw_at(tags[0], milliseconds(speed.SourceTimestamp))


def test_brackets_in_an_address_also_mean_themselves() -> None:
    """Siemens writes arrays so; as a pattern alone it would not match itself."""
    address = 'ns=3;s="DB"."Arr"[1]'
    toml = f"[[fault]]\nkind='bad_status'\nstatus='{BAD}'\naddress='{address}'"
    OpcuaSimulator([tag_of(address)], faults=parse(toml))


async def statuses(seed: int, start_ms: int) -> list[str]:
    """A node's status at each of its first 40 steps."""
    toml = f"seed={seed}\n[[fault]]\nkind='bad_status'\nstatus='{BAD}'\nprobability=0.5"
    clock = Clock()
    clock.ms = start_ms
    found = []
    async with (
        serving(toml, now_ms=clock, tags=pump()) as simulator,
        Client(url_of(simulator)) as client,
    ):
        for _ in range(40):
            found += [data.StatusCode.name for data in await values_of(client, pump())]
            clock.ms += STEP_MS
    return found


async def test_the_same_seed_gives_the_same_faults() -> None:
    """On another day, at the same step since the start; another seed gives others."""
    first = await statuses(7, NOON)
    assert first == await statuses(7, NOON + 86_400_000)
    assert first != await statuses(8, NOON)
    assert 40 < first.count(BAD) < 120
    assert first[::4] != first[1::4], "each node has its own luck"


# -- restart -----------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("mode", MODES)
async def test_the_driver_survives_a_restart(mode: str) -> None:
    """Gone at once and for everybody, back on the same port without sessions and subscriptions.

    The server beside it does not notice.
    """
    other = "opc.tcp://10.0.0.8:4840"
    toml = f"[[fault]]\nkind='restart'\nconn='{CONN}'\nfrom_s=10\nfor_s=5"
    seconds = Seconds()
    async with (
        serving(toml, seconds=seconds, tags=[*pump(), *pump(other)]) as simulator,
        driving(simulator, mode, options="&timeout_ms=2000") as line,
        driving(simulator, mode, 1) as neighbour,
    ):
        server = simulator.connections[0]
        port = server.port
        await line.until(lambda: len(line.newest()) == 4)
        await neighbour.until(lambda: len(neighbour.newest()) == 4)
        async with Client(url_of(simulator, 1)) as client:
            started = await client.get_node(ua.ObjectIds.Server_ServerStatus_StartTime).read_value()
        seconds.now = 10.0
        await until(lambda: not server.listening)
        await line.until(lambda: len(line.errors) >= 2)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        known = len(line.samples)
        seconds.now = 15.0
        await until(lambda: server.listening)
        assert server.port == port
        await line.until(lambda: len({tag for tag, _, _ in line.samples[known:]}) == 4)
        line.check()
        assert server.sessions == 2
        assert server.spoiled == {"restart": 1}
        if mode == "subscribe":
            subscriptions = server._server.iserver.subscription_service.subscriptions
            await until(lambda: len(subscriptions) == 1)
            assert server.monitored_items == 8
        async with Client(url_of(simulator)) as client:
            again = await client.get_node(ua.ObjectIds.Server_ServerStatus_StartTime).read_value()
        assert again > started
        await neighbour.until(lambda: len(neighbour.of("Tank.Level")) >= 5)
        assert not neighbour.errors
        assert simulator.connections[1].sessions == 2  # the driver's, and ours


# -- the transport -----------------------------------------------------------------------------


async def test_a_delay_makes_replies_late() -> None:
    """Those of a session, while it is on."""
    seconds = Seconds()
    toml = "[[fault]]\nkind='delay'\ndelay_ms=300\nfrom_s=10"
    async with serving(toml, seconds=seconds) as simulator, Client(url_of(simulator)) as client:
        node = client.get_node("ns=2;s=Tank.Level")
        seconds.now = 10.0
        began = time.monotonic()
        await node.read_value()
        assert 0.3 <= time.monotonic() - began < 5
        assert simulator.connections[0].spoiled["delay"] >= 1


async def test_silence_leaves_the_session_alone() -> None:
    """A reply that does not come is no broken connection: the next one is understood."""
    seconds = Seconds()
    toml = "[[fault]]\nkind='silence'\nfrom_s=10\nfor_s=5"
    async with serving(toml, seconds=seconds) as simulator, driving(simulator, "poll") as line:
        await line.until(lambda: len(line.newest()) == 4)
        seconds.now = 10.0
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await line.driver.read(line.block)
        seconds.now = 15.0
        known = len(line.samples)
        await line.until(lambda: len({tag for tag, _, _ in line.samples[known:]}) == 4)
        line.check()
        server = simulator.connections[0]
        assert not line.errors
        assert (server.sessions, server.spoiled["silence"]) == (1, 2)


@pytest.mark.parametrize("mode", MODES)
async def test_a_close_costs_the_driver_its_connection(mode: str) -> None:
    """And no more: it is back with the next scan."""
    seconds = Seconds()
    toml = "[[fault]]\nkind='close'\nfrom_s=10\nfor_s=5"
    async with serving(toml, seconds=seconds) as simulator, driving(simulator, mode) as line:
        await line.until(lambda: len(line.newest()) == 4)
        seconds.now = 10.0
        await line.until(lambda: bool(line.errors))
        seconds.now = 15.0
        known = len(line.samples)
        await line.until(lambda: len({tag for tag, _, _ in line.samples[known:]}) == 4)
        line.check()
        assert simulator.connections[0].spoiled["close"] >= 1


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "messages"),
    [
        ("kind='bad_status'", ["key status: missing", "BadSensorFailure"]),
        ("kind='bad_status'\nstatus=3", ["key status: found 3"]),
        (f"kind='bad_status'\nstatus='{BAD}'\naddress=[]", ["key address: found []"]),
        (f"kind='bad_status'\nstatus='{BAD}'\nunit=1", ["key unit: not for a bad_status fault"]),
        ("kind='restart'\nprobability=0.5", ["key probability: not for a restart fault"]),
        ("kind='delay'\ndelay_ms=5\naddress='ns=2;s=A'", ["key address: not for a delay fault"]),
        ("kind='bad_status'\nstatus='BadSensorFailur'", ["such as BadSensorFailure"]),
        ("kind='bad_status'\nstatus='Good'", ["key status: found 'Good'", "bad or uncertain"]),
        (
            f"kind='bad_status'\nstatus='{BAD}'\naddress=['ns=2;s=Pump.*', 'ns=2;s=Tank.Levl']",
            ["key address: found 'ns=2;s=Tank.Levl'", "such as ns=2;s=Tank.Level"],
        ),
        (
            f"kind='bad_status'\nstatus='{BAD}'\nconn='opc.tcp://10.0.0.9:4840'",
            ["key conn", "of the map: opc.tcp://10.0.0.7:4840/plc"],
        ),
        ("kind='delay'\ndelay_ms=5\nunit=1", ["key unit: OPC UA has nodes"]),
        ("kind='exception'\ncode=2", ["key kind: found 'exception'", "bad_status, restart"]),
    ],
)
def test_a_wrong_fault_is_refused(toml: str, messages: Sequence[str]) -> None:
    """With its place, and with what is allowed, near names first."""
    with pytest.raises(ConfigError) as caught:
        OpcuaSimulator(pump(), faults=parse(f"[[fault]]\n{toml}"))
    for message in messages:
        assert message in str(caught.value)


def test_opc_uas_faults_are_not_for_modbus() -> None:
    """Each with what comes closest there."""
    tags = [make_tag("40001")]
    for toml, near in (
        (f"kind='bad_status'\nstatus='{BAD}'", "use exception"),
        ("kind='restart'", "use close, silence or dead"),
    ):
        with pytest.raises(ConfigError, match=near):
            Plant(tags, syntax=protocols.load, faults=parse(f"[[fault]]\n{toml}"))


def test_tags_that_cannot_be_had_are_named() -> None:
    """Each with its reason; the others are served."""
    tags = [
        tag_of("ns=2;s=A"),
        tag_of("i=2258"),
        tag_of("nsu=http://opcfoundation.org/UA/;i=2258"),
        tag_of("ns=2;i=0"),
        tag_of("ns=1001;s=A"),
        replace(tag_of("ns=2;s=A"), tag="again"),
        tag_of("ns=2;s=B", conn="opc.tcp://h?user=me&password_env=X"),
        tag_of("ns=2;s=B", conn="opc.tcp://h?security=Basic256Sha256&certificate=c&key=k"),
        make_tag("40001"),
    ]
    simulator = OpcuaSimulator(tags)
    assert [server.tags for server in simulator.connections] == [tags[:1]]
    assert [tag for tag, _ in simulator.unserved] == tags[1:]
    reasons = [reason for _, reason in simulator.unserved]
    for reason, word in zip(
        reasons,
        ["namespace 0", "namespace 0", "null", "up to 1000", "earlier", "user", "security",
         "modbus"],
        strict=True,
    ):  # fmt: skip
        assert word in reason


def test_a_map_without_opc_ua_is_refused() -> None:
    """There is nothing to listen on; nor is there with a map that nobody simulates."""
    with pytest.raises(ConfigError, match="no tag to simulate"):
        OpcuaSimulator([make_tag("40001")])
    with pytest.raises(ConfigError, match="no tag to simulate"):
        Plant([replace(make_tag("DB1.W0"), protocol="s7")], syntax=protocols.load)


async def test_a_taken_port_is_an_error_with_a_hint() -> None:
    """The server that was up by then is gone again; a later start uses the same ports."""
    first, second = free_port(), free_port()
    tags = [tag_of("ns=2;s=A", conn=f"opc.tcp://127.0.0.1:{port}") for port in (first, second)]
    simulator = OpcuaSimulator(tags)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", second))
        taken.listen()
        with pytest.raises(TransientError, match=f"cannot listen on 127.0.0.1:{second}") as caught:
            await simulator.start()
    assert "--port" in caught.value.hint
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", first)
    async with simulator, Client(url_of(simulator, 1)) as client:
        assert isinstance(await client.get_node("ns=2;s=A").read_value(), float)


# -- the whole plant ---------------------------------------------------------------------------


def mixed() -> list[Tag]:
    s7 = replace(make_tag("DB1.W0"), protocol="s7", conn="s7://10.0.0.9")
    return [make_tag("40001"), *pump(), s7, make_tag("40001", conn="tcp://10.0.0.6:502")]


def test_a_plant_has_the_plcs_of_all_protocols() -> None:
    """Ports count up from the first one, Modbus before OPC UA; the rest is named."""
    plant = Plant(mixed(), syntax=protocols.load, host="127.0.0.1", port=5020)
    assert [(one.conns[0], one.port) for one in plant.connections] == [
        ("tcp://10.0.0.5:502", 5020),
        ("tcp://10.0.0.6:502", 5021),
        (CONN, 5022),
    ]
    assert [(tag.protocol, reason) for tag, reason in plant.unserved] == [
        ("s7", "protocol s7 is not simulated; modbus and opcua are")
    ]


def test_two_protocols_do_not_share_a_port() -> None:
    """Neither in the map nor by the first port's absence."""
    tags = [make_tag("40001", conn="tcp://h:4840"), tag_of("ns=2;s=A", conn="opc.tcp://h:4840")]
    with pytest.raises(ConfigError, match="both listen on h:4840"):
        Plant(tags, syntax=protocols.load)


def test_all_problems_of_a_file_are_told_at_once() -> None:
    """Those of one protocol do not hide those of the other; none is told twice."""
    toml = """
        [[fault]]
        kind = "dead"
        unit = 9
        [[fault]]
        kind = "bad_status"
        status = "BadSensorFailur"
        [[fault]]
        kind = "close"
        conn = "tcp://10.0.0.99:502"
        """
    with pytest.raises(ConfigError) as caught:
        Plant(mixed(), syntax=protocols.load, faults=parse(toml))
    lines = str(caught.value).splitlines()
    assert sorted(line[:7] for line in lines) == ["fault 1", "fault 2", "fault 3"]
    assert CONN in lines[-1] or any(CONN in line for line in lines)


def test_rebind_moves_every_protocol() -> None:
    """Connections that shared a port still do; options stay, and so does what is not simulated."""
    tags = [
        *mixed(),
        tag_of("ns=2;s=B", conn=f"{CONN}?mode=poll"),
        tag_of("ns=2;s=B", conn="opc.tcp://h?user=me&password_env=X"),
    ]
    moved = rebind(tags)
    ports = [tag.conn.partition("127.0.0.1:")[2].partition("/")[0] for tag in moved]
    assert ports[5] == ports[8] == "", "s7, and a server with users"
    assert moved[5] == tags[5]
    assert moved[8] == tags[8]
    assert ports[1] == ports[4] == ports[7]
    assert moved[7].conn.endswith("/plc?mode=poll")
    assert len({ports[0], ports[1], ports[6]}) == 3


def test_a_demo_gets_no_tag_of_a_real_plc(tmp_path: Path) -> None:
    """What is kept is moved to loopback or into the folder, or needs nobody; the rest is told."""
    tags = [
        *mixed(),
        tag_of("ns=2;s=B", conn="opc.tcp://h?user=me&password_env=X"),
        make_tag("40001", conn="tcp+tls://10.0.0.5:802"),
        make_tag("40001", conn="rtu:///dev/ttyUSB0"),
        replace(make_tag("7", conn="sim://x"), protocol="simulated"),
    ]
    tags = [replace(tag, tag=f"T{number}") for number, tag in enumerate(tags)]
    kept, unserved = safe(tags, protocols.load, tmp_path)
    assert sorted(tag.tag for tag in (*kept, *(tag for tag, _ in unserved))) == sorted(
        tag.tag for tag in tags
    )
    for tag in kept:
        assert "127.0.0.1" in tag.conn or str(tmp_path) in tag.conn or tag.conn == "sim://x"
    assert {tag.protocol for tag in kept} == {"modbus", "opcua", "simulated"}
    assert any(tag.conn.startswith("rtu:") for tag in kept)
    lines = told(unserved)
    assert len(lines) == 3
    assert {line.split(" (")[0] for line in lines} == {
        "not simulated: 1 row of s7",
        "not simulated: 1 row of opcua",
        "not simulated: 1 row of modbus",
    }


async def test_it_runs_as_a_process(tmp_path: Path) -> None:
    """Modbus and OPC UA in one, with faults; a second line of JSON says what was counted."""
    path, faults = tmp_path / "address_map.csv", tmp_path / "faults.toml"
    address_map.write(path, [replace(make_tag("40001"), tag="LEVEL"), *pump()])
    faults.write_text(f"[[fault]]\nkind='bad_status'\nstatus='{BAD}'\naddress='ns=2;s=Tank.*'")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge_agent.simulator", str(path), "--host=127.0.0.1", "--port=0",
        f"--faults={faults}", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            listening = json.loads(await process.stdout.readline())["listening"]
        assert [entry["protocol"] for entry in listening] == ["modbus", "opcua"]
        async with Client(f"opc.tcp://127.0.0.1:{listening[1]['port']}") as client:
            values = await values_of(client, pump())
        assert [data.StatusCode.name for data in values] == ["Good", "Good", "Good", BAD]
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WITHIN_S):
            output, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
        counted = json.loads(output)["counted"][1]
        assert (counted["sessions"], counted["spoiled"]) == (1, {"bad_status": 1})
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
