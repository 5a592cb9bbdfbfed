"""A plant on loopback, for tests and benchmarks: a map, simulated PLCs and the agent as processes.

The servers around them are in `servers.py` and `influx_server.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge_agent import address_map
from edge_agent.model import Tag, ValueType
from tests.servers import Server, answers

TAGS_PER_CONNECTION = 500
TAGS_PER_DEVICE = 25
STATUS_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 120.0
SETTLE_INTERVAL_S = 0.1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def make_tags(
    count: int, period_ms: int = 1000, *, per_connection: int = TAGS_PER_CONNECTION
) -> list[Tag]:
    """A plausible mix: three FLOAT32 to one scaled INT16, 25 tags a device.

    The connections are told apart by made-up ports: `edge_agent.simulator.rebind` gives them real
    ones.
    """
    tags = []
    for index in range(count):
        connection, place = divmod(index, per_connection)
        whole = index % 4 == 3
        tags.append(
            Tag(
                site="A1",
                line=f"L{connection % 8 + 1}",
                device=f"PUMP{index // TAGS_PER_DEVICE:04d}",
                tag=f"T{index % TAGS_PER_DEVICE:02d}_PRESS",
                protocol="modbus",
                conn=f"tcp://127.0.0.1:{1 + connection}",
                unit_id=1,
                address=f"hr:{place * 2}",
                type=ValueType.INT16 if whole else ValueType.FLOAT32,
                scale=0.1 if whole else 1.0,
                offset=0.0,
                period_ms=period_ms,
                unit="bar",
                hi=100.0,
                lo=0.0,
                precision=None if whole else 3,
            )
        )
    return tags


@dataclass(slots=True)
class Usage:
    """A process's CPU seconds so far and resident memory in MB."""

    cpu_s: float
    rss_mb: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read /proc."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
        status = Path(f"/proc/{pid}/status").read_text()
        rss_kb = next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
        return cls(cpu_s, rss_kb / 1000)


class Simulator(Server):
    """Simulated PLCs for some tags, in a process of their own."""

    def __init__(self, folder: Path, tags: Sequence[Tag], *, faults: str = "") -> None:
        """``faults`` is the TOML of what goes wrong, if anything is to."""
        super().__init__(folder)
        self.tags = tuple(tags)
        self._faults_path = folder / "faults.toml" if faults else None
        if self._faults_path is not None:
            self._faults_path.write_text(faults)
        self.map_path = folder / "simulated.csv"
        address_map.write(self.map_path, tags)
        conns = {urlsplit(tag.conn) for tag in tags}
        self._ports = {int(conn.port) for conn in conns if conn.port}
        self._lines = {Path(conn.path) for conn in conns if not conn.port}

    def command(self) -> Sequence[str]:
        words = [sys.executable, "-m", "edge_agent.simulator", str(self.map_path)]
        return words if self._faults_path is None else [*words, "--faults", str(self._faults_path)]

    def ready(self) -> bool:
        return all(map(Path.exists, self._lines)) and all(map(answers, self._ports))


class Agent(Server):
    """The daemon as a user starts it; `port` is that of its HTTP server."""

    def __init__(
        self,
        folder: Path,
        map_path: Path,
        *,
        data_dir: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.map_path = map_path
        self.config_path = folder / "edge-agent.toml"
        self.data_dir = data_dir or folder / "data"
        self.exit_code: int | None = None
        """How the last process ended; negative: by that signal."""
        self._environ = environ or {}

    def configure(self, sections: Iterable[str], *, agent: str = "") -> None:
        """Write the settings; ``agent`` are further lines of its [agent] section."""
        head = f'[agent]\nid = "acceptance"\nhttp = "127.0.0.1:{self.port}"\n{agent}'
        self.config_path.write_text("\n".join([head, *sections]))

    def command(self) -> Sequence[str]:
        program = str(Path(sys.executable).with_name("edge-agent"))
        variables = [f"{name}={value}" for name, value in self._environ.items()]
        return ["/usr/bin/env", *variables, program, *self._where, "--map", str(self.map_path)]

    @property
    def _where(self) -> list[str]:
        return ["--config", str(self.config_path), "--data-dir", str(self.data_dir)]

    def ready(self) -> bool:
        return self.status() is not None

    def launch(self) -> None:
        """Start it and don't wait for anything."""
        assert self._process is None, "already running"
        self._log = (self.folder / "server.log").open("ab")
        self._process = subprocess.Popen(
            self.command(), stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL
        )

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait; `exit_code` says how it ended."""
        process = self._process
        super().stop(sig)
        if process is not None:
            self.exit_code = process.returncode

    def status(self) -> dict[str, Any] | None:
        """What it says of itself; None while it does not answer."""
        try:
            url = f"http://127.0.0.1:{self.port}/status"
            with urllib.request.urlopen(url, timeout=STATUS_TIMEOUT_S) as reply:
                status: dict[str, Any] = json.load(reply)
        except OSError:
            return None
        return status

    def run_command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another of its commands on the same settings and data; its exit code is not checked."""
        program = str(Path(sys.executable).with_name("edge-agent"))
        return subprocess.run(
            [program, *self._where, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )

    def journal(self) -> dict[str, Any]:
        """`edge-agent journal status --json`, of a running agent too."""
        done = self.run_command("journal", "status", "--json")
        if done.returncode:
            raise RuntimeError(f"journal status: {done.stderr}")
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def log(self) -> str:
        """Everything it has written to standard error."""
        return (self.folder / "server.log").read_text(errors="replace")


def settle(agent: Agent, pending_max: int, timeout_s: float = SETTLE_TIMEOUT_S) -> dict[str, Any]:
    """Wait until every sink of a running agent has taken samples and keeps up; the last status.

    ``pending_max`` is what gathers between two deliveries: a second's samples and a bit.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        status = agent.status()
        sinks = status["sinks"] if status else []
        if sinks and all(
            sink["connected"]
            and not sink["error"]
            and sink["delivered"] > 0
            and sink["pending"] <= pending_max
            for sink in sinks
        ):
            assert status is not None
            return status
        if time.monotonic() > deadline:
            raise TimeoutError(f"the sinks did not catch up: {sinks}")
        time.sleep(SETTLE_INTERVAL_S)
