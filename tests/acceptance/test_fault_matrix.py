"""Every fault on every kind of connection against the whole agent.

Of one transport, all faults are on at once, each on a connection of its own with a sick unit (of
OPC UA: sick nodes), for ``FAULT_S``. Simulated PLCs have their faults from the simulator; S7 and
MQTT, of which there is no simulator, from a relay in front of a foreign server. What is asked of
the agent afterwards, by the samples in its store:

* The sick tags are read again within two periods of the fault's end.
* No value is made up: each one is what the PLC had at that time.
* Nobody else notices: a connection without a fault loses no scan, and of a connection with a sick
  unit the other unit loses none either, where the fault is the unit's own.
"""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from time import time_ns

import aiomqtt
import pytest

from edge_agent import address_map
from edge_agent.model import Tag, TagKey, ValueType
from edge_agent.simulator import matches
from edge_agent.store.reader import StoreReader
from tests.chaos import Proxy, Spoil, cut_after, halves, late, mute, passing
from tests.plant import Agent, Simulator, make_tags
from tests.s7_server import S7Server
from tests.servers import Mosquitto, free_port, wait_until

PERIOD_MS = 1000
FROM_S, FAULT_S, AFTER_S = 8, 12, 6
RETURN_MS_MAX = 2 * PERIOD_MS
NEAR_MS = 500
"""When the simulator's seconds began is known this well, on a busy machine."""
GAP_MS_MAX = 2 * PERIOD_MS - 100
LATE_MS = 1_000
"""How old a value may be: the fault's delay, and a step of 50 ms."""
SICK, WELL = 1, 2
TAGS = 3

FAULTS = {
    "delay": "delay_ms = 600",
    "jitter": "jitter_ms = 600",
    "silence": "",
    "exception": "code = 4",
    "wrong_transaction": "",
    "wrong_unit": "shift = 5",
    "bad_crc": "",
    "half_frame": 'then = "nothing"',
    "close": "",
    "dead": "",
    "bad_status": 'status = "BadSensorFailure"',
    "restart": "",
}
"""Every kind, with the keys that it needs."""
MODBUS = ("delay", "jitter", "silence", "exception", "wrong_unit", "half_frame", "dead")
KINDS = {
    "tcp": (*MODBUS, "wrong_transaction", "close"),
    "rtu+tcp": (*MODBUS, "bad_crc", "close"),
    "rtu": (*MODBUS, "bad_crc"),
    "opc.tcp": ("delay", "jitter", "silence", "close", "bad_status", "restart"),
    "opc.tcp poll": ("delay", "jitter", "silence", "close", "bad_status", "restart"),
}
RELAYED: dict[str, Spoil] = {
    "delay": late(0.6),
    "silence": mute,
    "half_frame": halves(5, 0.5),
    "close": cut_after(3),
}
"""What a relay makes of a server's replies; "refuse" takes no connection at all."""
MAY_LOSE_NOTHING = {"s7": set[str](), "mqtt": {"delay", "half_frame"}}
"""Faults that only make a protocol's values late."""
COUNTED_MAX = 100
UNITS_OWN = {"silence", "exception", "wrong_unit", "bad_crc", "dead"}
"""What one unit does without touching the connection."""


@dataclass(frozen=True)
class Cell:
    """One fault on one kind of connection; without a fault, one that must not notice any."""

    transport: str
    kind: str | None
    conn: str

    @property
    def name(self) -> str:
        """Its device, but for the unit."""
        transport = self.transport.replace("+", "-").replace(" ", "-")
        return f"{transport}.{self.kind or 'well'}"

    def tags(self) -> list[Tag]:
        """Those of its units; of OPC UA there is one."""
        opcua = self.transport.startswith("opc")
        return [
            replace(
                tag,
                device=f"{self.name}.{unit}",
                protocol="opcua" if opcua else "modbus",
                conn=self.conn,
                unit_id=unit,
                address=f"ns=2;s={self.name}.{tag.tag}" if opcua else f"hr:{place * 2}",
                type=ValueType.FLOAT32,
                scale=1.0,
            )
            for unit in ((SICK,) if opcua else (SICK, WELL))
            for place, tag in enumerate(make_tags(TAGS, PERIOD_MS))
        ]

    def toml(self) -> str:
        """Its fault."""
        if self.kind is None:
            return ""
        where = "" if self.transport.startswith("opc") else f"unit = {SICK}\n"
        return (
            f'[[fault]]\nkind = "{self.kind}"\nconn = "{self.conn}"\n{where}'
            f"from_s = {FROM_S}\nfor_s = {FAULT_S}\n{FAULTS[self.kind]}\n"
        )


