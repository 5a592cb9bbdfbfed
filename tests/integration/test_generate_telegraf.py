"""The generated Telegraf files: what they say, and Telegraf itself where there is one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from edge_agent.codec import WIDTHS
from edge_agent.generate.subject import Rendered
from edge_agent.generate.telegraf import render_modbus, render_mqtt
from edge_agent.model import Series, Tag, TagKey, ValueType
from edge_agent.simulator import matches, rebind
from edge_agent.sinks.message import time_text, topic_of
from tests.integration.generated import NASTY_DEVICE, make_subject, make_tag, nasty_tags, plant_tags
from tests.integration.plc_database import Cluster, Database, now_ms
from tests.plant import Simulator
from tests.servers import Mosquitto, Server
from tests.telegraf import max_insert

TELEGRAF = shutil.which("telegraf")
TIMEOUT_S = 60
LATE_MS = 2_000
"""Between the PLC and the time of a value, on a busy machine."""
ATTEMPTS = 40


@pytest.fixture
def modbus(tmp_path: Path) -> Rendered:
    """The variant that polls."""
    return render_modbus(make_subject(tmp_path, nasty_tags()))


@pytest.fixture
def mqtt(tmp_path: Path) -> Rendered:
    """The one that subscribes."""
    settings = {"mqtt.url": "mqtts://broker:8884", "influx.measurement": 'p"$HOME\\'}
    return render_mqtt(make_subject(tmp_path, nasty_tags(), settings))


def test_mqtt_in_and_two_databases_out(mqtt: Rendered) -> None:
    """All topics, the seven keys, a buffer on the disk, and no host name in a row."""
    found = tomllib.loads(mqtt.text)
    assert found["agent"]["buffer_strategy"] == "disk"
    assert found["agent"]["omit_hostname"] is True
    [consumer] = found["inputs"]["mqtt_consumer"]
    assert consumer["servers"] == ["ssl://broker:8884"]
    assert consumer["topics"] == ["plc/+/+/+"]
    [parser] = consumer["json_v2"]
    assert [tag["path"] for tag in parser["tag"]] == ["site", "line", "device", "tag", "unit"]
    assert [field["path"] for field in parser["field"]] == ["value"]
    assert parser["measurement_name"] == 'p"$HOME\\'
    assert set(found["outputs"]) == {"influxdb_v2", "postgresql"}


def test_only_what_is_meant_is_taken_from_the_environment(mqtt: Rendered, modbus: Rendered) -> None:
    """Telegraf looks for $NAME before it parses: a name with a $ holds none by then."""
    for rendered in (mqtt, modbus):
        assert set(rendered.text.split("$")[1:]) != set()
        names = {part[1:].partition("}")[0] for part in rendered.text.split("$")[1:]}
        assert names <= {"MQTT_PASSWORD", "INFLUX_TOKEN", "POSTGRES_DSN"}


def test_modbus_in_has_every_tag_once_or_says_why_not(modbus: Rendered) -> None:
    """With its labels; what Telegraf's input can't do is named in the file."""
    tags = {tag.key: tag for tag in nasty_tags()}
    left_out = {one.tag.key: one.reason for one in modbus.left_out}
    assert set(left_out) == {
        ("A1", "PUMP01", "COUNT"),
        ("A1", "PUMP01", "LAST"),
        ("A1", "SAFE", "A"),
        ("B2", "OPC", "A"),
    }
    assert all(reason in modbus.text for reason in left_out.values())
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for entry in tomllib.loads(modbus.text)["inputs"]["modbus"]:
        for metric in entry["metric"]:
            labels = metric["tags"]
            key = TagKey(labels["site"], labels["device"], labels["tag"])
            assert key not in found
            found[key] = metric
            assert (labels["line"], labels["unit"]) == (tags[key].line, tags[key].unit)
            assert entry["interval"] == f"{tags[key].period_ms}ms"
    assert set(found) == set(tags) - set(left_out)
    assert any(device == NASTY_DEVICE for _, device, _ in found)
    [temperature] = found["A1", "PUMP01", "TEMP"]["fields"]
    assert temperature == {
        "register": "holding",
        "address": 2,
        "name": "value",
        "type": "INT16",
        "scale": 0.1,
        "output": "FLOAT64",
    }
    [fault] = found["A1", "PUMP01", "FAULT"]["fields"]
    assert (fault["type"], fault["bit"]) == ("BIT", 3)


def test_transports_are_telegrafs(modbus: Rendered) -> None:
    """A gateway, a line with its settings, and a line with two periods is let go between them."""
    inputs = tomllib.loads(modbus.text)["inputs"]["modbus"]
    modes = {(one["controller"], one["transmission_mode"]) for one in inputs}
    assert modes == {
        ("tcp://10.0.0.5:502", "TCP"),
        ("tcp://10.0.0.6:4001", "RTUoverTCP"),
        ("file:///dev/ttyUSB0", "RTU"),
    }
    lines = [one for one in inputs if one["transmission_mode"] == "RTU"]
    assert [line["interval"] for line in lines] == ["1000ms", "60000ms"]
    for line in lines:
        assert (line["baud_rate"], line["parity"]) == (9600, "N")
        assert line["workarounds"]["close_connection_after_gather"] is True


def test_neighbours_share_a_request(modbus: Rendered) -> None:
    """By Telegraf's own rules the PLC's connection needs one request for registers and one for
    the coil, whatever the units of measure."""
    fields: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    inputs = tomllib.loads(modbus.text)["inputs"]["modbus"]
    entry = next(one for one in inputs if one["controller"] == "tcp://10.0.0.5:502")
    assert entry["optimization"] == "max_insert"
    for metric in entry["metric"]:
        [field] = metric["fields"]
        kind = field.get("type", "")
        width = WIDTHS[ValueType(kind)] if kind in set(ValueType) else 1
        fields[metric["slave_id"], field["register"]].append((field["address"], width))
    fill = entry["optimization_max_register_fill"]
    requests = {key: max_insert(each, fill=fill, size_max=125) for key, each in fields.items()}
    assert requests == {(1, "holding"): [0], (1, "coil"): [0]}


# -- Telegraf itself ---------------------------------------------------------------------------

WITH_TELEGRAF = pytest.mark.skipif(
    TELEGRAF is None,
    reason="there is no telegraf on PATH: what it makes of the files is not tested",
)
SECRETS = {"MQTT_PASSWORD": "s3cret", "INFLUX_TOKEN": "b"}


class Telegraf(Server):
    """It runs a configuration; ``dsn`` is for its PostgreSQL output."""

    def __init__(self, folder: Path, text: str, dsn: str) -> None:
        super().__init__(folder)
        self.dsn = dsn
        self.config = folder / "telegraf.conf"
        self.config.write_text(text.replace("/var/lib/telegraf", str(folder)))

    def command(self) -> Sequence[str]:
        variables = [f"{name}={value}" for name, value in (SECRETS | self.environ).items()]
        return ["/usr/bin/env", *variables, str(TELEGRAF), "--config", str(self.config)]

    @property
    def environ(self) -> dict[str, str]:
        """What is this run's own."""
        return {"POSTGRES_DSN": self.dsn}

    def ready(self) -> bool:
        return "Connected" in self.log() or "Config" in self.log()

    def log(self) -> str:
        """Everything that it has said."""
        return (self.folder / "server.log").read_text(errors="replace")


