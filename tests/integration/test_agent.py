"""The agent in this process: real journal, real store, real HTTP, and PLCs that need no network."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import time
from array import array
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import random
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_agent import address_map, protocols, supervisor
from edge_agent import agent as agent_module
from edge_agent.agent import Agent
from edge_agent.errors import ConfigError, TransientError
from edge_agent.journal import Policy
from edge_agent.model import Tag, ValueType
from edge_agent.pipeline import delivery
from edge_agent.pipeline import upkeep as upkeep_module
from edge_agent.postgres.health import HealthCheck
from edge_agent.protocols.simulated import UNREADABLE_FROM, signal
from edge_agent.settings import load_settings
from edge_agent.sinks import Destination
from edge_agent.sinks.memory import MemorySink
from edge_agent.status.exposition import METRICS
from edge_agent.status.figures import HEALTH_FRESH_S, AgentStatus
from tests.servers import free_port
from tests.tags import plain_tag
from tests.waiting import until

WAIT_S = 15.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that no test waits for."""
    monkeypatch.setattr(supervisor, "RESTART_PAUSE_S", 0.01)
    monkeypatch.setattr(delivery, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(delivery, "BACKOFF_MAX_S", 0.02)


def make_tag(tag: str, cell: int = 1, conn: str = "sim://a", **fields: Any) -> Tag:
    """A tag of a simulated PLC."""
    usual = {"protocol": "simulated", "address": str(cell), "period_ms": 200}
    return plain_tag(tag, conn=conn, **usual | fields)


class Clock:
    """Monotonic time, which can be put ahead."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


class Rig:
    """An agent that runs in this event loop, and a client for its HTTP server."""

    def __init__(self, agent: Agent, task: asyncio.Task[None], http: aiohttp.ClientSession) -> None:
        self.agent = agent
        self.task = task
        self._http = http

    async def get(self, route: str) -> tuple[int, Any]:
        """Status code and body; JSON decoded."""
        async with self._http.get(route) as reply:
            text = await reply.text()
            return reply.status, json.loads(text) if reply.content_type.endswith("json") else text

    async def until(self, condition: Callable[[AgentStatus], bool]) -> AgentStatus:
        """Wait until the agent's status is so."""
        async with asyncio.timeout(WAIT_S):
            while not condition(status := await self.agent.report.status()):
                assert not self.task.done(), "the agent has ended"
                await asyncio.sleep(0.01)
        return status

    async def stop(self) -> AgentStatus:
        """An orderly end; the last status."""
        self.agent.stop()
        async with asyncio.timeout(WAIT_S):
            await self.task
        assert self.agent.last_status is not None
        return self.agent.last_status


def make_agent(
    folder: Path,
    tags: Sequence[Tag],
    port: int,
    overrides: Mapping[str, object],
    monotonic: Callable[[], float] = time.monotonic,
) -> Agent:
    folder.mkdir(exist_ok=True)
    path = folder / "address_map.csv"
    address_map.write(path, tags)
    settings = load_settings(
        None,
        {},
        {
            "agent.data_dir": str(folder / "data"),
            "agent.http": f"127.0.0.1:{port}",
            "agent.id": "test",
            "agent.commit_interval_ms": 50,
        }
        | dict(overrides),
    )
    return Agent(settings, address_map.load(path, protocols.load), monotonic=monotonic)


@asynccontextmanager
async def running(
    folder: Path,
    tags: Sequence[Tag],
    sinks: Sequence[Destination] = (),
    overrides: Mapping[str, object] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Rig]:
    """An agent with the store, or with the sinks given."""
    port = free_port()
    agent = make_agent(folder, tags, port, overrides or {}, monotonic)
    if sinks:
        agent.destinations = list(sinks)
    task = asyncio.create_task(agent.run(handle_signals=False))
    try:
        await until(lambda: agent.machinery.runners or task.done(), within_s=WAIT_S)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            yield Rig(agent, task, http)
    finally:
        agent.stop()
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]


def all_delivered(status: AgentStatus, samples: int = 1) -> bool:
    return all(sink["delivered"] >= samples for sink in status["sinks"])


# -- all is well --------------------------------------------------------------------------------


