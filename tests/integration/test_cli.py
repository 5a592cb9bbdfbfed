"""`edge-agent` as a person meets it: exit codes, messages, and never a traceback."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edge_agent import address_map
from edge_agent.cli import main
from edge_agent.simulator import rebind
from edge_agent.status.exposition import METRICS
from tests.integration.plc_database import Cluster
from tests.plant import Agent, Simulator, make_tags, settle
from tests.servers import free_port

EDGE_AGENT = str(Path(sys.executable).with_name("edge-agent"))
DEMO_MAP = Path(__file__).parents[2] / "examples/demo/address_map.csv"
COMMANDS = ("check", "plan", "probe", "browse", "simulate", "demo", "status", "journal", "db")


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """One command; its output must be free of tracebacks."""
    done = subprocess.run(
        [EDGE_AGENT, *words], capture_output=True, text=True, cwd=cwd, timeout=60, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A running agent with the embedded store and simulated PLCs."""
    folder = tmp_path_factory.mktemp("agent")
    tags = rebind(make_tags(50, 200))
    map_path = folder / "address_map.csv"
    address_map.write(map_path, tags)
    agent = Agent(folder / "agent", map_path)
    agent.configure([])
    with Simulator(folder / "plc", tags), agent:
        settle(agent, 200)
        yield agent


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_is_there(command: tuple[str, ...]) -> None:
    """Every command explains itself."""
    done = run(*command, "--help")
    assert done.returncode == 0
    assert "usage: edge-agent" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no address map"),
        (("--map", "nowhere.csv"), "nowhere.csv"),
        (("check", "--map", "nowhere.csv"), "nowhere.csv"),
        (("--map", str(DEMO_MAP), "--config", "nowhere.toml"), "nowhere.toml"),
        (("demo", "--for", "soon"), "10s"),
        (("journal", "status", "--data-dir", "nowhere"), "there is no journal"),
        (("db", "status"), "--dsn"),
        (("fly",), "invalid choice"),
        *(
            (words, f"hint: edge-agent {words[0]} --map address_map.csv")
            for words in (("check",), ("plan",), ("probe",), ("generate",))
        ),
        (("quality", "--map-only"), "hint: edge-agent quality --map address_map.csv"),
        *(
            (words, f"named with --map: edge-agent {words[0]} --map 'my map.csv'")
            for words in (
                ("check", "my map.csv"),
                ("plan", "my map.csv", "--json"),
                ("quality", "my map.csv"),
                ("simulate", "my map.csv"),
            )
        ),
        (("status", "map.csv"), "map.csv; edge-agent status is about the map that the agent runs"),
        (("check", "--map", str(DEMO_MAP), "--config", "nowhere.toml"), "there is no such file"),
        (("check", "--map", str(DEMO_MAP), "--config", "nowhere.toml"), "hint: --config names"),
        (("plan", "--map", str(DEMO_MAP), "--against", "runing"), "or: --against running"),
        (("generate", "--map", str(DEMO_MAP), "--out", ""), "name a folder"),
        (("map", "history", "--data-dir", "nowhere"), "nowhere: there is no such folder"),
        (("--data-dir", "nowhere", "map", "diff", "1"), "nowhere: there is no such folder"),
        (("quality", "--since", "99999d"), "before 1970; allowed: at most 366 days"),
        (("quality", "--until", "99999999d"), "--until 99999999d: that is before 1970"),
        (("quality", "--map-only", "--html", "/dev/null"), "/dev/null is not a file"),
        (
            ("probe", "--map", str(DEMO_MAP), "PUMP1/FLOW"),
            f"hint: edge-agent probe --map {DEMO_MAP} PUMP01/FLOW",
        ),
        (("check", "--map", str(DEMO_MAP), "--loudly"), "unrecognized"),
    ],
)
def test_wrong_input_is_exit_code_2(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    """The message says what is wrong; nothing was done."""
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_no_map_was_applied_yet(tmp_path: Path) -> None:
    """In a folder that is there that is no mistake, whichever side of the words names it."""
    for words in (("map", "history", "--data-dir", "."), ("--data-dir", ".", "map", "history")):
        done = run(*words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "")
        assert "no map was applied" in done.stderr


def test_one_of_each_is_no_plural(tmp_path: Path) -> None:
    """`check` counts as people do."""
    path = tmp_path / "map.csv"
    address_map.write(path, make_tags(1, 200))
    words = f"{path}: valid; 1 tag of 1 device on 1 connection, 0 disabled\n"
    assert run("check", "--map", str(path)).stdout == words


def test_check_reports_every_problem(tmp_path: Path) -> None:
    """As text and as JSON, with line and column."""
    path = tmp_path / "map.csv"
    rows = list(csv.reader(DEMO_MAP.read_text(encoding="utf-8-sig").splitlines()))
    header = rows[0]
    rows[1][header.index("period_ms")] = "20"
    rows[2][header.index("type")] = "REAL"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    text = run("check", "--map", str(path))
    assert text.returncode == 2
    assert "period_ms" in text.stderr
    assert "REAL" in text.stderr
    report = json.loads(run("check", "--map", str(path), "--json").stdout)
    assert [(problem["line"], problem["column"]) for problem in report["problems"]] == [
        (2, "period_ms"),
        (3, "type"),
    ]
    sound = run("check", "--map", str(DEMO_MAP))
    assert (sound.returncode, sound.stderr) == (0, "")


def test_the_demo_delivers_every_sample() -> None:
    """Three seconds of the whole product; the exit code is the proof.

    In a pipe, what it shows at the end is words in columns.
    """
    done = run("demo", "--for", "3s", "--map", str(DEMO_MAP))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every sample arrived" in done.stdout
    assert "│" not in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["device", "age", "newest", "values"] in rows
    assert any(row[:2] == ["→", "store"] for row in rows)


def s7_map(folder: Path, port: int, *, others: bool) -> Path:
    """A map with rows of an S7 at a port of loopback, and others of Modbus and OPC UA."""
    path = folder / "address_map.csv"
    lines = [f"S,T{n},s7,s7://127.0.0.1:{port},1,DB1.{2 * n},INT16" for n in range(5)]
    if others:
        lines += [
            "M,A,modbus,tcp://10.255.0.1:502,1,hr:1,INT16",
            "O,B,opcua,opc.tcp://10.255.0.2:4840,1,ns=2;s=B,FLOAT32",
            "V,C,simulated,sim://x,1,7,FLOAT32",
        ]
    columns = "device,tag,protocol,conn,unit_id,address,type,site,line,scale,offset,period_ms"
    lines = [f"{columns},unit,hi,lo", *(f"{line},A1,L1,1,0,200,,," for line in lines)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_demo_never_asks_a_real_plc(tmp_path: Path) -> None:
    """Rows that can't be simulated are left out, with their count, protocol and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as real:
        real.setblocking(False)
        path = s7_map(tmp_path, real.getsockname()[1], others=True)
        done = run("demo", "--for", "3s", "--map", str(path))
        with pytest.raises(BlockingIOError):
            real.accept()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not simulated: 5 rows of s7 (A1/S/T0, A1/S/T1, A1/S/T2 and 2 more)" in done.stderr
    assert "every sample arrived" in done.stdout
    assert [device for device in "SMOV" if f" {device} " in done.stdout] == ["M", "O", "V"]


def test_a_demo_without_a_row_is_wrong_input(tmp_path: Path) -> None:
    """There is nothing to show."""
    done = run("demo", "--for", "3s", "--map", str(s7_map(tmp_path, 102, others=False)))
    assert done.returncode == 2
    assert "not simulated: 5 rows of s7" in done.stderr
    assert "edge-agent: " in done.stderr
    assert "no row of it can be simulated" in done.stderr


def test_simulate_tells_errors_as_every_command(tmp_path: Path) -> None:
    """With the program's name and a hint, and a wrong map as `check` tells it."""
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("site,line\nA1,L1\n")
    told = [run(command, "--map", str(wrong)) for command in ("check", "simulate", "generate")]
    assert {done.returncode for done in told} == {2}
    assert len({done.stderr for done in told}) == 1
    assert told[0].stderr.startswith(f"edge-agent: {wrong}: ")
    done = run("simulate", "--map", str(DEMO_MAP), "--faults", "nofile", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("edge-agent: nofile: No such file or directory\n  hint: ")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = ("--host", "127.0.0.1", "--port", str(taken.getsockname()[1]))
        done = run("simulate", "--map", str(DEMO_MAP), *place)
    assert done.returncode == 1
    assert done.stderr.startswith("edge-agent: cannot listen on 127.0.0.1:")
    assert "  hint: " in done.stderr


def test_status_of_a_running_agent(agent: Agent) -> None:
    """One line says that all is well; `--json` has everything."""
    done = agent.run_command("status")
    assert done.returncode == 0
    assert done.stdout.startswith("All well: 50 tags")
    status = json.loads(agent.run_command("status", "--json").stdout)
    assert status["journal"]["taken"] > 0
    assert sum(len(device["tags"]) for device in status["devices"]) == 50
    assert {tag["quality"] for device in status["devices"] for tag in device["tags"]} == {"good"}


def test_what_was_applied_and_when(agent: Agent) -> None:
    """The history tells the time with its offset, as other commands do."""
    first, row = agent.run_command("map", "history").stdout.splitlines()
    assert first.split()[:2] == ["version", "applied"]
    assert re.match(r"1 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d  ", row)


def test_http_routes(agent: Agent) -> None:
    """Health, readiness and every metric, in Prometheus's own format."""
    base = f"http://127.0.0.1:{agent.port}"
    for route in ("/healthz", "/readyz", "/status"):
        with urllib.request.urlopen(f"{base}{route}", timeout=5) as reply:
            assert reply.status == 200
            json.load(reply)
    with urllib.request.urlopen(f"{base}/metrics", timeout=5) as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    assert {family.name for family in families} >= set(METRICS) - {"edge_agent_sink_failures"}
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{base}/nothing", timeout=5)


def test_the_journal_of_a_running_agent_is_read_and_not_changed(agent: Agent) -> None:
    """Looking is allowed at any time; changing needs the agent to be stopped."""
    assert "samples taken" in agent.run_command("journal", "status").stdout
    assert agent.run_command("journal", "check").returncode == 0
    assert agent.run_command("journal", "export", "ledger").stdout.startswith("sink,")
    for words in (("replay", "--sink", "store"), ("trim", "--sink", "store", "--yes")):
        done = agent.run_command("journal", *words)
        assert done.returncode == 2
        assert "in use by a running agent" in done.stderr


def test_a_second_agent_on_the_same_data_is_refused(agent: Agent) -> None:
    """Two writers would tear the journal apart."""
    done = run("--map", str(DEMO_MAP), "--data-dir", str(agent.data_dir), "--http", "")
    assert done.returncode == 2
    assert "in use by a running agent" in done.stderr


def test_nobody_answers() -> None:
    """`status` without an agent: exit code 1, and where to look."""
    done = run("status", "--http", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "no agent answers" in done.stderr


def test_database_commands(tmp_path: Path) -> None:
    """`db init` twice, `db status`, and a database that is not there."""
    with Cluster(tmp_path / "postgres") as cluster:
        dsn = cluster.server.dsn()
        assert "applied" in run("db", "init", "--dsn", dsn).stdout
        again = run("db", "init", "--dsn", dsn)
        assert again.returncode == 0
        assert "applied " not in again.stdout.replace("unchanged", "")
        assert run("db", "status", "--dsn", dsn).returncode == 0
    away = run("db", "status", "--dsn", f"postgresql://me:hidden@127.0.0.1:{free_port()}/plant")
    assert away.returncode == 1
    assert "hidden" not in away.stderr


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(map_bytes=st.binary(max_size=400), toml=st.text(max_size=200))
def test_garbage_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], map_bytes: bytes, toml: str
) -> None:
    """Any bytes as a map and any text as settings: exit code 2 and a message, never a traceback."""
    map_path, config = tmp_path / "map.csv", tmp_path / "edge-agent.toml"
    map_path.write_bytes(map_bytes)
    config.write_bytes(toml.encode(errors="surrogatepass"))
    assert main(["check", "--map", str(map_path)]) == 2
    assert main(["check", "--map", str(DEMO_MAP), "--config", str(config)]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_systemd_is_told(tmp_path: Path) -> None:
    """READY once it runs, WATCHDOG while it moves, STOPPING at its end, and exit code 0."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        process = subprocess.Popen(
            [EDGE_AGENT, "--map", str(DEMO_MAP), "--data-dir", str(tmp_path / "d"), "--http", ""],
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"},
            stderr=subprocess.DEVNULL,
        )
        try:
            heard = b""
            while b"READY=1" not in heard or b"WATCHDOG=1" not in heard:
                heard += manager.recv(4096) + b"\n"
            process.send_signal(signal.SIGTERM)
            while b"STOPPING=1" not in heard:
                heard += manager.recv(4096) + b"\n"
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
    assert heard.index(b"READY=1") < heard.index(b"STOPPING=1")
