"""Drivers from other packages: what docs/write-a-driver.md says, done as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.plant import Agent
from tests.s7_server import S7Server
from tests.servers import Server, wait_until

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/write-a-driver.md"
FILES = dict(re.findall(r"\*\*`([\w./-]+)`\*\*\n\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL))
"""The files that the page is made of, by name."""
MODULE_LINES_MAX = 120
INSTALL_TIMEOUT_S = 60.0
SUITE_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Installed:
    """The page's package, installed as a user does it, but into a folder of the test's."""

    sources: Path
    target: Path

    @property
    def environ(self) -> dict[str, str]:
        """Where Python finds it, and mypy the agent's types."""
        return {"PYTHONPATH": str(self.target), "MYPYPATH": str(ROOT)}

    def run(self, *command: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A command in the folder of the sources."""
        return subprocess.run(
            command, cwd=self.sources, env={**os.environ, **self.environ, "PYTEST_ADDOPTS": ""},
            capture_output=True,
            text=True, check=False, timeout=timeout_s,
        )  # fmt: skip

    def check_map(self) -> subprocess.CompletedProcess[str]:
        """`edge-agent check` on the page's map."""
        return self.run(agent_program(), "check", "--map", "address_map.csv")


def agent_program() -> str:
    return str(Path(sys.executable).with_name("edge-agent"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("driver")
    package = Installed(folder / "edge-agent-thermometer", folder / "site-packages")
    package.sources.mkdir()
    for name, text in FILES.items():
        (package.sources / name).write_text(text)
    done = package.run(
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--no-index", "--no-deps", "--no-build-isolation", "--target", str(package.target), ".",
        timeout_s=INSTALL_TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return package


class Station(Server):
    """The page's stand-in for the device."""

    def __init__(self, folder: Path, sources: Path) -> None:
        super().__init__(folder)
        self.sources = sources

    def command(self) -> list[str]:
        return [sys.executable, str(self.sources / "thermometer_station.py"), str(self.port)]


@pytest.fixture
def station(installed: Installed, tmp_path: Path) -> Iterator[Station]:
    with Station(tmp_path / "station", installed.sources) as running:
        yield running


def qualities(agent: Agent) -> dict[str, tuple[str, Any]]:
    """Quality and newest value of every tag."""
    status = agent.status()
    devices = status["devices"] if status else []
    return {tag["tag"]: (tag["quality"], tag["value"]) for each in devices for tag in each["tags"]}


def test_the_page_has_every_file_of_the_example() -> None:
    """A reader who copies the blocks has the package; the driver is short."""
    assert set(FILES) == {
        "thermometer_station.py",
        "edge_agent_thermometer.py",
        "test_thermometer.py",
        "pyproject.toml",
        "address_map.csv",
    }
    assert FILES["edge_agent_thermometer.py"].count("\n") <= MODULE_LINES_MAX


def test_the_example_keeps_the_contract(installed: Installed) -> None:
    """The page's own tests pass: the suite over the page's driver, on both event loops."""
    done = installed.run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio",
        "-W", "error", "test_thermometer.py", timeout_s=SUITE_TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert re.search(r"^30 passed in ", done.stdout, re.MULTILINE), done.stdout
    assert "30 passed" in PAGE.read_text()


def test_the_example_suits_the_type_checker(installed: Installed) -> None:
    """The class of the page is a Driver for mypy --strict, and its test suite is typed."""
    (installed.sources / "typed.py").write_text(
        "from edge_agent.protocols.base import Driver\n"
        "from edge_agent_thermometer import ThermometerDriver\n"
        "driver: type[Driver] = ThermometerDriver\n"
    )
    done = installed.run(
        sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(installed.target / "mypy"),
        "typed.py", "edge_agent_thermometer.py", "test_thermometer.py", timeout_s=SUITE_TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_map_is_checked_by_the_installed_driver(installed: Installed) -> None:
    """The page's map is valid; a wrong cell is refused with the driver's text, as shown."""
    good = installed.check_map()
    assert good.returncode == 0, good.stderr
    path = installed.sources / "address_map.csv"
    path.write_text(FILES["address_map.csv"].replace(",CH1,", ",CH0,"))
    try:
        bad = installed.check_map()
    finally:
        path.write_text(FILES["address_map.csv"])
    assert bad.returncode == 2
    [shown] = re.findall(
        r"\$ edge-agent check --map address_map.csv\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
    assert (bad.stdout + bad.stderr).strip() == shown.strip()


def test_without_the_package_the_protocol_is_unknown(installed: Installed) -> None:
    """What is not installed is a problem of the map that names it, and says what there is."""
    done = subprocess.run(
        [agent_program(), "check", "--map", str(installed.sources / "address_map.csv")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "unknown protocol 'thermometer'; allowed: modbus" in done.stdout + done.stderr


def test_the_real_agent_reads_the_example_device(
    installed: Installed, station: Station, tmp_path: Path
) -> None:
    """Samples of an installed driver arrive; away is stale, back is read on, broken is bad."""
    port = str(station.port)
    map_path = tmp_path / "address_map.csv"
    map_path.write_text(FILES["address_map.csv"].replace("8100", port))
    agent = Agent(tmp_path / "agent", map_path, environ=installed.environ)
    agent.configure([])
    good = {
        "DOOR": ("good", 18.5),
        "SHELF": ("good", 4.75),
        "FREEZER": ("good", -12.5),
        "OUTSIDE": ("bad", None),
        "ATTIC": ("bad", None),
    }
    with agent:
        wait_until(lambda: qualities(agent) == good, "good values of the station")
        wait_until(lambda: delivered(agent) >= 3, "samples in the store")
        station.stop()
        wait_until(
            lambda: {quality for quality, _ in qualities(agent).values()} == {"stale"},
            "stale tags of a station that is away",
        )
        before = delivered(agent)
        station.start()
        wait_until(lambda: qualities(agent) == good, "good values again")
        wait_until(lambda: delivered(agent) > before, "more samples in the store")
    assert agent.exit_code == 0
    assert "Traceback" not in agent.log()


S7_MAP = """\
site,line,device,tag,protocol,conn,unit_id,address,type,scale,offset,period_ms,unit,hi,lo
A1,L1,PRESS01,FORCE,siemens,s7://127.0.0.1:PORT,1,DB1.DBD2,FLOAT32,1,0,200,kN,,
A1,L1,PRESS01,RUN,siemens,s7://127.0.0.1:PORT,1,DB1.DBX0.1,BOOL,,,200,,,
A1,L1,PRESS01,BEYOND,siemens,s7://127.0.0.1:PORT,1,DB1.DBW20,INT16,1,0,200,,,
A1,L1,PRESS01,COUNT,siemens,s7://127.0.0.1:PORT,1,MW2,UINT16,0.1,0,200,,,
A1,L1,PRESS01,GONE,siemens,s7://127.0.0.1:PORT,1,DB9.0,INT16,1,0,200,,,
"""


def test_s7_needs_nothing_but_the_entry_point(tmp_path: Path) -> None:
    """Under a name that the agent does not know, from a package: values, and faults kept apart."""
    packages = tmp_path / "site-packages"
    declare(packages, "siemens", "edge_agent.protocols.s7:S7Driver")
    memory = {"DB1": bytes.fromhex("02ff41480000"), "M": bytes.fromhex("0000012c")}
    with S7Server(tmp_path / "cpu", memory) as cpu:
        map_path = tmp_path / "address_map.csv"
        map_path.write_text(S7_MAP.replace("PORT", str(cpu.port)))
        agent = Agent(tmp_path / "agent", map_path, environ={"PYTHONPATH": str(packages)})
        agent.configure([])
        good = {
            "FORCE": ("good", 12.5),
            "RUN": ("good", 1.0),
            "BEYOND": ("bad", None),
            "COUNT": ("good", 30.0),
            "GONE": ("bad", None),
        }
        with agent:
            wait_until(lambda: qualities(agent) == good, "values of the CPU")
            cpu.kill()
            wait_until(
                lambda: {quality for quality, _ in qualities(agent).values()} == {"stale"},
                "stale tags of a CPU that is away",
            )
            cpu.start()
            wait_until(lambda: qualities(agent) == good, "values of the CPU that is back")
    assert agent.exit_code == 0
    assert "Traceback" not in agent.log()


def declare(packages: Path, protocol: str, driver: str) -> None:
    """What an installed package leaves behind for its entry point to be found."""
    facts = packages / f"{protocol}_driver-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {protocol}-driver\nVersion: 1.0\n"
    )
    (facts / "entry_points.txt").write_text(f"[edge_agent.protocols]\n{protocol} = {driver}\n")


def delivered(agent: Agent) -> int:
    """Samples that the store has for good."""
    status = agent.status()
    return int(status["sinks"][0]["delivered"]) if status and status["sinks"] else 0


def test_a_driver_that_breaks_on_import_costs_its_own_rows(
    installed: Installed, tmp_path: Path
) -> None:
    """A package that can't be imported is a problem of the rows that name its protocol only."""
    broken = tmp_path / "site-packages"
    declare(broken, "broken", "broken_driver:BrokenDriver")
    (broken / "broken_driver.py").write_text("import no_such_library\n")
    both = Installed(installed.sources, Path(f"{installed.target}{os.pathsep}{broken}"))
    assert both.check_map().returncode == 0
    path = installed.sources / "broken.csv"
    path.write_text(FILES["address_map.csv"].replace("DOOR,thermometer,", "DOOR,broken,"))
    done = both.run(agent_program(), "check", "--map", path.name)
    assert done.returncode == 2
    assert done.stdout + done.stderr == (
        "edge-agent: broken.csv: 1 problem\n"
        "  line 2, column protocol, 'broken': protocol 'broken' can't be loaded from package"
        " broken-driver: ModuleNotFoundError: No module named 'no_such_library'\n"
    )