async def test_samples_flow_from_plc_to_sink_with_their_values(tmp_path: Path) -> None:
    """What arrives is what the PLC had, tag by tag and time by time, once and in order."""
    sink = MemorySink()
    tags = [make_tag("PRESS", 1), make_tag("FLOW", 7, scale=2.0, offset=-3.0)]
    async with running(tmp_path, tags, [Destination(sink)]) as rig:
        await rig.until(lambda status: all_delivered(status, 10))
        last = await rig.stop()
    assert last["journal"]["taken"] == last["sinks"][0]["delivered"] == len(sink.samples)
    cells = {"PRESS": (1, 1.0, 0.0), "FLOW": (7, 2.0, -3.0)}
    for series, ts_ms, value in sink.samples:
        cell, scale, offset = cells[series.tag]
        assert value == signal(1, cell, ValueType.FLOAT32, ts_ms) * scale + offset
    for tag in cells:
        times = [ts_ms for series, ts_ms, _ in sink.samples if series.tag == tag]
        assert times == sorted(set(times))


async def test_a_healthy_agent_says_so(tmp_path: Path) -> None:
    """Every route, and the status that the other two are made from."""
    tags = [make_tag("PRESS", 1, hi=90.0), make_tag("TEMP", 2, "sim://b", device="PUMP02")]
    async with running(tmp_path, tags) as rig:
        await rig.until(lambda status: all_delivered(status) and status["well"])
        assert await rig.get("/healthz") == (200, {"healthy": True, "stalled": []})
        verdict = "All well: 2 tags on 2 connections flow to store"
        assert await rig.get("/readyz") == (200, {"ready": True, "verdict": verdict})
        code, status = await rig.get("/status")
        assert (code, status["agent"]["id"], status["agent"]["tags"]) == (200, "test", 2)
        assert [device["device"] for device in status["devices"]] == ["PUMP01", "PUMP02"]
        (press,) = status["devices"][0]["tags"]
        assert (press["quality"], press["hi"], press["error"]) == ("good", 90.0, None)
        assert press["value"] == signal(1, 1, ValueType.FLOAT32, press["ts_ms"])
        code, text = await rig.get("/metrics")
        assert code == 200
        assert {f.name for f in text_string_to_metric_families(text)} == METRICS.keys()
        assert (await rig.get("/"))[0] == 404


async def test_values_are_columns_by_the_positions_of_the_status(tmp_path: Path) -> None:
    """Who asks each second gets every tag's newest value, and nothing that stays the same."""
    tags = [
        make_tag("SLOW", 1, period_ms=400),
        make_tag("BAD", UNREADABLE_FROM),
        make_tag("FAST", 2, type=ValueType.INT16, scale=0.1),
        make_tag("RUN", 4, type=ValueType.BOOL),
        make_tag("FAR", 3, "sim://b", device="PUMP02", description="second pump", precision=2),
    ]
    async with running(tmp_path, tags) as rig:
        await rig.until(lambda status: all_delivered(status, 6))
        code, live = await rig.get("/values")
        _, status = await rig.get("/status")
        listed = [tag for device in status["devices"] for tag in device["tags"]]
        assert code == 200
        assert live["layout"] == status["agent"]["layout"]
        assert sorted(tag["position"] for tag in listed) == [0, 1, 2, 3, 4]
        for tag in listed:
            place = tag["position"]
            assert live["qualities"][place] == tag["quality"][0]
            if tag["tag"] == "BAD":
                assert (live["values"][place], live["ts_ms"][place]) == (None, None)
                continue
            source = next(row for row in tags if row.tag == tag["tag"])
            cell = int(source.address)
            wanted = signal(1, cell, source.type, live["ts_ms"][place]) * source.scale
            assert live["values"][place] == pytest.approx(wanted, abs=0.01)
        far = next(tag for tag in listed if tag["tag"] == "FAR")
        assert (far["description"], far["digits"]) == ("second pump", 2)
        assert {tag["tag"]: tag["digits"] for tag in listed} == {
            "SLOW": None,
            "BAD": None,
            "FAR": 2,
            "FAST": 1,
            "RUN": 0,
        }
        assert (await rig.get("/status?devices=0"))[1]["devices"] == []