def matrix(transport: str, folder: Path) -> list[Cell]:
    """All cells of a transport, each with a connection."""
    cells = []
    scheme = transport.partition(" ")[0]
    for kind in (*KINDS[transport], None):
        if scheme == "rtu":
            conn = f"rtu://{folder}/{kind or 'well'}?parity=N&timeout_ms=300"
        else:
            conn = f"{scheme}://127.0.0.1:{free_port()}?timeout_ms=300"
        cells.append(Cell(transport, kind, conn + "&mode=poll" * ("poll" in transport)))
    return cells


def samples(data_dir: Path) -> Iterator[tuple[tuple[str, str, str], int, float]]:
    """All that an agent has stored: key, ms, value."""
    reader = StoreReader(data_dir / "store.db")
    for series in reader.series():
        for ts_ms, value in zip(*reader.raw(series, 0, 1 << 42), strict=True):
            yield (series.site, series.device, series.tag), ts_ms, value


def worst_gap_ms(times: Iterable[int]) -> int:
    """The longest time between two samples."""
    return max((b - a for a, b in pairwise(sorted(times))), default=0)


def late_return(times: Iterable[int], end_ms: int, allowed_ms: int) -> str:
    """What is wrong with the first sample after the fault's end, if anything is."""
    after = min((ts - end_ms for ts in times if ts >= end_ms - NEAR_MS), default=None)
    if after is None:
        return "never came back"
    return f"came back after {after} ms" if after > allowed_ms + NEAR_MS else ""


def judged(cell: Cell, times: Mapping[str, set[int]], end_ms: int) -> Iterator[str]:
    """What is wrong with a cell."""
    sick, well = times[f"{cell.name}.{SICK}"], times[f"{cell.name}.{WELL}"]
    if cell.kind is None:
        if worst_gap_ms(sick) > GAP_MS_MAX:
            yield f"without a fault, was not read for {worst_gap_ms(sick)} ms"
        return
    if problem := late_return(sick, end_ms, RETURN_MS_MAX):
        yield problem
    if cell.kind in UNITS_OWN and worst_gap_ms(well) > GAP_MS_MAX:
        yield f"the other unit was not read for {worst_gap_ms(well)} ms"
    if cell.kind not in {"jitter", "delay"} and worst_gap_ms(sick) < FAULT_S * 1000 / 2:
        yield "the fault was not felt"


