"""`edge-agent plan` against a running agent, the simulator's counters, and a real journal."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pty
import re
import struct
import subprocess
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import lcm
from pathlib import Path
from typing import Any

import pytest

from edge_agent import address_map, protocols
from edge_agent.agent import Agent
from edge_agent.bus_load import ConnectionForecast
from edge_agent.cli import plan as command
from edge_agent.cli.main import main
from edge_agent.command_line import exit_code
from edge_agent.forecast import entry_bytes, forecast
from edge_agent.journal import Journal
from edge_agent.metrics import Histogram
from edge_agent.model import Series, Tag, ValueType
from edge_agent.pipeline.poller import ConnectionPoller
from edge_agent.planner import Connection, plan
from edge_agent.settings import Settings, load_settings
from edge_agent.simulator import ModbusSimulator, rebind
from edge_agent.simulator.fault_file import parse
from edge_agent.simulator.listener import Listener
from edge_agent.sinks import Destination
from edge_agent.sinks.memory import MemorySink
from tests.integration.test_simulator import make_tag
from tests.s7_server import S7Server
from tests.servers import free_port
from tests.waiting import until

ROOT = Path(__file__).parents[2]
DEMO_MAP = ROOT / "examples/demo/address_map.csv"
WAIT_S = 20.0
LATE_S_MAX, REQUEST_S_MAX = 0.05, 0.01
"""Bounds of histograms: so late, and its few requests so slow, a scan still ends before the next
tick of the 200 ms grid that all ticks stand on."""
WINDOWS_MAX = 20
"""How often an exact window is looked for on a machine that is busy with other things."""


def run(*words: str, settings: Settings | None = None) -> int:
    """The command as `edge-agent plan` runs it; its exit code."""
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    given = {"map": None, "command": "plan"}
    options = argparse.Namespace(**given | vars(parser.parse_args(words)))
    return exit_code(
        "edge-agent", lambda: command.run(options, settings or load_settings(None, {}))
    )


def written(path: Path, tags: Sequence[Tag]) -> str:
    """A map of these tags."""
    address_map.write(path, [replace(tag, tag=f"T{at:03}") for at, tag in enumerate(tags)])
    return str(path)


def document(
    capsys: pytest.CaptureFixture[str], *words: str, settings: Settings | None = None
) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON."""
    code = run(*words, "--json", settings=settings)
    return code, json.loads(capsys.readouterr().out)