async def test_losses_are_the_newest_rows_of_the_ledger(tmp_path: Path) -> None:
    """Each with its tag, as far as it is known; none at first."""
    async with running(tmp_path, [make_tag("PRESS")]) as rig:
        await rig.until(lambda status: all_delivered(status, 3))
        assert await rig.get("/losses") == (200, {"losses": []})
        journal = rig.agent.journal
        series_id = journal.intern(make_tag("PRESS").series)

        def lose() -> None:
            with journal._file._transaction():
                journal._file.books.lose({("store", None): (None, None, 7)}, "journal damaged")
                journal._file.books.lose({("store", series_id): (1, 9, 3)}, "dropped: full")

        await journal._in_thread(lose)
        code, body = await rig.get("/losses")
    assert code == 200
    newest, oldest = body["losses"]
    assert (newest["site"], newest["device"], newest["tag"]) == ("A1", "PUMP01", "PRESS")
    assert (newest["first_ts_ms"], newest["last_ts_ms"], newest["samples"]) == (1, 9, 3)
    assert (oldest["tag"], oldest["samples"], oldest["reason"]) == (None, 7, "journal damaged")


async def test_the_books_balance_after_every_end(tmp_path: Path) -> None:
    """Three runs on the same journal: taken = delivered, and nothing twice."""
    sink = MemorySink()
    for run in range(3):
        async with running(tmp_path, [make_tag("PRESS")], [Destination(sink)]) as rig:
            await rig.until(lambda status, run=run: all_delivered(status, 3 * run + 3))  # type: ignore[misc]
            last = await rig.stop()
        assert last["journal"]["taken"] == last["sinks"][0]["delivered"] == len(sink.samples)
        assert last["journal"]["uncommitted"] == last["sinks"][0]["pending"] == 0
    assert len(sink.samples) == len(set(sink.samples))


# -- where the data stops -----------------------------------------------------------------------


async def test_a_plc_that_is_away(tmp_path: Path) -> None:
    """Named in the verdict, its tags stale; the other connection is not touched."""
    away = make_tag(
        "TEMP", conn=f"tcp://127.0.0.1:{free_port()}", protocol="modbus", address="40001",
        device="PUMP02",
    )  # fmt: skip
    async with running(tmp_path, [make_tag("PRESS"), away]) as rig:
        status = await rig.until(lambda status: all_delivered(status, 3))
        status = await rig.until(lambda status: status["connections"][1]["errors"] != {})
        assert status["verdict"].startswith(f"Data stops at {away.conn}: ")
        assert (await rig.get("/readyz"))[0] == 503
        assert (await rig.get("/healthz"))[0] == 200, "nothing of ours is stuck"
        (tag,) = status["devices"][1]["tags"]
        assert (tag["quality"], tag["value"]) == ("stale", None)
        assert tag["error"]


async def test_a_tag_that_can_not_be_read(tmp_path: Path) -> None:
    """Bad, with the device's words; its neighbours flow, and the verdict counts it."""
    tags = [make_tag("PRESS"), make_tag("GHOST", UNREADABLE_FROM)]
    async with running(tmp_path, tags) as rig:
        status = await rig.until(lambda s: all_delivered(s, 3) and s["connections"][0]["bad"] > 0)
        assert status["well"]
        assert status["verdict"].startswith(
            "1 of 2 tags on 1 connection flows to store; 1 is bad or not read yet: A1/PUMP01/GHOST"
        )
        ghost = status["devices"][0]["tags"][1]
        assert (ghost["quality"], ghost["value"]) == ("bad", None)
        assert "can't be read" in str(ghost["error"])


async def test_a_sink_that_is_down(tmp_path: Path) -> None:
    """Named, with since when and what waits; the other sink has everything; it drains later."""
    down, well = MemorySink(), MemorySink()
    down.name, down.is_down = "broker", True
    async with running(
        tmp_path, [make_tag("PRESS")], [Destination(down), Destination(well)]
    ) as rig:
        status = await rig.until(lambda s: s["sinks"][1]["delivered"] >= 5 and not s["well"])
        assert status["verdict"].startswith("Data stops at broker for ")
        assert status["verdict"].endswith("memory sink is down")
        waiting = status["sinks"][0]
        assert waiting["pending"] == status["journal"]["taken"] > 0
        assert waiting["lag_s"] > 0, "the age of what waits is known although it never opened"
        down.is_down = False
        await rig.until(lambda s: s["well"] and s["sinks"][0]["pending"] <= 1)
        last = await rig.stop()
    assert down.samples == well.samples
    assert {sink["pending"] for sink in last["sinks"]} == {0}