@WITH_TELEGRAF
def test_telegraf_reads_what_the_plc_has(tmp_path: Path) -> None:
    """Every type, order, area and transport, once, with the labels of its row."""
    (tmp_path / "lines").mkdir()
    tags = rebind(plant_tags(), folder=tmp_path / "lines")
    rendered = render_modbus(make_subject(tmp_path, tags))
    assert {one.tag.tag for one in rendered.left_out} == {"BCD16", "BCD32"}
    path = tmp_path / "telegraf.conf"
    path.write_text(rendered.text)
    with Simulator(tmp_path / "plcs", tags):
        done = subprocess.run(
            [str(TELEGRAF), "--config", str(path), "--test"],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            env=os.environ | SECRETS | {"POSTGRES_DSN": "postgres://nobody@127.0.0.1/none"},
        )
    assert done.returncode == 0, done.stderr
    found = dict(line_of(line) for line in done.stdout.splitlines() if line.startswith("> "))
    wanted = {tag.series: tag for tag in tags if tag.tag not in {"BCD16", "BCD32"}}
    assert set(found) == set(wanted)
    wrong = {
        series: found[series]
        for series, tag in wanted.items()
        if not matches(tag, found[series][0], found[series][1], late_ms=LATE_MS)
    }
    assert not wrong


