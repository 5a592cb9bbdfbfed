"""`edge-remote status` and `serve`: what is well, what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.postgres import database
from remote import state
from remote.exposition import METRICS
from tests.integration.remote_pair import (
    FLAVOUR_PAIRS,
    FastClockPostgres,
    Pair,
    clusters,
    drop_slots,
    pair,
)
from tests.servers import Server

__all__ = ["clusters", "pair"]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The WAL's rate needs a second to be told well; no test looks at its figure."""
    monkeypatch.setattr(state, "RATE_LOOK_S", 0.05)


async def status_of(pair: Pair, code: int) -> dict[str, Any]:
    """The status as JSON; ``code`` is the exit code that it must have."""
    done = await pair.run("status", "--json")
    assert done.code == code, done
    return done.said


async def problem_of(pair: Pair) -> str:
    """All problems that status names, and it must name some."""
    return "\n".join((await status_of(pair, 1))["problems"])


@pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)
async def test_all_is_well(pair: Pair) -> None:
    """Exit code 0, no problem, and every figure is known."""
    await pair.setup()
    await pair.write(200, minutes_ago=3)
    await pair.wait_equal()
    status = await status_of(pair, 0)
    unknown = {key for key, value in status.items() if value is None}
    assert unknown <= {"wal_budget_hours"}, "no WAL, no rate"
    assert status["problems"] == []
    assert status["slot_active"] is status["enabled"] is status["copied"] is True
    assert status["wal_status"] == "reserved"
    assert status["lag_s"] < 5
    assert status["edge_newest"] == status["remote_newest"]
    assert abs(status["clock_skew_s"]) < 0.5
    assert status["wal_budget_bytes"] > 1e9
    shown = await pair.run("status")
    assert "replicates" in shown.output
    assert "newest row" in shown.output


async def test_before_setup(pair: Pair) -> None:
    """What is missing is named with the command that makes it."""
    assert "run `edge-remote setup`" in await problem_of(pair)


async def test_a_remote_that_is_away(pair: Pair) -> None:
    """The edge's side is still told; both addresses appear without a password."""
    await pair.setup()
    pair.settings["remote_dsn"] = "postgresql://postgres:geheim@127.0.0.1:1/gone"
    status = await status_of(pair, 1)
    assert status["edge_up"]
    assert not status["remote_up"]
    assert status["wal_status"] == "reserved"
    text = "\n".join(status["problems"])
    assert "is PostgreSQL running" in text
    assert "geheim" not in text


async def test_a_disabled_subscription(pair: Pair) -> None:
    """The command that enables it; the edge says that it keeps WAL; the lag is counted."""
    await pair.setup()
    await pair.write(60, minutes_ago=5)
    await pair.wait_equal()
    await pair.remote.execute(f"ALTER SUBSCRIPTION plc_{pair.name} DISABLE")
    await pair.write(60, minutes_ago=2)

    async def away() -> bool:
        return (await status_of(pair, 1))["slot_active"] is False

    await pair.wait(away, "an inactive slot")
    status = await status_of(pair, 1)
    text = "\n".join(status["problems"])
    assert f"ALTER SUBSCRIPTION plc_{pair.name} ENABLE" in text
    assert "keeps WAL for a remote that is away" in text
    assert status["lag_s"] == pytest.approx(180, abs=2)
    assert status["lag_bytes"] > 1_000  # 60 rows; with pages that changed first, ten times that
    assert " s behind the edge" in text


async def test_a_slot_that_is_gone(pair: Pair) -> None:
    """resync is named."""
    await pair.setup()
    await pair.remote.execute(f"ALTER SUBSCRIPTION plc_{pair.name} DISABLE")
    await drop_slots(pair.edge)
    assert "edge-remote resync" in await problem_of(pair)


async def test_a_subscription_that_is_gone(pair: Pair) -> None:
    """The edge would keep WAL for nobody."""
    await pair.setup()
    for sql in ("DISABLE", "SET (slot_name = NONE)"):
        await pair.remote.execute(f"ALTER SUBSCRIPTION plc_{pair.name} {sql}")
    await pair.remote.execute(f"DROP SUBSCRIPTION plc_{pair.name}")
    assert "edge-remote teardown" in await problem_of(pair)


async def test_a_worker_that_can_not_go_on(pair: Pair) -> None:
    """An error at the remote is counted, and where to read it is said; then it goes on."""
    await pair.setup()
    await pair.remote.execute(
        "ALTER TABLE plc_raw ADD CONSTRAINT small CHECK (value < 5) NOT VALID"
    )
    await pair.write(30)

    async def failed() -> bool:
        return bool((await pair.run("status", "--json")).said["apply_errors"])

    await pair.wait(failed, "an error of the worker")

    async def unconnected() -> bool:
        said = (await pair.run("status", "--json")).said
        return any("the log of the remote's server says why" in p for p in said["problems"])

    await pair.wait(unconnected, "a problem")
    await pair.remote.execute("ALTER TABLE plc_raw DROP CONSTRAINT small")
    await pair.wait_equal()


@pytest.mark.parametrize(
    ("end", "sql", "words"),
    [
        ("edge", "ALTER TABLE plc_raw DISABLE TRIGGER plc_publish", "edge-remote setup"),
        ("edge", "DROP PUBLICATION plc_pub", "edge-remote setup"),
        ("remote", "ALTER TABLE plc_outbox ENABLE TRIGGER plc_land", "edge-remote setup"),
        ("edge", "CREATE PUBLICATION trap FOR ALL TABLES", 'DROP PUBLICATION "trap"'),
    ],
)
async def test_what_was_broken_by_hand(pair: Pair, end: str, sql: str, words: str) -> None:
    """Status sees it, says what to do, and doing that sets it right."""
    await pair.setup()
    side = getattr(pair, end)
    await side.execute(sql)
    assert words in await problem_of(pair)
    if "setup" not in words:
        return
    await pair.setup()
    await pair.write(20)
    await pair.wait_equal()
    assert (await status_of(pair, 0))["problems"] == []


