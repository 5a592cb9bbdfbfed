"""A device that has not got all addresses of the map: whole agent, pymodbus's own server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from edge_agent.cli.status import frame_lines
from edge_agent.model import Tag, ValueType
from edge_agent.pipeline.reader import REFUSED_BEFORE
from edge_agent.status.figures import AgentStatus
from tests.integration.test_agent import Rig, make_tag, running
from tests.modbus_server import PymodbusServer

TAGS = 40
HOLE = 17


@pytest.fixture
def plc(tmp_path: Path) -> Iterator[PymodbusServer]:
    """Forty registers, but one; each holds its own number."""
    registers = {0: list(range(HOLE)), HOLE + 1: list(range(HOLE + 1, TAGS))}
    with PymodbusServer(tmp_path / "plc", {1: {"holding": registers}}) as started:
        yield started


def tags(plc: PymodbusServer) -> list[Tag]:
    return [
        make_tag(
            f"T{n:02}", conn=plc.conn, protocol="modbus", address=f"hr:{n}", type=ValueType.UINT16
        )
        for n in range(TAGS)
    ]


def bad(status: AgentStatus) -> dict[str, str | None]:
    """The tags that are not good, with the reason."""
    [device] = status["devices"]
    return {tag["tag"]: tag["error"] for tag in device["tags"] if tag["quality"] != "good"}


def good_values(status: AgentStatus) -> list[float | None]:
    [device] = status["devices"]
    return [tag["value"] for tag in device["tags"] if tag["quality"] == "good"]


async def settled(rig: Rig) -> AgentStatus:
    return await rig.until(lambda status: status["connections"][0]["tags_good"] == TAGS - 1)


async def test_one_register_that_is_not_there_costs_one_tag(
    tmp_path: Path, plc: PymodbusServer
) -> None:
    """All others have their values, and it is known why that one has none; also after a restart."""
    expected = [float(n) for n in range(TAGS) if n != HOLE]
    async with running(tmp_path / "agent", tags(plc)) as rig:
        status = await settled(rig)
        [error] = bad(status).values()
        assert "holding 17: exception 2 ILLEGAL_ADDRESS" in str(error)
        assert f"1 is bad or not read yet: A1/PUMP01/T17 ({error})" in status["verdict"]
        assert good_values(status) == expected
        first = status["connections"][0]["errors"]["device"]
        assert first <= 6 + 1  # halving forty tags
        await rig.stop()
    known = orjson.loads((tmp_path / "agent" / "data" / "gaps.json").read_bytes())
    assert known == {plc.conn: {"1/holding": {"holes": [[HOLE, 1]], "cuts": []}}}
    async with running(tmp_path / "agent", tags(plc)) as rig:
        status = await settled(rig)
        assert bad(status) == {"T17": REFUSED_BEFORE}
        assert good_values(status) == expected
        assert status["connections"][0]["errors"] == {}


async def test_why_was_it_bad(tmp_path: Path, plc: PymodbusServer) -> None:
    """Request and reply, byte by byte, as they were on the wire."""
    async with running(tmp_path / "agent", tags(plc)) as rig:
        await settled(rig)
        await rig.until(lambda status: status["connections"][0]["scans"] >= 3)
        code, found = await rig.get("/frames?device=PUMP01")
        assert code == 200
        [block] = found["blocks"]
        assert block["conn"] == plc.conn
        last = block["exchanges"][-1]
        # unit 1, function 3, from register 18, 22 of them; 44 bytes came back
        assert last["request"].endswith("00 06 01 03 00 12 00 16")
        assert "01 03 2c 00 12 00 13" in last["reply"]
        assert last["error"] is None
        text = "\n".join(frame_lines(found["blocks"]))
        assert "01 03 2c 00 12 00 13" in text
        for word in ("A1/PUMP01", "PUMP01/T19", "A1/PUMP01/T19"):
            code, named = await rig.get(f"/frames?device={word}")
            assert (code, named["blocks"][0]["conn"]) == (200, plc.conn)
            assert ("T18" in named["blocks"][0]["tags"]) == (word == "A1/PUMP01")
        code, found = await rig.get("/frames?device=nobody")
        assert code == 404
        assert found["error"].startswith("the running map has no 'nobody'; expected DEVICE, ")
        plc.pause()
        await rig.until(lambda status: status["connections"][0]["errors"].get("timeout", 0) > 0)
        _, found = await rig.get("/frames?device=PUMP01")
        [incident] = found["blocks"][0]["incidents"]
        assert len(incident["tags"]) == TAGS - 1
        assert incident["exchanges"][-1]["reply"] == ""
        assert "no answer within 1 s" in incident["exchanges"][-1]["error"]
        plc.resume()
