"""`edge-agent demo`: simulated PLCs, agent, broker, embedded store and dashboard, all at once.

Everything runs on free ports of loopback and in a folder of its own, which is removed at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live

from edge_agent import address_map, protocols
from edge_agent.address_map import AddressMap
from edge_agent.agent import Agent
from edge_agent.cli import tables
from edge_agent.cli.options import add_map
from edge_agent.cli.words import duration_s
from edge_agent.command_line import DONE
from edge_agent.errors import ConfigError, TransientError
from edge_agent.settings import Settings, load_settings
from edge_agent.simulator.plant import DRIVERS_OWN, safe, told
from edge_agent.status.figures import AgentStatus
from edge_agent.text.counts import counted

REFRESH_S = 0.5
START_TIMEOUT_S = 10.0
END_TIMEOUT_S = 10.0
DEMO_MAP = Path("examples/demo/address_map.csv")
"""In the project's folder."""
PROJECT = Path(__file__).parents[2]
DASHBOARD_PORT = 8501
"""Easy to remember; another one if it is taken."""

log = logging.getLogger(__name__)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_map(parser)
    parser.add_argument(
        "--for",
        dest="duration_s",
        type=duration_s,
        metavar="TIME",
        help="end by itself after this time, like 10s, 2m",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001
    """Show the product at work; exit code 1 if one sample taken was not delivered to every sink."""
    loaded = address_map.load(options.map or map_of_demo(), protocols.load)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-agent-demo-")))
        demo_map = _moved(loaded, folder)
        if any(tag.protocol != DRIVERS_OWN for tag in demo_map.tags):
            stack.enter_context(_simulator(demo_map.path))
        broker = stack.enter_context(_mosquitto(folder))
        http = f"127.0.0.1:{free_port()}"
        overrides: dict[str, object] = {
            "agent.data_dir": str(folder / "data"),
            "agent.http": http,
            "store.enabled": True,
        }
        if broker is not None:
            overrides["mqtt.url"] = broker
        pages = stack.enter_context(_dashboard(folder / "data", http))
        demo_settings = load_settings(None, {}, overrides)
        where = " · ".join(_places(broker, pages))
        status = asyncio.run(_show(Agent(demo_settings, demo_map), where, options.duration_s))
    return DONE if status is None else summarize(status)


def map_of_demo() -> Path:
    """The demo's own map, from wherever it is called. Raises ``ConfigError`` if it is not there."""
    for path in (PROJECT / DEMO_MAP, DEMO_MAP):
        if path.is_file():
            return path
    raise ConfigError(
        f"the demo's map is in the project's folder ({DEMO_MAP}), and was not installed with it",
        hint="name a map: edge-agent demo --map address_map.csv",
    )


async def _show(agent: Agent, where: str, duration_s: float | None) -> AgentStatus | None:
    """Run the agent with a live picture of it, until the time is up or Ctrl-C."""
    console = Console(highlight=False)
    rates = tables.Rates()
    if not console.is_terminal:
        console.print(where)
    running = asyncio.create_task(agent.run())
    started = time.monotonic()
    status = None
    logging.getLogger().setLevel(logging.CRITICAL if console.is_terminal else logging.WARNING)
    with Live(console=console, refresh_per_second=4, transient=not console.is_terminal) as live:
        while not running.done():
            await asyncio.wait([running], timeout=REFRESH_S)
            if running.done():
                break
            if agent.pollers:
                status = await agent.report.status()
                if console.is_terminal:
                    live.update(tables.everything(status, rates, f"{where}; Ctrl-C ends the demo"))
            if duration_s is not None and time.monotonic() - started > duration_s:
                break
        agent.stop()
        await running
    final = agent.last_status
    if final is None:
        return None  # stopped before its journal was open
    tables.devices(status or final).show(console)
    tables.stages(final, None).show(console)
    return final


def _places(broker: str | None, pages: str | None) -> Iterator[str]:
    """Where to look."""
    yield f"dashboard on {pages}" if pages else "no dashboard (`make dashboard` builds it)"
    yield f"MQTT on {broker}, topics plc/#" if broker else "no Mosquitto found: store only"


def summarize(status: AgentStatus) -> int:
    """Say in one line per sink whether everything arrived; the demo's exit code."""
    taken = status["journal"]["taken"]
    complete = taken > 0
    print(f"{counted(taken, 'sample')} taken")
    for sink in status["sinks"]:
        missing = taken - sink["delivered"]
        complete = complete and missing == 0
        text = "all of them" if not missing else f"{missing:,} missing"
        print(f"  {sink['name']}: {sink['delivered']:,} delivered, {text}")
    print("demo ended: " + ("every sample arrived" if complete else "NOT every sample arrived"))
    return 0 if complete else 1


def _moved(loaded: AddressMap, folder: Path) -> AddressMap:
    """The same map with its PLCs on free ports of loopback, and serial lines in the folder.

    Rows that can't be simulated are left out and told: a demo must not ask a real PLC. Raises
    ``ConfigError`` if none is left.
    """
    tags, unserved = safe(loaded.tags, protocols.load, folder)
    for line in told(unserved):
        print(line, file=sys.stderr)
    if not tags:
        raise ConfigError(
            f"{loaded.path}: no row of it can be simulated",
            hint="edge-agent demo without --map has a map of its own",
        )
    path = folder / "address_map.csv"
    address_map.write(path, tags)
    return address_map.load(path, protocols.load)


@contextmanager
def _simulator(path: Path) -> Iterator[None]:
    """PLCs in a process of their own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent.simulator", str(path)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise TransientError("the simulated PLCs did not start")
        yield
    finally:
        _end(process)


@contextmanager
def _mosquitto(folder: Path) -> Iterator[str | None]:
    """A broker on a free port; None where Mosquitto is not installed."""
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/sbin")
    if binary is None:
        print(
            "Mosquitto is not installed: the demo runs without MQTT (apt-get install mosquitto)",
            file=sys.stderr,
        )
        yield None
        return
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_type error\n")
    process = subprocess.Popen([binary, "-c", str(config)], start_new_session=True)
    try:
        wait_for_port(port, process)
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        _end(process)


@contextmanager
def _dashboard(data_dir: Path, agent_http: str) -> Iterator[str | None]:
    """The dashboard in a process of its own; None where it is not installed or not built."""
    port = free_port(DASHBOARD_PORT)
    command = [sys.executable, "-m", "dashboard", "--port", str(port), "--data-dir", str(data_dir)]
    process = subprocess.Popen(
        [*command, "--agent-url", f"http://{agent_http}"],
        env={**os.environ, "EDGE_AGENT__AGENT__LOG_LEVEL": "error"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        try:
            wait_for_port(port, process)
        except TransientError as error:
            log.debug("demo without a dashboard: %s", error)
            yield None
        else:
            yield f"http://127.0.0.1:{port}/"
    finally:
        _end(process)


def free_port(wanted: int = 0) -> int:
    """A loopback port that nobody listens on now: the wanted one if it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process that we started listens. Raises ``TransientError``."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TransientError(f"{process.args!r} does not listen on port {port}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
