"""Another address map under a running agent: in this process, on simulated PLCs and real files."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import aiomqtt
import orjson
import pytest

from edge_agent import address_map, protocols
from edge_agent.errors import ConfigError, TransientError
from edge_agent.model import Batch, Series, Tag
from edge_agent.planner import plan
from edge_agent.protocols.simulated import signal
from edge_agent.reload import reloader
from edge_agent.reload.difference import difference, plan_difference
from edge_agent.reload.map_versions import MapVersions
from edge_agent.simulator import matches
from edge_agent.sinks import Destination
from edge_agent.sinks.memory import MemorySink
from edge_agent.status.figures import AgentStatus
from tests.integration.test_agent import Rig, make_agent, make_tag, running
from tests.plant import Simulator
from tests.servers import Mosquitto, free_port
from tests.waiting import until

SOON_S = 5.0
"""What is asked of a reload."""


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


TAGS = [make_tag("PRESS", 1), make_tag("FLOW", 2), make_tag("TEMP", 3, "sim://b", device="OVEN")]


@pytest.fixture
async def rig(tmp_path: Path, sink: MemorySink) -> AsyncIterator[Rig]:
    async with running(tmp_path, TAGS, [Destination(sink)]) as made:
        await made.until(lambda status: status["journal"]["taken"] > 3)
        yield made


def map_path(rig: Rig) -> Path:
    return rig.agent.address_map.path


def write(rig: Rig, tags: Sequence[Tag]) -> None:
    address_map.write(map_path(rig), tags)


async def applied(rig: Rig, version: int) -> AgentStatus:
    """Wait until a version runs; not longer than a user is promised."""
    async with asyncio.timeout(SOON_S):
        return await rig.until(lambda status: status["map"]["version"] == version)


def times_of(sink: MemorySink, tag: str) -> list[int]:
    return [ts_ms for series, ts_ms, _ in sink.samples if series.tag == tag]


def missed(times: Sequence[int], period_ms: int = 200) -> list[int]:
    """Gaps in which at least one scan is missing."""
    return [late - first for first, late in pairwise(times) if late - first >= 1.8 * period_ms]


async def until_read(sink: MemorySink, tag: str, count: int = 1) -> None:
    await until(lambda: len(times_of(sink, tag)) >= count, f"{count} of {tag}", within_s=SOON_S)


# -- what an edit of the file does ---------------------------------------------------------------


async def test_a_tag_added_in_the_file_is_read_within_seconds(rig: Rig, sink: MemorySink) -> None:
    """On a connection that is there, and on a new one; the others miss no scan."""
    new = [make_tag("LEVEL", 4), make_tag("SPEED", 5, "sim://c", device="FAN")]
    write(rig, [*TAGS, *new])
    for one in new:
        await until_read(sink, one.tag, 3)
    status = await rig.agent.report.status()
    assert [row["conn"] for row in status["connections"]] == ["sim://a", "sim://b", "sim://c"]
    assert {row["connects"] for row in status["connections"]} == {1}
    await rig.stop()
    for tag in ("PRESS", "FLOW", "TEMP"):
        assert not missed(times_of(sink, tag)), tag
        assert len(times_of(sink, tag)) == len(set(times_of(sink, tag)))
    for series, ts_ms, value in sink.samples:
        cell = {"PRESS": 1, "FLOW": 2, "TEMP": 3, "LEVEL": 4, "SPEED": 5}[series.tag]
        assert value == signal(1, cell, TAGS[0].type, ts_ms)


async def test_a_removed_tag_stops_and_a_removed_connection_ends(
    rig: Rig, sink: MemorySink
) -> None:
    """Its last samples are delivered all the same; the books balance."""
    write(rig, TAGS[:1])
    status = await applied(rig, 2)
    assert [row["conn"] for row in status["connections"]] == ["sim://a"]
    gone = {tag: len(times_of(sink, tag)) for tag in ("FLOW", "TEMP")}
    count = len(times_of(sink, "PRESS"))
    await until_read(sink, "PRESS", count + 5)
    assert all(len(times_of(sink, tag)) <= count + 1 for tag, count in gone.items())
    last = await rig.stop()
    assert last["journal"]["taken"] == len(sink.samples)
    assert not missed(times_of(sink, "PRESS"))


async def test_a_changed_unit_is_another_series_and_what_was_stored_stays(
    rig: Rig, sink: MemorySink
) -> None:
    """A changed scale is the same series: what is stored is in its unit already."""
    before = list(sink.samples)
    write(rig, [replace(TAGS[0], unit="Pa", scale=1e5), replace(TAGS[1], scale=2.0), TAGS[2]])
    await applied(rig, 2)
    at = len(sink.samples)
    await until_read(sink, "TEMP", len(times_of(sink, "TEMP")) + 3)
    await rig.stop()
    assert sink.samples[: len(before)] == before
    old, new = (
        Series("A1", "L1", "PUMP01", "PRESS", "bar"),
        Series("A1", "L1", "PUMP01", "PRESS", "Pa"),
    )
    assert {series for series, *_ in sink.samples if series.tag == "PRESS"} == {old, new}
    for series, ts_ms, value in sink.samples[at + 4 :]:
        scale = {"PRESS": 1e5, "FLOW": 2.0, "TEMP": 1.0}[series.tag]
        cell = {"PRESS": 1, "FLOW": 2, "TEMP": 3}[series.tag]
        assert value == pytest.approx(signal(1, cell, TAGS[0].type, ts_ms) * scale)
    assert not missed(times_of(sink, "TEMP"))


async def test_another_period_begins_a_scan_class_of_its_own(rig: Rig, sink: MemorySink) -> None:
    """Beside the one that goes on."""
    write(rig, [TAGS[0], replace(TAGS[1], period_ms=400), TAGS[2]])
    await applied(rig, 2)
    at = len(times_of(sink, "FLOW"))
    await until_read(sink, "FLOW", at + 4)
    await rig.stop()
    gaps = [late - first for first, late in pairwise(times_of(sink, "FLOW")[at + 1 :])]
    assert all(300 < gap < 500 for gap in gaps), gaps
    assert not missed(times_of(sink, "PRESS"))


async def test_the_layout_is_another_one(rig: Rig) -> None:
    """Who keeps positions of tags, as the dashboard does, sees that they have changed."""
    before = await rig.agent.report.live()
    assert (await rig.agent.report.live())["layout"] == before["layout"]
    write(rig, [*TAGS, make_tag("LEVEL", 4)])
    await applied(rig, 2)
    after = await rig.agent.report.live()
    assert after["layout"] != before["layout"]
    assert len(after["values"]) == 4
    _, status = await rig.get("/status")
    assert [tag["tag"] for device in status["devices"] for tag in device["tags"]] == [
        "PRESS", "FLOW", "LEVEL", "TEMP",
    ]  # fmt: skip


# -- files that are wrong ------------------------------------------------------------------------


async def test_a_wrong_file_changes_nothing_and_is_told_until_it_is_right(
    rig: Rig, sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log once, in status, verdict and metrics, with line and column."""
    good = map_path(rig).read_bytes()
    map_path(rig).write_bytes(good.replace(b"FLOAT32", b"REAL99", 1).replace(b",200,", b",7,", 1))
    with caplog.at_level(logging.INFO):
        status = await rig.until(lambda status: status["map"]["error"] is not None)
        map_path(rig).touch()
        await rig.until(lambda status: status["map"]["refused"] == 2)
    assert not status["well"]
    assert status["verdict"].startswith(
        "Data flows, but the address map in the file is not the one that runs: "
    )
    assert [(row["line"], row["column"]) for row in status["map"]["problems"]] == [
        (2, "type"), (2, "period_ms"),
    ]  # fmt: skip
    assert status["map"]["sha256"] == rig.agent.address_map.sha256
    _, text = await rig.get("/metrics")
    assert "edge_agent_map_valid 0.0" in text
    assert 'edge_agent_map_reloads_total{result="refused"} 2.0' in text
    said = [record for record in caplog.records if "the map that runs stays" in record.message]
    assert len(said) == 1
    assert "Traceback" not in caplog.text
    map_path(rig).write_bytes(good)
    status = await rig.until(lambda status: status["map"]["error"] is None)
    assert status["map"]["version"] == 1
    await rig.stop()
    for tag in ("PRESS", "FLOW", "TEMP"):
        assert not missed(times_of(sink, tag))


