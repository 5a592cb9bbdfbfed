"""What Prometheus scrapes, made from an agent's counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from edge_agent import address_map, protocols
from edge_agent.clock import epoch_ms
from edge_agent.pipeline.delivery import DeliveryRunner
from edge_agent.pipeline.poller import ConnectionPoller
from edge_agent.pipeline.pollers import Pollers
from edge_agent.pipeline.reader import Quality
from edge_agent.pipeline.upkeep import UpkeepRunner
from edge_agent.planner import Connection, plan
from edge_agent.postgres.health import HealthCheck
from edge_agent.protocols.base import Reply
from edge_agent.reload.map_versions import MapVersions
from edge_agent.reload.reloader import Reloader
from edge_agent.sinks.base import Pace
from edge_agent.sinks.memory import MemorySink
from edge_agent.status.exposition import METRICS
from edge_agent.status.report import Machinery, Report
from tests.journals import journal_at

CLOCKS: dict[str, Any] = {"now_ms": epoch_ms, "monotonic": time.monotonic}
HEADER = "site,line,device,tag,protocol,conn,unit_id,address,type,scale,offset,period_ms,unit,hi,lo"
ROWS = [
    "A1,L1,PUMP01,PRESS,simulated,sim://a,1,1,FLOAT32,1,0,200,bar,,",
    "A1,L1,PUMP01,TEMP,simulated,sim://a,1,2,FLOAT32,1,0,200,°C,,",
    'A1,L1,펌프02,압력,simulated,"sim://b""\\x",1,3,FLOAT32,1,0,200,bar,,',
]


def families(text: bytes) -> dict[str, Metric]:
    """What a scraper understands, by the metric's own name."""
    found = text_string_to_metric_families(text.decode())
    return {family.name: family for family in found}


def value(family: Metric, **labels: str) -> float:
    """The one sample with these labels."""
    (found,) = [s.value for s in family.samples if labels.items() <= s.labels.items()]
    return float(found)


@dataclass(frozen=True)
class Examination:
    """What upkeep brings: what the database says of itself."""

    health: tuple[HealthCheck, ...]


async def upkeep() -> Examination:
    return Examination(
        (
            HealthCheck("slot_active", 'plc_"a"', 1.0, None),
            HealthCheck("slot_active", "plc_b", 0.0, "no subscriber"),
            HealthCheck("rollup_lag_seconds", "plc_1m", 12.5, None),
        )
    )


@asynccontextmanager
async def machinery(folder: Path) -> AsyncIterator[Machinery]:
    """That of an agent with two connections and one sink; nothing of it runs."""
    path = folder / "map.csv"
    path.write_text("\n".join([HEADER, *ROWS]), encoding="utf-8")
    running = address_map.load(path, protocols.load)
    journal = journal_at(folder / "journal.db")

    def make(connection: Connection, phase: float) -> ConnectionPoller:
        driver = protocols.load(connection.protocol)
        return ConnectionPoller(connection, driver, journal, phase=phase, **CLOCKS)

    async def applied(*_: object) -> None:
        raise AssertionError("no other map is applied")

    await journal.open(["memory"])
    try:
        yield Machinery(
            "edge-1",
            Reloader(running, MapVersions(folder), applied, **CLOCKS),
            journal,
            Pollers(make, not_started),
            [DeliveryRunner(MemorySink(), journal, agent_id="e", pace=Pace(), now_ms=epoch_ms)],
            [UpkeepRunner("memory", upkeep, interval_s=60.0)],
        )
    finally:
        await journal.close()


def not_started(_name: str, _run: object) -> asyncio.Task[None]:
    return asyncio.create_task(asyncio.sleep(0))


@pytest.fixture
async def scraped(tmp_path: Path) -> dict[str, Metric]:
    """An agent's machinery with some counts of its own."""
    async with machinery(tmp_path) as made:
        made.reloader.start()
        made.polls.begin(plan(made.reloader.running.tags, protocols.load))
        poller, other = made.polls.all
        reader = poller.readers[0][0]
        reader.take(Reply(1_755_432_000_000, [1.0, float("nan")]), poller.counters)
        poller.counters.errors["timeout"] = 7
        for late_s in (0.0005, 0.02, 99.0):
            poller.counters.late.observe(late_s)
        made.runners[0].counters.failures["open"] = 3
        made.runners[0].counters.lag.observe(0.5, 2)
        made.restarts = 2
        await made.upkeeps[0].round()
        await made.journal.flush()
        other.connected = True
        return families(await Report(made, **CLOCKS).metrics())


