"""What the agent says of messages that others publish: a whole agent and a real Mosquitto."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_agent import agent as agent_module
from edge_agent.agent import Agent
from edge_agent.cli import main
from edge_agent.pipeline import ingest as ingest_module
from edge_agent.pipeline import ingest_decoder
from edge_agent.pipeline.ingest import Ingest
from edge_agent.pipeline.ingested import Unpublished
from edge_agent.sinks import Destination
from edge_agent.sinks.memory import MemorySink
from edge_agent.status.figures import AgentStatus, IngestStatus
from tests.integration.test_agent import WAIT_S, Clock, Rig, make_agent, make_tag, running
from tests.integration.test_ingest import message, publish
from tests.integration.test_mqtt_in import choosy
from tests.servers import Mosquitto
from tests.waiting import until

TOPICS = ["plc/+/+/+"]
__all__ = ["choosy"]  # the fixture
ALL_WELL = "All well: 1 tag on 1 connection flows to memory"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that no test waits for."""
    monkeypatch.setattr(ingest_module, "BACKOFF_FIRST_S", 0.02)
    monkeypatch.setattr(ingest_module, "BACKOFF_MAX_S", 0.05)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as started:
        yield started


@asynccontextmanager
async def taking_in(
    folder: Path,
    broker: Mosquitto,
    topics: Sequence[str] = TOPICS,
    *,
    well: bool = True,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Rig]:
    """An agent with one tag, A1/PUMP01/PRESS, that takes in what others publish."""
    overrides = {"mqtt.url": broker.url, "mqtt.ingest_topics": topics}
    sinks = [Destination(MemorySink())]
    async with running(folder, [make_tag("PRESS")], sinks, overrides, monotonic) as rig:
        await rig.until(lambda status: of(status)["connected"] and status["well"] is well)
        yield rig


def ingest_of(rig: Rig) -> Ingest:
    """The task that takes in."""
    assert rig.agent.machinery.ingest is not None
    return rig.agent.machinery.ingest


def of(status: AgentStatus) -> IngestStatus:
    """What the status says of ingest."""
    assert status["ingest"] is not None
    return status["ingest"]


def done(status: AgentStatus, messages: int) -> bool:
    """So many have come, and each of them is in the journal, or left out for good."""
    return of(status)["messages"] == messages and of(status)["waiting"] == 0


async def metrics(rig: Rig) -> dict[str, float]:
    """Every figure of ingest by the name of its sample, or by its kind."""
    _, text = await rig.get("/metrics")
    return {
        sample.labels.get("kind", sample.name.removeprefix("edge_agent_ingest_")): sample.value
        for family in text_string_to_metric_families(text)
        if family.name.startswith("edge_agent_ingest_")
        for sample in family.samples
    }


async def printed(
    rig: Rig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str]:
    """Exit code and text of `edge-agent status`."""
    address = str(rig.agent.settings.agent.http)
    monkeypatch.setenv("COLUMNS", "300")
    capsys.readouterr()
    code = await asyncio.to_thread(main, ["status", "--http", address])
    return code, capsys.readouterr().out