def test_a_comparison_knows_the_round_trip_too(capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict is the one that the map has by itself."""
    for against in ((), ("--against", str(DEMO_MAP))):
        for round_trip_ms, possible in (("5", True), ("500", False)):
            code = run("--map", str(DEMO_MAP), "--round-trip-ms", round_trip_ms, *against)
            assert code == int(not possible)
            assert ("impossible" in capsys.readouterr().out) is not possible


# -- the forecast is what the PLC counts -------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """What a listener had counted at some moment."""

    requests: int
    registers: int
    bytes_received: int
    bytes_sent: int

    @classmethod
    def of(cls, listener: Listener) -> Counts:
        return cls(
            listener.requests, listener.registers, listener.bytes_received, listener.bytes_sent
        )

    def since(self, before: Counts) -> Counts:
        return Counts(
            self.requests - before.requests,
            self.registers - before.registers,
            self.bytes_received - before.bytes_received,
            self.bytes_sent - before.bytes_sent,
        )


def expected(one: ConnectionForecast, window_s: Fraction) -> Counts:
    """The forecast's rates over a window: whole numbers, without rounding."""
    exact = [
        one.requests_per_s * window_s,
        one.per_s(lambda c: c.cells_read) * window_s,
        one.per_s(lambda c: c.bytes_sent) * window_s,
        one.per_s(lambda c: c.bytes_received) * window_s,
    ]
    assert all(number.denominator == 1 for number in exact)
    return Counts(*map(int, exact))


TRANSPORTS = {
    "tcp": "tcp://10.0.0.{}:502",
    "rtu+tcp": "rtu+tcp://10.0.0.{}:4001?gap_max=125",
    "rtu": "rtu:///dev/line{}?baudrate=921600&gap_max=125",
}
"""RTU keeps silence before each request, so a scan with many would take too long for the grid."""


def plant(transport: str, folder: Path) -> list[Tag]:
    """Three connections: one class, two that divide each other, and three that do not."""
    spread = [
        (0, [200]),
        (1, [200, 600]),
        (2, [400, 600, 1_000]),
    ]
    tags = []
    for number, periods in spread:
        conn = TRANSPORTS[transport].format(number)
        for at, period_ms in enumerate(periods * 6):
            address = f"{'hr' if at % 2 else 'ir'}:{at * (3 + 4 * number)}"
            kind = ValueType.FLOAT32 if at % 3 else ValueType.INT16
            one = make_tag(address, kind, conn=conn, unit_id=1 + at % 2)
            # A device belongs to one connection here.
            tags.append(replace(one, period_ms=period_ms, device=f"{one.device}-{number}"))
        one = make_tag("co:3", ValueType.BOOL, conn=conn)
        tags.append(replace(one, period_ms=periods[-1], device=f"{one.device}-{number}"))
    named = [replace(tag, tag=f"T{at:03}") for at, tag in enumerate(tags)]
    return rebind(named, folder=folder)


class Watch:
    """Notes a listener's counters each time a scan of its slowest class has been answered.

    At a common tick the faster classes come first (`schedule.py`), so between two such moments
    lie whole periods of every class that divides the distance.
    """

    def __init__(self, listener: Listener, last: bytes) -> None:
        self.marks: list[Counts] = []
        answer = listener.answer

        def noting(request: bytes, step: int) -> bytes:
            reply = answer(request, step)
            if request == last:
                self.marks.append(Counts.of(listener))
            return reply

        listener.answer = noting  # type: ignore[method-assign]


@pytest.mark.parametrize("transport", list(TRANSPORTS))
async def test_the_forecast_is_what_the_simulator_counts(tmp_path: Path, transport: str) -> None:
    """Requests, registers and bytes of a running agent, per connection, equal exactly.

    A window is as many scans of the slowest class as make whole periods of all; no scan in it was
    left out, which the agent itself counts.
    """
    tags = plant(transport, tmp_path)
    path = tmp_path / "address_map.csv"
    address_map.write(path, tags)
    overrides = {"agent.data_dir": str(tmp_path / "data"), "agent.http": ""}
    settings = load_settings(None, {}, overrides)
    result = forecast(
        tags,
        protocols.load,
        journal=settings.journal,
        postgres=settings.postgres,
        commit_interval_s=0.2,
    )
    agent = Agent(settings, address_map.load(path, protocols.load))
    agent.destinations = [Destination(MemorySink())]
    async with ModbusSimulator(tags, syntax=protocols.load) as simulator:
        watches = [
            Watch(listener, last_request(one))
            for listener, one in zip(simulator.connections, plan(tags, protocols.load), strict=True)
        ]
        task = asyncio.create_task(agent.run(handle_signals=False))
        try:
            await until(lambda: agent.pollers, within_s=WAIT_S)
            assert [one.conn for one in result.connections] == [p.name for p in agent.pollers]
            await asyncio.gather(*map(assert_exact, result.connections, watches, agent.pollers))
            agent.stop()
            async with asyncio.timeout(WAIT_S):
                await task
        finally:
            agent.stop()
            await asyncio.wait([task], timeout=WAIT_S)
        assert agent.last_status is not None
        for row, listener in zip(
            agent.last_status["connections"], simulator.connections, strict=True
        ):
            assert row["requests"] == listener.requests
            assert row["errors"] == {}
        # Where there is one class, the agent's own count of scans says it without any window.
        only, *_ = result.connections
        row = agent.last_status["connections"][0]
        assert row["requests"] == row["scans"] * only.classes[0].requests


def last_request(connection: Connection) -> bytes:
    """The last request of a scan of the slowest class, from the unit id on."""
    block = connection.scan_classes[-1].blocks[-1]
    function = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}[block.area]
    return bytes((block.unit_id, function)) + struct.pack(">HH", block.start, block.count)


def disturbances(poller: ConnectionPoller) -> int:
    """Ticks left out, late scans and slow replies so far: what can move a scan past a mark."""

    def above(histogram: Histogram, bound: float) -> int:
        return sum(histogram.counts[histogram.bounds.index(bound) + 1 :])

    counters = poller.counters
    return (
        poller.schedule.overruns
        + above(counters.late, LATE_S_MAX)
        + above(counters.request_time, REQUEST_S_MAX)
    )