async def test_a_file_that_is_gone_leaves_the_map_running(rig: Rig) -> None:
    """For longer than the moment in which an editor exchanges it."""
    saved = map_path(rig).read_bytes()
    map_path(rig).unlink()
    status = await rig.until(lambda status: status["map"]["error"] is not None)
    assert "there is no such file" in str(status["map"]["error"])
    map_path(rig).write_bytes(saved)
    await rig.until(lambda status: status["map"]["error"] is None)


@pytest.mark.parametrize("how", ["in place", "by rename", "in steps", "slowly"])
async def test_however_the_file_is_written(
    rig: Rig, sink: MemorySink, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """It is taken once, whole; nothing of what was there in between is."""
    new = [*TAGS, *(make_tag(f"T{number:02}", 10 + number) for number in range(30))]
    path, other = map_path(rig), map_path(rig).with_name("other.csv")
    address_map.write(other, new)
    data = other.read_bytes()
    with caplog.at_level(logging.INFO):
        match how:
            case "in place":
                path.write_bytes(data)
            case "by rename":
                other.replace(path)
            case "in steps":  # as editors that keep a backup do
                path.rename(path.with_name("address_map.csv~"))
                await asyncio.sleep(0.4)
                path.write_bytes(b"")
                await asyncio.sleep(0.4)
                path.write_bytes(data)
            case _:
                with path.open("wb") as file:
                    for line in data.splitlines(keepends=True):
                        file.write(line)
                        file.flush()
                        await asyncio.sleep(0.1)
        await until_read(sink, "T29")
    status = await rig.agent.report.status()
    assert (status["map"]["version"], status["map"]["refused"]) == (2, 0), caplog.text
    assert status["agent"]["tags"] == len(new)


async def test_a_copy_that_stands_still_is_waited_for(rig: Rig) -> None:
    """Half of a file that is valid in itself has fewer rows, and is given more time."""
    full = [*TAGS, *(make_tag(f"T{number:02}", 10 + number) for number in range(3))]
    write(rig, full)
    await applied(rig, 2)
    data = map_path(rig).read_bytes()
    part = b"".join(data.splitlines(keepends=True)[:3])
    with map_path(rig).open("wb") as file:
        file.write(part)
        file.flush()
        await asyncio.sleep((reloader.SETTLE_S + reloader.SETTLE_LONG_S) / 2)
        assert len(rig.agent.address_map.tags) == len(full)
        file.write(data[len(part) :].replace(b",T02,", b",LAST,"))
    status = await applied(rig, 3)
    assert status["agent"]["tags"] == len(full)


async def test_a_signal_or_command_does_not_wait(rig: Rig) -> None:
    """Who asks says that the file is done, also one with fewer rows."""
    write(rig, TAGS[:1])
    started = time.monotonic()
    rig.agent.reloader.look()
    await applied(rig, 2)
    assert time.monotonic() - started < reloader.SETTLE_LONG_S


async def test_a_file_that_changes_while_the_agent_starts(tmp_path: Path, sink: MemorySink) -> None:
    """Between the moment in which it was read and the one in which it is watched."""
    agent = make_agent(tmp_path, TAGS, free_port(), {})
    agent.destinations = [Destination(sink)]
    address_map.write(agent.address_map.path, [*TAGS, make_tag("LEVEL", 4)])
    task = asyncio.create_task(agent.run(handle_signals=False))
    try:
        await until_read(sink, "LEVEL")
    finally:
        agent.stop()
        await task


# -- versions ------------------------------------------------------------------------------------


async def test_every_map_that_was_applied_is_kept(rig: Rig, tmp_path: Path) -> None:
    """With who, when, how and what; its file to the byte, also after a restart."""
    first = map_path(rig).read_bytes()
    write(rig, [*TAGS[:2], make_tag("LEVEL", 4), replace(TAGS[2], hi=5.0)])
    await applied(rig, 2)
    second = map_path(rig).read_bytes()
    done = await rig.agent.reloader.put(first, "kim", "rollback to 1")
    assert (len(done.difference.added), len(done.difference.removed)) == (0, 1)
    await rig.stop()
    versions = MapVersions(tmp_path / "data")
    versions.load()
    told = [(one.version, one.how, one.added, one.changed, one.removed) for one in versions.all]
    assert told == [(1, "start", 0, 0, 0), (2, "file", 1, 1, 0), (3, "rollback to 1", 0, 1, 1)]
    assert versions.all[2].author == "kim"
    assert [versions.data(number) for number in (1, 2, 3)] == [first, second, first]
    assert versions.all[0].sha256 == versions.all[2].sha256


async def test_a_map_is_written_over_the_one_that_was_seen_only(rig: Rig) -> None:
    """Two people at once: the second is told, and nothing is lost."""
    seen = rig.agent.address_map.sha256
    write(rig, [*TAGS, make_tag("LEVEL", 4)])
    await applied(rig, 2)
    before = map_path(rig).read_bytes()
    with pytest.raises(address_map.MapError, match="line 2"):
        await rig.agent.reloader.put(before.replace(b"FLOAT32", b"x", 1), "lee", "upload")
    with pytest.raises(ConfigError, match="another map has been applied meanwhile"):
        await rig.agent.reloader.put(before, "lee", "upload", over=seen)
    assert map_path(rig).read_bytes() == before
    assert (await rig.agent.report.status())["map"]["error"] is None


async def test_an_edit_that_nobody_has_looked_at_is_not_overwritten(rig: Rig) -> None:
    """Who saves the file a moment before somebody else uploads one keeps what he wrote."""
    uploaded = map_path(rig).read_bytes().replace(b"PRESS", b"P")
    write(rig, [*TAGS, make_tag("LEVEL", 4)])
    edited = map_path(rig).read_bytes()
    with pytest.raises(ConfigError, match="has just been edited") as caught:
        await rig.agent.reloader.put(uploaded, "lee", "upload")
    assert "three seconds" in caught.value.hint
    assert map_path(rig).read_bytes() == edited
    await applied(rig, 2)
    await rig.agent.reloader.put(uploaded, "lee", "upload")
    assert map_path(rig).read_bytes() == uploaded


async def test_an_edit_that_was_wrong_is_kept_beside_the_map_that_replaces_it(rig: Rig) -> None:
    """Half an hour's work in Excel with one wrong cell is not gone with another one's upload."""
    good = map_path(rig).read_bytes()
    wrong = good.replace(b"FLOAT32", b"REAL99", 1)
    map_path(rig).write_bytes(wrong)
    await rig.until(lambda status: status["map"]["error"] is not None)
    await rig.agent.reloader.put(good.replace(b"PRESS", b"P"), "lee", "upload")
    assert (await rig.agent.report.status())["map"]["error"] is None
    assert map_path(rig).with_name("address_map.csv.refused").read_bytes() == wrong
    assert map_path(rig).read_bytes() != wrong


async def test_a_folder_that_cannot_be_written(rig: Rig, tmp_path: Path) -> None:
    """What runs stays, and the error says what to do."""
    data = map_path(rig).read_bytes()
    map_path(rig).unlink()
    map_path(rig).symlink_to(tmp_path / "nowhere" / "address_map.csv")
    with pytest.raises(TransientError, match="can't be written") as caught:
        await rig.agent.reloader.put(data.replace(b"PRESS", b"P"), "lee", "upload")
    assert "needs the right to write" in caught.value.hint
    assert rig.agent.address_map.tags == tuple(TAGS)


# -- what was planned is what is done ------------------------------------------------------------


async def test_the_plan_says_what_the_reload_does(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """The same difference, and the same connections touched."""
    new = [TAGS[0], make_tag("LEVEL", 4, "sim://c"), TAGS[2]]
    found = difference(TAGS, new)
    planned = plan_difference(plan(TAGS, protocols.load), plan(new, protocols.load))
    with caplog.at_level(logging.INFO):
        write(rig, new)
        await applied(rig, 2)
    assert f"applied: {found.summary}" in caplog.text
    kept, changed, begun, ended = map(
        len, (planned.kept, planned.changed, planned.begun, planned.ended)
    )
    assert (kept, changed, begun, ended) == (1, 1, 1, 0)
    assert "connections: 1 untouched, 1 changed, 1 new, 0 ended" in caplog.text


async def test_a_tag_that_others_published_until_now(tmp_path: Path) -> None:
    """Polled from now on, it is published by us and no longer taken in; and back again."""
    level = make_tag("LEVEL", 4)
    foreign = orjson.dumps(
        {"ts": "2026-01-01T00:00:00.000Z", "site": "A1", "line": "L1", "device": "PUMP01",
         "tag": "LEVEL", "value": -1.0, "unit": "bar"}
    )  # fmt: skip
    topic = "plc/A1/PUMP01/LEVEL"
    with Mosquitto(tmp_path / "broker") as broker:
        overrides = {"mqtt.url": broker.url, "mqtt.ingest_topics": ["plc/+/+/+"]}
        async with (
            running(tmp_path, TAGS, overrides=overrides) as rig,
            aiomqtt.Client("127.0.0.1", broker.port) as client,
        ):
            await rig.until(lambda status: bool(status["ingest"] and status["ingest"]["connected"]))
            await client.publish(topic, foreign, qos=1)
            await rig.until(lambda status: ingested(status) == 1)
            await client.subscribe(topic, qos=1)
            write(rig, [*TAGS, level])
            async with asyncio.timeout(SOON_S):
                values = [json_value(await anext(client.messages)) for _ in range(3)]
            assert all(value != -1.0 for value in values)
            await client.publish(topic, foreign.replace(b"2026-01-01", b"2026-01-02"), qos=1)
            await asyncio.sleep(0.5)
            assert ingested(await rig.agent.report.status()) == 1
            write(rig, TAGS)
            await applied(rig, 3)
            await client.publish(topic, foreign.replace(b"2026-01-01", b"2026-01-03"), qos=1)
            await rig.until(lambda status: ingested(status) == 2)


def ingested(status: AgentStatus) -> int:
    """Samples of others so far."""
    assert status["ingest"] is not None
    return status["ingest"]["samples"]


def json_value(message: aiomqtt.Message) -> float:
    assert isinstance(message.payload, bytes)
    return float(orjson.loads(message.payload)["value"])


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_a_node_added_on_an_opc_ua_connection(
    tmp_path: Path, sink: MemorySink, mode: str
) -> None:
    """The session goes on, what was subscribed to misses no change, and the new node is read."""
    conn = f"opc.tcp://127.0.0.1:{free_port()}?mode={mode}"
    tags = [
        make_tag(name, conn=conn, protocol="opcua", address=f"ns=2;s=Pump.{name}")
        for name in ("PRESS", "FLOW", "LEVEL")
    ]
    with Simulator(tmp_path / "plc", tags):
        async with running(tmp_path, tags[:2], [Destination(sink)]) as rig:
            await until_read(sink, "FLOW", 5)
            write(rig, [tags[0], tags[2]])
            await until_read(sink, "LEVEL", 5)
            status = await rig.agent.report.status()
            await rig.stop()
    assert status["connections"][0]["connects"] == 1
    assert status["connections"][0]["errors"] == {}
    assert not missed(times_of(sink, "PRESS"))
    flow, level = times_of(sink, "FLOW"), times_of(sink, "LEVEL")
    assert flow[-1] - level[0] < 500, "it is read no more"
    by_name = {tag.tag: tag for tag in tags}
    for series, ts_ms, value in sink.samples:
        assert matches(by_name[series.tag], ts_ms, value, late_ms=500)


@asynccontextmanager
async def mute_server() -> AsyncIterator[int]:
    """The port of a PLC that takes every connection and answers nothing."""

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hearers.append(writer)

    hearers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in hearers:
            writer.close()
        server.close()


@pytest.mark.parametrize("who", ["a command", "the watch"])
async def test_an_end_while_another_map_is_taken_over(
    tmp_path: Path, sink: MemorySink, who: str
) -> None:
    """A connection that is leaving, and one that was to begin, do not hold the agent up."""
    async with mute_server() as port:
        conn = f"tcp://127.0.0.1:{port}?timeout_ms=60000"
        mute = make_tag("MUTE", conn=conn, protocol="modbus", address="hr:0")
        async with running(tmp_path, [TAGS[0], mute], [Destination(sink)]) as rig:
            await until_read(sink, "PRESS", 2)
            write(rig, [TAGS[0], TAGS[2]])
            change = None
            if who == "a command":
                change = asyncio.create_task(rig.agent.reloader.reload("kim"))
            else:
                rig.agent.reloader.look()
            await asyncio.sleep(0.5)  # it waits for the request that nobody answers
            assert rig.agent.reloader._lock.locked()
            async with asyncio.timeout(20):
                last = await rig.stop()
            if change is not None:
                await asyncio.gather(change, return_exceptions=True)
    assert last["journal"]["taken"] == len(sink.samples)


class Unhurried(MemorySink):
    """Takes its time once it is told to."""

    pause_s = 0.0

    async def deliver(self, batches: Sequence[Batch]) -> int:
        await asyncio.sleep(self.pause_s)
        return await super().deliver(batches)


async def test_an_upload_while_the_agent_ends(tmp_path: Path) -> None:
    """It is refused, and the file is what it was: nothing would be read of it any more."""
    sink = Unhurried()
    async with running(tmp_path, TAGS, [Destination(sink)]) as rig:
        await until_read(sink, "PRESS", 2)
        before = map_path(rig).read_bytes()
        sink.pause_s = 2.0
        await asyncio.sleep(0.3)
        rig.agent.stop()
        await asyncio.sleep(0.5)
        for data in (before.replace(b"PRESS", b"P"), before):
            with pytest.raises(TransientError, match="is ending"):
                await rig.agent.reloader.put(data, "lee", "upload")
        with pytest.raises(TransientError, match="is ending"):
            await rig.agent.reloader.reload("lee")
        assert map_path(rig).read_bytes() == before
        await rig.task