async def test_each_message_is_in_a_figure(
    broker: Mosquitto,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """/status, /metrics and the command agree, before and after; nothing is missing in the sum."""
    async with taking_in(tmp_path, broker) as rig:
        before = of((await rig.get("/status"))[1])
        counts = ("messages", "samples", "own", "not_understood", "waiting", "series")
        assert [before[name] for name in counts] == [0] * 6  # type: ignore[literal-required]
        assert (before["broker"], before["topics"]) == (broker.url, TOPICS)
        assert (await metrics(rig))["up"] == 1
        foreign = [message("FAN01", tag, 1450) for tag in ("SPEED", "TEMP", "SPEED")]
        own = message("PUMP01", "PRESS", 1)
        await publish(broker.port, [*foreign, own, ("plc/A1/FAN02/X", "hm")])
        status = await rig.until(lambda status: done(status, 5))
        after = of(status)
        assert [after[name] for name in counts] == [5, 3, 1, 1, 0, 2]  # type: ignore[literal-required]
        assert await metrics(rig) == {
            "up": 1, "messages_total": 5, "samples_total": 3, "waiting_messages": 0,
            "series": 2, "series_max": ingest_decoder.SERIES_MAX,
            "own": 1, "repeated": 0, "not_understood": 1, "over_series_max": 0, "overflowed": 0,
        }  # fmt: skip
        code, text = await printed(rig, capsys, monkeypatch)
        assert code == 0
        [row] = [line for line in text.splitlines() if line.startswith("ingest")]
        assert row.split() == ["ingest", "3", "0", "0", "1", "connected"]


async def test_a_broker_that_is_away_is_a_problem_until_it_is_back(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """With its reason and since when; polled data flows meanwhile, so the agent stays ready."""
    async with taking_in(tmp_path, broker) as rig:
        broker.stop()
        status = await rig.until(lambda status: "refused" in (of(status)["error"] or ""))
        assert not of(status)["connected"]
        [problem] = status["problems"]
        assert problem.startswith("ingest: nothing is taken in for ")
        assert problem.endswith(f" s: {broker.url}: Connection refused")
        assert (status["well"], status["verdict"]) == (False, f"Data flows, but {problem}")
        assert (await metrics(rig))["up"] == 0
        assert (await rig.get("/readyz"))[0] == 200
        since_ms = of(status)["error_since_ms"]
        ingest = ingest_of(rig)
        failures = ingest._failures
        later = await rig.until(lambda _: ingest._failures > failures)
        assert of(later)["error_since_ms"] == since_ms, "it is the same outage"
        broker.start()
        status = await rig.until(lambda status: of(status)["connected"])
        assert (of(status)["error"], of(status)["error_since_ms"]) == (None, None)
        assert status["problems"] == []
        assert (status["well"], status["verdict"]) == (True, ALL_WELL)


async def test_a_message_that_is_not_understood_is_a_notice(
    broker: Mosquitto,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The newest one is shown, whatever its topic does to a terminal; it is no alarm."""
    async with taking_in(tmp_path, broker) as rig:
        bad = ("plc/A1/X/[red]", b'{"value": "\x1b[2J')
        await publish(broker.port, [("plc/A1/X/T", b""), bad])
        status = await rig.until(lambda status: done(status, 2))
        last = of(status)["last_not_understood"]
        assert last is not None
        assert (last["topic"], last["payload"]) == (bad[0], '{"value": "\ufffd[2J')
        assert abs(last["ts_ms"] - time.time() * 1000) < 60_000
        [notice] = status["notices"]
        assert notice.startswith("ingest: 2 messages not understood, the last one on topic ")
        assert notice.endswith(f" {bad[0]}: {last['problem']}")
        flow = ALL_WELL.removeprefix("All well: ")
        assert (status["well"], status["verdict"]) == (True, f"{flow}; {notice}")
        code, text = await printed(rig, capsys, monkeypatch)
        assert code == 0
        assert text.splitlines()[0] == status["verdict"]
        assert text.count(notice) == 1


async def test_what_a_stranger_wrote_is_shown_in_part(broker: Mosquitto, tmp_path: Path) -> None:
    """A topic of any length, and a payload, take a line at most."""
    async with taking_in(tmp_path, broker) as rig:
        topic = f"plc/A1/X/{'장' * 10_000}"
        await publish(broker.port, [(topic, b"\xff" * 100_000)])
        last = of(await rig.until(lambda status: done(status, 1)))["last_not_understood"]
        assert last is not None
        assert last["topic"] == topic[: ingest_module.SHOWN_CHARS_MAX]
        assert last["payload"] == "\ufffd" * ingest_module.SHOWN_BYTES_MAX


async def test_new_series_past_the_bound_are_a_problem(
    broker: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are lost for as long as nobody narrows the topics."""
    monkeypatch.setattr(ingest_decoder, "SERIES_MAX", 1)
    monkeypatch.setattr(ingest_module, "PER_TURN_MAX", 1)
    async with taking_in(tmp_path, broker) as rig:
        await publish(broker.port, [message("FAN01", tag, 1) for tag in ("A", "B", "C")])
        status = await rig.until(lambda status: done(status, 3))
        assert (of(status)["series"], of(status)["series_max"]) == (1, 1)
        [problem] = status["problems"]
        assert problem.startswith("ingest: 2 messages of new series left out since the agent")
        assert problem.endswith(" there are 1 already: narrow mqtt.ingest_topics")
        assert not status["well"]


async def test_a_refused_subscription_is_a_problem(choosy: Mosquitto, tmp_path: Path) -> None:
    """Its messages never come; those of other topics do."""
    topics = ["plc/+/+/+", "secret/#"]
    async with taking_in(tmp_path, choosy, topics, well=False) as rig:
        status = await rig.until(lambda status: of(status)["connected"])
        assert of(status)["refused"].keys() == {"secret/#"}
        [problem] = status["problems"]
        assert problem.startswith("ingest: the broker refuses the subscription secret/#: ")
        assert "Not authorized; check mqtt.ingest_topics" in problem
        assert not status["well"]
        await publish(choosy.port, [message("FAN01", "SPEED", 1)])
        await rig.until(lambda status: of(status)["samples"] == 1)


async def test_an_ingest_that_is_stuck_is_named(broker: Mosquitto, tmp_path: Path) -> None:
    """One that waits for messages is not; the broker's time to answer comes on top."""
    clock = Clock()
    async with taking_in(tmp_path, broker, monotonic=clock) as rig:
        ingest = ingest_of(rig)
        idle_from = ingest.beat_at
        await rig.until(lambda _: ingest.beat_at > idle_from)  # nothing was published
        stuck = asyncio.Event()

        async def hang() -> bool:
            stuck.set()
            await asyncio.Event().wait()
            return True

        ingest._take_in = hang  # type: ignore[method-assign]
        await stuck.wait()
        limit_s = agent_module.STALLED_S + ingest.timeout_s
        clock.ahead_s = limit_s / 2
        assert rig.agent.stalled() == []
        await until(lambda: rig.agent.pollers[0].beat_at > ingest.beat_at + limit_s / 2)
        clock.ahead_s = limit_s + 1
        (name,) = rig.agent.stalled()
        assert name.startswith("mqtt.ingest has not moved for ")
        code, body = await rig.get("/healthz")
        assert (code, body["healthy"]) == (503, False)
        rig.task.cancel()


async def test_an_ingest_whose_broker_is_away_is_not_stuck(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """Each attempt to connect shows that it lives."""
    async with taking_in(tmp_path, broker) as rig:
        broker.stop()
        await rig.until(lambda status: of(status)["error"] is not None)
        ingest = ingest_of(rig)
        beats = {ingest.beat_at}
        async with asyncio.timeout(WAIT_S):
            while len(beats) < 4:
                await asyncio.sleep(0.01)
                beats.add(ingest.beat_at)


def agent_with(folder: Path, **overrides: Any) -> Agent:
    """An agent that does not run."""
    return make_agent(folder, [make_tag("PRESS")], 0, overrides)


def test_only_the_sink_whose_destination_has_them_is_spared_ingested_samples(
    tmp_path: Path,
) -> None:
    """MQTT is; the databases and the store are handed everything."""
    influx = {"url": "http://h", "token": "t", "org": "o", "bucket": "b"}
    agent = agent_with(
        tmp_path,
        **{"mqtt.url": "mqtt://h", "store.enabled": True, "postgres.dsn": "postgresql://h/d"},
        **{f"influx.{name}": value for name, value in influx.items()},
    )
    spared = {t.sink.name: isinstance(t.sink, Unpublished) for t in agent.destinations}
    assert spared == {"mqtt": True, "postgres": False, "influx": False, "store": False}


async def test_without_topics_there_are_no_figures(tmp_path: Path) -> None:
    """It is off: no row, no metric with a value, nothing that could be stuck."""
    async with running(tmp_path, [make_tag("PRESS")]) as rig:
        status = await rig.until(lambda status: status["well"])
        assert (status["ingest"], status["notices"]) == (None, [])
        assert await metrics(rig) == {}
