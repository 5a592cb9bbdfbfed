"""The generated flow in the real Node-RED: what it publishes is what the PLC had."""

from __future__ import annotations

import asyncio
import json
import math
import struct
import subprocess
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import aiomqtt
import pytest

from edge_agent.codec import BlockDecoder
from edge_agent.generate.nodered import render_flow
from edge_agent.model import ByteOrder, ValueType
from edge_agent.normalize import Normalizer
from edge_agent.simulator import matches, rebind
from tests.integration.generated import make_subject, make_tag, plant_tags
from tests.node_red_server import NodeRed
from tests.npm import NODE
from tests.plant import Simulator
from tests.servers import Mosquitto

KEYS = ["ts", "site", "line", "device", "tag", "value", "unit"]
MESSAGES_MIN = 4
"""Of each tag."""
ARRIVAL_TIMEOUT_S = 60
LATE_MS = 2_000
"""Between the PLC and the message's time, on a busy machine."""


HARNESS = """
const { readFileSync } = require("node:fs");
const { flow, blocks, cells } = JSON.parse(readFileSync(0, "utf8"));
const code = flow.find((node) => node.type === "function");
const store = {};
const context = { get: (name) => store[name], set: (name, value) => { store[name] = value; } };
new Function("context", code.initialize)(context);
const decode = new Function("context", "msg", "Buffer", code.func);
const found = {};
blocks.forEach((topic, i) => {
  const sent = decode(context, { topic, payload: cells[i] }, Buffer);
  for (const { topic, payload } of sent[0]) found[topic] = JSON.parse(payload).value;
});
console.log(JSON.stringify(found));
"""
ROUNDS = 40


def test_the_flows_function_decodes_as_the_agent_does(tmp_path: Path) -> None:
    """Any bytes under any type, order, scale and precision: the same number to the last bit, and
    none where the agent has none."""
    random = Random(6)
    tags = []
    for place in range(300):
        value_type = random.choice(list(ValueType))
        bit = f".{random.randrange(16)}" if value_type is ValueType.BOOL and place % 2 else ""
        tags.append(
            make_tag(
                f"T{place}",
                address=f"hr:{4 * place}{bit}",
                type=value_type,
                byte_order=random.choice(list(ByteOrder)),
                scale=random.choice([1.0, 0.1, 0.05, -0.25, 1e-3, 1e6]),
                offset=random.choice([0.0, 0.5, -40.0, 0.125]),
                precision=random.choice([None, 0, 1, 2, 12]),
            )
        )
    made = make_subject(tmp_path, tags)
    flow = json.loads(render_flow(made).text)
    blocks = [block for one in made.connections[0].scan_classes for block in one.blocks]
    topics = [node["topic"] for node in flow if node["type"] == "modbus-read"]
    compared = 0
    for _ in range(ROUNDS):
        # Small numbers are the ones that tie when they are rounded.
        cells = [
            [random.choice([0, random.randrange(100), random.randrange(65_536)]) for _ in range(n)]
            for n in (block.count for block in blocks)
        ]
        given = json.dumps({"flow": flow, "blocks": topics, "cells": cells})
        done = subprocess.run(
            [str(NODE), "-e", HARNESS], input=given, capture_output=True, text=True, check=True
        )
        expected = {}
        for block, words in zip(blocks, cells, strict=True):
            raw = BlockDecoder(block).decode(struct.pack(f">{block.count}H", *words))
            values = Normalizer(block.tags)(0, raw).all_values
            for tag, value in zip(block.tags, values, strict=True):
                if math.isfinite(value):
                    expected[f"plc/A1/PUMP01/{tag.tag}"] = value
        assert json.loads(done.stdout, parse_int=float) == expected
        compared += len(expected)
    assert compared > ROUNDS * 200


async def arrived(broker: Mosquitto, topics: set[str], log: Any) -> dict[str, list[bytes]]:
    """Messages by topic, once each topic has enough of them."""
    found: dict[str, list[bytes]] = defaultdict(list)
    try:
        async with (
            asyncio.timeout(ARRIVAL_TIMEOUT_S),
            aiomqtt.Client("127.0.0.1", broker.port) as client,
        ):
            await client.subscribe("#", qos=1)
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                found[str(message.topic)].append(message.payload)
                if all(len(found[topic]) >= MESSAGES_MIN for topic in topics):
                    return dict(found)
    except TimeoutError:
        missing = sorted(topic for topic in topics if len(found[topic]) < MESSAGES_MIN)
        pytest.fail(f"no message, or too few: {missing}\n{log()[-4000:]}")
    raise AssertionError


async def test_node_red_publishes_what_the_plc_had(tmp_path: Path) -> None:
    """Every tag's message arrives with the seven keys in order and the value of that moment."""
    tags = rebind(plant_tags(), folder=tmp_path / "lines")
    (tmp_path / "lines").mkdir(exist_ok=True)
    by_topic = {f"plc/{one.site}/{one.device}/{one.tag}": one for one in tags}
    with Mosquitto(tmp_path / "broker") as broker, Simulator(tmp_path / "plcs", tags):
        flow = tmp_path / "nodered.flow.json"
        rendered = render_flow(make_subject(tmp_path, tags, {"mqtt.url": broker.url}))
        assert not rendered.left_out
        flow.write_text(rendered.text)
        with NodeRed(tmp_path / "node-red", flow) as red:
            found = await arrived(broker, set(by_topic), red.log)
            assert "missing" not in red.log().lower()
    assert set(found) == set(by_topic)
    wrong = []
    for topic, one in by_topic.items():
        for payload in found[topic]:
            message = json.loads(payload)
            assert list(message) == KEYS
            names = (message["site"], message["line"], message["device"], message["tag"])
            assert (*names, message["unit"]) == one.series
            moment = datetime.strptime(message["ts"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
            ts_ms = round(moment.timestamp() * 1000)
            if not matches(one, ts_ms, message["value"], late_ms=LATE_MS):
                wrong.append((topic, payload))
    assert not wrong