async def test_an_outbox_without_upkeep(pair: Pair) -> None:
    """The agent makes the outbox's partitions: without it the rows pile up in one place."""
    await pair.setup()
    for row in await pair.edge.query(
        "SELECT relname FROM pg_class WHERE relname ~ '^plc_outbox_[0-9]+$'"
    ):
        await pair.edge.execute(f"DROP TABLE {row[0]}")
    assert "is the agent running" in await problem_of(pair)


async def test_wal_without_limit(pair: Pair) -> None:
    """It would fill the edge's disk; setup sets the limit of the settings."""
    await pair.setup()
    await pair.edge.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
    await pair.edge.execute("SELECT pg_reload_conf()")
    assert "max_slot_wal_keep_size has no limit" in await problem_of(pair)
    pair.settings["wal_keep_bytes"] = 3_000_000_000
    await pair.setup()
    assert await pair.edge.value("SHOW max_slot_wal_keep_size") == "2862MB"
    assert (await status_of(pair, 0))["wal_budget_bytes"] > 2_000_000_000


async def test_clocks_that_drift_apart(pair: Pair, tmp_path: Path) -> None:
    """Which one is ahead, and by how much."""
    await pair.setup()
    with FastClockPostgres(tmp_path / "fast", ["fsync=off"]) as server:
        await database.init(server.dsn(), flavour="postgres")
        pair.settings["remote_dsn"] = server.dsn()
        status = await status_of(pair, 1)
    assert status["clock_skew_s"] == pytest.approx(-30, abs=1)
    assert any("clock of the remote" in problem for problem in status["problems"])


async def test_watch_looks_again_and_again(pair: Pair) -> None:
    """One line of JSON each look, until it is interrupted; the exit code is the last verdict."""
    await pair.setup()
    process = await asyncio.create_subprocess_exec(
        *command(pair), "status", "--watch", "--json", stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    lines = [json.loads(await asyncio.wait_for(process.stdout.readline(), 20)) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    assert lines[0]["looked_at"] < lines[1]["looked_at"]


# -- serve ----------------------------------------------------------------------------------------


def command(pair: Pair) -> list[str]:
    """`edge-remote` as a process."""
    return [sys.executable, "-m", "remote", "--config", str(pair.config)]


class Serve(Server):
    """`edge-remote serve`."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair.folder / "serve")
        self._pair = pair

    def command(self) -> Sequence[str]:
        return [*command(self._pair), "serve", "--http", f"127.0.0.1:{self.port}"]

    async def get(self, path: str) -> str:
        """What it answers."""

        def fetch() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(fetch)

    async def gauges(self) -> dict[str, float]:
        """Its figures, by name; several of one name are added up."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(await self.get("/metrics")):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found


@pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)
async def test_serve_tells_and_keeps_house(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every metric is there, rows are rolled up at the remote, and SIGTERM ends it with 0."""
    monkeypatch.chdir(Path(__file__).parents[2])
    await pair.setup()
    await pair.write(100)
    await pair.wait_equal()
    server = await asyncio.to_thread(Serve(pair).start)
    try:

        async def looked() -> bool:
            return "edge_remote_lag_bytes" in await server.gauges()

        await pair.wait(looked, "a look")
        gauges = await server.gauges()
        assert gauges["edge_remote_up"] == 2
        assert gauges["edge_remote_problems"] == 0
        assert gauges["edge_remote_subscription_worker"] == 1
        names = {name.removesuffix("_total") for name in gauges}
        assert METRICS.keys() - names <= {"edge_remote_wal_budget_hours"}
        assert json.loads(await server.get("/healthz")) == {"healthy": True, "stalled": []}
        told, printed = json.loads(await server.get("/status")), await status_of(pair, 0)
        assert told.keys() == printed.keys()
        assert told["problems"] == []
        assert told["looked_at"].endswith("Z")
        assert told["edge_newest"] == printed["edge_newest"]

        async def rolled_up() -> bool:
            return bool(await pair.remote.value("SELECT sum(samples) = 100 FROM plc_1m"))

        await pair.wait(rolled_up, "rollups at the remote")
        process = server._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0
    finally:
        await asyncio.to_thread(server.stop)
    log = (server.folder / "server.log").read_text()
    assert "Traceback" not in log
    assert "WARNING" not in log


async def test_serve_outlives_a_remote_that_is_away(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so once, counts it, and stays healthy."""
    monkeypatch.chdir(Path(__file__).parents[2])
    pair.settings["remote_dsn"] = "postgresql://postgres@127.0.0.1:1/gone"
    server = await asyncio.to_thread(Serve(pair).start)
    try:

        async def counted() -> bool:
            gauges = await server.gauges()
            return gauges.get("edge_remote_up") == 1 and gauges["edge_remote_failures_total"] >= 1

        await pair.wait(counted, "a failure that is counted", 20)
        assert json.loads(await server.get("/healthz"))["healthy"]
    finally:
        await asyncio.to_thread(server.stop)
    assert "is PostgreSQL running" in (server.folder / "server.log").read_text()


async def test_serve_needs_both_addresses(pair: Pair) -> None:
    """A wrong setting is told at once, with exit code 2."""
    pair.settings["edge_dsn"] = "postgresql://host:port/db"
    done = await pair.run("serve")
    assert done.code == 2