async def assert_exact(one: ConnectionForecast, watch: Watch, poller: ConnectionPoller) -> None:
    """Find a window without a disturbance; what was counted in it is what was forecast."""
    periods = [scan_class.period_ms for scan_class in one.classes]
    window_ms = lcm(*periods)
    scans = window_ms // periods[-1]
    async with asyncio.timeout(WINDOWS_MAX * (window_ms / 1000 + 2) + WAIT_S):
        for _ in range(WINDOWS_MAX):
            first, before = len(watch.marks), disturbances(poller)
            # The first mark may be of a scan that began before the look at the disturbances, and
            # the last one's scan is counted there only when its reply has come.
            while len(watch.marks) < first + 1 + scans + 2:
                await asyncio.sleep(0.02)
            if disturbances(poller) != before:
                continue
            counted = watch.marks[first + 1 + scans].since(watch.marks[first + 1])
            assert counted == expected(one, Fraction(window_ms, 1000)), one.conn
            assert one.requests_per_s == Fraction(counted.requests * 1000, window_ms)
            return
    pytest.fail("the machine disturbed every window")


# -- measuring ---------------------------------------------------------------------------------


async def test_a_measured_round_trip_has_the_devices_own_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A PLC that takes 30 ms is measured with 30 ms and more, and that is what is reckoned with."""
    tags = rebind([replace(make_tag(f"hr:{at * 60}"), period_ms=200) for at in range(4)])
    words = (f"--map={written(tmp_path / 'map.csv', tags)}", "--measure")
    slow = parse("[[fault]]\nkind='delay'\ndelay_ms=30")
    async with ModbusSimulator(tags, syntax=protocols.load, faults=slow):
        code, found = await asyncio.to_thread(document, capsys, *words)
    (one,) = found["connections"]
    assert code == (1 if one["verdict"] == "impossible" else 0)
    assert one["measured"]
    assert one["round_trip_ms"] >= 29
    assert one["scan_classes"][0]["cycle_ms"] == pytest.approx(4 * one["round_trip_ms"])


async def test_a_measured_round_trip_is_without_the_pause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `pause_ms` adds to each request is reckoned once, not measured as well."""
    tags = rebind([make_tag("hr:0", conn="tcp://10.0.0.1:502?pause_ms=300")])
    words = (f"--map={written(tmp_path / 'map.csv', tags)}", "--measure")
    async with ModbusSimulator(tags, syntax=protocols.load):
        code, found = await asyncio.to_thread(document, capsys, *words)
    (one,) = found["connections"]
    assert (code, one["measured"]) == (0, True)
    assert one["round_trip_ms"] < 250
    work_ms = one["scan_classes"][0]["work_ms"]
    assert work_ms == pytest.approx(one["round_trip_ms"] + 300)


def test_s7_is_measured_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each job costs the round trip that the CPU has; bytes are counted, beside registers."""
    with S7Server(tmp_path / "cpu", {"DB1": bytes(1_000), "M": bytes(4)}) as cpu:
        tags = [
            make_tag(address, conn=cpu.conn, protocol="s7")
            for address in ("DB1.DBW0", "DB1.DBW10", "DB1.DBW600", "MW2")
        ]
        path = written(tmp_path / "map.csv", tags)
        code, found = document(capsys, f"--map={path}", "--measure")
        assert run(f"--map={path}", "--measure") == 0
        text = capsys.readouterr().out
    (one,) = found["connections"]
    (scan_class,) = one["scan_classes"]
    assert (code, one["verdict"], one["measured"], one["cell"]) == (0, "fits", True, "byte")
    assert (scan_class["requests"], scan_class["cells_wanted"], scan_class["cells_read"]) == (
        3, 8, 16,
    )  # fmt: skip
    assert 0 < one["round_trip_ms"] < 1_000
    assert scan_class["work_ms"] == pytest.approx(3 * one["round_trip_ms"])
    assert "wanted, read: bytes; ?: assumed" in text
    written(Path(path), [*tags, replace(make_tag("hr:0"), device="PUMP")])
    assert run(f"--map={path}") == 0
    assert "wanted, read: bytes (s7), registers (modbus); ?" in capsys.readouterr().out


def test_a_cpu_that_grants_less_than_is_planned_for_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what the `conn` should say; nothing where it says that, or less."""
    told = []
    with S7Server(tmp_path / "cpu", {"DB1": bytes(1_000)}) as cpu:  # it grants 480
        for pdu in (960, 480, 240):
            tag = make_tag("DB1.DBW0", conn=f"{cpu.conn}?pdu={pdu}", protocol="s7")
            path = written(tmp_path / "map.csv", [tag])
            assert run(f"--map={path}", "--measure") == 0
            told.append(capsys.readouterr().err)
    hint = (
        "the CPU grants PDUs of 480 bytes, and a request is planned for 960: write pdu=480 into"
        " `conn`"
    )
    assert told == [f"edge-agent: {cpu.conn}?pdu=960: {hint}\n", "", ""]


