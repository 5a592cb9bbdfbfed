"""`edge-agent browse` against two real servers: the map it writes is valid and can be read."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import address_map, protocols
from edge_agent.cli import browse
from edge_agent.errors import ConfigError, TransientError
from edge_agent.model import ValueType
from edge_agent.planner import plan
from edge_agent.protocols.opcua import OpcuaDriver
from edge_agent.settings import Settings, load_settings
from tests.opcua_server import NAMESPACE, NODES, AsyncuaServer, NodeOpcuaServer
from tests.servers import free_port

AnyServer = AsyncuaServer | NodeOpcuaServer
KINDS: dict[str, type[AnyServer]] = {"asyncua": AsyncuaServer, "node-opcua": NodeOpcuaServer}
EXTRA = 1_200
"""More children of one object than a server tells in one answer."""
TYPES = {
    "Double": ValueType.FLOAT64, "Float": ValueType.FLOAT32, "Int16": ValueType.INT16,
    "UInt32": ValueType.UINT32, "Int64": ValueType.INT64, "Boolean": ValueType.BOOL,
}  # fmt: skip
WITHIN_S = 10.0


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AnyServer]:
    with KINDS[request.param](tmp_path_factory.mktemp("opcua"), extra=EXTRA) as running:
        yield running


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ours = {**protocols._OURS, "opcua": "edge_agent.protocols.opcua:OpcuaDriver"}
    monkeypatch.setattr(protocols, "_OURS", ours)
    protocols.load.cache_clear()
    yield
    protocols.load.cache_clear()


def settings() -> Settings:
    return load_settings(None, {}, {})


def run(*words: str) -> int:
    """The command, as the command line would run it."""
    parser = argparse.ArgumentParser()
    browse.arguments(parser)
    return browse.run(parser.parse_args(words), settings())


def test_every_number_of_the_server_becomes_a_row(
    server: AnyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Device, tag, type and address are right; text is left out, loops are survived."""
    path = tmp_path / "map.csv"
    words = ["--site", "A1", "--line", "L 1", "--period-ms", "500"]
    assert run(server.conn, "--out", str(path), *words) == 0
    tags = address_map.load(path, protocols.load).tags
    found = {f"{tag.device}.{tag.tag}": tag for tag in tags}
    for name, (kind, _) in NODES.items():
        if kind == "String":
            assert name not in found
            continue
        tag = found[name]
        assert (tag.type, tag.address) == (TYPES[kind], f"nsu={NAMESPACE};s={name}")
        assert (tag.site, tag.line, tag.period_ms, tag.conn) == ("A1", "L 1", 500, server.conn)
    assert sum(tag.device == "Extra" for tag in tags) == EXTRA
    assert f"{len(tags):,} tags" in capsys.readouterr().out


def test_what_was_written_can_be_read(server: AnyServer, tmp_path: Path) -> None:
    """The map drives the driver, and the values are the server's."""
    path = tmp_path / "map.csv"
    run(f"{server.conn}?mode=poll", "--out", str(path))
    [connection] = plan(address_map.load(path, protocols.load).tags, protocols.load)
    [block] = connection.scan_classes[0].blocks

    async def read() -> dict[str, float]:
        driver = OpcuaDriver(connection.conn, now_ms=lambda: time.time_ns() // 1_000_000)
        await driver.connect()
        try:
            async with asyncio.timeout(WITHIN_S):
                replies = await driver.read(block)
        finally:
            await driver.close()
        return {
            f"{block.tags[place].device}.{block.tags[place].tag}": value
            for reply in replies
            for place, value in zip(
                range(len(block.tags)) if reply.positions is None else reply.positions,
                reply.values,
                strict=True,
            )
        }

    values = asyncio.run(read())
    expected = {name: float(value) for name, (kind, value) in NODES.items() if kind != "String"}
    expected |= {f"Extra.{n}": float(n) for n in range(EXTRA)}
    assert expected.items() <= values.items()


def test_the_walk_is_bounded(
    server: AnyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After --max-nodes it writes what it has and says that there is more."""
    path = tmp_path / "map.csv"
    assert run(server.conn, "--out", str(path), "--max-nodes", "20") == 0
    assert "stopped after 20 nodes, there are more" in capsys.readouterr().err
    assert 0 < len(address_map.load(path, protocols.load).tags) < 20


def test_the_report_for_programs(
    server: AnyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was written and left out, on standard output; whether the whole server was walked."""
    path = tmp_path / "map.csv"
    assert run(server.conn, "--out", str(path), "--json", "--max-nodes", "20") == 0
    said = capsys.readouterr()
    rows = len(address_map.load(path, protocols.load).tags)
    assert json.loads(said.out) == {
        "ok": True, "out": str(path), "rows": rows, "left_out": 0, "visited": 20, "complete": False,
    }  # fmt: skip
    assert said.err == ""


def test_a_file_that_is_there_is_kept(server: AnyServer, tmp_path: Path) -> None:
    """Unless --force says otherwise."""
    path = tmp_path / "map.csv"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        run(server.conn, "--out", str(path))
    assert path.read_text() == "mine"
    assert run(server.conn, "--out", str(path), "--force") == 0
    assert path.read_text() != "mine"


@pytest.mark.parametrize(
    ("conn", "words", "error"),
    [
        ("tcp://h:502", [], ConfigError),
        ("opc.tcp://h", ["--site", "a/b"], ConfigError),
        ("opc.tcp://h", ["--site", ""], ConfigError),
        ("opc.tcp://h", ["--line", ""], ConfigError),
        ("opc.tcp://h", ["--line", "a\tb"], ConfigError),
        (f"opc.tcp://127.0.0.1:{free_port()}", [], TransientError),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    tmp_path: Path, conn: str, words: list[str], error: type[Exception]
) -> None:
    """A wrong `conn` or name is the input's fault, a server that is away is not."""
    with pytest.raises(error, match=r"\w+"):
        run(conn, "--out", str(tmp_path / "map.csv"), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--max-nodes", "0"], ["--period-ms", "199"]])
def test_numbers_have_bounds(tmp_path: Path, words: list[str]) -> None:
    """As the map itself has."""
    with pytest.raises(SystemExit):
        run("opc.tcp://h", "--out", str(tmp_path / "map.csv"), *words)