async def test_an_end_with_a_sink_down_is_in_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At most shutdown_timeout_s; what was not delivered is there at the next start."""
    sink = MemorySink()
    sink.is_down = True
    tags, short = [make_tag("PRESS")], {"agent.shutdown_timeout_s": 1.0}
    async with running(tmp_path, tags, [Destination(sink)], short) as rig:
        await rig.until(lambda status: status["sinks"][0]["pending"] >= 3)
        started = time.monotonic()
        last = await rig.stop()
        assert time.monotonic() - started < 4
    assert "memory: stops with samples left in the journal" in caplog.text
    left = last["sinks"][0]["pending"]
    sink.is_down = False
    async with running(tmp_path, tags, [Destination(sink)]) as rig:
        await rig.until(lambda status: all_delivered(status, left + 1))
        last = await rig.stop()
    assert last["journal"]["taken"] == len(sink.samples)


async def test_a_full_journal_pauses_reading(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Policy `stop`: said in the verdict, and reading goes on once a sink has made room."""
    sink = MemorySink()
    sink.is_down = True
    overrides = {"journal.policy": Policy.STOP.value, "journal.bytes_max": 1_000_000}
    tags = [make_tag("PRESS")]
    async with running(tmp_path, tags, [Destination(sink)], overrides) as rig:
        journal = rig.agent.journal
        ids = array("I", [journal.intern(tags[0].series)] * 5000).tobytes()
        while not journal.full:
            journal.append(time.time_ns() // 1_000_000, ids, [random() for _ in range(5000)])
            await journal.flush()
        status = await rig.until(lambda _: "reading paused" in caplog.text)
        assert "the journal: it is full, reading of the PLCs is paused" in status["verdict"]
        assert (await rig.get("/healthz"))[0] == 200, "a poller that waits is not stuck"
        sink.is_down = False
        taken = status["journal"]["taken"]
        await rig.until(lambda s: not s["journal"]["full"] and s["journal"]["taken"] > taken)
        last = await rig.stop()
    assert last["journal"]["taken"] == last["sinks"][0]["delivered"] == len(sink.samples)
    assert last["connections"][0]["paused_s"] > 0
    assert last["sinks"][0]["lost"] == 0


# -- errors that nobody expected ----------------------------------------------------------------


@pytest.mark.parametrize("victim", ["journal", "poller", "runner"])
async def test_a_task_that_crashes_is_started_again(
    tmp_path: Path, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Counted, said, and the data flows on."""
    async with running(tmp_path, [make_tag("PRESS")]) as rig:
        await rig.until(lambda status: all_delivered(status))
        agent = rig.agent
        runner = agent.machinery.runners[0]
        target: Any
        target, method, kept = {
            "journal": (agent.journal, "_commit", agent.journal._commit),
            "poller": (agent.pollers[0], "_read", agent.pollers[0]._read),
            "runner": (runner, "_deliver", runner._deliver),
        }[victim]

        async def crash(*_: object) -> None:
            setattr(target, method, kept)
            raise AssertionError("a defect")

        setattr(target, method, crash)
        status = await rig.until(lambda status: status["agent"]["restarts"] == 1)
        before = status["sinks"][0]["delivered"]
        await rig.until(lambda status: all_delivered(status, before + 3))
        assert "edge_agent_task_restarts_total 1.0" in (await rig.get("/metrics"))[1]
        last = await rig.stop()
    assert "failed and is started again" in caplog.text
    assert last["sinks"][0]["pending"] == 0


async def test_a_chore_that_fails_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A sink's upkeep is no reason to restart anything."""
    caplog.set_level(logging.DEBUG, upkeep_module.__name__)
    calls = 0

    async def upkeep() -> None:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise TransientError("locked") if calls == 1 else TimeoutError("too slow")

    destination = Destination(MemorySink(), upkeep=upkeep, upkeep_interval_s=0.01)
    async with running(tmp_path, [make_tag("PRESS")], [destination]) as rig:
        await rig.until(lambda _: calls >= 5)
        assert rig.agent.machinery.restarts == 0
    told = [record.levelno for record in caplog.records if "upkeep" in record.message]
    assert told == [logging.WARNING, logging.DEBUG, logging.DEBUG, logging.INFO]


@dataclass(frozen=True)
class Examination:
    """A report of upkeep that brings what the database says of itself."""

    health: tuple[HealthCheck, ...]


async def test_what_the_database_says_reaches_every_reader(tmp_path: Path) -> None:
    """Status, verdict and metrics tell of a problem, and take nothing old for new."""
    lost = HealthCheck("slot_wal_bytes", "plc_edge", 5e9, "slot plc_edge is lost")
    answers: list[Examination | TransientError] = [Examination((lost,))]

    async def upkeep() -> Examination:
        answer = answers[0]
        if isinstance(answer, TransientError):
            raise answer
        return answer

    destination = Destination(MemorySink(), upkeep=upkeep, upkeep_interval_s=0.01)
    clock = Clock()
    async with running(tmp_path, [make_tag("PRESS")], [destination], monotonic=clock) as rig:
        status = await rig.until(lambda s: all_delivered(s) and s["problems"] != [])
        assert status["problems"] == ["memory: slot plc_edge is lost"]
        assert (await rig.get("/readyz"))[0] == 200, "data flows, whatever the database says"
        _, seen = await rig.get("/status")
        assert (seen["well"], seen["verdict"]) == (
            False,
            "Data flows, but memory: slot plc_edge is lost",
        )
        assert seen["upkeep"][0]["checks"] == [asdict(lost)]
        figure = 'edge_agent_database_check{check="slot_wal_bytes",object="plc_edge"} 5e+09'
        assert figure in (await rig.get("/metrics"))[1]
        answers[0] = TransientError("no route to host")
        await rig.until(lambda s: s["upkeep"][0]["error"] is not None)
        clock.ahead_s = HEALTH_FRESH_S
        status = await rig.agent.report.status()
        assert status["upkeep"][0]["checks"] == []
        assert status["problems"][0].startswith("memory: no upkeep for ")
        assert figure not in (await rig.get("/metrics"))[1]
        assert 'edge_agent_upkeep_up{sink="memory"} 0.0' in (await rig.get("/metrics"))[1]
        answers[0] = Examination((replace(lost, problem=None),))
        await rig.until(lambda s: s["well"] and s["verdict"].startswith("All well"))


@pytest.mark.parametrize("address", ["taken", "a..b:80", "nosuch.invalid:80"])
async def test_an_address_that_can_not_be_served_leaves_the_agent_running(
    tmp_path: Path, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Data comes first; the log says which setting to change."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        if address == "taken":
            address = f"127.0.0.1:{other.getsockname()[1]}"
        async with running(tmp_path, [make_tag("PRESS")], overrides={"agent.http": address}) as rig:
            await rig.until(all_delivered)
    assert f"HTTP is off: {address}: " in caplog.text
    assert "agent.http" in caplog.text


async def test_two_agents_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second one is told at once, and the first one does not notice."""
    async with running(tmp_path, [make_tag("PRESS")]) as rig:
        await rig.until(all_delivered)
        second = make_agent(tmp_path, [make_tag("PRESS")], 0, {})
        with pytest.raises(ConfigError, match="in use by a running agent") as caught:
            await second.run(handle_signals=False)
        assert "--data-dir" in caught.value.hint
        taken = (await rig.agent.report.status())["journal"]["taken"]
        await rig.until(lambda status: status["journal"]["taken"] > taken)


# -- the watchdog -------------------------------------------------------------------------------


async def test_a_poller_that_is_stuck_is_named(tmp_path: Path) -> None:
    """Health fails with its name; a request may take its own timeout on top."""
    tags = [make_tag("PRESS"), make_tag("TEMP", conn="sim://b")]
    clock = Clock()
    async with running(tmp_path, tags, monotonic=clock) as rig:
        await rig.until(all_delivered)
        stuck, poller = asyncio.Event(), rig.agent.pollers[1]

        async def hang(_: object) -> None:
            stuck.set()
            await asyncio.Event().wait()

        poller._read = hang  # type: ignore[assignment, method-assign]
        await stuck.wait()
        limit_s = agent_module.STALLED_S + poller.timeout_s
        clock.ahead_s = limit_s / 2
        assert rig.agent.stalled() == []
        await until(lambda: rig.agent.pollers[0].beat_at > poller.beat_at + limit_s / 2)
        clock.ahead_s = limit_s + 1
        (name,) = rig.agent.stalled()
        assert name.startswith("sim://b has not moved for ")
        code, body = await rig.get("/healthz")
        assert (code, body["healthy"]) == (503, False)
        rig.task.cancel()


async def test_a_journal_that_is_stuck_is_named(tmp_path: Path) -> None:
    """No commit for half a minute: the watchdog is not fed."""
    async with running(tmp_path, [make_tag("PRESS")]) as rig:
        await rig.until(all_delivered)
        hold = asyncio.get_running_loop().create_future()

        async def hang() -> bool:
            await hold
            return True

        kept, rig.agent.journal._commit = rig.agent.journal._commit, hang  # type: ignore[method-assign]
        await asyncio.sleep(0.1)
        rig.agent.journal.beat_at -= agent_module.STALLED_S + 1
        assert any("the journal has not moved" in name for name in rig.agent.stalled())
        rig.agent.journal._commit = kept  # type: ignore[method-assign]
        hold.set_result(None)


async def test_nothing_is_stuck_while_the_agent_ends(tmp_path: Path) -> None:
    """Pollers end first; sinks may take minutes after that, and must not be killed for it."""
    sink = MemorySink()
    sink.is_down = True
    overrides, clock = {"agent.shutdown_timeout_s": 1.0}, Clock()
    async with running(tmp_path, [make_tag("PRESS")], [Destination(sink)], overrides, clock) as rig:
        await rig.until(lambda status: status["sinks"][0]["pending"] > 0)
        rig.agent.stop()
        clock.ahead_s = 1000
        assert rig.agent.stalled() == []


# -- for ever -----------------------------------------------------------------------------------


def held(agent: Agent) -> int:
    """How many containers' elements hang on an agent, down to its journal, pollers and runners."""
    seen: set[int] = set()
    waiting: list[object] = [agent.journal, *agent.pollers, *agent.machinery.runners]
    total = 0
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | Callable | asyncio.AbstractEventLoop):
            continue
        seen.add(id(thing))
        if isinstance(thing, list | dict | set | tuple) or hasattr(thing, "popleft"):
            total += len(thing)  # type: ignore[arg-type]
        if type(thing).__module__.startswith(("edge_agent", "builtins", "collections")):
            waiting += gc.get_referents(thing)
    return total


async def test_nothing_grows_but_the_bounded_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After hundreds of scans, commits, deliveries and failures as much is held as before."""
    monkeypatch.setattr("edge_agent.journal.journal.CACHED_SAMPLES_MAX", 50)
    sink = MemorySink()
    tags = [make_tag(f"T{n}", n) for n in range(20)] + [make_tag("GHOST", UNREADABLE_FROM)]
    async with running(tmp_path, tags, [Destination(sink)]) as rig:
        await rig.until(lambda status: status["sinks"][0]["delivered"] >= 100)
        (poller,) = rig.agent.pollers
        sizes = []
        for _ in range(3):
            for _ in range(60):
                for readers in poller.readers:
                    for reader in readers:
                        reader.fail("again", poller.counters)
                        for reply in await poller._driver.read(poller.readers[0][0].block):
                            poller.readers[0][0].take(reply, poller.counters)
                sink.is_down = not sink.is_down
                await rig.agent.journal.flush()
            sink.is_down = False
            sink.samples.clear()
            await rig.until(
                lambda s: s["sinks"][0]["pending"] == 0 and s["sinks"][0]["error"] is None
            )
            sink.samples.clear()
            gc.collect()
            sizes.append(held(rig.agent))
    assert max(sizes) - min(sizes) < 150, sizes