def line_of(line: str) -> tuple[Series, tuple[int, float]]:
    """Series, time in ms and value of a line in line protocol."""
    labels, fields, time_ns = re.split(r"(?<!\\) ", line.removeprefix("> "))
    pairs = [re.split(r"(?<!\\)=", part) for part in re.split(r"(?<!\\),", labels)[1:]]
    plain = {name: re.sub(r"\\([ ,=])", r"\1", text) for name, text in pairs}
    series = Series(*(plain.get(name, "") for name in Series._fields))
    return series, (int(time_ns) // 1_000_000, float(fields.removeprefix("value=")))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A database server, where it is needed."""
    with Cluster(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@WITH_TELEGRAF
async def test_what_comes_by_mqtt_becomes_rows(cluster: Cluster, tmp_path: Path) -> None:
    """Seven-key messages, whatever the names in them, become rows of plc_raw; InfluxDB is away
    meanwhile and holds nothing up."""
    base = Database(cluster, await cluster.fresh())
    await base.execute("SELECT plc_make_partitions(ARRAY[extract(epoch FROM now())::bigint/86400])")
    tags = nasty_tags()
    with Mosquitto(tmp_path / "broker") as broker:
        settings = {"mqtt.url": broker.url, "influx.measurement": 'p"$HOME\\'}
        text = render_mqtt(make_subject(tmp_path, tags, settings)).text
        dsn = base.dsn().replace("postgresql://", "postgres://") + "?sslmode=disable"
        with Telegraf(tmp_path / "telegraf", text, dsn) as telegraf:
            start_ms = now_ms()
            await until_it_subscribes(broker, base, start_ms)
            await publish(broker, tags, start_ms)
            for _ in range(ATTEMPTS):
                rows = {key: v for key, v in (await base.rows()).items() if key[0] >= start_ms}
                if len(rows) == len(tags):
                    break
                await asyncio.sleep(0.5)
    assert rows == {
        (start_ms + place, tag.site, tag.device, tag.tag): place + 0.5
        for place, tag in enumerate(tags)
    }, telegraf.log()[-3000:]
    units = await base.query("SELECT DISTINCT tag, line, unit FROM plc_raw WHERE tag <> 'EARLY'")
    assert {tuple(row) for row in units} == {(tag.tag, tag.line, tag.unit) for tag in tags}


async def publish(broker: Mosquitto, tags: Sequence[Tag], start_ms: int) -> None:
    """A message of each tag, a millisecond apart, as the agent would."""
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        for place, tag in enumerate(tags):
            message = {"ts": time_text(start_ms + place).decode(), **tag.series._asdict()}
            message |= {"value": place + 0.5}
            topic = topic_of(tag.series).decode()
            await client.publish(topic, json.dumps(message), qos=1)


async def until_it_subscribes(broker: Mosquitto, base: Database, start_ms: int) -> None:
    """Publish samples of the time before ``start_ms`` until one is in the database."""
    for attempt in range(ATTEMPTS):
        await publish(broker, [make_tag("EARLY")], start_ms - ATTEMPTS + attempt)
        await asyncio.sleep(0.5)
        if await base.rows():
            return
    raise TimeoutError("Telegraf does not subscribe")