@pytest.mark.long
@pytest.mark.parametrize("transport", KINDS)
def test_every_fault_of_the_simulator(transport: str, tmp_path: Path) -> None:
    """See the module's text; all that is wrong is told at once."""
    cells = matrix(transport, tmp_path)
    tags = [tag for cell in cells for tag in cell.tags()]
    by_key = {tag.key: tag for tag in tags}
    map_path = tmp_path / "address_map.csv"
    address_map.write(map_path, tags)
    agent = Agent(tmp_path / "agent", map_path)
    agent.configure(["[store]\nenabled = true"])
    faults = "".join(cell.toml() for cell in cells)
    with Simulator(tmp_path / "plc", tags, faults=faults) as plc:
        end_ms = time_ns() // 1_000_000 + (FROM_S + FAULT_S) * 1000
        with agent:
            wait_until(lambda: time_ns() // 1_000_000 > end_ms + AFTER_S * 1000, "the end", 60)
            agent.stop()
        assert "Traceback" not in agent.log() + (plc.folder / "server.log").read_text()
    assert agent.exit_code == 0
    times: dict[str, set[int]] = defaultdict(set)
    wrong = []
    for key, ts_ms, value in samples(agent.data_dir):
        times[key[1]].add(ts_ms)
        if not matches(by_key[TagKey(*key)], ts_ms, value, late_ms=LATE_MS):
            wrong.append((key[1], ts_ms, value))
    problems = [f"{cell.name}: {what}" for cell in cells for what in judged(cell, times, end_ms)]
    if wrong:
        problems.append(f"{len(wrong)} values that no PLC had: {wrong[:3]}")
    assert not problems, "\n".join(problems)


@asynccontextmanager
async def relays(port: int) -> AsyncIterator[dict[str | None, Proxy]]:
    """One for each fault, and one that has none, in front of a server."""
    async with AsyncExitStack() as stack:
        yield {
            kind: await stack.enter_async_context(Proxy(port))
            for kind in (*RELAYED, "refuse", None)
        }


async def spoil(proxies: Mapping[str | None, Proxy]) -> int:
    """All faults on, and off again; the ms at which they ended."""
    await asyncio.sleep(FROM_S)
    for kind, fault in RELAYED.items():
        proxies[kind].spoil = fault
    await proxies["refuse"].refuse()
    await asyncio.sleep(FAULT_S)
    for proxy in proxies.values():
        proxy.spoil = passing
    await proxies["refuse"].accept()
    end_ms = time_ns() // 1_000_000
    await asyncio.sleep(AFTER_S)
    return end_ms


def relayed(protocol: str, proxies: Mapping[str | None, Proxy], address: str) -> list[Tag]:
    """A tag behind each relay."""
    [plain] = make_tags(1, PERIOD_MS)
    return [
        replace(
            plain,
            device=kind or "well",
            protocol=protocol,
            conn=f"{protocol}://127.0.0.1:{proxy.port}?timeout_ms=300",
            address=address,
            type=ValueType.FLOAT32,
            scale=1.0,
        )
        for kind, proxy in proxies.items()
    ]


async def watched(
    folder: Path, protocol: str, port: int, address: str
) -> AsyncIterator[tuple[str, float]]:
    """Let an agent read a tag through relays while they fail, judge its samples by their times.

    Yields (device, value) of each sample.
    """
    async with relays(port) as proxies:
        map_path = folder / "address_map.csv"
        address_map.write(map_path, relayed(protocol, proxies, address))
        agent = Agent(folder / "agent", map_path)
        agent.configure(["[store]\nenabled = true"])
        await asyncio.to_thread(agent.start)
        try:
            end_ms = await spoil(proxies)
        finally:
            await asyncio.to_thread(agent.stop)
    assert agent.exit_code == 0
    assert "Traceback" not in agent.log()
    times: dict[str, set[int]] = defaultdict(set)
    for (_, device, _), ts_ms, value in samples(agent.data_dir):
        times[device].add(ts_ms)
        yield device, value
    problems = []
    for kind in (*RELAYED, "refuse"):
        if problem := late_return(times[kind], end_ms, RETURN_MS_MAX):
            problems.append(f"{kind}: {problem}")
        if kind not in MAY_LOSE_NOTHING[protocol] and worst_gap_ms(times[kind]) < FAULT_S * 500:
            problems.append(f"{kind}: the fault was not felt")
    if worst_gap_ms(times["well"]) > GAP_MS_MAX:
        problems.append(f"without a fault, was not read for {worst_gap_ms(times['well'])} ms")
    assert not problems, "\n".join(problems)


@pytest.mark.long
async def test_every_fault_of_a_relay_before_s7(tmp_path: Path) -> None:
    """One foreign CPU, whose value stands still."""
    with S7Server(tmp_path / "cpu", {"DB1": struct.pack(">f", 12.5)}) as cpu:
        async for device, value in watched(tmp_path, "s7", cpu.port, "DB1.DBD0"):
            assert value == 12.5, device


@pytest.mark.long
async def test_every_fault_of_a_relay_before_mqtt(tmp_path: Path) -> None:
    """One broker, to which somebody counts; no number comes twice or out of turn."""

    async def count(port: int) -> None:
        async with aiomqtt.Client("127.0.0.1", port) as client:
            for number in range(1, COUNTED_MAX):
                await client.publish("factory/count", str(number), qos=1)
                await asyncio.sleep(PERIOD_MS / 1000)

    with Mosquitto(tmp_path / "broker") as broker:
        counting = asyncio.create_task(count(broker.port))
        numbers: dict[str, list[float]] = defaultdict(list)
        async for device, value in watched(tmp_path, "mqtt", broker.port, "factory/count"):
            numbers[device].append(value)
        counting.cancel()
    for device, found in numbers.items():
        assert found == sorted(set(found)), device
        assert set(found) <= set(range(1, COUNTED_MAX)), device