def test_every_metric_is_there_and_no_other(scraped: dict[str, Metric]) -> None:
    """METRICS is the list that the documentation is held to."""
    assert scraped.keys() == METRICS.keys()
    for name, family in scraped.items():
        assert family.documentation == METRICS[name]


def test_names_carry_their_unit_and_kind(scraped: dict[str, Metric]) -> None:
    """Counters end in _total, as every tool expects; nothing has two samples of one label set."""
    for family in scraped.values():
        seen = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
        assert len(seen) == len(set(seen))
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


def test_values_are_those_of_the_agent(scraped: dict[str, Metric]) -> None:
    """A sample of each kind."""
    assert value(scraped["edge_agent_samples_read"], conn="sim://a") == 1
    assert value(scraped["edge_agent_values_bad"], conn="sim://a") == 1
    assert value(scraped["edge_agent_samples_taken"]) == 1
    assert value(scraped["edge_agent_sink_pending_samples"], sink="memory") == 1
    assert value(scraped["edge_agent_request_errors"], kind="timeout") == 7
    assert value(scraped["edge_agent_sink_failures"], kind="open", sink="memory") == 3
    assert value(scraped["edge_agent_task_restarts"]) == 2
    qualities = {q: value(scraped["edge_agent_tags"], quality=q.value) for q in Quality}
    assert qualities == {Quality.GOOD: 1, Quality.BAD: 1, Quality.STALE: 1}


def test_what_the_database_says(scraped: dict[str, Metric]) -> None:
    """Every figure by check and object; problems counted per check, those without at 0."""
    checks = scraped["edge_agent_database_check"]
    assert value(checks, check="slot_active", object='plc_"a"') == 1
    assert value(checks, check="slot_active", object="plc_b") == 0
    assert value(checks, check="rollup_lag_seconds", object="plc_1m") == 12.5
    problems = scraped["edge_agent_database_problems"]
    assert value(problems, check="slot_active") == 1
    assert value(problems, check="rollup_lag_seconds") == 0
    assert 0 <= value(scraped["edge_agent_database_age_seconds"], sink="memory") < 5
    assert value(scraped["edge_agent_upkeep_up"], sink="memory") == 1


def test_labels_may_hold_anything(scraped: dict[str, Metric]) -> None:
    """Quotes and backslashes of a map arrive as they are."""
    assert value(scraped["edge_agent_connection_up"], conn='sim://b"\\x') == 1


def test_histograms_are_cumulative(scraped: dict[str, Metric]) -> None:
    """Buckets grow up to +Inf, which holds all; the sum is the values' own."""
    family = scraped["edge_agent_scan_late_seconds"]
    mine = [sample for sample in family.samples if sample.labels.get("conn") == "sim://a"]
    buckets = [(s.labels["le"], s.value) for s in mine if s.name.endswith("_bucket")]
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert [buckets[0], buckets[-1]] == [("0.001", 1), ("+Inf", 3)]
    assert {s.name.rpartition("_")[2]: s.value for s in mine[-2:]} == {
        "count": 3,
        "sum": pytest.approx(99.0205),
    }


def test_histograms_of_sinks_are_there(scraped: dict[str, Metric]) -> None:
    """Of each sink, with what its runner has seen."""
    family = scraped["edge_agent_sink_lag_seconds"]
    [count] = [s.value for s in family.samples if s.name.endswith("_count")]
    assert count == 2
    assert value(family, le="+Inf", sink="memory") == 2


def test_the_documented_name_is_the_exposed_one(scraped: dict[str, Metric]) -> None:
    """Every sample's name begins with a listed one, so that a reader finds it."""

    def names() -> Iterator[str]:
        for family in scraped.values():
            yield from (sample.name for sample in family.samples)

    assert all(any(name.startswith(known) for known in METRICS) for name in names())