def test_who_does_not_answer_is_assumed_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The forecast is made with the time that was given; exit code 1."""
    conn = f"tcp://127.0.0.1:{free_port()}"
    path = written(tmp_path / "map.csv", [make_tag("hr:0", conn=conn)])
    assert run(f"--map={path}", "--measure", "--round-trip-ms=7") == 1
    output = capsys.readouterr()
    assert f"{conn} could not be measured, so 7 ms are assumed" in output.err
    assert "7.0 ms" in output.out


# -- what it says ------------------------------------------------------------------------------


def test_the_demo_map(capsys: pytest.CaptureFixture[str]) -> None:
    """It fits; text and JSON tell the same."""
    assert run(f"--map={DEMO_MAP}") == 0
    text = capsys.readouterr().out
    code, found = document(capsys, f"--map={DEMO_MAP}")
    assert code == 0
    assert (found["ok"], found["verdict"], found["tags"]) == (True, "fits", 59)
    assert f"at most {found['rows_per_day']:,} rows a day" in text
    for one in found["connections"]:
        assert one["conn"] in text
        assert f"{one['requests_per_s']:.2f}" in text
    assert found["journal"]["bytes_max"] == 2_000_000_000
    assert f"{found['journal']['hours_until_full']:,.1f} h" in text
    assert [disk["days"] for disk in found["database"]] == [1, 7, 90]


def test_the_journals_size_is_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Half the size, half the hours."""
    _, whole = document(capsys, f"--map={DEMO_MAP}")
    half = load_settings(None, {}, {"journal.bytes_max": 1_000_000_000})
    _, found = document(capsys, f"--map={DEMO_MAP}", settings=half)
    hours = whole["journal"]["hours_until_full"]
    assert found["journal"]["hours_until_full"] == pytest.approx(hours / 2)


def test_an_impossible_map_names_the_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its line in the file; the file without it and what follows can be done."""
    tags = [replace(make_tag(f"hr:{at * 60}"), period_ms=200) for at in range(12)]
    path = tmp_path / "map.csv"
    words = (f"--map={written(path, tags)}", "--round-trip-ms=25")
    code, found = document(capsys, *words)
    assert (code, found["verdict"]) == (1, "impossible")
    row = found["connections"][0]["breaks"]
    assert row == {
        "line": 10, "site": "A1", "device": "PLC1", "tag": "T008", "address": "hr:480",
        "period_ms": 200,
    }  # fmt: skip
    assert run(*words) == 1
    output = capsys.readouterr().out
    assert "impossible from A1/PLC1/T008 on (line 10, hr:480, every 200 ms)" in output
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: row["line"] - 1]))
    code, found = document(capsys, *words)
    assert (code, found["verdict"]) == (0, "tight")


def test_numbers_that_count_from_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same registers cost the same, whatever the connection calls them."""
    figures = []
    for first, options in ((40001, ""), (40000, "?zero_based=true")):
        tags = [
            make_tag(str(first + at), conn=f"tcp://10.0.0.5:502{options}") for at in (0, 1, 9, 30)
        ]
        code, found = document(capsys, f"--map={written(tmp_path / 'map.csv', tags)}")
        assert code == 0
        figures.append({**found["connections"][0], "conn": "tcp://10.0.0.5:502"})
    assert figures[0] == figures[1]
    assert figures[0]["requests_per_s"] > 0


