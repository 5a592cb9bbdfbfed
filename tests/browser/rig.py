"""A small plant with everything in front of it, as a user has it: PLC, agent, store, dashboard.

The PLC is pymodbus's server. Its registers are written by a Modbus client, so that a test decides
what the plant does. Agent and dashboard are the commands that a user starts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Page
from pymodbus.client import ModbusTcpClient

from edge_agent import address_map
from edge_agent.model import Tag, ValueType
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.store import StoreSink
from tests.batches import BatchMaker
from tests.modbus_server import PymodbusServer
from tests.plant import Agent
from tests.servers import Server

SCALE = 0.1
REGISTERS = 64
SEED_INTERVAL_MS = 10_000
PAST_MS = 3 * 3_600_000
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def until(page: Page, expression: str, timeout_s: float = 15.0) -> None:
    """Wait until JavaScript says yes.

    Playwright's own `wait_for_function` evaluates inside the page, where the policy forbids it.
    """
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {expression}")
        page.wait_for_timeout(20)


def tag(device: str, name: str, place: int, **fields: Any) -> Tag:
    """A tag whose raw value is the holding register at ``place``, in tenths."""
    plain = Tag(
        site="A1",
        line="L1",
        device=device,
        tag=name,
        protocol="modbus",
        conn="",
        unit_id=1,
        address=f"hr:{place}",
        type=ValueType.INT16,
        scale=SCALE,
        offset=0.0,
        period_ms=500,
        unit="bar",
    )
    return replace(plain, **fields)


PLANT = (
    tag("PUMP01", "PRESS", 0, hi=12.0, lo=2.0, precision=1, description="급수 펌프 압력"),
    tag("PUMP01", "TEMP", 1, unit="°C", hi=90.0),
    tag("PUMP01", "RUN", 2, unit="", scale=1.0),
    tag("보일러01", "수위", 3, line="L2", unit="%", hi=95.0, lo=10.0),
    tag("보일러01", "증기압력", 4, line="L2", hi=10.0, lo=6.0),
    tag("TANK07", "LEVEL", 5, site="B2", line="L3", unit="%"),
)
CALM = {0: 70, 1: 400, 2: 1, 3: 550, 4: 80, 5: 470}
"""Raw values by register with which every tag is well within its limits."""


class Dashboard(Server):
    """`edge-dashboard` as a user starts it."""

    def __init__(self, folder: Path, options: Sequence[str], *, config: str = "") -> None:
        super().__init__(folder)
        self._options = options
        self._config = config

    def command(self) -> Sequence[str]:
        path = self.folder / "edge-agent.toml"
        path.write_text(self._config)
        program = str(Path(sys.executable).with_name("edge-dashboard"))
        return [program, "--config", str(path), "--port", str(self.port), *self._options]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def url(self) -> str:
        """The home page."""
        return f"http://127.0.0.1:{self.port}/"

    def get(self, path: str) -> Any:
        """A JSON answer of its API."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return json.load(answer)


class Plant:
    """PLC, agent and dashboard of one test module; each can be stopped and started again."""

    def __init__(
        self,
        folder: Path,
        tags: Sequence[Tag] = PLANT,
        calm: Mapping[int, int] = CALM,
        *,
        dashboard_config: str = "",
    ) -> None:
        self.folder = folder
        self._calm = calm
        cells = [calm.get(place, 0) for place in range(REGISTERS)]
        self.plc = PymodbusServer(folder / "plc", {1: {"holding": {0: cells}}})
        self.tags = tuple(replace(tag, conn=self.plc.conn) for tag in tags)
        self.map_path = folder / "address_map.csv"
        self.agent = Agent(folder / "agent", self.map_path)
        self.agent.configure(["[store]", "enabled = true"])
        self.write_map(self.tags)
        agent_url = f"http://127.0.0.1:{self.agent.port}"
        options = ["--data-dir", str(self.agent.data_dir), "--agent-url", agent_url]
        self.dashboard = Dashboard(folder / "dashboard", options, config=dashboard_config)

    def write_map(self, tags: Sequence[Tag]) -> None:
        """What the agent reads at its start; a running one takes it within a second or three."""
        address_map.write(self.map_path, tags)

    def set(self, cells: Mapping[int, int]) -> None:
        """Write raw values into the PLC."""
        client = ModbusTcpClient("127.0.0.1", port=self.plc.port)
        assert client.connect()  # type: ignore[no-untyped-call]
        try:
            for place, value in cells.items():
                assert not client.write_register(place, value & 0xFFFF, device_id=1).isError()
        finally:
            client.close()  # type: ignore[no-untyped-call]

    def calm(self) -> None:
        """Everything within its limits."""
        self.set(self._calm)

    @contextmanager
    def running(self) -> Iterator[None]:
        """All three, ended in reverse order."""
        parts = (self.plc, self.agent, self.dashboard)
        try:
            for part in parts:
                part.start()
            yield
        finally:
            for part in reversed(parts):
                part.stop()


Past = Callable[[int, int], float]
"""What a tag, by its place in the map, was at a time in ms."""


def wave(place: int, ts_ms: int) -> float:
    """A calm triangle around the value that `CALM` has."""
    middle = CALM.get(place, 0) * SCALE
    phase = (ts_ms / 3_600_000 + place / 7) % 1
    return round(middle * (1 + 0.1 * (4 * abs(phase - 0.5) - 1)), 2)


async def fill_store(
    path: Path, tags: Sequence[Tag], first_ms: int, last_ms: int, past: Past
) -> None:
    """Give a store a past by the sink itself: a sample each ten seconds."""
    sink = StoreSink(path, now_ms=lambda: last_ms, elapsed_ms=lambda: 0)
    await sink.open(JournalIdentity("past", "past"))
    make = BatchMaker()
    step_ms = SEED_INTERVAL_MS * 60
    for start_ms in range(first_ms, last_ms, step_ms):
        end_ms = min(start_ms + step_ms, last_ms)
        await sink.deliver(
            [
                make(
                    (one.series, ts_ms, past(place, ts_ms))
                    for ts_ms in range(start_ms, end_ms, SEED_INTERVAL_MS)
                    for place, one in enumerate(tags)
                )
            ]
        )
    await sink.maintain()
    await sink.close()


def give_past(plant: Plant, past: Past = wave, past_ms: int = PAST_MS) -> None:
    """Fill the store of a plant that does not run yet, up to a minute ago."""
    last_ms = (int(time.time() * 1000) - 60_000) // SEED_INTERVAL_MS * SEED_INTERVAL_MS
    path = plant.agent.data_dir / "store.db"
    work = fill_store(path, plant.tags, last_ms - past_ms, last_ms, past)
    with ThreadPoolExecutor(1) as thread:  # Playwright has an event loop in ours
        thread.submit(asyncio.run, work).result()