def test_other_protocols_have_rows_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No figure is invented for them."""
    tags = [
        replace(make_tag("7", conn="sim://a", protocol="simulated"), period_ms=500, device="SIM"),
        make_tag("hr:0"),
    ]
    path = written(tmp_path / "map.csv", tags)
    code, found = document(capsys, f"--map={path}")
    assert code == 0
    assert found["connections"][0] == {
        "conn": "sim://a", "protocol": "simulated", "tags": 1, "rows_per_day": 172_800,
        "verdict": None,
    }  # fmt: skip
    assert found["rows_per_day"] == 2 * 172_800
    assert run(f"--map={path}") == 0
    assert "sim://a" in capsys.readouterr().out


def test_a_wrong_map_is_told_as_check_tells_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same words and the same exit code, as text and as JSON."""
    path = tmp_path / "map.csv"
    path.write_bytes(DEMO_MAP.read_bytes().replace(b"FLOAT32", b"REAL", 2))
    for words in ((), ("--json",)):
        assert main(["check", "--map", str(path), *words]) == 2
        checked = capsys.readouterr()
        assert run("--map", str(path), *words) == 2
        assert capsys.readouterr() == checked
    assert run() == 2
    assert "no address map given" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["-1", "nan", "soon", "60001", "inf"])
def test_a_round_trip_has_bounds(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is allowed is said."""
    with pytest.raises(SystemExit) as caught:
        run(f"--round-trip-ms={text}")
    assert caught.value.code == 2
    assert "allowed: 0 to 60000" in capsys.readouterr().err


PROGRAM = """
import argparse, sys
from edge_agent.cli import plan
from edge_agent.settings import load_settings
parser = argparse.ArgumentParser()
plan.arguments(parser)
sys.exit(plan.run(parser.parse_args(), load_settings(None, {})))
"""


def test_a_table_on_a_terminal_and_words_in_a_pipe() -> None:
    """Lines and colours only where somebody looks at them; a terminal's width is kept to."""
    words = [sys.executable, "-c", PROGRAM, "--map", str(DEMO_MAP)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    piped = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True, env=environment
    ).stdout
    assert piped.isascii()
    assert "\x1b" not in piped
    rows = [line.split() for line in piped.splitlines()]
    assert ["tcp://127.0.0.1:1502", "33", "6,393,600", "40.80"] in [row[:4] for row in rows]
    ours, theirs = pty.openpty()
    with subprocess.Popen(words, stdout=theirs, cwd=ROOT, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # the terminal's other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.wait(60) == 0
    os.close(ours)
    assert b"\x1b[" in shown
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown.decode()).splitlines()
    tables = [line.rstrip() for line in lines if line.startswith(("╭", "│", "╰"))]
    assert len(tables) > 10
    assert max(map(len, tables)) <= 80
    assert any("tcp://127.0" in line and "fits" in line for line in tables)


# -- the journal's figure ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "runs"),
    [(1, 1), (10, 1), (10, 10), (50, 1), (100, 1), (200, 4), (300, 3), (400, 4), (1_000, 10),
     (1_000, 50), (5_000, 50)],
)  # fmt: skip
async def test_bytes_of_an_entry_are_those_of_a_real_journal(
    tmp_path: Path, samples: int, runs: int
) -> None:
    """Within 7 %: 200 entries of so many samples, in so many replies."""
    entries = 200
    journal = Journal(tmp_path / "journal.db", bytes_max=100_000_000, ballast_bytes=0)
    await journal.open(["never"])
    share = samples // runs
    names = [Series("A1", "L1", "PUMP01", f"T{at}", "bar") for at in range(share)]
    ids = array("I", [journal.intern(series) for series in names]).tobytes()
    journal.append(1_755_432_000_000, ids, [1.5] * share)
    await journal.flush()  # the series are written with it
    sizes = [await journal.bytes_used()]
    for entry in range(entries):
        for reply in range(runs):
            journal.append(1_755_432_001_000 + entry * 200 + reply, ids, [1.5] * share)
        await journal.flush()
    sizes.append(await journal.bytes_used())
    await journal.close()
    ((before, after),) = pairwise(sizes)
    assert entry_bytes(samples, runs) == pytest.approx((after - before) / entries, rel=0.07)
